//! Of a `sigstoreSigned`, `fulcio`: whom a CA certifies by an email address.
use super::{decoded, one_or_many, utf8};
use crate::draft::Draft;
use crate::keyless::{Keyless, Meant, pattern};
use crate::root::root;
use crate::value::{members, text_of};
use boltseal_policy::text;
use boltseal_trust::Json;

/// Whom it means, under its CA and logs, which become a trusted root.
pub(super) fn signer(
    one: &Json,
    at: &str,
    read: &mut impl FnMut(&str) -> Result<Vec<u8>, String>,
    draft: &mut Draft,
) -> Result<Result<String, String>, String> {
    let shown = format!("{}: fulcio", text::show(at));
    let fulcio = one.get("fulcio").unwrap_or(&Json::Null);
    members(fulcio, &shown, &["caPath", "caData", "oidcIssuer", "subjectEmail"])?;
    let (Some(issuer), Some(email)) = (text_of(fulcio, "oidcIssuer")?, text_of(fulcio, "subjectEmail")?) else {
        return Err(format!("{shown}: oidcIssuer and subjectEmail must be given"));
    };
    let ca = match (text_of(fulcio, "caPath")?, text_of(fulcio, "caData")?) {
        (Some(path), None) => read(path).map_err(|why| format!("caPath {}: {why}", text::show(path))),
        (None, Some(data)) => decoded(data).map_err(|why| format!("caData: {why}")),
        _ => return Err(format!("{shown}: exactly one of caPath and caData must be given")),
    };
    let mut logs = Vec::new();
    for name in ["rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas"] {
        for given in one_or_many(one, name, at)? {
            let bytes = if name.contains("Path") { read(given) } else { decoded(given) };
            logs.push(bytes.and_then(utf8).map_err(|why| format!("{name}: {why}")));
        }
    }
    if logs.is_empty() {
        return Err(format!("{shown}: a rekorPublicKey must be given beside it"));
    }
    Ok((|| {
        let logs = logs.into_iter().collect::<Result<Vec<_>, _>>()?;
        let logs: Vec<&str> = logs.iter().map(String::as_str).collect();
        let root = root(&utf8(ca?)?, &logs, &[])?;
        // It asks for no promise of a certificate log.
        let (identity, issuer) = (pattern(email, Meant::Exactly)?, pattern(issuer, Meant::Exactly)?);
        draft.keyless("", at, Keyless { identity, issuer, log: true, sct: false, root })
    })())
}
