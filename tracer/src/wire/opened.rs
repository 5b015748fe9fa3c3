//! The call path that a connection was opened from.

use serde::{Deserialize, Serialize};

use super::{Text, cuts::Cuts, names::named};
#[cfg(feature = "schema")]
use crate::model::Unnamed;
use crate::model::{self, OpenedBy, Stack, bounds};

/// The value of `opening` if the call path is known.
pub(super) const SEEN: &str = "seen";

/// The call path that opened a connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Opened<'a> {
    /// The system call that opened the connection.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(with = "OpenedBy"))]
    pub by: Text<'a>,
    /// The name of the process.
    #[cfg_attr(feature = "schema", schemars(required, length(max = bounds::NAME)))]
    pub comm: Option<Text<'a>>,
    /// True if the outermost frame was reached.
    #[cfg_attr(feature = "schema", schemars(required))]
    pub complete: Option<bool>,
    /// The frames of the call path, the innermost first.
    #[cfg_attr(feature = "schema", schemars(with = "Vec<Frame<'a>>", length(max = bounds::FRAMES.items)))]
    pub frames: Option<Vec<Frame<'a>>>,
    /// The identity of the call path: the same for the same call path.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = "^[0-9a-f]{16}$")))]
    pub path: Text<'a>,
}

impl<'a> Opened<'a> {
    pub(super) fn new(stack: &'a Stack, cuts: &mut Cuts) -> Self {
        Self {
            by: stack.by.name().into(),
            comm: Some(stack.comm.as_str().into()),
            complete: Some(stack.complete),
            frames: Some(cuts.list("opened.frames", stack.frames.iter(), bounds::FRAMES, Frame::new)),
            path: format!("{:016x}", stack.id).into(),
        }
    }

    /// `None` if a key is missing that a path must have.
    #[must_use]
    pub fn stack(&self) -> Option<Stack> {
        let frames = self.frames.as_ref()?.iter().take(bounds::FRAMES.items);
        Some(Stack {
            id: u64::from_str_radix(&self.path, 16).ok()?,
            by: named(&self.by).unwrap_or(OpenedBy::Accept),
            comm: bounds::kept(self.comm.as_ref()?, bounds::NAME).to_owned(),
            frames: frames.map(Frame::frame).collect(),
            complete: self.complete?,
        })
    }
}

/// One function of a call path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Frame<'a> {
    /// The source file; null if it is not known.
    #[serde(borrow)]
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::PATH)))]
    pub file: Option<Text<'a>>,
    /// The name of the function; null if it is not known.
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::FUNCTION)))]
    pub function: Option<Text<'a>>,
    /// The interpreter that the frame itself belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::NAME)))]
    pub interpreter: Option<Text<'a>>,
    /// The language of a function that an interpreter runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(extend("enum" = ["python"])))]
    pub language: Option<Text<'a>>,
    /// The line in the source file; null if it is not known.
    pub line: Option<u32>,
    /// The file that is mapped at the frame; null if there is none.
    #[cfg_attr(feature = "schema", schemars(length(max = bounds::PATH)))]
    pub module: Option<Text<'a>>,
    /// The offset in the module's file; the address if there is no module.
    pub offset: u64,
    /// Why `function` is null.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Unnamed>"))]
    pub unnamed: Option<Text<'a>>,
}

impl<'a> Frame<'a> {
    fn new(frame: &'a model::Frame, cuts: &mut Cuts) -> Self {
        let mut text = |field, text: &'a Option<String>, most| {
            text.as_deref().map(|text| cuts.text(field, text, most).into())
        };
        let interpreter = frame.interpreter.as_deref();
        Self {
            function: text("opened.frames[].function", &frame.function, bounds::FUNCTION),
            file: text("opened.frames[].file", &frame.file, bounds::PATH),
            line: frame.line,
            module: text("opened.frames[].module", &frame.module, bounds::PATH),
            offset: frame.offset,
            unnamed: frame.unnamed.map(|why| why.name().into()),
            interpreter: interpreter.map(|name| bounds::shown(name, bounds::NAME).0.into()),
            language: frame.language.map(Text::from),
        }
    }

    fn frame(&self) -> model::Frame {
        let text =
            |text: &Option<Text<'_>>, most| text.as_deref().map(|text| bounds::kept(text, most).to_owned());
        model::Frame {
            function: text(&self.function, bounds::FUNCTION),
            file: text(&self.file, bounds::PATH),
            line: self.line,
            module: text(&self.module, bounds::PATH),
            offset: self.offset,
            unnamed: self.unnamed.as_deref().and_then(named),
            interpreter: text(&self.interpreter, bounds::NAME),
            language: (self.language.as_deref() == Some("python")).then_some("python"),
        }
    }
}
