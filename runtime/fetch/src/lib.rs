//! `boltseal-fetch`: signatures of an image, from its registry into the node's store, while the image is pulled.
//!
//! Two processes. The parent is root, reads what the operator wrote, and never parses a byte from the network. It starts
//! itself anew as another user ([`jail`]): that child talks to the registry ([`find`], [`registry`], [`http`]) and can write
//! nothing but one pipe. What comes through the pipe is framed by fixed code ([`frames`]), held to its caps and named by its
//! own content before it is stored ([`keep`]).
//!
//! Nobody trusts any of this: a start verifies every file that it reads.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

pub mod challenge;
pub mod child;
pub mod config;
pub mod credentials;
pub mod find;
pub mod frames;
pub mod helper;
pub mod http;
mod jail;
pub mod job;
pub mod judge;
pub mod keep;
pub mod keyless;
pub mod parent;
pub mod proxy;
pub mod reference;
pub mod registry;
mod sys;
pub mod url;

/// Text from outside on one line, in plain ASCII, not too long.
#[must_use]
pub fn shown(text: &str) -> String {
    let line: String = text.chars().take(200).map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect();
    if line.len() < text.len() && text.chars().count() > 200 { format!("{line}..") } else { line }
}
