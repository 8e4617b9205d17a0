//! The Notary Project's envelopes: by notation itself, and by openssl and by hand where a fault is needed that notation does not
//! sign. Both verdicts are of the same OCI layout.
use crate::ours::{Trust, imported, signed};
use crate::{Case, Given};
use anyhow::{Context, Result};
use boltseal_trust::notation::Notary;
use serde_json::json;
use stack::fulcio::Fulcio;
use stack::image::Image;
use stack::notation::{EXPIRY, Notation, RSA, Signer, lay, root};
use std::fs;
use std::path::Path;

/// Case, fault, and why notation says something else.
type Fault = (&'static str, fn(&mut Signer), &'static str);

/// By hand. The accepted twin of each is the first case of its format.
const FAULTS: [Fault; 12] = [
    ("a leaf of another root of the same name", |s| s.ca = "other", ""),
    ("another subject than is trusted", |s| s.subject = INTERN, ""),
    (
        "a certificate for servers",
        |s| s.usage = "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n",
        "",
    ),
    ("a certificate without keyUsage", |s| s.usage = "extendedKeyUsage=codeSigning\n", ""),
    (
        "a CA's certificate as a signer's",
        |s| s.usage = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,digitalSignature\n",
        "",
    ),
    ("an unknown critical extension", |s| s.usage = UNKNOWN, "notation leaves extensions that it does not know"),
    ("an unknown critical attribute", |s| s.protected["crit"] = json!([SCHEME, "com.example.x"]), ""),
    ("nothing critical", |s| s.protected["crit"] = json!([]), ""),
    ("another scheme", |s| s.protected[SCHEME] = json!("notary.x509.signingAuthority"), ""),
    ("another kind of payload", |s| s.protected["cty"] = json!("text/plain"), ""),
    ("past its expiry", expired, ""),
    ("an expiry that is not critical", |s| s.protected[EXPIRY] = json!(ENDED), ""),
];

const SCHEME: &str = "io.cncf.notary.signingScheme";
const ENDED: &str = "2026-01-02T00:00:00Z";
const INTERN: &str = "/C=US/ST=WA/O=corp/CN=intern";
const UNKNOWN: &str = "keyUsage=critical,digitalSignature\nextendedKeyUsage=codeSigning\n1.2.3.4=critical,DER:0500\n";
const P521: &str = "ring, which verifies here, has no P-521; its twin is P-384";

/// Signed by notation: the case, the leaf's key, options, whether we accept, why notation says something else.
type Made = (&'static str, &'static str, &'static [&'static str], bool, &'static str);

const MADE: [Made; 8] = [
    ("by notation, RSA of 2048 bits", RSA, &[], true, ""),
    ("by notation, RSA of 3072 bits", "-algorithm RSA -pkeyopt rsa_keygen_bits:3072", &[], true, ""),
    ("by notation, RSA of 4096 bits", "-algorithm RSA -pkeyopt rsa_keygen_bits:4096", &[], true, ""),
    ("by notation, P-256", "-algorithm EC -pkeyopt ec_paramgen_curve:P-256", &[], true, ""),
    ("by notation, P-384", "-algorithm EC -pkeyopt ec_paramgen_curve:P-384", &[], true, ""),
    ("by notation, P-521", "-algorithm EC -pkeyopt ec_paramgen_curve:P-521", &[], false, P521),
    ("by notation, with an expiry to come", RSA, &["--expiry", "1h"], true, ""),
    ("by notation, with its user's own words", RSA, &["--user-metadata", "commit=abc"], true, ""),
];

/// Signed by notation, and not whom the policy means; the twin is the first of [`MADE`].
const OTHERS: [Fault; 2] = [
    ("by notation, another subject than is trusted", |s| s.subject = INTERN, ""),
    ("by notation, under another root of the same name", |s| s.ca = "other", ""),
];

fn expired(signer: &mut Signer) {
    signer.protected[EXPIRY] = json!(ENDED);
    signer.protected["crit"] = json!([SCHEME, EXPIRY]);
}

/// Whom both are told to trust.
struct Judges {
    ours: Trust,
    notation: Notation,
}

/// Judges who trust a certificate that notation made for tests, and its name for the key.
struct Own {
    judges: Judges,
    key: &'static str,
}

impl Judges {
    fn of_its_own(work: &Path) -> Result<Own> {
        let (notation, key, file) = Notation::of_its_own(work)?;
        let notary = Notary::new(&fs::read_to_string(file)?, &["*".into()], false).map_err(anyhow::Error::msg)?;
        Ok(Own { judges: Self { ours: Trust::Roots(notary), notation }, key })
    }

    fn of(work: &Path, name: &str) -> Result<Self> {
        let roots = fs::read_to_string(root(work, "root")?)?;
        let notary = Notary::new(&roots, &[format!("O=corp, CN={name}")], false).map_err(anyhow::Error::msg)?;
        let notation = Notation::new(work, "root", &format!("C=US, ST=WA, O=corp, CN={name}"))?;
        Ok(Self { ours: Trust::Roots(notary), notation })
    }

    fn case(&self, format: &'static str, name: &'static str, accept: bool, lain: (&Path, &Image)) -> Result<Case> {
        let (layout, image) = lain;
        let ours = signed(&imported([layout])?, &self.ours, image)?;
        let tool = Some(self.notation.verify(layout, image).with_context(|| format!("{format}, {name}"))?);
        Ok(Case { format, name, accept, ours, tool, note: "" })
    }
}

pub(crate) fn cases(given: &Given<'_>, fulcio: &Fulcio) -> Result<Vec<Case>> {
    let (url, stamps) = fulcio.stamps();
    let stamped = ["--timestamp-url", url, "--timestamp-root-cert", &stamps.display().to_string()].map(str::to_owned);
    let own = Judges::of_its_own(given.work)?;
    let (ci, cd) = (Judges::of(given.work, "ci")?, Judges::of(given.work, "cd")?);
    let mut all = Vec::new();
    for (cose, format) in [(false, "notation JWS"), (true, "notation COSE")] {
        let app = &given.app;
        let laid = |fault: fn(&mut Signer), signer: Signer| {
            let mut signer = Signer { cose, ..signer };
            fault(&mut signer);
            signer.layout(given.work, app)
        };
        let mut add = |case: Case, note| all.push(Case { note, ..case });

        let good = laid(|_| {}, Signer::default())?;
        add(ci.case(format, "signed under the authority's root", true, (&good, app))?, "");
        add(cd.case(format, "under another identity of the root", false, (&good, app))?, "");
        let mut envelope = imported([good.as_path()])?.pop().context("no signature in the layout")?.bytes;
        let moved = lay(given.work, &given.other, Some((&envelope, cose)))?;
        add(ci.case(format, "beside another image", false, (&moved, &given.other))?, "");
        let middle = envelope.len() / 2;
        if let Some(byte) = envelope.get_mut(middle) {
            *byte = if *byte == b'A' { b'B' } else { b'A' };
        }
        let changed = lay(given.work, app, Some((&envelope, cose)))?;
        add(ci.case(format, "one byte of the envelope changed", false, (&changed, app))?, "");
        for (name, fault, note) in FAULTS {
            add(ci.case(format, name, false, (&laid(fault, Signer::default())?, app))?, note);
        }

        let made = |key, options: &[String]| Signer { key, tool: Some(options.to_vec()), ..Signer::default() };
        for (name, key, options, accept, note) in MADE {
            let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
            add(ci.case(format, name, accept, (&laid(|_| {}, made(key, &options))?, app))?, note);
        }
        for (name, fault, note) in OTHERS {
            add(ci.case(format, name, false, (&laid(fault, made(RSA, &[]))?, app))?, note);
        }
        let layout = laid(|_| {}, made(RSA, &stamped))?;
        add(ci.case(format, "by notation, with a time stamp beside it", true, (&layout, app))?, "");
        let layout = lay(given.work, app, None)?;
        own.judges.notation.sign(&layout, app, own.key, cose, &[])?;
        add(own.judges.case(format, "by notation's own test certificate", true, (&layout, app))?, "");
        add(ci.case(format, "the same, which nobody trusts", false, (&layout, app))?, "");
    }
    Ok(all)
}
