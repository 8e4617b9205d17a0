//! Break-glass files on this node: one that is in force lets through what rules refuse, so it is never simply fine.
use super::Check;
use crate::grant::break_glass::{look, problems};
use crate::paths::BREAK_GLASS;
use crate::policy;
use boltseal_evidence::file::{Folder, Owner};
use boltseal_policy::text;
use boltseal_trust::dsse::MAX_ENVELOPE;
use std::path::Path;

const NAME: &str = "break-glass";
const MAX_FILES: usize = 16;

pub(super) fn files() -> Check {
    let folder = match Folder::open(Path::new(BREAK_GLASS), Owner::RootPrivate) {
        Err(problem) if problem.missing => return Check::ok(NAME, "no file"),
        Err(problem) => return Check::fail(NAME, problem.to_string(), "make it root's alone (0700)"),
        Ok(folder) => folder,
    };
    let names = match folder.names(MAX_FILES) {
        Ok(names) => names,
        Err(problem) => return Check::fail(NAME, problem.to_string(), "take files away that are over"),
    };
    let Ok(loaded) = policy::load() else { return Check::warn(NAME, "no policy that could say what counts", "") };
    let (mut said, mut over) = (Vec::new(), 0_usize);
    for name in names.iter().filter(|name| name.ends_with(".json")) {
        let read = folder.read(name, MAX_ENVELOPE as u64, Owner::RootPrivate).map_err(|e| e.to_string());
        let looked = read.and_then(|(bytes, _)| look(&bytes, &loaded.policy, &loaded.bundle));
        match looked {
            Ok((glass, signers)) if problems(&glass, &signers, &loaded.policy, &loaded.bundle).is_empty() => {
                let rules: Vec<&str> = glass.rules.keys().map(String::as_str).collect();
                said.push(format!("{} in force for {}: {}", glass.id, rules.join(", "), text::show(&glass.reason)));
            }
            _ => over += 1,
        }
    }
    if said.is_empty() {
        return Check::ok(NAME, if over == 0 { "no file".to_owned() } else { format!("{over} files, none in force") });
    }
    Check::warn(NAME, said.join("; "), &format!("take it away before its end: rm {BREAK_GLASS}/ID.json"))
}
