//! Environment variables: which of them make a program load other code, and which kubelet and containerd put in.
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// One variable of a process. Its value is compared and never shown: it may be a secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    pub name: String,
    #[serde(skip)]
    value: Hidden,
}

/// Text that no debug output and no serialisation holds.
#[derive(Clone, Default, PartialEq, Eq)]
struct Hidden(String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Variable {
    /// `NAME=value`; without a `=` the value is empty.
    #[must_use]
    pub fn of(entry: &str) -> Self {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        Self { name: name.into(), value: Hidden(value.into()) }
    }

    /// A loader, or an interpreter before its first line, takes code or where to find it from this variable.
    #[must_use]
    pub fn is_loader(&self) -> bool {
        match self.name.as_str() {
            // What a shell reads before its first command, and what many call their stage by: a plain word leads nowhere else.
            "ENV" => !self.value.0.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')),
            name => names_loader(name),
        }
    }

    /// Of the name and form that kubelet and containerd give to what they put in themselves.
    #[must_use]
    pub fn is_injected(&self) -> bool {
        let value = self.value.0.as_str();
        match self.name.as_str() {
            "PATH" => value == DEFAULT_PATH,
            "TERM" => value == "xterm",
            "HOME" => matches!(value, "/" | "/root") || value.strip_prefix("/home/").is_some_and(is_host),
            "HOSTNAME" => is_host(value),
            name => is_service(name, value),
        }
    }
}

/// Whether a variable of that name is one that loaders and interpreters take code from.
#[must_use]
pub fn names_loader(name: &str) -> bool {
    LOADERS.contains(&name) || LOADER_FAMILIES.iter().any(|prefix| name.starts_with(prefix))
}

/// The search path that containerd gives to an image that names none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// glibc and musl; OpenSSL; the JVMs; Node.js; Python; Perl; Ruby; PHP; shells; .NET; Erlang; Tcl.
const LOADERS: [&str; 67] = [
    "GCONV_PATH",
    "GETCONF_DIR",
    "GLIBC_TUNABLES",
    "LD_AUDIT",
    "LD_BIND_NOT",
    "LD_DEBUG",
    "LD_DEBUG_OUTPUT",
    "LD_DYNAMIC_WEAK",
    "LD_HWCAP_MASK",
    "LD_LIBRARY_PATH",
    "LD_ORIGIN_PATH",
    "LD_PRELOAD",
    "LD_PROFILE",
    "LD_PROFILE_OUTPUT",
    "LD_SHOW_AUXV",
    "LD_TRACE_LOADED_OBJECTS",
    "LOCPATH",
    "MALLOC_TRACE",
    "MUSL_LOCPATH",
    "NLSPATH",
    "OPENSSL_CONF",
    "OPENSSL_ENGINES",
    "OPENSSL_MODULES",
    "CLASSPATH",
    "IBM_JAVA_OPTIONS",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "OPENJ9_JAVA_OPTIONS",
    "_JAVA_OPTIONS",
    "NODE_OPTIONS",
    "NODE_PATH",
    "NODE_REPL_EXTERNAL_MODULE",
    "PYTHONBREAKPOINT",
    "PYTHONEXECUTABLE",
    "PYTHONHOME",
    "PYTHONINSPECT",
    "PYTHONPATH",
    "PYTHONPLATLIBDIR",
    "PYTHONPYCACHEPREFIX",
    "PYTHONSTARTUP",
    "PYTHONUSERBASE",
    "PYTHONWARNINGS",
    "PERL5DB",
    "PERL5LIB",
    "PERL5OPT",
    "PERLLIB",
    "BUNDLE_GEMFILE",
    "GEM_HOME",
    "GEM_PATH",
    "RUBYLIB",
    "RUBYOPT",
    "PHPRC",
    "PHP_INI_SCAN_DIR",
    "BASHOPTS",
    "BASH_ENV",
    "ENV",
    "PROMPT_COMMAND",
    "PS4",
    "SHELLOPTS",
    "ZDOTDIR",
    "DOTNET_ADDITIONAL_DEPS",
    "DOTNET_STARTUP_HOOKS",
    "ERL_AFLAGS",
    "ERL_FLAGS",
    "ERL_LIBS",
    "ERL_ZFLAGS",
    "TCLLIBPATH",
];

/// Names that begin so: functions that bash takes from the environment, profilers of .NET, Lua with its versions.
const LOADER_FAMILIES: [&str; 6] = ["BASH_FUNC_", "CORECLR_", "COR_PROFILER", "LUA_CPATH", "LUA_INIT", "LUA_PATH"];

/// A service of the namespace, as kubelet tells of it: `NAME_SERVICE_HOST`, `NAME_SERVICE_PORT[_PORTNAME]`, `NAME_PORT` and
/// `NAME_PORT_<number>_<protocol>[_PROTO|_PORT|_ADDR]`.
fn is_service(name: &str, value: &str) -> bool {
    if let Some(service) = name.strip_suffix("_SERVICE_HOST") {
        return is_service_name(service) && value.parse::<IpAddr>().is_ok();
    }
    if let Some((service, port)) = name.split_once("_SERVICE_PORT") {
        let named = port.is_empty() || port.strip_prefix('_').is_some_and(is_word);
        return named && is_service_name(service) && is_port(value);
    }
    if let Some(service) = name.strip_suffix("_PORT")
        && is_service_name(service)
        && is_url(value)
    {
        return true;
    }
    let Some((service, rest)) = name.split_once("_PORT_") else { return false };
    let mut parts = rest.split('_');
    let (number, protocol, what, more) = (parts.next(), parts.next(), parts.next(), parts.next());
    let known = number.is_some_and(is_port) && matches!(protocol, Some("TCP" | "UDP" | "SCTP")) && more.is_none();
    known
        && is_service_name(service)
        && match what {
            None => is_url(value),
            Some("PROTO") => matches!(value, "tcp" | "udp" | "sctp"),
            Some("PORT") => is_port(value),
            Some("ADDR") => value.parse::<IpAddr>().is_ok(),
            Some(_) => false,
        }
}

fn is_service_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase()) && is_word(text)
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port != 0 && port.to_string() == text)
}

/// `tcp://10.96.0.1:443`.
fn is_url(text: &str) -> bool {
    text.split_once("://")
        .is_some_and(|(protocol, at)| matches!(protocol, "tcp" | "udp" | "sctp") && at.parse::<SocketAddr>().is_ok())
}

/// A name of a host: no slash, nothing that a shell would read otherwise.
fn is_host(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && !text.starts_with('.')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_compared_and_never_shown() {
        let secret = Variable::of("TOKEN=s3cret=x");
        assert_eq!((secret.name.as_str(), secret == Variable::of("TOKEN=s3cret=x")), ("TOKEN", true));
        assert_ne!(secret, Variable::of("TOKEN=other"));
        assert_ne!(secret, Variable::of("TOKENS=s3cret=x"));
        assert_eq!(Variable::of("BARE"), Variable::of("BARE="));
        assert_eq!(format!("{secret:?}"), "Variable { name: \"TOKEN\", value: 8 bytes }");
        let told = toml::Value::try_from(&secret).unwrap();
        assert_eq!(told, toml::from_str("name = \"TOKEN\"").unwrap());
        // What was told without its value is no value that anybody signed.
        assert_eq!(toml::from_str::<Variable>("name = \"TOKEN\"").unwrap(), Variable::of("TOKEN"));
    }

    #[test]
    fn loaders_by_their_names() {
        for name in LOADERS.into_iter().filter(|name| *name != "ENV") {
            assert!(Variable::of(&format!("{name}=x")).is_loader(), "{name}");
        }
        for name in
            ["BASH_FUNC_ls%%", "CORECLR_ENABLE_PROFILING", "COR_PROFILER_PATH", "LUA_CPATH_5_4", "LUA_INIT", "LUA_PATH"]
        {
            assert!(Variable::of(&format!("{name}=")).is_loader(), "{name}");
        }
        for name in
            ["LD_SDK_KEY", "ld_preload", "XLD_PRELOAD", "LD_PRELOADX", "PATH", "JAVA_OPTS", "PYTHONUNBUFFERED", ""]
        {
            assert!(!Variable::of(&format!("{name}=/x")).is_loader(), "{name}");
        }
    }

    /// `ENV=production` names a stage, `ENV=/tmp/x` a file that a shell reads.
    #[test]
    fn of_env_a_plain_word_is_no_file() {
        for (entry, expected) in [
            ("ENV=production", false),
            ("ENV=eu-west_1", false),
            ("ENV=", false),
            ("ENV=/data/rc", true),
            ("ENV=rc.sh", true),
            ("ENV=$HOME", true),
            ("ENV=`x`", true),
            ("ENV=~", true),
        ] {
            assert_eq!(Variable::of(entry).is_loader(), expected, "{entry}");
        }
        assert!(names_loader("ENV"));
    }

    #[test]
    fn what_kubelet_and_containerd_put_in() {
        for entry in [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "TERM=xterm",
            "HOME=/",
            "HOME=/root",
            "HOME=/home/app",
            "HOSTNAME=web-0.corp_x",
            "KUBERNETES_SERVICE_HOST=10.96.0.1",
            "KUBERNETES_SERVICE_HOST=fd00::1",
            "KUBERNETES_SERVICE_PORT=443",
            "KUBERNETES_SERVICE_PORT_HTTPS=443",
            "KUBERNETES_PORT=tcp://10.96.0.1:443",
            "KUBERNETES_PORT=tcp://[fd00::1]:443",
            "KUBERNETES_PORT_443_TCP=tcp://10.96.0.1:443",
            "KUBERNETES_PORT_443_TCP_PROTO=tcp",
            "DNS_2_PORT_53_UDP_PROTO=udp",
            "X_PORT_5_SCTP_PROTO=sctp",
            "X_PORT_5_SCTP=sctp://10.0.0.1:5",
            "KUBERNETES_PORT_443_TCP_PORT=443",
            "KUBERNETES_PORT_443_TCP_ADDR=10.96.0.1",
            "MY_DB_SERVICE_HOST=10.0.0.7",
        ] {
            assert!(Variable::of(entry).is_injected(), "{entry}");
        }
    }

    #[test]
    fn what_only_looks_like_it() {
        for entry in [
            "PATH=/data:/usr/bin",
            "TERM=../x",
            "HOME=/data",
            "HOME=/home/",
            "HOME=/home/a/b",
            "HOME=/home/..",
            "HOME=",
            "HOSTNAME=",
            "HOSTNAME=a/b",
            "HOSTNAME=.x",
            "A_SERVICE_HOST=evil.example",
            "a_SERVICE_HOST=10.0.0.1",
            "_SERVICE_HOST=10.0.0.1",
            "1A_SERVICE_HOST=10.0.0.1",
            "A-B_SERVICE_HOST=10.0.0.1",
            "A_SERVICE_PORT=0",
            "A_SERVICE_PORT=080",
            "A_SERVICE_PORT=65536",
            "A_SERVICE_PORT_=80",
            "A_SERVICE_PORT_http=80",
            "A_SERVICE_PORTX=80",
            "_SERVICE_PORT=80",
            "A_PORT=80",
            "A_PORT=http://10.0.0.1:80",
            "A_PORT=tcp://evil:80",
            "A_PORT=tcp://10.0.0.1",
            "_PORT=tcp://10.0.0.1:80",
            "A_PORT_80_TCP=80",
            "A_PORT_80_ICMP=tcp://10.0.0.1:80",
            "A_PORT_x_TCP=tcp://10.0.0.1:80",
            "A_PORT_80_TCP_PROTO=icmp",
            "A_PORT_80_TCP_PORT=x",
            "A_PORT_80_TCP_ADDR=x",
            "A_PORT_80_TCP_OTHER=80",
            "A_PORT_80_TCP_PORT_X=80",
            "_PORT_80_TCP_PORT=80",
            "A_PORT_80=80",
            "LOG_LEVEL=debug",
        ] {
            assert!(!Variable::of(entry).is_injected(), "{entry}");
        }
        assert!(is_host(&"a".repeat(253)) && !is_host(&"a".repeat(254)));
    }
}
