//! A small TPM 2.0 client: the ten commands that a node's verdict needs, one deadline for all of them.
use crate::Error;
use crate::channel::{Channel, pause};
use crate::key::{AttestationKey, ENDORSEMENT, PERSISTENT, SHA256_ID, template};
use crate::quote::{PCRS, Quote, put_selection, selection};
use crate::reply;
use crate::wire::{Command, Request, Writer};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const OWNER: u32 = 0x4000_0001;
const NULL: u16 = 0x0010;
/// TPM_RC_RETRY, TPM_RC_YIELDED, TPM_RC_TESTING: the command was not started, send it again.
const AGAIN: [u32; 3] = [0x922, 0x908, 0x90a];
/// TPM_RC_NV_DEFINED: something is at that handle.
const TAKEN: u32 = 0x14c;
const MANUFACTURER: u32 = 0x105;

/// An open TPM.
#[derive(Debug)]
pub struct Tpm {
    channel: Channel,
    deadline: Instant,
}

impl Tpm {
    /// Opens `/dev/tpmrm<N>` or `unix:/absolute/path` (the data socket of a software TPM). `deadline` holds for
    /// everything that is done with it.
    pub fn open(address: &str, deadline: Instant) -> Result<Self, Error> {
        Ok(Self { channel: Channel::open(address, deadline)?, deadline })
    }

    pub(crate) fn run(
        &mut self,
        command: Command,
        handles: &[u32],
        parameters: Writer,
    ) -> Result<(u32, Vec<u8>), Error> {
        self.ask(&Request::new(command, handles, parameters))
    }

    pub(crate) fn ask(&mut self, request: &Request) -> Result<(u32, Vec<u8>), Error> {
        let command = request.command;
        let bytes = request.bytes();
        let mut wait = Duration::from_millis(1);
        loop {
            let reply = self.channel.exchange(command.name(), &bytes, self.deadline)?;
            match request.answer(&reply) {
                Ok((handle, parameters)) => return Ok((handle, parameters.to_vec())),
                Err(Error::Code(name, code)) if AGAIN.contains(&code) => {
                    pause(wait, name, self.deadline)?;
                    wait = (wait * 2).min(Duration::from_millis(50));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes the attestation key (always the same one, from the endorsement seed). Returns its transient handle, which
    /// must be flushed, and its public area. Prefer [`Tpm::with_key`].
    fn create(&mut self, template: &[u8]) -> Result<(u32, Vec<u8>), Error> {
        let mut parameters = Writer::default();
        parameters.sized(&[0; 4]); // empty password, no data
        parameters.sized(template);
        parameters.sized(&[]);
        parameters.u32(0); // no PCRs in the creation data
        let (handle, reply) = self.run(Command::CreatePrimary, &[ENDORSEMENT], parameters)?;
        match reply::primary(&reply) {
            Ok(public) => Ok((handle, public)),
            Err(error) => self.flush(handle).and(Err(error)),
        }
    }

    /// Makes a primary key in the endorsement hierarchy from a template, runs `work` with its handle and public area,
    /// and flushes it: a software TPM has room for three keys and no resource manager.
    pub fn with_primary<T>(
        &mut self,
        template: &[u8],
        work: impl FnOnce(&mut Self, u32, &[u8]) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (handle, public) = self.create(template)?;
        let result = work(self, handle, &public);
        let flushed = self.flush(handle);
        let result = result?;
        flushed.map(|()| result)
    }

    /// Makes the attestation key and runs `work` with it. Its attributes were checked.
    pub(crate) fn with_new_key<T>(
        &mut self,
        work: impl FnOnce(&mut Self, u32, AttestationKey) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.with_primary(&template(), |tpm, handle, public| work(tpm, handle, AttestationKey::from_public(public)?))
    }

    /// Finds the enrolled key (kept at its handle, or made anew: it is the same key) and runs `work` with its handle.
    ///
    /// # Errors
    /// When this TPM's key is another one.
    pub(crate) fn with_key<T>(
        &mut self,
        enrolled: &AttestationKey,
        work: impl FnOnce(&mut Self, u32) -> Result<T, Error>,
    ) -> Result<T, Error> {
        // The handle may be free, or may belong to someone else: then the key is made.
        match self.read_public(PERSISTENT) {
            Ok(public) if public == enrolled.public() => return work(self, PERSISTENT),
            Ok(_) | Err(Error::Code(..)) => {}
            Err(error) => return Err(error),
        }
        self.with_new_key(|tpm, handle, key| {
            if key == *enrolled {
                return work(tpm, handle);
            }
            Err(Error::refused(
                "this TPM's attestation key is not the enrolled one: another TPM, or it was cleared. Fix: if that is meant, boltseal node enroll",
            ))
        })
    }

    /// Keeps a loaded key at [`PERSISTENT`]; false when another key is there already.
    pub fn keep(&mut self, handle: u32, key: &AttestationKey) -> Result<bool, Error> {
        let mut parameters = Writer::default();
        parameters.u32(PERSISTENT);
        match self.run(Command::EvictControl, &[OWNER, handle], parameters) {
            Ok(_) => Ok(true),
            Err(Error::Code(_, TAKEN)) => Ok(self.read_public(PERSISTENT)? == key.public()),
            Err(error) => Err(error),
        }
    }

    /// The public area of a loaded or persistent key.
    pub fn read_public(&mut self, handle: u32) -> Result<Vec<u8>, Error> {
        let (_, reply) = self.run(Command::ReadPublic, &[handle], Writer::default())?;
        reply::public(&reply)
    }

    pub(crate) fn flush(&mut self, handle: u32) -> Result<(), Error> {
        let mut parameters = Writer::default();
        parameters.u32(handle);
        self.run(Command::FlushContext, &[], parameters).map(|_| ())
    }

    /// The SHA-256 values of these PCRs.
    ///
    /// # Errors
    /// Also when the bank is not active: the TPM then returns fewer than asked for.
    pub fn pcrs(&mut self, wanted: impl IntoIterator<Item = u32>) -> Result<BTreeMap<u32, [u8; 32]>, Error> {
        let mut left = selection(wanted)?;
        let mut values = BTreeMap::new();
        while left != [0; 3] {
            let mut parameters = Writer::default();
            put_selection(&mut parameters, left);
            let (_, reply) = self.run(Command::PcrRead, &[], parameters)?;
            let read = reply::pcr_values(&reply)?;
            if read.is_empty() {
                return Err(Error::refused("the TPM's SHA-256 bank is not active. Fix: enable it in the firmware"));
            }
            for (pcr, value) in read {
                let (byte, bit) = ((pcr / 8) as usize, 1u8 << (pcr % 8));
                match left.get_mut(byte) {
                    Some(bits) if *bits & bit != 0 => *bits &= !bit,
                    _ => return Err(Error::Malformed("reply to PCR_Read", "a PCR that was not asked for")),
                }
                values.insert(pcr, value);
            }
        }
        Ok(values)
    }

    /// A quote over these PCRs of the SHA-256 bank, by the loaded key's own scheme.
    pub fn quote(&mut self, key: u32, nonce: &[u8; 32], pcrs: impl IntoIterator<Item = u32>) -> Result<Quote, Error> {
        let mut parameters = Writer::default();
        parameters.sized(nonce);
        parameters.u16(NULL);
        put_selection(&mut parameters, selection(pcrs)?);
        let (_, reply) = self.run(Command::Quote, &[key], parameters)?;
        reply::quote(&reply)
    }

    /// Extends one PCR of the SHA-256 bank. No start does: it is for setting up a software TPM.
    pub fn extend(&mut self, pcr: u32, value: &[u8; 32]) -> Result<(), Error> {
        if pcr >= PCRS {
            return Err(Error::refused(format!("PCR {pcr} does not exist")));
        }
        let mut parameters = Writer::default();
        parameters.u32(1);
        parameters.u16(SHA256_ID);
        parameters.put(value);
        self.run(Command::PcrExtend, &[pcr], parameters).map(|_| ())
    }

    /// The TPM's clock and its counts of boots and suspends.
    pub fn time(&mut self) -> Result<reply::Time, Error> {
        let (_, reply) = self.run(Command::ReadClock, &[], Writer::default())?;
        reply::time(&reply)
    }

    /// Up to 32 random bytes.
    pub fn random(&mut self, count: u16) -> Result<Vec<u8>, Error> {
        let mut parameters = Writer::default();
        parameters.u16(count);
        let (_, reply) = self.run(Command::GetRandom, &[], parameters)?;
        reply::random(&reply)
    }

    /// Four letters, `IBM` for swtpm.
    pub fn manufacturer(&mut self) -> Result<String, Error> {
        let mut parameters = Writer::default();
        parameters.u32(6);
        parameters.u32(MANUFACTURER);
        parameters.u32(1);
        let (_, reply) = self.run(Command::GetCapability, &[], parameters)?;
        reply::property(&reply, MANUFACTURER)
    }
}
