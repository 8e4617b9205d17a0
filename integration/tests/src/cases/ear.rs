//! A verifier's token beside the local policy: the start needs both.
use super::Case;
use crate::client::Code;
use crate::jws::{HEAD, Signer, now, unsigned};
use crate::node::World;
use crate::policy;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const TOKEN: &str = "/run/boltseal/node.jwt";
const JWKS: &str = "verifier.jwks";

pub(super) fn cases() -> Vec<Case> {
    let case = |name, says, fault| {
        Case::new(name, "BS-NOD-001", says, fault)
            .code(Code::FailedPrecondition)
            .mend(|world, _| Verifier::new(world)?.put(HEAD, |_| {}))
    };
    vec![
        case("no verifier's token where the policy asks for one", "no verifier's token", |world, _| {
            Verifier::new(world).map(drop)
        }),
        case("a verifier's token that has expired", "has expired", |world, _| {
            Verifier::new(world)?.put(HEAD, |claims| claims["exp"] = (now() - 1).into())
        }),
        case("a verifier's token for another audience", "another audience", |world, _| {
            Verifier::new(world)?.put(HEAD, |claims| claims["aud"] = "somebody else".into())
        }),
        case("a verifier's token that nobody signed (alg: none)", "the verifier's token", |world, _| {
            Verifier::new(world)?;
            write(&unsigned(&Verifier::claims()?))
        }),
        case("a verifier's token that says that nothing signed it", "the verifier's token", |world, _| {
            Verifier::new(world)?.put(r#"{"alg":"none"}"#, |_| {})
        }),
        case("a verifier's token by another key", "none of the pinned", |world, _| {
            Verifier::new(world)?;
            Verifier { key: Signer::new()? }.put(HEAD, |_| {})
        }),
        case("a verifier's token of another boot", "this boot's nonce", |world, _| {
            Verifier::new(world)?.put(HEAD, |claims| claims["eat_nonce"] = "07".repeat(32).into())
        }),
        case("a verifier's token about another key", "enrolled attestation key", |world, _| {
            Verifier::new(world)?.put(HEAD, |claims| claims["submods"]["tpm"]["ak"] = "AAAA".into())
        }),
        case("a verifier that does not affirm", "does not affirm", |world, _| {
            Verifier::new(world)?.put(HEAD, |claims| claims["submods"]["tpm"]["ear.status"] = "warning".into())
        }),
    ]
}

/// Its key is pinned in the policy that is in force until the case is over.
struct Verifier {
    key: Signer,
}

impl Verifier {
    fn new(world: &mut World) -> Result<Self> {
        let key = Signer::new()?;
        let file = world.node.work.join(JWKS);
        fs::write(&file, key.jwks()?)?;
        policy::trust(JWKS, &file)?;
        let mut bent = world.node.policy.clone();
        for (name, value) in [("jwks", JWKS), ("issuer", "v"), ("audience", "n"), ("ak_claim", "/submods/tpm/ak")] {
            bent.set(&format!("node.ear.{name}"), value)?;
        }
        bent.write()?;
        world.undo_later(move |world| {
            for path in [PathBuf::from(TOKEN), file, Path::new(policy::FOLDER).join("trust").join(JWKS)] {
                if path.exists() {
                    fs::remove_file(path)?;
                }
            }
            world.node.policy.write()
        });
        Ok(Self { key })
    }

    /// What it says of this boot and the enrolled key.
    fn claims() -> Result<Value> {
        let said = Command::new("boltseal").args(["-o", "json", "node", "status"]).output()?.stdout;
        let status: Value = serde_json::from_slice(&said).context("boltseal node status")?;
        let pem = fs::read_to_string(Path::new(policy::FOLDER).join("trust").join(policy::NODE_KEY))?;
        Ok(json!({
            "iss": "v", "aud": "n", "iat": now(), "exp": now() + 300, "eat_nonce": status["ear_nonce"],
            "submods": { "tpm": { "ear.status": "affirming", "ak": pem } },
        }))
    }

    fn put(&self, head: &str, change: impl Fn(&mut Value)) -> Result<()> {
        let mut claims = Self::claims()?;
        change(&mut claims);
        write(&self.key.sign(head, &claims)?)
    }
}

fn write(token: &str) -> Result<()> {
    fs::write(TOKEN, token)?;
    Ok(fs::set_permissions(TOKEN, fs::Permissions::from_mode(0o600))?)
}
