//! Names of shells, and of daemons by which somebody gets in. A name is the whole name: `bash-completion` is no shell.
use boltseal_policy::facts::FoundKind;

const SHELLS: &[&str] = &[
    "sh",
    "bash",
    "bash-static",
    "rbash",
    "dash",
    "ash",
    "busybox",
    "busybox-static",
    "busybox.static",
    "toybox",
    "hush",
    "zsh",
    "zsh5",
    "zsh-static",
    "rzsh",
    "ksh",
    "ksh93",
    "rksh",
    "rksh93",
    "mksh",
    "mksh-static",
    "lksh",
    "oksh",
    "loksh",
    "pdksh",
    "yash",
    "posh",
    "fish",
    "csh",
    "bsd-csh",
    "tcsh",
    "sash",
    "scsh",
    "rssh",
    "lshell",
    "nu",
    "elvish",
    "xonsh",
    "pwsh",
    "powershell",
    "gosh",
    "oil.ovm",
    "osh",
    "ysh",
    "brush",
];

const REMOTE: &[&str] = &[
    "sshd",
    "sshd-session",
    "sshd-auth",
    "dropbear",
    "dropbearmulti",
    "tinysshd",
    "lshd",
    "telnetd",
    "in.telnetd",
    "utelnetd",
    "rshd",
    "in.rshd",
    "rlogind",
    "in.rlogind",
    "rexecd",
    "in.rexecd",
    "mosh-server",
    "etserver",
    "xrdp",
    "xrdp-sesman",
    "vncserver",
    "tigervncserver",
    "tightvncserver",
    "vncserver-x11",
    "vncserver-x11-serviced",
    "Xvnc",
    "Xtightvnc",
    "x11vnc",
    "x0vncserver",
    "wayvnc",
    "ttyd",
    "gotty",
    "shellinaboxd",
    "wetty",
    "tmate",
    "upterm",
    "cockpit-ws",
    "miniserv.pl",
    "teleport",
    "tailscaled",
    "anydesk",
    "rustdesk",
    "teamviewerd",
    "nxserver",
    "x2goserver",
];

/// What an executable file of that name is.
#[must_use]
pub(crate) fn kind(name: &[u8]) -> Option<FoundKind> {
    let is = |list: &[&str]| list.iter().any(|known| known.as_bytes() == name);
    if is(SHELLS) {
        Some(FoundKind::Shell)
    } else if is(REMOTE) {
        Some(FoundKind::RemoteAdmin)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_whole_names() {
        for shell in ["sh", "bash", "dash", "busybox", "pwsh"] {
            assert_eq!(kind(shell.as_bytes()), Some(FoundKind::Shell), "{shell}");
        }
        for daemon in ["sshd", "dropbear", "in.telnetd", "ttyd"] {
            assert_eq!(kind(daemon.as_bytes()), Some(FoundKind::RemoteAdmin), "{daemon}");
        }
        // Interpreters, clients, and what only begins like a shell.
        for other in ["python3", "perl", "node", "java", "ssh", "telnet", "bash-completion", "shred", "s", "", "sh.so"]
        {
            assert_eq!(kind(other.as_bytes()), None, "{other}");
        }
        assert!(SHELLS.iter().all(|name| !REMOTE.contains(name)));
    }
}
