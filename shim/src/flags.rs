//! The command line, in the form of Go's `flag` package: `-name value`, `-name=value`, one dash or two, the action last.

use anyhow::{Context as _, Result, bail};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Start,
    Delete,
    /// The server that `start` leaves behind; not for containerd.
    Serve,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) namespace: String,
    /// containerd's gRPC socket.
    pub(crate) address: String,
    pub(crate) publish_binary: String,
    pub(crate) id: String,
    /// Empty but for `delete` and `serve`: otherwise the working folder is the bundle.
    pub(crate) bundle: String,
    /// The server's own socket, for `serve` alone.
    pub(crate) socket: String,
    pub(crate) debug: bool,
    pub(crate) version: bool,
    pub(crate) info: bool,
    pub(crate) action: Option<Action>,
}

impl Flags {
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Self> {
        let mut flags = Self::default();
        let mut args = args;
        while let Some(arg) = args.next() {
            let Some(name) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
                flags.action = Some(action(&arg)?);
                if let Some(extra) = args.next() {
                    bail!("unexpected argument {extra:?} after {arg:?}");
                }
                break;
            };
            let (name, inline) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name, None),
            };
            if let Some(switch) = flags.switch(name) {
                *switch = match inline.as_deref() {
                    None | Some("true" | "1") => true,
                    Some("false" | "0") => false,
                    Some(other) => bail!("-{name} is true or false, not {other:?}"),
                };
                continue;
            }
            let slot = flags.text(name).with_context(|| format!("unknown flag -{name}"))?;
            *slot = match inline {
                Some(value) => value,
                None => args.next().with_context(|| format!("-{name} needs a value"))?,
            };
        }
        if flags.action.is_some() && !flags.version && !flags.info {
            flags.check()?;
        }
        Ok(flags)
    }

    /// What every action needs, and what may not be in a name that becomes part of a path.
    fn check(&self) -> Result<()> {
        for (name, value) in [("namespace", &self.namespace), ("id", &self.id)] {
            if value.is_empty() {
                bail!("-{name} is missing");
            }
            if value == "." || value == ".." || value.contains(['/', '\0']) {
                bail!("-{name} {value:?} is not a name");
            }
        }
        Ok(())
    }

    fn switch(&mut self, name: &str) -> Option<&mut bool> {
        Some(match name {
            "debug" => &mut self.debug,
            "v" | "version" => &mut self.version,
            "info" => &mut self.info,
            _ => return None,
        })
    }

    fn text(&mut self, name: &str) -> Option<&mut String> {
        Some(match name {
            "namespace" => &mut self.namespace,
            "address" => &mut self.address,
            "publish-binary" => &mut self.publish_binary,
            "id" => &mut self.id,
            "bundle" => &mut self.bundle,
            "socket" => &mut self.socket,
            _ => return None,
        })
    }
}

fn action(arg: &str) -> Result<Action> {
    Ok(match arg {
        "start" => Action::Start,
        "delete" => Action::Delete,
        "serve" => Action::Serve,
        _ => bail!("unknown action {arg:?}: expected start or delete"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Flags> {
        Flags::parse(args.iter().map(|arg| (*arg).to_owned()))
    }

    #[test]
    fn takes_what_containerd_sends() {
        let flags = parse(&[
            "-namespace",
            "k8s.io",
            "-address",
            "/run/c.sock",
            "-publish-binary",
            "/bin/c",
            "-debug",
            "-id",
            "a",
            "start",
        ])
        .unwrap();
        assert_eq!((flags.namespace.as_str(), flags.id.as_str(), flags.debug), ("k8s.io", "a", true));
        assert_eq!((flags.address.as_str(), flags.publish_binary.as_str()), ("/run/c.sock", "/bin/c"));
        assert_eq!(flags.action, Some(Action::Start));
        let flags = parse(&["--namespace=n", "-id=i", "-bundle", "/b", "-debug=false", "delete"]).unwrap();
        assert_eq!((flags.namespace.as_str(), flags.bundle.as_str(), flags.debug), ("n", "/b", false));
        assert_eq!(flags.action, Some(Action::Delete));
    }

    #[test]
    fn info_and_version_need_no_names() {
        assert!(parse(&["-info"]).unwrap().info);
        assert!(parse(&["-v"]).unwrap().version && parse(&["-version"]).unwrap().version);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for args in [
            &["-frobnicate", "x", "start"][..],
            &["-namespace"],
            &["-namespace", "n", "-id", "i", "stop"],
            &["-namespace", "n", "-id", "i", "start", "more"],
            &["-namespace", "n", "start"],
            &["-id", "i", "start"],
            &["-namespace", "n", "-id", "../i", "start"],
            &["-namespace", "..", "-id", "i", "delete"],
            &["-debug=maybe", "-namespace", "n", "-id", "i", "start"],
        ] {
            assert!(parse(args).is_err(), "{args:?}");
        }
    }
}
