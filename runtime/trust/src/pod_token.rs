//! The service-account token that kubelet projects into a pod (Kubernetes, "Bound service account tokens"): the API server's
//! word that this pod, by its uid, runs as this account on that node. Verified offline, by the cluster's pinned keys.
use crate::claims::Json;
use crate::jws::{Jwks, JwsError};
use crate::token::{self, Demands};

/// Longest name that Kubernetes gives anything here (DNS subdomain), bytes.
const MAX_NAME: usize = 253;

/// What a token has to say.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The cluster's `--service-account-issuer`.
    pub issuer: &'a str,
    pub audience: &'a str,
    /// Seconds since the epoch.
    pub now: u64,
}

/// Of whom the token speaks. Nothing here is compared with a pod yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodToken {
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub subject: String,
    pub namespace: String,
    pub pod_uid: String,
    /// The node that the pod was bound to; the API server says so from Kubernetes 1.32 on (1.30 where it is switched on).
    pub node: Option<String>,
    /// Seconds since the epoch.
    pub expires: i64,
}

/// Verifies a token and reads whom it speaks of.
///
/// # Errors
/// The first thing that does not hold: signature, issuer, audience, time, or a token that is bound to no pod.
pub fn accept(token: &[u8], keys: &Jwks, expected: &Expected<'_>) -> Result<PodToken, JwsError> {
    let Expected { issuer, audience, now } = *expected;
    let (claims, expires) = token::open(token, keys, &Demands { section: "owner.token", issuer, audience, now })?;
    let Some(bound) = claims.get("kubernetes.io") else {
        return Err(JwsError("the token is none of a Kubernetes service account".into()));
    };
    let name = |pointer: &str, what: &str| match bound.pointer(pointer).map(Json::text) {
        Some(Some(name)) if is_name(name) => Ok(name.to_owned()),
        _ => Err(JwsError(format!("the token is bound to no {what}"))),
    };
    let (namespace, account) = (name("/namespace", "namespace")?, name("/serviceaccount/name", "service account")?);
    let pod_uid = name("/pod/uid", "pod")?;
    let node = bound.get("node").map(|_| name("/node/name", "node")).transpose()?;
    let subject = format!("system:serviceaccount:{namespace}:{account}");
    if claims.get("sub").and_then(Json::text) != Some(&subject) {
        return Err(JwsError("the token's `sub` is not the account that it is bound to".into()));
    }
    Ok(PodToken { subject, namespace, pod_uid, node, expires })
}

fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jws::tests::Signer;
    use serde_json::{Value, json};

    const NOW: u64 = 1_800_000_000;
    const UID: &str = "2f9a2b1e-0c62-4f5a-9a53-0d7c6f7f3f10";

    /// As kube-apiserver 1.36 writes it.
    fn claims() -> Value {
        json!({
            "aud": ["boltseal"], "exp": NOW + 3600, "iat": NOW, "nbf": NOW, "iss": "https://kubernetes.default.svc",
            "jti": "0b6d9a3e-5f0c-4b54-9b3f-0f4f0b1d3c11",
            "kubernetes.io": {
                "namespace": "shop",
                "node": { "name": "node-1", "uid": "a" },
                "pod": { "name": "web-0", "uid": UID },
                "serviceaccount": { "name": "web", "uid": "b" },
            },
            "sub": "system:serviceaccount:shop:web",
        })
    }

    fn with(change: impl Fn(&mut Value)) -> Result<PodToken, String> {
        let signer = Signer::new();
        let mut claims = claims();
        change(&mut claims);
        let token = signer.sign(r#"{"alg":"ES256"}"#, &claims.to_string());
        let expected = Expected { issuer: "https://kubernetes.default.svc", audience: "boltseal", now: NOW };
        accept(token.as_bytes(), &signer.jwks(), &expected).map_err(|e| e.0)
    }

    #[test]
    fn truth_table() {
        let good = PodToken {
            subject: "system:serviceaccount:shop:web".into(),
            namespace: "shop".into(),
            pod_uid: UID.into(),
            node: Some("node-1".into()),
            expires: NOW as i64 + 3600,
        };
        assert_eq!(with(|_| {}), Ok(good.clone()));
        let no_node = with(|c| drop(c["kubernetes.io"].as_object_mut().unwrap().remove("node")));
        assert_eq!(no_node, Ok(PodToken { node: None, ..good }));
        type Row = (fn(&mut Value), &'static str);
        let bad: [Row; 16] = [
            (|c| c["iss"] = "https://other".into(), "owner.token.issuer"),
            (|c| c["aud"] = json!(["https://kubernetes.default.svc"]), "owner.token.audience"),
            (|c| c["exp"] = NOW.into(), "has expired"),
            (|c| c["exp"] = (NOW + 90_000).into(), "more than a day"),
            (|c| c["exp"] = i64::MIN.into(), "has expired"),
            (|c| c["nbf"] = (NOW + 61).into(), "future"),
            (|c| drop(c.as_object_mut().unwrap().remove("kubernetes.io")), "none of a Kubernetes service account"),
            (|c| c["kubernetes.io"] = "shop".into(), "no namespace"),
            (|c| c["kubernetes.io"]["namespace"] = "".into(), "no namespace"),
            (|c| c["kubernetes.io"]["pod"] = json!({ "name": "web-0" }), "no pod"),
            (|c| c["kubernetes.io"]["pod"]["uid"] = "../x".into(), "no pod"),
            (|c| c["kubernetes.io"]["pod"]["uid"] = "a".repeat(254).into(), "no pod"),
            (|c| c["kubernetes.io"]["serviceaccount"] = json!({}), "no service account"),
            (|c| c["kubernetes.io"]["node"] = json!({}), "no node"),
            (|c| c["sub"] = "system:serviceaccount:shop:admin".into(), "`sub`"),
            (|c| drop(c.as_object_mut().unwrap().remove("sub")), "`sub`"),
        ];
        for (number, (change, says)) in bad.into_iter().enumerate() {
            let why = with(change).unwrap_err();
            assert!(why.contains(says), "{number}: {why}");
        }
    }

    /// A token that the cluster's key did not sign is not read at all.
    #[test]
    fn another_key_proves_nothing() {
        let token = Signer::new().sign(r#"{"alg":"ES256"}"#, &claims().to_string());
        let expected = Expected { issuer: "https://kubernetes.default.svc", audience: "boltseal", now: NOW };
        let why = accept(token.as_bytes(), &Signer::new().jwks(), &expected).unwrap_err();
        assert!(why.0.contains("none of the pinned keys"), "{why}");
    }
}
