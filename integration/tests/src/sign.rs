//! Signing with the real cosign, offline.
use crate::image::Image;
use crate::process::{output, run};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which cosign signs: they write different formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cosign {
    /// 2.5: the tag `sha256-<hex>.sig`, a payload that names the repository.
    V2,
    /// 3.1: a Sigstore bundle among the image's referrers, which names a digest alone.
    V3,
}

impl Cosign {
    fn program(self) -> PathBuf {
        let version = match self {
            Self::V2 => "cosign-2.5",
            Self::V3 => "cosign-3.1",
        };
        crate::private::project().join(".cache/tools").join(version).join("usr/bin/cosign")
    }

    /// To be given its arguments; it keeps what it keeps in `home`.
    #[must_use]
    pub fn command(self, home: &Path) -> Command {
        let mut command = Command::new(self.program());
        command.env("COSIGN_PASSWORD", "").env("HOME", home).env("TUF_ROOT", home.join("tuf"));
        command
    }
}

/// A key pair as cosign keeps it.
#[derive(Debug, Clone)]
pub struct Key {
    pub private: PathBuf,
    pub public: PathBuf,
    home: PathBuf,
}

impl Key {
    pub fn generate(work: &Path, name: &str) -> Result<Self> {
        let home = work.join("keys");
        fs::create_dir_all(&home)?;
        let prefix = home.join(name);
        run(Cosign::V2.command(&home).args(["generate-key-pair", "--output-key-prefix"]).arg(&prefix))?;
        Ok(Self { private: prefix.with_extension("key"), public: prefix.with_extension("pub"), home })
    }

    /// A key of another kind than cosign makes: openssl's, by these options. cosign 3.1 imports it, because Debian's 2.5
    /// imports Ed25519 alone; both sign with what was imported. The same name and kind again is the same key.
    pub fn import(work: &Path, name: &str, options: &[&str]) -> Result<Self> {
        let home = work.join("keys");
        fs::create_dir_all(&home)?;
        let prefix = home.join(name);
        let (made, kind) = (prefix.with_extension("pem"), prefix.with_extension("kind"));
        let key = Self { private: prefix.with_extension("key"), public: prefix.with_extension("pub"), home };
        if fs::read_to_string(&kind).is_ok_and(|of| of == options.join(" ")) {
            return Ok(key);
        }
        run(Command::new("openssl").args(["genpkey", "-quiet"]).args(options).arg("-out").arg(&made))?;
        for old in [&key.private, &key.public] {
            if old.exists() {
                fs::remove_file(old)?;
            }
        }
        let mut import = Cosign::V3.command(&key.home);
        run(import.args(["import-key-pair", "--key"]).arg(&made).arg("--output-key-prefix").arg(&prefix))?;
        fs::write(kind, options.join(" "))?;
        Ok(key)
    }

    /// The key `name` that an earlier run generated, with its folder.
    #[must_use]
    pub fn kept(home: &Path, name: &str) -> Self {
        let prefix = home.join(name);
        Self { private: prefix.with_extension("key"), public: prefix.with_extension("pub"), home: home.into() }
    }

    pub fn sign(&self, cosign: Cosign, image: &Image) -> Result<()> {
        let target = format!("{}@{}", image.repository, image.manifest);
        let mut command = cosign.command(&self.home);
        command.arg("sign").arg("--yes").arg("--key").arg(&self.private);
        match cosign {
            Cosign::V2 => command.arg("--tlog-upload=false"),
            Cosign::V3 => command.arg("--signing-config").arg(self.signing_config()?),
        };
        run(command.arg(target)).map(|_| ())
    }

    /// A signed statement about the image that is no signature of it: a vulnerability report, of no schema.
    pub fn attest(&self, cosign: Cosign, image: &Image) -> Result<()> {
        let predicate = r#"{"invocation":{},"scanner":{"uri":"","version":"","db":{"uri":"","version":""},"result":{}},
            "metadata":{"scanStartedOn":"2026-01-01T00:00:00Z","scanFinishedOn":"2026-01-01T00:00:00Z"}}"#;
        self.attest_as(cosign, image, "vuln", predicate)
    }

    /// `cosign attest --type KIND`.
    pub fn attest_as(&self, cosign: Cosign, image: &Image, kind: &str, predicate: &str) -> Result<()> {
        let target = format!("{}@{}", image.repository, image.manifest);
        let file = self.home.join("predicate.json");
        fs::write(&file, predicate)?;
        let mut command = cosign.command(&self.home);
        command
            .arg("attest")
            .arg("--yes")
            .arg("--key")
            .arg(&self.private)
            .args(["--type", kind, "--predicate"])
            .arg(file);
        match cosign {
            Cosign::V2 => command.arg("--tlog-upload=false"),
            Cosign::V3 => command.arg("--signing-config").arg(self.signing_config()?),
        };
        run(command.arg(target)).map(|_| ())
    }

    /// cosign 3 has no flag for "no transparency log": an empty signing configuration says it.
    fn signing_config(&self) -> Result<PathBuf> {
        let file = self.home.join("signing-config.json");
        if !file.exists() {
            run(Cosign::V3
                .command(&self.home)
                .args(["signing-config", "create", "--no-default-fulcio", "--no-default-oidc"])
                .args(["--no-default-rekor", "--no-default-tsa", "--out"])
                .arg(&file))?;
        }
        Ok(file)
    }
}

/// What the registry holds beside the image - signatures, attestations, bundles - as one OCI layout per tag, each with
/// the tag that it was found under.
pub fn fetch(work: &Path, image: &Image) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for suffix in [".sig", ".att", ""] {
        let tag = format!("sha256-{}{suffix}", image.hex());
        let layout = work.join(format!("fetched{}-{}", suffix, image.hex()));
        if layout.exists() {
            fs::remove_dir_all(&layout).context("old layout")?;
        }
        let said = output(
            Command::new("skopeo")
                .args(["--insecure-policy", "copy", "--all", "--quiet", "--src-tls-verify=false"])
                .arg(format!("docker://{}:{tag}", image.repository))
                .arg(format!("oci:{}:{tag}", layout.display())),
        )?;
        if said.ok() {
            found.push((tag, layout));
        } else if !said.stderr.contains("manifest unknown") {
            anyhow::bail!("skopeo copy of {tag}: {}", said.stderr);
        }
    }
    Ok(found)
}
