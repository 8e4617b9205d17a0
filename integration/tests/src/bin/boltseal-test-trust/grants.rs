//! Owners' grants: a token and an envelope, by each kind of key, and what is one step away from them. No tool signs these but
//! boltseal's own; the header's rules are those of RFC 8725.
use crate::Case;
use anyhow::{Result, anyhow};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use boltseal_trust::Key;
use boltseal_trust::dsse::{Envelope, propose};
use boltseal_trust::grant::{CLAIM, DSSE_TYPE, JWS_TYPE, Keys, read};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING,
    ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair,
};
use serde_json::json;

const NOTE: &str = "no tool signs these but boltseal grant sign";

/// DER before the key: P-384 (RFC 5480), Ed25519 (RFC 8410).
const P384: &str = "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE";
const ED25519: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

enum Pair {
    Ec { alg: &'static str, fixed: Box<EcdsaKeyPair>, der: Box<EcdsaKeyPair> },
    Ed(Ed25519KeyPair),
}

impl Pair {
    fn ec(
        alg: &'static str,
        fixed: &'static EcdsaSigningAlgorithm,
        der: &'static EcdsaSigningAlgorithm,
    ) -> Result<Self> {
        let random = SystemRandom::new();
        let made = EcdsaKeyPair::generate_pkcs8(fixed, &random).map_err(|_| anyhow!("no key"))?;
        let read = |kind| EcdsaKeyPair::from_pkcs8(kind, made.as_ref(), &random).map_err(|e| anyhow!("the key: {e}"));
        Ok(Self::Ec { alg, fixed: Box::new(read(fixed)?), der: Box::new(read(der)?) })
    }

    fn p256() -> Result<Self> {
        Self::ec("ES256", &ECDSA_P256_SHA256_FIXED_SIGNING, &ECDSA_P256_SHA256_ASN1_SIGNING)
    }

    fn p384() -> Result<Self> {
        Self::ec("ES384", &ECDSA_P384_SHA384_FIXED_SIGNING, &ECDSA_P384_SHA384_ASN1_SIGNING)
    }

    fn ed25519() -> Result<Self> {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| anyhow!("no key"))?;
        Ed25519KeyPair::from_pkcs8(made.as_ref()).map(Self::Ed).map_err(|e| anyhow!("the key: {e}"))
    }

    fn alg(&self) -> &'static str {
        match self {
            Self::Ec { alg, .. } => alg,
            Self::Ed(_) => "EdDSA",
        }
    }

    fn sign(&self, message: &[u8], is_fixed: bool) -> Result<Vec<u8>> {
        match self {
            Self::Ed(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Self::Ec { fixed, der, .. } => {
                let signed = if is_fixed { fixed } else { der }.sign(&SystemRandom::new(), message);
                signed.map(|s| s.as_ref().to_vec()).map_err(|_| anyhow!("no signature"))
            }
        }
    }

    fn pem(&self) -> Result<String> {
        let der = match self {
            Self::Ed(pair) => [&ED25519, pair.public_key().as_ref()].concat(),
            Self::Ec { alg: "ES384", fixed, .. } => {
                let point = fixed.public_key().as_ref();
                [&STANDARD.decode(P384)?, point.get(1..).unwrap_or_default()].concat()
            }
            Self::Ec { fixed, .. } => {
                return Ok(Key::from_point(fixed.public_key().as_ref()).map(|key| key.pem()).unwrap_or_default());
            }
        };
        Ok(format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der)))
    }

    fn token(&self, head: &str, claims: &str) -> Result<String> {
        let message = [head, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(self.sign(message.as_bytes(), true)?)))
    }

    fn envelope(&self, kind: &str, claims: &str) -> Result<String> {
        let mut envelope = Envelope { payload_type: kind.into(), payload: claims.into(), signatures: vec![] };
        envelope.signatures.push(self.sign(&envelope.message(), false)?);
        Ok(envelope.json())
    }
}

/// As the gate takes it.
fn verdict(keys: &Keys, grant: &str) -> Result<(), String> {
    let claims = if grant.starts_with('{') {
        let envelope = propose(grant.as_bytes()).map_err(|e| e.to_string())?;
        keys.envelope(&envelope)
    } else {
        keys.token(grant)
    };
    claims.and_then(|claims| read(&claims)).map(drop).map_err(|e| e.0)
}

pub(crate) fn cases() -> Result<Vec<Case>> {
    let claims = json!({
        "iss": "i", "sub": "s", "aud": ["a"], "nbf": 1, "exp": 2,
        CLAIM: { "version": 1, "namespaces": ["n"], "pods": ["p"], "containers": [{ "name": "c" }] },
    })
    .to_string();
    let twice = claims.replacen("\"sub\"", "\"sub\":\"root\",\"sub\"", 1);
    let mut out = Vec::new();
    for pair in [Pair::p256()?, Pair::p384()?, Pair::ed25519()?] {
        let keys = Keys::from_pem(&pair.pem()?).map_err(|why| anyhow!(why))?;
        let other = match pair {
            Pair::Ed(_) => Pair::ed25519()?,
            Pair::Ec { alg: "ES384", .. } => Pair::p384()?,
            Pair::Ec { .. } => Pair::p256()?,
        };
        // The same words by a key of another curve.
        let confused = if pair.alg() == "ES256" { Pair::p384()? } else { Pair::p256()? };
        let alg = pair.alg();
        let head = json!({ "alg": alg, "typ": JWS_TYPE }).to_string();
        let good = pair.token(&head, &claims)?;
        let hmac = {
            let head = json!({ "alg": "HS256", "typ": JWS_TYPE }).to_string();
            let message = [head.as_str(), &claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, pair.pem()?.as_bytes()), message.as_bytes());
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
        };
        let bare = |head: String| [head.as_str(), &claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        let format = match alg {
            "ES256" => ("grant JWS ES256", "grant DSSE P-256"),
            "ES384" => ("grant JWS ES384", "grant DSSE P-384"),
            _ => ("grant JWS EdDSA", "grant DSSE Ed25519"),
        };
        for (name, accept, grant) in [
            ("by the pinned key", true, good.clone()),
            ("by another key", false, other.token(&head, &claims)?),
            ("by a key of another curve", false, confused.token(&head, &claims)?),
            ("alg none", false, format!("{}.", bare(json!({ "alg": "none", "typ": JWS_TYPE }).to_string()))),
            (
                "alg of another key",
                false,
                pair.token(&json!({ "alg": "RS256", "typ": JWS_TYPE }).to_string(), &claims)?,
            ),
            ("an HMAC with the public key", false, hmac),
            ("a token of another kind", false, pair.token(&json!({ "alg": alg, "typ": "JWT" }).to_string(), &claims)?),
            ("crit", false, pair.token(&json!({ "alg": alg, "typ": JWS_TYPE, "crit": ["x"] }).to_string(), &claims)?),
            ("a name twice in the claims", false, pair.token(&head, &twice)?),
            ("bytes behind the claims", false, pair.token(&head, &format!("{claims}x"))?),
            ("bytes behind the token", false, format!("{good}.x")),
        ] {
            let ours = verdict(&keys, &grant);
            out.push(Case { format: format.0, name, accept, ours, tool: None, note: NOTE });
        }
        let good = pair.envelope(DSSE_TYPE, &claims)?;
        for (name, accept, grant) in [
            ("by the pinned key", true, good.clone()),
            ("by another key", false, other.envelope(DSSE_TYPE, &claims)?),
            ("by a key of another curve", false, confused.envelope(DSSE_TYPE, &claims)?),
            ("another payload type", false, pair.envelope("application/vnd.in-toto+json", &claims)?),
            (
                "another payload type, put in afterwards",
                false,
                pair.envelope("x/y", &claims)?.replace("x/y", DSSE_TYPE),
            ),
            ("a name twice in the claims", false, pair.envelope(DSSE_TYPE, &twice)?),
            ("a name twice in the envelope", false, good.replacen('{', r#"{"payload":"e30=","#, 1)),
            ("bytes behind the envelope", false, format!("{good}{{}}")),
        ] {
            let ours = verdict(&keys, &grant);
            out.push(Case { format: format.1, name, accept, ours, tool: None, note: NOTE });
        }
    }
    Ok(out)
}
