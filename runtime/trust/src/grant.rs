//! An owner's grant: who answers for these containers of these pods, and what they run.
//!
//! It comes as a compact JWS whose `typ` is [`JWS_TYPE`], or as a DSSE envelope whose payload type is [`DSSE_TYPE`]; the same
//! claims in both. Its algorithm is the policy's key's. Nothing of the claims is parsed before such a key has verified them;
//! whether they hold for this pod, now, is the policy's to say.
use crate::claims::Json;
use crate::digest::Digest;
use crate::dsse::Envelope;
use crate::jws::{Jwks, JwsError};
use crate::key::Key;
use std::collections::{BTreeMap, BTreeSet};

/// `typ` of a grant's JWS: a token of another kind, by the same key, is none (RFC 8725, section 3.11).
pub const JWS_TYPE: &str = "boltseal-grant+jwt";
/// Payload type of a grant's DSSE envelope.
pub const DSSE_TYPE: &str = "application/vnd.boltseal.grant+json";
/// The claim that holds what is granted.
pub const CLAIM: &str = "boltseal.dev/grant";
/// Version of that claim.
pub const VERSION: i64 = 1;
/// Longest grant, bytes: Kubernetes keeps 256 KiB of annotations for a whole pod.
pub const MAX_GRANT: usize = 64 << 10;

/// Entries of any list of a grant.
const MAX_LIST: usize = 512;

/// What an authority's grants are verified by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys {
    /// One key in PEM: tokens and envelopes.
    Pem(Key),
    /// A JWKS: tokens.
    Set(Jwks),
}

impl Keys {
    /// # Errors
    /// Not the PEM of one key that signs grants.
    pub fn from_pem(pem: &str) -> Result<Self, String> {
        let key = Key::from_spki_pem(pem).map_err(|e| e.to_string())?;
        if Jwks::of_key(&key).is_none() {
            return Err("an RSA key, which does not say how it signs. Fix: name it in a JWKS with its `alg`".into());
        }
        Ok(Self::Pem(key))
    }

    /// # Errors
    /// Not a set of public signing keys.
    pub fn from_jwks(bytes: &[u8]) -> Result<Self, String> {
        Jwks::parse(bytes).map(Self::Set).map_err(|e| e.0)
    }

    /// The claims of a token that one of these keys signed as a grant.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn token(&self, token: &str) -> Result<Json, JwsError> {
        let of_key;
        let keys = match self {
            Self::Set(keys) => keys,
            Self::Pem(key) => {
                of_key = Jwks::of_key(key).ok_or_else(|| JwsError("the key signs no tokens".into()))?;
                &of_key
            }
        };
        let verified = keys.verify(token)?;
        if verified.kind.as_deref() != Some(JWS_TYPE) {
            return Err(JwsError(format!("it is a token of another kind: its `typ` is not {JWS_TYPE}")));
        }
        Ok(verified.claims)
    }

    /// The claims of an envelope that this key signed as a grant.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn envelope(&self, envelope: &Envelope) -> Result<Json, JwsError> {
        let Self::Pem(key) = self else {
            return Err(JwsError("an envelope is verified by a key in PEM, not by a JWKS".into()));
        };
        if envelope.signers([key]).is_empty() {
            return Err(JwsError("the envelope is signed by none of the pinned keys".into()));
        }
        if envelope.payload_type != DSSE_TYPE {
            return Err(JwsError(format!("the envelope holds another kind of payload than {DSSE_TYPE}")));
        }
        Json::parse(&envelope.payload).map_err(|why| JwsError(format!("the grant's claims: {why}")))
    }
}

/// A verified grant's claims. Nothing here is compared with a pod, a policy or a clock yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    pub issuer: String,
    pub subject: String,
    pub audience: BTreeSet<String>,
    /// `nbf`, seconds since the epoch.
    pub from: u64,
    /// `exp`.
    pub until: u64,
    pub amr: BTreeSet<String>,
    pub acr: String,
    pub namespaces: BTreeSet<String>,
    /// Patterns of pods' names.
    pub pods: Vec<String>,
    pub containers: Vec<Container>,
}

/// One container, by its name in the pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    pub name: String,
    /// Digests of manifests or indexes.
    pub images: BTreeSet<String>,
    /// In the place of the image's Entrypoint; of a word None is any.
    pub command: Option<Vec<Option<String>>>,
    /// In the place of its Cmd.
    pub args: Option<Vec<Option<String>>>,
    pub env: BTreeMap<String, Value>,
    pub cwd: Option<String>,
    /// `uid:gid`.
    pub user: Option<String>,
    pub mounts: Vec<Mount>,
}

/// What a variable may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// sha256 of its value.
    Is(Digest),
    Any,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mount {
    pub destination: String,
    pub readonly: bool,
    /// The host's path, of a mount of one.
    pub host: Option<String>,
}

fn error<T>(why: impl Into<String>) -> Result<T, JwsError> {
    Err(JwsError(why.into()))
}

/// Reads the claims of a grant. Beside [`CLAIM`], whose every word is known, others may stand there.
///
/// # Errors
/// The first claim that is missing or not what it should be.
pub fn read(claims: &Json) -> Result<Grant, JwsError> {
    let time = |name: &str| match claims.get(name).map(Json::integer) {
        Some(Some(seconds)) => u64::try_from(seconds).map_err(|_| JwsError(format!("the grant's `{name}` is no time"))),
        _ => error(format!("the grant has no time `{name}`")),
    };
    let Some(granted) = claims.get(CLAIM) else { return error(format!("the grant has no claim `{CLAIM}`")) };
    members(granted, CLAIM, &["version", "namespaces", "pods", "containers"])?;
    if granted.get("version").and_then(Json::integer) != Some(VERSION) {
        return error(format!("the grant is not of version {VERSION}"));
    }
    let audience = match claims.get("aud") {
        Some(Json::Text(one)) => BTreeSet::from([one.clone()]),
        _ => texts(claims, "aud")?.into_iter().collect(),
    };
    let mut containers: Vec<Container> = Vec::new();
    for one in list(granted, "containers")? {
        let read = container(one)?;
        if containers.iter().any(|other| other.name == read.name) {
            return error(format!("the grant names the container {:?} twice", read.name));
        }
        containers.push(read);
    }
    Ok(Grant {
        issuer: text(claims, "iss")?.unwrap_or_default(),
        subject: text(claims, "sub")?.unwrap_or_default(),
        audience,
        from: time("nbf")?,
        until: time("exp")?,
        amr: texts(claims, "amr")?.into_iter().collect(),
        acr: text(claims, "acr")?.unwrap_or_default(),
        namespaces: texts(granted, "namespaces")?.into_iter().collect(),
        pods: texts(granted, "pods")?,
        containers,
    })
}

fn container(one: &Json) -> Result<Container, JwsError> {
    members(one, "containers", &["name", "images", "command", "args", "env", "cwd", "user", "mounts"])?;
    let name = text(one, "name")?.filter(|name| !name.is_empty());
    let Some(name) = name else { return error("the grant has a container without a name") };
    let images: BTreeSet<String> = texts(one, "images")?.into_iter().collect();
    if let Some(bad) = images.iter().find(|image| image.parse::<Digest>().is_err()) {
        return error(format!("the grant's image {bad:?} is no sha256 digest"));
    }
    let words = |key: &str| -> Result<Option<Vec<Option<String>>>, JwsError> {
        let word = |word: &Json| match word {
            Json::Null => Ok(None),
            Json::Text(text) => Ok(Some(text.clone())),
            _ => error(format!("the grant's `{key}` has a word that is no text")),
        };
        one.get(key).map(|_| list(one, key)?.iter().map(word).collect()).transpose()
    };
    let mut env = BTreeMap::new();
    match one.get("env") {
        None => {}
        Some(Json::Object(map)) if map.len() <= MAX_LIST => {
            for (name, value) in map {
                let value = match value.text() {
                    Some("any") => Value::Any,
                    Some(digest) => Value::Is(digest.parse().map_err(|_| JwsError(value_is(name)))?),
                    None => return error(value_is(name)),
                };
                env.insert(name.clone(), value);
            }
        }
        Some(_) => return error("the grant's `env` is no object of at most 512 names"),
    }
    Ok(Container {
        name,
        images,
        command: words("command")?,
        args: words("args")?,
        env,
        cwd: text(one, "cwd")?,
        user: text(one, "user")?,
        mounts: list(one, "mounts")?.iter().map(mount).collect::<Result<_, _>>()?,
    })
}

fn value_is(name: &str) -> String {
    format!("the grant's value of {name:?} is neither `any` nor the sha256 digest of one")
}

fn mount(one: &Json) -> Result<Mount, JwsError> {
    members(one, "mounts", &["path", "readOnly", "host"])?;
    let readonly = match one.get("readOnly") {
        None => false,
        Some(Json::Bool(readonly)) => *readonly,
        Some(_) => return error("the grant's `readOnly` is neither true nor false"),
    };
    match text(one, "path")? {
        Some(destination) => Ok(Mount { destination, readonly, host: text(one, "host")? }),
        None => error("the grant has a mount without a `path`"),
    }
}

fn members(value: &Json, at: &str, known: &[&str]) -> Result<(), JwsError> {
    let Json::Object(map) = value else { return error(format!("the grant's `{at}` is no object")) };
    match map.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => error(format!("the grant's `{at}` has the unknown key {key:?}")),
        None => Ok(()),
    }
}

fn list<'a>(value: &'a Json, name: &str) -> Result<&'a [Json], JwsError> {
    match value.get(name) {
        None => Ok(&[]),
        Some(Json::Array(items)) if items.len() <= MAX_LIST => Ok(items),
        Some(_) => error(format!("the grant's `{name}` is no list of at most {MAX_LIST}")),
    }
}

fn text(value: &Json, name: &str) -> Result<Option<String>, JwsError> {
    match value.get(name) {
        None => Ok(None),
        Some(Json::Text(text)) => Ok(Some(text.clone())),
        Some(_) => error(format!("the grant's `{name}` is no text")),
    }
}

fn texts(value: &Json, name: &str) -> Result<Vec<String>, JwsError> {
    let text = |one: &Json| one.text().map(str::to_owned);
    let all: Option<Vec<String>> = list(value, name)?.iter().map(text).collect();
    all.ok_or_else(|| JwsError(format!("the grant's `{name}` has an item that is no text")))
}

#[cfg(test)]
mod tests;
