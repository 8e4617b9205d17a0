//! Docker's `config.json`: which credentials, or which helper, one registry has.
use crate::job::Secret;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Largest file, bytes.
pub const MAX: u64 = 1 << 20;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    auths: BTreeMap<String, Auth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}

/// Where the credentials come from.
#[derive(Debug, PartialEq, Eq)]
pub enum Choice {
    Secret(Secret),
    /// End of the program's name behind `docker-credential-`, and what it is asked for.
    Helper {
        name: String,
        server: String,
    },
}

/// What the file says for `registry` (and a repository in it). A helper of that registry comes first, then the credentials
/// that stand in the file, then the store of all.
///
/// # Errors
/// A file that is not that of Docker, a helper whose name is none, credentials that cannot be read.
pub fn choose(file: &[u8], registry: &str, path: &str) -> Result<Choice, String> {
    // No word of what is in it: there are passwords.
    let file: File =
        serde_json::from_slice(file).map_err(|e| format!("not as Docker writes it: {:?}", e.classify()))?;
    let named = |key: &str| covers(key, registry, path);
    if let Some((server, name)) = file.cred_helpers.iter().find(|(key, _)| named(key).is_some()) {
        return helper(name, server);
    }
    let found = file.auths.iter().filter_map(|(key, auth)| Some((named(key)?, key, auth))).max_by_key(|f| f.0);
    match found {
        Some((_, key, auth)) => {
            let secret = secret(auth)?;
            // Docker leaves an empty entry where the store has it.
            if secret == Secret::None && !file.creds_store.is_empty() {
                return helper(&file.creds_store, key);
            }
            Ok(Choice::Secret(secret))
        }
        None if !file.creds_store.is_empty() => {
            helper(&file.creds_store, if docker(registry) { "https://index.docker.io/v1/" } else { registry })
        }
        None => Ok(Choice::Secret(Secret::None)),
    }
}

fn helper(name: &str, server: &str) -> Result<Choice, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(format!("{name:?} is no name of a credential helper"));
    }
    Ok(Choice::Helper { name: name.to_owned(), server: server.to_owned() })
}

fn docker(host: &str) -> bool {
    matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io")
}

/// How much of the name a key covers, on `/` boundaries; None where it is for another.
fn covers(key: &str, registry: &str, path: &str) -> Option<usize> {
    let key = key.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let (host, rest) = key.split_once('/').unwrap_or((key, ""));
    if !(host.eq_ignore_ascii_case(registry) || docker(host) && docker(registry)) {
        return None;
    }
    if matches!(rest, "" | "v1" | "v2") {
        return Some(0);
    }
    let inside = path == rest || path.strip_prefix(rest).is_some_and(|more| more.starts_with('/'));
    inside.then_some(rest.len())
}

fn secret(auth: &Auth) -> Result<Secret, String> {
    let plain = |user: &str, password: &str| match (user, password) {
        ("", "") => Secret::None,
        ("<token>", token) => Secret::Refresh(token.to_owned()),
        (user, password) => Secret::Basic { user: user.to_owned(), password: password.to_owned() },
    };
    if !auth.identitytoken.is_empty() {
        return Ok(Secret::Refresh(auth.identitytoken.clone()));
    }
    if auth.auth.is_empty() {
        return Ok(plain(&auth.username, &auth.password));
    }
    let decoded = STANDARD.decode(auth.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let decoded = decoded.ok_or("an auth that is not base64 of a text")?;
    let (user, password) = decoded.split_once(':').ok_or("an auth without a colon")?;
    // Docker once padded it with zero bytes.
    Ok(plain(user, password.trim_end_matches('\0')))
}

/// What a helper printed, in the child: the helper may have asked the network for it.
///
/// # Errors
/// It is not what helpers print.
pub fn of_helper(printed: &[u8]) -> Result<Secret, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Printed {
        #[serde(default)]
        username: String,
        #[serde(default)]
        secret: String,
    }
    let said: Printed = serde_json::from_slice(printed).map_err(|_| "the credential helper printed something else")?;
    secret(&Auth { username: said.username, password: said.secret, ..Auth::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(user: &str, password: &str) -> Choice {
        Choice::Secret(Secret::Basic { user: user.into(), password: password.into() })
    }

    #[test]
    fn the_registrys_own_and_no_others() {
        let file = br#"{"auths":{"https://index.docker.io/v1/":{"auth":"aHViOnB3"},"ghcr.io":{"auth":"YTpiOmM="},
            "ghcr.io/corp/team":{"username":"t","password":"p"},"r.example:5000":{"identitytoken":"tok"},"empty.example":{}},
            "HttpHeaders":{},"credHelpers":{"1.dkr.ecr.eu-west-1.amazonaws.com":"ecr-login"}}"#;
        let choose = |registry: &str, path: &str| choose(file, registry, path).unwrap();
        assert_eq!(choose("docker.io", "library/a"), basic("hub", "pw"));
        assert_eq!(choose("ghcr.io", "x"), basic("a", "b:c"));
        assert_eq!(choose("ghcr.io", "corp/team/app"), basic("t", "p"));
        assert_eq!(choose("ghcr.io", "corp/teamwork"), basic("a", "b:c"));
        assert_eq!(choose("r.example:5000", "x"), Choice::Secret(Secret::Refresh("tok".into())));
        for none in ["r.example", "ghcr.io.evil.example", "evil.example", "empty.example"] {
            assert_eq!(choose(none, "x"), Choice::Secret(Secret::None), "{none}");
        }
        assert!(
            matches!(choose("1.dkr.ecr.eu-west-1.amazonaws.com", "x"), Choice::Helper { name, .. } if name == "ecr-login")
        );
    }

    #[test]
    fn helpers_have_plain_names() {
        let file = |store: &str| format!(r#"{{"credsStore":"{store}"}}"#);
        let found = choose(file("pass").as_bytes(), "docker.io", "x").unwrap();
        assert_eq!(found, Choice::Helper { name: "pass".into(), server: "https://index.docker.io/v1/".into() });
        for bad in ["../x", "a b", "/bin/sh"] {
            assert!(choose(file(bad).as_bytes(), "a.b", "x").is_err(), "{bad}");
        }
        assert!(choose(b"7", "a.b", "x").is_err());
        assert!(choose(br#"{"auths":{"a.b":{"auth":"%%"}}}"#, "a.b", "x").is_err());
    }

    #[test]
    fn what_a_helper_prints() {
        let said = of_helper(br#"{"ServerURL":"x","Username":"AWS","Secret":"s"}"#).unwrap();
        assert_eq!(said, Secret::Basic { user: "AWS".into(), password: "s".into() });
        let said = of_helper(br#"{"ServerURL":"x","Username":"<token>","Secret":"s"}"#).unwrap();
        assert_eq!(said, Secret::Refresh("s".into()));
        assert!(of_helper(b"credentials not found").is_err());
        assert!(!format!("{said:?}").contains('s') || format!("{said:?}") == "some");
    }
}
