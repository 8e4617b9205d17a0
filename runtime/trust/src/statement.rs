//! What a signed statement says: a scan, a bill of materials, a provenance. To be read by a worker of its own, which has seen nothing that no
//! key of the policy signed; what it answers is bounded, and believed as far as the record says `trust=jailed`.
mod read;

use crate::propose::{Malformed, printable};
use crate::wire::{DecodeError, Reader, Writer};

/// Predicate types that are read, as `cosign attest` writes them.
const KINDS: [(&str, Kind); 5] = [
    ("https://cosign.sigstore.dev/attestation/vuln/v1", Kind::Scan),
    ("https://spdx.dev/Document", Kind::Spdx),
    ("https://cyclonedx.org/bom", Kind::CycloneDx),
    ("https://slsa.dev/provenance/v1", Kind::Slsa1),
    ("https://slsa.dev/provenance/v0.2", Kind::Slsa02),
];

/// Which form a statement has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Scan,
    Spdx,
    CycloneDx,
    Slsa1,
    Slsa02,
}

impl Kind {
    /// By the predicate type that was signed.
    #[must_use]
    pub fn of(predicate_type: &str) -> Option<Self> {
        KINDS.iter().find(|(name, _)| *name == predicate_type).map(|(_, kind)| *kind)
    }

    /// For the way to a worker.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Scan => 0,
            Self::Spdx => 1,
            Self::CycloneDx => 2,
            Self::Slsa1 => 3,
            Self::Slsa02 => 4,
        }
    }

    fn numbered(number: u8) -> Option<Self> {
        KINDS.iter().map(|(_, kind)| *kind).find(|kind| kind.number() == number)
    }
}

/// Longest id of a vulnerability, bytes.
const MAX_ID: usize = 64;
/// Most ids that are named one by one; the worst come first.
pub(crate) const MAX_FOUND: usize = 4096;
/// Bytes of a builder's id, a build type, a time.
const MAX_TEXT: usize = 512;
/// Severities, from the least to the unknown.
pub const SEVERITIES: [&str; 6] = ["negligible", "low", "medium", "high", "critical", "unknown"];

/// What a statement says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    Scan {
        /// `trivy` or `grype`.
        scanner: String,
        /// RFC 3339 as it stands there.
        finished: String,
        /// How many ids there are of each of [`SEVERITIES`].
        counts: [u32; 6],
        /// Ids with the place of their severity in [`SEVERITIES`], the worst first; of more than 4096 not all.
        found: Vec<(String, u8)>,
    },
    Bom {
        /// `SPDX` or `CycloneDX`.
        format: String,
        packages: u32,
    },
    Provenance {
        builder: String,
        build_type: String,
    },
}

/// Reads a statement's bytes as that kind. To be called in the worker; the answer is for [`decode_statement`].
#[must_use]
pub fn read_statement(kind: u8, statement: &[u8]) -> Vec<u8> {
    let read = Kind::numbered(kind)
        .ok_or_else(|| Malformed::new("no such kind of statement"))
        .and_then(|kind| read::statement(kind, statement));
    let mut w = Writer::default();
    match read {
        Err(why) => {
            w.byte(0);
            w.text(why.reason());
        }
        Ok(Statement::Scan { scanner, finished, counts, found }) => {
            w.byte(1);
            w.text(&scanner);
            w.text(&finished);
            counts.into_iter().for_each(|count| w.u32(count));
            w.list(&found, |w, (id, severity)| {
                w.text(id);
                w.byte(*severity);
            });
        }
        Ok(Statement::Bom { format, packages }) => {
            w.byte(2);
            w.text(&format);
            w.u32(packages);
        }
        Ok(Statement::Provenance { builder, build_type }) => {
            w.byte(3);
            w.text(&builder);
            w.text(&build_type);
        }
    }
    w.0
}

/// What a worker answered; Err says why the statement could not be read.
///
/// # Errors
/// [`DecodeError`] for anything but the exact encoding within its bounds.
pub fn decode_statement(answer: &[u8]) -> Result<Result<Statement, String>, DecodeError> {
    let mut r = Reader::new(answer)?;
    let read = match r.byte()? {
        0 => Err(printable(&r.text(MAX_TEXT)?)),
        1 => {
            let (scanner, finished) = (r.text(MAX_TEXT)?, r.text(MAX_TEXT)?);
            let mut counts = [0; 6];
            for count in &mut counts {
                *count = r.u32()?;
            }
            let found = r.list(MAX_FOUND, |r| {
                let (id, severity) = (r.text(MAX_ID)?, r.byte()?);
                if usize::from(severity) < SEVERITIES.len() {
                    Ok((id, severity))
                } else {
                    Err(DecodeError("no severity"))
                }
            })?;
            Ok(Statement::Scan { scanner, finished, counts, found })
        }
        2 => Ok(Statement::Bom { format: r.text(MAX_TEXT)?, packages: r.u32()? }),
        3 => Ok(Statement::Provenance { builder: r.text(MAX_TEXT)?, build_type: r.text(MAX_TEXT)? }),
        _ => return Err(DecodeError("unknown kind of statement")),
    };
    r.end()?;
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_severity_is_one_of_them() {
        let answer = |severity: usize| {
            let mut w = Writer::default();
            w.byte(1);
            w.text("trivy");
            w.text("2026-01-01T00:00:00Z");
            (0..6).for_each(|count| w.u32(count));
            w.list(&[u8::try_from(severity).unwrap()], |w, severity| {
                w.text("CVE-2026-1");
                w.byte(*severity);
            });
            w.0
        };
        for severity in 0..SEVERITIES.len() {
            let Ok(Ok(Statement::Scan { found, counts, .. })) = decode_statement(&answer(severity)) else { panic!() };
            assert_eq!(found, [("CVE-2026-1".to_owned(), u8::try_from(severity).unwrap())]);
            assert_eq!(counts, [0, 1, 2, 3, 4, 5]);
        }
        assert_eq!(decode_statement(&answer(SEVERITIES.len())), Err(DecodeError("no severity")));
    }
}
