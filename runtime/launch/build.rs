//! Compiles the base filter for the target, once without its trip-wire and once with all of it: what nearly every start needs
//! is then there, without reading the profile again. Other trip-wires are compiled at start, by the same code.
#![allow(clippy::panic, reason = "a build that cannot go on ends")]

#[path = "src/seccomp"]
#[allow(dead_code, unreachable_pub, reason = "a part of the modules is for the program")]
mod seccomp {
    pub mod compile;
    pub mod profile;
    mod tree;
}

use boltseal_profiles::Arch;
use seccomp::compile::{Compiled, compile_own};
use std::fmt::Write;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/seccomp");
    let text = match std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() {
        Ok("x86_64") => source(Arch::X86_64),
        Ok("aarch64") => source(Arch::Aarch64),
        // No table: the program says so when it starts a container.
        _ => "static NONE: Option<Ready> = None;\nstatic ALL: Option<Ready> = None;\n".into(),
    };
    let out = std::env::var_os("OUT_DIR").unwrap_or_else(|| panic!("cargo names no OUT_DIR"));
    if let Err(e) = std::fs::write(Path::new(&out).join("base.rs"), text) {
        panic!("base.rs cannot be written: {e}");
    }
}

fn source(arch: Arch) -> String {
    let mut text = String::new();
    for (name, trapped) in [("NONE", false), ("ALL", true)] {
        let base = compile_own(boltseal_profiles::base_seccomp(), arch, &|_| trapped);
        let base = base.unwrap_or_else(|e| panic!("the base filter: {e}"));
        assert!(base.unknown.is_empty(), "the base filter names {:?}, which no kernel has", base.unknown);
        if let Err(e) = ready(&mut text, name, &base) {
            panic!("{e}");
        }
    }
    text
}

fn ready(text: &mut String, name: &str, base: &Compiled) -> std::fmt::Result {
    writeln!(text, "static {name}: Option<Ready> = Some(Ready {{ flags: {}, code: &[", base.flags)?;
    for i in &base.program {
        writeln!(text, "    ({}, {}, {}, {}),", i.code, i.jt, i.jf, i.k)?;
    }
    writeln!(text, "], traps: &[")?;
    for t in &base.traps {
        writeln!(text, "    Trap {{ nr: {}, name: {:?}, errno: {}, args: {} }},", t.nr, t.name, t.errno, t.args)?;
    }
    writeln!(text, "] }});")
}
