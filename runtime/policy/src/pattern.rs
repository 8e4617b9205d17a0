//! The few shapes that names are compared by: prefixes on `/` boundaries, `*` patterns, plain paths, digests.

/// `repository` is `prefix` or lies below it: `ghcr.io/corp` covers `ghcr.io/corp/app`, not `ghcr.io/corporate`.
#[must_use]
pub fn covers(prefix: &str, repository: &str) -> bool {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    !prefix.is_empty() && repository.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `text` matches `pattern`, in which `*` stands for any characters, none included. Linear in practice: the
/// classic two-pointer walk, no recursion.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let (p, t) = (pattern.as_bytes(), text.as_bytes());
    let (mut pi, mut ti) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while ti < t.len() {
        match p.get(pi) {
            Some(b'*') => {
                star = Some((pi, ti));
                pi += 1;
            }
            Some(c) if t.get(ti) == Some(c) => {
                pi += 1;
                ti += 1;
            }
            _ => match star {
                Some((sp, st)) => {
                    star = Some((sp, st + 1));
                    pi = sp + 1;
                    ti = st + 1;
                }
                None => return false,
            },
        }
    }
    p.get(pi..).is_some_and(|rest| rest.iter().all(|c| *c == b'*'))
}

/// The path without doubled or trailing slashes; None when it is not absolute or has `.` or `..` in it.
#[must_use]
pub fn normal(path: &str) -> Option<String> {
    if !path.starts_with('/') || path.contains('\0') {
        return None;
    }
    let mut out = String::new();
    for part in path.split('/').filter(|p| !p.is_empty()) {
        if part == "." || part == ".." {
            return None;
        }
        out.push('/');
        out.push_str(part);
    }
    if out.is_empty() {
        out.push('/');
    }
    Some(out)
}

/// `path` is `folder` or lies below it; both normal.
#[must_use]
pub fn within(path: &str, folder: &str) -> bool {
    folder == "/" || path == folder || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

/// `sha256:` and 64 lower-case hex digits.
#[must_use]
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(is_sha256_hex)
}

/// 64 lower-case hex digits.
#[must_use]
pub fn is_sha256_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// A registry or repository prefix as a policy may name it: no scheme, tag, digest, pattern, empty part.
#[must_use]
pub fn is_repository(text: &str) -> bool {
    !text.is_empty()
        && !text.contains("://")
        && text.split('/').enumerate().all(|(at, part)| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part.bytes().all(|b| {
                    b.is_ascii_lowercase()
                        || b.is_ascii_digit()
                        || matches!(b, b'.' | b'_' | b'-')
                        || (at == 0 && (b == b':' || b.is_ascii_uppercase()))
                })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_on_a_boundary() {
        for (prefix, repository, expected) in [
            ("ghcr.io/corp", "ghcr.io/corp", true),
            ("ghcr.io/corp", "ghcr.io/corp/app", true),
            ("ghcr.io/corp/", "ghcr.io/corp/app", true),
            ("ghcr.io/corp", "ghcr.io/corporate", false),
            ("ghcr.io/corp", "ghcr.io", false),
            ("ghcr.io", "ghcr.io.evil.org/a", false),
            ("", "ghcr.io/a", false),
            ("/", "/a", false),
        ] {
            assert_eq!(covers(prefix, repository), expected, "{prefix} {repository}");
        }
    }

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, text, expected) in [
            ("*@corp.org", "me@corp.org", true),
            ("*@corp.org", "me@corp.org.evil", false),
            ("team-*-*", "team-a-b", true),
            ("team-*-*", "team-a", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a", "", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn paths_are_plain_or_nothing() {
        assert_eq!(normal("//data///x/").as_deref(), Some("/data/x"));
        assert_eq!(normal("/").as_deref(), Some("/"));
        for bad in ["", "data", "/a/../b", "/./a", "/a\0b"] {
            assert_eq!(normal(bad), None, "{bad:?}");
        }
        assert!(within("/proc/sys", "/proc") && within("/proc", "/proc") && within("/x", "/"));
        assert!(!within("/process", "/proc"));
    }

    #[test]
    fn digests_and_repositories() {
        let hex = "a".repeat(64);
        assert!(is_digest(&format!("sha256:{hex}")));
        for bad in [hex.clone(), format!("sha256:{}", "A".repeat(64)), "sha256:ab".into(), format!("sha512:{hex}")] {
            assert!(!is_digest(&bad), "{bad}");
        }
        for good in ["ghcr.io", "localhost:5000/a/b", "127.0.0.1:5000", "docker.io/library/x_y.z-1"] {
            assert!(is_repository(good), "{good}");
        }
        for bad in ["", "https://a/b", "a/*", "a//b", "a/b:tag", "a@sha256:1", "a/../b", "a/B", "a/"] {
            assert!(!is_repository(bad), "{bad}");
        }
    }
}
