//! A proposal as bytes, and back: all that the gate reads of a worker.
use super::{
    Answer, Config, Descriptor, Index, IndexEntry, MAX_ATTESTATION_FILE, MAX_ENTRIES, MAX_LAYERS, MAX_LIST, MAX_NAME,
    MAX_REPOSITORY, MAX_SIGNATURE, MAX_SIGNATURE_FILE, MAX_TEXT, Malformed, Manifest, Placed, Proposal,
    SignatureProposal,
};
use crate::notation::{Envelope, MAX_CERTIFICATE, MAX_CHAIN, NotationProposal};
use crate::wire::{DecodeError, Reader, Writer};

const ANSWER_MALFORMED: u8 = 0;
const INDEX: u8 = 1;
const MANIFEST: u8 = 2;
const CONFIG: u8 = 3;
const COSIGN: u8 = 4;
const BUNDLE: u8 = 5;
const NOTATION: u8 = 6;
const CERTIFIED: u8 = 7;

/// An answer as bytes.
#[must_use]
pub fn encode_answer(answer: &Answer) -> Vec<u8> {
    match answer {
        Ok(proposal) => proposal.encode(),
        Err(why) => {
            let mut writer = Writer::default();
            writer.byte(ANSWER_MALFORMED);
            writer.text(&why.0);
            writer.0
        }
    }
}

/// An answer from bytes; the reason of a refusal is made printable again, for the worker may be anyone's.
///
/// # Errors
/// [`DecodeError`] when the bytes are not an answer.
pub fn decode_answer(bytes: &[u8]) -> Result<Answer, DecodeError> {
    if bytes.first() != Some(&ANSWER_MALFORMED) {
        return Proposal::decode(bytes).map(Ok);
    }
    let mut reader = Reader::new(bytes)?;
    reader.byte()?;
    let why = reader.text(MAX_NAME)?;
    reader.end()?;
    Ok(Err(Malformed::new(why)))
}

impl Proposal {
    /// At most [`crate::MAX_PROPOSAL`] bytes for every proposal that [`propose`] makes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        match self {
            Self::Index(index) => {
                w.byte(INDEX);
                w.text(&index.media_type);
                w.list(&index.entries, |w, entry| {
                    put_descriptor(w, &entry.descriptor);
                    w.text(&entry.os);
                    w.text(&entry.architecture);
                    w.text(&entry.variant);
                });
            }
            Self::Manifest(manifest) => {
                w.byte(MANIFEST);
                w.text(&manifest.media_type);
                put_descriptor(&mut w, &manifest.config);
                w.list(&manifest.layers, put_descriptor);
            }
            Self::Config(config) => {
                w.byte(CONFIG);
                for text in [&config.os, &config.architecture, &config.created, &config.user, &config.working_dir] {
                    w.text(text);
                }
                w.list(&config.diff_ids, put_placed);
                for list in [&config.env, &config.entrypoint, &config.cmd, &config.history] {
                    w.list(list, |w, text| w.text(text));
                }
                w.list(&config.labels, |w, (name, value)| {
                    w.text(name);
                    w.text(value);
                });
                w.text(&config.unread);
            }
            Self::Signature(SignatureProposal::Cosign { payload, signature, reference, digest }) => {
                w.byte(COSIGN);
                w.bytes(payload);
                w.bytes(signature);
                w.text(reference);
                w.digest(digest);
            }
            Self::Signature(envelope @ SignatureProposal::Bundle { .. }) => {
                w.byte(BUNDLE);
                put_envelope(&mut w, envelope);
            }
            Self::Signature(SignatureProposal::Certified { certificate, envelope }) => {
                w.byte(CERTIFIED);
                w.bytes(certificate);
                put_envelope(&mut w, envelope);
            }
            Self::Signature(SignatureProposal::Notation(proposal)) => {
                w.byte(NOTATION);
                w.byte(proposal.envelope.number());
                w.bytes(&proposal.protected);
                w.bytes(&proposal.payload);
                w.bytes(&proposal.signature);
                w.list(&proposal.chain, |w, der| w.bytes(der));
                w.digest(&proposal.digest);
            }
        }
        w.0
    }

    /// The gate's only reading of what a worker writes.
    ///
    /// # Errors
    /// [`DecodeError`] for anything but the exact encoding of a proposal within its bounds.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes)?;
        let proposal = match r.byte()? {
            INDEX => Self::Index(Index {
                media_type: r.text(MAX_NAME)?,
                entries: r.list(MAX_ENTRIES, |r| {
                    Ok(IndexEntry {
                        descriptor: descriptor(r)?,
                        os: r.text(MAX_NAME)?,
                        architecture: r.text(MAX_NAME)?,
                        variant: r.text(MAX_NAME)?,
                    })
                })?,
            }),
            MANIFEST => Self::Manifest(Manifest {
                media_type: r.text(MAX_NAME)?,
                config: descriptor(&mut r)?,
                layers: r.list(MAX_LAYERS, descriptor)?,
            }),
            CONFIG => Self::Config(Config {
                os: r.text(MAX_NAME)?,
                architecture: r.text(MAX_NAME)?,
                created: r.text(MAX_NAME)?,
                user: r.text(MAX_NAME)?,
                working_dir: r.text(MAX_TEXT)?,
                diff_ids: r.list(MAX_LAYERS, placed)?,
                env: r.list(MAX_LIST, |r| r.text(MAX_TEXT))?,
                entrypoint: r.list(MAX_LIST, |r| r.text(MAX_TEXT))?,
                cmd: r.list(MAX_LIST, |r| r.text(MAX_TEXT))?,
                history: r.list(MAX_LIST, |r| r.text(MAX_TEXT))?,
                labels: r.list(MAX_LIST, |r| Ok((r.text(MAX_TEXT)?, r.text(MAX_TEXT)?)))?,
                unread: r.text(MAX_NAME)?,
            }),
            COSIGN => Self::Signature(SignatureProposal::Cosign {
                payload: r.bytes(MAX_SIGNATURE_FILE)?,
                signature: r.bytes(MAX_SIGNATURE)?,
                reference: r.text(MAX_REPOSITORY)?,
                digest: r.digest()?,
            }),
            BUNDLE => Self::Signature(envelope(&mut r)?),
            CERTIFIED => Self::Signature(SignatureProposal::Certified {
                certificate: r.bytes(MAX_CERTIFICATE)?,
                envelope: Box::new(envelope(&mut r)?),
            }),
            NOTATION => Self::Signature(SignatureProposal::Notation(NotationProposal {
                envelope: Envelope::of(r.byte()?)?,
                protected: r.bytes(MAX_SIGNATURE_FILE)?,
                payload: r.bytes(MAX_SIGNATURE_FILE)?,
                signature: r.bytes(MAX_SIGNATURE)?,
                chain: r.list(MAX_CHAIN, |r| r.bytes(MAX_CERTIFICATE))?,
                digest: r.digest()?,
            })),
            _ => return Err(DecodeError("unknown kind")),
        };
        r.end()?;
        Ok(proposal)
    }
}

/// A DSSE envelope; anything else is written as nothing, which cannot be read again.
fn put_envelope(w: &mut Writer, proposal: &SignatureProposal) {
    let SignatureProposal::Bundle { payload_type, payload, signature, predicate_type, digest } = proposal else {
        return;
    };
    w.text(payload_type);
    w.bytes(payload);
    w.bytes(signature);
    w.text(predicate_type);
    w.digest(digest);
}

fn envelope(r: &mut Reader<'_>) -> Result<SignatureProposal, DecodeError> {
    Ok(SignatureProposal::Bundle {
        payload_type: r.text(MAX_NAME)?,
        payload: r.bytes(MAX_ATTESTATION_FILE)?,
        signature: r.bytes(MAX_SIGNATURE)?,
        predicate_type: r.text(MAX_NAME)?,
        digest: r.digest()?,
    })
}

fn put_placed(w: &mut Writer, placed: &Placed) {
    w.digest(&placed.digest);
    w.u32(placed.at);
}

fn placed(r: &mut Reader<'_>) -> Result<Placed, DecodeError> {
    Ok(Placed { digest: r.digest()?, at: r.u32()? })
}

fn put_descriptor(w: &mut Writer, descriptor: &Descriptor) {
    put_placed(w, &descriptor.digest);
    w.u64(descriptor.size);
    w.text(&descriptor.media_type);
}

fn descriptor(r: &mut Reader<'_>) -> Result<Descriptor, DecodeError> {
    Ok(Descriptor { digest: placed(r)?, size: r.u64()?, media_type: r.text(MAX_NAME)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_crosses_the_line_printable() {
        let refusal = Err(Malformed("evil\n\u{1b}[31m".into()));
        assert_eq!(decode_answer(&encode_answer(&refusal)).unwrap(), Err(Malformed("evil??[31m".into())));
        let long = Malformed::new("x".repeat(1000));
        assert_eq!(long.reason().len(), 160);
        assert_eq!(decode_answer(&encode_answer(&Err(long.clone()))).unwrap(), Err(long));
    }

    #[test]
    fn unknown_kinds_and_left_over_bytes_are_refused() {
        assert!(Proposal::decode(&[]).is_err());
        assert!(Proposal::decode(&[9]).is_err());
        assert!(Proposal::decode(&[0, 0, 0, 0, 0]).is_err());
        let index = Proposal::Index(Index { media_type: String::new(), entries: vec![] });
        let mut bytes = index.encode();
        assert_eq!(Proposal::decode(&bytes).unwrap(), index);
        bytes.push(0);
        assert_eq!(Proposal::decode(&bytes), Err(DecodeError("bytes left over")));
    }
}
