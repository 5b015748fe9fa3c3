//! The one palette of tables, pictures and screens. The states' colours were chosen so that people with any kind of colour
//! blindness tell them apart, on a light and on a dark background; letters serve where there are no colours.

use crate::model::State;

/// A colour of pages and pictures, on a light and on a dark background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shade {
    /// The name of its CSS variable.
    pub name: &'static str,
    pub light: &'static str,
    pub dark: &'static str,
}

const fn shade(name: &'static str, light: &'static str, dark: &'static str) -> Shade {
    Shade { name, light, dark }
}

/// Text.
pub const INK: Shade = shade("ink", "#1f2328", "#e6edf3");
/// Less important text.
pub const DIM: Shade = shade("dim", "#59636e", "#9198a1");
/// The background.
pub const PAPER: Shade = shade("paper", "#ffffff", "#0d1117");
/// The background of boxes and cards.
pub const BOX: Shade = shade("box", "#f6f8fa", "#161b22");
/// Lines of drawings.
pub const LINE: Shade = shade("line", "#57606a", "#9198a1");
/// Lines of drawings that stand for what did not happen.
pub const FAINT: Shade = shade("faint", "#858c94", "#626970");
/// Lines between rows; nothing depends on them.
pub const RULE: Shade = shade("rule", "#d0d7de", "#30363d");
/// What is stuck: text and frames.
pub const STUCK: Shade = shade("stuck", "#b34700", "#ff9e64");
/// The path of one connection.
pub const PATH: Shade = shade("path", "#0072b2", "#56b4e9");

/// The shades of pages and pictures, except those of states.
pub const PAGE: [Shade; 9] = [INK, DIM, PAPER, BOX, LINE, FAINT, RULE, STUCK, PATH];

/// The style of a state.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// For pages and pictures.
    pub shade: Shade,
    /// For terminals: parameters of SGR. A terminal shows these colours as its theme defines them. Green is left out, because
    /// colour-blind people mix it up with red and yellow. CLOSE_WAIT is bold, so that brightness shows it, too.
    pub sgr: &'static str,
    /// The letter, for output without colours.
    pub letter: char,
}

const fn style(shade: Shade, sgr: &'static str, letter: char) -> Style {
    Style { shade, sgr, letter }
}

#[must_use]
pub const fn of(state: State) -> Style {
    match state {
        State::Listen => style(shade("listen", "#151d34", "#e4f1ff"), "0", '-'),
        State::SynSent => style(shade("syn_sent", "#2790d0", "#1194e1"), "36", 's'),
        State::SynRecv | State::NewSynRecv => style(shade("syn_recv", "#022b98", "#2665c6"), "36", 'r'),
        State::Established => style(shade("established", "#187964", "#4fdcac"), "94", '='),
        State::FinWait1 => style(shade("fin_wait1", "#a15d03", "#dea32d"), "33", '1'),
        State::FinWait2 => style(shade("fin_wait2", "#4e4f00", "#fcd508"), "33", '2'),
        State::Closing => style(shade("closing", "#7e4ea4", "#bdb2fd"), "33", 'c'),
        State::TimeWait => style(shade("time_wait", "#8f8d8c", "#9c9792"), "2", '.'),
        State::CloseWait => style(shade("close_wait", "#d97131", "#e54a08"), "1;31", 'W'),
        State::LastAck => style(shade("last_ack", "#7e1755", "#965077"), "35", 'L'),
        State::Close => style(INK, "2", ' '),
        State::Unknown(_) => style(INK, "1;31", '?'),
    }
}

/// What is stuck, on a terminal.
pub const STUCK_SGR: &str = "1;31";

/// The states in the order of a connection, for legends.
pub const ORDER: [State; 10] = [
    State::Listen,
    State::SynSent,
    State::SynRecv,
    State::Established,
    State::FinWait1,
    State::FinWait2,
    State::Closing,
    State::CloseWait,
    State::LastAck,
    State::TimeWait,
];

/// All shades.
pub fn shades() -> impl Iterator<Item = Shade> {
    PAGE.into_iter().chain(ORDER.into_iter().map(|state| of(state).shade))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red, green and blue, linear, from 0 to 1.
    type Light = [f64; 3];

    fn light(colour: &str) -> Light {
        let byte = |at: usize| u8::from_str_radix(&colour[at..at + 2], 16).expect("a colour");
        [1, 3, 5].map(|at| {
            let value = f64::from(byte(at)) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        })
    }

    /// The contrast ratio of WCAG 2.2.
    fn contrast(one: &str, other: &str) -> f64 {
        let luminance = |colour| {
            let [red, green, blue] = light(colour);
            0.2126 * red + 0.7152 * green + 0.0722 * blue
        };
        let (one, other) = (luminance(one), luminance(other));
        (one.max(other) + 0.05) / (one.min(other) + 0.05)
    }

    fn times(matrix: [Light; 3], light: Light) -> Light {
        matrix.map(|row| row[0] * light[0] + row[1] * light[1] + row[2] * light[2])
    }

    /// Full colour vision, then protanopia, deuteranopia and tritanopia (Machado, Oliveira and Fernandes, 2009).
    const EYES: [[Light; 3]; 4] = [
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
    ];

    /// The distance of two colours for the eyes that see it least, in Oklab.
    fn distance(one: &str, other: &str) -> f64 {
        let seen = |colour: &str, eyes: [Light; 3]| {
            let light = times(eyes, light(colour)).map(|value| value.clamp(0.0, 1.0));
            let cones = times(
                [
                    [0.4122214708, 0.5363325363, 0.0514459929],
                    [0.2119034982, 0.6806995451, 0.1073969566],
                    [0.0883024619, 0.2817188376, 0.6299787005],
                ],
                light,
            );
            times(
                [
                    [0.2104542553, 0.793617785, -0.0040720468],
                    [1.9779984951, -2.428592205, 0.4505937099],
                    [0.0259040371, 0.7827717662, -0.808675766],
                ],
                cones.map(f64::cbrt),
            )
        };
        let of = |eyes| {
            let (one, other) = (seen(one, eyes), seen(other, eyes));
            one.iter().zip(other).map(|(one, other)| (one - other).powi(2)).sum::<f64>().sqrt()
        };
        EYES.into_iter().map(of).fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn texts_and_drawings_have_the_contrast_of_wcag_aa() {
        // 1.4.3: text has 4.5. 1.4.11: graphical objects have 3.
        let states = ORDER.map(|state| of(state).shade);
        let texts = [INK, DIM, STUCK, PATH].map(|shade| (shade, 4.5));
        let objects = [LINE, FAINT].into_iter().chain(states).map(|shade| (shade, 3.0));
        for (shade, least) in texts.into_iter().chain(objects) {
            for behind in [PAPER, BOX] {
                for (one, other) in [(shade.light, behind.light), (shade.dark, behind.dark)] {
                    let found = contrast(one, other);
                    assert!(found >= least, "{}: {one} on {other}: {found:.2}", shade.name);
                }
            }
        }
        assert!(contrast("#f0e442", "#ffffff") < 3.0 && contrast("#000000", "#ffffff") > 20.9);
    }

    #[test]
    fn colour_blind_people_tell_the_states_apart() {
        const LEAST: f64 = 0.08;
        for (at, one) in ORDER.iter().enumerate() {
            for other in &ORDER[at + 1..] {
                let (first, second) = (of(*one).shade, of(*other).shade);
                for found in [distance(first.light, second.light), distance(first.dark, second.dark)] {
                    assert!(found >= LEAST, "{one} and {other}: {found:.3}");
                }
            }
        }
        // Red and green of the same lightness would fail.
        assert!(distance("#b34700", "#5e6f00") < LEAST);
    }

    #[test]
    fn terminals_show_no_two_colours_that_colour_blind_people_mix_up() {
        // The default colours of xterm.
        let colour = |sgr: &str| match sgr {
            "0" => "#e5e5e5",
            "2" => "#7f7f7f",
            "1;31" => "#ff0000",
            "33" => "#cdcd00",
            "35" => "#cd00cd",
            "36" => "#00cdcd",
            "94" => "#5c5cff",
            other => panic!("{other} has no known colour"),
        };
        let mut all: Vec<&str> = ORDER.iter().map(|state| of(*state).sgr).collect();
        all.sort_unstable();
        all.dedup();
        for (at, one) in all.iter().enumerate() {
            for other in &all[at + 1..] {
                let found = distance(colour(one), colour(other));
                assert!(found >= 0.08, "{one} and {other}: {found:.3}");
            }
        }
        // The usual pair for good and bad.
        assert!(distance("#cd0000", "#00cd00") < distance(colour("1;31"), colour("94")));
    }
}
