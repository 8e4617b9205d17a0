//! What CRI keeps about itself in containerd's record of a container: which sandbox it belongs to, and whose pod it is.
//!
//! containerd 1.x has no sandbox field in the record; there this extension is the only source beside annotations, which
//! are text that a client of containerd chooses freely. Source: containerd `store/container`, `store/sandbox` Metadata.
use crate::json;
use serde::Deserialize;
use std::collections::HashMap;

const CONTAINER: &str = "io.cri-containerd.container.metadata";
const SANDBOX: &str = "io.cri-containerd.sandbox.metadata";
/// CRI's metadata repeats the pod's config, annotations included; Kubernetes bounds those by 256 KiB.
const CAP: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    pub is_sandbox: bool,
    /// The sandbox's id; for a sandbox its own.
    pub sandbox_id: String,
    /// Pod, as CRI was told; only a sandbox's record has it.
    pub pod: Option<Pod>,
    /// Network namespace that CRI made for the sandbox; empty for the host's.
    pub netns: String,
    /// CRI's name of the container; empty for a sandbox.
    pub container_name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    pub name: String,
    pub namespace: String,
    pub uid: String,
}

#[derive(Deserialize)]
struct Versioned<T> {
    #[serde(rename = "Version")]
    version: String,
    #[serde(rename = "Metadata")]
    metadata: T,
}

#[derive(Deserialize)]
struct ContainerMetadata {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "SandboxID")]
    sandbox_id: String,
    #[serde(rename = "Config")]
    config: Config,
}

#[derive(Deserialize)]
struct SandboxMetadata {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "NetNSPath", default)]
    netns: String,
    #[serde(rename = "Config")]
    config: Config,
}

#[derive(Deserialize)]
struct Config {
    metadata: Named,
}

/// protobuf's JSON leaves out what is empty.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
    uid: String,
    namespace: String,
}

/// Reads CRI's metadata of container `id` from the record's extensions; None when no CRI made the container.
///
/// # Errors
/// Both kinds at once, another version than `v1`, another container's id, or JSON that does not parse.
pub fn metadata(id: &str, extensions: &HashMap<String, prost_types::Any>) -> Result<Option<Metadata>, String> {
    match (extensions.get(CONTAINER), extensions.get(SANDBOX)) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err("it is a container and a sandbox at once for CRI".into()),
        (Some(any), None) => {
            let found: ContainerMetadata = parse(CONTAINER, &any.value)?;
            same(id, &found.id)?;
            Ok(Some(Metadata {
                is_sandbox: false,
                sandbox_id: found.sandbox_id,
                pod: None,
                netns: String::new(),
                container_name: found.config.metadata.name,
            }))
        }
        (None, Some(any)) => {
            let found: SandboxMetadata = parse(SANDBOX, &any.value)?;
            same(id, &found.id)?;
            let Named { name, uid, namespace } = found.config.metadata;
            Ok(Some(Metadata {
                is_sandbox: true,
                sandbox_id: found.id,
                pod: Some(Pod { name, namespace, uid }),
                netns: found.netns,
                container_name: String::new(),
            }))
        }
    }
}

fn same(id: &str, found: &str) -> Result<(), String> {
    if id == found { Ok(()) } else { Err(format!("CRI's metadata of {id:?} is of {found:?}")) }
}

fn parse<T: for<'a> Deserialize<'a>>(name: &str, bytes: &[u8]) -> Result<T, String> {
    let value = json::parse(bytes, CAP).map_err(|e| format!("{name}: {e}"))?;
    let found: Versioned<T> = serde_json::from_value(value).map_err(|e| format!("{name}: {e}"))?;
    if found.version == "v1" { Ok(found.metadata) } else { Err(format!("{name}: version {:?}", found.version)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(key: &str, json: &str) -> HashMap<String, prost_types::Any> {
        let any = prost_types::Any { type_url: "x".into(), value: json.as_bytes().to_vec() };
        HashMap::from([(key.to_owned(), any)])
    }

    #[test]
    fn reads_both_kinds() {
        let c = with(
            CONTAINER,
            r#"{"Version":"v1","Metadata":{"ID":"c","SandboxID":"s","Config":{"metadata":{"name":"app"}},"X":1}}"#,
        );
        let found = metadata("c", &c).unwrap().unwrap();
        assert_eq!((found.is_sandbox, found.sandbox_id.as_str(), found.container_name.as_str()), (false, "s", "app"));
        let s = with(
            SANDBOX,
            r#"{"Version":"v1","Metadata":{"ID":"s","NetNSPath":"/run/netns/n","Config":{"metadata":{"name":"p","uid":"u","namespace":"ns"}}}}"#,
        );
        let found = metadata("s", &s).unwrap().unwrap();
        assert_eq!(found.pod.unwrap().uid, "u");
        assert_eq!(found.netns, "/run/netns/n");
        assert_eq!(metadata("c", &HashMap::new()).unwrap(), None);
    }

    #[test]
    fn refuses_what_it_cannot_be_sure_of() {
        let doubled =
            r#"{"Version":"v1","Metadata":{"ID":"c","SandboxID":"a","SandboxID":"b","Config":{"metadata":{}}}}"#;
        assert!(metadata("c", &with(CONTAINER, doubled)).is_err());
        let other = r#"{"Version":"v1","Metadata":{"ID":"d","SandboxID":"a","Config":{"metadata":{}}}}"#;
        assert!(metadata("c", &with(CONTAINER, other)).is_err());
        let version = r#"{"Version":"v2","Metadata":{"ID":"c","SandboxID":"a","Config":{"metadata":{}}}}"#;
        assert!(metadata("c", &with(CONTAINER, version)).is_err());
        let mut both = with(CONTAINER, "{}");
        both.extend(with(SANDBOX, "{}"));
        assert!(metadata("c", &both).is_err());
    }
}
