//! What the policy in force grants, in words of its own.

/// What a start may be given beyond what everybody gets. Everything else must be refused.
#[derive(Debug, Clone, Copy)]
pub struct Grant {
    /// The rules are enforced; else they only warn, and only what is tightened is promised.
    pub enforced: bool,
    pub capabilities: &'static [&'static str],
    /// Sources of binds as they really are, and whether they may be written to.
    pub mounts: &'static [(&'static str, bool)],
    /// What CRI and kubelet made for this very pod.
    pub own: &'static [&'static str],
    /// Other names of sources: a link, and where it leads.
    pub links: &'static [(&'static str, &'static str)],
    /// Namespaces of this very pod, by path.
    pub own_namespaces: &'static [(&'static str, &'static str)],
    pub host_namespaces: &'static [&'static str],
    /// Path, kind, major, minor.
    pub devices: &'static [(&'static str, &'static str, i64, i64)],
    /// Beyond the safe ones.
    pub sysctls: &'static [&'static str],
    /// Volumes that stay executable.
    pub executable: &'static [&'static str],
    /// Stage and path.
    pub hooks: &'static [(&'static str, &'static str)],
    /// The end of every owner's name that counts.
    pub owners: &'static str,
    pub apparmor: &'static [&'static str],
    pub selinux: &'static [&'static str],
    /// The cgroup holds device rules.
    pub device_rules: bool,
    /// Where the bundle's root file system lies.
    pub rootfs: &'static str,
}

impl Grant {
    pub const NOTHING: Self = Self {
        enforced: true,
        capabilities: &[],
        mounts: &[],
        own: &[],
        links: &[],
        own_namespaces: &[],
        host_namespaces: &[],
        devices: &[],
        sysctls: &[],
        executable: &[],
        hooks: &[],
        owners: "@example.com",
        apparmor: &["boltseal-default"],
        selinux: &["boltseal_t", "container_t"],
        device_rules: true,
        rootfs: "/bundle/rootfs",
    };

    /// Where a bind's source really is.
    pub(super) fn real<'a>(&self, source: &'a str) -> &'a str {
        self.links.iter().find(|(name, _)| *name == source).map_or(source, |(_, real)| real)
    }

    /// The bind is the pod's own, or granted in this mode.
    pub(super) fn covers(&self, source: &str, writable: bool) -> bool {
        let real = self.real(source);
        self.own.contains(&real) || self.mounts.iter().any(|(granted, write)| *granted == real && (*write || !writable))
    }
}
