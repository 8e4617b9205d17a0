//! What an image must show beside its signature (BS-IMG-004, 005, 006, 009, 010): for the node in `[image]`; a scope's own
//! table stands in the place of the node's.
use crate::facts::Severity;
use serde::{Deserialize, Serialize};

/// How old an image may be (BS-IMG-004).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgeRules {
    pub max_days: u64,
    #[serde(default)]
    pub source: AgeSource,
}

/// What says how old it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgeSource {
    /// `created` of the signed config.
    #[default]
    Created,
    /// When the scan finished that counts for `[image.vulnerabilities]`.
    Scan,
    /// When it was signed, by somebody trusted with the time.
    Timestamp,
}

/// What a scan may have found (BS-IMG-005).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScanRules {
    /// Days since the scan.
    pub max_days: u64,
    /// The worst that may be left; `none`: nothing at all.
    pub max_severity: Severity,
    /// Whose scans count; by no key that signs the image too.
    pub authorities: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<Tolerated>,
}

/// One vulnerability that is tolerated for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tolerated {
    /// As the scanner names it: `CVE-2026-1234`, `GHSA-..`.
    pub id: String,
    pub owner: String,
    pub reason: String,
    /// RFC 3339 date or date-time, UTC.
    pub expires: String,
}

/// Whose bill of materials must be there (BS-IMG-006).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BomRules {
    pub authorities: Vec<String>,
}

/// Who must have built it, and whose word that is (BS-IMG-006).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvenanceRules {
    pub authorities: Vec<String>,
    /// Patterns of `builder.id`.
    pub builders: Vec<String>,
    /// Patterns of `buildType`; none: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub build_types: Vec<String>,
}

/// That nothing secret stands in config and history (BS-IMG-009).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretRules {
    /// Patterns of names of variables and labels that only look like secrets.
    #[serde(default)]
    pub allow: Vec<String>,
}

/// A base image (BS-IMG-010).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    pub name: String,
    /// All its layers, the lowest first.
    pub diff_ids: Vec<String>,
}
