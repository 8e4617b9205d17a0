//! The Notary Project's envelopes, made with openssl and by hand: notation itself is not to be had where this runs (it is no
//! package of Debian), so nothing here is the word of a tool.
use crate::ours::{Trust, imported, signed};
use crate::{Case, Given};
use anyhow::Result;
use boltseal_trust::StoreFile;
use boltseal_trust::notation::Notary;
use serde_json::json;
use stack::image::Image;
use stack::notation::{Signer, root};
use std::fs;

const NOT_RUN: &str = "notation is not to be had here";

type Fault = (&'static str, fn(&mut Signer));

/// The accepted twin of each is the first case of its format.
const FAULTS: [Fault; 9] = [
    ("a leaf of another root of the same name", |s| s.ca = "other"),
    ("another subject than is trusted", |s| s.subject = "/C=US/O=corp/CN=intern"),
    ("a certificate for servers", |s| s.usage = "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n"),
    ("a certificate without keyUsage", |s| s.usage = "extendedKeyUsage=codeSigning\n"),
    ("a CA's certificate as a signer's", |s| {
        s.usage = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,digitalSignature\n";
    }),
    ("an unknown critical attribute", |s| {
        s.protected["crit"] = json!(["io.cncf.notary.signingScheme", "com.example.x"]);
    }),
    ("nothing critical", |s| s.protected["crit"] = json!([])),
    ("another scheme", |s| s.protected["io.cncf.notary.signingScheme"] = json!("notary.x509.signingAuthority")),
    ("another kind of payload", |s| s.protected["cty"] = json!("text/plain")),
];

pub(crate) fn cases(given: &Given<'_>) -> Result<Vec<Case>> {
    let roots = fs::read_to_string(root(given.work, "root")?)?;
    let notary = |identity: &str| {
        Notary::new(&roots, &[identity.into()], false).map(Trust::Roots).map_err(|why| anyhow::anyhow!("{why}"))
    };
    let trust = notary("O=corp, CN=ci")?;
    let mut all = Vec::new();
    for (cose, format) in [(false, "notation JWS"), (true, "notation COSE")] {
        let mut add = |name, accept, ours| all.push(Case { format, name, accept, ours, tool: None, note: NOT_RUN });
        let made = |fault: fn(&mut Signer)| {
            let mut signer = Signer { cose, ..Signer::default() };
            fault(&mut signer);
            files(given, &signer, &given.app)
        };
        let mut good = made(|_| {})?;
        add("signed under the authority's root", true, signed(&good, &trust, &given.app)?);
        for (name, fault) in FAULTS {
            add(name, false, signed(&made(fault)?, &trust, &given.app)?);
        }
        add("of another image", false, signed(&good, &trust, &given.other)?);
        let key = notary("O=corp, CN=cd")?;
        add("under another identity of the root", false, signed(&good, &key, &given.app)?);
        for file in &mut good {
            let middle = file.bytes.len() / 2;
            if let Some(byte) = file.bytes.get_mut(middle) {
                *byte = if *byte == b'A' { b'B' } else { b'A' };
            }
        }
        add("one byte of the envelope changed", false, signed(&good, &trust, &given.app)?);
    }
    Ok(all)
}

fn files(given: &Given<'_>, signer: &Signer, image: &Image) -> Result<Vec<StoreFile>> {
    let layout = signer.layout(given.work, image)?;
    imported([layout.as_path()])
}
