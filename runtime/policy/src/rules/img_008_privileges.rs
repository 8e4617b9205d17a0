//! BS-IMG-008: nothing in the image gives whoever runs or opens it rights of its own.
use super::{CREATE, Ctx, Rule, TIMEOUT_ROW, UNKNOWN_ROW};
use crate::facts::FoundKind;
use crate::policy::Level;
use crate::verdict::Finding;

pub(super) static RULE: Rule = Rule {
    id: "BS-IMG-008",
    title: "No setuid, file capability or device node in the image",
    nist: "4.1.2",
    from: Level::Strict,
    misfit: "deny",
    doors: CREATE,
    reads: "scan (of the image's layers, as the kernel merges them)",
    predicate: "no regular file is setuid or setgid, none has the extended attribute security.capability, and nothing is a character \
        or block device, in any folder. What a later layer takes away does not count, nor does what takes it away. no_new_privs and \
        nodev hold at run time as well; this rule is for what is never needed. Holds without a look where no policy asks.",
    fix: "take it away in the build: chmod a-s, setcap -r, rm",
    conditions: &[
        ("setuid", "a file of the image is setuid or setgid"),
        ("file-capability", "a file of the image has capabilities"),
        ("device", "the image has a device node"),
        UNKNOWN_ROW,
        TIMEOUT_ROW,
    ],
    cves: &[],
    check,
};

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    let kinds = [
        (FoundKind::Setuid, "setuid or setgid"),
        (FoundKind::FileCapability, "file capability"),
        (FoundKind::Device, "device node"),
    ];
    super::found_in_layers(ctx, &RULE, &kinds)
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::facts::{Fact, Found, Scan};
    use crate::{Facts, Policy, fixture};

    #[test]
    fn truth_table() {
        use FoundKind::{Device, FileCapability, RemoteAdmin, Setuid, Shell};
        let found = |kind| Found { kind, path: "/x".into(), note: String::new(), layer: None };
        let holding = |kinds: &[FoundKind]| {
            Fact::Is(Scan { found: kinds.iter().map(|k| found(*k)).collect(), ..Scan::default() })
        };
        let at = |level, scan| {
            let policy = Policy { level, ..fixture::policy() };
            outcomes(&RULE, &policy, &Facts { scan, ..fixture::facts() })
        };
        let strict = |scan| at(Level::Strict, scan);
        assert_eq!(strict(holding(&[])), ["pass"]);
        assert_eq!(strict(holding(&[Setuid])), ["deny setuid"]);
        assert_eq!(strict(holding(&[FileCapability])), ["deny file-capability"]);
        assert_eq!(strict(holding(&[Device])), ["deny device"]);
        assert_eq!(strict(holding(&[Device, Setuid, Setuid])), ["deny device", "deny setuid"]);
        // What BS-IMG-007 rules on.
        assert_eq!(strict(holding(&[Shell, RemoteAdmin])), ["pass"]);
        assert_eq!(strict(Fact::Unknown("x".into())), ["deny unknown"]);
        assert_eq!(strict(Fact::Unknown("timeout: x".into())), ["deny timeout"]);
        assert_eq!(strict(Fact::Absent), ["deny unknown"]);
        assert_eq!(strict(Fact::Is(Scan { more: [0, 0, 0, 0, 7], ..Scan::default() })), ["deny device"]);
        assert_eq!(at(Level::Restricted, holding(&[Setuid])), ["pass"]);
    }
}
