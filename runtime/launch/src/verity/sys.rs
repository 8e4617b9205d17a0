//! ioctls of loop devices (linux/loop.h) and of the device mapper (linux/dm-ioctl.h). One unsafe block per call.
use nix::errno::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

const LOOP_CONTROL: &str = "/dev/loop-control";
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
const READ_ONLY: u32 = 1;
const AUTOCLEAR: u32 = 4;
/// Between the number of a free device and its use, somebody else may take it.
const TRIES: u32 = 16;

fn open(path: &str) -> io::Result<File> {
    File::options().read(true).write(true).open(path)
}

pub(super) fn loop_control() -> io::Result<File> {
    open(LOOP_CONTROL)
}

/// struct loop_config, with its struct loop_info64 in place.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
    reserved: [u64; 8],
}

/// A read-only loop device of the file, open. It clears itself when nobody has it open any more.
pub(super) fn attach(file: BorrowedFd<'_>, size: u64) -> io::Result<OwnedFd> {
    let control = loop_control()?;
    let mut file_name = [0; 64];
    file_name.iter_mut().zip(b"boltseal sealed layer").for_each(|(to, from)| *to = *from);
    for _ in 0..TRIES {
        // SAFETY: an ioctl without an argument; a number or -1 comes back.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let device = open(&format!("/dev/loop{number}"))?;
        let config = LoopConfig {
            fd: file.as_raw_fd().unsigned_abs(),
            block_size: 4096,
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            sizelimit: size,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: READ_ONLY | AUTOCLEAR,
            file_name,
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
            reserved: [0; 8],
        };
        // SAFETY: the kernel reads one struct loop_config, which this is laid out as.
        let rc = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
        if rc == 0 {
            return Ok(device.into());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EBUSY) {
            return Err(error);
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}

/// struct dm_ioctl: offsets, and what follows it.
const HEADER: usize = 312;
const SPEC: usize = 40;
const ROOM: usize = 16 << 10;
const AT_SIZE: usize = 12;
const AT_START: usize = 16;
const AT_TARGETS: usize = 20;
const AT_FLAGS: usize = 28;
const AT_DEVICE: usize = 40;
const AT_NAME: usize = 48;
const AT_UUID: usize = 176;
const NAME: usize = 128;
const UUID: usize = 129;

const LIST_DEVICES: u8 = 2;
const DEV_CREATE: u8 = 3;
const DEV_REMOVE: u8 = 4;
const DEV_SUSPEND: u8 = 6;
const DEV_STATUS: u8 = 7;
const TABLE_LOAD: u8 = 9;
const TABLE_STATUS: u8 = 12;
const GET_TARGET_VERSION: u8 = 17;

const FLAG_READONLY: u32 = 1;
const FLAG_STATUS_TABLE: u32 = 1 << 4;
const FLAG_ACTIVE: u32 = 1 << 5;
const FLAG_SUSPENDED: u32 = 1 << 1;
const FLAG_BUFFER_FULL: u32 = 1 << 8;
const FLAG_DEFERRED: u32 = 1 << 17;
/// Most that a list of names may take.
const MOST: usize = 4 << 20;

/// What the device mapper says of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) device: libc::dev_t,
    pub(super) readonly: bool,
    /// Its table is in use.
    pub(super) live: bool,
    pub(super) uuid: String,
}

#[derive(Debug)]
pub(super) struct Control(File);

impl Control {
    pub(super) fn open() -> io::Result<Self> {
        open("/dev/mapper/control").map(Self)
    }

    /// An open file of its own, to lock.
    pub(super) fn file(&self) -> io::Result<File> {
        open("/dev/mapper/control")
    }

    /// Whether the kernel has a target of this name, or a module of it to load.
    pub(super) fn target(&self, name: &str) -> Result<(), Errno> {
        self.call(GET_TARGET_VERSION, &mut Message::new(name, "", 0)).map(drop)
    }

    pub(super) fn create(&self, name: &str, uuid: &str) -> Result<(), Errno> {
        self.call(DEV_CREATE, &mut Message::new(name, uuid, 0)).map(drop)
    }

    /// At once; one that is open goes, if `deferred`, with its last holder.
    pub(super) fn remove(&self, name: &str, deferred: bool) -> Result<(), Errno> {
        let flags = if deferred { FLAG_DEFERRED } else { 0 };
        self.call(DEV_REMOVE, &mut Message::new(name, "", flags)).map(drop)
    }

    pub(super) fn load(&self, name: &str, sectors: u64, target: &str, line: &str) -> Result<(), Errno> {
        let mut message = Message::new(name, "", FLAG_READONLY);
        message.target(sectors, target, line)?;
        self.call(TABLE_LOAD, &mut message).map(drop)
    }

    pub(super) fn resume(&self, name: &str) -> Result<(), Errno> {
        self.call(DEV_SUSPEND, &mut Message::new(name, "", 0)).map(drop)
    }

    pub(super) fn state(&self, name: &str) -> Result<State, Errno> {
        let mut message = Message::new(name, "", 0);
        self.call(DEV_STATUS, &mut message)?;
        let flags = message.u32(AT_FLAGS);
        Ok(State {
            device: dev(message.u64(AT_DEVICE)),
            readonly: flags & FLAG_READONLY != 0,
            live: flags & FLAG_ACTIVE != 0 && flags & FLAG_SUSPENDED == 0,
            uuid: message.text(AT_UUID, UUID),
        })
    }

    /// Of all devices, not only ours.
    pub(super) fn names(&self) -> Result<Vec<String>, Errno> {
        let mut room = 4 * ROOM;
        loop {
            let mut message = Message::sized(room, "", "", 0);
            self.call(LIST_DEVICES, &mut message)?;
            if message.u32(AT_FLAGS) & FLAG_BUFFER_FULL == 0 {
                return message.names().ok_or(Errno::EPROTO);
            }
            room *= 2;
            if room > MOST {
                return Err(Errno::E2BIG);
            }
        }
    }

    /// Length in sectors, target and line of a table with one target.
    pub(super) fn table(&self, name: &str) -> Result<(u64, String, String), Errno> {
        self.line(name, FLAG_STATUS_TABLE)
    }

    /// What the one target says of its life so far.
    pub(super) fn status(&self, name: &str) -> Result<String, Errno> {
        self.line(name, 0).map(|(_, _, status)| status)
    }

    fn line(&self, name: &str, flags: u32) -> Result<(u64, String, String), Errno> {
        let mut message = Message::new(name, "", flags);
        self.call(TABLE_STATUS, &mut message)?;
        let start = usize::try_from(message.u32(AT_START)).unwrap_or(usize::MAX);
        if message.u32(AT_TARGETS) != 1 || start > ROOM - SPEC {
            return Err(Errno::EINVAL);
        }
        let line = message.text(start + SPEC, ROOM - start - SPEC);
        Ok((message.u64(start + 8), message.text(start + 24, 16), line))
    }

    fn call(&self, number: u8, message: &mut Message) -> Result<(), Errno> {
        // _IOWR(0xfd, number, struct dm_ioctl)
        let request = 3 << 30 | 312 << 16 | 0xfd << 8 | u32::from(number);
        let fd: RawFd = self.0.as_raw_fd();
        // SAFETY: the kernel reads and writes as many bytes as the header's data_size says, which is what the buffer has.
        let rc = unsafe { libc::ioctl(fd, request as libc::Ioctl, message.0.as_mut_ptr()) };
        if rc == 0 { Ok(()) } else { Err(Errno::last()) }
    }
}

/// The kernel's huge encoding of a device number (linux/kdev_t.h), as a `dev_t`.
pub(super) fn dev(number: u64) -> libc::dev_t {
    let major = (number >> 8) & 0xfff;
    let minor = (number & 0xff) | ((number >> 12) & 0xf_ff00);
    libc::makedev(u32::try_from(major).unwrap_or(0), u32::try_from(minor).unwrap_or(0))
}

/// A request and the answer to it, in one buffer.
struct Message(Vec<u8>);

impl Message {
    fn new(name: &str, uuid: &str, flags: u32) -> Self {
        Self::sized(ROOM, name, uuid, flags)
    }

    fn sized(room: usize, name: &str, uuid: &str, flags: u32) -> Self {
        let mut message = Self(vec![0; room]);
        message.put(0, &4_u32.to_ne_bytes());
        message.put(AT_SIZE, &u32::try_from(room).unwrap_or_default().to_ne_bytes());
        message.put(AT_START, &u32::try_from(HEADER).unwrap_or_default().to_ne_bytes());
        message.put(AT_FLAGS, &flags.to_ne_bytes());
        message.put(AT_NAME, name.as_bytes().get(..name.len().min(NAME - 1)).unwrap_or_default());
        message.put(AT_UUID, uuid.as_bytes().get(..uuid.len().min(UUID - 1)).unwrap_or_default());
        message
    }

    /// Each struct dm_name_list: a device number, how far the next one is, a name. None: not of that form.
    fn names(&self) -> Option<Vec<String>> {
        const NAME_AT: usize = 12;
        let mut names = Vec::new();
        let mut at = usize::try_from(self.u32(AT_START)).ok()?;
        loop {
            if at.checked_add(NAME_AT)? > self.0.len() {
                return None;
            }
            // The one that says that there is none.
            if self.u64(at) == 0 && names.is_empty() {
                return Some(names);
            }
            names.push(self.text(at + NAME_AT, NAME));
            match usize::try_from(self.u32(at + 8)).ok()? {
                0 => return Some(names),
                next => at = at.checked_add(next)?,
            }
        }
    }

    fn target(&mut self, sectors: u64, target: &str, line: &str) -> Result<(), Errno> {
        if HEADER + SPEC + line.len() >= ROOM || target.len() >= 16 {
            return Err(Errno::E2BIG);
        }
        self.put(AT_TARGETS, &1_u32.to_ne_bytes());
        self.put(HEADER + 8, &sectors.to_ne_bytes());
        self.put(HEADER + 24, target.as_bytes());
        self.put(HEADER + SPEC, line.as_bytes());
        Ok(())
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
    }

    fn u32(&self, at: usize) -> u32 {
        self.0.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes)
    }

    fn u64(&self, at: usize) -> u64 {
        self.0.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_ne_bytes)
    }

    /// Up to a NUL, or the end of the buffer.
    fn text(&self, at: usize, most: usize) -> String {
        let bytes = self.0.get(at..self.0.len().min(at + most)).unwrap_or_default();
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laid_out_as_the_kernel_has_it() {
        assert_eq!(size_of::<LoopConfig>(), 304);
        assert_eq!(AT_UUID + UUID + 7, HEADER);
        let number = dev(254 << 8 | 3);
        assert_eq!((libc::major(number), libc::minor(number)), (254, 3));
        let large = dev(254 << 8 | 0x0010_0000 | 5);
        assert_eq!((libc::major(large), libc::minor(large)), (254, 0x105));
        let mut message = Message::new("n", "u", 3);
        message.target(8, "verity", "1 2").unwrap();
        assert_eq!(message.text(AT_NAME, NAME), "n");
        assert_eq!(message.text(AT_UUID, UUID), "u");
        assert_eq!((message.u32(AT_FLAGS), message.u64(HEADER + 8)), (3, 8));
        assert_eq!(message.text(HEADER + 24, 16), "verity");
        assert_eq!(message.text(HEADER + SPEC, 64), "1 2");
        assert_eq!(message.target(8, "verity", &"x".repeat(ROOM)), Err(Errno::E2BIG));
    }

    #[test]
    fn a_list_of_names_is_read_to_its_end() {
        let list = |records: &[(u64, u32, &str)]| {
            let mut message = Message::new("", "", 0);
            let mut at = HEADER;
            for (device, next, name) in records {
                message.put(at, &device.to_ne_bytes());
                message.put(at + 8, &next.to_ne_bytes());
                message.put(at + 12, name.as_bytes());
                at += *next as usize;
            }
            message.names()
        };
        assert_eq!(list(&[(0, 0, "")]), Some(vec![]));
        assert_eq!(list(&[(5, 0, "one")]), Some(vec!["one".into()]));
        assert_eq!(list(&[(5, 32, "one"), (6, 0, "two")]), Some(vec!["one".into(), "two".into()]));
        assert_eq!(list(&[(5, u32::MAX, "one")]), None);
        // The name ends with the buffer.
        let last = u32::try_from(ROOM - HEADER - 14).unwrap();
        assert_eq!(list(&[(5, last, "one"), (6, 0, "tw")]), Some(vec!["one".into(), "tw".into()]));
    }

    /// The kernel that this runs on has loop devices: one is made, read-only, and gone when it is closed.
    #[test]
    fn a_loop_device_that_clears_itself() {
        use std::os::fd::AsFd;
        use std::os::unix::fs::FileExt;
        if loop_control().is_err() {
            return;
        }
        let path = std::env::temp_dir().join(format!("boltseal-loop-{}", std::process::id()));
        std::fs::write(&path, vec![7; 8192]).unwrap();
        let file = File::open(&path).unwrap();
        let device = File::from(attach(file.as_fd(), 4096).unwrap());
        let mut bytes = [0; 8];
        device.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, [7; 8]);
        assert!(device.read_exact_at(&mut bytes, 4096).is_err());
        std::fs::remove_file(path).unwrap();
    }
}
