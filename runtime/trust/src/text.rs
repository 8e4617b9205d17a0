//! Comparing text with what it must be, byte by byte, with fixed memory: the gate's replacement for a JSON parser.

/// A reading position in signed bytes. Every step either matches and moves on, or says no.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    /// White space between tokens is passed over (protojson writes it at random); none is otherwise.
    spaced: bool,
}

impl<'a> Cursor<'a> {
    pub(crate) fn compact(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, spaced: false }
    }

    pub(crate) fn spaced(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, spaced: true }
    }

    fn skip(&mut self) {
        while self.spaced
            && let Some((b' ' | b'\t' | b'\r' | b'\n', rest)) = self.rest.split_first()
        {
            self.rest = rest;
        }
    }

    fn byte(&mut self, want: u8) -> bool {
        match self.rest.split_first() {
            Some((byte, rest)) if *byte == want => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn token(&mut self, want: u8) -> bool {
        self.skip();
        self.byte(want)
    }

    /// Whether exactly `template` stands here. It is JSON without white space and without escapes; inside its quotes
    /// nothing is passed over.
    pub(crate) fn template(&mut self, template: &str) -> bool {
        let mut quoted = false;
        for byte in template.bytes() {
            if !quoted {
                self.skip();
            }
            if !self.byte(byte) {
                return false;
            }
            quoted ^= byte == b'"';
        }
        true
    }

    pub(crate) fn end(mut self) -> bool {
        self.skip();
        self.rest.is_empty()
    }

    /// An object of texts and whole numbers, nothing nested: what annotations are.
    pub(crate) fn flat_object(&mut self) -> bool {
        if !self.token(b'{') {
            return false;
        }
        if self.token(b'}') {
            return true;
        }
        loop {
            if !(self.string() && self.token(b':') && (self.string() || self.integer())) {
                return false;
            }
            if !self.token(b',') {
                return self.token(b'}');
            }
        }
    }

    fn string(&mut self) -> bool {
        if !self.token(b'"') {
            return false;
        }
        loop {
            match self.rest.split_first() {
                Some((b'"', rest)) => {
                    self.rest = rest;
                    return true;
                }
                Some((b'\\', rest)) => match rest.split_first() {
                    Some((b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', rest)) => self.rest = rest,
                    Some((b'u', rest)) => match rest.split_at_checked(4) {
                        Some((digits, rest)) if digits.iter().all(u8::is_ascii_hexdigit) => self.rest = rest,
                        _ => return false,
                    },
                    _ => return false,
                },
                Some((0x20.., rest)) => self.rest = rest,
                _ => return false,
            }
        }
    }

    fn integer(&mut self) -> bool {
        self.skip();
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.rest = self.rest.get(digits..).unwrap_or_default();
        (1..=20).contains(&digits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(text: &str) -> bool {
        let mut cursor = Cursor::spaced(text.as_bytes());
        cursor.flat_object() && cursor.end()
    }

    #[test]
    fn flat_objects() {
        for good in ["{}", " { } ", r#"{"a":"b"}"#, r#"{"a":"b","c":12}"#, r#"{ "a" : "\u0026\"\\" , "b":"é" }"#] {
            assert!(flat(good), "{good}");
        }
        for bad in [
            "",
            "{",
            "[]",
            r#"{"a"}"#,
            r#"{"a":{}}"#,
            r#"{"a":["b"]}"#,
            r#"{"a":"b",}"#,
            r#"{"a":"b"}}"#,
            r#"{"a":"\x"}"#,
            r#"{"a":"\u00"}"#,
            r#"{"a":"b}"#,
            "{\"a\":\"\n\"}",
            r#"{"a":true}"#,
            r#"{"a":}"#,
            r#"{a:1}"#,
            r#"{"a":"\"#,
        ] {
            assert!(!flat(bad), "{bad}");
        }
    }

    #[test]
    fn white_space_counts_only_where_it_may_not_be() {
        let template = r#"{"a b":["c"]}"#;
        let matches = |mut cursor: Cursor<'_>| cursor.template(template) && cursor.end();
        assert!(matches(Cursor::compact(template.as_bytes())));
        assert!(matches(Cursor::spaced(b" { \"a b\" :\n[ \"c\" ]\t}\r\n")));
        assert!(!matches(Cursor::compact(b"{ \"a b\":[\"c\"]}")));
        assert!(!matches(Cursor::spaced(b"{\"a  b\":[\"c\"]}")));
        assert!(!matches(Cursor::spaced(b"{\"ab\":[\"c\"]}")));
        assert!(!matches(Cursor::spaced(b"{\"a b\":[\"c\"]}}")));
        assert!(!matches(Cursor::spaced(b"{\"a b\":[\"c\"]")));
    }
}
