//! The worker's reading: strict JSON, and of each kind only the forms that are known.
use super::{Kind, MAX_FOUND, MAX_ID, MAX_TEXT, SEVERITIES, Statement};
use crate::propose::json::{Json, Object, object};
use crate::propose::{MAX_ATTESTATION_FILE, Malformed};
use std::collections::BTreeMap;

pub(super) fn statement(kind: Kind, bytes: &[u8]) -> Result<Statement, Malformed> {
    let file = object(bytes, "statement", MAX_ATTESTATION_FILE)?;
    let predicate = match file.need("predicate")? {
        Json::Text(_) if kind == Kind::Spdx => {
            return Err(Malformed::new("SPDX as text. Fix: cosign attest --type spdxjson"));
        }
        predicate => predicate.object("predicate")?,
    };
    match kind {
        Kind::Scan => scan(predicate),
        Kind::Spdx => {
            known(predicate.need_text("spdxVersion", MAX_TEXT)?.starts_with("SPDX-2."), "spdxVersion is not SPDX-2.x")?;
            bom("SPDX", predicate, "packages", "name")
        }
        Kind::CycloneDx => {
            known(predicate.need_text("bomFormat", MAX_TEXT)? == "CycloneDX", "bomFormat is not CycloneDX")?;
            bom("CycloneDX", predicate, "components", "name")
        }
        Kind::Slsa1 => {
            provenance(predicate.object("runDetails")?.object("builder")?, predicate.object("buildDefinition")?)
        }
        Kind::Slsa02 => provenance(predicate.object("builder")?, predicate),
    }
}

fn known(holds: bool, what: &str) -> Result<(), Malformed> {
    if holds { Ok(()) } else { Err(Malformed::new(what)) }
}

/// Each entry is a thing with a name.
fn bom(format: &str, predicate: &Object<'_>, list: &str, name: &str) -> Result<Statement, Malformed> {
    let entries = match predicate.get(list)? {
        Some(entries) => entries.list(list)?,
        None => &[],
    };
    for entry in entries {
        known(!entry.object(list)?.need_text(name, MAX_TEXT)?.is_empty(), "an entry without a name")?;
    }
    let packages = u32::try_from(entries.len()).map_err(|_| Malformed::new("too many entries"))?;
    Ok(Statement::Bom { format: format.into(), packages })
}

fn provenance(builder: &Object<'_>, build: &Object<'_>) -> Result<Statement, Malformed> {
    Ok(Statement::Provenance {
        builder: builder.need_text("id", MAX_TEXT)?.to_owned(),
        build_type: build.text("buildType", MAX_TEXT)?.to_owned(),
    })
}

fn scan(predicate: &Object<'_>) -> Result<Statement, Malformed> {
    let finished = predicate.object("metadata")?.need_text("scanFinishedOn", MAX_TEXT)?.to_owned();
    let result = predicate.object("scanner")?.object("result")?;
    // Each says which it is by names of its own, and a file that could be both is neither.
    let (trivy, grype) = (result.has("SchemaVersion")?, result.has("matches")?);
    let mut found = Found::default();
    let scanner = match (trivy, grype) {
        (true, false) => {
            known(result.need("SchemaVersion")?.number("SchemaVersion")? == 2, "trivy's SchemaVersion is not 2")?;
            trivy_results(result, &mut found)?;
            "trivy"
        }
        (false, true) => {
            let by = result.object("descriptor")?.need_text("name", MAX_TEXT)?;
            known(by == "grype", "matches, and descriptor.name is not grype")?;
            for entry in result.list("matches")? {
                let of = entry.object("matches")?.object("vulnerability")?;
                found.add(of.need_text("id", MAX_ID)?, of.text("severity", MAX_TEXT)?);
            }
            "grype"
        }
        _ => return Err(Malformed::new("the result is neither trivy's nor grype's JSON")),
    };
    let (counts, found) = found.worst_first();
    Ok(Statement::Scan { scanner: scanner.into(), finished, counts, found })
}

/// A report without Results looked at nothing.
fn trivy_results(result: &Object<'_>, found: &mut Found) -> Result<(), Malformed> {
    let results = result.list("Results")?;
    known(!results.is_empty(), "trivy's Results are empty: nothing was scanned")?;
    for of in results {
        let of = of.object("Results")?;
        let Some(list) = of.get("Vulnerabilities")? else { continue };
        for entry in list.list("Vulnerabilities")? {
            let entry = entry.object("Vulnerabilities")?;
            found.add(entry.need_text("VulnerabilityID", MAX_ID)?, entry.text("Severity", MAX_TEXT)?);
        }
    }
    Ok(())
}

/// The worst severity of each id: one is found in several packages.
#[derive(Default)]
struct Found(BTreeMap<String, u8>);

impl Found {
    fn add(&mut self, id: &str, severity: &str) {
        let lower = severity.to_ascii_lowercase();
        // A word that is not known is the unknown's place, the last.
        let at = SEVERITIES.iter().position(|name| *name == lower).unwrap_or(SEVERITIES.len() - 1);
        let at = u8::try_from(at).unwrap_or(u8::MAX);
        let worst = self.0.entry(id.to_owned()).or_insert(at);
        *worst = at.max(*worst);
    }

    fn worst_first(self) -> ([u32; 6], Vec<(String, u8)>) {
        let mut counts = [0_u32; 6];
        let mut found: Vec<_> = self.0.into_iter().collect();
        for (_, severity) in &found {
            if let Some(count) = counts.get_mut(usize::from(*severity)) {
                *count = count.saturating_add(1);
            }
        }
        found.sort_by(|(a, x), (b, y)| (y, a).cmp(&(x, b)));
        found.truncate(MAX_FOUND);
        (counts, found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{decode_statement, read_statement};
    use super::*;

    const TRIVY: &str = r#"{"SchemaVersion":2,"ArtifactName":"a","Results":[{"Target":"debian","Class":"os-pkgs","Vulnerabilities":[
        {"VulnerabilityID":"CVE-1","PkgName":"a","Severity":"LOW"},{"VulnerabilityID":"CVE-2","Severity":"CRITICAL"},
        {"VulnerabilityID":"CVE-1","PkgName":"b","Severity":"HIGH"},{"VulnerabilityID":"CVE-3","Severity":"UNKNOWN"},
        {"VulnerabilityID":"CVE-4"},{"VulnerabilityID":"CVE-5","Severity":"ODD"}]},{"Target":"app","Vulnerabilities":null},{"Target":"x"}]}"#;
    const GRYPE: &str = r#"{"matches":[{"vulnerability":{"id":"GHSA-1","severity":"Negligible"},"artifact":{"name":"a"}},
        {"vulnerability":{"id":"CVE-9","severity":"Medium"},"matchDetails":[]}],"source":{},"descriptor":{"name":"grype","version":"0.80"}}"#;

    fn vuln(result: &str) -> String {
        format!(
            r#"{{"_type":"x","subject":[],"predicateType":"p","predicate":{{"invocation":{{}},"scanner":{{"uri":"","result":{result}}},"metadata":{{"scanStartedOn":"a","scanFinishedOn":"2026-11-30T10:00:00Z"}}}}}}"#
        )
    }

    fn of(predicate: &str) -> String {
        format!(r#"{{"predicate":{predicate}}}"#)
    }

    fn read(kind: Kind, text: &str) -> Result<Statement, String> {
        decode_statement(&read_statement(kind.number(), text.as_bytes())).unwrap()
    }

    #[test]
    fn what_trivy_and_grype_find() {
        let ids = |list: &[(&str, u8)]| list.iter().map(|(id, s)| ((*id).to_owned(), *s)).collect::<Vec<_>>();
        let scan = |scanner: &str, counts, found| {
            Ok(Statement::Scan { scanner: scanner.into(), finished: "2026-11-30T10:00:00Z".into(), counts, found })
        };
        let found = ids(&[("CVE-3", 5), ("CVE-4", 5), ("CVE-5", 5), ("CVE-2", 4), ("CVE-1", 3)]);
        assert_eq!(read(Kind::Scan, &vuln(TRIVY)), scan("trivy", [0, 0, 0, 1, 1, 3], found));
        assert_eq!(
            read(Kind::Scan, &vuln(GRYPE)),
            scan("grype", [1, 0, 1, 0, 0, 0], ids(&[("CVE-9", 2), ("GHSA-1", 0)]))
        );
        let clean = r#"{"matches":[],"descriptor":{"name":"grype"}}"#;
        assert_eq!(read(Kind::Scan, &vuln(clean)), scan("grype", [0; 6], vec![]));
    }

    #[test]
    fn what_is_no_scan_is_refused_by_name() {
        for (text, why) in [
            (vuln("{}"), "neither trivy's nor grype's"),
            (vuln(r#"{"vulnerabilities":[]}"#), "neither"),
            (vuln(r#"{"SchemaVersion":2,"Results":[{}],"matches":[]}"#), "neither"),
            (vuln(r#"{"SchemaVersion":1,"Results":[{}]}"#), "not 2"),
            (vuln(r#"{"SchemaVersion":2}"#), "no Results"),
            (vuln(r#"{"SchemaVersion":2,"Results":[]}"#), "nothing was scanned"),
            (vuln(r#"{"SchemaVersion":2,"Results":null}"#), "no Results"),
            (vuln(r#"{"SchemaVersion":2,"Results":[{"Vulnerabilities":{}}]}"#), "not a list"),
            (vuln(r#"{"SchemaVersion":2,"Results":[{"Vulnerabilities":[{"Severity":"LOW"}]}]}"#), "no VulnerabilityID"),
            (vuln(r#"{"SchemaVersion":2,"results":[{}],"Results":[{}]}"#), "looks like"),
            (vuln(r#"{"matches":[]}"#), "no descriptor"),
            (vuln(r#"{"matches":[],"descriptor":{"name":"other"}}"#), "not grype"),
            (vuln(r#"{"matches":[{}],"descriptor":{"name":"grype"}}"#), "no vulnerability"),
            (vuln(r#"{"matches":[],"matches":[],"descriptor":{"name":"grype"}}"#), "twice"),
            (
                vuln(&format!(r#"{{"matches":{}{},"descriptor":{{"name":"grype"}}}}"#, "[".repeat(40), "]".repeat(40))),
                "deeply",
            ),
            (format!("{}x", vuln(GRYPE)), "trailing"),
            (vuln(GRYPE).replace("scanFinishedOn", "scanFinished"), "no scanFinishedOn"),
            (of("null"), "no predicate"),
            (of("[]"), "not an object"),
            ("{}".into(), "no predicate"),
        ] {
            let said = read(Kind::Scan, &text).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
        let long = vuln(TRIVY).replace("CVE-2", &"x".repeat(MAX_ID + 1));
        assert!(read(Kind::Scan, &long).unwrap_err().contains("longer"));
    }

    #[test]
    fn a_long_report_keeps_its_counts_and_the_worst() {
        let entry = |n: usize| {
            let severity = if n == 4999 { "CRITICAL" } else { "LOW" };
            format!(r#"{{"VulnerabilityID":"CVE-{n}","Severity":"{severity}"}}"#)
        };
        let list: Vec<_> = (0..5000).map(entry).collect();
        let text = vuln(&format!(r#"{{"SchemaVersion":2,"Results":[{{"Vulnerabilities":[{}]}}]}}"#, list.join(",")));
        let Ok(Statement::Scan { counts, found, .. }) = read(Kind::Scan, &text) else { panic!() };
        assert_eq!((counts, found.len(), found[0].0.as_str()), ([0, 4999, 0, 0, 1, 0], MAX_FOUND, "CVE-4999"));
    }

    #[test]
    fn bills_of_materials() {
        let said = |format: &str, packages| Ok(Statement::Bom { format: format.into(), packages });
        let spdx = |packages: &str| of(&format!(r#"{{"spdxVersion":"SPDX-2.3","SPDXID":"x"{packages}}}"#));
        assert_eq!(read(Kind::Spdx, &spdx(r#","packages":[{"name":"a"},{"name":"b"}]"#)), said("SPDX", 2));
        assert_eq!(read(Kind::Spdx, &spdx(r#","packages":[]"#)), said("SPDX", 0));
        assert_eq!(read(Kind::Spdx, &spdx("")), said("SPDX", 0));
        let cyclone = |components: &str| of(&format!(r#"{{"bomFormat":"CycloneDX","specVersion":"1.5"{components}}}"#));
        assert_eq!(
            read(Kind::CycloneDx, &cyclone(r#","components":[{"type":"library","name":"a"}]"#)),
            said("CycloneDX", 1)
        );
        assert_eq!(read(Kind::CycloneDx, &cyclone("")), said("CycloneDX", 0));
        for (kind, text, why) in [
            (Kind::Spdx, of("\"SPDXVersion: SPDX-2.3\""), "spdxjson"),
            (Kind::Spdx, of("{}"), "no spdxVersion"),
            (Kind::Spdx, of(r#"{"spdxVersion":"SPDX-9"}"#), "SPDX-2.x"),
            (Kind::Spdx, spdx(r#","packages":[{}]"#), "no name"),
            (Kind::Spdx, spdx(r#","packages":["a"]"#), "not an object"),
            (Kind::CycloneDx, spdx(r#","packages":[{"name":"a"}]"#), "no bomFormat"),
            (Kind::CycloneDx, cyclone(r#","components":[{"name":""}]"#), "without a name"),
            (Kind::CycloneDx, of("\"x\""), "not an object"),
        ] {
            let said = read(kind, &text).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }

    #[test]
    fn provenances() {
        let said = |builder: &str, build_type: &str| {
            Ok(Statement::Provenance { builder: builder.into(), build_type: build_type.into() })
        };
        let v1 = r#"{"buildDefinition":{"buildType":"t","externalParameters":{}},"runDetails":{"builder":{"id":"b"}}}"#;
        assert_eq!(read(Kind::Slsa1, &of(v1)), said("b", "t"));
        let v02 = r#"{"builder":{"id":"b"},"buildType":"t","invocation":{}}"#;
        assert_eq!(read(Kind::Slsa02, &of(v02)), said("b", "t"));
        assert_eq!(read(Kind::Slsa02, &of(r#"{"builder":{"id":"b"}}"#)), said("b", ""));
        for (kind, text) in [
            (Kind::Slsa1, of(v02)),
            (Kind::Slsa02, of(v1)),
            (Kind::Slsa1, of(&v1.replace("\"id\"", "\"ID\""))),
            (Kind::Slsa02, of(&v02.replace("\"id\":\"b\"", "\"id\":\"b\",\"id\":\"c\""))),
            (Kind::Slsa02, of(&v02.replace("\"b\"", "7"))),
        ] {
            assert!(read(kind, &text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_answer_is_read_exactly() {
        for kind in [Kind::Scan, Kind::Spdx, Kind::CycloneDx, Kind::Slsa1, Kind::Slsa02] {
            assert_eq!(Kind::numbered(kind.number()), Some(kind));
        }
        assert_eq!(Kind::of("https://sigstore.dev/cosign/sign/v1"), None);
        assert_eq!(Kind::of("https://spdx.dev/Document"), Some(Kind::Spdx));
        let mut answer = read_statement(Kind::Scan.number(), vuln(GRYPE).as_bytes());
        answer.push(0);
        assert!(decode_statement(&answer).is_err());
        assert!(decode_statement(&[]).is_err() && decode_statement(&[9]).is_err());
        assert_eq!(decode_statement(&[0, 2, 0, 0, 0, b'\n', b'a']), Ok(Err("?a".into())));
        assert!(decode_statement(&read_statement(9, b"{}")).unwrap().is_err());
    }
}
