//! What a scan of layers reads from a worker, from its cache and from files of an image.
use super::outcome;
use boltseal_scan::{answer, capability, decode_cached, peek};

/// What is decoded is decoded of what it is encoded as.
pub(super) fn scan_answer(bytes: &[u8]) -> u64 {
    let read = answer::decode(bytes);
    if let Ok(read) = &read {
        assert_eq!(answer::decode(&answer::encode(&Ok(read.clone()))).as_ref(), Ok(read));
        assert!(read.found.iter().all(|seen| seen.path.starts_with(b"/")));
    }
    if let Err(why) = &read {
        assert!(!why.starts_with("timeout"), "a worker says that time was short: {why}");
    }
    outcome(&read.map(|read| (read.found.len(), read.more)).map_err(|why| why.len()))
}

/// Behind a right sum, as a forger would write it, too.
pub(super) fn scan_cached(bytes: &[u8]) -> u64 {
    let body = bytes.splitn(2, |b| *b == b'\n').nth(1).unwrap_or(bytes);
    let head = format!("boltseal-scan {} {}\n", boltseal_scan::SCANNER, boltseal_trust::digest(body).hex());
    let summed = decode_cached(&[head.as_bytes(), body].concat());
    assert!(!matches!(&summed, Err(why) if why.contains("torn")), "the sum is written otherwise");
    let shown =
        |read: Result<boltseal_scan::Cached, String>| read.map(|r| r.answer.found.len()).map_err(|why| why.len());
    outcome(&(shown(decode_cached(bytes)), shown(summed)))
}

pub(super) fn scan_capability(bytes: &[u8]) -> u64 {
    let shown = capability::shown(bytes);
    assert!(shown.len() < 128 && !shown.chars().any(char::is_control), "{shown}");
    outcome(&shown.split(' ').next())
}

/// In whatever parts it comes, it is the same program.
pub(super) fn scan_peek(bytes: &[u8]) -> u64 {
    let mut peek = peek::Peek::default();
    peek.part(bytes);
    let whole = peek.name();
    peek.begin();
    let step = 1 + bytes.first().map_or(0, |b| usize::from(*b));
    let mut at = 0_usize;
    while at < bytes.len() {
        let end = (at + step).min(bytes.len());
        peek.part(&bytes[at.saturating_sub(peek::OVERLAP)..end]);
        at = end;
    }
    assert_eq!(peek.name(), whole);
    outcome(&(whole, peek::Peek::is_elf(bytes)))
}
