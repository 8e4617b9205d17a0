//! The trail as processes see it: kills, crowds, full disks, stopped holders, and hands that change it afterwards.
//! They run as root, as the gate does.
use crate::*;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap()
}

fn entry(n: usize) -> Entry {
    let finding = |i: usize| Finding {
        rule: format!("BS-TST-{i:03}"),
        outcome: Outcome::Pass,
        by: String::new(),
        condition: "fine".into(),
        fact: format!("fact {n} {}", "x".repeat(60)),
    };
    Entry {
        ev: Event::Decision,
        decision: Some(Decision::Deny),
        door: Some(Door::Create),
        findings: (0..26).map(finding).collect(),
        ..Entry::default()
    }
}

fn add(trail: &Trail, entry: &Entry) -> Appended {
    trail.append(entry).unwrap()
}

fn first_file(dir: &Path) -> PathBuf {
    dir.join("audit-000000000001.jsonl")
}

/// Three decisions: refused, started, aborted.
fn small(dir: &Path) -> Trail {
    let trail = Trail::open(dir).unwrap();
    let deny = Entry {
        decision: Some(Decision::Deny),
        who: Who { owner: "team-a".into() },
        findings: vec![Finding {
            rule: "BS-IMG-001".into(),
            outcome: Outcome::Deny,
            by: String::new(),
            condition: "unsigned".into(),
            fact: "no signature".into(),
        }],
        ..Entry::default()
    };
    add(&trail, &deny).sync.sync().unwrap();
    for end in [Event::Started, Event::Aborted] {
        let allow = add(
            &trail,
            &Entry {
                decision: Some(Decision::Allow),
                what: What { image: "registry.test/a:1".into(), ..What::default() },
                ..Entry::default()
            },
        );
        let _ended = add(&trail, &Entry { ev: end, of: allow.id, ..Entry::default() });
    }
    trail
}

#[test]
fn counts_and_links() {
    let dir = folder();
    let trail = small(dir.path());
    for door in [Door::Exec, Door::Update] {
        let ev = if door == Door::Exec { Event::Exec } else { Event::Decision };
        let entry = Entry { ev, door: Some(door), decision: Some(Decision::Allow), ..Entry::default() };
        let allowed = add(&trail, &entry);
        let _ended = add(&trail, &Entry { ev: Event::Started, of: allowed.id, decision: None, ..entry });
    }
    let open = add(&trail, &Entry { ev: Event::Exec, decision: Some(Decision::Allow), ..Entry::default() });
    let report = verify(dir.path(), None).unwrap();
    assert_eq!(report.problems, []);
    assert_eq!((report.records, report.decisions, report.allowed, report.refused), (10, 6, 5, 1));
    assert_eq!((report.started, report.execs, report.updates, report.aborted), (1, 1, 1, 1));
    assert_eq!(report.unfinished.iter().map(|u| (u.seq, u.id.clone())).collect::<Vec<_>>(), [(10, open.id)]);
    let mut seen = Vec::new();
    assert_eq!(
        list(
            dir.path(),
            &Filter {
                rule: Some("BS-IMG-001".into()),
                denied: true,
                owner: Some("team-a".into()),
                ..Filter::default()
            },
            |r| seen.push(r.seq)
        )
        .unwrap(),
        0
    );
    assert_eq!(seen, [1]);
    for (filter, count) in [
        (Filter { image: Some("registry.test/a".into()), ..Filter::default() }, 2),
        (Filter { owner: Some("team-b".into()), ..Filter::default() }, 0),
        (Filter { since: Some(u64::MAX), ..Filter::default() }, 0),
        (Filter { event: Some(Event::Aborted), ..Filter::default() }, 1),
        (Filter::default(), 10),
    ] {
        let mut n = 0;
        list(dir.path(), &filter, |_| n += 1).unwrap();
        assert_eq!(n, count, "{filter:?}");
    }
}

#[test]
fn what_does_not_fit_is_counted_and_denials_stay() {
    let dir = folder();
    let trail = Trail::open(dir.path()).unwrap();
    let mut entry = entry(0);
    entry.findings.extend(entry.findings.clone());
    entry.findings.push(Finding {
        rule: "BS-IMG-001".into(),
        outcome: Outcome::Deny,
        by: String::new(),
        condition: "unsigned".into(),
        fact: "\u{1b}[2J".repeat(400),
    });
    let _added = add(&trail, &entry);
    let mut seen = Vec::new();
    list(dir.path(), &Filter::default(), |r| seen.push(r)).unwrap();
    assert_eq!((seen[0].findings.len(), seen[0].more_findings), (48, Some(5)));
    assert_eq!(seen[0].findings[0].rule, "BS-IMG-001");
    assert!(seen[0].findings[0].fact.starts_with("<U+001B>[2J<U+001B>"));
}

#[test]
fn every_changed_byte_and_every_cut_shows() {
    let dir = folder();
    let _trail = small(dir.path());
    let whole = fs::read(first_file(dir.path())).unwrap();
    let head = verify(dir.path(), None).unwrap().head.unwrap();
    for i in 0..whole.len() {
        let mut bad = whole.clone();
        bad[i] ^= 1;
        fs::write(first_file(dir.path()), &bad).unwrap();
        assert!(!verify(dir.path(), None).unwrap().problems.is_empty(), "byte {i} {:?}", char::from(whole[i]));
    }
    let ends: Vec<usize> = whole.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1).collect();
    for cut in 0..whole.len() {
        fs::write(first_file(dir.path()), &whole[..cut]).unwrap();
        let alone = verify(dir.path(), None).unwrap();
        // A cut between records cannot be seen from the trail alone: this is what a kept head is for.
        assert_eq!(alone.problems.is_empty(), cut == 0 || ends.contains(&cut), "cut at {cut}");
        assert!(!verify(dir.path(), Some(&head)).unwrap().problems.is_empty(), "cut at {cut}, head kept");
    }
    fs::write(first_file(dir.path()), &whole).unwrap();
    let report = verify(dir.path(), Some(&head)).unwrap();
    assert_eq!((report.problems, report.anchored), (vec![], true));
}

#[test]
fn removed_swapped_and_repeated_lines_show() {
    let dir = folder();
    let _trail = small(dir.path());
    let text = fs::read_to_string(first_file(dir.path())).unwrap();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let changed = |edit: &dyn Fn(&mut Vec<String>)| {
        let mut lines: Vec<String> = lines.clone();
        edit(&mut lines);
        fs::write(first_file(dir.path()), lines.join("\n") + "\n").unwrap();
        verify(dir.path(), None).unwrap().problems
    };
    assert_eq!(changed(&|_| ()), []);
    for (i, line) in lines.iter().enumerate().take(lines.len() - 1) {
        assert!(
            !changed(&|l| {
                l.remove(i);
            })
            .is_empty(),
            "without {i}"
        );
        assert!(!changed(&|l| l.swap(i, i + 1)).is_empty(), "swapped {i}");
        assert!(!changed(&|l| l.insert(i, line.clone())).is_empty(), "twice {i}");
    }
}

#[test]
fn torn_tails_are_marked_and_everything_after_goes_on() {
    let dir = folder();
    let trail = small(dir.path());
    let mut expected = 0;
    for torn in [&b"{\"v\":1,\"seq\":"[..], b"\n", b"\n\n\n", b"{}\n{}", &[0; 5000], &[b'\n'; 40_000], b"}\n"] {
        let mut bytes = fs::read(first_file(dir.path())).unwrap();
        bytes.extend_from_slice(torn);
        fs::write(first_file(dir.path()), bytes).unwrap();
        assert!(!verify(dir.path(), None).unwrap().problems.is_empty(), "{} torn bytes", torn.len());
        trail.can_append().unwrap();
        let _added = add(&trail, &entry(1));
        expected += 1;
        let report = verify(dir.path(), None).unwrap();
        assert_eq!((report.problems, report.recovered), (vec![], expected));
    }
    // So many torn bytes no writer leaves behind.
    let mut bytes = fs::read(first_file(dir.path())).unwrap();
    bytes.extend_from_slice(&[b'x'; 200_000]);
    fs::write(first_file(dir.path()), bytes).unwrap();
    assert!(matches!(trail.append(&entry(1)), Err(TrailError::Damaged(_))));
    assert!(matches!(trail.can_append(), Err(TrailError::Damaged(_))));
}

#[test]
fn a_torn_first_record_is_marked_too() {
    let dir = folder();
    let trail = Trail::open(dir.path()).unwrap();
    trail.can_append().unwrap();
    fs::write(first_file(dir.path()), "{\"v\":1,").unwrap();
    let _added = add(&trail, &entry(0));
    let report = verify(dir.path(), None).unwrap();
    assert_eq!((report.problems, report.records, report.recovered), (vec![], 2, 1));
}

#[test]
fn an_end_without_its_decision_shows() {
    let dir = folder();
    let trail = small(dir.path());
    let _nameless = add(&trail, &Entry { ev: Event::Aborted, ..Entry::default() });
    assert_eq!(verify(dir.path(), None).unwrap().problems, []);
    let _foreign = add(&trail, &Entry { ev: Event::Started, of: "00000000".into(), ..Entry::default() });
    let _undecided = add(&trail, &Entry::default());
    let what: Vec<String> = verify(dir.path(), None).unwrap().problems.into_iter().map(|p| p.what).collect();
    assert_eq!(
        what,
        ["record 7 ends a decision that the trail does not hold", "record 8 does not say what was decided"]
    );
}

#[test]
fn files_follow_each_other() {
    let dir = folder();
    let trail = Trail::open(dir.path()).unwrap().rotating_at(20_000);
    for n in 0..60 {
        let _added = add(&trail, &entry(n));
    }
    let report = verify(dir.path(), None).unwrap();
    assert_eq!(report.problems, []);
    assert!(report.files > 5 && report.records == 60 + report.files as u64 - 1, "{report:?}");
    let mut names: Vec<PathBuf> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    for (i, name) in names.iter().enumerate() {
        let away = dir.path().join("away");
        fs::rename(name, &away).unwrap();
        let report = verify(dir.path(), None).unwrap();
        assert!(!report.problems.is_empty(), "without file {i} of {}", names.len());
        assert_eq!(report.others, ["away"]);
        fs::rename(&away, name).unwrap();
    }
    // Killed between the last record of a file and the first of the next.
    let last = names.pop().unwrap();
    fs::write(&last, "").unwrap();
    assert_eq!(verify(dir.path(), None).unwrap().problems, []);
    assert!(trail.last_time().unwrap().is_some());
    fs::remove_file(&last).unwrap();
    assert_eq!(verify(dir.path(), None).unwrap().problems.len(), 1);
    trail.can_append().unwrap();
    fs::write(&last, "half a rec").unwrap();
    let _added = add(&trail, &entry(99));
    let report = verify(dir.path(), None).unwrap();
    assert_eq!((report.problems, report.recovered), (vec![], 1));
    // What stands behind a file's last record was not written by us.
    let before = names.pop().unwrap();
    fs::remove_file(&last).unwrap();
    let mut bytes = fs::read(&before).unwrap();
    bytes.push(b'x');
    fs::write(&before, bytes).unwrap();
    assert!(matches!(trail.append(&entry(1)), Err(TrailError::Damaged(_))));
}

#[test]
fn folders_that_must_not_hold_the_trail() {
    let dir = folder();
    let missing = Trail::open(&dir.path().join("none")).unwrap_err().to_string();
    assert!(missing.contains("install -d -m 0700"), "{missing}");
    symlink(dir.path(), dir.path().join("link")).unwrap();
    assert!(matches!(Trail::open(&dir.path().join("link")), Err(TrailError::Folder(_))));
    File::create(dir.path().join("file")).unwrap();
    assert!(matches!(Trail::open(&dir.path().join("file")), Err(TrailError::Folder(_))));
    for mode in [0o720, 0o702, 0o777] {
        fs::set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
        assert!(matches!(Trail::open(dir.path()), Err(TrailError::Folder(_))), "{mode:o}");
    }
    fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(dir.path(), Some(12_345), None).unwrap();
    assert!(Trail::open(dir.path()).unwrap_err().to_string().contains("uid 12345"));
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    fs::set_permissions(memory.path(), Permissions::from_mode(0o700)).unwrap();
    assert!(Trail::open(memory.path()).unwrap_err().to_string().contains("tmpfs"));
}

#[test]
fn files_that_are_not_ours_are_not_continued() {
    let dir = folder();
    let trail = small(dir.path());
    let file = first_file(dir.path());
    fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(trail.append(&entry(0)), Err(TrailError::Damaged(_))));
    let problems = verify(dir.path(), None).unwrap().problems;
    assert!(problems.len() == 1 && problems[0].what.contains("mode 100640"), "{problems:?}");
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    fs::hard_link(&file, dir.path().join("second")).unwrap();
    assert!(matches!(trail.append(&entry(0)), Err(TrailError::Damaged(_))));
    fs::remove_file(&file).unwrap();
    symlink(dir.path().join("second"), &file).unwrap();
    assert!(trail.append(&entry(0)).is_err());
}

#[test]
fn the_latest_time_never_goes_back() {
    let dir = folder();
    let trail = Trail::open(dir.path()).unwrap();
    assert_eq!(trail.last_time().unwrap(), None);
    let future = clock::Stamp { wall_ns: 4_000_000_000_000_000_000, boottime_ns: 1 };
    let (line, _) = trail::fit(&entry(0), &tail::Tail::first(), &future, "another boot").unwrap();
    trail.can_append().unwrap();
    fs::write(first_file(dir.path()), line).unwrap();
    let _added = add(&trail, &entry(1));
    assert_eq!(trail.last_time().unwrap(), Some(4_000_000_000));
    assert_eq!(verify(dir.path(), None).unwrap().problems, []);
}

/// Every key of a record with all its fields, every event and every outcome; and the line to check by hand is right.
#[test]
fn the_manual_page_names_every_field() {
    const PAGE: &str = include_str!("../../../integration/man/boltseal-audit.5.md");
    let dir = folder();
    let trail = Trail::open(dir.path()).unwrap();
    let t = || "t".to_owned();
    let finding = Finding { rule: t(), outcome: Outcome::Excepted, by: t(), condition: t(), fact: t() };
    let what = What {
        handler: t(),
        namespace: t(),
        pod: t(),
        pod_uid: t(),
        container: t(),
        containerd_namespace: t(),
        id: t(),
        exec_id: t(),
        sandbox_id: t(),
        image: t(),
        digest: t(),
        repository: t(),
    };
    let full = Entry {
        ev: Event::Exec,
        door: Some(Door::Exec),
        decision: Some(Decision::Allow),
        of: t(),
        who: Who { owner: t() },
        what,
        level: t(),
        integrity: t(),
        layers: vec![t()],
        findings: vec![finding; 60],
        policy: t(),
        spec: t(),
        version: t(),
        ms: Some(1),
        cost: Some(Cost { image_us: u32::MAX, seal_us: u32::MAX, inside_us: u32::MAX, outside_us: u32::MAX }),
        pid: Some(1),
        status: Some(1),
        bytes: Some(1),
        anomaly: Some(Anomaly {
            class: Class::Malware,
            refused: true,
            what: t(),
            comm: t(),
            executable: t(),
            count: u64::MAX,
            port_scan: u32::MAX,
        }),
        network: None,
        at_ns: Some(1),
        note: t(),
        break_glass: vec![t(); 9],
    };
    let _added = add(&trail, &full);
    let text = fs::read_to_string(first_file(dir.path())).unwrap();
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut keys: Vec<String> = Vec::new();
    for (key, value) in line.as_object().unwrap() {
        keys.push(key.clone());
        let inner = value.as_object().or_else(|| value.get(0)?.as_object());
        keys.extend(inner.into_iter().flat_map(|o| o.keys().cloned()));
    }
    keys.extend(["torn".to_owned(), "next".to_owned()]);
    for ev in [
        Event::Decision,
        Event::Exec,
        Event::Started,
        Event::Aborted,
        Event::Running,
        Event::Exited,
        Event::Oom,
        Event::LogDropped,
        Event::Anomaly,
        Event::Node,
        Event::Recovered,
        Event::Rotate,
    ] {
        keys.push(serde_json::to_value(ev).unwrap().as_str().unwrap().to_owned());
    }
    for class in [
        Class::Process,
        Class::Syscall,
        Class::ProtectedFile,
        Class::Write,
        Class::Listener,
        Class::Destination,
        Class::Malware,
    ] {
        keys.push(serde_json::to_value(class).unwrap().as_str().unwrap().to_owned());
    }
    for outcome in [Outcome::Pass, Outcome::Sealed, Outcome::Allowed, Outcome::Excepted, Outcome::Warn, Outcome::Deny] {
        keys.push(serde_json::to_value(outcome).unwrap().as_str().unwrap().to_owned());
    }
    for key in keys {
        assert!(PAGE.contains(&format!("`{key}`")) || PAGE.contains(&format!(".{key}`")) || key == "who", "{key}");
    }
    let by_hand = "head -n 1 \"$1\" | sed 's/,\"sum\":\"[0-9a-f]*\"}$//' | tr -d '\\n' | sha256sum";
    assert!(PAGE.contains(&by_hand.replace("\"$1\"", "FILE")));
    let out = Command::new("sh").args(["-c", by_hand, "sh"]).arg(first_file(dir.path())).output().unwrap();
    assert_eq!(String::from_utf8(out.stdout).unwrap().split(' ').next(), line["sum"].as_str());
}

/// Lines with right sums in the right order that no writer would have written.
#[test]
fn clocks_that_went_back_show() {
    let dir = folder();
    let trail = small(dir.path());
    let whole = fs::read(first_file(dir.path())).unwrap();
    let tail = tail::look(&folder::Folder::open(dir.path()).unwrap()).unwrap().unwrap();
    let mut now = clock::now().unwrap();
    let forge = |stamp: &clock::Stamp, tail: &tail::Tail, ev: Event| {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let entry = Entry { ev, ..Entry::default() };
        let (line, _) = trail::fit(&entry, tail, stamp, boot.trim()).unwrap();
        fs::write(first_file(dir.path()), [&whole[..], &line[..]].concat()).unwrap();
        verify(dir.path(), None).unwrap().problems.into_iter().map(|p| p.what).collect::<Vec<_>>()
    };
    assert_eq!(forge(&now, &tail, Event::Running), Vec::<String>::new());
    let forgetful = tail::Tail { latest: 0, ..tail.clone() };
    now.wall_ns = 1_000_000_000;
    assert_eq!(forge(&now, &forgetful, Event::Running), ["record 6 forgets the latest time"]);
    now.boottime_ns = 1;
    assert_eq!(forge(&now, &tail, Event::Running), ["record 6 is older than the one before it"]);
    now = clock::now().unwrap();
    assert_eq!(forge(&now, &tail, Event::Recovered), ["record 6 marks torn bytes that are not there"]);
    // Behind a file's last record nothing may come.
    let rotated = forge(&now, &tail, Event::Rotate);
    assert_eq!(rotated, [" should follow: the newest file is missing"]);
    drop(trail);
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 64, failure_persistence: None, ..Default::default() })]

    /// Whatever stands in the newest file, an append marks it or says that it is damaged; it is never taken for a record.
    #[test]
    fn any_bytes_behind_the_trail(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 1..600), behind in 0usize..2, newline: bool) {
        let dir = folder();
        let trail = Trail::open(dir.path()).unwrap();
        let mut text = Vec::new();
        if behind > 0 {
            let _first = add(&trail, &entry(0));
            text = fs::read(first_file(dir.path())).unwrap();
        } else {
            trail.can_append().unwrap();
        }
        text.extend_from_slice(&bytes);
        if newline {
            text.push(b'\n');
        }
        fs::write(first_file(dir.path()), &text).unwrap();
        assert_eq!(verify(dir.path(), None).unwrap().problems.len(), 1);
        let _next = add(&trail, &entry(1));
        let report = verify(dir.path(), None).unwrap();
        assert_eq!((report.problems, report.recovered, report.records), (vec![], 1, behind as u64 + 2));
    }
}

/// Not a test by itself: what the processes of the tests below do, told by the environment.
#[test]
#[ignore = "runs as a child of the tests below"]
fn child() {
    let dir = PathBuf::from(std::env::var("TRAIL").unwrap());
    let rotate: u64 = std::env::var("ROTATE").map_or(64 << 20, |r| r.parse().unwrap());
    match std::env::var("DO").unwrap().as_str() {
        "write" => {
            let trail = Trail::open(&dir).unwrap().rotating_at(rotate);
            for n in 0..std::env::var("TIMES").unwrap().parse().unwrap() {
                add(&trail, &entry(n)).sync.sync().unwrap();
            }
        }
        // Long lines as fast as they go, so that a kill often meets a write.
        "hurry" => {
            let trail = Trail::open(&dir).unwrap().rotating_at(rotate);
            let mut long = entry(0);
            long.findings.iter_mut().for_each(|f| (f.outcome, f.fact) = (Outcome::Deny, "y".repeat(440)));
            loop {
                let _added = add(&trail, &long);
            }
        }
        "hold" => {
            let folder = folder::Folder::open(&dir).unwrap();
            let _lock = folder.lock().unwrap();
            eprintln!("held");
            std::thread::sleep(Duration::from_secs(60));
        }
        "fill" => fill(&dir),
        "lose" => lose(&dir),
        other => panic!("{other}"),
    }
}

fn spawn(dir: &Path, what: &str, times: usize, rotate: u64) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "tests::child", "--ignored", "--nocapture"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
        .env("TRAIL", dir)
        .env("DO", what)
        .env("TIMES", times.to_string())
        .env("ROTATE", rotate.to_string())
        .spawn()
        .unwrap()
}

#[test]
fn fifty_writers_make_one_order() {
    let dir = folder();
    let children: Vec<Child> = (0..50).map(|_| spawn(dir.path(), "write", 6, 100_000)).collect();
    for child in children {
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    let report = verify(dir.path(), None).unwrap();
    assert_eq!((report.problems, report.refused, report.recovered), (vec![], 300, 0));
    assert!(report.files > 1);
}

#[test]
fn killed_writers_leave_a_chain_with_marks_only() {
    let dir = folder();
    let mut seed = 0x2545_f491_u32;
    for _ in 0..25 {
        let mut children: Vec<Child> =
            (0..4).map(|n| spawn(dir.path(), if n % 2 == 0 { "write" } else { "hurry" }, 100_000, 2_000_000)).collect();
        for child in &mut children {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            std::thread::sleep(Duration::from_micros(2_000 + u64::from(seed >> 18)));
            child.kill().unwrap();
        }
        for mut child in children {
            child.wait().unwrap();
        }
    }
    let trail = Trail::open(dir.path()).unwrap();
    let _last = add(&trail, &entry(0));
    let report = verify(dir.path(), None).unwrap();
    assert_eq!(report.problems, [], "{} records, {} marks", report.records, report.recovered);
    assert!(report.refused > 25, "{report:?}");
    println!("{} records in {} files, {} torn tails", report.records, report.files, report.recovered);
}

#[test]
fn a_stopped_holder_is_an_error_after_the_deadline() {
    let dir = folder();
    let trail = small(dir.path());
    let mut holder = spawn(dir.path(), "hold", 0, 0);
    let mut lines = BufReader::new(holder.stderr.take().unwrap()).lines();
    assert!(lines.by_ref().any(|line| line.unwrap() == "held"));
    let pid = holder.id().to_string();
    assert!(Command::new("kill").args(["-STOP", &pid]).status().unwrap().success());
    let begin = Instant::now();
    let (append, can, report) = (trail.append(&entry(0)), trail.can_append(), verify(dir.path(), None));
    let took = begin.elapsed();
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(matches!(append, Err(TrailError::Locked)));
    assert!(matches!(can, Err(TrailError::Locked)));
    assert!(matches!(report, Err(TrailError::Locked)));
    assert!(took >= Duration::from_secs(6) && took < Duration::from_secs(9), "{took:?}");
    let _added = add(&trail, &entry(0));
}

/// Runs in a mount namespace of its own, with a small ext4 at `dir`.
fn fill(dir: &Path) {
    let trail = Trail::open(dir).unwrap();
    trail.can_append().unwrap();
    add(&trail, &entry(0)).sync.sync().unwrap();
    let zeros = vec![0; 1 << 20];
    let mut hog = File::create(dir.join("hog")).unwrap();
    while std::io::Write::write_all(&mut hog, &zeros).is_ok() {}
    while std::io::Write::write_all(&mut hog, &[0; 512]).is_ok() {}
    drop(hog);
    // The reserve is still whole: starts go on until it runs low, then only denials find room.
    let (mut starts, mut denials) = (0, 0);
    while trail.can_append().is_ok() {
        add(&trail, &entry(starts)).sync.sync().unwrap();
        starts += 1;
    }
    assert!(matches!(trail.can_append(), Err(TrailError::NoRoom(_))));
    let error = loop {
        match trail.append(&entry(denials)) {
            Ok(added) => added.sync.sync().unwrap(),
            Err(error) => break error,
        }
        denials += 1;
        assert!(denials < 100_000);
    };
    assert!(matches!(&error, TrailError::Io(_, e) if e.raw_os_error() == Some(nix::libc::ENOSPC)), "{error:?}");
    assert!(starts > 50 && denials > 100, "{starts} starts, {denials} denials");
    fs::remove_file(dir.join("hog")).unwrap();
    add(&trail, &entry(0)).sync.sync().unwrap();
    let report = verify(dir, None).unwrap();
    assert_eq!(report.problems, []);
    assert!(report.recovered <= 1 && report.refused as usize == starts + denials + 2);
}

#[test]
fn a_full_disk_still_takes_denials() {
    let dir = folder();
    let script = "set -e; truncate -s 12M \"$TRAIL/img\"; mkfs.ext4 -q -m 0 \"$TRAIL/img\"; mkdir \"$TRAIL/disk\"; \
        mount -o loop \"$TRAIL/img\" \"$TRAIL/disk\"; rmdir \"$TRAIL/disk/lost+found\"; chmod 0700 \"$TRAIL/disk\"; \
        TRAIL=\"$TRAIL/disk\" exec \"$SELF\" --exact tests::child --ignored --nocapture";
    let out = Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .env("TRAIL", dir.path())
        .env("DO", "fill")
        .env("SELF", std::env::current_exe().unwrap())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
}

/// Runs on a file system whose disk has no room for what it has promised: a write goes well, its sync does not.
fn lose(dir: &Path) {
    let trail = Trail::open(dir).unwrap();
    let mut long = entry(0);
    long.findings.iter_mut().for_each(|f| (f.outcome, f.fact) = (Outcome::Deny, "y".repeat(440)));
    let lost = (0..2000).find_map(|_| add(&trail, &long).sync.sync().err()).expect("the disk is full");
    assert!(matches!(lost, TrailError::Io("fdatasync", _)), "{lost:?}");
    // Another run is not told by the kernel any more, but by the mark. What it must deny it may still try to record.
    let next = Trail::open(dir).unwrap();
    let error = next.can_append().unwrap_err().to_string();
    assert!(error.contains("a sync failed earlier") && error.contains("remove the file sync-failed"), "{error}");
    let _denial = add(&next, &entry(1));
    assert!(verify(dir, None).unwrap().problems.iter().any(|p| p.file == "sync-failed"));
    fs::remove_file(dir.join("sync-failed")).unwrap();
    next.can_append().unwrap();
}

#[test]
fn a_failed_sync_is_not_forgotten() {
    let dir = folder();
    let script = "set -e; cd \"$TRAIL\"; truncate -s 24M outer; mkfs.ext4 -q -m 0 outer; mkdir A B; mount -o loop outer A; \
        truncate -s 64M A/inner; mkfs.ext4 -q -m 0 -O ^has_journal A/inner; mount -o loop A/inner B; mkdir -m 0700 B/trail; sync -f B; \
        dd if=/dev/zero of=A/hog bs=64k 2>/dev/null || dd if=/dev/zero of=A/rest bs=512 2>/dev/null || sync -f A; \
        code=0; TRAIL=\"$TRAIL/B/trail\" \"$SELF\" --exact tests::child --ignored --nocapture || code=$?; umount B; umount A; exit $code";
    let out = Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .env("TRAIL", dir.path())
        .env("DO", "lose")
        .env("SELF", std::env::current_exe().unwrap())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
}
