//! One error type. Its text is a fact and, where there is one, a fix; it never quotes bytes that came from outside.
use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Nothing came before the deadline; what was waited for.
    Deadline(&'static str),
    /// A system call failed: what it was for, and errno's text.
    Io(String, String),
    /// The TPM answered with an error: command name and response code (TPM 2.0 part 2, section 6.6).
    Code(&'static str, u32),
    /// Bytes that do not have the one form they must have: what they are, and what is wrong.
    Malformed(&'static str, &'static str),
    /// Well-formed, but not what it has to be.
    Refused(String),
}

impl Error {
    pub(crate) fn io(what: impl Into<String>, error: impl fmt::Display) -> Self {
        Self::Io(what.into(), error.to_string())
    }

    pub(crate) fn refused(why: impl Into<String>) -> Self {
        Self::Refused(why.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deadline(what) => write!(f, "no answer in time: {what}"),
            Self::Io(what, error) => write!(f, "{what}: {error}"),
            Self::Code(command, code) => {
                write!(f, "the TPM refused {command} with 0x{code:03x}{}", meaning(*code))
            }
            Self::Malformed(what, why) => write!(f, "malformed {what}: {why}"),
            Self::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {}

/// What the codes that an operator can act on mean. Format-one codes carry the number of the handle, parameter or
/// session in bits 8 to 11 and the parameter flag in bit 6: those are masked off.
fn meaning(code: u32) -> &'static str {
    match code {
        0x100 => " (not started up). Fix: the firmware or swtpm's startup-clear flag starts it",
        0x902 => " (no room for another loaded key). Fix: flush the transient handles that another program left",
        0x921 => " (locked out). Fix: wait, or reset the lockout",
        code if code & 0x80 != 0 => match code & 0x3f {
            0x0b => " (no such handle)",
            0x0e | 0x22 => " (authorization failed). Fix: boltseal uses the empty password of that hierarchy or key",
            0x04 => " (value out of range)",
            0x05 => " (hierarchy disabled). Fix: enable the endorsement hierarchy in the firmware",
            _ => "",
        },
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_can_be_acted_on_say_so() {
        assert_eq!(
            Error::Code("ReadPublic", 0x18b).to_string(),
            "the TPM refused ReadPublic with 0x18b (no such handle)"
        );
        assert!(Error::Code("CreatePrimary", 0x902).to_string().contains("flush"));
        assert!(Error::Code("CreatePrimary", 0x9a2).to_string().contains("empty password"));
        assert_eq!(Error::Code("Quote", 0x123).to_string(), "the TPM refused Quote with 0x123");
    }
}
