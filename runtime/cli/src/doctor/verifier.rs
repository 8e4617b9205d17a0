//! Where containerd passes by its image verifiers without a word: what is pulled there comes without its signatures. A hole
//! here refuses a start, it lets nothing in; so all of it only warns.
use super::Check;
use super::house::Dump;
use crate::screen::count;
use std::fs::{self, read_dir};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use toml::{Table, Value};

const NAME: &str = "verifier";
const PLUGIN: &str = "io.containerd.image-verifier.v1.bindir";
const IMAGES: &str = "io.containerd.cri.v1.images";
const OURS: &str = "boltseal-fetch";
const BY_HAND: &str = "bring signatures by `boltseal-fetch REF@DIGEST` or `boltseal sig import`";
const STANZA: &str = "add integration/containerd/verifier-v3.toml and restart containerd";

pub(super) fn verifier(dump: Result<&Dump, &Check>) -> Check {
    let Ok(dump) = dump else { return Check::warn(NAME, "unknown: containerd's configuration cannot be had", BY_HAND) };
    match version(&dump.version) {
        None => return Check::warn(NAME, format!("unknown for containerd {}", dump.version), BY_HAND),
        Some((1, minor)) if minor < 7 => {
            return Check::warn(NAME, format!("containerd {} runs no image verifiers", dump.version), BY_HAND);
        }
        Some((1, _)) => {
            let fact = format!("containerd {} runs image verifiers for `ctr pull --local=false` alone", dump.version);
            return Check::warn(NAME, fact, BY_HAND);
        }
        Some((2, 0)) => {
            return Check::warn(
                NAME,
                format!("the CRI of containerd {} runs no image verifiers", dump.version),
                BY_HAND,
            );
        }
        Some(_) => {}
    }
    let Ok(config) = dump.text.parse::<Table>() else {
        return Check::warn(NAME, "unknown: `containerd config dump` is no TOML", BY_HAND);
    };
    let holes = holes(&config);
    match holes.split_first() {
        None => Check::ok(NAME, format!("{OURS} runs before every pull of the CRI")),
        Some((first, [])) => Check::warn(NAME, first.0.clone(), first.1),
        Some((first, more)) => {
            let rest: Vec<&str> = more.iter().map(|hole| hole.0.as_str()).collect();
            Check::warn(NAME, format!("{}; {}", first.0, rest.join("; ")), first.1)
        }
    }
}

/// Major and minor of `v2.1.9~ds1`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim_start_matches('v').split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

type Hole = (String, &'static str);

fn holes(config: &Table) -> Vec<Hole> {
    let disabled = config.get("disabled_plugins").and_then(Value::as_array);
    if disabled.is_some_and(|list| list.iter().any(|name| name.as_str() == Some(PLUGIN))) {
        return vec![(format!("disabled_plugins holds {PLUGIN}"), STANZA)];
    }
    let plugin = |name: &str| config.get("plugins").and_then(|p| p.get(name));
    let mut holes = folder(plugin(PLUGIN));
    if let Some(images) = plugin(IMAGES) {
        let by: Vec<&str> = local(images);
        if !by.is_empty() {
            let fact = format!("the CRI pulls past the verifiers because of {} ({IMAGES})", by.join(", "));
            holes.push((fact, "take that out of containerd's configuration; registries go into config_path"));
        }
    }
    holes
}

/// The folder of verifiers: containerd lets every image pass where it is missing or empty, and skips what is beyond the limit.
fn folder(plugin: Option<&Value>) -> Vec<Hole> {
    let dir = plugin.and_then(|p| p.get("bin_dir")).and_then(Value::as_str).unwrap_or_default();
    if dir.is_empty() {
        return vec![(format!("no bin_dir for {PLUGIN}: every image passes"), STANZA)];
    }
    let mut names: Vec<String> = match read_dir(dir) {
        Err(e) => return vec![(format!("{dir}: {e}: every image passes"), STANZA)],
        Ok(list) => list.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect(),
    };
    names.sort();
    let mut holes = Vec::new();
    let Some(place) = names.iter().position(|name| name == OURS) else {
        let what = if names.is_empty() { "is empty: every image passes".into() } else { format!("has no {OURS}") };
        return vec![(format!("{dir} {what}"), STANZA)];
    };
    let most = plugin.and_then(|p| p.get("max_verifiers")).and_then(Value::as_integer).unwrap_or(10);
    if most >= 0 && usize::try_from(most).unwrap_or(0) <= place {
        let fact = format!("max_verifiers = {most} skips {OURS}, of {}", count(names.len(), "verifier"));
        holes.push((fact, "raise max_verifiers"));
    }
    let program = Path::new(dir).join(OURS);
    match (fs::metadata(&program), fs::symlink_metadata(dir)) {
        (Ok(meta), Ok(folder)) => {
            let rights = meta.permissions().mode();
            if meta.uid() != 0 || folder.uid() != 0 || (rights | folder.permissions().mode()) & 0o022 != 0 {
                holes.push((
                    format!("{} is not root's alone to change", program.display()),
                    "chown root and chmod 0755 it",
                ));
            }
            if rights & 0o111 == 0 {
                holes.push((format!("{} cannot be run", program.display()), "chmod 0755 it"));
            }
        }
        (Err(e), _) | (_, Err(e)) => holes.push((format!("{}: {e}", program.display()), STANZA)),
    }
    holes
}

/// The keys by which the CRI of containerd 2.1 and newer pulls on its own instead of by the transfer service.
fn local(images: &Value) -> Vec<&'static str> {
    let flag = |name: &str| images.get(name).and_then(Value::as_bool);
    let registry = |name: &str| {
        let entry = images.get("registry").and_then(|r| r.get(name));
        entry.and_then(Value::as_table).is_some_and(|table| !table.is_empty())
    };
    [
        (flag("use_local_image_pull") == Some(true), "use_local_image_pull"),
        (flag("disable_snapshot_annotations") == Some(false), "disable_snapshot_annotations = false"),
        (flag("discard_unpacked_layers") == Some(true), "discard_unpacked_layers"),
        (flag("image_pull_with_sync_fs") == Some(true), "image_pull_with_sync_fs"),
        (
            images.get("max_concurrent_downloads").and_then(Value::as_integer).is_some_and(|n| n != 3),
            "max_concurrent_downloads",
        ),
        (registry("mirrors"), "registry.mirrors"),
        (registry("configs"), "registry.configs"),
        (registry("auths"), "registry.auths"),
    ]
    .into_iter()
    .filter_map(|(set, name)| set.then_some(name))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    fn dump(version: &str, text: &str) -> Dump {
        Dump { pid: 1, version: version.into(), config: String::new(), text: text.into() }
    }

    fn said(version: &str, text: &str) -> (State, String) {
        let check = verifier(Ok(&dump(version, text)));
        (check.state, check.fact)
    }

    #[test]
    fn versions_without_verifiers() {
        for (version, says) in [
            ("1.6.20~ds1", "runs no image verifiers"),
            ("1.7.2", "--local=false"),
            ("v2.0.0", "the CRI of containerd"),
            ("?", "unknown"),
        ] {
            let (state, fact) = said(version, "");
            assert!(state == State::Warn && fact.contains(says), "{fact}");
        }
    }

    /// Each hole beside the configuration that has none.
    #[test]
    fn every_way_around_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("bin");
        let text = |more: &str, images: &str| {
            format!("[plugins.'{PLUGIN}']\nbin_dir = '{}'\n{more}\n[plugins.'{IMAGES}']\n{images}\n", at.display())
        };
        assert!(said("2.1.9", "").1.contains("no bin_dir"));
        assert!(said("2.1.9", &text("", "")).1.contains("every image passes"));
        fs::create_dir(&at).unwrap();
        assert!(said("2.1.9", &text("", "")).1.contains("is empty"));
        fs::write(at.join("another"), "").unwrap();
        assert!(said("2.1.9", &text("", "")).1.contains("has no boltseal-fetch"));
        fs::write(at.join(OURS), "").unwrap();
        assert!(said("2.1.9", &text("", "")).1.contains("cannot be run"));
        fs::set_permissions(at.join(OURS), PermissionsExt::from_mode(0o755)).unwrap();
        let fine = "disable_snapshot_annotations = true\nmax_concurrent_downloads = 3\nuse_local_image_pull = false\n\
                    [plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/etc/containerd/certs.d'\n";
        assert_eq!(said("v2.3.4", &text("max_verifiers = 10", fine)).0, State::Ok);
        assert_eq!(said("2.1.9", &text("max_verifiers = -1", "")).0, State::Ok);
        assert!(said("2.1.9", &text("max_verifiers = 1", "")).1.contains("skips"));
        assert!(said("2.1.9", &format!("disabled_plugins = ['{PLUGIN}']\n{}", text("", ""))).1.contains("disabled"));
        for (key, line) in [
            ("use_local_image_pull", "use_local_image_pull = true"),
            ("disable_snapshot_annotations", "disable_snapshot_annotations = false"),
            ("discard_unpacked_layers", "discard_unpacked_layers = true"),
            ("image_pull_with_sync_fs", "image_pull_with_sync_fs = true"),
            ("max_concurrent_downloads", "max_concurrent_downloads = 10"),
            ("registry.mirrors", "registry.mirrors.'x'.endpoint = []"),
            ("registry.configs", "registry.configs.'x'.auth = 1"),
            ("registry.auths", "registry.auths.'x' = 1"),
        ] {
            let (state, fact) = said("2.1.9", &text("", line));
            assert!(state == State::Warn && fact.contains(key), "{key}: {fact}");
        }
        fs::set_permissions(at.join(OURS), PermissionsExt::from_mode(0o777)).unwrap();
        assert!(said("2.1.9", &text("", "")).1.contains("root's alone"));
    }
}
