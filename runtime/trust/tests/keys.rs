//! Which files are keys that an authority may have, and what the others are called. The good twin of a refused file
//! differs from it in the fault alone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    missing_docs,
    reason = "tests"
)]
mod openssl;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boltseal_trust::Key;
use openssl::Folder;

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
}

fn der(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(body).unwrap()
}

fn why(pem: &str) -> &'static str {
    match Key::from_spki_pem(pem) {
        Ok(key) => panic!("{key:?} is a key"),
        Err(error) => error.0,
    }
}

fn refused(der: &[u8]) -> &'static str {
    why(&pem(der))
}

/// An element in DER.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(content.len()).unwrap().to_be_bytes();
    let head = match content.len() {
        0..0x80 => vec![tag, len[1]],
        0x80..0x100 => vec![tag, 0x81, len[1]],
        _ => vec![tag, 0x82, len[0], len[1]],
    };
    [head.as_slice(), content].concat()
}

const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const NULL: &[u8] = &[0x05, 0x00];
const E: &[u8] = &[1, 0, 1];

fn spki(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    element(0x30, &[element(0x30, algorithm), element(3, &[&[0], key].concat())].concat())
}

/// An RSA key with these contents of its two numbers.
fn rsa(n: &[u8], e: &[u8]) -> Vec<u8> {
    spki(&[RSA, NULL].concat(), &element(0x30, &[element(2, n), element(2, e)].concat()))
}

/// A modulus of so many bits: all ones, which is odd.
fn ones(bits: usize) -> Vec<u8> {
    let mut n = vec![0xff; bits.div_ceil(8)];
    match bits % 8 {
        0 => n.insert(0, 0),
        some => n[0] = (1 << some) - 1,
    }
    n
}

#[test]
fn truth_table_of_what_openssl_makes() {
    let folder = Folder::new("keys");
    let made = |options: &str| {
        folder.run(&format!("openssl genpkey -quiet {options} -out k.pem; openssl pkey -in k.pem -pubout -out k.pub"));
        String::from_utf8(folder.read("k.pub")).unwrap()
    };
    for good in [
        "-algorithm EC -pkeyopt ec_paramgen_curve:P-256",
        "-algorithm EC -pkeyopt ec_paramgen_curve:P-384",
        "-algorithm RSA -pkeyopt rsa_keygen_bits:2048",
        "-algorithm RSA -pkeyopt rsa_keygen_bits:2056",
        "-algorithm RSA -pkeyopt rsa_keygen_bits:3072",
        "-algorithm ED25519",
    ] {
        let text = made(good);
        let key = Key::from_spki_pem(&text).unwrap_or_else(|e| panic!("{good}: {e}"));
        assert_eq!(key.pem(), text, "{good}");
        let p256 = Key::p256_from_spki_pem(&text);
        assert_eq!(p256.is_ok(), good.contains("P-256"), "{good}");
        assert_eq!(key.signs_bundles(), !good.contains("ED25519"), "{good}");
    }
    for (bad, named) in [
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-224", "another curve"),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-521", "P-521"),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:secp256k1", "another curve"),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:brainpoolP384r1", "another curve"),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit", "spelled out"),
        ("-algorithm EC -pkeyopt ec_paramgen_curve:P-384 -pkeyopt ec_param_enc:explicit", "spelled out"),
        ("-algorithm RSA -pkeyopt rsa_keygen_bits:1024", "fewer than 2048"),
        ("-algorithm RSA -pkeyopt rsa_keygen_bits:2047", "fewer than 2048"),
        ("-algorithm RSA -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_keygen_pubexp:3", "exponent"),
        ("-algorithm RSA -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_keygen_pubexp:4294967297", "exponent"),
        ("-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048", "PSS"),
        ("-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_pss_keygen_md:sha256", "PSS"),
        ("-algorithm ED448", "neither"),
        ("-algorithm X25519", "neither"),
    ] {
        let said = why(&made(bad));
        assert!(said.contains(named), "{bad}: {said}");
    }
    // A compressed point, the form that some tools prefer.
    folder.run("openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out k.pem");
    folder.run("openssl ec -in k.pem -pubout -conv_form compressed -out k.pub 2>/dev/null");
    assert!(why(std::str::from_utf8(&folder.read("k.pub")).unwrap()).contains("uncompressed"));
    // A private key, a certificate request: other PEM blocks.
    assert!(why(std::str::from_utf8(&folder.read("k.pem")).unwrap()).contains("PEM block"));
}

#[test]
fn rsa_has_bounds_at_both_ends() {
    for good in [2048, 2049, 3071, 4096, 8191, 8192] {
        assert!(Key::from_spki_pem(&pem(&rsa(&ones(good), E))).is_ok(), "{good}");
    }
    for bits in [1, 512, 1024, 2047] {
        assert!(refused(&rsa(&ones(bits), E)).contains("fewer than 2048"), "{bits}");
    }
    for bits in [8193, 16384] {
        assert!(refused(&rsa(&ones(bits), E)).contains("more than 8192"), "{bits}");
    }
}

#[test]
fn one_spelling_of_an_rsa_key() {
    let n = ones(2048);
    let mut even = n.clone();
    *even.last_mut().unwrap() = 0xfe;
    let key = element(0x30, &[element(2, &n), element(2, E)].concat());
    for (bad, named) in [
        (rsa(&even, E), "even"),
        (rsa(&n, &[3]), "exponent"),
        (rsa(&n, &[1]), "exponent"),
        (rsa(&n, &[0, 1, 0, 1]), "in DER"),
        (rsa(&n, &[]), "in DER"),
        (rsa(&n, &[0x81, 0, 1]), "in DER"),
        // Negative, and padded with one zero too many.
        (rsa(&n[1..], E), "in DER"),
        (rsa(&[&[0], n.as_slice()].concat(), E), "in DER"),
        (rsa(&[0], E), "in DER"),
        (rsa(&[], E), "in DER"),
        // Trailing bytes at every level.
        ([rsa(&n, E), vec![0]].concat(), "after the key"),
        (spki(&[RSA, NULL].concat(), &[key.as_slice(), &[0]].concat()), "in DER"),
        (
            spki(&[RSA, NULL].concat(), &element(0x30, &[element(2, &n), element(2, E), element(2, E)].concat())),
            "in DER",
        ),
        (
            element(
                0x30,
                &[element(0x30, &[RSA, NULL].concat()), element(3, &[&[0], key.as_slice()].concat()), vec![5, 0]]
                    .concat(),
            ),
            "after the key",
        ),
        // Parameters: absent, doubled, another kind.
        (spki(RSA, &key), "parameters"),
        (spki(&[RSA, NULL, NULL].concat(), &key), "parameters"),
        (spki(&[RSA, &[0x30, 0]].concat(), &key), "parameters"),
        // A bit string with unused bits.
        (
            element(
                0x30,
                &[element(0x30, &[RSA, NULL].concat()), element(3, &[&[1], key.as_slice()].concat())].concat(),
            ),
            "DER",
        ),
        (element(0x31, b""), "DER"),
        (Vec::new(), "DER"),
    ] {
        let said = refused(&bad);
        assert!(said.contains(named), "{said}: {bad:x?}");
    }
}

#[test]
fn lengths_have_one_form() {
    let good = spki(&[0x06, 0x03, 0x2b, 0x65, 0x70], &[9; 32]);
    assert_eq!(good[..2], [0x30, 42]);
    assert!(Key::from_spki_pem(&pem(&good)).is_ok());
    for head in
        [&[0x30, 0x81, 42][..], &[0x30, 0x82, 0, 42], &[0x30, 0x83, 0, 0, 42], &[0x30, 0x80], &[0x30, 41], &[0x30, 43]]
    {
        assert!(Key::from_spki_pem(&pem(&[head, &good[2..]].concat())).is_err(), "{head:x?}");
    }
}

/// Every byte of a good file, changed in every bit, is another key or none, and never the same.
#[test]
fn no_bit_is_ignored() {
    for name in ["p384", "rsa2048", "ed25519"] {
        let path = format!("{}/tests/fixtures/algorithms/{name}.pub", env!("CARGO_MANIFEST_DIR"));
        let good = der(&std::fs::read_to_string(path).unwrap());
        let key = Key::from_spki_pem(&pem(&good)).unwrap();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                if let Ok(other) = Key::from_spki_pem(&pem(&bad)) {
                    assert_ne!(other, key);
                    assert_eq!(der(&other.pem()), bad, "{name}: byte {at} bit {bit}");
                }
            }
        }
        for cut in 0..good.len() {
            assert!(Key::from_spki_pem(&pem(&good[..cut])).is_err(), "{name}: {cut}");
        }
    }
}

/// The bits of one algorithm under the name of another.
#[test]
fn a_key_is_of_its_own_algorithm() {
    let read = |name: &str| {
        der(&std::fs::read_to_string(format!("{}/tests/fixtures/{name}.pub", env!("CARGO_MANIFEST_DIR"))).unwrap())
    };
    let head = |element: &[u8]| match element[1] {
        0x82 => 4,
        0x81 => 3,
        _ => 2,
    };
    // SEQUENCE { algorithm, BIT STRING }
    let parts = |der: &[u8]| {
        let body = &der[head(der)..];
        let (algorithm, bits) = body.split_at(2 + usize::from(body[1]));
        (algorithm[2..].to_vec(), bits[head(bits) + 1..].to_vec())
    };
    let names = ["keys/signer", "algorithms/p384", "algorithms/rsa2048", "algorithms/ed25519"];
    for (algorithm_of, bits_of) in names.iter().flat_map(|a| names.iter().map(move |b| (*a, *b))) {
        let (algorithm, bits) = (parts(&read(algorithm_of)).0, parts(&read(bits_of)).1);
        let made = Key::from_spki_pem(&pem(&spki(&algorithm, &bits)));
        assert_eq!(made.is_ok(), algorithm_of == bits_of, "{algorithm_of} {bits_of}");
    }
}
