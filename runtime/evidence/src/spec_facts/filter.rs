//! Why a pod's own seccomp filter cannot be installed as it is.
use super::list;
use oci_spec::runtime as oci;

pub(super) fn unusable(seccomp: &oci::LinuxSeccomp) -> Vec<String> {
    use oci::{Arch, LinuxSeccompAction as Action, LinuxSeccompFilterFlag as Flag};
    let mut why = Vec::new();
    if matches!(seccomp.default_action(), Action::ScmpActAllow | Action::ScmpActLog) {
        why.push(format!("its default is {}: it would allow what it does not name", seccomp.default_action()));
    }
    let rules = list(seccomp.syscalls()).iter().map(oci::LinuxSyscall::action);
    let actions: Vec<_> = rules.chain([seccomp.default_action()]).collect();
    if actions.contains(&Action::ScmpActNotify) || named_path(seccomp.listener_path().as_ref()) {
        why.push("it hands calls to a listener (SCMP_ACT_NOTIFY, listenerPath)".into());
    }
    if actions.contains(&Action::ScmpActTrace) {
        why.push("it hands calls to a tracer (SCMP_ACT_TRACE)".into());
    }
    let native = [Arch::ScmpArchNative, native()];
    let arches = list(seccomp.architectures());
    if !arches.is_empty() && !arches.iter().any(|a| native.contains(a)) {
        why.push("it is for other machines than this one".into());
    }
    if list(seccomp.flags()).contains(&Flag::SeccompFilterFlagSpecAllow) {
        why.push("it switches the mitigation of speculative store bypass off (SECCOMP_FILTER_FLAG_SPEC_ALLOW)".into());
    }
    if list(seccomp.syscalls()).iter().any(|rule| rule.names().is_empty()) {
        why.push("it has a rule without names".into());
    }
    why
}

fn native() -> oci::Arch {
    if cfg!(target_arch = "aarch64") { oci::Arch::ScmpArchAarch64 } else { oci::Arch::ScmpArchX86_64 }
}

fn named_path(path: Option<&std::path::PathBuf>) -> bool {
    path.is_some_and(|p| !p.as_os_str().is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::tests::facts;

    #[test]
    fn filters_that_cannot_be_installed() {
        let why = |seccomp: &str| facts(&format!(r#""args":[]|"linux":{{"seccomp":{seccomp}}}"#)).seccomp.unusable;
        assert!(
            why(r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"]}"#)
                .is_empty()
        );
        assert_eq!(why(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).len(), 1);
        assert_eq!(why(r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_ARM"]}"#).len(), 1);
        let notify =
            r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["mount"],"action":"SCMP_ACT_NOTIFY"}]}"#;
        assert!(why(notify)[0].contains("NOTIFY"));
    }
}
