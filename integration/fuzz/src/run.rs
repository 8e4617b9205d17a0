//! Replay and run.
use crate::targets::{ALL, Target, mutator};
use crate::{Options, corpus};
use boltseal_fuzz::random::Random;
use std::collections::HashSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One input may take this long, in a debug build on a busy machine.
const TOO_LONG: Duration = Duration::from_secs(10);
/// Memory of the whole process, bytes.
const MEMORY: u64 = 1 << 30;
/// Inputs of one target before the next has its turn.
const TURN: u32 = 64;
/// Inputs that are kept in memory because they had an outcome not seen before.
const MAX_LEARNT: usize = 2000;

/// Every seed of every target, or of one. False when one panics.
pub(crate) fn replay(only: Option<&str>) -> io::Result<bool> {
    let mut good = true;
    let mut count = 0;
    for target in chosen(only)? {
        for (name, input) in corpus::load(target)? {
            count += 1;
            if attempt(target, &input).is_none() {
                eprintln!("boltseal-fuzz: {} fails on corpus/{}/{name}", target.name, target.name);
                good = false;
            }
        }
    }
    println!("replayed {count} seeds of {} targets", chosen(only)?.len());
    Ok(good)
}

/// Mutates for `options.seconds`. False when an input panicked.
pub(crate) fn run(options: &Options) -> io::Result<bool> {
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_AS, MEMORY, MEMORY)?;
    let mut plans = Vec::new();
    for target in chosen(options.target.as_deref())? {
        let seeds: Vec<_> = corpus::load(target)?.into_iter().map(|(_, input)| input).collect();
        plans.push(Plan { target, inputs: seeds, outcomes: HashSet::new(), runs: 0, failed: 0 });
    }
    let watch = Watch::start()?;
    report_panics(&watch);
    println!("seed {}", options.seed);
    let mut random = Random(options.seed);
    let end = Instant::now() + Duration::from_secs(options.seconds);
    'all: loop {
        for plan in &mut plans {
            for _ in 0..TURN {
                if Instant::now() >= end {
                    break 'all;
                }
                plan.step(&mut random, &watch)?;
            }
        }
    }
    watch.stop()?;
    let mut good = true;
    println!("{:20} {:>10} {:>9} {:>8}", "target", "runs", "outcomes", "failures");
    for plan in &plans {
        println!("{:20} {:>10} {:>9} {:>8}", plan.target.name, plan.runs, plan.outcomes.len(), plan.failed);
        good &= plan.failed == 0 && plan.runs > 0;
        if plan.runs == 0 {
            eprintln!("boltseal-fuzz: {} had no turn: more --seconds", plan.target.name);
        }
    }
    Ok(good)
}

fn chosen(only: Option<&str>) -> io::Result<Vec<&'static Target>> {
    let found: Vec<_> = ALL.iter().filter(|target| only.is_none_or(|name| name == target.name)).collect();
    if found.is_empty() {
        return Err(io::Error::other(format!("no target {:?}; see boltseal-fuzz list", only.unwrap_or_default())));
    }
    Ok(found)
}

/// Panics are reported by us, with the input, and before anything unwinds: a build with panic=abort ends right after.
fn report_panics(watch: &Watch) {
    let current = Arc::clone(&watch.current);
    let told = Mutex::new(HashSet::new());
    std::panic::set_hook(Box::new(move |panic| {
        let current = current.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((target, input, _)) = current.as_ref() else {
            eprintln!("boltseal-fuzz: {panic}");
            return;
        };
        // One input of each place is enough to look at.
        let place = panic.location().map(|place| (place.file().to_owned(), place.line()));
        if !told.lock().unwrap_or_else(PoisonError::into_inner).insert(place) {
            return;
        }
        match corpus::keep(target, input) {
            Ok(path) => eprintln!(
                "boltseal-fuzz: {}: {panic}\nFix it, then keep the input: cp {} integration/fuzz/corpus/{}/",
                target.name,
                path.display(),
                target.name
            ),
            Err(error) => eprintln!("boltseal-fuzz: {}: {panic}\nIts input cannot be kept: {error}", target.name),
        }
    }));
}

/// The outcome of one input; None when it panicked.
fn attempt(target: &Target, input: &[u8]) -> Option<u64> {
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).ok()
}

struct Plan {
    target: &'static Target,
    /// Seeds, then what taught something.
    inputs: Vec<Vec<u8>>,
    outcomes: HashSet<u64>,
    runs: u64,
    failed: u64,
}

impl Plan {
    fn step(&mut self, random: &mut Random, watch: &Watch) -> io::Result<()> {
        let (of, from) = (random.below(self.inputs.len()), random.below(self.inputs.len()));
        let input = mutator(self.target)(random, &self.inputs[of], &self.inputs[from]);
        watch.begin(self.target, &input)?;
        let outcome = attempt(self.target, &input);
        self.runs += 1;
        match outcome {
            None => self.failed += 1,
            Some(outcome) => {
                if self.inputs.len() < MAX_LEARNT && self.outcomes.insert(outcome) {
                    self.inputs.push(input);
                }
            }
        }
        Ok(())
    }
}

/// The input in work: its target, its bytes, since when.
type Current = Arc<Mutex<Option<(&'static Target, Vec<u8>, Instant)>>>;

/// Keeps it in a file too (a stack overflow leaves nothing else behind), and under a clock.
struct Watch {
    file: std::fs::File,
    path: std::path::PathBuf,
    current: Current,
}

impl Watch {
    fn start() -> io::Result<Self> {
        std::fs::create_dir_all(corpus::found())?;
        let path = corpus::found().join("current");
        let file = std::fs::File::create(&path)?;
        let current = Current::default();
        let watched = Arc::clone(&current);
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_millis(500));
                let current = watched.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((target, _, since)) = current.as_ref()
                    && since.elapsed() > TOO_LONG
                {
                    eprintln!("boltseal-fuzz: {}: longer than {TOO_LONG:?}: see target/fuzz/current", target.name);
                    std::process::exit(1);
                }
            }
        });
        Ok(Self { file, path, current })
    }

    fn begin(&self, target: &'static Target, input: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        self.file.set_len(0)?;
        self.file.write_all_at(target.name.as_bytes(), 0)?;
        self.file.write_all_at(b"\n", target.name.len() as u64)?;
        self.file.write_all_at(input, target.name.len() as u64 + 1)?;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some((target, input.to_vec(), Instant::now()));
        Ok(())
    }

    fn stop(self) -> io::Result<()> {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
        std::fs::remove_file(self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_corpus_replays() {
        assert!(replay(None).unwrap());
    }

    #[test]
    fn a_panic_is_seen() {
        let bad = Target { name: "bad", holds: "", run: |input| u64::from(input[0]) };
        assert_eq!(attempt(&bad, b"a"), Some(97));
        assert_eq!(attempt(&bad, b""), None);
    }

    #[test]
    fn an_unknown_target_is_an_error() {
        assert!(replay(Some("nothing")).is_err());
    }
}
