//! Bytes of TPM 2.0 commands and replies (TCG TPM 2.0 library specification, parts 1 and 3): big-endian, no padding.
//!
//! A reply is one of [`MAX_REPLY`] bytes at most and is taken apart strictly: a length that does not fit, a byte too
//! many, a tag that was not asked for, and the whole reply is refused.
use crate::Error;

/// Longest reply that is read. A quote over 24 PCRs is under 300 bytes.
pub const MAX_REPLY: usize = 4096;
pub(crate) const HEADER: usize = 10;

const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;
/// TPM_RS_PW with an empty password: handle, empty nonce, no attributes, empty authorization.
const EMPTY_PASSWORD: [u8; 9] = [0x40, 0, 0, 9, 0, 0, 0, 0, 0];

/// The commands that this client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Command {
    EvictControl = 0x120,
    NvDefineSpace = 0x12a,
    CreatePrimary = 0x131,
    NvIncrement = 0x134,
    ActivateCredential = 0x147,
    NvRead = 0x14e,
    PolicySecret = 0x151,
    Quote = 0x158,
    Sign = 0x15d,
    FlushContext = 0x165,
    LoadExternal = 0x167,
    NvReadPublic = 0x169,
    PolicyAuthorize = 0x16a,
    ReadPublic = 0x173,
    StartAuthSession = 0x176,
    VerifySignature = 0x177,
    GetCapability = 0x17a,
    GetRandom = 0x17b,
    PcrRead = 0x17e,
    PolicyPcr = 0x17f,
    ReadClock = 0x181,
    PcrExtend = 0x182,
}

impl Command {
    pub fn name(self) -> &'static str {
        match self {
            Self::EvictControl => "EvictControl",
            Self::NvDefineSpace => "NV_DefineSpace",
            Self::NvIncrement => "NV_Increment",
            Self::NvRead => "NV_Read",
            Self::ActivateCredential => "ActivateCredential",
            Self::PolicySecret => "PolicySecret",
            Self::StartAuthSession => "StartAuthSession",
            Self::Sign => "Sign",
            Self::LoadExternal => "LoadExternal",
            Self::PolicyAuthorize => "PolicyAuthorize",
            Self::VerifySignature => "VerifySignature",
            Self::PolicyPcr => "PolicyPCR",
            Self::NvReadPublic => "NV_ReadPublic",
            Self::CreatePrimary => "CreatePrimary",
            Self::Quote => "Quote",
            Self::FlushContext => "FlushContext",
            Self::ReadPublic => "ReadPublic",
            Self::GetCapability => "GetCapability",
            Self::GetRandom => "GetRandom",
            Self::PcrRead => "PCR_Read",
            Self::ReadClock => "ReadClock",
            Self::PcrExtend => "PCR_Extend",
        }
    }

    /// Authorized by one password session.
    fn sessions(self) -> bool {
        matches!(
            self,
            Self::EvictControl
                | Self::CreatePrimary
                | Self::Quote
                | Self::PcrExtend
                | Self::NvDefineSpace
                | Self::NvIncrement
                | Self::NvRead
                | Self::ActivateCredential
                | Self::PolicySecret
                | Self::Sign
        )
    }
}

/// A command in the making: handles first, then parameters.
#[derive(Debug, Clone)]
pub struct Request {
    pub command: Command,
    handles: Vec<u8>,
    parameters: Writer,
    /// A policy session that authorizes the last handle.
    policy: Option<u32>,
    /// Two handles are authorized, each by the empty password.
    twice: bool,
}

impl Request {
    pub fn new(command: Command, handles: &[u32], parameters: Writer) -> Self {
        let handles = handles.iter().flat_map(|h| h.to_be_bytes()).collect();
        Self { command, handles, parameters, policy: None, twice: false }
    }

    /// The last handle is authorized by this policy session, which stays open; one before it by the empty password.
    #[must_use]
    pub fn with_policy(self, session: u32) -> Self {
        Self { policy: Some(session), ..self }
    }

    /// Both handles are authorized by the empty password.
    #[must_use]
    pub fn with_two_passwords(self) -> Self {
        Self { twice: true, ..self }
    }

    /// Only Sign has one handle and a policy session for it.
    fn by_password(&self) -> bool {
        self.policy.is_none() || self.handles.len() > 4
    }

    pub fn bytes(&self) -> Vec<u8> {
        let sessions = self.command.sessions();
        let tag = if sessions { SESSIONS } else { NO_SESSIONS };
        let mut body = Writer::default();
        body.put(&self.handles);
        if sessions {
            let mut area = Writer::default();
            if self.by_password() {
                area.put(&EMPTY_PASSWORD);
            }
            if self.twice {
                area.put(&EMPTY_PASSWORD);
            }
            if let Some(session) = self.policy {
                area.u32(session);
                area.sized(&[]);
                area.put(&[1]); // continueSession: it is flushed by hand
                area.sized(&[]);
            }
            body.u32(area.0.len() as u32);
            body.put(&area.0);
        }
        body.put(&self.parameters.0);
        let mut out = Writer::default();
        out.u16(tag);
        out.u32((HEADER + body.0.len()) as u32);
        out.u32(self.command as u32);
        out.put(&body.0);
        out.0
    }

    /// Takes the reply to this command apart: the handle (CreatePrimary, LoadExternal and StartAuthSession return one) and the parameters.
    ///
    /// # Errors
    /// `Code` when the TPM answered with one, `Malformed` when the bytes are not such a reply.
    pub fn answer<'a>(&self, bytes: &'a [u8]) -> Result<(u32, &'a [u8]), Error> {
        let reply = parse_reply(bytes)?;
        if reply.code != 0 {
            return Err(Error::Code(self.command.name(), reply.code));
        }
        if reply.sessions != self.command.sessions() {
            return Err(Error::Malformed("TPM reply", "sessions where none were sent, or none"));
        }
        let mut body = Reader::new("TPM reply", reply.body);
        let handle = match self.command {
            Command::CreatePrimary | Command::StartAuthSession | Command::LoadExternal => body.u32()?,
            _ => 0,
        };
        if !reply.sessions {
            return Ok((handle, body.rest()));
        }
        let size = body.u32()? as usize;
        let parameters = body.take(size)?;
        for _ in 0..usize::from(self.by_password()) + usize::from(self.twice) {
            // The answer to a password session: empty nonce, attributes, empty authorization.
            let (nonce, attributes, hmac) = (body.sized()?, body.u8()?, body.sized()?);
            if !nonce.is_empty() || !hmac.is_empty() || attributes & !1 != 0 {
                return Err(Error::Malformed("TPM reply", "not the answer to a password session"));
            }
        }
        if self.policy.is_some() {
            let (nonce, _, hmac) = (body.sized()?, body.u8()?, body.sized()?);
            if nonce.len() > 64 || !hmac.is_empty() {
                return Err(Error::Malformed("TPM reply", "not the answer to a policy session"));
            }
        }
        body.end()?;
        Ok((handle, parameters))
    }
}

/// A reply's frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply<'a> {
    /// Response code; 0 is success.
    pub code: u32,
    /// The reply carries a session area.
    pub sessions: bool,
    pub body: &'a [u8],
}

/// Takes one whole reply apart.
///
/// # Errors
/// `Malformed`: shorter or longer than its own size field, an unknown tag, an error code with a body.
pub fn parse_reply(bytes: &[u8]) -> Result<Reply<'_>, Error> {
    let mut reader = Reader::new("TPM reply", bytes);
    let (tag, size, code) = (reader.u16()?, reader.u32()?, reader.u32()?);
    if size as usize != bytes.len() || bytes.len() > MAX_REPLY {
        return Err(Error::Malformed("TPM reply", "its size field is wrong"));
    }
    let sessions = match tag {
        NO_SESSIONS => false,
        SESSIONS => true,
        _ => return Err(Error::Malformed("TPM reply", "unknown tag (is it a TPM 2.0?)")),
    };
    let body = reader.rest();
    if code != 0 && (sessions || !body.is_empty()) {
        return Err(Error::Malformed("TPM reply", "an error that carries data"));
    }
    Ok(Reply { code, sessions, body })
}

/// Reads one structure; every method fails rather than read past the end.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    what: &'static str,
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, left: bytes }
    }

    pub fn take(&mut self, size: usize) -> Result<&'a [u8], Error> {
        let (head, tail) = self.left.split_at_checked(size).ok_or(Error::Malformed(self.what, "it ends too early"))?;
        self.left = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub fn u8(&mut self) -> Result<u8, Error> {
        self.array().map(u8::from_be_bytes)
    }

    pub fn u16(&mut self) -> Result<u16, Error> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Error> {
        self.array().map(u64::from_be_bytes)
    }

    /// A TPM2B: 16-bit size, then that many bytes.
    pub fn sized(&mut self) -> Result<&'a [u8], Error> {
        let size = self.u16()?;
        self.take(usize::from(size))
    }

    pub fn rest(self) -> &'a [u8] {
        self.left
    }

    /// # Errors
    /// When something is left.
    pub fn end(self) -> Result<(), Error> {
        if self.left.is_empty() {
            return Ok(());
        }
        Err(Error::Malformed(self.what, "bytes after its end"))
    }
}

/// Writes one structure.
#[derive(Debug, Clone, Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    pub fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub fn u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    pub fn u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    /// A TPM2B. What this client sends is always far below 64 KiB.
    pub fn sized(&mut self, bytes: &[u8]) {
        self.u16(bytes.len() as u16);
        self.put(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tag: u16, size: u32, code: u32, body: &[u8]) -> Vec<u8> {
        let mut out = Writer::default();
        out.u16(tag);
        out.u32(size);
        out.u32(code);
        out.put(body);
        out.0
    }

    #[test]
    fn a_command_is_spelled_as_the_specification_does() {
        let mut parameters = Writer::default();
        parameters.u16(8);
        let random = Request::new(Command::GetRandom, &[], parameters);
        assert_eq!(random.bytes(), [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 8]);
        let extend = Request::new(Command::PcrExtend, &[16], Writer::default()).bytes();
        assert_eq!(extend[..6], [0x80, 2, 0, 0, 0, 27]);
        assert_eq!(extend[10..], [0, 0, 0, 16, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_reply_has_one_form() {
        let good = frame(NO_SESSIONS, 12, 0, b"ab");
        assert_eq!(parse_reply(&good).unwrap().body, b"ab");
        for bad in [
            frame(NO_SESSIONS, 13, 0, b"ab"),
            frame(NO_SESSIONS, 11, 0, b"ab"),
            frame(0x00c4, 12, 0, b"ab"),
            frame(NO_SESSIONS, 12, 0x922, b"ab"),
            frame(SESSIONS, 10, 0x922, b""),
            frame(NO_SESSIONS, 10, 0, b"")[..9].to_vec(),
            frame(NO_SESSIONS, 5010, 0, &[0; 5000]),
        ] {
            assert!(matches!(parse_reply(&bad), Err(Error::Malformed(..))), "{bad:x?}");
        }
    }

    #[test]
    fn the_session_area_is_checked_too() {
        let quote = Request::new(Command::Quote, &[1], Writer::default());
        let good = frame(SESSIONS, 21, 0, &[0, 0, 0, 2, 7, 7, 0, 0, 1, 0, 0]);
        assert_eq!(quote.answer(&good), Ok((0, &[7u8, 7][..])));
        for (at, byte) in [(13, 3), (13, 0xff), (16, 1), (18, 2), (20, 1)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert!(quote.answer(&bad).is_err(), "{at}");
        }
        let plain = frame(NO_SESSIONS, 12, 0, &[7, 7]);
        assert!(quote.answer(&plain).is_err());
        assert_eq!(quote.answer(&frame(NO_SESSIONS, 10, 0x922, &[])), Err(Error::Code("Quote", 0x922)));
    }
}
