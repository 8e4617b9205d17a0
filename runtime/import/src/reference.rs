//! Patterns for images -> repository prefixes.
use boltseal_policy::pattern;

/// A repository prefix that stands for a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prefix {
    pub(crate) repository: String,
    /// The pattern means one level below it, the prefix all.
    pub(crate) wider: bool,
}

/// Whose pattern it is: in Kyverno's `*` is any characters, in policy-controller's one level of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Glob {
    Kyverno,
    Controller,
}

/// The prefix that means the same as `text`; otherwise a prefix of all that it may mean, empty for anything.
pub(crate) fn prefix(text: &str, glob: Glob) -> Result<Prefix, String> {
    let whole = |repository: &str, wider| match plain(repository) {
        Some(repository) => Ok(Prefix { repository, wider }),
        None => Err(around(text)),
    };
    let unversioned = [":*", "@*", ":**", "@**"].iter().find_map(|end| text.strip_suffix(end));
    match (glob, text.strip_suffix("/**"), text.strip_suffix("/*")) {
        (_, Some(folder), _) => whole(folder, false),
        (Glob::Kyverno, _, Some(folder)) => whole(folder, false),
        (Glob::Controller, _, Some(folder)) => whole(folder, true),
        _ => whole(unversioned.unwrap_or(text), false),
    }
}

/// A repository as a policy names it. Without a registry's name it is one of Docker Hub's, which is not guessed.
pub(crate) fn plain(text: &str) -> Option<String> {
    let (host, rest) = text.split_once('/').unwrap_or((text, ""));
    let named = host.contains(['.', ':']) || host == "localhost";
    let host = if host == "index.docker.io" { "docker.io" } else { host };
    let repository = if rest.is_empty() { host.to_owned() } else { format!("{host}/{rest}") };
    (named && pattern::is_repository(&repository)).then_some(repository)
}

/// What all images of a pattern have in common, on a `/` boundary: its plain beginning, without a tag or digest.
pub(crate) fn around(text: &str) -> String {
    let fixed = text.split(['*', '?', '[', '{', '@']).next().unwrap_or_default();
    let cut = fixed.len() < text.len() && !text[fixed.len()..].starts_with('@');
    let folder = if cut { fixed.rsplit_once('/').map_or("", |(folder, _)| folder) } else { fixed };
    let untagged = match folder.rsplit_once(':') {
        Some((head, tag)) if !tag.contains('/') && head.contains('/') => head,
        _ => folder,
    };
    plain(untagged).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let exact = |repository: &str| Ok(Prefix { repository: repository.into(), wider: false });
        let wider = |repository: &str| Ok(Prefix { repository: repository.into(), wider: true });
        let none = |common: &str| Err(common.to_owned());
        for (text, kyverno, controller) in [
            ("ghcr.io/corp/*", exact("ghcr.io/corp"), wider("ghcr.io/corp")),
            ("ghcr.io/corp/**", exact("ghcr.io/corp"), exact("ghcr.io/corp")),
            ("ghcr.io/corp/app", exact("ghcr.io/corp/app"), exact("ghcr.io/corp/app")),
            ("ghcr.io/corp/app:*", exact("ghcr.io/corp/app"), exact("ghcr.io/corp/app")),
            ("localhost:5000/a/*", exact("localhost:5000/a"), wider("localhost:5000/a")),
            ("index.docker.io/library/*", exact("docker.io/library"), wider("docker.io/library")),
            ("ghcr.io/corp/app*", none("ghcr.io/corp"), none("ghcr.io/corp")),
            ("ghcr.io/corp/app:v1", none("ghcr.io/corp/app"), none("ghcr.io/corp/app")),
            ("ghcr.io/corp/app:v1*", none("ghcr.io/corp"), none("ghcr.io/corp")),
            ("ghcr.io/corp/app@sha256:ab", none("ghcr.io/corp/app"), none("ghcr.io/corp/app")),
            ("*", none(""), none("")),
            ("**", none(""), none("")),
            ("*/app", none(""), none("")),
            ("busybox", none(""), none("")),
            ("corp/app*", none(""), none("")),
            ("", none(""), none("")),
        ] {
            assert_eq!(prefix(text, Glob::Kyverno), kyverno, "{text}");
            assert_eq!(prefix(text, Glob::Controller), controller, "{text}");
        }
    }
}
