//! What others say of an image: who scanned it and what was found, what is in it, who built it. Said by the real cosign.
use super::Case;
use super::image::{fresh_copy, store_anew};
use crate::node::World;
use crate::policy::{FOLDER, trust};
use crate::process::run;
use crate::registry::ADDRESS;
use crate::sign::{Cosign, Key};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
/// The scanner's key file.
const SCANNER: &str = "scanner.pub";
/// Of the policy: a scan of this week by the scanner, nothing worse than medium.
const SCANNED: &str = "[image.vulnerabilities]\nmax_days = 7\nmax_severity = \"medium\"\nauthorities = [\"scanner\"]\n";
/// A bill of materials by the scanner.
const LISTED: &str = "[image.sbom]\nauthorities = [\"scanner\"]\n";
/// A provenance by the scanner, of this builder.
const BUILT: &str = "[image.provenance]\nauthorities = [\"scanner\"]\nbuilders = [\"https://ci.example/*\"]\n";

/// One statement: by which cosign, of which of its types, what.
type Said = (Cosign, &'static str, String);

/// Whose key the authority `scanner` has, and who says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Scanner,
    /// The key that signs the image, which is the scanner's for the policy too.
    Build,
    /// The key that signs the image, under the scanner's name.
    Stranger,
}

pub(super) fn cases() -> Vec<Case> {
    macro_rules! case {
        ($name:expr, $rule:expr, $says:expr, $fault:expr, $twin:expr) => {
            Case::new($name, $rule, $says, |world, _| {
                let fault: fn(&mut World) -> Result<()> = $fault;
                fault(world)
            })
            .image("unsigned")
            .mend(|world, _| {
                let twin: fn(&mut World) -> Result<()> = $twin;
                twin(world)
            })
        };
    }
    fn scan(world: &mut World, cosign: Cosign, result: &Value, finished: &str) -> Result<()> {
        said(world, SCANNED, By::Scanner, Some((cosign, "vuln", vuln(result, finished))))
    }
    fn clean(world: &mut World) -> Result<()> {
        scan(world, Cosign::V2, &trivy("LOW"), &now()?)
    }
    fn clean3(world: &mut World) -> Result<()> {
        scan(world, Cosign::V3, &grype("Medium"), &now()?)
    }
    fn by(world: &mut World, by: By) -> Result<()> {
        said(world, SCANNED, by, Some((Cosign::V2, "vuln", vuln(&trivy("LOW"), &now()?))))
    }
    fn tolerated(world: &mut World, expires: &str) -> Result<()> {
        let except = format!(
            "{SCANNED}except = [{{ id = \"CVE-2026-0001\", owner = \"a\", reason = \"not reachable\", expires = \"{expires}\" }}]\n"
        );
        said(world, &except, By::Scanner, Some((Cosign::V2, "vuln", vuln(&trivy("CRITICAL"), &now()?))))
    }
    fn listed(world: &mut World, cosign: Cosign, kind: &'static str, bom: &Value) -> Result<()> {
        said(world, LISTED, By::Scanner, Some((cosign, kind, bom.to_string())))
    }
    fn built(world: &mut World, cosign: Cosign, builder: &str) -> Result<()> {
        let slsa1 = json!({ "buildDefinition": { "buildType": "https://ci.example/build", "externalParameters": {} },
            "runDetails": { "builder": { "id": builder } } });
        let slsa02 = json!({ "builder": { "id": builder }, "buildType": "https://ci.example/build", "invocation": {} });
        let (kind, predicate) = match cosign {
            Cosign::V2 => ("slsaprovenance02", slsa02),
            Cosign::V3 => ("slsaprovenance1", slsa1),
        };
        said(world, BUILT, By::Scanner, Some((cosign, kind, predicate.to_string())))
    }
    vec![
        case!(
            "a vulnerability worse than the policy takes (trivy, cosign 2)",
            "BS-IMG-005",
            "CVE-2026-0001 (critical)",
            |world| scan(world, Cosign::V2, &trivy("CRITICAL"), &now()?),
            clean
        ),
        case!(
            "a vulnerability worse than the policy takes (grype, cosign 3)",
            "BS-IMG-005",
            "GHSA-0001 (high)",
            |world| scan(world, Cosign::V3, &grype("High"), &now()?),
            clean3
        ),
        case!(
            "a severity that the scanner does not know",
            "BS-IMG-005",
            "(unknown)",
            |world| scan(world, Cosign::V2, &trivy("UNKNOWN"), &now()?),
            clean
        ),
        case!(
            "a scan of long ago",
            "BS-IMG-005",
            "scanned it 2026-01-01",
            |world| scan(world, Cosign::V2, &trivy("LOW"), "2026-01-01T00:00:00Z"),
            clean
        ),
        case!(
            "a scan of a schema that nobody knows",
            "BS-IMG-005",
            "neither trivy's nor grype's",
            |world| scan(world, Cosign::V3, &json!({ "findings": [] }), &now()?),
            clean3
        ),
        case!(
            "a scan that another than the scanner signed",
            "BS-IMG-005",
            "no scan by",
            |world| by(world, By::Stranger),
            clean
        ),
        case!(
            "a scan by the key that signs the image",
            "BS-IMG-005",
            "the key that signs the image",
            |world| by(world, By::Build),
            clean
        ),
        case!(
            "a vulnerability that was tolerated until lately",
            "BS-IMG-005",
            "CVE-2026-0001",
            |world| tolerated(world, "2026-01-01"),
            |world| tolerated(world, "2099-01-01")
        ),
        case!(
            "no bill of materials",
            "BS-IMG-006",
            "no bill of materials",
            |world| said(world, LISTED, By::Scanner, None),
            |world| listed(world, Cosign::V2, "spdxjson", &spdx())
        ),
        case!(
            "a bill of materials that lists nothing (CycloneDX)",
            "BS-IMG-006",
            "lists nothing",
            |world| listed(world, Cosign::V3, "cyclonedx", &cyclonedx(json!([]))),
            |world| listed(
                world,
                Cosign::V3,
                "cyclonedx",
                &cyclonedx(json!([{ "type": "library", "name": "busybox" }]))
            )
        ),
        case!(
            "provenance of another builder (SLSA v0.2, cosign 2)",
            "BS-IMG-006",
            "built by https://laptop.example/me",
            |world| built(world, Cosign::V2, "https://laptop.example/me"),
            |world| built(world, Cosign::V2, "https://ci.example/runner")
        ),
        case!(
            "provenance of another builder (SLSA v1, cosign 3)",
            "BS-IMG-006",
            "built by https://laptop.example/me",
            |world| built(world, Cosign::V3, "https://laptop.example/me"),
            |world| built(world, Cosign::V3, "https://ci.example/runner")
        ),
    ]
}

/// A copy of the unsigned image, signed by the node's key, of which somebody says something; and a policy that asks for it.
fn said(world: &mut World, asks: &str, by: By, statement: Option<Said>) -> Result<()> {
    let (ci, scanner) = (world.node.key.clone(), Key::import(&world.node.work, "scanner", P256)?);
    trust(SCANNER, if by == By::Build { &ci.public } else { &scanner.public })?;
    world.undo_later(|_| fs::remove_file(Path::new(FOLDER).join("trust").join(SCANNER)).context(SCANNER));
    let mut policy = world.node.policy.clone();
    let authority = format!("name = \"scanner\"\nkey = \"{SCANNER}\"\nrepositories = [\"{ADDRESS}/demo\"]");
    policy.push("authority", toml::from_str(&authority)?)?;
    let table: toml::Table = toml::from_str(asks)?;
    let asked = table.get("image").and_then(toml::Value::as_table).context("no [image]")?;
    for (name, rules) in asked {
        policy.set(&format!("image.{name}"), rules.clone())?;
    }
    policy.write()?;
    world.undo_later(|world| world.node.policy.write());
    let image = fresh_copy(world)?;
    store_anew(world, &image)?;
    ci.sign(Cosign::V2, &image)?;
    if let Some((cosign, kind, predicate)) = statement {
        let signer = if by == By::Scanner { &scanner } else { &ci };
        signer.attest_as(cosign, &image, kind, &predicate)?;
    }
    world.node.import(&image)
}

fn now() -> Result<String> {
    Ok(run(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]))?.trim().to_owned())
}

/// As `trivy image --format cosign-vuln` writes it around a result.
fn vuln(result: &Value, finished: &str) -> String {
    json!({
        "invocation": { "parameters": null, "uri": "", "event_id": "", "builder.id": "" },
        "scanner": { "uri": "pkg:github/aquasecurity/trivy@0.58.0", "version": "0.58.0", "db": { "uri": "", "version": "" },
                     "result": result },
        "metadata": { "scanStartedOn": finished, "scanFinishedOn": finished },
    })
    .to_string()
}

fn trivy(severity: &str) -> Value {
    json!({ "SchemaVersion": 2, "ArtifactName": "app", "ArtifactType": "container_image", "Results": [
        { "Target": "app (debian 12)", "Class": "os-pkgs", "Type": "debian", "Vulnerabilities": [
            { "VulnerabilityID": "CVE-2026-0001", "PkgName": "busybox", "InstalledVersion": "1.35", "Severity": severity } ] } ] })
}

fn grype(severity: &str) -> Value {
    json!({ "matches": [ { "vulnerability": { "id": "GHSA-0001", "severity": severity }, "artifact": { "name": "busybox" } } ],
        "source": { "type": "image" }, "descriptor": { "name": "grype", "version": "0.86.1" } })
}

fn spdx() -> Value {
    json!({ "spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "name": "app",
        "packages": [ { "name": "busybox", "SPDXID": "SPDXRef-1", "downloadLocation": "NOASSERTION" } ] })
}

fn cyclonedx(components: Value) -> Value {
    json!({ "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": components })
}
