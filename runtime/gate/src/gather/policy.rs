//! The policy bundle in force: which files, which keys, which digest.
use crate::bundle;
use crate::grant::Grantor;
use crate::image::{Keyless, Signer, Trust};
use crate::refuse::{Result, single};
use crate::trail::{Book, bare};
use boltseal_message::{Code, FileStamp, Request};
use boltseal_node::measured::Log;
use boltseal_policy::Policy;
use boltseal_policy::facts::{Bundle, Door};
use boltseal_trust::Key;
use boltseal_trust::grant::Keys;
use boltseal_trust::notation::Notary;

/// The policy bundle in force.
#[derive(Debug)]
pub(crate) struct InForce {
    pub(crate) rules: Policy,
    pub(crate) digest: String,
    pub(crate) stamps: Vec<FileStamp>,
    pub(crate) signers: Vec<Signer>,
    pub(super) node_key: Option<Vec<u8>>,
    pub(super) node_jwks: Option<Vec<u8>>,
    pub(super) owner_jwks: Option<Vec<u8>>,
    pub(super) grantors: Vec<Grantor>,
    pub(super) break_glass: Vec<Key>,
    pub(super) bundle: Bundle,
    pub(super) measured: Option<Log>,
}

/// Loads the bundle. One that is missing, malformed or writable by others denies everything, recorded as BS-NOD-004.
pub(crate) fn policy(request: &Request, book: &mut Book, door: Door, exec_id: &str) -> Result<InForce> {
    load_policy()
        .map_err(|why| {
            let (fact, fix) = with_fix(&why);
            let denial = single("BS-NOD-004", "policy-unreadable", fact, fix);
            book.refuse(bare(request, door, exec_id), denial, Some(Code::FailedPrecondition))
        })
        .inspect(|policy| {
            book.policy.clone_from(&policy.digest);
            book.level = format!("{:?}", policy.rules.level).to_lowercase();
        })
}

/// Who knows better than to repair the file says so.
fn with_fix(why: &str) -> (&str, &str) {
    why.split_once(". Fix: ").unwrap_or((why, "repair the bundle and run `boltseal policy lint`"))
}

pub(crate) fn load_policy() -> std::result::Result<InForce, String> {
    let bundle::Loaded { rules, files, fact, stamps, measured } = bundle::load()?;
    let mut signers = Vec::new();
    for authority in &rules.authorities {
        let name = match authority.format.as_str() {
            "notation" => &authority.roots,
            "keyless" => &authority.trusted_root,
            _ => &authority.key,
        };
        let bad = |why: &dyn std::fmt::Display| format!("trust/{name} of authority \"{}\": {why}", authority.name);
        let bytes = files.trust(name).ok_or_else(|| bad(&"is missing"))?;
        let pem = || std::str::from_utf8(bytes).map_err(|e| bad(&e));
        let trust = match authority.format.as_str() {
            "notation" => {
                let notary = Notary::new(pem()?, &authority.identities, authority.signing_authority);
                Trust::Roots(notary.map_err(|e| bad(&e))?)
            }
            "keyless" => Trust::Keyless(Keyless::new(bytes, authority).map_err(|e| bad(&e))?),
            _ => Trust::Key(Key::from_spki_pem(pem()?).map_err(|e| bad(&e.0))?),
        };
        signers.push(Signer { authority: authority.name.clone(), trust });
    }
    let node_key = Some(&rules.node.attestation_key).filter(|name| !name.is_empty());
    let node_key = match node_key {
        None => None,
        Some(name) => Some(files.trust(name).ok_or_else(|| format!("trust/{name} of [node] is missing"))?.to_vec()),
    };
    let node_jwks = rules.node.ear.as_ref().and_then(|ear| files.trust(&ear.jwks)).map(<[u8]>::to_vec);
    let owner_jwks = rules.owner.token.as_ref().and_then(|token| files.trust(&token.jwks)).map(<[u8]>::to_vec);
    let mut break_glass = Vec::new();
    for name in &rules.break_glass.keys {
        let file = || format!("trust/{name} of [break_glass]");
        let pem = files.trust(name).ok_or_else(|| format!("{} is missing", file()))?;
        let pem = std::str::from_utf8(pem).map_err(|e| format!("{}: {e}", file()))?;
        break_glass.push(Key::from_spki_pem(pem).map_err(|e| format!("{}: {}", file(), e.0))?);
    }
    let mut grantors = Vec::new();
    for authority in rules.owner.grant.iter().flat_map(|grant| &grant.authorities) {
        let file = || format!("trust/{} of owner.grant.authority \"{}\"", authority.file(), authority.name);
        let bytes = files.trust(authority.file()).ok_or_else(|| format!("{} is missing", file()))?;
        let keys = if authority.key.is_empty() {
            Keys::from_jwks(bytes)
        } else {
            std::str::from_utf8(bytes).map_err(|e| e.to_string()).and_then(Keys::from_pem)
        };
        let keys = keys.map_err(|why| format!("{}: {why}", file()))?;
        grantors.push(Grantor { authority: authority.name.clone(), keys });
    }
    Ok(InForce {
        digest: files.digest,
        stamps,
        rules,
        signers,
        node_key,
        node_jwks,
        owner_jwks,
        grantors,
        break_glass,
        bundle: fact,
        measured,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_fix_and_the_better_one() {
        let own = "trust/r.json of authority \"a\": this build has no keyless. Fix: make build FEATURES=keyless";
        assert_eq!(
            with_fix(own),
            ("trust/r.json of authority \"a\": this build has no keyless", "make build FEATURES=keyless")
        );
        let (fact, fix) = with_fix("line 3: no");
        assert!(fact == "line 3: no" && fix.contains("policy lint"), "{fix}");
    }
}
