//! What the kernel answers of a file: its fs-verity digest (linux/fsverity.h), and which one a loop device has (linux/loop.h).
use super::sys::dev;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// _IOWR('f', 134, struct fsverity_digest)
const FS_IOC_MEASURE_VERITY: libc::Ioctl = 0xc004_6686_u32.cast_signed();
const LOOP_GET_STATUS64: libc::Ioctl = 0x4c05;
const LONGEST: u16 = 64;

/// struct fsverity_digest, with room for its longest digest.
#[repr(C)]
struct Digest {
    algorithm: u16,
    size: u16,
    bytes: [u8; LONGEST as usize],
}

/// `sha256:<hex>` or `sha512:<hex>`; None: the file has none.
pub(super) fn fsverity(file: BorrowedFd<'_>) -> io::Result<Option<String>> {
    let mut digest = Digest { algorithm: 0, size: LONGEST, bytes: [0; LONGEST as usize] };
    // SAFETY: the kernel writes the head and at most `size` bytes behind it, which the struct has room for.
    let rc = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_MEASURE_VERITY, &raw mut digest) };
    if rc == 0 {
        return named(digest.algorithm, digest.bytes.get(..usize::from(digest.size)).unwrap_or_default()).map(Some);
    }
    match io::Error::last_os_error() {
        // Not this file; not this file system, or not this kernel.
        e if matches!(e.raw_os_error(), Some(libc::ENODATA | libc::ENOTTY | libc::EOPNOTSUPP)) => Ok(None),
        e => Err(e),
    }
}

/// By the kernel's numbers: FS_VERITY_HASH_ALG_SHA256, FS_VERITY_HASH_ALG_SHA512.
fn named(algorithm: u16, bytes: &[u8]) -> io::Result<String> {
    let name = match (algorithm, bytes.len()) {
        (1, 32) => "sha256",
        (2, 64) => "sha512",
        _ => return Err(io::Error::other(format!("a digest of algorithm {algorithm}, {} bytes", bytes.len()))),
    };
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{name}:{hex}"))
}

/// struct loop_info64.
#[repr(C)]
#[derive(Debug)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    numbers: [u32; 4],
    names: [[u8; 64]; 2],
    key: [u8; 32],
    init: [u64; 2],
}

/// Device and inode of the file that a loop device reads.
pub(super) fn backing(loop_device: BorrowedFd<'_>) -> io::Result<(libc::dev_t, u64)> {
    let mut info = LoopInfo {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        sizelimit: 0,
        numbers: [0; 4],
        names: [[0; 64]; 2],
        key: [0; 32],
        init: [0; 2],
    };
    // SAFETY: the kernel writes one struct loop_info64, which this is laid out as.
    let rc = unsafe { libc::ioctl(loop_device.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) };
    if rc == 0 { Ok((dev(info.device), info.inode)) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::super::sys;
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn laid_out_as_the_kernel_has_it() {
        assert_eq!((size_of::<LoopInfo>(), size_of::<Digest>()), (232, 68));
        assert_eq!(named(1, &[0xab; 32]).unwrap(), format!("sha256:{}", "ab".repeat(32)));
        assert_eq!(named(2, &[1; 64]).unwrap(), format!("sha512:{}", "01".repeat(64)));
        for (algorithm, size) in [(1, 64), (2, 32), (3, 32), (1, 0), (0, 0)] {
            assert!(named(algorithm, &vec![0; size]).is_err(), "{algorithm} {size}");
        }
    }

    /// A file without a digest has none, whatever the kernel and the file system can.
    #[test]
    fn a_plain_file_has_no_digest() {
        let path = std::env::temp_dir().join(format!("boltseal-plain-{}", std::process::id()));
        std::fs::write(&path, "plain").unwrap();
        assert_eq!(fsverity(File::open(&path).unwrap().as_fd()).unwrap(), None);
        std::fs::remove_file(path).unwrap();
        assert_eq!(fsverity(File::open("/proc/self/status").unwrap().as_fd()).unwrap(), None);
    }

    #[test]
    fn a_loop_device_names_its_file() {
        let path = std::env::temp_dir().join(format!("boltseal-backing-{}", std::process::id()));
        std::fs::write(&path, vec![7; 8192]).unwrap();
        let file = File::open(&path).unwrap();
        let device = sys::attach(file.as_fd(), 8192).unwrap();
        let meta = file.metadata().unwrap();
        assert_eq!(backing(device.as_fd()).unwrap(), (meta.dev(), meta.ino()));
        assert!(backing(file.as_fd()).is_err());
        std::fs::remove_file(path).unwrap();
    }
}
