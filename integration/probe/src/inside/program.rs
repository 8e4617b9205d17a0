//! The smallest program that shows that it ran: 132 bytes of ELF that end with 42.
use crate::child::{Ended, run};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::ForkResult;
use std::ffi::CString;

const CODE: i32 = 42;

/// One segment, loaded read and execute: mov edi, 42; mov eax, 60 (exit); syscall.
#[cfg(target_arch = "x86_64")]
pub(crate) fn bytes() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEAD: u64 = 64 + 56;
    let code = [0xbf, 42, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let half = |value: u16, elf: &mut Vec<u8>| elf.extend(value.to_le_bytes());
    // e_type executable, e_machine x86-64, e_version.
    half(2, &mut elf);
    half(62, &mut elf);
    elf.extend(1_u32.to_le_bytes());
    for value in [BASE + HEAD, 64, 0] {
        elf.extend(value.to_le_bytes());
    }
    elf.extend(0_u32.to_le_bytes());
    for value in [64, 56, 1, 64, 0, 0] {
        half(value, &mut elf);
    }
    // PT_LOAD, readable and executable.
    elf.extend(1_u32.to_le_bytes());
    elf.extend(5_u32.to_le_bytes());
    let size = HEAD + 12;
    for value in [0, BASE, BASE, size, size, 0x1000] {
        elf.extend(value.to_le_bytes());
    }
    elf.extend(code);
    elf
}

/// Whether executing that path runs the program; why not otherwise.
pub(crate) fn runs(path: &str) -> Result<(), String> {
    execute(path, &[path]).and_then(|code| match code {
        CODE => Ok(()),
        other => Err(format!("it ended with {other}")),
    })
}

/// Executes a file and answers with its exit code.
pub(crate) fn execute(path: &str, args: &[&str]) -> Result<i32, String> {
    let text = |text: &str| CString::new(text).map_err(|error| error.to_string());
    let (file, args) = (text(path)?, args.iter().map(|arg| text(arg)).collect::<Result<Vec<_>, _>>()?);
    // A child waits for the one that executes, so that a program that hangs is ended by the limit.
    let ended = run(|| match crate::sys::fork() {
        Ok(ForkResult::Child) => {
            let Err(error) = nix::unistd::execve(&file, &args, &[] as &[CString]);
            crate::sys::exit_now(200_i32.saturating_add((error as i32).min(55)))
        }
        Ok(ForkResult::Parent { child }) => match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, code)) => code.to_le_bytes().to_vec(),
            other => format!("{other:?}").into_bytes(),
        },
        Err(errno) => format!("fork: {errno}").into_bytes(),
    });
    let said = match ended.map_err(|errno| errno.to_string())? {
        Ended::Said(said) => said,
        other => return Err(format!("{other:?}")),
    };
    match <[u8; 4]>::try_from(said.as_slice()).map(i32::from_le_bytes) {
        Ok(code) if code >= 200 => Err(nix::errno::Errno::from_raw(code - 200).to_string()),
        Ok(code) => Ok(code),
        Err(_) => Err(String::from_utf8_lossy(&said).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn it_runs_where_it_may_and_says_why_where_not() {
        let path = format!("/tmp/boltseal-probe-{}", std::process::id());
        std::fs::write(&path, bytes()).unwrap();
        assert!(runs(&path).unwrap_err().contains("EACCES"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(runs(&path), Ok(()));
        std::fs::write(&path, "#!/bin/true\n").unwrap();
        assert!(runs(&path).is_err());
        std::fs::remove_file(&path).unwrap();
        assert!(runs(&path).unwrap_err().contains("ENOENT"));
    }
}
