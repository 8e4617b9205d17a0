//! Seals: (Permit, Spec) -> [`Sealed`]. Pure. What was judged is what runs: libcontainer sees only what this makes.
//!
//! Every security field of the new spec is explicit; nothing that libcontainer would drop or misread gets through.
#![forbid(unsafe_code)]

mod table;

pub use table::{ApprovedMount, ApprovedNamespace, Label, Landlock, Table};

use oci_spec::runtime::Spec;

/// The sealed container: the spec that libcontainer reads, and the table that inspection compares with the kernel's view.
#[derive(Debug, Clone)]
pub struct Sealed {
    pub spec: Spec,
    /// The spec's serialisation, the bytes that are written to our own bundle folder.
    pub json: Vec<u8>,
    /// sha256 of `json`, hex.
    pub digest: String,
    pub table: Table,
}
