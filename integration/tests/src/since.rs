//! What the trail says from a moment on, read from its own files: all of it, as `boltseal audit list` shows it, is thousands of
//! records at the end of a run.
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

const TRAIL: &str = "/var/log/boltseal";

/// How long each file of the trail was.
#[derive(Debug, Clone)]
pub struct Since(BTreeMap<PathBuf, u64>);

impl Since {
    pub fn now() -> Result<Self> {
        files().map(Self)
    }

    /// Whole lines that were written since, oldest first. A trail that lost something is an error, not one with nothing new.
    pub fn records(&self) -> Result<Vec<Value>> {
        let mut records = Vec::new();
        let now = files()?;
        for (path, before) in &self.0 {
            let len = now.get(path).with_context(|| format!("{} is gone", path.display()))?;
            ensure!(len >= before, "{} had {before} bytes and has {len}", path.display());
        }
        for path in now.into_keys() {
            let mut text = String::new();
            let mut file = File::open(&path)?;
            file.seek(SeekFrom::Start(self.0.get(&path).copied().unwrap_or_default()))?;
            file.read_to_string(&mut text)?;
            let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
            for line in whole.lines() {
                records.push(serde_json::from_str(line).with_context(|| format!("{}: {line}", path.display()))?);
            }
        }
        Ok(records)
    }
}

/// Named by their first record, so that their order is the trail's.
fn files() -> Result<BTreeMap<PathBuf, u64>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(Path::new(TRAIL)).context(TRAIL)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(".jsonl") {
            all.insert(entry.path(), entry.metadata()?.len());
        }
    }
    Ok(all)
}
