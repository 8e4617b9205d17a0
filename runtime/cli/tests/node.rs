//! `boltseal node`, `sig import`, `doctor` as processes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod common;

use boltseal_evidence::signatures;
use common::Node;
use ring::digest::{SHA256, digest};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A software TPM whose PCR 7 was extended, ended with the value.
struct Tpm {
    child: Child,
    address: String,
    _dir: tempfile::TempDir,
}

impl Tpm {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let child = Command::new("swtpm")
            .args([
                "socket",
                "--tpm2",
                "--flags",
                "startup-clear",
                "--tpmstate",
                &format!("dir={}", dir.path().display()),
            ])
            .args([
                "--server",
                &format!("type=unixio,path={}", path("tpm")),
                "--ctrl",
                &format!("type=unixio,path={}", path("control")),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("swtpm is installed");
        let tpm = Self { child, address: format!("unix:{}", path("tpm")), _dir: dir };
        let end = Instant::now() + Duration::from_secs(10);
        while UnixStream::connect(tpm.address.trim_start_matches("unix:")).is_err() {
            assert!(Instant::now() < end, "swtpm did not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut client = boltseal_node::tpm::Tpm::open(&tpm.address, end).unwrap();
        client.extend(7, &[7; 32]).unwrap();
        drop(client);
        tpm
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

#[test]
fn enrols_what_a_policy_then_accepts() {
    let (node, tpm) = (Node::new(), Tpm::start());
    let key = node.path("node.pem").display().to_string();
    let args = ["node", "enroll", "--trust-on-first-use", "--tpm", &tpm.address, "--pcrs", "0,7", "--write-key", &key];
    let (code, out, err) = node.run(&args);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("trust on first use") && err.contains("a software TPM"), "{err}");
    assert!(out.contains("# nothing measured: 0 = ") && out.contains("\n7 = [\""), "{out}");
    assert!(fs::read_to_string(&key).unwrap().starts_with("-----BEGIN PUBLIC KEY-----"));
    // A key that is there is not written over.
    let (code, _, err) = node.run(&args);
    assert_eq!(code, 3);
    assert!(err.contains("not there yet"), "{err}");

    // The policy may name the key before there is one.
    node.write(
        "etc/boltseal/policy.toml",
        &format!("version = 1\n[node]\ntpm = \"{}\"\nattestation_key = \"node.pem\"\n", tpm.address),
    );
    let (code, named, err) = node.run(&["node", "enroll", "--trust-on-first-use", "--pcrs", "0,7"]);
    assert_eq!(code, 0, "{err}");
    assert!(named.starts_with(out.split("[node.pcrs]").next().unwrap()), "{named}");

    assert!(out.contains("enrolled = \"trust-on-first-use\""), "{out}");
    let (code, _, err) = node.run(&["node", "enroll", "--tpm", &tpm.address]);
    assert!(code == 2 && err.contains("--trust-on-first-use"), "only by an explicit word: {err}");
    // stdout is the policy's part as it stands.
    node.write("etc/boltseal/policy.toml", &format!("version = 1\n{out}"));
    node.write("etc/boltseal/trust/node.pem", &fs::read_to_string(&key).unwrap());
    let (code, out, err) = node.run(&["node", "status"]);
    assert_eq!((code, err.as_str()), (1, ""), "no start has asked for a quote yet");
    assert!(
        out.contains("(trust on first use): this TPM has it")
            && out.contains(" ✓ PCR  7 ")
            && out.contains("not attested"),
        "{out}"
    );
    let (code, out, _) = node.run(&["node", "status", "-o", "json"]);
    assert_eq!(code, 1);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap()["ak_matches"], true);

    // The same key comes out in JSON, with the same policy.
    let (code, out, _) =
        node.run(&["-o", "json", "node", "enroll", "--trust-on-first-use", "--tpm", &tpm.address, "--pcrs", "7"]);
    assert_eq!(code, 0);
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["ak_spki_pem"].as_str().unwrap(), fs::read_to_string(&key).unwrap());
    assert_eq!(document["trust_on_first_use"], true);

    // Another TPM does not have that key.
    drop(tpm);
    let other = Tpm::start();
    let policy = fs::read_to_string(node.path("etc/boltseal/policy.toml")).unwrap();
    let line = policy.lines().find(|l| l.starts_with("tpm = ")).unwrap().to_owned();
    node.write("etc/boltseal/policy.toml", &policy.replace(&line, &format!("tpm = \"{}\"", other.address)));
    let (code, out, _) = node.run(&["node", "status"]);
    assert_eq!(code, 1);
    assert!(out.contains("this TPM does not have it"), "{out}");
}

#[test]
fn attest_makes_the_verdict_that_status_shows() {
    let (node, mut tpm) = (Node::new(), Tpm::start());
    let key = node.path("node.pem").display().to_string();
    let (_, out, _) = node.run(&[
        "node",
        "enroll",
        "--trust-on-first-use",
        "--tpm",
        &tpm.address,
        "--pcrs",
        "7",
        "--write-key",
        &key,
    ]);
    assert_eq!(node.run(&["node", "attest"]).0, 4, "there is no policy");
    node.write("etc/boltseal/policy.toml", &format!("version = 1\n[node]\ntpm = \"{}\"\n", tpm.address));
    let (code, _, err) = node.run(&["node", "attest"]);
    assert!(code == 1 && err.contains("no enrolled key"), "{err}");
    node.write("etc/boltseal/policy.toml", &format!("version = 1\n{out}"));
    node.write("etc/boltseal/trust/node.pem", &fs::read_to_string(&key).unwrap());

    fs::remove_dir(node.path("run/boltseal")).unwrap();
    let (code, out, err) = node.run(&["node", "attest"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("✓ attested for this boot and policy, by a software TPM: a quote was made"), "{out}");
    let mode = |name: &str| fs::metadata(node.path(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("run/boltseal"), mode("run/boltseal/node.json")), (0o700, 0o600));
    let (code, out, _) = node.run(&["-o", "json", "node", "attest"]);
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &document["verified"], &document["fresh"]), (0, &true.into(), &false.into()));
    assert!(node.run(&["node", "status"]).1.contains("attested for this boot and policy, for another"));

    // As the unit runs it: with few capabilities and no new rights.
    let unit = include_str!("../../../integration/systemd/boltseal-attest.service");
    let setting = |name: &str| unit.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let capability = setting("CapabilityBoundingSet=").to_lowercase().replace("cap_", "+").replace(' ', ",");
    let command = setting("ExecStart=/usr/local/bin/boltseal ");
    fs::remove_file(node.path("run/boltseal/node.json")).unwrap();
    let script = format!("exec setpriv --bounding-set -all,{capability} --no-new-privs \"$BIN\" {command}");
    let (code, out, err) = node.shell(&script, &[]);
    assert!(code == 0 && out.contains("a quote was made"), "{script}: {out}{err}");

    // Another state of the node: denied, nothing kept, and it says which PCR.
    let end = Instant::now() + Duration::from_secs(10);
    boltseal_node::tpm::Tpm::open(&tpm.address, end).unwrap().extend(7, &[8; 32]).unwrap();
    fs::remove_file(node.path("run/boltseal/node.json")).unwrap();
    let (code, out, _) = node.run(&["node", "attest"]);
    assert!(code == 1 && out.contains("✗ PCR 7 is ") && out.contains("BS-NOD-001"), "{out}");
    assert!(!node.path("run/boltseal/node.json").exists());

    // A TPM that comes late is waited for; one that does not come is told in time.
    tpm.child.kill().unwrap();
    tpm.child.wait().unwrap();
    fs::remove_file(tpm.address.trim_start_matches("unix:")).unwrap_or_default();
    let begun = Instant::now();
    let (code, out, _) = node.run(&["node", "attest", "--wait", "1"]);
    assert!(code == 1 && out.contains("✗ "), "{out}");
    assert!((1..5).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}

const LOG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../integration/fuzz/corpus/node_log/boot");

#[test]
fn predict_tells_pcr_9_by_the_boot_path() {
    let node = Node::new();
    node.write("initrd", "files of the initrd");
    let initrd = node.path("initrd").display().to_string();
    let utf16: Vec<u8> = "ro initrd=initrd\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let bytes = |data: &[u8]| digest(&SHA256, data).as_ref().to_vec();
    let once = bytes(&[vec![0; 32], bytes(&utf16)].concat());
    let expected = hex(&[once, bytes(b"files of the initrd")].concat());
    let (code, out, err) = node.run(&["node", "predict", "--path", "qemu", "--cmdline", "ro", "--initrd", &initrd]);
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains("by QEMU -kernel: ro initrd=initrd") && out.contains(&format!("9 = [\"{expected}\"]")),
        "{out}"
    );
    assert!(out.contains("# 4: QEMU writes"), "{out}");
    let (_, out, _) = node.run(&[
        "-o",
        "json",
        "node",
        "predict",
        "--path",
        "efi-stub",
        "--cmdline",
        "ro initrd=initrd",
        "--initrd",
        &initrd,
    ]);
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&document["boot_path"], &document["pcrs"]["9"]), (&"efi-stub".into(), &expected.as_str().into()));
    assert_eq!(document["files"][0], hex(b"files of the initrd"));
    // What is needed and not there is told.
    assert_eq!(node.run(&["node", "predict", "--path", "uki"]).0, 3);
    let (code, _, err) = node.run(&["node", "predict", "--path", "grub", "--log", LOG, "--initrd", &initrd]);
    assert!(code == 3 && err.contains("nothing to exchange"), "{err}");
    assert_eq!(node.run(&["node", "predict", "--log", "/nonexistent"]).0, 3);
    assert_eq!(node.run(&["node", "predict", "--path", "bios"]).0, 2);
}

#[test]
fn policy_prints_what_a_log_gives() {
    let node = Node::new();
    let (code, out, err) = node.run(&["node", "policy", "--log", LOG]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("nothing proves that a TPM measured it") && err.contains("vouches"), "{err}");
    let image = "44".repeat(32);
    assert!(
        out.contains(&format!("images = [\n    \"{image}\", # image\n]")) && out.contains("secure_boot = true"),
        "{out}"
    );
    let (_, out, _) = node.run(&["-o", "json", "node", "policy", "--log", LOG, "--values"]);
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["draft"]["images"][0]["digest"], image);
    assert!(document["policy"].as_str().unwrap().contains("\n4 = [\""), "{out}");
    // A real boot's, with its own command line: vouched for, and judged by rules.
    let real = concat!(env!("CARGO_MANIFEST_DIR"), "/../node/tests/fixtures/uki-secure-boot.log");
    let line = "console=ttyS0 panic=-1 quiet lsm=landlock,lockdown,yama,integrity,apparmor,bpf";
    let (code, out, err) = node.run(&["node", "policy", "--log", real, "--cmdline", line]);
    assert!(code == 0 && !err.contains("vouches"), "{err}");
    let policy = boltseal_policy::Policy::parse(&format!("version = 1\n{out}"), &[]).unwrap();
    assert_eq!((policy.validate(), policy.node.pcrs.len()), (vec![], 2), "{out}");
    // A software TPM has no log, and a broken one is told.
    let (code, _, err) = node.run(&["node", "policy", "--tpm", "unix:/run/tpm"]);
    assert!(code == 3 && err.contains("has no event log"), "{err}");
    node.write("log-cut", "junk");
    let (code, _, err) = node.run(&["node", "policy", "--log", &node.path("log-cut").display().to_string()]);
    assert!(code == 3 && err.contains("malformed event log"), "{err}");
}

/// A log is taken apart by a worker that is nobody: root who cannot become nobody is refused, an operator who is not
/// root is no more than that already.
#[test]
fn a_log_is_taken_apart_by_nobody() {
    let node = Node::new();
    for command in ["node policy --log $LOG", "node predict --path qemu --cmdline ro --log $LOG"] {
        let run = |before: &str| node.shell(&format!("LOG={LOG}; exec {before} \"$BIN\" {command}"), &[]);
        let (code, _, err) = run("setpriv --bounding-set=-setuid,-setgid");
        assert!(code == 3 && err.contains("could not be taken apart"), "{command}: {code} {err}");
        // With the capabilities of the unit, and no more.
        let unit = include_str!("../../../integration/systemd/boltseal-attest.service");
        let bounds = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
        let bounds = bounds.to_lowercase().replace("cap_", "+").replace(' ', ",");
        let (code, _, err) = run(&format!("setpriv --bounding-set=-all,{bounds} --no-new-privs"));
        assert_eq!(code, 0, "{command}: {err}");
        // Not as root; what such a user may read lies in the test's folder.
        let copies =
            "cp \"$BIN\" $D/program; cp $LOG $D/copy; chmod 755 $D/program; chmod 644 $D/copy; cd $D; LOG=$D/copy";
        let plain = "setpriv --reuid=12345 --regid=12345 --clear-groups";
        let (code, _, err) = node.shell(&format!("LOG={LOG}; {copies}; exec {plain} $D/program {command}"), &[]);
        assert_eq!(code, 0, "{command}, not as root: {err}");
    }
}

#[test]
fn no_tpm_is_undecided_and_a_wrong_pcr_is_usage() {
    let node = Node::new();
    let (code, out, err) = node.run(&["node", "enroll", "--trust-on-first-use", "--tpm", "unix:/run/none"]);
    assert_eq!((code, out.as_str()), (3, ""));
    assert!(err.contains("/run/none"), "{err}");
    assert_eq!(node.run(&["node", "enroll", "--trust-on-first-use", "--pcrs", "24"]).0, 2);
    assert_eq!(node.run(&["node", "enroll", "--trust-on-first-use", "--pcrs", "x"]).0, 2);
    assert_eq!(node.run(&["node", "status"]).0, 4);
}

fn hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// An image layout with one image and one signature of it in cosign 2's form. What it signs with does not matter here.
fn layout(node: &Node) -> String {
    let blob = |bytes: &str| {
        node.write(&format!("layout/blobs/sha256/{}", hex(bytes.as_bytes())), bytes);
        format!("\"digest\":\"sha256:{}\",\"size\":{}", hex(bytes.as_bytes()), bytes.len())
    };
    let image = r#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000","size":2},"layers":[]}"#;
    let image_at = blob(image);
    let payload = format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"registry.test/shop/cart"}},"image":{{"docker-manifest-digest":"sha256:{}"}},"type":"cosign container image signature"}},"optional":null}}"#,
        hex(image.as_bytes())
    );
    let der = "MEQCIA8PDw8PDw8PDw8PDw8PDw8PDw8PDw8PDw8PDw8PDw8PAiAPDw8PDw8PDw8PDw8PDw8PDw8PDw8PDw8PDw8PDw8PDw==";
    let layer = blob(&payload);
    let kind = "application/vnd.dev.cosign.simplesigning.v1+json";
    let manifest = format!(
        r#"{{"schemaVersion":2,"layers":[{{"mediaType":"{kind}",{layer},"annotations":{{"dev.cosignproject.cosign/signature":"{der}"}}}}]}}"#
    );
    let manifest = blob(&manifest);
    node.write("layout/index.json", &format!(r#"{{"schemaVersion":2,"manifests":[{{{image_at}}},{{{manifest}}}]}}"#));
    hex(image.as_bytes())
}

#[test]
fn imports_signatures_where_a_start_finds_them() {
    let node = Node::new();
    let image = layout(&node);
    let path = node.path("layout").display().to_string();
    let (code, out, err) = node.run(&["-o", "json", "sig", "import", &path]);
    assert_eq!(code, 0, "{out}{err}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&report["taken"][0]["image"], &report["taken"][0]["new"]),
        (&format!("sha256:{image}").into(), &true.into()),
        "{out}"
    );
    let store = node.path("lib/boltseal/sig");
    let found = signatures::files(&store, &format!("sha256:{image}")).unwrap();
    assert_eq!((found.files.len(), found.skipped), (1, vec![]));
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&store), mode(&found.looked_in)), (0o700, 0o700));
    for file in fs::read_dir(&found.looked_in).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
    // Again, as a tar.
    let tar = node.path("layout.tar").display().to_string();
    assert!(Command::new("tar").args(["-C", &path, "-cf", &tar, "."]).status().unwrap().success());
    let (code, out, _) = node.run(&["sig", "import", &tar]);
    assert_eq!(code, 0);
    assert!(
        out.contains("was there already") && out.contains("1 file in /var/lib/boltseal/sig, 0 new; 0 skipped"),
        "{out}"
    );
}

#[test]
fn what_is_no_signature_is_not_imported() {
    let node = Node::new();
    let image = layout(&node);
    let path = node.path("layout").display().to_string();
    // The payload altered after signing: the blob no longer has its digest.
    let blobs = node.path("layout/blobs/sha256");
    for entry in fs::read_dir(&blobs).unwrap() {
        let entry = entry.unwrap().path();
        let text = fs::read_to_string(&entry).unwrap();
        if text.contains("docker-reference") {
            fs::write(&entry, text.replace("shop/cart", "shop/cast")).unwrap();
        }
    }
    let (code, out, err) = node.run(&["sig", "import", &path]);
    assert_eq!(code, 1, "{out}");
    assert!(
        out.contains("does not have its digest") && out.contains("0 files") && err.contains("nothing taken"),
        "{out}{err}"
    );
    assert!(!node.path(&format!("lib/boltseal/sig/sha256/{image}")).exists());
    let (code, _, err) = node.run(&["sig", "import", "/nonexistent"]);
    assert_eq!(code, 3, "{err}");
    // What is named an attestation and is none.
    let node = Node::new();
    node.write(&format!("layout/blobs/sha256/{}", hex(b"{}")), "{}");
    let layer = format!(
        "\"mediaType\":\"application/vnd.dsse.envelope.v1+json\",\"digest\":\"sha256:{}\",\"size\":2",
        hex(b"{}")
    );
    let manifest = format!("{{\"schemaVersion\":2,\"layers\":[{{{layer}}}]}}");
    node.write(&format!("layout/blobs/sha256/{}", hex(manifest.as_bytes())), &manifest);
    let entry = format!("{{\"digest\":\"sha256:{}\",\"size\":{}}}", hex(manifest.as_bytes()), manifest.len());
    node.write("layout/index.json", &format!("{{\"schemaVersion\":2,\"manifests\":[{entry}]}}"));
    let path = node.path("layout").display().to_string();
    let (code, out, _) = node.run(&["sig", "import", &path]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("no signatures") && out.contains("0 files"), "{out}");
    node.write("layout/index.json", "{\"schemaVersion\":2,\"manifests\":[]}");
    assert_eq!(node.run(&["sig", "import", &path]).0, 1, "nothing there");
    node.write("layout/index.json", "[]");
    assert_eq!(node.run(&["sig", "import", &path]).0, 3);
}

#[test]
fn doctor_names_each_lack_with_a_fix() {
    let node = Node::new();
    let (code, out, err) = node.run(&["doctor", "-o", "json"]);
    assert_eq!((code, err.as_str()), (1, ""));
    let checks: Vec<serde_json::Value> = serde_json::from_str(&out).unwrap();
    let state = |name: &str| checks.iter().find(|c| c["name"] == name).map(|c| c["state"].as_str().unwrap().to_owned());
    assert_eq!(state("policy").as_deref(), Some("fail"));
    assert_eq!(state("trail").as_deref(), Some("ok"));
    assert_eq!(state("signatures").as_deref(), Some("warn"));
    for check in &checks {
        assert!(!check["fact"].as_str().unwrap().is_empty(), "{check}");
        assert!(check["state"] == "ok" || !check["fix"].as_str().unwrap().is_empty(), "{check}");
    }
    let (table_code, out, _) = node.run(&["doctor"]);
    assert_eq!(table_code, 1);
    assert!(out.lines().filter(|l| l.contains("Fix: ")).count() >= 2, "{out}");
    // A trail in the future, and one that is in memory.
    fs::set_permissions(node.trail(), fs::Permissions::from_mode(0o777)).unwrap();
    let (_, out, _) = node.run(&["doctor"]);
    assert!(out.contains("✗ trail") && out.contains("writable by others"), "{out}");
    let (_, out, _) = node.shell("mount -t tmpfs -o mode=0700 tmpfs /var/log/boltseal; exec \"$BIN\" doctor", &[]);
    assert!(out.contains("is in memory (tmpfs)"), "{out}");
}

/// Starts containerd in a process namespace of its own, so that no other one is met.
#[test]
fn doctor_asks_the_containerd_that_runs() {
    let node = Node::new();
    let with = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.boltseal]\nruntime_type = \"io.containerd.boltseal.v1\"\n";
    let config = |more: &str| node.write("etc/containerd/config.toml", &format!("{with}{more}"));
    let doctor = |then: &str| {
        let script = format!(
            "exec unshare -n -p -f --kill-child --mount-proc sh -c 'containerd >/dev/null 2>&1 & \
             for i in $(seq 200); do [ -S /run/containerd/containerd.sock ] && break; sleep 0.05; done; {then} \"$BIN\" doctor'"
        );
        let (_, out, _) = node.shell(&script, &[]);
        out.lines().find(|l| l.contains(" containerd ")).unwrap_or_else(|| panic!("{out}")).to_owned()
    };
    config("pod_annotations = [\"boltseal.dev/*\"]\n");
    let line = doctor("");
    assert!(line.contains("✓ containerd") && line.ends_with("names io.containerd.boltseal.v1"), "{line}");
    let line = doctor("touch -d 2099-01-01 /etc/containerd/config.toml;");
    assert!(line.contains("! containerd") && line.contains("younger than the process"), "{line}");
    config("");
    let line = doctor("");
    assert!(line.contains("! containerd") && line.contains("annotation is not handed on"), "{line}");
    node.write("etc/containerd/config.toml", "version = 2\n");
    let line = doctor("");
    assert!(line.contains("✗ containerd") && line.contains("names no runtime"), "{line}");
    let (_, out, _) = node.shell("exec unshare -p -f --kill-child --mount-proc \"$BIN\" doctor", &[]);
    assert!(out.contains("✗ containerd  is not running"), "{out}");
}
