//! A private containerd, Debian's 1.6 or the newer 2.1, with the CRI and the handlers `boltseal` and `runc`.
use crate::process::{Daemon, output};
use crate::registry;
use anyhow::{Context, Result, bail};
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub const SOCKET: &str = "/run/containerd/containerd.sock";
pub const ROOT: &str = "/var/lib/containerd";
pub const STATE: &str = "/run/containerd";
/// Where 2.1 looks for image verifiers. A test that wants one makes the folder: without it every image passes.
pub const VERIFIERS: &str = "/run/boltseal-verifiers";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Debian bookworm's.
    V1_6,
    /// A newer Debian's, unpacked beside the tests.
    V2_1,
}

impl Version {
    pub const ALL: [Self; 2] = [Self::V1_6, Self::V2_1];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V1_6 => "containerd 1.6",
            Self::V2_1 => "containerd 2.1",
        }
    }

    /// Folder of containerd, ctr and its own runc shim.
    #[must_use]
    pub fn folder(self) -> PathBuf {
        match self {
            Self::V1_6 => "/usr/bin".into(),
            Self::V2_1 => crate::private::project().join(".cache/tools/containerd-2.1/usr/bin"),
        }
    }

    /// The file's text; `sandbox` is the pause image.
    #[must_use]
    pub fn config(self, sandbox: &str) -> String {
        let head = format!(
            "root = \"{ROOT}\"\nstate = \"{STATE}\"\nimports = []\n\
             [grpc]\n  address = \"{SOCKET}\"\n[debug]\n  level = \"warn\"\n"
        );
        let project = crate::private::project();
        let drop_in = |file: &str| {
            let path = project.join("integration/containerd").join(file);
            fs::read_to_string(&path).with_context(|| path.display().to_string())
        };
        // The drop-in that the README tells a user to install is the one that is tested.
        match self {
            Self::V1_6 => drop_in("config-v2.toml").map(|drop_in| {
                let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
                format!(
                    "version = 2\n{head}{}\n[{cri}]\n  sandbox_image = \"{sandbox}\"\n  restrict_oom_score_adj = true\n\
                     [{cri}.cni]\n  bin_dir = \"/usr/lib/cni\"\n  conf_dir = \"/etc/cni/net.d\"\n\
                     [{cri}.containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n",
                    drop_in.replacen("version = 2", "", 1)
                )
            }),
            Self::V2_1 => drop_in("config-v3.toml").and_then(|found| Ok((found, drop_in("verifier-v3.toml")?))).map(|(drop_in, verifier)| {
                let cri = "plugins.'io.containerd.cri.v1.runtime'";
                format!(
                    "version = 3\n{head}{}\n[plugins.'io.containerd.cri.v1.images'.pinned_images]\n  sandbox = \"{sandbox}\"\n\
                     [{cri}]\n  restrict_oom_score_adj = true\n\
                     [{cri}.cni]\n  bin_dirs = [\"/usr/lib/cni\"]\n  conf_dir = \"/etc/cni/net.d\"\n\
                     [{cri}.containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n\
                     [plugins.'io.containerd.nri.v1.nri']\n  disable = true\n{}",
                    drop_in.replacen("version = 3", "", 1),
                    verifier.replacen("version = 3", "", 1).replace("/usr/local/lib/boltseal/verifier'", &format!("{VERIFIERS}'"))
                )
            }),
        }
        .unwrap_or_else(|error| format!("# {error:#}\n!"))
    }
}

#[derive(Debug)]
pub struct Containerd {
    pub version: Version,
    /// None: one that the machine's own start-up runs.
    daemon: Option<Daemon>,
    work: PathBuf,
}

impl Containerd {
    /// A fresh one: whatever an earlier containerd of this private machine kept is removed first.
    pub fn start(version: Version, work: &Path, sandbox: &str) -> Result<Self> {
        for folder in [ROOT, STATE] {
            if Path::new(folder).exists() {
                fs::remove_dir_all(folder).with_context(|| folder.to_owned())?;
            }
            fs::create_dir_all(folder)?;
        }
        network()?;
        fs::write(work.join("containerd.toml"), version.config(sandbox))?;
        let daemon = Some(spawn(version, work)?);
        Ok(Self { version, daemon, work: work.into() })
    }

    /// The one that runs here already.
    #[must_use]
    pub fn of_the_machine(version: Version, work: &Path) -> Self {
        Self { version, daemon: None, work: work.into() }
    }

    /// Ends it without a word and starts it again on the same state.
    pub fn restart(&mut self) -> Result<()> {
        let daemon = self.own()?;
        daemon.signal(nix::sys::signal::Signal::SIGKILL)?;
        daemon.stop()?;
        self.daemon = Some(spawn(self.version, &self.work)?);
        Ok(())
    }

    pub fn stop(&mut self) -> Result<()> {
        self.own()?.stop()
    }

    pub fn pid(&self) -> Result<u32> {
        self.daemon.as_ref().map(Daemon::pid).context("the machine's own containerd is not ours to know")
    }

    fn own(&mut self) -> Result<&mut Daemon> {
        self.daemon.as_mut().context("the machine's own containerd is not ours to end")
    }

    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.as_ref().map(Daemon::said).unwrap_or_default()
    }

    /// `ctr` of the same version, on this containerd, in namespace `namespace`.
    #[must_use]
    pub fn ctr(&self, namespace: &str) -> Command {
        let mut command = Command::new(self.version.folder().join("ctr"));
        command.args(["--address", SOCKET, "--namespace", namespace]);
        command
    }

    pub fn pull(&self, namespace: &str, image: &str) -> Result<()> {
        let mut command = self.ctr(namespace);
        command.args(["images", "pull", "--plain-http"]);
        if self.version == Version::V2_1 {
            command.arg("--local");
        }
        let said = output(command.arg(image))?;
        if !said.ok() {
            bail!("cannot pull {image} from {}: {}", registry::ADDRESS, said.stderr);
        }
        Ok(())
    }
}

fn spawn(version: Version, work: &Path) -> Result<Daemon> {
    let folder = version.folder();
    let mut daemon = Daemon::start(
        version.name(),
        Command::new(folder.join("containerd"))
            .arg("--config")
            .arg(work.join("containerd.toml"))
            .env_clear()
            .env("PATH", format!("/usr/local/bin:{}:/usr/sbin:/usr/bin:/sbin:/bin", folder.display())),
        &work.join(format!("{}.log", version.name().replace(' ', "-"))),
    )?;
    daemon.wait_until(Duration::from_secs(30), || UnixStream::connect(SOCKET).is_ok())?;
    Ok(daemon)
}

/// Debian's CNI plugins: a bridge of our own and loopback.
fn network() -> Result<()> {
    fs::create_dir_all("/etc/cni/net.d")?;
    fs::write(
        "/etc/cni/net.d/10-pods.conflist",
        r#"{ "cniVersion": "0.4.0", "name": "pods", "plugins": [
  { "type": "bridge", "bridge": "pods0", "isGateway": true, "ipMasq": false,
    "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.88.0.0/16" }]] } } ] }
"#,
    )?;
    Ok(())
}
