//! What is wrong with the policy bundle although it can be read: who signed it, and over what.
use super::Case;
use crate::client::Code;
use crate::node::World;
use crate::policy;
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use std::fs;
use std::path::Path;

const PINNED: &str = "/var/lib/boltseal/signer.pub";
const SIGNATURE: &str = "/etc/boltseal/bundle.sig";
/// SubjectPublicKeyInfo of a P-256 point, up to the point (RFC 5480).
const SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

pub(super) fn cases() -> Vec<Case> {
    // Where a key is pinned no mode reaches these: a policy that nobody signed would excuse itself.
    let case = |name, says, fault| {
        Case::new(name, "BS-NOD-004", says, fault)
            .code(Code::FailedPrecondition)
            .mend(|world, _| Author::pinned(world)?.sign(1))
            .never_warned()
    };
    vec![
        // No key is pinned, so the policy's own word counts, and a mode does, too.
        Case::new("a policy that wants to be signed, and no pinned key", "BS-NOD-004", "bundle.signed", |world, _| {
            wanted(world)
        })
        .code(Code::FailedPrecondition)
        .mend(|world, _| {
            wanted(world)?;
            Author::pinned(world)?.sign(1)
        }),
        case("a policy bundle that nobody signed", "no signature", |world, _| Author::pinned(world).map(|_| ())),
        case("a policy bundle with one byte changed", "other files", |world, _| {
            Author::pinned(world)?.sign(1)?;
            policy::write(&format!("{}\n", world.node.policy.text()?))?;
            world.undo_later(|world| world.node.policy.write());
            Ok(())
        }),
        case("a policy bundle with a key of somebody else's in trust/", "other files", |world, _| {
            Author::pinned(world)?.sign(1)?;
            policy::trust("mallory.pub", &world.node.key.public)?;
            world.undo_later(|_| Ok(fs::remove_file(Path::new(policy::FOLDER).join("trust/mallory.pub"))?));
            Ok(())
        }),
        case("an unsigned policy that says that it need not be signed", "no signature", |world, _| {
            Author::pinned(world)?;
            let mut bent = world.node.policy.clone();
            bent.set("level", "observe")?;
            bent.warn("BS-NOD-004")?;
            bent.write()?;
            world.undo_later(|world| world.node.policy.write());
            Ok(())
        }),
        case("a policy bundle signed by another key", "not by the pinned one", |world, _| {
            Author::pinned(world)?;
            Author::new()?.sign(1)
        }),
        case("a policy bundle whose signature is forged", "does not verify", |world, _| {
            Author::pinned(world)?.sign(1)?;
            let text = fs::read_to_string(SIGNATURE)?;
            Ok(fs::write(SIGNATURE, text.replace("version 1", "version 2"))?)
        }),
        case("a pinned signing key that anybody may write", "written to by others", |world, _| {
            Author::pinned(world)?.sign(1)?;
            Ok(fs::set_permissions(PINNED, std::os::unix::fs::PermissionsExt::from_mode(0o666))?)
        }),
        case("a pinned signing key that is none", "signer.pub", |world, _| {
            Author::pinned(world)?.sign(1)?;
            Ok(fs::write(PINNED, "")?)
        }),
    ]
}

fn wanted(world: &mut World) -> Result<()> {
    let mut bent = world.node.policy.clone();
    bent.set("bundle.signed", true)?;
    bent.write()?;
    world.undo_later(|world| world.node.policy.write());
    Ok(())
}

/// Whoever writes policies, with a P-256 key. It spells the signature by itself, not by the code that is tested.
struct Author {
    pair: EcdsaKeyPair,
    der: Vec<u8>,
}

impl Author {
    fn new() -> Result<Self> {
        let random = SystemRandom::new();
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).ok().context("no key pair")?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random)
            .ok()
            .context("no key pair")?;
        let der = [&SPKI[..], pair.public_key().as_ref()].concat();
        Ok(Self { pair, der })
    }

    /// A new author whose key this node pins, until the case is over.
    fn pinned(world: &mut World) -> Result<Self> {
        let author = Self::new()?;
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(&author.der));
        fs::write(PINNED, pem).context(PINNED)?;
        world.undo_later(|_| {
            fs::remove_file(PINNED)?;
            match fs::remove_file(SIGNATURE) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).context(SIGNATURE),
                _ => Ok(()),
            }
        });
        Ok(author)
    }

    /// Signs the bundle as it is now.
    fn sign(&self, version: u64) -> Result<()> {
        let key = hex(digest(&SHA256, &self.der).as_ref());
        let statement = format!("boltseal-bundle 1\nversion {version}\ndigest {}\nkey {key}\n", files()?);
        let signature = self.pair.sign(&SystemRandom::new(), statement.as_bytes()).ok().context("cannot sign")?;
        fs::write(SIGNATURE, format!("{statement}signature {}\n", STANDARD.encode(signature))).context(SIGNATURE)
    }
}

/// sha256 over name, zero byte, length and content of each file of the bundle, sorted by name.
fn files() -> Result<String> {
    let mut names = vec!["policy.toml".to_owned()];
    for folder in ["policy.d", "trust"] {
        let Ok(entries) = fs::read_dir(Path::new(policy::FOLDER).join(folder)) else { continue };
        for entry in entries {
            names.push(format!("{folder}/{}", entry?.file_name().to_string_lossy()));
        }
    }
    names.sort();
    let mut all = Vec::new();
    for name in names {
        let bytes = fs::read(Path::new(policy::FOLDER).join(&name))?;
        all.extend(name.as_bytes());
        all.push(0);
        all.extend(u64::try_from(bytes.len())?.to_be_bytes());
        all.extend(bytes);
    }
    Ok(hex(digest(&SHA256, &all).as_ref()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
