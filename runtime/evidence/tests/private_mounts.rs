//! Bind aliases, symlinks, overlays and pinned namespaces, on real mounts: in a mount and network namespace of its own,
//! which this program makes by running itself under `unshare`. Needs root and util-linux.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use boltseal_evidence::mounts::{self, MountContext};
use boltseal_evidence::namespaces::{self, NamespaceContext};
use boltseal_evidence::record::{self, ContainerRecord, Records};
use boltseal_policy::facts::{Fact, Mount, Namespace, NamespaceOrigin, Namespaces, Object, Origin};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::time::{ClockId, clock_gettime};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const INSIDE: &str = "BOLTSEAL_PRIVATE_MOUNTS";

fn main() {
    if std::env::var_os(INSIDE).is_none() {
        let exe = std::env::current_exe().unwrap();
        let status = Command::new("unshare")
            .args(["--mount", "--net", "--propagation", "private", "--"])
            .arg(exe)
            .env(INSIDE, "1")
            .status()
            .expect("unshare runs");
        assert!(status.success(), "the cases failed: {status}");
        return;
    }
    type Case = fn(&Node);
    let cases: [(&str, Case); 11] = [
        ("direct", direct),
        ("symlink", by_symlink),
        ("bind alias", by_bind),
        ("overlay", by_overlay),
        ("mounts below the source", below_the_source),
        ("file system of its own", own_file_system),
        ("view of the kernel", kernel_view),
        ("kubelet's volumes", kubelet_volumes),
        ("kubelet look-alikes", kubelet_look_alikes),
        ("sandbox", sandbox_shm),
        ("pinned namespace", pinned_namespace),
    ];
    for (name, case) in cases {
        let node = Node::new();
        case(&node);
        println!("test {name} ... ok");
    }
    cost(&Node::new());
}

/// CPU of judging eight binds on a node with some hundred mounts, and of reading a hundred records. Printed, and bounded
/// so loosely that only a mistake breaks it.
fn cost(node: &Node) {
    for n in 0..200 {
        node.mount("tmpfs", &format!("many/{n}"), "size=4k");
    }
    let cpu = || Duration::from(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap());
    let sensitive: Vec<String> = boltseal_policy::standard::SENSITIVE.iter().map(|&s| s.to_owned()).collect();
    let context = MountContext {
        sensitive: &sensitive,
        kubelet_root: "/mnt/var/lib/kubelet",
        pod_uid: "u1",
        ..MountContext::default()
    };
    let mut binds: Vec<Mount> = (0..8).map(|n| bind(&format!("/mnt/many/{n}"))).collect();
    let start = cpu();
    mounts::resolve(&mut binds, &context);
    let judged = cpu() - start;
    assert!(binds.iter().all(|b| b.object.is().is_some()), "{binds:?}");
    let root = node.base.join("records/0123456789abcdef");
    for n in 0..100 {
        let record = ContainerRecord {
            version: record::VERSION,
            id: format!("c{n}"),
            namespace: "k8s.io".into(),
            namespaces: ["pid", "network", "ipc", "uts", "mount"].iter().map(|k| ((*k).into(), (4, n))).collect(),
            ..ContainerRecord::default()
        };
        let dir = root.join("k8s.io").join(&record.id);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(record::FILE), serde_json::to_vec(&record).unwrap()).unwrap();
        fs::set_permissions(dir.join(record::FILE), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let start = cpu();
    let found = record::load_node(&node.base.join("records")).unwrap();
    let read = cpu() - start;
    assert_eq!(found.records.len(), 100);
    println!("eight binds among 200 mounts: {judged:?} CPU; a hundred records: {read:?} CPU");
}

fn bind(source: &str) -> Mount {
    Mount {
        index: 0,
        destination: "/d".into(),
        kind: "bind".into(),
        source: source.into(),
        options: vec![],
        unknown_options: vec![],
        writable: true,
        propagation: None,
        object: Fact::default(),
        idmap: None,
    }
}

/// A small tree on a tmpfs of its own, which goes with all that is mounted on it.
struct Node {
    base: PathBuf,
    sensitive: Vec<String>,
}

impl Drop for Node {
    fn drop(&mut self) {
        umount2(&self.base, MntFlags::MNT_DETACH).unwrap();
    }
}

impl Node {
    fn new() -> Self {
        let base = PathBuf::from("/mnt");
        mount(Some("none"), &base, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        let sensitive = ["/mnt/secret", "/mnt/var/lib/kubelet", "/etc"].map(String::from).to_vec();
        let node = Self { base, sensitive };
        for folder in ["secret/deep", "opt/plain", "a", "b", "c", "up", "work", "var/lib/kubelet"] {
            node.make(folder);
        }
        fs::write(node.base.join("secret/key"), "").unwrap();
        node
    }

    fn make(&self, folder: &str) -> String {
        let path = self.base.join(folder);
        fs::create_dir_all(&path).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn bind(&self, from: &str, to: &str) {
        let to = self.base.join(to);
        mount(Some(from), &to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    }

    fn mount(&self, kind: &str, to: &str, data: &str) {
        let to = self.make(to);
        mount(Some("none"), to.as_str(), Some(kind), MsFlags::empty(), Some(data)).unwrap();
    }

    fn fact(&self, source: &str) -> Fact<Object> {
        let kubelet = self.base.join("var/lib/kubelet");
        let context = MountContext {
            sensitive: &self.sensitive,
            kubelet_root: kubelet.to_str().unwrap(),
            containerd_root: "/mnt/var/lib/containerd",
            containerd_state: "/mnt/run/containerd",
            sandbox_id: "s1",
            pod_uid: "u1",
            container_id: "c1",
            container_name: "app",
        };
        let source = if source.starts_with('/') { PathBuf::from(source) } else { self.base.join(source) };
        let mut mounts = [bind(source.to_str().unwrap())];
        mounts::resolve(&mut mounts, &context);
        mounts[0].object.clone()
    }

    fn object(&self, source: &str) -> Object {
        match self.fact(source) {
            Fact::Is(object) => object,
            other => panic!("{source}: {other:?}"),
        }
    }

    #[track_caller]
    fn touches(&self, source: &str, expected: &[(&str, &str)]) {
        let object = self.object(source);
        let expected: Vec<_> = expected.iter().map(|&(p, r)| (p.to_owned(), r.to_owned())).collect();
        assert_eq!(object.touches, expected, "{source}: {object:?}");
        assert_eq!(object.origin, Origin::Host, "{source}");
    }

    #[track_caller]
    fn origin(&self, source: &str, expected: Origin) {
        let object = self.object(source);
        assert_eq!(object.origin, expected, "{source}: {object:?}");
    }
}

const SECRET: &str = "/mnt/secret";
const KUBELET: &str = "/mnt/var/lib/kubelet";

fn direct(node: &Node) {
    node.touches("secret", &[(SECRET, "is")]);
    node.touches("secret/deep", &[(SECRET, "inside")]);
    node.touches("secret/key", &[(SECRET, "inside")]);
    node.touches("var", &[(KUBELET, "contains")]);
    node.touches("opt/plain", &[]);
    let mut expected = vec![("/etc", "contains"), (SECRET, "contains"), (KUBELET, "contains")];
    expected.extend(views());
    node.touches("/", &expected);
    fs::hard_link(node.base.join("secret/key"), node.base.join("opt/other")).unwrap();
    assert_eq!(node.object("opt/other").links, 2);
}

/// Views of the kernel that are mounted on this machine, as touches of `/`.
fn views() -> Vec<(&'static str, &'static str)> {
    let table = boltseal_evidence::mountinfo::Table::read().unwrap();
    let known = [
        "proc",
        "sysfs",
        "cgroup",
        "cgroup2",
        "devtmpfs",
        "devpts",
        "securityfs",
        "debugfs",
        "tracefs",
        "bpf",
        "configfs",
        "fusectl",
        "pstore",
        "mqueue",
        "hugetlbfs",
        "nsfs",
        "efivarfs",
        "binfmt_misc",
        "autofs",
        "rpc_pipefs",
        "nfsd",
    ];
    let mut found: Vec<_> = known
        .iter()
        .filter(|k| table.entries.iter().any(|e| e.fstype == **k))
        .map(|k| (Box::leak(format!("fstype:{k}").into_boxed_str()) as &'static str, "contains"))
        .collect();
    found.sort_unstable();
    found
}

fn by_symlink(node: &Node) {
    symlink(SECRET, node.base.join("opt/l")).unwrap();
    symlink("../opt", node.base.join("a/up")).unwrap();
    node.touches("opt/l", &[(SECRET, "is")]);
    node.touches("a/up/l/deep", &[(SECRET, "inside")]);
    assert_eq!(node.object("a/up/l").path, SECRET);
}

fn by_bind(node: &Node) {
    node.bind(SECRET, "a");
    node.touches("a", &[(SECRET, "is")]);
    node.touches("a/deep", &[(SECRET, "inside")]);
    node.bind("/mnt/var/lib", "b");
    node.touches("b", &[(KUBELET, "contains")]);
    node.bind("/mnt", "c");
    node.touches("c/secret/deep", &[(SECRET, "inside")]);
    node.bind("/etc", "opt/plain");
    node.touches("opt/plain", &[("/etc", "is")]);
    fs::write(node.base.join("opt/file"), "").unwrap();
    node.bind("/mnt/secret/key", "opt/file");
    node.touches("opt/file", &[(SECRET, "inside")]);
}

fn by_overlay(node: &Node) {
    node.mount("overlay", "o", "lowerdir=/mnt/a:/mnt/secret");
    node.touches("o", &[(SECRET, "is")]);
    node.touches("o/deep", &[(SECRET, "inside")]);
    node.mount("overlay", "oo", "lowerdir=/mnt/o:/mnt/b");
    node.touches("oo/deep", &[(SECRET, "inside")]);
    node.mount("overlay", "ov", "lowerdir=/mnt/var:/mnt/a");
    node.touches("ov", &[(KUBELET, "contains")]);
    node.touches("ov/lib/kubelet", &[(KUBELET, "is")]);
    node.make("secret/up");
    node.make("secret/work");
    node.mount("overlay", "ou", "lowerdir=/mnt/a,upperdir=/mnt/secret/up,workdir=/mnt/secret/work");
    node.touches("ou", &[(SECRET, "inside")]);
    node.mount("overlay", "clean", "lowerdir=/mnt/a,upperdir=/mnt/up,workdir=/mnt/work");
    node.touches("clean", &[]);
    node.make("gone");
    node.mount("overlay", "og", "lowerdir=/mnt/gone:/mnt/a");
    fs::rename(node.base.join("gone"), node.base.join("went")).unwrap();
    assert!(matches!(node.fact("og"), Fact::Unknown(_)), "a layer out of sight");
}

fn below_the_source(node: &Node) {
    let inner = node.make("opt/plain/x/y");
    node.bind(SECRET, inner.strip_prefix("/mnt/").unwrap());
    node.touches("opt/plain", &[(SECRET, "contains")]);
    node.touches("opt/plain/x", &[(SECRET, "contains")]);
    node.touches("opt/plain/x/y", &[(SECRET, "is")]);
    let more = node.make("a/z");
    node.mount("overlay", more.strip_prefix("/mnt/").unwrap(), "lowerdir=/mnt/secret/deep:/mnt/b");
    node.touches("a", &[(SECRET, "contains")]);
}

/// The file system that is mounted below a sensitive path is sensitive by its other names as well.
fn own_file_system(node: &Node) {
    node.mount("tmpfs", "secret/disk", "");
    node.make("secret/disk/x");
    node.bind("/mnt/secret/disk", "a");
    node.touches("a", &[(SECRET, "inside")]);
    node.touches("a/x", &[(SECRET, "inside")]);
    // A part of an open file system that is only bound there makes nothing of the rest sensitive.
    node.mount("tmpfs", "b", "");
    let part = node.make("b/part");
    node.make("secret/bound");
    node.bind(&part, "secret/bound");
    node.touches("b", &[]);
    // Once it is nowhere else, what is bound there is all of it.
    node.bind("/mnt/secret/bound", "c");
    umount2(&node.base.join("b"), MntFlags::MNT_DETACH).unwrap();
    node.touches("c", &[(SECRET, "inside")]);
}

fn kernel_view(node: &Node) {
    node.mount("proc", "p", "");
    node.touches("p", &[("fstype:proc", "is")]);
    node.touches("p/sys", &[("fstype:proc", "is")]);
    node.mount("proc", "opt/plain/p", "");
    node.touches("opt/plain", &[("fstype:proc", "contains")]);
}

fn kubelet_volumes(node: &Node) {
    let pod = "var/lib/kubelet/pods/u1";
    let volumes = format!("{pod}/volumes/kubernetes.io~");
    let kubelet = |name: &str| Origin::Kubelet(name.into());
    node.make(&format!("{volumes}empty-dir/tmp/sub"));
    node.origin(&format!("{volumes}empty-dir/tmp"), kubelet("empty-dir"));
    node.mount("tmpfs", &format!("{volumes}secret/s"), "");
    node.origin(&format!("{volumes}secret/s"), kubelet("secret"));
    let subpath = format!("{pod}/volume-subpaths/tmp/app/0");
    node.make(&subpath);
    node.bind(&format!("/mnt/{volumes}empty-dir/tmp/sub"), &subpath);
    node.origin(&subpath, kubelet("volume-subpath"));
    let staged = "var/lib/kubelet/plugins/kubernetes.io/csi/d/1/globalmount";
    node.mount("tmpfs", staged, "");
    node.make(&format!("{volumes}csi/v/mount"));
    node.bind(&format!("/mnt/{staged}"), &format!("{volumes}csi/v/mount"));
    node.origin(&format!("{volumes}csi/v/mount"), kubelet("csi"));
    // The same volume in another pod, and a subPath of it.
    let other = node.make("var/lib/kubelet/pods/u2/volumes/kubernetes.io~csi/v/mount");
    node.bind(&format!("/mnt/{staged}"), other.strip_prefix("/mnt/").unwrap());
    node.origin(&format!("{volumes}csi/v/mount"), kubelet("csi"));
    let part = node.make(&format!("{staged}/data"));
    let subpath = format!("{pod}/volume-subpaths/v/app/1");
    node.make(&subpath);
    node.bind(&part, &subpath);
    node.origin(&subpath, kubelet("volume-subpath"));
}

fn kubelet_look_alikes(node: &Node) {
    let pod = "var/lib/kubelet/pods/u1";
    // A subPath of a hostPath volume: kubelet binds any host folder into the pod's folder.
    let subpath = format!("{pod}/volume-subpaths/host/app/0");
    node.make(&subpath);
    node.bind("/mnt/opt/plain", &subpath);
    node.origin(&subpath, Origin::Host);
    let secret = format!("{pod}/volumes/kubernetes.io~csi/v/mount");
    node.make(&secret);
    node.bind(SECRET, &secret);
    node.touches(&secret, &[(SECRET, "is"), (KUBELET, "inside")]);
    let overlay = format!("{pod}/volumes/kubernetes.io~empty-dir/o");
    node.mount("overlay", &overlay, "lowerdir=/mnt/secret:/mnt/a");
    node.touches(&overlay, &[(SECRET, "is"), (KUBELET, "inside")]);
    // A file system that is mounted elsewhere as well is not the pod's alone.
    node.mount("tmpfs", "opt/shared", "");
    let shared = format!("{pod}/volumes/kubernetes.io~secret/s");
    node.make(&shared);
    node.bind("/mnt/opt/shared", &shared);
    node.origin(&shared, Origin::Host);
    // Something sensitive mounted deep in an own volume.
    let deep = format!("{pod}/volumes/kubernetes.io~empty-dir/e/x");
    node.make(&deep);
    node.bind(SECRET, &deep);
    node.origin(&format!("{pod}/volumes/kubernetes.io~empty-dir/e"), Origin::Host);
    // A subPath of a CSI volume that only another pod claims.
    let staged = "var/lib/kubelet/plugins/kubernetes.io/csi/d/2/globalmount";
    node.mount("tmpfs", staged, "");
    let claimed = node.make("var/lib/kubelet/pods/u2/volumes/kubernetes.io~csi/w/mount");
    node.bind(&format!("/mnt/{staged}"), claimed.strip_prefix("/mnt/").unwrap());
    let subpath = format!("{pod}/volume-subpaths/w/app/0");
    node.make(&subpath);
    node.bind(&format!("/mnt/{staged}"), &subpath);
    node.origin(&subpath, Origin::Host);
    // Another pod's secret, dressed as a CSI volume.
    let token = "var/lib/kubelet/pods/u2/volumes/kubernetes.io~secret/t";
    node.mount("tmpfs", token, "");
    let dressed = format!("{pod}/volumes/kubernetes.io~csi/t/mount");
    node.make(&dressed);
    node.bind(&format!("/mnt/{token}"), &dressed);
    node.origin(&dressed, Origin::Host);
    // Another pod's volume, bound into this pod's folder.
    let other = node.make("var/lib/kubelet/pods/u2/volumes/kubernetes.io~empty-dir/e");
    let stolen = format!("{pod}/volumes/kubernetes.io~empty-dir/stolen");
    node.make(&stolen);
    node.bind(&other, &stolen);
    node.origin(&stolen, Origin::Host);
}

fn sandbox_shm(node: &Node) {
    let sandbox = "run/containerd/io.containerd.grpc.v1.cri/sandboxes";
    node.mount("tmpfs", &format!("{sandbox}/s1/shm"), "size=64k");
    node.origin(&format!("{sandbox}/s1/shm"), Origin::Cri("shm".into()));
    node.mount("tmpfs", &format!("{sandbox}/s2/shm"), "size=64k");
    node.origin(&format!("{sandbox}/s2/shm"), Origin::Host);
    node.bind(&format!("/mnt/{sandbox}/s1/shm"), "opt/plain");
    node.origin(&format!("{sandbox}/s1/shm"), Origin::Host);
}

/// A namespace that a bind mount pins is the same object as that of a process in it.
fn pinned_namespace(node: &Node) {
    fs::write(node.base.join("net"), "").unwrap();
    node.bind("/proc/self/ns/net", "net");
    let own = namespaces::object("/proc/self/ns/net", "network").unwrap();
    assert_eq!(namespaces::object("/mnt/net", "network"), Ok(own));
    assert!(namespaces::object("/mnt/net", "ipc").unwrap_err().contains("net:["));
    assert!(namespaces::object("/mnt/secret/key", "network").unwrap_err().contains("no namespace"));
    let origin = |path: &Path, is_sandbox: bool| {
        let listed = vec![Namespace {
            kind: "network".into(),
            origin: Fact::default(),
            path: path.to_str().unwrap().into(),
            object: None,
        }];
        let mut all = Namespaces { listed };
        let records = Records::default();
        let context = NamespaceContext {
            records: &records,
            namespace: "n",
            id: "c",
            sandbox_id: "",
            is_sandbox,
            cri_netns: None,
            cri_userns: None,
        };
        namespaces::resolve(&mut all, &context);
        all.listed[0].origin.clone()
    };
    // The one that we run in counts as the host's, whoever pins it.
    assert_eq!(origin(Path::new("/mnt/net"), true), Fact::Is(NamespaceOrigin::Host));
    // One of its own, pinned by a process that has gone.
    fs::write(node.base.join("other"), "").unwrap();
    let made = Command::new("unshare").args(["--net=/mnt/other", "true"]).status().unwrap();
    assert!(made.success());
    assert_eq!(origin(Path::new("/mnt/other"), true), Fact::Is(NamespaceOrigin::OwnPod));
    assert!(matches!(origin(Path::new("/mnt/other"), false), Fact::Unknown(_)));
    assert_eq!(origin(Path::new("/mnt/none"), true), Fact::Absent);
}
