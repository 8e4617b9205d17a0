//! Who is not on the node: the maker of its TPM, the author of policies, the authority that approves states. Of their keys
//! only the author's goes into the VM, for the main job, which changes policies as an operator would.
use crate::build;
use anyhow::Result;
use stack::process::run;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `boltseal` on this machine, as the operator's own.
pub(crate) fn boltseal<S: AsRef<OsStr>>(words: &[S]) -> Result<String> {
    run(Command::new(build::made().join("boltseal")).args(words))
}

/// A P-256 key pair.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) private: PathBuf,
    pub(crate) public: PathBuf,
}

impl Pair {
    pub(crate) fn generate(folder: &Path, name: &str) -> Result<Self> {
        let at = |end: &str| folder.join(format!("{name}.{end}"));
        let pair = Self { private: at("key"), public: at("pub") };
        run(Command::new("openssl")
            .args(["genpkey", "-quiet", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"])
            .arg(&pair.private))?;
        run(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&pair.private).arg("-out").arg(&pair.public))?;
        Ok(pair)
    }
}

/// swtpm's own certificate authority, in a folder of ours: a root, and an issuer below it that certifies TPMs.
#[derive(Debug)]
pub(crate) struct Maker {
    folder: PathBuf,
}

impl Maker {
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let at = folder.display();
        fs::write(
            folder.join("ca.conf"),
            format!(
                "statedir = {at}\nsigningkey = {at}/signkey.pem\nissuercert = {at}/issuer.pem\ncertserial = {at}/serial\n"
            ),
        )?;
        let options = "--platform-manufacturer boltseal\n--platform-version 1\n--platform-model test-node\n";
        fs::write(folder.join("ca.options"), options)?;
        fs::write(
            folder.join("setup.conf"),
            format!(
                "create_certs_tool=/usr/bin/swtpm_localca\ncreate_certs_tool_config={at}/ca.conf\n\
                 create_certs_tool_options={at}/ca.options\nactive_pcr_banks = sha256\n"
            ),
        )?;
        Ok(Self { folder: folder.into() })
    }

    /// A TPM that has never been used, certified, with the SHA-256 bank alone.
    pub(crate) fn tpm(&self, state: &Path) -> Result<()> {
        fs::create_dir_all(state)?;
        run(Command::new("swtpm_setup")
            .args(["--tpm2", "--createek", "--create-ek-cert", "--pcr-banks", "sha256", "--overwrite", "--config"])
            .arg(self.folder.join("setup.conf"))
            .arg("--tpmstate")
            .arg(state))
        .map(|_| ())
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.join("swtpm-localca-rootca-cert.pem")
    }

    pub(crate) fn issuer(&self) -> PathBuf {
        self.folder.join("issuer.pem")
    }
}
