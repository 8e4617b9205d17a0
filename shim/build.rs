//! Compiles `profiles/seccomp/shim.json` for the target: what stays with a pod parses no profile.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

use boltseal_profiles::{Arch, number, shim_seccomp};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use serde_json::Value;

fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::var("CARGO_CFG_TARGET_ARCH")?;
    let (arch, target) = match name.as_str() {
        "x86_64" => (Arch::X86_64, TargetArch::x86_64),
        "aarch64" => (Arch::Aarch64, TargetArch::aarch64),
        other => return Err(format!("no system call table for {other}").into()),
    };
    let program = compile(&serde_json::from_str(shim_seccomp())?, arch, target)?;
    let mut text = String::from("[\n");
    for step in program {
        let (code, jt, jf, k) = (step.code, step.jt, step.jf, step.k);
        writeln!(text, "    libc::sock_filter {{ code: {code}, jt: {jt}, jf: {jf}, k: {k} }},")?;
    }
    text.push(']');
    std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join("filter.rs"), text)?;
    println!("cargo::rerun-if-changed=build.rs");
    Ok(())
}

/// Our own profile uses little of the format; what is not understood here is an error and no rule.
fn compile(profile: &Value, arch: Arch, target: TargetArch) -> Result<BpfProgram, Box<dyn Error>> {
    if profile["defaultAction"] != "SCMP_ACT_ERRNO" || profile["defaultErrnoRet"] != 1 {
        return Err("the default is not EPERM".into());
    }
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for rule in profile["syscalls"].as_array().ok_or("no syscalls")? {
        if rule["action"] != "SCMP_ACT_ALLOW" || !rule["comment"].is_string() {
            return Err(format!("not a reasoned allowance: {rule}").into());
        }
        let args = rule["args"].as_array().into_iter().flatten();
        let conditions = args.map(condition).collect::<Result<Vec<_>, _>>()?;
        for name in rule["names"].as_array().ok_or("no names")? {
            let name = name.as_str().ok_or("a name that is none")?;
            let known = [Arch::X86_64, Arch::Aarch64].iter().any(|arch| number(*arch, name).is_some());
            let Some(nr) = number(arch, name) else {
                // The old calls are not there on newer architectures.
                if known { continue } else { return Err(format!("{name} is no system call").into()) }
            };
            let alternatives = rules.entry(i64::from(nr)).or_default();
            if !conditions.is_empty() {
                alternatives.push(SeccompRule::new(conditions.clone())?);
            } else if !alternatives.is_empty() {
                return Err(format!("{name} both with and without conditions").into());
            }
        }
    }
    Ok(SeccompFilter::new(rules, SeccompAction::Errno(1), SeccompAction::Allow, target)?.try_into()?)
}

fn condition(arg: &Value) -> Result<SeccompCondition, Box<dyn Error>> {
    let number = |key: &str| arg[key].as_u64().ok_or_else(|| format!("no {key}: {arg}"));
    let index = u8::try_from(number("index")?)?;
    let (op, value) = match arg["op"].as_str() {
        Some("SCMP_CMP_EQ") => (SeccompCmpOp::Eq, number("value")?),
        Some("SCMP_CMP_MASKED_EQ") => (SeccompCmpOp::MaskedEq(number("value")?), number("valueTwo")?),
        _ => return Err(format!("a comparison that is not understood: {arg}").into()),
    };
    // Small numbers that the kernel takes as 32 bits.
    Ok(SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, value)?)
}
