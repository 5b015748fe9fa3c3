//! The flame graph of a hunt: inferno's, with a style for narrow windows, dark screens and eyes that need contrast.

use inferno::flamegraph::{
    self, Palette, TextTruncateDirection,
    color::{BackgroundColor, BasicPalette, Color},
};

use crate::display::palette::{INK, PAPER};

/// Short enough for a narrow window.
const TITLE: &str = "Where stuck sockets were opened";

/// What is below the title of the picture.
pub(super) struct Note {
    /// For windows with room for about 140 characters, without characters that XML reserves.
    pub(super) wide: String,
    /// For windows of 400 pixels.
    pub(super) narrow: String,
}

/// Writes the picture of these folded stacks.
pub(super) fn write(lines: &[String], note: &Note, out: &mut Vec<u8>) {
    let picture = if lines.is_empty() { without_paths(note) } else { with_paths(lines, note) };
    let subtitle = "<text id=\"subtitle\"";
    let narrow = format!(
        "<text id=\"narrow\" text-anchor=\"middle\" x=\"50%\" y=\"48\" display=\"none\">{}</text>{subtitle}",
        note.narrow
    );
    let picture = picture
        .replacen("</style>", &format!("{READABLE}</style>{}", style()), 1)
        .replacen(subtitle, &narrow, 1)
        // LibreOffice knows no classes, and would show the hint.
        .replacen("class=\"hide\"", "class=\"hide\" display=\"none\"", 1);
    out.extend_from_slice(picture.as_bytes());
}

fn with_paths(lines: &[String], note: &Note) -> String {
    let mut options = flamegraph::Options::default();
    options.title = TITLE.into();
    options.subtitle = Some(note.wide.clone());
    options.count_name = "sockets".into();
    // Texts are black: the default colours are too dark for them.
    options.colors = Palette::Basic(BasicPalette::Orange);
    options.bgcolors = Some(BackgroundColor::Flat(Color::new(255, 255, 255)));
    options.text_truncate_direction = TextTruncateDirection::Right;
    options.deterministic = true;
    let mut picture = Vec::new();
    // The only error is that there are no lines, and writing to a vector does not fail.
    let _ = flamegraph::from_lines(&mut options, lines.iter().map(String::as_str), &mut picture);
    String::from_utf8_lossy(&picture).into_owned()
}

/// The picture where no path is known.
fn without_paths(note: &Note) -> String {
    let (paper, ink) = (PAPER.light, INK.light);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1200\" height=\"80\" font-family=\"monospace\" font-size=\"12\" \
         text-anchor=\"middle\" fill=\"{ink}\"><style></style><rect width=\"100%\" height=\"80\" fill=\"{paper}\"/>\
         <text id=\"title\" x=\"50%\" y=\"24\" font-size=\"17\">{TITLE}</text>\
         <text id=\"subtitle\" x=\"50%\" y=\"48\">{}</text></svg>\n",
        note.wide
    )
}

/// Overrides the style of inferno, in which the hint of the search and the callers of a zoomed frame are pale.
const READABLE: &str = "\n#search{opacity:1;text-decoration:underline}\n.parent{opacity:.8}\n";

/// Follows the width and the theme of a browser. Other viewers do not understand these rules, and show the picture without them:
/// Inkscape leaves out this whole element, and LibreOffice leaves out values with variables.
fn style() -> String {
    format!(
        "<style>@supports(color:var(--ink)){{svg{{--ink:{};--paper:{}}}\n\
         @media screen and (prefers-color-scheme:dark){{svg{{--ink:{};--paper:{}}}}}\n\
         svg>rect{{fill:var(--paper)}}#title,#subtitle,#narrow,#details,#unzoom,#search,#matched{{fill:var(--ink)}}\n\
         svg:root{{width:100%}}#unzoom:not(.hide){{display:inline}}\n\
         @media(max-width:1040px){{#subtitle{{display:none}}#narrow{{display:inline}}}}\n\
         @media(max-width:560px){{#title{{font-size:12px}}}}}}</style>",
        INK.light, PAPER.light, INK.dark, PAPER.dark
    )
}
