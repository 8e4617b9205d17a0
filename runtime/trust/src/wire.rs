//! The bytes of a proposal: fixed order, little-endian lengths, every length bounded before anything is allocated.
use crate::digest::Digest;
use std::fmt;

/// Largest encoded proposal or answer, bytes.
pub const MAX_PROPOSAL: usize = 1 << 20;

/// Why bytes are not a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeError(pub &'static str);

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the worker's answer is malformed: {}", self.0)
    }
}

impl std::error::Error for DecodeError {}

#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn digest(&mut self, value: &Digest) {
        self.0.extend_from_slice(&value.0);
    }

    /// Nothing in this crate makes a part of 4 GiB; if one did, its length is written so that decoding refuses it.
    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(value);
    }

    pub(crate) fn text(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    pub(crate) fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.u32(u32::try_from(items.len()).unwrap_or(u32::MAX));
        for item in items {
            each(self, item);
        }
    }
}

#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_PROPOSAL {
            return Err(DecodeError("larger than a proposal may be"));
        }
        Ok(Self(bytes))
    }

    pub(crate) fn end(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError("bytes left over")) }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(DecodeError("cut short"))?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn digest(&mut self) -> Result<Digest, DecodeError> {
        Ok(Digest(self.array()?))
    }

    fn len(&mut self, max: usize) -> Result<usize, DecodeError> {
        let len = usize::try_from(self.u32()?).map_err(|_| DecodeError("a length beyond its bound"))?;
        if len > max {
            return Err(DecodeError("a length beyond its bound"));
        }
        Ok(len)
    }

    pub(crate) fn bytes(&mut self, max: usize) -> Result<Vec<u8>, DecodeError> {
        let len = self.len(max)?;
        Ok(self.take(len)?.to_vec())
    }

    pub(crate) fn text(&mut self, max: usize) -> Result<String, DecodeError> {
        let len = self.len(max)?;
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| DecodeError("not UTF-8"))?;
        Ok(text.to_owned())
    }

    pub(crate) fn list<T>(
        &mut self,
        max: usize,
        mut each: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let len = self.len(max)?;
        let mut items = Vec::new();
        for _ in 0..len {
            items.push(each(self)?);
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_checked_before_use() {
        let mut writer = Writer::default();
        writer.u32(u32::MAX);
        let mut reader = Reader::new(&writer.0).unwrap();
        assert_eq!(reader.bytes(10), Err(DecodeError("a length beyond its bound")));
        let mut reader = Reader::new(&[4, 0, 0, 0, 1]).unwrap();
        assert_eq!(reader.bytes(10), Err(DecodeError("cut short")));
        let mut reader = Reader::new(&[1, 0, 0, 0, 0xff]).unwrap();
        assert_eq!(reader.text(10), Err(DecodeError("not UTF-8")));
        assert!(Reader::new(&vec![0; MAX_PROPOSAL + 1]).is_err());
        assert!(Reader::new(&[0]).unwrap().end().is_err());
    }
}
