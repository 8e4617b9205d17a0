//! Sealed layers that go with the images: those that no statement names that stays, no device reads from, and nobody brought of late.
use crate::paths::{SIGNATURES, VERITY};
use crate::screen::{Colour, Failure, Screen, count};
use boltseal_store::blobs::{Blob, Blobs, held};
use boltseal_store::{Held, Store};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

const BLOCK_DEVICES: &str = "/sys/block";

/// All that are there, by why they stay.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    blobs: Option<Blobs>,
    gone: Vec<Blob>,
    named: usize,
    read: usize,
    young: usize,
}

impl Sorted {
    /// `images` are those whose statements stay.
    pub(super) fn of(images: &[&Held], since: u64) -> Result<Self, String> {
        // Without a store nobody can say what is named: it may be on a disk that is not there today.
        let (Some(blobs), true) = (Blobs::open(Path::new(VERITY))?, Path::new(SIGNATURES).exists()) else {
            return Ok(Self::default());
        };
        let named = Store::open(Path::new(SIGNATURES))?.sealed(images)?;
        let read = held(Path::new(BLOCK_DEVICES))?;
        let sorted = Self::default().sorted(blobs.all()?, &named, &read, since);
        Ok(Self { blobs: Some(blobs), ..sorted })
    }

    fn sorted(mut self, all: Vec<Blob>, named: &BTreeSet<String>, read: &BTreeSet<String>, since: u64) -> Self {
        for blob in all {
            match &blob {
                blob if named.contains(&blob.name) => self.named += 1,
                blob if read.contains(&blob.name) => self.read += 1,
                blob if blob.changed >= since => self.young += 1,
                _ => self.gone.push(blob),
            }
        }
        self
    }

    pub(super) fn remove(&self) -> Result<(), String> {
        let Some(blobs) = &self.blobs else { return Ok(()) };
        self.gone.iter().try_for_each(|blob| blobs.remove(blob))
    }

    pub(super) fn described(&self) -> Value {
        let gone: Vec<_> = self.gone.iter().map(|b| json!({ "file": b.name, "bytes": b.bytes })).collect();
        json!({ "removed": gone, "named": self.named, "in_use": self.read, "young": self.young })
    }

    pub(super) fn show(&self, did: &str, screen: &mut Screen) -> Result<(), Failure> {
        self.gone.iter().try_for_each(|blob| {
            let size = count(usize::try_from(blob.bytes).unwrap_or(usize::MAX), "byte");
            screen.row('-', Colour::Dim, &format!("sealed layer {}  {size} {did}", blob.name))
        })
    }

    /// Only on a node that has some.
    pub(super) fn sum_up(&self, did: &str, screen: &mut Screen) -> Result<(), Failure> {
        if self.blobs.is_none() {
            return Ok(());
        }
        let Self { named, read, young, .. } = self;
        let bytes: u64 = self.gone.iter().map(|blob| blob.bytes).sum();
        let gone = count(self.gone.len(), "sealed layer");
        screen.line(&format!(
            "{gone} {did}, {} MiB; {named} named by a statement, {read} of containers that run, {young} too young",
            bytes >> 20
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_is_old_named_by_nobody_and_read_by_nobody() {
        let blob = |name: &str, changed| Blob { name: name.into(), bytes: 1 << 20, changed };
        let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
        let all = vec![blob("old", 1), blob("named", 1), blob("read", 1), blob("young", 9), blob("both", 9)];
        let sorted = Sorted::default().sorted(all, &set(&["named", "both", "elsewhere"]), &set(&["read", "both"]), 9);
        assert_eq!(sorted.gone, [blob("old", 1)]);
        assert_eq!((sorted.named, sorted.read, sorted.young), (2, 1, 1));
        let described = sorted.described();
        assert_eq!(described["removed"], json!([{ "file": "old", "bytes": 1 << 20 }]));
    }
}
