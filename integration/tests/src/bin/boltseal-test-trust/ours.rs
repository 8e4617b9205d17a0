//! boltseal's verdict on files of the signature store: the steps of a start, without the jail.
use anyhow::{Context, Result};
use boltseal_trust::keyless::{Certified, Fulcio};
use boltseal_trust::notation::{Notary, accept, appraise};
use boltseal_trust::{
    Digest, Key, Proposal, Reject, SignatureProposal, Source, StatementKind, StoreFile, decode_statement,
    import_layout, propose, read_statement, verify_attestation, verify_signature,
};
use stack::image::Image;
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Who is trusted.
pub(crate) enum Trust {
    Key(Key),
    Roots(Notary),
    /// A trusted root, and the identity and issuer that are meant.
    Keyless(Fulcio, &'static str, &'static str),
}

impl Trust {
    pub(crate) fn key(public: &Path) -> Result<Self> {
        let key = Key::from_spki_pem(&fs::read_to_string(public)?);
        Ok(Self::Key(key.map_err(|why| anyhow::anyhow!("{}: {why}", public.display()))?))
    }
}

pub(crate) fn digest(image: &Image) -> Result<Digest> {
    image.manifest.parse::<Digest>().map_err(|why| anyhow::anyhow!("{}: {why}", image.manifest))
}

/// What `boltseal sig import` takes of these layouts.
pub(crate) fn imported<'a>(layouts: impl IntoIterator<Item = &'a Path>) -> Result<Vec<StoreFile>> {
    let mut files = Vec::new();
    for layout in layouts {
        let index = fs::read(layout.join("index.json"))?;
        let blob = |name: &str| fs::read(layout.join("blobs").join(name.replace(':', "/")));
        files.extend(import_layout(blob, &index).map_err(|why| anyhow::anyhow!("{why}"))?.files);
    }
    Ok(files)
}

/// Whether any of these files is a signature of the image, for its repository where the format names one.
pub(crate) fn signed(files: &[StoreFile], trust: &Trust, image: &Image) -> Result<Result<(), String>> {
    let expected = digest(image)?;
    let mut why = "no signature file".to_owned();
    for file in files {
        match one(file, trust, &expected)? {
            Ok(named) if named.as_ref().is_none_or(|name| *name == image.repository) => return Ok(Ok(())),
            Ok(named) => why = format!("signed for {}", named.unwrap_or_default()),
            Err(said) => why = said,
        }
    }
    Ok(Err(why))
}

fn proposed(file: &StoreFile) -> Result<Result<SignatureProposal, String>> {
    let source = Source::of_file(&file.name).with_context(|| file.name.clone())?;
    Ok(match propose(source, &file.bytes) {
        Ok(Proposal::Signature(proposal)) => Ok(proposal),
        Ok(_) => Err("not a signature".into()),
        Err(why) => Err(why.to_string()),
    })
}

fn one(file: &StoreFile, trust: &Trust, expected: &Digest) -> Result<Result<Option<String>, String>> {
    let proposal = match proposed(file)? {
        Ok(proposal) => proposal,
        Err(why) => return Ok(Err(why)),
    };
    let claim = match (&proposal, trust) {
        (SignatureProposal::Notation(proposal), Trust::Roots(notary)) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
            notary.verify(proposal, expected).and_then(|vouched| {
                let answer = appraise(&notary.question(proposal, Some(now)));
                accept(&vouched, &answer).map(|(claim, _)| claim)
            })
        }
        (proposal, Trust::Keyless(fulcio, identity, issuer)) => fulcio
            .verify(proposal, expected)
            .and_then(|certified| named(certified, fulcio, (&file.bytes, expected), (*identity, *issuer))),
        (proposal, Trust::Key(key)) => verify_signature(proposal, key, expected),
        (_, Trust::Roots(_)) => return Ok(Err("a signature by a key, not under a root".into())),
    };
    Ok(claim.map(|claim| claim.repository).map_err(|why| why.to_string()))
}

/// What the worker says of a certificate, and whether it names whom the policy means.
fn named<T>(
    certified: Certified<T>,
    fulcio: &Fulcio,
    (bundle, of): (&[u8], &Digest),
    (identity, issuer): (&str, &str),
) -> Result<T, Reject> {
    let question = fulcio.question(&certified, bundle, of);
    let (claim, _, who) = certified.accept(&boltseal_keyless::judge(&question))?;
    if who.identity != identity || who.issuer != issuer {
        return Err(Reject::Keyless(format!("signed by {} of {}", who.identity, who.issuer)));
    }
    Ok(claim)
}

/// Whether this bundle is a statement about `subject` by whom the policy means.
pub(crate) fn stated(
    bundle: &[u8],
    fulcio: &Fulcio,
    (identity, issuer): (&str, &str),
    subject: &Digest,
) -> Result<(), String> {
    let proposal = match propose(Source::SigstoreBundle, bundle) {
        Ok(Proposal::Signature(proposal)) => proposal,
        other => return Err(format!("{other:?}")),
    };
    let certified = fulcio.verify_attestation(&proposal, subject).map_err(|why| why.to_string())?;
    named(certified, fulcio, (bundle, subject), (identity, issuer)).map(drop).map_err(|why| why.to_string())
}

/// Whether any of these files attests something of this kind, and its statement is one that can be read; what it says.
pub(crate) fn read(files: &[StoreFile], key: &Trust, image: &Image) -> Result<Result<String, String>> {
    let Trust::Key(key) = key else { return Ok(Err("not a key".into())) };
    let expected = digest(image)?;
    let mut why = "no attestation".to_owned();
    for file in files {
        let Ok(proposal) = proposed(file)? else { continue };
        let Ok(found) = verify_attestation(&proposal, key, &expected) else { continue };
        let Some(kind) = StatementKind::of(&found.predicate_type) else { continue };
        match decode_statement(&read_statement(kind.number(), proposal.payload())) {
            Ok(Ok(said)) => return Ok(Ok(format!("{said:?}"))),
            Ok(Err(said)) => why = said,
            Err(said) => why = said.to_string(),
        }
    }
    Ok(Err(why))
}

/// Whether any of these files attests something of this kind.
pub(crate) fn attested(files: &[StoreFile], key: &Trust, image: &Image, kind: &str) -> Result<Result<(), String>> {
    let Trust::Key(key) = key else { return Ok(Err("not a key".into())) };
    let expected = digest(image)?;
    let mut why = "no attestation".to_owned();
    for file in files {
        match proposed(file)?.and_then(|p| verify_attestation(&p, key, &expected).map_err(|e| e.to_string())) {
            Ok(found) if found.predicate_type == kind => return Ok(Ok(())),
            Ok(found) => why = format!("attests {}", found.predicate_type),
            Err(said) => why = said,
        }
    }
    Ok(Err(why))
}
