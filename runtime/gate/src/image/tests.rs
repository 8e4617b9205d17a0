//! A whole image and its signatures, proven as a start does, by a worker in this process.
use super::*;
use boltseal_jail::Parser;
use boltseal_trust::import_layout;
use std::path::PathBuf;

/// Every kind of statement is read.
const ALL: [&str; 1] = ["https://cosign.sigstore.dev/attestation/vuln/v1"];

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
        let same = |p: &&Proposal| wanted.as_ref().map_or(matches!(p, Proposal::Signature(_)), |w| kind(w) == kind(p));
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
    Signed { jail: &Honest, signers, now: Some(0), reads: ALL.into() }.judge(image, proposal, &[], expected);
}

fn signature_of(layout: &str) -> SignatureProposal {
    let blob =
        |name: &str| Ok::<_, std::io::Error>(fixture(&format!("layouts/{layout}/blobs/{}", name.replace(':', "/"))));
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
            honest.iter().position(|b| digest(b) == wanted).map(|i| files[i].clone()).ok_or_else(|| why("no such blob"))
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
        // Its result is empty: of no schema that is known. Where nobody asks, nobody reads it.
        assert_eq!(said.says, Fact::Unknown("the result is neither trivy's nor grype's JSON".into()), "{layout}");
        let mut image = Image::default();
        let signed = Signed { jail: &Honest, signers: &signer(), now: Some(0), reads: BTreeSet::new() };
        signed.judge(&mut image, &signature_of(layout), &[], blobs("app").0);
        assert_eq!(image.attestations[0].says, Fact::Absent, "{layout}");
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
        Signed { jail: &Honest, signers, now, reads: ALL.into() }.judge(&mut image, &proposal, &[], expected);
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
            assert!(image.signatures.is_empty() && image.rejected[0].starts_with(why), "{name}: {:?}", image.rejected);
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
