//! The folders that an overlay is made of, as its mount options name them. Source: overlayfs.rst of the kernel.
use crate::mountinfo::Entry;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Folders of an overlay, and whether a path in the overlay is the same path in them (not in the work folder).
pub(crate) fn folders(entry: &Entry) -> Vec<(PathBuf, bool)> {
    let mut folders = Vec::new();
    for (name, value) in &entry.data {
        match name.as_str() {
            "lowerdir" => folders.extend(split_lowers(value.as_bytes()).into_iter().map(|f| (f, true))),
            "upperdir" | "lowerdir+" | "datadir+" => folders.push((value.into(), true)),
            "workdir" => folders.push((value.into(), false)),
            _ => {}
        }
    }
    folders
}

/// `a:b::c` with `\:` for a colon in a name; what follows `::` holds data only and counts as well.
pub(crate) fn split_lowers(value: &[u8]) -> Vec<PathBuf> {
    let mut folders = vec![Vec::new()];
    let mut bytes = value.iter();
    while let Some(&byte) = bytes.next() {
        let literal = match byte {
            b':' => {
                folders.push(Vec::new());
                continue;
            }
            b'\\' => bytes.next().copied().unwrap_or(b'\\'),
            other => other,
        };
        if let Some(last) = folders.last_mut() {
            last.push(literal);
        }
    }
    folders.into_iter().filter(|f| !f.is_empty()).map(|f| OsString::from_vec(f).into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn lower_folders_with_colons() {
        assert_eq!(split_lowers(br"/a\:b:/c::/d"), [Path::new("/a:b"), Path::new("/c"), Path::new("/d")]);
        assert!(split_lowers(b"").is_empty());
    }

    #[test]
    fn every_folder_of_a_line() {
        let line =
            b"1 2 0:4 / /b rw - overlay o rw,lowerdir=/a:/b,upperdir=/u,workdir=/w,lowerdir+=/c,datadir+=/d,index=off";
        let entry = crate::mountinfo::parse_line(line).unwrap();
        let found: Vec<_> =
            folders(&entry).iter().map(|(path, joins)| (path.to_str().unwrap().to_owned(), *joins)).collect();
        let expected = [("/a", true), ("/b", true), ("/u", true), ("/w", false), ("/c", true), ("/d", true)];
        assert_eq!(found, expected.map(|(path, joins)| (path.to_owned(), joins)));
    }
}
