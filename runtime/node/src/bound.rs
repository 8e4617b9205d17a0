//! A key that only a good boot can use: whoever reads what it signed off the node learns something of the boot that signed.
//!
//! Its only authorization is PolicyAuthorize (TPM 2.0 part 3, section 23.16): PCR values that an authority, off the node, approved. The
//! key stays the same from kernel to kernel; an approval is one signature per state. A boot in another state, also with root, gets no
//! signature from it: neither has it the key, nor has the TPM a password for it.
use crate::key::{AttestationKey, ECDSA, SHA256_ID};
use crate::log::events::hash;
use crate::quote::{parse_signature, put_selection, selection};
use crate::tpm::Tpm;
use crate::wire::{Command, Reader, Request, Writer};
use crate::{Error, hex};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use std::collections::BTreeMap;
use std::time::Instant;

const OWNER: u32 = 0x4000_0001;
const NULL_HANDLE: u32 = 0x4000_0007;
const NULL: u16 = 0x0010;
const ECC: u16 = 0x0023;
const P256: u16 = 0x0003;
/// Binds an approval to this use.
const REFERENCE: &[u8] = b"boltseal";
/// fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, noDA, sign: no password, and not restricted.
const ATTRIBUTES: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 10 | 1 << 18;
/// userWithAuth, sign: a public key that is loaded to verify with.
const VERIFIER: u32 = 1 << 6 | 1 << 18;
const VERIFIED: u16 = 0x8022;
const HASH_CHECK: u16 = 0x8024;

/// PCR values that an authority approved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approved {
    pub pcrs: BTreeMap<u32, [u8; 32]>,
    /// ECDSA with SHA-256 by the authority over [`state`]: r and s.
    pub signature: [u8; 64],
}

/// What an authority signs to approve a state.
///
/// # Errors
/// No PCR, or one above 23.
pub fn state(pcrs: &BTreeMap<u32, [u8; 32]>) -> Result<Vec<u8>, Error> {
    Ok([&policy_of(pcrs)?[..], REFERENCE].concat())
}

/// The bound key of this TPM for an authority (PEM SubjectPublicKeyInfo, P-256), as PEM: the same in every boot.
///
/// # Errors
/// An authority that is no P-256 key, or a TPM that makes no such key.
pub fn key(address: &str, authority: &str, deadline: Instant) -> Result<String, Error> {
    let template = template(&Authority::new(authority)?);
    Tpm::open(address, deadline)?.with_primary(&template, |_, _, public| Ok(point(&template, public)?.to_pem()))
}

/// Signs `message` (ECDSA with SHA-256) by the bound key, if this boot has the approved PCR values.
///
/// # Errors
/// An approval that is not the authority's; another state of the PCRs: the TPM refuses.
pub fn sign(
    address: &str,
    authority: &str,
    approved: &Approved,
    message: &[u8],
    deadline: Instant,
) -> Result<[u8; 64], Error> {
    let authority = Authority::new(authority)?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, authority.key.point())
        .verify(&state(&approved.pcrs)?, &approved.signature)
        .map_err(|_| Error::refused("the approval of this state is not signed by the authority"))?;
    let template = template(&authority);
    let mut tpm = Tpm::open(address, deadline)?;
    let session = tpm.policy_session()?;
    let signed = tpm.authorize(session, &authority, approved).and_then(|()| {
        tpm.with_primary(&template, |tpm, handle, public| {
            let key = point(&template, public)?;
            let mut parameters = Writer::default();
            parameters.sized(&hash(message));
            parameters.u16(NULL); // the key's own scheme
            parameters.u16(HASH_CHECK);
            parameters.u32(NULL_HANDLE);
            parameters.sized(&[]);
            let (_, reply) = tpm.ask(&Request::new(Command::Sign, &[handle], parameters).with_policy(session))?;
            let signature = parse_signature(&reply)?;
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.point())
                .verify(message, &signature)
                .map_err(|_| Error::Malformed("reply to Sign", "not a signature by the bound key"))?;
            Ok(signature)
        })
    });
    let flushed = tpm.flush(session);
    let signed = signed?;
    flushed.map(|()| signed)
}

struct Authority {
    key: AttestationKey,
}

impl Authority {
    fn new(pem: &str) -> Result<Self, Error> {
        let key =
            AttestationKey::from_pem(pem).map_err(|_| Error::refused("the authority is no P-256 public key in PEM"))?;
        Ok(Self { key })
    }

    /// TPMT_PUBLIC to verify with.
    fn public(&self) -> Vec<u8> {
        let mut out = ecdsa(VERIFIER, &[]);
        out.sized(&self.key.point()[1..33]);
        out.sized(&self.key.point()[33..]);
        out.0
    }

    fn name(&self) -> Vec<u8> {
        [&SHA256_ID.to_be_bytes()[..], &hash(&self.public())].concat()
    }
}

/// The template of the bound key: its policy is PolicyAuthorize by this authority.
fn template(authority: &Authority) -> Vec<u8> {
    let command = (Command::PolicyAuthorize as u32).to_be_bytes();
    let policy = hash(&[&[0; 32][..], &command, &authority.name()].concat());
    let mut out = ecdsa(ATTRIBUTES, &hash(&[&policy[..], REFERENCE].concat()));
    out.sized(&[]);
    out.sized(&[]);
    out.0
}

fn ecdsa(attributes: u32, policy: &[u8]) -> Writer {
    let mut out = Writer::default();
    out.u16(ECC);
    out.u16(SHA256_ID);
    out.u32(attributes);
    out.sized(policy);
    for word in [NULL, ECDSA, SHA256_ID, P256, NULL] {
        out.u16(word);
    }
    out
}

/// The point of a public area that is this template.
fn point(template: &[u8], public: &[u8]) -> Result<AttestationKey, Error> {
    let other = || Error::refused("the TPM made another key than the bound one");
    let head = template.len().saturating_sub(4);
    let (start, tail) = public.split_at_checked(head).ok_or_else(other)?;
    let mut reader = Reader::new("public area", tail);
    let (x, y) = (reader.sized()?, reader.sized()?);
    reader.end()?;
    if start != template.get(..head).unwrap_or_default() {
        return Err(other());
    }
    AttestationKey::from_point(&[&[4], x, y].concat()).ok_or_else(other)
}

/// The policy digest of PolicyPCR with these values (part 3, section 23.7).
fn policy_of(pcrs: &BTreeMap<u32, [u8; 32]>) -> Result<[u8; 32], Error> {
    let mut policy = Writer::default();
    policy.put(&[0; 32]);
    policy.u32(Command::PolicyPcr as u32);
    put_selection(&mut policy, selection(pcrs.keys().copied())?);
    let values: Vec<u8> = pcrs.values().flatten().copied().collect();
    policy.put(&hash(&values));
    Ok(hash(&policy.0))
}

impl Tpm {
    /// Brings a policy session to where the bound key's policy holds.
    fn authorize(&mut self, session: u32, authority: &Authority, approved: &Approved) -> Result<(), Error> {
        let mut parameters = Writer::default();
        parameters.sized(&[]); // the TPM's own values
        put_selection(&mut parameters, selection(approved.pcrs.keys().copied())?);
        self.ask(&Request::new(Command::PolicyPcr, &[session], parameters))?;

        let mut parameters = Writer::default();
        parameters.sized(&[]); // no private part
        parameters.sized(&authority.public());
        parameters.u32(OWNER);
        let (handle, _) = self.ask(&Request::new(Command::LoadExternal, &[], parameters))?;
        let ticket = self.ticket(handle, approved);
        let flushed = self.flush(handle);
        let ticket = ticket?;
        flushed?;

        let mut parameters = Writer::default();
        parameters.sized(&policy_of(&approved.pcrs)?);
        parameters.sized(REFERENCE);
        parameters.sized(&authority.name());
        parameters.put(&ticket);
        match self.ask(&Request::new(Command::PolicyAuthorize, &[session], parameters)) {
            // TPM_RC_VALUE of the first parameter: the PCRs are not the approved ones.
            Err(Error::Code(_, 0x1c4)) => Err(Error::refused(format!(
                "this boot is not in the approved state of PCRs {:?}: the TPM does not sign. Fix: approve this state, or boot the approved one",
                approved.pcrs.keys().collect::<Vec<_>>()
            ))),
            other => other.map(|_| ()),
        }
    }

    /// The TPM's own ticket that the authority signed the approval.
    fn ticket(&mut self, handle: u32, approved: &Approved) -> Result<Vec<u8>, Error> {
        let mut parameters = Writer::default();
        parameters.sized(&hash(&state(&approved.pcrs)?));
        parameters.u16(ECDSA);
        parameters.u16(SHA256_ID);
        parameters.sized(&approved.signature[..32]);
        parameters.sized(&approved.signature[32..]);
        let (_, reply) = self.ask(&Request::new(Command::VerifySignature, &[handle], parameters))?;
        let mut reader = Reader::new("reply to VerifySignature", &reply);
        let (tag, _, _) = (reader.u16()?, reader.u32()?, reader.sized()?);
        reader.end()?;
        if tag != VERIFIED {
            return Err(Error::Malformed("reply to VerifySignature", "not a ticket"));
        }
        Ok(reply)
    }
}

/// The TPM's name of an authority, hex: for an operator to compare.
///
/// # Errors
/// An authority that is no P-256 key.
pub fn authority_name(authority: &str) -> Result<String, Error> {
    Authority::new(authority).map(|authority| hex::encode(&authority.name()))
}
