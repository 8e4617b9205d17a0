//! What can go wrong in a launch. After any of these nothing is left: no process, mount, cgroup or state.

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaunchError {
    /// What was made is not what was approved: one line per difference.
    Inspection(Vec<String>),
    /// Something that cannot be enforced here and is therefore not started.
    Unsupported(String),
    /// The deadline passed; the text says during what.
    TimedOut(String),
    /// The program could not be executed.
    Exec(String),
    /// Any other failure of the kernel or of libcontainer.
    Other(String),
}

impl LaunchError {
    /// An I/O error with what was being done.
    pub(crate) fn io(doing: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Self {
        move |e| Self::Other(format!("cannot {doing}: {e}"))
    }

    pub(crate) fn errno(doing: impl std::fmt::Display) -> impl FnOnce(nix::Error) -> Self {
        move |e| Self::Other(format!("cannot {doing}: {e}"))
    }
}

impl std::fmt::Display for LaunchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inspection(lines) => write!(f, "the container is not what was approved: {}", lines.join("; ")),
            Self::Unsupported(text) | Self::Other(text) => f.write_str(text),
            Self::TimedOut(text) => write!(f, "deadline passed while {text}"),
            Self::Exec(text) => write!(f, "exec: {text}"),
        }
    }
}

impl std::error::Error for LaunchError {}
