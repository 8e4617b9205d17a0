//! The process as /proc/self shows it.
use probe::Process;
use std::collections::BTreeMap;
use std::fs;

const SETS: [&str; 5] = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];

/// `host`: the host's own namespaces by kind, (inode numbers of nsfs).
pub(crate) fn look(host: &BTreeMap<String, u64>) -> Result<Process, String> {
    let status = fs::read_to_string("/proc/self/status").map_err(|error| format!("/proc/self/status: {error}"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).unwrap_or_default()
    };
    let number = |name: &str| field(name).split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0);
    let mut capabilities = BTreeMap::new();
    // gVisor shows no ambient set.
    for set in SETS.into_iter().filter(|set| !field(set).is_empty()) {
        let bits = u64::from_str_radix(field(set), 16).map_err(|error| format!("{set}: {error}"))?;
        capabilities.insert(set.to_owned(), (0..64).filter(|bit| bits >> bit & 1 == 1).collect());
    }
    Ok(Process {
        uid: nix::unistd::getuid().as_raw(),
        no_new_privs: number("NoNewPrivs") == 1,
        seccomp: number("Seccomp"),
        seccomp_filters: number("Seccomp_filters"),
        label: fs::read_to_string("/proc/self/attr/current").unwrap_or_default().trim_matches(['\0', '\n']).to_owned(),
        capabilities,
        host_namespaces: host
            .iter()
            .filter(|(kind, inode)| namespace(kind) == Some(**inode))
            .map(|(kind, _)| kind.clone())
            .collect(),
    })
}

/// Inode of this process's own namespace of that kind: the link reads `kind:[inode]`.
fn namespace(kind: &str) -> Option<u64> {
    let link = fs::read_link(format!("/proc/self/ns/{kind}")).ok()?;
    link.to_str()?.split_once(":[")?.1.strip_suffix(']')?.parse().ok()
}
