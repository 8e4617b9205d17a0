//! What registries answer, what docker keeps of who we are, and archives of layouts.
use super::{outcome, text};
use boltseal_fetch::credentials::{Choice, choose, of_helper};
use boltseal_fetch::frames::Frame;
use boltseal_fetch::http::parse_head;
use boltseal_fetch::job::Secret;
use boltseal_fetch::{challenge, registry, url};
use boltseal_store::layout::Layout;
use boltseal_trust::{import_manifest, referrers};

/// The value of a `WWW-Authenticate` header; as a URL, and as the answer of a realm too.
pub(super) fn fetch_challenge(bytes: &[u8]) -> u64 {
    let token = registry::token_of(bytes);
    if let Ok(token) = &token {
        assert!(!token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()));
    }
    let Some(text) = text(bytes) else { return outcome(&token.is_ok()) };
    let read = challenge::parse(text);
    for challenge in read.iter().flatten() {
        assert!(!challenge.scheme.is_empty() && challenge.scheme.is_ascii());
        assert!(challenge.parameters.iter().all(|(name, value)| !name.is_empty() && !value.contains(['\r', '\n'])));
    }
    let found = url::Url::parse(text);
    if let Ok(url) = &found {
        let again =
            url::Url::parse(&format!("{}://{}{}", if url.tls { "https" } else { "http" }, url.authority(), url.path));
        assert_eq!(again.as_ref(), Ok(url));
        assert!(url.path.starts_with('/') && !url.host.is_empty());
    }
    outcome(&(read.map(|c| c.len()), found.is_ok(), token.is_ok()))
}

/// The head of an answer: it is complete or more must come, and never longer than what was read.
pub(super) fn fetch_head(bytes: &[u8]) -> u64 {
    let read = parse_head(bytes);
    if let Ok(Some((length, _, headers))) = &read {
        assert!(*length <= bytes.len());
        assert!(headers.iter().all(|(name, value)| !name.is_empty() && !value.contains(['\r', '\n'])));
    }
    outcome(&read.map(|head| head.map(|(_, status, headers)| (status, headers.len()))))
}

/// Docker's config.json: no registry gets what another one's entry says.
pub(super) fn fetch_docker(bytes: &[u8]) -> u64 {
    let found = choose(bytes, "ghcr.io", "corp/team/app");
    match &found {
        Ok(Choice::Helper { name, .. }) => assert!(!name.contains(['/', '.'])),
        Ok(Choice::Secret(secret)) => assert!(*secret == Secret::None || !matches!(secret, Secret::Helper(_))),
        Err(_) => {}
    }
    if !bytes.windows(7).any(|word| word.eq_ignore_ascii_case(b"ghcr.io")) && !bytes.contains(&b'\\') {
        let stored = matches!(found, Ok(Choice::Helper { .. }));
        assert!(stored || !matches!(&found, Ok(Choice::Secret(secret)) if *secret != Secret::None));
    }
    outcome(&(found.is_ok(), of_helper(bytes).is_ok()))
}

/// What a child writes to its parent: read as it was written, frame by frame.
pub(super) fn fetch_frames(bytes: &[u8]) -> u64 {
    let (mut rest, mut kinds) = (bytes, Vec::new());
    loop {
        match Frame::decode(rest) {
            Ok(Some((frame, length))) => {
                assert_eq!(frame.encode(), rest[..length]);
                kinds.push(std::mem::discriminant(&frame));
                rest = &rest[length..];
            }
            other => return outcome(&(kinds, other.map(|_| ()))),
        }
    }
}

/// An index of referrers, or one manifest of signatures whose blobs are all these bytes.
pub(super) fn fetch_referrers(bytes: &[u8]) -> u64 {
    let listed = referrers(bytes);
    if let Ok(list) = &listed {
        assert!(list.is_sorted_by_key(|referrer| !referrer.likely));
    }
    let taken = import_manifest(|_| Ok::<_, String>(bytes.to_vec()), bytes, None);
    if let Ok(found) = &taken {
        assert!(found.files.iter().all(|file| file.manifest_hex.len() == 64 && !file.name.contains('/')));
    }
    outcome(&(listed.map(|l| l.len()), taken.map(|found| (found.files.len(), found.skipped.len()))))
}

/// A tar, plain or by gzip: what it holds has names of blobs and is what it says it is long.
pub(super) fn store_tar(bytes: &[u8]) -> u64 {
    let read = Layout::of_bytes(bytes);
    if let Ok(layout) = &read {
        for (digest, size) in layout.blobs() {
            assert!(digest.len() == 71 && digest.starts_with("sha256:"));
            if let Ok(blob) = layout.blob(digest) {
                assert_eq!(blob.len() as u64, *size);
            }
        }
    }
    outcome(&read.map(|layout| (layout.blobs().len(), layout.index().is_ok())))
}
