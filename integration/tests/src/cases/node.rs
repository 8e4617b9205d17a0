//! What is wrong with the node: its policy, its TPM, its verdict, its trail.
use super::Case;
use super::image::bend_policy;
use crate::client::{Code, Request};
use crate::node::World;
use crate::policy;
use crate::process::run;
use crate::tpm;
use anyhow::{Context, Result};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const TRAIL: &str = "/var/log/boltseal";

pub(super) fn cases() -> Vec<Case> {
    let policy =
        |name, says, fault| Case::new(name, "BS-NOD-004", says, fault).code(Code::FailedPrecondition).never_warned();
    let node = |name, says, fault| Case::new(name, "BS-NOD-001", says, fault).code(Code::FailedPrecondition);
    vec![
        policy("no policy", "policy", |world, _| {
            fs::remove_file(policy::FILE)?;
            restore_policy(world)
        }),
        policy("a policy that does not parse", "policy", |world, _| {
            policy::write("version = \n")?;
            restore_policy(world)
        }),
        policy("a policy with an unknown key", "frobnicate", |world, _| {
            policy::write(&format!("frobnicate = true\n{}", world.node.policy.text()?))?;
            restore_policy(world)
        }),
        policy("a policy that anybody may write", "written to by others", |world, _| {
            fs::set_permissions(policy::FILE, fs::Permissions::from_mode(0o666))?;
            restore_policy(world)
        }),
        policy("a trust folder that anybody may write", "written to by others", |world, _| {
            let trust = Path::new(policy::FOLDER).join("trust");
            fs::set_permissions(&trust, fs::Permissions::from_mode(0o777))?;
            world.undo_later(|_| {
                let trust = Path::new(policy::FOLDER).join("trust");
                Ok(fs::set_permissions(trust, fs::Permissions::from_mode(0o755))?)
            });
            Ok(())
        }),
        node("the TPM is gone", "", |world, _| {
            forget_verdict()?;
            world.node.tpm.stop()?;
            world.undo_later(new_boot);
            Ok(())
        }),
        node("a TPM that never answers", "no answer in time", |world, _| impostor(world, b"")),
        node("a TPM that says RETRY for ever", "no answer in time", |world, _| {
            impostor(world, &[0x80, 1, 0, 0, 0, 10, 0, 0, 9, 0x22])
        }),
        node("a TPM that answers garbage", "malformed TPM reply", |world, _| impostor(world, &[0xff; 64])),
        // Nobody can say whether a dated exception still holds: none does. Which rule speaks first is the machine's matter.
        Case::new("a clock that stands before the policy's signing time", "", "BS-NOD-001: ", |world, _| {
            bend_policy(world, "signed_at", 32_503_680_000_i64)
        })
        .code(Code::FailedPrecondition)
        .never_warned(),
        node("a PCR has another value than the policy accepts", "PCR", |world, _| {
            forget_verdict()?;
            world.node.tpm.disturb()?;
            world.undo_later(new_boot);
            Ok(())
        }),
        // The TPM is away in fault and twin, so that the file alone decides: a good one carries the start.
        node("a quote that somebody altered", "", |world, _| {
            alter_verdict(world, |text| {
                let at = text.find("\"quote\"").map_or(text.len() / 2, |at| at + 60);
                flip(text, at)
            })
        })
        .mend(without_tpm),
        node("a verdict of another boot", "", |world, _| {
            alter_verdict(world, |text| {
                let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
                text.replace(boot.trim(), "00000000-0000-4000-8000-000000000000")
            })
        })
        .mend(without_tpm),
        // Left as it is found, whatever the TPM says: the twin has a plain file there, and the same TPM.
        node("a link in the place of the verdict", "symbolic link", |world, _| {
            in_place_of_the_verdict(world, |verdict, good| {
                fs::copy(verdict, good)?;
                fs::remove_file(verdict)?;
                Ok(std::os::unix::fs::symlink(good, verdict)?)
            })
        }),
        node("a fifo in the place of the verdict", "node.json", |world, _| {
            in_place_of_the_verdict(world, |verdict, _| {
                fs::remove_file(verdict)?;
                run(Command::new("mkfifo").args(["-m", "600"]).arg(verdict)).map(|_| ())
            })
        }),
        node("a verdict that anybody may write", "node.json", |world, _| {
            in_place_of_the_verdict(world, |verdict, _| {
                Ok(fs::set_permissions(verdict, fs::Permissions::from_mode(0o666))?)
            })
        }),
        node("another key than the enrolled one", "", |world, _| {
            forget_verdict()?;
            policy::trust(policy::NODE_KEY, &world.node.key.public)?;
            world.undo_later(|world| {
                forget_verdict()?;
                world.node.enroll()
            });
            Ok(())
        }),
        node("a software TPM without an exception for it", "software", |world, _| {
            let mut bent = world.node.policy.clone();
            bent.without_exception("BS-NOD-001")?;
            bent.write()?;
            restore_policy(world)
        }),
        Case::new("a kernel that can load another by kexec", "BS-NOD-002", "kexec", |world, _| {
            crate::kexec::appears()?;
            world.undo_later(|_| crate::kexec::disappears());
            Ok(())
        })
        .code(Code::FailedPrecondition),
        Case::new("no AppArmor and no SELinux, and no exception for that", "BS-MAC-001", "", |world, _| {
            let mut bent = world.node.policy.clone();
            bent.without_exception("BS-MAC-001")?;
            bent.write()?;
            restore_policy(world)
        })
        .code(Code::FailedPrecondition),
        Case::new("the trail's disk is full", "", "BS-AUD-001", |world, _| {
            run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", TRAIL]))?;
            fs::write(Path::new(TRAIL).join("filler"), vec![0; 64 << 10])?;
            world.undo_later(|_| run(Command::new("umount").arg(TRAIL)).map(|_| ()));
            Ok(())
        })
        .code(Code::FailedPrecondition)
        .never_warned()
        .unrecorded(),
        Case::new("kernel older than the policy's Landlock", "BS-FSY-001", "Landlock", |world, _| {
            bend_policy(world, "landlock.abi", 60)
        }),
    ]
}

fn restore_policy(world: &mut World) -> Result<()> {
    world.undo_later(|world| world.node.policy.write());
    Ok(())
}

/// The gate's verdict on this boot; without it the next start asks the TPM.
fn verdict() -> PathBuf {
    PathBuf::from("/run/boltseal/node.json")
}

pub(super) fn forget_verdict() -> Result<()> {
    if verdict().exists() {
        fs::remove_file(verdict()).context("verdict file")?;
    }
    Ok(())
}

/// The TPM as after a boot: the values of the policy again.
pub(super) fn new_boot(world: &mut World) -> Result<()> {
    forget_verdict()?;
    world.node.tpm.settle(&world.node.work)
}

/// Something else listens where the TPM was, and answers whatever it is asked with `reply`; with nothing, it only listens.
fn impostor(world: &mut World, reply: &'static [u8]) -> Result<()> {
    forget_verdict()?;
    world.node.tpm.stop()?;
    world.undo_later(new_boot);
    if Path::new(tpm::SOCKET).exists() {
        fs::remove_file(tpm::SOCKET)?;
    }
    let listener = UnixListener::bind(tpm::SOCKET)?;
    listener.set_nonblocking(true)?;
    let over = Arc::new(AtomicBool::new(false));
    let ended = over.clone();
    let serving = std::thread::spawn(move || {
        let mut clients = Vec::new();
        while !over.load(Ordering::Relaxed) {
            if let Ok((client, _)) = listener.accept() {
                clients.push(client);
            }
            clients.retain_mut(|client| {
                let asked = client.set_nonblocking(true).and_then(|()| client.read(&mut [0; 4096]));
                match asked {
                    Ok(0) => false,
                    Ok(_) => client.write_all(reply).is_ok(),
                    Err(e) => e.kind() == ErrorKind::WouldBlock,
                }
            });
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    world.undo_later(move |_| {
        ended.store(true, Ordering::Relaxed);
        serving.join().map_err(|_| anyhow::anyhow!("the impostor panicked"))
    });
    Ok(())
}

/// A good verdict is there, and the TPM is not.
pub(super) fn without_tpm(world: &mut World, _: &mut Request) -> Result<()> {
    let request = world.request("app", &["/bin/true"])?;
    world.complete(&request).context("the start that makes the verdict")?;
    world.node.tpm.stop()?;
    world.undo_later(new_boot);
    Ok(())
}

/// Does something to a good verdict's file; the second path is free for it.
fn in_place_of_the_verdict(world: &mut World, change: fn(&Path, &Path) -> Result<()>) -> Result<()> {
    let request = world.request("app", &["/bin/true"])?;
    world.complete(&request).context("the start that makes the verdict")?;
    let good = world.node.work.join("good-verdict.json");
    change(&verdict(), &good)?;
    world.undo_later(move |_| {
        if good.exists() {
            fs::remove_file(&good)?;
        }
        Ok(fs::remove_file(verdict())?)
    });
    Ok(())
}

fn alter_verdict(world: &mut World, change: fn(&str) -> String) -> Result<()> {
    let mut request = world.request("app", &[])?;
    without_tpm(world, &mut request)?;
    let text = fs::read_to_string(verdict()).context("verdict file")?;
    let changed = change(&text);
    anyhow::ensure!(changed != text, "the verdict file could not be altered: {text}");
    fs::write(verdict(), changed)?;
    Ok(())
}

fn flip(text: &str, at: usize) -> String {
    text.char_indices()
        .map(|(index, digit)| if index == at { if digit == 'A' { 'B' } else { 'A' } } else { digit })
        .collect()
}
