//! What is refused, and what is not; each message once.
use super::*;

fn token(from: &str, to: &str) -> String {
    let text = "[owner]\nlevel = \"pod-token\"\n[owner.token]\njwks = \"c.jwks\"\nissuer = \"i\"\naudience = \"a\"";
    text.replace(from, to)
}

const NOTARY: &str = "[[authority]]\nname = \"n\"\nformat = \"notation\"\nroots = \"ca.pem\"\nidentities = [\"CN=ci\"]\nrepositories = [\"ghcr.io/corp/app\"]\n";
const KEYLESS: &str = "[[authority]]\nname = \"k\"\nformat = \"keyless\"\ntrusted_root = \"root.json\"\nidentities = [\"ci@*\"]\nissuers = [\"https://a\"]\nrepositories = [\"ghcr.io/corp/app\"]\n";
const AUTHORITY: &str = "[[authority]]\nname = \"ci\"\nkey = \"ci.pub\"\nrepositories = [\"ghcr.io/corp\"]\n";

const SCOPE: &str = "[[scope]]\nrepository = \"ghcr.io/corp\"\nauthorities = [\"ci\"]\n";
const REST: &str = "owner = \"a\"\nreason = \"b\"\nexpires = \"2027-01-01\"";
const HEX: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn problems(text: &str) -> Vec<String> {
    Policy::parse(&format!("version = 1\n{text}"), &[]).err().unwrap_or_default()
}

/// A scope with so many authorities, each with a key file of its own.
fn several(repository: &str, authorities: usize, need: usize) -> String {
    let names: Vec<String> = (0..authorities).map(|n| format!("a{n}")).collect();
    let each = |name: &String| AUTHORITY.replace("\"ci\"", &format!("{name:?}")).replace("ci.pub", name);
    let list: String = names.iter().map(each).collect();
    format!("{list}[[scope]]\nrepository = {repository:?}\nauthorities = {names:?}\nneed = {need}\n")
}

#[test]
fn keys_count_and_not_names() {
    let policy = Policy::parse(&format!("version = 1\n{}", several("ghcr.io/corp", 3, 2)), &[]).unwrap();
    let keys = |ids: [&'static str; 3]| {
        policy.unreachable(|a| {
            let at = a.name.trim_start_matches('a').parse::<usize>().unwrap();
            Some(ids[at].to_owned()).filter(|id| !id.is_empty())
        })
    };
    assert_eq!(keys(["x", "y", "x"]), Vec::<String>::new());
    let said = |n: &str| {
        format!(
            "scope \"ghcr.io/corp\": `need` is 2, but its authorities have {n} that may sign for it; nothing could start"
        )
    };
    assert_eq!(keys(["x", "x", "x"]), [said("1 key")]);
    assert_eq!(keys(["x", "", "x"]), [said("1 key")]);
    assert_eq!(keys(["", "", ""]), [said("0 keys")]);
    assert_eq!(keys(["x", "y", ""]), Vec::<String>::new());
}

#[test]
fn good_policies_have_no_problem() {
    for good in [
        String::new(),
        NOTARY.into(),
        format!("{NOTARY}signing_authority = true\n"),
        format!("{AUTHORITY}[[scope]]\nrepository = \"ghcr.io/corp\"\nauthorities = [\"ci\"]\nlevel = \"strict\"\nmodes = {{ BS-DEV-001 = \"warn\" }}"),
        "[[exception]]\nrule = \"BS-NOD-001\"\ncondition = \"software-tpm\"\nscope = \"*\"\nowner = \"a\"\nreason = \"b\"\nexpires = \"2027-01-01\"".into(),
        "[[exception]]\nrule = \"BS-FSY-002\"\nscope = \"ghcr.io/corp\"\nowner = \"a\"\nreason = \"b\"\nexpires = \"2027-01-01\"".into(),
        "[node]\ntpm = \"unix:/run/swtpm.sock\"\nattestation_key = \"ak.pub\"".into(),
        format!("{AUTHORITY}[[scope]]\nrepository = \"ghcr.io/corp\"\nauthorities = [\"ci\"]\nsensitivity = \"secret\""),
        format!("{AUTHORITY}[[scope]]\nrepository = \"ghcr.io/corp\"\nauthorities = [\"ci\"]\nsensitivity = \"*\""),
        "[sensitivity]\nlevels = [\"a\", \"b\"]\ndefault = \"b\"".into(),
        "[limits]\nmemory = 1048576\npids = 4194304\n[mounts]\ntmpfs_size = 4096\n[landlock]\nabi = 64\n[user_namespace]\nmin_host_id = 2147418111\nmax_size = 16777216".into(),
        format!("[node]\ncap = 14\nenrolled = \"certified\"\nttl = 1\n[node.pcrs]\n0 = [\"{HEX}\"]\n23 = [\"0{}\"]", &HEX[1..]),
        format!("[bundle]\nmeasured = true\n[node.pcrs]\n7 = [\"{HEX}\"]"),
        format!("[node.pcrs]\n13 = [\"{HEX}\"]"),
        format!("[[exception]]\nrule = \"BS-IMG-001\"\ncondition = \"denied-digest\"\nscope = \"*\"\n{REST}"),
        format!("{AUTHORITY}from = \"2026-01-01\"\nuntil = \"2027-01-01\"\nmin_signing_time = \"2026-02-01\""),
        format!("{AUTHORITY}{SCOPE}deny_digests = [\"sha256:{HEX}\"]"),
        "[modes]\nBS-AUD-001 = \"enforce\"".into(),
        format!("{AUTHORITY}[[scope]]\nrepository = \"ghcr.io/corp\"\nauthorities = [\"ci\"]\nprograms = [\"/a\", \"-/b/\"]"),
        several("ghcr.io/corp", 2, 2),
        several("ghcr.io/corp", 8, 8),
        // The scope may be wider or narrower than what they may sign for.
        several("ghcr.io", 2, 2),
        several("ghcr.io/corp/app", 2, 2),
        "[anomalies]\nnetwork = \"confined\"\nflows = \"confined\"\nport_scan = 2".into(),
        "[anomalies]\nnetwork = true\nflows = false\nport_scan = 1000\n[landlock]\nports = false".into(),
        format!(
            "{AUTHORITY}[[allowance]]\nid = \"x\"\nauthority = \"ci\"\nrepository = \"ghcr.io/corp/x\"\ncapabilities = [\"CAP_NET_ADMIN\"]\n\
             mounts = [{{ source = \"/etc/cni\" }}, {{ source = \"/opt/x\", writable = true }}]\ndevices = [\"/dev/fuse\"]\n\
             sysctls = [\"net.ipv4.ip_forward\"]\nhost_namespaces = [\"network\"]\nexec_volumes = [\"/plugins\"]\n\
             args = [[\"/app\", \"*\"], [\"/app\", \"...\"], [\"...\"]]\nenv = [\"LOG_*\", \"*\"]\ncwd = [\"/\", \"/work/*\"]\nusers = [\"1000:*\", \"*:*\"]\n\
             hooks = [{{ stage = \"prestart\", path = \"/opt/h\", digest = \"sha256:{HEX}\" }}]"
        ),
    ] {
        assert_eq!(problems(&good), Vec::<String>::new(), "{good}");
    }
}

#[test]
fn each_mistake_is_named() {
    let exception = |rule: &str, more: &str| format!("[[exception]]\nrule = \"{rule}\"\n{more}\n");
    let rest = REST;
    let allowance = |more: &str| {
        format!("{AUTHORITY}[[allowance]]\nid = \"x\"\nauthority = \"ci\"\nrepository = \"ghcr.io/corp/x\"\n{more}")
    };
    for (bad, expected) in [
        (format!("{AUTHORITY}{AUTHORITY}"), "used twice"),
        (AUTHORITY.replace("ci.pub", "../ci.pub"), "must name a file in trust/"),
        (AUTHORITY.replace("ci.pub", ""), "must name a file in trust/"),
        (AUTHORITY.replace("ci.pub", "a/ci.pub"), "must name a file in trust/"),
        (AUTHORITY.replace("ci.pub", ".ci.pub"), "must name a file in trust/"),
        (AUTHORITY.replace("ci.pub", "ci\\u0000.pub"), "must name a file in trust/"),
        (
            format!("{AUTHORITY}{0}{0}", "[[scope]]\nrepository = \"ghcr.io/corp\"\nauthorities = [\"ci\"]\n"),
            "named twice",
        ),
        (allowance("args = [[]]"), "the program, its arguments"),
        (allowance("args = [[\"\", \"x\"]]"), "the program, its arguments"),
        (allowance("args = [[\"/app\", \"...\", \"x\"]]"), "the program, its arguments"),
        (allowance("args = [[\"...\", \"x\"]]"), "the program, its arguments"),
        (allowance("env = [\"\"]"), "names without values"),
        (allowance("env = [\"A=1\"]"), "names without values"),
        (allowance("env = [\"LD_PRELOAD\"]"), "LD_PRELOAD makes programs load code"),
        (allowance("cwd = [\"/ok\", \"work\"]"), "absolute paths"),
        (allowance("users = [\"1000\"]"), "numbers as uid:gid"),
        (allowance("users = [\"1:2\", \"1:2:3\"]"), "numbers as uid:gid"),
        (allowance("users = [\"app:app\"]"), "numbers as uid:gid"),
        (several("ghcr.io/corp", 2, 3), "`need` is 3, but its authorities have 2 keys"),
        // The same file twice is one key, and who may sign for nothing of the scope has none.
        (several("ghcr.io/corp", 2, 2).replace("key = \"a1\"", "key = \"a0\""), "have 1 key that may sign"),
        (several("ghcr.io/corporate", 2, 2), "have 0 keys that may sign"),
        (several("ghcr.io/corp", 9, 9), "`need` is from 1 to 8"),
        (several("ghcr.io/corp", 2, 0), "`need` is from 1 to 8"),
        (several("ghcr.io/corp", 2, 1).replace("need = 1", "need = -1"), "expected usize"),
        ("[limits]\nmemory = 1048575".into(), "limits.memory"),
        ("[limits]\npids = 4194305".into(), "limits.pids"),
        ("[mounts]\ntmpfs_size = 4095".into(), "mounts.tmpfs_size"),
        ("[landlock]\nabi = 65".into(), "landlock.abi"),
        ("[label]\nselinux = [\"unconfined_t\"]".into(), "not a confining profile"),
        ("[label]\nselinux = [\"spc_t\"]".into(), "not a confining profile"),
        ("[label]\napparmor = [\"a b\"]".into(), "not a confining profile"),
        ("[devices]\nallow = [\"/dev/../etc/passwd\"]".into(), "below /dev"),
        (format!("[node.pcrs]\n24 = [\"{HEX}\"]"), "no PCR index"),
        (format!("[node.pcrs]\n07 = [\"{HEX}\"]"), "no PCR index"),
        (format!("[node.pcrs]\n7 = [\"{}\"]", "f".repeat(64)), "proves nothing"),
        (AUTHORITY.replace("[\"ghcr.io/corp\"]", "[]"), "`repositories` is empty"),
        ("[[scope]]\nrepository = \"ghcr.io\"\nauthorities = [\"ci\"]".into(), "no authority is named \"ci\""),
        ("[[scope]]\nrepository = \"ghcr.io\"\nauthorities = []".into(), "nothing could start"),
        (
            NOTARY.replace("[\"ghcr.io/corp/app\"]", "[\"ghcr.io/a\", \"ghcr.io/b\"]"),
            "exactly one, for notation signs a digest",
        ),
        (NOTARY.replace("identities = [\"CN=ci\"]\n", ""), "whomever the roots certify"),
        (NOTARY.replace("roots = \"ca.pem\"\n", ""), "`roots`: \"\" must name a file"),
        (NOTARY.replace("roots", "key = \"k.pub\"\nroots"), "is in its certificate"),
        (NOTARY.replace("\"notation\"", "\"notary\""), "is none; `notation`"),
        (KEYLESS.replace("trusted_root = \"root.json\"\n", ""), "`trusted_root`: \"\" must name a file"),
        (KEYLESS.replace("trusted_root", "key = \"k.pub\"\ntrusted_root"), "has neither `key`"),
        (KEYLESS.replace("trusted_root", "roots = \"ca.pem\"\ntrusted_root"), "has neither `key`"),
        (KEYLESS.replace("trusted_root", "signing_authority = true\ntrusted_root"), "has neither `key`"),
        (KEYLESS.replace("identities = [\"ci@*\"]\n", ""), "`identities`: empty; name patterns"),
        (KEYLESS.replace("issuers = [\"https://a\"]\n", ""), "`issuers`: empty; name patterns"),
        (KEYLESS.replace("\"ci@*\"", "\"x\", \"**\""), "everybody whom the CA certifies"),
        (KEYLESS.replace("\"https://a\"", "\"*\""), "everybody whom the CA certifies"),
        (KEYLESS.replace("\"https://a\"", "\"\""), "everybody whom the CA certifies"),
        (KEYLESS.replace("[\"ghcr.io/corp/app\"]", "[\"ghcr.io/a\", \"ghcr.io/b\"]"), "exactly one, for a bundle"),
        (KEYLESS.replace("format = \"keyless\"\n", "key = \"k.pub\"\n"), "need it to be `keyless`"),
        (format!("{NOTARY}log = false\n"), "need it to be `keyless`"),
        (format!("{AUTHORITY}sct = true\n"), "need it to be `keyless`"),
        (format!("{AUTHORITY}issuers = [\"i\"]\n"), "need it to be `keyless`"),
        (format!("{AUTHORITY}trusted_root = \"r\"\n"), "need it to be `keyless`"),
        (NOTARY.replace("format = \"notation\"\n", "key = \"k.pub\"\n"), "need it to be `notation`"),
        (format!("{}signing_authority = true\n", AUTHORITY), "need it to be `notation`"),
        (format!("{}roots = \"ca.pem\"\n", AUTHORITY), "need it to be `notation`"),
        (format!("{}identities = [\"CN=ci\"]\n", AUTHORITY), "need it to be `notation`"),
        ("[[authority]]\nname = \"x\"\nrepositories = [\"ghcr.io\"]\n".into(), "`key`: \"\" must name a file"),
        ("[registries]\nallow = [\"ghcr.io/*\"]".into(), "no repository prefix"),
        ("[sandbox]\ndigests = [\"sha256:1\"]".into(), "64 lower-case hex"),
        ("[image]\ndeny_digests = [\"sha256:1\"]".into(), "64 lower-case hex"),
        ("[image]\nintegrity = \"none\"".into(), "image.integrity"),
        ("[image]\nsnapshotters = []".into(), "image.snapshotters"),
        ("[modes]\nBS-AUD-001 = \"warn\"".into(), "BS-AUD-001 is always enforced"),
        ("[modes]\nBS-XXX-001 = \"warn\"".into(), "no rule is named"),
        ("[process]\ncapabilities = [\"CAP_SYS_ADMIN\"]".into(), "not of the default set"),
        ("[process]\nsysctls = [\"kernel.core_pattern\"]".into(), "not a namespaced sysctl"),
        ("[label]\napparmor = [\"unconfined\"]".into(), "not a confining profile"),
        ("[owner]\nlevel = \"proven\"".into(), "owner.level"),
        ("[owner]\nlevel = \"pod-token\"".into(), "owner.token: missing"),
        ("[owner.token]\njwks = \"c.jwks\"\nissuer = \"i\"\naudience = \"a\"".into(), "no token is read"),
        (token("\"c.jwks\"", "\"../c\""), "owner.token.jwks"),
        (token("\"i\"", "\"\""), "owner.token.issuer"),
        (token("\"a\"", "\"\""), "owner.token.audience"),
        ("[limits]\nmemory = 0".into(), "limits.memory"),
        ("[limits]\npids = 0".into(), "limits.pids"),
        ("[mounts]\ntmpfs_size = 0".into(), "mounts.tmpfs_size"),
        ("[mounts]\nkubelet_root = \"var\"".into(), "mounts.kubelet_root"),
        ("[mounts]\nsensitive = [\"/a/../b\"]".into(), "mounts.sensitive"),
        ("[devices]\nallow = [\"/etc/passwd\"]".into(), "below /dev"),
        ("[sensitivity]\nlevels = [\"a b\"]".into(), "sensitivity.levels"),
        ("[sensitivity]\nlevels = [\"*\"]".into(), "sensitivity.levels"),
        ("[sensitivity]\nlevels = [\"a\", \"a\"]".into(), "named once"),
        ("[sensitivity]\nlevels = [\"a\"]\ndefault = \"b\"".into(), "none of sensitivity.levels"),
        ("[sensitivity]\ndefault = \"b\"".into(), "none of sensitivity.levels"),
        (
            format!(
                "{AUTHORITY}[[scope]]\nrepository = \"ghcr.io/corp\"\nauthorities = [\"ci\"]\nsensitivity = \"a b\""
            ),
            "`sensitivity`: \"a b\"",
        ),
        (
            format!(
                "{AUTHORITY}[[scope]]\nrepository = \"ghcr.io/corp\"\nauthorities = [\"ci\"]\nprograms = [\"nginx\"]"
            ),
            "scope \"ghcr.io/corp\": `programs`: \"nginx\" must be",
        ),
        ("[node]\ntpm = \"/tmp/x\"".into(), "node.tpm"),
        ("[node]\nttl = 0".into(), "node.ttl"),
        ("[node]\nenrolled = \"yes\"".into(), "node.enrolled"),
        ("[node]\ncap = 9".into(), "node.cap"),
        ("[node]\ncap = 13".into(), "node.cap"),
        (format!("[node]\ncap = 14\n[node.pcrs]\n14 = [\"{}\"]", "a".repeat(64)), "node.cap"),
        (
            format!("[bundle]\nmeasured = true\n[node.pcrs]\n13 = [\"{}\"]", "a".repeat(64)),
            "node.pcrs.13: boltseal measures itself",
        ),
        ("[node.pcrs]\n99 = []".into(), "no PCR index"),
        ("[node.pcrs]\n7 = []".into(), "nothing could start"),
        (format!("[node.pcrs]\n7 = [\"{}\"]", "0".repeat(64)), "proves nothing"),
        ("[node.pcrs]\n7 = [\"zz\"]".into(), "64 lower-case hex"),
        ("[landlock]\nabi = 0".into(), "landlock.abi"),
        ("[anomalies]\nport_scan = 1".into(), "anomalies.port_scan"),
        ("[anomalies]\nport_scan = 1001".into(), "anomalies.port_scan"),
        ("[anomalies]\nnetwork = \"all\"".into(), "true, false or \"confined\""),
        ("[anomalies]\nflow = true".into(), "flow"),
        ("[user_namespace]\nmin_host_id = 0".into(), "user_namespace.min_host_id"),
        ("[user_namespace]\nmin_host_id = 2147418112".into(), "user_namespace.min_host_id"),
        ("[user_namespace]\nmax_size = 65535".into(), "user_namespace.max_size"),
        ("[user_namespace]\nmax_size = 16777217".into(), "user_namespace.max_size"),
        (exception("BS-XXX-001", &format!("scope = \"*\"\n{rest}")), "no such rule"),
        (exception("BS-AUD-001", &format!("scope = \"*\"\n{rest}")), "nothing is excepted"),
        (exception("BS-NOD-001", &format!("scope = \"*\"\n{rest}")), "must name a `condition`"),
        (exception("BS-MAC-001", &format!("scope = \"*\"\n{rest}")), "must name a `condition`"),
        (exception("BS-DEV-001", &format!("scope = \"*\"\ncondition = \"moon\"\n{rest}")), "has no condition"),
        (
            exception("BS-NOD-004", &format!("scope = \"*\"\ncondition = \"bad-signature\"\n{rest}")),
            "nothing is excepted from \"bad-signature\"",
        ),
        (exception("BS-IMG-001", &format!("scope = \"ghcr.io\"\n{rest}")), "can only be \"*\""),
        (
            exception("BS-IMG-001", &format!("condition = \"denied-digest\"\nscope = \"ghcr.io\"\n{rest}")),
            "can only be \"*\"",
        ),
        (format!("{AUTHORITY}from = \"soon\""), "authority \"ci\": `from` must be"),
        (format!("{AUTHORITY}{SCOPE}deny_digests = [\"sha256:1\"]"), "64 lower-case hex"),
        (
            exception("BS-DEV-001", "scope = \"*\"\nowner = \"\"\nreason = \"b\"\nexpires = \"2027-01-01\""),
            "`owner` is empty",
        ),
        (
            exception("BS-DEV-001", "scope = \"*\"\nowner = \"a\"\nreason = \" \"\nexpires = \"2027-01-01\""),
            "`reason` is empty",
        ),
        (
            exception("BS-DEV-001", "scope = \"*\"\nowner = \"a\"\nreason = \"b\"\nexpires = \"soon\""),
            "`expires` must be",
        ),
        (exception("BS-DEV-001", &format!("scope = \"\"\n{rest}")), "no repository prefix"),
        (allowance("capabilities = [\"net_admin\"]"), "is no capability"),
        (allowance("capabilities = [\"CAP_\"]"), "is no capability"),
        (allowance("capabilities = [\"CAP_net_admin\"]"), "is no capability"),
        (allowance("").replace("id = \"x\"", "id = \"a b\""), "`id` must be"),
        (allowance(&allowance("").replace(AUTHORITY, "")), "the id is used twice"),
        (allowance("hooks = [{ stage = \"prestart\", path = \"/a\", digest = \"1\" }]"), "`hooks.digest`"),
        (allowance("mounts = [{ source = \"/etc/cni\", writable = true }]"), "never writable"),
        (allowance("mounts = [{ source = \"/var\", writable = true }]"), "never writable"),
        (
            allowance("mounts = [{ source = \"/var/lib/kubelet/plugins/kubernetes.io\", writable = true }]"),
            "never writable",
        ),
        (allowance("host_namespaces = [\"mount\"]"), "host_namespaces may name"),
        (allowance("hooks = [{ stage = \"x\", path = \"/a\", digest = \"1\" }]"), "is no hook stage that runs"),
        (
            allowance("").replace("authority = \"ci\"\nrepository", "authority = \"xx\"\nrepository"),
            "no authority is named \"xx\"",
        ),
    ] {
        let found = problems(&bad);
        assert!(found.iter().any(|p| p.contains(expected)), "{bad}\nexpected {expected}\nfound {found:?}");
    }
}

/// kubelet's own root, by whichever name, is no reason against a driver's folder below it; what else lies there is.
#[test]
fn a_drivers_folder_below_a_root_of_ones_own() {
    let grant = |root: &str, sensitive: &str| {
        let mounts = format!("[mounts]\nkubelet_root = \"{root}\"\nsensitive = [\"{sensitive}\"]\n");
        let source = format!("mounts = [{{ source = \"{root}/plugins/driver\", writable = true }}]");
        let head = "[[allowance]]\nid = \"x\"\nauthority = \"ci\"\nrepository = \"ghcr.io/corp/x\"\n";
        problems(&format!("{mounts}{AUTHORITY}{head}{source}"))
    };
    for root in ["/var/lib/kubelet", "/data/kubelet"] {
        assert_eq!(grant(root, root), Vec::<String>::new(), "{root}");
        let found = grant(root, &format!("{root}/plugins/driver/keys"));
        assert!(found.len() == 1 && found[0].contains("never writable"), "{root}: {found:?}");
    }
}
