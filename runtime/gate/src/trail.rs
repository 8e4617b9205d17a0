//! What the gate writes into the trail: decisions, and how each allowed one ended.
use crate::paths;
use crate::refuse::{Refused, Result};
use boltseal_audit::{Appended, Decision, Entry, Event, Trail, What, Who};
use boltseal_evidence::record::ContainerRecord;
use boltseal_message::{Class, Code, EventKind, Request};
use boltseal_policy::facts::{Door, Facts};
use boltseal_policy::{Denial, Fact, Finding, Outcome};
use std::time::Instant;

/// The trail, or why it cannot take a record (which denies by BS-AUD-001).
#[derive(Debug)]
pub(crate) struct Book {
    trail: std::result::Result<Trail, String>,
    begun: Instant,
    /// sha256 of the policy bundle and its level, once known.
    pub(crate) policy: String,
    pub(crate) level: String,
    /// What of break-glass is in force for this request, and files that do not count.
    pub(crate) break_glass: Vec<String>,
}

impl Book {
    pub(crate) fn open() -> Self {
        Self {
            trail: Trail::open(std::path::Path::new(paths::TRAIL)).map_err(|e| e.to_string()),
            begun: Instant::now(),
            policy: String::new(),
            level: String::new(),
            break_glass: Vec::new(),
        }
    }

    /// From here on every record and every refusal shows what of break-glass is in force.
    pub(crate) fn judge_by(&mut self, policy: &boltseal_policy::Policy, facts: &Facts) {
        self.break_glass = boltseal_policy::break_glass(policy, facts);
        let refused = facts.break_glass.refused.iter().map(|why| format!("not in force: {why}"));
        self.break_glass.extend(refused);
    }

    /// The fact that BS-AUD-001 rules on.
    pub(crate) fn ready(&self) -> Fact<()> {
        match &self.trail {
            Err(why) => Fact::Unknown(why.clone()),
            Ok(trail) => match trail.can_append() {
                Ok(()) => Fact::Is(()),
                Err(e) => Fact::Unknown(e.to_string()),
            },
        }
    }

    /// Wall clock of the newest record, seconds since the epoch.
    pub(crate) fn last_time(&self) -> std::result::Result<Option<u64>, String> {
        let trail = self.trail.as_ref().map_err(Clone::clone)?;
        trail.last_time().map_err(|e| e.to_string())
    }

    /// Records a denial, durably, and makes the answer of it. A denial that cannot be recorded is still a denial.
    pub(crate) fn refuse(&self, mut entry: Entry, denial: Denial, code: Option<Code>) -> Refused {
        entry.decision = Some(Decision::Deny);
        entry.findings = denial.findings.iter().map(finding).collect();
        let id = match self.append(entry).and_then(|appended| self.sync(&appended).map(|()| appended.id)) {
            Ok(id) => id,
            Err(_) => "not recorded".into(),
        };
        let also = self.break_glass.clone();
        Refused::Verdict { denial, id, code, also }
    }

    /// Appends the allowing decision. It is durable only after [`Book::sync`].
    pub(crate) fn allow(&self, mut entry: Entry, findings: &[Finding], spec: &str) -> Result<Appended> {
        entry.decision = Some(Decision::Allow);
        entry.findings = findings.iter().map(finding).collect();
        spec.clone_into(&mut entry.spec);
        self.append(entry).map_err(|why| no_record(&why))
    }

    /// Records how the decision `of` ended, durably.
    pub(crate) fn end(&self, entry: Entry, of: &str, ev: Event, pid: Option<u32>, note: &str) -> Result<()> {
        let entry = Entry { ev, of: of.into(), pid, note: note.into(), ..entry };
        let appended = self.append(entry).map_err(|why| no_record(&why))?;
        self.sync(&appended).map_err(|why| no_record(&why))
    }

    /// Appends what the shim saw. The exit of a container does not wait for the disk.
    pub(crate) fn event(
        &self,
        request: &Request,
        record: Option<&ContainerRecord>,
        event: &boltseal_message::Event,
    ) -> Result<()> {
        let mut entry = Entry {
            version: env!("CARGO_PKG_VERSION").into(),
            at_ns: Some(event.at_ns),
            what: What {
                handler: "boltseal".into(),
                containerd_namespace: request.namespace.clone(),
                id: event.id.clone(),
                exec_id: event.exec_id.clone(),
                ..What::default()
            },
            ..Entry::default()
        };
        if let Some(record) = record {
            entry.of.clone_from(&record.decision);
            entry.integrity.clone_from(&record.integrity);
            entry.who = Who { owner: record.owner.clone() };
            entry.what.namespace.clone_from(&record.pod_namespace);
            entry.what.pod.clone_from(&record.pod_name);
            entry.what.pod_uid.clone_from(&record.pod_uid);
            entry.what.container.clone_from(&record.container_name);
            entry.what.sandbox_id.clone_from(&record.sandbox_id);
            entry.what.image.clone_from(&record.image);
            entry.what.digest.clone_from(&record.digest);
            entry.what.repository.clone_from(&record.repository);
        }
        match &event.kind {
            EventKind::Exited { pid, status } => {
                (entry.ev, entry.pid, entry.status) = (Event::Exited, Some(*pid), Some(*status));
            }
            EventKind::Running { pid } => (entry.ev, entry.pid) = (Event::Running, Some(*pid)),
            EventKind::Aborted { reason } => (entry.ev, entry.note) = (Event::Aborted, reason.clone()),
            EventKind::OutOfMemory => entry.ev = Event::Oom,
            EventKind::LogDropped { bytes } => (entry.ev, entry.bytes) = (Event::LogDropped, Some(*bytes)),
            EventKind::Anomaly(seen) => {
                (entry.ev, entry.pid) = (Event::Anomaly, Some(seen.pid).filter(|pid| *pid != 0));
                entry.anomaly = Some(anomaly(seen));
            }
            EventKind::Network(seen) => {
                (entry.ev, entry.pid) = (Event::Network, Some(seen.pid).filter(|pid| *pid != 0));
                entry.network = Some(anomaly(seen));
            }
        }
        self.append(entry).map(drop).map_err(|why| no_record(&why))
    }

    pub(crate) fn sync(&self, appended: &Appended) -> std::result::Result<(), String> {
        appended.sync.sync().map_err(|e| e.to_string())
    }

    fn append(&self, mut entry: Entry) -> std::result::Result<Appended, String> {
        let trail = self.trail.as_ref().map_err(Clone::clone)?;
        entry.policy.clone_from(&self.policy);
        entry.break_glass.clone_from(&self.break_glass);
        if entry.level.is_empty() {
            entry.level.clone_from(&self.level);
        }
        entry.ms = Some(u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX));
        trail.append(&entry).map_err(|e| e.to_string())
    }
}

/// The entry of a request before anything is known about it.
pub(crate) fn bare(request: &Request, door: Door, exec_id: &str) -> Entry {
    Entry {
        ev: if door == Door::Exec { Event::Exec } else { Event::Decision },
        door: Some(match door {
            Door::Create => boltseal_audit::Door::Create,
            Door::Exec => boltseal_audit::Door::Exec,
            Door::Update => boltseal_audit::Door::Update,
        }),
        version: env!("CARGO_PKG_VERSION").into(),
        what: What {
            handler: "boltseal".into(),
            containerd_namespace: request.namespace.clone(),
            id: request.id.clone(),
            exec_id: exec_id.into(),
            ..What::default()
        },
        ..Entry::default()
    }
}

/// The same with what the facts say.
pub(crate) fn entry(request: &Request, facts: &Facts) -> Entry {
    let subject = &facts.subject;
    let mut entry = bare(request, facts.door, &subject.exec_id);
    entry.who = Who { owner: facts.owner.is().cloned().unwrap_or_default() };
    entry.note = facts.node.is().map(|node| node.notes.join("; ")).unwrap_or_default();
    entry.integrity = facts.rootfs.is().map(|rootfs| rootfs.integrity.clone()).unwrap_or_default();
    let what = &mut entry.what;
    what.namespace.clone_from(&subject.pod_namespace);
    what.pod.clone_from(&subject.pod_name);
    what.pod_uid.clone_from(&subject.pod_uid);
    what.container.clone_from(&subject.container_name);
    what.sandbox_id.clone_from(&subject.sandbox_id);
    what.image.clone_from(&subject.image_name);
    if let Some(image) = facts.image.is() {
        what.digest.clone_from(&image.manifest);
        what.repository = image.signatures.iter().find_map(|s| s.repository.clone()).unwrap_or_default();
    }
    entry
}

fn anomaly(seen: &boltseal_message::Anomaly) -> boltseal_audit::Anomaly {
    use boltseal_audit::Class as Recorded;
    boltseal_audit::Anomaly {
        class: match seen.class {
            Class::Process => Recorded::Process,
            Class::Syscall => Recorded::Syscall,
            Class::ProtectedFile => Recorded::ProtectedFile,
            Class::Write => Recorded::Write,
            Class::Listener => Recorded::Listener,
            Class::Destination => Recorded::Destination,
            Class::Malware => Recorded::Malware,
        },
        refused: seen.refused,
        what: seen.what.clone(),
        comm: seen.comm.clone(),
        executable: seen.executable.clone(),
        count: seen.count,
        port_scan: seen.port_scan,
    }
}

fn finding(finding: &Finding) -> boltseal_audit::Finding {
    let (outcome, by) = match &finding.outcome {
        Outcome::Pass => (boltseal_audit::Outcome::Pass, ""),
        Outcome::Sealed => (boltseal_audit::Outcome::Sealed, ""),
        Outcome::Allowed(id) => (boltseal_audit::Outcome::Allowed, id.as_str()),
        Outcome::Excepted(by) => (boltseal_audit::Outcome::Excepted, by.as_str()),
        Outcome::Warn => (boltseal_audit::Outcome::Warn, ""),
        Outcome::Deny => (boltseal_audit::Outcome::Deny, ""),
    };
    boltseal_audit::Finding {
        rule: finding.rule.clone(),
        outcome,
        by: by.into(),
        condition: finding.condition.clone(),
        fact: finding.fact.clone(),
    }
}

fn no_record(why: &str) -> Refused {
    Refused::because(
        Code::FailedPrecondition,
        format!(
            "denied by BS-AUD-001: the trail takes no record: {why}. Fix: make room below {} and see `boltseal doctor`",
            paths::TRAIL
        ),
    )
}
