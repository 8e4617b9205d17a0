//! Kyverno's ClusterPolicy and Policy: rules with `verifyImages`.
use crate::draft::{Demand, Draft, Kind};
use crate::keyless::{Keyless, Meant, pattern};
use crate::reference::{Glob, prefix};
use crate::root::root;
use crate::value::{list, says, text_of};
use boltseal_policy::text;
use boltseal_trust::Json;
use std::collections::BTreeSet;

/// What of a `verifyImages` entry is understood; anything else that says something is a demand that is not.
const ENTRY: [&str; 13] = [
    "imageReferences",
    "image",
    "skipImageReferences",
    "attestors",
    "type",
    "failureAction",
    "required",
    "mutateDigest",
    "verifyDigest",
    "useCache",
    "repository",
    "imageRegistryCredentials",
    "cosignOCI11",
];

pub(crate) fn import(policy: &Json, draft: &mut Draft) -> Result<(), String> {
    let name = policy.get("metadata").map(|meta| text_of(meta, "name")).transpose()?.flatten().unwrap_or("policy");
    let Some(spec) = policy.get("spec") else { return Err(format!("{}: no spec", text::show(name))) };
    if text_of(policy, "kind")? == Some("Policy") {
        draft.note(Kind::Differs, name, "a policy of one namespace: here it is asked of the whole node");
    }
    if text_of(spec, "validationFailureAction")?.is_some_and(|action| action.eq_ignore_ascii_case("audit")) {
        draft.note(
            Kind::Differs,
            name,
            "validationFailureAction Audit only reports: here it refuses, unless BS-IMG-001 is on warn",
        );
    }
    for rule in list(spec, "rules")? {
        let at = format!("{name}, rule {}", text_of(rule, "name")?.unwrap_or("without a name"));
        let entries = list(rule, "verifyImages")?;
        if entries.is_empty() {
            draft.note(Kind::Differs, &at, "no verifyImages: nothing about signatures");
            continue;
        }
        // They take something out of a rule that here holds for all images, as `match` does beyond kinds.
        for name in ["exclude", "preconditions", "context", "celPreconditions"] {
            if says(rule, name) {
                draft.note(
                    Kind::Differs,
                    &at,
                    format!("{name}: here it is asked of every container with such an image"),
                );
            }
        }
        if rule.get("match").is_some_and(narrows) {
            draft.note(Kind::Differs, &at, "match: here it is asked of every container with such an image");
        }
        for entry in entries {
            self::entry(entry, &at, draft)?;
        }
    }
    Ok(())
}

/// It names more than kinds of objects.
fn narrows(matched: &Json) -> bool {
    match matched {
        Json::Object(members) => members.iter().any(|(name, value)| match name.as_str() {
            "kinds" | "operations" => false,
            "any" | "all" | "resources" => narrows(value),
            _ => says(matched, name),
        }),
        Json::Array(items) => items.iter().any(narrows),
        _ => false,
    }
}

fn entry(entry: &Json, at: &str, draft: &mut Draft) -> Result<(), String> {
    let Json::Object(all) = entry else { return Err(format!("{}: verifyImages: not an object", text::show(at))) };
    if says(entry, "skipImageReferences") {
        draft.note(Kind::Differs, at, "skipImageReferences: here these need a signature, too");
    }
    if says(entry, "repository") {
        draft.note(
            Kind::Differs,
            at,
            "repository: signatures are looked for in boltseal's own store (boltseal sig import)",
        );
    }
    let mut patterns: Vec<&str> = list(entry, "imageReferences")?.iter().filter_map(Json::text).collect();
    patterns.extend(text_of(entry, "image")?);
    if patterns.is_empty() || patterns.len() < list(entry, "imageReferences")?.len() {
        draft.lose("", at, "imageReferences: none, or one that is no text");
        return Ok(());
    }
    let unknown = all.keys().find(|key| !ENTRY.contains(&key.as_str()) && says(entry, key));
    let demand = match unknown {
        Some(key) => Err(format!("{key}: boltseal cannot ask for it")),
        None => attestors(entry, at, draft)?,
    };
    for pattern in patterns {
        let what = format!("{at}: {pattern}");
        match (prefix(pattern, Glob::Kyverno), &demand) {
            (Ok(prefix), Ok((keys, need))) => {
                draft.demand(Demand { repository: prefix.repository, keys: keys.clone(), need: *need, what });
            }
            (Ok(prefix), Err(why)) => draft.lose(&prefix.repository, &what, why.clone()),
            (Err(around), demand) => {
                let why = demand.clone().err();
                let why =
                    why.unwrap_or_else(|| "a scope is a whole repository prefix: no part of a name, no tag".into());
                draft.lose(&around, &what, why);
            }
        }
    }
    Ok(())
}

type Asked = Result<(BTreeSet<String>, usize), String>;

/// Keys and how many of them. Of each set `count` must have signed, without one all; and every set must be met.
fn attestors(entry: &Json, at: &str, draft: &mut Draft) -> Result<Asked, String> {
    match text_of(entry, "type")? {
        None | Some("Cosign" | "SigstoreBundle") => {}
        Some(other) => return Ok(Err(format!("type {}: only cosign's signatures", text::show(other)))),
    }
    let sets = list(entry, "attestors")?;
    let mut asked: Option<(BTreeSet<String>, usize)> = None;
    for set in sets {
        let mut keys = BTreeSet::new();
        for one in list(set, "entries")? {
            match self::keys(one, at, draft)? {
                Ok(more) => keys.extend(more),
                Err(why) => return Ok(Err(why)),
            }
        }
        let need = match set.get("count") {
            None | Some(Json::Null) => keys.len(),
            Some(Json::Integer(count)) => usize::try_from(*count).unwrap_or(0),
            Some(_) => 0,
        };
        asked = match asked {
            None => Some((keys, need)),
            // Two sets of which all must sign are one.
            Some((before, all)) if all == before.len() && need == keys.len() => {
                let both: BTreeSet<String> = before.into_iter().chain(keys).collect();
                Some((both.clone(), both.len()))
            }
            Some(_) => {
                return Ok(Err("attestors: several sets, one of which is content with a part of its keys".into()));
            }
        };
    }
    Ok(asked.ok_or_else(|| "attestors: none".to_owned()))
}

/// The keys of one entry: each block of `publicKeys` is one.
fn keys(entry: &Json, at: &str, draft: &mut Draft) -> Result<Result<Vec<String>, String>, String> {
    let Json::Object(all) = entry else { return Err(format!("{}: an entry that is no object", text::show(at))) };
    let known = ["keys", "keyless", "repository"];
    if let Some(other) = all.keys().find(|key| !known.contains(&key.as_str()) && says(entry, key)) {
        return Ok(Err(format!("{}: boltseal verifies keys and keyless signatures only", text::show(other))));
    }
    match (entry.get("keys"), entry.get("keyless")) {
        (None, Some(keyless @ Json::Object(_))) => {
            return Ok(self::keyless(keyless, at, draft)?.map(|id| vec![id]).map_err(|why| format!("keyless: {why}")));
        }
        (_, Some(_)) => return Ok(Err("keyless: beside keys, or no object".into())),
        (_, None) => {}
    }
    let Some(keys @ Json::Object(members)) = entry.get("keys") else { return Ok(Err("an entry without keys".into())) };
    let known = ["publicKeys", "signatureAlgorithm", "rekor", "ctlog"];
    if let Some(other) = members.keys().find(|key| !known.contains(&key.as_str()) && says(keys, key)) {
        return Ok(Err(format!("keys.{}: a key that this file does not hold", text::show(other))));
    }
    if let Some(algorithm) = text_of(keys, "signatureAlgorithm")?.filter(|name| *name != "sha256") {
        return Ok(Err(format!("signatureAlgorithm {}: only sha256", text::show(algorithm))));
    }
    let ignored = keys.get("rekor").is_some_and(|rekor| says(rekor, "ignoreTlog"));
    if !ignored {
        draft.note(Kind::NotDemanded, at, "rekor: an entry in a transparency log");
    }
    let pem = text_of(keys, "publicKeys")?.unwrap_or_default();
    let end = "-----END PUBLIC KEY-----";
    let blocks: Vec<&str> = pem.split_inclusive(end).map(str::trim).filter(|block| !block.is_empty()).collect();
    if blocks.is_empty() {
        return Ok(Err("keys.publicKeys: empty".into()));
    }
    Ok(blocks.into_iter().map(|block| draft.key("", &format!("{block}\n"))).collect())
}

/// Whom it means, under its own CA and logs where it holds them, else under what came beside the file.
fn keyless(keyless: &Json, at: &str, draft: &mut Draft) -> Result<Result<String, String>, String> {
    let Json::Object(all) = keyless else { return Ok(Err("no object".into())) };
    let known = ["subject", "subjectRegExp", "issuer", "issuerRegExp", "roots", "rekor", "ctlog"];
    if let Some(other) = all.keys().find(|key| !known.contains(&key.as_str()) && says(keyless, key)) {
        return Ok(Err(format!("{}: boltseal cannot ask for it", text::show(other))));
    }
    let said = |exact, regexp, meant| -> Result<Result<String, String>, String> {
        Ok(match (text_of(keyless, exact)?, text_of(keyless, regexp)?) {
            (Some(text), None) => pattern(text, meant),
            (None, Some(text)) => pattern(text, Meant::RegExp),
            _ => Err(format!("exactly one of {exact} and {regexp}")),
        })
    };
    let identity = said("subject", "subjectRegExp", Meant::Wildcard)?;
    let issuer = said("issuer", "issuerRegExp", Meant::Exactly)?;
    let nothing = Json::Null;
    let part = |name: &str| keyless.get(name).unwrap_or(&nothing);
    let (rekor, ctlog) = (part("rekor"), part("ctlog"));
    let (log, sct) = (!says(rekor, "ignoreTlog"), !says(ctlog, "ignoreSCT"));
    if says(ctlog, "tsaCertChain") {
        return Ok(Err("ctlog.tsaCertChain: write the authority yourself".into()));
    }
    let keys = [text_of(rekor, "pubkey")?, text_of(ctlog, "pubkey")?].map(|key| key.filter(|key| !key.is_empty()));
    let root = match (text_of(keyless, "roots")?.filter(|roots| !roots.is_empty()), keys) {
        (None, [None, None]) => draft.root(),
        // Without a log nobody vouches for the time of signing.
        (Some(roots), [Some(rekor), ctlog]) if log && sct == ctlog.is_some() => {
            root(roots, &[rekor], &ctlog.into_iter().collect::<Vec<_>>())
        }
        _ => Err("of roots, rekor.pubkey and ctlog.pubkey (or ctlog.ignoreSCT) all or none".into()),
    };
    Ok((|| draft.keyless("", at, Keyless { identity: identity?, issuer: issuer?, log, sct, root: root? }))())
}
