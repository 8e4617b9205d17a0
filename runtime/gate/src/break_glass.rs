//! Break-glass files: read from a folder that is root's alone, verified by the policy's keys over the raw payload.
use crate::paths;
use boltseal_evidence::file::{Folder, Owner};
use boltseal_jail::Parse;
use boltseal_policy::facts::{BreakGlass, BreakGlasses};
use boltseal_trust::{Key, break_glass, dsse};
use std::path::Path;

/// Most files that are looked at.
const MAX_FILES: usize = 16;

/// What lies there. Without keys in the policy nothing is read; what cannot be read counts for nothing.
pub(crate) fn gather(
    keys: &[Key],
    node: Option<&[u8]>,
    jail: impl FnOnce() -> Result<Box<dyn Parse>, String>,
) -> BreakGlasses {
    if keys.is_empty() {
        return BreakGlasses::default();
    }
    let key = node.and_then(|pem| std::str::from_utf8(pem).ok()).and_then(|pem| Key::from_spki_pem(pem).ok());
    let mut all = BreakGlasses { node: key.map(|key| key.id().to_owned()), ..BreakGlasses::default() };
    match files(Path::new(paths::BREAK_GLASS)) {
        Ok(files) if files.is_empty() => {}
        Ok(files) => match jail() {
            Ok(jail) => verify(keys, &*jail, &files, &mut all),
            Err(why) => all.refused.push(why),
        },
        Err(why) => all.refused.push(why),
    }
    all
}

fn files(folder: &Path) -> Result<Vec<(String, Vec<u8>)>, String> {
    let folder = match Folder::open(folder, Owner::RootPrivate) {
        Err(problem) if problem.missing => return Ok(Vec::new()),
        other => other.map_err(|e| e.to_string())?,
    };
    let names = folder.names(MAX_FILES).map_err(|e| e.to_string())?;
    let read = |name: String| {
        let (bytes, _) =
            folder.read(&name, dsse::MAX_ENVELOPE as u64, Owner::RootPrivate).map_err(|e| e.to_string())?;
        Ok((name, bytes))
    };
    names.into_iter().filter(|name| name.ends_with(".json")).map(read).collect()
}

fn verify(keys: &[Key], jail: &dyn Parse, files: &[(String, Vec<u8>)], all: &mut BreakGlasses) {
    for (name, bytes) in files {
        match one(keys, jail, bytes) {
            Ok(found) => all.found.push(found),
            Err(why) => all.refused.push(format!("{name}: {why}")),
        }
    }
}

fn one(keys: &[Key], jail: &dyn Parse, bytes: &[u8]) -> Result<BreakGlass, String> {
    let answer = jail.parse(dsse::answer, 0, bytes)?;
    let envelope = dsse::decode(&answer).map_err(|e| e.to_string())?.map_err(|e| e.reason().to_owned())?;
    let signers = envelope.signers(keys);
    if signers.is_empty() {
        return Err("none of [break_glass].keys signed it".into());
    }
    if envelope.payload_type != break_glass::DSSE_TYPE {
        return Err("another kind of payload".into());
    }
    let said = break_glass::read(&envelope.payload).map_err(|e| e.0)?;
    Ok(BreakGlass {
        id: said.id,
        keys: signers,
        nodes: said.nodes,
        rules: said.rules,
        from: said.from,
        until: said.until,
        reason: said.reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use boltseal_jail::Parser;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

    /// Runs the parser here.
    struct Honest;

    impl Parse for Honest {
        fn parse(&self, parser: Parser, kind: u8, bytes: &[u8]) -> Result<Vec<u8>, String> {
            Ok(parser(kind, bytes))
        }
    }

    #[test]
    fn signatures_of_the_policys_keys_are_counted_and_no_others() {
        let random = SystemRandom::new();
        let pairs: Vec<EcdsaKeyPair> = (0..3)
            .map(|_| {
                let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, made.as_ref(), &random).unwrap()
            })
            .collect();
        let keys: Vec<Key> = pairs.iter().map(|pair| Key::from_point(pair.public_key().as_ref()).unwrap()).collect();
        let payload = format!(
            r#"{{"version":1,"nodes":["{}"],"rules":{{"BS-OWN-001":["missing"]}},"from":1,"until":2,"reason":"x"}}"#,
            "ab".repeat(32)
        );
        let signed = |kind: &str, payload: &str, by: &[usize]| {
            let mut envelope =
                dsse::Envelope { payload_type: kind.into(), payload: payload.into(), signatures: vec![] };
            for at in by {
                let signature = pairs[*at].sign(&random, &envelope.message()).unwrap();
                envelope.signatures.push(signature.as_ref().to_vec());
            }
            envelope.json().into_bytes()
        };
        let of = |bytes: &[u8]| one(&keys[..2], &Honest, bytes);
        let both = of(&signed(break_glass::DSSE_TYPE, &payload, &[0, 1, 2, 0])).unwrap();
        assert_eq!(both.keys.len(), 2);
        assert_eq!(of(&signed(break_glass::DSSE_TYPE, &payload, &[1])).unwrap().keys.len(), 1);
        for (bytes, why) in [
            (signed(break_glass::DSSE_TYPE, &payload, &[2]), "none of [break_glass].keys"),
            (signed("application/json", &payload, &[0, 1]), "another kind"),
            (signed(break_glass::DSSE_TYPE, "{}", &[0, 1]), "version"),
            (b"{}".to_vec(), "no signatures"),
        ] {
            let said = of(&bytes).unwrap_err();
            assert!(said.contains(why), "{said}, wanted {why}");
        }
        let mut all = BreakGlasses::default();
        verify(&keys, &Honest, &[("a.json".into(), b"{".to_vec())], &mut all);
        assert!(all.found.is_empty() && all.refused[0].starts_with("a.json: "), "{all:?}");
    }
}
