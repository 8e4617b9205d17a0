//! What the child tells through its pipe: one byte of kind, four of length, then as many bytes. Read by fixed code in a
//! process that is root, so every length has its cap and nothing is parsed.
use boltseal_trust::{Digest, MAX_ATTESTATION_FILE, MAX_IMAGE_FILE};

/// Kinds of signature files, by the ends of their names in the store.
pub const ENDS: [&str; 5] = ["sig.json", "bundle.json", "dsse.json", "notation.jws", "notation.cose"];
/// Longest note, bytes.
pub const MAX_NOTE: usize = 300;
const HEAD: usize = 5;

/// One thing that the child says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// That was all.
    End,
    /// The image is an index: its bytes, that show which manifests belong to it.
    Index(Vec<u8>),
    /// A signature file of that manifest; the place of its end in [`ENDS`].
    File { end: u8, manifest: [u8; 32], bytes: Vec<u8> },
    /// Something was not taken: why.
    Note(Vec<u8>),
}

impl Frame {
    /// Of a file as the store has it; None where the store has no such kind.
    #[must_use]
    pub fn file(manifest: &Digest, name: &str, bytes: Vec<u8>) -> Option<Self> {
        let (_, end) = name.split_once('.')?;
        let end = ENDS.iter().position(|e| *e == end)?;
        Some(Self::File { end: u8::try_from(end).ok()?, manifest: raw(&manifest.hex())?, bytes })
    }

    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (kind, parts): (u8, [&[u8]; 3]) = match self {
            Self::End => (0, [&[], &[], &[]]),
            Self::Index(bytes) => (1, [bytes, &[], &[]]),
            Self::File { end, manifest, bytes } => (2, [std::slice::from_ref(end), manifest, bytes]),
            Self::Note(text) => (3, [text.get(..text.len().min(MAX_NOTE)).unwrap_or_default(), &[], &[]]),
        };
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let mut out = vec![kind];
        out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        parts.iter().for_each(|part| out.extend_from_slice(part));
        out
    }

    /// The first frame of `bytes` and how long it is; None where more must come.
    ///
    /// # Errors
    /// A kind that there is not, or a length above its cap.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, &'static str> {
        let Some(([kind, length @ ..], rest)) = bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (least, most) = match kind {
            0 => (0, 0),
            1 => (0, MAX_IMAGE_FILE),
            2 => (33, 33 + MAX_ATTESTATION_FILE),
            3 => (0, MAX_NOTE),
            _ => return Err("a kind that there is not"),
        };
        if !(least..=most).contains(&length) {
            return Err("a length above its cap");
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let frame = match kind {
            0 => Self::End,
            1 => Self::Index(body.to_vec()),
            2 => {
                let (Some((end, rest)), true) = (body.split_first(), length >= 33) else { return Err("too short") };
                let Some((manifest, bytes)) = rest.split_first_chunk::<32>() else { return Err("too short") };
                if usize::from(*end) >= ENDS.len() {
                    return Err("a file of a kind that there is not");
                }
                Self::File { end: *end, manifest: *manifest, bytes: bytes.to_vec() }
            }
            _ => Self::Note(body.to_vec()),
        };
        Ok(Some((frame, HEAD + length)))
    }
}

/// 64 hex digits as 32 bytes.
fn raw(hex: &str) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    for (at, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltseal_trust::digest;

    #[test]
    fn what_is_written_is_read() {
        let image = digest(b"x");
        let file = Frame::file(&image, "00.notation.jws", b"j".to_vec()).unwrap();
        assert!(matches!(&file, Frame::File { end: 3, .. }));
        assert_eq!(Frame::file(&image, "00.txt", Vec::new()), None);
        for frame in [Frame::End, Frame::Index(b"{}".to_vec()), file, Frame::Note(b"why".to_vec())] {
            let bytes = frame.encode();
            assert_eq!(Frame::decode(&bytes), Ok(Some((frame, bytes.len()))));
            assert_eq!(Frame::decode(&bytes[..bytes.len() - 1]), Ok(None));
        }
    }

    #[test]
    fn caps() {
        for bad in [
            &[9, 0, 0, 0, 0][..],
            &[0, 1, 0, 0, 0],
            &[2, 32, 0, 0, 0],
            &[1, 1, 0, 64, 0],
            &[3, 0, 2, 0, 0],
            &[2, 0, 0, 17, 0],
        ] {
            assert!(Frame::decode(bad).is_err(), "{bad:?}");
        }
        let mut file = vec![2, 33, 0, 0, 0, 5];
        file.extend([0; 32]);
        assert!(Frame::decode(&file).is_err());
    }
}
