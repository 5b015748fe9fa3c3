//! The call path that a connection was opened from.

use serde::{Deserialize, Serialize};

use super::{Text, cuts::Cuts, names::named};
use crate::model::{self, OpenedBy, Stack, bounds};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Opened<'a> {
    #[serde(borrow)]
    pub by: Text<'a>,
    pub comm: Option<Text<'a>>,
    pub complete: Option<bool>,
    pub frames: Option<Vec<Frame<'a>>>,
    /// The path's id.
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
#[serde(default)]
pub struct Frame<'a> {
    #[serde(borrow)]
    pub file: Option<Text<'a>>,
    pub function: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interpreter: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<Text<'a>>,
    pub line: Option<u32>,
    pub module: Option<Text<'a>>,
    pub offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
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
