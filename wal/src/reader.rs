//! A total reader over a byte slice: each read either yields what was asked for or says how much
//! is missing. Decoders built on it need no index and no subtraction of lengths.

use thiserror::Error;

/// Why a slice did not hold what a decoder asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReadError {
    /// The slice ends too early.
    #[error("{wanted} bytes are needed where {left} are left")]
    Truncated {
        /// Bytes asked for.
        wanted: usize,
        /// Bytes that were left.
        left: usize,
    },
    /// Bytes are left where the value should have ended.
    #[error("{left} bytes follow the end")]
    Trailing {
        /// Bytes that were left.
        left: usize,
    },
}

/// Reads values from the front of a slice.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `wanted` bytes.
    ///
    /// # Errors
    /// [`ReadError::Truncated`] when fewer are left; nothing is consumed then.
    pub fn take(&mut self, wanted: usize) -> Result<&'a [u8], ReadError> {
        let truncated = ReadError::Truncated { wanted, left: self.rest.len() };
        let (taken, rest) = self.rest.split_at_checked(wanted).ok_or(truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// [`ReadError::Truncated`] when fewer are left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let truncated = ReadError::Truncated { wanted: N, left: self.rest.len() };
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`ReadError::Truncated`] at the end.
    pub fn u8(&mut self) -> Result<u8, ReadError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A little-endian `u16`.
    ///
    /// # Errors
    /// [`ReadError::Truncated`] when fewer than 2 bytes are left.
    pub fn u16(&mut self) -> Result<u16, ReadError> {
        self.array().map(u16::from_le_bytes)
    }

    /// A little-endian `u32`.
    ///
    /// # Errors
    /// [`ReadError::Truncated`] when fewer than 4 bytes are left.
    pub fn u32(&mut self) -> Result<u32, ReadError> {
        self.array().map(u32::from_le_bytes)
    }

    /// A little-endian `u64`.
    ///
    /// # Errors
    /// [`ReadError::Truncated`] when fewer than 8 bytes are left.
    pub fn u64(&mut self) -> Result<u64, ReadError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A big-endian `u32`, as SQLite's files hold them.
    ///
    /// # Errors
    /// [`ReadError::Truncated`] when fewer than 4 bytes are left.
    pub fn u32_be(&mut self) -> Result<u32, ReadError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`ReadError::Trailing`] when bytes are left.
    pub fn finish(self) -> Result<(), ReadError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(ReadError::Trailing { left }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_byte_orders_and_consumes_what_it_reads() {
        let mut reader = Reader::new(&[1, 2, 0, 3, 0, 0, 0, 0, 0, 0, 4, 9]);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.u16(), Ok(2));
        assert_eq!(reader.u32(), Ok(3));
        assert_eq!(reader.u32_be(), Ok(4));
        assert_eq!(reader.clone().finish(), Err(ReadError::Trailing { left: 1 }));
        assert_eq!(reader.take(1), Ok(&[9][..]));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn a_short_slice_is_named_and_left_alone() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u32(), Err(ReadError::Truncated { wanted: 4, left: 3 }));
        assert_eq!(reader.take(usize::MAX).map_err(|e| e.to_string()).unwrap_err(), {
            format!("{} bytes are needed where 3 are left", usize::MAX)
        });
        assert_eq!(reader.rest(), &[1, 2, 3]);
    }
}
