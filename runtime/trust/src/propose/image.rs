//! Index, manifest and config of an image (OCI image-spec 1.1; Docker manifest schema 2).
use super::json::{Json, Object, object};
use super::{
    Config, Descriptor, Index, IndexEntry, MAX_ENTRIES, MAX_IMAGE_FILE, MAX_LAYERS, MAX_LIST, MAX_NAME, MAX_NOTES,
    MAX_TEXT, MAX_TEXTS, Malformed, Manifest, Placed, Proposal,
};

const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const MANIFESTS: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];

pub(super) fn target(bytes: &[u8]) -> Result<Proposal, Malformed> {
    let file = object(bytes, "image", MAX_IMAGE_FILE)?;
    if file.has("manifests")? {
        read_index(bytes, &file).map(Proposal::Index)
    } else {
        read_manifest(bytes, &file).map(Proposal::Manifest)
    }
}

pub(super) fn index(bytes: &[u8]) -> Result<Index, Malformed> {
    read_index(bytes, &object(bytes, "index", MAX_IMAGE_FILE)?)
}

pub(super) fn manifest(bytes: &[u8]) -> Result<Manifest, Malformed> {
    read_manifest(bytes, &object(bytes, "manifest", MAX_IMAGE_FILE)?)
}

/// A file that can be read both as an index and as a manifest is two images under one digest (CVE-2021-41190).
fn kind(file: &Object<'_>, known: &[&str], foreign: &[&str]) -> Result<String, Malformed> {
    if file.need("schemaVersion")?.number("schemaVersion")? != 2 {
        return Err(Malformed::new(
            "schemaVersion is not 2 (Docker's schema 1 is not taken). Fix: push the image anew with a current tool",
        ));
    }
    for name in foreign {
        if file.has(name)? {
            return Err(Malformed::new(format!("holds {name}, so it can be read as another kind of file too")));
        }
    }
    let media_type = file.text("mediaType", MAX_NAME)?;
    if !media_type.is_empty() && !known.contains(&media_type) {
        return Err(Malformed::new(format!("mediaType {media_type:?} is not one of {known:?}")));
    }
    Ok(media_type.to_owned())
}

fn read_index(bytes: &[u8], file: &Object<'_>) -> Result<Index, Malformed> {
    let media_type = kind(file, &INDEXES, &["config", "layers", "fsLayers"])?;
    let mut entries = Vec::new();
    for entry in bounded(file.list("manifests")?, MAX_ENTRIES, "manifests")? {
        let entry = entry.object("manifests")?;
        let none = Object::default();
        let platform = match entry.get("platform")? {
            Some(platform) => platform.object("platform")?,
            None => &none,
        };
        entries.push(IndexEntry {
            descriptor: descriptor(bytes, entry)?,
            os: platform.text("os", MAX_NAME)?.to_owned(),
            architecture: platform.text("architecture", MAX_NAME)?.to_owned(),
            variant: platform.text("variant", MAX_NAME)?.to_owned(),
        });
    }
    Ok(Index { media_type, entries })
}

fn read_manifest(bytes: &[u8], file: &Object<'_>) -> Result<Manifest, Malformed> {
    let media_type = kind(file, &MANIFESTS, &["manifests", "fsLayers"])?;
    let config = descriptor(bytes, file.object("config")?)?;
    let layers = bounded(file.list("layers")?, MAX_LAYERS, "layers")?
        .iter()
        .map(|layer| descriptor(bytes, layer.object("layers")?))
        .collect::<Result<_, _>>()?;
    Ok(Manifest { media_type, config, layers })
}

pub(super) fn config(bytes: &[u8]) -> Result<Config, Malformed> {
    let file = object(bytes, "config", MAX_IMAGE_FILE)?;
    let rootfs = file.object("rootfs")?;
    if rootfs.need_text("type", MAX_NAME)? != "layers" {
        return Err(Malformed::new("rootfs.type is not layers"));
    }
    let diff_ids = bounded(rootfs.list("diff_ids")?, MAX_LAYERS, "diff_ids")?
        .iter()
        .map(|id| placed(bytes, id.placed("diff_ids")?))
        .collect::<Result<_, _>>()?;
    let none = Object::default();
    let process = match file.get("config")? {
        Some(process) => process.object("config")?,
        None => &none,
    };
    let (labels, history, unread) = match notes(&file, process) {
        Ok((labels, history)) => (labels, history, String::new()),
        Err(why) => (Vec::new(), Vec::new(), why.0),
    };
    let mut left = MAX_TEXTS;
    Ok(Config {
        labels,
        history,
        unread,
        os: file.text("os", MAX_NAME)?.to_owned(),
        architecture: file.text("architecture", MAX_NAME)?.to_owned(),
        created: file.text("created", MAX_NAME)?.to_owned(),
        diff_ids,
        user: process.text("User", MAX_NAME)?.to_owned(),
        working_dir: process.text("WorkingDir", MAX_TEXT)?.to_owned(),
        env: texts(process, "Env", &mut left)?,
        entrypoint: texts(process, "Entrypoint", &mut left)?,
        cmd: texts(process, "Cmd", &mut left)?,
    })
}

type Labels = Vec<(String, String)>;

/// Labels, and what each step of the history was made by.
fn notes(file: &Object<'_>, process: &Object<'_>) -> Result<(Labels, Vec<String>), Malformed> {
    let mut left = MAX_NOTES;
    let mut take = |text: &str| {
        left =
            left.checked_sub(text.len()).ok_or_else(|| Malformed::new("labels and history are too long together"))?;
        Ok(text.to_owned())
    };
    let mut labels = Vec::new();
    if let Some(list) = process.get("Labels")? {
        for (name, value) in list.object("Labels")?.members() {
            if labels.len() == MAX_LIST || name.len() > MAX_TEXT {
                return Err(Malformed::new(format!("Labels are more than {MAX_LIST}, or one is too long")));
            }
            labels.push((take(name)?, take(value.text("Labels", MAX_TEXT)?)?));
        }
    }
    let mut history = Vec::new();
    if let Some(list) = file.get("history")? {
        for step in bounded(list.list("history")?, MAX_LIST, "history")? {
            if let Some(text) = step.object("history")?.get("created_by")? {
                history.push(take(text.text("created_by", MAX_TEXT)?)?);
            }
        }
    }
    Ok((labels, history))
}

fn texts(object: &Object<'_>, name: &str, left: &mut usize) -> Result<Vec<String>, Malformed> {
    let Some(list) = object.get(name)? else {
        return Ok(Vec::new());
    };
    let mut texts = Vec::new();
    for text in bounded(list.list(name)?, MAX_LIST, name)? {
        let text = text.text(name, MAX_TEXT)?;
        *left = left
            .checked_sub(text.len())
            .ok_or_else(|| Malformed::new("Env, Entrypoint and Cmd are too long together"))?;
        texts.push(text.to_owned());
    }
    Ok(texts)
}

fn bounded<'j, 'a>(list: &'j [Json<'a>], max: usize, name: &str) -> Result<&'j [Json<'a>], Malformed> {
    if list.len() > max {
        return Err(Malformed::new(format!("{name} has {} entries, at most {max} are taken", list.len())));
    }
    Ok(list)
}

fn descriptor(bytes: &[u8], object: &Object<'_>) -> Result<Descriptor, Malformed> {
    Ok(Descriptor {
        digest: placed(bytes, object.placed("digest")?)?,
        size: object.need("size")?.number("size")?,
        media_type: object.text("mediaType", MAX_NAME)?.to_owned(),
    })
}

/// `text` is a part of `bytes`: its place is the distance between the two.
fn placed(bytes: &[u8], text: &str) -> Result<Placed, Malformed> {
    let digest = text
        .parse()
        .map_err(|_| Malformed::new(format!("digest {text:?} is not sha256:<64 lower-case hex digits>")))?;
    let at = (text.as_ptr() as usize)
        .checked_sub(bytes.as_ptr() as usize)
        .and_then(|at| u32::try_from(at).ok())
        .ok_or_else(|| Malformed::new("a digest outside its file"))?;
    Ok(Placed { digest, at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::digest;

    const APP: &[u8] = include_bytes!("../../tests/fixtures/image/app.manifest.json");
    const INDEX: &[u8] = include_bytes!("../../tests/fixtures/image/app.index.json");
    const CONFIG: &[u8] = include_bytes!("../../tests/fixtures/image/app.config.json");

    fn with(file: &[u8], from: &str, to: &str) -> Vec<u8> {
        let text = std::str::from_utf8(file).unwrap();
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1).into_bytes()
    }

    #[test]
    fn a_real_image_from_index_to_config() {
        let index = index(INDEX).unwrap();
        assert_eq!(index.entries.len(), 2);
        let entry = &index.entries[0];
        assert_eq!((entry.os.as_str(), entry.architecture.as_str()), ("linux", "amd64"));
        assert_eq!(entry.descriptor.digest.digest, digest(APP));
        assert_eq!(entry.descriptor.size, APP.len() as u64);
        let manifest = manifest(APP).unwrap();
        assert_eq!(manifest.config.digest.digest, digest(CONFIG));
        assert_eq!(manifest.layers.len(), 2);
        let config = config(CONFIG).unwrap();
        assert_eq!(config.diff_ids.len(), 2);
        assert_eq!(config.user, "1000:1000");
        assert_eq!(config.env, ["PATH=/bin", "GREETING=say \"hello\" & go"]);
        assert_eq!(config.args(), ["/bin/busybox", "cat", "/etc/greeting"]);
        assert_eq!((config.working_dir.as_str(), config.os.as_str()), ("/", "linux"));
        for placed in config.diff_ids {
            let at = placed.at as usize;
            assert_eq!(&CONFIG[at..at + 71], placed.digest.to_string().as_bytes());
        }
    }

    #[test]
    fn target_tells_the_two_apart() {
        assert!(matches!(target(INDEX).unwrap(), Proposal::Index(_)));
        assert!(matches!(target(APP).unwrap(), Proposal::Manifest(_)));
        let docker = include_bytes!("../../tests/fixtures/image/docker.manifest.json");
        let Proposal::Manifest(docker) = target(docker).unwrap() else { panic!() };
        assert_eq!(docker.media_type, MANIFESTS[1]);
    }

    #[test]
    fn refused_by_name() {
        for (file, why) in [
            (with(APP, r#""schemaVersion":2"#, r#""schemaVersion":1"#), "schema 1"),
            (with(APP, r#""schemaVersion":2"#, r#""schemaVersion":2,"manifests":[]"#), "another kind"),
            (with(APP, r#""schemaVersion":2"#, r#""schemaVersion":2,"mediaType":"text/plain""#), "mediaType"),
            (with(APP, r#""schemaVersion":2,"#, ""), "no schemaVersion"),
            (with(APP, "\"digest\":\"sha256:", "\"digest\":\"sha512:"), "lower-case"),
            (with(APP, "\"digest\":\"sha256:", "\"digest\":\"\\u0073ha256:"), "escapes"),
            (with(APP, r#""config":{"#, r#""Config":{},"config":{"#), "looks like"),
            (with(APP, r#""layers":["#, r#""layers":[3,"#), "not an object"),
            (
                format!(
                    r#"{{"schemaVersion":2,"config":{{"digest":"{0}","size":1}},"layers":[{1}]}}"#,
                    digest(b""),
                    vec![format!(r#"{{"digest":"{}","size":1}}"#, digest(b"")); MAX_LAYERS + 1].join(",")
                )
                .into_bytes(),
                "at most 128",
            ),
        ] {
            let error = manifest(&file).unwrap_err().0;
            assert!(error.contains(why), "{error}: {}", String::from_utf8_lossy(&file));
        }
        for (file, why) in [
            (with(CONFIG, r#""type":"layers""#, r#""type":"other""#), "rootfs.type"),
            (with(CONFIG, "PATH=/bin", "PATH=\\u0000"), "NUL"),
            (with(CONFIG, r#""User":"1000:1000""#, r#""user":"0","User":"1000:1000""#), "looks like"),
            (with(CONFIG, r#""Cmd":["cat""#, r#""Cmd":["cat",7"#), "not a text"),
            (with(CONFIG, r#""rootfs""#, r#""rootfs2""#), "no rootfs"),
            (with(CONFIG, "PATH=", &"x".repeat(MAX_TEXT)), "longer"),
        ] {
            let error = config(&file).unwrap_err().0;
            assert!(error.contains(why), "{error}");
        }
        assert!(config(&with(CONFIG, r#""config":{"#, r#""config":null,"x":{"#)).unwrap().args().is_empty());
        assert!(manifest(&vec![b' '; MAX_IMAGE_FILE + 1]).is_err());
        assert!(index(APP).is_err() && manifest(INDEX).is_err());
    }

    #[test]
    fn every_config_that_is_taken_can_be_encoded() {
        let text = "x".repeat(MAX_TEXTS / 64);
        let list = vec![format!("\"{text}\""); 64].join(",");
        let steps = vec![format!(r#"{{"created_by":"{}"}}"#, &text[..MAX_NOTES / 64]); 64].join(",");
        let file = format!(
            r#"{{"rootfs":{{"type":"layers","diff_ids":[]}},"config":{{"Env":[{list}]}},"history":[{steps}]}}"#
        );
        let proposal = Proposal::Config(config(file.as_bytes()).unwrap());
        assert_eq!(Proposal::decode(&proposal.encode()).unwrap(), proposal);
        let more = file.replace("\"Env\"", "\"Cmd\":[\"x\"],\"Env\"");
        assert!(config(more.as_bytes()).unwrap_err().0.contains("together"));
    }
}
