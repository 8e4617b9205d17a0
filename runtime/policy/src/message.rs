//! A denial, written for the person at 3 a.m.: rule, fact, fix, in the first line (DESIGN section 8).
use crate::verdict::{Denial, Finding, Outcome};
use crate::{rules, text};

/// Longest first line, characters.
pub(crate) const FIRST_LINE: usize = 200;
/// Most lines after the first.
const MORE_LINES: usize = 40;
/// Longest of those, characters.
const LINE: usize = 400;

/// What kind of refusal it is, for the caller's status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The policy says no: trying again changes nothing.
    PermissionDenied,
    /// The node does not meet the policy.
    FailedPrecondition,
    /// The request itself is malformed.
    InvalidArgument,
    /// Something did not answer in time, and nothing else is wrong.
    Unavailable,
}

impl Denial {
    /// The denials among the findings.
    pub fn denied(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|f| f.outcome == Outcome::Deny)
    }

    #[must_use]
    pub fn code(&self) -> Class {
        let missing = |f: &&Finding| matches!(f.condition.as_str(), rules::TIMEOUT | rules::UNKNOWN | "unverified");
        let timed_out = self.denied().any(|f| f.condition == rules::TIMEOUT);
        if timed_out && self.denied().all(|f| missing(&f)) {
            return Class::Unavailable;
        }
        if self.denied().next().is_some() && self.denied().all(of_node) {
            return Class::FailedPrecondition;
        }
        if self.denied().next().is_some()
            && self.denied().all(|f| f.rule == "BS-FSY-001" && f.condition == "destination")
        {
            return Class::InvalidArgument;
        }
        Class::PermissionDenied
    }

    /// The first line, at most 200 characters, names rule, fact and fix of the first denial, how many more there are, and
    /// `id`, by which the record is found. Then one line per other denial; the first again when it had to be cut.
    #[must_use]
    pub fn message(&self, id: &str) -> String {
        let denied: Vec<&Finding> = self.denied().collect();
        let Some((first, others)) = denied.split_first() else {
            return "boltseal: denied without a finding. Fix: report this as a defect of boltseal".into();
        };
        let more = if others.is_empty() { String::new() } else { format!("+{} more; ", others.len()) };
        let (line, cut) = first_line(first, &format!("({more}id {})", text::shorten(&text::escape(id), 16)));
        let mut out = line;
        let rest = if cut { &denied[..] } else { others };
        for finding in rest.iter().take(MORE_LINES) {
            out.push('\n');
            out.push_str(&text::shorten(
                &format!("{}: {}. Fix: {}", finding.rule, text::escape(&finding.fact), text::escape(&finding.fix)),
                LINE,
            ));
        }
        if rest.len() > MORE_LINES {
            out.push_str(&format!("\nand {} more: boltseal audit list", rest.len() - MORE_LINES));
        }
        out
    }
}

/// Rules and conditions that say something of the node, not of the request.
fn of_node(f: &Finding) -> bool {
    f.rule.starts_with("BS-NOD-")
        || f.rule.starts_with("BS-AUD-")
        || matches!(
            (f.rule.as_str(), f.condition.as_str()),
            ("BS-MAC-001", "no-lsm" | "not-enforcing")
                | ("BS-PRC-001", "unavailable")
                | ("BS-DEV-001", "not-enforced")
                | ("BS-NET-001", "no-landlock" | "no-hooks")
                | ("BS-NET-002", "no-hooks")
        )
}

/// The fact gives way before the fix.
fn first_line(finding: &Finding, tail: &str) -> (String, bool) {
    let head = format!("boltseal: denied by {}: ", finding.rule);
    let (fact, fix) = (text::escape(&finding.fact), text::escape(&finding.fix));
    let middle = ". Fix: ";
    let fixed = head.chars().count() + middle.chars().count() + 1 + tail.chars().count();
    let room = FIRST_LINE.saturating_sub(fixed);
    let short_fix = text::shorten(&fix, room.saturating_sub(40).max(40));
    let short_fact = text::shorten(&fact, room.saturating_sub(short_fix.chars().count()));
    let cut = short_fix != fix || short_fact != fact;
    (format!("{head}{short_fact}{middle}{short_fix} {tail}"), cut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Door, Fact, Facts, NamespaceOrigin, Said, Severity};
    use crate::policy::{Level, Mode};
    use crate::{Policy, Verdict, decide, fixture};

    fn denial(change: impl Fn(&mut Policy, &mut Facts)) -> Denial {
        let (mut policy, mut facts) = (fixture::policy(), fixture::facts());
        change(&mut policy, &mut facts);
        match decide(&policy, &facts) {
            Verdict::Deny(denial) => denial,
            Verdict::Allow(_) => panic!("allowed"),
        }
    }

    fn found(facts: &mut Facts, list: &[(&str, Severity)]) {
        if let Fact::Is(image) = &mut facts.image
            && let Fact::Is(Said::Scan(scan)) = &mut image.attestations[0].says
        {
            scan.found = list.iter().map(|(id, severity)| ((*id).to_owned(), *severity)).collect();
            scan.counts = list.iter().map(|(_, severity)| (*severity, 1)).collect();
        }
    }

    /// One denial per rule, as a person sees it. Changing a line here changes what users read.
    #[test]
    fn every_rules_message() {
        type Change = fn(&mut Policy, &mut Facts);
        let cases: [(&str, Change); 50] = [
            ("BS-IMG-001", |_, f| {
                f.image = Fact::Is(crate::facts::Image {
                    signatures: Vec::new(),
                    looked_in: "/var/lib/boltseal/sig".into(),
                    chain_id: fixture::digest('e'),
                    target: fixture::digest('a'),
                    ..Default::default()
                });
            }),
            ("BS-IMG-001", |p, _| {
                p.scopes[0].need = 2;
                p.scopes[0].authorities.push("release".into());
            }),
            ("BS-IMG-001", |p, _| p.authorities[0].until = Some("2026-11-22".into())),
            ("BS-IMG-001", |p, _| p.authorities[0].min_signing_time = Some("2026-11-22".into())),
            ("BS-IMG-001", |p, _| p.scopes[0].deny_digests = vec![fixture::digest('9')]),
            ("BS-IMG-002", |_, f| {
                if let Fact::Is(r) = &mut f.rootfs {
                    r.upper_empty = Fact::Is(false);
                }
            }),
            ("BS-IMG-003", |p, _| p.registries.allow = vec!["quay.io".into()]),
            ("BS-IMG-004", |p, f| {
                fixture::gated(p, f);
                if let Fact::Is(image) = &mut f.image {
                    image.created = "1970-01-01T00:00:00Z".into();
                }
            }),
            ("BS-IMG-005", |p, f| {
                fixture::gated(p, f);
                if let Fact::Is(image) = &mut f.image {
                    image.attestations.remove(0);
                }
            }),
            ("BS-IMG-005", |p, f| {
                fixture::gated(p, f);
                found(f, &[("CVE-2026-1", Severity::Critical), ("GHSA-1", Severity::High)]);
            }),
            ("BS-IMG-005", |p, f| {
                fixture::gated(p, f);
                if let Fact::Is(image) = &mut f.image {
                    image.attestations[0].says = Fact::Unknown("the result is neither trivy's nor grype's".into());
                }
            }),
            ("BS-IMG-006", |p, f| {
                fixture::gated(p, f);
                if let Fact::Is(image) = &mut f.image {
                    image.attestations.truncate(2);
                }
            }),
            ("BS-IMG-006", |p, f| {
                fixture::gated(p, f);
                p.image.provenance.iter_mut().for_each(|rules| rules.builders = vec!["https://other/*".into()]);
            }),
            ("BS-IMG-007", |p, f| {
                p.level = Level::Strict;
                f.scan = Fact::Is(scanned(crate::facts::FoundKind::Shell, "/bin/sh", "-> busybox"));
            }),
            ("BS-IMG-007", |p, f| {
                p.modes.insert("BS-IMG-007".into(), Mode::Enforce);
                f.scan = Fact::Unknown("timeout: 812345 entries in 25 s, and more to come".into());
            }),
            ("BS-IMG-008", |p, f| {
                p.modes.insert("BS-IMG-008".into(), Mode::Enforce);
                f.scan = Fact::Is(scanned(crate::facts::FoundKind::Setuid, "/usr/bin/su", "mode 4755"));
            }),
            ("BS-IMG-009", |p, f| {
                fixture::gated(p, f);
                if let Fact::Is(image) = &mut f.image {
                    image.secrets = Fact::Is(vec![crate::facts::Secret {
                        place: "env".into(),
                        name: "DB_PASSWORD".into(),
                        kind: "a value for PASSWORD".into(),
                    }]);
                }
            }),
            ("BS-IMG-010", |p, f| {
                fixture::gated(p, f);
                p.image.bases[0].diff_ids = vec![fixture::digest('7')];
                p.scopes[0].modes.insert("BS-IMG-010".into(), Mode::Enforce);
            }),
            ("BS-PRC-001", |_, f| f.seccomp.unusable = vec!["default action is ALLOW".into()]),
            ("BS-PRC-002", |_, f| {
                if let Some(c) = &mut f.process.capabilities {
                    c.bounding = fixture::set(&["CAP_SYS_ADMIN", "CAP_BPF"]);
                }
            }),
            ("BS-PRC-003", |_, f| f.process.uid = 0),
            ("BS-PRC-004", |_, f| f.namespaces.listed.retain(|n| n.kind != "network")),
            ("BS-PRC-004", |_, f| f.namespaces.listed[0].origin = Fact::Is(NamespaceOrigin::Foreign("other".into()))),
            ("BS-PRC-005", |_, f| f.restore = true),
            ("BS-PRC-006", |_, f| {
                f.door = Door::Update;
                f.limits.removed = vec!["memory".into()];
            }),
            ("BS-PRC-005", |p, f| {
                p.scopes[0].programs = Some(vec!["/usr/sbin/nginx".into()]);
                f.process.args = vec!["/bin/sh".into()];
            }),
            ("BS-PRC-005", |p, f| {
                p.scopes[0].programs = Some(vec!["/app".into()]);
                p.modes.insert("BS-FSY-001".into(), Mode::Warn);
                f.landlock = Fact::Is(0);
            }),
            ("BS-PRC-007", |_, f| {
                f.sysctls.insert("kernel.core_pattern".into(), "|/x".into());
            }),
            ("BS-PRC-008", |_, f| f.foreign_fields = vec!["linux.intelRdt".into()]),
            ("BS-PRC-009", |_, f| f.process.env = vec![crate::facts::Variable::of("LD_PRELOAD=/data/x.so")]),
            ("BS-PRC-009", |p, f| {
                p.level = Level::Strict;
                f.process.args.push("--token=s3cret".into());
                f.process.env = vec![crate::facts::Variable::of("TOKEN=s3cret")];
            }),
            ("BS-PRC-010", |_, f| {
                fixture::in_user_namespace(f);
                if let Some(user) = &mut f.user_namespace {
                    user.ids = fixture::id_maps(0, 65_536);
                }
            }),
            ("BS-MAC-001", |_, f| f.label.lsm = crate::facts::Lsm::Neither),
            ("BS-FSY-001", |_, f| {
                let mut m = fixture::bind("/proc/sys");
                m.object = Fact::Is(crate::facts::Object {
                    origin: crate::facts::Origin::Kubelet("empty-dir".into()),
                    kind: "folder".into(),
                    ..Default::default()
                });
                f.mounts.push(m);
            }),
            ("BS-FSY-002", |_, f| f.mounts.push(fixture::bind("/data"))),
            ("BS-FSY-003", |_, f| f.root.propagation = Some("rshared".into())),
            ("BS-DEV-001", |_, f| {
                f.devices.nodes.push(crate::facts::Device { path: "/dev/sda".into(), kind: 'b', major: 8, minor: 0 });
            }),
            ("BS-NET-001", |p, f| {
                p.level = Level::Strict;
                f.ports = Fact::Is("bind=8080".into());
            }),
            ("BS-NET-001", |p, f| {
                p.level = Level::Strict;
                f.landlock = Fact::Is(3);
                p.landlock.abi = 3;
            }),
            ("BS-NET-002", |p, f| {
                p.scopes[0].connect = Some(vec![]);
                p.level = Level::Strict;
                p.modes.insert("BS-NET-001".into(), Mode::Warn);
                f.network_hooks = Fact::Absent;
            }),
            ("BS-OWN-001", |_, f| f.owner = Fact::Absent),
            ("BS-NOD-001", |_, f| f.node = Fact::Absent),
            ("BS-NOD-002", |_, f| {
                f.kexec = Fact::Is(crate::facts::Kexec { lockdown: "none".into(), ..Default::default() });
            }),
            ("BS-NOD-003", |p, f| {
                p.sensitivity.levels = vec!["internal".into()];
                f.sensitivity = Fact::Is("secret".into());
            }),
            ("BS-NOD-003", |p, f| {
                p.sensitivity.levels = vec!["internal".into(), "secret".into()];
                f.sensitivity = Fact::Is("secret".into());
                f.neighbours = Fact::Is(vec![crate::facts::Neighbour {
                    id: "k8s.io/3f9a".into(),
                    sensitivity: "internal".into(),
                }]);
            }),
            ("BS-NOD-004", |_, f| {
                if let Fact::Is(b) = &mut f.bundle {
                    b.signed = Fact::Absent;
                }
            }),
            ("BS-NOD-004", |_, f| {
                if let Fact::Is(b) = &mut f.bundle {
                    b.signed =
                        Fact::Unknown("bundle.sig is over other files: one was changed, added or removed".into());
                }
            }),
            ("BS-NOD-004", |_, f| {
                if let Fact::Is(b) = &mut f.bundle {
                    b.floor = Fact::Is(8);
                }
            }),
            ("BS-NOD-004", |_, f| {
                if let Fact::Is(b) = &mut f.bundle {
                    b.measured =
                        Fact::Is(vec!["/usr/local/bin/boltseal-runtime is not the one measured in this boot".into()]);
                }
            }),
            ("BS-AUD-001", |_, f| f.audit = Fact::Unknown("no space left on device".into())),
        ];
        let mut shown = String::new();
        for (rule, change) in cases {
            let denial = denial(change);
            let message = denial.message("7f3c");
            let first = message.lines().next().unwrap();
            assert!(first.starts_with(&format!("boltseal: denied by {rule}: ")), "{first}");
            assert!(
                first.chars().count() <= FIRST_LINE && first.contains(". Fix: ") && first.ends_with("id 7f3c)"),
                "{first}"
            );
            shown.push_str(&format!("{:?} {message}\n", denial.code()));
        }
        for rule in rules::all() {
            assert!(shown.contains(rule.id), "{} has no message here", rule.id);
        }
        insta::assert_snapshot!(shown);
    }

    fn scanned(kind: crate::facts::FoundKind, path: &str, note: &str) -> crate::facts::Scan {
        let found = crate::facts::Found { kind, path: path.into(), note: note.into(), layer: Some(1) };
        crate::facts::Scan { found: vec![found], ..Default::default() }
    }

    #[test]
    fn long_and_hostile_facts_stay_one_line_of_200() {
        let owner = format!("x\nboltseal: allowed\r\u{1b}[2J{}", "y".repeat(10_000_000));
        let denial = denial(|_, f| {
            f.owner = Fact::Is(owner.clone());
            f.process.uid = 0;
            f.foreign_fields = vec!["z".repeat(10_000_000)];
        });
        let message = denial.message("7f3c\n1234567890123456789");
        assert!(message.lines().all(|l| l.chars().count() <= LINE && !l.contains(char::is_control)));
        assert!(message.lines().next().unwrap().chars().count() <= FIRST_LINE);
        assert!(message.contains("+2 more; id 7f3c\\n"));
        assert_eq!(message.lines().count(), 3);
        assert!(message.len() < 4096);
    }

    /// As many lines as are told of, and one that says how many are not.
    #[test]
    fn a_flood_of_denials_is_counted() {
        let finding = || Finding {
            rule: "BS-FSY-002".into(),
            outcome: Outcome::Deny,
            condition: "host-folder".into(),
            fact: "f".into(),
            fix: "g".into(),
        };
        let lines = |others: usize| {
            let message = Denial { findings: vec![finding(); others + 1] }.message("7f3c");
            message.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(lines(0).len(), 1);
        assert_eq!(lines(MORE_LINES).len(), 1 + MORE_LINES);
        assert_eq!(lines(MORE_LINES).last().unwrap(), "BS-FSY-002: f. Fix: g");
        assert_eq!(lines(MORE_LINES + 1).len(), 2 + MORE_LINES);
        assert_eq!(lines(MORE_LINES + 1).last().unwrap(), "and 1 more: boltseal audit list");
    }

    /// What is cut fills the line to its end, and the whole of it follows.
    #[test]
    fn a_long_first_fact_is_cut_and_told_again() {
        let denial = |fact: usize, fix: usize| Denial {
            findings: vec![Finding {
                rule: "BS-FSY-002".into(),
                outcome: Outcome::Deny,
                condition: "host-folder".into(),
                fact: "f".repeat(fact),
                fix: "g".repeat(fix),
            }],
        };
        let room = FIRST_LINE - "boltseal: denied by BS-FSY-002: . Fix:  (id 7f3c)".len();
        for (fact, fix, first, lines) in [
            (room - 10, 10, FIRST_LINE, 1),
            (room - 11, 10, FIRST_LINE - 1, 1),
            (room - 9, 10, FIRST_LINE, 2),
            (300, 10, FIRST_LINE, 2),
            (10, 300, FIRST_LINE - 30, 2),
        ] {
            let message = denial(fact, fix).message("7f3c");
            let found: Vec<&str> = message.lines().collect();
            assert_eq!((found[0].len(), found.len()), (first, lines), "{fact} {fix}: {message}");
        }
    }

    /// What is unknown is not mended by the rule's usual remedy.
    #[test]
    fn the_unknown_has_a_fix_of_its_own() {
        let line = |why: &'static str| {
            denial(move |_, f| f.image = Fact::Unknown(why.into())).message("7f3c").lines().next().unwrap().to_owned()
        };
        assert!(
            line("timeout: containerd").contains("Fix: try again; boltseal doctor"),
            "{}",
            line("timeout: containerd")
        );
        assert!(line("blob altered").contains("Fix: pull the image again"), "{}", line("blob altered"));
    }

    #[test]
    fn codes() {
        let unknown = |why: &'static str| denial(move |_, f| f.image = Fact::Unknown(why.into())).code();
        assert_eq!(unknown("timeout: containerd did not answer in 2 s"), Class::Unavailable);
        assert_eq!(unknown("no such blob"), Class::PermissionDenied);
        let both = denial(|_, f| {
            f.image = Fact::Unknown("timeout".into());
            f.process.uid = 0;
        });
        assert_eq!(both.code(), Class::PermissionDenied);
        assert_eq!(denial(|_, f| f.node = Fact::Absent).code(), Class::FailedPrecondition);
        assert_eq!(denial(|_, f| f.mounts.push(fixture::tmpfs("tmp", Some("size=1m")))).code(), Class::InvalidArgument);
        assert_eq!(Denial { findings: Vec::new() }.code(), Class::PermissionDenied);
    }
}
