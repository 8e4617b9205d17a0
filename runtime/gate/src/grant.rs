//! The grant that a pod carries: whose it is, and what of this container it speaks of.
//!
//! Its signature is verified over the raw bytes before anything of it is parsed; a DSSE envelope, which anybody may write, is
//! read by a worker. Whether its claims hold for this pod, now, is BS-OWN-001's to say.
use boltseal_jail::Parse;
use boltseal_policy::facts::{Fact, Grant, GrantedContainer, GrantedMount, OwnerGrant};
use boltseal_policy::policy::OwnerRules;
use boltseal_trust::grant::{Container, Keys, MAX_GRANT, Value, read};
use boltseal_trust::{Json, digest, dsse};
use std::collections::BTreeSet;

/// The annotation that carries it.
pub(crate) const ANNOTATION: &str = "boltseal.dev/owner-grant";
/// Digits of its hash that name it.
const ID: usize = 12;

/// An authority of the policy with what its grants are verified by.
#[derive(Debug)]
pub(crate) struct Grantor {
    pub(crate) authority: String,
    pub(crate) keys: Keys,
}

/// What a pod's grant says, where the policy asks for one. `env` is this container's environment as it stands.
pub(crate) fn fact(
    rules: &OwnerRules,
    grantors: &[Grantor],
    annotation: Option<&str>,
    env: &[String],
    jail: impl FnOnce() -> Result<Box<dyn Parse>, String>,
) -> Fact<OwnerGrant> {
    let Some(text) = annotation.filter(|text| rules.level == "grant" && !text.is_empty()) else { return Fact::Absent };
    if text.len() > MAX_GRANT {
        return Fact::Is(OwnerGrant::Refused(format!("it is larger than {MAX_GRANT} bytes")));
    }
    let envelope = match text.starts_with('{').then(|| jail().and_then(|jail| envelope(&*jail, text))) {
        None => None,
        Some(Ok(Ok(envelope))) => Some(envelope),
        Some(Ok(Err(why))) => return Fact::Is(OwnerGrant::Refused(why)),
        // No worker, or one that died of it: nothing is known.
        Some(Err(why)) => return Fact::Unknown(why),
    };
    match opened(grantors, text, envelope.as_ref()) {
        Ok((by, claims)) => Fact::Is(match read(&claims) {
            Ok(grant) => OwnerGrant::Signed(Box::new(granted(text, by, grant, env))),
            Err(why) => OwnerGrant::Refused(why.0),
        }),
        Err(why) => Fact::Is(OwnerGrant::Refused(why)),
    }
}

fn envelope(jail: &dyn Parse, text: &str) -> Result<Result<dsse::Envelope, String>, String> {
    let answer = jail.parse(dsse::answer, 0, text.as_bytes())?;
    let read = dsse::decode(&answer).map_err(|e| e.to_string())?;
    Ok(read.map_err(|malformed| malformed.reason().to_owned()))
}

/// Every authority whose key signed it; two may have the same.
fn opened(
    grantors: &[Grantor],
    text: &str,
    envelope: Option<&dsse::Envelope>,
) -> Result<(BTreeSet<String>, Json), String> {
    let (mut by, mut claims, mut why) = (BTreeSet::new(), None, "the policy has no authority for grants".to_owned());
    for grantor in grantors {
        let said = match envelope {
            Some(envelope) => grantor.keys.envelope(envelope),
            None => grantor.keys.token(text),
        };
        match said {
            Ok(said) => {
                by.insert(grantor.authority.clone());
                claims = Some(said);
            }
            // What the key that signed it says is worth more than that another did not.
            Err(error) if why.starts_with("the policy has no") || !error.0.contains("none of the pinned keys") => {
                why = error.0;
            }
            Err(_) => {}
        }
    }
    claims.map(|claims| (by, claims)).ok_or(why)
}

fn granted(text: &str, by: BTreeSet<String>, grant: boltseal_trust::grant::Grant, env: &[String]) -> Grant {
    Grant {
        id: digest(text.as_bytes()).hex().chars().take(ID).collect(),
        by,
        issuer: grant.issuer,
        subject: grant.subject,
        audience: grant.audience,
        from: grant.from,
        until: grant.until,
        amr: grant.amr,
        acr: grant.acr,
        namespaces: grant.namespaces,
        pods: grant.pods,
        containers: grant.containers.into_iter().map(|one| container(one, env)).collect(),
    }
}

fn container(one: Container, env: &[String]) -> GrantedContainer {
    let as_granted = |name: &str, value: &Value| {
        env.iter().filter_map(|entry| named(entry, name)).all(|here| match value {
            Value::Any => true,
            Value::Is(hash) => digest(here.as_bytes()) == *hash,
        })
    };
    let granted = one.env.iter().filter(|(name, value)| as_granted(name, value));
    GrantedContainer {
        env: granted.map(|(name, _)| name.clone()).collect(),
        name: one.name,
        images: one.images,
        command: one.command,
        args: one.args,
        cwd: one.cwd,
        user: one.user,
        mounts: one
            .mounts
            .into_iter()
            .map(|m| GrantedMount { destination: m.destination, readonly: m.readonly, host: m.host })
            .collect(),
    }
}

/// The value of an entry of that name; without a `=` it is empty, as in [`boltseal_policy::facts::Variable`].
fn named<'a>(entry: &'a str, name: &str) -> Option<&'a str> {
    let (of, value) = entry.split_once('=').unwrap_or((entry, ""));
    (of == name).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltseal_jail::Parser;

    fn rules() -> OwnerRules {
        OwnerRules { level: "grant".into(), ..OwnerRules::default() }
    }

    /// Answers what it is told to.
    struct Liar(Result<Vec<u8>, String>);

    impl Parse for Liar {
        fn parse(&self, _: Parser, _: u8, _: &[u8]) -> Result<Vec<u8>, String> {
            self.0.clone()
        }
    }

    fn of(annotation: Option<&str>, answer: Result<Vec<u8>, String>) -> Fact<OwnerGrant> {
        fact(&rules(), &[], annotation, &[], || Ok(Box::new(Liar(answer))))
    }

    #[test]
    fn what_is_no_grant_is_absent_refused_or_unknown() {
        let none = || Ok(Vec::new());
        let refused = |fact: &Fact<OwnerGrant>| matches!(fact, Fact::Is(OwnerGrant::Refused(_)));
        assert_eq!(of(None, none()), Fact::Absent);
        assert_eq!(of(Some(""), none()), Fact::Absent);
        let unasked = OwnerRules { level: "annotation".into(), ..rules() };
        let no_jail = || -> Result<Box<dyn Parse>, String> { Err("x".into()) };
        assert_eq!(fact(&unasked, &[], Some("{}"), &[], no_jail), Fact::Absent);
        assert!(refused(&of(Some("a.b.c"), none())) && refused(&of(Some(&"a".repeat(MAX_GRANT + 1)), none())));
        // A worker that dies, lies, or says that it is none.
        assert_eq!(of(Some("{"), Err("killed".into())), Fact::Unknown("killed".into()));
        assert!(matches!(of(Some("{"), none()), Fact::Unknown(_)));
        assert!(refused(&of(Some("{"), Ok(dsse::answer(0, b"{")))));
        // Whatever it answers, no key signed it.
        let answer = dsse::answer(0, br#"{"payloadType":"t","payload":"e30=","signatures":[{"sig":"AAAA"}]}"#);
        assert!(refused(&of(Some("{"), Ok(answer))));
        assert_eq!(fact(&rules(), &[], Some("{}"), &[], no_jail), Fact::Unknown("x".into()));
    }

    #[test]
    fn a_variable_is_granted_with_every_value_that_it_has() {
        let granted = |value: Value, env: &[&str]| {
            let one = Container { env: [("A".to_owned(), value)].into(), ..Container::default() };
            let env: Vec<String> = env.iter().map(ToString::to_string).collect();
            !container(one, &env).env.is_empty()
        };
        let one = || Value::Is(digest(b"1"));
        assert!(granted(one(), &["A=1"]) && granted(one(), &["A=1", "B=2", "A=1"]) && granted(Value::Any, &["A=x"]));
        assert!(!granted(one(), &["A=2"]) && !granted(one(), &["A=1", "A=2"]) && !granted(one(), &["A"]));
        assert!(granted(Value::Is(digest(b"")), &["A"]) && granted(Value::Is(digest(b"b=c")), &["A=b=c"]));
    }
}
