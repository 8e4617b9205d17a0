//! `$(NAME)` in a manifest's command, arguments and values, as kubelet expands it (k8s.io/kubernetes, third_party/forked/golang/
//! expansion): a name that is not known stays as it stands, and `$$` is `$`.
use std::collections::BTreeMap;

/// A text that kubelet will make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Text {
    Is(String),
    /// It depends on what no manifest says.
    Unknown,
}

/// What is known of a container's variables.
#[derive(Debug, Default)]
pub(crate) struct Known {
    variables: BTreeMap<String, Text>,
    /// There are more, of names that nobody knows here.
    pub(crate) more: bool,
}

impl Known {
    pub(crate) fn set(&mut self, name: &str, value: Text) {
        self.variables.insert(name.to_owned(), value);
    }

    /// What stands there in the place of `$(name)`.
    fn get(&self, name: &str) -> Text {
        // kubelet puts a namespace's services in, beside what the manifest says.
        let service = name.contains("_SERVICE_") || name.contains("_PORT");
        match self.variables.get(name) {
            Some(value) => value.clone(),
            None if self.more || service => Text::Unknown,
            None => Text::Is(format!("$({name})")),
        }
    }
}

pub(crate) fn expand(text: &str, known: &Known) -> Text {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            match known.get(name) {
                Text::Is(value) => out.push_str(&value),
                Text::Unknown => return Text::Unknown,
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    Text::Is(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_kubelet_expands() {
        let mut known = Known::default();
        known.set("A", Text::Is("1".into()));
        known.set("B", Text::Is("$(A)".into()));
        known.set("S", Text::Unknown);
        let is = |text: &str| match expand(text, &known) {
            Text::Is(text) => text,
            Text::Unknown => "?".into(),
        };
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$(B)", "$(A)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$", "$"),
            ("$$", "$"),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("$(NONE)", "$(NONE)"),
            ("a$(S)", "?"),
            ("$(KUBERNETES_SERVICE_HOST)", "?"),
            ("$(DB_PORT)", "?"),
        ] {
            assert_eq!(is(text), expected, "{text}");
        }
        known.more = true;
        assert_eq!(expand("$(NONE)", &known), Text::Unknown);
        assert_eq!(expand("$(A)", &known), Text::Is("1".into()));
    }
}
