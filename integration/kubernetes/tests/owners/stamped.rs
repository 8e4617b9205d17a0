//! What `owner-stamp.yaml` writes is what `owner.yaml` accepts and what BS-OWN-001 takes.
use crate::ask::{NOBODY, TEMPLATES, create, own, owner, template, update};
use crate::{HOLD, STAMP, show};
use admission::{Policies, Request};
use boltseal_policy::{Fact, Verdict, decide, fixture};
use serde_json::json;

const DEPLOYS: &str = "system:serviceaccount:kube-system:deployment-controller";

/// Title, request, who owns it afterwards.
fn rows() -> Vec<(&'static str, Request, &'static str)> {
    let mut rows = Vec::new();
    for resource in TEMPLATES.into_iter().chain(["pods"]) {
        for named in [NOBODY, "bob", "alice"] {
            rows.push(("new, whatever it says", create("alice", resource, named), "alice"));
        }
        let mut bare = create("alice", resource, NOBODY);
        template(&mut bare.object).as_object_mut().unwrap().remove("metadata");
        if resource == "pods" {
            bare.object["metadata"] = json!({ "generateName": "web-" });
        }
        rows.push(("new, without metadata", bare, "alice"));
        rows.push(("nothing changes", update("bob", resource, "alice"), "alice"));
        rows.push((
            "the cluster's own",
            Request { namespace: "kube-system".into(), ..create("alice", resource, NOBODY) },
            NOBODY,
        ));
    }
    for resource in TEMPLATES {
        let mut changed = update("bob", resource, "alice");
        template(&mut changed.object)["spec"]["containers"][0]["image"] = json!("a.io/app:2");
        rows.push(("another changes it", changed.clone(), "bob"));
        own(&mut changed.object, "carol");
        rows.push(("another changes it and names a third", changed, "bob"));
        rows.push(("no owner, no change", update("bob", resource, NOBODY), NOBODY));
    }
    rows.push((
        "a pod by a controller",
        create("system:serviceaccount:kube-system:job-controller", "pods", "alice"),
        "alice",
    ));
    rows.push(("a mirror of a static pod", create("system:node:n1", "pods", "alice"), "alice"));
    rows.push(("a template by a controller", create(DEPLOYS, "replicasets", "alice"), "alice"));
    let mut rolled = update(DEPLOYS, "replicasets", "alice");
    own(&mut rolled.object, "bob");
    rows.push(("a template that a controller changes", rolled, "bob"));
    rows.push((
        "an operator's account answers for what it makes",
        create("system:serviceaccount:ops:operator", "pods", "alice"),
        "system:serviceaccount:ops:operator",
    ));
    rows
}

#[test]
fn what_is_stamped_is_held() {
    let (stamp, both) = (Policies::read(&[STAMP]).unwrap(), Policies::read(&[STAMP, HOLD]).unwrap());
    for (title, request, expected) in rows() {
        let kept = both.admit(&request).unwrap_or_else(|why| panic!("{title}: {}: {why}", show(&request)));
        assert_eq!(owner(&kept), expected, "{title}: {}", show(&request));
        assert_eq!(stamp.admit(&request), Ok(kept.clone()), "{title}: to hold changes nothing");
        // The owner is all that is written.
        let (mut kept, mut asked) = (kept, request.object.clone());
        own(&mut kept, "x");
        own(&mut asked, "x");
        assert_eq!(kept, asked, "{title}");
    }
}

/// What a stamp cannot write a controller's template is still held to.
#[test]
fn a_stamp_excuses_nothing() {
    let both = Policies::read(&[STAMP, HOLD]).unwrap();
    let missing = both.admit(&create(DEPLOYS, "replicasets", NOBODY)).unwrap_err();
    assert!(missing.contains("is missing in the pod template"), "{missing}");
    let mut moved = update("bob", "pods", "alice");
    own(&mut moved.object, "bob");
    assert!(both.admit(&moved).unwrap_err().contains("the owner of a pod does not change"));
}

/// The names that an API server authenticates are owners that a policy can name.
#[test]
fn what_is_stamped_is_an_owner_on_the_node() {
    let stamp = Policies::read(&[STAMP]).unwrap();
    let account = format!("system:serviceaccount:{}:{}", "n".repeat(63), "a".repeat(170));
    for (user, pattern, other) in [
        ("alice@corp.example", "*@corp.example", "*@corp.exampl"),
        ("system:serviceaccount:shop:ci", "system:serviceaccount:shop:*", "system:serviceaccount:shops:*"),
        ("https://idp.corp.example#ann", "https://idp.corp.example#*", "ann"),
        ("kubernetes-admin", "kubernetes-admin", "kubernetes"),
        ("corp\\ann lee", "corp\\ann *", "corp/*"),
        ("jürgen", "jürgen", "jurgen"),
        (&account, "system:serviceaccount:n*", "system:serviceaccount:m*"),
    ] {
        let stamped = owner(&stamp.admit(&create(user, "pods", NOBODY)).unwrap());
        assert_eq!(judged(&stamped, pattern), "Pass met", "{user}");
        assert_eq!(judged(&stamped, other), "Deny not-allowed", "{user}");
    }
    // The longest that an account's name can get is 338 bytes; BS-OWN-001 reads 256.
    let account = format!("system:serviceaccount:{}:{}", "n".repeat(63), "a".repeat(253));
    assert_eq!(judged(&account, "*"), "Deny not-allowed");
    assert_eq!(judged("two\nlines", "*"), "Deny not-allowed");
}

fn judged(owner: &str, pattern: &str) -> String {
    let (mut policy, mut facts) = (fixture::policy(), fixture::facts());
    policy.owner.patterns = vec![pattern.to_owned()];
    facts.owner = Fact::Is(owner.to_owned());
    let findings = match decide(&policy, &facts) {
        Verdict::Allow(permit) => permit.findings().to_vec(),
        Verdict::Deny(denial) => denial.findings,
    };
    let finding = findings.iter().find(|finding| finding.rule == "BS-OWN-001").unwrap();
    format!("{:?} {}", finding.outcome, finding.condition)
}
