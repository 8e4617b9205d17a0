//! What came through the pipe, into the store: only files of the image that was asked for or of a manifest that its index
//! names, each named by its own content. What a policy's key verifies comes before what nobody vouches for.
use crate::frames::{ENDS, Frame};
use boltseal_evidence::signatures::{self, MAX_FILES};
use boltseal_store::{Put, Store};
use boltseal_trust::{Digest, StoreFile, digest};
use std::path::Path;

/// Of files that nobody vouches for, at most so many of one image: an index may name an image that is not its author's, and
/// what an operator imports must find room beside them.
const MAX_STRANGERS: usize = MAX_FILES / 2;
/// Manifests of one image that files are taken of: an index and this machine's.
const MAX_MANIFESTS: usize = 5;
const MAX_NOTES: usize = 16;

/// What the child told.
#[derive(Debug, Default)]
pub struct Told {
    pub files: Vec<StoreFile>,
    pub notes: Vec<String>,
    index: Option<Vec<u8>>,
}

impl Told {
    /// # Errors
    /// What an honest child does not say.
    pub fn add(&mut self, image: &Digest, frame: Frame) -> Result<(), &'static str> {
        match frame {
            Frame::End => Ok(()),
            Frame::Index(bytes) if self.index.is_none() && digest(&bytes) == *image => {
                self.index = Some(bytes);
                Ok(())
            }
            Frame::Index(_) => Err("an index that is not the image"),
            Frame::Note(text) => {
                if self.notes.len() < MAX_NOTES {
                    self.notes.push(crate::shown(&String::from_utf8_lossy(&text)));
                }
                Ok(())
            }
            Frame::File { end, manifest, bytes } => {
                let hex: String = manifest.iter().map(|byte| format!("{byte:02x}")).collect();
                if hex != image.hex() && !self.index.as_deref().is_some_and(|index| names(index, &hex)) {
                    return Err("a file of another image");
                }
                let mut manifests: Vec<&str> = self.files.iter().map(|f| f.manifest_hex.as_str()).collect();
                manifests.dedup();
                if manifests.iter().filter(|m| **m == hex).count() == 0 && manifests.len() == MAX_MANIFESTS {
                    return Err("files of too many manifests");
                }
                if self.files.iter().filter(|f| f.manifest_hex == hex).count() == MAX_FILES {
                    return Err("too many files");
                }
                let end = ENDS.get(usize::from(end)).ok_or("a kind that there is not")?;
                let name = format!("{}.{end}", digest(&bytes).hex());
                self.files.push(StoreFile { manifest_hex: hex, name, bytes });
                Ok(())
            }
        }
    }
}

/// Whether the bytes of an index name that manifest. No parser: they hash to what containerd asked for.
fn names(index: &[u8], hex: &str) -> bool {
    let wanted = format!("\"sha256:{hex}\"");
    index.windows(wanted.len()).any(|window| window == wanted.as_bytes())
}

/// How it went.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Kept {
    pub new: usize,
    pub known: usize,
    /// Files for which there was no room.
    pub left: usize,
    /// Whether a signature of the image is among what the store holds now, by the policy's word.
    pub vouched: bool,
}

/// What the policy's keys say of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    Nothing,
    /// One of them signed it, as a statement about the image.
    Statement,
    /// One of them signed the image.
    Signature,
}

/// Stores the files, those first that a key of the policy signed. One of these takes the place of a file that none signed
/// where an image's folder is full.
///
/// # Errors
/// The store cannot be written.
pub fn keep(root: &Path, told: &Told, image: &Digest, word: &dyn Fn(&StoreFile) -> Word) -> Result<Kept, String> {
    let store = Store::open(root)?;
    let mut kept = Kept::default();
    let judged: Vec<_> = told.files.iter().map(|file| (file, word(file))).collect();
    kept.vouched = judged.iter().any(|(_, word)| *word == Word::Signature);
    let (good, rest): (Vec<_>, Vec<_>) = judged.into_iter().partition(|(_, word)| *word != Word::Nothing);
    for (file, _) in &good {
        let mut put = store.put(file, MAX_FILES)?;
        if put == Put::Full && make_room(root, &store, file, word)? {
            put = store.put(file, MAX_FILES)?;
        }
        kept.count(put);
    }
    for (file, _) in &rest {
        kept.count(store.put(file, MAX_STRANGERS)?);
    }
    // What was imported by hand counts as well.
    if !kept.vouched {
        let held = signatures::files(root, &image.to_string()).map_err(|p| p.to_string())?;
        kept.vouched = held
            .files
            .into_iter()
            .any(|f| word(&StoreFile { manifest_hex: image.hex(), name: f.name, bytes: f.bytes }) == Word::Signature);
    }
    Ok(kept)
}

impl Kept {
    fn count(&mut self, put: Put) {
        match put {
            Put::New => self.new += 1,
            Put::Known => self.known += 1,
            Put::Full => self.left += 1,
        }
    }
}

fn make_room(root: &Path, store: &Store, file: &StoreFile, word: &dyn Fn(&StoreFile) -> Word) -> Result<bool, String> {
    let held = signatures::files(root, &format!("sha256:{}", file.manifest_hex)).map_err(|p| p.to_string())?;
    for other in held.files {
        let other = StoreFile { manifest_hex: file.manifest_hex.clone(), name: other.name, bytes: other.bytes };
        if word(&other) == Word::Nothing {
            store.remove_file(&other.manifest_hex, &other.name)?;
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(image: &Digest, bytes: &[u8]) -> Frame {
        Frame::file(image, "x.sig.json", bytes.to_vec()).unwrap()
    }

    #[test]
    fn only_files_of_the_image_and_of_what_its_index_names() {
        let (other, child) = (digest(b"other"), digest(b"child"));
        let index = format!(r#"{{"manifests":[{{"digest":"{child}"}}]}}"#).into_bytes();
        let image = digest(&index);
        let mut told = Told::default();
        assert!(told.add(&image, file(&child, b"a")).is_err());
        assert!(told.add(&image, Frame::Index(b"{}".to_vec())).is_err());
        told.add(&image, Frame::Index(index.clone())).unwrap();
        assert!(told.add(&image, Frame::Index(index)).is_err());
        told.add(&image, file(&child, b"a")).unwrap();
        told.add(&image, file(&image, b"b")).unwrap();
        assert!(told.add(&image, file(&other, b"c")).is_err());
        assert_eq!(told.files[0].name, format!("{}.sig.json", digest(b"a").hex()));
        for n in 1..MAX_FILES {
            told.add(&image, file(&image, &[u8::try_from(n).unwrap()])).unwrap();
        }
        assert!(told.add(&image, file(&image, b"one more")).is_err());
        told.add(&image, Frame::Note(b"a\nb\x1b".to_vec())).unwrap();
        assert_eq!(told.notes, ["a?b?"]);
    }

    #[test]
    fn what_a_key_signed_takes_the_place_of_what_none_did() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("sig");
        let image = digest(b"image");
        let fill = |letter: u8| {
            let mut told = Told::default();
            (0..MAX_FILES).for_each(|n| told.add(&image, file(&image, &[letter, u8::try_from(n).unwrap()])).unwrap());
            told
        };
        let word = |f: &StoreFile| match f.bytes[0] {
            b'g' => Word::Signature,
            b's' => Word::Statement,
            _ => Word::Nothing,
        };
        // Strangers' files leave room for an operator's.
        let junk = keep(&root, &fill(b'j'), &image, &word).unwrap();
        assert_eq!(junk, Kept { new: MAX_STRANGERS, known: 0, left: MAX_STRANGERS, vouched: false });
        let statements = keep(&root, &fill(b's'), &image, &word).unwrap();
        assert_eq!(statements, Kept { new: MAX_FILES, known: 0, left: 0, vouched: false });
        // And none of them takes the place of what a key signed.
        let more = keep(&root, &fill(b'k'), &image, &word).unwrap();
        assert_eq!((more.new, more.left), (0, MAX_FILES));
        let mut told = Told::default();
        told.add(&image, file(&image, b"g1")).unwrap();
        assert_eq!(keep(&root, &told, &image, &word).unwrap(), Kept { new: 0, known: 0, left: 1, vouched: true });
        // What the store holds already counts.
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("sig");
        assert_eq!(keep(&root, &told, &image, &word).unwrap().new, 1);
        assert!(keep(&root, &Told::default(), &image, &word).unwrap().vouched);
        assert!(!keep(&root, &Told::default(), &digest(b"y"), &word).unwrap().vouched);
    }
}
