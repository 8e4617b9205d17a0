//! Creates and deletes that meet.
use super::*;
use boltseal_evidence::record::ContainerRecord;
use nix::unistd::ForkResult;
use std::fs;
use std::sync::Barrier;

struct Place {
    _top: tempfile::TempDir,
    folder: PathBuf,
}

fn place() -> Place {
    let top = tempfile::tempdir().unwrap();
    let folder = top.path().join("ns/c1");
    Place { _top: top, folder }
}

fn code(refused: &Refused) -> Code {
    match refused {
        Refused::Because { code, .. } => *code,
        Refused::Verdict { .. } => panic!("{refused}"),
    }
}

#[test]
fn of_creates_at_the_same_time_one_wins_and_keeps_what_it_has() {
    for _ in 0..50 {
        let place = place();
        let (start, end) = (Barrier::new(8), Barrier::new(8));
        let won: Vec<bool> = std::thread::scope(|scope| {
            let one = |_| {
                scope.spawn(|| {
                    start.wait();
                    let made = make(&place.folder, "c1");
                    if made.is_ok() {
                        fs::write(place.folder.join("half"), "made").unwrap();
                    }
                    end.wait();
                    match made {
                        Ok(_) => fs::read(place.folder.join("half")).unwrap() == b"made",
                        Err(refused) => {
                            assert_eq!(code(&refused), Code::AlreadyExists, "{refused}");
                            false
                        }
                    }
                })
            };
            let all: Vec<_> = (0..8).map(one).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(won.iter().filter(|won| **won).count(), 1);
    }
}

#[test]
fn what_a_crashed_create_left_is_cleared() {
    let place = place();
    drop(make(&place.folder, "c1").unwrap());
    fs::create_dir_all(place.folder.join("launch/bundle")).unwrap();
    fs::write(place.folder.join("table.json"), "{").unwrap();
    let claim = make(&place.folder, "c1").unwrap();
    let left: Vec<_> = fs::read_dir(&place.folder).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, [LOCK]);
    claim.abandon("c1").unwrap();
    assert!(!place.folder.exists());
}

#[test]
fn a_live_container_keeps_its_folder_and_a_dead_one_does_not() {
    let place = place();
    drop(make(&place.folder, "c1").unwrap());
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let mut record = ContainerRecord {
        version: record::VERSION,
        id: "c1".into(),
        namespace: "ns".into(),
        pid: std::process::id(),
        start_time: record::start_time(&stat).unwrap(),
        ..ContainerRecord::default()
    };
    let save = |record: &ContainerRecord| {
        let file = place.folder.join(record::FILE);
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(file).unwrap();
        file.write_all(&serde_json::to_vec(record).unwrap()).unwrap();
    };
    save(&record);
    assert_eq!(code(&make(&place.folder, "c1").unwrap_err()), Code::AlreadyExists);
    assert!(place.folder.join(record::FILE).exists());
    record.start_time += 1;
    save(&record);
    drop(make(&place.folder, "c1").unwrap());
    assert!(!place.folder.join(record::FILE).exists());
    // Nobody can say whether this one lives.
    fs::write(place.folder.join(record::FILE), "{").unwrap();
    assert_eq!(code(&make(&place.folder, "c1").unwrap_err()), Code::FailedPrecondition);
    remove(&place.folder, "c1").unwrap();
    assert!(!place.folder.exists());
}

#[test]
fn a_delete_ends_a_create_that_does_not_end() {
    let place = place();
    let ForkResult::Parent { child } = crate::sys::fork().unwrap() else {
        let _claim = make(&place.folder, "c1");
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    };
    let held = || fs::read_to_string(place.folder.join(LOCK)).is_ok_and(|text| text.contains(' '));
    let begun = Instant::now();
    while !held() && begun.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let begun = Instant::now();
    remove(&place.folder, "c1").unwrap();
    let took = begun.elapsed();
    let status = nix::sys::wait::waitpid(child, None).unwrap();
    assert!(matches!(status, nix::sys::wait::WaitStatus::Signaled(_, Signal::SIGKILL, _)), "{status:?}");
    assert!(!place.folder.exists());
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_delete_needs_no_lock() {
    let place = place();
    remove(&place.folder, "c1").unwrap();
    fs::create_dir_all(place.folder.join("launch")).unwrap();
    remove(&place.folder, "c1").unwrap();
    assert!(!place.folder.exists());
    // Held by this very process, which it does not kill.
    let claim = make(&place.folder, "c1").unwrap();
    remove(&place.folder, "c1").unwrap();
    assert!(!place.folder.exists());
    // The one who held it finds that it has nothing more to remove, and a new one takes nothing from it.
    let new = make(&place.folder, "c1").unwrap();
    drop(claim);
    assert_eq!(code(&make(&place.folder, "c1").unwrap_err()), Code::AlreadyExists);
    new.abandon("c1").unwrap();
}

/// Whatever lies in the place of what we write: a delete follows nothing, waits for nothing and leaves nothing.
#[test]
fn a_delete_takes_away_whatever_lies_there() {
    let place = place();
    let kept = place.folder.parent().unwrap().join("kept");
    fs::create_dir_all(kept.join("launch/bundle/rootfs")).unwrap();
    let link = |name: &str| std::os::unix::fs::symlink(&kept, place.folder.join(name)).unwrap();
    let fifo = |name: &str| nix::unistd::mkfifo(&place.folder.join(name), nix::sys::stat::Mode::S_IRUSR).unwrap();
    let folder = |name: &str| fs::create_dir_all(place.folder.join(name).join("x")).unwrap();
    let names = [LOCK, record::FILE, "launch", "table.json", "launch/record.json", "launch/bundle/config.json"];
    let make: [&dyn Fn(&str); 3] = [&link, &fifo, &folder];
    for name in names {
        for put in make {
            fs::create_dir_all(place.folder.join(name).parent().unwrap()).unwrap();
            put(name);
            remove(&place.folder, "c1").unwrap();
            assert!(!place.folder.exists(), "{name}");
            assert!(kept.join("launch/bundle/rootfs").is_dir(), "{name}");
        }
    }
    // The folder itself.
    std::os::unix::fs::symlink(&kept, &place.folder).unwrap();
    remove(&place.folder, "c1").unwrap();
    assert!(fs::symlink_metadata(&place.folder).is_err() && kept.join("launch/bundle/rootfs").is_dir());
    fs::write(&place.folder, "no folder").unwrap();
    remove(&place.folder, "c1").unwrap();
    assert!(!place.folder.exists());
}

#[test]
fn makes_and_deletes_in_any_order_leave_nothing() {
    let place = place();
    std::thread::scope(|scope| {
        for turn in 0..4 {
            let folder = &place.folder;
            scope.spawn(move || {
                for _ in 0..300 {
                    if turn == 0 {
                        remove(folder, "c1").unwrap();
                    } else if let Ok(claim) = make(folder, "c1") {
                        claim.abandon("c1").unwrap();
                    }
                }
            });
        }
    });
    remove(&place.folder, "c1").unwrap();
    assert!(!place.folder.exists());
}

/// Deletes that come in the midst of a create and of each other: each has removed what it found, or left it to the others.
#[test]
fn deletes_in_each_others_way_all_succeed() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("c");
    for round in 0..300 {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| drop(make(&folder, "c")));
            }
            let deletes: Vec<_> = (0..4).map(|_| scope.spawn(|| remove(&folder, "c"))).collect();
            for delete in deletes {
                delete.join().unwrap().unwrap_or_else(|e| panic!("round {round}: {e}"));
            }
        });
        remove(&folder, "c").unwrap();
        assert!(!folder.exists(), "round {round}");
    }
}

/// It waits for a container's end as well, longer than a create is waited for.
#[test]
fn a_delete_waits_for_another() {
    let place = place();
    drop(make(&place.folder, "c1").unwrap());
    let first = Waiting::open(&place.folder).unwrap().get().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(6 * PATIENCE);
            drop(first);
        });
        assert!(Waiting::open(&place.folder).unwrap().get().is_some());
    });
}
