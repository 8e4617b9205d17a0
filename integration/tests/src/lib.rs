//! A whole node in a private corner of this machine, for tests, demo and bench: containerd, registry, TPM, signed images,
//! policy, and clients for containerd's gRPC, `ctr` and the CRI.
#![forbid(unsafe_code)]

pub mod beside;
pub mod cases;
pub mod client;
pub mod containerd;
pub mod cri;
pub mod csi;
pub mod fulcio;
pub mod gate;
pub mod given;
pub mod granted;
pub mod image;
pub mod jws;
pub mod kexec;
pub mod leak;
pub mod node;
pub mod notation;
pub mod policy;
pub mod private;
pub mod process;
pub mod registry;
pub mod sign;
pub mod since;
pub mod spec;
pub mod tpm;
