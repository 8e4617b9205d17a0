//! Signatures of the Notary Project: what counts, and for every fault a refusal whose twin differs in it alone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests"
)]
mod notary;
mod openssl;

use boltseal_trust::notation::{Envelope, Notary, NotationProposal, accept, appraise};
use boltseal_trust::{
    Claim, Digest, Format, Proposal, Reject, SignatureProposal, Source, digest, notation_file, propose,
};
use notary::{
    CODE_SIGNING, Form, Given, NOW, Pair, SERVER_AUTH, array, constraints, extension, int, map, moment, pem, protected,
    purposes, string, text, usage,
};

fn image() -> Digest {
    digest(b"image")
}

fn good() -> Given {
    Given::good(&image().to_string())
}

fn taken(file: &str) -> Result<NotationProposal, String> {
    apart(Source::NotationJws, file.as_bytes())
}

fn apart(source: Source, file: &[u8]) -> Result<NotationProposal, String> {
    match propose(source, file).map_err(|why| why.to_string())? {
        Proposal::Signature(SignatureProposal::Notation(proposal)) => Ok(proposal),
        other => panic!("{other:?}"),
    }
}

/// As a start goes about it: the proposal crosses the line as bytes, then each half of the verification.
fn verdict(file: &str, notary: &Notary, now: Option<u64>, expected: &Digest) -> Result<(Claim, String), String> {
    verdict_of(taken(file)?, notary, now, expected)
}

fn verdict_of(
    proposal: NotationProposal,
    notary: &Notary,
    now: Option<u64>,
    expected: &Digest,
) -> Result<(Claim, String), String> {
    let wrapped = Proposal::Signature(SignatureProposal::Notation(proposal.clone()));
    assert_eq!(Proposal::decode(&wrapped.encode()).as_ref(), Ok(&wrapped));
    let vouched = notary.verify(&proposal, expected).map_err(|why| why.to_string())?;
    accept(&vouched, &appraise(&notary.question(&proposal, now))).map_err(|why| why.to_string())
}

fn notary_of(given: &Given, roots: &[Vec<u8>]) -> Notary {
    Notary::new(&pem(roots), &given.identities, given.signing_authority).unwrap()
}

fn judged(given: &Given) -> Result<(Claim, String), String> {
    let chain = given.chain();
    verdict(&given.jws(&chain), &notary_of(given, &chain[2..]), given.now, &image())
}

#[test]
fn what_is_signed_under_the_root_counts() {
    let (claim, subject) = judged(&good()).unwrap();
    assert_eq!(claim, Claim { format: Format::NotationJws, repository: None, digest: image() });
    assert_eq!(subject, "C=US, O=corp, CN=ci");
    assert_eq!(notation_file(good().jws(&good().chain()).as_bytes()).unwrap().manifest_hex, image().hex());
    let (claim, _) = judged(&Given::by_authority(&image().to_string())).unwrap();
    assert_eq!(claim.format, Format::NotationJws);
}

/// A fault, and what the refusal says.
type Fault = (&'static str, fn(&mut Given), &'static str);

fn replace(given: &mut Given, from: &str, to: &str) {
    assert!(given.protected.contains(from), "{from}");
    given.protected = given.protected.replace(from, to);
}

#[test]
fn truth_table_of_signed_attributes() {
    let faults: &[Fault] = &[
        ("none", |g| replace(g, "\"ES256\"", "\"none\""), "alg is \"none\""),
        ("hmac", |g| replace(g, "\"ES256\"", "\"HS256\""), "signs by ES256"),
        ("other curve", |g| replace(g, "\"ES256\"", "\"ES384\""), "signs by ES256"),
        ("no alg", |g| replace(g, "\"alg\":\"ES256\",", ""), "no alg"),
        ("content type", |g| replace(g, "payload.v1+json", "payload.v2+json"), "payload of type"),
        (
            "no content type",
            |g| replace(g, "\"cty\":\"application/vnd.cncf.notary.payload.v1+json\",", ""),
            "payload of type",
        ),
        ("unknown crit", |g| replace(g, "Scheme\"]", "Scheme\",\"com.example.x\"]"), "not understood"),
        ("crit twice", |g| replace(g, "[\"io", "[\"io.cncf.notary.signingScheme\",\"io"), "exactly where"),
        ("empty crit", |g| replace(g, "[\"io.cncf.notary.signingScheme\"]", "[]"), "exactly where"),
        ("no crit", |g| replace(g, "\"crit\":[\"io.cncf.notary.signingScheme\"],", ""), "no crit"),
        (
            "crit of an absent expiry",
            |g| replace(g, "Scheme\"]", "Scheme\",\"io.cncf.notary.expiry\"]"),
            "expiry exactly where",
        ),
        (
            "expiry not critical",
            |g| replace(g, "\"cty\"", "\"io.cncf.notary.expiry\":\"2030-01-01T00:00:00Z\",\"cty\""),
            "expiry exactly where",
        ),
        ("unknown scheme", |g| replace(g, "\"notary.x509\"", "\"notary.x510\""), "signing scheme"),
        ("no scheme", |g| replace(g, "\"io.cncf.notary.signingScheme\":\"notary.x509\",", ""), "signing scheme"),
        ("the other scheme's authority", |g| g.signing_authority = true, "signing scheme"),
        (
            "no signing time",
            |g| replace(g, ",\"io.cncf.notary.signingTime\":\"2026-05-01T00:00:00Z\"", ""),
            "the one signing time",
        ),
        ("no time of RFC 3339", |g| replace(g, "2026-05-01T", "2026-05-01 "), "RFC 3339"),
        ("a plugin", |g| replace(g, "\"cty\"", "\"io.cncf.notary.verificationPlugin\":\"x\",\"cty\""), "plugin"),
        ("another payload encoding", |g| replace(g, "\"cty\"", "\"b64\":false,\"cty\""), "has b64"),
        ("a key to fetch", |g| replace(g, "\"cty\"", "\"jku\":\"https://x\",\"cty\""), "has jku"),
        ("a name twice", |g| replace(g, "\"cty\"", "\"alg\":\"ES256\",\"cty\""), "twice"),
        ("a look-alike", |g| replace(g, "\"cty\"", "\"CTY\":\"x\",\"cty\""), "looks like"),
        ("bytes after it", |g| g.protected.push_str("{}"), "trailing"),
        ("no clock", |g| g.now = None, "time is unknown"),
        ("another subject", |g| g.identities = vec!["CN=other".into()], "none of the authority's identities"),
    ];
    for (name, fault, why) in faults {
        let mut given = good();
        assert!(judged(&given).is_ok());
        fault(&mut given);
        let said = judged(&given).expect_err(name);
        assert!(said.contains(why), "{name}: {said}");
    }
}

#[test]
fn expiry_and_the_two_kinds_of_time() {
    let expiring = |given: &mut Given, at: &str| {
        replace(given, "Scheme\"", "Scheme\",\"io.cncf.notary.expiry\"");
        given.protected = given.protected.replacen("],", &format!("],\"io.cncf.notary.expiry\":\"{at}\","), 1);
        given.protected = given.protected.replace("Scheme\",\"io.cncf.notary.expiry\":\"n", "Scheme\":\"n");
    };
    for (at, want) in [("2026-06-01T00:00:01Z", true), ("2026-06-01T00:00:00Z", false), ("2026-05-31T00:00:00Z", false)]
    {
        let mut given = good();
        expiring(&mut given, at);
        assert_eq!(judged(&given).is_ok(), want, "{at}: {:?} {}", judged(&given), given.protected);
    }
    // A leaf that expired yesterday: now is all that the plain scheme has, whatever the signer says.
    let mut given = good();
    given.leaf.to = "260531000000Z";
    assert!(judged(&given).unwrap_err().contains("the leaf has expired now, and nothing proves"));
    given.now = Some(NOW - 2 * 86_400);
    assert!(judged(&given).is_ok());
    // The authority's word on the time is believed, but not beyond the validity, and not from the future.
    let mut given = Given::by_authority(&image().to_string());
    given.leaf.to = "260531000000Z";
    assert!(judged(&given).is_ok());
    given.leaf.to = "260430000000Z";
    assert!(judged(&given).unwrap_err().contains("has expired when it was signed"));
    let mut given = Given::by_authority(&image().to_string());
    replace(&mut given, "2026-05-01", "2026-07-01");
    assert!(judged(&given).unwrap_err().contains("in the future"));
    let mut given = Given::by_authority(&image().to_string());
    replace(&mut given, ",\"io.cncf.notary.authenticSigningTime\"]", "]");
    assert!(judged(&given).unwrap_err().contains("exactly where"));
}

#[test]
fn truth_table_of_certificates() {
    const ANY: &[u8] = &[0x55, 0x1d, 0x25, 0];
    const TIME_STAMPING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 8];
    let faults: &[Fault] = &[
        ("expired leaf", |g| g.leaf.to = "260531000000Z", "the leaf has expired"),
        ("leaf of tomorrow", |g| g.leaf.from = "260602000000Z", "the leaf is not valid yet"),
        ("expired CA", |g| g.between.to = "260531000000Z", "1 above the leaf has expired"),
        ("expired root", |g| g.root.to = "260531000000Z", "2 above the leaf has expired"),
        ("a CA as leaf", |g| g.leaf.extensions.push(constraints(true, true, None)), "is a CA"),
        ("no key usage", |g| drop(g.leaf.extensions.remove(0)), "no critical keyUsage"),
        ("key usage not critical", |g| g.leaf.extensions[0] = usage(false, &[0]), "no critical keyUsage"),
        ("not for signatures", |g| g.leaf.extensions[0] = usage(true, &[1]), "signatures alone"),
        ("for encryption too", |g| g.leaf.extensions[0] = usage(true, &[0, 2]), "signatures alone"),
        ("for certificates too", |g| g.leaf.extensions[0] = usage(true, &[0, 5]), "signatures alone"),
        ("for deciphering too", |g| g.leaf.extensions[0] = usage(true, &[0, 8]), "signatures alone"),
        ("for servers", |g| g.leaf.extensions[1] = purposes(false, &[SERVER_AUTH]), "code signing excludes"),
        (
            "for servers too",
            |g| g.leaf.extensions[1] = purposes(false, &[CODE_SIGNING, SERVER_AUTH]),
            "code signing excludes",
        ),
        ("for anything", |g| g.leaf.extensions[1] = purposes(false, &[CODE_SIGNING, ANY]), "code signing excludes"),
        ("for time stamps", |g| g.leaf.extensions[1] = purposes(true, &[TIME_STAMPING]), "code signing excludes"),
        (
            "for something else",
            |g| g.leaf.extensions[1] = purposes(false, &[&[0x2b, 6, 1, 5, 5, 7, 3, 9]]),
            "without codeSigning",
        ),
        ("usage twice", |g| g.leaf.extensions.push(usage(true, &[0])), "cannot be read"),
        (
            "an unknown critical extension",
            |g| g.leaf.extensions.push(extension(&[0x2a, 3, 4], true, &[5, 0])),
            "does not hold",
        ),
        ("CA without constraints", |g| drop(g.between.extensions.remove(0)), "no CA by critical"),
        ("constraints not critical", |g| g.between.extensions[0] = constraints(false, true, None), "no CA by critical"),
        ("constraints say no", |g| g.between.extensions[0] = constraints(true, false, None), "no CA by critical"),
        ("path too long", |g| g.root.extensions[0] = constraints(true, true, Some(0)), "that many CAs"),
        ("CA that may not certify", |g| g.between.extensions[1] = usage(true, &[0]), "keyCertSign"),
        ("root that may not certify", |g| g.root.extensions[1] = usage(true, &[6]), "keyCertSign"),
        ("issued by another", |g| g.leaf.issuer[2].1 = "someone", "issued by another"),
        ("the name of the leaf twice", |g| g.leaf.subject.push((3, "ci")), "identities"),
    ];
    for (name, fault, why) in faults {
        let mut given = good();
        assert!(judged(&given).is_ok());
        fault(&mut given);
        let said = judged(&given).expect_err(name);
        assert!(said.contains(why), "{name}: {said}");
    }
    // What may be, and changes nothing.
    let fine: &[fn(&mut Given)] = &[
        |g| drop(g.leaf.extensions.remove(1)),
        |g| g.leaf.extensions[1] = purposes(true, &[CODE_SIGNING]),
        |g| g.leaf.extensions[0] = usage(true, &[0, 1]),
        |g| g.leaf.extensions.push(constraints(false, false, None)),
        |g| g.leaf.extensions.push(extension(&[0x2a, 3, 4], false, &[5, 0])),
        |g| g.identities.insert(0, "CN=other".into()),
        |g| g.identities = vec!["*".into()],
    ];
    for (n, change) in fine.iter().enumerate() {
        let mut given = good();
        change(&mut given);
        assert!(judged(&given).is_ok(), "{n}: {:?}", judged(&given));
    }
}

#[test]
fn only_a_root_of_the_authority_leads_to_a_leaf() {
    let (given, other) = (good(), good());
    let (chain, foreign) = (given.chain(), other.chain());
    let notary = notary_of(&given, &chain[2..]);
    let of = |chain: &[Vec<u8>]| verdict(&given.jws(chain), &notary, given.now, &image());
    assert!(of(&chain).is_ok());
    let mixed = [chain[0].clone(), foreign[1].clone(), chain[2].clone()];
    let reversed: Vec<_> = chain.iter().rev().cloned().collect();
    let padded = [chain.clone(), vec![foreign[2].clone()]].concat();
    let doubled = [&chain[..2], &chain[1..]].concat();
    for (bad, why) in [
        (&foreign[..], "none of the authority's roots"),
        (&chain[..2], "none of the authority's roots"),
        (&chain[..1], "none of the authority's roots"),
        (&reversed, "none of the authority's roots"),
        (&padded, "none of the authority's roots"),
        (&mixed, "not signed by the next"),
        (&[chain[0].clone(), chain[2].clone()], "not signed by the next"),
        (&doubled, "not signed by the next"),
        (&[chain[1].clone(), chain[2].clone()], "envelope is not signed"),
        (&[chain[2].clone()], "envelope is not signed"),
    ] {
        let said = of(bad).unwrap_err();
        assert!(said.contains(why), "{why}: {said}");
    }
    // A root with the right name and another key is another certificate, and not the same bytes.
    let mut imposter = good();
    imposter.pairs[2] = Pair::new();
    assert!(verdict(&imposter.jws(&imposter.chain()), &notary, given.now, &image()).is_err());
    // Another authority of the same CA, told apart by the subject.
    assert!(Notary::new(&pem(&chain[2..]), &["CN=cd".into()], false).is_ok_and(|notary| {
        verdict(&given.jws(&chain), &notary, given.now, &image()).unwrap_err().contains("identities")
    }));
}

/// notation's own test certificate: a leaf that is its own root.
#[test]
fn a_leaf_may_be_its_own_root() {
    let given = good();
    let leaf = Form::leaf("ci", "ci").certificate(&given.pairs[2], &given.pairs[2]);
    let file = given.jws(std::slice::from_ref(&leaf));
    let notary = notary_of(&given, std::slice::from_ref(&leaf));
    assert!(verdict(&file, &notary, given.now, &image()).is_ok());
    let ca = Form::ca("ci", "ci", None).certificate(&given.pairs[2], &given.pairs[2]);
    let said = verdict(&given.jws(std::slice::from_ref(&ca)), &notary_of(&given, &[ca]), given.now, &image());
    assert!(said.unwrap_err().contains("is a CA"));
}

#[test]
fn what_was_signed_is_this_image() {
    let given = good();
    let chain = given.chain();
    let notary = notary_of(&given, &chain[2..]);
    let proposal = taken(&given.jws(&chain)).unwrap();
    let other = digest(b"other");
    assert_eq!(notary.verify(&proposal, &other), Err(Reject::OtherImage { named: image() }));
    // The worker lies about the digest.
    let lie = NotationProposal { digest: other, ..proposal.clone() };
    assert_eq!(notary.verify(&lie, &other), Err(Reject::Text { format: Format::NotationJws }));
    assert_eq!(notary.verify(&lie, &image()), Err(Reject::OtherImage { named: other }));
    // It stands there, but not as what is signed.
    let mut given = good();
    given.payload = given.payload.replace("\"size\"", &format!("\"annotations\":{{\"x\":\"{other}\"}},\"size\""));
    let chain = given.chain();
    let notary = notary_of(&given, &chain[2..]);
    let proposal = taken(&given.jws(&chain)).unwrap();
    let lie = NotationProposal { digest: other, ..proposal.clone() };
    assert_eq!(notary.verify(&lie, &other), Err(Reject::Text { format: Format::NotationJws }));
    let vouched = notary.verify(&proposal, &image()).unwrap();
    // The second worker read something else.
    let elsewhere = NotationProposal { payload: Given::good(&other.to_string()).payload.into_bytes(), ..proposal };
    let answer = appraise(&notary.question(&elsewhere, given.now));
    assert_eq!(accept(&vouched, &answer), Err(Reject::OtherImage { named: other }));
}

#[test]
fn any_change_of_the_parts_is_seen() {
    let given = good();
    let chain = given.chain();
    let notary = notary_of(&given, &chain[2..]);
    let proposal = taken(&given.jws(&chain)).unwrap();
    assert!(notary.verify(&proposal, &image()).is_ok());
    type Part = fn(&mut NotationProposal) -> &mut Vec<u8>;
    let parts: [Part; 6] = [
        |p| &mut p.protected,
        |p| &mut p.payload,
        |p| &mut p.signature,
        |p| &mut p.chain[0],
        |p| &mut p.chain[1],
        |p| &mut p.chain[2],
    ];
    for (n, part) in parts.iter().enumerate() {
        let len = part(&mut proposal.clone()).len();
        for at in 0..len {
            let mut bad = proposal.clone();
            part(&mut bad)[at] ^= 1;
            assert!(notary.verify(&bad, &image()).is_err(), "{n} {at}");
        }
        for change in [|bytes: &mut Vec<u8>| bytes.push(0), |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 1)] {
            let mut bad = proposal.clone();
            change(part(&mut bad));
            assert!(notary.verify(&bad, &image()).is_err(), "{n}");
        }
    }
}

#[test]
fn an_answer_that_is_none_accepts_nothing() {
    let given = good();
    let chain = given.chain();
    let notary = notary_of(&given, &chain[2..]);
    let proposal = taken(&given.jws(&chain)).unwrap();
    let vouched = notary.verify(&proposal, &image()).unwrap();
    let answer = appraise(&notary.question(&proposal, given.now));
    assert!(accept(&vouched, &answer).is_ok());
    for cut in 0..answer.len() {
        assert!(accept(&vouched, &answer[..cut]).is_err());
    }
    let mut long = answer.clone();
    long.push(0);
    assert!(accept(&vouched, &long).is_err());
    for cut in 0..64 {
        assert!(accept(&vouched, &appraise(&notary.question(&proposal, given.now)[..cut])).is_err());
    }
}

#[test]
fn envelopes_that_are_none() {
    let given = good();
    let file = given.jws(&given.chain());
    for (bad, why) in [
        (file.replace("\"payload\":\"", "\"payload\":\"="), "base64url"),
        (file.replace("\"payload\"", "\"signatures\":[],\"payload\""), "flattened"),
        (file.replace("\"x5c\":[", "\"x5c\":[7,"), "not a text"),
        (file.replace("\"x5c\":[\"", "\"x5c\":[\"*"), "no certificate"),
        (file.replace("\"x5c\"", "\"x5d\""), "no x5c"),
        (format!("{file}{file}"), "trailing"),
        (file.replace("{\"payload\"", "{\"payload\":\"\",\"payload\""), "twice"),
        (String::new(), "EOF"),
    ] {
        let said = taken(&bad).unwrap_err();
        assert!(said.contains(why), "{why}: {said}");
    }
    let bent = |from: &str, to: &str| {
        let mut given = good();
        given.payload = given.payload.replace(from, to);
        taken(&given.jws(&given.chain())).unwrap_err()
    };
    assert!(bent("targetArtifact", "target").contains("no targetArtifact"));
    assert!(bent("sha256:", "sha512:").contains("digest"));
    assert!(bent("\"size\":527", "\"size\":\"527\"").contains("whole number"));
    assert!(bent("\"size\"", "\"digest\":\"x\",\"size\"").contains("twice"));
    let nine = vec![given.chain()[0].clone(); 9];
    assert!(taken(&given.jws(&nine)).unwrap_err().contains("more than 8"));
}

#[test]
fn roots_and_identities_of_an_operator() {
    let chain = good().chain();
    let of = |roots: &str, identities: &[&str]| {
        let identities: Vec<String> = identities.iter().map(ToString::to_string).collect();
        Notary::new(roots, &identities, false).map(|notary| notary.ends().count())
    };
    assert_eq!(of(&pem(&chain[1..]), &["*"]), Ok(2));
    for (roots, identities, why) in [
        (String::new(), &["*"][..], "no certificate"),
        (pem(&chain[2..]), &[], "no identity"),
        (pem(&chain[2..]), &["ci"], "identity"),
        (pem(&[chain[2].clone(), chain[2].clone()]), &["*"], "twice"),
        (format!("x{}", pem(&chain[2..])), &["*"], "PEM"),
        (pem(&chain[2..]).replace("CERTIFICATE", "PUBLIC KEY"), &["*"], "PEM"),
        (pem(&[b"junk".to_vec()]), &["*"], "X.509"),
        (pem(&chain[2..]).replace("MII", "M*I"), &["*"], "base64"),
    ] {
        let said = of(&roots, identities).unwrap_err();
        assert!(said.contains(why), "{why}: {said}");
    }
}

type Header = Vec<(Vec<u8>, Vec<u8>)>;

fn by_cose(given: &Given, header: &Header) -> Result<(Claim, String), String> {
    let chain = given.chain();
    let file = given.cose(header, &chain);
    let proposal = apart(Source::NotationCose, &file)?;
    assert_eq!(notation_file(&file).unwrap().name, format!("{}.notation.cose", digest(&file).hex()));
    verdict_of(proposal, &notary_of(given, &chain[2..]), given.now, &image())
}

#[test]
fn truth_table_of_cose_headers() {
    const PLUGIN: &str = "io.cncf.notary.verificationPlugin";
    const SCHEME: &str = "io.cncf.notary.signingScheme";
    const EXPIRY: &str = "io.cncf.notary.expiry";
    let given = good();
    let (claim, subject) = by_cose(&given, &protected()).unwrap();
    assert_eq!(claim, Claim { format: Format::NotationCose, repository: None, digest: image() });
    assert_eq!(subject, "C=US, O=corp, CN=ci");
    type Bend = fn(&mut Header);
    let faults: &[(&str, Bend, &str)] = &[
        ("another key's alg", |h| h[0].1 = int(-37), "alg is not -7"),
        ("alg as a text", |h| h[0].1 = text("ES256"), "alg is not -7"),
        ("no alg", |h| drop(h.remove(0)), "alg is not -7"),
        ("no crit", |h| drop(h.remove(1)), "no crit"),
        ("empty crit", |h| h[1].1 = array(&[]), "exactly where"),
        ("crit twice", |h| h[1].1 = array(&[text(SCHEME), text(SCHEME)]), "exactly where"),
        ("unknown crit", |h| h[1].1 = array(&[text(SCHEME), text("x")]), "not understood"),
        ("a label in crit", |h| h[1].1 = array(&[text(SCHEME), int(4)]), "names a label"),
        ("content type", |h| h[2].1 = text("text/plain"), "payload of type"),
        ("no content type", |h| drop(h.remove(2)), "payload of type"),
        ("content format by number", |h| h[2].1 = int(50), "not a text"),
        ("unknown scheme", |h| h[3].1 = text("notary.x510"), "signing scheme"),
        ("the other scheme", |h| h[3].1 = text("notary.x509.signingAuthority"), "signing scheme"),
        ("no signing time", |h| drop(h.remove(4)), "the one signing time"),
        ("time without its tag", |h| h[4].1 = int(1), "no time since the epoch"),
        ("time before 1970", |h| h[4].1 = [vec![0xc1], int(-1)].concat(), "before 1970"),
        ("time as a float", |h| h[4].1 = vec![0xc1, 0xf9, 0, 0], "float"),
        ("a plugin", |h| h.push((text(PLUGIN), text("x"))), "plugin"),
        ("expiry not critical", |h| h.push((text(EXPIRY), moment(NOW + 1))), "expiry exactly where"),
        (
            "expired",
            |h| {
                h[1].1 = array(&[text(SCHEME), text(EXPIRY)]);
                h.push((text(EXPIRY), moment(NOW)));
            },
            "has expired",
        ),
        ("payload hash", |h| h.push((int(258), int(-16))), "not understood"),
        ("a key twice", |h| h.push((int(1), int(-7))), "twice"),
    ];
    for (name, fault, why) in faults {
        let mut header = protected();
        fault(&mut header);
        let said = by_cose(&given, &header).expect_err(name);
        assert!(said.contains(why), "{name}: {said}");
    }
    let mut header = protected();
    header[1].1 = array(&[text(SCHEME), text(EXPIRY)]);
    header.push((text(EXPIRY), moment(NOW + 1)));
    assert!(by_cose(&given, &header).is_ok());
}

#[test]
fn cose_envelopes_that_are_none() {
    let given = good();
    let file = given.cose(&protected(), &given.chain());
    let of = |bytes: &[u8]| apart(Source::NotationCose, bytes).map(|_| ());
    assert_eq!(of(&file), Ok(()));
    let parts = |unprotected: Vec<u8>, last: Vec<u8>| {
        [vec![0xd2], array(&[string(&map(&protected())), unprotected, string(given.payload.as_bytes()), last])].concat()
    };
    let one = map(&[(int(33), string(&given.chain()[0]))]);
    assert_eq!(of(&parts(one.clone(), string(&[0; 64]))), Ok(()));
    for (bad, why) in [
        (file[1..].to_vec(), "not a tagged"),
        ([vec![0xd1], file[1..].to_vec()].concat(), "not a tagged"),
        ([file.clone(), vec![0]].concat(), "bytes after"),
        (file[..file.len() - 1].to_vec(), "cut short"),
        (vec![0xd2, 0x9f, 0xff], "indefinite"),
        (vec![0xd2, 0x80], "four parts"),
        (parts(map(&[]), string(&[0; 64])), "no x5chain"),
        (parts(map(&[(int(33), array(&[]))]), string(&[0; 64])), "no x5chain"),
        (parts(map(&[(int(33), array(&[int(1)]))]), string(&[0; 64])), "no certificate"),
        (parts(map(&[(int(1), int(-7)), (int(33), string(b"x"))]), string(&[0; 64])), "registered label"),
        (parts(one.clone(), string(&[0; 2000])), "longer than"),
        (parts(one, int(1)), "four parts"),
    ] {
        let said = of(&bad).unwrap_err();
        assert!(said.contains(why), "{why}: {said}");
    }
    // The envelope of one kind under the name of the other.
    assert!(apart(Source::NotationJws, &file).is_err());
    assert!(of(given.jws(&given.chain()).as_bytes()).is_err());
    // Signed as the one, shown as the other: the message differs.
    let mut proposal = apart(Source::NotationCose, &file).unwrap();
    let notary = notary_of(&given, &given.chain()[2..]);
    proposal.envelope = Envelope::Jws;
    assert!(matches!(notary.verify(&proposal, &image()), Err(Reject::Untrusted(_))));
}

/// Another CA and another leaf are no second key where several are needed: their root is the same.
#[test]
fn whom_one_root_certifies_is_one() {
    let key = |given: &Given, chain: &[Vec<u8>], root: &Vec<u8>| {
        let proposal = taken(&given.jws(chain)).unwrap();
        notary_of(given, std::slice::from_ref(root)).verify(&proposal, &image()).unwrap().key
    };
    let mut given = good();
    let chain = given.chain();
    let root = chain[2].clone();
    let first = key(&given, &chain, &root);
    (given.pairs[1], given.pairs[2]) = (Pair::new(), Pair::new());
    let mut other = given.chain();
    other[2].clone_from(&root);
    assert_ne!(other[0], chain[0]);
    assert_eq!(key(&given, &other, &root), first);
    let given = good();
    let chain = given.chain();
    assert_ne!(key(&given, &chain, &chain[2]), first);
}

/// Certificates and signatures by openssl: each kind of key that the Notary Project has, and what `ring` has of them.
#[test]
fn each_key_has_its_own_algorithm() {
    let folder = openssl::Folder::new("notation");
    folder.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout root.key -subj /CN=root -days 3650 \
         -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign -out root.pem",
    );
    let root = folder.read("root.pem");
    let root = String::from_utf8(root).unwrap();
    let der = |name: &str| {
        folder.run(&format!("openssl x509 -in {name}.pem -outform DER -out {name}.der"));
        folder.read(&format!("{name}.der"))
    };
    let anchor = der("root");
    // The certificates are made after the clock was read.
    let now = 3600 + std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for (name, kind, alg, want) in [
        ("p256", "EC -pkeyopt ec_paramgen_curve:P-256", "ES256", Ok(())),
        ("p384", "EC -pkeyopt ec_paramgen_curve:P-384", "ES384", Ok(())),
        ("p521", "EC -pkeyopt ec_paramgen_curve:P-521", "ES512", Err("P-521")),
        ("rsa2048", "RSA -pkeyopt rsa_keygen_bits:2048", "PS256", Ok(())),
        ("rsa3072", "RSA -pkeyopt rsa_keygen_bits:3072", "PS384", Ok(())),
        ("rsa4096", "RSA -pkeyopt rsa_keygen_bits:4096", "PS512", Ok(())),
        ("rsa2560", "RSA -pkeyopt rsa_keygen_bits:2560", "PS256", Err("2048, 3072 or 4096")),
        ("ed25519", "ED25519", "EdDSA", Err("neither P-256")),
    ] {
        folder.run(&format!(
            "openssl genpkey -algorithm {kind} -out {name}.key 2>/dev/null
             openssl req -new -key {name}.key -subj /C=US/O=corp/CN=ci -out {name}.csr
             printf 'keyUsage=critical,digitalSignature\\nextendedKeyUsage=codeSigning\\n' >ext
             openssl x509 -req -in {name}.csr -CA root.pem -CAkey root.key -CAcreateserial -days 365 -extfile ext -out {name}.pem 2>/dev/null"
        ));
        let chain = [der(name), anchor.clone()];
        let mut given = good();
        given.protected = given.protected.replace("ES256", alg);
        let sign = |how: &str| {
            let message = notary::flattened(&given.protected, &given.payload, "", &[]);
            let part = |field: &str| {
                let (_, rest) = message.split_once(&format!("\"{field}\":\"")).unwrap();
                rest.split_once('"').unwrap().0.to_owned()
            };
            folder.write("message", format!("{}.{}", part("protected"), part("payload")).as_bytes());
            folder.run(how);
            folder.read("signature")
        };
        let key = format!("-sign {name}.key -out signature message");
        let signature = match alg {
            "EdDSA" => sign(&format!("openssl pkeyutl -sign -inkey {name}.key -rawin -in message -out signature")),
            _ if alg.starts_with('P') => sign(&format!(
                "openssl dgst -sha{} -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest {key}",
                &alg[2..]
            )),
            _ => fixed(&sign(&format!("openssl dgst -sha{} {key}", &alg[2..])), name),
        };
        let file = notary::flattened(&given.protected, &given.payload, &notary_base64(&signature), &chain);
        let notary = Notary::new(&root, &["O=corp, CN=ci".into()], false).unwrap();
        let said = verdict(&file, &notary, Some(now), &image());
        match want {
            Ok(()) => {
                assert!(said.is_ok(), "{name}: {said:?}");
                let other = if alg == "PS256" { "PS384" } else { "PS256" };
                let confused = notary::flattened(
                    &given.protected.replace(alg, other),
                    &given.payload,
                    &notary_base64(&signature),
                    &chain,
                );
                assert!(verdict(&confused, &notary, Some(now), &image()).is_err(), "{name}");
            }
            Err(why) => assert!(said.as_ref().is_err_and(|said| said.contains(why)), "{name}: {said:?}"),
        }
    }
}

fn notary_base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// r and s of fixed size out of openssl's DER.
fn fixed(der: &[u8], name: &str) -> Vec<u8> {
    let size = match name {
        "p256" => 32,
        "p384" => 48,
        _ => 66,
    };
    let mut rest = if der[1] & 0x80 == 0 { &der[2..] } else { &der[3..] };
    let mut out = Vec::new();
    for _ in 0..2 {
        let len = usize::from(rest[1]);
        let number = &rest[2..2 + len];
        let number = &number[number.len().saturating_sub(size)..];
        out.extend(vec![0; size - number.len()]);
        out.extend(number);
        rest = &rest[2 + len..];
    }
    out
}
