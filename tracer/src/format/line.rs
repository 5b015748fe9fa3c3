//! A line that is built from short fragments. Appending each of them to a vector would be a call of `memcpy`; here blocks
//! of a constant length are copied, and the next fragment overwrites the bytes that are too many.

use std::{fmt::Display, io::Write, net::IpAddr};

/// Bytes of the buffer: enough for the short fragments of the longest line, and one more [`Fragment`].
const CAPACITY: usize = 384;

/// The decimal digits of each octet and a point, and their number.
const OCTETS: [([u8; 4], u8); 256] = {
    let mut all = [([b'.'; 4], 0); 256];
    let mut octet = 0;
    while octet < all.len() {
        let digits = [octet / 100, octet / 10 % 10, octet % 10];
        let first = if octet < 10 {
            2
        } else if octet < 100 {
            1
        } else {
            0
        };
        let mut at = first;
        while at < digits.len() {
            all[octet].0[at - first] = b'0' + digits[at] as u8;
            at += 1;
        }
        all[octet].1 = (digits.len() - first) as u8 + 1;
        octet += 1;
    }
    all
};

/// Appends a line, or a part of one.
#[inline]
pub(super) fn append(out: &mut Vec<u8>, write: impl FnOnce(&mut Line<'_>)) {
    append_up_to::<CAPACITY>(out, write);
}

/// Appends a part of a line that has room for `N` bytes, with the block that its last fragment is copied as.
#[inline]
pub(super) fn append_up_to<const N: usize>(out: &mut Vec<u8>, write: impl FnOnce(&mut Line<'_>)) {
    let before = out.len();
    out.resize(before + N, 0);
    if let Some(bytes) = out.last_chunk_mut::<N>() {
        let mut line = Line { bytes, len: 0 };
        write(&mut line);
        let len = line.len;
        out.truncate(before + len);
    }
}

/// A line that is being written.
pub(super) struct Line<'a> {
    bytes: &'a mut [u8],
    /// The length of the line so far; later bytes are overwritten.
    len: usize,
}

impl Line<'_> {
    #[inline]
    pub(super) fn text<const N: usize>(&mut self, text: &[u8; N]) {
        self.bytes[self.len..self.len + N].copy_from_slice(text);
        self.len += N;
    }

    /// Bytes that do not fit are left out.
    pub(super) fn bytes(&mut self, text: &[u8]) {
        let rest = &mut self.bytes[self.len..];
        let len = text.len().min(rest.len());
        rest[..len].copy_from_slice(&text[..len]);
        self.len += len;
    }

    #[inline]
    pub(super) fn fragment<const N: usize>(&mut self, fragment: &Fragment<N>) {
        let len = fragment.len;
        self.text(&fragment.bytes);
        self.len -= N - len;
    }

    #[inline]
    pub(super) fn number(&mut self, value: u64) {
        const EIGHT: u64 = 100_000_000;
        if value < 10 {
            return self.text(&[b'0' + value as u8]);
        }
        if value < EIGHT {
            return self.leading(value);
        }
        if value < EIGHT * EIGHT {
            self.leading(value / EIGHT);
        } else {
            self.leading(value / EIGHT / EIGHT);
            self.text(&digits(value / EIGHT % EIGHT));
        }
        self.text(&digits(value % EIGHT));
    }

    /// A number of at most eight digits, without leading zeros.
    #[inline]
    fn leading(&mut self, value: u64) {
        let digits = u64::from_le_bytes(digits(value));
        // The last digit counts even if it is 0.
        let zeros = ((digits & 0x0f0f_0f0f_0f0f_0f0f).trailing_zeros() / 8).min(7);
        self.text(&(digits >> (zeros * 8)).to_le_bytes());
        self.len -= zeros as usize;
    }

    pub(super) fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => {
                for octet in v4.octets() {
                    let (text, len) = OCTETS[usize::from(octet)];
                    self.text(&text);
                    self.len -= text.len() - usize::from(len);
                }
                // The point behind the last octet.
                self.len -= 1;
            }
            IpAddr::V6(v6) => self.display(v6),
        }
    }

    /// Bytes that do not fit are left out.
    pub(super) fn display(&mut self, value: impl Display) {
        let mut rest = &mut self.bytes[self.len..];
        let before = rest.len();
        let _ = write!(rest, "{value}");
        self.len += before - rest.len();
    }
}

// Digits are made in a register, all at once: bytes stored one by one could not be read as a block soon after without a
// stall.

/// The eight digits of a number below 100,000,000.
#[inline]
pub(super) fn digits(value: u64) -> [u8; 8] {
    // Lanes of 32, then 16, then 8 bits; the first digit ends up lowest. Multiplying and shifting divides.
    let halves = (value / 10_000) | ((value % 10_000) << 32);
    let hundreds = (halves * 10_486) >> 20 & 0x0000_007f_0000_007f;
    let pairs = hundreds | (halves - hundreds * 100) << 16;
    let tens = (pairs * 103) >> 10 & 0x000f_000f_000f_000f;
    let digits = tens | (pairs - tens * 10) << 8;
    (digits | 0x3030_3030_3030_3030).to_le_bytes()
}

/// 16 hexadecimal digits.
#[inline]
pub(super) fn hex(value: u64) -> [u8; 16] {
    let eight = |half: u32| {
        let mut spread = u64::from(half);
        spread = (spread << 16 | spread) & 0x0000_ffff_0000_ffff;
        spread = (spread << 8 | spread) & 0x00ff_00ff_00ff_00ff;
        spread = (spread << 4 | spread) & 0x0f0f_0f0f_0f0f_0f0f;
        // 1 in each byte that is a letter.
        let letters = (spread + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
        u128::from(spread + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'9' - 1))
    };
    (eight((value >> 32) as u32) << 64 | eight(value as u32)).to_be_bytes()
}

/// A text of at most `N` bytes.
#[derive(Clone)]
pub(super) struct Fragment<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Fragment<N> {
    /// Bytes that do not fit are left out.
    pub(super) fn new(text: &[u8]) -> Self {
        let len = text.len().min(N);
        let mut bytes = [0; N];
        bytes[..len].copy_from_slice(&text[..len]);
        Self { bytes, len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_length_and_what_follows() {
        let mut value = 1_u64;
        for _ in 0..20 {
            let mut out = b"before ".to_vec();
            append(&mut out, |line| {
                line.number(value);
                line.text(b"|");
                line.number(value - 1);
            });
            assert_eq!(out, format!("before {value}|{}", value - 1).as_bytes());
            value = value.saturating_mul(10);
        }
    }

    #[test]
    fn addresses_are_those_of_the_standard_library() {
        for octet in 0..=u8::MAX {
            for address in [[octet, 0, 10, 200], [1, 99, 100, octet]].map(IpAddr::from) {
                let mut out = Vec::new();
                append(&mut out, |line| {
                    line.address(address);
                    line.text(b"|");
                });
                assert_eq!(out, format!("{address}|").as_bytes());
            }
        }
    }

    #[test]
    fn digits_are_those_of_the_standard_library() {
        for value in (0..100_000_000).step_by(9973).chain([9, 10, 99, 9999, 10_000, 99_999_999]) {
            assert_eq!(digits(value), *format!("{value:08}").as_bytes(), "{value}");
            let wide = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            assert_eq!(hex(wide), *format!("{wide:016x}").as_bytes(), "{wide}");
        }
    }

    #[test]
    fn a_fragment_leaves_nothing_behind_its_end() {
        let mut out = Vec::new();
        append(&mut out, |line| {
            line.fragment(&Fragment::<16>::new(b"ab"));
            line.text(&hex(0xc0de));
        });
        assert_eq!(out, b"ab000000000000c0de");
    }
}
