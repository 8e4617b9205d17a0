//! The program as an operator runs it, on folders of its own: each run has a private mount namespace in which the fixed
//! paths are the test's. Runs as root, as the program does on a node.
#![allow(dead_code, reason = "each test takes what it needs")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

pub(crate) struct Node {
    pub(crate) dir: TempDir,
    pub(crate) env: Vec<(&'static str, &'static str)>,
}

/// Exit code, stdout, stderr.
pub(crate) type Ran = (i32, String, String);

impl Node {
    /// With an empty trail folder and no policy.
    pub(crate) fn new() -> Self {
        let node = Self {
            dir: tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap(),
            env: Vec::new(),
        };
        for name in ["etc/boltseal", "log/boltseal", "lib/boltseal", "run/boltseal"] {
            fs::create_dir_all(node.path(name)).unwrap();
        }
        fs::set_permissions(node.path("log/boltseal"), Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(node.path("run/boltseal"), Permissions::from_mode(0o700)).unwrap();
        node
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    }

    pub(crate) fn trail(&self) -> PathBuf {
        self.path("log/boltseal")
    }

    /// `boltseal args`.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.shell("exec \"$BIN\" \"$@\"", args)
    }

    /// A script in that namespace, with `$BIN` the program and `$D` the test's folder.
    pub(crate) fn shell(&self, script: &str, args: &[&str]) -> Ran {
        let mounts = "set -e; mount --bind $D/etc /etc; mount --bind $D/log /var/log; mount --bind $D/lib /var/lib; mount --bind $D/run /run; ";
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-c", &format!("{mounts}{script}"), "sh"]).args(args);
        command.env("BIN", env!("CARGO_BIN_EXE_boltseal")).env("D", self.dir.path()).envs(self.env.iter().copied());
        ran(&command.output().unwrap())
    }
}

fn ran(output: &Output) -> Ran {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("output is UTF-8");
    (output.status.code().expect("it ended by itself"), text(&output.stdout), text(&output.stderr))
}

/// Compares with a file of `tests/golden`; `BLESS=1` writes it.
pub(crate) fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == text, "{name} differs (BLESS=1 takes it over):\n{text}");
}
