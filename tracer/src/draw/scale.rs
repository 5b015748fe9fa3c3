//! Axes: tick marks at round values.

/// Tick marks from 0 to `length` at round distances, about `about` of them; at least 0 and one more if `length` allows.
pub(super) fn ticks(length: i64, about: i64) -> Vec<i64> {
    let step = round_step(length / about.max(1));
    (0_i64..).map_while(|at| at.checked_mul(step)).take_while(|offset| *offset <= length).collect()
}

/// The next 1, 2 or 5 with zeros; for times also the next round number of minutes, hours or days.
fn round_step(ns: i64) -> i64 {
    const MINUTE: i64 = 60_000_000_000;
    const LONG: [i64; 14] = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10_080];
    let ns = ns.max(1);
    if let Some(step) = LONG.into_iter().map(|minutes| minutes * MINUTE).find(|step| *step >= ns)
        && ns > MINUTE / 2
    {
        return step;
    }
    if ns > 20_000_000_000 && ns <= MINUTE / 2 {
        return MINUTE / 2;
    }
    let power = 10_i64.pow(ns.ilog10());
    [1, 2, 5, 10]
        .into_iter()
        .filter_map(|factor| power.checked_mul(factor))
        .find(|step| *step >= ns)
        .unwrap_or(power)
}

/// Tick marks for a count, from 0 on; the last one is at least `most`.
pub(super) fn counts(most: u64) -> Vec<u64> {
    let most = i64::try_from(most.max(1)).unwrap_or(i64::MAX);
    let power = 10_i64.pow((most + 1).div_euclid(2).max(1).ilog10());
    let mut steps = [1, 2, 5, 10].into_iter().map(|factor| power.saturating_mul(factor));
    let step = steps.find(|step| step.saturating_mul(2) >= most).unwrap_or(power).unsigned_abs();
    (0..=2)
        .map(|at| step.saturating_mul(at))
        .take_while(|mark| *mark < most.unsigned_abs().saturating_add(step))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        const SECOND: i64 = 1_000_000_000;
        for (ns, step) in [
            (1, 1),
            (3, 5),
            (11, 20),
            (999, 1000),
            (1000, 1000),
            (6_000_000, 10_000_000),
            (21 * SECOND, 30 * SECOND),
            (40 * SECOND, 60 * SECOND),
            (700 * SECOND, 900 * SECOND),
            (10_000 * SECOND, 10_800 * SECOND),
        ] {
            assert_eq!(round_step(ns), step);
        }
        assert!(round_step(i64::MAX) > 0);
        assert_eq!(ticks(4_500, 5), [0, 1000, 2000, 3000, 4000]);
    }

    #[test]
    fn counts_reach_the_largest() {
        for (most, marks) in [
            (0, vec![0, 1]),
            (1, vec![0, 1]),
            (2, vec![0, 1, 2]),
            (3, vec![0, 2, 4]),
            (70, vec![0, 50, 100]),
            (199, vec![0, 100, 200]),
        ] {
            assert_eq!(counts(most), marks, "{most}");
        }
    }
}
