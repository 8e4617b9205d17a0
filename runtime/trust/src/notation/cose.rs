//! The COSE envelope (Notary Project, signature-envelope-cose): a tagged COSE_Sign1. Worker's code.
use super::appraise::{AUTHENTIC_TIME, Attributes, EXPIRY, PLUGIN, SCHEME, SIGNING_TIME};
use super::cbor::{self, Item};
use super::{Envelope, MAX_CERTIFICATE, MAX_CHAIN, NotationProposal, jws};
use crate::propose::{MAX_SIGNATURE, MAX_SIGNATURE_FILE, Malformed};

/// CBOR tags and labels of RFC 9052 and 9360.
const SIGN1: u64 = 18;
const EPOCH: u64 = 1;
const ALG: Item<'_> = Item::Integer(1);
const CRIT: Item<'_> = Item::Integer(2);
const CONTENT_TYPE: Item<'_> = Item::Integer(3);
const X5CHAIN: Item<'_> = Item::Integer(33);

pub(crate) fn envelope(bytes: &[u8]) -> Result<NotationProposal, Malformed> {
    if bytes.len() > MAX_SIGNATURE_FILE {
        return Err(Malformed::new(format!(
            "envelope: {} bytes, at most {MAX_SIGNATURE_FILE} are looked at",
            bytes.len()
        )));
    }
    let Item::Tag(SIGN1, content) = read(bytes, "envelope")? else {
        return Err(Malformed::new("not a tagged COSE_Sign1"));
    };
    let Item::Array(parts) = *content else { return Err(Malformed::new("not a COSE_Sign1")) };
    let [Item::Bytes(protected), header @ Item::Map(pairs), Item::Bytes(payload), Item::Bytes(signature)] =
        parts.as_slice()
    else {
        return Err(Malformed::new("not the four parts of a COSE_Sign1"));
    };
    // What is not signed has no say in how the rest is read.
    if pairs.iter().any(|(name, _)| matches!(name, Item::Integer(label) if *label != 33)) {
        return Err(Malformed::new("the unprotected header has a registered label beside x5chain"));
    }
    if signature.len() > MAX_SIGNATURE {
        return Err(Malformed::new(format!("the signature is longer than {MAX_SIGNATURE} bytes")));
    }
    Ok(NotationProposal {
        envelope: Envelope::Cose,
        protected: protected.to_vec(),
        payload: payload.to_vec(),
        signature: signature.to_vec(),
        chain: chain(header.get(&X5CHAIN))?,
        digest: jws::target(payload)?,
    })
}

fn read<'a>(bytes: &'a [u8], what: &str) -> Result<Item<'a>, Malformed> {
    Item::read(bytes).map_err(|why| Malformed::new(format!("{what}: {why}")))
}

/// A list of certificates; one alone stands there without a list (RFC 9360, section 2).
fn chain(header: Option<&Item<'_>>) -> Result<Vec<Vec<u8>>, Malformed> {
    let one = |item: &Item<'_>| match item {
        Item::Bytes(der) if der.len() <= MAX_CERTIFICATE => Ok(der.to_vec()),
        _ => Err(Malformed::new("x5chain holds something that is no certificate")),
    };
    match header {
        Some(Item::Array(list)) if (2..=MAX_CHAIN).contains(&list.len()) => list.iter().map(one).collect(),
        Some(item @ Item::Bytes(_)) => Ok(vec![one(item)?]),
        // notation-core-go writes a list of one, too.
        Some(Item::Array(list)) if list.len() == 1 => list.iter().map(one).collect(),
        _ => Err(Malformed::new(format!("no x5chain, or one of more than {MAX_CHAIN} certificates"))),
    }
}

/// Sig_structure of RFC 9052, section 4.4, without external data.
pub(super) fn message(protected: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x84, 0x6a];
    out.extend(b"Signature1");
    for part in [protected, &[], payload] {
        cbor::bytes(&mut out, part);
    }
    out
}

/// The signed attributes. `algorithm` is the one that the leaf's key has.
pub(super) fn attributes(protected: &[u8], algorithm: i64) -> Result<Attributes, Malformed> {
    let header = read(protected, "protected header")?;
    let Item::Map(pairs) = &header else { return Err(Malformed::new("the protected header is not a map")) };
    // Of the registered labels three; the hash envelope's would give the payload another meaning.
    let known = |name: &Item<'_>| matches!(name, Item::Text(_)) || [ALG, CRIT, CONTENT_TYPE].contains(name);
    if let Some((name, _)) = pairs.iter().find(|(name, _)| !known(name)) {
        return Err(Malformed::new(format!("the protected header has {name:?}, which is not understood")));
    }
    if header.get(&ALG) != Some(&Item::Integer(algorithm)) {
        return Err(Malformed::new(format!("alg is not {algorithm}, by which the leaf's key signs")));
    }
    let text = |key: &Item<'_>, what: &str| match header.get(key) {
        None => Ok(String::new()),
        Some(Item::Text(text)) => Ok((*text).to_owned()),
        Some(_) => Err(Malformed::new(format!("{what} is not a text"))),
    };
    let moment = |name: &str| match header.get(&Item::Text(name)) {
        None => Ok(None),
        Some(Item::Tag(EPOCH, time)) => match **time {
            Item::Integer(seconds) => {
                u64::try_from(seconds).map(Some).map_err(|_| Malformed::new(format!("{name} is before 1970")))
            }
            _ => Err(Malformed::new(format!("{name} is not in whole seconds"))),
        },
        Some(_) => Err(Malformed::new(format!("{name} is no time since the epoch"))),
    };
    let Some(Item::Array(critical)) = header.get(&CRIT) else { return Err(Malformed::new("no crit")) };
    let critical = critical.iter().map(|item| match item {
        Item::Text(text) => Ok((*text).to_owned()),
        _ => Err(Malformed::new("crit names a label")),
    });
    Ok(Attributes {
        content_type: text(&CONTENT_TYPE, "content type")?,
        critical: critical.collect::<Result<_, _>>()?,
        scheme: text(&Item::Text(SCHEME), SCHEME)?,
        signing_time: moment(SIGNING_TIME)?,
        authentic_time: moment(AUTHENTIC_TIME)?,
        expiry: moment(EXPIRY)?,
        plugin: header.get(&Item::Text(PLUGIN)).is_some(),
    })
}
