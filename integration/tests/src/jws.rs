//! Whoever signs tokens: a P-256 key, its JWKS, and compact JWS by it.
use anyhow::{Context, Result, anyhow};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// The header of an honest token.
pub const HEAD: &str = r#"{"alg":"ES256"}"#;

#[derive(Debug)]
pub struct Signer(EcdsaKeyPair);

impl Signer {
    pub fn new() -> Result<Self> {
        let (random, kind) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let made = EcdsaKeyPair::generate_pkcs8(kind, &random).map_err(|_| anyhow!("no key"))?;
        EcdsaKeyPair::from_pkcs8(kind, made.as_ref(), &random).map(Self).map_err(|e| anyhow!("the key: {e}"))
    }

    /// Its public half as a set of keys (RFC 7517).
    pub fn jwks(&self) -> Result<String> {
        let point = self.0.public_key().as_ref();
        let (x, y) = point.get(1..).and_then(|point| point.split_at_checked(32)).context("a point")?;
        let [x, y] = [x, y].map(|half| URL_SAFE_NO_PAD.encode(half));
        Ok(json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": x, "y": y }] }).to_string())
    }

    pub fn sign(&self, head: &str, claims: &Value) -> Result<String> {
        let message = [head, &claims.to_string()].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        let signature = self.0.sign(&SystemRandom::new(), message.as_bytes()).map_err(|_| anyhow!("no signature"))?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// A token that says that nobody signed it.
#[must_use]
pub fn unsigned(claims: &Value) -> String {
    let parts = [r#"{"alg":"none"}"#, &claims.to_string()].map(|part| URL_SAFE_NO_PAD.encode(part));
    format!("{}.", parts.join("."))
}

/// Seconds since the epoch.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default()
}
