//! An OCI seccomp profile (runtime-spec config-linux, "Seccomp") as JSON, read strictly.
use serde::Deserialize;

/// `linux.seccomp`; unknown fields are refused, `comment` is ours.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Profile {
    pub default_action: String,
    pub default_errno_ret: Option<u32>,
    #[serde(default)]
    pub architectures: Option<Vec<String>>,
    #[serde(default)]
    pub flags: Option<Vec<String>>,
    pub listener_path: Option<String>,
    pub listener_metadata: Option<String>,
    #[serde(default)]
    pub syscalls: Option<Vec<Rule>>,
}

/// One entry of `syscalls`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    pub names: Vec<String>,
    pub action: String,
    pub errno_ret: Option<u32>,
    #[serde(default)]
    pub args: Option<Vec<Arg>>,
    #[serde(default, rename = "comment")]
    _comment: String,
}

/// A condition on one argument; all 64 bits are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Arg {
    pub index: u8,
    pub value: u64,
    #[serde(default, deserialize_with = "nullable")]
    pub value_two: u64,
    pub op: Op,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Op {
    #[serde(rename = "SCMP_CMP_NE")]
    Ne,
    #[serde(rename = "SCMP_CMP_LT")]
    Lt,
    #[serde(rename = "SCMP_CMP_LE")]
    Le,
    #[serde(rename = "SCMP_CMP_EQ")]
    Eq,
    #[serde(rename = "SCMP_CMP_GE")]
    Ge,
    #[serde(rename = "SCMP_CMP_GT")]
    Gt,
    /// `value` is the mask, `value_two` what the masked argument must be.
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEq,
}

fn nullable<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    Ok(Option::<u64>::deserialize(from)?.unwrap_or(0))
}

/// What the kernel does with a call. The order is the kernel's own when several filters answer: the least wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    KillProcess,
    KillThread,
    Trap,
    Errno(u16),
    /// The call waits for who holds the listener, which answers with this errno and nothing else; ENOSYS without one.
    Notify(u16),
    Log,
    Allow,
}

impl Action {
    /// `SECCOMP_RET_*` with its data.
    #[must_use]
    pub fn ret(self) -> u32 {
        match self {
            Self::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
            Self::KillThread => libc::SECCOMP_RET_KILL_THREAD,
            Self::Trap => libc::SECCOMP_RET_TRAP,
            Self::Errno(errno) => libc::SECCOMP_RET_ERRNO | u32::from(errno),
            Self::Notify(_) => libc::SECCOMP_RET_USER_NOTIF,
            Self::Log => libc::SECCOMP_RET_LOG,
            Self::Allow => libc::SECCOMP_RET_ALLOW,
        }
    }

    /// `SCMP_ACT_*`. Trace needs a second process that can say yes, so it is refused; so does notify, but in our own
    /// profile, whose listener only ever says no: `errnoRet` is its answer there.
    pub(crate) fn parse(name: &str, errno: Option<u32>) -> Result<Self, String> {
        let errno = || {
            let errno = errno.unwrap_or(libc::EPERM.unsigned_abs());
            // The kernel caps it at MAX_ERRNO.
            let small = u16::try_from(errno).ok().filter(|e| *e <= 4095);
            small.ok_or_else(|| format!("errnoRet {errno} is above 4095"))
        };
        let action = match name {
            "SCMP_ACT_ALLOW" => Self::Allow,
            "SCMP_ACT_LOG" => Self::Log,
            "SCMP_ACT_ERRNO" => Self::Errno(errno()?),
            "SCMP_ACT_NOTIFY" => Self::Notify(errno()?),
            "SCMP_ACT_TRAP" => Self::Trap,
            "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Self::KillThread,
            "SCMP_ACT_KILL_PROCESS" => Self::KillProcess,
            other => return Err(format!("action {other} is not supported")),
        };
        Ok(action)
    }
}
