//! EAR: a verifier's word on a node (EAT Attestation Results, draft-ietf-rats-ear), bound to this key and this boot.
//!
//! The verifier's signature makes the claims its own. They count when it says `affirming` of every part, for this audience, now, of
//! this very attestation key, and in answer to a nonce that holds this boot's id: a token of another node or boot is none.
use crate::claims::Json;
use crate::jws::{Jwks, JwsError};
use crate::token::{self, Demands, names};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};

/// `ear.status`, as a name and as a number.
const AFFIRMING: (&str, i64) = ("affirming", 2);

/// What a token has to say.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    pub issuer: &'a str,
    pub audience: &'a str,
    /// JSON pointer to the claim with the attestation key.
    pub ak_claim: &'a str,
    /// JSON pointer to the claim with the nonce; empty: `/eat_nonce`.
    pub nonce_claim: &'a str,
    /// DER SubjectPublicKeyInfo of the enrolled key.
    pub ak_der: &'a [u8],
    /// Its TPM name, hex.
    pub ak_name: &'a str,
    /// Over this boot and that key.
    pub nonce: &'a [u8; 32],
    /// Seconds since the epoch.
    pub now: u64,
}

/// What was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Seconds since the epoch.
    pub expires: i64,
    /// Parts that the verifier affirmed.
    pub parts: Vec<String>,
}

/// Verifies a token and all that it has to say.
///
/// # Errors
/// The first thing that does not hold.
pub fn accept(token: &[u8], keys: &Jwks, expected: &Expected<'_>) -> Result<Accepted, JwsError> {
    let refused = |why: &str| Err(JwsError(why.to_owned()));
    let Expected { issuer, audience, now, .. } = *expected;
    let (claims, expires) = token::open(token, keys, &Demands { section: "node.ear", issuer, audience, now })?;
    if !claims.pointer(expected.ak_claim).and_then(Json::text).is_some_and(|said| is_key(said, expected)) {
        return refused("the token is not about the enrolled attestation key (node.ear.ak_claim)");
    }
    let pointer = if expected.nonce_claim.is_empty() { "/eat_nonce" } else { expected.nonce_claim };
    if !is_nonce(claims.pointer(pointer), expected.nonce) {
        return refused(
            "the token does not answer this boot's nonce. Fix: attest with the nonce that `boltseal node status` shows",
        );
    }
    let Some(Json::Object(parts)) = claims.get("submods") else { return refused("the token has no `submods`") };
    for (name, part) in parts {
        let good = match part.get("ear.status") {
            Some(Json::Text(status)) => status == AFFIRMING.0,
            Some(Json::Integer(status)) => *status == AFFIRMING.1,
            _ => false,
        };
        if !good {
            return Err(JwsError(format!("the verifier does not affirm `{}`", shown(name))));
        }
    }
    if parts.is_empty() {
        return refused("the token affirms nothing");
    }
    Ok(Accepted { expires, parts: parts.keys().map(|name| shown(name)).collect() })
}

fn is_key(said: &str, expected: &Expected<'_>) -> bool {
    let body = said.replace("-----BEGIN PUBLIC KEY-----", "").replace("-----END PUBLIC KEY-----", "");
    let text: String = body.split_ascii_whitespace().collect();
    said.eq_ignore_ascii_case(expected.ak_name)
        || STANDARD.decode(&text).or_else(|_| URL_SAFE_NO_PAD.decode(&text)).is_ok_and(|der| der == expected.ak_der)
}

fn is_nonce(claim: Option<&Json>, nonce: &[u8; 32]) -> bool {
    let hex: String = nonce.iter().map(|b| format!("{b:02x}")).collect();
    [hex, STANDARD.encode(nonce), URL_SAFE_NO_PAD.encode(nonce)].iter().any(|form| names(claim, form))
}

fn shown(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_graphic()).take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jws::tests::{Signer, b64};

    const NOW: u64 = 1_800_000_000;
    const DER: &[u8] = b"der of the key";
    const NAME: &str = "000bab";

    fn expected() -> Expected<'static> {
        Expected {
            issuer: "https://verifier.test",
            audience: "node-1",
            ak_claim: "/submods/tpm/evidence/ak",
            nonce_claim: "",
            ak_der: DER,
            ak_name: NAME,
            nonce: &[7; 32],
            now: NOW,
        }
    }

    fn claims() -> serde_json::Value {
        serde_json::json!({
            "iss": "https://verifier.test", "aud": "node-1", "iat": NOW - 10, "exp": NOW + 300,
            "eat_profile": "tag:github.com,2023:veraison/ear", "eat_nonce": "07".repeat(32),
            "submods": { "tpm": { "ear.status": "affirming", "evidence": { "ak": STANDARD.encode(DER) } } },
        })
    }

    fn with(change: impl Fn(&mut serde_json::Value)) -> Result<Accepted, String> {
        let signer = Signer::new();
        let mut claims = claims();
        change(&mut claims);
        let token = signer.sign(r#"{"alg":"ES256"}"#, &claims.to_string());
        accept(token.as_bytes(), &signer.jwks(), &expected()).map_err(|e| e.0)
    }

    #[test]
    fn truth_table() {
        assert_eq!(with(|_| {}), Ok(Accepted { expires: NOW as i64 + 300, parts: vec!["tpm".into()] }));
        let good: [fn(&mut serde_json::Value); 8] = [
            |c| c["aud"] = serde_json::json!(["other", "node-1"]),
            |c| c["submods"]["tpm"]["ear.status"] = 2.into(),
            |c| c["submods"]["tpm"]["evidence"]["ak"] = NAME.to_uppercase().into(),
            |c| {
                c["submods"]["tpm"]["evidence"]["ak"] =
                    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(DER)).into();
            },
            |c| c["eat_nonce"] = serde_json::json!(["x", b64(&[7; 32])]),
            |c| c["eat_nonce"] = STANDARD.encode([7; 32]).into(),
            |c| c["nbf"] = (NOW + 59).into(),
            |c| drop(c.as_object_mut().unwrap().remove("iat")),
        ];
        for (number, change) in good.into_iter().enumerate() {
            assert!(with(change).is_ok(), "{number}: {:?}", with(change));
        }
        type Row = (fn(&mut serde_json::Value), &'static str);
        let bad: [Row; 22] = [
            (|c| c["iss"] = "https://verifier.test/".into(), "`iss`"),
            (|c| drop(c.as_object_mut().unwrap().remove("iss")), "`iss`"),
            (|c| c["aud"] = "node-10".into(), "audience"),
            (|c| c["aud"] = serde_json::json!([]), "audience"),
            (|c| drop(c.as_object_mut().unwrap().remove("aud")), "audience"),
            (|c| c["exp"] = NOW.into(), "has expired"),
            (|c| c["exp"] = (-1).into(), "has expired"),
            (|c| drop(c.as_object_mut().unwrap().remove("exp")), "never expires"),
            (|c| c["exp"] = "4102444800".into(), "no time"),
            (|c| c["exp"] = (NOW + 86_400 * 30).into(), "more than a day"),
            (|c| c["iat"] = (NOW + 61).into(), "future"),
            (|c| c["nbf"] = (NOW + 61).into(), "future"),
            (|c| c["nbf"] = 1.5.into(), "no time"),
            (|c| c["submods"]["tpm"]["evidence"]["ak"] = STANDARD.encode(b"another").into(), "attestation key"),
            (|c| drop(c["submods"]["tpm"].as_object_mut().unwrap().remove("evidence")), "attestation key"),
            (|c| c["eat_nonce"] = "08".repeat(32).into(), "nonce"),
            (|c| drop(c.as_object_mut().unwrap().remove("eat_nonce")), "nonce"),
            (|c| c["submods"]["tpm"]["ear.status"] = "warning".into(), "does not affirm"),
            (|c| c["submods"]["tpm"]["ear.status"] = 0.into(), "does not affirm"),
            (|c| c["submods"]["gpu"] = serde_json::json!({ "ear.status": "contraindicated" }), "does not affirm `gpu`"),
            (
                |c| c["submods"]["tpm"] = serde_json::json!({ "evidence": c["submods"]["tpm"]["evidence"] }),
                "does not affirm",
            ),
            (|c| c["submods"] = serde_json::json!([]), "attestation key"),
        ];
        for (number, (change, said)) in bad.into_iter().enumerate() {
            let error = with(change).unwrap_err();
            assert!(error.contains(said), "{number} wanted {said:?}: {error}");
        }
    }

    #[test]
    fn a_token_by_another_verifier_or_with_a_claim_twice_is_refused() {
        let (signer, stranger) = (Signer::new(), Signer::new());
        let text = claims().to_string();
        let forged = stranger.sign(r#"{"alg":"ES256"}"#, &text);
        assert!(accept(forged.as_bytes(), &signer.jwks(), &expected()).unwrap_err().0.contains("none of the pinned"));
        let twice = text.replacen("\"aud\":", "\"aud\":\"x\",\"aud\":", 1);
        let token = signer.sign(r#"{"alg":"ES256"}"#, &twice);
        assert!(accept(token.as_bytes(), &signer.jwks(), &expected()).unwrap_err().0.contains("twice"));
        let good = format!("{}\n", signer.sign(r#"{"alg":"ES256"}"#, &text));
        assert!(accept(good.as_bytes(), &signer.jwks(), &expected()).is_ok(), "a file ends with a newline");
        assert!(accept(b"\xff", &signer.jwks(), &expected()).is_err());
        let nowhere = Expected { nonce_claim: "/submods/tpm/evidence/ak", ..expected() };
        assert!(accept(good.as_bytes(), &signer.jwks(), &nowhere).unwrap_err().0.contains("nonce"));
    }
}
