//! BS-IMG-006: what is in the image is listed, and who built it is named, by those whom the policy believes.
use super::gates::{Asked, UNVERIFIED_ROW, asked, names, statements};
use super::{CREATE, Ctx, Rule};
use crate::facts::{Attestation, Bom, Fact, Provenance, Said};
use crate::policy::{BomRules, Level, ProvenanceRules};
use crate::verdict::Finding;
use crate::{pattern, text};

/// Predicate types of a bill of materials.
pub(super) const BOMS: [&str; 2] = ["https://spdx.dev/Document", "https://cyclonedx.org/bom"];
/// Of provenance.
pub(super) const PROVENANCES: [&str; 2] = ["https://slsa.dev/provenance/v1", "https://slsa.dev/provenance/v0.2"];

pub(super) static RULE: Rule = Rule {
    id: "BS-IMG-006",
    title: "A signed bill of materials and the provenance by a named builder are there",
    nist: "4.1.1, 4.1.5",
    from: Level::Restricted,
    misfit: "deny",
    doors: CREATE,
    reads: "image.attestations, now, policy image.{sbom,provenance}, scope.{sbom,provenance}, authority",
    predicate: "where the policy asks for an sbom: an attestation of type https://spdx.dev/Document or https://cyclonedx.org/bom over target or \
        manifest, by an authority that it names for that and for this repository, that lists at least one package. Where it asks for \
        provenance: one of type https://slsa.dev/provenance/v1 or v0.2, whose builder.id matches a pattern of builders and, \
        where build_types are named, whose buildType matches one. What a statement says is read by a jailed worker (trust=jailed). Holds without a \
        look where the policy asks for neither.",
    fix: "cosign attest it (--type spdxjson, cyclonedx, slsaprovenance1), then boltseal sig import",
    conditions: &[
        ("no-sbom", "no bill of materials by an authority that the policy names for it"),
        ("empty-sbom", "the bill of materials lists nothing"),
        ("no-provenance", "no provenance by an authority that the policy names for it"),
        ("builder", "the provenance names another builder"),
        ("build-type", "the provenance names another kind of build"),
        ("unreadable", "a statement is there, but its form is not known or it cannot be read"),
        UNVERIFIED_ROW,
    ],
    cves: &[],
    check,
};

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    let bom = asked(ctx, &RULE, |scope| scope.sbom.as_ref(), |image| image.sbom.as_ref());
    let provenance = asked(ctx, &RULE, |scope| scope.provenance.as_ref(), |image| image.provenance.as_ref());
    let bom = bom.map_or_else(|finding| *finding, |asked| materials(ctx, &asked));
    let provenance = provenance.map_or_else(|finding| *finding, |asked| builder(ctx, &asked));
    vec![bom, provenance]
}

fn materials(ctx: &Ctx<'_>, asked: &Asked<'_, BomRules>) -> Finding {
    let authorities = &asked.rules.authorities;
    best(ctx, asked, authorities, &BOMS, ("no-sbom", "bill of materials"), |authority, said| match said {
        Said::Bom(Bom { packages: 0, format }) => {
            Err(("empty-sbom", format!("the {} document of \"{authority}\" lists nothing", text::show(format))))
        }
        Said::Bom(bom) => Ok(format!(
            "{} packages listed in {} by \"{authority}\" (trust=jailed)",
            bom.packages,
            text::show(&bom.format)
        )),
        _ => Err(("unreadable", format!("\"{authority}\" says something else"))),
    })
}

fn builder(ctx: &Ctx<'_>, asked: &Asked<'_, ProvenanceRules>) -> Finding {
    let rules = asked.rules;
    let one_of = |patterns: &[String], text: &str| patterns.iter().any(|p| pattern::matches(p, text));
    best(ctx, asked, &rules.authorities, &PROVENANCES, ("no-provenance", "provenance"), |authority, said| match said {
        Said::Provenance(Provenance { builder, .. }) if builder.is_empty() || !one_of(&rules.builders, builder) => {
            Err(("builder", format!("\"{authority}\" says it was built by {}", text::show(builder))))
        }
        Said::Provenance(Provenance { build_type, .. })
            if !rules.build_types.is_empty() && !one_of(&rules.build_types, build_type) =>
        {
            Err(("build-type", format!("\"{authority}\" says it is a build of type {}", text::show(build_type))))
        }
        Said::Provenance(provenance) => {
            Ok(format!("built by {}, says \"{authority}\" (trust=jailed)", text::show(&provenance.builder)))
        }
        _ => Err(("unreadable", format!("\"{authority}\" says something else"))),
    })
}

/// One statement that holds suffices; where none does, the reason that says most.
fn best<T>(
    ctx: &Ctx<'_>,
    asked: &Asked<'_, T>,
    authorities: &[String],
    kinds: &[&str],
    (missing, what): (&'static str, &str),
    judge: impl Fn(&str, &Said) -> Result<String, (&'static str, String)>,
) -> Finding {
    let (found, bad) = statements(ctx, asked, authorities, kinds);
    let mut bad: Vec<_> = bad.into_iter().map(|why| (missing, why)).collect();
    let read = |statement: &&Attestation| {
        let authority = text::show(&statement.authority);
        match &statement.says {
            Fact::Is(said) => judge(&authority, said),
            Fact::Absent => Err(("unreadable", format!("what \"{authority}\" says was not read"))),
            Fact::Unknown(why) => {
                Err(("unreadable", format!("\"{authority}\" says what cannot be read: {}", text::show(why))))
            }
        }
    };
    let mut good = Vec::new();
    for said in found.iter().map(read) {
        match said {
            Ok(fact) => good.push(fact),
            Err(why) => bad.push(why),
        }
    }
    if let Some(fact) = good.into_iter().min() {
        return RULE.pass(fact);
    }
    match bad.into_iter().max_by_key(|(condition, why)| (*condition != missing, why.clone())) {
        Some((condition @ ("builder" | "build-type"), why)) => {
            RULE.deny_fix(condition, why, "build it with a named builder, or add that one to the policy")
        }
        Some((condition, why)) => RULE.deny(condition, why),
        None => RULE.deny(missing, format!("no {what} by {} is there", names(authorities))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::{Facts, Policy, fixture};

    fn table(change: impl Fn(&mut Policy, &mut Facts)) -> String {
        let (mut policy, mut facts) = (fixture::policy(), fixture::facts());
        fixture::gated(&mut policy, &mut facts);
        change(&mut policy, &mut facts);
        outcomes(&RULE, &policy, &facts).join("; ")
    }

    fn taken(facts: &mut Facts, kind: &str) -> Attestation {
        let Fact::Is(image) = &mut facts.image else { panic!() };
        let at = image.attestations.iter().position(|a| a.predicate_type == kind).unwrap();
        image.attestations.remove(at)
    }

    /// Takes a statement out, changes it, puts it back.
    fn change(facts: &mut Facts, kind: &str, with: impl Fn(&mut Attestation)) {
        let mut taken = taken(facts, kind);
        with(&mut taken);
        let Fact::Is(image) = &mut facts.image else { panic!() };
        image.attestations.push(taken);
    }

    const SPDX: &str = BOMS[0];
    const SLSA: &str = PROVENANCES[0];

    #[test]
    fn a_bill_of_materials() {
        assert_eq!(table(|_, _| {}), "pass");
        assert_eq!(table(|_, f| drop(taken(f, SPDX))), "deny no-sbom; pass");
        assert_eq!(table(|_, f| change(f, SPDX, |a| a.predicate_type = BOMS[1].into())), "pass");
        assert_eq!(
            table(|_, f| change(f, SPDX, |a| a.predicate_type = "https://spdx.dev/other".into())),
            "deny no-sbom; pass"
        );
        assert_eq!(table(|_, f| change(f, SPDX, |a| a.authority = "scanner".into())), "deny no-sbom; pass");
        assert_eq!(table(|_, f| change(f, SPDX, |a| a.digest = fixture::digest('d'))), "deny no-sbom; pass");
        for (says, expected) in [
            (Fact::Is(Said::Bom(Bom { format: "SPDX".into(), packages: 0 })), "deny empty-sbom; pass"),
            (Fact::Is(Said::Scan(Default::default())), "deny unreadable; pass"),
            (Fact::Unknown("deep".into()), "deny unreadable; pass"),
            (Fact::Absent, "deny unreadable; pass"),
        ] {
            assert_eq!(table(|_, f| change(f, SPDX, |a| a.says = says.clone())), expected, "{says:?}");
        }
        // What is there and says nothing good is told, not that another one is missing.
        let beside_an_expired_one = |p: &mut Policy, f: &mut Facts| {
            let asked = &mut p.image.sbom.as_mut().unwrap().authorities;
            let mut other = p.authorities.iter().find(|a| a.name == asked[0]).unwrap().clone();
            (other.name, other.until) = ("other".into(), Some("2026-11-01".into()));
            asked.push("other".into());
            p.authorities.push(other);
            let mut statement = taken(f, SPDX);
            statement.says = Fact::Absent;
            let expired = Attestation { authority: "other".into(), ..statement.clone() };
            let Fact::Is(image) = &mut f.image else { panic!() };
            image.attestations.extend([statement, expired]);
        };
        assert_eq!(table(beside_an_expired_one), "deny unreadable; pass");
    }

    #[test]
    fn a_provenance() {
        let says = |builder: &str, kind: &str| {
            let said = Said::Provenance(Provenance { builder: builder.into(), build_type: kind.into() });
            move |f: &mut Facts| change(f, SLSA, |a| a.says = Fact::Is(said.clone()))
        };
        assert_eq!(table(|_, f| drop(taken(f, SLSA))), "deny no-provenance; pass");
        assert_eq!(table(|_, f| change(f, SLSA, |a| a.predicate_type = PROVENANCES[1].into())), "pass");
        for (builder, kind, expected) in [
            ("https://ci.corp.example/runner/7", "https://ci.corp.example/build", "pass"),
            ("https://ci.corp.example.evil/runner", "https://ci.corp.example/build", "deny builder; pass"),
            ("", "https://ci.corp.example/build", "deny builder; pass"),
            ("https://ci.corp.example/runner/7", "https://elsewhere/build", "deny build-type; pass"),
            ("https://ci.corp.example/runner/7", "", "deny build-type; pass"),
        ] {
            assert_eq!(table(|_, f| says(builder, kind)(f)), expected, "{builder} {kind}");
        }
        let any = |p: &mut Policy, f: &mut Facts| {
            p.image.provenance.as_mut().unwrap().build_types.clear();
            says("https://ci.corp.example/runner/7", "")(f);
        };
        assert_eq!(table(any), "pass");
        // Of several, one that holds suffices.
        let two = |f: &mut Facts| {
            let Fact::Is(image) = &mut f.image else { panic!() };
            let mut other = image.attestations.iter().find(|a| a.predicate_type == SLSA).unwrap().clone();
            other.says = Fact::Is(Said::Provenance(Provenance::default()));
            image.attestations.insert(0, other);
        };
        assert_eq!(table(|_, f| two(f)), "pass");
    }

    #[test]
    fn each_is_asked_where_the_policy_asks() {
        let none = |f: &mut Facts| {
            let Fact::Is(image) = &mut f.image else { panic!() };
            image.attestations.clear();
        };
        assert_eq!(table(|_, f| none(f)), "deny no-provenance; deny no-sbom");
        let without = |sbom: bool, provenance: bool| {
            table(|p, f| {
                none(f);
                p.image.sbom = p.image.sbom.take().filter(|_| sbom);
                p.image.provenance = p.image.provenance.take().filter(|_| provenance);
            })
        };
        assert_eq!(without(true, false), "deny no-sbom; pass");
        assert_eq!(without(false, true), "deny no-provenance; pass");
        assert_eq!(without(false, false), "pass");
        assert_eq!(table(|p, _| p.authorities.retain(|a| a.name != "ci")), "deny unverified");
    }
}
