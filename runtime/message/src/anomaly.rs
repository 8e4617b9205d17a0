//! An anomaly as NIST SP 800-190 lists them in 4.4.4: what a container did, or tried, that it was not meant to.
use crate::wire::{DecodeError, Reader, Wire, Writer};

/// Longest `comm` that the kernel has, without its end, bytes.
pub const MAX_COMM: usize = 15;
/// Longest path of an executable that is kept, bytes.
pub const MAX_EXECUTABLE: usize = 256;
/// Longest text of what was tried, bytes.
pub const MAX_WHAT: usize = 256;

/// What one anomaly was. Texts come from inside the container: bounded by [`Anomaly::bounded`], believed by nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anomaly {
    pub class: Class,
    /// It did not happen; else it was only seen.
    pub refused: bool,
    /// Pid on the host; 0 when nobody knows.
    pub pid: u32,
    pub comm: String,
    /// Path as the container sees it, empty when unknown.
    pub executable: String,
    /// The system call, `tcp 10.0.0.1:80`, ...; of several that are summed up, their distinct ones.
    pub what: String,
    /// How many this stands for: 1, or all of its class since the last record of it that were not told one by one.
    pub count: u64,
    /// Distinct destinations that were refused within a minute, where this one made them many; else 0. From version 3 on.
    pub port_scan: u32,
}

/// The seven anomalies of NIST SP 800-190, 4.4.4, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Class {
    /// Invalid or unexpected process execution.
    Process = 1,
    /// Invalid or unexpected system calls.
    Syscall = 2,
    /// Changes to protected configuration files and binaries.
    ProtectedFile = 3,
    /// Writes to unexpected locations and file types.
    Write = 4,
    /// Creation of unexpected network listeners.
    Listener = 5,
    /// Traffic sent to unexpected network destinations.
    Destination = 6,
    /// Malware storage or execution.
    Malware = 7,
}

impl Anomaly {
    /// Cuts every text to its bound, at a character.
    pub fn bounded(&mut self) {
        for (text, most) in
            [(&mut self.comm, MAX_COMM), (&mut self.executable, MAX_EXECUTABLE), (&mut self.what, MAX_WHAT)]
        {
            text.truncate(text.floor_char_boundary(most));
        }
    }
}

impl Wire for Class {
    fn put(&self, w: &mut Writer) {
        (*self as u8).put(w);
    }
    fn take(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match u8::take(r)? {
            1 => Self::Process,
            2 => Self::Syscall,
            3 => Self::ProtectedFile,
            4 => Self::Write,
            5 => Self::Listener,
            6 => Self::Destination,
            7 => Self::Malware,
            _ => return Err(DecodeError("unknown class of anomaly")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_a_character() {
        let mut anomaly = Anomaly {
            class: Class::Write,
            refused: true,
            pid: 1,
            comm: "é".repeat(20),
            executable: "/".repeat(MAX_EXECUTABLE + 1),
            what: "short".into(),
            count: 1,
            port_scan: 0,
        };
        anomaly.bounded();
        assert_eq!(
            (anomaly.comm.len(), anomaly.executable.len(), anomaly.what.as_str()),
            (14, MAX_EXECUTABLE, "short")
        );
    }
}
