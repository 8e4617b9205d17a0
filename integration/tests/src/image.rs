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
/// File of the image `app` that no start reads: whole blocks, each unlike the others, longer than what the kernel reads ahead.
pub const LATE: &str = "/etc/late";
pub const LATE_BLOCKS: usize = 64;

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Image {
    /// `127.0.0.1:5000/demo/app:1`
    pub name: String,
    /// `127.0.0.1:5000/demo/app`
    pub repository: String,
    /// sha256:... of the manifest.
    pub manifest: String,
    pub config: String,
    /// Of one layer it is the diff id.
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
    pub cmd: Vec<String>,
    pub user: String,
    /// busybox, and the applets beside it; without, nothing but `files`.
    pub busybox: bool,
    pub applets: Vec<&'static str>,
    /// `/dev` is a symlink out of the root file system.
    pub dev_symlink: bool,
    /// Paths of the image that are symbolic links, and where they lead; what else is there under the name goes.
    pub links: Vec<(&'static str, String)>,
    /// Text of `/etc/release`: two images that differ in this alone have different layers.
    pub release: String,
    /// When it says that it was made; RFC 3339.
    pub created: String,
    /// Beside `PATH`.
    pub env: Vec<String>,
    /// Of its one step; empty: the path.
    pub created_by: String,
    pub form: Form,
    /// More files: where each comes from, its path in the image, its mode.
    pub files: Vec<(PathBuf, &'static str, u32)>,
    /// The one of them that gets a capability.
    pub capable: Option<&'static str>,
    /// Layers above, the lowest first.
    pub above: Vec<Vec<Change>>,
}

/// What a layer does to those below it.
#[derive(Debug, Clone, Copy)]
pub enum Change {
    /// A file of this text, and the folders that lead to it.
    File(&'static str, &'static str),
    /// Empty files in this folder, as many.
    Files(&'static str, u32),
    /// The name is gone.
    Gone(&'static str),
    /// A folder that begins anew.
    Opaque(&'static str),
}

/// What the name leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An OCI manifest.
    Oci,
    /// A manifest of Docker's schema 2.
    Docker,
    /// An OCI index of two platforms, this machine's the second; `manifest` is the index.
    Index,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            entrypoint: vec!["/bin/sleep".into(), "3600".into()],
            cmd: Vec::new(),
            user: USER.into(),
            busybox: true,
            applets: vec![
                "sh", "sleep", "cat", "echo", "id", "ls", "true", "false", "touch", "mount", "stat", "seq", "tty",
                "head",
            ],
            dev_symlink: false,
            links: Vec::new(),
            release: "1".into(),
            created: "2026-01-01T00:00:00Z".into(),
            env: Vec::new(),
            created_by: String::new(),
            form: Form::Oci,
            files: Vec::new(),
            capable: None,
            above: Vec::new(),
        }
    }
}

#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    let hex: String = digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// One block of [`LATE`].
#[must_use]
pub fn late(block: usize) -> Vec<u8> {
    format!("{block:>4095}\n").into_bytes()
}

/// Builds the image below `work` and pushes it to `registry` as `repository:tag`.
pub fn build(work: &Path, registry: &str, path: &str, tag: &str, recipe: &Recipe) -> Result<Image> {
    let layout = layout(work, path, tag);
    let root = layout.join("root");
    root_folder(&root, recipe)?;
    let mut layers = vec![layer(&layout, &root, recipe.capable.is_some())?];
    fs::remove_dir_all(&root)?;
    for changes in &recipe.above {
        fs::create_dir(&root)?;
        changes.iter().try_for_each(|change| changed(&root, *change))?;
        layers.push(layer(&layout, &root, false)?);
        fs::remove_dir_all(&root)?;
    }
    push(layout, registry, path, tag, &layers, recipe)
}

/// As a layer's archive has it: what goes is a file of a name of its own.
fn changed(root: &Path, change: Change) -> Result<()> {
    let at = |path: &str| root.join(path.trim_start_matches('/'));
    let write = |to: PathBuf, text: &str| -> Result<()> {
        fs::create_dir_all(to.parent().context("a file at the root")?)?;
        fs::write(&to, text).with_context(|| to.display().to_string())
    };
    match change {
        Change::File(path, text) => write(at(path), text),
        Change::Files(folder, count) => (0..count).try_for_each(|n| write(at(folder).join(n.to_string()), "")),
        Change::Gone(path) => {
            let (folder, name) = path.rsplit_once('/').context("not a whole path")?;
            write(at(folder).join(format!(".wh.{name}")), "")
        }
        Change::Opaque(folder) => write(at(folder).join(".wh..wh..opq"), ""),
    }
}

/// Of the layers' diff ids, the lowest first.
fn chain_id(layers: &[(Vec<u8>, String)]) -> String {
    let mut all = layers.iter().map(|(_, diff_id)| diff_id.clone());
    let first = all.next().unwrap_or_default();
    all.fold(first, |chain, diff_id| sha256(format!("{chain} {diff_id}").as_bytes()))
}

/// The same of a layer that is packed already: `packed` is a .tar.gz.
pub fn of_layer(work: &Path, registry: &str, path: &str, tag: &str, packed: &Path) -> Result<Image> {
    let layer = fs::read(packed).with_context(|| packed.display().to_string())?;
    let unpacked = Command::new("gzip").arg("-dc").arg(packed).output()?;
    if !unpacked.status.success() {
        bail!("{}: {}", packed.display(), String::from_utf8_lossy(&unpacked.stderr));
    }
    let diff_id = sha256(&unpacked.stdout);
    drop(unpacked);
    let recipe = Recipe { entrypoint: Vec::new(), ..Recipe::default() };
    push(layout(work, path, tag), registry, path, tag, &[(layer, diff_id)], &recipe)
}

fn layout(work: &Path, path: &str, tag: &str) -> PathBuf {
    work.join(format!("{}-{tag}", path.replace('/', "-")))
}

fn push(
    layout: PathBuf,
    registry: &str,
    path: &str,
    tag: &str,
    layers: &[(Vec<u8>, String)],
    recipe: &Recipe,
) -> Result<Image> {
    let chain_id = chain_id(layers);
    let diff_ids: Vec<_> = layers.iter().map(|(_, diff_id)| diff_id).collect();
    let packed = layers.iter().map(|(bytes, _)| blob(&layout, bytes)).collect::<Result<Vec<_>>>()?;
    let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
    let packed: Vec<_> = packed.iter().map(|l| json!({ "mediaType": kind, "digest": l.0, "size": l.1 })).collect();
    let env: Vec<&str> = std::iter::once("PATH=/bin").chain(recipe.env.iter().map(String::as_str)).collect();
    let created_by = if recipe.created_by.is_empty() { path } else { &recipe.created_by };
    let config = json!({
        "created": recipe.created, "architecture": "amd64", "os": "linux",
        "config": { "User": recipe.user, "Entrypoint": recipe.entrypoint, "Cmd": recipe.cmd, "WorkingDir": "/", "Env": env },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": vec![json!({ "created": recipe.created, "created_by": created_by }); layers.len()],
    });
    let config = json_blob(&layout, &config)?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.0, "size": config.1 },
        "layers": packed,
    });
    let own = json_blob(&layout, &manifest)?;
    let (mut kind, mut manifest) = ("application/vnd.oci.image.manifest.v1+json", own);
    if recipe.form == Form::Index {
        (kind, manifest) = ("application/vnd.oci.image.index.v1+json", index_blob(&layout, &config.0, manifest)?);
    }
    let index = json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": kind, "digest": manifest.0, "size": manifest.1,
        "annotations": { "org.opencontainers.image.ref.name": tag } }] });
    fs::write(layout.join("index.json"), serde_json::to_vec(&index)?)?;
    fs::write(layout.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;

    let repository = format!("{registry}/{path}");
    let name = format!("{repository}:{tag}");
    run(Command::new("skopeo")
        .args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"])
        .args(if recipe.form == Form::Docker {
            &["--format", "v2s2"][..]
        } else {
            &["--all", "--preserve-digests"][..]
        })
        .arg(format!("oci:{}:{tag}", layout.display()))
        .arg(format!("docker://{name}")))?;
    let image = Image { name, repository, manifest: manifest.0, config: config.0, chain_id, layout };
    if recipe.form == Form::Docker { converted(image) } else { Ok(image) }
}

/// Digests of what skopeo made of it.
fn converted(image: Image) -> Result<Image> {
    let raw = Command::new("skopeo")
        .args(["inspect", "--raw", "--tls-verify=false"])
        .arg(format!("docker://{}", image.name))
        .output()?;
    let manifest: Value = serde_json::from_slice(&raw.stdout).context("skopeo inspect")?;
    if manifest["mediaType"] != "application/vnd.docker.distribution.manifest.v2+json" {
        bail!("no manifest of schema 2: {manifest}");
    }
    let config = manifest["config"]["digest"].as_str().context("no config")?.to_owned();
    Ok(Image { manifest: sha256(&raw.stdout), config, ..image })
}

/// An index of this image for this machine, and of the same layers with a config for another one.
fn index_blob(layout: &Path, config: &str, own: (String, usize)) -> Result<(String, usize)> {
    let read = |digest: &str| -> Result<Value> {
        let file = layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
        Ok(serde_json::from_slice(&fs::read(file)?)?)
    };
    let (mut other_config, mut other) = (read(config)?, read(&own.0)?);
    other_config["architecture"] = json!("arm64");
    let other_config = json_blob(layout, &other_config)?;
    other["config"]["digest"] = json!(other_config.0);
    other["config"]["size"] = json!(other_config.1);
    let other = json_blob(layout, &other)?;
    let entry = |of: &(String, usize), architecture: &str| {
        json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": of.0, "size": of.1,
                "platform": { "os": "linux", "architecture": architecture } })
    };
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry(&other, "arm64"), entry(&own, "amd64")],
    });
    json_blob(layout, &index)
}

/// Of an index's manifests, the one for that architecture.
pub fn of_platform(image: &Image, architecture: &str) -> Result<Image> {
    let file = image.layout.join("blobs/sha256").join(image.hex());
    let index: Value = serde_json::from_slice(&fs::read(&file).with_context(|| file.display().to_string())?)?;
    let entries = index["manifests"].as_array().context("no index")?;
    let entry = entries.iter().find(|entry| entry["platform"]["architecture"] == architecture);
    let digest = entry.and_then(|entry| entry["digest"].as_str()).context("no such platform")?;
    Ok(Image { manifest: digest.into(), ..image.clone() })
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
    if recipe.busybox {
        fs::copy(busybox, root.join("bin/busybox")).context("busybox")?;
        fs::set_permissions(root.join("bin/busybox"), fs::Permissions::from_mode(0o755))?;
        for applet in &recipe.applets {
            symlink("busybox", root.join("bin").join(applet))?;
        }
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:\napp:x:65532:65532::/:\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\napp:x:65532:\n")?;
    fs::write(root.join("etc/release"), &recipe.release)?;
    for (from, to, mode) in &recipe.files {
        let to = root.join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().context("a file at the root")?)?;
        fs::copy(from, &to).with_context(|| from.display().to_string())?;
        fs::set_permissions(to, fs::Permissions::from_mode(*mode))?;
    }
    if let Some(path) = recipe.capable {
        // CAP_NET_RAW, permitted and effective, as setcap writes it.
        let value: Vec<u8> = [0x0200_0001_u32, 0x2000, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
        let to = root.join(path);
        rustix::fs::setxattr(&to, "security.capability", &value, rustix::fs::XattrFlags::empty())?;
    }
    for (path, target) in &recipe.links {
        link(&root.join(path.trim_start_matches('/')), target)?;
    }
    Ok(())
}

/// A symbolic link in the place of whatever is there.
fn link(path: &Path, target: &str) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path)?,
        Ok(_) => fs::remove_file(path)?,
        Err(_) => fs::create_dir_all(path.parent().context("a link at the root")?)?,
    }
    symlink(target, path).with_context(|| path.display().to_string())
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

/// Extended attributes go into tar's newer form, which else has the time of access too.
const CAPABLE: [&str; 2] =
    ["--xattrs-include=security.capability", "--pax-option=delete=atime,delete=ctime,exthdr.name=%d/PaxHeaders/%f"];

/// The layer's bytes and its diff id.
fn layer(work: &Path, root: &Path, capable: bool) -> Result<(Vec<u8>, String)> {
    let tar = work.join("layer.tar");
    run(Command::new("tar")
        .args([
            "--sort=name",
            "--mtime=@0",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            if capable { "--format=posix" } else { "--format=ustar" },
        ])
        .args(if capable { &CAPABLE[..] } else { &[] })
        .arg("-cf")
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
