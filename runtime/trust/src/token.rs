//! What every token has to say before anything else of it counts (RFC 7519, section 4.1): from whom, for whom, for how long.
use crate::claims::Json;
use crate::jws::{Jwks, JwsError};

/// Seconds that clocks may differ.
const SKEW: i64 = 60;
/// Longest that a token may live, whatever it says: a day.
const MAX_LIFE: i64 = 86_400;

/// What the policy demands of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Demands<'a> {
    /// The policy's section, for messages: `node.ear`.
    pub(crate) section: &'static str,
    pub(crate) issuer: &'a str,
    pub(crate) audience: &'a str,
    /// Seconds since the epoch.
    pub(crate) now: u64,
}

/// Verifies a token by the pinned keys and reads its claims: (claims, when it expires).
///
/// # Errors
/// The first thing that does not hold.
pub(crate) fn open(token: &[u8], keys: &Jwks, demands: &Demands<'_>) -> Result<(Json, i64), JwsError> {
    let refused = |why: String| Err(JwsError(why));
    let text = std::str::from_utf8(token).map_err(|_| JwsError("the token is no text".into()))?;
    let claims = keys.verify(text.trim_ascii_end())?.claims;
    if claims.get("iss").and_then(Json::text) != Some(demands.issuer) {
        return refused(format!("the token's `iss` is not {}.issuer", demands.section));
    }
    if !names(claims.get("aud"), demands.audience) {
        return refused(format!("the token is for another audience than {}.audience", demands.section));
    }
    let now = i64::try_from(demands.now).unwrap_or(i64::MAX);
    let time = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => value.integer().map(Some).ok_or_else(|| JwsError(format!("the token's `{name}` is no time"))),
    };
    let Some(expires) = time("exp")? else { return refused("the token never expires".into()) };
    if now >= expires {
        return refused("the token has expired".into());
    }
    if expires.saturating_sub(now) > MAX_LIFE + SKEW {
        return refused("the token lives for more than a day".into());
    }
    for name in ["nbf", "iat"] {
        if time(name)?.is_some_and(|from| from > now.saturating_add(SKEW)) {
            return refused("the token is from the future".into());
        }
    }
    Ok((claims, expires))
}

/// The one text, or a list that has it.
pub(crate) fn names(claim: Option<&Json>, wanted: &str) -> bool {
    match claim {
        Some(Json::Text(text)) => text == wanted,
        Some(Json::Array(list)) => list.iter().any(|item| item.text() == Some(wanted)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jws::tests::Signer;

    const NOW: i64 = 1_000_000;
    const HEADER: &str = r#"{"alg":"ES256","kid":"v1"}"#;

    /// Each bound where it still holds, and a second later.
    #[test]
    fn how_long_a_token_counts() {
        let signer = Signer::new();
        let demands = Demands { section: "here", issuer: "i", audience: "a", now: NOW.unsigned_abs() };
        let of = |times: &str| {
            let token = signer.sign(HEADER, &format!(r#"{{"iss":"i","aud":["b","a"],{times}}}"#));
            open(token.as_bytes(), &signer.jwks(), &demands).map(|(_, expires)| expires).map_err(|e| e.0)
        };
        let longest = NOW + MAX_LIFE + SKEW;
        assert_eq!(of(&format!(r#""exp":{}"#, NOW + 1)), Ok(NOW + 1));
        assert!(of(&format!(r#""exp":{NOW}"#)).unwrap_err().contains("has expired"));
        assert_eq!(of(&format!(r#""exp":{longest}"#)), Ok(longest));
        assert!(of(&format!(r#""exp":{}"#, longest + 1)).unwrap_err().contains("more than a day"));
        for name in ["nbf", "iat"] {
            let from = |from: i64| of(&format!(r#""exp":{longest},"{name}":{from}"#));
            assert_eq!(from(NOW + SKEW), Ok(longest), "{name}");
            assert!(from(NOW + SKEW + 1).unwrap_err().contains("from the future"), "{name}");
        }
    }
}
