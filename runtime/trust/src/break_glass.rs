//! Break-glass: several keys that lie apart, together, let named nodes do for hours what named rules refuse.
//!
//! A DSSE envelope (payload type [`DSSE_TYPE`]) with a signature per key. A gate verifies it over the raw payload, by the policy's
//! keys, before it parses that. Whether enough have signed, for this node, now, is the policy's to say.
use crate::claims::Json;
use crate::digest::digest;
use crate::jws::JwsError;
use std::collections::{BTreeMap, BTreeSet};

/// Payload type of its envelope: a signature over anything else is none over this.
pub const DSSE_TYPE: &str = "application/vnd.boltseal.break-glass+json";
const MAX_LIST: usize = 64;
/// Digits of the payload's hash that name it.
const ID: usize = 12;

/// What was signed. Nothing here is compared with a policy, a node or a clock yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BreakGlass {
    /// Of the payload: the first twelve digits of its sha256, the same however many have signed.
    pub id: String,
    /// Ids of nodes' enrolled keys: sha256 of the SubjectPublicKeyInfo, hex.
    pub nodes: BTreeSet<String>,
    /// Rule -> its conditions; none are not all.
    pub rules: BTreeMap<String, BTreeSet<String>>,
    /// Seconds since the epoch.
    pub from: u64,
    pub until: u64,
    pub reason: String,
}

/// Reads a payload.
///
/// # Errors
/// The first thing that is missing, odd, or not known.
pub fn read(payload: &[u8]) -> Result<BreakGlass, JwsError> {
    let wrong = |why: String| JwsError(format!("break-glass: {why}"));
    let read = Json::parse(payload).map_err(|why| wrong(why.into()))?;
    let Json::Object(members) = &read else { return Err(wrong("no object".into())) };
    let known = ["version", "nodes", "rules", "from", "until", "reason"];
    if let Some(key) = members.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(wrong(format!("the unknown key {key:?}")));
    }
    if read.get("version").and_then(Json::integer) != Some(1) {
        return Err(wrong("not of version 1".into()));
    }
    let texts = |value: Option<&Json>, name: &str| match value {
        Some(Json::Array(list)) if (1..=MAX_LIST).contains(&list.len()) => {
            let all: Option<BTreeSet<String>> = list.iter().map(|item| item.text().map(str::to_owned)).collect();
            all.ok_or_else(|| wrong(format!("`{name}` has an item that is no text")))
        }
        _ => Err(wrong(format!("`{name}` is no list of 1 to {MAX_LIST}"))),
    };
    let time = |name: &str| {
        let seconds = read.get(name).and_then(Json::integer).and_then(|seconds| u64::try_from(seconds).ok());
        seconds.ok_or_else(|| wrong(format!("no time `{name}`, in seconds since the epoch")))
    };
    let nodes = texts(read.get("nodes"), "nodes")?;
    let is_id = |id: &String| id.len() == 64 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !nodes.iter().all(is_id) {
        return Err(wrong("`nodes` are ids of enrolled keys: 64 lower-case hex digits".into()));
    }
    let rules = match read.get("rules") {
        Some(Json::Object(rules)) if (1..=MAX_LIST).contains(&rules.len()) => {
            rules.iter().map(|(rule, list)| Ok((rule.clone(), texts(Some(list), rule)?))).collect::<Result<_, _>>()?
        }
        _ => return Err(wrong("`rules` is no object of rules with their conditions".into())),
    };
    let reason = read.get("reason").and_then(Json::text).unwrap_or_default();
    if reason.trim().is_empty() {
        return Err(wrong("no `reason`".into()));
    }
    let id = digest(payload).hex().chars().take(ID).collect();
    Ok(BreakGlass { id, nodes, rules, from: time("from")?, until: time("until")?, reason: reason.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn what_is_signed_is_whole_and_known() {
        let good = || {
            json!({
                "version": 1, "nodes": ["ab".repeat(32)], "rules": { "BS-IMG-001": ["unsigned"] },
                "from": 5, "until": 6, "reason": "registry is down",
            })
        };
        let of = |value: &Value| read(value.to_string().as_bytes()).map_err(|e| e.0);
        let found = of(&good()).unwrap();
        assert_eq!((found.from, found.until, found.reason.as_str()), (5, 6, "registry is down"));
        assert_eq!(found.id, digest(good().to_string().as_bytes()).hex()[..12]);
        assert_eq!(found.rules["BS-IMG-001"], BTreeSet::from(["unsigned".to_owned()]));
        type Row = (fn(&mut Value), &'static str);
        let bad: [Row; 15] = [
            (|v| v["version"] = 2.into(), "version 1"),
            (|v| v["x"] = 1.into(), "unknown key"),
            (|v| v["nodes"] = json!([]), "`nodes` is no list"),
            (|v| v["nodes"] = json!(["*"]), "64 lower-case"),
            (|v| v["nodes"] = json!(["AB".repeat(32)]), "64 lower-case"),
            (|v| v["nodes"] = json!(["ab".repeat(33)]), "64 lower-case"),
            (|v| v["nodes"] = json!([7]), "no text"),
            (|v| v["rules"] = json!({}), "`rules` is no object"),
            (|v| v["rules"] = (0..=MAX_LIST).map(|n| (n.to_string(), json!(["x"]))).collect(), "`rules` is no object"),
            (|v| v["rules"]["BS-IMG-001"] = json!([]), "no list of 1"),
            (|v| v["rules"] = json!(["BS-IMG-001"]), "`rules` is no object"),
            (|v| v["from"] = (-1).into(), "no time `from`"),
            (|v| v["until"] = "soon".into(), "no time `until`"),
            (|v| v["reason"] = " ".into(), "no `reason`"),
            (|v| *v = json!([]), "no object"),
        ];
        for (change, why) in bad {
            let mut value = good();
            change(&mut value);
            let error = of(&value).unwrap_err();
            assert!(error.contains(why), "{error}, wanted {why}");
        }
        let twice = good().to_string().replacen("\"until\"", "\"until\":9,\"until\"", 1);
        assert!(read(twice.as_bytes()).unwrap_err().0.contains("twice"));
        assert!(read(format!("{} x", good()).as_bytes()).is_err());
    }
}
