//! What the parent tells the child: everything it needs, and nothing else of what the operator wrote.
use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// Process id of the parent: a child that lost it ends.
    pub parent: u32,
    pub host: String,
    pub port: Option<u16>,
    pub path: String,
    /// `sha256:<hex>`
    pub digest: String,
    /// Milliseconds for all of it.
    pub time: u64,
    /// `host:port` of the registries that are asked without TLS.
    pub plain_http: Vec<String>,
    /// Certificates of authorities, PEM.
    pub ca: String,
    pub secret: Secret,
    pub proxy: Option<String>,
    pub no_proxy: String,
    pub ports: Vec<u16>,
}

/// The credentials of this one registry.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Secret {
    #[default]
    None,
    Basic {
        user: String,
        password: String,
    },
    /// To be exchanged for a token (OAuth 2).
    Refresh(String),
    /// What a credential helper printed.
    Helper(Vec<u8>),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::None { "none" } else { "some" })
    }
}
