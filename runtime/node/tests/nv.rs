//! The floor's counter on a software TPM.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
mod common;

use boltseal_node::{Boot, Floor, nv};
use common::{Proxy, Swtpm, closed_folder, put, soon};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

const NV_UNDEFINE: u32 = 0x122;
const NV_DEFINE: u32 = 0x12a;

const OWNER: u32 = 0x4000_0001;

/// One command with an empty password, as another program would send it.
fn send(swtpm: &Swtpm, code: u32, handles: &[u32], parameters: &[u8]) {
    let mut body: Vec<u8> = handles.iter().flat_map(|h| h.to_be_bytes()).collect();
    body.extend([0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0]);
    body.extend(parameters);
    let mut command = vec![0x80, 2];
    command.extend((body.len() as u32 + 10).to_be_bytes());
    command.extend(code.to_be_bytes());
    command.extend(body);
    let mut stream = UnixStream::connect(swtpm.socket()).unwrap();
    stream.write_all(&command).unwrap();
    let mut reply = [0; 10];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(reply[6..], [0; 4], "{code:#x}");
}

#[test]
fn it_is_made_once_goes_up_and_outlives_a_boot() {
    let swtpm = Swtpm::start();
    assert_eq!(nv::read(&swtpm.address(), soon()), Ok(None));
    assert!(nv::raise(&swtpm.address(), 1, soon()).unwrap_err().to_string().contains("no counter"));
    let base = nv::establish(&swtpm.address(), soon()).unwrap();
    assert_eq!(nv::establish(&swtpm.address(), soon()), Ok(base));
    assert_eq!(nv::raise(&swtpm.address(), base + 5, soon()), Ok(base + 5));
    // Down is no direction.
    assert_eq!(nv::raise(&swtpm.address(), base, soon()), Ok(base + 5));
    let swtpm = swtpm.reboot();
    assert_eq!(nv::read(&swtpm.address(), soon()), Ok(Some(base + 5)));
}

#[test]
fn too_many_steps_are_no_steps() {
    let swtpm = Swtpm::start();
    let base = nv::establish(&swtpm.address(), soon()).unwrap();
    let error = nv::raise(&swtpm.address(), base + nv::MAX_STEPS + 1, soon()).unwrap_err().to_string();
    assert!(error.contains("number versions 1, 2, 3"), "{error}");
    assert_eq!(nv::read(&swtpm.address(), soon()), Ok(Some(base)));
}

/// What the module promises of the TPM: taken away and made anew, the counter does not go back.
#[test]
fn who_removes_it_cannot_make_it_count_from_the_beginning() {
    let swtpm = Swtpm::start();
    let base = nv::establish(&swtpm.address(), soon()).unwrap();
    assert_eq!(nv::raise(&swtpm.address(), base + 7, soon()), Ok(base + 7));
    send(&swtpm, NV_UNDEFINE, &[OWNER, nv::INDEX], &[]);
    assert_eq!(nv::read(&swtpm.address(), soon()), Ok(None));
    assert!(nv::establish(&swtpm.address(), soon()).unwrap() > base + 7);
}

#[test]
fn another_index_in_its_place_is_refused() {
    let swtpm = Swtpm::start();
    // Eight plain bytes with the same permissions: they could be written to any value.
    let mut public = vec![0, 0, 0, 14];
    public.extend(nv::INDEX.to_be_bytes());
    public.extend([0, 0x0b, 0x02, 0x06, 0, 0x06, 0, 0, 0, 8]);
    send(&swtpm, NV_DEFINE, &[OWNER], &public);
    for error in [
        nv::read(&swtpm.address(), soon()).unwrap_err(),
        nv::establish(&swtpm.address(), soon()).unwrap_err(),
        nv::raise(&swtpm.address(), 1, soon()).unwrap_err(),
    ] {
        assert!(error.to_string().contains("is not the counter"), "{error}");
    }
}

#[test]
fn an_answer_that_does_not_go_up_or_does_not_fit_is_an_error() {
    let swtpm = Swtpm::start();
    let base = nv::establish(&swtpm.address(), soon()).unwrap();
    let proxy = Proxy::new(&swtpm);
    let to = base + 1;
    // The last byte of the count: always the same.
    proxy.change(move |code, reply| {
        if code == 0x14e && reply.len() > 24 {
            reply[16..24].copy_from_slice(&base.to_be_bytes());
        }
    });
    assert!(nv::raise(&proxy.server.address(), to, soon()).unwrap_err().to_string().contains("does not go up"));
    proxy.change(|code, reply| {
        if code == 0x169 {
            reply.truncate(20);
            reply[5] = 20;
        }
    });
    assert!(nv::read(&proxy.server.address(), soon()).is_err());
}

#[test]
fn the_floor_is_asked_of_the_tpm_once_a_boot() {
    let swtpm = Swtpm::start();
    let proxy = Proxy::new(&swtpm);
    let base = nv::establish(&swtpm.address(), soon()).unwrap();
    let (dir, boot, tpm) = (closed_folder(), Boot::current().unwrap(), proxy.server.address());
    let floor = Floor { dir: dir.path(), tpm: &tpm, base, pin: "p" };
    assert_eq!(floor.read(&boot, soon()), Ok(0));
    let asked = proxy.commands();
    assert_eq!(floor.read(&boot, soon()), Ok(0));
    assert_eq!(proxy.commands(), asked);
    assert_eq!(floor.raise(3, &boot, soon()), Ok(3));
    let asked = proxy.commands();
    assert_eq!(floor.read(&boot, soon()), Ok(3));
    assert_eq!(proxy.commands(), asked);
    // Another boot, another pin, a note that is cut or altered: asked again.
    let other = Boot { boot_id: "0f5dbb6c-31f6-4c0e-8b6a-5f6f0a7d9b11".into(), ..boot.clone() };
    assert_eq!(floor.read(&other, soon()), Ok(3));
    assert!(proxy.commands() > asked);
    assert_eq!(Floor { pin: "q", ..floor }.read(&other, soon()), Ok(3));
    let note = dir.path().join("floor");
    for bad in
        ["", "boltseal-floor 1\n", "\u{0}", &std::fs::read_to_string(&note).unwrap().replace("count ", "count 0")]
    {
        put(&note, bad.as_bytes());
        let asked = proxy.commands();
        assert_eq!(floor.read(&boot, soon()), Ok(3));
        assert!(proxy.commands() > asked, "{bad:?}");
    }
}

#[test]
fn what_is_no_note_of_ours_and_a_tpm_that_is_not_there_are_errors() {
    let swtpm = Swtpm::start();
    let base = nv::establish(&swtpm.address(), soon()).unwrap();
    let (dir, boot, tpm) = (closed_folder(), Boot::current().unwrap(), swtpm.address());
    let floor = Floor { dir: dir.path(), tpm: &tpm, base, pin: "p" };
    assert!(Floor { base: base + 1, ..floor }.read(&boot, soon()).unwrap_err().to_string().contains("another TPM"));
    assert!(Floor { tpm: "unix:/nonexistent/tpm", ..floor }.read(&boot, soon()).is_err());
    std::os::unix::fs::symlink("/dev/zero", dir.path().join("floor")).unwrap();
    assert!(floor.read(&boot, soon()).is_err());
    std::fs::remove_file(dir.path().join("floor")).unwrap();
    assert_eq!(floor.read(&boot, soon()), Ok(0));
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir.path().join("floor"), std::fs::Permissions::from_mode(0o622)).unwrap();
    assert!(floor.read(&boot, soon()).unwrap_err().to_string().contains("root's alone"));
}
