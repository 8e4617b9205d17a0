//! The Notary Project's notation, offline, on OCI layouts.
use super::root;
use crate::image::Image;
use crate::process::{output, run};
use anyhow::{Result, ensure};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Its name for `leaf.key` with `chain.pem`.
pub const KEY: &str = "ci";

/// With a configuration of its own, which trusts one root for one subject.
#[derive(Debug)]
pub struct Notation {
    home: PathBuf,
}

impl Notation {
    /// `identity` as the tool writes it after `x509.subject:`, or `*`.
    ///
    /// # Errors
    /// A file that cannot be written; the root that cannot be made.
    pub fn new(work: &Path, ca: &str, identity: &str) -> Result<Self> {
        let folder = work.join("notation");
        let home = folder.join(format!("home-{ca}-{}", identity.replace(|c: char| !c.is_ascii_alphanumeric(), "_")));
        let config = home.join("notation");
        let store = config.join("truststore/x509/ca/root");
        fs::create_dir_all(&store)?;
        fs::copy(root(work, ca)?, store.join("root.pem"))?;
        let keys = json!({ "keys": [{ "name": KEY, "keyPath": folder.join("leaf.key"), "certPath": folder.join("chain.pem") }] });
        fs::write(config.join("signingkeys.json"), keys.to_string())?;
        let identity = if identity == "*" { identity.to_owned() } else { format!("x509.subject: {identity}") };
        let policy = json!({ "version": "1.0", "trustPolicies": [{
            "name": "boltseal", "registryScopes": ["*"], "signatureVerification": { "level": "strict" },
            "trustStores": ["ca:root"], "trustedIdentities": [identity] }] });
        fs::write(config.join("trustpolicy.json"), policy.to_string())?;
        Ok(Self { home })
    }

    /// OCI layouts are what it calls experimental.
    fn command(&self) -> Command {
        let mut command = Command::new(crate::private::project().join(".cache/tools/notation-1.3/usr/bin/notation"));
        command.env("XDG_CONFIG_HOME", &self.home).env("HOME", &self.home).env("NOTATION_EXPERIMENTAL", "1");
        command
    }

    /// One that trusts the certificate that it makes for tests, for anybody: its name for the key, and the certificate's file.
    ///
    /// # Errors
    /// As [`Notation::new`]; the tool makes none.
    pub fn of_its_own(work: &Path) -> Result<(Self, &'static str, PathBuf)> {
        const NAME: &str = "wabbit-networks.io";
        let made = Self::new(work, NAME, "*")?;
        run(made.command().args(["certificate", "generate-test", NAME]))?;
        let file = made.home.join("notation/localkeys").join(format!("{NAME}.crt"));
        fs::copy(&file, made.home.join("notation/truststore/x509/ca/root/root.pem"))?;
        Ok((made, NAME, file))
    }

    /// By a key that it knows by that name.
    ///
    /// # Errors
    /// It does not sign.
    pub fn sign(&self, layout: &Path, image: &Image, key: &str, cose: bool, options: &[String]) -> Result<()> {
        let mut command = self.command();
        command.args(["sign", "--oci-layout", "--key", key, "--signature-format", if cose { "cose" } else { "jws" }]);
        run(command.args(options).arg(format!("{}@{}", layout.display(), image.manifest))).map(drop)
    }

    /// Whether a signature of the image in that layout is one.
    ///
    /// # Errors
    /// It ended for another reason than that none is.
    pub fn verify(&self, layout: &Path, image: &Image) -> Result<Result<(), String>> {
        let mut command = self.command();
        command.args(["verify", "--verbose", "--oci-layout", "--scope"]).arg(&image.repository);
        let said = output(command.arg(format!("{}@{}", layout.display(), image.manifest)))?;
        if said.ok() {
            return Ok(Ok(()));
        }
        ensure!(said.stderr.contains("Error: signature verification failed"), "notation verify: {said:?}");
        Ok(Err(said.stderr))
    }
}
