//! Envelopes of the Notary Project by hand, so that each can have any one fault: keys of `ring`, certificates of DER
//! written here. Shared by the tests of this crate and by whatever makes vectors.
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair,
};

/// 2026-06-01, within every certificate's validity unless a test says otherwise.
pub(crate) const NOW: u64 = 1_780_272_000;
pub(crate) const CODE_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 3];
pub(crate) const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
const ECDSA_SHA256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const P256: &[u8] = &[
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
    0x01, 0x07,
];

pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let head = match len {
        0..=0x7f => vec![tag, len as u8],
        0x80..=0xff => vec![tag, 0x81, len as u8],
        _ => vec![tag, 0x82, (len >> 8) as u8, len as u8],
    };
    [head, content.to_vec()].concat()
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

/// A P-256 pair.
pub(crate) struct Pair(Vec<u8>);

impl Pair {
    pub(crate) fn new() -> Self {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new()).unwrap();
        Self(pkcs8.as_ref().to_vec())
    }

    fn load(&self, how: &'static EcdsaSigningAlgorithm) -> EcdsaKeyPair {
        EcdsaKeyPair::from_pkcs8(how, &self.0, &SystemRandom::new()).unwrap()
    }

    pub(crate) fn spki(&self) -> Vec<u8> {
        let point = self.load(&ECDSA_P256_SHA256_ASN1_SIGNING);
        sequence(&[P256.to_vec(), tlv(3, &[&[0], point.public_key().as_ref()].concat())])
    }

    fn certify(&self, text: &[u8]) -> Vec<u8> {
        self.load(&ECDSA_P256_SHA256_ASN1_SIGNING).sign(&SystemRandom::new(), text).unwrap().as_ref().to_vec()
    }

    /// r and s, as JWS and COSE have it.
    pub(crate) fn sign(&self, text: &[u8]) -> Vec<u8> {
        self.load(&ECDSA_P256_SHA256_FIXED_SIGNING).sign(&SystemRandom::new(), text).unwrap().as_ref().to_vec()
    }
}

/// What a certificate says.
#[derive(Debug, Clone)]
pub(crate) struct Form {
    /// Attribute numbers below id-at, and values.
    pub(crate) subject: Vec<(u8, &'static str)>,
    pub(crate) issuer: Vec<(u8, &'static str)>,
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
    pub(crate) extensions: Vec<Vec<u8>>,
}

pub(crate) fn extension(id: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { tlv(1, &[0xff]) } else { Vec::new() };
    sequence(&[tlv(6, id), critical, tlv(4, value)])
}

pub(crate) fn constraints(critical: bool, is_ca: bool, length: Option<u8>) -> Vec<u8> {
    let is_ca = if is_ca { tlv(1, &[0xff]) } else { Vec::new() };
    let length = length.map_or(Vec::new(), |length| tlv(2, &[length]));
    extension(&[0x55, 0x1d, 0x13], critical, &sequence(&[is_ca, length]))
}

/// `bits` as RFC 5280 counts them, from the left.
pub(crate) fn usage(critical: bool, bits: &[u8]) -> Vec<u8> {
    let byte = bits.iter().filter(|bit| **bit < 8).fold(0_u8, |sum, bit| sum | 0x80 >> bit);
    let second = if bits.contains(&8) { vec![0x80] } else { vec![] };
    extension(&[0x55, 0x1d, 0x0f], critical, &tlv(3, &[vec![0, byte], second].concat()))
}

pub(crate) fn purposes(critical: bool, ids: &[&[u8]]) -> Vec<u8> {
    let ids: Vec<Vec<u8>> = ids.iter().map(|id| tlv(6, id)).collect();
    extension(&[0x55, 0x1d, 0x25], critical, &sequence(&ids))
}

impl Form {
    pub(crate) fn ca(subject: &'static str, issuer: &'static str, length: Option<u8>) -> Self {
        let extensions = vec![constraints(true, true, length), usage(true, &[5, 6])];
        Self { extensions, ..Self::leaf(subject, issuer) }
    }

    pub(crate) fn leaf(subject: &'static str, issuer: &'static str) -> Self {
        Self {
            subject: vec![(6, "US"), (10, "corp"), (3, subject)],
            issuer: vec![(6, "US"), (10, "corp"), (3, issuer)],
            from: "260101000000Z",
            to: "350101000000Z",
            extensions: vec![usage(true, &[0]), purposes(false, &[CODE_SIGNING])],
        }
    }

    pub(crate) fn certificate(&self, subject: &Pair, issuer: &Pair) -> Vec<u8> {
        let name = |parts: &[(u8, &str)]| {
            let parts: Vec<Vec<u8>> = parts
                .iter()
                .map(|(kind, value)| tlv(0x31, &sequence(&[tlv(6, &[0x55, 4, *kind]), tlv(0x0c, value.as_bytes())])))
                .collect();
            sequence(&parts)
        };
        let algorithm = tlv(0x30, ECDSA_SHA256);
        let body = sequence(&[
            tlv(0xa0, &[2, 1, 2]),
            tlv(2, &[7]),
            algorithm.clone(),
            name(&self.issuer),
            sequence(&[tlv(0x17, self.from.as_bytes()), tlv(0x17, self.to.as_bytes())]),
            name(&self.subject),
            subject.spki(),
            tlv(0xa3, &sequence(&self.extensions)),
        ]);
        let signature = tlv(3, &[vec![0], issuer.certify(&body)].concat());
        sequence(&[body, algorithm, signature])
    }
}

pub(crate) fn pem(certificates: &[Vec<u8>]) -> String {
    let block = |der: &Vec<u8>| {
        let text = STANDARD.encode(der);
        let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    };
    certificates.iter().map(block).collect()
}

/// Everything that a signature is made of and judged by; every field may be bent.
pub(crate) struct Given {
    pub(crate) pairs: [Pair; 3],
    pub(crate) root: Form,
    pub(crate) between: Form,
    pub(crate) leaf: Form,
    pub(crate) protected: String,
    pub(crate) payload: String,
    pub(crate) identities: Vec<String>,
    pub(crate) signing_authority: bool,
    pub(crate) now: Option<u64>,
}

impl Given {
    /// Root, one CA below it, a leaf `ci`; scheme notary.x509.
    pub(crate) fn good(digest: &str) -> Self {
        Self {
            pairs: [Pair::new(), Pair::new(), Pair::new()],
            root: Form::ca("root", "root", None),
            between: Form::ca("between", "root", Some(0)),
            leaf: Form::leaf("ci", "between"),
            protected: r#"{"alg":"ES256","crit":["io.cncf.notary.signingScheme"],"cty":"application/vnd.cncf.notary.payload.v1+json","io.cncf.notary.signingScheme":"notary.x509","io.cncf.notary.signingTime":"2026-05-01T00:00:00Z"}"#.into(),
            payload: format!(
                r#"{{"targetArtifact":{{"digest":"{digest}","mediaType":"application/vnd.oci.image.manifest.v1+json","size":527}}}}"#
            ),
            identities: vec!["C=US, O=corp, CN=ci".into()],
            signing_authority: false,
            now: Some(NOW),
        }
    }

    /// The same of the other scheme: the time of signing is believed.
    pub(crate) fn by_authority(digest: &str) -> Self {
        let mut given = Self::good(digest);
        given.protected = given
            .protected
            .replace("\"notary.x509\"", "\"notary.x509.signingAuthority\"")
            .replace("signingTime", "authenticSigningTime")
            .replace(
                "[\"io.cncf.notary.signingScheme\"]",
                "[\"io.cncf.notary.signingScheme\",\"io.cncf.notary.authenticSigningTime\"]",
            );
        given.signing_authority = true;
        given
    }

    pub(crate) fn chain(&self) -> Vec<Vec<u8>> {
        let [root, between, leaf] = &self.pairs;
        vec![
            self.leaf.certificate(leaf, between),
            self.between.certificate(between, root),
            self.root.certificate(root, root),
        ]
    }

    pub(crate) fn jws(&self, chain: &[Vec<u8>]) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(&self.protected), URL_SAFE_NO_PAD.encode(&self.payload));
        let signature = URL_SAFE_NO_PAD.encode(self.pairs[2].sign(message.as_bytes()));
        flattened(&self.protected, &self.payload, &signature, chain)
    }
}

pub(crate) fn flattened(protected: &str, payload: &str, signature: &str, chain: &[Vec<u8>]) -> String {
    let chain: Vec<String> = chain.iter().map(|der| format!("\"{}\"", STANDARD.encode(der))).collect();
    format!(
        r#"{{"payload":"{}","protected":"{}","header":{{"x5c":[{}],"io.cncf.notary.signingAgent":"test"}},"signature":"{signature}"}}"#,
        URL_SAFE_NO_PAD.encode(payload),
        URL_SAFE_NO_PAD.encode(protected),
        chain.join(",")
    )
}

fn head(kind: u8, value: u64) -> Vec<u8> {
    let kind = kind << 5;
    match value {
        0..=23 => vec![kind | value as u8],
        24..=0xff => vec![kind | 24, value as u8],
        0x100..=0xffff => vec![kind | 25, (value >> 8) as u8, value as u8],
        _ => [&[kind | 26], &(value as u32).to_be_bytes()[..]].concat(),
    }
}

pub(crate) fn int(value: i64) -> Vec<u8> {
    if value < 0 { head(1, (-1 - value) as u64) } else { head(0, value as u64) }
}

pub(crate) fn string(bytes: &[u8]) -> Vec<u8> {
    [head(2, bytes.len() as u64), bytes.to_vec()].concat()
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    [head(3, text.len() as u64), text.as_bytes().to_vec()].concat()
}

pub(crate) fn array(items: &[Vec<u8>]) -> Vec<u8> {
    [head(4, items.len() as u64), items.concat()].concat()
}

pub(crate) fn map(pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let items: Vec<u8> = pairs.iter().flat_map(|(key, value)| [key.clone(), value.clone()].concat()).collect();
    [head(5, pairs.len() as u64), items].concat()
}

pub(crate) fn moment(seconds: u64) -> Vec<u8> {
    [head(6, 1), head(0, seconds)].concat()
}

/// The protected header of a P-256 key, scheme notary.x509.
pub(crate) fn protected() -> Vec<(Vec<u8>, Vec<u8>)> {
    vec![
        (int(1), int(-7)),
        (int(2), array(&[text("io.cncf.notary.signingScheme")])),
        (int(3), text("application/vnd.cncf.notary.payload.v1+json")),
        (text("io.cncf.notary.signingScheme"), text("notary.x509")),
        (text("io.cncf.notary.signingTime"), moment(NOW - 86_400)),
    ]
}

impl Given {
    pub(crate) fn cose(&self, header: &[(Vec<u8>, Vec<u8>)], chain: &[Vec<u8>]) -> Vec<u8> {
        let header = map(header);
        let message = array(&[text("Signature1"), string(&header), string(&[]), string(self.payload.as_bytes())]);
        let chain: Vec<Vec<u8>> = chain.iter().map(|der| string(der)).collect();
        let unprotected = map(&[(int(33), array(&chain)), (text("io.cncf.notary.signingAgent"), text("test"))]);
        let parts =
            [string(&header), unprotected, string(self.payload.as_bytes()), string(&self.pairs[2].sign(&message))];
        [head(6, 18), array(&parts)].concat()
    }
}
