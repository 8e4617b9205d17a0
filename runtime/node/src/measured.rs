//! What boltseal itself consists of in this boot: its programs, the pinned key, the policy bundle. `boltseal node attest`
//! extends their digests into a PCR that nothing but a reboot resets, before the quote; each start compares.
//!
//! The note `/run/boltseal/measured` lists what was extended, in order, so that anyone can replay it. It is not believed: its
//! replay is one of the PCR values that the node's quote must show. So a note that was changed, and a PCR that somebody
//! else extended, are a wrong PCR; and what lies on the disk is compared with the note.
//!
//! A program is hashed when it is measured. Later its stamp (device, inode, size, both times) is compared, and it is
//! hashed again only when the stamp differs: whoever writes through a file system changes the stamp; who writes to the
//! disk below it, or sets the clock and then the times, does not, and that takes root.
use crate::folder::Folder;
use crate::tpm::Tpm;
use crate::{Boot, Error, hex};
use nix::fcntl::OFlag;
use ring::digest::{Context, SHA256, digest};
use std::fmt::Write as _;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Zero after a boot, not resettable, and used by nothing in common but systemd's system extensions.
pub const PCR: u32 = 13;
const NOTE: &str = "measured";
const NEXT: &str = "measured.next";
const MAX_NOTE: u64 = 64 << 10;
/// Policies that are applied in one boot.
const MAX_BUNDLES: usize = 500;
const MAX_PROGRAM: u64 = 256 << 20;
const HEAD: &str = "boltseal-measured 1\n";

/// What is there now.
#[derive(Debug, Clone, Copy)]
pub struct Now<'a> {
    /// Id of the pinned signing key's file; None when this node pins none.
    pub signer: Option<&'a str>,
    /// sha256 of the policy bundle, hex.
    pub bundle: &'a str,
}

/// What was extended in this boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    programs: Vec<Program>,
    signer: String,
    /// In order; the last one is in force.
    bundles: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Program {
    digest: String,
    stamp: String,
    path: PathBuf,
}

/// Measures what is there now, unless it is measured already: a new bundle is one more event, but programs and the pinned
/// key are measured once a boot.
///
/// # Errors
/// No TPM; a PCR that is not zero before the first event, or not what the note leads to; other programs or another key
/// than were measured.
pub fn measure(
    dir: &Path,
    tpm: &str,
    programs: &[PathBuf],
    now: Now<'_>,
    boot: &Boot,
    deadline: Instant,
) -> Result<Log, Error> {
    let folder = Folder::open(dir)?;
    let lock = folder.lock(deadline)?;
    let mut tpm = Tpm::open(tpm, deadline)?;
    let value = tpm.pcrs([PCR])?.remove(&PCR).ok_or(Error::Malformed("reply to PCR_Read", "without the PCR"))?;
    let found = recover(dir, boot, &value)?;
    let mut log = match found {
        Some(log) => {
            let differences = log.of_programs_and_key(now);
            if !differences.is_empty() {
                let what = differences.join("; ");
                return Err(Error::refused(format!("measured once a boot: {what}. Fix: boot anew")));
            }
            log
        }
        None if value == [0; 32] => {
            let programs: Result<Vec<_>, _> = programs.iter().map(|path| Program::of(path)).collect();
            Log { programs: programs?, signer: now.signer.unwrap_or("none").into(), bundles: Vec::new() }
        }
        None => {
            return Err(Error::refused(format!(
                "PCR {PCR} is not what boltseal measured in this boot: another program extended it, or the note of it is gone. Fix: boot anew"
            )));
        }
    };
    if log.bundles.last().is_some_and(|last| last == now.bundle) {
        return Ok(log);
    }
    if log.bundles.len() == MAX_BUNDLES {
        return Err(Error::refused(format!("{MAX_BUNDLES} policies were measured in this boot. Fix: boot anew")));
    }
    log.bundles.push(now.bundle.to_owned());
    // Noted before it is extended: a run that is killed in between is taken up where it was.
    write(&dir.join(NEXT), &log.text(boot))?;
    let event = log.events().pop().ok_or(Error::Malformed("node measurement", "without an event"))?;
    tpm.extend(PCR, &event)?;
    std::fs::rename(dir.join(NEXT), dir.join(NOTE)).map_err(|e| Error::io(dir.join(NOTE).display().to_string(), e))?;
    drop(lock);
    Ok(log)
}

/// The log that leads to the PCR's value: the note, or the one that a killed run was about to put in its place.
fn recover(dir: &Path, boot: &Boot, value: &[u8; 32]) -> Result<Option<Log>, Error> {
    if let Some(log) = read_file(&dir.join(NOTE), boot)?.filter(|log| log.value() == *value) {
        return Ok(Some(log));
    }
    let next = read_file(&dir.join(NEXT), boot)?.filter(|log| log.value() == *value);
    if next.is_some() {
        std::fs::rename(dir.join(NEXT), dir.join(NOTE))
            .map_err(|e| Error::io(dir.join(NOTE).display().to_string(), e))?;
    }
    Ok(next)
}

/// The log of this boot; None when nothing was measured in it.
///
/// # Errors
/// A note that boltseal did not write.
pub fn read(dir: &Path, boot: &Boot) -> Result<Option<Log>, Error> {
    read_file(&dir.join(NOTE), boot)
}

impl Log {
    /// What [`PCR`] must show.
    #[must_use]
    pub fn value(&self) -> [u8; 32] {
        self.events().iter().fold([0; 32], |value, event| sha256(&[value.as_slice(), event].concat()))
    }

    /// What of the disk, and of this program itself, is not what was measured; one line each.
    #[must_use]
    pub fn differences(&self, now: Now<'_>) -> Vec<String> {
        let mut out = self.of_programs_and_key(now);
        if self.bundles.last().is_none_or(|last| last != now.bundle) {
            out.push("the policy bundle is not the one measured in this boot".into());
        }
        out
    }

    /// That the program which asks is one of the measured ones, as it runs.
    ///
    /// # Errors
    /// It is not, or its own file cannot be examined.
    pub fn runs(&self) -> Result<(), String> {
        let own = std::fs::metadata("/proc/self/exe").map_err(|e| format!("/proc/self/exe: {e}"))?;
        let own = stamp(&own);
        if self.programs.iter().any(|program| program.stamp == own) {
            return Ok(());
        }
        // A touch or a link moves the stamp and changes nothing.
        let now = File::open("/proc/self/exe").and_then(|mut file| hash(&mut file));
        let now = now.map_err(|e| format!("/proc/self/exe: {e}"))?;
        let known = self.programs.iter().any(|program| program.digest == now);
        known.then_some(()).ok_or_else(|| "the program that runs is not one measured in this boot".into())
    }

    fn of_programs_and_key(&self, now: Now<'_>) -> Vec<String> {
        let mut out: Vec<String> = self.programs.iter().filter_map(Program::difference).collect();
        if self.signer != now.signer.unwrap_or("none") {
            out.push("the pinned signing key is not the one measured in this boot".into());
        }
        out
    }

    /// The digests that were extended, in order.
    fn events(&self) -> Vec<[u8; 32]> {
        let mut first = String::from(HEAD);
        for program in &self.programs {
            first.push_str(&format!("program {} {}\n", program.digest, program.path.display()));
        }
        first.push_str(&format!("signer {}\n", self.signer));
        let line = |bundle: &String| format!("bundle {bundle}\n");
        let mut bundles = self.bundles.iter();
        let first = bundles.next().map(|bundle| sha256((first + &line(bundle)).as_bytes()));
        let more = bundles.map(|bundle| sha256(format!("{HEAD}{}", line(bundle)).as_bytes()));
        first.into_iter().chain(more).collect()
    }

    fn text(&self, boot: &Boot) -> String {
        let mut out = format!("{HEAD}boot {}\n", boot.boot_id);
        for Program { digest, stamp, path } in &self.programs {
            // Writing to a String does not fail.
            writeln!(out, "program {digest} {stamp} {}", path.display()).unwrap_or_default();
        }
        out.push_str(&format!("signer {}\n", self.signer));
        self.bundles.iter().for_each(|bundle| out.push_str(&format!("bundle {bundle}\n")));
        out
    }

    fn parse(text: &str, boot: &Boot) -> Option<Self> {
        let rest = text.strip_prefix(&format!("{HEAD}boot {}\n", boot.boot_id))?;
        let mut log = Self { programs: Vec::new(), signer: String::new(), bundles: Vec::new() };
        for line in rest.lines() {
            match line.split_once(' ')? {
                ("program", fields) => {
                    let mut fields = fields.splitn(3, ' ');
                    let (digest, stamp) = (fields.next()?.to_owned(), fields.next()?.to_owned());
                    log.programs.push(Program { digest, stamp, path: fields.next()?.into() });
                }
                ("signer", signer) => log.signer = signer.to_owned(),
                ("bundle", bundle) => log.bundles.push(bundle.to_owned()),
                _ => return None,
            }
        }
        Some(log).filter(|log| log.text(boot) == text && !log.bundles.is_empty() && !log.programs.is_empty())
    }
}

impl Program {
    fn of(path: &Path) -> Result<Self, Error> {
        let shown = path.display().to_string();
        if shown.contains(['\n', '\u{fffd}']) {
            return Err(Error::refused("a program's path is not one line of UTF-8"));
        }
        let failed = |e: std::io::Error| Error::io(shown.clone(), e);
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let mut file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).map_err(failed)?;
        let before = file.metadata().map_err(failed)?;
        if !before.is_file() || before.len() > MAX_PROGRAM {
            return Err(Error::refused(format!("{shown} is no program")));
        }
        let digest = hash(&mut file).map_err(failed)?;
        let stamp = stamp(&before);
        if self::stamp(&file.metadata().map_err(failed)?) != stamp {
            return Err(Error::refused(format!("{shown} was written to while it was measured")));
        }
        Ok(Self { digest, stamp, path: path.to_owned() })
    }

    fn difference(&self) -> Option<String> {
        let shown = self.path.display();
        match self.path.symlink_metadata() {
            Ok(meta) if stamp(&meta) == self.stamp => return None,
            Err(e) => return Some(format!("{shown}, which was measured in this boot: {e}")),
            Ok(_) => {}
        }
        match Self::of(&self.path) {
            Ok(now) if now.digest == self.digest => None,
            Ok(_) => Some(format!("{shown} is not the one measured in this boot")),
            Err(e) => Some(format!("{shown}, which was measured in this boot: {e}")),
        }
    }
}

fn stamp(meta: &Metadata) -> String {
    let time = |seconds: i64, nanos: i64| format!("{seconds}.{nanos:09}");
    let (changed, modified) = (time(meta.ctime(), meta.ctime_nsec()), time(meta.mtime(), meta.mtime_nsec()));
    format!("{}:{}:{}:{modified}:{changed}", meta.dev(), meta.ino(), meta.len())
}

fn hash(file: &mut File) -> std::io::Result<String> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex::encode(context.finish().as_ref())),
            Ok(count) => context.update(buffer.get(..count).unwrap_or_default()),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// None when there is none, or one of another boot.
fn read_file(path: &Path, boot: &Boot) -> Result<Option<Log>, Error> {
    let shown = path.display();
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|e| Error::io(shown.to_string(), e))?,
    };
    let meta = file.metadata().map_err(|e| Error::io(shown.to_string(), e))?;
    let bad = |why: &str| Error::refused(format!("{shown} is {why}. Fix: find out who made it, then boot anew"));
    if !meta.is_file() || meta.uid() != 0 || meta.mode() & 0o077 != 0 {
        return Err(bad("not a file of root's alone"));
    }
    let mut text = String::new();
    file.take(MAX_NOTE + 1).read_to_string(&mut text).map_err(|_| bad("not what boltseal writes"))?;
    if text.len() as u64 > MAX_NOTE {
        return Err(bad("longer than what boltseal writes"));
    }
    if !text.starts_with(&format!("{HEAD}boot {}\n", boot.boot_id)) && text.starts_with(&format!("{HEAD}boot ")) {
        return Ok(None);
    }
    Log::parse(&text, boot).map(Some).ok_or_else(|| bad("not what boltseal writes"))
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    let failed = |e: std::io::Error| Error::io(path.display().to_string(), e);
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}
