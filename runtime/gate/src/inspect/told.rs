//! What manifest and config say of themselves, for a person to read: platform, sizes, the history of the layers. An author
//! chose these bytes, so a worker parses them, and nothing of it is judged.
use boltseal_evidence::containerd::Client;
use boltseal_jail::Parse;
use boltseal_policy::facts::Image;
use boltseal_policy::text;
use boltseal_trust::{MAX_IMAGE_FILE, digest};
use serde_json::{Value, json};

/// Longest text that is shown, and most lines of one answer.
const SHOWN: usize = 160;
const LINES: usize = 512;
const MANIFEST: u8 = 0;

/// Both files again, for the proof hands out none of their bytes: by their digests, which it verified.
pub(super) fn parts(client: &Client, jail: &dyn Parse, image: &Image) -> Result<Value, String> {
    let read = |name: &str| -> Result<Vec<u8>, String> {
        let bytes = client.blob(name, MAX_IMAGE_FILE).map_err(|e| e.to_string())?;
        if digest(&bytes).to_string() == name { Ok(bytes) } else { Err(format!("other bytes lie under {name} by now")) }
    };
    jail.afresh();
    let manifest = lines(&jail.parse(parse, MANIFEST, &read(&image.manifest)?)?);
    let config = lines(&jail.parse(parse, MANIFEST + 1, &read(&image.config)?)?);
    let of = |name: &str| config.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str()).to_owned();
    let sizes: Vec<u64> =
        manifest.iter().filter(|(key, _)| key == "size").filter_map(|(_, v)| v.parse().ok()).collect();
    // One step of the history per layer; steps that made none stand between them.
    let steps: Vec<&String> = config.iter().filter(|(key, _)| key == "layer").map(|(_, value)| value).collect();
    let mut below = None;
    let mut layers = Vec::new();
    for (number, diff_id) in image.layers.iter().enumerate() {
        let chain = chain_id(below.as_deref(), diff_id);
        layers.push(json!({
            "diff_id": diff_id, "chain_id": chain, "size": sizes.get(number), "created_by": steps.get(number)
        }));
        below = Some(chain);
    }
    Ok(json!({ "platform": of("platform"), "created": of("created"), "layers": layers }))
}

/// OCI image-spec, config.md: of the lowest layer its diff id, of another the digest of what is below and its own.
fn chain_id(below: Option<&str>, diff_id: &str) -> String {
    below.map_or_else(|| diff_id.to_owned(), |below| digest(format!("{below} {diff_id}").as_bytes()).to_string())
}

/// In the worker: `key<tab>value` lines of escaped text.
fn parse(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return Vec::new() };
    let mut out = String::new();
    let mut line = |key: &str, value: &str| {
        out.push_str(&format!("{key}\t{}\n", text::shorten(&text::escape(value), SHOWN)));
    };
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if kind == MANIFEST {
        for layer in value["layers"].as_array().into_iter().flatten().take(LINES) {
            line("size", &layer["size"].as_u64().unwrap_or_default().to_string());
        }
    } else {
        let platform = ["os", "architecture", "variant"].map(|name| word(&value[name]));
        line(
            "platform",
            platform.iter().filter(|p| !p.is_empty()).map(String::as_str).collect::<Vec<_>>().join("/").as_str(),
        );
        line("created", &word(&value["created"]));
        for step in value["history"].as_array().into_iter().flatten().take(LINES) {
            if step["empty_layer"] != true {
                line("layer", &word(&step["created_by"]));
            }
        }
    }
    out.into_bytes()
}

/// Whatever a worker answers: bounded lines without control characters.
fn lines(answer: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(answer);
    let pairs = text.lines().take(LINES + 2).filter_map(|line| line.split_once('\t'));
    pairs.map(|(key, value)| (text::show(key), text::shorten(&text::escape(value), SHOWN))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_told_layer_by_layer() {
        let config = json!({
            "os": "linux", "architecture": "arm64", "variant": "v8", "created": "2026-01-01T00:00:00Z",
            "history": [{ "created_by": "ADD a\tb\n" }, { "created_by": "ENV x", "empty_layer": true }, {}, { "created_by": "RUN c" }],
        });
        let told = lines(&parse(1, &serde_json::to_vec(&config).unwrap()));
        let expected = [
            ("platform", "linux/arm64/v8"),
            ("created", "2026-01-01T00:00:00Z"),
            ("layer", "ADD a\\tb\\n"),
            ("layer", ""),
            ("layer", "RUN c"),
        ];
        assert_eq!(told, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
        let manifest = json!({ "layers": [{ "size": 7 }, { "size": "x" }] });
        let told = lines(&parse(MANIFEST, &serde_json::to_vec(&manifest).unwrap()));
        assert_eq!(told, [("size".into(), "7".into()), ("size".into(), "0".to_owned())]);
    }

    #[test]
    fn a_liar_is_bounded() {
        assert!(lines(b"no tab").is_empty() && lines(b"").is_empty() && parse(1, b"{").is_empty());
        let long = format!("layer\t{}\x1b\n", "x".repeat(9000)).repeat(LINES * 2);
        let told = lines(long.as_bytes());
        assert!(told.len() == LINES + 2 && told.iter().all(|(_, value)| value.chars().count() <= SHOWN));
    }

    #[test]
    fn chain_ids_are_those_of_the_specification() {
        let (a, b) = (format!("sha256:{}", "a".repeat(64)), format!("sha256:{}", "b".repeat(64)));
        assert_eq!(chain_id(None, &a), a);
        assert_eq!(chain_id(Some(&a), &b), digest(format!("{a} {b}").as_bytes()).to_string());
    }
}
