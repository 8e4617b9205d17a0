//! Who answers for a pod: what it says itself, or what its token proves.
use boltseal_evidence::file::{Folder, Owner};
use boltseal_policy::Policy;
use boltseal_policy::facts::{BoundToken, Fact, Facts, OwnerToken, Subject};
use boltseal_policy::policy::{OwnerRules, TokenRules};
use boltseal_policy::standard::{TOKEN_FILE, TOKEN_VOLUME};
use boltseal_trust::jws::{Jwks, MAX_TOKEN};
use boltseal_trust::pod_token::{Expected, accept};
use std::path::Path;

pub(crate) fn named(annotation: Option<&str>) -> Fact<String> {
    match annotation {
        None | Some("") => Fact::Absent,
        Some(owner) => Fact::Is(owner.to_owned()),
    }
}

/// What the token of a pod says, where the policy asks for one. `subject` must be what records vouch for. kubelet makes a pod's
/// volumes before it makes its sandbox, so that the token is there for every container of it.
pub(crate) fn token(
    rules: &OwnerRules,
    jwks: Option<&[u8]>,
    kubelet_root: &str,
    subject: &Subject,
    now: &Fact<u64>,
) -> Fact<OwnerToken> {
    let Some(rules) = rules.token.as_ref().filter(|_| rules.level == "pod-token") else { return Fact::Absent };
    let uid = subject.pod_uid.as_str();
    if uid.is_empty() {
        return Fact::Absent;
    }
    // It is a name of a folder below; the API server gives UUIDs, a static pod's is a hash.
    if uid.len() > 64 || !uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Fact::Unknown("the pod's uid is none of Kubernetes'".into());
    }
    let volumes = Path::new(kubelet_root).join("pods").join(uid).join("volumes/kubernetes.io~projected");
    // The folders down to it are kubelet's; the volume itself is writable for whom kubelet chose, what is in it is signed.
    let read = Folder::open(&volumes, Owner::Root)
        .and_then(|folder| folder.folder(Path::new(TOKEN_VOLUME)))
        .and_then(|volume| volume.read_below(TOKEN_FILE, MAX_TOKEN as u64));
    let bytes = match read {
        Ok((bytes, _)) => bytes,
        Err(problem) if problem.missing => return Fact::Absent,
        // The path is long, and a fact is cut at its end.
        Err(problem) => return Fact::Unknown(format!("it {} ({})", problem.fact, problem.file.display())),
    };
    match proven(rules, jwks, &bytes, now) {
        Ok(token) => Fact::Is(token),
        Err(why) => Fact::Unknown(why),
    }
}

fn proven(rules: &TokenRules, jwks: Option<&[u8]>, token: &[u8], now: &Fact<u64>) -> Result<OwnerToken, String> {
    let Fact::Is(now) = *now else { return Err("the time is not known, so it may have expired".into()) };
    let jwks = jwks.ok_or_else(|| format!("trust/{} of [owner.token] is missing", rules.jwks))?;
    let keys = Jwks::parse(jwks).map_err(|why| format!("trust/{} of [owner.token]: {why}", rules.jwks))?;
    // Nothing of it is parsed before one of the cluster's keys has verified it.
    let expected = Expected { issuer: &rules.issuer, audience: &rules.audience, now };
    let token = match accept(token, &keys, &expected) {
        Ok(token) => token,
        Err(why) => return Ok(OwnerToken::Refused(why.to_string())),
    };
    let here = nix::sys::utsname::uname().map_err(|e| format!("this node's name: {e}"))?;
    Ok(OwnerToken::Bound(BoundToken {
        subject: token.subject,
        namespace: token.namespace,
        pod_uid: token.pod_uid,
        node: token.node,
        here: here.nodename().to_string_lossy().into_owned(),
    }))
}

/// The owner as records name it. Where the policy asks for a proof, who is not proven is nobody: a record must not lay a pod at
/// the door of whom its annotation names, or of whose token or grant it carries.
pub(crate) fn owner(policy: &Policy, named: Fact<String>, facts: &Facts) -> Fact<String> {
    if let Some(owner) = boltseal_policy::rules::owner_named(policy, facts) {
        return Fact::Is(owner);
    }
    match &facts.owner_token {
        _ if policy.owner.level == "annotation" => named,
        Fact::Is(OwnerToken::Bound(token)) if token.is_of(&facts.subject) => Fact::Is(token.subject.clone()),
        _ => Fact::Absent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltseal_policy::fixture;

    fn rules() -> OwnerRules {
        let token = TokenRules { jwks: "c.jwks".into(), ..TokenRules::default() };
        OwnerRules { level: "pod-token".into(), token: Some(token), ..OwnerRules::default() }
    }

    fn of(uid: &str, root: &Path, jwks: Option<&[u8]>) -> Fact<OwnerToken> {
        let subject = Subject { pod_uid: uid.into(), ..Subject::default() };
        token(&rules(), jwks, &root.to_string_lossy(), &subject, &Fact::Is(1))
    }

    #[test]
    fn what_cannot_be_had_is_absent_or_unknown() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(of("", dir.path(), None), Fact::Absent);
        assert_eq!(of("u-1", dir.path(), None), Fact::Absent, "no volume");
        for uid in ["../x", "a/b", ".", &"a".repeat(65)] {
            assert!(matches!(of(uid, dir.path(), None), Fact::Unknown(_)), "{uid}");
        }
        let unasked = OwnerRules { level: "annotation".into(), ..rules() };
        let subject = Subject { pod_uid: "../x".into(), ..Subject::default() };
        assert_eq!(token(&unasked, None, "/", &subject, &Fact::Is(1)), Fact::Absent);
    }

    #[test]
    fn a_token_without_keys_or_time_is_unknown_and_a_bad_one_refused() {
        let says = |result: Result<OwnerToken, String>| result.map_or_else(|why| why, |token| format!("{token:?}"));
        let rules = rules().token.unwrap();
        assert!(says(proven(&rules, None, b"t", &Fact::Is(1))).starts_with("trust/c.jwks of [owner.token] is missing"));
        assert!(says(proven(&rules, Some(b"{}"), b"t", &Fact::Is(1))).starts_with("trust/c.jwks of [owner.token]: "));
        assert!(says(proven(&rules, Some(b"{}"), b"t", &Fact::Unknown("x".into()))).contains("time is not known"));
        let jwks = br#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        assert!(says(proven(&rules, Some(jwks), b"t", &Fact::Is(1))).starts_with("Refused("));
    }

    #[test]
    fn records_name_the_proven_owner() {
        let named = || Fact::Is("says".to_owned());
        let bound = |uid: &str| {
            let token = BoundToken {
                subject: "proven".into(),
                pod_uid: uid.into(),
                namespace: "n".into(),
                ..BoundToken::default()
            };
            Fact::Is(OwnerToken::Bound(token))
        };
        let at = |level: &str, token: &Fact<OwnerToken>| {
            let policy = Policy { owner: OwnerRules { level: level.into(), ..rules() }, ..fixture::policy() };
            let mut facts = Facts { owner_token: token.clone(), ..fixture::facts() };
            (facts.subject.pod_uid, facts.subject.pod_namespace) = ("u".into(), "n".into());
            owner(&policy, named(), &facts)
        };
        assert_eq!(at("pod-token", &bound("u")), Fact::Is("proven".into()));
        for nobody in [bound("v"), Fact::Is(OwnerToken::Refused("x".into())), Fact::Absent, Fact::Unknown("x".into())] {
            assert_eq!(at("pod-token", &nobody), Fact::Absent, "{nobody:?}");
        }
        assert_eq!(at("annotation", &Fact::Absent), named());
        assert_eq!(at("grant", &Fact::Absent), Fact::Absent, "no grant, and the annotation is nobody's word");
    }
}
