//! What is installed: binaries, containerd's configuration, policy, signatures, TPM, trail.
use super::Check;
use super::process::run;
use crate::paths::{SIGNATURES, TRAIL};
use crate::screen::count;
use crate::{explain, policy};
use boltseal_audit::Trail;
use boltseal_policy::Policy;
use std::fs::{self, read_dir, read_link, read_to_string};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where containerd, started by systemd, looks for shims.
pub(crate) const BIN: [&str; 4] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];
/// `runtime_type` in containerd's configuration.
const TYPE: &str = "io.containerd.boltseal.v1";

pub(crate) fn policy() -> (Option<Policy>, Check) {
    match policy::load() {
        Ok(loaded) => {
            let (keys, exceptions) = (
                count(loaded.policy.authorities.len(), "authority"),
                count(loaded.policy.exceptions.len(), "exception"),
            );
            let (digest, level) =
                (loaded.bundle.digest.get(..12).unwrap_or_default(), explain::level(loaded.policy.level));
            let fact = format!("{digest}.., level {level}, {keys}, {exceptions}");
            (Some(loaded.policy), Check::ok("policy", fact))
        }
        Err(policy::Bad(problems)) => {
            let more = if problems.len() > 1 { format!(" (+{} more)", problems.len() - 1) } else { String::new() };
            let fact = format!("{}{more}", problems.first().map_or("", String::as_str));
            (
                None,
                Check::fail(
                    "policy",
                    fact,
                    "see all of it with `boltseal policy lint`; without a policy nothing starts",
                ),
            )
        }
    }
}

pub(crate) fn tpm(policy: Option<&Policy>) -> Check {
    let address = policy.map_or("/dev/tpmrm0", |p| p.node.tpm.as_str());
    if let Some(socket) = address.strip_prefix("unix:") {
        let there = if Path::new(socket).exists() { "" } else { ", which is not there" };
        let check = Check::fail(
            "tpm",
            format!("a software TPM at {socket}{there} (BS-NOD-001)"),
            "use a hardware TPM: node.tpm = \"/dev/tpmrm0\"",
        );
        return if there.is_empty() { check.unless_excepted(policy, "BS-NOD-001", &["software-tpm"]) } else { check };
    }
    if Path::new(address).exists() {
        let enrolled = policy.is_some_and(|p| !p.node.attestation_key.is_empty());
        return if enrolled {
            Check::ok("tpm", address)
        } else {
            Check::fail("tpm", format!("{address}, but no key is enrolled (BS-NOD-001)"), "boltseal node enroll")
                .unless_excepted(policy, "BS-NOD-001", &["no-policy"])
        };
    }
    let fact = format!("{} is not there (BS-NOD-001)", if address.is_empty() { "/dev/tpmrm0" } else { address });
    Check::fail("tpm", fact, "enable the TPM in the firmware").unless_excepted(policy, "BS-NOD-001", &["no-tpm"])
}

pub(crate) fn binaries() -> Check {
    let ours = env!("CARGO_PKG_VERSION");
    let mut found = Vec::new();
    for (name, flag) in [("containerd-shim-boltseal-v1", "-v"), ("boltseal-runtime", "version")] {
        let Some(path) = BIN.iter().map(|dir| Path::new(dir).join(name)).find(|p| p.exists()) else {
            return Check::fail(
                "binaries",
                format!("{name} is not in {}", BIN.join(", ")),
                "install the programs of one release together",
            );
        };
        let meta = fs::metadata(&path);
        if !meta.is_ok_and(|m| m.uid() == 0 && m.mode() & 0o022 == 0) {
            return Check::fail(
                "binaries",
                format!("{} is not root's alone to change", path.display()),
                "chown root and chmod 0755 it",
            );
        }
        match run(&path, &[flag]) {
            Ok(text) if text.split_whitespace().any(|w| w == ours) => found.push(path.display().to_string()),
            Ok(text) => {
                return Check::fail(
                    "binaries",
                    format!("{} says {}, this is {ours}", path.display(), text.trim()),
                    "install the programs of one release together",
                );
            }
            Err(why) => return Check::fail("binaries", why, "install the programs of one release together"),
        }
    }
    Check::ok("binaries", format!("{ours}: {}", found.join(", ")))
}

/// The running containerd, and the configuration that it has read, as it renders it.
#[derive(Debug)]
pub(super) struct Dump {
    pub(super) pid: u32,
    pub(super) version: String,
    pub(super) config: String,
    pub(super) text: String,
}

/// What the checks of containerd look at, or the check that says why there is nothing.
pub(super) fn dump() -> Result<Dump, Check> {
    let Some((pid, exe)) = running("containerd") else {
        return Err(Check::fail("containerd", "is not running", "systemctl start containerd"));
    };
    let version = match run(&exe, &["--version"]) {
        Ok(text) => text.split_whitespace().nth(2).unwrap_or("?").to_owned(),
        Err(why) => return Err(Check::fail("containerd", why, "see why containerd does not answer")),
    };
    let config = config_of(&read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default());
    match run(&exe, &["--config", &config, "config", "dump"]) {
        Ok(text) => Ok(Dump { pid, version, config, text }),
        Err(why) => Err(Check::fail("containerd", format!("{version}, {why}"), "correct containerd's configuration")),
    }
}

/// Whether the running containerd has read a configuration that names boltseal.
pub(super) fn containerd(dump: &Dump) -> Check {
    let Dump { pid, version, config, text } = dump;
    if !text.contains(TYPE) {
        return Check::fail(
            "containerd",
            format!("{version}, {config} names no runtime of type {TYPE}"),
            "add the drop-in of integration/containerd and restart containerd",
        );
    }
    if !text.contains("boltseal.dev/*") {
        return Check::warn(
            "containerd",
            format!("{version}, but the owner's annotation is not handed on"),
            "pod_annotations = [\"boltseal.dev/*\"] in the drop-in",
        );
    }
    match (started(*pid), newest(Path::new(config), text)) {
        (Some(start), Some(changed)) if changed <= start => {
            Check::ok("containerd", format!("{version}, {config} names {TYPE}"))
        }
        (Some(_), Some(_)) => Check::warn(
            "containerd",
            format!("{version}, the configuration is younger than the process"),
            "systemctl restart containerd",
        ),
        _ => Check::warn(
            "containerd",
            format!("{version}, cannot tell whether {config} is loaded"),
            "systemctl restart containerd",
        ),
    }
}

fn running(name: &str) -> Option<(u32, PathBuf)> {
    let pids = read_dir("/proc").ok()?.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let mut all: Vec<(u32, PathBuf)> = pids
        .filter_map(|pid| {
            let exe = read_link(format!("/proc/{pid}/exe")).ok()?;
            (exe.file_name()?.to_str()? == name).then_some((pid, exe))
        })
        .collect();
    all.sort();
    all.into_iter().next()
}

/// The file that `--config` names on a command line whose words are separated by zero bytes.
fn config_of(cmdline: &str) -> String {
    let mut words = cmdline.split('\0');
    while let Some(word) = words.next() {
        if matches!(word, "-c" | "--config" | "-config") {
            return words.next().unwrap_or_default().to_owned();
        }
        if let Some(path) = word.strip_prefix("--config=").or_else(|| word.strip_prefix("-c=")) {
            return path.to_owned();
        }
    }
    "/etc/containerd/config.toml".into()
}

/// Seconds since the epoch when a process began. By the clock and the time since the boot: `btime` of /proc/stat is a whole
/// second, and would make a process older than a file that was written just before it.
fn started(pid: u32) -> Option<u64> {
    let stat = read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Field 22, counted behind the name, which may hold blanks and brackets; in hundredths of a second since boot.
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let uptime = read_to_string("/proc/uptime").ok()?;
    let (seconds, hundredths) = uptime.split_whitespace().next()?.split_once('.')?;
    let uptime = seconds.parse::<u64>().ok()? * 100 + hundredths.parse::<u64>().ok()?;
    let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_millis() / 10).ok()?;
    // Both are cut to a hundredth.
    Some((now + ticks + 2).checked_sub(uptime)? / 100)
}

/// When containerd's configuration last changed, the files that it imports included.
fn newest(config: &Path, dump: &str) -> Option<u64> {
    let seconds = |path: &Path| u64::try_from(fs::metadata(path).ok()?.mtime()).ok();
    let mut latest = seconds(config)?;
    for import in imports(dump) {
        let path = config.parent()?.join(import);
        // A pattern stands for its folder: the folder changes with its names, the files with their content.
        let files = match path.file_name()?.to_str()?.contains(['*', '?', '[']) {
            true => read_dir(path.parent()?).into_iter().flatten().filter_map(|e| Some(e.ok()?.path())).collect(),
            false => vec![path],
        };
        latest = files.iter().filter_map(|f| seconds(f)).fold(latest, u64::max);
    }
    Some(latest)
}

/// The strings of `imports = ["..", '..']` in containerd's own rendering of its configuration.
fn imports(dump: &str) -> Vec<String> {
    let Some(list) = dump.lines().find_map(|l| l.strip_prefix("imports = [")?.strip_suffix(']')) else {
        return Vec::new();
    };
    list.split(',')
        .map(|word| word.trim().trim_matches(['"', '\'']).to_owned())
        .filter(|word| !word.is_empty())
        .collect()
}

pub(crate) fn signatures() -> Check {
    let fix = "import some: boltseal sig import PATH";
    match fs::symlink_metadata(SIGNATURES) {
        Err(_) => Check::warn("signatures", format!("{SIGNATURES} is not there: every image is unsigned"), fix),
        Ok(meta) if !meta.is_dir() || meta.uid() != 0 || meta.mode() & 0o022 != 0 => Check::fail(
            "signatures",
            format!("{SIGNATURES} is not a folder that root alone may change"),
            "chown root and chmod 0755 it",
        ),
        Ok(_) => match read_dir(Path::new(SIGNATURES).join("sha256")).map(Iterator::count) {
            Ok(images) if images > 0 => {
                Check::ok("signatures", format!("of {} in {SIGNATURES}", count(images, "image")))
            }
            _ => Check::warn("signatures", format!("{SIGNATURES} is empty: every image is unsigned"), fix),
        },
    }
}

pub(crate) fn trail() -> Check {
    let state = Trail::open(Path::new(TRAIL)).and_then(|trail| {
        trail.can_append()?;
        trail.last_time()
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    match state {
        Ok(Some(last)) if last > now => {
            Check::fail("trail", "its latest record lies in the future: the clock was set back", "set the clock")
        }
        Ok(Some(last)) => Check::ok(
            "trail",
            format!("takes records; the latest is of {}", boltseal_audit::rfc3339(u128::from(last) * 1_000_000_000)),
        ),
        Ok(None) => Check::ok("trail", "takes records; none yet"),
        Err(error) => Check::fail("trail", format!("{error} (BS-AUD-001)"), "without the trail nothing starts"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_that_containerd_was_given() {
        assert_eq!(config_of("/usr/bin/containerd\0"), "/etc/containerd/config.toml");
        assert_eq!(config_of("containerd\0--config\0/x/c.toml\0"), "/x/c.toml");
        assert_eq!(config_of("containerd\0-c=/y.toml\0--log-level\0debug\0"), "/y.toml");
    }

    #[test]
    fn imported_files_count() {
        assert_eq!(
            imports("version = 2\nimports = [\"/a/c.toml\", 'conf.d/*.toml']\nroot = \"/x\""),
            ["/a/c.toml", "conf.d/*.toml"]
        );
        assert_eq!(imports("imports = []\n"), Vec::<String>::new());
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.toml");
        fs::create_dir(dir.path().join("conf.d")).unwrap();
        let file = |name: &str, at: u64| {
            let time = UNIX_EPOCH + std::time::Duration::from_secs(at);
            fs::File::create(dir.path().join(name)).unwrap().set_modified(time).unwrap();
        };
        file("config.toml", 1000);
        file("conf.d/1.toml", 3000);
        file("other.toml", 2000);
        assert_eq!(newest(&config, ""), Some(1000));
        assert_eq!(newest(&config, "imports = [\"other.toml\"]"), Some(2000));
        assert_eq!(newest(&config, "imports = [\"other.toml\", \"conf.d/*.toml\"]"), Some(3000));
    }

    #[test]
    fn a_process_has_a_beginning() {
        let begun = started(std::process::id()).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(begun <= now + 2 && now < begun + 3600, "{begun} {now}");
    }
}
