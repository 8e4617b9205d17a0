//! The frame and its primitives: little-endian integers, length-prefixed strings, byte strings and lists.
//!
//! Frame: magic `BSL1` (4), version u16, kind u16 (1 request, 2 reply), body length u32, body. A reader allocates no
//! more than the bytes that it holds, whatever a length claims.

use std::fmt;
use std::io::{self, Read};

/// Version that this build writes; the two before it are read.
pub const VERSION: u16 = 3;
/// Largest frame body, bytes.
pub const MAX_FRAME: usize = 4 << 20;
/// Length of the fixed header, bytes.
pub const HEADER_LEN: usize = 12;
/// Longest string, bytes.
pub const MAX_STRING: usize = 64 << 10;
/// Longest byte string, bytes (an OCI Process, LinuxResources, runtime options).
pub const MAX_BYTES: usize = 1 << 20;
/// Most entries in a list.
pub const MAX_LIST: usize = 4096;

const MAGIC: [u8; 4] = *b"BSL1";

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum FrameKind {
    Request = 1,
    Reply = 2,
}

/// The fixed part of a frame, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Version that the sender wrote: an answer goes back in this one (`Reply::encode_as`).
    pub version: u16,
    pub kind: FrameKind,
    /// At most [`MAX_FRAME`].
    pub body_len: usize,
}

/// Why bytes are not a frame of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError(pub &'static str);

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed boltseal frame: {}", self.0)
    }
}

impl std::error::Error for DecodeError {}

impl FrameHeader {
    /// Checks magic, version, kind and length before a byte of the body is read.
    ///
    /// # Errors
    /// A header that this build does not serve.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Self, DecodeError> {
        let [a, b, c, d, v0, v1, k0, k1, l0, l1, l2, l3] = *bytes;
        if [a, b, c, d] != MAGIC {
            return Err(DecodeError("bad magic"));
        }
        let version = u16::from_le_bytes([v0, v1]);
        if version == 0 || version > VERSION || version < VERSION.saturating_sub(2) {
            return Err(DecodeError("version not served"));
        }
        let kind = match u16::from_le_bytes([k0, k1]) {
            1 => FrameKind::Request,
            2 => FrameKind::Reply,
            _ => return Err(DecodeError("unknown frame kind")),
        };
        let body_len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if body_len > MAX_FRAME {
            return Err(DecodeError("frame longer than 4 MiB"));
        }
        Ok(Self { version, kind, body_len })
    }
}

/// Reads one whole frame (header and body), allocating as bytes arrive.
///
/// # Errors
/// The source's, end of file inside a frame, or `InvalidData` for a bad header.
pub fn read_frame(source: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut header = [0; HEADER_LEN];
    source.read_exact(&mut header)?;
    let parsed = FrameHeader::parse(&header).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    let mut frame = header.to_vec();
    source.take(parsed.body_len as u64).read_to_end(&mut frame)?;
    if frame.len() != HEADER_LEN + parsed.body_len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(frame)
}

/// Builds a frame. What is longer than a bound is written as it is, and the reader refuses it.
pub(crate) struct Writer {
    pub(crate) version: u16,
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(kind: FrameKind, version: u16) -> Self {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(version.to_le_bytes());
        bytes.extend((kind as u16).to_le_bytes());
        bytes.extend([0; 4]);
        Self { version, bytes }
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        let len = u32::try_from(self.bytes.len() - HEADER_LEN).unwrap_or(u32::MAX);
        for (at, byte) in self.bytes.iter_mut().skip(HEADER_LEN - 4).zip(len.to_le_bytes()) {
            *at = byte;
        }
        self.bytes
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn len(&mut self, len: usize) {
        self.raw(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
    }
}

/// Takes a frame apart.
pub(crate) struct Reader<'a> {
    /// Version of the frame: a field that came later is taken only from its version on.
    pub(crate) version: u16,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(frame: &'a [u8], kind: FrameKind) -> Result<Self, DecodeError> {
        let (header, rest) = frame.split_first_chunk::<HEADER_LEN>().ok_or(DecodeError("shorter than a header"))?;
        let header = FrameHeader::parse(header)?;
        if header.kind != kind {
            return Err(DecodeError("a frame of the other kind"));
        }
        if header.body_len != rest.len() {
            return Err(DecodeError("body length differs"));
        }
        Ok(Self { version: header.version, rest })
    }

    pub(crate) fn raw(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(DecodeError("truncated"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError("truncated"))?;
        self.rest = rest;
        Ok(*taken)
    }

    /// A length that is within `max` and within what is left (each entry takes at least one byte).
    pub(crate) fn len(&mut self, max: usize) -> Result<usize, DecodeError> {
        let len = u32::from_le_bytes(self.array()?) as usize;
        if len > max {
            return Err(DecodeError("a length over its bound"));
        }
        if len > self.rest.len() {
            return Err(DecodeError("a length over what is left"));
        }
        Ok(len)
    }

    pub(crate) fn end(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError("bytes left over")) }
    }
}

/// A value's form on the wire.
pub(crate) trait Wire: Sized {
    fn put(&self, w: &mut Writer);
    fn take(r: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

macro_rules! integers {
    ($($int:ty),*) => {$(
        impl Wire for $int {
            fn put(&self, w: &mut Writer) {
                w.raw(&self.to_le_bytes());
            }
            fn take(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(Self::from_le_bytes(r.array()?))
            }
        }
    )*};
}
integers!(u8, u32, u64, i64);

impl Wire for bool {
    fn put(&self, w: &mut Writer) {
        w.raw(&[u8::from(*self)]);
    }
    fn take(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match u8::take(r)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError("a flag that is neither 0 nor 1")),
        }
    }
}

impl Wire for String {
    fn put(&self, w: &mut Writer) {
        w.len(self.len());
        w.raw(self.as_bytes());
    }
    fn take(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let len = r.len(MAX_STRING)?;
        let text = std::str::from_utf8(r.raw(len)?).map_err(|_| DecodeError("a string that is not UTF-8"))?;
        Ok(text.to_owned())
    }
}

/// Byte strings. Lists of `u8` do not occur, so `Vec<u8>` is this.
pub(crate) fn put_bytes(bytes: &[u8], w: &mut Writer) {
    w.len(bytes.len());
    w.raw(bytes);
}

pub(crate) fn take_bytes(r: &mut Reader<'_>) -> Result<Vec<u8>, DecodeError> {
    let len = r.len(MAX_BYTES)?;
    Ok(r.raw(len)?.to_vec())
}

pub(crate) fn put_list<T: Wire>(list: &[T], w: &mut Writer) {
    w.len(list.len());
    for entry in list {
        entry.put(w);
    }
}

pub(crate) fn take_list<T: Wire>(r: &mut Reader<'_>) -> Result<Vec<T>, DecodeError> {
    let count = r.len(MAX_LIST)?;
    // No capacity ahead: an entry may be far larger in memory than on the wire.
    let mut list = Vec::new();
    for _ in 0..count {
        list.push(T::take(r)?);
    }
    Ok(list)
}
