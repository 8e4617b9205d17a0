//! `WWW-Authenticate`: what a registry wants to be told.

/// Longest value that is looked at, bytes.
const MAX: usize = 8192;
/// Most challenges and parameters in one value.
const MAX_PARTS: usize = 32;

/// One scheme with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// In lower case.
    pub scheme: String,
    /// Names in lower case; values without their quotes.
    pub parameters: Vec<(String, String)>,
}

impl Challenge {
    /// The parameter of that name; of two with one name none counts.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.parameters.iter().filter(|(n, _)| n == name);
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Some(value),
            _ => None,
        }
    }
}

/// Reads the value of one header (RFC 9110, 11.6.1). None where it is not written as it should be.
#[must_use]
pub fn parse(value: &str) -> Option<Vec<Challenge>> {
    if value.len() > MAX || !value.bytes().all(|b| b == b' ' || b == b'\t' || b.is_ascii_graphic()) {
        return None;
    }
    let mut rest = value.trim_start_matches([' ', '\t', ',']);
    let mut found: Vec<Challenge> = Vec::new();
    let mut parts = 0;
    while !rest.is_empty() {
        parts += 1;
        if parts > MAX_PARTS {
            return None;
        }
        let (word, after) = token(rest)?;
        let spaced = after.trim_start_matches([' ', '\t']);
        // A name before `=` is a parameter of the challenge before it; any other word begins a challenge.
        if let Some(after) = spaced.strip_prefix('=').filter(|after| !after.starts_with('=')) {
            let (value, after) = value_of(after.trim_start_matches([' ', '\t']))?;
            found.last_mut()?.parameters.push((word.to_ascii_lowercase(), value));
            rest = next(after)?;
        } else {
            found.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
            // A scheme alone ends at a comma; with parameters, a blank follows.
            rest = if spaced.is_empty() || spaced.starts_with(',') { next(spaced)? } else { spaced };
            if rest == after && !rest.is_empty() {
                return None;
            }
        }
    }
    Some(found)
}

/// What follows a comma, or nothing.
fn next(text: &str) -> Option<&str> {
    let text = text.trim_start_matches([' ', '\t']);
    if text.is_empty() { Some(text) } else { text.strip_prefix(',').map(|t| t.trim_start_matches([' ', '\t', ','])) }
}

fn token(text: &str) -> Option<(&str, &str)> {
    let of_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let end = text.bytes().position(|b| !of_token(b)).unwrap_or(text.len());
    if end == 0 { None } else { Some(text.split_at(end)) }
}

fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        return token(text).map(|(value, rest)| (value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, quoted.get(at + 1..)?)),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_registries_send() {
        let read = parse(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
        )
        .unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].scheme, "bearer");
        assert_eq!(read[0].get("realm"), Some("https://auth.docker.io/token"));
        assert_eq!(read[0].get("scope"), Some("repository:a/b:pull,push"));
        let read = parse(r#"Negotiate, Basic realm = "a \"b\"" , charset=UTF-8, Bearer realm=x"#).unwrap();
        let schemes: Vec<_> = read.iter().map(|c| c.scheme.as_str()).collect();
        assert_eq!(schemes, ["negotiate", "basic", "bearer"]);
        assert_eq!(read[1].get("realm"), Some("a \"b\""));
        assert_eq!(parse("Basic").unwrap().len(), 1);
    }

    #[test]
    fn what_is_malformed_is_nothing() {
        for bad in
            ["realm=x", "Bearer realm=\"x", "Bearer realm=\"x\" y=\"z\"", "Bearer realm=", "=", "\"", "Bearer \u{e9}"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(parse(&"a,".repeat(40)), None);
        assert_eq!(parse(&"a".repeat(9000)), None);
        // Of two realms none is followed.
        assert_eq!(parse("Bearer realm=a,realm=b").unwrap()[0].get("realm"), None);
    }
}
