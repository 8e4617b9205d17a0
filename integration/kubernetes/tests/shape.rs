//! The files themselves: what the API asks of their form, that stamp and hold speak of the same things, and that every manifest
//! that ships names what boltseal names.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use admission::{
    Action, Constraints, Manifest, Operation, Policies, Reinvocation, Request, Resources, SelectorOperator, Spec,
    documents, manifests,
};
use boltseal_policy::pattern;
use boltseal_policy::standard::{OWNER_ANNOTATION, TOKEN_FILE, TOKEN_VOLUME};
use serde_json::{Value, json};

const HOLD: &str = include_str!("../owner.yaml");
const STAMP: &str = include_str!("../owner-stamp.yaml");
const DEPLOYMENT: &str = include_str!("../deployment.yaml");
const CLASS: &str = include_str!("../runtimeclass.yaml");
const CONFIGS: [&str; 2] =
    [include_str!("../../containerd/config-v2.toml"), include_str!("../../containerd/config-v3.toml")];
const EXEMPT: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

fn all() -> Vec<Manifest<Spec>> {
    [HOLD, STAMP].into_iter().flat_map(|file| manifests(file).unwrap()).collect()
}

/// Names of the policies, or of what the bindings bind, one family at a time.
fn names(of: fn(&Manifest<Spec>) -> Option<&str>) -> Vec<String> {
    let mut names: Vec<_> = all().iter().filter_map(|m| of(m).map(str::to_owned)).collect();
    names.sort();
    names
}

#[test]
fn each_policy_is_bound_once_and_denies() {
    let holds = names(|m| matches!(m.spec, Spec::Hold(_)).then_some(&m.metadata.name));
    let stamps = names(|m| matches!(m.spec, Spec::Stamp(_)).then_some(&m.metadata.name));
    assert_eq!(holds, ["boltseal-owner-bindings", "boltseal-owner-pods", "boltseal-owner-templates"]);
    assert_eq!(stamps, ["boltseal-owner-pods", "boltseal-owner-templates"]);
    let bound = |m: &Manifest<Spec>| matches!(&m.spec, Spec::BindHold(spec) if spec.policy_name == m.metadata.name);
    assert_eq!(all().iter().filter(|m| bound(m)).count(), holds.len());
    assert_eq!(holds, names(|m| if let Spec::BindHold(spec) = &m.spec { Some(&spec.policy_name) } else { None }));
    assert_eq!(stamps, names(|m| if let Spec::BindStamp(spec) = &m.spec { Some(&spec.policy_name) } else { None }));
    for manifest in all() {
        let resources: Resources = match manifest.spec {
            Spec::BindHold(spec) => {
                assert_eq!(spec.validation_actions, [Action::Deny]);
                spec.match_resources
            }
            Spec::BindStamp(spec) => spec.match_resources,
            Spec::Stamp(spec) => {
                assert_eq!(spec.reinvocation_policy, Reinvocation::IfNeeded);
                continue;
            }
            Spec::Hold(_) => continue,
        };
        let [requirement] = &resources.namespace_selector.match_expressions[..] else { panic!("{resources:?}") };
        assert_eq!(requirement.key, "kubernetes.io/metadata.name");
        assert_eq!(
            (&requirement.operator, &requirement.values[..]),
            (&SelectorOperator::NotIn, &EXEMPT.map(String::from)[..])
        );
    }
}

#[test]
fn stamp_and_hold_speak_of_the_same() {
    let constraints = |wanted: &str, stamp: bool| -> Constraints {
        let found = all().into_iter().find_map(|m| match m.spec {
            Spec::Stamp(spec) if stamp && m.metadata.name == wanted => Some(spec.match_constraints),
            Spec::Hold(spec) if !stamp && m.metadata.name == wanted => Some(spec.match_constraints),
            _ => None,
        });
        found.unwrap()
    };
    let templates = "boltseal-owner-templates";
    assert_eq!(constraints(templates, true).resource_rules, constraints(templates, false).resource_rules);
    // A pod's owner is written when it is made, and does not change.
    let stamped = constraints("boltseal-owner-pods", true).resource_rules;
    assert_eq!(
        (&stamped[0].operations[..], &stamped[0].resources[..]),
        (&[Operation::Create][..], &["pods".to_owned()][..])
    );
    let held = &constraints("boltseal-owner-pods", false).resource_rules[0];
    assert!(held.resources.contains(&"pods".into()) && held.operations.contains(&Operation::Create));
    let mut controllers = Vec::new();
    for manifest in all() {
        let (rules, named) = match manifest.spec {
            Spec::Hold(spec) => (spec.match_constraints.resource_rules, spec.variables),
            Spec::Stamp(spec) => (spec.match_constraints.resource_rules, spec.match_conditions),
            _ => continue,
        };
        assert!(rules.iter().all(|rule| rule.api_versions == ["v1"]), "{rules:?}");
        controllers.extend(named.into_iter().filter_map(|named| match named.name.as_str() {
            "controller" => Some(format!("!({})", named.expression)),
            "not-a-controller" => Some(named.expression),
            _ => None,
        }));
    }
    assert!(controllers.len() == 4 && controllers.windows(2).all(|two| two[0] == two[1]), "{controllers:#?}");
}

#[test]
fn every_annotation_is_the_one_that_the_gate_reads() {
    for (file, expected) in [(HOLD, 4), (STAMP, 3)] {
        let quoted: Vec<_> = file.split('\'').filter(|part| part.starts_with("boltseal.dev/")).collect();
        assert_eq!(quoted, vec![OWNER_ANNOTATION; expected]);
    }
}

/// The reader bites: each of these is the file with one word changed.
#[test]
fn what_the_api_does_not_know_is_refused() {
    assert!(Policies::read(&[HOLD, STAMP]).is_ok());
    for (file, word, other) in [
        (HOLD, "failurePolicy: Fail", "failurePolicy: Ignore"),
        (STAMP, "failurePolicy: Fail", "failurePolicy: Ignore"),
        (HOLD, "failurePolicy: Fail", "failurePolicy: fail"),
        (HOLD, "failurePolicy: Fail\n", "\n"),
        (HOLD, "messageExpression", "messageExpresion"),
        (HOLD, "resourceRules", "rules"),
        (HOLD, "[CREATE, UPDATE]", "[CREATE, PATCH]"),
        (HOLD, "validationActions: [Deny]\n", "\n"),
        (HOLD, "reason: Forbidden", "reason: Denied"),
        (HOLD, "admissionregistration.k8s.io/v1", "admissionregistration.k8s.io/v1beta1"),
        (HOLD, "kind: ValidatingAdmissionPolicy\n", "kind: ValidatingPolicy\n"),
        (STAMP, "patchType: ApplyConfiguration", "patchType: Apply"),
        (STAMP, "kind: MutatingAdmissionPolicy\n", "kind: ValidatingAdmissionPolicy\n"),
        (STAMP, "reinvocationPolicy: IfNeeded", "reinvocationPolicy: Always"),
    ] {
        let changed = file.replacen(word, other, 1);
        assert!(changed != file && Policies::read(&[&changed]).is_err(), "{other}");
    }
}

#[test]
fn the_runtime_class_is_containerds_handler() {
    let [class] = &documents(CLASS).unwrap()[..] else { panic!() };
    assert_eq!((&class["apiVersion"], &class["kind"]), (&json!("node.k8s.io/v1"), &json!("RuntimeClass")));
    let handler = class["handler"].as_str().unwrap();
    for config in CONFIGS {
        let config: toml::Value = toml::from_str(config).unwrap();
        let cri = config["plugins"].as_table().unwrap().values().next().unwrap();
        let runtimes = cri["containerd"]["runtimes"].as_table().unwrap();
        assert_eq!(runtimes.keys().collect::<Vec<_>>(), [handler]);
        let runtime = &runtimes[handler];
        assert_eq!(runtime["runtime_type"].as_str(), Some("io.containerd.boltseal.v1"));
        let passed = runtime["pod_annotations"].as_array().unwrap();
        assert!(passed.iter().any(|p| pattern::matches(p.as_str().unwrap(), OWNER_ANNOTATION)), "{passed:?}");
    }
    assert_eq!(deployment()["spec"]["template"]["spec"]["runtimeClassName"], class["metadata"]["name"]);
}

#[test]
fn the_deployment_names_its_owner_as_the_gate_reads_it() {
    let deployment = deployment();
    let template = &deployment["spec"]["template"];
    let annotations = template["metadata"]["annotations"].as_object().unwrap();
    assert_eq!(annotations.keys().collect::<Vec<_>>(), [OWNER_ANNOTATION]);
    let volumes = template["spec"]["volumes"].as_array().unwrap();
    let volume = volumes.iter().find(|volume| volume["name"] == TOKEN_VOLUME).unwrap();
    assert_eq!(volume["projected"]["sources"][0]["serviceAccountToken"]["path"], TOKEN_FILE);
    let mounts = template["spec"]["containers"][0]["volumeMounts"].as_array().unwrap();
    assert!(mounts.iter().all(|mount| mount["name"] != TOKEN_VOLUME), "no container needs it");
    // Whoever it names may create it, and nobody else.
    let policies = Policies::read(&[HOLD]).unwrap();
    let owner = annotations[OWNER_ANNOTATION].as_str().unwrap();
    let by = |user: &str| Request {
        user: user.into(),
        groups: vec!["system:authenticated".into()],
        operation: Operation::Create,
        namespace: deployment["metadata"]["namespace"].as_str().unwrap().into(),
        group: "apps".into(),
        resource: "deployments".into(),
        object: deployment.clone(),
        old: Value::Null,
    };
    assert_eq!(policies.admit(&by(owner)), Ok(deployment.clone()));
    assert!(policies.admit(&by("somebody@example.com")).is_err());
}

/// `boltseal grant generate` takes it.
#[test]
fn the_deployment_can_be_granted() {
    let workloads = boltseal_import::workloads(DEPLOYMENT.as_bytes(), &boltseal_import::Asked::default()).unwrap();
    assert_eq!(workloads.iter().map(|w| w.name.as_str()).collect::<Vec<_>>(), ["Deployment demo/app"]);
}

fn deployment() -> Value {
    let [deployment] = &documents(DEPLOYMENT).unwrap()[..] else { panic!() };
    deployment.clone()
}
