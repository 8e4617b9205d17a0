//! `[node.log]` and `[node.ear]`: rules on the event log, and a verifier's token.
use crate::{pattern, text};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Rules on the replayed event log (BS-NOD-001). Together with `node.pcrs` they cover at least PCRs 4, 7 and 9.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogRules {
    /// Authenticode SHA-256, hex, of every image that may be loaded: boot loader, kernel. Judges all of PCR 4.
    pub images: BTreeSet<String>,
    /// SHA-256, hex, of the DER of every certificate that may have verified an image. With `secure_boot` it judges all of PCR 7.
    pub certificates: BTreeSet<String>,
    /// Secure Boot must be on.
    pub secure_boot: bool,
    /// SHA-256, hex, of every initrd, and of all else that a boot loader measures into PCR 9. With a rule on the command
    /// line it judges all of PCR 9.
    pub files: BTreeSet<String>,
    /// Words that the kernel command line must have.
    pub command_line_has: BTreeSet<String>,
    /// Text that the kernel command line must not contain.
    pub command_line_never: BTreeSet<String>,
}

/// A token of a verifier (EAR: EAT Attestation Results) that attests this node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EarRules {
    /// The verifier's keys: file below `trust/`, a JWKS (RFC 7517).
    pub jwks: String,
    /// `iss`, exactly.
    pub issuer: String,
    /// `aud`, exactly.
    pub audience: String,
    /// JSON pointer (RFC 6901) to the claim with the attestation key: PEM, base64 of its DER, or its TPM name in hex.
    pub ak_claim: String,
    /// JSON pointer to the claim with the nonce; empty: `/eat_nonce`.
    pub nonce_claim: String,
    /// The token replaces the local policy; otherwise both must hold.
    pub instead: bool,
}

impl LogRules {
    fn covers(&self, pcr: u32) -> bool {
        match pcr {
            4 => !self.images.is_empty(),
            7 => self.secure_boot && !self.certificates.is_empty(),
            9 => {
                let line = !self.command_line_has.is_empty() || !self.command_line_never.is_empty();
                line && !self.files.is_empty()
            }
            _ => false,
        }
    }

    pub(super) fn lint(&self, software: bool, valued: impl Fn(u32) -> bool, out: &mut Vec<String>) {
        let lists = [("images", &self.images), ("certificates", &self.certificates), ("files", &self.files)];
        for (name, list) in lists {
            if let Some(bad) = list.iter().find(|value| !pattern::is_sha256_hex(value)) {
                out.push(format!("node.log.{name}: \"{}\" is not 64 lower-case hex digits", text::show(bad)));
            }
        }
        for word in &self.command_line_has {
            if word.is_empty() || word.chars().any(|c| c.is_ascii_whitespace() || c == '"') {
                out.push(format!("node.log.command_line_has: \"{}\" is not one word", text::show(word)));
            }
        }
        if self.command_line_never.contains("") {
            out.push("node.log.command_line_never: every command line contains the empty text".into());
        }
        for pcr in [4, 7, 9] {
            if !valued(pcr) && !self.covers(pcr) {
                let rules = match pcr {
                    4 => "images",
                    7 => "secure_boot and certificates",
                    _ => "files and command_line_has or command_line_never",
                };
                out.push(format!("node.log: PCR {pcr} is covered by neither node.pcrs.{pcr} nor {rules}"));
            }
        }
        if software {
            out.push("node.log: a software TPM has no event log; name values in node.pcrs".into());
        }
    }
}

impl EarRules {
    pub(super) fn lint(&self, out: &mut Vec<String>) {
        super::lint::key_file("node.ear.jwks", &self.jwks, out);
        for (name, value) in [("issuer", &self.issuer), ("audience", &self.audience)] {
            if value.is_empty() {
                out.push(format!("node.ear.{name}: missing; a token must be made by someone, for this node"));
            }
        }
        if !self.nonce_claim.is_empty() && !self.nonce_claim.starts_with('/') {
            out.push("node.ear.nonce_claim: a JSON pointer, such as /eat_nonce".into());
        }
        if !self.ak_claim.starts_with('/') {
            out.push(
                "node.ear.ak_claim: a JSON pointer, such as /submods/cpu0/ear.veraison.annotated-evidence/ak_public"
                    .into(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::Policy;

    fn problems(node: &str) -> Vec<String> {
        let hex = "a".repeat(64);
        let text = format!("version = 1\n[node]\nattestation_key = \"ak.pem\"\n{}", node.replace("HEX", &hex));
        match Policy::parse(&text, &[]) {
            Ok(policy) => policy.validate(),
            Err(problems) => problems,
        }
    }

    const RULES: &str = "[node.log]\nimages = [\"HEX\"]\nsecure_boot = true\ncertificates = [\"HEX\"]\nfiles = [\"HEX\"]\ncommand_line_never = [\"init=\"]\n";
    const EAR: &str =
        "[node.ear]\njwks = \"ear.jwks\"\nissuer = \"https://v\"\naudience = \"node\"\nak_claim = \"/ak\"\n";

    #[test]
    fn rules_values_or_both_cover_4_7_and_9() {
        assert_eq!(problems(RULES), Vec::<String>::new());
        let has = RULES.replace("command_line_never = [\"init=\"]", "command_line_has = [\"ro\"]");
        assert_eq!(problems(&has), Vec::<String>::new());
        let values = "[node.pcrs]\n4 = [\"HEX\"]\n7 = [\"HEX\"]\n9 = [\"HEX\"]\n";
        assert_eq!(problems(&format!("{values}[node.log]\nsecure_boot = true\n")), Vec::<String>::new());
        for (without, pcr) in [
            ("images = [\"HEX\"]\n", "PCR 4"),
            ("secure_boot = true\n", "PCR 7"),
            ("certificates = [\"HEX\"]\n", "PCR 7"),
            ("files = [\"HEX\"]\n", "PCR 9"),
            ("command_line_never = [\"init=\"]\n", "PCR 9"),
        ] {
            let found = problems(&RULES.replace(without, ""));
            assert!(found.len() == 1 && found[0].contains(pcr), "{found:?}");
            let key = without.split([' ', '\n']).next().unwrap();
            assert!(found[0].contains(key), "{key} is not named: {found:?}");
        }
    }

    #[test]
    fn rules_that_cannot_hold_are_told() {
        for (change, by, said) in [
            ("images = [\"HEX\"]", "images = [\"x\"]", "64 lower-case hex"),
            ("[\"init=\"]", "[\"\"]", "empty text"),
            ("[node.log]", "[node.log]\ncommand_line_has = [\"a b\"]", "not one word"),
            ("[node.log]", "[node.log]\ncommand_line_has = [\"\"]", "not one word"),
            ("[node.log]", "[node.log]\ncommand_line_has = [\"a\\\"b\"]", "not one word"),
            ("[node.log]", "tpm = \"unix:/run/tpm\"\n[node.log]", "no event log"),
            ("secure_boot", "secureboot", "unknown field"),
        ] {
            let found = problems(&RULES.replace(change, by));
            assert!(found.iter().any(|p| p.contains(said)), "{said}: {found:?}");
        }
    }

    #[test]
    fn a_token_names_who_made_it_for_whom() {
        assert_eq!(problems(EAR), Vec::<String>::new());
        assert_eq!(problems(&format!("{EAR}nonce_claim = \"/nonce\"\n")), Vec::<String>::new());
        for (change, by, said) in [
            ("\"ear.jwks\"", "\"../x\"", "node.ear.jwks"),
            ("\"https://v\"", "\"\"", "node.ear.issuer"),
            ("\"node\"", "\"\"", "node.ear.audience"),
            ("\"/ak\"", "\"ak\"", "node.ear.ak_claim"),
            ("\"/ak\"", "\"/ak\"\nnonce_claim = \"x\"", "node.ear.nonce_claim"),
        ] {
            let found = problems(&EAR.replace(change, by));
            assert!(found.iter().any(|p| p.contains(said)), "{said}: {found:?}");
        }
    }
}
