//! What a container is not meant to do, done on purpose: the program of the image `tries`.
//!
//!   tries mount COUNT     COUNT times mount(2), and once unshare(2) among them
//!   tries plain COUNT     the same without a forbidden call
//!   tries cost COUNT      nanoseconds that one of COUNT mount(2) takes
//!   tries memory          runs a copy of itself from a file of memory
//!   tries hold            one mount(2) after the other, until it is told to end; says when the answer changes
//!   tries datagrams COUNT GOAL    COUNT datagrams there
//!   tries scan-udp COUNT IP       a datagram to each of the ports from 1 to COUNT
//!   tries scan-tcp COUNT IP       a connect to each of them
//!   tries hold-datagrams 1 GOAL   one datagram after the other, until it is told to end; /dev/shm/answers has how many were refused, and not
//!   tries listen PORT             listens on that TCP port, until it is told to end
//!
//! Each kind of outcome is one line: what, answer, how often.
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::Write;
use std::net::{TcpListener, TcpStream, UdpSocket};

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let count = args.get(2).and_then(|word| word.parse::<u64>().ok()).unwrap_or(1);
    match args.get(1).map(String::as_str) {
        Some("mount") => many(count, |number| {
            if number == count / 2 { ("unshare", unshare(CloneFlags::CLONE_NEWNS)) } else { ("mount", mounts()) }
        }),
        Some("plain") => many(count, |_| ("chdir", nix::unistd::chdir("/"))),
        Some("cost") => {
            let begun = std::time::Instant::now();
            for _ in 0..count {
                mounts().err().ok_or(std::io::ErrorKind::Other)?;
            }
            say(&(begun.elapsed().as_nanos() / u128::from(count.max(1))).to_string())
        }
        Some("memory") => memory(),
        Some("copy") => say("a copy runs"),
        Some("hold") => hold(),
        Some("datagrams") => {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            let goal = args.get(3).map_or("", String::as_str);
            many(count, |_| ("send", plain(socket.send_to(b"x", goal))))
        }
        Some("scan-udp") => {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            many(count, |port| ("send", plain(socket.send_to(b"x", goal(&args, port)))))
        }
        Some("scan-tcp") => many(count, |port| ("connect", plain(TcpStream::connect(goal(&args, port))))),
        Some("hold-datagrams") => hold_datagrams(args.get(3).map_or("", String::as_str)),
        Some("listen") => {
            let _listener = TcpListener::bind(("0.0.0.0", u16::try_from(count).unwrap_or(0)))?;
            say("listens")?;
            loop {
                std::thread::sleep(std::time::Duration::from_secs(600));
            }
        }
        _ => Err(std::io::Error::other("mount, plain, cost, memory or hold")),
    }
}

/// The address of the command line, with the ports from 1 on.
fn goal(args: &[String], number: u64) -> String {
    format!("{}:{}", args.get(3).map_or("", String::as_str), number + 1)
}

fn plain<T>(outcome: std::io::Result<T>) -> nix::Result<()> {
    outcome.map(drop).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))
}

fn mounts() -> nix::Result<()> {
    mount(None::<&str>, "/tmp", Some("tmpfs"), MsFlags::empty(), None::<&str>)
}

fn many(count: u64, mut one: impl FnMut(u64) -> (&'static str, nix::Result<()>)) -> std::io::Result<()> {
    let mut outcomes = BTreeMap::<(&str, String), u64>::new();
    for number in 0..count {
        let (what, outcome) = one(number);
        *outcomes.entry((what, answer(outcome))).or_default() += 1;
    }
    for ((what, answer), times) in outcomes {
        say(&format!("{what} {answer} {times}"))?;
    }
    Ok(())
}

fn answer(outcome: nix::Result<()>) -> String {
    outcome.err().map_or_else(|| "done".into(), |errno| format!("{errno:?}"))
}

/// An executable file of memory is refused; a plain one is made, and does not run.
fn memory() -> std::io::Result<()> {
    // linux/memfd.h
    const MFD_EXEC: u32 = 0x10;
    let executable = memfd_create(c"x", MFdFlags::from_bits_retain(MFD_EXEC));
    say(&format!("MFD_EXEC {}", answer(executable.map(drop))))?;
    let file = memfd_create(c"x", MFdFlags::MFD_CLOEXEC)?;
    std::fs::File::from(file.try_clone()?).write_all(&std::fs::read("/proc/self/exe")?)?;
    // Reopened: what is open for writing is busy.
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let reopened = nix::fcntl::open(path.as_str(), OFlag::O_RDONLY, nix::sys::stat::Mode::empty())?;
    drop(file);
    let args = [CString::new("tries")?, CString::new("copy")?];
    let Err(errno) = nix::unistd::fexecve(&reopened, &args, &[] as &[CString]);
    say(&format!("fexecve {errno:?}"))
}

fn hold() -> std::io::Result<()> {
    let mut before = None;
    loop {
        let now = mounts().err().unwrap_or(Errno::UnknownErrno);
        if before != Some(now) {
            say(&format!("mount {now:?}"))?;
            before = Some(now);
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn hold_datagrams(goal: &str) -> std::io::Result<()> {
    let (socket, file) = (UdpSocket::bind("0.0.0.0:0")?, std::fs::File::create("/dev/shm/answers")?);
    let (mut refused, mut other) = (0_u64, 0_u64);
    loop {
        for _ in 0..100 {
            let no = plain(socket.send_to(b"x", goal)) == Err(Errno::EPERM);
            *(if no { &mut refused } else { &mut other }) += 1;
        }
        std::os::unix::fs::FileExt::write_all_at(&file, format!("{refused:20} {other:20}").as_bytes(), 0)?;
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")?;
    out.flush()
}
