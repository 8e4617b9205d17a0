//! policy-controller's ClusterImagePolicy.
use crate::draft::{Demand, Draft, Kind};
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
            Ok(id) => {
                keys.insert(id);
            }
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

/// The key of an authority.
fn key(authority: &Json, hint: &str, what: &str, draft: &mut Draft) -> Result<Result<String, String>, String> {
    let Json::Object(all) = authority else { return Err(format!("{}: not an object", text::show(what))) };
    let known = ["name", "key", "ctlog", "source", "signatureFormat"];
    if let Some(other) = all.keys().find(|key| !known.contains(&key.as_str()) && says(authority, key)) {
        return Ok(Err(format!("{}: boltseal verifies signatures by keys only", text::show(other))));
    }
    let Some(key @ Json::Object(members)) = authority.get("key") else { return Ok(Err("it has no key".into())) };
    if let Some(other) =
        members.keys().find(|name| !["data", "hashAlgorithm"].contains(&name.as_str()) && says(key, name))
    {
        return Ok(Err(format!("key.{}: a key that this file does not hold", text::show(other))));
    }
    if let Some(other) = text_of(key, "hashAlgorithm")?.filter(|name| *name != "sha256") {
        return Ok(Err(format!("hashAlgorithm {}: only sha256", text::show(other))));
    }
    let id = draft.key(hint, text_of(key, "data")?.unwrap_or_default());
    if id.is_ok() && says(authority, "ctlog") {
        draft.note(Kind::NotDemanded, what, "ctlog: an entry in a transparency log");
    }
    Ok(id)
}
