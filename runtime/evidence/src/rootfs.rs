//! The root file system that containerd asks for: its form, its layers, and whether it is the snapshot on record.
use crate::containerd::Snapshot;
use crate::file::{Folder, Owner};
use crate::overlay::split_lowers;
use boltseal_message::Mount;
use boltseal_policy::facts::{Fact, IdMaps, Rootfs};
use nix::sys::stat::SFlag;
use std::path::{Component, Path, PathBuf};

/// The overlay that a request names, in the one form that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overlay {
    /// Top first.
    pub lowers: Vec<String>,
    pub upper: String,
    pub work: String,
    /// Options beside the folders, as given.
    pub flags: Vec<String>,
    /// `uidmap=` and `gidmap=`, which whoever mounts is meant to apply to the layers.
    pub idmap: Option<IdMaps>,
}

/// Facts of the request's mounts, against what the snapshot service says of the container's snapshot.
#[must_use]
pub fn rootfs_facts(request: &[Mount], snapshotter: &str, snapshot: &Snapshot) -> Rootfs {
    let (overlay, unknown_form) = parse(request);
    Rootfs {
        snapshotter: snapshotter.to_owned(),
        parent: snapshot.parent.clone(),
        active: snapshot.active,
        mounts_match: same(request, &snapshot.mounts),
        upper_empty: upper_empty(&overlay.upper),
        // A layer folder is what some unpacking left there: nothing but that is known of its bytes.
        integrity: "unpacked".into(),
        verity: Fact::Absent,
        checked: Fact::Absent,
        unsafe_roots: if unknown_form.is_empty() { of_folders(&overlay.lowers) } else { Vec::new() },
        lowers: overlay.lowers,
        idmap: overlay.idmap,
        unknown_form,
    }
}

/// Parses the request's mounts: one overlay with lower, upper and work folders. Anything else is said in the list, and
/// nothing of it may be mounted. The order of options differs between versions of containerd. Pure; fuzzed.
#[must_use]
pub fn parse(request: &[Mount]) -> (Overlay, Vec<String>) {
    const FLAGS: &[&str] = &[
        "rw",
        "index=off",
        "userxattr",
        "volatile",
        "metacopy=off",
        "redirect_dir=off",
        "xino=off",
        "xino=auto",
        "xino=on",
    ];
    let mut overlay = Overlay::default();
    let mut wrong = Vec::new();
    let [mount] = request else {
        return (overlay, vec![format!("{} mounts instead of one", request.len())]);
    };
    if mount.kind != "overlay" {
        wrong.push(format!("a mount of type {:?} instead of an overlay", short(&mount.kind)));
    }
    if !mount.target.is_empty() {
        wrong.push(format!("the target {:?}", short(&mount.target)));
    }
    for option in &mount.options {
        let folder = option.split_once('=');
        match folder {
            Some(("lowerdir", value)) if overlay.lowers.is_empty() => {
                overlay.lowers =
                    split_lowers(value.as_bytes()).iter().map(|p| p.to_string_lossy().into_owned()).collect();
                if value.contains("::") || overlay.lowers.is_empty() {
                    wrong.push(format!("the layers {:?}", short(value)));
                }
            }
            Some(("upperdir", value)) if overlay.upper.is_empty() => overlay.upper = value.to_owned(),
            Some(("workdir", value)) if overlay.work.is_empty() => overlay.work = value.to_owned(),
            Some((name @ ("uidmap" | "gidmap"), value)) => {
                let ids = overlay.idmap.get_or_insert_default();
                let map = if name == "uidmap" { &mut ids.uids } else { &mut ids.gids };
                match ranges(value) {
                    Some(ranges) if map.is_empty() => *map = ranges,
                    _ => wrong.push(format!("the option {:?}", short(option))),
                }
            }
            _ if FLAGS.contains(&option.as_str()) => overlay.flags.push(option.clone()),
            _ if is_context(option) => {}
            _ => wrong.push(format!("the option {:?}", short(option))),
        }
    }
    for (name, path) in [("upperdir", &overlay.upper), ("workdir", &overlay.work)] {
        if path.is_empty() {
            wrong.push(format!("no {name}"));
        }
    }
    if overlay.lowers.is_empty() {
        wrong.push("no lowerdir".into());
    }
    let folders = overlay.lowers.iter().chain([&overlay.upper, &overlay.work]).filter(|p| !p.is_empty());
    wrong
        .extend(folders.filter(|p| !is_plain(p)).map(|p| format!("the folder {:?}, which is no plain path", short(p))));
    (overlay, wrong)
}

/// `container:host:size`, more of them after commas; the same form as in containerd's labels. None: not of that form.
fn ranges(value: &str) -> Option<Vec<(u32, u32, u32)>> {
    const MOST: usize = 16;
    let number = |text: &str| text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    let one = |range: &str| match range.split(':').collect::<Vec<_>>().as_slice() {
        [inside, host, size] => Some((number(inside)?, number(host)?, number(size)?)),
        _ => None,
    };
    let all: Option<Vec<_>> = value.split(',').take(MOST + 1).map(one).collect();
    all.filter(|ranges| ranges.len() <= MOST)
}

/// The SELinux label that containerd adds to the snapshot's options (`context="u:r:t:s0:c1,c2"`). It says nothing of the
/// image, and the launch mounts with the label that was judged, whatever stands here.
fn is_context(option: &str) -> bool {
    let label = option.strip_prefix("context=\"").and_then(|rest| rest.strip_suffix('"'));
    label.is_some_and(|l| !l.is_empty() && l.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:.,-".contains(&b)))
}

/// Whether two lists of mounts are the same, each option counted once, in any order.
#[must_use]
pub fn same(a: &[Mount], b: &[Mount]) -> bool {
    let normal = |mounts: &[Mount]| {
        let mut all: Vec<_> = mounts
            .iter()
            .map(|m| {
                let mut options: Vec<String> = m.options.iter().filter(|o| !is_context(o)).cloned().collect();
                options.sort();
                (m.kind.clone(), m.source.clone(), m.target.clone(), options)
            })
            .collect();
        all.sort();
        all
    };
    normal(a) == normal(b)
}

fn upper_empty(upper: &str) -> Fact<bool> {
    if upper.is_empty() {
        return Fact::Absent;
    }
    match Folder::open(Path::new(upper), Owner::Any).and_then(|folder| folder.is_empty()) {
        Ok(empty) => Fact::Is(empty),
        Err(problem) => Fact::Unknown(problem.to_string()),
    }
}

fn of_folders(lowers: &[String]) -> Vec<String> {
    let layers: Result<Vec<_>, _> = lowers.iter().map(|path| Folder::open(Path::new(path), Owner::Any)).collect();
    match layers {
        Ok(layers) => unsafe_roots(&layers),
        Err(problem) => vec![format!("a layer cannot be looked into: {problem}")],
    }
}

/// `/dev`, `/proc` and `/sys` of the merged layers that are not folders: through a link there the runtime would make
/// its nodes on the host. The topmost layer that has the name decides; they are given top first.
#[must_use]
pub fn unsafe_roots(layers: &[Folder]) -> Vec<String> {
    let mut found = Vec::new();
    for name in ["dev", "proc", "sys"] {
        for layer in layers {
            match layer.stat(name) {
                Err(problem) if problem.missing => continue,
                Err(problem) => found.push(format!("/{name}: {problem}")),
                Ok(stat) => {
                    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
                    // A whiteout: a layer removed it, and it will be made anew.
                    let whiteout = kind == SFlag::S_IFCHR && stat.st_rdev == 0;
                    if kind != SFlag::S_IFDIR && !whiteout {
                        found.push(format!("/{name}"));
                    }
                }
            }
            break;
        }
    }
    found
}

fn is_plain(path: &str) -> bool {
    let parts = Path::new(path).components();
    let rebuilt: PathBuf = parts.clone().filter(|c| matches!(c, Component::RootDir | Component::Normal(_))).collect();
    path.starts_with('/') && path != "/" && rebuilt.as_os_str() == path
}

fn short(text: &str) -> String {
    let mut short: String = text.chars().take(80).collect();
    if short.len() < text.len() {
        short.push_str("..");
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn overlay(options: &[&str]) -> Vec<Mount> {
        vec![Mount {
            kind: "overlay".into(),
            source: "overlay".into(),
            target: String::new(),
            options: options.iter().map(|&o| o.to_owned()).collect(),
        }]
    }

    const FORM: [&str; 4] = ["index=off", "workdir=/s/3/work", "upperdir=/s/3/fs", "lowerdir=/s/2/fs:/s/1/fs"];

    #[test]
    fn the_known_form_in_any_order() {
        let (found, wrong) = parse(&overlay(&FORM));
        assert!(wrong.is_empty(), "{wrong:?}");
        assert_eq!(found.lowers, ["/s/2/fs", "/s/1/fs"]);
        assert_eq!((found.upper.as_str(), found.work.as_str()), ("/s/3/fs", "/s/3/work"));
        let mut turned = FORM;
        turned.reverse();
        assert_eq!(parse(&overlay(&turned)).0, found);
        assert!(same(&overlay(&FORM), &overlay(&turned)));
        assert!(!same(&overlay(&FORM), &overlay(&FORM[1..])));
    }

    #[test]
    fn an_selinux_label_is_no_difference() {
        let label = r#"context="system_u:object_r:container_file_t:s0:c1,c2""#;
        let with = |option| overlay(&[FORM.as_slice(), &[option]].concat());
        assert_eq!(parse(&with(label)), parse(&overlay(&FORM)));
        assert!(same(&with(label), &overlay(&FORM)));
        for other in [
            "context=",
            "context=\"\"",
            r#"context="x",lowerdir="/etc""#,
            "rootcontext=\"a:b:c:s0\"",
            "context=a:b:c:s0",
        ] {
            assert_eq!(parse(&with(other)).1.len(), 1, "{other}");
            assert!(!same(&with(other), &overlay(&FORM)), "{other}");
        }
    }

    /// As the overlay snapshotter of containerd 2 hands it on.
    #[test]
    fn layers_that_are_to_be_idmapped() {
        let form = [FORM.as_slice(), &["uidmap=0:131072:65536", "gidmap=0:131072:65536"]].concat();
        let (found, wrong) = parse(&overlay(&form));
        assert!(wrong.is_empty(), "{wrong:?}");
        let ids = found.idmap.unwrap();
        assert_eq!((ids.range(), parse(&overlay(&FORM)).0.idmap), (Some((131_072, 65_536)), None));
        assert_eq!(parse(&overlay(&form[..5])).0.idmap.unwrap().gids, []);
        assert_eq!(ranges("0:1:2,2:9:1"), Some(vec![(0, 1, 2), (2, 9, 1)]));
        assert_eq!(ranges(&["0:1:2"; 17].join(",")), None);
    }

    #[test]
    fn any_other_form_is_named() {
        let add = |more: &'static str| [FORM.as_slice(), &[more]].concat();
        for (mounts, word) in [
            (overlay(&add("redirect_dir=on")), "redirect_dir=on"),
            (overlay(&add("lowerdir=/etc")), "lowerdir=/etc"),
            (overlay(&add("upperdir=/etc")), "upperdir=/etc"),
            (overlay(&add("workdir=/etc")), "workdir=/etc"),
            (overlay(&add("uidmap=0:1")), "uidmap=0:1"),
            (overlay(&add("uidmap=")), "uidmap="),
            (overlay(&add("gidmap=0:+1:1")), "gidmap=0:+1:1"),
            (overlay(&add("gidmap=0:4294967296:1")), "gidmap"),
            (overlay(&[&add("uidmap=0:1:1")[..], &["uidmap=0:2:1"]].concat()), "uidmap=0:2:1"),
            (overlay(&["lowerdir=2/fs", FORM[1], FORM[2]]), "2/fs"),
            (overlay(&["lowerdir=/s/../etc", FORM[1], FORM[2]]), "/s/../etc"),
            (overlay(&["lowerdir=/a::/b", FORM[1], FORM[2]]), "/a::/b"),
            (overlay(&FORM[..3]), "no lowerdir"),
            (overlay(&["lowerdir=/s/1/fs"]), "no upperdir"),
            (vec![], "0 mounts"),
            ([overlay(&FORM), overlay(&FORM)].concat(), "2 mounts"),
        ] {
            let (_, wrong) = parse(&mounts);
            assert!(wrong.iter().any(|w| w.contains(word)), "{word}: {wrong:?}");
        }
        let bind =
            Mount { kind: "bind".into(), source: "/etc".into(), target: String::new(), options: vec!["rbind".into()] };
        assert!(parse(&[bind]).1[0].contains("bind"));
    }

    /// A whiteout is a name that a layer took away; another device of that name is what the image would give for /dev.
    #[test]
    fn a_whiteout_is_no_device() {
        use nix::sys::stat::{Mode, makedev, mknod};
        let dir = tempfile::tempdir().unwrap();
        for name in ["1/dev", "1/proc", "1/sys", "2"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let lowers = ["2", "1"].map(|name| dir.path().join(name).to_str().unwrap().to_owned());
        let node = |name: &str, device| {
            mknod(&dir.path().join("2").join(name), SFlag::S_IFCHR, Mode::S_IRUSR, device).unwrap();
        };
        node("dev", makedev(0, 0));
        assert_eq!(of_folders(&lowers), Vec::<String>::new());
        node("sys", makedev(1, 3));
        assert_eq!(of_folders(&lowers), ["/sys"]);
    }

    /// Who may list a folder and not search it: that a name is not there cannot be known then.
    #[test]
    fn what_cannot_be_examined_is_no_missing_name() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let layer = dir.path().join("1");
        fs::create_dir(&layer).unwrap();
        for (path, mode) in [(dir.path(), 0o755), (&layer, 0o444)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let lowers = [layer.to_str().unwrap().to_owned()];
        // Of one thread: a user without root's rights over files.
        let found = std::thread::spawn(move || {
            nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65534));
            of_folders(&lowers)
        });
        let found = found.join().unwrap();
        assert!(found.len() == 3 && found[0].starts_with("/dev: "), "{found:?}");
    }

    #[test]
    fn what_is_long_is_cut_and_says_so() {
        assert_eq!(short(&"x".repeat(80)), "x".repeat(80));
        assert_eq!(short(&"x".repeat(81)), format!("{}..", "x".repeat(80)));
    }

    #[test]
    fn layers_are_looked_into() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        for folder in ["1/dev", "1/proc", "2", "up", "work"] {
            fs::create_dir_all(path(folder)).unwrap();
        }
        std::os::unix::fs::symlink("/tmp", path("2/dev")).unwrap();
        fs::write(path("1/sys"), "").unwrap();
        let lowers = format!("lowerdir={}:{}", path("2"), path("1"));
        let (upper, work) = (format!("upperdir={}", path("up")), format!("workdir={}", path("work")));
        let request = overlay(&[&lowers, &upper, &work]);
        let snapshot = Snapshot { parent: "sha256:x".into(), active: true, mounts: request.clone() };
        let found = rootfs_facts(&request, "overlayfs", &snapshot);
        assert_eq!(found.unsafe_roots, ["/dev", "/sys"]);
        assert_eq!((found.mounts_match, found.upper_empty.clone()), (true, Fact::Is(true)));
        fs::write(path("up/x"), "").unwrap();
        assert_eq!(rootfs_facts(&request, "overlayfs", &snapshot).upper_empty, Fact::Is(false));
        fs::remove_dir_all(path("up")).unwrap();
        assert!(matches!(rootfs_facts(&request, "overlayfs", &snapshot).upper_empty, Fact::Unknown(_)));
        fs::remove_dir_all(path("1")).unwrap();
        assert_eq!(rootfs_facts(&request, "overlayfs", &snapshot).unsafe_roots.len(), 1);
    }
}
