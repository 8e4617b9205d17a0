//! The truth table of `owner.yaml`.
use crate::ask::{NOBODY, TEMPLATES, by, create, own, template, update};
use admission::Request;
use serde_json::{Value, json};

type Fault = fn(&mut Request);

const CONTROLLERS: [(&str, &str); 9] = [
    ("system:serviceaccount:kube-system:replicaset-controller", "pods"),
    ("system:serviceaccount:kube-system:replication-controller", "pods"),
    ("system:serviceaccount:kube-system:statefulset-controller", "pods"),
    ("system:serviceaccount:kube-system:daemon-set-controller", "pods"),
    ("system:serviceaccount:kube-system:job-controller", "pods"),
    ("system:serviceaccount:kube-system:deployment-controller", "replicasets"),
    ("system:serviceaccount:kube-system:cronjob-controller", "jobs"),
    // Without --use-service-account-credentials.
    ("system:kube-controller-manager", "pods"),
    // A static pod's mirror.
    ("system:node:n1", "pods"),
];

const NOT_CONTROLLERS: [Fault; 8] = [
    |r| by(r, "bob"),
    |r| by(r, "system:serviceaccount:kube-system:evil-controller"),
    |r| by(r, "system:serviceaccount:demo:replicaset-controller"),
    |r| by(r, "system:serviceaccount:kube-system:replicaset-controller-2"),
    |r| by(r, "system:serviceaccount:kube-system:generic-garbage-collector"),
    |r| by(r, "system:kube-scheduler"),
    // The name alone makes no node, nor does another group.
    |r| (r.user, r.groups) = ("system:node:n1".into(), vec!["system:authenticated".into()]),
    |r| (r.user, r.groups) = ("system:node:n1".into(), Vec::new()),
];

/// Title, what is accepted, the fault, what is said of it.
pub(crate) fn refused() -> Vec<(&'static str, Request, Fault, &'static str)> {
    let mut rows = Vec::new();
    for resource in TEMPLATES.into_iter().chain(["pods"]) {
        let mut annotated = create("alice", resource, "alice");
        template(&mut annotated.object)["metadata"]["annotations"]["other"] = json!("x");
        let new = || create("alice", resource, "alice");
        let must = "must be \"alice\", who asks";
        rows.extend([
            ("another's name", new(), (|r| own(&mut r.object, "bob")) as Fault, must),
            ("part of the name", new(), |r| own(&mut r.object, "alic"), must),
            ("other letters", new(), |r| own(&mut r.object, "Alice"), must),
            ("no annotations", new(), |r| own(&mut r.object, NOBODY), must),
            ("another annotation alone", annotated, |r| own(&mut r.object, NOBODY), must),
            ("an empty name", new(), |r| set(&mut r.object, json!("")), must),
            ("another user", new(), |r| by(r, "bob"), "must be \"bob\", who asks"),
            ("a namespace that is only named alike", system(new()), |r| r.namespace = "kube-systems".into(), must),
        ]);
    }
    for resource in TEMPLATES {
        let new = || create("alice", resource, "alice");
        let changed = || {
            with(update("bob", resource, "alice"), |r| {
                image(r);
                own(&mut r.object, "bob");
            })
        };
        let must = "must be \"bob\", who asks";
        rows.extend([
            ("a template without metadata", new(), bare as Fault, "must be \"alice\""),
            ("a changed template keeps its owner", changed(), |r| own(&mut r.object, "alice"), must),
            ("a changed template loses its owner", changed(), |r| own(&mut r.object, NOBODY), must),
            ("the template changes, and nobody says so", update("bob", resource, "alice"), image, must),
            ("a label of the template", update("bob", resource, "alice"), label, must),
            ("the owner alone changes", update("bob", resource, "alice"), |r| own(&mut r.object, "carol"), must),
            ("the owner alone goes", update("bob", resource, "alice"), |r| own(&mut r.object, NOBODY), must),
            ("an old template without owner changes", update("bob", resource, NOBODY), image, must),
        ]);
    }
    for (user, resource) in CONTROLLERS {
        let copied = || create(user, resource, "alice");
        rows.push(("a controller copies nobody", copied(), |r| own(&mut r.object, NOBODY), "is missing"));
        rows.extend(NOT_CONTROLLERS.map(|fault| ("no controller", copied(), fault, "who asks")));
    }
    let deploys = "system:serviceaccount:kube-system:deployment-controller";
    let copies = || with(update(deploys, "replicasets", "alice"), image);
    rows.push(("a controller copies nobody", copies(), |r| own(&mut r.object, NOBODY), "is missing"));
    rows.extend(NOT_CONTROLLERS.map(|fault| ("no controller", copies(), fault, "who asks")));
    rows.extend(pods());
    rows
}

fn pods() -> Vec<(&'static str, Request, Fault, &'static str)> {
    const NEVER: &str = "the owner of a pod does not change";
    const OWN: &str = "only the owner of a pod";
    let labelled = |user| with(update(user, "pods", "alice"), |r| r.object["metadata"]["labels"]["x"] = json!("y"));
    let controller = "system:serviceaccount:kube-system:job-controller";
    let mut rows = Vec::<(&'static str, Request, Fault, &'static str)>::new();
    for user in ["alice", "bob", controller, "system:node:n1"] {
        rows.extend([
            ("a pod's owner changes", labelled(user), (|r| own(&mut r.object, "bob")) as Fault, NEVER),
            ("a pod's owner goes", labelled(user), |r| own(&mut r.object, NOBODY), NEVER),
            ("a pod gets an owner", update(user, "pods", NOBODY), |r| own(&mut r.object, "bob"), NEVER),
            ("by its status", update(user, "pods/status", "alice"), |r| own(&mut r.object, "bob"), NEVER),
            ("by its status", update(user, "pods/status", NOBODY), |r| own(&mut r.object, "bob"), NEVER),
        ]);
    }
    rows.extend([
        ("another changes the image", labelled("bob"), image as Fault, OWN),
        ("another changes the image", with(update("alice", "pods", "alice"), image), |r| by(r, "bob"), OWN),
        ("another changes the first image", labelled("bob"), |r| first(r, "a.io/init:2"), OWN),
        ("another debugs", with(update("alice", "pods/ephemeralcontainers", "alice"), debug), |r| by(r, "bob"), OWN),
        ("another debugs", update("bob", "pods/ephemeralcontainers", "alice"), debug, OWN),
        ("nobody's pod changes", update("bob", "pods", NOBODY), image, OWN),
    ]);
    for resource in ["pods/binding", "bindings"] {
        let bound = create("system:kube-scheduler", resource, NOBODY);
        rows.push(("a binding names an owner", bound.clone(), |r| own(&mut r.object, "bob"), "names no owner"));
        rows.push(("a binding names an empty owner", bound, |r| set(&mut r.object, json!("")), "names no owner"));
    }
    rows
}

pub(crate) fn accepted() -> Vec<(&'static str, Request)> {
    let mut rows = Vec::new();
    for resource in TEMPLATES.into_iter().chain(["pods"]) {
        for user in ["system:serviceaccount:shop:ci", "alice@corp.example", "https://idp#ann", "kubernetes-admin"] {
            rows.push(("a name of any form", create(user, resource, user)));
        }
        rows.push(("a user without groups", with(create("alice", resource, "alice"), |r| r.groups.clear())));
        rows.push(("the cluster's own namespace", system(create("alice", resource, NOBODY))));
        for before in ["alice", NOBODY] {
            // Foreground deletion and jobs end by such updates: they must never be refused.
            rows.push(("a finalizer goes", with(update("bob", resource, before), finalized)));
        }
    }
    for resource in TEMPLATES {
        rows.push(("the owner changes it", with(update("alice", resource, "alice"), image)));
        rows.push((
            "what never had an owner gets one",
            with(update("bob", resource, NOBODY), |r| own(&mut r.object, "bob")),
        ));
        rows.push((
            "something else of it",
            with(update("bob", resource, "alice"), |r| r.object["spec"]["paused"] = json!(true)),
        ));
    }
    rows.push(("the owner debugs", with(update("alice", "pods/ephemeralcontainers", "alice"), debug)));
    rows.push((
        "kubelet reports",
        with(update("system:node:n1", "pods/status", "alice"), |r| r.object["status"] = json!({ "phase": "Running" })),
    ));
    rows
}

fn with(mut request: Request, change: impl FnOnce(&mut Request)) -> Request {
    change(&mut request);
    request
}

fn system(request: Request) -> Request {
    with(request, |r| {
        r.namespace = "kube-system".into();
        own(&mut r.object, NOBODY);
    })
}

fn set(object: &mut Value, owner: Value) {
    template(object)["metadata"]["annotations"]["boltseal.dev/owner"] = owner;
}

fn bare(request: &mut Request) {
    template(&mut request.object).as_object_mut().unwrap().remove("metadata");
}

fn image(request: &mut Request) {
    template(&mut request.object)["spec"]["containers"][0]["image"] = json!("a.io/app:2");
}

fn first(request: &mut Request, image: &str) {
    template(&mut request.object)["spec"]["initContainers"][0]["image"] = json!(image);
}

fn label(request: &mut Request) {
    template(&mut request.object)["metadata"]["labels"]["x"] = json!("y");
}

fn debug(request: &mut Request) {
    request.object["spec"]["ephemeralContainers"] = json!([{ "name": "debug", "image": "a.io/shell:1" }]);
}

fn finalized(request: &mut Request) {
    request.old["metadata"]["finalizers"] = json!(["foregroundDeletion"]);
}
