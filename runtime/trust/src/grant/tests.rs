use super::*;
use crate::digest::digest;
use crate::dsse::propose;
use crate::jws::tests::{Signer, b64};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;

const HEAD: &str = r#"{"alg":"ES256","typ":"boltseal-grant+jwt"}"#;

fn claims() -> serde_json::Value {
    json!({
        "iss": "https://idp.corp.example", "sub": "ann@corp.example", "aud": ["boltseal:prod"],
        "iat": 1_800_000_000, "nbf": 1_800_000_000, "exp": 1_800_086_400,
        "amr": ["pwd", "hwk"], "acr": "urn:gold",
        CLAIM: {
            "version": 1, "namespaces": ["shop"], "pods": ["web-*"],
            "containers": [{
                "name": "web", "images": [digest(b"i").to_string()],
                "command": ["/app", null], "args": [], "env": { "A": digest(b"1").to_string(), "B": "any" },
                "cwd": "/work", "user": "1000:1000",
                "mounts": [{ "path": "/data", "readOnly": true, "host": "/srv" }, { "path": "/tmp" }],
            }],
        },
    })
}

fn of(value: &serde_json::Value) -> Result<Grant, String> {
    read(&Json::parse(value.to_string().as_bytes()).unwrap()).map_err(|e| e.0)
}

#[test]
fn claims_are_read_as_they_stand() {
    let set = |words: &[&str]| words.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    let container = Container {
        name: "web".into(),
        images: set(&[&digest(b"i").to_string()]),
        command: Some(vec![Some("/app".into()), None]),
        args: Some(vec![]),
        env: BTreeMap::from([("A".into(), Value::Is(digest(b"1"))), ("B".into(), Value::Any)]),
        cwd: Some("/work".into()),
        user: Some("1000:1000".into()),
        mounts: vec![
            Mount { destination: "/data".into(), readonly: true, host: Some("/srv".into()) },
            Mount { destination: "/tmp".into(), ..Mount::default() },
        ],
    };
    let expected = Grant {
        issuer: "https://idp.corp.example".into(),
        subject: "ann@corp.example".into(),
        audience: set(&["boltseal:prod"]),
        from: 1_800_000_000,
        until: 1_800_086_400,
        amr: set(&["hwk", "pwd"]),
        acr: "urn:gold".into(),
        namespaces: set(&["shop"]),
        pods: vec!["web-*".into()],
        containers: vec![container],
    };
    assert_eq!(of(&claims()), Ok(expected));
}

#[test]
fn what_is_missing_or_odd_is_no_grant() {
    type Row = (fn(&mut serde_json::Value), &'static str);
    let bad: [Row; 22] = [
        (|c| drop(c.as_object_mut().unwrap().remove(CLAIM)), "no claim"),
        (|c| c[CLAIM] = json!([]), "no object"),
        (|c| c[CLAIM]["version"] = 2.into(), "not of version 1"),
        (|c| c[CLAIM]["privileged"] = true.into(), "unknown key"),
        (|c| c["exp"] = "soon".into(), "no time `exp`"),
        (|c| c["exp"] = (-1).into(), "`exp` is no time"),
        (|c| c["exp"] = json!(1.5), "no time `exp`"),
        (|c| drop(c.as_object_mut().unwrap().remove("exp")), "no time `exp`"),
        (|c| drop(c.as_object_mut().unwrap().remove("nbf")), "no time `nbf`"),
        (|c| c["aud"] = json!([1]), "no text"),
        (|c| c["sub"] = json!(["x"]), "no text"),
        (|c| c["amr"] = "mfa".into(), "no list"),
        (|c| c[CLAIM]["namespaces"] = "shop".into(), "no list"),
        (|c| c[CLAIM]["containers"][0]["name"] = "".into(), "without a name"),
        (|c| c[CLAIM]["containers"][0]["images"] = json!(["app:v1"]), "no sha256 digest"),
        (|c| c[CLAIM]["containers"][0]["env"]["A"] = "1".into(), "neither `any`"),
        (|c| c[CLAIM]["containers"][0]["env"] = json!([]), "no object"),
        (|c| c[CLAIM]["containers"][0]["command"] = json!([7]), "no text"),
        (|c| c[CLAIM]["containers"][0]["capabilities"] = json!([]), "unknown key"),
        (|c| c[CLAIM]["containers"][0]["mounts"][0]["readOnly"] = 1.into(), "neither true nor false"),
        (|c| c[CLAIM]["containers"][0]["mounts"][0] = json!({}), "without a `path`"),
        (
            |c| {
                let again = c[CLAIM]["containers"][0].clone();
                c[CLAIM]["containers"].as_array_mut().unwrap().push(again);
            },
            "twice",
        ),
    ];
    for (change, why) in bad {
        let mut claims = claims();
        change(&mut claims);
        let error = of(&claims).unwrap_err();
        assert!(error.contains(why), "{error}, wanted {why}");
    }
    let mut many = claims();
    many[CLAIM]["pods"] = vec!["a"; MAX_LIST + 1].into();
    assert!(of(&many).unwrap_err().contains("at most"));
    let mut many = claims();
    let names = |count| (0..count).map(|n| (format!("A{n}"), json!("any"))).collect::<serde_json::Value>();
    many[CLAIM]["containers"][0]["env"] = names(MAX_LIST + 1);
    assert!(of(&many).unwrap_err().contains("at most 512 names"));
    many[CLAIM]["containers"][0]["env"] = names(MAX_LIST);
    assert!(of(&many).is_ok());
    let mut one = claims();
    one["aud"] = "boltseal:prod".into();
    assert_eq!(of(&one), of(&claims()));
}

#[test]
fn a_token_of_another_kind_or_key_is_no_grant() {
    let (signer, stranger) = (Signer::new(), Signer::new());
    let keys = Keys::Set(signer.jwks());
    let of = |token: &str| keys.token(token).map_err(|e| e.0);
    let good = signer.sign(HEAD, &claims().to_string());
    assert!(read(&of(&good).unwrap()).is_ok());
    let refused = |token: &str, why: &str| {
        let error = of(token).unwrap_err();
        assert!(error.contains(why), "{error}, wanted {why}");
    };
    refused(&signer.sign(r#"{"alg":"ES256"}"#, &claims().to_string()), "another kind");
    refused(&signer.sign(r#"{"alg":"ES256","typ":"JWT"}"#, &claims().to_string()), "another kind");
    refused(&signer.sign(&HEAD.replace("ES256", "none"), &claims().to_string()), "`alg`");
    refused(&stranger.sign(HEAD, &claims().to_string()), "none of the pinned keys");
    refused(&format!("{good}.x"), "three parts");
    refused(&format!("{good} "), "base64url");
    let twice = claims().to_string().replacen("\"sub\"", "\"sub\":\"root\",\"sub\"", 1);
    refused(&signer.sign(HEAD, &twice), "twice");
    refused(&signer.sign(HEAD, &format!("{}x", claims())), "not JSON");
    // The public key as the secret of an HMAC.
    let message =
        format!("{}.{}", b64(HEAD.replace("ES256", "HS256").as_bytes()), b64(claims().to_string().as_bytes()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, signer.jwk("v1").as_bytes()), message.as_bytes());
    refused(&format!("{message}.{}", b64(tag.as_ref())), "none of the pinned keys");
}

#[test]
fn an_envelope_is_of_its_key_and_type() {
    let random = SystemRandom::new();
    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, made.as_ref(), &random).unwrap();
    let key = Key::from_point(pair.public_key().as_ref()).unwrap();
    let keys = Keys::from_pem(&key.pem()).unwrap();
    let signed = |kind: &str, payload: &str| {
        let mut envelope = Envelope { payload_type: kind.into(), payload: payload.into(), signatures: vec![] };
        envelope.signatures.push(pair.sign(&random, &envelope.message()).unwrap().as_ref().to_vec());
        propose(envelope.json().as_bytes()).unwrap()
    };
    let text = claims().to_string();
    let good = signed(DSSE_TYPE, &text);
    assert!(read(&keys.envelope(&good).unwrap()).is_ok());
    let refused = |keys: &Keys, envelope: &Envelope, why: &str| {
        let error = keys.envelope(envelope).unwrap_err().0;
        assert!(error.contains(why), "{error}, wanted {why}");
    };
    refused(&keys, &signed("application/vnd.in-toto+json", &text), "another kind");
    refused(&keys, &Envelope { payload_type: DSSE_TYPE.to_uppercase(), ..good.clone() }, "none of the pinned keys");
    refused(&keys, &Envelope { signatures: vec![], ..good.clone() }, "none of the pinned keys");
    refused(&keys, &signed(DSSE_TYPE, &format!("{text}{{}}")), "not JSON");
    refused(&Keys::Set(Signer::new().jwks()), &good, "in PEM");
    // A key in PEM verifies tokens, too; RSA without a word on its padding does not.
    let fixed = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, made.as_ref(), &random);
    let message = format!("{}.{}", b64(HEAD.as_bytes()), b64(text.as_bytes()));
    let signature = fixed.unwrap().sign(&random, message.as_bytes()).unwrap();
    assert!(keys.token(&format!("{message}.{}", b64(signature.as_ref()))).is_ok());
}
