use super::*;

const HEX: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

const DEPLOYMENT: &str = r#"
apiVersion: v1
kind: Service
metadata: { name: web }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: web, namespace: shop }
spec:
  template:
    spec:
      securityContext: { runAsUser: 1000, runAsGroup: 1000 }
      initContainers:
        - name: init
          image: ghcr.io/corp/init:1
          securityContext: { runAsGroup: 7 }
      containers:
        - name: web
          image: ghcr.io/corp/web@sha256:HEX
          command: ["/app"]
          args: ["--level=$(LEVEL)", "--db=$(DB)", "$$HOME"]
          workingDir: /work
          env:
            - { name: LEVEL, value: "3" }
            - { name: DB, valueFrom: { secretKeyRef: { name: db, key: url } } }
            - { name: BOTH, value: "$(LEVEL)/$(DB)" }
            - { name: EMPTY }
          volumeMounts:
            - { name: data, mountPath: /data }
            - { name: config, mountPath: /etc/app, readOnly: true }
            - { name: logs, mountPath: /logs }
      volumes:
        - { name: data, emptyDir: {} }
        - { name: config, configMap: { name: app } }
        - { name: logs, hostPath: { path: /var/log/app } }
"#;

fn asked() -> Asked {
    Asked { namespace: None, digests: [("ghcr.io/corp/init:1".to_owned(), format!("sha256:{HEX}"))].into() }
}

fn of(text: &str, asked: &Asked) -> Result<Vec<Workload>, String> {
    workloads(text.replace("HEX", HEX).as_bytes(), asked)
}

#[test]
fn a_deployment_is_granted_as_kubelet_will_run_it() {
    let found = of(DEPLOYMENT, &asked()).unwrap();
    let [web] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(web.name, "Deployment shop/web");
    let of_value = |value: &str| digest(value.as_bytes()).to_string();
    let image = format!("sha256:{HEX}");
    let expected = json!({
        "version": 1, "namespaces": ["shop"], "pods": ["web-*"],
        "containers": [
            { "name": "init", "images": [image], "user": "1000:7" },
            {
                "name": "web", "images": [image], "command": ["/app"], "args": ["--level=3", null, "$HOME"], "cwd": "/work",
                "env": { "LEVEL": of_value("3"), "DB": "any", "BOTH": "any", "EMPTY": of_value("") },
                "user": "1000:1000",
                "mounts": [
                    { "path": "/data" }, { "path": "/etc/app", "readOnly": true }, { "path": "/logs", "host": "/var/log/app" },
                ],
            },
        ],
    });
    assert_eq!(web.claim, expected);
    assert_eq!(
        web.notes,
        [
            "web: DB comes from secretKeyRef: any value is granted",
            "web: BOTH is made of what is not known: any value is granted",
            "web: a word of `args` is made of what is not known: any is granted in its place",
            "web: /var/log/app of the host at /logs: the policy must allow it, too",
        ]
    );
    // What is written is what a node reads.
    let claims =
        json!({ "iss": "i", "sub": "s", "aud": ["a"], "nbf": 1, "exp": 2, boltseal_trust::grant::CLAIM: web.claim });
    let read: Json = serde_json::from_str(&claims.to_string()).unwrap();
    assert_eq!(boltseal_trust::grant::read(&read).unwrap().containers.len(), 2);
}

#[test]
fn kinds_names_and_lists() {
    let pod = "kind: Pod\nmetadata: { name: one }\nspec: { containers: [{ name: a, image: \"x@sha256:HEX\" }] }\n";
    let template = "spec: { containers: [{ name: a, image: \"x@sha256:HEX\" }] }";
    let pods = |text: &str| {
        of(text, &Asked::default()).map(|all| all.iter().map(|w| w.claim["pods"][0].clone()).collect::<Vec<_>>())
    };
    assert_eq!(pods(pod), Ok(vec!["one".into()]));
    assert_eq!(pods(&pod.replace("name: one", "generateName: one-")), Ok(vec!["one-*".into()]));
    for kind in ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "ReplicationController"] {
        let text = format!("kind: {kind}\nmetadata: {{ name: x }}\nspec: {{ template: {{ {template} }} }}");
        assert_eq!(pods(&text), Ok(vec!["x-*".into()]), "{kind}");
    }
    let cron = format!(
        "kind: CronJob\nmetadata: {{ name: x }}\nspec: {{ jobTemplate: {{ spec: {{ template: {{ {template} }} }} }} }}"
    );
    assert_eq!(pods(&cron), Ok(vec!["x-*".into()]));
    assert_eq!(pods(&format!("{pod}---\n{cron}")), Ok(vec!["one".into(), "x-*".into()]));
    let item = r#"{"kind":"Pod","metadata":{"name":"one"},"spec":{"containers":[{"name":"a","image":"x"}]}}"#;
    assert_eq!(pods(&format!(r#"{{"kind":"List","items":[{item},{{"kind":"Secret"}}]}}"#)), Ok(vec!["one".into()]));
    let notes = of(item, &Asked::default()).unwrap().remove(0).notes;
    assert!(notes[0].contains("no namespace") && notes[1].contains("names no digest"), "{notes:?}");
    let named = Asked { namespace: Some("n".into()), ..Asked::default() };
    assert_eq!(of(pod, &named).unwrap()[0].claim["namespaces"], json!(["n"]));
    for (bad, why) in [
        ("kind: Secret\nmetadata: { name: x }", "no Pod"),
        ("kind: Pod\nspec: {}", "no metadata"),
        ("kind: Pod\nmetadata: {}\nspec: {}", "neither name"),
        ("kind: Pod\nmetadata: { name: x }", "no pod"),
        ("kind: Pod\nmetadata: { name: x }\nspec: {}", "no containers"),
        ("kind: Job\nmetadata: { name: x }\nspec: {}", "no pod"),
        ("kind: Pod\nmetadata: { name: x }\nspec: { containers: [{}] }", "without a name"),
        (
            "kind: Pod\nmetadata: { name: x }\nspec: { containers: [{ name: a, image: x@sha256:1 }] }",
            "no sha256 digest",
        ),
        ("kind: Pod\nmetadata: { name: x }\nspec: { containers: [{ name: a, args: [1] }] }", "no text"),
        ("kind: Pod\nkind: Job", "stands twice"),
    ] {
        let error = of(bad, &Asked::default()).unwrap_err();
        assert!(error.contains(why), "{error}, wanted {why}");
    }
}
