//! A Fulcio and a time stamp authority of our own: certificates by openssl that name an identity and its issuer as Fulcio's do, time
//! stamps (RFC 3161) by `openssl ts` behind a small HTTP server. cosign 3.1 signs with them, offline.
use crate::image::Image;
use crate::process::run;
use crate::sign::{Cosign, Key};
use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

pub const IDENTITY: &str = "https://git.corp.example/team/app/.ci/release@refs/tags/v1";
pub const ISSUER: &str = "https://token.ci.corp.example";
/// Fulcio's extension with the issuer (github.com/sigstore/fulcio, docs/oid-info.md).
const ISSUER_OID: &str = "1.3.6.1.4.1.57264.1.8";
const SINCE: &str = "2020-01-01T00:00:00Z";

/// Who is certified, and how; every field may be bent.
#[derive(Debug, Clone)]
pub struct Signer {
    /// Name of the CA's files: another name is another root.
    pub ca: &'static str,
    pub usage: &'static str,
    /// Valid for a day that has long passed.
    pub ended: bool,
    pub stamped: bool,
}

impl Default for Signer {
    fn default() -> Self {
        Self { ca: "fulcio", usage: "codeSigning", ended: false, stamped: true }
    }
}

/// The folder of all of it, with the time stamp authority that serves while this lives.
#[derive(Debug)]
pub struct Fulcio {
    folder: PathBuf,
    /// Of every leaf: it is the certificates that differ.
    key: Key,
    url: String,
    stop: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl Fulcio {
    pub fn start(work: &Path) -> Result<Self> {
        let folder = work.join("fulcio");
        fs::create_dir_all(&folder)?;
        for ca in ["fulcio", "other", "tsa-root"] {
            ca_of(&folder, ca)?;
        }
        leaf(
            &folder,
            "tsa-root",
            "tsa",
            "keyUsage=critical,digitalSignature\nextendedKeyUsage=critical,timeStamping\n",
            30,
        )?;
        fs::write(
            folder.join("tsa-chain.pem"),
            [fs::read(folder.join("tsa.pem"))?, fs::read(folder.join("tsa-root.pem"))?].concat(),
        )?;
        fs::write(
            folder.join("ts.cnf"),
            "[tsa]\ndefault_tsa=t\n[t]\nserial=serial\nsigner_cert=tsa.pem\ncerts=tsa-root.pem\nsigner_key=tsa.key\n\
             signer_digest=sha256\ndefault_policy=1.2.3.4\ndigests=sha256,sha384,sha512\naccuracy=secs:1\nordering=no\n\
             tsa_name=no\ness_cert_id_chain=no\ness_cert_id_alg=sha256\n",
        )?;
        fs::write(
            folder.join("ca.cnf"),
            "[ca]\ndefault_ca=c\n[c]\ndatabase=index.txt\nrand_serial=yes\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\n\
             unique_subject=no\n[p]\norganizationName=supplied\n",
        )?;
        fs::write(folder.join("index.txt"), "")?;
        let key = Key::import(&folder, "leaf", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"])?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}/tsa", listener.local_addr()?);
        let stop = Arc::new(AtomicBool::new(false));
        let (at, told) = (folder.clone(), stop.clone());
        let server = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        if let Err(why) = stamp(&at, stream) {
                            eprintln!("the time stamp authority: {why:#}");
                        }
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(10)),
                }
            }
        });
        Ok(Self { folder, key, url, stop, server: Some(server) })
    }

    /// The trusted root of this CA and of the time stamp authority, as cosign writes it. It has no log.
    pub fn trusted_root(&self, ca: &str) -> Result<PathBuf> {
        let file = self.folder.join(format!("{ca}-root.json"));
        let path = |name: &str| self.folder.join(name).display().to_string();
        let fulcio = format!(
            "--fulcio=url=https://fulcio.corp.example,certificate-chain={},start-time={SINCE}",
            path(&format!("{ca}.pem"))
        );
        let tsa = format!("--tsa=url={},certificate-chain={},start-time={SINCE}", self.url, path("tsa-chain.pem"));
        run(Cosign::V3.command(&self.folder).args(["trusted-root", "create", &fulcio, &tsa, "--out"]).arg(&file))?;
        Ok(file)
    }

    /// The time stamp authority: where it answers, and its root's certificate.
    #[must_use]
    pub fn stamps(&self) -> (&str, PathBuf) {
        (&self.url, self.folder.join("tsa-root.pem"))
    }

    /// Signs the image as [`IDENTITY`] of [`ISSUER`], by a certificate as `signer` has it.
    pub fn sign(&self, signer: &Signer, image: &Image) -> Result<()> {
        let certificate = self.certify(signer)?;
        let mut command = Cosign::V3.command(&self.folder);
        command.args(["sign", "--yes", "--key"]).arg(&self.key.private);
        command.arg("--certificate").arg(certificate);
        command.arg("--certificate-chain").arg(self.folder.join(format!("{}.pem", signer.ca)));
        command.arg("--signing-config").arg(self.signing_config(signer.stamped)?);
        run(command.arg(format!("{}@{}", image.repository, image.manifest))).map(drop)
    }

    /// A certificate of the key that signs, DER: also one that cosign does not sign with.
    pub fn certificate(&self, signer: &Signer) -> Result<Vec<u8>> {
        self.certify(signer)?;
        self.openssl("x509 -in leaf.pem -outform DER -out leaf.der")?;
        Ok(fs::read(self.folder.join("leaf.der"))?)
    }

    fn certify(&self, signer: &Signer) -> Result<PathBuf> {
        let extensions = format!(
            "keyUsage=critical,digitalSignature\nextendedKeyUsage={}\nsubjectAltName=critical,URI:{IDENTITY}\n\
             {ISSUER_OID}=ASN1:UTF8String:{ISSUER}\n",
            signer.usage
        );
        fs::write(self.folder.join("leaf.ext"), extensions)?;
        let key = self.key.private.with_extension("pem");
        self.openssl(&format!("req -new -key {} -subj /O=corp -out leaf.csr", key.display()))?;
        let made = format!("-in leaf.csr -extfile leaf.ext -out {}", self.folder.join("leaf.pem").display());
        if signer.ended {
            self.openssl(&format!(
                "ca -config ca.cnf -batch -notext -cert {0}.pem -keyfile {0}.key -startdate 20240101000000Z \
                 -enddate 20240102000000Z {made}",
                signer.ca
            ))?;
        } else {
            self.openssl(&format!("x509 -req -CA {0}.pem -CAkey {0}.key -CAcreateserial -days 1 {made}", signer.ca))?;
        }
        Ok(self.folder.join("leaf.pem"))
    }

    fn signing_config(&self, stamped: bool) -> Result<PathBuf> {
        let file = self.folder.join(format!("signing-config-{stamped}.json"));
        let mut command = Cosign::V3.command(&self.folder);
        command.args(["signing-config", "create", "--no-default-fulcio", "--no-default-oidc", "--no-default-rekor"]);
        if stamped {
            let tsa = format!("--tsa=url={},api-version=1,start-time={SINCE},operator=corp.example", self.url);
            command.args([&tsa, "--tsa-config=ANY"]);
        } else {
            command.arg("--no-default-tsa");
        }
        run(command.arg("--out").arg(&file))?;
        Ok(file)
    }

    /// cosign's own verdict, to be completed with the image.
    pub fn verify(&self, root: &Path, identity: &str, issuer: &str) -> Command {
        let mut command = Cosign::V3.command(&self.folder);
        command.args(["verify", "--insecure-ignore-tlog", "--insecure-ignore-sct", "--use-signed-timestamps"]);
        command
            .args(["--certificate-identity", identity, "--certificate-oidc-issuer", issuer, "--trusted-root"])
            .arg(root);
        command
    }

    fn openssl(&self, words: &str) -> Result<()> {
        openssl(&self.folder, words)
    }
}

/// The bundle with another certificate in its place.
pub fn certified_anew(bundle: &[u8], certificate: &[u8]) -> Result<Vec<u8>> {
    let mut bundle: Value = serde_json::from_slice(bundle)?;
    let at = bundle.pointer_mut("/verificationMaterial/certificate/rawBytes").context("no certificate")?;
    *at = STANDARD.encode(certificate).into();
    Ok(bundle.to_string().into_bytes())
}

impl Drop for Fulcio {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(server) = self.server.take()
            && server.join().is_err()
        {
            eprintln!("the time stamp authority panicked");
        }
    }
}

fn ca_of(folder: &Path, ca: &str) -> Result<()> {
    openssl(
        folder,
        &format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {ca}.key -subj /O=corp/CN={ca} -days 30 \
             -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign -out {ca}.pem"
        ),
    )
}

fn leaf(folder: &Path, ca: &str, name: &str, extensions: &str, days: u32) -> Result<()> {
    fs::write(folder.join(format!("{name}.ext")), extensions)?;
    openssl(
        folder,
        &format!(
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -subj /O=corp/CN={name} -out {name}.csr"
        ),
    )?;
    openssl(
        folder,
        &format!(
            "x509 -req -in {name}.csr -CA {ca}.pem -CAkey {ca}.key -CAcreateserial -days {days} -extfile {name}.ext -out {name}.pem"
        ),
    )
}

/// One request: a query in, a reply out.
fn stamp(folder: &Path, stream: TcpStream) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    ensure!((1..=4096).contains(&length), "a query of {length} bytes");
    let mut query = vec![0; length];
    reader.read_exact(&mut query)?;
    fs::write(folder.join("query"), query)?;
    let serial = folder.join("serial");
    if !serial.exists() {
        fs::write(&serial, "01\n")?;
    }
    openssl(folder, "ts -reply -config ts.cnf -queryfile query -out reply").context("no reply")?;
    let reply = fs::read(folder.join("reply"))?;
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/timestamp-reply\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        reply.len()
    );
    let mut stream = reader.into_inner();
    stream.write_all(head.as_bytes())?;
    stream.write_all(&reply)?;
    Ok(())
}

fn openssl(folder: &Path, words: &str) -> Result<()> {
    run(Command::new("openssl").args(words.split(' ').filter(|word| !word.is_empty())).current_dir(folder)).map(drop)
}
