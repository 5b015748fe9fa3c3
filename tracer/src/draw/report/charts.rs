//! Charts: one panel for each state, with an axis of its own, so that few leaking connections are as visible as many in
//! TIME_WAIT.

use std::{collections::BTreeMap, fmt::Write};

use super::{length_ns, stuck_until_ns};
use crate::{
    display::{
        duration, number,
        palette::{self, Shade},
    },
    draw::{
        scale::{counts, ticks},
        theme::{fill, frame, stroke},
    },
    model::{Role, State},
    story::{ConnHistory, Story, Times},
};

/// Number of points in a curve.
const POINTS: usize = 240;
/// Units of a panel, and of its plot within; the script knows them, too.
const WIDTH: f64 = 300.0;
const LEFT: f64 = 42.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 92.0;

/// The number of connections of one kind over time.
struct Series {
    /// The largest number within each part of the time.
    peaks: Vec<u64>,
    most: u64,
    last: u64,
}

impl Series {
    /// From the spans in which connections were of the kind, ns after the beginning. A span without an end lasts.
    fn of(spans: &[(u64, Option<u64>)], length_ns: u64) -> Self {
        let length_ns = length_ns.max(1);
        let begins = spans.iter().map(|(begin_ns, _)| (*begin_ns, 1));
        let ends = spans.iter().filter_map(|(begin_ns, end_ns)| Some(((*end_ns)?.max(*begin_ns), -1)));
        let mut changes: Vec<(u64, i64)> = begins.chain(ends).collect();
        // A state of length 0 counts: its beginning comes first.
        changes.sort_unstable_by_key(|(at_ns, change)| (*at_ns, -change));
        let mut peaks = vec![0; POINTS];
        let (mut now, mut most, mut part) = (0_u64, 0, 0);
        for (at_ns, change) in changes {
            let at = (u128::from(at_ns.min(length_ns)) * POINTS as u128 / u128::from(length_ns)) as usize;
            let at = at.min(POINTS - 1);
            if at > part {
                peaks[part + 1..=at].fill(now);
                part = at;
            }
            now = now.saturating_add_signed(change);
            peaks[part] = peaks[part].max(now);
            most = most.max(now);
        }
        peaks[part + 1..].fill(now);
        Self { peaks, most, last: now }
    }
}

/// Connections that were reported as stuck, from the beginning of that state on; empty if there were none.
pub(super) fn stuck(story: &Story) -> String {
    let offset = offset(story);
    let spans: Vec<_> = story
        .histories
        .values()
        .filter_map(|history| {
            let stuck = history.stuck.as_ref()?;
            let states = history.states();
            let is_its_state =
                |(state, begin_ns): &&(State, i64)| *state == stuck.state && *begin_ns <= stuck.time_ns;
            let begin_ns =
                states.iter().rev().find(is_its_state).map_or(stuck.time_ns, |(_, begin_ns)| *begin_ns);
            let end_ns = (!history.is_stuck).then(|| offset(stuck_until_ns(history, stuck.time_ns, story)));
            Some((offset(begin_ns), end_ns))
        })
        .collect();
    if spans.is_empty() {
        return String::new();
    }
    let series = Series::of(&spans, length_ns(story));
    let title = "Connections that got stuck";
    format!(
        "<div class=\"panels wide\">{}</div>\n<p class=\"dim\">Counted from the beginning of the state in which they got stuck.</p>\n",
        panel(title, palette::STUCK, &series, story)
    )
}

/// A panel for each state that a connection was in.
pub(super) fn states(story: &Story) -> String {
    let offset = offset(story);
    let mut spans: BTreeMap<&str, Vec<(u64, Option<u64>)>> = BTreeMap::new();
    for history in story.histories.values() {
        let states = history.states();
        for (at, (state, begin_ns)) in states.iter().enumerate() {
            let end_ns = states.get(at + 1).map(|(_, end_ns)| offset(*end_ns));
            spans.entry(state.name()).or_default().push((offset(*begin_ns), end_ns));
        }
    }
    let mut out = String::from("<div class=\"panels\">");
    for state in palette::ORDER {
        if let Some(spans) = spans.get(state.name()) {
            let series = Series::of(spans, length_ns(story));
            out.push_str(&panel(state.name(), palette::of(state).shade, &series, story));
        }
    }
    out.push_str("</div>\n<p class=\"dim\">Each state has its own vertical axis.</p>\n");
    out
}

/// Times as ns after the beginning.
fn offset(story: &Story) -> impl Fn(i64) -> u64 {
    let begin_ns = story.begin_ns;
    move |time_ns| u64::try_from(time_ns.saturating_sub(begin_ns)).unwrap_or(0)
}

fn panel(title: &str, shade: Shade, series: &Series, story: &Story) -> String {
    let length_ns = length_ns(story).max(1);
    let marks = counts(series.most);
    let top = marks.last().copied().unwrap_or(1).max(1);
    let x = |at: f64| LEFT + at * (WIDTH - LEFT - 12.0);
    let y = |count: u64| BOTTOM - count as f64 / top as f64 * (BOTTOM - TOP);
    let mut out = format!(
        "<figure class=\"panel\" data-ns=\"{length_ns}\" data-v=\"{}\"><figcaption><b>{title}</b><span>at most {}, {} at the end</span>\
         </figcaption><svg viewBox=\"0 0 {WIDTH} 116\" role=\"img\" aria-label=\"{title} over time\">",
        series.peaks.iter().map(u64::to_string).collect::<Vec<_>>().join(","),
        number(series.most),
        number(series.last)
    );
    for mark in &marks {
        let y = y(*mark);
        // Writing to a string does not fail.
        let _ = write!(
            out,
            "<path {} d=\"M{LEFT} {y:.1}H{:.1}\"/><text {} font-size=\"11\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            stroke(palette::RULE),
            x(1.0),
            fill(palette::DIM),
            LEFT - 5.0,
            y + 4.0,
            number(*mark)
        );
    }
    out.push_str(&time_marks(length_ns, x));
    let mut points = format!("M{:.1} {BOTTOM}", x(0.0));
    for (at, count) in series.peaks.iter().enumerate() {
        let part = |at: usize| at as f64 / POINTS as f64;
        let _ = write!(points, "V{:.1}H{:.1}", y(*count), x(part(at + 1)));
    }
    let _ = writeln!(
        out,
        "<path {} stroke-width=\"0.8\" d=\"{points}V{BOTTOM}Z\"/><path class=\"at\" d=\"M0 {TOP}V{BOTTOM}\"/></svg></figure>",
        // A peak that is shorter than a pixel would be pale without the line.
        frame(shade, shade)
    );
    out
}

/// The horizontal axis: times at round distances.
fn time_marks(length_ns: u64, x: impl Fn(f64) -> f64) -> String {
    let length = i64::try_from(length_ns).unwrap_or(i64::MAX);
    let mut out = String::new();
    for offset in ticks(length, 3) {
        let at = x(offset as f64 / length as f64);
        let label = if offset == 0 { "0".to_owned() } else { duration(offset.unsigned_abs()) };
        let _ = write!(
            out,
            "<path {} d=\"M{at:.1} {BOTTOM}v4\"/><text {} font-size=\"11\" text-anchor=\"{}\" x=\"{at:.1}\" y=\"{:.1}\">{label}</text>",
            stroke(palette::LINE),
            fill(palette::DIM),
            if at > WIDTH - 30.0 { "end" } else { "middle" },
            BOTTOM + 18.0
        );
    }
    out
}

/// A histogram of the times in each state. All have the same horizontal axis.
pub(super) fn dwell(story: &Story) -> String {
    let mut all: Vec<(State, BTreeMap<u32, u64>, u64, u64)> = Vec::new();
    for state in palette::ORDER {
        let mut buckets: BTreeMap<u32, u64> = BTreeMap::new();
        let (mut count, mut longest_ns) = (0, 0);
        for (_, stats) in story.edges.iter().filter(|((from, _), _)| *from == state.name()) {
            for (end_ns, times) in stats.times.buckets() {
                *buckets.entry(power(end_ns)).or_default() += times;
            }
            count += stats.times.count();
            longest_ns = longest_ns.max(stats.times.longest_ns());
        }
        if count > 0 {
            all.push((state, buckets, count, longest_ns));
        }
    }
    let powers = || all.iter().flat_map(|(_, buckets, ..)| buckets.keys().copied());
    let (Some(first), Some(last)) = (powers().min(), powers().max()) else {
        return "<p>No state was seen from its beginning to its end.</p>\n".to_owned();
    };
    let mut out = String::from("<div class=\"panels\">");
    for (state, buckets, count, longest_ns) in &all {
        let look = (state.name(), palette::of(*state).shade);
        out.push_str(&histogram(look, buckets, (*count, *longest_ns), (first, last + 1)));
    }
    out.push_str(
        "</div>\n<p class=\"dim\">Each column stands for times up to twice as long as those of the column before. Only states \
         that were seen from their beginning to their end.</p>\n",
    );
    out
}

/// The times of the handshakes, for each side that this host was on; empty if none is known.
pub(super) fn handshakes(story: &Story) -> String {
    const SIDES: [(Role, &str, State); 2] =
        [(Role::Client, "as the client", State::SynSent), (Role::Server, "as the server", State::SynRecv)];
    let sides = SIDES.map(|(role, title, state)| {
        let of_role = story.histories.values().filter(|history| history.role == Some(role));
        let mut times = Times::default();
        of_role.filter_map(ConnHistory::handshake_ns).for_each(|ns| times.add(ns));
        (title, palette::of(state).shade, times)
    });
    let powers = || sides.iter().flat_map(|(.., times)| times.buckets()).map(|(end_ns, _)| power(end_ns));
    let (Some(first), Some(last)) = (powers().min(), powers().max()) else { return String::new() };
    let mut out = String::from("<div class=\"panels\">");
    let mut notes = String::new();
    for (title, shade, times) in sides.iter().filter(|(.., times)| times.count() > 0) {
        let mut buckets: BTreeMap<u32, u64> = BTreeMap::new();
        for (end_ns, count) in times.buckets() {
            *buckets.entry(power(end_ns)).or_default() += count;
        }
        let facts = (times.count(), times.longest_ns());
        out.push_str(&histogram((title, *shade), &buckets, facts, (first, last + 1)));
        let quantile = |share| times.quantile_ns(share).map(duration).unwrap_or_default();
        // Writing to a string does not fail.
        let _ = writeln!(
            notes,
            "<p>Of the handshakes {title}, half took up to {}, and 99 % up to {}.</p>",
            quantile(0.5),
            quantile(0.99)
        );
    }
    out.push_str("</div>\n");
    out + &notes
}

/// The column of the times up to `end_ns`.
fn power(end_ns: u64) -> u32 {
    end_ns.max(1).ilog2()
}

fn histogram(
    (title, shade): (&str, Shade),
    buckets: &BTreeMap<u32, u64>,
    (count, longest_ns): (u64, u64),
    (first, last): (u32, u32),
) -> String {
    let marks = counts(buckets.values().copied().max().unwrap_or(1));
    let top = marks.last().copied().unwrap_or(1).max(1) as f64;
    let x = |power: f64| LEFT + (power - f64::from(first)) / f64::from(last - first) * (WIDTH - LEFT - 12.0);
    let mut out = format!(
        "<figure class=\"panel\"><figcaption><b>{title}</b><span>{0} times, at most {1}</span></figcaption>\
         <svg viewBox=\"0 0 {WIDTH} 116\" role=\"img\" aria-label=\"times: {title}\">",
        number(count),
        duration(longest_ns)
    );
    for mark in &marks {
        let y = BOTTOM - *mark as f64 / top * (BOTTOM - TOP);
        let _ = write!(
            out,
            "<path {} d=\"M{LEFT} {y:.1}H{:.1}\"/><text {} font-size=\"11\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            stroke(palette::RULE),
            x(last.into()),
            fill(palette::DIM),
            LEFT - 5.0,
            y + 4.0,
            number(*mark)
        );
    }
    for (power, times) in buckets {
        let (begin, end) = (x((*power).into()), x(f64::from(*power) + 1.0));
        let height = (*times as f64 / top * (BOTTOM - TOP)).max(1.0);
        let _ = write!(
            out,
            "<rect {} x=\"{begin:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\"><title>{times} times: {} to {}</title></rect>",
            fill(shade),
            BOTTOM - height,
            (end - begin - 1.0).max(0.5),
            duration(1 << power),
            duration(1_u64.checked_shl(power + 1).unwrap_or(u64::MAX))
        );
    }
    out.push_str(&decades((first, last), x));
    out.push_str("</svg></figure>\n");
    out
}

/// The horizontal axis: powers of ten, with labels that have room.
fn decades((first, last): (u32, u32), x: impl Fn(f64) -> f64) -> String {
    const NAMES: [&str; 13] = [
        "1ns", "10ns", "100ns", "1us", "10us", "100us", "1ms", "10ms", "100ms", "1s", "10s", "100s", "1000s",
    ];
    let mut out = String::new();
    let mut free_from = 0.0;
    for (exponent, name) in NAMES.iter().enumerate() {
        let power = exponent as f64 * 10_f64.log2();
        if power < first.into() || power > last.into() {
            continue;
        }
        let at = x(power);
        let _ = write!(out, "<path {} d=\"M{at:.1} {BOTTOM}v4\"/>", stroke(palette::LINE));
        let half = name.len() as f64 * 3.6;
        if at - half < free_from {
            continue;
        }
        free_from = at + half + 4.0;
        let (anchor, at) = if at + half > WIDTH { ("end", WIDTH - 1.0) } else { ("middle", at) };
        let _ = write!(
            out,
            "<text {} font-size=\"11\" text-anchor=\"{anchor}\" x=\"{at:.1}\" y=\"{:.1}\">{name}</text>",
            fill(palette::DIM),
            BOTTOM + 18.0
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_has_the_peaks_of_each_part() {
        // Ten at once for a moment, one to the end, and one of length zero.
        let mut spans = vec![(1000, Some(1001)); 9];
        spans.extend([(0, None), (2000, Some(2000))]);
        let series = Series::of(&spans, 240_000);
        assert_eq!((series.most, series.last), (10, 1));
        assert_eq!(series.peaks[..4], [1, 10, 2, 1]);
        assert_eq!(series.peaks[239], 1);
        let none = Series::of(&[], 0);
        assert_eq!((none.most, none.last, none.peaks.len()), (0, 0, POINTS));
        assert_eq!(Series::of(&[(5, None)], 0).last, 1);
    }
}
