//! Shows, without a parser, that a proposed value is the one that a JSON text holds at a known path.
use crate::digest::{Digest, TEXT_LEN, digest};
use crate::propose::{Config, Placed};
use crate::strings::{ANY, members, strings, unescapes_to};
use std::fmt;

/// Which link of the chain a child hangs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// `manifests[].digest`
    IndexToManifest,
    /// `config.digest`
    ManifestToConfig,
    /// `layers[].digest`
    ManifestToLayer,
}

impl Link {
    fn path(self) -> &'static [&'static str] {
        match self {
            Self::IndexToManifest => &["manifests", "*", "digest"],
            Self::ManifestToConfig => &["config", "digest"],
            Self::ManifestToLayer => &["layers", "*", "digest"],
        }
    }
}

/// Why a proposed value does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unbound {
    /// The path that was looked at does not hold the proposed value.
    Value(&'static str),
    /// The child's bytes are not those that the parent names.
    Child,
    /// The text can be read in two ways: a key twice, or written so that readers differ.
    Ambiguous,
    /// Brackets or quotes that do not fit, or too many of them.
    Broken,
}

impl fmt::Display for Unbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(name) => write!(f, "{name} in the file is not what was proposed"),
            Self::Child => f.write_str("the bytes do not have the digest that their parent names"),
            Self::Ambiguous => f.write_str("a key stands twice or is written so that readers differ"),
            Self::Broken => f.write_str("not JSON"),
        }
    }
}

impl std::error::Error for Unbound {}

/// The child's digest, shown twice: `parent` holds it at `link`, at the proposed place, and `child` hashes to it.
/// `parent` must itself be verified bytes.
///
/// # Errors
/// [`Unbound`] when one of the two does not hold.
pub fn bind_child(parent: &[u8], link: Link, placed: &Placed, child: &[u8]) -> Result<Digest, Unbound> {
    let want = placed.digest.to_string();
    let at = usize::try_from(placed.at).map_err(|_| Unbound::Value("digest"))?;
    let mut found = false;
    strings(parent, link.path(), |offset, text| found |= offset == at && text == want.as_bytes())?;
    if !found {
        return Err(Unbound::Value("digest"));
    }
    if digest(child) != placed.digest {
        return Err(Unbound::Child);
    }
    Ok(placed.digest)
}

/// The image's diff_ids: the proposed ones are all that the config holds, in its order.
///
/// # Errors
/// [`Unbound`] when one is missing, added or moved.
pub fn bind_diff_ids(config: &[u8], proposed: &[Placed]) -> Result<Vec<Digest>, Unbound> {
    let mut rest = proposed.iter();
    let mut fits = true;
    strings(config, &["rootfs", "diff_ids", "*"], |offset, text| {
        fits &= rest.next().is_some_and(|placed| {
            u32::try_from(offset) == Ok(placed.at)
                && text.len() == TEXT_LEN
                && text == placed.digest.to_string().as_bytes()
        });
    })?;
    if !fits || rest.next().is_some() {
        return Err(Unbound::Value("rootfs.diff_ids"));
    }
    Ok(proposed.iter().map(|placed| placed.digest).collect())
}

/// Everything else of a proposed [`Config`], diff_ids included: each text is the config's own, none is missing.
///
/// # Errors
/// [`Unbound`] names the field that differs.
pub fn bind_config(config: &[u8], proposed: &Config) -> Result<(), Unbound> {
    bind_diff_ids(config, &proposed.diff_ids)?;
    for (path, name, text) in [
        (&["os"][..], "os", &proposed.os),
        (&["architecture"], "architecture", &proposed.architecture),
        (&["created"], "created", &proposed.created),
        (&["config", "User"], "config.User", &proposed.user),
        (&["config", "WorkingDir"], "config.WorkingDir", &proposed.working_dir),
    ] {
        let mut seen = None;
        strings(config, path, |_, raw| seen = Some(unescapes_to(raw, text)))?;
        if !seen.unwrap_or(text.is_empty()) {
            return Err(Unbound::Value(name));
        }
    }
    let mut lists = vec![
        (["config", "Env", "*"], "config.Env", &proposed.env),
        (["config", "Entrypoint", "*"], "config.Entrypoint", &proposed.entrypoint),
        (["config", "Cmd", "*"], "config.Cmd", &proposed.cmd),
    ];
    // Where they were not read, nothing is said of them, and who asks for them denies.
    if proposed.unread.is_empty() {
        lists.push((["history", "*", "created_by"], "history", &proposed.history));
        bind_labels(config, &proposed.labels)?;
    }
    for (path, name, texts) in lists {
        let mut rest = texts.iter();
        let mut fits = true;
        strings(config, &path, |_, raw| fits &= rest.next().is_some_and(|text| unescapes_to(raw, text)))?;
        if !fits || rest.next().is_some() {
            return Err(Unbound::Value(name));
        }
    }
    Ok(())
}

/// Labels have no order: each that stands there is one of the proposed, and there are as many.
fn bind_labels(config: &[u8], proposed: &[(String, String)]) -> Result<(), Unbound> {
    let mut rest: Vec<_> = proposed.iter().collect();
    let mut fits = true;
    members(config, &["config", "Labels", ANY], |key, _, raw| {
        let at = rest.iter().position(|(name, text)| unescapes_to(key, name) && unescapes_to(raw, text));
        fits &= at.map(|at| rest.swap_remove(at)).is_some();
    })?;
    if fits && rest.is_empty() { Ok(()) } else { Err(Unbound::Value("config.Labels")) }
}

/// The chain id of layers, the lowest first (OCI image-spec, config.md); None when there are none.
#[must_use]
pub fn chain_id(diff_ids: &[Digest]) -> Option<Digest> {
    let (first, above) = diff_ids.split_first()?;
    Some(above.iter().fold(*first, |below, id| digest(format!("{below} {id}").as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::propose::{Proposal, Source, propose};

    const INDEX: &[u8] = include_bytes!("../tests/fixtures/image/app.index.json");
    const APP: &[u8] = include_bytes!("../tests/fixtures/image/app.manifest.json");
    const ARM: &[u8] = include_bytes!("../tests/fixtures/image/arm.manifest.json");
    const CONFIG: &[u8] = include_bytes!("../tests/fixtures/image/app.config.json");

    #[test]
    fn the_chain_of_a_real_image_holds_and_breaks() {
        let Proposal::Index(index) = propose(Source::Index, INDEX).unwrap() else { panic!() };
        let Proposal::Manifest(manifest) = propose(Source::Manifest, APP).unwrap() else { panic!() };
        let Proposal::Config(config) = propose(Source::Config, CONFIG).unwrap() else { panic!() };
        let placed = index.entries[0].descriptor.digest;
        assert_eq!(bind_child(INDEX, Link::IndexToManifest, &placed, APP), Ok(digest(APP)));
        assert_eq!(bind_child(INDEX, Link::IndexToManifest, &placed, ARM), Err(Unbound::Child));
        let moved = Placed { at: placed.at + 1, ..placed };
        assert_eq!(bind_child(INDEX, Link::IndexToManifest, &moved, APP), Err(Unbound::Value("digest")));
        let foreign = Placed { digest: digest(b"x"), ..placed };
        assert_eq!(bind_child(INDEX, Link::IndexToManifest, &foreign, b"x"), Err(Unbound::Value("digest")));

        let placed = manifest.config.digest;
        assert_eq!(bind_child(APP, Link::ManifestToConfig, &placed, CONFIG), Ok(digest(CONFIG)));
        // A layer passed off as the config.
        let layer = manifest.layers[0].digest;
        assert_eq!(bind_child(APP, Link::ManifestToConfig, &layer, b""), Err(Unbound::Value("digest")));
        assert_eq!(bind_child(APP, Link::ManifestToLayer, &layer, b""), Err(Unbound::Child));

        bind_config(CONFIG, &config).unwrap();
        let ids = bind_diff_ids(CONFIG, &config.diff_ids).unwrap();
        let joined = format!("{} {}", ids[0], ids[1]);
        assert_eq!(chain_id(&ids), Some(digest(joined.as_bytes())));
        assert_eq!(chain_id(&ids[..1]), Some(ids[0]));
        assert_eq!(chain_id(&[]), None);
    }

    #[test]
    fn labels_and_history_are_bound_or_said_to_be_unread() {
        let text = r#"{"rootfs":{"type":"layers","diff_ids":[]},"config":{"Labels":{"a":"1","b\u0026":"x \"y\"","c":""}},
            "history":[{"created_by":"RUN \u0026 a"},{"comment":"no"},{"created_by":""}]}"#;
        let read = |text: &str| match propose(Source::Config, text.as_bytes()).unwrap() {
            Proposal::Config(config) => config,
            _ => panic!(),
        };
        let config = read(text);
        let labels = [("a", "1"), ("b&", "x \"y\""), ("c", "")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(
            (config.labels.as_slice(), config.history.as_slice()),
            (&labels[..], &["RUN & a".to_owned(), String::new()][..])
        );
        bind_config(text.as_bytes(), &config).unwrap();
        let lie = |change: &dyn Fn(&mut Config)| {
            let mut lie = config.clone();
            change(&mut lie);
            bind_config(text.as_bytes(), &lie)
        };
        let (labels, history) = (Err(Unbound::Value("config.Labels")), Err(Unbound::Value("history")));
        assert_eq!(lie(&|c| c.labels.reverse()), Ok(()));
        assert_eq!(lie(&|c| drop(c.labels.pop())), labels);
        assert_eq!(lie(&|c| c.labels[0].1 = "2".into()), labels);
        assert_eq!(lie(&|c| c.labels[0].0 = "c".into()), labels);
        assert_eq!(lie(&|c| c.labels[1] = c.labels[0].clone()), labels);
        assert_eq!(lie(&|c| c.history.reverse()), history);
        assert_eq!(lie(&|c| drop(c.history.pop())), history);
        // A worker may say that it did not read them; then nobody is told that they hold no secret.
        for odd in [
            text.replace(r#""a":"1""#, r#""a":1"#),
            text.replace(r#"{"comment":"no"}"#, "7"),
            text.replace("RUN ", &"x".repeat(33 << 10)),
            text.replace(r#""Labels""#, r#""labels":{},"Labels""#),
        ] {
            let config = read(&odd);
            assert!(!config.unread.is_empty() && config.labels.is_empty() && config.history.is_empty(), "{odd}");
            bind_config(odd.as_bytes(), &config).unwrap();
        }
    }

    #[test]
    fn a_config_that_lies_in_any_field_is_refused() {
        let Proposal::Config(config) = propose(Source::Config, CONFIG).unwrap() else { panic!() };
        let lie = |change: &dyn Fn(&mut Config)| {
            let mut lie = config.clone();
            change(&mut lie);
            assert_ne!(lie, config);
            bind_config(CONFIG, &lie).unwrap_err()
        };
        assert_eq!(lie(&|c| c.user = "0".into()), Unbound::Value("config.User"));
        assert_eq!(lie(&|c| c.user.clear()), Unbound::Value("config.User"));
        assert_eq!(lie(&|c| c.working_dir = "/etc".into()), Unbound::Value("config.WorkingDir"));
        assert_eq!(lie(&|c| c.env.clear()), Unbound::Value("config.Env"));
        assert_eq!(lie(&|c| c.env.push("A=b".into())), Unbound::Value("config.Env"));
        assert_eq!(lie(&|c| c.entrypoint[0] = "/bin/sh".into()), Unbound::Value("config.Entrypoint"));
        assert_eq!(lie(&|c| c.cmd.swap(0, 1)), Unbound::Value("config.Cmd"));
        assert_eq!(lie(&|c| c.labels.push(("a".into(), "b".into()))), Unbound::Value("config.Labels"));
        assert_eq!(lie(&|c| c.history.push("RUN x".into())), Unbound::Value("history"));
        assert_eq!(lie(&|c| c.os = "windows".into()), Unbound::Value("os"));
        assert_eq!(lie(&|c| c.architecture.clear()), Unbound::Value("architecture"));
        assert_eq!(lie(&|c| c.created.push('0')), Unbound::Value("created"));
        assert_eq!(lie(&|c| c.diff_ids.swap(0, 1)), Unbound::Value("rootfs.diff_ids"));
        assert_eq!(lie(&|c| c.diff_ids.push(c.diff_ids[1])), Unbound::Value("rootfs.diff_ids"));
        assert_eq!(lie(&|c| c.diff_ids.truncate(1)), Unbound::Value("rootfs.diff_ids"));
        assert_eq!(lie(&|c| c.diff_ids[0].at += 1), Unbound::Value("rootfs.diff_ids"));
    }
}
