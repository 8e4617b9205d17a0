//! Who asks for what: the users of a cluster, and one object of each kind that has pods.
use admission::{Operation, Request};
use boltseal_policy::standard::OWNER_ANNOTATION;
use serde_json::{Value, json};

/// Kinds with a pod template, by resource.
pub(crate) const TEMPLATES: [&str; 7] =
    ["replicationcontrollers", "deployments", "statefulsets", "daemonsets", "replicasets", "jobs", "cronjobs"];

/// Nobody's owner: the annotation is absent.
pub(crate) const NOBODY: &str = "";

/// A write of `user` in the namespace `demo`.
pub(crate) fn create(user: &str, resource: &str, owner: &str) -> Request {
    asked(user, Operation::Create, resource, object(resource, owner), Value::Null)
}

/// An update of `user` that changes nothing yet. `before` owns what stands there.
pub(crate) fn update(user: &str, resource: &str, before: &str) -> Request {
    let object = object(resource, before);
    asked(user, Operation::Update, resource, object.clone(), object)
}

fn asked(user: &str, operation: Operation, resource: &str, object: Value, old: Value) -> Request {
    let group = match resource {
        "deployments" | "deployments/scale" | "statefulsets" | "daemonsets" | "replicasets" => "apps",
        "jobs" | "cronjobs" => "batch",
        _ => "",
    };
    Request {
        user: user.into(),
        groups: groups(user),
        operation,
        namespace: "demo".into(),
        group: group.into(),
        resource: resource.into(),
        object,
        old,
    }
}

/// The same, asked by another.
pub(crate) fn by(request: &mut Request, user: &str) {
    (request.user, request.groups) = (user.into(), groups(user));
}

/// As the API server's authenticators give them.
fn groups(user: &str) -> Vec<String> {
    let own = match user.split(':').collect::<Vec<_>>()[..] {
        ["system", "serviceaccount", namespace, _] => {
            vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]
        }
        ["system", "node", _] => vec!["system:nodes".to_owned()],
        _ => Vec::new(),
    };
    own.into_iter().chain(["system:authenticated".to_owned()]).collect()
}

fn object(resource: &str, owner: &str) -> Value {
    let pod = json!({ "containers": [{ "name": "app", "image": "a.io/app:1" }], "initContainers": [{ "name": "init", "image": "a.io/init:1" }] });
    let labels = json!({ "app": "web" });
    let template = json!({ "metadata": { "labels": labels }, "spec": pod });
    let selector = json!({ "matchLabels": labels });
    let (kind, spec) = match resource.split('/').next().unwrap_or_default() {
        "pods" if resource == "pods/binding" => return binding(owner),
        "bindings" => return binding(owner),
        "pods" => ("Pod", pod),
        "replicationcontrollers" => ("ReplicationController", json!({ "selector": labels, "template": template })),
        "deployments" => ("Deployment", json!({ "replicas": 1, "selector": selector, "template": template })),
        "statefulsets" => ("StatefulSet", json!({ "selector": selector, "serviceName": "web", "template": template })),
        "daemonsets" => ("DaemonSet", json!({ "selector": selector, "template": template })),
        "replicasets" => ("ReplicaSet", json!({ "selector": selector, "template": template })),
        "jobs" => ("Job", json!({ "template": once(template) })),
        "cronjobs" => {
            let job = json!({ "spec": { "template": once(template) } });
            ("CronJob", json!({ "schedule": "0 0 * * *", "jobTemplate": job }))
        }
        other => panic!("no object of {other}"),
    };
    let version = match kind {
        "Pod" | "ReplicationController" => "v1",
        "Job" | "CronJob" => "batch/v1",
        _ => "apps/v1",
    };
    let metadata = json!({ "name": "web", "namespace": "demo", "labels": labels });
    let mut object = json!({ "apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec });
    own(&mut object, owner);
    object
}

fn once(mut template: Value) -> Value {
    template["spec"]["restartPolicy"] = json!("Never");
    template
}

fn binding(owner: &str) -> Value {
    let mut binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": { "name": "web", "namespace": "demo" },
        "target": { "apiVersion": "v1", "kind": "Node", "name": "n1" },
    });
    own(&mut binding, owner);
    binding
}

/// What the owner's annotation is of: the pod, or the template of it.
pub(crate) fn template(object: &mut Value) -> &mut Value {
    match object["kind"].as_str() {
        Some("Pod" | "Binding") => object,
        Some("CronJob") => &mut object["spec"]["jobTemplate"]["spec"]["template"],
        _ => &mut object["spec"]["template"],
    }
}

/// Names the owner; nobody takes the annotation away, and the last one all annotations.
pub(crate) fn own(object: &mut Value, owner: &str) {
    let metadata = &mut template(object)["metadata"];
    if owner != NOBODY {
        metadata["annotations"][OWNER_ANNOTATION] = json!(owner);
    } else if let Some(annotations) = metadata["annotations"].as_object_mut() {
        annotations.remove(OWNER_ANNOTATION);
        if annotations.is_empty() {
            metadata.as_object_mut().unwrap().remove("annotations");
        }
    }
}

pub(crate) fn owner(object: &Value) -> String {
    let owner = template(&mut object.clone())["metadata"]["annotations"][OWNER_ANNOTATION].clone();
    owner.as_str().unwrap_or(NOBODY).to_owned()
}
