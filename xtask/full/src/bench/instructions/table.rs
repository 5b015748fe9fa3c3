//! The table for people.

use std::fmt::Write;

use super::rows::Row;

const HEAD: &str = "\
| tracer | connections end by | output | instructions | added | of untraced | tracer's own | kernel | own for a transition | boots differ by |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
";

/// A table in Markdown. A number is for one connection. The kernel's is what was added and is not the tracer's own.
pub(super) fn text(rows: &[Row]) -> String {
    let mut text = HEAD.to_owned();
    for row in rows {
        let best = row.best();
        let _ =
            write!(text, "| {} | {} | {} | {} ", row.run.name, row.ends, row.run.output, number(best.all));
        let _ = match row.added(rows) {
            Some(added) if !row.run.is_untraced() => write!(
                text,
                "| {} | +{:.1} % | {} | {} | {} ",
                number(added),
                added / (best.all - added) * 100.0,
                number(best.tracer),
                number(added - best.tracer),
                number(best.tracer / row.ends.transitions())
            ),
            _ => write!(text, "| - | - | - | - | - "),
        };
        let _ = writeln!(text, "| {:.2} % |", row.differ() * 100.0);
    }
    text
}

/// A rounded number, with a comma before each three digits.
fn number(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    if value <= -0.5 {
        text.push('-');
    }
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{
        super::rows::{Ends, tests::row},
        *,
    };

    #[test]
    fn each_row_is_compared_with_its_own_kind_of_connections() {
        let rows = [
            row(0, Ends::Fin, &[(100_000.0, 0.0), (100_100.0, 0.0)]),
            row(0, Ends::Rst, &[(80_000.0, 0.0)]),
            row(9, Ends::Fin, &[(143_000.0, 30_900.0)]),
            row(10, Ends::Rst, &[(120_000.0, 24_000.4)]),
        ];
        let expected = format!(
            "{HEAD}\
| no tracer | FIN | /dev/null | 100,000 | - | - | - | - | - | 0.10 % |
| no tracer | RST | /dev/null | 80,000 | - | - | - | - | - | 0.00 % |
| fentry | FIN | /dev/null | 143,000 | 43,000 | +43.0 % | 30,900 | 12,100 | 3,090 | 0.00 % |
| fentry | RST | file | 120,000 | 40,000 | +50.0 % | 24,000 | 16,000 | 4,000 | 0.00 % |
"
        );
        assert_eq!(text(&rows), expected);
    }

    #[test]
    fn numbers_have_commas() {
        let numbers = [0.2, -0.2, 999.4, 999.5, 1_234_567.0, -1_234.0].map(number);
        assert_eq!(numbers, ["0", "0", "999", "1,000", "1,234,567", "-1,234"]);
    }
}
