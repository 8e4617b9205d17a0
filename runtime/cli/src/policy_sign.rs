//! `boltseal policy sign`, off the node, and `boltseal policy trust`, on it: who writes policies, and who is believed.
use crate::paths::{LIB, POLICY, RUN};
use crate::policy::{self, Bad};
use crate::policy_files::put;
use crate::policy_measured;
use crate::screen::{Colour, Exit, Failure, Screen, talk};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boltseal_evidence::file::Owner;
use boltseal_evidence::policy_files::{SIGNATURE, SIGNER};
use boltseal_evidence::{bundle, policy_files};
use boltseal_node::measured::Now;
use boltseal_node::nv;
use boltseal_policy::Fact;
use boltseal_trust::bundle::{MAX_VERSION, Signed, file, statement};
use boltseal_trust::{Floor, Key, Pin};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);
const MAX_KEY: u64 = 16 << 10;

/// Who signs: a private key here, or one that is elsewhere (a security module), in two steps.
#[derive(Debug, Clone, Copy)]
pub(crate) enum By<'a> {
    Private(&'a Path),
    /// Public key: print what is to be signed.
    Elsewhere(&'a Path),
    /// Public key, and the file with the signature in ASN.1 DER: put it in place.
    Signature(&'a Path, &'a Path),
}

/// Signs the bundle in `dir` as version `number`, by default one above the version that is there.
pub(crate) fn sign(dir: &Path, by: By<'_>, number: Option<u64>, screen: &mut Screen) -> Result<Exit, Failure> {
    let dir = std::path::absolute(dir).map_err(Failure::undecided)?;
    let loaded = policy::load_of(&dir, Owner::Any).map_err(Bad::failure)?;
    let before = loaded.bundle.signature.as_deref().and_then(|bytes| Signed::read(bytes).ok());
    let before = before.map_or(0, |signed| signed.version);
    let version = number.unwrap_or(before + 1);
    if version <= before || version > MAX_VERSION {
        let limits = format!("above {before}, which {SIGNATURE} has, and at most {MAX_VERSION}");
        return Err(Failure::new(Exit::Usage, format!("--number {version}: versions go up. Fix: a number {limits}")));
    }
    let digest = &loaded.bundle.digest;
    let (public, signature) = match by {
        By::Private(key) => {
            let (pair, public) = private(key)?;
            let signature = pair.sign(&SystemRandom::new(), statement(version, digest, public.id()).as_bytes());
            (public, signature.map_err(|_| Failure::undecided("the key cannot sign"))?.as_ref().to_vec())
        }
        By::Elsewhere(key) => {
            talk("sign these bytes with ECDSA and SHA-256, and bring the signature back with --signature");
            for line in statement(version, digest, public_key(key)?.id()).lines() {
                screen.line(line)?;
            }
            return Ok(Exit::Ok);
        }
        By::Signature(key, made) => {
            let signature = fs::read(made).map_err(|e| Failure::undecided(format!("{}: {e}", made.display())))?;
            (public_key(key)?, signature)
        }
    };
    let text = file(version, digest, public.id(), &signature);
    // What is written is what a node will read.
    let verified = Signed::read(text.as_bytes()).and_then(|signed| signed.verify(digest, &public));
    let fix = "Fix: sign what `--public` prints for this very folder";
    verified.map_err(|why| Failure::new(Exit::Findings, format!("{why}. {fix}")))?;
    let at = dir.join(SIGNATURE);
    put(&at, text.as_bytes(), 0o644).map_err(|e| Failure::undecided(format!("{}: {e}", at.display())))?;
    if screen.json() {
        screen.document(&json!({ "version": version, "digest": digest, "key": public.id() }))?;
    } else {
        screen.row('✓', Colour::Good, &format!("version {version}, digest {digest}, signed by key {}", public.id()))?;
    }
    Ok(Exit::Ok)
}

fn public_key(path: &Path) -> Result<Key, Failure> {
    let pem = fs::read_to_string(path).map_err(|e| Failure::undecided(format!("{}: {e}", path.display())))?;
    Key::p256_from_spki_pem(&pem).map_err(|e| Failure::new(Exit::BadPolicy, format!("{}: {e}", path.display())))
}

/// A P-256 key in PKCS #8, unencrypted.
pub(crate) fn private(path: &Path) -> Result<(EcdsaKeyPair, Key), Failure> {
    let bad = |why: &str| no_key(path, why);
    let der = pkcs8(path)?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der, &SystemRandom::new())
        .map_err(|_| bad("not a P-256 key in PKCS #8"))?;
    let public = Key::from_point(pair.public_key().as_ref()).ok_or_else(|| bad("its public half is no P-256 point"))?;
    Ok((pair, public))
}

fn no_key(path: &Path, why: &str) -> Failure {
    let fix = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 makes one";
    Failure::undecided(format!("{}: {why}. Fix: {fix}", path.display()))
}

/// The DER of a private key in PKCS #8, unencrypted.
pub(crate) fn pkcs8(path: &Path) -> Result<Vec<u8>, Failure> {
    let shown = path.display();
    let bad = |why: &str| no_key(path, why);
    let meta = fs::metadata(path).map_err(|e| bad(&e.to_string()))?;
    if meta.len() > MAX_KEY {
        return Err(bad("longer than a private key"));
    }
    if meta.mode() & 0o077 != 0 {
        talk(&format!("{shown} can be read by others: who has it says what starts. Fix: chmod 0600 {shown}"));
    }
    let text = fs::read_to_string(path).map_err(|e| bad(&e.to_string()))?;
    let body = text
        .trim()
        .strip_prefix("-----BEGIN PRIVATE KEY-----")
        .and_then(|rest| rest.strip_suffix("-----END PRIVATE KEY-----"))
        .ok_or_else(|| bad("not one PEM block PRIVATE KEY (PKCS #8, unencrypted)"))?;
    let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    STANDARD.decode(body).map_err(|_| bad("not base64 between the PEM lines"))
}

/// Pins whom this node takes policies from. `tpm` None with `floor`: the policy's TPM, else the kernel's.
pub(crate) fn trust(
    key: &Path,
    tpm: Option<&str>,
    floor: bool,
    replace: bool,
    screen: &mut Screen,
) -> Result<Exit, Failure> {
    let pem = fs::read_to_string(key).map_err(|e| Failure::undecided(format!("{}: {e}", key.display())))?;
    let key =
        Key::p256_from_spki_pem(&pem).map_err(|e| Failure::new(Exit::BadPolicy, format!("{}: {e}", key.display())))?;
    let at = Path::new(LIB).join(SIGNER);
    let there = bundle::pinned(Path::new(LIB)).map_err(Failure::undecided);
    match there {
        Ok(None) => {}
        _ if replace => {}
        Ok(Some((pin, _))) if pin.key == key && (floor || pin.floor.is_none()) => {}
        Ok(Some((pin, _))) if pin.key == key => {
            let text = "this node keeps a floor. Fix: --replace, if older policies shall be as good as the newest";
            return Err(Failure::new(Exit::Findings, text));
        }
        Ok(Some((pin, _))) => {
            return Err(Failure::new(
                Exit::Findings,
                format!("this node pins key {} already. Fix: --replace, if that is meant", pin.key.id()),
            ));
        }
        Err(failure) => return Err(failure),
    }
    let floor = if floor { Some(counter(tpm)?) } else { None };
    let pin = Pin { key, floor };
    put(&at, pin.text().as_bytes(), 0o644).map_err(|e| Failure::undecided(format!("{}: {e}", at.display())))?;
    if pin.floor.is_none() {
        talk("no floor: an older signed policy is as good as a newer one, and BS-NOD-004 says so (no-floor)");
    }
    talk(
        "from now on nothing starts but under a policy that this key signed; what is measured of it shows in the next boot",
    );
    if screen.json() {
        screen.document(&json!({ "key": pin.key.id(), "pin": pin.id(), "floor": pin.floor.as_ref().map(|f| json!({ "tpm": f.tpm, "base": f.base })) }))?;
    } else {
        screen.row('✓', Colour::Good, &format!("policies of this node are signed by key {}", pin.key.id()))?;
    }
    Ok(Exit::Ok)
}

/// The TPM's counter, made if need be. What it stands at is version 0 - or where the pin that is replaced put that: a
/// new key does not make old versions good again.
fn counter(tpm: Option<&str>) -> Result<Floor, Failure> {
    let kept = bundle::pinned(Path::new(LIB)).ok().flatten().and_then(|(pin, _)| pin.floor);
    let named = tpm.map(str::to_owned).or_else(|| kept.as_ref().map(|floor| floor.tpm.clone()));
    let tpm = named.unwrap_or_else(|| {
        policy::load_without_keys(Path::new(POLICY)).map_or_else(|_| "/dev/tpmrm0".into(), |l| l.policy.node.tpm)
    });
    talk(&format!("asking the TPM at {tpm}"));
    let base = nv::establish(&tpm, Instant::now() + LIMIT).map_err(Failure::undecided)?;
    match kept {
        Some(floor) if floor.tpm == tpm && floor.base <= base => Ok(floor),
        _ => Ok(Floor { tpm, base }),
    }
}

/// What is known of a bundle in /etc/boltseal, for `boltseal check` and `lint`.
pub(crate) fn standing(files: &policy_files::PolicyBundle) -> Result<boltseal_policy::facts::Bundle, String> {
    let pin = bundle::pinned(Path::new(LIB))?.map(|(pin, _)| pin);
    let floor = match pin.as_ref().and_then(|pin| pin.floor.as_ref().map(|floor| (pin, floor))) {
        None => Fact::Absent,
        Some((pin, floor)) => read_floor(pin, floor).map_or_else(Fact::Unknown, Fact::Is),
    };
    let mut fact = bundle::fact(pin.as_ref(), floor, files);
    let id = pin.map(|pin| pin.id());
    fact.measured = match policy_measured::log() {
        Ok(None) => Fact::Absent,
        Ok(Some(log)) => Fact::Is(log.differences(Now { signer: id.as_deref(), bundle: &files.digest })),
        Err(failure) => Fact::Unknown(failure.text),
    };
    Ok(fact)
}

fn read_floor(pin: &Pin, floor: &Floor) -> Result<u64, String> {
    let boot = boltseal_node::Boot::current().map_err(|e| e.to_string())?;
    at(&pin.id(), floor).read(&boot, Instant::now() + LIMIT).map_err(|e| e.to_string())
}

/// Where the floor is, for the node's part.
pub(crate) fn at<'a>(pin: &'a str, floor: &'a Floor) -> boltseal_node::Floor<'a> {
    boltseal_node::Floor { dir: Path::new(RUN), tpm: &floor.tpm, base: floor.base, pin }
}
