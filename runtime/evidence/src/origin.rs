//! Whether a bind source was made by CRI or by kubelet for this very pod.
//!
//! A path of the right shape proves nothing by itself: kubelet binds a subPath of any host folder to a place in the
//! pod's own folder. So the object must also be on the file system where that folder is, inside of it, or on one that
//! is mounted nowhere else; and it may touch nothing sensitive but what the pod's folder lies in.
use crate::mounts::{Resolved, Resolver};
use boltseal_policy::facts::Origin;
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// CRI's folder below containerd's root and state: 1.x and 2.x use the same (2.x keeps it for compatibility).
const CRI: &str = "io.containerd.grpc.v1.cri";

/// A folder that belongs to this pod alone, and what in it counts.
struct Home {
    folder: PathBuf,
    /// The rest of the path -> what it is.
    name: fn(&[&str], container: &str) -> Option<Origin>,
}

pub(crate) fn of(
    resolver: &Resolver<'_>,
    source: &Path,
    found: &Resolved,
    touches: &BTreeSet<(String, String)>,
) -> Result<Origin, String> {
    for home in homes(resolver) {
        let Ok(rest) = source.strip_prefix(&home.folder) else { continue };
        let parts: Option<Vec<&str>> = rest
            .components()
            .map(|c| match c {
                Component::Normal(name) => name.to_str(),
                _ => None,
            })
            .collect();
        let Some(origin) = parts.and_then(|parts| (home.name)(&parts, resolver.context.container_name)) else {
            continue;
        };
        let Ok(folder) = resolver.resolve(&home.folder) else { continue };
        // No link on the way: the real path is the folder's and then the same names.
        let real = found.canonical == folder.canonical.join(rest);
        let plain = found.kind == "folder" || (found.kind == "file" && found.links == 1);
        let explained = touches.iter().all(|(name, relation)| {
            relation == "inside" && resolver.sensitive_path(name).is_some_and(|path| folder.canonical.starts_with(path))
        });
        if real && plain && explained && is_own(resolver, &folder, found, &origin) {
            return Ok(origin);
        }
    }
    Ok(Origin::Host)
}

/// The object is inside the pod's folder, or on a file system that was mounted for this pod and nobody else.
fn is_own(resolver: &Resolver<'_>, folder: &Resolved, found: &Resolved, origin: &Origin) -> bool {
    if found.key.is_inside(&folder.key) {
        return true;
    }
    if found.fstype == "overlay" {
        return false;
    }
    let same_device = || resolver.table.entries.iter().filter(|e| e.device == found.key.device);
    if same_device().all(|e| e.point.starts_with(&folder.canonical)) {
        return true;
    }
    // CSI drivers stage a volume once per node, and kubelet binds it into each pod that claims it. A subPath of such a
    // volume is the pod's if the volume itself is.
    let volumes = folder.canonical.join("volumes/kubernetes.io~csi");
    let claimed = || same_device().any(|e| e.point.starts_with(&volumes) && found.key.path.starts_with(&e.root));
    let is_csi = match origin {
        Origin::Kubelet(kind) => kind == "csi" || (kind == "volume-subpath" && claimed()),
        Origin::Host | Origin::Cri(_) => false,
    };
    let Some(kubelet) = folder.canonical.ancestors().nth(2).filter(|_| is_csi) else { return false };
    let (pods, staging) = (kubelet.join("pods"), kubelet.join("plugins/kubernetes.io/csi"));
    let is_volume = |point: &Path| {
        let names = ["kubernetes.io~csi", "volume-subpaths"];
        point.starts_with(&pods) && point.iter().any(|part| names.iter().any(|name| part == *name))
    };
    same_device().all(|e| is_volume(&e.point) || e.point.starts_with(&staging))
}

fn homes(resolver: &Resolver<'_>) -> Vec<Home> {
    let context = resolver.context;
    let mut homes = Vec::new();
    let mut home = |root: &str, middle: &str, id: &str, name| {
        // An empty or odd id would make the folder of another.
        let plain = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if plain && !id.starts_with('.') && Path::new(root).is_absolute() {
            homes.push(Home { folder: Path::new(root).join(middle).join(id), name });
        }
    };
    home(context.containerd_root, &format!("{CRI}/sandboxes"), context.sandbox_id, sandbox_file);
    home(context.containerd_state, &format!("{CRI}/sandboxes"), context.sandbox_id, sandbox_shm);
    home(context.containerd_root, &format!("{CRI}/containers"), context.container_id, image_volume);
    home(context.kubelet_root, "pods", context.pod_uid, pod_file);
    homes
}

fn sandbox_file(parts: &[&str], _: &str) -> Option<Origin> {
    match parts {
        [name @ ("hostname" | "hosts" | "resolv.conf")] => Some(Origin::Cri((*name).into())),
        _ => None,
    }
}

fn sandbox_shm(parts: &[&str], _: &str) -> Option<Origin> {
    (parts == ["shm"]).then(|| Origin::Cri("shm".into()))
}

/// What an image declares with VOLUME: a folder of CRI's for this container alone.
fn image_volume(parts: &[&str], _: &str) -> Option<Origin> {
    matches!(parts, ["volumes", _]).then(|| Origin::Cri("image-volume".into()))
}

fn pod_file(parts: &[&str], container: &str) -> Option<Origin> {
    let kind = match parts {
        ["etc-hosts"] => "etc-hosts",
        ["containers", name, _] if *name == container => "termination-log",
        ["volumes", plugin, _] => match plugin.strip_prefix("kubernetes.io~")? {
            kind @ ("empty-dir" | "configmap" | "secret" | "projected" | "downward-api") => kind,
            _ => return None,
        },
        ["volumes", "kubernetes.io~csi", _, "mount"] => "csi",
        ["volume-subpaths", _, name, _] if *name == container => "volume-subpath",
        _ => return None,
    };
    Some(Origin::Kubelet(kind.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::{MountContext, resolve};
    use boltseal_policy::facts::{Fact, Mount, Object};
    use std::fs;
    use std::os::unix::fs::symlink;

    struct Node {
        dir: tempfile::TempDir,
    }

    impl Node {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            for folder in [
                "kubelet/pods/u1/volumes/kubernetes.io~empty-dir/tmp",
                "kubelet/pods/u1/volumes/kubernetes.io~hostpath/x",
                "kubelet/pods/u1/containers/app",
                "kubelet/pods/u1/containers/other",
                "kubelet/pods/u1/volume-subpaths/v/app/0",
                "kubelet/pods/u1/volume-subpaths/v/other/0",
                "kubelet/pods/u2/volumes/kubernetes.io~empty-dir/tmp",
                "root/io.containerd.grpc.v1.cri/sandboxes/s1",
                "root/io.containerd.grpc.v1.cri/sandboxes/s2",
                "root/io.containerd.grpc.v1.cri/containers/c1/volumes/v",
                "opt",
            ] {
                fs::create_dir_all(dir.path().join(folder)).unwrap();
            }
            for file in [
                "kubelet/pods/u1/etc-hosts",
                "kubelet/pods/u1/containers/app/0123",
                "kubelet/pods/u1/containers/other/0123",
                "kubelet/etc-hosts",
                "kubelet/pods/etc-hosts",
                "root/io.containerd.grpc.v1.cri/sandboxes/s1/hosts",
                "root/io.containerd.grpc.v1.cri/sandboxes/s2/hosts",
                "root/io.containerd.grpc.v1.cri/sandboxes/s1/other",
            ] {
                fs::write(dir.path().join(file), "").unwrap();
            }
            Self { dir }
        }

        fn path(&self, path: &str) -> String {
            self.dir.path().join(path).to_str().unwrap().to_owned()
        }

        fn object(&self, source: &str) -> Fact<Object> {
            self.object_of("u1", &[], source)
        }

        /// For a pod of that id, with these on the sensitive list as well.
        fn object_of(&self, pod_uid: &str, more: &[&str], source: &str) -> Fact<Object> {
            let (kubelet, root, state) = (self.path("kubelet"), self.path("root"), self.path("state"));
            let mut sensitive = vec![kubelet.clone(), root.clone()];
            sensitive.extend(more.iter().map(|path| self.path(path)));
            let context = MountContext {
                sensitive: &sensitive,
                kubelet_root: &kubelet,
                containerd_root: &root,
                containerd_state: &state,
                sandbox_id: "s1",
                pod_uid,
                container_id: "c1",
                container_name: "app",
            };
            let mut mounts = [Mount {
                index: 0,
                destination: "/d".into(),
                kind: "bind".into(),
                source: self.path(source),
                options: vec![],
                unknown_options: vec![],
                writable: true,
                propagation: None,
                object: Fact::Absent,
                idmap: None,
            }];
            resolve(&mut mounts, &context);
            mounts[0].object.clone()
        }

        fn origin(&self, source: &str) -> Origin {
            origin(self.object(source))
        }
    }

    fn origin(object: Fact<Object>) -> Origin {
        match object {
            Fact::Is(object) => object.origin,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn own_files_of_the_pod() {
        let node = Node::new();
        for (path, origin) in [
            ("kubelet/pods/u1/etc-hosts", Origin::Kubelet("etc-hosts".into())),
            ("kubelet/pods/u1/containers/app/0123", Origin::Kubelet("termination-log".into())),
            ("kubelet/pods/u1/volumes/kubernetes.io~empty-dir/tmp", Origin::Kubelet("empty-dir".into())),
            ("kubelet/pods/u1/volume-subpaths/v/app/0", Origin::Kubelet("volume-subpath".into())),
            ("root/io.containerd.grpc.v1.cri/sandboxes/s1/hosts", Origin::Cri("hosts".into())),
            ("root/io.containerd.grpc.v1.cri/containers/c1/volumes/v", Origin::Cri("image-volume".into())),
        ] {
            assert_eq!(node.origin(path), origin, "{path}");
        }
    }

    #[test]
    fn what_only_looks_like_it() {
        let node = Node::new();
        for path in [
            "kubelet/pods/u2/volumes/kubernetes.io~empty-dir/tmp",
            "kubelet/pods/u1",
            "kubelet/pods/u1/containers/other/0123",
            "kubelet/pods/u1/volume-subpaths/v/other/0",
            "kubelet/pods/u1/volumes",
            "kubelet/pods/u1/volumes/kubernetes.io~hostpath/x",
            "kubelet/pods/u1/volumes/kubernetes.io~empty-dir/tmp/../../../../u2/volumes/kubernetes.io~empty-dir/tmp",
            "root/io.containerd.grpc.v1.cri/sandboxes/s2/hosts",
            "root/io.containerd.grpc.v1.cri/sandboxes/s1/other",
            "root/io.containerd.grpc.v1.cri/sandboxes/s1",
            "opt",
        ] {
            assert_eq!(node.origin(path), Origin::Host, "{path}");
        }
    }

    /// Whoever chose the id must not choose the folder.
    #[test]
    fn an_odd_id_makes_no_folder() {
        let node = Node::new();
        let of =
            |pod_uid: &str, rest: &str| origin(node.object_of(pod_uid, &[], &format!("kubelet/pods/{pod_uid}/{rest}")));
        assert_eq!(of("u1", "etc-hosts"), Origin::Kubelet("etc-hosts".into()));
        for odd in ["..", ".", "u2/../u1", "./u1", "../pods/u1", "u1/volumes/.."] {
            assert_eq!(of(odd, "etc-hosts"), Origin::Host, "{odd}");
        }
        assert_eq!(origin(node.object_of("", &[], "kubelet/pods/u1/etc-hosts")), Origin::Host);
    }

    /// Only what the pod's folder itself lies in is explained by it.
    #[test]
    fn a_sensitive_path_in_the_pods_own_folder_stays_sensitive() {
        let node = Node::new();
        let (folder, source) =
            ("kubelet/pods/u1/volumes/kubernetes.io~empty-dir", "kubelet/pods/u1/volumes/kubernetes.io~empty-dir/tmp");
        assert_eq!(origin(node.object_of("u1", &["kubelet/pods"], source)), Origin::Kubelet("empty-dir".into()));
        assert_eq!(origin(node.object_of("u1", &[folder], source)), Origin::Host);
    }

    #[test]
    fn links_and_hard_links_in_the_pods_folder() {
        let node = Node::new();
        let volumes = node.dir.path().join("kubelet/pods/u1/volumes/kubernetes.io~empty-dir");
        symlink(node.dir.path().join("opt"), volumes.join("evil")).unwrap();
        assert_eq!(node.origin("kubelet/pods/u1/volumes/kubernetes.io~empty-dir/evil"), Origin::Host);
        symlink("tmp", volumes.join("alias")).unwrap();
        assert_eq!(node.origin("kubelet/pods/u1/volumes/kubernetes.io~empty-dir/alias"), Origin::Host);
        fs::hard_link(node.dir.path().join("kubelet/pods/u1/etc-hosts"), node.dir.path().join("opt/h")).unwrap();
        assert_eq!(node.origin("kubelet/pods/u1/etc-hosts"), Origin::Host);
    }

    #[test]
    fn what_is_gone_is_absent() {
        assert_eq!(Node::new().object("kubelet/pods/u1/gone"), Fact::Absent);
    }
}
