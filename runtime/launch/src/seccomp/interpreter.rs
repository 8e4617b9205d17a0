//! Tests: a small interpreter of classic BPF and a naive reading of profiles, compared on all numbers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
use super::compile::{Compiled, compile, compile_beside, compile_own};
use super::profile::{Action, Op, Profile};
use super::tree::audit_arch;
use boltseal_profiles::{Arch, number, numbers};
use proptest::prelude::*;
use seccompiler::sock_filter;
use std::collections::BTreeMap;

struct Call {
    arch: u32,
    nr: u32,
    args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.nr,
            4 => self.arch,
            8 | 12 => 0,
            _ => {
                let index = (offset - 16) / 8;
                let arg = self.args[usize::try_from(index).unwrap()];
                u32::try_from(if offset.is_multiple_of(8) { arg & 0xffff_ffff } else { arg >> 32 }).unwrap()
            }
        }
    }
}

/// Runs a program as the kernel does: (return value, instructions executed).
fn run(program: &[sock_filter], call: &Call) -> (u32, usize) {
    let (mut a, mut pc, mut steps) = (0_u32, 0_usize, 0_usize);
    loop {
        let i = &program[pc];
        steps += 1;
        pc += 1;
        let jump = |taken: bool| usize::from(if taken { i.jt } else { i.jf });
        match i.code {
            0x20 => a = call.word(i.k),
            0x54 => a &= i.k,
            0x05 => pc += usize::try_from(i.k).unwrap(),
            0x15 => pc += jump(a == i.k),
            0x25 => pc += jump(a > i.k),
            0x35 => pc += jump(a >= i.k),
            0x45 => pc += jump(a & i.k != 0),
            0x06 => return (i.k, steps),
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// The profile read by hand, without any of the compiler's code.
struct Naive {
    profile: Profile,
    by_number: BTreeMap<u32, &'static str>,
    arch: Arch,
}

impl Naive {
    fn new(json: &str, arch: Arch) -> Self {
        let by_number = numbers(arch).map(|(name, nr)| (nr, name)).collect();
        Self { profile: serde_json::from_str(json).expect("a profile"), by_number, arch }
    }

    fn evaluate(&self, call: &Call) -> u32 {
        let enosys = Action::Errno(38).ret();
        if call.arch != audit_arch(self.arch) {
            return enosys;
        }
        let Some(name) = self.by_number.get(&call.nr) else { return enosys };
        let mut best: Option<Action> = None;
        for rule in self.profile.syscalls.iter().flatten().filter(|r| r.names.iter().any(|n| n == name)) {
            let args = rule.args.clone().unwrap_or_default();
            let holds = |a: &super::profile::Arg| {
                let actual = call.args[usize::from(a.index)];
                match a.op {
                    Op::Ne => actual != a.value,
                    Op::Lt => actual < a.value,
                    Op::Le => actual <= a.value,
                    Op::Eq => actual == a.value,
                    Op::Ge => actual >= a.value,
                    Op::Gt => actual > a.value,
                    Op::MaskedEq => actual & a.value == a.value_two,
                }
            };
            let twice = (0..6).any(|i| args.iter().filter(|a| a.index == i).count() > 1);
            let matches = if twice { args.iter().any(holds) } else { args.iter().all(holds) };
            if matches {
                let action = Action::parse(&rule.action, rule.errno_ret).unwrap();
                best = Some(best.map_or(action, |b| b.min(action)));
            }
        }
        let default = Action::parse(&self.profile.default_action, self.profile.default_errno_ret).unwrap();
        best.unwrap_or(default).ret()
    }
}

const VALUES: &[u64] = &[
    0,
    1,
    2,
    3,
    8,
    10,
    16,
    17,
    38,
    40,
    0x2_0000,
    0x2_0008,
    0x0200_0000,
    0x1000_0000,
    0x7E02_0000,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0001,
    0x26_0000_0001,
    u64::MAX,
    u64::MAX - 1,
];

fn agree(json: &str, arch: Arch) -> Result<(), TestCaseError> {
    agrees(&compile(json, arch).expect("compiles"), json, arch)
}

fn agrees(compiled: &Compiled, json: &str, arch: Arch) -> Result<(), TestCaseError> {
    let naive = Naive::new(json, arch);
    for nr in (0..600).chain([0x4000_0000, 0x4000_0001, 0x4000_0029, 0x7fff_ffff, u32::MAX]) {
        for (i, first) in VALUES.iter().enumerate() {
            let second = VALUES[(i * 7 + 3) % VALUES.len()];
            let args = [*first, second, VALUES[(i * 5) % VALUES.len()], *first, second, *first];
            let call = Call { arch: audit_arch(arch), nr, args };
            prop_assert_eq!(run(&compiled.program, &call).0, naive.evaluate(&call), "nr {} args {:x?}", nr, args);
        }
    }
    for foreign in [0x4000_0003, 0, audit_arch(if arch == Arch::X86_64 { Arch::Aarch64 } else { Arch::X86_64 })] {
        let call = Call { arch: foreign, nr: 1, args: [0; 6] };
        prop_assert_eq!(run(&compiled.program, &call).0, Action::Errno(38).ret());
    }
    Ok(())
}

/// The base filter with every trap armed, or none.
fn base(arch: Arch, armed: bool) -> Compiled {
    compile_own(boltseal_profiles::base_seccomp(), arch, &|_| armed).unwrap()
}

#[test]
fn the_base_filter_means_what_it_says() {
    for arch in [Arch::X86_64, Arch::Aarch64] {
        agrees(&base(arch, true), boltseal_profiles::base_seccomp(), arch).unwrap();
        let disarmed = boltseal_profiles::base_seccomp().replace("SCMP_ACT_NOTIFY", "SCMP_ACT_ERRNO");
        agrees(&base(arch, false), &disarmed, arch).unwrap();
    }
}

#[test]
fn the_base_filter_is_short_and_shallow() {
    for arch in [Arch::X86_64, Arch::Aarch64] {
        let compiled = base(arch, true);
        // libseccomp's three ABIs take 970.
        assert!(compiled.program.len() <= 200, "{} instructions", compiled.program.len());
        assert_eq!(compiled.unknown, Vec::<String>::new());
        let deepest =
            (0..600).map(|nr| run(&compiled.program, &Call { arch: audit_arch(arch), nr, args: [0; 6] }).1).max();
        assert!(deepest.unwrap() <= 40, "{deepest:?} steps");
    }
}

#[test]
fn the_base_filter_on_the_calls_that_matter() {
    let program = base(Arch::X86_64, false).program;
    let answer = |name: &str, args: [u64; 6]| {
        run(&program, &Call { arch: audit_arch(Arch::X86_64), nr: number(Arch::X86_64, name).unwrap(), args }).0
    };
    let (allow, eperm, enosys) = (Action::Allow.ret(), Action::Errno(1).ret(), Action::Errno(38).ret());
    let socket = |family: u64, protocol: u64| answer("socket", [family, 3, protocol, 0, 0, 0]);
    for family in 0..64 {
        let expected = if [1, 2, 10, 16].contains(&family) { allow } else { eperm };
        assert_eq!(socket(family, 0), expected, "family {family}");
    }
    assert_eq!(socket(16, 12), eperm, "NETLINK_NETFILTER");
    assert_eq!(socket(0x1_0000_0026, 0), eperm, "AF_ALG with high bits");
    for bit in [0x2_0000_u64, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
        assert_eq!(answer("clone", [bit | 17, 0, 0, 0, 0, 0]), eperm, "clone {bit:#x}");
    }
    assert_eq!(answer("clone", [17, 0, 0, 0, 0, 0]), allow);
    assert_eq!(answer("clone3", [0; 6]), enosys);
    assert_eq!(answer("personality", [0x4_0000, 0, 0, 0, 0, 0]), eperm, "ADDR_NO_RANDOMIZE");
    // Where libc or a program has another way, it hears of it.
    assert_eq!(answer("openat2", [0; 6]), enosys);
    assert_eq!(answer("msgsnd", [0; 6]), enosys);
    assert_eq!(answer("getxattr", [0; 6]), Action::Errno(95).ret());
    for name in ["io_uring_setup", "bpf", "userfaultfd", "keyctl", "ptrace", "mount", "unshare", "setns", "kexec_load"]
    {
        assert_eq!(answer(name, [0; 6]), eperm, "{name}");
    }
}

/// A call of the trip-wire is one that is refused: armed, the same calls are open and the others wait for the listener.
#[test]
fn a_trap_opens_nothing() {
    for arch in [Arch::X86_64, Arch::Aarch64] {
        let (armed, plain) = (base(arch, true), base(arch, false));
        assert!(armed.traps.is_sorted_by_key(|trap| trap.nr) && plain.traps.is_empty());
        let wire =
            "mount unshare setns ptrace bpf io_uring_setup userfaultfd keyctl kexec_load clone socket init_module";
        for name in wire.split(' ') {
            assert!(armed.traps.iter().any(|trap| trap.name == name && trap.errno == 1), "{name}");
        }
        let mut told = 0;
        for nr in 0..600 {
            for first in VALUES {
                let call = Call { arch: audit_arch(arch), nr, args: [*first, 3, 0, 0, 0, 0] };
                let (with, without) = (run(&armed.program, &call).0, run(&plain.program, &call).0);
                if with == libc::SECCOMP_RET_USER_NOTIF {
                    assert_eq!(without, Action::Errno(1).ret(), "{nr} {first:#x}");
                    assert!(armed.traps.iter().any(|trap| trap.nr == nr));
                    told += 1;
                } else {
                    assert_eq!(with, without, "{nr} {first:#x}");
                }
            }
        }
        assert!(told > 500, "{told}");
    }
}

/// Beside the base filter a pod's still refuses what it refuses: the kernel takes the least of both answers.
#[test]
fn a_pods_filter_that_yields_opens_nothing() {
    let pod = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
        {"names":["read","write","clone"],"action":"SCMP_ACT_ALLOW"},
        {"names":["bpf"],"action":"SCMP_ACT_KILL_PROCESS"},{"names":["ptrace"],"action":"SCMP_ACT_ALLOW"}]}"#;
    let arch = Arch::X86_64;
    let (base, alone) = (base(arch, true), compile(pod, arch).unwrap());
    let beside = compile_beside(pod, arch, &base).unwrap();
    let by = |program: &[sock_filter], nr, first| {
        run(program, &Call { arch: audit_arch(arch), nr, args: [first, 0, 0, 0, 0, 0] }).0
    };
    // SECCOMP_RET_ACTION_FULL as the kernel compares it: a signed number, the least wins.
    let least = |a: u32, b: u32| if (a & 0xffff_0000).cast_signed() <= (b & 0xffff_0000).cast_signed() { a } else { b };
    for nr in 0..600 {
        for first in VALUES {
            let before = least(by(&base.program, nr, *first), by(&alone.program, nr, *first));
            let after = least(by(&base.program, nr, *first), by(&beside.program, nr, *first));
            if before != after {
                assert_eq!((before, after), (Action::Errno(1).ret(), libc::SECCOMP_RET_USER_NOTIF), "{nr} {first:#x}");
            }
        }
    }
    let both = |name: &str| {
        let nr = number(arch, name).unwrap();
        least(by(&base.program, nr, 0), by(&beside.program, nr, 0))
    };
    assert_eq!(both("mount"), libc::SECCOMP_RET_USER_NOTIF);
    assert_eq!(both("ptrace"), libc::SECCOMP_RET_USER_NOTIF);
    assert_eq!(both("bpf"), libc::SECCOMP_RET_KILL_PROCESS);
    assert_eq!(both("uname"), Action::Errno(1).ret());
}

#[test]
fn refusals_say_why() {
    let with = |default: &str, rest: &str| format!(r#"{{"defaultAction":"{default}"{rest}}}"#);
    for (json, part) in [
        (with("SCMP_ACT_ALLOW", ""), "lets everything through"),
        (with("SCMP_ACT_LOG", ""), "lets everything through"),
        (with("SCMP_ACT_TRACE", ""), "SCMP_ACT_TRACE is not supported"),
        (with("SCMP_ACT_ERRNO", r#","listenerPath":"/run/x""#), "listenerPath"),
        (with("SCMP_ACT_ERRNO", r#","architectures":["SCMP_ARCH_X86"]"#), "SCMP_ARCH_X86_64"),
        (with("SCMP_ACT_ERRNO", r#","flags":["SECCOMP_FILTER_FLAG_NEW_LISTENER"]"#), "NEW_LISTENER"),
        (with("SCMP_ACT_ERRNO", r#","defaultErrnoRet":70000"#), "above 4095"),
        (with("SCMP_ACT_ERRNO", r#","syscalls":[{"names":["read"],"action":"SCMP_ACT_NOTIFY"}]"#), "SCMP_ACT_NOTIFY"),
        (with("SCMP_ACT_ERRNO", r#","surprise":1"#), "surprise"),
        (
            with(
                "SCMP_ACT_ERRNO",
                r#","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]}]"#,
            ),
            "above 5",
        ),
    ] {
        let error = compile(&json, Arch::X86_64).expect_err(&json).0;
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn names_of_other_machines_and_times_are_left_out() {
    let json = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read","socketcall","call_of_2031"],"action":"SCMP_ACT_ALLOW"}]}"#;
    let compiled = compile(json, Arch::X86_64).unwrap();
    assert_eq!(compiled.unknown, ["socketcall", "call_of_2031"]);
}

#[test]
fn what_oci_spec_writes_is_read() {
    let json = r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],
        "flags":["SECCOMP_FILTER_FLAG_LOG"],"syscalls":[{"names":["read","fstat64"],"action":"SCMP_ACT_ALLOW"},
        {"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]},
        {"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38},
        {"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":40,"op":"SCMP_CMP_NE"}]}]}"#;
    let parsed: oci_spec::runtime::LinuxSeccomp = serde_json::from_str(json).unwrap();
    let written = serde_json::to_string(&parsed).unwrap();
    let compiled = compile(&written, Arch::X86_64).unwrap();
    assert_eq!(compiled.program, compile(json, Arch::X86_64).unwrap().program);
    assert_eq!(compiled.flags, libc::SECCOMP_FILTER_FLAG_LOG);
    assert_eq!(compiled.unknown, ["fstat64"]);
    agree(&written, Arch::X86_64).unwrap();
}

fn profiles() -> impl Strategy<Value = String> {
    let action = prop::sample::select(vec![
        r#""SCMP_ACT_ALLOW""#,
        r#""SCMP_ACT_ERRNO""#,
        r#""SCMP_ACT_ERRNO","errnoRet":13"#,
        r#""SCMP_ACT_TRAP""#,
        r#""SCMP_ACT_KILL""#,
        r#""SCMP_ACT_KILL_PROCESS""#,
        r#""SCMP_ACT_LOG""#,
    ]);
    let op = prop::sample::select(vec!["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]);
    let value = || prop::sample::select(VALUES.to_vec());
    let arg = (0_u8..6, value(), value(), op)
        .prop_map(|(i, v, w, op)| format!(r#"{{"index":{i},"value":{v},"valueTwo":{w},"op":"SCMP_CMP_{op}"}}"#));
    let names: Vec<&'static str> = numbers(Arch::X86_64).map(|(n, _)| n).collect();
    let rule = (prop::collection::vec(prop::sample::select(names), 1..12), action, prop::collection::vec(arg, 0..4))
        .prop_map(|(names, action, args)| {
            format!(r#"{{"names":{names:?},"action":{action},"args":[{}]}}"#, args.join(","))
        });
    let default = prop::sample::select(vec!["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"]);
    (default, prop::collection::vec(rule, 0..40))
        .prop_map(|(default, rules)| format!(r#"{{"defaultAction":"{default}","syscalls":[{}]}}"#, rules.join(",")))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn any_profile_means_what_it_says(json in profiles()) {
        agree(&json, Arch::X86_64)?;
    }
}
