//! What escapes from containers have been built on, each tried with its own success check. A check says Ok with what it saw
//! only when the thing was really done; it is made in a child, so that it changes nothing for the next one.
mod code;
mod files;
mod kernel;
mod neighbour;
mod network;

use crate::child::{Ended, run};
use nix::errno::Errno;
use probe::Primitive;

/// What the checks are given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Given {
    /// Folders in which files can be made.
    pub(crate) folders: Vec<String>,
    /// A program of root's with the set-uid bit.
    pub(crate) set_uid: String,
    /// Descriptors that were open when the probe began.
    pub(crate) inherited: Vec<String>,
}

/// Ok: done, with what was seen. Err: why not.
type Seen = Result<String, String>;
type Check = fn(&Given) -> Seen;

const ALL: [(&str, Check); 36] = [
    ("user namespace", kernel::user_namespace),
    ("mount", kernel::mount),
    ("join a namespace", kernel::join_namespace),
    ("change root", kernel::change_root),
    ("file by its handle", kernel::handle),
    ("io_uring", kernel::io_uring),
    ("userfaultfd", kernel::userfaultfd),
    ("eBPF", kernel::bpf),
    ("perf events", kernel::perf),
    ("keyring", kernel::keyring),
    ("kernel module", kernel::module),
    ("kexec", kernel::kexec),
    ("kernel log", kernel::log),
    ("local descriptor table", kernel::descriptor_table),
    ("no address randomisation", kernel::personality),
    ("i386 system calls", kernel::i386),
    ("ptrace", neighbour::ptrace),
    ("memory of another process", neighbour::memory),
    ("descriptor of another process", neighbour::descriptor),
    ("AF_ALG socket", network::alg),
    ("AF_VSOCK socket", network::vsock),
    ("netfilter by netlink", network::netfilter),
    ("raw socket", network::raw),
    ("packet socket", network::packet),
    ("socket of a rare family", network::rare),
    ("container engine's socket", network::engine),
    ("shim's abstract socket", network::shim),
    ("cgroup", files::cgroup),
    ("release_agent", files::release_agent),
    ("core_pattern", files::core_pattern),
    ("sysctl", files::sysctl),
    ("sysrq-trigger", files::sysrq),
    ("memory of the machine", files::memory),
    ("block device", files::block),
    ("program without a file", code::from_memory),
    ("set-uid program", code::set_uid),
];

pub(crate) fn all(given: &Given) -> Vec<Primitive> {
    let mut done: Vec<Primitive> = ALL.iter().map(|(name, check)| primitive(name, attempt(given, *check))).collect();
    // Found out before the probe opened anything.
    done.push(primitive(
        "inherited descriptor",
        match given.inherited.as_slice() {
            [] => Err("none above 2".into()),
            list => Ok(list.join(", ")),
        },
    ));
    done
}

fn primitive(name: &str, seen: Seen) -> Primitive {
    let open = seen.is_ok();
    Primitive { name: name.into(), open, said: seen.unwrap_or_else(|why| why) }
}

fn attempt(given: &Given, check: Check) -> Seen {
    let ended = run(|| match check(given) {
        Ok(saw) => format!("+{saw}").into_bytes(),
        Err(why) => format!("-{why}").into_bytes(),
    });
    match ended.map_err(|errno| errno.to_string())? {
        Ended::Said(said) => {
            let said = String::from_utf8_lossy(&said).into_owned();
            match said.strip_prefix('+') {
                Some(saw) => Ok(saw.to_owned()),
                None => Err(said.trim_start_matches('-').to_owned()),
            }
        }
        other => Err(format!("{other:?}")),
    }
}

/// The first attempt that succeeds, or why each did not.
fn any(attempts: impl IntoIterator<Item = (String, Result<(), Errno>)>) -> Seen {
    let mut why = Vec::new();
    for (name, outcome) in attempts {
        match outcome {
            Ok(()) => return Ok(name),
            Err(errno) => why.push(format!("{name} {errno:?}")),
        }
    }
    if why.is_empty() { Err("there is none here".into()) } else { Err(why.join(", ")) }
}

/// Address of something, as an argument of a call.
fn address<T>(of: &T) -> u64 {
    u64::try_from(std::ptr::from_ref(of).addr()).unwrap_or_default()
}

/// The same of something that the kernel writes to.
fn address_mut<T>(of: &mut T) -> u64 {
    u64::try_from(std::ptr::from_mut(of).addr()).unwrap_or_default()
}

/// Descriptors above 2, but for the one that lists them.
pub(crate) fn inherited() -> Result<Vec<String>, String> {
    let folder = "/proc/self/fd";
    let names: Vec<String> = std::fs::read_dir(folder)
        .map_err(|error| format!("{folder}: {error}"))?
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{folder}: {error}"))?;
    let above = names.into_iter().filter(|name| name.parse::<u32>().is_ok_and(|number| number > 2));
    // The listing's own is closed by now.
    Ok(above
        .filter_map(|name| {
            let to = std::fs::read_link(format!("{folder}/{name}")).ok()?;
            Some(format!("{name} -> {}", to.display()))
        })
        .collect())
}
