//! Places on file systems, and how a place relates to one of the sensitive list.
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A place on a file system, the same for all names of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) device: (u32, u32),
    pub(crate) path: PathBuf,
}

impl Key {
    pub(crate) fn is_inside(&self, other: &Self) -> bool {
        self.device == other.device && within(&self.path, &other.path)
    }
}

/// `path` is `base` or below it. Both are as the kernel writes paths: no double slash, none at the end, no dots. (The
/// comparison by components in std is too slow for each mount of a node against each sensitive path.)
pub(crate) fn within(path: &Path, base: &Path) -> bool {
    let (path, base) = (path.as_os_str().as_bytes(), base.as_os_str().as_bytes());
    base == b"/" && path.first() == Some(&b'/')
        || path.strip_prefix(base).is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
}

/// A path of the policy's sensitive list.
pub(crate) struct Sensitive {
    pub(crate) name: String,
    pub(crate) canonical: PathBuf,
    pub(crate) keys: Vec<Key>,
    /// Roots of the file systems that are mounted below it.
    pub(crate) below: Vec<Key>,
}

impl Sensitive {
    pub(crate) fn relation(&self, key: &Key) -> Option<&'static str> {
        let is_root = self.canonical == Path::new("/");
        for own in &self.keys {
            if key == own {
                return Some("is");
            }
            if key.is_inside(own) && !is_root {
                return Some("inside");
            }
            if own.is_inside(key) {
                return Some("contains");
            }
        }
        if self.below.iter().any(|root| key.is_inside(root)) {
            return Some("inside");
        }
        self.below.iter().any(|root| root.is_inside(key)).then_some("contains")
    }

    pub(crate) fn relation_of_path(&self, path: &Path) -> Option<&'static str> {
        if path == self.canonical {
            Some("is")
        } else if within(&self.canonical, path) {
            Some("contains")
        } else {
            (within(path, &self.canonical) && self.canonical != Path::new("/")).then_some("inside")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sensitive(canonical: &str, own: (u32, &str), below: &[(u32, &str)]) -> Sensitive {
        let key = |(minor, path): (u32, &str)| Key { device: (0, minor), path: path.into() };
        Sensitive {
            name: canonical.into(),
            canonical: canonical.into(),
            keys: vec![key(own)],
            below: below.iter().copied().map(key).collect(),
        }
    }

    fn key(minor: u32, path: &str) -> Key {
        Key { device: (0, minor), path: path.into() }
    }

    #[test]
    fn relations_in_both_directions() {
        let etc = sensitive("/etc", (1, "/etc"), &[(2, "/")]);
        for (found, expected) in [
            (key(1, "/etc"), Some("is")),
            (key(1, "/etc/ssh"), Some("inside")),
            (key(1, "/"), Some("contains")),
            (key(1, "/etcetera"), None),
            (key(2, "/x"), Some("inside")),
            (key(3, "/etc"), None),
        ] {
            assert_eq!(etc.relation(&found), expected, "{found:?}");
        }
        let root = sensitive("/", (1, "/"), &[]);
        assert_eq!(root.relation(&key(1, "/")), Some("is"));
        assert_eq!(root.relation(&key(1, "/opt")), None);
        assert_eq!(root.relation_of_path(Path::new("/opt")), None);
    }

    #[test]
    fn within_ends_at_a_slash() {
        for (path, base, expected) in [
            ("/a", "/a", true),
            ("/a/b", "/a", true),
            ("/ab", "/a", false),
            ("/a", "/a/b", false),
            ("/a", "/", true),
            ("/", "/", true),
            ("net:[1]", "/", false),
        ] {
            assert_eq!(within(Path::new(path), Path::new(base)), expected, "{path} {base}");
        }
    }
}
