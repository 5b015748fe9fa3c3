//! The colours of pictures. Each element has presentation attributes, which every viewer understands; for browsers, CSS
//! variables override them, so that the picture is light or dark as its reader's system.

use std::fmt::Write;

use crate::display::palette::{self, Shade};

/// The font, for an attribute.
pub(super) const FONT: &str = "font-family=\"ui-sans-serif,system-ui,'Segoe UI','DejaVu Sans',sans-serif\"";

/// The attributes of a text or a filled shape.
pub(super) fn fill(shade: Shade) -> String {
    format!("class=\"f-{0}\" fill=\"{1}\"", shade.name, shade.light)
}

/// The attributes of a line.
pub(super) fn stroke(shade: Shade) -> String {
    format!("class=\"s-{0}\" fill=\"none\" stroke=\"{1}\"", shade.name, shade.light)
}

/// The attributes of a frame and its inside.
pub(super) fn frame(inside: Shade, line: Shade) -> String {
    format!(
        "class=\"f-{0} s-{1}\" fill=\"{2}\" stroke=\"{3}\"",
        inside.name, line.name, inside.light, line.light
    )
}

/// The CSS variables, for the elements that `selector` selects.
pub(super) fn variables(selector: &str) -> String {
    let all = |value: fn(Shade) -> &'static str| -> String {
        palette::shades().map(|shade| format!("--{}:{};", shade.name, value(shade))).collect()
    };
    let (light, dark) = (all(|shade| shade.light), all(|shade| shade.dark));
    // Paper is white.
    format!("{selector}{{{light}}}@media screen and (prefers-color-scheme:dark){{{selector}{{{dark}}}}}\n")
}

/// The rules that let the variables override the attributes.
pub(super) fn rules() -> String {
    palette::shades().fold(String::new(), |mut out, Shade { name, .. }| {
        // Writing to a string does not fail.
        let _ = write!(out, ".f-{name}{{fill:var(--{name})}}.s-{name}{{stroke:var(--{name})}}");
        out
    })
}

/// The start of a picture of this size: its style, its background and its title.
pub(super) fn svg((width, height): (f64, f64), class: &str, title: &str) -> String {
    let title = super::escape(title);
    // Viewers that know no variables skip the rules: they know no @supports either.
    format!(
        "<svg class=\"{class}\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" role=\"img\" aria-label=\"{title}\" {FONT} font-size=\"12\"><style>\
         @supports(color:var(--ink)){{{}{}}}</style>\n<rect {} width=\"{width:.0}\" height=\"{height:.0}\"/>\n",
        variables(&format!(".{class}")),
        rules(),
        fill(palette::PAPER),
    )
}

/// Pixels from one line of a title to the next.
const TITLE_LINE: f64 = 20.0;

/// A title in lines of at most `most` characters. A longer word, such as a path, keeps its end.
pub(super) fn wrapped(title: &str, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in title.split_whitespace() {
        let length = word.chars().count();
        match lines.last_mut() {
            Some(line) if line.chars().count() + length < most => {
                line.push(' ');
                line.push_str(word);
            }
            _ if length > most => {
                let end: String = word.chars().skip(length + 3 - most).collect();
                lines.push(format!("...{end}"));
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The lines of a title, from the top of the picture on.
pub(super) fn title(lines: &[String], margin: f64) -> String {
    let line = |(at, line): (usize, &String)| {
        format!(
            "<text {} font-size=\"16\" font-weight=\"600\" x=\"{margin}\" y=\"{:.0}\">{}</text>\n",
            fill(palette::INK),
            margin + 14.0 + at as f64 * TITLE_LINE,
            super::escape(line)
        )
    };
    lines.iter().enumerate().map(line).collect()
}

/// The height of these lines, with the distance to what is below them.
pub(super) fn title_height(lines: &[String]) -> f64 {
    if lines.is_empty() { 0.0 } else { lines.len() as f64 * TITLE_LINE + 10.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_wrapped_and_keep_the_end_of_a_path() {
        assert_eq!(wrapped("", 10), Vec::<String>::new());
        assert_eq!(wrapped("one two three", 8), ["one two", "three"]);
        assert_eq!(wrapped("a /long/path/name", 9), ["a", "...h/name"]);
    }

    #[test]
    fn every_shade_has_an_attribute_and_a_variable() {
        let css = variables(".x") + &rules();
        for shade in palette::shades() {
            let used = format!(".f-{0}{{fill:var(--{0})}}", shade.name);
            assert!(css.contains(&used), "{css}");
            assert!(css.contains(&format!("--{}:{};", shade.name, shade.light)), "{css}");
            assert!(css.contains(&format!("--{}:{};", shade.name, shade.dark)), "{css}");
        }
        assert_eq!(fill(palette::INK), "class=\"f-ink\" fill=\"#1f2328\"");
    }
}
