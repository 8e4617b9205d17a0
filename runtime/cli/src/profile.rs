//! `boltseal profile`: seccomp profiles, for people who write them. A pod's own profile is installed after the base filter,
//! so that it can only tighten: nothing here changes what a container may do.
use crate::screen::{Colour, Exit, Failure, Screen, count};
use boltseal_launch::seccomp::{self, Answer, Meaning, Relation, SeccompError};
use boltseal_profiles::Arch;
use serde_json::json;
use std::path::Path;

/// Bytes of the largest profile: a spec that holds it may have no more.
const MAX: u64 = 1 << 20;
/// The name that stands for the filter that every container gets.
const BASE: &str = "base";

/// What is wrong with a profile, or could be left out. Nothing to say is exit code 0.
pub(crate) fn lint(file: &Path, screen: &mut Screen) -> Result<Exit, Failure> {
    let findings = match meaning_of(&read(file)?)? {
        Ok(profile) => findings(&profile, &base()?),
        Err(error) => vec![Finding { what: "refused", names: Vec::new(), text: error.to_string() }],
    };
    if screen.json() {
        let list = findings.iter().map(|f| json!({ "what": f.what, "names": f.names, "text": f.text }));
        screen.document(&list.collect::<Vec<_>>())?;
    } else {
        for f in &findings {
            let colour = if f.what == "refused" { Colour::Bad } else { Colour::Doubt };
            screen.row('!', colour, &format!("{:10} {}{}", f.what, f.text, listed(&f.names)))?;
        }
        if findings.is_empty() {
            screen.row('+', Colour::Good, "nothing to say")?;
        }
    }
    Ok(if findings.is_empty() { Exit::Ok } else { Exit::Findings })
}

#[derive(Debug, PartialEq, Eq)]
struct Finding {
    what: &'static str,
    names: Vec<String>,
    text: String,
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(": {}", names.join(" ")) }
}

fn findings(profile: &Meaning, base: &Meaning) -> Vec<Finding> {
    let looser = |(name, answer): (&&'static str, &Answer)| {
        let own = base.calls.get(name)?;
        let wider = matches!(seccomp::compare(own, answer), Relation::Looser | Relation::Other);
        wider.then(|| (*name).to_owned())
    };
    let all = [
        ("unknown", "no kernel has a call of that name", profile.unknown.clone()),
        ("foreign", "calls of another ABI answer ENOSYS here whatever the profile says", profile.foreign.clone()),
        (
            "looser",
            "the base filter lets less through, and it decides",
            profile.calls.iter().filter_map(looser).collect(),
        ),
        ("redundant", "the profile means the same without them", profile.redundant.iter().cloned().collect()),
    ];
    let said = all.into_iter().filter(|(_, _, names)| !names.is_empty());
    said.map(|(what, text, names)| Finding { what, text: text.into(), names }).collect()
}

/// What `new` answers otherwise than `old`, call by call; the same meaning is exit code 0.
pub(crate) fn diff(old: &str, new: &str, screen: &mut Screen) -> Result<Exit, Failure> {
    let (a, b) = (named(old)?, named(new)?);
    let differing: Vec<_> = a
        .calls
        .iter()
        .filter_map(|(name, x)| Some((*name, x, b.calls.get(name)?)))
        .map(|(name, x, y)| (name, x, y, word(seccomp::compare(x, y))))
        .filter(|(.., how)| *how != "same")
        .collect();
    if screen.json() {
        let list = differing
            .iter()
            .map(|(name, x, y, how)| json!({ "call": name, "how": how, "old": x.to_string(), "new": y.to_string() }));
        screen.document(&list.collect::<Vec<_>>())?;
    } else {
        for (name, x, y, how) in &differing {
            let (mark, colour) = match *how {
                "tighter" => ('-', Colour::Good),
                "looser" => ('+', Colour::Bad),
                _ => ('~', Colour::Doubt),
            };
            screen.row(mark, colour, &format!("{how:7} {name:24} {x}  ->  {y}"))?;
        }
        let of = |wanted: &str| differing.iter().filter(|(.., how)| *how == wanted).count();
        let (looser, tighter, other) = (of("looser"), of("tighter"), of("other"));
        screen.line(&format!(
            "{}: {looser} looser, {tighter} tighter, {other} other",
            count(differing.len(), "difference")
        ))?;
    }
    Ok(if differing.is_empty() { Exit::Ok } else { Exit::Findings })
}

fn word(relation: Relation) -> &'static str {
    match relation {
        Relation::Same => "same",
        Relation::Tighter => "tighter",
        Relation::Looser => "looser",
        Relation::Other => "other",
    }
}

/// `base`, or a file.
fn named(name: &str) -> Result<Meaning, Failure> {
    if name == BASE {
        return base();
    }
    let path = Path::new(name);
    meaning_of(&read(path)?)?.map_err(|e| Failure::new(Exit::Findings, format!("{name}: {e}")))
}

fn base() -> Result<Meaning, Failure> {
    meaning_of(boltseal_profiles::base_seccomp())?.map_err(Failure::undecided)
}

fn meaning_of(json: &str) -> Result<Result<Meaning, SeccompError>, Failure> {
    let arch =
        Arch::native().ok_or_else(|| Failure::undecided("there is no table of system calls for this machine"))?;
    Ok(seccomp::meaning(json, arch))
}

fn read(file: &Path) -> Result<String, Failure> {
    use std::io::Read;
    let failed = |e: std::io::Error| Failure::undecided(format!("{}: {e}", file.display()));
    let mut text = String::new();
    std::fs::File::open(file).map_err(failed)?.take(MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX {
        return Err(Failure::undecided(format!("{}: more than 1 MiB", file.display())));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(&'static str, Vec<String>)> {
        let profile = seccomp::meaning(text, Arch::X86_64).unwrap();
        let base = seccomp::meaning(boltseal_profiles::base_seccomp(), Arch::X86_64).unwrap();
        findings(&profile, &base).into_iter().map(|f| (f.what, f.names)).collect()
    }

    #[test]
    fn each_finding_and_its_twin() {
        let profile = |arch: &str, names: &str| {
            format!(
                r#"{{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"{arch}],
                "syscalls":[{{"names":["read"{names}],"action":"SCMP_ACT_ALLOW"}}]}}"#
            )
        };
        assert_eq!(found(&profile("", "")), []);
        for (arch, names, what, culprit) in [
            ("", r#","raed""#, "unknown", "raed"),
            (r#","SCMP_ARCH_X86""#, "", "foreign", "SCMP_ARCH_X86"),
            ("", r#","mount""#, "looser", "mount"),
            // Open in the base filter, but under a condition.
            ("", r#","socket""#, "looser", "socket"),
            ("", r#","read""#, "redundant", "read"),
        ] {
            assert_eq!(found(&profile(arch, names)), [(what, vec![culprit.to_owned()])]);
        }
    }
}
