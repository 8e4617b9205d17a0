//! `/etc/boltseal/fetch.toml`: root's file. Without it everything has the value that is said here.
use crate::url::host_and_port;
use boltseal_evidence::file::{Folder, Owner};
use serde::Deserialize;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

pub const FOLDER: &str = "/etc/boltseal";
pub const FILE: &str = "fetch.toml";
const MAX: u64 = 64 << 10;
/// Where distributions keep the certificates of public authorities.
pub const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Refuse a pull unless a signature verifies by a key or root of the node's policy.
    pub require: bool,
    /// Seconds for all of it; containerd gives a verifier ten.
    pub timeout_seconds: u64,
    /// Whom the child runs as; without it `boltseal-fetch` where there is such a user, else nobody.
    pub user: Option<String>,
    /// PEM bundles of certificate authorities, instead of the system's.
    pub ca: Vec<PathBuf>,
    /// Docker's `config.json`, with the registries' credentials.
    pub docker_config: PathBuf,
    /// Registries on the loopback that are asked without TLS, `host:port`. For tests.
    pub plain_http: Vec<String>,
    /// `http://[user:password@]host:port`; without it the variable HTTPS_PROXY.
    pub https_proxy: Option<String>,
    /// As the variable NO_PROXY, which it stands before.
    pub no_proxy: Option<String>,
    /// TCP ports that may be connected to beside the registry's own, 443 and the proxy's.
    pub ports: Vec<u16>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            require: false,
            timeout_seconds: 8,
            user: None,
            ca: Vec::new(),
            docker_config: "/root/.docker/config.json".into(),
            plain_http: Vec::new(),
            https_proxy: None,
            no_proxy: None,
            ports: Vec::new(),
        }
    }
}

impl Config {
    /// # Errors
    /// A file that is there and is not root's, or that says what cannot be done.
    pub fn load() -> Result<Self, String> {
        let found = Folder::open(Path::new(FOLDER), Owner::Root).and_then(|f| f.read(FILE, MAX, Owner::Root));
        match found {
            Err(problem) if problem.missing => Ok(Self::default()),
            Err(problem) => Err(problem.to_string()),
            Ok((bytes, _)) => {
                let text = std::str::from_utf8(&bytes).map_err(|e| format!("{FOLDER}/{FILE}: {e}"))?;
                Self::parse(text).map_err(|why| format!("{FOLDER}/{FILE}: {why}"))
            }
        }
    }

    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|e| e.to_string().trim_end().replace('\n', " "))?;
        if !(1..=9).contains(&config.timeout_seconds) {
            return Err("timeout_seconds: from 1 to 9, for containerd waits ten seconds".into());
        }
        for registry in &config.plain_http {
            let loopback = host_and_port(registry)
                .and_then(|(host, port)| port.and(host.parse::<IpAddr>().ok()))
                .is_some_and(|address| address.is_loopback());
            if !loopback {
                return Err(format!("plain_http: {registry:?} is no address and port of the loopback"));
            }
        }
        Ok(config)
    }

    /// Whether that registry is asked without TLS.
    #[must_use]
    pub fn plain(&self, registry: &str) -> bool {
        self.plain_http.iter().any(|plain| plain == registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_and_no_other() {
        assert_eq!(Config::parse(""), Ok(Config::default()));
        let all = "require = true\ntimeout_seconds = 5\nuser = \"x\"\nca = [\"/a\"]\ndocker_config = \"/b\"\n\
                   plain_http = [\"127.0.0.1:5000\", \"[::1]:5000\"]\nhttps_proxy = \"http://p:1\"\nno_proxy = \"*\"\nports = [8443]\n";
        let read = Config::parse(all).unwrap();
        assert!(read.require && read.plain("127.0.0.1:5000") && !read.plain("127.0.0.1:5001"));
        for bad in [
            "requires = true",
            "timeout_seconds = 0",
            "timeout_seconds = 10",
            "plain_http = [\"registry:5000\"]",
            "plain_http = [\"10.0.0.1:5000\"]",
            "plain_http = [\"127.0.0.1\"]",
            "plain_http = [\"localhost:5000\"]",
        ] {
            assert!(Config::parse(bad).is_err(), "{bad}");
        }
    }
}
