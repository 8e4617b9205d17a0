//! Delete of a container whose record of the launch cannot be used: what ran in it is ended, and nobody else.
use super::running;
use crate::lab::{Lab, wait};
use boltseal_launch::{Deleted, delete};
use nix::sys::stat::Mode;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command};

type Damage = (&'static str, fn(&Path, &[u8]));

/// What becomes of a file; its bytes are given.
const DAMAGES: &[Damage] = &[
    ("whole", |_, _| {}),
    ("truncated", |file, whole| fs::write(file, &whole[..whole.len() / 2]).unwrap()),
    ("empty", |file, _| fs::write(file, "").unwrap()),
    ("garbage", |file, _| fs::write(file, [0xff; 4096]).unwrap()),
    ("another version", |file, whole| {
        let text = String::from_utf8(whole.to_vec()).unwrap();
        fs::write(file, text.replace("\"version\":1", "\"version\":99")).unwrap();
    }),
    ("missing", |file, _| fs::remove_file(file).unwrap()),
    ("a link", |file, _| {
        fs::remove_file(file).unwrap();
        symlink("/etc/passwd", file).unwrap();
    }),
    ("a fifo", |file, _| {
        fs::remove_file(file).unwrap();
        nix::unistd::mkfifo(file, Mode::S_IRUSR).unwrap();
    }),
    ("a folder", |file, _| {
        fs::remove_file(file).unwrap();
        fs::create_dir(file).unwrap();
    }),
];

/// A process in a cgroup of its own, beside the container's.
struct Bystander {
    child: Child,
    path: String,
    folders: Vec<std::path::PathBuf>,
}

impl Bystander {
    fn new(lab: &Lab) -> Self {
        let path = format!("{}-bystander", lab.table.cgroup_path);
        let child = Command::new("/bin/busybox").args(["sleep", "600"]).spawn().unwrap();
        let parents = crate::lab::cgroups(lab.table.cgroup_path.rsplit_once('/').unwrap().0);
        let folders: Vec<_> = parents.iter().map(|parent| parent.join(path.rsplit_once('/').unwrap().1)).collect();
        for folder in folders.iter().filter(|folder| !folder.display().to_string().contains("cpuset")) {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("cgroup.procs"), child.id().to_string()).unwrap();
        }
        Self { child, path, folders }
    }

    fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    fn end(mut self) {
        assert!(self.lives(), "somebody else's process was ended");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        for folder in self.folders.iter().filter(|folder| folder.is_dir()) {
            fs::remove_dir(folder).unwrap();
        }
    }
}

pub fn record(mut lab: Lab) {
    for (what, damage) in DAMAGES {
        let pid = running(&mut lab).0;
        let bystander = Bystander::new(&lab);
        let file = lab.state.join("launch/record.json");
        damage(&file, &fs::read(&file).unwrap());
        assert_eq!(delete(&lab.state, &lab.name, None).unwrap(), Deleted::Whole, "{what}");
        assert_eq!(wait(pid), 128 + 9, "{what}");
        bystander.end();
        lab.nothing_left();
        assert_eq!(delete(&lab.state, &lab.name, None).unwrap(), Deleted::Whole, "{what}, once more");
    }
}

/// Record and sealed spec both: the caller's own record tells the cgroup; without that, it is said that nothing does.
pub fn record_and_spec(mut lab: Lab) {
    for (what, damage) in DAMAGES.iter().skip(1) {
        let pid = running(&mut lab).0;
        let bystander = Bystander::new(&lab);
        for name in ["launch/record.json", "launch/bundle/config.json"] {
            let file = lab.state.join(name);
            damage(&file, &fs::read(&file).unwrap());
        }
        // The spec has no version: it goes on telling.
        let path = lab.table.cgroup_path.clone();
        let known = Some(path.as_str()).filter(|_| *what != "another version");
        assert_eq!(delete(&lab.state, &lab.name, known).unwrap(), Deleted::Whole, "{what}");
        assert_eq!(wait(pid), 128 + 9, "{what}");
        bystander.end();
        lab.nothing_left();
    }
    let pid = running(&mut lab).0;
    for name in ["launch/record.json", "launch/bundle/config.json"] {
        fs::write(lab.state.join(name), "").unwrap();
    }
    assert_eq!(delete(&lab.state, &lab.name, None).unwrap(), Deleted::Blind);
    assert_eq!(fs::read_dir(&lab.state).unwrap().count(), 0, "its files are gone all the same");
    for folder in crate::lab::cgroups(&lab.table.cgroup_path) {
        crate::lab::end_all(&folder);
    }
    assert_eq!(wait(pid), 128 + 9);
}

/// What says that it is another container's is not believed, nor is what lies behind a link.
pub fn of_another(mut lab: Lab) {
    let pid = running(&mut lab).0;
    let mut bystander = Bystander::new(&lab);
    let file = lab.state.join("launch/record.json");
    let text = fs::read_to_string(&file).unwrap();
    let path = lab.table.cgroup_path.clone();
    let other = text.replace(&format!("\"id\":\"{}\"", lab.name), "\"id\":\"another\"").replace(&path, &bystander.path);
    assert_ne!(other, text);
    fs::write(&file, other).unwrap();
    assert_eq!(delete(&lab.state, &lab.name, Some(&path)).unwrap(), Deleted::Whole);
    assert_eq!(wait(pid), 128 + 9);
    assert!(bystander.lives());

    // A link in the folder's place: what it leads to stays as it is.
    let elsewhere = lab.top.join("elsewhere");
    fs::create_dir_all(elsewhere.join("bundle/rootfs")).unwrap();
    fs::write(elsewhere.join("record.json"), text.replace(&path, &bystander.path)).unwrap();
    symlink(&elsewhere, lab.state.join("launch")).unwrap();
    assert_eq!(delete(&lab.state, &lab.name, None).unwrap(), Deleted::Blind);
    assert!(elsewhere.join("bundle/rootfs").is_dir() && bystander.lives());
    fs::write(lab.state.join("launch"), "no folder").unwrap();
    assert_eq!(delete(&lab.state, &lab.name, None).unwrap(), Deleted::Blind);
    // Made and not yet launched: there is nothing to know.
    fs::create_dir_all(lab.state.join("launch/bundle")).unwrap();
    assert_eq!(delete(&lab.state, &lab.name, None).unwrap(), Deleted::Whole);
    bystander.end();
    lab.nothing_left();
}
