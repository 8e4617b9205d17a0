//! `boltseal doctor`: what of this node boltseal builds on, one line each, with a fix where something is missing.
//!
//! It looks, and proves nothing: whether a start is allowed, only the start itself says. The line on the trail takes the
//! trail's lock, and may make its first file, as a start would.
mod glass;
pub(crate) mod house;
mod integrity;
pub(crate) mod kernel;
mod process;
mod verifier;

use crate::screen::{Colour, Exit, Failure, Screen, column, count as plural};
use boltseal_policy::Policy;
use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) state: State,
    pub(crate) fact: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    fix: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Ok,
    Warn,
    Fail,
}

impl Check {
    fn ok(name: &'static str, fact: impl Into<String>) -> Self {
        Self { name, state: State::Ok, fact: fact.into(), fix: String::new() }
    }
    fn warn(name: &'static str, fact: impl Into<String>, fix: &str) -> Self {
        Self { state: State::Warn, ..Self::fail(name, fact, fix) }
    }
    /// A fact that brings its own `Fix:` keeps it.
    fn fail(name: &'static str, fact: impl Into<String>, fix: &str) -> Self {
        let fact = fact.into();
        let (fact, fix) = fact.split_once(". Fix: ").unwrap_or((&fact, fix));
        Self { name, state: State::Fail, fact: fact.to_owned(), fix: fix.to_owned() }
    }

    /// What a dated exception of the policy covers only warns.
    fn unless_excepted(self, policy: Option<&Policy>, rule: &str, conditions: &[&str]) -> Self {
        let covers = |e: &&boltseal_policy::policy::Exception| {
            e.rule == rule && e.condition.as_deref().is_none_or(|c| conditions.contains(&c)) && in_force(&e.expires)
        };
        match policy.and_then(|p| p.exceptions.iter().find(covers)) {
            Some(e) if self.state == State::Fail => {
                let fact = format!(
                    "{}; {rule} is excepted for {} until {} ({}: {})",
                    self.fact, e.scope, e.expires, e.owner, e.reason
                );
                Self { state: State::Warn, fact, ..self }
            }
            _ => self,
        }
    }
}

/// A date holds to its end.
fn in_force(expires: &str) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |d| d.as_secs());
    let whole_day = if expires.contains('T') { 0 } else { 86_400 };
    boltseal_audit::parse_since(expires, now).is_some_and(|end| now < end + whole_day)
}

/// What rules need of this node.
pub(crate) fn rules(policy: &Policy) -> Vec<Check> {
    let demanded = !integrity::demanded(policy).is_empty();
    let policy = Some(policy);
    let mut checks = vec![
        kernel::landlock(policy),
        kernel::seccomp(),
        kernel::labels(policy),
        kernel::cgroups(policy),
        kernel::network(policy),
        kernel::kexec(policy),
        house::tpm(policy),
    ];
    // Where nobody demands it, nothing is denied for it.
    checks.extend(demanded.then(|| integrity::check(policy)));
    checks
}

pub(crate) fn doctor(screen: &mut Screen) -> Result<Exit, Failure> {
    let (policy, policy_check) = house::policy();
    let policy = policy.as_ref();
    let dump = house::dump();
    let checks = [
        kernel::version(),
        kernel::landlock(policy),
        integrity::check(policy),
        kernel::seccomp(),
        kernel::labels(policy),
        kernel::cgroups(policy),
        kernel::network(policy),
        kernel::kexec(policy),
        house::tpm(policy),
        house::binaries(),
        dump.as_ref().map_or_else(Clone::clone, house::containerd),
        verifier::verifier(dump.as_ref()),
        policy_check,
        glass::files(),
        house::signatures(),
        house::trail(),
    ];
    let count = |state| checks.iter().filter(|c| c.state == state).count();
    let exit = if count(State::Fail) > 0 { Exit::Findings } else { Exit::Ok };
    if screen.json() {
        screen.document(&checks)?;
        return Ok(exit);
    }
    for check in &checks {
        let (mark, colour) = match check.state {
            State::Ok => ('✓', Colour::Good),
            State::Warn => ('!', Colour::Doubt),
            State::Fail => ('✗', Colour::Bad),
        };
        screen.row(mark, colour, &format!("{} {}", column(check.name, 11), check.fact))?;
        if !check.fix.is_empty() {
            screen.line(&format!("   {:11} Fix: {}", "", check.fix))?;
        }
    }
    let (warnings, failures) = (plural(count(State::Warn), "warning"), plural(count(State::Fail), "failure"));
    screen.line(&format!("{} ok, {warnings}, {failures}", count(State::Ok)))?;
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_fitting_exception_softens_a_failure() {
        let text = "version = 1\n[[exception]]\nrule = \"BS-MAC-001\"\ncondition = \"no-lsm\"\nscope = \"*\"\nowner = \"ops\"\nreason = \"lab\"\nexpires = \"2099-01-01\"";
        let policy = Policy::parse(text, &[]).unwrap();
        let fail = || Check::fail("lsm", "none", "boot with one");
        let soft = fail().unless_excepted(Some(&policy), "BS-MAC-001", &["no-lsm"]);
        assert_eq!(soft.state, State::Warn);
        assert!(soft.fact.contains("2099-01-01") && soft.fact.contains("ops"), "{soft:?}");
        assert_eq!(fail().unless_excepted(Some(&policy), "BS-MAC-001", &["complain"]).state, State::Fail);
        assert_eq!(fail().unless_excepted(Some(&policy), "BS-NOD-001", &["no-lsm"]).state, State::Fail);
        let late = Policy::parse(&text.replace("2099", "2020"), &[]).unwrap();
        assert_eq!(fail().unless_excepted(Some(&late), "BS-MAC-001", &["no-lsm"]).state, State::Fail);
        assert_eq!(fail().unless_excepted(None, "BS-MAC-001", &["no-lsm"]).state, State::Fail);
    }
}
