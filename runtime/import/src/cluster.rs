//! policy-controller's ClusterImagePolicy.
use crate::draft::{Demand, Draft, Kind};
use crate::keyless::{Keyless, Meant, pattern};
use crate::reference::{Glob, prefix};
use crate::value::{list, says, text_of};
use boltseal_policy::text;
use boltseal_trust::Json;
use std::collections::BTreeSet;

pub(crate) fn import(policy: &Json, draft: &mut Draft) -> Result<(), String> {
    let name = policy.get("metadata").map(|meta| text_of(meta, "name")).transpose()?.flatten().unwrap_or("policy");
    let Some(spec @ Json::Object(all)) = policy.get("spec") else {
        return Err(format!("{}: no spec", text::show(name)));
    };
    if text_of(spec, "mode")? == Some("warn") {
        draft.note(Kind::Differs, name, "mode warn: here it refuses, unless BS-IMG-001 is on warn");
    }
    if says(spec, "match") {
        draft.note(Kind::Differs, name, "match: here it is asked of every container with such an image");
    }
    let known = ["images", "authorities", "mode", "match"];
    let unknown = all.keys().find(|key| !known.contains(&key.as_str()) && says(spec, key));
    // Any authority suffices: one that cannot be kept makes the policy stricter, and none left is a demand that is lost.
    let mut keys = BTreeSet::new();
    for (at, authority) in list(spec, "authorities")?.iter().enumerate() {
        let own = text_of(authority, "name")?.map_or_else(|| format!("authority {at}"), str::to_owned);
        let what = format!("{name}, {own}");
        match key(authority, &own, &what, draft)? {
            Ok(ids) => keys.extend(ids),
            Err(why) => draft.note(Kind::LeftOut, &what, why),
        }
    }
    for image in list(spec, "images")? {
        let glob = text_of(image, "glob")?.unwrap_or_default();
        let what = format!("{name}: {glob}");
        let why = match unknown {
            Some(key) => Some(format!("{}: boltseal cannot ask for it", text::show(key))),
            None if keys.is_empty() => Some("no authority of it can be kept".to_owned()),
            None => None,
        };
        match (prefix(glob, Glob::Controller), why) {
            (Ok(prefix), None) => {
                if prefix.wider {
                    draft.note(Kind::NotDemanded, &what, "one level of a path: a scope covers everything below it");
                }
                draft.demand(Demand { repository: prefix.repository, keys: keys.clone(), need: 1, what });
            }
            (Ok(prefix), Some(why)) => draft.lose(&prefix.repository, &what, why),
            (Err(around), why) => {
                let why =
                    why.unwrap_or_else(|| "a scope is a whole repository prefix: no part of a name, no tag".into());
                draft.lose(&around, &what, why);
            }
        }
    }
    Ok(())
}

/// The key of an authority, or whom it means under a CA: any of them will do.
fn key(authority: &Json, hint: &str, what: &str, draft: &mut Draft) -> Result<Result<Vec<String>, String>, String> {
    let Json::Object(all) = authority else { return Err(format!("{}: not an object", text::show(what))) };
    let known = ["name", "key", "keyless", "ctlog", "source", "signatureFormat", "rfc3161timestamp"];
    if let Some(other) = all.keys().find(|key| !known.contains(&key.as_str()) && says(authority, key)) {
        return Ok(Err(format!("{}: boltseal cannot ask for it", text::show(other))));
    }
    match (authority.get("key"), authority.get("keyless")) {
        (None, Some(keyless @ Json::Object(_))) => return self::keyless(authority, keyless, hint, what, draft),
        (_, Some(_)) => return Ok(Err("keyless: beside a key, or no object".into())),
        (_, None) => {}
    }
    let Some(key @ Json::Object(members)) = authority.get("key") else { return Ok(Err("it has no key".into())) };
    if let Some(other) =
        members.keys().find(|name| !["data", "hashAlgorithm"].contains(&name.as_str()) && says(key, name))
    {
        return Ok(Err(format!("key.{}: a key that this file does not hold", text::show(other))));
    }
    if says(authority, "rfc3161timestamp") {
        return Ok(Err("rfc3161timestamp: beside a key boltseal looks at no time stamp".into()));
    }
    if let Some(other) = text_of(key, "hashAlgorithm")?.filter(|name| *name != "sha256") {
        return Ok(Err(format!("hashAlgorithm {}: only sha256", text::show(other))));
    }
    let id = draft.key(hint, text_of(key, "data")?.unwrap_or_default());
    if id.is_ok() && says(authority, "ctlog") {
        draft.note(Kind::NotDemanded, what, "ctlog: an entry in a transparency log");
    }
    Ok(id.map(|id| vec![id]))
}

/// Each of its identities under the trusted root that came beside the file: no manifest holds a log's key.
fn keyless(
    authority: &Json,
    keyless: &Json,
    hint: &str,
    what: &str,
    draft: &mut Draft,
) -> Result<Result<Vec<String>, String>, String> {
    let Json::Object(all) = keyless else { return Ok(Err("keyless: no object".into())) };
    let known = ["url", "identities", "trustRootRef", "insecureIgnoreSCT"];
    if let Some(other) = all.keys().find(|key| !known.contains(&key.as_str()) && says(keyless, key)) {
        return Ok(Err(format!(
            "keyless.{}: its logs are not in this file; write the authority yourself",
            text::show(other)
        )));
    }
    let root = match draft.root() {
        Ok(root) => root,
        Err(why) => return Ok(Err(format!("keyless: {why}"))),
    };
    let sct = !says(keyless, "insecureIgnoreSCT");
    let mut ids = Vec::new();
    for one in list(keyless, "identities")? {
        let said = |exact, regexp| -> Result<Result<String, String>, String> {
            Ok(match (text_of(one, exact)?, text_of(one, regexp)?) {
                (Some(text), None) => pattern(text, Meant::Exactly),
                (None, Some(text)) => pattern(text, Meant::RegExp),
                _ => Err(format!("exactly one of {exact} and {regexp}")),
            })
        };
        let (identity, issuer) = (said("subject", "subjectRegExp")?, said("issuer", "issuerRegExp")?);
        let id = identity.and_then(|identity| {
            let issuer = issuer?;
            draft.keyless(hint, what, Keyless { identity, issuer, log: true, sct, root: root.clone() })
        });
        match id {
            Ok(id) => ids.push(id),
            // Any of them would have done: with fewer the policy is stricter.
            Err(why) => draft.note(Kind::LeftOut, what, format!("keyless.identities: {why}")),
        }
    }
    if ids.is_empty() {
        return Ok(Err("keyless: no identity of it can be kept".into()));
    }
    let named =
        ["url", "trustRootRef"].into_iter().filter(|name| says(keyless, name)).map(|name| format!("keyless.{name}"));
    let beside = ["ctlog", "rfc3161timestamp"].into_iter().filter(|name| says(authority, name)).map(str::to_owned);
    for name in named.chain(beside) {
        draft.note(Kind::Differs, what, format!("{name}: what --trusted-root holds is in its place"));
    }
    Ok(Ok(ids))
}
