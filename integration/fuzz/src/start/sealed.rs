//! What a sealed spec may ever hold, read from its JSON, beside what was asked for.
use super::demands::{capability, is_common, is_safe, is_usual_device};
use super::{Grant, at, list, members, text, within, words};
use serde_json::Value;

/// Everything that may stand in it. What nobody wrote down here cannot be right.
const KEYS: [(&str, &[&str]); 12] = [
    ("", &["domainname", "hooks", "hostname", "linux", "mounts", "ociVersion", "process", "root"]),
    ("root", &["path", "readonly"]),
    (
        "process",
        &[
            "args",
            "capabilities",
            "consoleSize",
            "cwd",
            "env",
            "noNewPrivileges",
            "oomScoreAdj",
            "rlimits",
            "terminal",
            "user",
        ],
    ),
    ("process.user", &["additionalGids", "gid", "uid", "umask"]),
    ("process.capabilities", &["ambient", "bounding", "effective", "inheritable", "permitted"]),
    (
        "linux",
        &[
            "cgroupsPath",
            "devices",
            "gidMappings",
            "maskedPaths",
            "mountLabel",
            "namespaces",
            "readonlyPaths",
            "resources",
            "rootfsPropagation",
            "sysctl",
            "uidMappings",
        ],
    ),
    ("linux.resources", &["blockIO", "cpu", "devices", "hugepageLimits", "memory", "pids", "unified"]),
    ("linux.resources.memory", &["limit", "reservation", "swap", "swappiness"]),
    ("linux.resources.cpu", &["burst", "cpus", "idle", "mems", "period", "quota", "shares"]),
    ("linux.resources.pids", &["limit"]),
    (
        "linux.resources.blockIO",
        &[
            "throttleReadBpsDevice",
            "throttleReadIOPSDevice",
            "throttleWriteBpsDevice",
            "throttleWriteIOPSDevice",
            "weight",
        ],
    ),
    ("linux.resources.unified", &["memory.oom.group", "memory.swap.max"]),
];

const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What of it is wrong.
#[must_use]
pub fn wrongs(sealed: &Value, asked: &Value, grant: &Grant) -> Vec<String> {
    let mut wrong = Wrong(Vec::new());
    wrong.unless(sealed["ociVersion"] == "1.2.0", || "another version".into());
    wrong.unless(no_null(sealed), || "a member that is null: each reader has its own default".into());
    for (way, known) in KEYS {
        let found = if way.is_empty() { sealed.as_object() } else { at(sealed, way).and_then(Value::as_object) };
        for key in found.into_iter().flatten().map(|(key, _)| key) {
            wrong.unless(known.contains(&key.as_str()), || format!("{way}.{key}"));
        }
    }
    let root = &sealed["root"];
    wrong.unless(root["path"] == "rootfs" && root["readonly"] == true, || format!("root {root}"));
    process(&mut wrong, sealed, asked, grant);
    namespaces(&mut wrong, sealed, asked, grant);
    mounts(&mut wrong, sealed, asked, grant);
    paths(&mut wrong, sealed, asked);
    devices(&mut wrong, sealed, grant);
    others(&mut wrong, sealed, grant);
    wrong.0
}

struct Wrong(Vec<String>);

impl Wrong {
    fn unless(&mut self, right: bool, what: impl FnOnce() -> String) {
        if !right {
            self.0.push(what());
        }
    }
}

fn no_null(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(items) => items.iter().all(no_null),
        Value::Object(members) => members.values().all(no_null),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

fn process(wrong: &mut Wrong, sealed: &Value, asked: &Value, grant: &Grant) {
    let p = &sealed["process"];
    wrong.unless(p["noNewPrivileges"] == true, || "new privileges".into());
    for key in ["args", "cwd"] {
        wrong
            .unless(p[key] == asked["process"][key] || p[key] == Value::Array(Vec::new()), || format!("another {key}"));
    }
    for key in ["uid", "gid"] {
        let given = at(asked, &format!("process.user.{key}")).and_then(Value::as_u64).unwrap_or(0);
        wrong.unless(p["user"][key].as_u64() == Some(given), || format!("another {key}"));
    }
    let mapped = !list(sealed, "linux.uidMappings").is_empty() || namespace(sealed, "user").is_some();
    wrong.unless(!grant.enforced || mapped || p["user"]["uid"] != 0, || "root of the node".into());
    let asked_for: Vec<String> = ["bounding", "effective", "inheritable", "permitted", "ambient"]
        .iter()
        .flat_map(|set| words(asked, &format!("process.capabilities.{set}")))
        .map(capability)
        .collect();
    for set in ["bounding", "effective", "permitted"] {
        wrong.unless(p["capabilities"][set].is_array(), || format!("no {set} set, which means all of them"));
        for name in words(p, &format!("capabilities.{set}")).into_iter().map(capability) {
            let given = grant.capabilities.contains(&name.as_str());
            let may = if grant.enforced || is_common(&name) { given } else { true };
            wrong.unless(may && asked_for.contains(&name), || format!("{set} capability {name}"));
        }
    }
    for set in ["inheritable", "ambient"] {
        wrong.unless(p["capabilities"][set] == Value::Array(Vec::new()), || format!("a {set} capability"));
    }
    let env = words(p, "env");
    let home = env.iter().any(|v| v.strip_prefix("HOME=").is_some_and(|home| !home.is_empty()));
    wrong.unless(home, || "no HOME: the image's own code would be asked for one".into());
    let handed_on = env.iter().any(|v| v.starts_with("LISTEN_") || !v.contains('='));
    wrong.unless(!handed_on, || format!("environment {env:?}"));
}

fn namespace<'a>(sealed: &'a Value, kind: &str) -> Option<&'a Value> {
    list(sealed, "linux.namespaces").iter().find(|n| text(n, "type") == kind)
}

fn namespaces(wrong: &mut Wrong, sealed: &Value, asked: &Value, grant: &Grant) {
    let all = list(sealed, "linux.namespaces");
    for kind in ["cgroup", "ipc", "mount", "network", "pid", "uts"] {
        let left_out = grant.host_namespaces.contains(&kind) || (!grant.enforced && kind != "cgroup");
        let count = all.iter().filter(|n| text(n, "type") == kind).count();
        wrong.unless(count == 1 || (count == 0 && left_out), || format!("{count} {kind} namespaces"));
    }
    for n in all {
        let (kind, path) = (text(n, "type"), text(n, "path"));
        wrong.unless(path.is_empty() || !grant.enforced || grant.own_namespaces.contains(&(kind, path)), || {
            format!("{kind} namespace {path}")
        });
        // Nothing joins the node's, granted or not: what is granted is left out.
        wrong.unless(!path.starts_with("/proc/1/") && !path.starts_with("/proc/self/"), || format!("joins {path}"));
    }
    let own_uts = namespace(sealed, "uts").is_some();
    wrong.unless(own_uts || (at(sealed, "hostname").is_none() && at(sealed, "domainname").is_none()), || {
        "it would rename the node".into()
    });
    let user = !list(asked, "linux.uidMappings").is_empty() || !list(asked, "linux.gidMappings").is_empty();
    for map in list(sealed, "linux.uidMappings").iter().chain(list(sealed, "linux.gidMappings")) {
        wrong.unless(user && (!grant.enforced || map["hostID"] != 0), || format!("maps {map}"));
    }
}

fn mounts(wrong: &mut Wrong, sealed: &Value, asked: &Value, grant: &Grant) {
    let all = list(sealed, "mounts");
    for (to, kind) in [("/proc", "proc"), ("/dev", "tmpfs"), ("/sys", "sysfs")] {
        let fresh = all.iter().any(|m| text(m, "destination") == to && text(m, "type") == kind);
        wrong.unless(fresh, || format!("no fresh {to}"));
    }
    let mut receives = false;
    for m in all {
        let (to, kind, source, options) =
            (text(m, "destination"), text(m, "type"), text(m, "source"), words(m, "options"));
        let has = |name: &str| options.contains(&name);
        let mut must = |right: bool, what: &str| wrong.unless(right, || format!("{what}: {m}"));
        let plain = to.starts_with('/') && !to.split('/').skip(1).any(|part| ["", ".", ".."].contains(&part));
        must(plain || to == "/", "not one plain place");
        must(!options.iter().any(|o| o.contains(',')), "an option within an option");
        must(has("nosuid"), "setuid programs");
        must(has("nodev") || ["/dev", "/dev/pts"].contains(&to), "devices");
        must(
            !options.iter().any(|o| ["suid", "dev", "exec", "rw", "remount", "shared", "rshared"].contains(o)),
            "opened",
        );
        let own_place = match kind {
            "proc" => to == "/proc",
            "sysfs" => to == "/sys" && has("ro"),
            "devpts" => to == "/dev/pts" && has("newinstance"),
            "mqueue" => to == "/dev/mqueue",
            "cgroup" => to == "/sys/fs/cgroup" && has("ro"),
            "tmpfs" => {
                let size = options.iter().filter_map(|o| o.strip_prefix("size=")).next_back();
                must(size.is_some_and(|size| size.contains(|c| ('1'..='9').contains(&c))), "as large as memory");
                true
            }
            "bind" => true,
            _ => false,
        };
        must(own_place, "no such mount");
        must(kind == "bind" || has("noexec") || grant.executable.contains(&to), "programs");
        if kind != "bind" {
            continue;
        }
        let readonly = has("ro");
        must(has("noexec") || readonly || grant.executable.contains(&to), "written programs");
        must(has("bind") && has("rprivate") || has("rbind") && has("rslave"), "propagation");
        receives |= has("rslave");
        let given = |granted: &Grant| granted.covers(source, !readonly);
        must(!grant.enforced || given(grant), "nobody granted that");
        must(!has("rslave") || !grant.enforced || !grant.own.contains(&source), "receives the node's mounts");
        must(!has("rslave") || !readonly || has("rro"), "what comes to lie below can be written");
        let was = list(asked, "mounts").iter().any(|a| {
            let there = text(a, "destination");
            there.trim_end_matches('/') == to.trim_end_matches('/') && grant.real(text(a, "source")) == source
        });
        must(was, "nobody asked for that");
        let system = ["/proc", "/sys", "/dev"].iter().any(|s| within(to, s)) || to == "/";
        let below_dev = to.starts_with("/dev/") && grant.own.contains(&source);
        must(!grant.enforced || !system || below_dev, "over a file system of the kernel");
    }
    let root = text(sealed, "linux.rootfsPropagation");
    wrong.unless(root == if receives { "slave" } else { "private" }, || format!("the root is {root}"));
}

fn paths(wrong: &mut Wrong, sealed: &Value, asked: &Value) {
    for (key, always) in [("maskedPaths", &MASKED[..]), ("readonlyPaths", &READONLY)] {
        let way = format!("linux.{key}");
        let found = words(sealed, &way);
        for path in always {
            wrong.unless(found.contains(path), || format!("{path} is not in {key}"));
        }
        let plain = |p: &&str| p.starts_with('/') && !p[1..].split('/').any(|part| ["", ".", ".."].contains(&part));
        for path in words(asked, &way).into_iter().filter(plain) {
            wrong.unless(found.contains(&path), || format!("{path} was in {key}"));
        }
    }
}

fn devices(wrong: &mut Wrong, sealed: &Value, grant: &Grant) {
    let number = |value: &Value, key: &str| at(value, key).and_then(Value::as_i64);
    let granted = |kind: &str, major, minor| grant.devices.iter().any(|d| (d.1, d.2, d.3) == (kind, major, minor));
    for d in list(sealed, "linux.devices") {
        let this =
            (text(d, "path"), text(d, "type"), number(d, "major").unwrap_or(-1), number(d, "minor").unwrap_or(-1));
        let may = is_usual_device(this) || grant.devices.contains(&this) || !grant.enforced;
        wrong.unless(may && number(d, "fileMode").is_some_and(|mode| mode & !0o777 == 0), || format!("device {d}"));
    }
    let rules = list(sealed, "linux.resources.devices");
    wrong.unless(rules.is_empty() != grant.device_rules, || "device rules of another kind of cgroup".into());
    for (index, rule) in rules.iter().enumerate() {
        if index == 0 {
            let denies = rule["allow"] == false && rule["access"] == "rwm" && rule.get("major").is_none();
            wrong.unless(denies, || format!("the first device rule is {rule}"));
            continue;
        }
        let (kind, major, minor) = (text(rule, "type"), number(rule, "major"), number(rule, "minor"));
        let usual = [
            "/dev/null",
            "/dev/zero",
            "/dev/full",
            "/dev/random",
            "/dev/urandom",
            "/dev/tty",
            "/dev/console",
            "/dev/ptmx",
        ];
        let usual = usual.iter().any(|path| is_usual_device((path, kind, major.unwrap_or(-1), minor.unwrap_or(-1))));
        let pts = kind == "c" && major == Some(136) && minor.is_none();
        let given = granted(kind, major.unwrap_or(-1), minor.unwrap_or(-1)) || (!grant.enforced && major.is_some());
        wrong.unless(usual || pts || given, || format!("device rule {rule}"));
    }
}

fn others(wrong: &mut Wrong, sealed: &Value, grant: &Grant) {
    for (name, value) in members(sealed, "linux.sysctl") {
        let may = is_safe(name) || grant.sysctls.contains(&name.as_str()) || !grant.enforced;
        wrong.unless(may && value.is_string(), || format!("sysctl {name}"));
    }
    for (stage, hooks) in members(sealed, "hooks") {
        for hook in hooks.as_array().into_iter().flatten() {
            let known = grant.hooks.iter().any(|(granted, _)| granted == stage) || !grant.enforced;
            // Our own copy of what was judged, by its descriptor, and nothing of the container's environment.
            let copy = text(hook, "path").starts_with("/proc/self/fd/");
            wrong.unless(known && copy && hook["env"] == Value::Array(Vec::new()), || format!("{stage} hook {hook}"));
        }
    }
    for (way, most) in [("linux.resources.memory.limit", 1_u64 << 62), ("linux.resources.pids.limit", 1 << 22)] {
        let limit = at(sealed, way).and_then(Value::as_u64);
        wrong.unless(limit.is_some_and(|n| (1..most).contains(&n)), || format!("{way} is {limit:?}"));
    }
    for limit in list(sealed, "linux.resources.hugepageLimits") {
        let size = text(limit, "pageSize");
        let digits = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit)).unwrap_or_default();
        let named = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        wrong.unless(named || !grant.enforced, || format!("pages of {size:?}"));
    }
    let cgroup = text(sealed, "linux.cgroupsPath");
    let absolute = cgroup.starts_with('/') && cgroup.len() > 1 && !cgroup.split('/').any(|part| part == "..");
    let systemd = cgroup.split(':').count() == 3 && !cgroup.contains('/') && !cgroup.contains("..");
    wrong.unless(absolute || systemd, || format!("cgroup {cgroup:?}"));
}

/// What is wrong with the pod's own filter, which goes in after ours: it must not be one that only opens or asks.
#[must_use]
pub fn filter_wrongs(filter: &Value) -> Vec<String> {
    let mut wrong = Wrong(Vec::new());
    let default = text(filter, "defaultAction");
    wrong.unless(
        ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP"]
            .contains(&default),
        || format!("the default is {default}"),
    );
    for rule in list(filter, "syscalls") {
        let asks = ["SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE"].contains(&text(rule, "action"));
        wrong.unless(!asks && !words(rule, "names").is_empty(), || format!("rule {rule}"));
    }
    let arches = words(filter, "architectures");
    wrong.unless(
        arches.is_empty()
            || arches.iter().any(|a| ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64", "SCMP_ARCH_NATIVE"].contains(a)),
        || format!("for {arches:?}"),
    );
    wrong.unless(!words(filter, "flags").contains(&"SECCOMP_FILTER_FLAG_SPEC_ALLOW"), || "SPEC_ALLOW".into());
    wrong.unless(text(filter, "listenerPath").is_empty(), || "a listener".into());
    wrong.0
}
