//! `boltseal policy apply`: lint, simulate, activate by one rename. What does not load changes nothing.
use crate::doctor::{self, State};
use crate::paths::{LIB, POLICY, RUN, run_folder};
use crate::policy::{self, Bad, Loaded};
use crate::policy_files::{put_folder, stage, staging, swap};
use crate::policy_measured;
use crate::policy_sign::at;
use crate::screen::{Colour, Exit, Failure, Screen, count, talk};
use boltseal_evidence::bundle::{self, LAST_GOOD};
use boltseal_evidence::file::Owner;
use boltseal_evidence::policy_files::{self, PolicyBundle, SIGNATURE};
use boltseal_evidence::record;
use boltseal_node::Boot;
use boltseal_policy::policy::Mode;
use boltseal_policy::{Fact, Policy, rules};
use boltseal_trust::Pin;
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);
/// Where containerd keeps the OCI bundles of what runs, below its state folder.
const TASKS: &str = "io.containerd.runtime.v2.task";

/// A container that runs and would not start under the new policy.
struct Refused {
    name: String,
    why: String,
}

pub(crate) fn apply(dir: &Path, anyway: bool, dry_run: bool, screen: &mut Screen) -> Result<Exit, Failure> {
    let dir = std::path::absolute(dir).map_err(Failure::undecided)?;
    let (active, last) = (Path::new(POLICY), Path::new(LIB).join(LAST_GOOD));
    if dir == active || dir.starts_with(active) {
        return Err(Failure::new(
            Exit::Usage,
            format!("{POLICY} is where it goes. Fix: name the folder of the new one"),
        ));
    }
    let new = policy::load_of(&dir, Owner::Any).map_err(Bad::failure)?;
    let pin = bundle::pinned(Path::new(LIB)).map_err(Failure::undecided)?.map(|(pin, _)| pin);
    let version = pin.as_ref().map(|pin| version(pin, &new.bundle)).transpose()?;

    let lacking: Vec<_> = doctor::rules(&new.policy)
        .into_iter()
        .filter(|check| check.state == State::Fail && denies(&new.policy, &check.fact))
        .collect();
    let (looked_at, refused) = simulate(&new.policy);
    if !screen.json() {
        for check in &lacking {
            screen.row('✗', Colour::Bad, &format!("this node, {}: {}", check.name, check.fact))?;
        }
        for Refused { name, why } in &refused {
            screen.row('!', Colour::Doubt, &format!("{name} runs and would not start again: {why}"))?;
        }
    }
    let blocked = !lacking.is_empty() && !anyway;
    if !blocked && !dry_run {
        activate(&new, active)?;
        let measured = measure(&new);
        // The floor and the copy do not wait for a measurement that failed.
        if let (Some(pin), Some(version)) = (&pin, version) {
            raise(pin, version)?;
        }
        // For the day on which what lies in /etc/boltseal does not load.
        put_folder(&last, &contents(&new.bundle)).map_err(|e| {
            Failure::undecided(format!(
                "{}: {e}: the new policy is in force, but no copy of it is kept",
                last.display()
            ))
        })?;
        measured?;
    }
    let done = if blocked {
        "refused"
    } else if dry_run {
        "nothing changed"
    } else {
        "in force"
    };
    let exit = if blocked { Exit::Findings } else { Exit::Ok };
    if screen.json() {
        let names: Vec<_> = refused.iter().map(|r| json!({ "container": r.name, "why": r.why })).collect();
        screen.document(&json!({ "result": done, "digest": new.bundle.digest, "version": version, "node": lacking,
            "simulated": looked_at, "would_not_start": names }))?;
        return Ok(exit);
    }
    let what = version.map_or_else(|| "not signed: this node pins no key".to_owned(), |v| format!("version {v}"));
    let simulated = match looked_at {
        0 => "nothing runs that it could be tried on".to_owned(),
        n => format!("{} of {} that run would not start again", refused.len(), count(n, "container")),
    };
    let text = format!("policy {}, {what}: {done}; {simulated}", new.bundle.digest);
    if blocked {
        screen.row('✗', Colour::Bad, &text)?;
        screen.line("what this node cannot enforce denies every start. Fix: see above, or --anyway")?;
    } else {
        screen.row('✓', Colour::Good, &text)?;
    }
    Ok(exit)
}

/// Whether what the node lacks denies under this policy: the rule that the fact names is enforced by level or mode.
fn denies(policy: &Policy, fact: &str) -> bool {
    rules::all().iter().find(|rule| fact.contains(rule.id)).is_none_or(|rule| match policy.modes.get(rule.id) {
        Some(mode) => *mode == Mode::Enforce,
        None => policy.level >= rule.from,
    })
}

/// The version that the pinned key signed, not below the floor.
fn version(pin: &Pin, new: &PolicyBundle) -> Result<u64, Failure> {
    let bad = |why: String| Failure::new(Exit::BadPolicy, why);
    let version = match bundle::signed(&pin.key, new) {
        Fact::Is(version) => version,
        Fact::Absent => {
            return Err(bad(format!("the bundle has no {SIGNATURE}. Fix: boltseal policy sign, off the node")));
        }
        Fact::Unknown(why) => return Err(bad(format!("{why}. Fix: boltseal policy sign, off the node"))),
    };
    if let Some(kept) = &pin.floor {
        // Nothing may have started in this boot: it is noted there.
        run_folder()?;
        let boot = Boot::current().map_err(Failure::undecided)?;
        let floor = at(&pin.id(), kept).read(&boot, Instant::now() + LIMIT).map_err(Failure::undecided)?;
        if version < floor {
            return Err(bad(format!(
                "the bundle is version {version}; this node takes {floor} and above. Fix: apply the newest bundle"
            )));
        }
    }
    Ok(version)
}

fn contents(bundle: &PolicyBundle) -> Vec<(String, Vec<u8>)> {
    let signature = bundle.signature.iter().map(|bytes| (SIGNATURE.to_owned(), bytes.clone()));
    bundle.files.iter().cloned().chain(signature).collect()
}

/// Copies what was judged (not what may lie in the folder by now), reads the copy as a start would, and puts it in place.
fn activate(new: &Loaded, active: &Path) -> Result<(), Failure> {
    let next = staging(active);
    let failed = |what: &Path, e: std::io::Error| {
        Failure::undecided(format!("{}: {e}. The policy in force is as it was", what.display()))
    };
    stage(&next, &contents(&new.bundle)).map_err(|e| failed(&next, e))?;
    let copy = policy_files::load(&next).map_err(Failure::undecided)?;
    if (&copy.digest, &copy.signature) != (&new.bundle.digest, &new.bundle.signature) {
        return Err(Failure::undecided(format!(
            "{} was changed meanwhile. The policy in force is as it was",
            next.display()
        )));
    }
    swap(&next, active).map_err(|e| failed(active, e))
}

fn measure(new: &Loaded) -> Result<(), Failure> {
    if !new.policy.bundle.measured && policy_measured::log()?.is_none() {
        return Ok(());
    }
    run_folder()?;
    let measured = policy_measured::measure(new, Instant::now() + LIMIT);
    measured.map(drop).map_err(|failure| {
        let fix = "Fix: boltseal node attest, or boot anew; until then nothing starts";
        Failure::new(failure.exit, format!("the policy is in force, and not measured: {}. {fix}", failure.text))
    })
}

fn raise(pin: &Pin, version: u64) -> Result<(), Failure> {
    let Some(kept) = &pin.floor else { return Ok(()) };
    let raised = Boot::current().and_then(|boot| at(&pin.id(), kept).raise(version, &boot, Instant::now() + LIMIT));
    raised.map(|_| ()).map_err(|e| {
        Failure::undecided(format!(
            "the policy is in force, but older ones are not refused yet: {e}. Fix: apply it again"
        ))
    })
}

/// How many of the containers that run could be looked at, and which of them the new policy speaks against.
fn simulate(policy: &Policy) -> (usize, Vec<Refused>) {
    let records = record::load_node(Path::new(RUN)).map(|all| all.records).unwrap_or_else(|e| {
        talk(&format!("what runs here cannot be read, so the policy is tried on nothing: {e}"));
        Vec::new()
    });
    let (mut looked_at, mut refused) = (0, Vec::new());
    for record in records.iter().filter(|record| record.alive()) {
        let task = Path::new(&policy.mounts.containerd_state).join(TASKS).join(&record.namespace).join(&record.id);
        let Ok(denials) = crate::check::denials(&task, policy) else {
            talk(&format!("{}/{} runs, and its bundle cannot be looked at", record.namespace, record.id));
            continue;
        };
        looked_at += 1;
        if let Some(first) = denials.first() {
            let name = format!("{}/{}", record.namespace, record.id);
            refused.push(Refused { name, why: format!("{}: {}", first.rule, first.fact) });
        }
    }
    (looked_at, refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltseal_policy::policy::Level;

    #[test]
    fn what_only_warns_blocks_nothing() {
        let mut policy = Policy::default();
        let fact = "neither AppArmor nor SELinux is active (BS-MAC-001)";
        assert!(denies(&policy, fact));
        policy.modes.insert("BS-MAC-001".into(), Mode::Warn);
        assert!(!denies(&policy, fact));
        policy.level = Level::Observe;
        policy.modes.clear();
        assert!(!denies(&policy, fact));
        policy.modes.insert("BS-MAC-001".into(), Mode::Enforce);
        assert!(denies(&policy, fact));
        assert!(denies(&policy, "something of no rule"));
    }
}
