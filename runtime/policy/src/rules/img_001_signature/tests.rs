//! The truth table.
use super::super::outcomes;
use super::*;
use crate::fixture;
use crate::policy::Allowance;

fn table(change: impl Fn(&mut Policy, &mut Facts)) -> Vec<String> {
    let (mut policy, mut facts) = (fixture::policy(), fixture::facts());
    change(&mut policy, &mut facts);
    outcomes(&RULE, &policy, &facts)
}

fn with_image(change: impl Fn(&mut Image)) -> Vec<String> {
    table(|_, f| {
        if let Fact::Is(image) = &mut f.image {
            change(image);
        }
    })
}

#[test]
fn truth_table() {
    assert_eq!(table(|_, _| {}), ["pass"]);
    assert_eq!(table(|_, f| f.image = Fact::Unknown("x".into())), ["deny unknown"]);
    assert_eq!(table(|_, f| f.image = Fact::Unknown("timeout: containerd".into())), ["deny timeout"]);
    assert_eq!(table(|_, f| f.image = Fact::Absent), ["deny no-image"]);
    assert_eq!(with_image(|i| i.signatures.clear()), ["deny unsigned"]);
    assert_eq!(with_image(|i| i.signatures[0].authority = "other".into()), ["deny wrong-key"]);
    assert_eq!(with_image(|i| i.signatures[0].digest = fixture::digest('f')), ["deny other-digest"]);
    assert_eq!(with_image(|i| i.signatures[0].repository = None), ["pass"]);
    assert_eq!(with_image(|i| i.signatures[0].repository = Some("docker.io/x".into())), ["deny wrong-repository"]);
    assert_eq!(with_image(|i| i.signatures[0].digest = i.manifest.clone()), ["pass"]);
    for (line, expected) in [
        ("attestation: cosign.sigstore.dev/attestation/v1 is no signature", "deny attestation"),
        ("wrong-key: sha256:ab", "deny wrong-key"),
        ("other-digest: sha256:ab", "deny other-digest"),
        ("certificate: notation: the leaf has expired", "deny certificate"),
        ("malformed: no JSON", "deny malformed"),
        ("store: the folder of its signatures holds more than 1024 files", "deny store"),
        ("something else", "deny unsigned"),
        ("something: else", "deny unsigned"),
    ] {
        let got = with_image(|i| {
            i.signatures.clear();
            i.rejected = vec![line.into()];
        });
        assert_eq!(got, [expected]);
    }
}

#[test]
fn a_certificate_has_a_fix_of_its_own() {
    let image = fixture::facts().image.is().cloned().unwrap();
    assert!(rejected(&image, "certificate: notation: the leaf has expired").fix.contains("notation sign"));
    assert!(rejected(&image, "certificate: keyless: signed by nobody").fix.contains("cosign sign"));
    assert!(!rejected(&image, "malformed: no JSON").fix.contains("notation sign"));
}

/// A workflow and its issuer are longer than what else is quoted.
#[test]
fn who_signed_stands_there_whole() {
    let who = "https://github.com/corp/a-repository-with-a-long-name/.github/workflows/release.yml@refs/tags/v1.22.333 of \
               https://token.actions.githubusercontent.com";
    let (policy, mut facts) = (fixture::policy(), fixture::facts());
    let Fact::Is(image) = &mut facts.image else { panic!() };
    image.signatures[0].format = format!("sigstore-keyless by {who}, trust=jailed");
    let fact = &facts_of(&policy, &facts)[0].0;
    assert!(fact.ends_with(&format!("(sigstore-keyless by {who}, trust=jailed)")), "{fact}");
    let line = format!("certificate: keyless: signed by {who}, whom the authority does not name");
    let fact = rejected(&fixture::facts().image.is().cloned().unwrap(), &line).fact;
    assert!(fact.ends_with("whom the authority does not name") && fact.contains(who), "{fact}");
    // Bounded all the same.
    let endless = format!("malformed: {}", "x".repeat(5000));
    assert!(rejected(&fixture::facts().image.is().cloned().unwrap(), &endless).fact.len() < 500);
}

#[test]
fn the_policy_side() {
    assert_eq!(table(|p, _| p.scopes.clear()), ["deny no-scope"]);
    assert_eq!(table(|p, _| p.scopes[0].authorities = vec!["x".into()]), ["deny wrong-authority"]);
    assert_eq!(table(|p, _| p.image.deny_digests = vec![fixture::digest('a')]), ["deny denied-digest"]);
    assert_eq!(table(|p, _| p.image.deny_digests = vec![fixture::digest('c')]), ["deny denied-digest"]);
    // A layer by its diff_id.
    assert_eq!(table(|p, _| p.image.deny_digests = vec![fixture::digest('9')]), ["deny denied-digest"]);
    assert_eq!(table(|p, _| p.image.deny_digests = vec![fixture::digest('7')]), ["pass"]);
    assert_eq!(table(|p, _| p.authorities.clear()), ["deny wrong-key"]);
    // The longest scope decides, and a wider one that names the authority does not help.
    let narrow =
        Scope { repository: "ghcr.io/corp/app".into(), authorities: vec!["x".into()], need: 1, ..Scope::default() };
    assert_eq!(table(|p, _| p.scopes.push(narrow.clone())), ["deny wrong-authority"]);
    let unpinned = |p: &mut Policy, f: &mut Facts| {
        p.authorities[0].repositories.push("quay.io/corp".into());
        if let Fact::Is(image) = &mut f.image {
            image.signatures[0].repository = None;
        }
    };
    assert_eq!(table(unpinned), ["deny not-pinned"]);
}

#[test]
fn a_scope_denies_what_it_covers() {
    let denying = |repository: &str, digit: char| {
        table(|p, _| {
            let scope = Scope {
                repository: repository.into(),
                deny_digests: vec![fixture::digest('0'), fixture::digest(digit)],
                ..p.scopes[0].clone()
            };
            p.scopes.retain(|s| s.repository != repository);
            p.scopes.push(scope);
        })
    };
    // Index, manifest, config, layers; the chain id is none of them.
    for digit in ['a', 'b', 'c', '8'] {
        assert_eq!(denying("ghcr.io/corp", digit), ["deny denied-digest"], "{digit}");
    }
    assert_eq!(denying("ghcr.io/corp", 'e'), ["pass"]);
    // Of a wider scope and of the narrowest, and not of a neighbour.
    assert_eq!(denying("ghcr.io", 'a'), ["deny denied-digest"]);
    assert_eq!(denying("ghcr.io/corp/app", 'a'), ["deny denied-digest"]);
    assert_eq!(denying("ghcr.io/corp/zed", 'a'), ["pass"]);
}

#[test]
fn a_denial_of_a_part_names_it() {
    let said = |digit: char| {
        let (mut policy, facts) = (fixture::policy(), fixture::facts());
        policy.scopes[0].deny_digests = vec![fixture::digest(digit)];
        facts_of(&policy, &facts)[0].0.clone()
    };
    let list = "is in deny_digests of scope ghcr.io/corp";
    assert_eq!(said('b'), format!("{} {list}", fixture::digest('b')));
    assert_eq!(said('9'), format!("layer {} {list}", fixture::digest('9')));
}

/// The fixture's now is 2026-11-23, midnight.
#[test]
fn an_authority_counts_within_its_dates() {
    let dated = |from: &str, until: &str, now: Fact<u64>| {
        table(|p, f| {
            let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            (p.authorities[0].from, p.authorities[0].until) = (some(from), some(until));
            f.now = now.clone();
        })
    };
    let now = || fixture::facts().now;
    assert_eq!(dated("2026-11-23", "2026-11-23", now()), ["pass"]);
    assert_eq!(dated("2026-11-24", "", now()), ["deny not-yet-valid"]);
    assert_eq!(dated("", "2026-11-22", now()), ["deny expired"]);
    // A clock that is not believed: whoever has dates counts for nothing, whoever has none does as before.
    for unknown in [Fact::Unknown("it went back".into()), Fact::Absent] {
        assert_eq!(dated("2026-11-23", "", unknown.clone()), ["deny unknown"]);
        assert_eq!(dated("", "2026-11-23", unknown.clone()), ["deny unknown"]);
        assert_eq!(dated("", "", unknown), ["pass"]);
    }
}

/// Old and new key side by side: while both count either signature will do, and later the new one alone.
#[test]
fn windows_overlap_while_keys_are_rotated() {
    let rotating = |now: u64, signer: (&str, char, char)| {
        let (mut policy, mut facts) = several(1, &[signer]);
        policy.authorities[0].until = Some("2026-11-30".into());
        policy.authorities[1].from = Some("2026-11-01".into());
        facts.now = Fact::Is(now);
        outcomes(&RULE, &policy, &facts)
    };
    let (old, new) = (("ci", '1', 'a'), ("release", '2', 'a'));
    let (before, during, after) = (1_793_404_800, 1_795_392_000, 1_796_083_200);
    assert_eq!(
        (rotating(before, old), rotating(before, new)),
        (vec!["pass".into()], vec!["deny not-yet-valid".into()])
    );
    assert_eq!((rotating(during, old), rotating(during, new)), (vec!["pass".into()], vec!["pass".into()]));
    assert_eq!((rotating(after, old), rotating(after, new)), (vec!["deny expired".into()], vec!["pass".into()]));
}

/// Without a trusted time nothing meets a minimum, and with one it has to be late enough.
#[test]
fn a_minimum_signing_time_asks_for_a_time() {
    let signed = |least: Option<&str>, at: Option<u64>| {
        table(|p, f| {
            p.authorities[0].min_signing_time = least.map(str::to_owned);
            if let Fact::Is(image) = &mut f.image {
                image.signatures[0].signed_at = at;
            }
        })
    };
    assert_eq!((signed(None, None), signed(None, Some(0))), (vec!["pass".to_owned()], vec!["pass".to_owned()]));
    assert_eq!(signed(Some("2026-11-01"), None), ["deny no-signing-time"]);
    assert_eq!(signed(Some("2026-11-23"), Some(1_795_391_999)), ["deny signed-too-early"]);
    assert_eq!(signed(Some("2026-11-23"), Some(1_795_392_000)), ["pass"]);
}

#[test]
fn dates_are_explained() {
    let said = |change: &dyn Fn(&mut Authority)| {
        let (mut policy, facts) = (fixture::policy(), fixture::facts());
        change(&mut policy.authorities[0]);
        facts_of(&policy, &facts)[0].0.clone()
    };
    assert_eq!(said(&|a| a.from = Some("2027-01-01".into())), "\"ci\" counts from 2027-01-01 on");
    assert_eq!(said(&|a| a.until = Some("2026-01-01".into())), "\"ci\" counted until 2026-01-01");
    assert_eq!(
        said(&|a| a.min_signing_time = Some("2026-01-01".into())),
        "\"ci\" counts if signed since 2026-01-01; a cosign-signature does not prove when"
    );
}

#[test]
fn a_sandbox_is_a_pinned_digest_with_its_own_arguments() {
    let pin = |p: &mut Policy, f: &mut Facts| {
        p.sandbox.digests = vec![fixture::digest('b')];
        if let Fact::Is(image) = &mut f.image {
            image.signatures.clear();
        }
    };
    assert_eq!(table(pin), ["pass"]);
    assert_eq!(
        table(|p, f| {
            pin(p, f);
            f.process.args = vec!["sh".into()];
        }),
        ["deny unsigned"]
    );
    assert_eq!(
        table(|p, f| {
            pin(p, f);
            p.image.deny_digests = vec![fixture::digest('b')];
        }),
        ["deny denied-digest"]
    );
}

#[test]
fn one_good_signature_suffices_in_any_order() {
    let two = |reverse: bool| {
        with_image(move |i| {
            let mut other = i.signatures[0].clone();
            other.authority = "other".into();
            i.signatures.push(other);
            i.rejected = vec!["malformed: x".into()];
            if reverse {
                i.signatures.reverse();
            }
        })
    };
    assert_eq!(two(false), ["pass"]);
    assert_eq!(two(true), ["pass"]);
}

/// Two authorities with a key each, and signatures by those of `signers`: (authority, key, over index or manifest).
fn needing(need: usize, signers: &[(&str, char, char)]) -> Vec<String> {
    let (policy, facts) = several(need, signers);
    outcomes(&RULE, &policy, &facts)
}

fn several(need: usize, signers: &[(&str, char, char)]) -> (Policy, Facts) {
    let (mut policy, mut facts) = (fixture::policy(), fixture::facts());
    policy.scopes[0].need = need;
    for name in ["release", "ops"] {
        policy.scopes[0].authorities.push(name.into());
        policy.authorities.push(Authority { name: name.into(), ..policy.authorities[0].clone() });
    }
    if let Fact::Is(image) = &mut facts.image {
        let of = |(authority, key, over): &(&str, char, char)| Signature {
            authority: (*authority).into(),
            key: key.to_string().repeat(64),
            digest: fixture::digest(*over),
            ..image.signatures[0].clone()
        };
        image.signatures = signers.iter().map(of).collect();
    }
    (policy, facts)
}

#[test]
fn as_many_keys_as_the_scope_needs() {
    let few = ["deny too-few-signatures"];
    assert_eq!(needing(1, &[("ci", '1', 'a')]), ["pass"]);
    assert_eq!(needing(2, &[("ci", '1', 'a')]), few);
    assert_eq!(needing(2, &[("ci", '1', 'a'), ("release", '2', 'a')]), ["pass"]);
    assert_eq!(needing(2, &[("ci", '1', 'a'), ("release", '2', 'a'), ("ops", '3', 'a')]), ["pass"]);
    assert_eq!(needing(3, &[("ci", '1', 'a'), ("release", '2', 'a')]), few);
    // One over the index and one over the manifest are both over what runs.
    assert_eq!(needing(2, &[("ci", '1', 'a'), ("release", '2', 'b')]), ["pass"]);
    // A key counts once: signed twice, over both digests, or under two names.
    assert_eq!(needing(2, &[("ci", '1', 'a'), ("ci", '1', 'a')]), few);
    assert_eq!(needing(2, &[("ci", '1', 'a'), ("ci", '1', 'b')]), few);
    assert_eq!(needing(2, &[("ci", '1', 'a'), ("release", '1', 'a')]), few);
    assert_eq!(needing(2, &[("ci", '1', 'a'), ("release", '1', 'a'), ("ops", '2', 'a')]), ["pass"]);
    // What does not count by itself does not count here.
    assert_eq!(needing(2, &[("ci", '1', 'a'), ("stranger", '2', 'a')]), ["deny too-few-signatures", "deny wrong-key"]);
    assert_eq!(
        needing(2, &[("ci", '1', 'a'), ("release", '2', 'f')]),
        ["deny other-digest", "deny too-few-signatures"]
    );
}

/// Keys count for one repository: two halves are no whole.
#[test]
fn signatures_for_two_repositories_do_not_add_up() {
    let (policy, mut facts) = several(2, &[("ci", '1', 'a'), ("release", '2', 'a')]);
    assert_eq!(outcomes(&RULE, &policy, &facts), ["pass"]);
    if let Fact::Is(image) = &mut facts.image {
        image.signatures[1].repository = Some("ghcr.io/corp/zed".into());
    }
    assert_eq!(outcomes(&RULE, &policy, &facts), ["deny too-few-signatures"]);
}

/// The name chooses among what has enough, and not what has not.
#[test]
fn a_recorded_name_does_not_choose_what_has_too_few() {
    let (mut policy, mut facts) = several(2, &[("ci", '1', 'a'), ("release", '2', 'a'), ("ci", '1', 'a')]);
    if let Fact::Is(image) = &mut facts.image {
        image.signatures[2].repository = Some("ghcr.io/corp/zed".into());
    }
    facts.subject.image_name = "ghcr.io/corp/zed:1".into();
    assert_eq!(Ctx::new(&policy, &facts).repository(), Some("ghcr.io/corp/app"));
    // The longest scope says how many: with one key for zed alone, it has enough.
    policy.scopes.push(Scope { repository: "ghcr.io/corp/zed".into(), need: 1, ..policy.scopes[0].clone() });
    assert_eq!(Ctx::new(&policy, &facts).repository(), Some("ghcr.io/corp/zed"));
}

fn facts_of(policy: &Policy, facts: &Facts) -> Vec<(String, String)> {
    check(&Ctx::new(policy, facts)).into_iter().map(|f| (f.fact, f.fix)).collect()
}

#[test]
fn who_signed_is_said_and_who_is_missing() {
    let said = |need, signers: &[_]| {
        let (policy, facts) = several(need, signers);
        facts_of(&policy, &facts)
    };
    let pass = |text: &str| (text.to_owned(), String::new());
    assert_eq!(
        said(1, &[("ci", '1', 'a'), ("release", '2', 'a')]),
        [
            pass("ghcr.io/corp/app signed by \"ci\" (cosign-signature)"),
            pass("ghcr.io/corp/app signed by \"release\" (cosign-signature)")
        ]
    );
    assert_eq!(
        said(2, &[("release", '2', 'a'), ("ci", '1', 'a'), ("ops", '3', 'a')]),
        ["ci", "ops", "release"]
            .map(|name| pass(&format!("ghcr.io/corp/app signed by \"{name}\" (cosign-signature), 3 keys of 2")))
    );
    let few = |fact: &str, fix: &str| (format!("{fact} ghcr.io/corp/app"), fix.to_owned());
    assert_eq!(
        said(2, &[("ci", '1', 'a')]),
        [few("1 of 2 needed keys signed (\"ci\")", "have \"release\", \"ops\" sign it too, then boltseal sig import")]
    );
    assert_eq!(
        said(2, &[("ci", '1', 'a'), ("release", '1', 'a')]),
        [few(
            "1 of 2 needed keys signed (\"ci\", \"release\", some with the same key)",
            "have \"ops\" sign it too, then boltseal sig import"
        )]
    );
    assert_eq!(
        said(3, &[("ci", '1', 'a'), ("release", '1', 'a'), ("ops", '2', 'a')])[0].1,
        "give the scope an authority with a key of its own"
    );
}

/// Of an authority's formats the first by name stands in the record, in whatever order they were found.
#[test]
fn one_format_of_each_authority_is_recorded() {
    for reverse in [false, true] {
        let (policy, mut facts) = several(1, &[("ci", '1', 'a'), ("ci", '1', 'a')]);
        if let Fact::Is(image) = &mut facts.image {
            image.signatures[1].format = "sigstore-bundle".into();
            if reverse {
                image.signatures.reverse();
            }
        }
        let said: Vec<_> = facts_of(&policy, &facts).into_iter().map(|(fact, _)| fact).collect();
        assert_eq!(said, ["ghcr.io/corp/app signed by \"ci\" (cosign-signature)"]);
    }
}

/// An allowance is its authority's word: that one must be among those that signed, and others beside it take nothing away.
#[test]
fn an_allowance_needs_its_own_authority_among_the_signers() {
    let granted = |authority: &str, signers: &[_]| {
        let (mut policy, facts) = several(2, signers);
        policy.allowances = vec![Allowance { authority: authority.into(), ..fixture::allowance() }];
        Ctx::new(&policy, &facts).allowances.len()
    };
    let both = [("ci", '1', 'a'), ("release", '2', 'a')];
    assert_eq!((granted("ci", &both), granted("release", &both), granted("ops", &both)), (1, 1, 0));
    // With too few there is no identity, so nothing is allowed.
    assert_eq!(granted("ci", &both[..1]), 0);
}

/// What was counted at create is what an exec goes by.
#[test]
fn an_exec_goes_by_all_that_its_record_names() {
    let (policy, facts) = several(2, &[("ci", '1', 'a'), ("release", '2', 'a')]);
    let Identity::Signed(signed) = Ctx::new(&policy, &facts).identity else { panic!("not signed") };
    assert_eq!(
        (signed.by.keys().map(String::as_str).collect::<Vec<_>>(), signed.keys),
        (vec!["ci", "release"], (2, 2))
    );
    let bound = |authority: Option<&str>, authorities: &[&str]| {
        let mut facts = facts.clone();
        facts.door = Door::Exec;
        facts.bound = Fact::Is(Bound {
            repository: Some("ghcr.io/corp/app".into()),
            authority: authority.map(str::to_owned),
            authorities: fixture::set(authorities),
            ..Default::default()
        });
        match Ctx::new(&policy, &facts).identity {
            Identity::Signed(signed) => signed.by.into_keys().collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(bound(Some("ci"), &[]), ["ci"]);
    assert_eq!(bound(Some("ci"), &["ci", "release"]), ["ci", "release"]);
}

/// The name in containerd's record chooses among what is verified, and proves nothing by itself.
#[test]
fn of_several_repositories_the_recorded_name_chooses() {
    let chosen = |image_name: &str, reverse: bool| {
        let (policy, mut facts) = (fixture::policy(), fixture::facts());
        facts.subject.image_name = image_name.into();
        if let Fact::Is(image) = &mut facts.image {
            let mut other = image.signatures[0].clone();
            other.repository = Some("ghcr.io/corp/zed".into());
            image.signatures.push(other);
            if reverse {
                image.signatures.reverse();
            }
        }
        Ctx::new(&policy, &facts).repository().map(str::to_owned)
    };
    for reverse in [false, true] {
        assert_eq!(chosen("ghcr.io/corp/app:1", reverse).as_deref(), Some("ghcr.io/corp/app"));
        assert_eq!(chosen("ghcr.io/corp/zed:1", reverse).as_deref(), Some("ghcr.io/corp/zed"));
        assert_eq!(chosen("docker.io/library/nginx", reverse).as_deref(), Some("ghcr.io/corp/app"));
    }
}

#[test]
fn references() {
    for (reference, expected) in [
        ("ghcr.io/a/b:1", "ghcr.io/a/b"),
        ("localhost:5000/a", "localhost:5000/a"),
        ("localhost:5000/a:1@sha256:ab", "localhost:5000/a"),
        ("", ""),
    ] {
        assert_eq!(repository_of(reference), expected);
    }
}
