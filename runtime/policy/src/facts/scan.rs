//! What a scan of the image's layers found: a worker's word, bounded, about the root file system as the kernel merges it.
use serde::{Deserialize, Serialize};

/// Where the scan's result is from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum From {
    /// This start scanned.
    #[default]
    Fresh,
    /// An earlier one did, of the same layers.
    Cached,
}

impl From {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Cached => "cached",
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    pub from: From,
    /// Names that were looked at, and the bytes of their regular files.
    pub entries: u64,
    pub bytes: u64,
    /// The first of each kind.
    pub found: Vec<Found>,
    /// How many more there are of each kind, in the order of [`Kind::ALL`].
    pub more: [u64; Kind::ALL.len()],
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    pub kind: Kind,
    /// Path in the image; bytes that are no UTF-8 are replaced.
    pub path: String,
    /// What it is: a mode, a link's name, device numbers. Empty where the path says it.
    pub note: String,
    /// Which layer has it, the lowest is 0.
    pub layer: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Shell,
    RemoteAdmin,
    Setuid,
    FileCapability,
    Device,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Shell, Self::RemoteAdmin, Self::Setuid, Self::FileCapability, Self::Device];

    /// As conditions of rules and a cached result have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::RemoteAdmin => "remote-admin",
            Self::Setuid => "setuid",
            Self::FileCapability => "file-capability",
            Self::Device => "device",
        }
    }

    /// Its place in [`Scan::more`].
    #[must_use]
    pub fn place(self) -> usize {
        self as usize
    }
}

impl Scan {
    /// What of that kind was found, and how many there are in all.
    #[must_use]
    pub fn of(&self, kind: Kind) -> (Vec<&Found>, u64) {
        let found: Vec<&Found> = self.found.iter().filter(|f| f.kind == kind).collect();
        let more = self.more.get(kind.place()).copied().unwrap_or_default();
        let all = u64::try_from(found.len()).unwrap_or(u64::MAX).saturating_add(more);
        (found, all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_stand_in_their_places_and_have_names_of_their_own() {
        for (place, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind.place(), place);
            assert_eq!(Kind::ALL.iter().filter(|other| other.name() == kind.name()).count(), 1);
        }
        assert_ne!(From::Fresh.name(), From::Cached.name());
    }

    #[test]
    fn what_is_not_listed_counts() {
        let found = |kind| Found { kind, path: "/a".into(), note: String::new(), layer: None };
        let scan = Scan {
            found: vec![found(Kind::Shell), found(Kind::Device), found(Kind::Shell)],
            more: [3, 0, 0, 0, 1],
            ..Scan::default()
        };
        let all = Kind::ALL.map(|kind| (scan.of(kind).0.len(), scan.of(kind).1));
        assert_eq!(all, [(2, 5), (0, 0), (0, 0), (0, 0), (1, 2)]);
    }
}
