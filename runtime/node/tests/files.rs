//! What a start finds where the verdict file should be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod common;

use common::{Node, closed_folder, denied, passes, put};
use nix::sys::stat::{Mode, SFlag, mknod};
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::time::Instant;

const GONE: &str = "unix:/nonexistent/tpm";

#[test]
fn no_byte_of_the_file_can_change() {
    let mut node = Node::new();
    passes(&node.check());
    let good = std::fs::read(node.file()).unwrap();
    node.tpm = GONE.into();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        node.put(&bad);
        let state = node.check();
        denied(&state, "cannot be reached");
        assert_eq!(state.notes.len(), 1, "{at}: {state:?}");
    }
    node.put(&good);
    passes(&node.check());
}

/// Root's own regular file with anything in it: never believed, never in the way of a fresh attestation.
#[test]
fn a_file_that_does_not_hold_is_replaced() {
    let mut node = Node::new();
    passes(&node.check());
    let good = String::from_utf8(std::fs::read(node.file()).unwrap()).unwrap();
    let signature = good.split("\"signature\":\"").nth(1).unwrap();
    let other = if signature.starts_with('A') { "B" } else { "A" };
    let altered = good.replace(signature, &format!("{other}{}", &signature[1..]));
    let with = node.tpm.clone();
    for (bytes, why) in [
        (altered.into_bytes(), "not signed by the enrolled"),
        (good.as_bytes()[..good.len() / 2].to_vec(), "not the JSON"),
        (Vec::new(), "not the JSON"),
        (vec![b' '; 1 << 20], "larger than 64 KiB"),
        (vec![b'['; 60_000], "not the JSON"),
        (vec![0xff; 2000], "not the JSON"),
        (good.replacen("\"ttl\":3600", "\"ttl\":9999999", 1).into_bytes(), "nonce"),
    ] {
        node.put(&bytes);
        node.tpm = GONE.into();
        let state = node.check();
        denied(&state, "cannot be reached");
        assert!(state.notes[0].contains(why), "{why}: {state:?}");
        node.tpm = with.clone();
        let state = node.check();
        passes(&state);
        assert!(state.fresh && state.notes[0].contains(why), "{why}: {state:?}");
        let state = node.check();
        passes(&state);
        assert!(!state.fresh);
    }
}

/// Something that boltseal did not put there: reported, never followed, never replaced, never waited for.
#[test]
fn what_stands_in_the_way_denies() {
    for (kind, said) in [
        ("symlink", "a symbolic link"),
        ("fifo", "not a regular file"),
        ("socket", "a socket"),
        ("folder", "not a regular file"),
        ("foreign", "not root's"),
        ("group", "writable by others"),
        ("world", "writable by others"),
    ] {
        for name in ["node.json", "node.lock"] {
            let node = Node::new();
            passes(&node.check());
            let path = node.dir.path().join(name);
            let elsewhere = closed_folder();
            let good = std::fs::read(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            let mut keep = None;
            match kind {
                "symlink" => {
                    let target = elsewhere.path().join("target");
                    put(&target, &good);
                    symlink(target, &path).unwrap();
                }
                "fifo" => mknod(&path, SFlag::S_IFIFO, Mode::S_IRWXU, 0).unwrap(),
                "socket" => keep = Some(std::os::unix::net::UnixListener::bind(&path).unwrap()),
                "folder" => std::fs::create_dir(&path).unwrap(),
                _ => {
                    put(&path, &good);
                    let mode = match kind {
                        "group" => 0o620,
                        "world" => 0o602,
                        _ => 0o600,
                    };
                    std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
                    chown(&path, Some(if kind == "foreign" { 1000 } else { 0 }), None).unwrap();
                }
            }
            let begun = Instant::now();
            if name == "node.lock" {
                // The lock matters only when the verdict does not hold.
                passes(&node.check());
                std::fs::remove_file(node.file()).unwrap();
            }
            let state = node.check();
            let said = if (kind, name) == ("folder", "node.lock") { "node.lock" } else { said };
            denied(&state, said);
            assert!(state.problems[0].contains(name), "{state:?}");
            assert!(begun.elapsed().as_secs() < 2);
            let found = std::fs::symlink_metadata(&path).unwrap().file_type();
            assert_eq!(found.is_file(), ["foreign", "group", "world"].contains(&kind), "left as found");
            // Twin: it is taken away.
            if kind == "folder" {
                std::fs::remove_dir(&path).unwrap();
            } else {
                std::fs::remove_file(&path).unwrap();
            }
            drop(keep);
            passes(&node.check());
        }
    }
}

#[test]
fn a_folder_that_is_not_roots_alone_denies() {
    let node = Node::new();
    passes(&node.check());
    let set = |mode| std::fs::set_permissions(node.dir.path(), Permissions::from_mode(mode)).unwrap();
    for mode in [0o701, 0o720, 0o777] {
        set(mode);
        denied(&node.check(), "not root's alone");
    }
    set(0o700);
    passes(&node.check());
    chown(node.dir.path(), Some(1000), None).unwrap();
    denied(&node.check(), "not root's alone");
    chown(node.dir.path(), Some(0), None).unwrap();
    passes(&node.check());
}

/// The node is attested all the same; only the next start has to ask the TPM again.
#[test]
fn a_verdict_that_cannot_be_kept_is_said_and_counts() {
    let node = Node::new();
    std::fs::create_dir(node.dir.path().join("node.json.next")).unwrap();
    let state = node.check();
    passes(&state);
    assert!(state.fresh && state.notes[0].contains("not kept"), "{state:?}");
    assert!(!node.file().exists());
    std::fs::remove_dir(node.dir.path().join("node.json.next")).unwrap();
    assert!(node.check().notes.is_empty());
    assert!(!node.check().fresh);
}

/// Left behind by a start that was killed while writing.
#[test]
fn half_a_file_of_a_killed_start_is_no_matter() {
    let node = Node::new();
    put(&node.dir.path().join("node.json.next"), b"{\"versi");
    let state = node.check();
    passes(&state);
    assert!(state.notes.is_empty() && node.file().exists());
    assert_eq!(std::fs::read_dir(node.dir.path()).unwrap().count(), 2, "node.json and node.lock");
}
