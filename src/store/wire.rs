//! How numbers and runs of bytes are written in the store's binary objects.

use std::io;

/// Reads a binary object from front to back. Every read checks what is left, so no input can make it fail otherwise than by an error.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

/// Returns the error of bytes that are not what they should be.
pub(super) fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl<'a> Reader<'a> {
    /// Reads `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Returns whether all is read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Returns how many bytes are left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// Takes the next `length` bytes.
    ///
    /// # Errors
    ///
    /// Fails where fewer are left.
    pub fn bytes(&mut self, length: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(|| broken("it ends too early"))?;
        self.rest = rest;
        Ok(taken)
    }

    /// Takes the next `N` bytes.
    ///
    /// # Errors
    ///
    /// Fails where fewer are left.
    pub fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(|| broken("it ends too early"))?;
        self.rest = rest;
        Ok(*taken)
    }

    /// Takes a byte.
    ///
    /// # Errors
    ///
    /// Fails at the end.
    pub fn u8(&mut self) -> io::Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Takes a little-endian 32-bit number.
    ///
    /// # Errors
    ///
    /// Fails at the end.
    pub fn u32(&mut self) -> io::Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Takes a little-endian 64-bit number.
    ///
    /// # Errors
    ///
    /// Fails at the end.
    pub fn u64(&mut self) -> io::Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Takes a number of 7 bits a byte, lowest first (LEB128).
    ///
    /// # Errors
    ///
    /// Fails at the end, and on a number above 64 bits.
    pub fn number(&mut self) -> io::Result<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                break;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(broken("a number is too large"))
    }

    /// Takes a number that must fit `T`.
    ///
    /// # Errors
    ///
    /// As [`Reader::number`], and where it does not fit.
    pub fn small<T: TryFrom<u64>>(&mut self) -> io::Result<T> {
        T::try_from(self.number()?).ok().ok_or_else(|| broken("a number is too large"))
    }

    /// Takes a number of items, each of which needs at least `least_bytes` of what is left.
    ///
    /// # Errors
    ///
    /// As [`Reader::number`], and where that many cannot follow, so that nobody reserves memory for them.
    pub fn count(&mut self, least_bytes: usize) -> io::Result<usize> {
        let count: usize = self.small()?;
        if count.saturating_mul(least_bytes) > self.rest.len() {
            return Err(broken("it ends too early"));
        }
        Ok(count)
    }

    /// Takes a signed number (zigzag).
    ///
    /// # Errors
    ///
    /// As [`Reader::number`].
    pub fn signed(&mut self) -> io::Result<i64> {
        let value = self.number()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// Takes a run of bytes with its length before it.
    ///
    /// # Errors
    ///
    /// As [`Reader::number`] and [`Reader::bytes`].
    pub fn run(&mut self) -> io::Result<&'a [u8]> {
        let length = self.count(1)?;
        self.bytes(length)
    }
}

/// Writes a number of 7 bits a byte, lowest first (LEB128).
pub fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Writes a signed number (zigzag).
pub fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_number(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

/// Writes a run of bytes with its length before it.
pub fn put_run(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back(value: u64, signed: i64, bytes: Vec<u8>) {
            let mut out = Vec::new();
            put_number(&mut out, value);
            put_signed(&mut out, signed);
            put_run(&mut out, &bytes);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.number().unwrap(), value);
            prop_assert_eq!(reader.signed().unwrap(), signed);
            prop_assert_eq!(reader.run().unwrap(), &bytes[..]);
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            while reader.number().is_ok() && reader.run().is_ok() && reader.signed().is_ok() {}
        }
    }

    #[test]
    fn a_count_that_cannot_follow_is_refused() {
        let mut out = Vec::new();
        put_number(&mut out, u64::MAX);
        assert!(Reader::new(&out).count(1).is_err());
    }
}
