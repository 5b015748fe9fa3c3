//! The beginning of a line, put together from short pieces. Appending each to a vector would be a call of `memcpy`
//! each; here whole blocks of a length known to the compiler are copied, and what is too much is written over.

use std::{fmt::Display, io::Write};

/// Bytes that the longest beginning needs, with room for one more [`Piece`].
const ROOM: usize = 512;

/// A beginning of a line.
pub(super) struct Line {
    bytes: [u8; ROOM],
    len: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { bytes: [0; ROOM], len: 0 }
    }
}

impl Line {
    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    #[inline]
    pub(super) fn text<const N: usize>(&mut self, text: &[u8; N]) {
        self.bytes[self.len..self.len + N].copy_from_slice(text);
        self.len += N;
    }

    #[inline]
    pub(super) fn piece<const N: usize>(&mut self, piece: &Piece<N>) {
        let len = piece.len;
        self.text(&piece.bytes);
        self.len -= N - len;
    }

    #[inline]
    pub(super) fn number(&mut self, value: u64) {
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(value).as_bytes();
        let end = self.len + digits.len();
        match (digits.first_chunk::<8>(), digits.last_chunk::<8>()) {
            (Some(first), Some(last)) if digits.len() <= 16 => {
                self.text(first);
                self.len = end - 8;
                self.text(last);
            }
            (Some(_), _) => self.bytes[self.len..end].copy_from_slice(digits),
            (None, _) => {
                for (to, digit) in self.bytes[self.len..end].iter_mut().zip(digits) {
                    *to = *digit;
                }
            }
        }
        self.len = end;
    }

    /// What does not fit is left out.
    pub(super) fn display(&mut self, value: impl Display) {
        let mut room = &mut self.bytes[self.len..];
        let before = room.len();
        let _ = write!(room, "{value}");
        self.len += before - room.len();
    }
}

/// 16 digits.
#[inline]
pub(super) fn hex(value: u64) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 16];
    for (at, digit) in text.iter_mut().enumerate() {
        *digit = DIGITS[(value >> (60 - at * 4) & 15) as usize];
    }
    text
}

/// A text of at most `N` bytes.
#[derive(Clone)]
pub(super) struct Piece<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Piece<N> {
    /// What does not fit is left out.
    pub(super) fn new(text: &[u8]) -> Self {
        let len = text.len().min(N);
        let mut bytes = [0; N];
        bytes[..len].copy_from_slice(&text[..len]);
        Self { bytes, len }
    }

    /// Puts another end in the place of the old one.
    #[inline]
    pub(super) fn end_with<const M: usize>(&mut self, end: &[u8; M]) {
        if let Some(old) = self.bytes[..self.len].last_chunk_mut::<M>() {
            *old = *end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_length_and_what_follows() {
        let mut value = 1_u64;
        for _ in 0..20 {
            let mut line = Line::default();
            line.number(value);
            line.text(b"|");
            line.number(value - 1);
            assert_eq!(line.bytes(), format!("{value}|{}", value - 1).as_bytes());
            value = value.saturating_mul(10);
        }
    }

    #[test]
    fn a_piece_leaves_nothing_behind_its_end() {
        let mut line = Line::default();
        line.piece(&Piece::<16>::new(b"ab"));
        line.text(&hex(0xc0de));
        assert_eq!(line.bytes(), b"ab000000000000c0de");
    }
}
