//! The request and the reply between the shim and the gate (DESIGN section 3).
//!
//! One bounded, versioned frame each way over the socketpair that the gate finds as fd 3. File descriptors travel
//! beside the first byte of a frame (SCM_RIGHTS), in the order that the types below name. This crate has no
//! dependencies and does no I/O: it turns values into bytes and back. It trusts neither side: every length is
//! bounded before anything is allocated, and a frame with bytes left over is refused.
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")
)]

mod anomaly;
mod codec;
mod network;
mod wire;

pub use anomaly::{Anomaly, Class, MAX_COMM, MAX_EXECUTABLE, MAX_WHAT};
pub use network::{At, EVENT_LEN, KINDS, Kind, RING_LEN, Seen};

pub use wire::{
    DecodeError, FrameHeader, FrameKind, HEADER_LEN, MAX_BYTES, MAX_FRAME, MAX_LIST, MAX_STRING, VERSION, read_frame,
};

/// What the shim asks of the gate: one run of the gate answers one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// containerd namespace of the container.
    pub namespace: String,
    /// containerd's gRPC socket path (the shim's `-address`).
    pub address: String,
    /// Container id.
    pub id: String,
    /// The OCI bundle folder that containerd made.
    pub bundle: String,
    /// How long the shim waits for the answer, milliseconds.
    pub deadline_ms: u32,
    pub operation: Operation,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Fds sent along: stdin, stdout, stderr of the container in this order, only those whose flag in `stdio` is set.
    /// With `terminal` none: the gate sends the console's master back.
    Create(Create),
    /// An exec'd process, asked for when it is started. Fds as for `Create`.
    Exec(Exec),
    /// New limits: OCI LinuxResources as JSON.
    Update { resources: Vec<u8> },
    /// Kill what is left, remove the container's cgroup and state. Needs no policy, TPM or containerd. Idempotent.
    /// `events` are appended to the trail first (usually the exit).
    Delete { events: Vec<Event> },
    /// Append events to the trail, nothing else.
    Record { events: Vec<Event> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create {
    pub rootfs: Vec<Mount>,
    pub stdio: Stdio,
    /// `CreateTaskRequest.options`: type url and value; empty when absent.
    pub options: (String, Vec<u8>),
    /// `CreateTaskRequest.checkpoint` and `parent_checkpoint`: anything but empty is refused by the gate.
    pub checkpoint: String,
    pub parent_checkpoint: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    pub exec_id: String,
    pub stdio: Stdio,
    /// OCI Process as JSON, as containerd sent it; at most 1 MiB.
    pub process: Vec<u8>,
}

/// The stdio that containerd asked for, as it named it, and which fds travel with the frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stdio {
    pub terminal: bool,
    /// The URIs or paths of the request (`""` when none): the gate refuses `binary://` (BS-PRC-005).
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    /// Whether an fd for stdin, stdout, stderr travels with the frame.
    pub fds: [bool; 3],
}

/// A mount as in containerd's `types.Mount`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub kind: String,
    pub source: String,
    pub target: String,
    pub options: Vec<String>,
}

/// Something that the shim saw and the trail shall hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Container it belongs to.
    pub id: String,
    /// Empty for init.
    pub exec_id: String,
    /// Wall clock, nanoseconds since the epoch.
    pub at_ns: u64,
    pub kind: EventKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// The process ended with this wait status (128 + signal for a signal).
    Exited { pid: u32, status: u32 },
    /// The init was released and runs, and what became true only after execve was as expected.
    Running { pid: u32 },
    /// The shim killed it before or just after execve: reason for the person who reads the trail.
    Aborted { reason: String },
    /// The kernel's OOM killer took a process of the container.
    OutOfMemory,
    /// Bytes of stdout or stderr that a full or broken sink did not take.
    LogDropped { bytes: u64 },
    /// Something that the container was not meant to do. From version 2 on.
    Anomaly(Anomaly),
    /// A listener or a flow that nobody refused: of the form of an anomaly, and none. From version 3 on.
    Network(Anomaly),
}

/// What the gate answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Refused or failed. Nothing was started, nothing is left.
    Refused(Refusal),
    /// Init is parked. Fds: pidfd, release socket, exec-status pipe (read end), then the console's master if `terminal`,
    /// then the listener of the trip-wire if there are `traps`, then, if `scan` is not 0, the ring of the network's programs
    /// and the counters of what found no room in it.
    Created(Created),
    /// The exec'd process runs. Fds: pidfd, then the console's master if `terminal`, then its listener if there are `traps`.
    Execed {
        pid: u32,
        traps: Vec<Trap>,
    },
    Done,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    /// First line at most 200 characters (rule, fact, fix), then the other findings, one per line.
    pub message: String,
}

/// gRPC status of a refusal (DESIGN section 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// The policy says no.
    PermissionDenied = 1,
    /// The node does not meet the policy (attestation, audit, stale permit).
    FailedPrecondition = 2,
    /// The request itself is malformed.
    InvalidArgument = 3,
    /// Something did not answer in time.
    Unavailable = 4,
    NotFound = 5,
    AlreadyExists = 6,
    Internal = 7,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    pub pid: u32,
    pub terminal: bool,
    /// Start is refused after this moment (CLOCK_BOOTTIME, nanoseconds): the permit has gone stale.
    pub not_after_boottime_ns: u64,
    /// The policy's files as they were judged: Start is refused when one differs.
    pub policy_files: Vec<FileStamp>,
    /// What must be true of the process after execve.
    pub expected: Expected,
    /// The container's cgroup folders on the host, one per hierarchy: (controllers, `""` for v2; absolute path).
    pub cgroups: Vec<(String, String)>,
    /// The container has no pid namespace of its own: when init ends, the rest of the cgroup is killed.
    pub shared_pid_namespace: bool,
    /// Calls that the listener is asked about, ascending by number. From version 2 on.
    pub traps: Vec<Trap>,
    /// The network is watched: so many distinct refused destinations within a minute are a port scan. 0: it is not. From
    /// version 3 on.
    pub scan: u32,
}

/// A refused system call that is told: the shim answers it with `errno`, whatever the call was to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trap {
    pub nr: u32,
    pub name: String,
    pub errno: u32,
    /// How many of its arguments say what was tried; at most 6.
    pub args: u8,
}

/// Written to the release socket by Start; init goes on only after exactly these bytes.
pub const RELEASE: &[u8] = b"start container";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStamp {
    pub path: String,
    pub device: u64,
    pub inode: u64,
    pub size: u64,
    /// Modification and change time, nanoseconds since the epoch.
    pub mtime_ns: i64,
    pub ctime_ns: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// `Seccomp_filters` of /proc/pid/status; `Seccomp` must be 2.
    pub seccomp_filters: u32,
    /// Content of /proc/pid/attr/current (AppArmor's `attr/apparmor/current`) after execve; empty when there is no LSM
    /// and an exception allows that.
    pub label: String,
}
