//! An image's name, as containerd gives it: `host/path:tag`, with a digest or without.
use crate::url::host_and_port;

/// Longest repository path, as the distribution specification has it.
const MAX_PATH: usize = 255;

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// `host` or `host:port`, as in the name: what policies, credentials and `plain_http` are written for.
    pub registry: String,
    /// Host and port to be asked.
    pub host: String,
    pub port: Option<u16>,
    pub path: String,
}

impl Reference {
    /// Reads a full name; a tag and a digest behind it say nothing here.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(name: &str) -> Result<Self, String> {
        let odd = |why: &str| format!("the image name {}: {why}", crate::shown(name));
        let (registry, rest) = name.split_once('/').ok_or_else(|| odd("no registry in it"))?;
        let rest = rest.split('@').next().unwrap_or_default();
        let path = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => path,
            _ => rest,
        };
        let (host, port) = host_and_port(registry).ok_or_else(|| odd("its registry is no host"))?;
        // Elsewhere `a/b` is a repository of Docker's registry; containerd always says so.
        if !host.contains(['.', ':']) && port.is_none() && host != "localhost" {
            return Err(odd("no registry in it"));
        }
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
        let part =
            |part: &str| part.bytes().all(plain) && part.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if path.len() > MAX_PATH || !path.split('/').all(part) {
            return Err(odd("its path is none of a repository"));
        }
        let host =
            if matches!(host.as_str(), "docker.io" | "index.docker.io") { "registry-1.docker.io".into() } else { host };
        Ok(Self { registry: registry.to_ascii_lowercase(), host, port, path: path.to_owned() })
    }

    /// `registry/path`, as a policy names it.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.registry, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_containerd() {
        let read = |name: &str| {
            let found = Reference::parse(name).unwrap();
            (found.registry, found.host, found.port, found.path)
        };
        let plain = |registry: &str, host: &str, port, path: &str| (registry.into(), host.into(), port, path.into());
        assert_eq!(read("127.0.0.1:5000/a/b:1"), plain("127.0.0.1:5000", "127.0.0.1", Some(5000), "a/b"));
        assert_eq!(
            read("docker.io/library/busybox@sha256:00"),
            plain("docker.io", "registry-1.docker.io", None, "library/busybox")
        );
        assert_eq!(read("ghcr.io/a__b/c-d"), plain("ghcr.io", "ghcr.io", None, "a__b/c-d"));
        assert_eq!(read("[::1]:5000/a:x@sha256:00"), plain("[::1]:5000", "::1", Some(5000), "a"));
    }

    #[test]
    fn what_is_no_name_of_an_image_is_refused() {
        for bad in [
            "",
            "busybox",
            "library/busybox",
            "a.b/",
            "a.b//c",
            "a.b/../c",
            "a.b/c?x",
            "a.b/C",
            "a.b/c%2f",
            "u@a.b/c",
            "a.b/c d",
            "a.b/-",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
        assert!(Reference::parse(&format!("a.b/{}", "x".repeat(256))).is_err());
    }
}
