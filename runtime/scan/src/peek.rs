//! What an ELF program is by its content: the two multicall binaries that are a shell under any name.
use memchr::memmem::Finder;

/// As much as a part keeps of the one before it: longer than any mark.
pub const OVERLAP: usize = 64;

/// All marks of one line are in the program.
const MULTICALL: [(&str, [&str; 2]); 3] = [
    ("busybox", ["BusyBox v", "BusyBox is copyrighted by many authors"]),
    ("busybox", ["BusyBox v", "Erik Andersen, Rob Landley"]),
    ("toybox", ["usage: toybox [", "landley.net/toybox"]),
];

/// Looks through a program, part by part.
#[derive(Debug)]
pub struct Peek {
    marks: Vec<(usize, usize, Finder<'static>)>,
    seen: [[bool; 2]; MULTICALL.len()],
}

impl Default for Peek {
    fn default() -> Self {
        let marks = MULTICALL.iter().enumerate().flat_map(|(line, (_, marks))| {
            marks.iter().enumerate().map(move |(column, mark)| (line, column, Finder::new(mark.as_bytes())))
        });
        Self { marks: marks.collect(), seen: Default::default() }
    }
}

impl Peek {
    /// Whether a file that begins so is a program.
    #[must_use]
    pub fn is_elf(head: &[u8]) -> bool {
        head.starts_with(b"\x7fELF")
    }

    /// Begins another program.
    pub fn begin(&mut self) {
        self.seen = Default::default();
    }

    /// The next part of it; it begins with the last [`OVERLAP`] bytes of the part before it.
    pub fn part(&mut self, bytes: &[u8]) {
        for (line, column, finder) in &self.marks {
            let Some(seen) = self.seen.get_mut(*line).and_then(|line| line.get_mut(*column)) else { continue };
            *seen = *seen || finder.find(bytes).is_some();
        }
    }

    /// Its name, if it is one of them.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        let all = self.seen.iter().position(|line| line.iter().all(|seen| *seen));
        all.and_then(|line| MULTICALL.get(line)).map(|(name, _)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(parts: &[&[u8]]) -> Option<&'static str> {
        let mut peek = Peek::default();
        parts.iter().for_each(|part| peek.part(part));
        peek.name()
    }

    #[test]
    fn one_mark_alone_is_a_program_that_speaks_of_it() {
        assert_eq!(name(&[b"found BusyBox v1.35"]), None);
        assert_eq!(name(&[b"BusyBox is copyrighted by many authors between"]), None);
        assert_eq!(name(&[b"BusyBox v1.35", b"BusyBox is copyrighted by many authors between"]), Some("busybox"));
        assert_eq!(name(&[b"BusyBox v1.20 .. (C) 1998-2011 Erik Andersen, Rob Landley"]), Some("busybox"));
        assert_eq!(name(&[]), None);
    }

    #[test]
    fn the_next_program_begins_anew() {
        let mut peek = Peek::default();
        peek.part(b"BusyBox v1");
        peek.begin();
        peek.part(b"BusyBox is copyrighted by many authors");
        assert_eq!(peek.name(), None);
    }

    #[test]
    fn no_mark_is_longer_than_the_overlap() {
        assert!(MULTICALL.iter().flat_map(|(_, marks)| marks).all(|mark| mark.len() <= OVERLAP));
    }

    #[test]
    fn a_real_busybox_is_one() {
        let bytes = std::fs::read("/bin/busybox").unwrap();
        assert!(Peek::is_elf(&bytes));
        assert_eq!(name(&[&bytes]), Some("busybox"));
        assert_eq!(name(&[&std::fs::read(std::env::current_exe().unwrap()).unwrap()[..1 << 20]]), None);
    }
}
