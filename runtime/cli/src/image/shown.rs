//! An inspected image as a page.
use crate::screen::{Colour, column};
use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    Plain(String),
    Marked(char, Colour, String),
}

pub(super) fn page(document: &Value) -> Vec<Line> {
    let mut page = Page(Vec::new());
    page.head(document);
    if document["image"]["is"].is_object() {
        page.signed(&document["image"]["is"]);
        page.layers(document);
    }
    page.findings(document);
    page.0
}

struct Page(Vec<Line>);

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

impl Page {
    fn field(&mut self, name: &str, value: &str) {
        self.0.push(Line::Plain(format!("{name:9} {value}").trim_end().to_owned()));
    }

    fn head(&mut self, document: &Value) {
        self.field("image", text(&document["name"]));
        let target = &document["target"];
        self.field("target", &format!("{} ({})", text(&target["digest"]), text(&target["media_type"])));
        let image = &document["image"];
        if let Some(why) = image["unknown"].as_str() {
            self.field("proof", &format!("none: {why}"));
            return;
        }
        let (image, parts) = (&image["is"], &document["parts"]);
        self.field("manifest", text(&image["manifest"]));
        self.field("platform", &format!("{}, created {}", text(&parts["platform"]), text(&parts["created"])));
        self.field("config", text(&image["config"]));
        let user = text(&image["user"]);
        let root = ["", "0", "root"].contains(&user.split(':').next().unwrap_or_default());
        let named = if user.is_empty() { "not named, which is root" } else { user };
        self.field("user", named);
        if root {
            let hint = "BS-PRC-003 refuses uid 0 unless the pod says runAsUser or hostUsers: false";
            self.0.push(Line::Marked('!', Colour::Doubt, hint.into()));
        }
        let args: Vec<&str> = list(&image["args"]).map(text).collect();
        self.field("command", &args.join(" "));
    }

    fn signed(&mut self, image: &Value) {
        for signature in list(&image["signatures"]) {
            let repository =
                signature["repository"].as_str().unwrap_or("the repository that its authority is pinned to");
            let key: String = text(&signature["key"]).chars().take(16).collect();
            let line = format!(
                "by {}, {}, for {repository}, key {key}..",
                text(&signature["authority"]),
                text(&signature["format"])
            );
            self.field("signed", &line);
        }
        if list(&image["signatures"]).next().is_none() {
            self.field("signed", &format!("by nobody that the policy names; looked in {}", text(&image["looked_in"])));
        }
        for line in list(&image["rejected"]) {
            self.field("", &format!("does not count: {}", text(line)));
        }
        for attestation in list(&image["attestations"]) {
            self.field(
                "attested",
                &format!("by {}, {}", text(&attestation["authority"]), text(&attestation["predicate_type"])),
            );
        }
    }

    fn layers(&mut self, document: &Value) {
        let scan = &document["scan"];
        let found = |layer: Option<u64>| list(&scan["is"]["found"]).filter(move |f| f["layer"].as_u64() == layer);
        self.0.push(Line::Plain(String::new()));
        self.0.push(Line::Plain(format!("   {:>5} {:71} {:>10}  MADE BY", "LAYER", "DIFF ID, CHAIN ID", "BYTES")));
        for (number, layer) in list(&document["parts"]["layers"]).enumerate() {
            let size = layer["size"].as_u64().map_or_else(String::new, |size| size.to_string());
            let by = text(&layer["created_by"]);
            self.0.push(Line::Plain(
                format!("   {number:>5} {:71} {size:>10}  {by}", text(&layer["diff_id"])).trim_end().to_owned(),
            ));
            if layer["chain_id"] != layer["diff_id"] {
                self.0.push(Line::Plain(format!("         {}", text(&layer["chain_id"]))));
            }
            for found in found(u64::try_from(number).ok()) {
                self.found(found);
            }
        }
        for found in found(None) {
            self.found(found);
        }
        match (&scan["is"], scan["unknown"].as_str()) {
            (_, Some(why)) => self.field("scan", &format!("none: {why}")),
            (scan, None) => {
                let more: u64 = list(&scan["more"]).filter_map(Value::as_u64).sum();
                let more = if more > 0 { format!(", and {more} more found than are listed") } else { String::new() };
                let (entries, bytes) = (&scan["entries"], &scan["bytes"]);
                self.field(
                    "scan",
                    &format!("{entries} entries, {bytes} bytes of files, {}{more}", text(&scan["from"])),
                );
            }
        }
    }

    fn found(&mut self, found: &Value) {
        let line = format!("        {}: {} {}", text(&found["kind"]), text(&found["path"]), text(&found["note"]));
        self.0.push(Line::Marked('!', Colour::Doubt, line));
    }

    fn findings(&mut self, document: &Value) {
        self.0.push(Line::Plain(String::new()));
        let mut denied = Vec::new();
        for finding in list(&document["findings"]) {
            let (rule, outcome, fact) = (text(&finding["rule"]), text(&finding["outcome"]), text(&finding["fact"]));
            let (mark, colour) = match outcome {
                "deny" => ('✗', Colour::Bad),
                "warn" | "excepted" => ('!', Colour::Doubt),
                _ => ('✓', Colour::Good),
            };
            let by = text(&finding["by"]);
            let by = if by.is_empty() { String::new() } else { format!(" (by {by})") };
            self.0.push(Line::Marked(mark, colour, format!("{rule} {} {fact}{by}", column(outcome, 8))));
            if outcome == "deny" {
                self.0.push(Line::Plain(format!("   {:11} {:8} Fix: {}", "", "", text(&finding["fix"]))));
                if !denied.contains(&rule) {
                    denied.push(rule);
                }
            }
        }
        let verdict = match text(&document["verdict"]) {
            "allow" => "no rule on images refuses it".to_owned(),
            "deny" => format!("would be DENIED by {}", denied.join(", ")),
            _ => format!("UNDECIDED, which denies a start: {}", denied.join(", ")),
        };
        self.0.push(Line::Plain(format!("-> {verdict}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lines(document: &Value) -> String {
        let one = |line| match line {
            Line::Plain(text) => text,
            Line::Marked(mark, _, text) => format!(" {mark} {}", text.trim_end()),
        };
        page(document).into_iter().map(one).collect::<Vec<_>>().join("\n")
    }

    fn image() -> Value {
        let digest = |d: &str| format!("sha256:{}", d.repeat(64));
        json!({
            "name": "reg.example/team/app:1", "policy": "p",
            "target": { "digest": digest("a"), "media_type": "application/vnd.oci.image.index.v1+json" },
            "image": { "is": {
                "manifest": digest("b"), "config": digest("c"), "chain_id": digest("f"), "user": "", "args": ["/app", "serve"],
                "signatures": [
                    { "authority": "ci", "format": "cosign-signature", "repository": "reg.example/team/app", "key": "1234567890abcdef99" },
                    { "authority": "release", "format": "sigstore-bundle", "repository": null, "key": "9".repeat(64) },
                ],
                "rejected": ["wrong-key: no key verifies it"],
                "attestations": [{ "authority": "ci", "predicate_type": "https://slsa.dev/provenance/v1" }],
                "looked_in": "/var/lib/boltseal/sig/sha256/aa",
            } },
            "parts": { "platform": "linux/amd64", "created": "2026-01-01T00:00:00Z", "layers": [
                { "diff_id": digest("d"), "chain_id": digest("d"), "size": 1234, "created_by": "ADD base" },
                { "diff_id": digest("e"), "chain_id": digest("f"), "size": 56, "created_by": null },
            ] },
            "scan": { "is": { "from": "fresh", "entries": 12, "bytes": 3456, "more": [2, 0, 0, 0, 0], "found": [
                { "kind": "shell", "path": "/bin/sh", "note": "-> busybox", "layer": 0 },
                { "kind": "setuid", "path": "/bin/su", "note": "mode 4755", "layer": 1 },
                { "kind": "device", "path": "/dev/x", "note": "c 1:1", "layer": null },
            ] } },
            "verdict": "deny",
            "findings": [
                { "rule": "BS-IMG-007", "outcome": "deny", "by": "", "condition": "shell", "fact": "shell: /bin/sh", "fix": "build it without" },
                { "rule": "BS-IMG-001", "outcome": "pass", "by": "", "condition": "met", "fact": "signed", "fix": "" },
                { "rule": "BS-IMG-008", "outcome": "excepted", "by": "ops, 2026-12-31, old", "condition": "setuid", "fact": "setuid", "fix": "" },
            ],
        })
    }

    const PAGE: &str = include_str!("page.txt");

    /// `BLESS=1` writes it.
    #[test]
    fn a_page() {
        let mut unproven = json!({ "name": "x", "verdict": "undecided", "target": { "digest": "sha256:1", "media_type": "m" },
            "image": { "unknown": "the content store holds other bytes" }, "scan": { "unknown": "x" }, "findings": [
                { "rule": "BS-IMG-001", "outcome": "deny", "by": "", "condition": "unknown", "fact": "unknown", "fix": "pull it" }] });
        let mut pages = vec![lines(&image()), lines(&unproven)];
        unproven["verdict"] = "allow".into();
        let mut bare = image();
        bare["image"]["is"]["signatures"] = json!([]);
        bare["image"]["is"]["user"] = "1000:1000".into();
        bare["scan"] = json!({ "unknown": "it has more than 1000000 entries" });
        bare["verdict"] = "allow".into();
        bare["findings"] = json!([]);
        pages.push(lines(&bare));
        let shown = format!("{}\n", pages.join("\n----\n"));
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/image/page.txt"), &shown).unwrap();
        }
        assert!(PAGE == shown || std::env::var_os("BLESS").is_some(), "it differs (BLESS=1 takes it over):\n{shown}");
    }

    /// Whatever is missing, there is a page.
    #[test]
    fn nothing_is_a_page_too() {
        assert!(lines(&Value::Null).ends_with("-> UNDECIDED, which denies a start: "));
        assert!(lines(&json!({ "image": { "is": {} } })).contains("by nobody"));
    }
}
