//! The house keeps its own rules: which way the arrows run, where unsafe may stand, how long a file gets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Crates that reach the world: none may stand below what decides, seals or verifies.
const WORLD: &[&str] = &[
    "tokio",
    "nix",
    "mio",
    "socket2",
    "tonic",
    "hyper",
    "rustix",
    "pathrs",
    "libcontainer",
    "libcgroups",
    "landlock",
    "caps",
    "containerd-client",
    "containerd-shim",
    "containerd-shim-protos",
    "ttrpc",
    "reqwest",
    "rand",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Normal dependencies of each package of the build, by name.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let out = Command::new(cargo)
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--offline",
            "--filter-platform",
            "x86_64-unknown-linux-musl",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: Value = serde_json::from_slice(&out.stdout).unwrap();
    let name = |id: &Value| {
        let package = metadata["packages"].as_array().unwrap().iter().find(|p| p["id"] == *id).unwrap();
        package["name"].as_str().unwrap().to_owned()
    };
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for node in metadata["resolve"]["nodes"].as_array().unwrap() {
        let normal = node["deps"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|dep| dep["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null()));
        arrows.entry(name(&node["id"])).or_default().extend(normal.map(|dep| name(&dep["pkg"])));
    }
    arrows
}

fn below(arrows: &BTreeMap<String, BTreeSet<String>>, from: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut open = vec![from.to_owned()];
    while let Some(next) = open.pop() {
        for dep in &arrows[&next] {
            if seen.insert(dep.clone()) {
                open.push(dep.clone());
            }
        }
    }
    seen
}

#[test]
fn what_decides_reaches_nothing_of_the_world() {
    let arrows = arrows();
    for pure in ["boltseal-policy", "boltseal-seal", "boltseal-trust", "boltseal-message", "boltseal-import"] {
        let reached: Vec<_> = below(&arrows, pure).into_iter().filter(|d| WORLD.contains(&d.as_str())).collect();
        assert!(reached.is_empty(), "{pure} reaches {reached:?}");
    }
    // The list bites: the gate does reach the world.
    assert!(below(&arrows, "boltseal-gate").contains("nix"));
}

#[test]
fn the_frame_depends_on_nothing() {
    assert!(arrows()["boltseal-message"].is_empty());
}

#[test]
fn the_shim_knows_the_frame_alone() {
    let known: Vec<_> =
        below(&arrows(), "containerd-shim-boltseal").into_iter().filter(|d| d.starts_with("boltseal-")).collect();
    assert_eq!(known, ["boltseal-message"]);
}

#[test]
fn arrows_run_one_way() {
    let arrows = arrows();
    for (from, deps) in arrows.iter().filter(|(from, _)| from.starts_with("boltseal-")) {
        if from == "boltseal-bench" || from == "boltseal-integration-tests" || from == "boltseal-fuzz" {
            continue;
        }
        assert!(!deps.contains("boltseal-gate") && !deps.contains("boltseal-cli"), "{from} points back");
        let pure = ["boltseal-policy", "boltseal-trust"].contains(&from.as_str());
        assert!(!pure || deps.iter().all(|d| !d.starts_with("boltseal-")), "{from} -> {deps:?}");
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !["target", ".cache", ".git"].contains(&name.as_str()) {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

#[test]
fn unsafe_stands_only_where_the_design_puts_it() {
    let root = root();
    let mut files = Vec::new();
    for part in ["shim/src", "runtime", "profiles", "integration"] {
        sources(&root.join(part), &mut files);
    }
    assert!(files.len() > 20);
    for file in files {
        let relative = file.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
        let home = relative.starts_with("runtime/launch/")
            || relative.starts_with("shim/src/sys")
            || relative == "runtime/jail/src/sys.rs"
            || relative == "runtime/gate/src/sys.rs"
            || relative == "runtime/fetch/src/sys.rs"
            || relative == "integration/probe/src/inside/sys.rs"
            || relative == "integration/bench/src/sys.rs"
            || relative == "integration/cves/src/exploit/sys.rs";
        let test = relative.contains("/tests/") || relative.contains("/examples/");
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.lines().filter(|l| !l.trim_start().starts_with("//"));
        let used = code.clone().any(|l| l.contains("unsafe {") || l.contains("unsafe fn") || l.contains("unsafe impl"));
        assert!(home || test || !used, "{relative} holds unsafe code");
    }
}

/// A policy names calls of the trip-wire; the base filter has it.
#[test]
fn the_trip_wire_of_policies_is_the_profiles() {
    let profile: Value = serde_json::from_str(boltseal_profiles::base_seccomp()).unwrap();
    let rules = profile["syscalls"].as_array().unwrap().iter().filter(|r| r["action"] == "SCMP_ACT_NOTIFY");
    let names = rules.flat_map(|r| r["names"].as_array().unwrap()).map(|n| n.as_str().unwrap());
    let names: BTreeSet<&str> = names.collect();
    assert_eq!(names, boltseal_policy::standard::TRIP_WIRE.into());
    // Not armed they get the filter's own answer.
    let answers = profile["syscalls"].as_array().unwrap().iter().filter(|r| r["action"] == "SCMP_ACT_NOTIFY");
    assert!(answers.into_iter().all(|r| r["errnoRet"] == profile["defaultErrnoRet"]));
}
