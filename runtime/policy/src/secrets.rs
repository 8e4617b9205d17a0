//! What looks like a secret in an image's config, by its form or by the name that it is given. No secret leaves this file.
use crate::facts::Secret;
use std::collections::BTreeSet;

/// The texts of an image's config.
#[derive(Debug, Clone, Copy, Default)]
pub struct Texts<'a> {
    /// `NAME=value`.
    pub env: &'a [String],
    /// Name and value.
    pub labels: &'a [(String, String)],
    pub entrypoint: &'a [String],
    pub cmd: &'a [String],
    /// `created_by` of each step.
    pub history: &'a [String],
}

/// Longest name that a finding carries.
const MAX_NAME: usize = 96;

/// Each place and name once.
#[must_use]
pub fn find(texts: &Texts<'_>) -> Vec<Secret> {
    let mut found = BTreeSet::new();
    let mut add = |place: &str, name: &str, kind: String| {
        let name = name.chars().take(MAX_NAME).collect();
        found.insert(Secret { place: place.into(), name, kind });
    };
    for (at, entry) in texts.env.iter().enumerate() {
        let (name, value) = entry.split_once('=').unwrap_or(("", entry));
        let of_name = named(name, value);
        let other = || format!("entry {}", at + 1);
        if let Some(kind) = formed(value).map(str::to_owned).or(of_name) {
            add("env", if is_name(name) { name.to_owned() } else { other() }.as_str(), kind);
        }
    }
    for (name, value) in texts.labels {
        // A label that is named for a secret seldom is one (`..token-url`), but its form gives it away.
        if let Some(kind) = formed(value) {
            let name = if formed(name).is_some() { "with a secret as its name" } else { name };
            add("label", name, kind.to_owned());
        } else if let Some(kind) = formed(name) {
            add("label", "with a secret as its name", kind.to_owned());
        }
    }
    for (place, words) in [("entrypoint", texts.entrypoint), ("cmd", texts.cmd)] {
        for (at, word) in words.iter().enumerate() {
            // A shell's whole script is one word.
            let next = words.get(at + 1).map(String::as_str);
            for (name, kind) in line(word, next) {
                add(place, &name.unwrap_or_else(|| format!("entry {}", at + 1)), kind);
            }
        }
    }
    for (at, step) in texts.history.iter().enumerate() {
        for (name, kind) in line(step, None) {
            add("history", &name.unwrap_or_else(|| format!("entry {}", at + 1)), kind);
        }
    }
    found.into_iter().collect()
}

/// What a line of words holds: the name that it is given, if any, and the kind.
fn line(text: &str, next: Option<&str>) -> Vec<(Option<String>, String)> {
    let apart = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ';' | '|' | '&' | '(' | ')' | ',');
    let words: Vec<&str> = text.split(apart).filter(|word| !word.is_empty()).collect();
    let mut found = Vec::new();
    // Its begin and end stand in several words.
    if text.contains("-----BEGIN ") && text.contains("PRIVATE KEY-----") {
        found.push((None, "a private key".to_owned()));
    }
    for (at, word) in words.iter().enumerate() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            // `--password value`: the flag's value is the next word.
            None if word.starts_with("--") => {
                (*word, words.get(at + 1).copied().or(next).filter(|value| !value.starts_with('-')))
            }
            None => ("", None),
        };
        let plain = name.trim_start_matches('-');
        let shown = is_name(plain).then(|| plain.to_owned());
        if let Some(kind) = formed(word) {
            found.push((shown, kind.to_owned()));
        } else if let Some(kind) = value.and_then(|value| named(plain, value)) {
            found.push((shown, kind));
        }
    }
    found
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        && formed(text).is_none()
}

/// A form that is its own proof: prefix, kind, least length of what follows, and what else than letters and digits may.
const FORMS: [(&str, &str, usize, &str); 26] = [
    ("AKIA", "an AWS access key", 16, ""),
    ("ASIA", "an AWS access key", 16, ""),
    ("ghp_", "a GitHub token", 30, ""),
    ("gho_", "a GitHub token", 30, ""),
    ("ghu_", "a GitHub token", 30, ""),
    ("ghs_", "a GitHub token", 30, ""),
    ("ghr_", "a GitHub token", 30, ""),
    ("github_pat_", "a GitHub token", 22, "_"),
    ("glpat-", "a GitLab token", 20, "_-."),
    ("gldt-", "a GitLab token", 20, "_-."),
    ("xoxb-", "a Slack token", 10, "-"),
    ("xoxp-", "a Slack token", 10, "-"),
    ("xoxa-", "a Slack token", 10, "-"),
    ("xoxr-", "a Slack token", 10, "-"),
    ("xoxs-", "a Slack token", 10, "-"),
    ("xoxe-", "a Slack token", 10, "-"),
    ("xapp-", "a Slack token", 10, "-"),
    ("sk_live_", "a Stripe key", 16, ""),
    ("rk_live_", "a Stripe key", 16, ""),
    ("whsec_", "a Stripe key", 16, ""),
    ("AIza", "a Google API key", 35, "_-"),
    ("npm_", "an npm token", 36, ""),
    ("dckr_pat_", "a Docker token", 20, "_-"),
    ("dckr_oat_", "a Docker token", 20, "_-"),
    ("pypi-", "a PyPI token", 50, "_-"),
    ("hvs.", "a Vault token", 20, "_-"),
];

/// What a text holds by its form.
fn formed(text: &str) -> Option<&'static str> {
    if text.contains("-----BEGIN ") && text.contains("PRIVATE KEY-----") {
        return Some("a private key");
    }
    let known =
        FORMS.iter().find(|(prefix, _, least, also)| starts(text, prefix).any(|rest| run(rest, also) >= *least));
    known
        .map(|(_, kind, _, _)| *kind)
        .or_else(|| starts(text, "eyJ").any(is_jwt).then_some("a JWT"))
        .or_else(|| has_password(text).then_some("a password in a URL"))
}

/// What follows `prefix` wherever it begins a word.
fn starts<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(prefix).filter_map(move |(at, _)| {
        let before = text.get(..at)?.chars().next_back();
        let inside = before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
        (!inside).then(|| text.get(at + prefix.len()..)).flatten()
    })
}

fn run(text: &str, also: &str) -> usize {
    text.bytes().take_while(|b| b.is_ascii_alphanumeric() || also.as_bytes().contains(b)).count()
}

/// Two more parts behind the header's `eyJ`, of which the first begins as JSON does.
fn is_jwt(rest: &str) -> bool {
    let mut parts = rest.split('.');
    let long = |part: Option<&str>| part.is_some_and(|part| run(part, "_-") >= 8);
    let header = long(parts.next());
    let claims = parts.next();
    header && claims.is_some_and(|part| part.starts_with("eyJ")) && long(claims) && long(parts.next())
}

/// `scheme://user:password@host`.
fn has_password(text: &str) -> bool {
    text.match_indices("://").any(|(at, _)| {
        let rest = text.get(at + 3..).unwrap_or_default();
        let authority = rest.split(|c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'')).next();
        let user = authority.and_then(|a| a.rsplit_once('@')).map(|(user, _)| user);
        user.and_then(|user| user.split_once(':')).is_some_and(|(_, password)| !is_placeholder(password))
    })
}

/// Words of a name that stand for a secret, alone or two in a row.
const WORDS: [&str; 11] = [
    "TOKEN",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "SECRET",
    "PWD",
    "APIKEY",
    "PASS",
    "CREDENTIAL",
    "CREDENTIALS",
    "PAT",
];
const PAIRS: [(&str, &str); 5] =
    [("API", "KEY"), ("ACCESS", "KEY"), ("PRIVATE", "KEY"), ("SIGNING", "KEY"), ("ENCRYPTION", "KEY")];
/// Last words of a name that is about a secret and holds none.
const ABOUT: [&str; 26] = [
    "FILE",
    "FILES",
    "PATH",
    "DIR",
    "URL",
    "URI",
    "ENDPOINT",
    "HOST",
    "NAME",
    "ID",
    "TTL",
    "EXPIRY",
    "EXPIRES",
    "EXPIRATION",
    "TIMEOUT",
    "LENGTH",
    "LIMIT",
    "TYPE",
    "HEADER",
    "VERSION",
    "ALGORITHM",
    "PROVIDER",
    "STORE",
    "ENABLED",
    "REQUIRED",
    "ISSUER",
];

/// A variable or flag that is named for a secret and has a value in the clear.
fn named(name: &str, value: &str) -> Option<String> {
    // The shell's own, of every image that was built by one.
    if matches!(name, "PWD" | "OLDPWD") || is_placeholder(value) {
        return None;
    }
    let upper = name.to_ascii_uppercase();
    let words: Vec<&str> = upper.split(['_', '-', '.']).filter(|word| !word.is_empty()).collect();
    if words.last().is_some_and(|last| ABOUT.contains(last)) {
        return None;
    }
    let single = words.iter().find(|word| WORDS.contains(word)).map(ToString::to_string);
    let pair = || {
        let found = words.iter().zip(words.iter().skip(1)).find(|(a, b)| PAIRS.contains(&(**a, **b)));
        found.map(|(a, b)| format!("{a}_{b}"))
    };
    single.or_else(pair).map(|word| format!("a value for {word}"))
}

/// Empty, a reference, a path, or a word that nobody takes for a secret.
fn is_placeholder(value: &str) -> bool {
    const NONE: [&str; 24] = [
        "",
        "changeme",
        "change_me",
        "change-me",
        "replaceme",
        "replace_me",
        "replace-me",
        "placeholder",
        "example",
        "dummy",
        "redacted",
        "none",
        "null",
        "nil",
        "undefined",
        "todo",
        "tbd",
        "yes",
        "no",
        "true",
        "false",
        "on",
        "off",
        "unset",
    ];
    let value = value.trim_matches(['"', '\'', ' ']);
    let lower = value.to_ascii_lowercase();
    let same = value.chars().next().is_some_and(|first| value.chars().all(|c| c == first));
    let path = value.starts_with('/') && value.matches('/').count() > 1 && value.chars().all(is_of_path);
    NONE.contains(&lower.as_str()) || same || path || value.starts_with(['$', '<', '%', '{', '#'])
}

fn is_of_path(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not whole in this file, so that nobody's scanner takes the file for a leak.
    fn token(prefix: &str) -> String {
        format!("{prefix}{}", "A1b2C3d4E5".repeat(6))
    }

    fn env(entry: &str) -> Vec<(String, String)> {
        let found = find(&Texts { env: &[entry.to_owned()], ..Texts::default() });
        found.into_iter().map(|s| (s.name, s.kind)).collect()
    }

    fn history(step: &str) -> Vec<(String, String)> {
        let found = find(&Texts { history: &[step.to_owned()], ..Texts::default() });
        found.into_iter().map(|s| (s.name, s.kind)).collect()
    }

    #[test]
    fn forms_are_found_wherever_they_begin_a_word() {
        for (prefix, kind, ..) in FORMS {
            let secret = token(prefix);
            for text in
                [secret.clone(), format!("Bearer {secret}"), format!("https://h/?k={secret}&x"), format!("'{secret}'")]
            {
                assert_eq!(formed(&text), Some(kind), "{text}");
            }
            for text in [format!("x{secret}"), format!("{prefix}short"), prefix.to_owned()] {
                assert_eq!(formed(&text), None, "{text}");
            }
        }
        let part = "eyJhbGciOiJub25lIn0";
        assert_eq!(formed(&format!("{part}.{part}.c2lnbmF0dXJl")), Some("a JWT"));
        for text in [
            part.to_owned(),
            format!("{part}.{part}"),
            format!("{part}.{part}.x"),
            format!("{part}.abcdefghij.c2lnbmF0dXJl"),
        ] {
            assert_eq!(formed(&text), None, "{text}");
        }
        assert_eq!(formed("-----BEGIN EC PRIVATE KEY-----\nMHc"), Some("a private key"));
        assert_eq!(formed("-----BEGIN PUBLIC KEY-----\nMHc"), None);
        assert_eq!(formed("postgres://app:hunter2@db/app"), Some("a password in a URL"));
        for text in ["postgres://app@db/app", "postgres://app:$PASS@db", "https://h/a:b@c", "http://h:80/x@y", "://:@"]
        {
            assert_eq!(formed(text), None, "{text}");
        }
    }

    #[test]
    fn names_speak_where_a_value_is_in_the_clear() {
        for (entry, kind) in [
            ("DB_PASSWORD=hunter2", "a value for PASSWORD"),
            ("password=password", "a value for PASSWORD"),
            ("NPM_TOKEN=x1y2", "a value for TOKEN"),
            ("SECRET=s3", "a value for SECRET"),
            ("SECRET_KEY_BASE=s3", "a value for SECRET"),
            ("AWS_SECRET_ACCESS_KEY=s3/x", "a value for SECRET"),
            ("STRIPE_API_KEY=abc", "a value for API_KEY"),
        ] {
            let name = entry.split('=').next().unwrap();
            assert_eq!(env(entry), [(name.to_owned(), kind.to_owned())], "{entry}");
        }
        for entry in [
            "PATH=/usr/bin:/bin",
            "PWD=/srv",
            "DB_PASSWORD=",
            "DB_PASSWORD=changeme",
            "DB_PASSWORD=\"xxxx\"",
            "DB_PASSWORD=$OTHER",
            "DB_PASSWORD=${OTHER}",
            "DB_PASSWORD=<from the vault>",
            "ALLOW_EMPTY_PASSWORD=yes",
            "POSTGRES_PASSWORD_FILE=/run/secrets/pg",
            "SECRET=/run/secrets/app",
            "TOKEN_TTL=3600",
            "TOKEN_URL=https://idp.example/token",
            "GPG_KEY=E3FF2839C048B25C084DEBE9B26995E310250568",
            "TOKENIZERS_PARALLELISM=x",
            "COMPASS=north",
            "",
            "=",
        ] {
            assert_eq!(env(entry), [], "{entry}");
        }
        assert_eq!(env(&format!("X={}", token("ghp_"))), [("X".to_owned(), "a GitHub token".to_owned())]);
    }

    #[test]
    fn steps_of_the_history_and_arguments_are_read_word_by_word() {
        let one = |name: &str, kind: &str| vec![(name.to_owned(), kind.to_owned())];
        assert_eq!(history("ENV DB_PASSWORD=hunter2 OTHER=1"), one("DB_PASSWORD", "a value for PASSWORD"));
        assert_eq!(history("|1 NPM_TOKEN=abc123 /bin/sh -c npm ci # buildkit"), one("NPM_TOKEN", "a value for TOKEN"));
        assert_eq!(
            history("RUN curl -H \"Authorization: Bearer x\" -u a --password hunter2"),
            one("password", "a value for PASSWORD")
        );
        assert_eq!(
            history(&format!("RUN git clone https://{}@github.com/a/b", token("ghp_"))),
            one("entry 1", "a GitHub token")
        );
        assert_eq!(
            history("RUN pip install --index-url https://ci:s3cr3t@pypi.corp/simple x"),
            one("entry 1", "a password in a URL")
        );
        assert_eq!(history("RUN printf -----BEGIN RSA PRIVATE KEY-----"), one("entry 1", "a private key"));
        for step in [
            "RUN --mount=type=secret,id=npm TOKEN=$(cat /run/secrets/npm) npm ci",
            "ARG NPM_TOKEN",
            "ENV DB_PASSWORD=",
            "CMD [\"/app\" \"--password-file\" \"/run/secrets/x\"]",
            "RUN adduser --disabled-password --gecos app",
            "RUN useradd --password -x",
        ] {
            assert_eq!(history(step), [], "{step}");
        }
        let words = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (entrypoint, cmd) =
            (words(&["/app", "--api-key", "k1"]), words(&["--token=t1", "-c", "export PASSWORD=p1"]));
        let found = find(&Texts { entrypoint: &entrypoint, cmd: &cmd, ..Texts::default() });
        let found: Vec<_> = found.iter().map(|s| (s.place.as_str(), s.name.as_str())).collect();
        assert_eq!(found, [("cmd", "PASSWORD"), ("cmd", "token"), ("entrypoint", "api-key")]);
    }

    #[test]
    fn no_value_is_in_a_finding() {
        let secret = token("ghp_");
        let env = [format!("{secret}={secret}"), secret.clone(), format!("A={secret}")];
        let labels =
            [(secret.clone(), "x".to_owned()), ("l".to_owned(), secret.clone()), (secret.clone(), secret.clone())];
        let words = [secret.clone(), format!("--{secret}={secret}"), format!("PASSWORD={secret}")];
        let found = find(&Texts { env: &env, labels: &labels, entrypoint: &words, cmd: &words, history: &words });
        assert!(found.len() >= 9, "{found:?}");
        assert!(!format!("{found:?}").contains("A1b2C3"), "{found:?}");
    }
}
