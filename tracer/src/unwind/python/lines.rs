//! CPython's table of lines (`co_linetable`, 3.11 and newer): entries of `1 kind:4 (units - 1):3`, each followed by the bytes of
//! its kind, whose first bit is 0.

/// Kinds of entries that do not have the same line as the previous entry.
const NO_LINE: u8 = 15;
const LONG: u8 = 14;
const NO_COLUMNS: u8 = 13;
const ONE_LINE: std::ops::RangeInclusive<u8> = 10..=12;

/// The line of the instruction at the code unit `unit` (of two bytes) of a code object that begins at line `first`; `None` if the
/// table has no line for it.
pub(super) fn line_at(table: &[u8], first: u32, unit: u64) -> Option<u32> {
    let mut line = i64::from(first);
    let mut end = 0;
    let mut rest = table;
    while let [head, tail @ ..] = rest {
        if head & 0x80 == 0 {
            return None;
        }
        let (kind, units) = (head >> 3 & 0xf, u64::from(head & 7) + 1);
        let len = tail.iter().position(|byte| byte & 0x80 != 0).unwrap_or(tail.len());
        let (values, next) = tail.split_at_checked(len)?;
        match kind {
            LONG | NO_COLUMNS => line = line.checked_add(signed(values)?)?,
            kind if ONE_LINE.contains(&kind) => {
                line = line.checked_add(i64::from(kind - ONE_LINE.start()))?
            }
            _ => {}
        }
        end += units;
        if unit < end {
            return (kind != NO_LINE).then(|| u32::try_from(line).ok()).flatten();
        }
        rest = next;
    }
    None
}

/// Decodes the first number of `bytes`: each byte has six bits of it, the lowest bits first. Bit 6 of a byte means that another byte
/// follows. The lowest bit of the number is its sign.
fn signed(bytes: &[u8]) -> Option<i64> {
    let mut value: u64 = 0;
    for (shift, byte) in (0..60).step_by(6).zip(bytes) {
        value |= u64::from(byte & 0x3f) << shift;
        if byte & 0x40 == 0 {
            let size = i64::try_from(value >> 1).ok()?;
            return Some(if value & 1 == 0 { size } else { -size });
        }
    }
    None
}
