//! Small real images: a static busybox, made reproducibly, pushed to the loopback registry.
use crate::process::run;
use anyhow::{Context, Result, bail};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// User of every image: not root.
pub const USER: &str = "65532:65532";

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Image {
    /// `127.0.0.1:5000/demo/app:1`
    pub name: String,
    /// `127.0.0.1:5000/demo/app`
    pub repository: String,
    /// sha256:... of the manifest.
    pub manifest: String,
    pub config: String,
    /// One layer: the chain id is its diff id.
    pub chain_id: String,
    /// The OCI layout that it was made in.
    pub layout: PathBuf,
}

impl Image {
    /// The manifest's digest without its algorithm.
    #[must_use]
    pub fn hex(&self) -> &str {
        self.manifest.trim_start_matches("sha256:")
    }
}

/// What one image shall hold.
#[derive(Debug, Clone)]
pub struct Recipe {
    pub entrypoint: Vec<String>,
    pub user: String,
    /// busybox applets beside busybox itself.
    pub applets: Vec<&'static str>,
    /// `/dev` is a symlink out of the root file system.
    pub dev_symlink: bool,
    /// Text of `/etc/release`: two images that differ in this alone have different layers.
    pub release: String,
    /// Static programs for `/bin`, by their path here.
    pub programs: Vec<PathBuf>,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            entrypoint: vec!["/bin/sleep".into(), "3600".into()],
            user: USER.into(),
            applets: vec![
                "sh", "sleep", "cat", "echo", "id", "ls", "true", "false", "touch", "mount", "stat", "seq", "tty",
                "head",
            ],
            dev_symlink: false,
            release: "1".into(),
            programs: Vec::new(),
        }
    }
}

#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    let hex: String = digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Builds the image below `work` and pushes it to `registry` as `repository:tag`.
pub fn build(work: &Path, registry: &str, path: &str, tag: &str, recipe: &Recipe) -> Result<Image> {
    let layout = work.join(format!("{}-{tag}", path.replace('/', "-")));
    let root = layout.join("root");
    root_folder(&root, recipe)?;
    let (layer, diff_id) = layer(&layout, &root)?;
    fs::remove_dir_all(&root)?;

    let layer = blob(&layout, &layer)?;
    let config = json!({
        "created": "2026-01-01T00:00:00Z", "architecture": "amd64", "os": "linux",
        "config": { "User": recipe.user, "Entrypoint": recipe.entrypoint, "WorkingDir": "/",
                    "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        "history": [{ "created": "2026-01-01T00:00:00Z", "created_by": "busybox" }],
    });
    let config = json_blob(&layout, &config)?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.0, "size": config.1 },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": layer.0, "size": layer.1 }],
    });
    let manifest = json_blob(&layout, &manifest)?;
    let index = json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest.0, "size": manifest.1,
        "annotations": { "org.opencontainers.image.ref.name": tag } }] });
    fs::write(layout.join("index.json"), serde_json::to_vec(&index)?)?;
    fs::write(layout.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;

    let repository = format!("{registry}/{path}");
    let name = format!("{repository}:{tag}");
    run(Command::new("skopeo")
        .args(["--insecure-policy", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false"])
        .arg(format!("oci:{}:{tag}", layout.display()))
        .arg(format!("docker://{name}")))?;
    Ok(Image { name, repository, manifest: manifest.0, config: config.0, chain_id: diff_id, layout })
}

fn root_folder(root: &Path, recipe: &Recipe) -> Result<()> {
    for folder in ["bin", "etc", "proc", "sys", "tmp", "run", "data"] {
        fs::create_dir_all(root.join(folder))?;
    }
    if recipe.dev_symlink {
        symlink("/tmp", root.join("dev"))?;
    } else {
        fs::create_dir(root.join("dev"))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    let busybox = Path::new("/bin/busybox");
    if !fs::read(busybox).is_ok_and(|bytes| is_static(&bytes)) {
        bail!("/bin/busybox is missing or not static. Fix: apt-get install busybox-static");
    }
    for program in recipe.programs.iter().map(PathBuf::as_path).chain([busybox]) {
        let inside = root.join("bin").join(program.file_name().context("a program without a name")?);
        fs::copy(program, &inside).with_context(|| program.display().to_string())?;
        fs::set_permissions(inside, fs::Permissions::from_mode(0o755))?;
    }
    for applet in &recipe.applets {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:\napp:x:65532:65532::/:\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\napp:x:65532:\n")?;
    fs::write(root.join("etc/release"), &recipe.release)?;
    Ok(())
}

/// An ELF file that names no interpreter.
fn is_static(elf: &[u8]) -> bool {
    let number = |at: usize, size: usize| -> Option<usize> {
        let bytes = elf.get(at..at + size)?;
        Some(bytes.iter().rev().fold(0, |sum, &byte| sum << 8 | usize::from(byte)))
    };
    let (Some(table), Some(size), Some(count)) = (number(32, 8), number(54, 2), number(56, 2)) else { return false };
    const PT_INTERP: usize = 3;
    elf.starts_with(b"\x7fELF")
        && (0..count).all(|index| number(table + index * size, 4).is_some_and(|kind| kind != PT_INTERP))
}

/// The layer's bytes and its diff id.
fn layer(work: &Path, root: &Path) -> Result<(Vec<u8>, String)> {
    let tar = work.join("layer.tar");
    run(Command::new("tar")
        .args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "--format=ustar", "-cf"])
        .arg(&tar)
        .arg("-C")
        .arg(root)
        .arg("."))?;
    let diff_id = sha256(&fs::read(&tar)?);
    run(Command::new("gzip").args(["-n", "-f", "-1"]).arg(&tar))?;
    let packed = work.join("layer.tar.gz");
    let bytes = fs::read(&packed)?;
    fs::remove_file(packed)?;
    Ok((bytes, diff_id))
}

fn blob(layout: &Path, bytes: &[u8]) -> Result<(String, usize)> {
    let name = sha256(bytes);
    let folder = layout.join("blobs/sha256");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name.trim_start_matches("sha256:")), bytes)?;
    Ok((name, bytes.len()))
}

fn json_blob(layout: &Path, value: &Value) -> Result<(String, usize)> {
    blob(layout, &serde_json::to_vec(value)?)
}
