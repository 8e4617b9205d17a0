//! What the kernel offers.
use super::Check;
use crate::node;
use boltseal_evidence::host;
use boltseal_evidence::mountinfo::Table;
use boltseal_policy::facts::{Label, Lsm};
use boltseal_policy::network::TCP_RIGHTS;
use boltseal_policy::policy::{self, Level, Mode};
use boltseal_policy::{Fact, Policy};
use landlock::{ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};
use nix::sys::utsname::uname;
use std::fs::read_to_string;
use std::path::PathBuf;

/// Landlock came with 5.13, the youngest thing that every start needs.
const LEAST: (u32, u32) = (5, 13);

pub(crate) fn version() -> Check {
    let release = uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= LEAST => Check::ok("kernel", release),
        _ => Check::fail("kernel", format!("{release}: older than {}.{}", LEAST.0, LEAST.1), "install a newer kernel"),
    }
}

pub(crate) fn landlock(policy: Option<&Policy>) -> Check {
    let least = policy.map_or(1, |p| p.landlock.abi.max(1));
    if has_landlock(least) {
        let asked = if policy.is_some() { "which the policy asks for" } else { "the least there is" };
        return Check::ok("landlock", format!("has ABI {least}, {asked}"));
    }
    let newest = (1..least).rev().find(|abi| has_landlock(*abi)).unwrap_or(0);
    let fact = format!("ABI {newest} (0: none), but the policy asks for {least}: every start is denied");
    Check::fail("landlock", fact, "boot with lsm=landlock,.. or a newer kernel, or lower landlock.abi in the policy")
}

/// Every right of that ABI can be handled, as a start demands. Makes a ruleset, enforces none.
pub(crate) fn has_landlock(abi: u32) -> bool {
    let Ok(number) = i32::try_from(abi) else { return false };
    let known = ABI::from(number);
    let made =
        Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(AccessFs::from_all(known));
    let made = if abi >= 4 { made.and_then(|r| r.handle_access(AccessNet::from_all(known))) } else { made };
    let made = if abi >= 6 { made.and_then(|r| r.scope(Scope::from_all(known))) } else { made };
    made.and_then(Ruleset::create).is_ok()
}

pub(crate) fn seccomp() -> Check {
    if host::seccomp_available() {
        return Check::ok("seccomp", "filters, with errno and kill_process");
    }
    Check::fail(
        "seccomp",
        "no filters in this kernel: every start is denied (BS-PRC-001)",
        "install a kernel with CONFIG_SECCOMP_FILTER",
    )
}

pub(crate) fn labels(policy: Option<&Policy>) -> Check {
    let wanted = policy.and_then(|p| p.label.apparmor.first()).map_or("boltseal-default", String::as_str);
    let mut label = Label::default();
    host::label(&mut label, Some(wanted));
    let wanted_type = policy.and_then(|p| p.label.selinux.first()).map_or("boltseal_t", String::as_str);
    host::selinux_types(&mut label, Some(wanted_type));
    match (&label.lsm, label.default_mode.as_deref()) {
        (Lsm::AppArmor, Some("enforce")) => Check::ok("lsm", format!("AppArmor, profile {wanted} in enforce mode")),
        (Lsm::AppArmor, Some(mode)) => Check::fail(
            "lsm",
            format!("AppArmor, but profile {wanted} is in {mode} mode (BS-MAC-001)"),
            "boltseal install loads its own profile anew; aa-enforce any other",
        )
        .unless_excepted(policy, "BS-MAC-001", &["complain"]),
        (Lsm::AppArmor, None) => {
            Check::fail("lsm", format!("AppArmor, but profile {wanted} is not loaded (BS-MAC-001)"), "boltseal install")
                .unless_excepted(policy, "BS-MAC-001", &["not-loaded"])
        }
        (Lsm::Selinux, mode) if label.enforcing && mode != Some(host::KNOWN) => Check::fail(
            "lsm",
            format!("SELinux, but type {wanted_type} is {} (BS-MAC-001)", mode.unwrap_or("not known")),
            "boltseal install",
        )
        .unless_excepted(policy, "BS-MAC-001", &["not-loaded"]),
        (Lsm::Selinux, _) if label.enforcing => {
            Check::ok("lsm", format!("SELinux, enforcing, type {wanted_type} is known"))
        }
        (Lsm::Selinux, _) => Check::fail("lsm", "SELinux, but permissive (BS-MAC-001)", "setenforce 1")
            .unless_excepted(policy, "BS-MAC-001", &["not-enforcing"]),
        (Lsm::Neither, _) => Check::fail(
            "lsm",
            "neither AppArmor nor SELinux is active (BS-MAC-001)",
            "boot with apparmor or selinux in lsm=",
        )
        .unless_excepted(policy, "BS-MAC-001", &["no-lsm"]),
        (Lsm::Unknown(why), _) => Check::fail(
            "lsm",
            format!("{why} (BS-MAC-001)"),
            "mount sysfs, securityfs or selinuxfs",
        )
        .unless_excepted(policy, "BS-MAC-001", &["unknown"]),
    }
}

pub(crate) fn cgroups(policy: Option<&Policy>) -> Check {
    let table = match Table::read() {
        Ok(table) => table,
        Err(why) => return Check::fail("cgroup", why, "mount /proc"),
    };
    let found = host::Cgroups::of(&table);
    let unified =
        found.v2.as_ref().and_then(|root| read_to_string(root.join("cgroup.controllers")).ok()).unwrap_or_default();
    let has = |name: &str| found.v1(name).is_some() || unified.split_whitespace().any(|c| c == name);
    let missing: Vec<&str> = ["memory", "pids"].into_iter().filter(|c| !has(c)).collect();
    if !missing.is_empty() {
        return Check::fail(
            "cgroup",
            format!("no controller {} (BS-PRC-006)", missing.join(", ")),
            "enable the controllers (cgroup_enable=memory ..)",
        );
    }
    if !found.devices_enforced() {
        let fact = "neither v1's devices nor v2 alone on /sys/fs/cgroup: device rules are not enforced (BS-DEV-001)";
        return Check::fail("cgroup", fact, "boot with systemd.unified_cgroup_hierarchy=1").unless_excepted(
            policy,
            "BS-DEV-001",
            &["not-enforced"],
        );
    }
    if found.unified() {
        return Check::ok("cgroup", format!("v2: {}, device rules by a program of our own", unified.trim_end()));
    }
    let v1: Vec<&str> = found.v1.iter().map(|(name, _)| name.as_str()).collect();
    Check::ok("cgroup", format!("v1: {}", v1.join(" ")))
}

/// What BS-NET-001 and BS-NET-002 need, where the policy confines anybody's network.
pub(crate) fn network(policy: Option<&Policy>) -> Check {
    let v2 = Table::read().map(|table| host::Cgroups::of(&table).v2);
    network_with(policy, has_landlock(TCP_RIGHTS), v2.ok().flatten())
}

/// `tcp`: Landlock has the rights; `place`: where a cgroup v2 lies.
fn network_with(policy: Option<&Policy>, tcp: bool, place: Option<PathBuf>) -> Check {
    let strict = |level: Option<Level>| level == Some(Level::Strict);
    let enforced = |modes: &std::collections::BTreeMap<String, Mode>| {
        ["BS-NET-001", "BS-NET-002"].iter().any(|rule| modes.get(*rule) == Some(&Mode::Enforce))
    };
    let asked = policy.is_some_and(|p| {
        let scope =
            |s: &policy::Scope| strict(s.level) || enforced(&s.modes) || s.bind.is_some() || s.connect.is_some();
        strict(Some(p.level)) || enforced(&p.modes) || p.scopes.iter().any(scope)
    });
    // Nobody is refused for it, so nobody would hear of it.
    let watched = policy.is_some_and(|p| {
        let all = |watched: &policy::Watched| *watched == policy::Watched::All(true);
        all(&p.anomalies.network) || all(&p.anomalies.flows)
    });
    match (tcp, place) {
        (true, Some(place)) => {
            Check::ok("network", format!("TCP rights of Landlock; programs below {}", place.display()))
        }
        (false, _) if asked => Check::fail(
            "network",
            format!(
                "Landlock has no TCP rights (ABI {TCP_RIGHTS}): what the policy confines does not start (BS-NET-001)"
            ),
            "a kernel from 6.7 on, booted with lsm=landlock,..",
        )
        .unless_excepted(policy, "BS-NET-001", &["no-landlock"]),
        (true, None) if asked => Check::fail(
            "network",
            "no cgroup v2, alone or beside v1: what the policy confines does not start (BS-NET-001, BS-NET-002)",
            "boot with systemd.unified_cgroup_hierarchy=1",
        )
        .unless_excepted(policy, "BS-NET-002", &["no-hooks"]),
        (_, None) if watched => Check::warn(
            "network",
            "no cgroup v2, alone or beside v1: no listener, flow or port scan is told (`anomalies.network`, `anomalies.flows`)",
            "boot with systemd.unified_cgroup_hierarchy=1, or take these keys out of the policy",
        ),
        _ => Check::ok("network", "could not be confined here, and the policy does not ask for it"),
    }
}

pub(crate) fn kexec(policy: Option<&Policy>) -> Check {
    match host::kexec(Fact::Is(node::kexec_is_absent())) {
        Fact::Is(k) if k.absent => Check::ok("kexec", "not in this kernel"),
        Fact::Is(k) if k.load_disabled => Check::ok("kexec", "kexec_load_disabled is 1"),
        Fact::Is(_) | Fact::Absent => Check::fail(
            "kexec",
            "another kernel can be loaded and inherits the PCRs (BS-NOD-002)",
            "sysctl -w kernel.kexec_load_disabled=1 at boot",
        )
        .unless_excepted(policy, "BS-NOD-002", &["kexec"]),
        Fact::Unknown(why) => Check::fail("kexec", format!("{why} (BS-NOD-002)"), "mount /proc and securityfs")
            .unless_excepted(policy, "BS-NOD-002", &["unknown"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn this_kernel_can_run_the_tests() {
        assert_eq!(version().state, State::Ok);
        assert_eq!(seccomp().state, State::Ok);
        // The tests of the launcher need Landlock too; this one only says how it is found.
        assert!(has_landlock(1));
    }

    #[test]
    fn a_watched_network_that_nobody_can_watch_is_told() {
        let v2 = || Some(PathBuf::from("/sys/fs/cgroup"));
        let state = |keys: &str, tcp, place| {
            let policy = Policy::parse(&format!("version = 1\n{keys}"), &[]).unwrap();
            network_with(Some(&policy), tcp, place).state
        };
        for keys in ["[anomalies]\nnetwork = true", "[anomalies]\nflows = true"] {
            assert_eq!(state(keys, true, None), State::Warn, "{keys}");
            assert_eq!(state(keys, false, None), State::Warn, "{keys}");
            assert_eq!(state(keys, true, v2()), State::Ok, "{keys}");
        }
        // Who is confined is refused there, and hears of it.
        assert_eq!(state("[anomalies]\nnetwork = \"confined\"", true, None), State::Ok);
        assert_eq!(state("level = \"strict\"\n[anomalies]\nnetwork = true", true, None), State::Fail);
        assert_eq!(network_with(None, false, None).state, State::Ok);
    }
}
