//! `-v` and `-info`: fixed bytes, no I/O. containerd asks `-info` before the first Create and waits for it.

use anyhow::Result;
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use protobuf::Message as _;
use protobuf::well_known_types::any::Any;

pub(crate) const BINARY: &str = "containerd-shim-boltseal-v1";
const NAME: &str = "io.containerd.boltseal.v1";
const FEATURES_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// OCI features as JSON. Only what is really done is named: recursive read-only mounts are not, so kubelet refuses a pod that
/// asks for them. User namespaces and idmapped mounts are: containerd and kubelet ask for both before they make such a pod.
const FEATURES: &str = r#"{"ociVersionMin":"1.0.0","ociVersionMax":"1.2.0","hooks":["prestart","createRuntime","createContainer","startContainer","poststart","poststop"],"mountOptions":["async","atime","bind","defaults","dev","diratime","dirsync","exec","idmap","noatime","nodev","nodiratime","noexec","norelatime","nosuid","private","rbind","relatime","ridmap","ro","rprivate","rslave","rw","slave","strictatime","suid","sync"],"linux":{"namespaces":["cgroup","ipc","mount","network","pid","user","uts"],"cgroup":{"v1":true,"v2":true,"systemd":true,"systemdUser":false,"rdma":false},"seccomp":{"enabled":true,"archs":["SCMP_ARCH_X86_64"]},"apparmor":{"enabled":true},"selinux":{"enabled":true},"intelRdt":{"enabled":false},"mountExtensions":{"idmap":{"enabled":true}}}}"#;

pub(crate) fn version() -> String {
    format!("{BINARY}:\n  Version:  {}\n  Runtime:  {NAME}\n", env!("CARGO_PKG_VERSION"))
}

pub(crate) fn info() -> Result<Vec<u8>> {
    let info = RuntimeInfo {
        name: NAME.into(),
        version: Some(RuntimeVersion { version: env!("CARGO_PKG_VERSION").into(), ..Default::default() }).into(),
        features: Some(Any { type_url: FEATURES_URL.into(), value: FEATURES.into(), ..Default::default() }).into(),
        ..Default::default()
    };
    Ok(info.write_to_bytes()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_is_what_containerd_parses() {
        let info = RuntimeInfo::parse_from_bytes(&info().unwrap()).unwrap();
        assert_eq!(info.name, NAME);
        assert_eq!(info.features.type_url, FEATURES_URL);
        let features: serde_json::Value = serde_json::from_slice(&info.features.value).unwrap();
        assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
        assert!(features["linux"]["namespaces"].as_array().unwrap().iter().any(|kind| kind == "user"));
        assert_eq!(features["linux"]["seccomp"]["enabled"], true);
        assert!(!features["mountOptions"].as_array().unwrap().iter().any(|option| option == "rro"));
    }
}
