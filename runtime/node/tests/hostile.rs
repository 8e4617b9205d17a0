//! A TPM, or something in its place, that misbehaves: a problem by the deadline, never a panic, never a pass.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod common;

use common::{Node, Proxy, QUOTE, Server, denied, passes};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_millis(300);

/// Reads one command; false when the client is gone.
fn heard(stream: &mut UnixStream) -> bool {
    matches!(stream.read(&mut [0; 4096]), Ok(1..))
}

fn against(serve: impl Fn(UnixStream) + Send + Sync + 'static, said: &str) {
    let mut node = Node::new();
    let server = Server::new(serve);
    let right = std::mem::replace(&mut node.tpm, server.address());
    let begun = Instant::now();
    let state = node.check_by(begun + PATIENCE);
    denied(&state, said);
    assert!(begun.elapsed() < PATIENCE + Duration::from_millis(500), "{:?}", begun.elapsed());
    assert!(state.fresh && !node.file().exists());
    // Enrolment and status meet the same peer.
    assert!(boltseal_node::enroll(&node.tpm, Instant::now() + PATIENCE).is_err());
    let seen =
        boltseal_node::status(node.dir.path(), &node.policy(), &node.digest, &node.boot, Instant::now() + PATIENCE);
    assert!(!seen.verified && !seen.problems.is_empty());
    // Twin: the node's own TPM.
    node.tpm = right;
    passes(&node.check());
}

fn answering(reply: &'static [u8]) -> impl Fn(UnixStream) + Send + Sync {
    move |mut stream| {
        while heard(&mut stream) {
            if stream.write_all(reply).is_err() {
                return;
            }
        }
    }
}

#[test]
fn it_never_answers() {
    against(|mut stream| while heard(&mut stream) {}, "no answer in time");
}

#[test]
fn it_says_retry_for_ever() {
    against(answering(&[0x80, 1, 0, 0, 0, 10, 0, 0, 9, 0x22]), "no answer in time");
    against(answering(&[0x80, 1, 0, 0, 0, 10, 0, 0, 9, 0x0a]), "no answer in time");
}

#[test]
fn it_closes() {
    against(drop, "");
    against(
        |mut stream| {
            heard(&mut stream);
        },
        "",
    );
    // In the middle of a reply.
    against(
        |mut stream| {
            heard(&mut stream);
            stream.write_all(&[0x80, 1, 0, 0]).unwrap_or_default();
        },
        "closed the connection",
    );
}

#[test]
fn it_answers_garbage() {
    against(answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "malformed TPM reply");
    against(answering(&[0; 64]), "malformed TPM reply");
    against(answering(&[0xff; 4096]), "malformed TPM reply");
    // A success that carries nothing, and one that carries nonsense.
    against(answering(&[0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0]), "malformed");
    against(answering(&[0x80, 1, 0, 0, 0, 16, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4]), "malformed");
    // Two replies to one command.
    against(answering(&[0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0, 0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0]), "malformed TPM reply");
    // An error of its own.
    against(answering(&[0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0]), "0x100");
}

#[test]
fn it_answers_a_byte_at_a_time_for_ever() {
    let drip = |mut stream: UnixStream| {
        if heard(&mut stream) {
            stream.write_all(&[0x80, 1, 0, 0, 0x10, 0, 0, 0, 0, 0]).unwrap_or_default();
            while stream.write_all(&[0]).is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    };
    against(drip, "no answer in time");
}

#[test]
fn it_floods() {
    let flood = |mut stream: UnixStream| while stream.write_all(&[0x80; 4096]).is_ok() {};
    against(flood, "malformed TPM reply");
}

/// Nobody accepts, and the backlog is full: connect(2) itself would block.
#[test]
fn it_does_not_even_accept() {
    let mut node = Node::new();
    let dir = common::closed_folder();
    let path = dir.path().join("tpm");
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(fd.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    listen(&fd, Backlog::new(0).unwrap()).unwrap();
    let waiting = UnixStream::connect(&path).unwrap();
    node.tpm = format!("unix:{}", path.display());
    let begun = Instant::now();
    denied(&node.check_by(begun + PATIENCE), "connecting to the software TPM");
    assert!(begun.elapsed() < PATIENCE + Duration::from_millis(500));
    drop(waiting);
    node.tpm = node.swtpm.address();
    passes(&node.check());
}

#[test]
fn retry_is_tried_again_until_it_works() {
    let mut node = Node::new();
    let proxy = Proxy::new(&node.swtpm);
    node.tpm = proxy.server.address();
    let left = AtomicUsize::new(5);
    proxy.change(move |code, reply| {
        let some = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        if code == QUOTE && some {
            *reply = vec![0x80, 1, 0, 0, 0, 10, 0, 0, 9, 0x22];
        }
    });
    passes(&node.check());
    assert!(proxy.quotes() > 1);
}

/// Each byte of the quote's reply, changed on its way: never verified, whatever the byte.
#[test]
fn a_quote_that_is_changed_on_its_way_is_refused() {
    let mut node = Node::new();
    let proxy = Proxy::new(&node.swtpm);
    node.tpm = proxy.server.address();
    let size = Arc::new(AtomicUsize::new(0));
    let seen = size.clone();
    proxy.change(move |code, reply| {
        if code == QUOTE {
            seen.store(reply.len(), Ordering::SeqCst);
        }
    });
    passes(&node.check());
    let size = size.load(Ordering::SeqCst);
    assert!(size > 200);
    for at in 0..size {
        std::fs::remove_file(node.file()).unwrap_or_default();
        proxy.change(move |code, reply| {
            if let (QUOTE, Some(byte)) = (code, reply.get_mut(at)) {
                *byte ^= 0x10;
            }
        });
        let state = node.check_by(Instant::now() + Duration::from_millis(500));
        denied(&state, "");
        assert!(!node.file().exists(), "{at}");
    }
    proxy.change(|_, _| {});
    passes(&node.check());
}

/// An earlier quote of this very boot, key and state, played again: its nonce is of another question.
#[test]
fn a_quote_that_is_played_again_is_refused() {
    let mut node = Node::new();
    let proxy = Proxy::new(&node.swtpm);
    node.tpm = proxy.server.address();
    let kept = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = kept.clone();
    proxy.change(move |code, reply| {
        if code == QUOTE {
            seen.lock().unwrap().clone_from(reply);
        }
    });
    passes(&node.check());
    std::fs::remove_file(node.file()).unwrap();
    let old = kept.lock().unwrap().clone();
    assert!(old.len() > 200);
    proxy.change(move |code, reply| {
        if code == QUOTE {
            reply.clone_from(&old);
        }
    });
    denied(&node.check(), "nonce");
    assert!(!node.file().exists());
    proxy.change(|_, _| {});
    passes(&node.check());
}

/// Cut anywhere, with the length in its header as it was and as it would be.
#[test]
fn a_quote_that_is_cut_is_refused() {
    let mut node = Node::new();
    let proxy = Proxy::new(&node.swtpm);
    node.tpm = proxy.server.address();
    let size = Arc::new(AtomicUsize::new(0));
    let seen = size.clone();
    proxy.change(move |code, reply| {
        if code == QUOTE {
            seen.store(reply.len(), Ordering::SeqCst);
        }
    });
    passes(&node.check());
    for end in (10..size.load(Ordering::SeqCst)).step_by(3) {
        std::fs::remove_file(node.file()).unwrap_or_default();
        proxy.change(move |code, reply| {
            if code == QUOTE {
                reply.truncate(end);
                reply[2..6].copy_from_slice(&(end as u32).to_be_bytes());
            }
        });
        denied(&node.check_by(Instant::now() + PATIENCE), "");
        assert!(!node.file().exists(), "{end}");
    }
    // The header promises more than comes: told by the deadline.
    proxy.change(|code, reply| {
        if code == QUOTE {
            reply.truncate(100);
        }
    });
    denied(&node.check_by(Instant::now() + PATIENCE), "no answer in time");
    proxy.change(|_, _| {});
    passes(&node.check());
}

/// PCR values that do not fit the quote: tried again (a PCR may be extended in between), then refused.
#[test]
fn values_that_are_not_the_quotes_are_refused() {
    let mut node = Node::new();
    let proxy = Proxy::new(&node.swtpm);
    node.tpm = proxy.server.address();
    let lies = Arc::new(AtomicUsize::new(usize::MAX));
    let left = lies.clone();
    proxy.change(move |code, reply| {
        let lie = code == 0x17e && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        if let (true, Some(last)) = (lie, reply.last_mut()) {
            *last ^= 1;
        }
    });
    denied(&node.check(), "other PCR values");
    assert_eq!(proxy.quotes(), 3);
    // Twin: once, as a PCR that moved between two commands looks like.
    lies.store(1, Ordering::SeqCst);
    passes(&node.check());
    assert_eq!(proxy.quotes(), 5);
}

/// A start that holds the lock and is stopped: the others say so by their deadline.
#[test]
fn a_stopped_start_does_not_stop_the_others_for_good() {
    let node = Node::new();
    passes(&node.check());
    std::fs::remove_file(node.file()).unwrap();
    let file = std::fs::File::open(node.dir.path().join("node.lock")).unwrap();
    file.lock().unwrap();
    let begun = Instant::now();
    denied(&node.check_by(begun + PATIENCE), "another start");
    assert!(begun.elapsed() < PATIENCE + Duration::from_millis(500));
    file.unlock().unwrap();
    passes(&node.check());
}
