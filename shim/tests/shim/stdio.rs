//! Fifos, files and terminals.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use containerd_shim_protos::api::*;
use nix::sys::stat::Mode;
use ttrpc::Code;

use crate::harness::*;

fn fifo(pod: &Pod, name: &str) -> PathBuf {
    let path = pod.place.folder.path().join(name);
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    path
}

/// containerd's end of a fifo: never blocks.
fn open(path: &Path, write: bool) -> File {
    File::options().read(!write).write(write).custom_flags(libc::O_NONBLOCK).open(path).unwrap()
}

/// Reads until the writer is gone.
async fn read_to_end(mut fifo: File) -> Vec<u8> {
    let (mut all, mut seen) = (Vec::new(), false);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < deadline {
        let mut buffer = [0; 65536];
        match fifo.read(&mut buffer) {
            Ok(0) if seen => return all,
            Ok(0) | Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            Ok(count) => {
                all.extend_from_slice(&buffer[..count]);
                seen = true;
            }
        }
    }
    panic!("no end of the output; so far {} bytes", all.len());
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().into()
}

#[test]
fn bytes_go_through_fifos_and_close_io_ends_stdin() {
    isolated(async {
        let pod = Pod::new("args /bin/busybox sh cat; echo err >&2; exit 4").await;
        let (stdin, stdout, stderr) = (fifo(&pod, "in"), fifo(&pod, "out"), fifo(&pod, "err"));
        let mut request = pod.create_request("pod");
        (request.stdin, request.stdout, request.stderr) = (text(&stdin), text(&stdout), text(&stderr));
        let (out, err) = (open(&stdout, false), open(&stderr, false));
        pod.client.create(soon(), &request).await.unwrap();
        pod.start("pod", "").await.unwrap();
        let data: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        let feed = async {
            let (mut input, mut rest) = (open(&stdin, true), data.as_slice());
            while !rest.is_empty() {
                match input.write(rest) {
                    Ok(count) => rest = &rest[count..],
                    Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
            drop(input);
            // containerd's side is closed, but stdin ends only with CloseIO.
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_eq!(pod.state("pod", "").await.unwrap().status.enum_value().unwrap(), Status::RUNNING);
            let request = CloseIORequest { id: "pod".into(), stdin: true, ..Default::default() };
            pod.client.close_io(soon(), &request).await.unwrap();
        };
        let ((), out, err) = tokio::join!(feed, read_to_end(out), read_to_end(err));
        assert!(out == data, "{} bytes came back", out.len());
        assert_eq!(err, b"err\n");
        assert_eq!(pod.wait("pod", "").await.unwrap(), 4);
        pod.delete("pod", "").await.unwrap();
        pod.shut_down().await;
    });
}

#[test]
fn a_reader_that_sleeps_holds_up_its_own_stream_alone() {
    isolated(async {
        let pod = Pod::new("").await;
        pod.place.bundle("loud", "pod", "args /bin/busybox yes");
        let stdout = fifo(&pod, "out");
        let _sleeper = open(&stdout, false);
        let mut request = pod.create_request("loud");
        request.stdout = text(&stdout);
        pod.client.create(soon(), &request).await.unwrap();
        pod.start("loud", "").await.unwrap();
        pod.create("pod").await.unwrap();
        pod.start("pod", "").await.unwrap();
        pod.exec("pod", "e", &["/bin/busybox", "true"]).await.unwrap();
        assert_eq!(pod.wait("pod", "e").await.unwrap(), 0);
        let begun = std::time::Instant::now();
        pod.kill_and_delete("loud").await;
        assert!(begun.elapsed() < Duration::from_millis(2500), "{:?}", begun.elapsed());
        pod.kill_and_delete("pod").await;
        pod.shut_down().await;
    });
}

#[test]
fn a_reader_that_goes_away_and_comes_back_breaks_nothing() {
    isolated(async {
        let pod = Pod::new("args /bin/busybox sh while read x; do echo got-$x; done").await;
        let (stdin, stdout) = (fifo(&pod, "in"), fifo(&pod, "out"));
        let mut request = pod.create_request("pod");
        (request.stdin, request.stdout) = (text(&stdin), text(&stdout));
        let first = open(&stdout, false);
        pod.client.create(soon(), &request).await.unwrap();
        pod.start("pod", "").await.unwrap();
        drop(first);
        open(&stdin, true).write_all(b"one\n").unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut back = open(&stdout, false);
        open(&stdin, true).write_all(b"two\n").unwrap();
        let mut all = Vec::new();
        assert!(
            eventually(|| {
                let mut buffer = [0; 100];
                let count = back.read(&mut buffer).unwrap_or(0);
                all.extend_from_slice(&buffer[..count]);
                all.ends_with(b"got-two\n")
            })
            .await
        );
        assert_eq!(all, b"got-one\ngot-two\n");
        pod.kill_and_delete("pod").await;
        pod.shut_down().await;
    });
}

#[test]
fn a_log_file_is_appended_to_and_a_full_disk_never_wedges() {
    isolated(async {
        let pod = Pod::new("args /bin/busybox sh head -c 1000000 /dev/zero; echo done >&2").await;
        let disk = pod.place.folder.path().join("disk");
        fs::create_dir(&disk).unwrap();
        nix::mount::mount(Some("t"), &disk, Some("tmpfs"), nix::mount::MsFlags::empty(), Some("size=64k")).unwrap();
        let errors = pod.place.folder.path().join("logs/errors");
        let mut request = pod.create_request("pod");
        request.stdout = format!("file://{}", disk.join("log").display());
        request.stderr = format!("file://{}", errors.display());
        pod.client.create(soon(), &request).await.unwrap();
        pod.start("pod", "").await.unwrap();
        assert_eq!(pod.wait("pod", "").await.unwrap(), 0);
        assert!(eventually(|| fs::read(&errors).unwrap() == b"done\n").await);
        pod.delete("pod", "").await.unwrap();
        let kept = fs::metadata(disk.join("log")).unwrap().len();
        let dropped = || {
            let of = |line: &String| line.strip_prefix("pod/ dropped ").map(|bytes| bytes.parse::<u64>().unwrap());
            pod.place.trail().iter().filter_map(of).sum::<u64>()
        };
        assert!(eventually(|| kept + dropped() == 1_000_000).await, "{kept} kept, {} dropped", dropped());
        assert!(dropped() > 900_000);
        nix::mount::umount(&disk).unwrap();
        pod.shut_down().await;
    });
}

#[test]
fn a_terminal_echoes_resizes_and_ends() {
    isolated(async {
        let script = "args /bin/busybox sh read x; stty size; echo got-$x; exit 6";
        let pod = Pod::new(script).await;
        let (stdin, stdout) = (fifo(&pod, "in"), fifo(&pod, "out"));
        let mut request = pod.create_request("pod");
        (request.terminal, request.stdin, request.stdout) = (true, text(&stdin), text(&stdout));
        let out = open(&stdout, false);
        pod.client.create(soon(), &request).await.unwrap();
        pod.start("pod", "").await.unwrap();
        let size = ResizePtyRequest { id: "pod".into(), width: 123, height: 45, ..Default::default() };
        pod.client.resize_pty(soon(), &size).await.unwrap();
        open(&stdin, true).write_all(b"hello\n").unwrap();
        let out = String::from_utf8(read_to_end(out).await).unwrap();
        assert!(out.contains("45 123\r\n") && out.contains("got-hello\r\n"), "{out:?}");
        assert_eq!(pod.wait("pod", "").await.unwrap(), 6);
        pod.delete("pod", "").await.unwrap();
        assert_eq!(code(&pod.client.resize_pty(soon(), &size).await.unwrap_err()), Code::NOT_FOUND);
        pod.shut_down().await;
    });
}

#[test]
fn terminals_of_execs_leak_no_fd() {
    isolated(async {
        let pod = Pod::new("").await;
        pod.create("pod").await.unwrap();
        pod.start("pod", "").await.unwrap();
        let fds = || fs::read_dir(format!("/proc/{}/fd", pod.shim_pid)).unwrap().count();
        let before = fds();
        for round in 0..10 {
            let (id, stdout) = (format!("e{round}"), fifo(&pod, &format!("out{round}")));
            let out = open(&stdout, false);
            let mut request = pod.exec_request("pod", &id, &["/bin/busybox", "echo", "hi"]);
            (request.terminal, request.stdout) = (true, text(&stdout));
            pod.client.exec(soon(), &request).await.unwrap();
            pod.start("pod", &id).await.unwrap();
            assert_eq!(read_to_end(out).await, b"hi\r\n");
            assert_eq!(pod.wait("pod", &id).await.unwrap(), 0);
            pod.delete("pod", &id).await.unwrap();
        }
        assert!(eventually(|| fds() <= before).await, "{} fds, {before} before", fds());
        pod.kill_and_delete("pod").await;
        pod.shut_down().await;
    });
}

#[test]
fn a_stdio_path_that_is_not_there_is_named() {
    isolated(async {
        let pod = Pod::new("").await;
        let mut request = pod.create_request("pod");
        request.stdin = "/no/such/fifo".into();
        let error = pod.client.create(soon(), &request).await.unwrap_err();
        assert_eq!(code(&error), Code::INVALID_ARGUMENT);
        assert!(message(&error).contains("/no/such/fifo"));
        assert_eq!(pod.place.lines("operations"), Vec::<String>::new());
        pod.shut_down().await;
    });
}
