//! Placeholder of the frame: to be written with the shim.
/// Version that this build writes; the two before it are read.
pub const VERSION: u16 = 1;
/// Largest frame body, bytes.
pub const MAX_FRAME: usize = 4 << 20;
/// Length of the fixed header, bytes.
pub const HEADER_LEN: usize = 12;
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader;
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError(pub &'static str);
