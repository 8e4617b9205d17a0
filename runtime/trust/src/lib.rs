//! Bytes -> proposals and claims. No I/O, no clock.
//!
//! Two halves with a hard line between them (DESIGN section 1):
//! - [`propose`] parses what an author chooses freely. It runs in the jailed worker and is not believed. What it finds
//!   crosses the line as a [`Proposal`] in a small bounded format of its own.
//! - [`verify`](verify_signature) and [`bind`](bind_child) run in the gate. They have no parser: they hash and verify
//!   the raw bytes, rebuild the text that a signature must have and compare it, and walk a JSON text with a tokenizer
//!   of fixed memory to show that a proposed value really stands where it was proposed.
//!
//! Whatever the worker answers, [`verify_signature`] returns a claim only for a signature by that key over bytes that
//! name exactly that digest, and [`bind_child`], [`bind_diff_ids`], [`bind_config`] only for values of those bytes.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

mod attestation;
mod bind;
pub mod break_glass;
pub mod bundle;
mod claims;
mod digest;
pub mod dsse;
pub mod ear;
pub mod grant;
pub mod jws;
mod key;
pub mod keyless;
pub mod notation;
mod pin;
pub mod pod_token;
mod propose;
mod spki;
mod statement;
mod store;
mod strings;
mod text;
mod token;
mod verify;
mod verity;
mod wire;

pub use attestation::{Attestation, verify_attestation};
pub use bind::{Link, Unbound, bind_child, bind_config, bind_diff_ids, chain_id};
pub use claims::Json;
pub use digest::{Digest, NotADigest, digest};
pub use key::{Key, KeyError};
pub use pin::{Floor, Pin};
pub use propose::{
    Answer, Config, Descriptor, Index, IndexEntry, MAX_ATTESTATION_FILE, MAX_IMAGE_FILE, MAX_SIGNATURE_FILE, Malformed,
    Manifest, Placed, Proposal, SignatureProposal, Source, decode_answer, encode_answer, propose,
};
pub use statement::{Kind as StatementKind, SEVERITIES, Statement, decode_statement, read_statement};
pub use store::{
    ImportError, Imported, Referrer, StoreFile, attestation_file, bundle_file, import_layout, import_manifest,
    notation_file, referrers, signature_file,
};
pub use verify::{Claim, Format, Reject, verify_signature};
pub use verity::{
    BLOCK, Hashed, MAX_VERITY_BLOB, Tree, VERITY, VERITY_ARTIFACT, VERITY_BLOB, VerityLayer, area, dsse_envelope,
    dsse_message, verity_layers, verity_predicate, verity_statement,
};
pub use wire::{DecodeError, MAX_PROPOSAL};
