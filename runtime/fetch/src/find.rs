//! Where a registry keeps the signatures of an image: among its referrers (OCI 1.1), in the index that stands for them under
//! a tag, and under cosign 2's tags `.sig` and `.att`.
use crate::frames::Frame;
use crate::registry::{Failure, Registry};
use boltseal_evidence::signatures::MAX_FILES;
use boltseal_trust::{
    Digest, Imported, MAX_ATTESTATION_FILE, MAX_IMAGE_FILE, Proposal, Source, digest, import_manifest, propose,
    referrers,
};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const ANY: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                   application/vnd.docker.distribution.manifest.list.v2+json, \
                   application/vnd.docker.distribution.manifest.v2+json";
/// Manifests of an index that are this machine's: variants of one architecture.
const MAX_PLATFORMS: usize = 4;
/// Referrers of one image whose manifests are read.
const MAX_REFERRERS: usize = 32;
/// Pages of the referrers' list.
const MAX_PAGES: usize = 4;
/// Largest manifest of signatures, bytes: 16 of them with annotations are far from it.
const MAX_MANIFEST: usize = 512 << 10;
const MAX_NOTES: usize = 16;

/// Tells `say` everything that is found of the image. What fails is told, and what does not depend on it goes on.
pub fn find(registry: &mut Registry, image: &Digest, say: &mut dyn FnMut(Frame)) {
    let mut found = Found { registry, say, notes: 0 };
    for subject in found.subjects(image) {
        found.of(&subject);
    }
    (found.say)(Frame::End);
}

struct Found<'a> {
    registry: &'a mut Registry,
    say: &'a mut dyn FnMut(Frame),
    notes: usize,
}

impl Found<'_> {
    fn note(&mut self, what: &str, why: &dyn std::fmt::Display) {
        if self.notes < MAX_NOTES {
            self.notes += 1;
            (self.say)(Frame::Note(crate::shown(&format!("{what}: {why}")).into_bytes()));
        }
    }

    /// The image, and the manifests that an index has for this machine: either may be signed.
    fn subjects(&mut self, image: &Digest) -> Vec<Digest> {
        let mut subjects = vec![*image];
        let bytes = match self.registry.get(&format!("manifests/{image}"), ANY, MAX_IMAGE_FILE) {
            Ok(answer) => answer.body,
            Err(why) => {
                self.note("the image's manifest", &why);
                return subjects;
            }
        };
        if digest(&bytes) != *image {
            self.note("the image's manifest", &"other bytes than its digest says");
            return subjects;
        }
        if let Ok(Proposal::Index(index)) = propose(Source::Target, &bytes) {
            let here = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
            let ours = index.entries.iter().filter(|e| e.os == "linux" && e.architecture == here);
            subjects.extend(ours.take(MAX_PLATFORMS).map(|entry| entry.descriptor.digest.digest));
            (self.say)(Frame::Index(bytes));
        }
        subjects
    }

    fn of(&mut self, subject: &Digest) {
        let mut room = MAX_FILES;
        let hex = subject.hex();
        for manifest in self.listed(subject) {
            if room == 0 {
                return self.note(&subject.to_string(), &format!("more than {MAX_FILES} signatures"));
            }
            match self.registry.get(&format!("manifests/{manifest}"), MANIFEST, MAX_MANIFEST) {
                Err(why) => self.note(&manifest.to_string(), &why),
                Ok(answer) if digest(&answer.body) != manifest => {
                    self.note(&manifest.to_string(), &"other bytes than its digest says");
                }
                Ok(answer) => room = self.take(&answer.body, subject, true, room),
            }
        }
        for end in ["sig", "att"] {
            match self.registry.get(&format!("manifests/sha256-{hex}.{end}"), MANIFEST, MAX_MANIFEST) {
                Err(Failure::Missing) => {}
                Err(why) => self.note(&format!("sha256-{hex}.{end}"), &why),
                Ok(answer) => room = self.take(&answer.body, subject, false, room),
            }
        }
    }

    /// Manifests that refer to the image: by the registry's own list, else by the one under a tag.
    fn listed(&mut self, subject: &Digest) -> Vec<Digest> {
        let mut pages = Vec::new();
        let mut next = Some(format!("referrers/{subject}"));
        while let Some(page) = next.take().filter(|_| pages.len() < MAX_PAGES) {
            match self.registry.get(&page, INDEX, MAX_IMAGE_FILE) {
                Ok(answer) => {
                    next =
                        answer.header("link").and_then(following).map(|query| format!("referrers/{subject}?{query}"));
                    pages.push(answer.body);
                }
                Err(Failure::Missing) => {}
                Err(why) => self.note("referrers", &why),
            }
        }
        let mut found = self.entries(&pages);
        if found.is_empty() {
            match self.registry.get(&format!("manifests/sha256-{}", subject.hex()), INDEX, MAX_IMAGE_FILE) {
                Ok(answer) => found = self.entries(&[answer.body]),
                Err(Failure::Missing) => {}
                Err(why) => self.note("the index under the image's tag", &why),
            }
        }
        found
    }

    fn entries(&mut self, pages: &[Vec<u8>]) -> Vec<Digest> {
        let mut found = Vec::new();
        for page in pages {
            match referrers(page) {
                Ok(entries) => found.extend(entries),
                Err(why) => self.note("referrers", &why),
            }
        }
        found.sort_by_key(|referrer| !referrer.likely);
        let large = found.iter().filter(|r| r.size > MAX_MANIFEST as u64).count();
        found.retain(|referrer| referrer.size <= MAX_MANIFEST as u64);
        if large > 0 {
            self.note("referrers", &format!("{large} too large for manifests of signatures"));
        }
        let mut digests: Vec<Digest> = Vec::new();
        for referrer in found {
            if digests.len() == MAX_REFERRERS {
                self.note("referrers", &format!("only the first {MAX_REFERRERS} are read"));
                break;
            }
            if !digests.contains(&referrer.digest) {
                digests.push(referrer.digest);
            }
        }
        digests
    }

    /// Takes what one manifest holds, and says how much room is left.
    fn take(&mut self, manifest: &[u8], subject: &Digest, refers: bool, mut room: usize) -> usize {
        let registry = &mut *self.registry;
        let read = |blob: &str| {
            let found = registry.get(&format!("blobs/{blob}"), "*/*", MAX_ATTESTATION_FILE)?;
            if found.body.len() > MAX_ATTESTATION_FILE {
                return Err(Failure::Why(format!("larger than {MAX_ATTESTATION_FILE} bytes")));
            }
            Ok::<_, Failure>(found.body)
        };
        let found = match import_manifest(read, manifest, refers.then_some(subject)) {
            Ok(found) => found,
            Err(why) => {
                self.note("a manifest", &why);
                Imported::default()
            }
        };
        for why in &found.skipped {
            self.note("skipped", why);
        }
        for file in found.files {
            if file.manifest_hex != subject.hex() {
                self.note(&file.name, &"a signature of another image");
            } else if room == 0 {
                self.note(&file.name, &format!("more than {MAX_FILES} signatures"));
            } else if let Some(frame) = Frame::file(subject, &file.name, file.bytes) {
                (self.say)(frame);
                room -= 1;
            }
        }
        room
    }
}

/// The query of the next page, from a `Link` header: the rest of that URL is ours to say.
fn following(link: &str) -> Option<String> {
    let (url, rest) = link.strip_prefix('<')?.split_once('>')?;
    if !rest.contains("next") {
        return None;
    }
    let (_, query) = url.split_once('?')?;
    (query.len() < 1024 && query.bytes().all(|b| b.is_ascii_graphic() && b != b'#')).then(|| query.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page() {
        assert_eq!(following(r#"</v2/a/referrers/x?n=1&last=y>; rel="next""#).as_deref(), Some("n=1&last=y"));
        for none in ["", "<x>; rel=next", r#"</v2/a?x>; rel="prev""#, "</v2/a?x y>; rel=next"] {
            assert_eq!(following(none), None, "{none}");
        }
    }
}
