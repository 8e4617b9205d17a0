//! Names and numbers of the system calls, Linux 6.18: `seccomp/syscalls.tsv`, written by `seccomp/syscalls.sh`.

/// The two architectures that boltseal builds for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    X86_64,
    Aarch64,
}

impl Arch {
    /// The architecture of this program; None where boltseal has no table.
    #[must_use]
    pub fn native() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::X86_64),
            "aarch64" => Some(Self::Aarch64),
            _ => None,
        }
    }
}

const TABLE: &str = include_str!("../seccomp/syscalls.tsv");

/// All calls of an architecture: (name, number), sorted by name.
pub fn numbers(arch: Arch) -> impl Iterator<Item = (&'static str, u32)> {
    let column = match arch {
        Arch::X86_64 => 0,
        Arch::Aarch64 => 1,
    };
    TABLE.lines().filter_map(move |line| {
        let mut fields = line.split('\t');
        Some((fields.next()?, fields.nth(column)?.parse().ok()?))
    })
}

/// The number of a call; None when the architecture has none or the name is unknown.
#[must_use]
pub fn number(arch: Arch, name: &str) -> Option<u32> {
    numbers(arch).find(|(n, _)| *n == name).map(|(_, number)| number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn known_numbers() {
        for (name, x86, arm) in [
            ("read", Some(0), Some(63)),
            ("open", Some(2), None),
            ("execve", Some(59), Some(221)),
            ("newfstatat", Some(262), Some(79)),
            ("clone3", Some(435), Some(435)),
            ("file_setattr", Some(469), Some(469)),
            ("uprobe", Some(336), None),
            ("socketcall", None, None),
        ] {
            assert_eq!(number(Arch::X86_64, name), x86, "{name}");
            assert_eq!(number(Arch::Aarch64, name), arm, "{name}");
        }
    }

    #[test]
    fn no_number_twice() {
        for (arch, count) in [(Arch::X86_64, 383), (Arch::Aarch64, 325)] {
            let all: Vec<u32> = numbers(arch).map(|(_, n)| n).collect();
            let distinct: BTreeSet<u32> = all.iter().copied().collect();
            assert_eq!(all.len(), distinct.len());
            assert!(all.len() >= count - 10, "{}", all.len());
        }
    }
}
