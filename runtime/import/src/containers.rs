//! containers-policy.json(5): podman, skopeo, CRI-O.
mod fulcio;

use crate::draft::{Demand, Draft, Kind};
use crate::reference;
use crate::value::{list, members, text_of};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boltseal_policy::text;
use boltseal_trust::Json;
use std::collections::BTreeSet;

/// What one requirement asks for.
enum Requirement {
    Anything,
    Reject,
    /// Any of these keys, in a signature that names this.
    Keys(BTreeSet<String>, Named),
    /// It cannot be asked for.
    Lost(String),
}

/// What the signature must name.
#[derive(Clone, PartialEq, Eq)]
enum Named {
    /// The image's own repository.
    Own,
    /// This one.
    Repository(String),
    /// That with the first prefix replaced by the second.
    Remapped(String, String),
}

pub(crate) fn import(
    policy: &Json,
    mut read: impl FnMut(&str) -> Result<Vec<u8>, String>,
    draft: &mut Draft,
) -> Result<(), String> {
    let top = members(policy, "the policy", &["default", "transports"])?;
    if !top.contains_key("default") {
        return Err("no `default`: this is no containers policy.json".into());
    }
    match join(requirements(list(policy, "default")?, "default", &mut read, draft)?) {
        Joined::Reject => {}
        Joined::Anything => {
            draft.note(Kind::LeftOut, "default", "insecureAcceptAnything: boltseal starts nothing that nobody signed");
        }
        Joined::Lost(why) => draft.note(Kind::LeftOut, "default", why),
        Joined::Keys { .. } => {
            draft.note(Kind::LeftOut, "default", "a scope is a repository prefix, and none covers every registry");
        }
    }
    let Some(transports) = top.get("transports") else { return Ok(()) };
    let Json::Object(transports) = transports else { return Err("`transports` is no object".into()) };
    for (transport, scopes) in transports {
        let Json::Object(scopes) = scopes else {
            return Err(format!("transports.{}: not an object", text::show(transport)));
        };
        for scope in scopes.keys() {
            let at = if scope.is_empty() { transport.clone() } else { format!("{transport}: {scope}") };
            let found = join(requirements(list(&transports[transport], scope)?, &at, &mut read, draft)?);
            if transport == "docker" {
                docker(scope, &at, found, draft);
            } else {
                draft.note(
                    Kind::LeftOut,
                    &at,
                    "boltseal judges what containerd pulled from a registry, and no other transport",
                );
            }
        }
    }
    Ok(())
}

/// All requirements of a scope together.
enum Joined {
    Anything,
    Reject,
    Keys { keys: BTreeSet<String>, need: usize, named: Named },
    Lost(String),
}

/// Every requirement must hold. Several keys of which any will do, beside another requirement, are no number of keys.
fn join(requirements: Vec<Requirement>) -> Joined {
    let (mut groups, mut lost) = (Vec::<(BTreeSet<String>, Named)>::new(), None);
    for requirement in requirements {
        match requirement {
            Requirement::Reject => return Joined::Reject,
            Requirement::Anything => {}
            Requirement::Lost(why) => lost = Some(why),
            Requirement::Keys(keys, named) => {
                if !groups.contains(&(keys.clone(), named.clone())) {
                    groups.push((keys, named));
                }
            }
        }
    }
    if let Some(why) = lost {
        return Joined::Lost(why);
    }
    match groups.as_slice() {
        [] => Joined::Anything,
        [(keys, named)] => Joined::Keys { keys: keys.clone(), need: 1, named: named.clone() },
        [(_, named), ..] => {
            if groups.iter().any(|(keys, other)| keys.len() != 1 || other != named) {
                return Joined::Lost(
                    "several requirements, one of which takes any of several keys or another name".into(),
                );
            }
            let keys: BTreeSet<String> = groups.iter().flat_map(|(keys, _)| keys.clone()).collect();
            Joined::Keys { need: keys.len(), keys, named: named.clone() }
        }
    }
}

fn docker(scope: &str, at: &str, found: Joined, draft: &mut Draft) {
    // Of a tag, a digest or a pattern, what it lies in.
    let around = reference::around(scope);
    let repository = reference::plain(scope).filter(|own| *own == around);
    match (found, repository) {
        (Joined::Anything, _) => {
            draft.note(Kind::LeftOut, at, "insecureAcceptAnything: boltseal starts nothing that nobody signed");
        }
        // What no scope covers is refused; below another scope it would start by that one.
        (Joined::Reject, _) => draft.forbid(&around, at),
        (Joined::Lost(why), _) if scope.is_empty() => draft.note(Kind::LeftOut, at, why),
        (Joined::Lost(why), _) => draft.lose(&around, at, why),
        (Joined::Keys { .. }, None) => {
            let why = "a scope of boltseal is a repository prefix: no tag, no digest, no `*`, and not every registry";
            if scope.is_empty() || scope.starts_with("*.") {
                draft.note(Kind::LeftOut, at, why);
            } else {
                draft.lose(&around, at, why);
            }
        }
        (Joined::Keys { keys, need, named }, Some(own)) => match signed_as(&own, &named) {
            Some(repository) => draft.demand(Demand { repository, keys, need, what: at.to_owned() }),
            None => draft.lose(
                &own,
                at,
                "signedIdentity: what it names is no repository, or its prefix is not that of the scope",
            ),
        },
    }
}

/// The repository that signatures name for images of a scope: boltseal judges by that, not by what an image is called.
fn signed_as(scope: &str, named: &Named) -> Option<String> {
    match named {
        Named::Own => Some(scope.to_owned()),
        Named::Repository(repository) => reference::plain(repository),
        Named::Remapped(prefix, to) => {
            let rest = scope.strip_prefix(prefix.as_str()).filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
            reference::plain(&format!("{to}{rest}"))
        }
    }
}

fn requirements(
    list: &[Json],
    at: &str,
    read: &mut impl FnMut(&str) -> Result<Vec<u8>, String>,
    draft: &mut Draft,
) -> Result<Vec<Requirement>, String> {
    if list.is_empty() {
        return Err(format!("{}: no requirement", text::show(at)));
    }
    list.iter().map(|one| requirement(one, at, read, draft)).collect()
}

const SIGSTORE: [&str; 12] = [
    "type",
    "keyPath",
    "keyPaths",
    "keyData",
    "keyDatas",
    "fulcio",
    "pki",
    "rekorPublicKeyPath",
    "rekorPublicKeyPaths",
    "rekorPublicKeyData",
    "rekorPublicKeyDatas",
    "signedIdentity",
];

fn requirement(
    one: &Json,
    at: &str,
    read: &mut impl FnMut(&str) -> Result<Vec<u8>, String>,
    draft: &mut Draft,
) -> Result<Requirement, String> {
    let shown = text::show(at);
    match text_of(one, "type")? {
        Some("insecureAcceptAnything") => members(one, &shown, &["type"]).map(|_| Requirement::Anything),
        Some("reject") => members(one, &shown, &["type"]).map(|_| Requirement::Reject),
        Some("signedBy") => {
            let known = ["type", "keyType", "keyPath", "keyPaths", "keyData", "signedIdentity"];
            members(one, &shown, &known)?;
            Ok(Requirement::Lost("signedBy: an OpenPGP signature, which boltseal does not verify".into()))
        }
        Some("sigstoreSigned") => {
            members(one, &shown, &SIGSTORE)?;
            sigstore(one, at, read, draft)
        }
        Some(other) => Err(format!("{shown}: unknown type \"{}\"", text::show(other))),
        None => Err(format!("{shown}: a requirement without `type`")),
    }
}

fn sigstore(
    one: &Json,
    at: &str,
    read: &mut impl FnMut(&str) -> Result<Vec<u8>, String>,
    draft: &mut Draft,
) -> Result<Requirement, String> {
    let sources = ["keyPath", "keyPaths", "keyData", "keyDatas", "fulcio", "pki"];
    let given: Vec<&str> = sources.into_iter().filter(|name| one.get(name).is_some()).collect();
    let [source] = given.as_slice() else {
        return Err(format!("{}: exactly one of {} must be given", text::show(at), sources.join(", ")));
    };
    let source = *source;
    if source == "pki" {
        return Ok(Requirement::Lost("pki: no authority of boltseal's takes such certificates".into()));
    }
    if source == "fulcio" {
        let keys = match fulcio::signer(one, at, read, draft)? {
            Ok(id) => BTreeSet::from([id]),
            Err(why) => return Ok(Requirement::Lost(format!("fulcio: {why}"))),
        };
        let why = "signedIdentity: a keyless bundle names a digest and no repository";
        draft.note(Kind::NotDemanded, at, why);
        return Ok(match identity(one, at, draft)? {
            Some(named) => Requirement::Keys(keys, named),
            None => Requirement::Lost("signedIdentity: of a type that is not known".into()),
        });
    }
    for log in SIGSTORE.into_iter().filter(|name| name.starts_with("rekor") && one.get(name).is_some()) {
        draft.note(Kind::NotDemanded, at, format!("{log}: an entry in a transparency log"));
    }
    let texts = one_or_many(one, source, at)?;
    let mut keys = BTreeSet::new();
    for given in texts {
        let (hint, bytes) = if source.starts_with("keyPath") {
            let name = given.rsplit('/').next().unwrap_or_default();
            (name.rsplit_once('.').map_or(name, |(stem, _)| stem).to_owned(), read(given))
        } else {
            (String::new(), decoded(given))
        };
        match bytes.and_then(utf8).and_then(|pem| draft.key(&hint, &pem)) {
            Ok(id) => {
                keys.insert(id);
            }
            // Any of them would have done: with fewer the policy is stricter.
            Err(why) => draft.note(Kind::LeftOut, at, format!("{source} {}: {why}", text::show(given))),
        }
    }
    if keys.is_empty() {
        return Ok(Requirement::Lost("no key of it can be used".into()));
    }
    Ok(match identity(one, at, draft)? {
        Some(named) => Requirement::Keys(keys, named),
        None => Requirement::Lost("signedIdentity: of a type that is not known".into()),
    })
}

fn decoded(text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text).map_err(|_| "not base64".to_owned())
}

fn utf8(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|_| "not PEM".to_owned())
}

/// The text of that name, or the texts where the name ends as one of several; absent is none.
fn one_or_many<'a>(one: &'a Json, name: &str, at: &str) -> Result<Vec<&'a str>, String> {
    let texts: Option<Vec<&str>> = match one.get(name) {
        None => return Ok(Vec::new()),
        Some(Json::Text(text)) if !name.ends_with('s') => Some(vec![text]),
        Some(Json::Array(items)) if name.ends_with('s') => items.iter().map(Json::text).collect(),
        Some(_) => None,
    };
    texts.filter(|texts| !texts.is_empty()).ok_or_else(|| format!("{}: `{name}` is of another type", text::show(at)))
}

fn identity(one: &Json, at: &str, draft: &mut Draft) -> Result<Option<Named>, String> {
    let Some(identity) = one.get("signedIdentity") else { return Ok(Some(Named::Own)) };
    let text = |name: &str| text_of(identity, name).map(Option::unwrap_or_default);
    let shown = format!("{}: signedIdentity", text::show(at));
    let tags = "it compares tags, which boltseal does not judge: the digest is what was signed";
    Ok(match text("type")? {
        "matchRepoDigestOrExact" | "matchRepository" => {
            members(identity, &shown, &["type"])?;
            Some(Named::Own)
        }
        "matchExact" => {
            members(identity, &shown, &["type"])?;
            draft.note(Kind::NotDemanded, at, format!("matchExact: {tags}"));
            Some(Named::Own)
        }
        "exactReference" => {
            members(identity, &shown, &["type", "dockerReference"])?;
            draft.note(Kind::NotDemanded, at, format!("exactReference: {tags}"));
            let named = text("dockerReference")?;
            let untagged = named.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(named, |(head, _)| head);
            Some(Named::Repository(untagged.to_owned()))
        }
        "exactRepository" => {
            members(identity, &shown, &["type", "dockerRepository"])?;
            Some(Named::Repository(text("dockerRepository")?.to_owned()))
        }
        "remapIdentity" => {
            members(identity, &shown, &["type", "prefix", "signedPrefix"])?;
            Some(Named::Remapped(text("prefix")?.to_owned(), text("signedPrefix")?.to_owned()))
        }
        _ => None,
    })
}
