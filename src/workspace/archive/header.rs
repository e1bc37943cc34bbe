//! The 512 bytes before every member of an archive: fields, numbers, checksum.

use std::ops::Range;

/// The unit of an archive: headers take one, data is padded to whole ones.
pub(super) const BLOCK: usize = 512;

/// A field of a header.
pub(super) type Field = Range<usize>;

pub(super) const NAME: Field = 0..100;
pub(super) const MODE: Field = 100..108;
pub(super) const UID: Field = 108..116;
pub(super) const GID: Field = 116..124;
pub(super) const SIZE: Field = 124..136;
pub(super) const MTIME: Field = 136..148;
pub(super) const CHECKSUM: Field = 148..156;
pub(super) const KIND: usize = 156;
pub(super) const LINK: Field = 157..257;
pub(super) const MAGIC: Field = 257..265;
pub(super) const USER: Field = 265..297;
pub(super) const GROUP: Field = 297..329;
pub(super) const MAJOR: Field = 329..337;
pub(super) const MINOR: Field = 337..345;
pub(super) const PREFIX: Field = 345..500;
/// The prefix where Schilling's tar keeps two times after it.
const STAR_PREFIX: Field = 345..476;
const STAR_MAGIC: Field = 508..512;
/// Four pairs of numbers: the begin of the old GNU sparse map.
pub(super) const GNU_MAP: Field = 386..482;
/// Whether more of that map follows in a block of its own.
pub(super) const GNU_MAP_GOES_ON: usize = 482;
pub(super) const GNU_REAL_SIZE: Field = 483..495;

/// Which fields a header has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Before 1988: no names of owners, no devices, no prefix.
    Old,
    /// POSIX: a prefix of 155 bytes.
    Posix,
    /// Schilling's tar: a prefix of 131 bytes.
    Star,
    /// GNU tar before PAX: no prefix, a sparse map in its place.
    Gnu,
}

/// Why a number in a header is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no number, or one out of range")]
pub(super) struct NumberError;

/// One header, as read or to be written.
#[derive(Clone)]
pub(super) struct Header(pub(super) [u8; BLOCK]);

impl Header {
    /// Returns a POSIX header with nothing in it.
    pub(super) fn posix(kind: u8) -> Self {
        let mut header = Self([0; BLOCK]);
        header.0[MAGIC].copy_from_slice(b"ustar\x0000");
        header.0[KIND] = kind;
        header
    }

    /// Returns whether all bytes are zero: half of the end marker.
    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// Returns whether the checksum fits, summed over unsigned bytes or, as some old programs did, over signed ones.
    pub(super) fn checksum_fits(&self) -> bool {
        let Ok(stated) = octal(&self.0[CHECKSUM]) else { return false };
        let signed: i64 = self.summed().map(|byte| i64::from(byte.cast_signed())).sum();
        stated != 0 && (stated == self.sum() || i64::try_from(stated) == Ok(signed))
    }

    /// Writes the checksum; the last thing done to a header.
    pub(super) fn seal(&mut self) {
        let text = format!("{:06o}\0 ", self.sum());
        self.0[CHECKSUM].copy_from_slice(text.as_bytes());
    }

    fn sum(&self) -> u64 {
        self.summed().map(u64::from).sum()
    }

    /// The bytes that the checksum covers, its own field read as blanks.
    fn summed(&self) -> impl Iterator<Item = u8> {
        self.0.iter().enumerate().map(|(at, byte)| if CHECKSUM.contains(&at) { b' ' } else { *byte })
    }

    /// Returns the type flag.
    pub(super) fn kind(&self) -> u8 {
        self.0[KIND]
    }

    /// Returns which fields there are.
    pub(super) fn dialect(&self) -> Dialect {
        match &self.0[MAGIC] {
            b"ustar  \0" => Dialect::Gnu,
            magic if magic.starts_with(b"ustar\0") || magic.starts_with(b"ustar ") => {
                if &self.0[STAR_MAGIC] == b"tar\0" { Dialect::Star } else { Dialect::Posix }
            }
            _ => Dialect::Old,
        }
    }

    /// Returns a text field up to its first NUL.
    pub(super) fn text(&self, field: Field) -> &[u8] {
        until_nul(&self.0[field])
    }

    /// Returns the name, the prefix before it where there is one.
    pub(super) fn name(&self) -> Vec<u8> {
        let prefix = match self.dialect() {
            Dialect::Posix => self.text(PREFIX),
            Dialect::Star => self.text(STAR_PREFIX),
            Dialect::Gnu | Dialect::Old => b"",
        };
        let name = self.text(NAME);
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    /// Returns a number, `None` where the field is blank.
    ///
    /// # Errors
    ///
    /// Fails where the field holds anything but octal digits or a GNU binary number of at most 64 bits.
    pub(super) fn number(&self, field: Field) -> Result<Option<i64>, NumberError> {
        number(&self.0[field])
    }

    /// Writes a text; it must be no longer than the field.
    pub(super) fn put_text(&mut self, field: Field, text: &[u8]) {
        for (to, from) in self.0[field].iter_mut().zip(text) {
            *to = *from;
        }
    }

    /// Writes a number in octal, closed by a NUL; the largest that fits where it is too large.
    pub(super) fn put_number(&mut self, field: Field, value: u64) {
        let digits = field.len() - 1;
        let text = format!("{:0digits$o}", value.min(largest(&field)));
        self.put_text(field, text.as_bytes());
    }
}

/// Returns the largest number that a field holds in octal.
pub(super) fn largest(field: &Field) -> u64 {
    (0..field.len() - 1).fold(0, |number, _| number << 3 | 7)
}

/// Returns `bytes` up to the first NUL.
pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Returns the number in a field: octal, or binary as GNU tar writes what is negative or too large for that.
pub(super) fn number(field: &[u8]) -> Result<Option<i64>, NumberError> {
    let first = field.first().copied().unwrap_or_default();
    if first & 0x80 != 0 {
        // Two's complement, big-endian; the top bit only marks the form, the one below it is the sign.
        let start = if first & 0x40 == 0 { i128::from(first & 0x7f) } else { i128::from(first) - 256 };
        let value = field.iter().skip(1).fold(start, |value, byte| value << 8 | i128::from(*byte));
        return i64::try_from(value).map(Some).or(Err(NumberError));
    }
    if field.iter().all(|byte| matches!(byte, b' ' | 0)) {
        return Ok(None);
    }
    let value = octal(field)?;
    i64::try_from(value).map(Some).or(Err(NumberError))
}

/// Returns the octal number at the begin of a field: blanks, digits, then a blank, a NUL or the end.
fn octal(field: &[u8]) -> Result<u64, NumberError> {
    let start = field.iter().take_while(|byte| **byte == b' ').count();
    let digits = field.get(start..).unwrap_or_default();
    let end = digits.iter().position(|byte| matches!(byte, b' ' | 0)).unwrap_or(digits.len());
    let digits = digits.get(..end).unwrap_or_default();
    if digits.is_empty() {
        return Err(NumberError);
    }
    digits.iter().try_fold(0_u64, |value, digit| match digit {
        b'0'..=b'7' => value
            .checked_mul(8)
            .and_then(|value| value.checked_add(u64::from(digit - b'0')))
            .ok_or(NumberError),
        _ => Err(NumberError),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary_and_nothing_else() {
        for (field, value) in [
            (&b"0000644\0"[..], Ok(Some(0o644))),
            (b"   644 \0", Ok(Some(0o644))),
            (b"7777777", Ok(Some(0o777_7777))),
            (b"        ", Ok(None)),
            (b"\0\0\0\0", Ok(None)),
            (b"12 garbage", Ok(Some(0o12))),
            (b"0000648\0", Err(NumberError)),
            (b"-1\0", Err(NumberError)),
            (b"0x1f\0", Err(NumberError)),
            (b"\x80\0\0\0\0\x20\0\0", Ok(Some(0x20_0000))),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Ok(Some(-1))),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Ok(Some(i64::MAX))),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", Err(NumberError)),
            (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", Ok(Some(i64::MIN))),
            (b"7777777777777777777777777", Err(NumberError)),
        ] {
            assert_eq!(number(field), value, "{}", field.escape_ascii());
        }
    }

    #[test]
    fn a_sealed_header_is_believed_until_a_byte_changes() {
        let mut header = Header::posix(b'0');
        header.put_text(NAME, b"name");
        header.put_number(SIZE, 5);
        header.seal();
        assert!(header.checksum_fits());
        for at in 0..BLOCK {
            let mut changed = header.clone();
            changed.0[at] ^= 0x11;
            // Blanks and NULs around the sum's digits say nothing.
            assert!(!changed.checksum_fits() || CHECKSUM.contains(&at), "{at}");
        }
        assert!(!Header([0; BLOCK]).checksum_fits());
    }

    #[test]
    fn what_does_not_fit_is_written_as_the_largest_number() {
        assert_eq!(largest(&UID), 0o777_7777);
        assert_eq!(largest(&SIZE), 0o777_7777_7777);
        let mut header = Header::posix(b'0');
        header.put_number(UID, u64::MAX);
        assert_eq!(header.number(UID), Ok(Some(0o777_7777)));
    }
}
