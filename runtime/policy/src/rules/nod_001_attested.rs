//! BS-NOD-001: the node is attested for this boot.
use super::{Ctx, PROCESSES, Rule, TIMEOUT_ROW, UNKNOWN_ROW};
use crate::facts::{Fact, Node};
use crate::policy::Level;
use crate::verdict::Finding;
use crate::{standard, text};

pub(super) static RULE: Rule = Rule {
    id: "BS-NOD-001",
    title: "The node is attested for this boot",
    nist: "4.3.5, 4.6",
    from: Level::Restricted,
    misfit: "deny",
    doors: PROCESSES,
    reads: "node.*, policy node.{attestation_key,pcrs,log,ear}",
    predicate: "a quote of a hardware TPM, made in this boot for this policy, verifies against the enrolled key, and every PCR of the \
        node policy has an accepted value, or is one that the rules on the replayed event log judge good; where the policy asks \
        for a verifier's token, that token verifies for this key and boot.",
    fix: "boltseal node status; then boltseal node enroll, or set node.pcrs",
    conditions: &[
        ("no-tpm", "there is no TPM where the policy says"),
        ("software-tpm", "the TPM is software: it proves nothing about the hardware"),
        ("wrong-pcr", "a PCR has a value that the policy does not accept"),
        ("not-verified", "the quote does not verify for this boot and policy"),
        ("no-policy", "no key is enrolled, or the policy accepts no PCR value"),
        UNKNOWN_ROW,
        TIMEOUT_ROW,
    ],
    cves: &[],
    check,
};

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    let rules = &ctx.policy.node;
    let mut out = Vec::new();
    if rules.attestation_key.is_empty() {
        out.push(RULE.deny("no-policy", "no attestation key is enrolled (node.attestation_key)"));
    }
    let token = rules.ear.as_ref().is_some_and(|ear| ear.instead);
    if rules.pcrs.is_empty() && rules.log.is_none() && !token {
        out.push(RULE.deny(
            "no-policy",
            "the policy names neither PCR values (node.pcrs) nor rules on the event log (node.log)",
        ));
    }
    match &ctx.facts.node {
        Fact::Is(node) => out.extend(judge(node, rules.cap)),
        Fact::Absent => out.push(RULE.deny_fix(
            "no-tpm",
            format!("there is no TPM at {}", text::show(&rules.tpm)),
            "enable the TPM, or set node.tpm",
        )),
        Fact::Unknown(why) => out.push(RULE.unknown("the node's attestation", why)),
    }
    if out.is_empty() {
        let token_alone = "a verifier's token holds for this boot; the TPM was not asked";
        out.push(RULE.pass(if token { token_alone } else { "quote verified for this boot" }));
    }
    out
}

fn judge(node: &Node, cap: Option<u32>) -> Vec<Finding> {
    let mut out = Vec::new();
    match node.tpm.as_str() {
        "hardware" => {}
        "software" => out.push(RULE.deny_fix(
            "software-tpm",
            "the node's TPM is software, which proves nothing about the hardware",
            "use a hardware TPM, or add a dated [[exception]] for `software-tpm`",
        )),
        other => out.push(RULE.deny("not-verified", format!("the TPM's kind is \"{}\"", text::show(other)))),
    }
    for (index, value) in &node.wrong_pcrs {
        if *index == standard::MEASURED_PCR {
            out.push(RULE.deny_fix(
                "wrong-pcr",
                format!("PCR {index} does not show what /run/boltseal/measured lists: something else extended it, or the list is forged"),
                "find out who did, then boot anew",
            ));
            continue;
        }
        if Some(*index) == cap {
            out.push(RULE.deny_fix(
                "wrong-pcr",
                format!("PCR {index} (node.cap) was capped in another boot: kexec started this kernel, or something else extends that PCR"),
                "reboot",
            ));
            continue;
        }
        out.push(RULE.deny(
            "wrong-pcr",
            format!("PCR {index} is {}, which node.pcrs does not accept", text::shorten(&text::escape(value), 20)),
        ));
    }
    if !node.problems.is_empty() {
        out.push(RULE.deny("not-verified", format!("the node's quote: {}", text::list(&node.problems))));
    } else if !node.verified {
        out.push(RULE.deny("not-verified", "the node's quote is not verified"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::outcomes;
    use super::*;
    use crate::fixture;

    fn table(change: impl Fn(&mut Node)) -> Vec<String> {
        let mut facts = fixture::facts();
        if let Fact::Is(node) = &mut facts.node {
            change(node);
        }
        outcomes(&RULE, &fixture::policy(), &facts)
    }

    #[test]
    fn truth_table() {
        assert_eq!(table(|_| {}), ["pass"]);
        assert_eq!(table(|n| n.tpm = "software".into()), ["deny software-tpm"]);
        assert_eq!(table(|n| n.tpm = String::new()), ["deny not-verified"]);
        assert_eq!(table(|n| n.verified = false), ["deny not-verified"]);
        assert_eq!(table(|n| n.problems = vec!["another boot".into()]), ["deny not-verified"]);
        assert_eq!(table(|n| n.wrong_pcrs = vec![(7, "ab".into())]), ["deny wrong-pcr"]);
        assert_eq!(table(|n| n.wrong_pcrs = vec![(13, "ab".into())]), ["deny wrong-pcr"]);
        assert_eq!(table(|n| n.wrong_pcrs = vec![(14, "ab".into())]), ["deny wrong-pcr"]);
        assert_eq!(table(|n| *n = Node::default()), ["deny not-verified"]);
        // The PCR that boltseal itself measures into is mended in another way than those of the boot.
        for (index, says) in [(7, "PCR 7 is ab, which node.pcrs does not accept"), (13, "PCR 13 does not show what")] {
            let node = Node {
                tpm: "hardware".into(),
                verified: true,
                wrong_pcrs: vec![(index, "ab".into())],
                ..Default::default()
            };
            let found = judge(&node, None);
            assert!(found.len() == 1 && found[0].fact.starts_with(says), "{found:?}");
        }
        for (node, expected) in [
            (Fact::Absent, "deny no-tpm"),
            (Fact::Unknown("x".into()), "deny unknown"),
            (Fact::Unknown("timeout".into()), "deny timeout"),
        ] {
            let mut facts = fixture::facts();
            facts.node = node;
            assert_eq!(outcomes(&RULE, &fixture::policy(), &facts), [expected]);
        }
    }

    #[test]
    fn a_capped_pcr_says_kexec_and_not_that_the_policy_lacks_a_value() {
        let mut facts = fixture::facts();
        if let Fact::Is(node) = &mut facts.node {
            node.wrong_pcrs = vec![(14, "ab".into())];
        }
        let mut policy = fixture::policy();
        let said = |policy: &crate::Policy| check(&Ctx::new(policy, &facts)).remove(0).fact;
        assert!(said(&policy).contains("node.pcrs does not accept"));
        policy.node.cap = Some(14);
        assert!(said(&policy).contains("kexec started this kernel"));
    }

    #[test]
    fn without_a_node_policy_nothing_is_attested() {
        let mut policy = fixture::policy();
        policy.node.attestation_key.clear();
        assert_eq!(outcomes(&RULE, &policy, &fixture::facts()), ["deny no-policy"]);
        let mut policy = fixture::policy();
        policy.node.pcrs.clear();
        assert_eq!(outcomes(&RULE, &policy, &fixture::facts()), ["deny no-policy"]);
        policy.node.log = Some(Default::default());
        assert_eq!(outcomes(&RULE, &policy, &fixture::facts()), ["pass"]);
        policy.node.log = None;
        policy.node.ear = Some(Default::default());
        assert_eq!(outcomes(&RULE, &policy, &fixture::facts()), ["deny no-policy"], "a token beside no policy");
        policy.node.ear = Some(crate::policy::EarRules { instead: true, ..Default::default() });
        assert_eq!(outcomes(&RULE, &policy, &fixture::facts()), ["pass"]);
    }
}
