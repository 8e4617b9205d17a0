//! One record of the trail. The order of the fields here is their order in the line.
//!
//! No environment, no arguments, no tokens: a record is read by more people than may know those.
use crate::text::{clean, layers};
use serde::{Deserialize, Serialize};

/// Version of the format, field `v`.
pub(crate) const VERSION: u32 = 1;
/// Findings that a record holds, those that did not pass first; the rest is counted in `more_findings`.
const MAX_FINDINGS: usize = 48;

/// What the caller knows; [`crate::Trail::append`] adds place and time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    pub ev: Event,
    pub door: Option<Door>,
    pub decision: Option<Decision>,
    /// Id of the decision that this record belongs to (`started`, `aborted`, `running`, `exited`, ...).
    pub of: String,
    pub who: Who,
    pub what: What,
    /// The policy's level in force for it.
    pub level: String,
    /// How well the image's bytes are bound to its signature: `unpacked`, ...
    pub integrity: String,
    /// `started` of a create: what the kernel compares each layer's bytes with, the lowest first.
    pub layers: Vec<String>,
    /// Every rule, not only the ones that denied.
    pub findings: Vec<Finding>,
    /// sha256 of the policy bundle, and of the sealed spec.
    pub policy: String,
    pub spec: String,
    /// Version of the program that writes.
    pub version: String,
    /// How long it took, milliseconds.
    pub ms: Option<u64>,
    pub cost: Option<Cost>,
    pub pid: Option<u32>,
    /// `exited`: wait status, 128 + signal for a signal.
    pub status: Option<u32>,
    /// `log_dropped`: bytes.
    pub bytes: Option<u64>,
    pub anomaly: Option<Anomaly>,
    pub network: Option<Anomaly>,
    /// When it happened, nanoseconds since the epoch, where that is earlier than the record.
    pub at_ns: Option<u64>,
    /// In words: the reason (`aborted`); why the node's kept verdict was not used (a decision).
    pub note: String,
    /// Break-glass that was in force, used or not, one line each.
    pub break_glass: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Allowed or denied a create or an update.
    #[default]
    Decision,
    /// Allowed or denied an exec'd process.
    Exec,
    /// The end of an allowing decision: created, inspected, parked; an exec'd process runs.
    Started,
    /// The other end: nothing runs.
    Aborted,
    Running,
    Exited,
    Oom,
    LogDropped,
    /// Something that a container was not meant to do: `anomaly`.
    Anomaly,
    /// A listener or a flow that was let be: `network`, of the form of an anomaly, and none.
    Network,
    /// A verdict on the node was made.
    Node,
    /// Bytes before this record were torn off by a killed writer; `torn` is their hash.
    Recovered,
    /// The last record of a file; `next` names the one that follows.
    Rotate,
}

/// What it cost to prove whose image a container is, to close it and to prove that (`started` of a create): microseconds of
/// wall clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// containerd's records, the image's chain and signatures, the owner. Records of an earlier version have 0.
    #[serde(default)]
    pub image_us: u32,
    pub seal_us: u32,
    /// The two inspections.
    pub inside_us: u32,
    pub outside_us: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    Allow,
    Deny,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    Create,
    Exec,
    Update,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Who {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub owner: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct What {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub handler: String,
    /// Kubernetes names; empty without Kubernetes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod_uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// containerd's namespace and ids.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub containerd_namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub exec_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sandbox_id: String,
    /// The image's name is text; its digest and repository are what was verified.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub digest: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub repository: String,
}

/// What a container did or tried (NIST SP 800-190, 4.4.4). Its texts come from inside the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anomaly {
    pub class: Class,
    /// It did not happen; else it was only seen.
    pub refused: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub what: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comm: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub executable: String,
    /// How many this record stands for.
    pub count: u64,
    /// Distinct destinations that were refused within a minute, this one the last of so many.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub port_scan: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    Process,
    Syscall,
    ProtectedFile,
    Write,
    Listener,
    Destination,
    Malware,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub rule: String,
    pub outcome: Outcome,
    /// The allowance's id, or the exception's owner, date and reason.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub condition: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fact: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Pass,
    Sealed,
    Allowed,
    Excepted,
    Warn,
    Deny,
}

/// A line of the trail, without its own `sum`, which [`crate::parse_line`] has checked and put back in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub v: u32,
    /// 1, 2, 3, ... over all files.
    pub seq: u64,
    /// RFC 3339 in UTC, nanoseconds.
    pub ts: String,
    pub boottime_ns: u64,
    pub boot_id: String,
    /// Latest wall clock of this and all earlier records, seconds since the epoch: a clock that was set back shows.
    pub latest: u64,
    pub ev: Event,
    /// 8 hex digits, unique in a trail.
    pub id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub of: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub door: Option<Door>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    #[serde(default)]
    pub who: Who,
    #[serde(default)]
    pub what: What,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub level: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub integrity: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more_findings: Option<usize>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub policy: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub spec: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anomaly: Option<Anomaly>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Anomaly>,
    /// RFC 3339, when it happened earlier than `ts`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub at: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub break_glass: Vec<String>,
    /// `recovered`: sha256 of all bytes between the last good line and this one; `bytes` is their number.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub torn: String,
    /// `rotate`: name of the file that follows.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub next: String,
    /// `sum` of the record before; 64 zeros in the first.
    pub prev: String,
    /// sha256 of this line up to the comma before `sum`, which binds `prev` too.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sum: String,
}

impl Entry {
    /// How many findings a record of it leaves out.
    pub(crate) fn more_findings(&self) -> Option<usize> {
        self.findings.len().checked_sub(MAX_FINDINGS).filter(|n| *n > 0)
    }

    /// Every text cleaned and bounded; `fact` is the room for the fact of a finding, `passed` for that of one that passed.
    pub(crate) fn bounded(&self, (fact, passed): (usize, usize)) -> Self {
        let (what, short, name) = (&self.what, 128, 256);
        let mut findings: Vec<&Finding> = self.findings.iter().collect();
        if findings.len() > MAX_FINDINGS {
            findings.sort_by_key(|f| f.outcome == Outcome::Pass);
        }
        Self {
            of: clean(&self.of, 16),
            who: Who { owner: clean(&self.who.owner, name) },
            what: What {
                handler: clean(&what.handler, 64),
                namespace: clean(&what.namespace, name),
                pod: clean(&what.pod, name),
                pod_uid: clean(&what.pod_uid, 64),
                container: clean(&what.container, name),
                containerd_namespace: clean(&what.containerd_namespace, short),
                id: clean(&what.id, short),
                exec_id: clean(&what.exec_id, short),
                sandbox_id: clean(&what.sandbox_id, short),
                image: clean(&what.image, 512),
                digest: clean(&what.digest, short),
                repository: clean(&what.repository, name),
            },
            level: clean(&self.level, 32),
            integrity: clean(&self.integrity, 32),
            layers: layers(&self.layers),
            findings: findings
                .into_iter()
                .take(MAX_FINDINGS)
                .map(|f| Finding {
                    rule: clean(&f.rule, 16),
                    outcome: f.outcome,
                    by: clean(&f.by, fact),
                    condition: clean(&f.condition, 48),
                    fact: clean(&f.fact, if f.outcome == Outcome::Pass { passed } else { fact }),
                })
                .collect(),
            policy: clean(&self.policy, 80),
            spec: clean(&self.spec, 80),
            version: clean(&self.version, 64),
            note: clean(&self.note, 1024),
            break_glass: self.break_glass.iter().take(4).map(|line| clean(line, 256)).collect(),
            anomaly: self.anomaly.as_ref().map(Anomaly::bounded),
            network: self.network.as_ref().map(Anomaly::bounded),
            ..*self
        }
    }
}

impl Anomaly {
    fn bounded(&self) -> Self {
        Self {
            what: clean(&self.what, 512),
            comm: clean(&self.comm, 64),
            executable: clean(&self.executable, 512),
            ..*self
        }
    }
}
