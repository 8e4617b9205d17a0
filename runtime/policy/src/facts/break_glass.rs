//! What lies in the node's folder of break-glass files, as far as keys of the policy signed it.
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakGlass {
    /// Of what was signed, twelve hex digits.
    pub id: String,
    /// Ids of those of the policy's keys that signed it.
    pub keys: BTreeSet<String>,
    /// Ids of nodes' enrolled keys.
    pub nodes: BTreeSet<String>,
    /// Rule -> conditions.
    pub rules: BTreeMap<String, BTreeSet<String>>,
    /// Seconds since the epoch.
    pub from: u64,
    pub until: u64,
    pub reason: String,
}

/// All of them, and whom this node is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakGlasses {
    pub found: Vec<BreakGlass>,
    /// Id of this node's enrolled key; None where none is.
    pub node: Option<String>,
    /// Why others do not count, one line each: for records, judged by nobody.
    pub refused: Vec<String>,
}
