//! HTTPS_PROXY and NO_PROXY.
use crate::url::{Url, host_and_port};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::net::IpAddr;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    pub host: String,
    pub port: u16,
    /// Value of `Proxy-Authorization`.
    pub authorization: Option<String>,
}

impl Proxy {
    /// `http://[user:password@]host[:port]`, or without the scheme.
    ///
    /// # Errors
    /// Another scheme, or no host. The text is not in it: it may hold a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = match text.split_once("://") {
            None => text,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => return Err("the proxy is to be spoken to by http".into()),
        };
        let rest = rest.trim_end_matches('/');
        let (user, host) = rest.rsplit_once('@').map_or((None, rest), |(user, host)| (Some(user), host));
        let (host, port) = host_and_port(host).ok_or("the proxy's host cannot be read")?;
        let authorization = user.map(decoded).transpose()?.map(|user| format!("Basic {}", STANDARD.encode(user)));
        Ok(Self { host, port: port.unwrap_or(80), authorization })
    }
}

/// `%xx` as the byte that it is.
fn decoded(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let hex = |b: Option<&u8>| b.and_then(|b| char::from(*b).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        match (first, hex(more.first()), hex(more.get(1))) {
            (b'%', Some(high), Some(low)) => {
                out.push(high * 16 + low);
                rest = more.get(2..).unwrap_or_default();
            }
            (b'%', ..) => return Err("the proxy's user cannot be read".into()),
            (byte, ..) => {
                out.push(*byte);
                rest = more;
            }
        }
    }
    Ok(out)
}

/// Whether `url` is reached without a proxy: by a host's name, a domain's (with or without a leading dot), an address, a
/// range of addresses, with a port or without, or `*`. Entries are separated by commas.
#[must_use]
pub fn passes(no_proxy: &str, url: &Url) -> bool {
    no_proxy.split(',').map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        if entry == "*" {
            return true;
        }
        if let (Some((net, bits)), Ok(address)) = (entry.split_once('/'), url.host.parse::<IpAddr>()) {
            return within(net, bits, address);
        }
        let name = entry.trim_start_matches("*.").trim_start_matches('.');
        let Some((host, port)) = host_and_port(name) else { return false };
        let same = url.host == host || url.host.strip_suffix(&host).is_some_and(|rest| rest.ends_with('.'));
        same && port.is_none_or(|port| port == url.port)
    })
}

fn within(net: &str, bits: &str, address: IpAddr) -> bool {
    let (Ok(net), Ok(bits)) = (net.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    match (net, address) {
        (IpAddr::V4(net), IpAddr::V4(address)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            u32::from(net) & mask == u32::from(address) & mask
        }
        (IpAddr::V6(net), IpAddr::V6(address)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            u128::from(net) & mask == u128::from(address) & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies() {
        let proxy = Proxy::parse("http://a%40b:c@proxy.corp:3128/").unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("proxy.corp", 3128));
        assert_eq!(proxy.authorization.as_deref(), Some("Basic YUBiOmM="));
        assert_eq!(Proxy::parse("p:1").unwrap(), Proxy { host: "p".into(), port: 1, authorization: None });
        for bad in ["https://p:1", "socks5://p", "http://", "http://a%4@p:1"] {
            assert!(Proxy::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_passes_by() {
        let passes = |list: &str, url: &str| passes(list, &Url::parse(url).unwrap());
        for (list, url) in [
            ("corp", "https://a.corp/"),
            (".corp", "https://a.corp/"),
            ("x, *.corp", "https://a.corp/"),
            ("a.corp:8443", "https://a.corp:8443/"),
            ("10.0.0.0/8", "https://10.1.2.3/"),
            ("fd00::/8", "https://[fd00::1]/"),
            ("0.0.0.0/0", "https://1.1.1.1/"),
            ("*", "https://a/"),
        ] {
            assert!(passes(list, url), "{list} {url}");
        }
        for (list, url) in [
            ("", "https://a/"),
            ("corp", "https://acorp/"),
            ("a.corp:8443", "https://a.corp/"),
            ("10.0.0.0/8", "https://11.1.2.3/"),
            ("10.0.0.0/33", "https://10.1.2.3/"),
            ("10.0.0.0/8", "https://ten.corp/"),
        ] {
            assert!(!passes(list, url), "{list} {url}");
        }
    }
}
