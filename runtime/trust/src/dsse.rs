//! DSSE envelopes of people's grants (secure-systems-lab/dsse, protocol.md): one payload, one signature or several.
//!
//! The envelope is written by whom nobody knows: [`propose`] reads it in the worker. The gate rebuilds the message from the
//! raw payload and verifies it by the policy's keys before anything of the payload is parsed.
use crate::key::Key;
use crate::propose::json::object;
use crate::propose::{MAX_NAME, MAX_SIGNATURE, Malformed};
use crate::spki::Text;
use crate::verify::pae;
use crate::wire::{DecodeError, Reader, Writer};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeSet;

/// Longest envelope, bytes.
pub const MAX_ENVELOPE: usize = 64 << 10;
/// Most signatures of one.
pub const MAX_SIGNATURES: usize = 16;

/// What the worker found. Nothing of it is signed but what [`Envelope::signers`] says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Envelope {
    pub payload_type: String,
    pub payload: Vec<u8>,
    /// ECDSA in ASN.1 DER.
    pub signatures: Vec<Vec<u8>>,
}

/// Reads an envelope. To be called in the worker.
///
/// # Errors
/// Not strict JSON, too large, or no envelope.
pub fn propose(bytes: &[u8]) -> Result<Envelope, Malformed> {
    let file = object(bytes, "envelope", MAX_ENVELOPE)?;
    if let Some(key) = file.keys().find(|key| !["payload", "payloadType", "signatures"].contains(key)) {
        return Err(Malformed::new(format!("envelope: unknown key {key:?}")));
    }
    let decoded = |text: &str, what: &str, max: usize| match STANDARD.decode(text) {
        Ok(bytes) if bytes.len() <= max => Ok(bytes),
        Ok(_) => Err(Malformed::new(format!("{what} is longer than {max} bytes"))),
        Err(_) => Err(Malformed::new(format!("{what} is not base64"))),
    };
    let list = file.list("signatures")?;
    if list.len() > MAX_SIGNATURES {
        return Err(Malformed::new(format!("more than {MAX_SIGNATURES} signatures")));
    }
    let signature = |one: &crate::propose::json::Json<'_>| {
        decoded(one.object("signatures")?.need_text("sig", MAX_ENVELOPE)?, "sig", MAX_SIGNATURE)
    };
    Ok(Envelope {
        payload_type: file.need_text("payloadType", MAX_NAME)?.to_owned(),
        payload: decoded(file.need_text("payload", MAX_ENVELOPE)?, "payload", MAX_ENVELOPE)?,
        signatures: list.iter().map(signature).collect::<Result<_, _>>()?,
    })
}

/// What a worker does with the bytes of an envelope.
#[must_use]
pub fn answer(_: u8, bytes: &[u8]) -> Vec<u8> {
    let mut w = Writer::default();
    match propose(bytes) {
        Ok(envelope) => {
            w.byte(0);
            w.text(&envelope.payload_type);
            w.bytes(&envelope.payload);
            w.list(&envelope.signatures, |w, signature| w.bytes(signature));
        }
        Err(why) => {
            w.byte(1);
            w.text(why.reason());
        }
    }
    w.0
}

/// A worker's answer.
///
/// # Errors
/// It is none. Inside: why the bytes are no envelope.
pub fn decode(answer: &[u8]) -> Result<Result<Envelope, Malformed>, DecodeError> {
    let mut r = Reader::new(answer)?;
    let read = match r.byte()? {
        0 => Ok(Envelope {
            payload_type: r.text(MAX_NAME)?,
            payload: r.bytes(MAX_ENVELOPE)?,
            signatures: r.list(MAX_SIGNATURES, |r| r.bytes(MAX_SIGNATURE))?,
        }),
        1 => Err(Malformed::new(r.text(MAX_NAME)?)),
        _ => return Err(DecodeError("unknown kind")),
    };
    r.end()?;
    Ok(read)
}

impl Envelope {
    /// The bytes that are signed.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        pae(&self.payload_type, &self.payload)
    }

    /// Ids of those of `keys` that signed it.
    pub fn signers<'k>(&self, keys: impl IntoIterator<Item = &'k Key>) -> BTreeSet<String> {
        let message = self.message();
        let signed = |key: &&Key| self.signatures.iter().any(|sig| key.signed(Text::Envelope, &message, sig));
        keys.into_iter().filter(signed).map(|key| key.id().to_owned()).collect()
    }

    /// As it is written.
    #[must_use]
    pub fn json(&self) -> String {
        let signatures: Vec<_> =
            self.signatures.iter().map(|sig| serde_json::json!({ "sig": STANDARD.encode(sig) })).collect();
        let text = serde_json::json!({
            "payloadType": self.payload_type,
            "payload": STANDARD.encode(&self.payload),
            "signatures": signatures,
        });
        format!("{text}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

    fn pair() -> (EcdsaKeyPair, Key) {
        let random = SystemRandom::new();
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, made.as_ref(), &random).unwrap();
        let key = Key::from_point(pair.public_key().as_ref()).unwrap();
        (pair, key)
    }

    #[test]
    fn several_sign_one_envelope() {
        let ((a, key_a), (b, key_b), (_, key_c)) = (pair(), pair(), pair());
        let mut envelope = Envelope { payload_type: "t/x".into(), payload: b"{}".to_vec(), signatures: vec![] };
        for pair in [&a, &b] {
            let signature = pair.sign(&SystemRandom::new(), &envelope.message()).unwrap();
            envelope.signatures.push(signature.as_ref().to_vec());
        }
        let read = propose(envelope.json().as_bytes()).unwrap();
        assert_eq!(read, envelope);
        assert_eq!(decode(&answer(0, envelope.json().as_bytes())), Ok(Ok(envelope.clone())));
        let ids = |keys: &[&Key]| keys.iter().map(|key| key.id().to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(read.signers([&key_a, &key_b, &key_c]), ids(&[&key_a, &key_b]));
        // One key is one signer, however often it signed; another type or payload is another message.
        let twice = Envelope { signatures: vec![read.signatures[0].clone(); 2], ..read.clone() };
        assert_eq!(twice.signers([&key_a, &key_a]), ids(&[&key_a]));
        let other = Envelope { payload_type: "t/y".into(), ..read.clone() };
        assert_eq!(other.signers([&key_a, &key_b]), ids(&[]));
        let other = Envelope { payload: b"{ }".to_vec(), ..read };
        assert_eq!(other.signers([&key_a, &key_b]), ids(&[]));
    }

    #[test]
    fn what_is_no_envelope() {
        let good = r#"{"payloadType":"t","payload":"e30=","signatures":[{"sig":"AAAA"}]}"#;
        assert!(propose(good.as_bytes()).is_ok());
        let signatures = |count| good.replace("[{", &format!("[{}{{", "{\"sig\":\"\"},".repeat(count - 1)));
        let sized = |len| good.replace("AAAA", &STANDARD.encode(vec![0; len]));
        assert!(propose(signatures(MAX_SIGNATURES).as_bytes()).is_ok());
        assert!(propose(sized(MAX_SIGNATURE).as_bytes()).is_ok());
        for (bad, why) in [
            (good.replace("\"t\"", "\"t\",\"payloadType\":\"u\""), "twice"),
            (good.replace("\"t\"", "\"t\",\"PayloadType\":\"u\""), "unknown key"),
            (good.replace("\"t\"", "\"t\",\"x\":1"), "unknown key"),
            (format!("{good}x"), "trailing"),
            (format!("{good}{good}"), "trailing"),
            (good.replace("e30=", "e30"), "payload is not base64"),
            (good.replace("AAAA", "AA"), "sig is not base64"),
            (good.replace("\"e30=\"", "7"), "not a text"),
            (good.replace("[{\"sig\":\"AAAA\"}]", "{}"), "not a list"),
            (signatures(MAX_SIGNATURES + 1), "more than 16"),
            (sized(MAX_SIGNATURE + 1), "sig is longer than"),
            (" ".repeat(MAX_ENVELOPE + 1), "at most"),
            ("[]".into(), "envelope"),
        ] {
            let error = propose(bad.as_bytes()).unwrap_err();
            assert!(error.reason().contains(why), "{error}: {bad}");
            assert_eq!(decode(&answer(0, bad.as_bytes())), Ok(Err(error)));
        }
        for bad in [&[][..], &[2], &[0, 0, 0, 0, 0], &[1, 0, 0, 0, 0, 0]] {
            assert!(decode(bad).is_err(), "{bad:?}");
        }
    }
}
