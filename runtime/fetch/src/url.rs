//! The part of URLs that registries need: scheme, host, port, path with query. Strict: what is odd is refused.
use std::fmt;

/// Longest URL, bytes: the signed ones of blob stores are long.
const MAX: usize = 8192;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    pub tls: bool,
    /// Lower case; an IPv6 address without its brackets.
    pub host: String,
    pub port: u16,
    /// Begins with `/`; with the query.
    pub path: String,
}

impl Url {
    /// An absolute URL of `https` or `http`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("a URL that is too long or not plain ASCII".into());
        }
        let (scheme, rest) = text.split_once("://").ok_or("a URL without a scheme")?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err("a URL that is neither https nor http".into()),
        };
        // What is behind # never leaves the client.
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (host, port) = host_and_port(authority).ok_or("a URL whose host cannot be read")?;
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { tls, host, port: port.unwrap_or(if tls { 443 } else { 80 }), path })
    }

    /// Where `location` leads from here: an absolute URL, or a path of the same host.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn join(&self, location: &str) -> Result<Self, String> {
        if location.starts_with("//") || !location.starts_with('/') {
            let absolute = match location.strip_prefix("//") {
                Some(rest) => &format!("{}://{rest}", self.scheme()),
                None => location,
            };
            return Self::parse(absolute);
        }
        Self::parse(&format!("{}://{}{location}", self.scheme(), self.authority()))
    }

    fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// As the `Host` header has it.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = bracketed(&self.host);
        if self.port == if self.tls { 443 } else { 80 } { host } else { format!("{host}:{}", self.port) }
    }

    /// Whether one may be told what the other is told: scheme, host and port are the same.
    #[must_use]
    pub fn same_place(&self, other: &Self) -> bool {
        (self.tls, &self.host, self.port) == (other.tls, &other.host, other.port)
    }
}

impl fmt::Display for Url {
    /// Without the query: it may hold a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme(), self.authority(), self.path.split('?').next().unwrap_or_default())
    }
}

/// An IPv6 address in brackets, any other host as it is.
#[must_use]
pub fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`; no user. The host in lower case.
#[must_use]
pub fn host_and_port(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
    } else {
        let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if host.is_empty() || host.len() > 253 || !host.bytes().all(plain) || host.starts_with(['.', '-']) {
            return None;
        }
        (host, port)
    };
    let port = match port {
        None => None,
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => Some(port.parse().ok().filter(|p| *p > 0)?),
        Some(_) => return None,
    };
    Some((host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_registries_say_is_read() {
        let url = Url::parse("https://Auth.Example:8443/token?service=a#x").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.path.as_str()), ("auth.example", 8443, "/token?service=a"));
        assert_eq!(url.to_string(), "https://auth.example:8443/token");
        let url = Url::parse("http://[::1]:5000").unwrap();
        assert_eq!((url.tls, url.host.as_str(), url.port, url.path.as_str()), (false, "::1", 5000, "/"));
        assert_eq!(url.authority(), "[::1]:5000");
        assert_eq!(url.join("/v2/x?n=1").unwrap().path, "/v2/x?n=1");
        assert_eq!(url.join("//other/x").unwrap().host, "other");
        assert_eq!(Url::parse("https://a?b").unwrap().path, "/?b");
    }

    #[test]
    fn what_is_odd_is_refused() {
        for bad in [
            "",
            "/path",
            "ftp://a/",
            "https://",
            "https://user:secret@a/",
            "https://a:0/",
            "https://a:99999/",
            "https://a:+80/",
            "https://a b/",
            "https://a/\r\nx: y",
            "https://[::1/",
            "https://[a]/",
            "https://-a/",
            "https://é/",
        ] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
        let here = Url::parse("https://a/b").unwrap();
        assert!(here.join("c").is_err() && here.join("https:/x").is_err());
        assert!(Url::parse(&format!("https://a/{}", "x".repeat(9000))).is_err());
        for other in ["http://a/", "https://a:444/", "https://b/"] {
            assert!(!here.same_place(&Url::parse(other).unwrap()), "{other}");
        }
        assert!(here.same_place(&Url::parse("https://A:443/x").unwrap()));
    }
}
