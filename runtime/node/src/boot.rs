//! Which boot this is, and how long it has lasted.
use crate::Error;
use nix::time::{ClockId, clock_gettime};

/// This boot, as the kernel names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// `/proc/sys/kernel/random/boot_id`: a UUID in lower case, new at every boot and at every kexec.
    pub boot_id: String,
    /// CLOCK_BOOTTIME, nanoseconds: counts suspend, cannot be set.
    pub boottime_ns: u64,
}

impl Boot {
    /// Reads both from the kernel. Take it right before [`crate::check`].
    pub fn current() -> Result<Self, Error> {
        let path = "/proc/sys/kernel/random/boot_id";
        let boot_id = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_err(|e| Error::io("clock_gettime(CLOCK_BOOTTIME)", e))?;
        let boot = Self {
            boot_id: boot_id.trim_end().to_owned(),
            boottime_ns: (now.tv_sec() as u64).saturating_mul(1_000_000_000).saturating_add(now.tv_nsec() as u64),
        };
        boot.valid().map(|()| boot)
    }

    /// An empty or odd boot id would bind a verdict to nothing.
    pub(crate) fn valid(&self) -> Result<(), Error> {
        let dashes = [8, 13, 18, 23];
        let uuid = self.boot_id.len() == 36
            && self.boot_id.bytes().enumerate().all(|(at, byte)| match byte {
                b'-' => dashes.contains(&at),
                b'0'..=b'9' | b'a'..=b'f' => !dashes.contains(&at),
                _ => false,
            });
        uuid.then_some(()).ok_or(Error::Malformed("boot id", "not a UUID in lower case"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_names_this_boot() {
        let first = Boot::current().unwrap();
        let second = Boot::current().unwrap();
        assert_eq!(first.boot_id, second.boot_id);
        assert!(second.boottime_ns >= first.boottime_ns && first.boottime_ns > 0);
    }

    #[test]
    fn an_odd_boot_id_is_refused() {
        let good = "0f5dbb6c-31f6-4c0e-8b6a-5f6f0a7d9b11";
        let of = |id: &str| Boot { boot_id: id.into(), boottime_ns: 1 }.valid();
        assert!(of(good).is_ok());
        for bad in ["", "x", &good.to_uppercase(), &good.replace('-', "0"), &format!("{good}\n")] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
    }
}
