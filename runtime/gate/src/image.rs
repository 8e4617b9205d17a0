//! The proof chain of an image (BS-IMG-001, 002): from containerd's record to the layers that will be mounted.
//!
//! record -> target digest -> (index) -> manifest -> config -> diff_ids -> chain id == parent of the container's snapshot.
//! Every digest is computed here over raw bytes; a worker only proposes where things stand in them.
use crate::paths;
use boltseal_evidence::containerd::{Client, Container, Error};
use boltseal_evidence::signatures;
use boltseal_jail::Parse;
use boltseal_policy::Fact;
use boltseal_policy::facts::{Attestation, Image, Signature};
use boltseal_trust::notation::{Notary, NotationProposal, accept, appraise};
use boltseal_trust::{
    Answer, Claim, Config, Digest, Key, Link, MAX_IMAGE_FILE, Malformed, Manifest, Proposal, Reject, SignatureProposal,
    Source, bind_child, bind_config, bind_diff_ids, chain_id, decode_answer, digest, encode_answer, propose,
    verify_attestation, verify_signature,
};
use std::path::Path;

/// Most verifications of one start. Beyond what any policy needs; with every key P-384 it is less than a second.
const MAX_VERIFICATIONS: usize = 1024;

/// An authority of the policy with what its signatures are verified by.
#[derive(Debug)]
pub(crate) struct Signer {
    pub(crate) authority: String,
    pub(crate) trust: Trust,
}

#[derive(Debug)]
pub(crate) enum Trust {
    Key(Key),
    Roots(Notary),
}

/// What signatures are judged with.
pub(crate) struct Signed<'a> {
    pub(crate) jail: &'a dyn Parse,
    pub(crate) signers: &'a [Signer],
    /// Seconds since the epoch; None when nobody knows.
    pub(crate) now: Option<u64>,
}

/// Why there is no proof.
#[derive(Debug)]
pub(crate) enum NoProof {
    Containerd(Error),
    Why(String),
}

impl NoProof {
    /// As the fact that denies. A reason that begins with `timeout` makes the denial UNAVAILABLE.
    pub(crate) fn fact<T>(self) -> Fact<T> {
        match self {
            Self::Containerd(e @ Error::Timeout(_)) => Fact::Unknown(format!("timeout: {e}")),
            Self::Containerd(e) => Fact::Unknown(e.to_string()),
            Self::Why(why) => Fact::Unknown(why),
        }
    }
}

impl From<Error> for NoProof {
    fn from(error: Error) -> Self {
        Self::Containerd(error)
    }
}

fn why(text: impl std::fmt::Display) -> NoProof {
    NoProof::Why(text.to_string())
}

/// Proves which image the container's snapshot is. `parent` is the snapshot's parent: of an index's manifests, the one
/// whose layers are mounted is the one that runs.
pub(crate) fn prove(
    client: &Client,
    signed: &Signed<'_>,
    container: &Container,
    parent: &str,
) -> Result<Image, NoProof> {
    let target: Digest =
        client.image(&container.image)?.digest.parse().map_err(|_| why("the image record names no sha256 digest"))?;
    let chain = chain(signed.jail, target, parent, |digest| Ok(client.blob(&digest.to_string(), MAX_IMAGE_FILE)?))?;
    let mut image = Image {
        target: target.to_string(),
        manifest: chain.manifest.to_string(),
        config: chain.config_digest.to_string(),
        chain_id: chain.chain_id.to_string(),
        layers: chain.layers.iter().map(ToString::to_string).collect(),
        user: chain.config.user.clone(),
        args: chain.config.args(),
        entrypoint: chain.config.entrypoint.clone(),
        env: chain.config.env.clone(),
        cwd: chain.config.working_dir.clone(),
        ..Image::default()
    };
    signed.look(&mut image, target, chain.manifest)?;
    Ok(image)
}

/// The links below the target.
struct Chain {
    manifest: Digest,
    config_digest: Digest,
    config: Config,
    /// diff_ids, the lowest first.
    layers: Vec<Digest>,
    chain_id: Digest,
}

fn chain(
    jail: &dyn Parse,
    target: Digest,
    parent: &str,
    read: impl Fn(Digest) -> Result<Vec<u8>, NoProof>,
) -> Result<Chain, NoProof> {
    let bytes = hashed(target, read(target)?)?;
    let (manifests, index) = match ask(jail, Source::Target, &bytes)? {
        Proposal::Manifest(manifest) => (vec![(target, bytes.clone(), manifest)], None),
        Proposal::Index(index) => {
            let here = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
            let mut found = Vec::new();
            for entry in index.entries.iter().filter(|e| e.os == "linux" && e.architecture == here) {
                // containerd fetches one variant of an architecture: what it has not got is not what is mounted.
                let child = match read(entry.descriptor.digest.digest) {
                    Err(NoProof::Containerd(Error::NotFound { .. })) => continue,
                    other => other?,
                };
                let digest =
                    bind_child(&bytes, Link::IndexToManifest, &entry.descriptor.digest, &child).map_err(why)?;
                if let Proposal::Manifest(manifest) = ask(jail, Source::Manifest, &child)? {
                    found.push((digest, child, manifest));
                }
            }
            (found, Some(target))
        }
        Proposal::Config(_) | Proposal::Signature(_) => {
            return Err(why("the image's target is neither an index nor a manifest"));
        }
    };
    let mut last = None;
    for (digest, bytes, manifest) in manifests {
        let chain = below(jail, digest, &bytes, &manifest, &read)?;
        if chain.chain_id.to_string() == parent {
            return Ok(chain);
        }
        last = Some(chain);
    }
    // No manifest has the mounted layers. BS-IMG-002 says so, with both digests.
    last.ok_or_else(|| why(format!("{} has no manifest for this machine", index.unwrap_or(target))))
}

fn below(
    jail: &dyn Parse,
    manifest: Digest,
    bytes: &[u8],
    proposed: &Manifest,
    read: &impl Fn(Digest) -> Result<Vec<u8>, NoProof>,
) -> Result<Chain, NoProof> {
    let config_bytes = read(proposed.config.digest.digest)?;
    let config_digest =
        bind_child(bytes, Link::ManifestToConfig, &proposed.config.digest, &config_bytes).map_err(why)?;
    let Proposal::Config(config) = ask(jail, Source::Config, &config_bytes)? else {
        return Err(why("the manifest's config is no image config"));
    };
    bind_config(&config_bytes, &config).map_err(why)?;
    let layers = bind_diff_ids(&config_bytes, &config.diff_ids).map_err(why)?;
    let chain_id = chain_id(&layers).ok_or_else(|| why("the image has no layer"))?;
    Ok(Chain { manifest, config_digest, config, layers, chain_id })
}

fn hashed(expected: Digest, bytes: Vec<u8>) -> Result<Vec<u8>, NoProof> {
    if digest(&bytes) == expected {
        return Ok(bytes);
    }
    Err(why(format!("the content store holds other bytes under {expected}")))
}

impl Signed<'_> {
    /// Looks at every signature file of the target and of the manifest, with every authority. What counts goes into
    /// `image.signatures`, why another did not into `image.rejected`.
    fn look(&self, image: &mut Image, target: Digest, manifest: Digest) -> Result<(), NoProof> {
        let mut over = vec![target];
        if manifest != target {
            over.push(manifest);
        }
        // Each file is tried with each authority, for a scope may need several: none is the last one that counts.
        let mut room = (MAX_VERIFICATIONS / self.signers.len().max(1)).max(1);
        let mut another = false;
        for digest in over {
            let files = signatures::files(Path::new(paths::SIGNATURES), &digest.to_string()).map_err(why)?;
            image.looked_in = files.looked_in.display().to_string();
            image.rejected.extend(files.skipped.iter().map(|line| format!("malformed: {line}")));
            for file in files.files {
                if room == 0 {
                    image
                        .rejected
                        .push(format!("malformed: {} and what follows: too many for so many keys", file.name));
                    break;
                }
                room -= 1;
                // Anybody may have signed: one file's author shall not answer for another's. The image's own files were
                // asked about before the first one.
                if std::mem::replace(&mut another, true) {
                    self.jail.afresh();
                }
                let Some(source) = Source::of_file(&file.name) else { continue };
                match ask(self.jail, source, &file.bytes) {
                    Ok(Proposal::Signature(proposal)) => self.judge(image, &proposal, digest),
                    Ok(_) => image.rejected.push("malformed: the worker answered something else".into()),
                    Err(NoProof::Why(text)) => image.rejected.push(format!("malformed: {text}")),
                    Err(other) => return Err(other),
                }
            }
        }
        image.rejected.truncate(16);
        Ok(())
    }

    fn judge(&self, image: &mut Image, proposal: &SignatureProposal, expected: Digest) {
        let mut reason = match proposal {
            SignatureProposal::Notation(_) => "wrong-key: no authority of the policy has format notation".to_owned(),
            _ => "wrong-key: the policy has no key".to_owned(),
        };
        let before = image.signatures.len();
        // Every authority that verifies it: two may share a key, and which one counts is the policy's to say.
        for signer in self.signers {
            let said = match (proposal, &signer.trust) {
                (SignatureProposal::Notation(proposal), Trust::Roots(notary)) => {
                    self.vouched(notary, proposal, &expected)
                }
                (SignatureProposal::Notation(_), Trust::Key(_)) | (_, Trust::Roots(_)) => continue,
                (proposal, Trust::Key(key)) => verify_signature(proposal, key, &expected)
                    .map(|claim| (claim.format.to_string(), key.id().to_owned(), claim)),
            };
            match said {
                Ok((format, key, claim)) => {
                    image.signatures.push(Signature {
                        authority: signer.authority.clone(),
                        key,
                        format,
                        repository: claim.repository,
                        digest: claim.digest.to_string(),
                        // No format says who saw when it was made.
                        signed_at: None,
                    });
                }
                // What another key says of its own signature is worth more than that this one did not sign.
                Err(reject @ (Reject::Signature { .. } | Reject::Untrusted(_))) if reason.starts_with("wrong-key") => {
                    reason = format!("wrong-key: {reject}");
                }
                Err(Reject::Signature { .. } | Reject::Untrusted(_)) => {}
                Err(reject @ Reject::OtherImage { .. }) => reason = format!("other-digest: {reject}"),
                Err(reject @ Reject::NotASignature { .. }) => {
                    reason = format!("attestation: {reject}");
                    if let Trust::Key(key) = &signer.trust
                        && let Err(why) = attested(image, proposal, &signer.authority, key, &expected)
                    {
                        reason = format!("malformed: {why}");
                    }
                }
                Err(reject @ Reject::Certificate(_)) => reason = format!("certificate: {reject}"),
                Err(reject) => reason = format!("malformed: {reject}"),
            }
        }
        if image.signatures.len() == before {
            image.rejected.push(reason);
        }
    }

    /// The signatures are verified here. What the certificates say is a worker's word, so the record says: one that saw
    /// nothing that was not signed under the authority's root.
    fn vouched(
        &self,
        notary: &Notary,
        proposal: &NotationProposal,
        expected: &Digest,
    ) -> Result<(String, String, Claim), Reject> {
        let vouched = notary.verify(proposal, expected)?;
        self.jail.afresh();
        let answer = self.jail.parse(judge_certificates, 0, &notary.question(proposal, self.now));
        self.jail.afresh();
        let (claim, subject) = accept(&vouched, &answer.map_err(Reject::Certificate)?)?;
        Ok((format!("{} by {subject}, trust=jailed", claim.format), vouched.key, claim))
    }
}

/// Adds what `key` attests. It says something about an image, and is never a signature of it.
fn attested(
    image: &mut Image,
    proposal: &SignatureProposal,
    authority: &str,
    key: &Key,
    expected: &Digest,
) -> Result<(), Reject> {
    let found = verify_attestation(proposal, key, expected)?;
    image.attestations.push(Attestation {
        authority: authority.to_owned(),
        key: key.id().to_owned(),
        predicate_type: found.predicate_type,
        digest: found.digest.to_string(),
        statement: found.statement.to_string(),
    });
    Ok(())
}

/// What the worker of [`Signed::vouched`] does.
fn judge_certificates(_: u8, question: &[u8]) -> Vec<u8> {
    appraise(question)
}

/// Has a worker parse `bytes`. Its answer is decoded by fixed code; a refusal of its own is a reason.
fn ask(jail: &dyn Parse, source: Source, bytes: &[u8]) -> Result<Proposal, NoProof> {
    let answer = jail.parse(parse, kind(source), bytes).map_err(why)?;
    let answer: Answer = decode_answer(&answer).map_err(|e| why(format!("the worker's answer: {e}")))?;
    answer.map_err(|malformed: Malformed| why(malformed.reason()))
}

/// What a worker does with a question. The numbers are between a gate and its own fork.
fn parse(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let source = match kind {
        0 => Source::Index,
        1 => Source::Manifest,
        2 => Source::Target,
        3 => Source::Config,
        4 => Source::CosignSignature,
        5 => Source::SigstoreBundle,
        6 => Source::NotationJws,
        7 => Source::NotationCose,
        _ => Source::Dsse,
    };
    encode_answer(&propose(source, bytes))
}

fn kind(source: Source) -> u8 {
    match source {
        Source::Index => 0,
        Source::Manifest => 1,
        Source::Target => 2,
        Source::Config => 3,
        Source::CosignSignature => 4,
        Source::SigstoreBundle => 5,
        Source::NotationJws => 6,
        Source::NotationCose => 7,
        Source::Dsse => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltseal_jail::Parser;
    use boltseal_trust::import_layout;
    use std::path::PathBuf;

    /// Parses in this process, as an honest worker would.
    struct Honest;
    impl Parse for Honest {
        fn parse(&self, parser: Parser, kind: u8, bytes: &[u8]) -> Result<Vec<u8>, String> {
            Ok(parser(kind, bytes))
        }
    }

    /// Says "valid" to everything: whatever it is asked, it answers with what a genuine image and signature gave.
    struct Liar(Vec<Proposal>);
    impl Parse for Liar {
        fn parse(&self, parser: Parser, kind: u8, bytes: &[u8]) -> Result<Vec<u8>, String> {
            let wanted = decode_answer(&parser(kind, bytes)).unwrap();
            let kind = |p: &Proposal| std::mem::discriminant(p);
            let same =
                |p: &&Proposal| wanted.as_ref().map_or(matches!(p, Proposal::Signature(_)), |w| kind(w) == kind(p));
            let answer = self.0.iter().find(same).cloned().unwrap();
            Ok(encode_answer(&Ok(answer)))
        }
    }

    fn fixture(path: &str) -> Vec<u8> {
        std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../trust/tests/fixtures").join(path)).unwrap()
    }

    fn signer() -> Vec<Signer> {
        let pem = String::from_utf8(fixture("keys/signer.pub")).unwrap();
        vec![Signer { authority: "ci".into(), trust: Trust::Key(Key::from_spki_pem(&pem).unwrap()) }]
    }

    fn judge(image: &mut Image, proposal: &SignatureProposal, expected: Digest, signers: &[Signer]) {
        Signed { jail: &Honest, signers, now: Some(0) }.judge(image, proposal, expected);
    }

    fn signature_of(layout: &str) -> SignatureProposal {
        let blob = |name: &str| {
            Ok::<_, std::io::Error>(fixture(&format!("layouts/{layout}/blobs/{}", name.replace(':', "/"))))
        };
        let found = import_layout(blob, &fixture(&format!("layouts/{layout}/index.json"))).unwrap();
        let file = &found.files[0];
        match propose(Source::of_file(&file.name).unwrap(), &file.bytes).unwrap() {
            Proposal::Signature(proposal) => proposal,
            other => panic!("{other:?}"),
        }
    }

    fn blobs(name: &str) -> (Digest, Vec<Vec<u8>>) {
        let manifest = fixture(&format!("image/{name}.manifest.json"));
        (digest(&manifest), vec![manifest, fixture(&format!("image/{name}.config.json"))])
    }

    fn reader(blobs: Vec<Vec<u8>>) -> impl Fn(Digest) -> Result<Vec<u8>, NoProof> {
        move |wanted| blobs.iter().find(|b| digest(b) == wanted).cloned().ok_or_else(|| why("no such blob"))
    }

    fn parent_of(name: &str) -> String {
        let Proposal::Config(config) = propose(Source::Config, &fixture(&format!("image/{name}.config.json"))).unwrap()
        else {
            panic!()
        };
        chain_id(&config.diff_ids.iter().map(|p| p.digest).collect::<Vec<_>>()).unwrap().to_string()
    }

    #[test]
    fn the_chain_of_a_real_image_holds() {
        let (target, files) = blobs("app");
        let chain = chain(&Honest, target, &parent_of("app"), reader(files)).unwrap();
        assert_eq!((chain.manifest, chain.chain_id.to_string()), (target, parent_of("app")));
        assert_eq!(chain_id(&chain.layers), Some(chain.chain_id));
    }

    #[test]
    fn an_index_leads_to_the_manifest_of_this_machine() {
        let index = fixture("image/app.index.json");
        let (manifest, mut files) = blobs("app");
        let target = digest(&index);
        files.extend([index, fixture("image/arm.manifest.json")]);
        let chain = chain(&Honest, target, &parent_of("app"), reader(files)).unwrap();
        assert_eq!(chain.manifest, manifest);
    }

    #[test]
    fn a_manifest_of_dockers_schema_2_leads_to_its_layers() {
        let (target, files) = blobs("docker");
        let chain = chain(&Honest, target, &parent_of("docker"), reader(files)).unwrap();
        assert_eq!((chain.manifest, chain.chain_id.to_string()), (target, parent_of("docker")));
    }

    /// Of two manifests for this machine, the one whose layers are mounted; never one for another machine or system.
    #[test]
    fn of_a_list_the_manifest_of_this_platform_and_these_layers_runs() {
        let of = |platforms: [(&str, &str, &str); 2], parent: &str| {
            let (mut files, mut entries) = (Vec::new(), Vec::new());
            for (name, os, architecture) in platforms {
                let (manifest, blobs) = blobs(name);
                files.extend(blobs);
                entries.push(format!(
                    r#"{{"mediaType":"application/vnd.docker.distribution.manifest.v2+json","digest":"{manifest}","size":1,"platform":{{"os":"{os}","architecture":"{architecture}"}}}}"#
                ));
            }
            let list = format!(
                r#"{{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":[{}]}}"#,
                entries.join(",")
            );
            files.push(list.clone().into_bytes());
            chain(&Honest, digest(list.as_bytes()), &parent_of(parent), reader(files)).map(|chain| chain.manifest)
        };
        let (app, other) = (blobs("app").0, blobs("other").0);
        let both = [("app", "linux", "amd64"), ("other", "linux", "amd64")];
        assert_eq!((of(both, "app").unwrap(), of(both, "other").unwrap()), (app, other));
        for (os, architecture) in [("linux", "arm64"), ("windows", "amd64"), ("", "")] {
            let one = [("app", os, architecture), ("other", "linux", "amd64")];
            // What is mounted is not what the list has for this machine: BS-IMG-002 compares, and says so.
            assert_eq!(of(one, "app").unwrap(), other, "{os} {architecture}");
            let none = [("app", os, architecture), ("other", os, architecture)];
            assert!(of(none, "app").is_err(), "{os} {architecture}");
        }
    }

    #[test]
    fn a_variant_that_was_never_fetched_is_passed_over() {
        let (manifest, mut files) = blobs("app");
        let entry = |digest: &str| {
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":1,"platform":{{"os":"linux","architecture":"amd64"}}}}"#
            )
        };
        let missing = digest(b"never fetched");
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{},{}]}}"#,
            entry(&missing.to_string()),
            entry(&manifest.to_string())
        )
        .into_bytes();
        let target = digest(&index);
        files.push(index);
        let store = move |wanted: Digest| {
            files
                .iter()
                .find(|b| digest(b) == wanted)
                .cloned()
                .ok_or(NoProof::Containerd(Error::NotFound { call: "Content.Read", what: "blob".into() }))
        };
        assert_eq!(chain(&Honest, target, &parent_of("app"), &store).unwrap().manifest, manifest);
        // The twin: when the one that is mounted is the missing one, there is no proof.
        assert!(chain(&Honest, missing, &parent_of("app"), &store).is_err());
    }

    #[test]
    fn two_authorities_may_share_a_key() {
        let mut signers = signer();
        signers.extend(signer());
        signers[1].authority = "second".into();
        let mut image = Image::default();
        judge(&mut image, &signature_of("cosign3"), blobs("app").0, &signers);
        let names: Vec<_> = image.signatures.iter().map(|s| s.authority.as_str()).collect();
        assert_eq!(names, ["ci", "second"]);
    }

    #[test]
    fn a_changed_blob_breaks_the_chain() {
        for index in [0, 1] {
            let (target, mut files) = blobs("app");
            let honest = files.clone();
            files[index].push(b' ');
            // The store answers by name, so it hands out the changed bytes under the old digest.
            let read = move |wanted: Digest| {
                honest
                    .iter()
                    .position(|b| digest(b) == wanted)
                    .map(|i| files[i].clone())
                    .ok_or_else(|| why("no such blob"))
            };
            assert!(chain(&Honest, target, &parent_of("app"), read).is_err(), "blob {index}");
        }
    }

    #[test]
    fn a_worker_that_always_answers_valid_starts_nothing() {
        let genuine = signature_of("cosign3");
        let (_, app) = blobs("app");
        let mut answers: Vec<Proposal> = [(Source::Manifest, &app[0]), (Source::Config, &app[1])]
            .map(|(source, bytes)| propose(source, bytes).unwrap())
            .into();
        answers.push(Proposal::Signature(genuine));
        let liar = Liar(answers);

        // Another image: the liar proposes the genuine image's config and diff_ids for it.
        let (other, files) = blobs("other");
        assert!(chain(&liar, other, &parent_of("app"), reader([files, app].concat())).is_err());

        // An unsigned image, and an attestation: the liar proposes the genuine image's signature for each.
        for bytes in [&b"{}"[..], b"not json"] {
            let Ok(Proposal::Signature(proposal)) = ask(&liar, Source::SigstoreBundle, bytes) else { panic!() };
            let mut image = Image::default();
            judge(&mut image, &proposal, other, &signer());
            assert_eq!(image.signatures, []);
            assert!(image.rejected[0].starts_with("other-digest: "), "{:?}", image.rejected);
            // The twin: the same answer counts for the image that was signed.
            judge(&mut image, &proposal, blobs("app").0, &signer());
            assert_eq!(image.signatures.len(), 1);
        }
    }

    #[test]
    fn what_is_attested_is_a_fact_and_no_signature() {
        for layout in ["cosign2-attest", "cosign3-attest"] {
            let mut image = Image::default();
            judge(&mut image, &signature_of(layout), blobs("app").0, &signer());
            assert_eq!(image.signatures, [], "{layout}");
            assert!(image.rejected[0].starts_with("attestation: "), "{layout}: {:?}", image.rejected);
            let [said] = &image.attestations[..] else { panic!("{layout}: {:?}", image.attestations) };
            assert_eq!((said.authority.as_str(), &said.digest), ("ci", &blobs("app").0.to_string()));
            assert!(said.predicate_type.ends_with("/vuln/v1"), "{layout}");
            // Of another image, or by another key, it says nothing.
            let mut image = Image::default();
            judge(&mut image, &signature_of(layout), blobs("other").0, &signer());
            assert_eq!(image.attestations, [], "{layout}");
        }
    }

    fn notary(subject: &str) -> Vec<Signer> {
        let pem = String::from_utf8(fixture("notation/root.pem")).unwrap();
        let trust = Trust::Roots(Notary::new(&pem, &[subject.into()], false).unwrap());
        vec![Signer { authority: "corp".into(), trust }]
    }

    #[test]
    fn notation_counts_under_its_root_alone() {
        const THEN: u64 = 1_798_761_600;
        let app = blobs("app").0;
        let judged = |name: &str, signers: &[Signer], now: Option<u64>, expected: Digest| {
            let bytes = fixture(&format!("notation/{name}"));
            let source = Source::of_file(&format!("x.notation.{}", &name[name.len() - 4..].trim_start_matches('.')));
            let Proposal::Signature(proposal) = propose(source.unwrap(), &bytes).unwrap() else { panic!() };
            let mut image = Image::default();
            Signed { jail: &Honest, signers, now }.judge(&mut image, &proposal, expected);
            image
        };
        for name in ["p256.jws", "p256.cose", "rsa3072.jws", "rsa3072.cose"] {
            let image = judged(name, &notary("CN=ci"), Some(THEN), app);
            let [found] = &image.signatures[..] else { panic!("{name}: {:?}", image.rejected) };
            assert_eq!((found.authority.as_str(), &found.repository), ("corp", &None));
            assert!(found.format.ends_with("by C=US, ST=WA, O=corp, CN=ci, trust=jailed"), "{}", found.format);
            for (signers, now, expected, why) in [
                (notary("CN=cd"), Some(THEN), app, "certificate: "),
                (notary("CN=ci"), Some(THEN * 3), app, "certificate: "),
                (notary("CN=ci"), None, app, "certificate: "),
                (notary("CN=ci"), Some(THEN), blobs("other").0, "other-digest: "),
                (signer(), Some(THEN), app, "wrong-key: "),
            ] {
                let image = judged(name, &signers, now, expected);
                assert!(
                    image.signatures.is_empty() && image.rejected[0].starts_with(why),
                    "{name}: {:?}",
                    image.rejected
                );
            }
        }
        // A root takes no signature of cosign.
        let mut image = Image::default();
        judge(&mut image, &signature_of("cosign3"), app, &notary("*"));
        assert!(image.signatures.is_empty() && image.rejected[0].starts_with("wrong-key: "), "{:?}", image.rejected);
    }

    #[test]
    fn what_does_not_count_says_why() {
        let app = blobs("app").0;
        for (layout, want) in [
            ("cosign2-stranger", "wrong-key: "),
            ("cosign3-stranger", "wrong-key: "),
            ("cosign2-other", "other-digest: "),
            ("cosign3-other", "other-digest: "),
        ] {
            let mut image = Image::default();
            judge(&mut image, &signature_of(layout), app, &signer());
            assert_eq!(image.signatures, [], "{layout}");
            assert!(image.rejected[0].starts_with(want), "{layout}: {:?}", image.rejected);
        }
        for layout in ["cosign2", "cosign3"] {
            let mut image = Image::default();
            judge(&mut image, &signature_of(layout), app, &signer());
            assert_eq!(image.signatures.len(), 1, "{layout}");
        }
    }
}
