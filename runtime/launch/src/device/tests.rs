//! The rules and the program that is made of them, compared on all they know.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
use super::HOOK;
use super::program::Program;
use crate::bpf;
use crate::bpf::code::Instruction;
use crate::bpf::interpreter::{Machine, Object};
use oci_spec::runtime::LinuxDeviceCgroup;
use proptest::prelude::*;
use serde_json::{Value, json};

/// What the kernel asks: (access letters, type letter, major, minor).
type Ask<'a> = (&'a str, char, u32, u32);

/// The program's answer.
fn run(program: &[Instruction], (access, kind, major, minor): Ask<'_>) -> u64 {
    let access =
        access.chars().map(|c| [('m', 1), ('r', 2), ('w', 4)].iter().find(|(l, _)| *l == c).unwrap().1).sum::<u32>();
    let context = [access << 16 | if kind == 'b' { 1 } else { 2 }, major, minor];
    Machine::new(Object::of_words(&context)).run(program)
}

fn rules(list: &Value) -> Vec<LinuxDeviceCgroup> {
    serde_json::from_value(list.clone()).unwrap()
}

fn program(allowed: &Value) -> Program {
    let mut all = vec![json!({"allow": false, "type": "a", "access": "rwm"})];
    all.extend(allowed.as_array().unwrap().iter().cloned());
    Program::of(&rules(&Value::Array(all))).unwrap()
}

fn sealed() -> Program {
    program(&json!([
        {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
        {"allow": true, "type": "c", "major": 136, "access": "rwm"},
        {"allow": true, "type": "b", "major": 8, "minor": 1, "access": "r"},
        {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "r"},
        {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "w"},
    ]))
}

#[test]
fn what_the_rules_allow_and_nothing_else() {
    let program = sealed();
    for (ask, allowed) in [
        (("rwm", 'c', 1, 3), 1),
        (("m", 'c', 1, 3), 1),
        (("rw", 'b', 1, 3), 0),
        (("r", 'c', 1, 5), 0),
        (("r", 'c', 3, 1), 0),
        (("rw", 'c', 136, 0), 1),
        (("rw", 'c', 136, 77), 1),
        (("rw", 'c', 137, 0), 0),
        (("r", 'b', 8, 1), 1),
        (("w", 'b', 8, 1), 0),
        (("rw", 'b', 8, 1), 0),
        (("m", 'b', 8, 1), 0),
        // Two rules of one device are one: both may be asked at once.
        (("rw", 'c', 10, 229), 1),
        (("rwm", 'c', 10, 229), 0),
        (("r", 'b', 0, 0), 0),
        (("r", 'c', u32::MAX, u32::MAX), 0),
    ] {
        assert_eq!(run(program.instructions(), ask), allowed, "{ask:?}");
    }
}

#[test]
fn nothing_allowed_refuses_all() {
    let program = program(&json!([]));
    assert_eq!(run(program.instructions(), ("r", 'c', 1, 3)), 0);
    assert_eq!(run(program.instructions(), ("m", 'b', 0, 0)), 0);
}

#[test]
fn any_other_form_is_refused() {
    let deny = json!({"allow": false, "type": "a", "access": "rwm"});
    let device = json!({"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"});
    for (list, part) in [
        (json!([]), "there are none"),
        (json!([device]), "does not deny every"),
        (json!([{"allow": true, "access": "rwm"}]), "does not deny every"),
        (json!([{"allow": false, "type": "c", "access": "rwm"}]), "does not deny every"),
        (json!([{"allow": false, "major": 1, "access": "rwm"}]), "does not deny every"),
        (json!([{"allow": false, "access": "rw"}]), "does not deny every"),
        (json!([{"allow": false}]), "does not deny every"),
        (json!([deny, device, deny]), "denied after"),
        (json!([deny, {"allow": true, "type": "a", "access": "rwm"}]), "is no device"),
        (json!([deny, {"allow": true, "major": 1, "access": "rwm"}]), "is no device"),
        (json!([deny, {"allow": true, "type": "p", "major": 1, "access": "rwm"}]), "is no device"),
        (json!([deny, {"allow": true, "type": "c", "access": "rwm"}]), "every major"),
        (json!([deny, {"allow": true, "type": "c", "major": -1, "access": "rwm"}]), "every major"),
        (json!([deny, {"allow": true, "type": "c", "major": -2, "access": "rwm"}]), "no device number"),
        (json!([deny, {"allow": true, "type": "c", "major": 1 << 20, "access": "rwm"}]), "no device number"),
        (json!([deny, {"allow": true, "type": "c", "major": 1, "access": "rx"}]), "is not known"),
    ] {
        let error = Program::of(&rules(&list)).unwrap_err();
        assert!(error.contains(part), "{list}: {error}");
    }
    // -1 is every minor; containerd and crun write it so.
    assert!(
        Program::of(&rules(&json!([deny, {"allow": true, "type": "c", "major": 136, "minor": -1, "access": "rw"}])))
            .is_ok()
    );
    let many: Vec<Value> =
        (0..600).map(|n| json!({"allow": true, "type": "c", "major": 1, "minor": n, "access": "r"})).collect();
    assert!(Program::of(&rules(&Value::Array([vec![deny], many].concat()))).unwrap_err().contains("600 devices"));
}

/// The kernel's verifier takes what is generated, the largest too. Needs root, as every test that makes containers.
#[test]
fn the_kernel_takes_it() {
    for allowed in [json!([]), json!([{"allow": true, "type": "c", "major": 1, "minor": 3, "access": "r"}])] {
        bpf::load(HOOK, program(&allowed).instructions()).unwrap();
    }
    let most: Vec<Value> =
        (0..512).map(|n| json!({"allow": true, "type": "b", "major": n, "minor": n, "access": "rw"})).collect();
    bpf::load(HOOK, program(&Value::Array(most)).instructions()).unwrap();
    // The verifier is asked indeed: a program without its answer is refused.
    let broken = sealed().instructions()[..7].to_vec();
    assert!(bpf::load(HOOK, &broken).is_err());
}

/// The rules read as a person reads them.
fn by_hand(list: &[(char, u32, Option<u32>, String)], (access, kind, major, minor): Ask<'_>) -> bool {
    let of_device: String = list
        .iter()
        .filter(|(k, ma, mi, _)| *k == kind && *ma == major && *mi == Some(minor))
        .map(|(.., access)| access.as_str())
        .collect();
    let of_every: String = list
        .iter()
        .filter(|(k, ma, mi, _)| *k == kind && *ma == major && mi.is_none())
        .map(|(.., access)| access.as_str())
        .collect();
    access.chars().all(|c| of_device.contains(c)) || access.chars().all(|c| of_every.contains(c))
}

proptest! {
    #[test]
    fn the_program_and_the_rules_agree(
        list in prop::collection::vec((prop::sample::select(vec!['b', 'c']), 0_u32..4, prop::option::of(0_u32..3), "[rwm]{1,3}"), 0..8),
        ask in ("[rwm]{1}", prop::sample::select(vec!["", "r", "w", "m"]), prop::sample::select(vec!['b', 'c']), 0_u32..4, 0_u32..3),
    ) {
        let allowed: Vec<Value> = list
            .iter()
            .map(|(kind, major, minor, access)| json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": access}))
            .collect();
        let (first, more, kind, major, minor) = ask;
        let access = if first == more { first } else { format!("{first}{more}") };
        let ask = (access.as_str(), kind, major, minor);
        let program = program(&Value::Array(allowed));
        prop_assert_eq!(run(program.instructions(), ask) == 1, by_hand(&list, ask));
    }
}
