use super::*;
use boltseal_policy::facts::{Found, FoundKind};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

/// Layers below a folder of its own, the lowest first, and a cache beside them.
struct Lab {
    dir: tempfile::TempDir,
    layers: Vec<PathBuf>,
}

impl Lab {
    fn new(layers: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layers = (0..layers).map(|n| dir.path().join(n.to_string()));
        let layers: Vec<PathBuf> = layers.inspect(|path| fs::create_dir(path).unwrap()).collect();
        Self { dir, layers }
    }

    fn path(&self, layer: usize, path: &str) -> PathBuf {
        let path = self.layers[layer].join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn file(&self, layer: usize, path: &str, mode: u32) -> PathBuf {
        let path = self.path(layer, path);
        fs::write(&path, "#!/x\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn copy(&self, layer: usize, from: &str, path: &str) -> PathBuf {
        let path = self.path(layer, path);
        fs::copy(from, &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn link(&self, layer: usize, path: &str, target: &str) {
        symlink(target, self.path(layer, path)).unwrap();
    }

    fn node(&self, layer: usize, path: &str, kind: SFlag, device: (u64, u64)) {
        mknod(&self.path(layer, path), kind, Mode::S_IRUSR, makedev(device.0, device.1)).unwrap();
    }

    fn whiteout(&self, layer: usize, path: &str) {
        self.node(layer, path, SFlag::S_IFCHR, (0, 0));
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache/sha256")
    }

    fn lowers(&self) -> Vec<String> {
        self.layers.iter().rev().map(|path| path.to_str().unwrap().to_owned()).collect()
    }

    fn scan_with(&self, limits: &Limits, deadline: Instant) -> Result<Scan, String> {
        let (lowers, chain) = (self.lowers(), chain('a'));
        let image = Image { chain_id: &chain, integrity: "unpacked", layers: Source::Folders(&lowers), digests: &[] };
        scan(&self.cache(), &image, limits, deadline, &mut |_| {})
    }

    fn scan(&self) -> Scan {
        self.scan_with(&Limits::default(), soon()).unwrap()
    }

    /// What it finds, as `kind path note layer`.
    fn found(&self) -> Vec<String> {
        let one = |f: &Found| {
            let layer = f.layer.map_or("?".to_owned(), |layer| layer.to_string());
            format!("{} {} {} {layer}", f.kind.name(), f.path, f.note)
        };
        let mut all: Vec<String> = self.scan().found.iter().map(one).collect();
        all.sort();
        all
    }
}

fn chain(digit: char) -> String {
    format!("sha256:{}", digit.to_string().repeat(64))
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn capability(path: &Path) {
    let value = [0x0200_0001_u32, 0x2000, 0, 0, 0].iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
    rustix::fs::setxattr(path, capability::NAME, &value, rustix::fs::XattrFlags::empty()).unwrap();
}

#[test]
fn each_kind_is_found_with_its_layer() {
    let lab = Lab::new(2);
    lab.file(0, "bin/sh", 0o755);
    lab.file(1, "usr/sbin/sshd", 0o755);
    lab.file(0, "usr/bin/su", 0o4755);
    lab.file(1, "usr/bin/wall", 0o2755);
    capability(&lab.file(0, "usr/bin/ping", 0o755));
    capability(&lab.file(1, "usr/lib/data", 0o644));
    lab.node(0, "dev/mem", SFlag::S_IFCHR, (1, 1));
    lab.node(1, "dev/sda", SFlag::S_IFBLK, (8, 0));
    let expected = [
        "device /dev/mem c 1:1 0",
        "device /dev/sda b 8:0 1",
        "file-capability /usr/bin/ping permitted 0x2000, effective 0",
        "file-capability /usr/lib/data permitted 0x2000, effective 1",
        "remote-admin /usr/sbin/sshd  1",
        "setuid /usr/bin/su mode 4755 0",
        "setuid /usr/bin/wall mode 2755 1",
        "shell /bin/sh  0",
    ];
    assert_eq!(lab.found(), expected);
}

#[test]
fn a_clean_image_has_nothing() {
    let lab = Lab::new(1);
    lab.file(0, "app", 0o755);
    // A name without a right to run, a folder of the name, a fifo, a folder that hands on its group, an interpreter.
    lab.file(0, "doc/sh", 0o644);
    fs::create_dir_all(lab.path(0, "opt/bash")).unwrap();
    lab.node(0, "run/fifo", SFlag::S_IFIFO, (0, 0));
    fs::create_dir_all(lab.path(0, "var/mail")).unwrap();
    fs::set_permissions(lab.path(0, "var/mail"), fs::Permissions::from_mode(0o2775)).unwrap();
    lab.file(0, "usr/bin/python3", 0o755);
    let scan = lab.scan();
    assert_eq!(scan.found, []);
    assert_eq!((scan.from, scan.more), (ScannedFrom::Fresh, [0; 5]));
    assert_eq!((scan.entries, scan.bytes), (12, 15));
}

#[test]
fn what_an_upper_layer_takes_away_does_not_count() {
    let lab = Lab::new(3);
    lab.file(0, "bin/sh", 0o755);
    lab.file(1, "bin/su", 0o4755);
    lab.file(1, "opt/tools/bash", 0o755);
    lab.node(0, "dev/mem", SFlag::S_IFCHR, (1, 1));
    lab.file(0, "srv/dash", 0o755);
    assert_eq!(lab.found().len(), 5);
    // By whiteouts, by an opaque folder, by a file in a folder's place.
    lab.whiteout(2, "bin/sh");
    lab.whiteout(2, "bin/su");
    lab.whiteout(2, "opt/tools");
    fs::create_dir(lab.path(2, "dev")).unwrap();
    rustix::fs::setxattr(lab.path(2, "dev"), "trusted.overlay.opaque", b"y", rustix::fs::XattrFlags::empty()).unwrap();
    lab.file(2, "srv", 0o644);
    fs::remove_dir_all(lab.cache()).unwrap();
    assert_eq!(lab.found(), Vec::<String>::new());
    // The lowest layer's whiteouts hide nothing and are no devices.
    let lab = Lab::new(1);
    lab.whiteout(0, "bin/sh");
    assert_eq!(lab.found(), Vec::<String>::new());
}

#[test]
fn the_upper_file_decides() {
    let lab = Lab::new(2);
    lab.file(0, "bin/su", 0o4755);
    lab.file(1, "bin/su", 0o755);
    assert_eq!(lab.found(), Vec::<String>::new());
    lab.file(1, "bin/other", 0o755);
    lab.file(0, "bin/other", 0o4755);
    fs::remove_dir_all(lab.cache()).unwrap();
    assert_eq!(lab.found(), Vec::<String>::new());
}

#[test]
fn busybox_is_a_shell_under_any_name() {
    let lab = Lab::new(1);
    let first = lab.copy(0, "/bin/busybox", "usr/lib/libnothing.so");
    fs::hard_link(&first, lab.path(0, "app")).unwrap();
    // Without the right to run it is data.
    let data = lab.copy(0, "/bin/busybox", "data");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o644)).unwrap();
    // Marks that lie across the parts that it is read in.
    let mut late = b"\x7fELF".to_vec();
    late.resize((256 << 10) - 5, 0);
    late.extend_from_slice(b"BusyBox v1.35 BusyBox is copyrighted by many authors");
    fs::write(lab.path(0, "late"), &late).unwrap();
    fs::set_permissions(lab.path(0, "late"), fs::Permissions::from_mode(0o755)).unwrap();
    // The same words in a script are words.
    late[..4].copy_from_slice(b"#!/x");
    fs::write(lab.path(0, "script"), &late).unwrap();
    fs::set_permissions(lab.path(0, "script"), fs::Permissions::from_mode(0o755)).unwrap();
    let expected = ["shell /app is busybox 0", "shell /late is busybox 0", "shell /usr/lib/libnothing.so is busybox 0"];
    assert_eq!(lab.found(), expected);
}

#[test]
fn links_lead_where_the_container_would_go() {
    let lab = Lab::new(1);
    lab.file(0, "app", 0o755);
    lab.link(0, "bin/sh", "/app");
    lab.link(0, "bin/bash", "../../../../../app");
    lab.link(0, "bin/dash", "a");
    lab.link(0, "bin/a", "b");
    lab.link(0, "bin/b", "/app");
    // Nowhere, in a circle, to a folder, to data; to what the node has under that name.
    lab.link(0, "bin/zsh", "/nothing");
    lab.link(0, "bin/ksh", "ksh");
    lab.link(0, "bin/fish", "/bin");
    lab.file(0, "data", 0o644);
    lab.link(0, "bin/csh", "/data");
    lab.link(0, "bin/tcsh", "/bin/true");
    lab.link(0, "bin/mksh", "/proc/self/exe");
    lab.link(0, "bin/yash", "../../../../../../../../../../bin/true");
    let expected = ["shell /bin/bash -> ../../../../../app 0", "shell /bin/dash -> a 0", "shell /bin/sh -> /app 0"];
    assert_eq!(lab.found(), expected);
}

#[test]
fn names_of_any_bytes_are_told() {
    use std::os::unix::ffi::OsStrExt;
    let lab = Lab::new(1);
    let name = std::ffi::OsStr::from_bytes(b"a b\n%\xff");
    let path = lab.path(0, "x").with_file_name(name);
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
    assert_eq!(lab.found(), ["setuid /a b\n%\u{fffd} mode 4755 0"]);
}

#[test]
fn what_nobody_may_read_is_read() {
    let lab = Lab::new(1);
    lab.file(0, "root/secret/sh", 0o700);
    fs::set_permissions(lab.path(0, "root/secret"), fs::Permissions::from_mode(0o000)).unwrap();
    capability(&lab.file(0, "root/app", 0o100));
    assert_eq!(lab.found(), ["file-capability /root/app permitted 0x2000, effective 0", "shell /root/secret/sh  0"]);
}

#[test]
fn more_than_are_listed_are_counted() {
    let lab = Lab::new(1);
    for n in 0..walk::LISTED + 5 {
        lab.file(0, &format!("{n}/sh"), 0o755);
    }
    lab.file(0, "su", 0o4755);
    let scan = lab.scan();
    assert_eq!(scan.of(FoundKind::Shell).1, 37);
    assert_eq!((scan.of(FoundKind::Shell).0.len(), scan.of(FoundKind::Setuid).1), (32, 1));
}

#[test]
fn beyond_its_bounds_there_is_no_result() {
    let lab = Lab::new(1);
    for n in 0..20 {
        lab.file(0, &n.to_string(), 0o644);
    }
    let limits = |entries, depth| Limits { entries, depth, ..Limits::default() };
    assert!(lab.scan_with(&limits(19, 9), soon()).unwrap_err().contains("more than 19 entries"));
    fs::create_dir_all(lab.path(0, "a/b/c")).unwrap();
    assert!(lab.scan_with(&limits(100, 3), soon()).unwrap_err().contains("3 deep at /a/b/c"));
    // Nothing of it is kept.
    assert_eq!(lab.scan_with(&limits(100, 4), soon()).unwrap().from, ScannedFrom::Fresh);
}

#[test]
fn what_does_not_end_in_time_is_no_result() {
    let lab = Lab::new(1);
    for n in 0..3000 {
        fs::write(lab.path(0, &n.to_string()), "").unwrap();
    }
    let late = lab.scan_with(&Limits::default(), Instant::now());
    assert!(late.as_ref().is_err_and(|why| why.starts_with("timeout: ")), "{late:?}");
    assert_eq!(lab.scan().from, ScannedFrom::Fresh);
}

#[test]
fn layers_that_are_links_or_are_gone_are_not_scanned() {
    let lab = Lab::new(2);
    fs::remove_dir(&lab.layers[1]).unwrap();
    symlink("/etc", &lab.layers[1]).unwrap();
    assert!(lab.scan_with(&Limits::default(), soon()).unwrap_err().contains("cannot be opened"));
    fs::remove_file(&lab.layers[1]).unwrap();
    assert!(lab.scan_with(&Limits::default(), soon()).unwrap_err().contains("cannot be opened"));
    let none = Image { chain_id: &chain('a'), integrity: "unpacked", layers: Source::Folders(&[]), digests: &[] };
    assert!(scan(&lab.cache(), &none, &Limits::default(), soon(), &mut |_| {}).is_err());
}

#[test]
fn a_scan_is_kept_for_the_same_layers_alone() {
    let lab = Lab::new(2);
    lab.file(0, "bin/sh", 0o755);
    let first = lab.scan();
    let second = lab.scan();
    assert_eq!((first.from, second.from), (ScannedFrom::Fresh, ScannedFrom::Cached));
    assert_eq!(Scan { from: ScannedFrom::Fresh, ..second }, first);
    // Another level, another chain id: another scan.
    let (lowers, chains) = (lab.lowers(), [chain('a'), chain('b')]);
    for (chain_id, integrity, from) in [
        (&chains[0], "unpacked", ScannedFrom::Cached),
        (&chains[0], "dmverity-signed", ScannedFrom::Fresh),
        (&chains[1], "unpacked", ScannedFrom::Fresh),
    ] {
        let image = Image { chain_id, integrity, layers: Source::Folders(&lowers), digests: &[] };
        let scan = scan(&lab.cache(), &image, &Limits::default(), soon(), &mut |_| {}).unwrap();
        assert_eq!(scan.from, from, "{chain_id} {integrity}");
    }
    // The same folders with another digest of the node's own.
    let digests = ["sha256:1", "sha256:2"].map(String::from);
    for (digest, from) in [(0, ScannedFrom::Fresh), (0, ScannedFrom::Cached), (1, ScannedFrom::Fresh)] {
        let layers = Source::Folders(&lowers);
        let image = Image { chain_id: &chains[0], integrity: "fsverity", layers, digests: &digests[digest..=digest] };
        let scan = scan(&lab.cache(), &image, &Limits::default(), soon(), &mut |_| {}).unwrap();
        assert_eq!(scan.from, from, "{digest}");
    }
    // Unpacked anew, into another folder.
    fs::rename(&lab.layers[0], lab.dir.path().join("old")).unwrap();
    fs::create_dir(&lab.layers[0]).unwrap();
    assert_eq!((lab.scan().from, lab.scan().from), (ScannedFrom::Fresh, ScannedFrom::Cached));
    // One bit of it, or half of it.
    let kept = lab.cache().join("a".repeat(64)).join("unpacked");
    let bytes = fs::read(&kept).unwrap();
    let mut bent = bytes.clone();
    *bent.last_mut().unwrap() ^= 1;
    for bad in [bent, bytes[..bytes.len() / 2].to_vec(), Vec::new()] {
        fs::write(&kept, bad).unwrap();
        assert_eq!((lab.scan().from, lab.scan().from), (ScannedFrom::Fresh, ScannedFrom::Cached));
    }
    // One that others may have written.
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!((lab.scan().from, lab.scan().from), (ScannedFrom::Fresh, ScannedFrom::Cached));
}

/// What was kept of sealed layers counts for these root hashes alone, and is read without mounting anything; what cannot be mounted has no result.
#[test]
fn sealed_layers_are_known_by_their_root_hashes() {
    use std::os::fd::AsFd;
    let lab = Lab::new(1);
    lab.file(0, "bin/helper", 0o755);
    let (root, no_device) = (fs::File::open(&lab.layers[0]).unwrap(), fs::File::open("/dev/null").unwrap());
    let (chain, hashes) = (chain('a'), ["c".repeat(64), "d".repeat(64)]);
    let scan = |hash: &String| {
        let device = Device { root_hash: hash, device: no_device.as_fd(), root: root.as_fd() };
        let image =
            Image { chain_id: &chain, integrity: "dmverity-signed", layers: Source::Sealed(&[device]), digests: &[] };
        scan(&lab.cache(), &image, &Limits::default(), soon(), &mut |_| {})
    };
    assert!(scan(&hashes[0]).unwrap_err().contains("sealed layer 0 cannot be mounted"));
    let key = cache::Key { chain_id: &chain, integrity: "dmverity-signed", identity: hashes[0].clone() };
    let found = answer::Seen { kind: FoundKind::Setuid, path: b"/bin/helper".to_vec(), note: "mode 4755".into() };
    let answer = Answer { found: vec![found], ..Answer::default() };
    Room::open(&lab.cache(), &chain).unwrap().keep(&key, &answer).unwrap();
    let kept = scan(&hashes[0]).unwrap();
    assert_eq!((kept.from, kept.found[0].layer), (ScannedFrom::Cached, Some(0)));
    assert!(scan(&hashes[1]).unwrap_err().contains("cannot be mounted"));
}

/// A full disk, a folder that others may write to: this start has its result, and the next scans again.
#[test]
fn what_cannot_be_kept_is_used() {
    let lab = Lab::new(1);
    lab.file(0, "bin/sh", 0o755);
    fs::create_dir_all(lab.cache()).unwrap();
    fs::set_permissions(lab.cache(), fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!((lab.found().len(), lab.scan().from), (1, ScannedFrom::Fresh));
    fs::remove_dir_all(lab.cache()).unwrap();
    fs::write(lab.cache(), "").unwrap();
    assert_eq!((lab.found().len(), lab.scan().from), (1, ScannedFrom::Fresh));
    // No room for the file itself.
    fs::remove_file(lab.cache()).unwrap();
    fs::create_dir_all(lab.cache().join("a".repeat(64)).join(".new/full")).unwrap();
    let private = |path: PathBuf| fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
    private(lab.dir.path().join("cache"));
    private(lab.cache());
    private(lab.cache().join("a".repeat(64)));
    assert_eq!((lab.found().len(), lab.scan().from), (1, ScannedFrom::Fresh));
}

#[test]
fn one_scans_and_the_others_wait() {
    let lab = Lab::new(1);
    for n in 0..2000 {
        lab.file(0, &format!("{}/{n}", n % 40), 0o755);
    }
    let fresh = std::thread::scope(|scope| {
        // A worker has little memory, and a copy of everybody's stack.
        let small = || std::thread::Builder::new().stack_size(192 << 10);
        let starts: Vec<_> = (0..200).map(|_| small().spawn_scoped(scope, || lab.scan().from).unwrap()).collect();
        starts.into_iter().map(|start| start.join().unwrap()).filter(|f| *f == ScannedFrom::Fresh).count()
    });
    assert_eq!(fresh, 1);
    // Who comes while another scans waits no longer than it may.
    let folder = fs::File::open(lab.cache().join("a".repeat(64))).unwrap();
    fs::remove_file(lab.cache().join("a".repeat(64)).join("unpacked")).unwrap();
    folder.lock().unwrap();
    let late = lab.scan_with(&Limits::default(), Instant::now() + Duration::from_millis(50));
    assert!(late.as_ref().is_err_and(|why| why.starts_with("timeout: another start")), "{late:?}");
}

#[test]
fn it_leaves_nothing_mounted_and_nobody_behind() {
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    let lab = Lab::new(1);
    lab.scan();
    assert_eq!(before, mounts());
}
