//! The verdict on a node for one boot: a quote with what it takes to verify it again, in one small JSON file.
//!
//! The file is not believed. Its quote is verified against the enrolled key at every start, and the nonce in the quote
//! is a hash over everything else that decides: the *current* boot id and policy digest, and the file's own salt, time
//! and time to live. So a file of another boot, policy, node or key, and a file with one byte changed, verifies as nothing.
//!
//! It holds against everyone who cannot write to a root-owned folder of mode 0700. Root of this boot can ask the TPM too.
use crate::key::AttestationKey;
use crate::quote::{Clock, Quote, verify};
use crate::{Boot, Error, hex};
use base64::{Engine, engine::general_purpose::STANDARD};
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// Longest file that is read. A verdict over 24 PCRs is about 3 KB.
pub const MAX_FILE: usize = 64 * 1024;
const VERSION: u32 = 2;
const DOMAIN: &[u8] = b"boltseal node verdict v2";
/// A start reads the time a little before it looks at the file, which another start may have made in between.
const SKEW_NS: u64 = 10_000_000_000;

/// The verdict file `node.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// 2.
    pub version: u32,
    pub boot_id: String,
    /// Digest of the policy that it was made under.
    pub policy: String,
    /// CLOCK_BOOTTIME, nanoseconds.
    pub made_at: u64,
    /// Seconds that it lives.
    pub ttl: u64,
    /// Random, so that no two quotes of a boot have the same nonce.
    #[serde(with = "hex::digest")]
    pub salt: [u8; 32],
    /// SHA-256 bank.
    #[serde(with = "hex::digests")]
    pub pcrs: BTreeMap<u32, [u8; 32]>,
    /// As in the quote; here for whoever reads the file.
    pub clock: Clock,
    /// SHA-256 of the event log that was judged for it; none when the policy has no rules on the log.
    #[serde(with = "hex::perhaps", skip_serializing_if = "Option::is_none", default)]
    pub log: Option<[u8; 32]>,
    /// TPMS_ATTEST, base64.
    pub attest: String,
    /// r and s, base64.
    pub signature: String,
}

/// What a verdict has to agree with.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The enrolled key.
    pub key: &'a AttestationKey,
    /// Accepted values per PCR.
    pub pcrs: &'a BTreeMap<u32, Vec<[u8; 32]>>,
    /// PCRs that are quoted because rules on the event log judge them; None when there are no such rules.
    pub judged: Option<&'a BTreeSet<u32>>,
    pub ttl: Duration,
    pub policy_digest: &'a str,
    /// This boot, now.
    pub boot: &'a Boot,
}

impl Expected<'_> {
    /// What the quote is over.
    pub(crate) fn quoted(&self) -> BTreeSet<u32> {
        self.pcrs.keys().chain(self.judged.into_iter().flatten()).copied().collect()
    }
}

/// Why a verdict does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    OtherBoot,
    OtherPolicy,
    Expired,
    /// The quote holds and says these PCRs have values that the policy does not accept: (PCR, value in hex).
    WrongPcrs(Vec<(u32, String)>),
    /// The quote holds; these rules on the event log do not, one line each.
    Log(Vec<String>),
    /// The bytes, the signature, the nonce ...
    Invalid(Error),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherBoot => f.write_str("it is of another boot"),
            Self::OtherPolicy => f.write_str("it was made under another policy"),
            Self::Expired => f.write_str("its time to live is over"),
            Self::WrongPcrs(pcrs) => {
                let names: Vec<_> = pcrs.iter().map(|(pcr, _)| pcr.to_string()).collect();
                write!(f, "PCR {} is not what the policy accepts", names.join(", "))
            }
            Self::Log(problems) => f.write_str(&problems.join("; ")),
            Self::Invalid(error) => error.fmt(f),
        }
    }
}

impl Unfit {
    /// For a person, one line each.
    pub(crate) fn lines(self) -> Vec<String> {
        match self {
            Self::Log(problems) => problems,
            other => vec![other.to_string()],
        }
    }
}

impl From<Error> for Unfit {
    fn from(error: Error) -> Self {
        Self::Invalid(error)
    }
}

/// Reads a verdict file's bytes. Only the exact bytes that [`Verdict::bytes`] writes are one.
///
/// # Errors
/// `Malformed` for everything else.
pub fn parse(bytes: &[u8]) -> Result<Verdict, Error> {
    let what = "node verdict";
    if bytes.len() > MAX_FILE {
        return Err(Error::Malformed(what, "larger than 64 KiB"));
    }
    let verdict: Verdict =
        serde_json::from_slice(bytes).map_err(|_| Error::Malformed(what, "not the JSON that boltseal writes"))?;
    if verdict.version != VERSION {
        return Err(Error::Malformed(what, "of another version"));
    }
    if verdict.bytes()? != bytes {
        return Err(Error::Malformed(what, "not spelled as boltseal spells it"));
    }
    Ok(verdict)
}

/// What the quote's nonce must be.
pub(crate) fn nonce(
    expected: &Expected<'_>,
    log: Option<&[u8; 32]>,
    salt: &[u8; 32],
    made_at: u64,
    ttl: u64,
) -> [u8; 32] {
    let mut hash = Context::new(&SHA256);
    hash.update(DOMAIN);
    for text in [&expected.boot.boot_id, expected.policy_digest] {
        hash.update(&(text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    match log {
        Some(digest) => {
            hash.update(&[1]);
            hash.update(digest);
        }
        None => hash.update(&[0]),
    }
    hash.update(salt);
    hash.update(&made_at.to_be_bytes());
    hash.update(&ttl.to_be_bytes());
    let mut out = [0; 32];
    out.copy_from_slice(hash.finish().as_ref());
    out
}

impl Verdict {
    /// Puts a quote, its values and its salt into a verdict. It counts for nothing before [`Verdict::verify`].
    pub(crate) fn new(
        expected: &Expected<'_>,
        salt: [u8; 32],
        pcrs: BTreeMap<u32, [u8; 32]>,
        clock: Clock,
        log: Option<[u8; 32]>,
        quote: &Quote,
    ) -> Self {
        Self {
            version: VERSION,
            boot_id: expected.boot.boot_id.clone(),
            policy: expected.policy_digest.to_owned(),
            made_at: expected.boot.boottime_ns,
            ttl: expected.ttl.as_secs(),
            salt,
            pcrs,
            clock,
            log,
            attest: STANDARD.encode(&quote.attest),
            signature: STANDARD.encode(quote.signature),
        }
    }

    pub fn bytes(&self) -> Result<Vec<u8>, Error> {
        let mut out = serde_json::to_vec(self).map_err(|_| Error::Malformed("node verdict", "it cannot be written"))?;
        out.push(b'\n');
        Ok(out)
    }

    /// Verifies all of it anew.
    ///
    /// # Errors
    /// The first thing that does not hold; wrong PCR values only when everything else does.
    pub fn verify(&self, expected: &Expected<'_>) -> Result<(), Unfit> {
        if self.boot_id != expected.boot.boot_id {
            return Err(Unfit::OtherBoot);
        }
        if self.policy != expected.policy_digest {
            return Err(Unfit::OtherPolicy);
        }
        let now = expected.boot.boottime_ns;
        if self.made_at > now.saturating_add(SKEW_NS) {
            return Err(Error::refused("it was made in the future of this boot").into());
        }
        let age = Duration::from_nanos(now.saturating_sub(self.made_at));
        if age >= expected.ttl.min(Duration::from_secs(self.ttl)) {
            return Err(Unfit::Expired);
        }
        if self.log.is_some() != expected.judged.is_some() {
            return Err(Error::refused(
                "an event log was judged for it and the node policy has no rules on one, or not",
            )
            .into());
        }
        if !self.pcrs.keys().eq(expected.quoted().iter()) {
            return Err(Error::refused("it is over other PCRs than the node policy names").into());
        }
        let quote = self.quote()?;
        let nonce = nonce(expected, self.log.as_ref(), &self.salt, self.made_at, self.ttl);
        let attest = verify(&quote, expected.key, &nonce, &self.pcrs)?;
        if attest.clock != self.clock {
            return Err(Error::refused("its clock is not the quote's").into());
        }
        let wrong: Vec<_> = self
            .pcrs
            .iter()
            .filter(|(pcr, value)| match expected.pcrs.get(pcr) {
                Some(accepted) => !accepted.contains(value),
                None => !expected.judged.is_some_and(|judged| judged.contains(pcr)),
            })
            .map(|(pcr, value)| (*pcr, hex::encode(value)))
            .collect();
        if wrong.is_empty() { Ok(()) } else { Err(Unfit::WrongPcrs(wrong)) }
    }

    fn quote(&self) -> Result<Quote, Error> {
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| Error::Malformed("node verdict", "not base64"));
        let signature = decode(&self.signature)?
            .try_into()
            .map_err(|_| Error::Malformed("node verdict", "its signature is not 64 bytes"))?;
        Ok(Quote { attest: decode(&self.attest)?, signature })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quote::parse_attest;
    use crate::quote::tests::{Parts, software_key};
    use ring::signature::EcdsaKeyPair;

    const BOOT: &str = "0f5dbb6c-31f6-4c0e-8b6a-5f6f0a7d9b11";

    struct Case {
        pair: EcdsaKeyPair,
        key: AttestationKey,
        pcrs: BTreeMap<u32, Vec<[u8; 32]>>,
        boot: Boot,
    }

    impl Case {
        fn new() -> Self {
            let (pair, key) = software_key();
            Self {
                pair,
                key,
                pcrs: BTreeMap::from([(0, vec![[1; 32]]), (9, vec![[7; 32], [2; 32]])]),
                boot: Boot { boot_id: BOOT.into(), boottime_ns: 1_000_000_000_000 },
            }
        }

        fn expected(&self) -> Expected<'_> {
            Expected {
                key: &self.key,
                pcrs: &self.pcrs,
                judged: None,
                ttl: Duration::from_secs(100),
                policy_digest: "sha256:aa",
                boot: &self.boot,
            }
        }

        fn verdict_of(&self, values: BTreeMap<u32, [u8; 32]>) -> Verdict {
            let expected = self.expected();
            self.made(&expected, values, None)
        }

        fn made(&self, expected: &Expected<'_>, values: BTreeMap<u32, [u8; 32]>, log: Option<[u8; 32]>) -> Verdict {
            let nonce = nonce(expected, log.as_ref(), &[5; 32], self.boot.boottime_ns, 100);
            let quote = Parts::good(&self.key, nonce, &values).sign(&self.pair);
            let clock = parse_attest(&quote.attest).unwrap().clock;
            Verdict::new(expected, [5; 32], values, clock, log, &quote)
        }

        fn verdict(&self) -> Verdict {
            self.verdict_of(BTreeMap::from([(0, [1; 32]), (9, [2; 32])]))
        }
    }

    fn invalid(result: Result<(), Unfit>) -> String {
        match result {
            Err(Unfit::Invalid(error)) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_good_one_holds_after_a_trip_through_its_bytes() {
        let case = Case::new();
        let bytes = case.verdict().bytes().unwrap();
        assert!(bytes.len() < 4096 && bytes.ends_with(b"}\n"));
        assert_eq!(parse(&bytes).unwrap().verify(&case.expected()), Ok(()));
    }

    #[test]
    fn no_bit_of_the_file_can_change() {
        let case = Case::new();
        let good = case.verdict().bytes().unwrap();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                let held = parse(&bad).is_ok_and(|v| v.verify(&case.expected()).is_ok());
                assert!(!held, "byte {at} bit {bit}: {}", String::from_utf8_lossy(&bad));
            }
        }
    }

    #[test]
    fn it_is_bound_to_boot_policy_key_and_time() {
        let case = Case::new();
        let verdict = case.verdict();
        let other = Boot { boot_id: BOOT.replace('0', "1"), ..case.boot.clone() };
        assert_eq!(verdict.verify(&Expected { boot: &other, ..case.expected() }), Err(Unfit::OtherBoot));
        // Spelling the current boot id or policy into the file does not help: the nonce is over them.
        let respelled = Verdict { boot_id: other.boot_id.clone(), ..verdict.clone() };
        let said = invalid(respelled.verify(&Expected { boot: &other, ..case.expected() }));
        assert!(said.contains("nonce"), "{said}");
        let expected = Expected { policy_digest: "sha256:bb", ..case.expected() };
        assert_eq!(verdict.verify(&expected), Err(Unfit::OtherPolicy));
        let respelled = Verdict { policy: "sha256:bb".into(), ..verdict.clone() };
        assert!(invalid(respelled.verify(&expected)).contains("nonce"));
        let (_, stranger) = software_key();
        let said = invalid(verdict.verify(&Expected { key: &stranger, ..case.expected() }));
        assert!(said.contains("not signed by the enrolled"), "{said}");
        for change in [
            Verdict { made_at: verdict.made_at + 1, ..verdict.clone() },
            Verdict { ttl: 99, ..verdict.clone() },
            Verdict { salt: [6; 32], ..verdict.clone() },
        ] {
            assert!(invalid(change.verify(&case.expected())).contains("nonce"));
        }
    }

    #[test]
    fn it_lives_as_long_as_the_policy_says_and_no_longer() {
        let case = Case::new();
        let verdict = case.verdict();
        let at = |boottime_ns| {
            let boot = Boot { boottime_ns, ..case.boot.clone() };
            verdict.verify(&Expected { boot: &boot, ..case.expected() })
        };
        let made = case.boot.boottime_ns;
        assert_eq!(at(made + 99_999_999_999), Ok(()));
        assert_eq!(at(made + 100_000_000_000), Err(Unfit::Expired));
        assert_eq!(at(made - 9_000_000_000), Ok(()));
        assert!(invalid(at(made - 11_000_000_000)).contains("future"));
        assert!(invalid(at(0)).contains("future"));
        let short = Expected { ttl: Duration::ZERO, ..case.expected() };
        assert_eq!(verdict.verify(&short), Err(Unfit::Expired));
    }

    #[test]
    fn values_are_the_policys() {
        let case = Case::new();
        let wrong = case.verdict_of(BTreeMap::from([(0, [1; 32]), (9, [3; 32])]));
        assert_eq!(wrong.verify(&case.expected()), Err(Unfit::WrongPcrs(vec![(9, "03".repeat(32))])));
        let fewer = case.verdict_of(BTreeMap::from([(0, [1; 32])]));
        assert!(invalid(fewer.verify(&case.expected())).contains("other PCRs"));
        // The values beside the quote are the quote's, not whatever the file says.
        let mut painted = wrong.clone();
        painted.pcrs.insert(9, [2; 32]);
        assert!(invalid(painted.verify(&case.expected())).contains("other PCR values"));
        let mut clock = case.verdict();
        clock.clock.resets += 1;
        assert!(invalid(clock.verify(&case.expected())).contains("clock"));
    }

    #[test]
    fn it_is_bound_to_the_log_that_was_judged() {
        let case = Case::new();
        let judged = BTreeSet::from([4, 9]);
        let expected = Expected { judged: Some(&judged), ..case.expected() };
        let values = BTreeMap::from([(0, [1; 32]), (4, [0x77; 32]), (9, [2; 32])]);
        let verdict = case.made(&expected, values.clone(), Some([8; 32]));
        assert_eq!(parse(&verdict.bytes().unwrap()).unwrap().verify(&expected), Ok(()));
        // The rules were judged on that log and no other; and a policy with rules needs one.
        let other = Verdict { log: Some([9; 32]), ..verdict.clone() };
        assert!(invalid(other.verify(&expected)).contains("nonce"));
        let none = Verdict { log: None, ..verdict.clone() };
        assert!(invalid(none.verify(&expected)).contains("event log was judged"));
        assert!(invalid(verdict.verify(&case.expected())).contains("event log was judged"));
        assert!(invalid(case.made(&expected, values.clone(), None).verify(&expected)).contains("event log was judged"));
        // A PCR with accepted values keeps to them, also where rules judge it.
        let wrong = BTreeMap::from([(0, [1; 32]), (4, [0x77; 32]), (9, [3; 32])]);
        let wrong = case.made(&expected, wrong, Some([8; 32])).verify(&expected);
        assert_eq!(wrong, Err(Unfit::WrongPcrs(vec![(9, "03".repeat(32))])));
        let fewer = BTreeMap::from([(0, [1; 32]), (9, [2; 32])]);
        assert!(invalid(case.made(&expected, fewer, Some([8; 32])).verify(&expected)).contains("other PCRs"));
    }

    #[test]
    fn only_our_own_spelling_is_a_verdict() {
        let good = String::from_utf8(Case::new().verdict().bytes().unwrap()).unwrap();
        assert!(parse(good.as_bytes()).is_ok());
        let cut = &good[..good.len() / 2];
        for bad in [
            "",
            "{}",
            "null\n",
            cut,
            good.trim_end(),
            &good.replacen("{\"", "{ \"", 1),
            &good.replacen("\"version\":2", "\"version\":1", 1),
            &good.replacen("\"version\":2", "\"version\":2,\"verified\":true", 1),
            &good.replacen("\"version\":2", "\"version\":2,\"version\":2", 1),
            &good.replacen("\"attest\"", "\"log\":null,\"attest\"", 1),
            &good.replacen("\"9\":", "\"09\":", 1),
            &format!("{good}{}", " ".repeat(MAX_FILE)),
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:.80}");
        }
    }
}
