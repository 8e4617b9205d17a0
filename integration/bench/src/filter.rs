//! What the base filter costs: to build, to load, and for each call, beside libseccomp with three ABIs (as runc has it) and
//! beside no filter. Each round has a thread of its own, for a filter stays.
use crate::sys;
use crate::table::median;
use anyhow::{Context, Result, ensure};
use boltseal_launch::seccomp;
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

const ROUNDS: usize = 15;
const CALLS: u32 = 200_000;
/// No kernel has it: the filter says ENOSYS, and so does a kernel without one.
const NOBODYS: libc::c_long = 1000;
/// Refused by the base filter with EPERM, by a rule of no other kind.
const REFUSED: libc::c_long = libc::SYS_personality;

/// Of one round: microseconds, and nanoseconds per call.
struct Round {
    build: f64,
    load: f64,
    allowed: f64,
    refused: f64,
}

/// Microseconds and instructions of the peer.
struct Peer {
    build: f64,
    load: f64,
    instructions: f64,
}

pub(crate) fn report() -> Result<Value> {
    let (mut ours, mut bare, mut peers) = (Vec::new(), Vec::new(), Vec::new());
    let instructions = seccomp::base(&|_| true).map_err(|e| anyhow::anyhow!("{e}"))?.program.len();
    for _ in 0..ROUNDS {
        ours.push(thread(confined)?);
        bare.push(thread(unconfined)?);
        peers.push(peer()?);
    }
    let of = |read: fn(&Round) -> f64| median(ours.iter().map(read));
    let peer = |read: fn(&Peer) -> f64| median(peers.iter().map(read));
    let (allowed, nobodys) = (median(bare.iter().map(|b| b.0)), median(bare.iter().map(|b| b.1)));
    let rows = [
        ("instructions", instructions as f64, peer(|p| p.instructions), ""),
        ("load, us", of(|r| r.load), peer(|p| p.load), "200; ratio 0.1"),
        ("build and load, us", of(|r| r.build + r.load), peer(|p| p.build + p.load), "ratio 0.1"),
        ("an allowed call, ns", of(|r| r.allowed), allowed, "ratio 1"),
        ("a refused call, ns", of(|r| r.refused), nobodys, "ratio 1.3"),
    ];
    println!(
        "\nbase filter, medians of {ROUNDS} rounds; libseccomp with three ABIs, then no filter at all (ENOSYS for the refused one)"
    );
    println!("{:<26}{:>12}{:>12}{:>9}  target", "", "boltseal", "peer", "ratio");
    let mut all = serde_json::Map::new();
    for (name, left, right, target) in rows {
        println!("{name:<26}{left:>12.1}{right:>12.1}{:>9.2}  {target}", left / right);
        all.insert(name.into(), json!({ "boltseal": left, "peer": right, "ratio": left / right }));
    }
    Ok(Value::Object(all))
}

fn thread<T: Send + 'static>(work: fn() -> Result<T>) -> Result<T> {
    std::thread::spawn(work).join().map_err(|_| anyhow::anyhow!("a round of the bench panicked"))?
}

fn confined() -> Result<Round> {
    let begun = Instant::now();
    // Without the trip-wire's listener; the calls of the wire answer their errno then. The tree is the same but for those.
    let filter = seccomp::base(&|_| false).map_err(|e| anyhow::anyhow!("{e}"))?;
    let build = begun.elapsed().as_secs_f64() * 1e6;
    nix::sys::prctl::set_no_new_privs()?;
    let begun = Instant::now();
    seccompiler::apply_filter(&filter.program).context("the base filter")?;
    let load = begun.elapsed().as_secs_f64() * 1e6;
    ensure!(sys::call(REFUSED) == -1 && nix::errno::Errno::last() == nix::errno::Errno::EPERM, "not refused");
    Ok(Round { build, load, allowed: each(libc::SYS_getppid), refused: each(REFUSED) })
}

/// Nanoseconds of an ordinary call and of one that no kernel has.
fn unconfined() -> Result<(f64, f64)> {
    ensure!(sys::call(NOBODYS) == -1 && nix::errno::Errno::last() == nix::errno::Errno::ENOSYS, "it exists");
    Ok((each(libc::SYS_getppid), each(NOBODYS)))
}

fn each(number: libc::c_long) -> f64 {
    let begun = Instant::now();
    for _ in 0..CALLS {
        std::hint::black_box(sys::call(number));
    }
    begun.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
}

fn peer() -> Result<Peer> {
    let profile: Value = serde_json::from_str(boltseal_profiles::base_seccomp())?;
    let rules = profile["syscalls"].as_array().context("no rules")?.iter();
    let names = rules.filter(|rule| rule["action"] == "SCMP_ACT_ALLOW").filter_map(|rule| rule["names"].as_array());
    let names: Vec<&str> = names.flatten().filter_map(Value::as_str).collect();
    let program = stack::private::project().join(".cache/bench/libseccomp");
    let mut child = Command::new(&program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{}: made by integration/bench/peer.sh", program.display()))?;
    child.stdin.take().context("stdin")?.write_all(names.join("\n").as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<f64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [build, load, instructions] = numbers.as_slice() else { anyhow::bail!("the peer said {said:?}") };
    Ok(Peer { build: build / 1e3, load: load / 1e3, instructions: *instructions })
}
