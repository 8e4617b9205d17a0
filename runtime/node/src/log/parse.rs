//! Bytes of a crypto-agile event log to the list of its events. It runs in the jail and proposes; see [`super::prove`].
//!
//! Little-endian. First an event of the old form that names the hash algorithms, then TCG_PCR_EVENT2 up to the last byte.
use super::events::encode;
use super::{Event, MAX_EVENTS, MAX_LOG};
use crate::Error;

const WHAT: &str = "event log";
const NO_ACTION: u32 = 3;
const SIGNATURE: &[u8; 16] = b"Spec ID Event03\0";
const SHA256_ID: u16 = 0x000b;
/// Hash algorithms that a log may name.
const MAX_ALGORITHMS: u32 = 8;

/// Takes a log apart and writes what it found, for [`super::Events::decode`]. An error is written too: as text.
#[must_use]
pub fn propose(log: &[u8]) -> Vec<u8> {
    match parse(log) {
        Ok(events) => encode(&events),
        Err(error) => [b"E", error.to_string().as_bytes()].concat(),
    }
}

pub(crate) fn parse(log: &[u8]) -> Result<Vec<Event>, Error> {
    if log.len() > MAX_LOG {
        return Err(Error::Malformed(WHAT, "larger than 2 MiB"));
    }
    let mut bytes = Bytes { all: log, at: 0 };
    let algorithms = header(&mut bytes)?;
    let mut events = Vec::new();
    while bytes.at < log.len() {
        if events.len() >= MAX_EVENTS {
            return Err(Error::Malformed(WHAT, "more than 8192 events"));
        }
        events.push(event(&mut bytes, &algorithms)?);
    }
    Ok(events)
}

/// The first event: (algorithm, size of its digests) of all later ones.
fn header(bytes: &mut Bytes<'_>) -> Result<Vec<(u16, usize)>, Error> {
    if (bytes.u32()?, bytes.u32()?) != (0, NO_ACTION) {
        return Err(Error::Malformed(WHAT, "it does not begin with the event that names its hash algorithms"));
    }
    bytes.take(20)?;
    let size = bytes.u32()?;
    let end = bytes.at.saturating_add(size as usize);
    if bytes.take(16)? != SIGNATURE {
        return Err(Error::Malformed(WHAT, "not crypto-agile (TPM 2.0)"));
    }
    bytes.take(8)?; // platform class, versions, size of a UINTN
    let count = bytes.u32()?;
    if !(1..=MAX_ALGORITHMS).contains(&count) {
        return Err(Error::Malformed(WHAT, "no hash algorithm, or more than 8"));
    }
    let mut algorithms = Vec::new();
    for _ in 0..count {
        let (id, size) = (bytes.u16()?, usize::from(bytes.u16()?));
        if !(20..=64).contains(&size) || algorithms.iter().any(|(known, _)| *known == id) {
            return Err(Error::Malformed(WHAT, "a hash algorithm of an odd size, or one twice"));
        }
        algorithms.push((id, size));
    }
    if !algorithms.contains(&(SHA256_ID, 32)) {
        return Err(Error::Malformed(WHAT, "it has no SHA-256 digests"));
    }
    let vendor = usize::from(bytes.u8()?);
    bytes.take(vendor)?;
    if bytes.at != end {
        return Err(Error::Malformed(WHAT, "its first event has another size than it says"));
    }
    Ok(algorithms)
}

fn event(bytes: &mut Bytes<'_>, algorithms: &[(u16, usize)]) -> Result<Event, Error> {
    let (pcr, kind, count) = (bytes.u32()?, bytes.u32()?, bytes.u32()?);
    if count as usize > algorithms.len() {
        return Err(Error::Malformed(WHAT, "an event with more digests than the log has algorithms"));
    }
    let mut digest = None;
    for _ in 0..count {
        let id = bytes.u16()?;
        let size = algorithms.iter().find(|(known, _)| *known == id).map(|(_, size)| *size);
        let value =
            bytes.take(size.ok_or(Error::Malformed(WHAT, "a digest of an algorithm that it does not name"))?)?;
        if id == SHA256_ID && digest.replace(value).is_some() {
            return Err(Error::Malformed(WHAT, "an event with two SHA-256 digests"));
        }
    }
    let digest = digest.and_then(|d| <[u8; 32]>::try_from(d).ok());
    let digest = digest.ok_or(Error::Malformed(WHAT, "an event without a SHA-256 digest"))?;
    if pcr > 23 && kind != NO_ACTION {
        return Err(Error::Malformed(WHAT, "an event of a PCR above 23"));
    }
    let size = bytes.u32()? as usize;
    let start = bytes.at;
    bytes.take(size)?;
    Ok(Event { pcr, kind, digest, data: start..bytes.at })
}

struct Bytes<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Bytes<'a> {
    fn take(&mut self, size: usize) -> Result<&'a [u8], Error> {
        let end = self.at.checked_add(size).ok_or(Error::Malformed(WHAT, "it ends in the middle of an event"))?;
        let taken = self.all.get(self.at..end).ok_or(Error::Malformed(WHAT, "it ends in the middle of an event"))?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u8(&mut self) -> Result<u8, Error> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, Error> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_le_bytes)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use ring::digest::{SHA256, digest};

    /// A log as firmware writes it: SHA-1 and SHA-256 digests.
    #[derive(Debug, Clone)]
    pub(crate) struct Written(pub(crate) Vec<u8>);

    impl Written {
        pub(crate) fn new() -> Self {
            let mut event = SIGNATURE.to_vec();
            event.extend([0, 0, 0, 0, 0, 2, 0, 2]);
            event.extend([2, 0, 0, 0, 4, 0, 20, 0, 0x0b, 0, 32, 0, 0]);
            let mut out = vec![0, 0, 0, 0, 3, 0, 0, 0];
            out.extend([0; 20]);
            out.extend((event.len() as u32).to_le_bytes());
            out.extend(event);
            Self(out)
        }

        pub(crate) fn event(mut self, pcr: u32, kind: u32, value: [u8; 32], data: &[u8]) -> Self {
            for number in [pcr, kind, 2] {
                self.0.extend(number.to_le_bytes());
            }
            self.0.extend([4, 0]);
            self.0.extend([0x11; 20]);
            self.0.extend([0x0b, 0]);
            self.0.extend(value);
            self.0.extend((data.len() as u32).to_le_bytes());
            self.0.extend(data);
            self
        }

        /// An event whose digest is that of its data.
        pub(crate) fn said(self, pcr: u32, kind: u32, data: &[u8]) -> Self {
            let mut value = [0; 32];
            value.copy_from_slice(digest(&SHA256, data).as_ref());
            self.event(pcr, kind, value, data)
        }
    }

    fn good() -> Vec<u8> {
        Written::new().event(4, 0x8000_0003, [1; 32], b"path").said(7, 4, &[0; 4]).event(u32::MAX, 3, [0; 32], b"").0
    }

    fn refused(log: &[u8]) -> String {
        parse(log).unwrap_err().to_string()
    }

    #[test]
    fn events_are_read_in_order() {
        let log = good();
        let events = parse(&log).unwrap();
        assert_eq!(
            events.iter().map(|e| (e.pcr, e.kind)).collect::<Vec<_>>(),
            [(4, 0x8000_0003), (7, 4), (u32::MAX, 3)]
        );
        assert_eq!((events[0].digest, &log[events[0].data.clone()]), ([1; 32], &b"path"[..]));
        assert_eq!(parse(&Written::new().0), Ok(vec![]));
    }

    /// Cut anywhere but between two events it is no log; there, it replays to other values (see `prove`).
    #[test]
    fn a_cut_log_is_refused_or_shorter() {
        let log = good();
        let whole = parse(&log).unwrap().len();
        let mut shorter = 0;
        for end in 0..log.len() {
            match parse(&log[..end]) {
                Ok(events) => {
                    assert!(events.len() < whole);
                    shorter += 1;
                }
                Err(error) => assert!(error.to_string().contains("event log"), "{error}"),
            }
        }
        assert_eq!(shorter, whole);
    }

    #[test]
    fn a_padded_log_is_refused() {
        for padding in [&[0_u8][..], &[0; 16], &[0; 100], &[0xff; 16], b"\n"] {
            assert!(parse(&[&good(), padding].concat()).is_err(), "{padding:?}");
        }
    }

    #[test]
    fn what_is_too_large_is_refused_unread() {
        let error = refused(&vec![0; 100 << 20]);
        assert!(error.contains("larger than 2 MiB"), "{error}");
        let mut log = Written::new();
        for _ in 0..=MAX_EVENTS {
            log = log.event(1, 1, [0; 32], b"");
        }
        assert!(refused(&log.0).contains("more than 8192 events"));
        // A size field that promises 4 GB.
        let mut log = good();
        let at = log.len() - 4;
        log[at..].fill(0xff);
        assert!(refused(&log).contains("middle of an event"));
    }

    #[test]
    fn odd_headers_and_events_are_refused() {
        let change = |at: usize, byte: u8| {
            let mut log = good();
            log[at] = byte;
            refused(&log)
        };
        assert!(change(0, 1).contains("does not begin"));
        assert!(change(4, 4).contains("does not begin"));
        assert!(change(32, b's').contains("crypto-agile"));
        assert!(change(56, 0).contains("no hash algorithm"));
        assert!(change(56, 9).contains("no hash algorithm"));
        assert!(change(64, 0x0c).contains("no SHA-256"));
        assert!(change(66, 33).contains("no SHA-256"));
        assert!(change(64, 4).contains("one twice"));
        let start = Written::new().0.len();
        assert!(change(start, 24).contains("above 23"));
        assert!(change(start + 8, 3).contains("more digests"));
        assert!(change(start + 8, 1).contains("without a SHA-256"));
        assert!(change(start + 12, 5).contains("does not name"));
        assert!(change(28, 0xff).contains("another size"));
    }
}
