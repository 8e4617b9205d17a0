//! Kubernetes manifests -> what a grant grants: of each workload its pods, and of each container image, command, environment,
//! folder, user and mounts, as kubelet will hand them to the runtime.
//!
//! What a manifest does not say is not guessed: it is `any` and told, or left out and told. A grant that leaves something out
//! refuses more, never less.
use crate::expand::{Known, Text, expand};
use crate::value::{self, list, text_of};
use boltseal_policy::text::show;
use boltseal_trust::{Digest, Json, digest};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What the one who asks knows beyond the manifest.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// For manifests without one.
    pub namespace: Option<String>,
    /// Image as the manifest writes it -> its digest.
    pub digests: BTreeMap<String, String>,
}

/// One workload's grant, without who, for whom and how long.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// `Deployment shop/web`.
    pub name: String,
    /// The claim `boltseal.dev/grant`.
    pub claim: Value,
    /// What could not be resolved, one line each.
    pub notes: Vec<String>,
}

/// Every workload of the file: YAML of one or several documents, JSON, lists.
///
/// # Errors
/// One line: not well formed, or none of the kinds that have pods. Other kinds beside them are passed over.
pub fn workloads(bytes: &[u8], asked: &Asked) -> Result<Vec<Workload>, String> {
    let mut out = Vec::new();
    for document in value::read(bytes)? {
        manifest(&document, asked, true, &mut out)?;
    }
    if out.is_empty() {
        return Err("no Pod, Deployment, ReplicaSet, StatefulSet, DaemonSet, Job or CronJob in it".into());
    }
    Ok(out)
}

fn manifest(document: &Json, asked: &Asked, outer: bool, out: &mut Vec<Workload>) -> Result<(), String> {
    let kind = text_of(document, "kind")?.unwrap_or_default();
    let path: &[&str] = match kind {
        "List" if outer => {
            return list(document, "items")?.iter().try_for_each(|item| manifest(item, asked, false, out));
        }
        "Pod" => &[],
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "Job" | "ReplicationController" => {
            &["spec", "template"]
        }
        "CronJob" => &["spec", "jobTemplate", "spec", "template"],
        _ => return Ok(()),
    };
    let Some(meta) = document.get("metadata") else { return Err(format!("{kind}: no metadata")) };
    let (name, generated) = (text_of(meta, "name")?, text_of(meta, "generateName")?);
    let mut notes = Vec::new();
    let namespace = text_of(meta, "namespace")?.or(asked.namespace.as_deref()).unwrap_or_else(|| {
        notes.push("no namespace: taken for `default` (--namespace)".into());
        "default"
    });
    let pods = match (name, generated, kind) {
        (Some(name), _, "Pod") => name.to_owned(),
        (Some(name), ..) => format!("{name}-*"),
        (None, Some(prefix), _) => format!("{prefix}*"),
        (None, None, _) => return Err(format!("{kind}: neither name nor generateName")),
    };
    let pod = path.iter().try_fold(document, |value, part| value.get(part));
    let Some(spec) = pod.and_then(|pod| pod.get("spec")) else { return Err(format!("{kind} {}: no pod", show(&pods))) };
    let shown = format!("{kind} {namespace}/{}", name.or(generated).unwrap_or_default());
    let mut pod = Pod { spec, asked, notes };
    let mut containers = Vec::new();
    for of in ["initContainers", "containers"] {
        for one in list(spec, of)? {
            containers.push(pod.container(one)?);
        }
    }
    if containers.is_empty() {
        return Err(format!("{}: no containers", show(&shown)));
    }
    let claim = json!({
        "version": boltseal_trust::grant::VERSION, "namespaces": [namespace], "pods": [pods], "containers": containers,
    });
    out.push(Workload { name: show(&shown), claim, notes: pod.notes });
    Ok(())
}

struct Pod<'a> {
    spec: &'a Json,
    asked: &'a Asked,
    notes: Vec<String>,
}

impl Pod<'_> {
    fn container(&mut self, one: &Json) -> Result<Value, String> {
        let name = text_of(one, "name")?.filter(|name| !name.is_empty()).ok_or("a container without a name")?;
        let mut out = serde_json::Map::new();
        out.insert("name".into(), name.into());
        out.insert("images".into(), self.images(one, name)?.into());
        let (env, known) = self.env(one, name)?;
        for key in ["command", "args"] {
            let words = list(one, key)?;
            if !words.is_empty() {
                let granted: Result<Vec<Value>, String> =
                    words.iter().map(|w| self.word(w, name, key, &known)).collect();
                out.insert(key.into(), granted?.into());
            }
        }
        if !env.is_empty() {
            out.insert("env".into(), env.into());
        }
        if let Some(folder) = text_of(one, "workingDir")?.filter(|folder| !folder.is_empty()) {
            out.insert("cwd".into(), folder.into());
        }
        if let Some(user) = self.user(one, name)? {
            out.insert("user".into(), user.into());
        }
        let mounts = self.mounts(one, name)?;
        if !mounts.is_empty() {
            out.insert("mounts".into(), mounts.into());
        }
        if !list(one, "volumeDevices")?.is_empty() {
            self.note(name, "volumeDevices: devices are not an owner's to grant");
        }
        Ok(out.into())
    }

    fn note(&mut self, container: &str, what: impl AsRef<str>) {
        self.notes.push(format!("{}: {}", show(container), what.as_ref()));
    }

    fn images(&mut self, one: &Json, name: &str) -> Result<Vec<String>, String> {
        let image = text_of(one, "image")?.unwrap_or_default();
        let named = image.split_once('@').map(|(_, digest)| digest.to_owned());
        let Some(found) = named.or_else(|| self.asked.digests.get(image).cloned()) else {
            let image = show(image);
            self.note(
                name,
                format!("image {image} names no digest, so nothing is granted: --image {image}=sha256:..."),
            );
            return Ok(Vec::new());
        };
        match found.parse::<Digest>() {
            Ok(digest) => Ok(vec![digest.to_string()]),
            Err(_) => Err(format!("{}: \"{}\" is no sha256 digest", show(name), show(&found))),
        }
    }

    /// The environment as granted, and as far as it is known, for what is expanded by it.
    fn env(&mut self, one: &Json, name: &str) -> Result<(serde_json::Map<String, Value>, Known), String> {
        let mut known = Known::default();
        if !list(one, "envFrom")?.is_empty() {
            known.more = true;
            self.note(name, "envFrom: which variables these are stands elsewhere; add each to `env` as `any`");
        }
        let mut env = serde_json::Map::new();
        for entry in list(one, "env")? {
            let Some(variable) = text_of(entry, "name")? else {
                return Err(format!("{}: env without a name", show(name)));
            };
            let value = match entry.get("valueFrom") {
                None | Some(Json::Null) => expand(text_of(entry, "value")?.unwrap_or_default(), &known),
                Some(from) => {
                    let from = match from {
                        Json::Object(members) => members.keys().next().map_or("valueFrom", String::as_str),
                        _ => "valueFrom",
                    };
                    self.note(name, format!("{} comes from {}: any value is granted", show(variable), show(from)));
                    Text::Unknown
                }
            };
            if boltseal_policy::names_loader(variable) {
                self.note(name, format!("{} can load code: no grant covers it", show(variable)));
            }
            let granted = match &value {
                Text::Is(value) => digest(value.as_bytes()).to_string(),
                Text::Unknown => {
                    if entry.get("valueFrom").is_none() {
                        self.note(
                            name,
                            format!("{} is made of what is not known: any value is granted", show(variable)),
                        );
                    }
                    "any".to_owned()
                }
            };
            env.insert(variable.to_owned(), granted.into());
            known.set(variable, value);
        }
        Ok((env, known))
    }

    fn word(&mut self, word: &Json, name: &str, key: &str, known: &Known) -> Result<Value, String> {
        let Some(word) = word.text() else { return Err(format!("{}: `{key}` has a word that is no text", show(name))) };
        Ok(match expand(word, known) {
            Text::Is(word) => word.into(),
            Text::Unknown => {
                self.note(name, format!("a word of `{key}` is made of what is not known: any is granted in its place"));
                Value::Null
            }
        })
    }

    fn user(&mut self, one: &Json, name: &str) -> Result<Option<String>, String> {
        let of = |key: &str| -> Result<Option<i64>, String> {
            for at in [one, self.spec] {
                match at.get("securityContext").and_then(|context| context.get(key)) {
                    None | Some(Json::Null) => {}
                    Some(Json::Integer(id)) => return Ok(Some(*id)),
                    Some(_) => return Err(format!("{}: `{key}` is no number", show(name))),
                }
            }
            Ok(None)
        };
        match (of("runAsUser")?, of("runAsGroup")?) {
            (Some(uid), Some(gid)) => Ok(Some(format!("{uid}:{gid}"))),
            (None, None) => Ok(None),
            _ => {
                self.note(
                    name,
                    "runAsUser and runAsGroup go together: of one alone the image says the other; none is granted",
                );
                Ok(None)
            }
        }
    }

    fn mounts(&mut self, one: &Json, name: &str) -> Result<Vec<Value>, String> {
        let mut out = Vec::new();
        for mount in list(one, "volumeMounts")? {
            let (volume, path) = (text_of(mount, "name")?.unwrap_or_default(), text_of(mount, "mountPath")?);
            let Some(path) = path else { return Err(format!("{}: a volumeMount without mountPath", show(name))) };
            let mut granted = serde_json::Map::new();
            granted.insert("path".into(), path.into());
            if matches!(mount.get("readOnly"), Some(Json::Bool(true))) {
                granted.insert("readOnly".into(), true.into());
            }
            let sub = text_of(mount, "subPath")?.or(text_of(mount, "subPathExpr")?).filter(|sub| !sub.is_empty());
            let mut host = None;
            for of in list(self.spec, "volumes")? {
                if text_of(of, "name")? == Some(volume) {
                    host = of.get("hostPath").map(|of| text_of(of, "path")).transpose()?.flatten();
                }
            }
            if let Some(host) = host {
                // kubelet binds a subPath of a host's folder to a place in the pod's own.
                if sub.is_none() {
                    granted.insert("host".into(), host.into());
                }
                self.note(name, format!("{} of the host at {}: the policy must allow it, too", show(host), show(path)));
            }
            out.push(granted.into());
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
