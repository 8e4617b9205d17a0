//! What of an image's own word and of statements about it can never be shown.
use super::plain_name;
use crate::facts::Severity;
use crate::policy::{AgeRules, AgeSource, ImageRules, Policy, ScanRules, Scope};
use crate::{date, pattern, rules, text};
use std::collections::BTreeSet;

impl Policy {
    /// Tables of the node and of the scopes, each by its name.
    pub(super) fn gates(&self, out: &mut Vec<String>) {
        let mut names = BTreeSet::new();
        for base in &self.image.bases {
            let at = format!("image.base \"{}\"", text::show(&base.name));
            if !plain_name(&base.name) || !names.insert(base.name.as_str()) {
                out.push(format!("{at}: `name` must be letters, digits, `-`, `_`, `.`, named once"));
            }
            if base.diff_ids.is_empty() {
                out.push(format!("{at}: `diff_ids` is empty; every image would be built on it"));
            }
            if !base.diff_ids.iter().all(|id| pattern::is_digest(id)) {
                out.push(format!("{at}: `diff_ids` are sha256: and 64 lower-case hex digits, of all its layers"));
            }
        }
        let ImageRules { age, vulnerabilities, sbom, provenance, secrets, .. } = &self.image;
        let node = Scope {
            age: age.clone(),
            vulnerabilities: vulnerabilities.clone(),
            sbom: sbom.clone(),
            provenance: provenance.clone(),
            secrets: secrets.clone(),
            ..Scope::default()
        };
        self.gate("image", &node, out);
        for scope in &self.scopes {
            self.gate(&format!("scope \"{}\"", text::show(&scope.repository)), scope, out);
            for name in scope.bases.iter().flatten() {
                if !names.contains(name.as_str()) {
                    let at = text::show(&scope.repository);
                    out.push(format!("scope \"{at}\": `bases`: no image.base is named \"{}\"", text::show(name)));
                }
            }
        }
    }

    fn gate(&self, at: &str, scope: &Scope, out: &mut Vec<String>) {
        if let Some(age) = &scope.age {
            let scans = scope.vulnerabilities.as_ref().or(self.image.vulnerabilities.as_ref());
            aged(&format!("{at}: `age`"), age, scans, out);
        }
        if let Some(scans) = &scope.vulnerabilities {
            let at = format!("{at}: `vulnerabilities`");
            self.named(&at, &scans.authorities, out);
            self.scanned(&at, scans, scope, out);
        }
        if let Some(bom) = &scope.sbom {
            self.named(&format!("{at}: `sbom`"), &bom.authorities, out);
        }
        if let Some(provenance) = &scope.provenance {
            let at = format!("{at}: `provenance`");
            self.named(&at, &provenance.authorities, out);
            if provenance.builders.is_empty() || provenance.builders.iter().any(String::is_empty) {
                out.push(format!("{at}: `builders` names no builder; nothing could start"));
            }
        }
        if scope.secrets.iter().flat_map(|rules| &rules.allow).any(String::is_empty) {
            out.push(format!("{at}: `secrets`: an empty name allows nothing"));
        }
    }

    /// Authorities that attest: there, and by a key, for that is what attestations are verified with.
    fn named(&self, at: &str, names: &[String], out: &mut Vec<String>) {
        if names.is_empty() {
            out.push(format!("{at}: `authorities` is empty; nothing could start"));
        }
        for name in names {
            let shown = text::show(name);
            match self.authorities.iter().find(|a| a.name == *name) {
                None => out.push(format!("{at}: no authority is named \"{shown}\"")),
                Some(a) if a.format == "notation" => {
                    out.push(format!("{at}: \"{shown}\" has format {}, which attests nothing", text::show(&a.format)));
                }
                Some(a) if a.min_signing_time.is_some() => {
                    out.push(format!("{at}: \"{shown}\" has `min_signing_time`, which no attestation proves"));
                }
                Some(_) => {}
            }
        }
    }

    fn scanned(&self, at: &str, scans: &ScanRules, scope: &Scope, out: &mut Vec<String>) {
        if scans.max_severity == Severity::Unknown {
            out.push(format!("{at}: `max_severity` is none, negligible, low, medium, high or critical"));
        }
        for t in &scans.except {
            let at = format!("{at}: except \"{}\"", text::show(&t.id));
            let blank = |text: &str| text.trim().is_empty();
            if blank(&t.id) || t.id.contains('*') || blank(&t.owner) || blank(&t.reason) {
                out.push(format!("{at}: one `id`, an `owner` and a `reason`"));
            }
            if date::end_of(&t.expires).is_none() {
                out.push(format!("{at}: `expires` must be YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ"));
            }
        }
        // By the files' names; two files with one key are found by the rule.
        let key = |name: &String| self.authorities.iter().find(|a| a.name == *name).map(|a| a.key.as_str());
        let builders: BTreeSet<_> = scope.authorities.iter().filter_map(key).collect();
        if builders.len() == 1 && scans.authorities.iter().filter_map(key).all(|key| builders.contains(key)) {
            out.push(format!(
                "{at}: its authorities have the key that signs the image; {} takes none of it",
                rules::SCAN
            ));
        }
    }
}

fn aged(at: &str, age: &AgeRules, scans: Option<&ScanRules>, out: &mut Vec<String>) {
    if age.source == AgeSource::Scan && scans.is_none() {
        out.push(format!("{at}: source \"scan\" needs a table `vulnerabilities`, which says whose scans count"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "version = 1\n[[authority]]\nname = \"ci\"\nkey = \"ci.pub\"\nrepositories = [\"a.io\"]\n\
        [[authority]]\nname = \"scanner\"\nkey = \"scanner.pub\"\nrepositories = [\"a.io\"]\n\
        [[authority]]\nname = \"n\"\nformat = \"notation\"\nroots = \"ca.pem\"\nidentities = [\"*\"]\nrepositories = [\"a.io\"]\n\
        [[authority]]\nname = \"t\"\nkey = \"t.pub\"\nrepositories = [\"a.io\"]\nmin_signing_time = \"2026-01-01\"\n";
    const SCOPE: &str = "[[scope]]\nrepository = \"a.io\"\nauthorities = [\"ci\"]\n";

    fn problems(text: &str) -> Vec<String> {
        Policy::parse(&format!("{TWO}{text}"), &[]).err().unwrap_or_default()
    }

    #[test]
    fn what_can_be_met_is_no_problem() {
        let all = "[image.age]\nmax_days = 9\nsource = \"scan\"\n[image.vulnerabilities]\nmax_days = 7\nmax_severity = \"none\"\n\
            authorities = [\"scanner\"]\nexcept = [{ id = \"CVE-1\", owner = \"o\", reason = \"r\", expires = \"2027-01-01\" }]\n\
            [image.sbom]\nauthorities = [\"ci\"]\n[image.provenance]\nauthorities = [\"ci\"]\nbuilders = [\"*\"]\n\
            [image.secrets]\n[[image.base]]\nname = \"d\"\ndiff_ids = [\"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"]\n";
        assert_eq!(problems(all), Vec::<String>::new());
        assert_eq!(
            problems(&format!("{all}{SCOPE}bases = [\"d\"]\n[scope.age]\nmax_days = 3\nsource = \"scan\"")),
            Vec::<String>::new()
        );
    }

    #[test]
    fn what_never_can_be_met_is_one() {
        let scans = |of: &str| format!("max_days = 7\nmax_severity = \"low\"\nauthorities = [{of}]\n");
        for (text, why) in [
            ("[image.age]\nmax_days = 9\nsource = \"scan\"".to_owned(), "needs a table `vulnerabilities`"),
            (format!("[image.vulnerabilities]\n{}", scans("")), "`authorities` is empty"),
            (format!("[image.vulnerabilities]\n{}", scans("\"x\"")), "no authority is named \"x\""),
            (format!("[image.vulnerabilities]\n{}", scans("\"n\"")), "attests nothing"),
            (format!("[image.vulnerabilities]\n{}", scans("\"t\"")), "no attestation proves"),
            (format!("[image.vulnerabilities]\n{}", scans("\"scanner\"").replace("low", "unknown")), "`max_severity`"),
            (format!("{SCOPE}[scope.vulnerabilities]\n{}", scans("\"ci\"")), "takes none of it"),
            (
                format!(
                    "[image.vulnerabilities]\n{}except = [{{ id = \"CVE-*\", owner = \"o\", reason = \"r\", expires = \"2027-01-01\" }}]",
                    scans("\"scanner\"")
                ),
                "one `id`",
            ),
            (
                format!(
                    "[image.vulnerabilities]\n{}except = [{{ id = \"CVE-1\", owner = \"o\", reason = \" \", expires = \"2027-01-01\" }}]",
                    scans("\"scanner\"")
                ),
                "`reason`",
            ),
            (
                format!(
                    "[image.vulnerabilities]\n{}except = [{{ id = \"CVE-1\", owner = \"o\", reason = \"r\", expires = \"never\" }}]",
                    scans("\"scanner\"")
                ),
                "`expires`",
            ),
            ("[image.sbom]\nauthorities = [\"x\"]".into(), "no authority"),
            ("[image.provenance]\nauthorities = [\"ci\"]\nbuilders = []".into(), "names no builder"),
            ("[image.secrets]\nallow = [\"\"]".into(), "allows nothing"),
            ("[[image.base]]\nname = \"d\"\ndiff_ids = []".into(), "is empty"),
            ("[[image.base]]\nname = \"d e\"\ndiff_ids = [\"sha256:1\"]".into(), "64 lower-case"),
            (format!("{SCOPE}bases = [\"d\"]"), "no image.base is named \"d\""),
        ] {
            let found = problems(&text);
            assert!(found.iter().any(|line| line.contains(why)), "{text}: {found:?}");
        }
    }
}
