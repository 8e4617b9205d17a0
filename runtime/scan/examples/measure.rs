//! What a scan costs: `cargo run --release -p boltseal-scan --example measure [FOLDER]`.
//!
//! 100 000 small files and 1 GiB of programs in three layers below FOLDER (by default a temporary one), scanned three times without the
//! cache, then from it. The processor time is the worker's, so that a slow disk does not count.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement for people to read")]
use boltseal_scan::{Image, Limits, Source, scan};
use nix::sys::resource::{UsageWho, getrusage};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

const FILES: usize = 100_000;
const PROGRAMS: usize = 128;
const PROGRAM: usize = 8 << 20;

fn main() {
    let dir = std::env::args().nth(1).map_or_else(tempfile::tempdir, tempfile::tempdir_in).unwrap();
    let layers: Vec<_> = (0..3).map(|n| dir.path().join(n.to_string())).collect();
    for (number, layer) in layers.iter().enumerate() {
        for n in (number..FILES).step_by(layers.len()) {
            let folder = layer.join(format!("usr/share/{}", n / 100));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(n.to_string()), n.to_string()).unwrap();
        }
    }
    // Bytes as programs have them: not all the same.
    let mut program = b"\x7fELF".to_vec();
    program.extend((0..PROGRAM as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8));
    for n in 0..PROGRAMS {
        let path = layers[n % layers.len()].join(format!("usr/share/program{n}"));
        fs::write(&path, &program).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let lowers: Vec<String> = layers.iter().rev().map(|path| path.to_str().unwrap().to_owned()).collect();
    let cache = dir.path().join("cache/sha256");
    let chain = |n: usize| format!("sha256:{n:064x}");
    for n in 0..3 {
        let image =
            Image { chain_id: &chain(n), integrity: "unpacked", layers: Source::Folders(&lowers), digests: &[] };
        let (begun, before) = (Instant::now(), processor());
        let found = scan(&cache, &image, &Limits::default(), soon(), &mut |_| {}).unwrap();
        let (wall, cpu) = (begun.elapsed().as_secs_f64(), processor() - before);
        #[allow(clippy::cast_precision_loss, reason = "for people to read")]
        let (entries, megabytes) = (found.entries as f64, found.bytes as f64 / 1e6);
        println!(
            "{entries} entries, {megabytes:.0} MB: {wall:.2} s, {cpu:.2} s of one core; {:.0} entries/s and {:.0} MB/s per core",
            entries / cpu,
            megabytes / cpu
        );
    }
    let image = Image { chain_id: &chain(0), integrity: "unpacked", layers: Source::Folders(&lowers), digests: &[] };
    let begun = Instant::now();
    scan(&cache, &image, &Limits::default(), soon(), &mut |_| {}).unwrap();
    println!("from the cache: {} us", begun.elapsed().as_micros());
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(600)
}

/// Of the workers that ended, seconds.
fn processor() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}
