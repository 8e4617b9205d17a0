//! What the layers of an image hold (BS-IMG-007, 008): shells, daemons that let somebody in, setuid files, file capabilities,
//! device nodes.
//!
//! A jailed worker looks at the layers as the kernel merges them for a container, so that what is scanned is what would run: the
//! same overlay, read-only, in a mount namespace of the worker's own. It is not believed: its answer is decoded by fixed code,
//! bounded, and whatever does not end whole (time, size, a name that cannot be examined) is no result.
//!
//! A result is kept per chain id and integrity level, with the identity of the layers: their folders, with the digests of the
//! node's own where there are any, or the root hashes of sealed ones. A start that finds it reads that alone. Starts of one image at a time: one scans, the others wait for it.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

pub mod answer;
mod cache;
pub mod capability;
mod layers;
mod names;
pub mod peek;
mod tree;
mod walk;

pub use cache::{Cached, decode as decode_cached};
pub use walk::Limits;

use answer::Answer;
use boltseal_policy::facts::{Scan, ScannedFrom};
use cache::Room;
use layers::Layers;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// Goes up with every change of what is looked for: a result of another scanner is none.
pub const SCANNER: u32 = 1;
/// Where results are kept.
pub const CACHE: &str = "/var/lib/boltseal/scan/sha256";

/// What is to be scanned.
#[derive(Debug)]
pub struct Image<'a> {
    /// `sha256:<hex>`: what its layers are, as verified.
    pub chain_id: &'a str,
    pub integrity: &'a str,
    pub layers: Source<'a>,
    /// Of folders, the digests of this node's own that the kernel compares them with; none where it does not. A mount's device and
    /// inode say nothing of which file is mounted.
    pub digests: &'a [String],
}

/// Where an image's layers are. Top first.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// Folders of the host.
    Folders(&'a [String]),
    /// Devices that the kernel holds to a signed hash. What else lies on the disk under the image's name is not looked at.
    Sealed(&'a [Device<'a>]),
}

/// One sealed layer.
#[derive(Debug, Clone, Copy)]
pub struct Device<'a> {
    /// 64 hex digits: what every byte of it is held to.
    pub root_hash: &'a str,
    /// Of an EROFS; the worker mounts it once more, in its own mount namespace.
    pub device: BorrowedFd<'a>,
    /// The root of its file system, wherever that is mounted.
    pub root: BorrowedFd<'a>,
}

/// How far a scan is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    pub entries: u64,
    pub bytes: u64,
}

/// The result that is kept, or a new one.
///
/// A result that cannot be kept (a full disk, a folder that others may write to) is used all the same, for this start: it is as
/// true as one that is kept, and the next start scans again. The log says so.
///
/// # Errors
/// A sentence; it begins with `timeout` where only time was short.
pub fn scan(
    cache: &Path,
    image: &Image<'_>,
    limits: &Limits,
    deadline: Instant,
    progress: &mut dyn FnMut(Progress),
) -> Result<Scan, String> {
    let layers = Layers::open(image.layers)?;
    let mut identity = layers.identity()?;
    image.digests.iter().for_each(|digest| identity.extend([",", digest]));
    let key = cache::Key { chain_id: image.chain_id, integrity: image.integrity, identity };
    let mut fresh = || fresh(image, &layers, limits, deadline, progress);
    let room = match Room::open(cache, image.chain_id) {
        Ok(room) => room,
        Err(why) => {
            tracing::warn!("scans are not kept: {why}");
            return fresh().map(|answer| cache::scan(&answer, ScannedFrom::Fresh, &layers));
        }
    };
    if let Some(scan) = room.kept(&key, &layers) {
        return Ok(scan);
    }
    let _turn = room.turn(deadline)?;
    // Whoever was before us may have left it.
    if let Some(scan) = room.kept(&key, &layers) {
        return Ok(scan);
    }
    let answer = fresh()?;
    if let Err(why) = room.keep(&key, &answer) {
        tracing::warn!("the scan of {} is not kept: {why}", image.chain_id);
    }
    Ok(cache::scan(&answer, ScannedFrom::Fresh, &layers))
}

fn fresh(
    image: &Image<'_>,
    layers: &Layers<'_>,
    limits: &Limits,
    deadline: Instant,
    progress: &mut dyn FnMut(Progress),
) -> Result<Answer, String> {
    let begun = Instant::now();
    let mut last = Progress::default();
    let mut logged = begun;
    let answer = boltseal_jail::look(|| tree::enter(layers), |tell| walk::walk(limits, tell), deadline, &mut |part| {
        if let Some(told) = answer::decode_progress(part) {
            last = told;
            progress(told);
            if logged.elapsed() > LOGGED_EVERY {
                logged = Instant::now();
                tracing::warn!("scanning {}: {} entries, {} MB so far", image.chain_id, told.entries, told.bytes >> 20);
            }
        }
    });
    match answer {
        Ok(bytes) => answer::decode(&bytes),
        Err(why) if why == boltseal_jail::LATE => {
            let seconds = begun.elapsed().as_secs();
            Err(format!("timeout: {} entries in {seconds} s, and more to come", last.entries))
        }
        Err(why) => Err(why),
    }
}

/// A gate's log takes few lines: a scan of minutes says how far it is.
const LOGGED_EVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
