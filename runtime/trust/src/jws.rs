//! Verify-only JWS (RFC 7515, compact form) against pinned keys (RFC 7517).
//!
//! The algorithm is the key's, never the token's: each pinned key is tried on the raw bytes, before anything of the token is
//! parsed. What is parsed afterwards is what a pinned signer wrote. There is no symmetric algorithm and no `none`; a token
//! names no key of its own: `jwk` and `x5c` are not looked at, `jku` and `x5u` are refused with `crit` (RFC 8725, section 3).
use crate::claims::Json;
use crate::key::Key;
use crate::spki;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use std::fmt;

/// Longest token, bytes.
pub const MAX_TOKEN: usize = 64 << 10;
/// Longest set of keys, bytes.
const MAX_JWKS: usize = 64 << 10;
const MAX_KEYS: usize = 16;

/// Why a token, or a set of keys, is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwsError(pub String);

impl fmt::Display for JwsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for JwsError {}

fn error<T>(text: impl Into<String>) -> Result<T, JwsError> {
    Err(JwsError(text.into()))
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Public {
    Es256([u8; 65]),
    Es384([u8; 97]),
    EdDsa([u8; 32]),
    Rs256 { n: Vec<u8>, e: Vec<u8> },
    Ps256 { n: Vec<u8>, e: Vec<u8> },
}

impl Public {
    /// The one `alg` that a token by this key has.
    fn alg(&self) -> &'static str {
        match self {
            Self::Es256(_) => "ES256",
            Self::Es384(_) => "ES384",
            Self::EdDsa(_) => "EdDSA",
            Self::Rs256 { .. } => "RS256",
            Self::Ps256 { .. } => "PS256",
        }
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let good = match self {
            Self::Es256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature),
            Self::Es384(point) => UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).verify(message, signature),
            Self::EdDsa(point) => UnparsedPublicKey::new(&ED25519, point).verify(message, signature),
            Self::Rs256 { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            Self::Ps256 { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PSS_2048_8192_SHA256, message, signature)
            }
        };
        good.is_ok()
    }
}

/// Pinned keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jwks {
    keys: Vec<(Option<String>, Public)>,
}

/// A verified token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// `kid` of the key that signed it, as pinned.
    pub key_id: Option<String>,
    /// The claims, as signed.
    pub claims: Json,
    /// `typ` of the header.
    pub kind: Option<String>,
}

impl Jwks {
    /// Reads a JWKS: P-256 and P-384, Ed25519, RSA from 2048 bits with a named `alg`.
    ///
    /// # Errors
    /// The first key that is none of these, is symmetric or private, or has the id of another.
    pub fn parse(bytes: &[u8]) -> Result<Self, JwsError> {
        if bytes.len() > MAX_JWKS {
            return error("the key set is larger than 64 KiB");
        }
        let document = Json::parse(bytes).map_err(|why| JwsError(format!("the key set: {why}")))?;
        let Some(Json::Array(list)) = document.get("keys") else { return error("the key set has no list `keys`") };
        if list.is_empty() || list.len() > MAX_KEYS {
            return error("the key set has no key, or more than 16");
        }
        let mut keys: Vec<(Option<String>, Public)> = Vec::new();
        for (number, key) in list.iter().enumerate() {
            let at = |why: &str| JwsError(format!("key {number} of the set {why}"));
            let id = key.get("kid").map(|id| id.text().ok_or_else(|| at("has a `kid` that is no text"))).transpose()?;
            if keys.iter().any(|(other, _)| other.as_deref() == id) {
                return Err(at("has the `kid` of another, or none beside another without"));
            }
            keys.push((id.map(str::to_owned), public(key).map_err(|why| at(&why))?));
        }
        Ok(Self { keys })
    }

    /// The set of this one key, if a token can be signed by it: of an RSA key nobody says which padding is its own.
    #[must_use]
    pub fn of_key(key: &Key) -> Option<Self> {
        let public = match key.public() {
            spki::Public::P256(point) => Public::Es256(*point),
            spki::Public::P384(point) => Public::Es384(*point),
            spki::Public::Ed25519(point) => Public::EdDsa(*point),
            spki::Public::Rsa(_) => return None,
        };
        Some(Self { keys: vec![(None, public)] })
    }

    /// Verifies a token; its claims are not looked at.
    ///
    /// # Errors
    /// No pinned key signed it, or its header says something else than that key.
    pub fn verify(&self, token: &str) -> Result<Verified, JwsError> {
        if token.len() > MAX_TOKEN {
            return error("the token is larger than 64 KiB");
        }
        let parts: Vec<&str> = token.split('.').collect();
        let [header, payload, signature] = parts.as_slice() else {
            return error("the token is not a signed one of three parts");
        };
        let message = &token.as_bytes()[..header.len() + 1 + payload.len()];
        let signature = decode(signature)?;
        let signer = self.keys.iter().find(|(_, key)| key.verify(message, &signature));
        let Some((id, key)) = signer else { return error("the token is signed by none of the pinned keys") };
        let header = Json::parse(&decode(header)?).map_err(|why| JwsError(format!("the token's header: {why}")))?;
        if header.get("alg").and_then(Json::text) != Some(key.alg()) {
            return error(format!("the token's `alg` is not {}, which is its key's", key.alg()));
        }
        if let Some(bad) = ["crit", "jku", "x5u", "b64", "zip"].iter().find(|name| header.get(name).is_some()) {
            return error(format!("the token's header has `{bad}`"));
        }
        match (header.get("kid").map(Json::text), id) {
            (None, _) => {}
            (Some(named), Some(id)) if named == Some(id.as_str()) => {}
            _ => return error("the token names another key than the one that signed it"),
        }
        let kind = header.get("typ").and_then(Json::text).map(str::to_owned);
        let claims = Json::parse(&decode(payload)?).map_err(|why| JwsError(format!("the token's claims: {why}")))?;
        Ok(Verified { key_id: id.clone(), claims, kind })
    }
}

fn decode(text: &str) -> Result<Vec<u8>, JwsError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| JwsError("a part of the token is not base64url".into()))
}

fn public(key: &Json) -> Result<Public, String> {
    let text = |name: &str| key.get(name).and_then(Json::text);
    let bytes = |name: &str| -> Result<Vec<u8>, String> {
        let value = text(name).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        value.ok_or_else(|| format!("has no `{name}` in base64url"))
    };
    if ["d", "p", "q", "k"].iter().any(|name| key.get(name).is_some()) {
        return Err("is a private or a symmetric one".into());
    }
    if text("use").is_some_and(|usage| usage != "sig") {
        return Err("is not for signatures".into());
    }
    let made = match (text("kty"), text("crv")) {
        (Some("EC"), Some("P-256")) => Public::Es256(point(&bytes("x")?, &bytes("y")?)?),
        (Some("EC"), Some("P-384")) => Public::Es384(point(&bytes("x")?, &bytes("y")?)?),
        (Some("OKP"), Some("Ed25519")) => {
            Public::EdDsa(bytes("x")?.try_into().map_err(|_| "has no 32 bytes of Ed25519".to_owned())?)
        }
        (Some("RSA"), _) => {
            let (n, e) = (bytes("n")?, bytes("e")?);
            if !(256..=1024).contains(&n.len()) {
                return Err("is RSA of fewer than 2048 or more than 8192 bits".into());
            }
            match text("alg") {
                Some("RS256") => Public::Rs256 { n, e },
                Some("PS256") => Public::Ps256 { n, e },
                _ => return Err("is RSA and names no `alg`: RS256 or PS256".into()),
            }
        }
        _ => return Err("is neither P-256, P-384, Ed25519 nor RSA".into()),
    };
    match text("alg") {
        Some(alg) if alg != made.alg() => Err(format!("names an `alg` that is not {}", made.alg())),
        _ => Ok(made),
    }
}

fn point<const N: usize>(x: &[u8], y: &[u8]) -> Result<[u8; N], String> {
    [&[4], x, y]
        .concat()
        .try_into()
        .ok()
        .filter(|_| x.len() == y.len())
        .ok_or_else(|| "has coordinates of an odd size".into())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use ring::hmac;
    use ring::rand::SystemRandom;
    use ring::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    };

    pub(crate) fn b64(bytes: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// A verifier with one P-256 key, `v1`.
    pub(crate) struct Signer {
        pair: EcdsaKeyPair,
    }

    impl Signer {
        pub(crate) fn new() -> Self {
            let random = SystemRandom::new();
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
            Self { pair: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap() }
        }

        pub(crate) fn jwk(&self, id: &str) -> String {
            let point = self.pair.public_key().as_ref();
            let (x, y) = (b64(&point[1..33]), b64(&point[33..]));
            format!(r#"{{"kty":"EC","crv":"P-256","kid":"{id}","x":"{x}","y":"{y}"}}"#)
        }

        pub(crate) fn jwks(&self) -> Jwks {
            Jwks::parse(format!(r#"{{"keys":[{}]}}"#, self.jwk("v1")).as_bytes()).unwrap()
        }

        pub(crate) fn sign(&self, header: &str, payload: &str) -> String {
            let message = format!("{}.{}", b64(header.as_bytes()), b64(payload.as_bytes()));
            let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
            format!("{message}.{}", b64(signature.as_ref()))
        }
    }

    const HEADER: &str = r#"{"alg":"ES256","kid":"v1"}"#;

    fn says(result: Result<Verified, JwsError>, text: &str) {
        let error = result.unwrap_err().0;
        assert!(error.contains(text), "wanted {text:?}: {error}");
    }

    #[test]
    fn truth_table_of_headers() {
        let signer = Signer::new();
        let keys = signer.jwks();
        let of = |header: &str| keys.verify(&signer.sign(header, r#"{"a":1}"#));
        for good in
            [HEADER, r#"{"alg":"ES256"}"#, r#"{"alg":"ES256","kid":"v1","typ":"JWT","jwk":{"kty":"oct","k":"AA"}}"#]
        {
            assert_eq!(of(good).unwrap().key_id.as_deref(), Some("v1"), "{good}");
        }
        for (header, said) in [
            (r#"{"alg":"none"}"#, "`alg` is not ES256"),
            (r#"{"alg":"HS256"}"#, "`alg` is not ES256"),
            (r#"{"alg":"RS256"}"#, "`alg` is not ES256"),
            (r#"{"alg":"es256"}"#, "`alg` is not ES256"),
            (r#"{}"#, "`alg` is not ES256"),
            (r#"{"alg":"ES256","kid":"v2"}"#, "another key"),
            (r#"{"alg":"ES256","kid":7}"#, "another key"),
            (r#"{"alg":"ES256","crit":["exp"]}"#, "`crit`"),
            (r#"{"alg":"ES256","jku":"https://x"}"#, "`jku`"),
            (r#"{"alg":"ES256","x5u":"https://x"}"#, "`x5u`"),
            (r#"{"alg":"ES256","b64":false}"#, "`b64`"),
            (r#"{"alg":"ES256","alg":"none"}"#, "twice"),
            ("junk", "header"),
        ] {
            says(of(header), said);
        }
    }

    #[test]
    fn only_pinned_keys_sign() {
        let (signer, stranger) = (Signer::new(), Signer::new());
        let keys = signer.jwks();
        let good = signer.sign(HEADER, "{}");
        assert!(keys.verify(&good).is_ok());
        says(keys.verify(&stranger.sign(HEADER, "{}")), "none of the pinned keys");
        // The public key as an HMAC secret, in every form that a naive verifier takes it.
        let message = format!("{}.{}", b64(br#"{"alg":"HS256","kid":"v1"}"#), b64(b"{}"));
        let point = signer.pair.public_key().as_ref();
        for secret in [point, &point[1..], signer.jwk("v1").as_bytes()] {
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
            says(keys.verify(&format!("{message}.{}", b64(tag.as_ref()))), "none of the pinned keys");
        }
        // `none`: no signature at all.
        let bare = format!("{}.{}", b64(br#"{"alg":"none"}"#), b64(b"{}"));
        says(keys.verify(&format!("{bare}.")), "none of the pinned keys");
        says(keys.verify(&bare), "three parts");
        says(keys.verify(&format!("{good}.x")), "three parts");
        says(keys.verify(""), "three parts");
        says(keys.verify(&format!("{}.{}.{}", "A".repeat(MAX_TOKEN), "", "")), "larger");
        // Any change.
        for at in 0..good.len() {
            let mut bad = good.clone().into_bytes();
            bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
            assert!(keys.verify(std::str::from_utf8(&bad).unwrap()).is_err(), "{at}");
        }
        // Padding and the other alphabet are other bytes.
        says(keys.verify(&format!("{good}=")), "base64url");
    }

    #[test]
    fn each_algorithm_is_its_keys() {
        for name in ["rs256", "ps256"] {
            let (token, keys) = match name {
                "rs256" => {
                    (include_str!("../tests/fixtures/jws/rs256.jwt"), include_str!("../tests/fixtures/jws/rs256.jwks"))
                }
                _ => {
                    (include_str!("../tests/fixtures/jws/ps256.jwt"), include_str!("../tests/fixtures/jws/ps256.jwks"))
                }
            };
            let pinned = Jwks::parse(keys.as_bytes()).unwrap();
            assert_eq!(pinned.verify(token).unwrap().claims.get("aud").and_then(Json::text), Some("node"));
            // The same key pinned for the other algorithm.
            let (from, to) = if name == "rs256" { ("RS256", "PS256") } else { ("PS256", "RS256") };
            let other = Jwks::parse(keys.replace(from, to).as_bytes()).unwrap();
            says(other.verify(token), "none of the pinned keys");
        }
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let x = b64(pair.public_key().as_ref());
        let keys =
            Jwks::parse(format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}]}}"#).as_bytes()).unwrap();
        let message = format!("{}.{}", b64(br#"{"alg":"EdDSA"}"#), b64(b"{}"));
        let token = format!("{message}.{}", b64(pair.sign(message.as_bytes()).as_ref()));
        assert!(keys.verify(&token).is_ok());
    }

    #[test]
    fn only_public_signing_keys_are_pinned() {
        let signer = Signer::new();
        let (one, two) = (signer.jwk("a"), signer.jwk("b"));
        let of = |keys: &str| Jwks::parse(format!(r#"{{"keys":[{keys}]}}"#).as_bytes()).map_err(|e| e.0);
        assert!(of(&format!("{one},{two}")).is_ok());
        for (keys, said) in [
            (String::new(), "no key"),
            (format!("{one},{one}"), "of another"),
            (r#"{"kty":"oct","k":"AAAA"}"#.into(), "symmetric"),
            (one.replace("\"x\"", "\"d\":\"AA\",\"x\""), "private"),
            (one.replace("\"x\"", "\"use\":\"enc\",\"x\""), "not for signatures"),
            (one.replace("\"x\"", "\"alg\":\"HS256\",\"x\""), "not ES256"),
            (one.replace("P-256", "P-521"), "neither"),
            (one.replace("\"y\":\"", "\"y\":\"AAAA"), "odd size"),
            (r#"{"kty":"RSA","alg":"RS256","n":"AQAB","e":"AQAB"}"#.into(), "fewer than 2048"),
            (format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#, b64(&[0xff; 256])), "names no `alg`"),
            (vec![one.as_str(); 17].join(","), "more than 16"),
        ] {
            assert!(of(&keys).unwrap_err().contains(said), "{keys}: {:?}", of(&keys));
        }
        assert!(Jwks::parse(b"[]").is_err());
    }

    /// As much as is allowed, and one more.
    #[test]
    fn bounds() {
        let signer = Signer::new();
        let set = |count: usize| {
            let keys: Vec<String> = (0..count).map(|n| signer.jwk(&n.to_string())).collect();
            format!(r#"{{"keys":[{}]}}"#, keys.join(","))
        };
        assert!(Jwks::parse(set(MAX_KEYS).as_bytes()).is_ok());
        assert!(Jwks::parse(set(MAX_KEYS + 1).as_bytes()).unwrap_err().0.contains("more than 16"));
        let padded = |len: usize| set(1) + &" ".repeat(len - set(1).len());
        assert!(Jwks::parse(padded(MAX_JWKS).as_bytes()).is_ok());
        assert!(Jwks::parse(padded(MAX_JWKS + 1).as_bytes()).unwrap_err().0.contains("larger"));
        // Three bytes of the payload are four of the token; one or two more of the header are the rest, which is never one.
        let token = |len: usize| {
            let of = |header: usize, payload: usize| {
                signer.sign(&(HEADER.to_owned() + &" ".repeat(header)), &("{}".to_owned() + &" ".repeat(payload)))
            };
            let more = (0..3).find(|more| (len - of(*more, 1).len()).is_multiple_of(4)).unwrap();
            of(more, 1 + (len - of(more, 1).len()) / 4 * 3)
        };
        assert_eq!(token(MAX_TOKEN).len(), MAX_TOKEN);
        assert!(signer.jwks().verify(&token(MAX_TOKEN)).is_ok());
        says(signer.jwks().verify(&token(MAX_TOKEN + 2)), "larger");
    }

    #[test]
    fn a_key_on_p_384() {
        let random = SystemRandom::new();
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, made.as_ref(), &random).unwrap();
        let point = pair.public_key().as_ref();
        let (x, y) = (b64(&point[1..49]), b64(&point[49..]));
        let set = format!(r#"{{"keys":[{{"kty":"EC","crv":"P-384","alg":"ES384","x":"{x}","y":"{y}"}}]}}"#);
        let keys = Jwks::parse(set.as_bytes()).unwrap();
        let sign = |alg: &str| {
            let message = format!("{}.{}", b64(format!(r#"{{"alg":"{alg}"}}"#).as_bytes()), b64(b"{}"));
            format!("{message}.{}", b64(pair.sign(&random, message.as_bytes()).unwrap().as_ref()))
        };
        assert!(keys.verify(&sign("ES384")).is_ok());
        says(keys.verify(&sign("ES256")), "`alg` is not ES384");
        // Its point is none of P-256.
        let other = set.replace("P-384", "P-256").replace("ES384", "ES256");
        assert!(Jwks::parse(other.as_bytes()).unwrap_err().0.contains("odd size"));
    }
}
