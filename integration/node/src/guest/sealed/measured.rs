//! What a sealed start costs beside one from folders, of the same image and under the same policy: in turns, so that whatever else happens
//! on the machine happens to each. Without hardware help the ratio alone says something.
use super::{SLEEP, complete, in_time, said};
use crate::guest::work::World;
use crate::sealed::MEASURED;
use anyhow::Result;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// `own` has the image's signatures, `before` those among them that are no seal.
pub(super) fn ratio(world: &World, own: &Path, before: &[PathBuf]) -> Result<String> {
    let seals: Vec<PathBuf> = super::listed(own)?.into_iter().filter(|path| !before.contains(path)).collect();
    let aside = |path: &PathBuf| Path::new("/var/tmp").join(path.file_name().unwrap_or_default());
    let timed = |id: String| -> Result<Duration> {
        let begun = Instant::now();
        complete(world, &id, &["/bin/true"])?;
        Ok(begun.elapsed())
    };
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    let [unsealed, alone, shared] = &mut times;
    for turn in 0..MEASURED {
        for seal in &seals {
            fs::copy(seal, aside(seal))?;
            fs::remove_file(seal)?;
        }
        unsealed.push(timed(format!("unsealed-{turn}"))?);
        for seal in &seals {
            fs::copy(aside(seal), seal)?;
        }
        // Its device is made, and goes with it; then one that somebody holds already.
        alone.push(timed(format!("alone-{turn}"))?);
        let holder = world.named(&format!("holder-{turn}"), "app", &SLEEP)?;
        in_time(|| world.run(&holder)).map_err(|status| said("holder", &status))?;
        let beside = timed(format!("shared-{turn}"));
        world.client.remove(&holder)?;
        shared.push(beside?);
    }
    super::nothing_left()?;
    let [unsealed, alone, shared] = times.map(median);
    let of = |time: Duration| time.as_secs_f64() / unsealed.as_secs_f64();
    Ok(format!(
        "a whole start and end, median of {MEASURED} in turns: from folders {} ms, sealed {:.2} of it, beside another of its layers {:.2}",
        unsealed.as_millis(),
        of(alone),
        of(shared)
    ))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
