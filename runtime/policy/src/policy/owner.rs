//! Who may grant, and whose pods no person starts.
use super::lint::{key_file, plain_name, repository};
use super::window::{closed, dates};
use super::{Closed, OwnerRules, Policy};
use crate::{MAX_HOURS, pattern, text};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Grants of owners.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GrantRules {
    /// One of these must be in the grant's `aud`: the cluster's, the node's (`boltseal:prod`, `boltseal:node-7`).
    pub audiences: Vec<String>,
    /// Longest that a grant may live, from `nbf` to `exp`, days.
    pub max_days: u64,
    #[serde(rename = "authority")]
    pub authorities: Vec<GrantAuthority>,
}

impl Default for GrantRules {
    fn default() -> Self {
        Self { audiences: Vec::new(), max_days: 90, authorities: Vec::new() }
    }
}

/// Whoever signs grants: a person's key, or an identity provider's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GrantAuthority {
    pub name: String,
    /// File below `trust/`, PEM SubjectPublicKeyInfo: P-256, P-384 or Ed25519. Either this or `jwks`.
    pub key: String,
    /// File below `trust/`, a JWKS (RFC 7517).
    pub jwks: String,
    /// `iss`, exactly.
    pub issuer: String,
    /// Patterns of `sub`: whom it may speak for.
    pub identities: Vec<String>,
    /// Patterns of namespaces that it may grant for.
    pub namespaces: Vec<String>,
    /// Each must be in the grant's `amr` (RFC 8176), such as `mfa`.
    pub amr: BTreeSet<String>,
    /// The grant's `acr` must be one of these; empty: any or none.
    pub acr: BTreeSet<String>,
    /// From when on its grants count, and until when. Windows of several may overlap.
    pub from: Option<String>,
    pub until: Option<String>,
}

impl GrantAuthority {
    /// As of an image's authority.
    #[must_use]
    pub fn closed(&self, now: u64) -> Option<Closed<'_>> {
        closed(self.from.as_deref(), self.until.as_deref(), now)
    }

    /// The file that holds its key.
    #[must_use]
    pub fn file(&self) -> &str {
        if self.key.is_empty() { &self.jwks } else { &self.key }
    }
}

/// Pods of the cluster itself, whose owner the policy names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemPods {
    pub id: String,
    /// Who answers for them.
    pub owner: String,
    /// One namespace, exactly.
    pub namespace: String,
    /// Who signed their images, and for which repositories.
    #[serde(default)]
    pub authority: String,
    #[serde(default)]
    pub repository: String,
    /// Manifests or indexes; with an authority, both must hold.
    #[serde(default)]
    pub digests: Vec<String>,
}

/// Whose keys together let things through for hours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BreakGlassRules {
    /// Files below `trust/`, PEM SubjectPublicKeyInfo; they lie apart, and off the node. None: nothing is ever let through.
    pub keys: Vec<String>,
    /// How many of them must have signed.
    pub need: usize,
    /// Longest time; never above [`MAX_HOURS`].
    pub max_hours: u64,
}

impl Default for BreakGlassRules {
    fn default() -> Self {
        Self { keys: Vec::new(), need: 2, max_hours: MAX_HOURS }
    }
}

impl BreakGlassRules {
    pub(super) fn lint(&self, out: &mut Vec<String>) {
        let names: BTreeSet<&String> = self.keys.iter().collect();
        for name in &self.keys {
            key_file("break_glass.keys", name, out);
        }
        if names.len() < self.keys.len() || self.keys.len() > 16 {
            out.push("break_glass.keys: at most 16, each once".into());
        }
        if self.need < 2 {
            out.push("break_glass.need: at least 2; what one person may do alone is an exception of the policy".into());
        } else if !self.keys.is_empty() && self.need > names.len() {
            out.push(format!("break_glass.need: {} of {} keys can never sign", self.need, names.len()));
        }
        if !(1..=MAX_HOURS).contains(&self.max_hours) {
            out.push(format!("break_glass.max_hours: from 1 to {MAX_HOURS}"));
        }
    }
}

impl OwnerRules {
    pub(super) fn grants(&self, out: &mut Vec<String>) {
        let rules = match (self.level.as_str(), &self.grant) {
            ("grant", None) => {
                out.push("owner.grant: missing; the level grant needs whom it believes".into());
                return;
            }
            (_, None) => return,
            ("grant", Some(rules)) => rules,
            (level, Some(_)) => {
                out.push(format!("owner.grant: no grant is read at owner.level \"{}\"", text::show(level)));
                return;
            }
        };
        if rules.audiences.is_empty() || rules.audiences.iter().any(String::is_empty) {
            out.push("owner.grant.audiences: missing; a grant must be made for this cluster or node".into());
        }
        if !(1..=366).contains(&rules.max_days) {
            out.push("owner.grant.max_days: from 1 to 366".into());
        }
        if rules.authorities.is_empty() {
            out.push("owner.grant.authority: none; nothing could start".into());
        }
        let mut names = BTreeSet::new();
        for a in &rules.authorities {
            let at = format!("owner.grant.authority \"{}\"", text::show(&a.name));
            if !plain_name(&a.name) || !names.insert(&a.name) {
                out.push(format!("{at}: `name` must be letters, digits, `-`, `_`, `.`, used once"));
            }
            if a.key.is_empty() == a.jwks.is_empty() {
                out.push(format!("{at}: either `key` or `jwks`"));
            } else {
                key_file(&format!("{at}: `{}`", if a.key.is_empty() { "jwks" } else { "key" }), a.file(), out);
            }
            if a.issuer.is_empty() {
                out.push(format!("{at}: `issuer` is missing; a grant must be made by someone"));
            }
            for (key, list) in [("identities", &a.identities), ("namespaces", &a.namespaces)] {
                if list.is_empty() || list.iter().any(String::is_empty) {
                    out.push(format!("{at}: `{key}` has patterns, \"*\" for all; it is empty"));
                }
            }
            dates(&at, a.from.as_deref(), a.until.as_deref(), out);
        }
    }
}

impl Policy {
    pub(super) fn system_pods(&self, out: &mut Vec<String>) {
        let mut ids = BTreeSet::new();
        for system in &self.owner.system {
            let at = format!("owner.system \"{}\"", text::show(&system.id));
            if !plain_name(&system.id) || !ids.insert(&system.id) {
                out.push(format!("{at}: `id` must be letters, digits, `-`, `_`, `.`, used once"));
            }
            for (key, value) in [("owner", &system.owner), ("namespace", &system.namespace)] {
                if value.trim().is_empty() || value.contains('*') {
                    out.push(format!("{at}: `{key}` is one name, without patterns"));
                }
            }
            if system.authority.is_empty() != system.repository.is_empty() {
                out.push(format!("{at}: `authority` and `repository` go together"));
            }
            if system.authority.is_empty() && system.digests.is_empty() {
                out.push(format!("{at}: name images: `authority` and `repository`, or `digests`"));
            }
            if !system.authority.is_empty() {
                if !self.authorities.iter().any(|a| a.name == system.authority) {
                    out.push(format!("{at}: no authority is named \"{}\"", text::show(&system.authority)));
                }
                repository(&format!("{at}: `repository`"), &system.repository, out);
            }
            if !system.digests.iter().all(|digest| pattern::is_digest(digest)) {
                out.push(format!("{at}: `digests` are sha256: and 64 lower-case hex digits"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::Policy;

    const GOOD: &str = r#"
version = 1
[[authority]]
name = "ci"
key = "ci.pub"
repositories = ["ghcr.io/corp"]
[owner]
level = "grant"
patterns = ["*"]
[owner.grant]
audiences = ["boltseal:prod"]
[[owner.grant.authority]]
name = "people"
jwks = "people.jwks"
issuer = "https://idp"
identities = ["*"]
namespaces = ["shop"]
from = "2026-01-01"
until = "2027-01-01"
[[owner.system]]
id = "cni"
owner = "platform"
namespace = "kube-system"
authority = "ci"
repository = "ghcr.io/corp/cni"
"#;

    #[test]
    fn what_a_policy_says_of_owners_holds_together() {
        let problems = |text: &str| Policy::parse(text, &[]).err().unwrap_or_default().join("\n");
        assert_eq!(problems(GOOD), "");
        for (from, to, says) in [
            ("level = \"grant\"", "level = \"annotation\"", "no grant is read"),
            ("[\"boltseal:prod\"]", "[]", "owner.grant.audiences"),
            ("[\"boltseal:prod\"]", "[\"a\"]\nmax_days = 367", "max_days"),
            ("\"people\"", "\"pe ople\"", "`name` must be"),
            ("jwks = \"people.jwks\"", "", "either `key` or `jwks`"),
            ("issuer", "key = \"a.pub\"\nissuer", "either `key` or `jwks`"),
            ("people.jwks", "../people.jwks", "`jwks`: \"../people.jwks\" must name a file"),
            ("https://idp", "", "`issuer` is missing"),
            ("identities = [\"*\"]", "identities = []", "`identities` has patterns"),
            ("[\"shop\"]", "[\"\"]", "`namespaces` has patterns"),
            ("2027-01-01", "2025-01-01", "over before `from`"),
            ("2027-01-01", "soon", "`until` must be"),
            ("\"kube-system\"", "\"kube-*\"", "one name"),
            ("\"platform\"", "\" \"", "one name"),
            ("authority = \"ci\"", "authority = \"xx\"", "no authority is named"),
            ("authority = \"ci\"", "", "go together"),
            ("authority = \"ci\"\nrepository = \"ghcr.io/corp/cni\"", "", "name images"),
            ("authority = \"ci\"", "authority = \"ci\"\ndigests = [\"sha256:1\"]", "lower-case hex"),
            ("id = \"cni\"", "id = \"\"", "`id` must be"),
            ("ghcr.io/corp/cni", "ghcr.io/corp/*", "no repository prefix"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let said = problems(&GOOD.replacen(from, to, 1));
            assert!(said.contains(says) && said.lines().count() <= 2, "{from} -> {to}: {said}");
        }
        let none = &GOOD[..GOOD.find("[owner.grant]").unwrap()];
        assert!(problems(none).contains("owner.grant: missing"));
    }

    #[test]
    fn break_glass_is_of_several_keys_and_hours() {
        let problems = |text: &str| {
            let text = format!("version = 1\n[break_glass]\n{text}");
            Policy::parse(&text, &[]).err().unwrap_or_default().join("\n")
        };
        assert_eq!(problems("keys = [\"a\", \"b\"]\nneed = 2\nmax_hours = 4"), "");
        assert_eq!(problems(""), "");
        for (text, says) in [
            ("keys = [\"a\", \"a\"]", "each once"),
            ("keys = [\"../a\", \"b\"]", "must name a file"),
            ("keys = [\"a\", \"b\"]\nneed = 1", "at least 2"),
            ("keys = [\"a\", \"b\"]\nneed = 3", "can never sign"),
            ("max_hours = 5", "from 1 to 4"),
            ("max_hours = 0", "from 1 to 4"),
        ] {
            assert!(problems(text).contains(says), "{text}: {}", problems(text));
        }
    }
}
