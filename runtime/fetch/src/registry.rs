//! The distribution API of one repository, read only: who we are, where redirects lead, how much is taken.
use crate::challenge::{self, Challenge};
use crate::http::{Answer, Client, Request};
use crate::job::Secret;
use crate::url::Url;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

const MAX_REDIRECTS: usize = 5;
const MAX_TOKEN: usize = 64 << 10;
/// Body of an answer that is no success: nothing in it is looked at.
const MAX_ERROR: usize = 64 << 10;

#[derive(Debug)]
pub struct Registry {
    client: Client,
    base: Url,
    repository: String,
    secret: Secret,
    authorization: Option<String>,
}

/// Why something was not had.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The registry does not have it.
    Missing,
    Why(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("not there"),
            Self::Why(why) => f.write_str(why),
        }
    }
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self::Why(why)
    }
}

impl Registry {
    /// `base` is the registry's own address; its path is ignored.
    #[must_use]
    pub fn new(client: Client, base: Url, repository: &str, secret: Secret) -> Self {
        Self { client, base, repository: repository.to_owned(), secret, authorization: None }
    }

    /// `GET /v2/<repository>/<rest>`, through what the registry wants to know and where it leads.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn get(&mut self, rest: &str, accept: &str, most: usize) -> Result<Answer, Failure> {
        let first = self.base.join(&format!("/v2/{}/{rest}", self.repository))?;
        let mut answer = self.follow(&first, accept, most)?;
        if answer.status == 401 && self.authorise(&answer)? {
            answer = self.follow(&first, accept, most)?;
        }
        match answer.status {
            200 => Ok(answer),
            // Registries without a page say so in many ways.
            404 | 405 | 400 | 501 => Err(Failure::Missing),
            401 | 403 => Err(Failure::Why(format!("{first}: the registry answers {}", answer.status))),
            status => Err(Failure::Why(format!("{first}: the registry answers {status}"))),
        }
    }

    fn follow(&mut self, first: &Url, accept: &str, most: usize) -> Result<Answer, String> {
        let mut url = first.clone();
        for _ in 0..=MAX_REDIRECTS {
            // Who we are is the registry's to know, and nobody's that it leads to.
            let ours = self.authorization.as_deref().filter(|_| url.same_place(&self.base));
            let mut headers = vec![("Accept", accept)];
            headers.extend(ours.map(|value| ("Authorization", value)));
            let most = most.max(MAX_ERROR);
            let request = Request { method: "GET", url: &url, headers: &headers, body: b"", most };
            let answer = self.client.send(&request)?;
            if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let location = answer.header("location").ok_or_else(|| format!("{url}: a redirect to nowhere"))?;
            let next = url.join(location)?;
            if !next.tls && (url.tls || !next.same_place(&self.base)) {
                return Err(format!("{url}: a redirect to {next}, which is not https"));
            }
            url = next;
        }
        Err(format!("{first}: more than {MAX_REDIRECTS} redirects"))
    }

    /// Answers a challenge once. False where there is nothing more to say than was said.
    fn authorise(&mut self, answer: &Answer) -> Result<bool, String> {
        if self.authorization.is_some() {
            return Ok(false);
        }
        let challenges: Vec<Challenge> =
            answer.all("www-authenticate").filter_map(challenge::parse).flatten().collect();
        if let Some(bearer) = challenges.iter().find(|c| c.scheme == "bearer") {
            self.authorization = Some(format!("Bearer {}", self.token(bearer)?));
            return Ok(true);
        }
        if challenges.iter().any(|c| c.scheme == "basic")
            && let Some(basic) = self.basic()
        {
            self.authorization = Some(basic);
            return Ok(true);
        }
        Ok(false)
    }

    fn basic(&self) -> Option<String> {
        match &self.secret {
            Secret::Basic { user, password } => {
                Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
            }
            _ => None,
        }
    }

    /// A token for reading this repository and nothing else, whatever the challenge asks for.
    fn token(&mut self, bearer: &Challenge) -> Result<String, String> {
        let realm = bearer.get("realm").ok_or("the registry names no realm for tokens")?;
        let realm = Url::parse(realm).map_err(|why| format!("the registry's realm: {why}"))?;
        if !realm.tls && !realm.same_place(&self.base) {
            return Err(format!("tokens come from {realm}, which is not https"));
        }
        let scope = escaped(&format!("repository:{}:pull", self.repository));
        let service = bearer.get("service").map(escaped);
        let mut query = format!("scope={scope}");
        if let Some(service) = service {
            query = format!("service={service}&{query}");
        }
        let answer = if let Secret::Refresh(token) = &self.secret {
            let form =
                format!("grant_type=refresh_token&client_id=boltseal-fetch&refresh_token={}&{query}", escaped(token));
            let headers = [("Accept", "application/json"), ("Content-Type", "application/x-www-form-urlencoded")];
            let body = form.as_bytes();
            self.client.send(&Request { method: "POST", url: &realm, headers: &headers, body, most: MAX_TOKEN })?
        } else {
            let joint = if realm.path.contains('?') { '&' } else { '?' };
            let url = Url { path: format!("{}{joint}{query}", realm.path), ..realm.clone() };
            let basic = self.basic();
            let mut headers = vec![("Accept", "application/json")];
            headers.extend(basic.as_deref().map(|value| ("Authorization", value)));
            self.client.send(&Request { method: "GET", url: &url, headers: &headers, body: b"", most: MAX_TOKEN })?
        };
        if answer.status != 200 {
            return Err(format!("{realm}: no token, it answers {}", answer.status));
        }
        token_of(&answer.body).map_err(|why| format!("{realm}: {why}"))
    }
}

/// The token in what a realm answers.
///
/// # Errors
/// There is none, or one that no header can carry.
pub fn token_of(body: &[u8]) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        token: String,
        #[serde(default)]
        access_token: String,
    }
    let answer: Answer = serde_json::from_slice(body).map_err(|_| "no token, but something else")?;
    let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
    if token.is_empty() || token.len() > 16 << 10 || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("a token that cannot be sent".into());
    }
    Ok(token)
}

/// For a query or a form.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        assert_eq!(token_of(br#"{"token":"a"}"#), Ok("a".into()));
        assert_eq!(token_of(br#"{"access_token":"b","expires_in":3}"#), Ok("b".into()));
        for bad in [&br#"{}"#[..], br#"{"token":"a\nb"}"#, b"[]", br#"{"token":""}"#] {
            assert!(token_of(bad).is_err());
        }
        assert_eq!(escaped("repository:a/b:pull"), "repository%3Aa%2Fb%3Apull");
    }
}
