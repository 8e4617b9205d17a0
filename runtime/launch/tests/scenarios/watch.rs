//! What the network's programs tell: what they refuse, what listens, what flows, and by whom; that telling changes no answer; and
//! what is left when nobody takes it. The ring is read here as the shim reads it.
use super::network::{OPEN, alone, close, folder_is_gone, open, servers};
use crate::lab::{Lab, start, wait};
use boltseal_launch::{Ring, delete};
use boltseal_message::{EVENT_LEN, KINDS, Kind, RING_LEN, Seen};
use boltseal_seal::network::Watch;
use std::io::Read;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

const TOLD: Watch = Watch { told: true, flows: false, scan: 20 };
const FLOWS: Watch = Watch { told: false, flows: true, scan: 20 };

/// A step under [`OPEN`] and what is told of it: with Landlock beside the programs, and with the programs alone. What Landlock
/// refuses, it refuses before any program is asked.
const STEPS: &[(&str, &str, &str)] = &[
    ("tcp=127.0.0.1:7001", "", ""),
    ("udp=127.0.0.1:7002", "", ""),
    ("bind-udp=127.0.0.1:0", "", ""),
    ("bind-tcp=127.0.0.1:7100", "", ""),
    ("tcp=127.0.0.2:7001", "Destination tcp 127.0.0.2:7001", "Destination tcp 127.0.0.2:7001"),
    ("tcp=[::ffff:127.0.0.2]:7001", "Destination tcp 127.0.0.2:7001", "Destination tcp 127.0.0.2:7001"),
    ("tcp=[::1]:7001", "Destination tcp [::1]:7001", "Destination tcp [::1]:7001"),
    ("tcp=127.0.0.1:7009", "", "Destination tcp 127.0.0.1:7009"),
    ("udp=127.0.0.2:7002", "Destination udp 127.0.0.2:7002", "Destination udp 127.0.0.2:7002"),
    ("udp=[::ffff:127.0.0.2]:7002", "Destination udp 127.0.0.2:7002", "Destination udp 127.0.0.2:7002"),
    ("udp=127.0.0.1:7001", "Destination udp 127.0.0.1:7001", "Destination udp 127.0.0.1:7001"),
    ("udp-connect=127.0.0.2:7002", "Destination udp 127.0.0.2:7002", "Destination udp 127.0.0.2:7002"),
    ("udp-other=127.0.0.2:7002", "Destination udp 127.0.0.2:7002", "Destination udp 127.0.0.2:7002"),
    ("fastopen=127.0.0.1:7009", "Destination tcp 127.0.0.1:7009", "Destination tcp 127.0.0.1:7009"),
    ("unspec=127.0.0.1:7002,127.0.0.2:7002", "Destination udp 127.0.0.2:7002", "Destination udp 127.0.0.2:7002"),
    ("bind-tcp=127.0.0.1:7102", "", "Bind tcp 127.0.0.1:7102"),
    ("bind-tcp=127.0.0.1:0", "", "Bind tcp 127.0.0.1:0"),
    ("bind-udp=127.0.0.1:7100", "Bind udp 127.0.0.1:7100", "Bind udp 127.0.0.1:7100"),
    ("bind-udp=[::1]:7100", "Bind udp [::1]:7100", "Bind udp [::1]:7100"),
    ("bind-udp=127.0.0.1:7101", "Listener udp 127.0.0.1:7101", "Listener udp 127.0.0.1:7101"),
    ("listen-at=127.0.0.1:7100", "Listener tcp 127.0.0.1:7100", "Listener tcp 127.0.0.1:7100"),
    ("listen-at=[::]:7100", "Listener tcp [::]:7100", "Listener tcp [::]:7100"),
    ("listen-anywhere", "Unreachable tcp 0.0.0.0:PORT", "Unreachable tcp 0.0.0.0:PORT"),
    // Another kind of socket is refused when it is made, and not told.
    ("mptcp", "", ""),
];

pub(super) fn beside_v1(lab: Lab) {
    confined(lab);
}

pub(super) fn on_cgroup_v2(mut lab: Lab) {
    alone(&mut lab);
    confined(lab);
}

fn confined(mut lab: Lab) {
    let _servers = servers(&mut lab);
    let steps: Vec<&str> = STEPS.iter().map(|(step, ..)| *step).collect();
    open(&mut lab, OPEN);
    // The answers without a watch are those with one.
    let (answers, none) = run(&mut lab, &steps);
    assert!(none.is_none(), "a ring that nobody asked for");
    lab.table.watch = TOLD;
    let expected = |pick: fn(&(&'static str, &'static str, &'static str)) -> &'static str| -> Vec<String> {
        STEPS.iter().map(pick).filter(|told| !told.is_empty()).map(str::to_owned).collect()
    };
    let (said, told) = run(&mut lab, &steps);
    assert_eq!((said, lines(&told)), (answers, expected(|s| s.1)), "Landlock and programs");
    (lab.table.landlock.bind, lab.table.landlock.connect) = (None, None);
    let (_, told) = run(&mut lab, &steps);
    assert_eq!(lines(&told), expected(|s| s.2), "programs alone");
    // Each says who it was; the kernel names the caller of `listen` by pid alone.
    let (pid, told) = told.unwrap();
    for seen in &told {
        assert_eq!(seen.pid, pid, "{seen}");
        let name = if seen.udp || !matches!(seen.kind, Kind::Listener | Kind::Unreachable) { "probe" } else { "" };
        assert_eq!(seen.comm, name, "{seen}");
        assert!(seen.at_boot_ns > 0);
    }
    assert!(told.is_sorted_by_key(|seen| seen.at_boot_ns));
    folder_is_gone();
}

/// Nothing is confined: listeners are told where that is asked for, flows where those are, and nothing is refused.
pub(super) fn unconfined(mut lab: Lab) {
    let _servers = servers(&mut lab);
    let steps = [
        "tcp=127.0.0.1:7001",
        "tcp=[::1]:7003",
        "udp=127.0.0.1:7002",
        "udp-connect=[::1]:7003",
        "bind-udp=127.0.0.1:7105",
        "listen-at=127.0.0.1:7104",
        "listen-anywhere",
    ];
    let listeners = ["Listener udp 127.0.0.1:7105", "Listener tcp 127.0.0.1:7104", "Listener tcp 0.0.0.0:PORT"];
    let flows = ["Flow tcp 127.0.0.1:7001", "Flow tcp [::1]:7003", "Flow udp 127.0.0.1:7002", "Flow udp [::1]:7003"];
    let both = [flows.as_slice(), listeners.as_slice()].concat();
    let all = Watch { flows: true, ..TOLD };
    for (watch, expected) in [(TOLD, &listeners[..]), (FLOWS, &flows[..]), (all, &both)] {
        close(&mut lab);
        lab.table.watch = watch;
        let (said, told) = run(&mut lab, &steps);
        assert_eq!(said, steps.map(|step| format!("{step}: ok")), "{watch:?}");
        assert_eq!(lines(&told), expected, "{watch:?}");
    }
    folder_is_gone();
}

const MANY: u32 = 3000;

/// The shim died, or does not read: what is refused is refused, to the last one, and what finds no room is counted.
pub(super) fn nobody_reads(mut lab: Lab) {
    let _servers = servers(&mut lab);
    open(&mut lab, OPEN);
    lab.table.watch = TOLD;
    let many = format!("many-udp=127.0.0.2:7002,{MANY}");
    let steps = [many.as_str(), "udp=127.0.0.1:7002"];
    let answers = [format!("{many}: {MANY} refused"), "udp=127.0.0.1:7002: ok".to_owned()];
    // Its last reader is gone before anything runs.
    let (parked, mut output) = lab.args(&[&["/bin/probe"], &steps[..]].concat()).create();
    let mut parked = parked.unwrap();
    drop(parked.ring.take().expect("a ring"));
    let pid = parked.pid;
    assert_eq!(start(parked), "");
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(text.lines().collect::<Vec<_>>(), answers);
    wait(pid);
    delete(&lab.state, &lab.name, None).unwrap();
    lab.nothing_left();
    // It is there, and does not read until the end.
    let (parked, mut output) = lab.args(&[&["/bin/probe"], &steps[..]].concat()).create();
    let mut parked = parked.unwrap();
    let ring = parked.ring.take().expect("a ring");
    let pid = parked.pid;
    assert_eq!(start(parked), "");
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(text.lines().collect::<Vec<_>>(), answers);
    wait(pid);
    let (told, lost) = (events(&ring), lost(&ring));
    let room = RING_LEN / (EVENT_LEN as u32 + 8);
    assert!(told.len() <= room as usize && told.len() + 2 >= room as usize, "{} of {room}", told.len());
    assert_eq!(lost, [u64::from(MANY) - told.len() as u64, 0, 0, 0, 0]);
    delete(&lab.state, &lab.name, None).unwrap();
    lab.nothing_left();
    folder_is_gone();
}

/// What a watch costs a start, as a ratio; measured, not judged.
pub(super) fn cost(mut lab: Lab) {
    lab.args(&["/bin/true"]);
    type Kind = (&'static str, fn(&mut Lab));
    let kinds: [Kind; 4] = [
        ("unconfined", close),
        ("watched alone", |lab| (close(lab), lab.table.watch = TOLD).1),
        ("confined", |lab| open(lab, OPEN)),
        ("confined and watched", |lab| (open(lab, OPEN), lab.table.watch = TOLD).1),
    ];
    let mut times = kinds.map(|_| Vec::new());
    for round in 0..60 {
        // Each comes after each: who attaches the first program on a node pays for all of them.
        for kind in (0..kinds.len()).map(|n| (round + n * (1 + round / 4 % 2 * 2)) % kinds.len()) {
            let ((_, set), times) = (&kinds[kind], &mut times[kind]);
            lab.table.watch = Watch::default();
            set(&mut lab);
            let begun = Instant::now();
            let (parked, _) = lab.create();
            let parked = parked.unwrap();
            times.push(begun.elapsed());
            let pid = parked.pid;
            start(parked);
            wait(pid);
            delete(&lab.state, &lab.name, None).unwrap();
        }
    }
    times.iter_mut().for_each(|times| times.sort());
    for (what, at) in [("least", 0), ("lower quartile", 15), ("median", 30)] {
        let first = times[0][at];
        let ratio = |time: Duration| time.as_secs_f64() / first.as_secs_f64();
        let line =
            |((name, _), times): (&Kind, &Vec<Duration>)| format!("{name} {:.1?} ({:.2})", times[at], ratio(times[at]));
        let lines: Vec<String> = kinds.iter().zip(&times).map(line).collect();
        println!("create, {what}, and its ratio to the first: {}", lines.join(", "));
    }
    lab.nothing_left();
    folder_is_gone();
}

type Told = Option<(u32, Vec<Seen>)>;

/// The steps by a container's init: a line each, and what was told, with the pid of who did it.
fn run(lab: &mut Lab, steps: &[&str]) -> (Vec<String>, Told) {
    let (parked, mut output) = lab.args(&[&["/bin/probe"], steps].concat()).create();
    let mut parked = parked.unwrap();
    let (pid, ring) = (parked.pid, parked.ring.take());
    assert_eq!(start(parked), "");
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(wait(pid), 0, "{text}");
    delete(&lab.state, &lab.name, None).unwrap();
    lab.nothing_left();
    let told = ring.map(|ring| {
        assert_eq!(lost(&ring), [0; KINDS]);
        (pid, events(&ring))
    });
    (text.lines().map(str::to_owned).collect(), told)
}

/// A port of the kernel's choice is shown as `PORT`.
fn lines(told: &Told) -> Vec<String> {
    let shown = |seen: &Seen| {
        let line = format!("{:?} {seen}", seen.kind);
        if seen.port >= 30_000 { line.replace(&format!(":{}", seen.port), ":PORT") } else { line }
    };
    told.as_ref().expect("a ring").1.iter().map(shown).collect()
}

fn mapped(fd: RawFd, offset: usize, length: usize) -> *const u8 {
    let (anywhere, offset) = (std::ptr::null_mut(), libc::off_t::try_from(offset).unwrap());
    // SAFETY: a new mapping; this process ends with its scenario.
    let at = unsafe { libc::mmap(anywhere, length, libc::PROT_READ, libc::MAP_SHARED, fd, offset) };
    assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
    at.cast_const().cast()
}

/// All that is in a ring that nobody has read from and nobody writes to any more.
fn events(ring: &Ring) -> Vec<Seen> {
    let (page, length) = (4096, RING_LEN as usize);
    let theirs = mapped(ring.events.as_raw_fd(), page, page + 2 * length);
    // SAFETY: the first word of the writers' page.
    let written = unsafe { theirs.cast::<usize>().read_volatile() };
    assert!(written <= length);
    // SAFETY: the data begins behind that page, within the mapping.
    let data = unsafe { theirs.add(page) };
    // SAFETY: at most `length` bytes of it, which nobody changes any more.
    let bytes = unsafe { std::slice::from_raw_parts(data, written) };
    let one = |record: &[u8]| {
        let (head, event) = record.split_at(8);
        assert_eq!(u32::from_ne_bytes(head[..4].try_into().unwrap()), EVENT_LEN as u32);
        Seen::decode(event).unwrap()
    };
    bytes.chunks_exact(EVENT_LEN + 8).map(one).collect()
}

fn lost(ring: &Ring) -> [u64; KINDS] {
    let at = mapped(ring.lost.as_raw_fd(), 0, 4096).cast::<[u64; KINDS]>();
    // SAFETY: the value begins with the page.
    unsafe { at.read_volatile() }
}
