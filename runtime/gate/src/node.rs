//! BS-NOD-001's fact: the node's verdict for this boot, verified anew for this start.
use crate::{paths, state};
use boltseal_node::{Boot, NodePolicy, check};
use boltseal_policy::Fact;
use boltseal_policy::facts::Node;
use boltseal_policy::policy::NodeRules;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest wait for a TPM in the way of a start.
const TPM_TIME: Duration = Duration::from_secs(5);

/// `key` is the enrolled AK's PEM, None when the bundle has none.
pub(crate) fn fact(rules: &NodeRules, key: Option<&[u8]>, policy_digest: &str) -> Fact<Node> {
    let Some(key) = key.and_then(|bytes| std::str::from_utf8(bytes).ok()) else {
        return Fact::Absent;
    };
    let pcrs = match accepted(&rules.pcrs) {
        Ok(pcrs) if pcrs.is_empty() => return Fact::Absent,
        Ok(pcrs) => pcrs,
        Err(why) => return Fact::Unknown(why),
    };
    let boot = match Boot::current() {
        Ok(boot) => boot,
        Err(e) => return Fact::Unknown(format!("this boot has no identity: {e}")),
    };
    if let Err(why) = state::run_folder() {
        return Fact::Unknown(why);
    }
    let policy = NodePolicy { tpm: &rules.tpm, ak_spki_pem: key, pcrs, ttl: Duration::from_secs(rules.ttl) };
    let state = check(Path::new(paths::RUN), &policy, policy_digest, &boot, Instant::now() + TPM_TIME);
    Fact::Is(Node {
        tpm: if state.software { "software".into() } else { "hardware".into() },
        verified: state.verified,
        problems: state.problems,
        notes: state.notes,
        wrong_pcrs: state.wrong_pcrs,
    })
}

/// The policy's text as numbers. What does not read is an error, never a PCR less.
fn accepted(pcrs: &BTreeMap<String, Vec<String>>) -> Result<BTreeMap<u32, Vec<[u8; 32]>>, String> {
    pcrs.iter()
        .map(|(index, values)| {
            let number: u32 =
                index.parse().ok().filter(|n| *n < 24).ok_or(format!("[node.pcrs] {index:?} is no PCR"))?;
            let values: Result<Vec<_>, _> = values.iter().map(|text| digest(text)).collect();
            Ok((number, values?))
        })
        .collect()
}

fn digest(text: &str) -> Result<[u8; 32], String> {
    let bad = || format!("[node.pcrs] {text:?} is not 64 hex digits");
    if text.len() != 64 || !text.is_ascii() {
        return Err(bad());
    }
    let mut out = [0_u8; 32];
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| bad())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pcr_that_does_not_read_is_an_error_not_a_gap() {
        let good = "ab".repeat(32);
        assert_eq!(accepted(&[("7".into(), vec![good.clone()])].into()).unwrap()[&7], [[0xab_u8; 32]]);
        for (index, value) in
            [("24", good.as_str()), ("x", &good), ("7", "abc"), ("7", &"zz".repeat(32)), ("7", &"é".repeat(32))]
        {
            assert!(accepted(&[(index.into(), vec![value.into()])].into()).is_err(), "{index} {value}");
        }
    }
}
