//! A real software TPM, and each thing that must hold for its node to be attested, with its twin that passes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod common;

use boltseal_node::key::{AttestationKey, PERSISTENT};
use boltseal_node::quote::verify;
use boltseal_node::{Boot, enroll, status};
use common::{Node, Proxy, Swtpm, denied, measure, passes, soon};
use std::collections::BTreeMap;
use std::time::Duration;

#[test]
fn the_first_start_of_a_boot_asks_the_tpm_and_the_next_does_not() {
    let mut node = Node::new();
    let proxy = Proxy::new(&node.swtpm);
    node.tpm = proxy.server.address();
    let first = node.check();
    passes(&first);
    assert!(first.fresh && first.software && first.notes.is_empty(), "{first:?}");
    let asked = proxy.commands();
    let second = node.check();
    passes(&second);
    assert!(!second.fresh && second.software);
    assert_eq!((proxy.quotes(), proxy.commands()), (1, asked), "no TPM command while the file holds");
}

#[test]
fn a_pcr_value_that_the_policy_does_not_accept_denies() {
    let mut node = Node::new();
    passes(&node.check());
    node.swtpm.extend(9, 0x66);
    // The verdict of this boot still holds: PCRs are judged when a verdict is made.
    passes(&node.check());
    std::fs::remove_file(node.file()).unwrap();
    let state = node.check();
    denied(&state, "PCR 9 is ");
    let now = node.swtpm.open().pcrs([9]).unwrap()[&9];
    let hex: String = now.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(state.wrong_pcrs, [(9, hex)]);
    assert!(!node.file().exists(), "a failure is not kept");
    // Twin: the same value, accepted beside the old one.
    node.pcrs.get_mut(&9).unwrap().push(now);
    passes(&node.check());
}

#[test]
fn another_boot_or_policy_or_a_late_hour_needs_a_new_quote() {
    let mut node = Node::new();
    passes(&node.check());
    let kept = std::fs::read(node.file()).unwrap();
    let right = (node.boot.clone(), node.digest.clone());
    let later = right.0.boottime_ns + common::TTL.as_nanos() as u64 + 1_000_000_000;
    let other = Boot { boot_id: "00000000-1111-2222-3333-444444444444".into(), ..right.0.clone() };
    for (boot, digest, why) in [
        (other, &*right.1, "another boot"),
        (right.0.clone(), "sha256:00ff", "another policy"),
        (Boot { boottime_ns: later, ..right.0.clone() }, &*right.1, "time to live is over"),
    ] {
        node.put(&kept);
        (node.boot, node.digest) = (boot, digest.into());
        // Without its TPM the node cannot make a new one ...
        let with = std::mem::replace(&mut node.tpm, "unix:/nonexistent/tpm".into());
        let state = node.check();
        denied(&state, "cannot be reached");
        assert!(state.notes.iter().any(|n| n.contains(why)), "{state:?}");
        assert_eq!(std::fs::read(node.file()).unwrap(), kept);
        // ... with it, it does, and that one is kept.
        node.tpm = with;
        let state = node.check();
        passes(&state);
        assert!(state.fresh && state.notes[0].contains(why), "{state:?}");
        assert!(!node.check().fresh);
    }
    // Twin: the very same file, its own boot, policy and hour.
    node.put(&kept);
    (node.boot, node.digest) = right;
    node.tpm = "unix:/nonexistent/tpm".into();
    passes(&node.check());
}

#[test]
fn a_tpm_that_is_gone_is_no_matter_while_the_verdict_holds() {
    let mut node = Node::new();
    passes(&node.check());
    node.swtpm.stop();
    passes(&node.check());
    std::fs::remove_file(node.file()).unwrap();
    denied(&node.check(), "cannot be reached");
    node.tpm = "/dev/tpmrm77".into();
    let state = node.check();
    denied(&state, "/dev/tpmrm77 cannot be opened");
    assert!(!state.software);
}

#[test]
fn a_verdict_of_another_node_is_worth_nothing_here() {
    let (mut here, there) = (Node::new(), Node::new());
    assert_eq!(here.pcrs, there.pcrs, "the same software runs on both");
    passes(&there.check());
    let theirs = std::fs::read(there.file()).unwrap();
    here.put(&theirs);
    let ours = std::mem::replace(&mut here.tpm, "unix:/nonexistent/tpm".into());
    let state = here.check();
    denied(&state, "cannot be reached");
    assert!(state.notes[0].contains("not signed by the enrolled"), "{state:?}");
    // Their TPM instead of ours: its key is not the enrolled one.
    here.tpm = there.swtpm.address();
    denied(&here.check(), "not the enrolled one");
    assert_eq!(std::fs::read(here.file()).unwrap(), theirs);
    here.tpm = ours;
    passes(&here.check());
    assert_ne!(std::fs::read(here.file()).unwrap(), theirs);
}

#[test]
fn pcrs_that_nothing_was_measured_into_are_refused() {
    let mut node = Node::new();
    node.pcrs = BTreeMap::from([(1, vec![[0; 32]]), (17, vec![[0xff; 32]])]);
    denied(&node.check(), "nothing was measured");
    node.pcrs.insert(0, vec![node.enrolment.pcrs[&0]]);
    passes(&node.check());
    // Nor is a node enrolled whose firmware measures nothing.
    let empty = Swtpm::start();
    let error = enroll(&empty.address(), soon()).unwrap_err().to_string();
    assert!(error.contains("nothing was measured"), "{error}");
    measure(&empty);
    assert!(enroll(&empty.address(), soon()).is_ok());
}

#[test]
fn a_policy_that_proves_nothing_is_refused() {
    let with = |change: &dyn Fn(&mut Node), text: &str| {
        let mut node = Node::new();
        passes(&node.check());
        change(&mut node);
        denied(&node.check(), text);
    };
    with(&|n| n.pcrs.clear(), "names no PCR");
    with(&|n| drop(n.pcrs.insert(24, vec![[1; 32]])), "PCR 24 does not exist");
    with(&|n| drop(n.pcrs.insert(5, vec![])), "accepts no value of PCR 5");
    with(&|n| n.ttl = Duration::ZERO, "ttl is 0");
    with(&|n| n.digest.clear(), "no digest");
    with(&|n| n.enrolment.ak_spki_pem = "none".into(), "enrolled key is unusable");
    with(&|n| n.tpm = String::new(), "neither");
    with(&|n| n.tpm = "/dev/tpm0".into(), "neither");
    with(&|n| n.boot.boot_id.clear(), "boot id");
}

#[test]
fn the_key_survives_a_reboot_and_the_verdict_does_not() {
    let mut node = Node::new();
    assert_eq!(node.enrolment.ak_handle, Some(PERSISTENT));
    passes(&node.check());
    node.swtpm = node.swtpm.reboot();
    node.boot.boot_id = "00000000-1111-2222-3333-444444444444".into();
    denied(&node.check(), "nothing was measured");
    measure(&node.swtpm);
    let state = node.check();
    passes(&state);
    assert!(state.fresh);
    let again = enroll(&node.tpm, soon()).unwrap();
    assert_eq!(again.ak_spki_pem, node.enrolment.ak_spki_pem);
    assert_eq!(again.ak_handle, Some(PERSISTENT));
    assert!(again.clock.resets > node.enrolment.clock.resets, "the endorsement hierarchy shows resets plainly");
    assert!(again.clock.resets < 100);
}

/// A signing key without `restricted` also makes quotes, and would sign invented ones just as well.
#[test]
fn an_ordinary_signing_key_attests_nothing() {
    let swtpm = Swtpm::start();
    measure(&swtpm);
    let known = AttestationKey::from_pem(&enroll(&swtpm.address(), soon()).unwrap().ak_spki_pem).unwrap();
    let mut template = known.public();
    template[5] &= !1; // TPMA_OBJECT bit 16: restricted
    let end = template.len() - 68;
    template.truncate(end);
    template.extend([0; 4]);
    let mut tpm = swtpm.open();
    let (public, quote, values) = tpm
        .with_primary(&template, |tpm, handle, public| {
            let values = tpm.pcrs([0, 9])?;
            Ok((public.to_vec(), tpm.quote(handle, &[3; 32], [0, 9])?, values))
        })
        .unwrap();
    let error = AttestationKey::from_public(&public).unwrap_err().to_string();
    assert!(error.contains("is not restricted"), "{error}");
    let error = verify(&quote, &known, &[3; 32], &values).unwrap_err().to_string();
    assert!(error.contains("not signed by the enrolled"), "{error}");
    // Its point put into a policy as if it were an attestation key: the quote names what it really is.
    let mut painted = public.clone();
    painted[5] |= 1;
    let enrolled = AttestationKey::from_public(&painted).unwrap();
    let error = verify(&quote, &enrolled, &[3; 32], &values).unwrap_err().to_string();
    assert!(error.contains("names another key"), "{error}");
    // Twin: the enrolled key over the same.
    let quote = tpm.quote(PERSISTENT, &[3; 32], [0, 9]).unwrap();
    assert!(verify(&quote, &known, &[3; 32], &values).is_ok());
    assert!(verify(&quote, &known, &[4; 32], &values).is_err());
    assert!(verify(&quote, &known, &[3; 32], &BTreeMap::from([(0, values[&0])])).is_err());
}

#[test]
fn a_handle_that_another_key_holds_is_left_alone() {
    let swtpm = Swtpm::start();
    measure(&swtpm);
    let stranger = Node::new();
    let other = AttestationKey::from_pem(&stranger.enrolment.ak_spki_pem).unwrap();
    let mut template = other.public();
    template[5] &= !1;
    let end = template.len() - 68;
    template.truncate(end);
    template.extend([0; 4]);
    let held = swtpm
        .open()
        .with_primary(&template, |tpm, handle, public| {
            assert!(tpm.keep(handle, &other)?);
            Ok(public.to_vec())
        })
        .unwrap();
    let enrolment = enroll(&swtpm.address(), soon()).unwrap();
    assert_eq!(enrolment.ak_handle, None);
    assert!(enrolment.not_kept.as_ref().unwrap().contains("another key is at 0x81018b01"));
    assert_eq!(swtpm.open().read_public(PERSISTENT).unwrap(), held);
    let mut node = Node::new();
    (node.tpm, node.enrolment, node.swtpm) = (swtpm.address(), enrolment, swtpm);
    // More often than a TPM has room for keys: each one is flushed.
    for _ in 0..5 {
        let state = node.check();
        passes(&state);
        assert!(state.fresh);
        std::fs::remove_file(node.file()).unwrap();
    }
}

#[test]
fn enrolment_says_what_it_is() {
    let node = Node::new();
    let told = &node.enrolment;
    assert!(told.software && told.trust_on_first_use);
    assert_eq!((told.manufacturer.as_str(), told.pcrs.len()), ("IBM", 24));
    assert_eq!(told.pcrs[&5], [0; 32]);
    assert!(told.ak_name_hex.starts_with("000b") && told.ak_name_hex.len() == 68);
}

#[test]
fn status_looks_and_changes_nothing() {
    let mut node = Node::new();
    let look = |node: &Node| status(node.dir.path(), &node.policy(), &node.digest, &node.boot, soon());
    let before = look(&node);
    assert!(!before.verified && before.problems[0].contains("no node verdict"), "{before:?}");
    assert!(!node.file().exists());
    passes(&node.check());
    let after = look(&node);
    assert!(after.verified && after.problems.is_empty() && after.software, "{after:?}");
    assert_eq!((after.ak_matches, after.manufacturer.as_deref()), (Some(true), Some("IBM")));
    assert_eq!(after.ak_name_hex, node.enrolment.ak_name_hex);
    assert!((3590..=3600).contains(&after.expires_in.unwrap()));
    assert!(after.pcrs.len() == 4 && after.pcrs.values().all(|(_, accepted)| *accepted));
    node.swtpm.extend(7, 1);
    let moved = look(&node);
    assert!(moved.verified && !moved.pcrs[&7].1 && moved.problems[0].contains("PCR 7"), "{moved:?}");
    node.swtpm.stop();
    let gone = look(&node);
    assert!(gone.verified && gone.ak_matches.is_none() && gone.problems[0].contains("cannot be reached"));
}
