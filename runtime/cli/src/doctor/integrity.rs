//! Which integrity levels of an image's layers this node can reach (BS-IMG-002).
use super::Check;
use boltseal_policy::Policy;

/// The snapshotter of containerd whose layers can have digests of the node's own.
const SNAPSHOTTER: &str = "erofs";

/// The levels above `unpacked` that the policy demands somewhere, weakest first.
pub(crate) fn demanded(policy: &Policy) -> Vec<&'static str> {
    let named: Vec<&str> = policy.scopes.iter().map(|scope| scope.integrity.as_str()).collect();
    let of_node = policy.image.integrity.as_str();
    let levels = ["fsverity", "dmverity-local", "dmverity-signed"];
    levels.into_iter().filter(|level| *level == of_node || named.contains(level)).collect()
}

pub(crate) fn check(policy: Option<&Policy>) -> Check {
    let support = Support { fsverity: boltseal_launch::fsverity_support(), verity: boltseal_launch::verity_support() };
    judge(&support, policy)
}

struct Support {
    fsverity: Result<(), String>,
    /// dm-verity, with what sealed images need beside it.
    verity: Result<(), String>,
}

const MODPROBE: &str = "modprobe -a loop dm_mod dm_verity erofs, at every boot";

fn judge(support: &Support, policy: Option<&Policy>) -> Check {
    let levels = policy.map(demanded).unwrap_or_default();
    let [.., highest] = levels.as_slice() else {
        return match &support.verity {
            Ok(()) => Check::ok("integrity", reached(support)),
            Err(_) => Check::warn(
                "integrity",
                format!("{}; sealed images start as if they were not", reached(support)),
                MODPROBE,
            ),
        };
    };
    let demand = levels.join(", ");
    match (*highest, &support.verity, &support.fsverity) {
        // Sealed layers meet each demand; digests of the node's own meet the lower ones.
        (level, Err(why), _) if level != "fsverity" => denied(why, &demand),
        (_, Err(why), Err(no_files)) => denied(&format!("{why}, and {no_files}"), &demand),
        ("dmverity-signed", Ok(()), _) => {
            Check::ok("integrity", format!("{demand} is demanded: what must be sealed starts at dmverity-signed"))
        }
        _ if !policy.is_some_and(|p| p.image.snapshotters.iter().any(|name| name == SNAPSHOTTER)) => Check::warn(
            "integrity",
            format!("{demand} is demanded, and only sealed images meet it: image.snapshotters does not name erofs"),
            "set image.snapshotters to what this node unpacks with, or seal the images (boltseal image seal)",
        ),
        _ => Check::ok("integrity", format!("{demand} is demanded; {}", reached(support))),
    }
}

fn denied(why: &str, demand: &str) -> Check {
    Check::fail(
        "integrity",
        format!("{why}, but the policy demands {demand}: what it demands it of is denied (BS-IMG-002)"),
        &format!("{MODPROBE}; or demand unpacked"),
    )
}

/// What images can start at here, above `unpacked`.
fn reached(support: &Support) -> String {
    let devices = support
        .verity
        .as_ref()
        .map(|()| "sealed images start at dmverity-signed, the node's own verity devices at dmverity-local");
    let files = support.fsverity.as_ref().map(|()| "files with fs-verity at fsverity");
    let text = |one: Result<&str, &String>| one.map_or_else(Clone::clone, str::to_owned);
    format!("{}; {}", text(devices), text(files))
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn policy(node: &str, snapshotters: &str) -> Policy {
        let text = format!("version = 1\n[image]\nintegrity = \"{node}\"\nsnapshotters = [{snapshotters}]\n");
        Policy::parse(&text, &[]).unwrap()
    }

    #[test]
    fn each_demand_on_each_kernel() {
        let both = "\"overlayfs\", \"erofs\"";
        let no = |what: &str| Err(format!("no {what}"));
        // dm-verity, fs-verity, and what comes of each demand.
        for (verity, files, expected) in [
            (Ok(()), Ok(()), [State::Ok, State::Ok, State::Ok, State::Ok]),
            (Ok(()), no("files"), [State::Ok, State::Ok, State::Ok, State::Ok]),
            (no("devices"), Ok(()), [State::Warn, State::Ok, State::Fail, State::Fail]),
            (no("devices"), no("files"), [State::Warn, State::Fail, State::Fail, State::Fail]),
        ] {
            let support = Support { verity, fsverity: files };
            for (level, state) in
                ["unpacked", "fsverity", "dmverity-local", "dmverity-signed"].into_iter().zip(expected)
            {
                let check = judge(&support, Some(&policy(level, both)));
                assert_eq!(check.state, state, "{level}: {check:?}");
                assert!(level == "unpacked" || check.fact.contains(level), "{check:?}");
            }
            assert_eq!(judge(&support, None).state, expected[0]);
        }
    }

    #[test]
    fn a_level_that_no_snapshotter_reaches() {
        let support = Support { verity: Ok(()), fsverity: Ok(()) };
        let check = judge(&support, Some(&policy("fsverity", "\"overlayfs\"")));
        assert!(check.state == State::Warn && check.fact.contains("only sealed images"), "{check:?}");
    }

    #[test]
    fn demands_of_scopes_count() {
        let mut some = policy("unpacked", "\"overlayfs\"");
        assert_eq!(demanded(&some), Vec::<&str>::new());
        some.image.integrity = "dmverity-local".into();
        assert_eq!(demanded(&some), ["dmverity-local"]);
    }
}
