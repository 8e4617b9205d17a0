//! Whom this node takes policies from: the file `/var/lib/boltseal/signer`, written when the node is enrolled.
//!
//! Three lines of text, in this order and no other form:
//! ```text
//! boltseal-signer 1
//! key <base64 of a SubjectPublicKeyInfo in DER, P-256>
//! floor tpm <count> <address>
//! ```
//! The last line says where the floor under the policy's version is kept: a TPM's counter, which stood at `count` when the
//! key was pinned; or `floor none`.
use crate::{Key, digest};

/// Longest file that is looked at.
const MAX_FILE: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    pub key: Key,
    /// None: nothing counts versions, so that an older signed bundle is as good as a newer one.
    pub floor: Option<Floor>,
}

/// A TPM's counter, and where it stood for version 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Floor {
    pub tpm: String,
    pub base: u64,
}

impl Pin {
    /// Reads the file's bytes. What is read, spelled again, is those bytes.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= MAX_FILE)?;
        let mut lines = text.strip_suffix('\n')?.split('\n');
        (lines.next()? == "boltseal-signer 1").then_some(())?;
        let key = lines.next()?.strip_prefix("key ")?;
        let key =
            Key::p256_from_spki_pem(&format!("-----BEGIN PUBLIC KEY-----\n{key}\n-----END PUBLIC KEY-----\n")).ok()?;
        let floor = match lines.next()?.strip_prefix("floor ")? {
            "none" => None,
            kept => {
                let (base, tpm) = kept.strip_prefix("tpm ")?.split_once(' ')?;
                Some(Floor { tpm: tpm.to_owned(), base: base.parse().ok()? })
            }
        };
        Some(Self { key, floor }).filter(|pin| pin.text() == text)
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        let floor = match &self.floor {
            None => "none".to_owned(),
            Some(Floor { tpm, base }) => format!("tpm {base} {tpm}"),
        };
        format!("boltseal-signer 1\nkey {}\nfloor {floor}\n", self.key.base64())
    }

    /// sha256 of the file, hex: what is measured of it.
    #[must_use]
    pub fn id(&self) -> String {
        digest(self.text().as_bytes()).hex()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNER: &str = include_str!("../tests/fixtures/keys/signer.pub");

    #[test]
    fn it_is_read_as_it_is_written_and_in_no_other_form() {
        let key = Key::from_spki_pem(SIGNER).unwrap();
        let floor = Some(Floor { tpm: "/dev/tpmrm0".into(), base: 12 });
        for floor in [None, floor, Some(Floor { tpm: "unix:/run/a b/tpm".into(), base: 0 })] {
            let pin = Pin { key: key.clone(), floor };
            assert_eq!(pin.id(), digest(pin.text().as_bytes()).hex());
            assert_eq!(Pin::read(pin.text().as_bytes()), Some(pin));
        }
        let good = Pin { key, floor: Some(Floor { tpm: "/dev/tpmrm0".into(), base: 12 }) }.text();
        for bad in [
            "",
            SIGNER,
            good.trim_end(),
            &format!("{good}\n"),
            &good.replace('\n', "\r\n"),
            &good.replace("tpm 12", "tpm 012"),
            &good.replace("tpm 12", "tpm -1"),
            &good.replace("tpm 12 /dev/tpmrm0", "None"),
            &good.replace("tpm 12 /dev/tpmrm0", "tpm 12"),
            &good.replace("signer 1", "signer 2"),
            &good.replace("key M", "key  M"),
            &good.replace("key M", "key N"),
        ] {
            assert_eq!(Pin::read(bad.as_bytes()), None, "{bad}");
        }
    }
}
