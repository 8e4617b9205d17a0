//! What the kernel offers.
use super::Check;
use boltseal_policy::Policy;
use landlock::{ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::sys::utsname::uname;
use std::fs::read_to_string;

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
    let abi = landlock_abi();
    let least = policy.map_or(1, |p| p.landlock.abi.max(1));
    if abi >= least {
        Check::ok("landlock", format!("ABI {abi}, the policy asks for {least}"))
    } else {
        let fact = format!("ABI {abi} (0: none), but {least} is needed: every start is denied");
        Check::fail("landlock", fact, "boot with lsm=landlock,.. or a newer kernel, or lower landlock.abi in the policy")
    }
}

/// The newest ABI of which this kernel takes every right as a hard requirement. Makes rulesets, enforces none.
fn landlock_abi() -> u32 {
    let known = [ABI::V6, ABI::V5, ABI::V4, ABI::V3, ABI::V2, ABI::V1];
    for (abi, number) in known.into_iter().zip((1..=6).rev()) {
        let made = Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(AccessFs::from_all(abi));
        let made = if number >= 4 { made.and_then(|r| r.handle_access(AccessNet::from_all(abi))) } else { made };
        let made = if number >= 6 { made.and_then(|r| r.scope(Scope::from_all(abi))) } else { made };
        if made.and_then(Ruleset::create).is_ok() {
            return number;
        }
    }
    0
}

pub(crate) fn seccomp() -> Check {
    const NEEDED: [&str; 3] = ["errno", "kill_process", "allow"];
    match read_to_string("/proc/sys/kernel/seccomp/actions_avail") {
        Ok(actions) if NEEDED.iter().all(|n| actions.split_whitespace().any(|a| a == *n)) => Check::ok("seccomp", actions.trim()),
        Ok(actions) => Check::fail("seccomp", format!("only {}: every start is denied", actions.trim()), "install a kernel with CONFIG_SECCOMP_FILTER"),
        Err(e) => Check::fail("seccomp", format!("not in this kernel ({e}): every start is denied"), "install a kernel with CONFIG_SECCOMP_FILTER"),
    }
}

pub(crate) fn labels(policy: Option<&Policy>) -> Check {
    let read = |path: &str| read_to_string(path).map(|t| t.trim().to_owned()).unwrap_or_default();
    let wanted = policy.and_then(|p| p.label.apparmor.first()).map_or("boltseal-default", String::as_str);
    if read("/sys/module/apparmor/parameters/enabled") == "Y" {
        let loaded = read("/sys/kernel/security/apparmor/profiles");
        let mode = loaded.lines().find_map(|l| l.strip_prefix(wanted)?.trim().strip_prefix('(')?.strip_suffix(')'));
        return match mode {
            Some("enforce") => Check::ok("lsm", format!("AppArmor, profile {wanted} in enforce mode")),
            Some(mode) => Check::fail("lsm", format!("AppArmor, but profile {wanted} is in {mode} mode"), "aa-enforce the profile"),
            None => Check::fail("lsm", format!("AppArmor, but profile {wanted} is not loaded"), "load profiles/apparmor/boltseal-default with apparmor_parser -r"),
        };
    }
    match read("/sys/fs/selinux/enforce").as_str() {
        "1" => Check::ok("lsm", "SELinux, enforcing"),
        "" => Check::fail("lsm", "neither AppArmor nor SELinux is active (BS-MAC-001)", "boot with apparmor or selinux in lsm=")
            .unless_excepted(policy, "BS-MAC-001", &["no-lsm"]),
        _ => Check::fail("lsm", "SELinux, but permissive (BS-MAC-001)", "setenforce 1"),
    }
}

pub(crate) fn cgroups(policy: Option<&Policy>) -> Check {
    let v2 = statfs("/sys/fs/cgroup").is_ok_and(|s| s.filesystem_type() == CGROUP2_SUPER_MAGIC);
    let (text, source) = if v2 {
        (read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default(), "v2")
    } else {
        // subsystem, hierarchy, groups, enabled: a v1 controller is mounted below its own name.
        let all = read_to_string("/proc/cgroups").unwrap_or_default();
        let mounted = all.lines().filter_map(|l| l.split_whitespace().next());
        let mounted: Vec<&str> = mounted.filter(|c| std::path::Path::new("/sys/fs/cgroup").join(c).join("cgroup.procs").exists()).collect();
        (mounted.join(" "), "v1")
    };
    let has = |name: &str| text.split_whitespace().any(|c| c == name);
    let missing: Vec<&str> = ["memory", "pids"].into_iter().filter(|c| !has(c)).collect();
    if !missing.is_empty() {
        return Check::fail("cgroup", format!("{source} without {} (BS-PRC-006)", missing.join(", ")), "enable the controllers (cgroup_enable=memory ..)");
    }
    if !v2 && !has("devices") {
        return Check::fail("cgroup", "v1 without devices (BS-DEV-001)", "mount the devices controller");
    }
    if v2 {
        let fact = "v2: device rules are not enforced there by this version (BS-DEV-001)";
        return Check::fail("cgroup", fact, "boot with systemd.unified_cgroup_hierarchy=0").unless_excepted(policy, "BS-DEV-001", &["not-enforced"]);
    }
    Check::ok("cgroup", format!("{source}: {}", text.trim()))
}

pub(crate) fn kexec(policy: Option<&Policy>) -> Check {
    let locked = read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    if locked.contains("[integrity]") || locked.contains("[confidentiality]") {
        return Check::ok("kexec", format!("lockdown: {}", locked.trim()));
    }
    match read_to_string("/proc/sys/kernel/kexec_load_disabled").map(|t| t.trim().to_owned()) {
        Ok(value) if value == "1" => Check::ok("kexec", "disabled"),
        Ok(_) => Check::fail("kexec", "another kernel can be loaded and inherits the PCRs (BS-NOD-002)", "sysctl -w kernel.kexec_load_disabled=1 at boot")
            .unless_excepted(policy, "BS-NOD-002", &["kexec-possible", "enabled"]),
        // The switch comes with the feature.
        Err(_) => Check::ok("kexec", "not in this kernel"),
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
        assert!(landlock_abi() >= 1);
    }
}
