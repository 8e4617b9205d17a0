//! What a well-formed policy may still get wrong. Each problem is one line that names the key.
mod gates;

use super::{Allowance, Authority, Exception, Mode, NEUTRAL, Policy, Scope};
use crate::network::Open;
use crate::{date, pattern, programs, rules, standard, text};
use std::collections::BTreeSet;

/// Integrity levels of the rootfs, weakest first.
pub(crate) const INTEGRITY: [&str; 4] = ["unpacked", "fsverity", "dmverity-local", "dmverity-signed"];

/// Most keys that a scope can need: of each image sixteen signature files are looked at.
const MAX_NEED: usize = 8;

/// Rules whose every condition is a different risk: an exception must say which it accepts.
const CONDITION_NEEDED: [&str; 2] = ["BS-NOD-001", "BS-MAC-001"];

impl Policy {
    /// Problems of a policy that parsed; empty when it may be used.
    #[must_use]
    pub fn validate(&self) -> Vec<String> {
        let mut out = Vec::new();
        if self.version != 1 {
            out.push("policy.toml: `version` must be 1".into());
        }
        modes("modes", &self.modes, &mut out);
        self.images(&mut out);
        self.sensitivities(&mut out);
        self.numbers_and_paths(&mut out);
        self.names(&mut out);
        self.node_rules(&mut out);
        self.allowances.iter().for_each(|a| self.allowance(a, &mut out));
        self.exceptions.iter().for_each(|e| exception(e, &mut out));
        out
    }

    fn images(&self, out: &mut Vec<String>) {
        for prefix in &self.registries.allow {
            repository("registries.allow", prefix, out);
        }
        let mut names = BTreeSet::new();
        for a in &self.authorities {
            let name = text::show(&a.name);
            if a.name.trim().is_empty() {
                out.push("authority: `name` is empty".into());
            }
            if !names.insert(a.name.as_str()) {
                out.push(format!("authority \"{name}\": the name is used twice"));
            }
            authority(&name, a, out);
            if a.repositories.is_empty() {
                out.push(format!("authority \"{name}\": `repositories` is empty; name what it may sign for"));
            }
            for prefix in &a.repositories {
                repository(&format!("authority \"{name}\": `repositories`"), prefix, out);
            }
            a.window(&format!("authority \"{name}\""), out);
        }
        let mut seen = BTreeSet::new();
        for scope in &self.scopes {
            self.scope(scope, &mut seen, out);
        }
        let denied = self.scopes.iter().flat_map(|scope| &scope.deny_digests).chain(&self.image.deny_digests);
        for digest in self.sandbox.digests.iter().chain(denied) {
            if !pattern::is_digest(digest) {
                out.push(format!("digest \"{}\": must be sha256: and 64 lower-case hex digits", text::show(digest)));
            }
        }
        if !INTEGRITY.contains(&self.image.integrity.as_str()) {
            out.push(format!("image.integrity: must be one of {}", INTEGRITY.join(", ")));
        }
        if self.image.snapshotters.is_empty() {
            out.push("image.snapshotters: empty; nothing could start".into());
        }
        self.gates(out);
    }

    fn scope<'a>(&'a self, scope: &'a Scope, seen: &mut BTreeSet<&'a str>, out: &mut Vec<String>) {
        let at = format!("scope \"{}\"", text::show(&scope.repository));
        repository(&format!("{at}: `repository`"), &scope.repository, out);
        if !seen.insert(scope.repository.trim_end_matches('/')) {
            out.push(format!("{at}: named twice"));
        }
        if scope.authorities.is_empty() {
            out.push(format!("{at}: `authorities` is empty; nothing could start"));
        }
        for name in &scope.authorities {
            if !self.authorities.iter().any(|a| a.name == *name) {
                out.push(format!("{at}: no authority is named \"{}\"", text::show(name)));
            }
        }
        if !scope.integrity.is_empty() && !INTEGRITY.contains(&scope.integrity.as_str()) {
            out.push(format!("{at}: `integrity` must be one of {}", INTEGRITY.join(", ")));
        }
        self.reachable(
            scope,
            &at,
            |authority| Some(format!("{}{}{}", authority.key, authority.roots, authority.trusted_root)),
            out,
        );
        modes(&at, &scope.modes, out);
        let open = Open { bind: scope.bind.clone(), connect: scope.connect.clone() };
        out.extend(open.bounds().into_iter().map(|why| format!("{at}: {why}")));
        let wrong = scope.programs.iter().flat_map(|list| programs::problems(list));
        out.extend(wrong.map(|why| format!("{at}: {why}")));
        if !scope.sensitivity.is_empty() && scope.sensitivity != NEUTRAL {
            self.named_level(&format!("{at}: `sensitivity`"), &scope.sensitivity, out);
        }
    }

    /// Scopes that need more keys than they name, one line each. `key` says whose key an authority's file holds; without
    /// an answer the authority has none that counts.
    #[must_use]
    pub fn unreachable(&self, key: impl Fn(&Authority) -> Option<String>) -> Vec<String> {
        let mut out = Vec::new();
        for scope in &self.scopes {
            self.reachable(scope, &format!("scope \"{}\"", text::show(&scope.repository)), &key, &mut out);
        }
        out
    }

    fn reachable(&self, scope: &Scope, at: &str, key: impl Fn(&Authority) -> Option<String>, out: &mut Vec<String>) {
        if !(1..=MAX_NEED).contains(&scope.need) {
            out.push(format!("{at}: `need` is from 1 to {MAX_NEED}"));
            return;
        }
        let meets =
            |prefix: &String| pattern::covers(prefix, &scope.repository) || pattern::covers(&scope.repository, prefix);
        let named = self.authorities.iter().filter(|a| scope.authorities.contains(&a.name));
        let keys: BTreeSet<_> = named.filter(|a| a.repositories.iter().any(meets)).filter_map(key).collect();
        // With one, what is wrong is said elsewhere, or is nothing: an authority may be there for later.
        if scope.need > keys.len().max(1) {
            out.push(format!(
                "{at}: `need` is {}, but its authorities have {} that may sign for it; nothing could start",
                scope.need,
                match keys.len() {
                    1 => "1 key".to_owned(),
                    n => format!("{n} keys"),
                }
            ));
        }
    }

    fn sensitivities(&self, out: &mut Vec<String>) {
        let rules = &self.sensitivity;
        let mut seen = BTreeSet::new();
        for level in &rules.levels {
            if !plain_name(level) || !seen.insert(level) {
                out.push(format!(
                    "sensitivity.levels: \"{}\" must be letters, digits, `-`, `_`, `.`, named once",
                    text::show(level)
                ));
            }
        }
        if !rules.default.is_empty() {
            self.named_level("sensitivity.default", &rules.default, out);
        }
    }

    /// A scope may name what runs on other nodes, so only where this node names levels can a name be wrong.
    fn named_level(&self, at: &str, name: &str, out: &mut Vec<String>) {
        if !plain_name(name) {
            out.push(format!("{at}: \"{}\" must be letters, digits, `-`, `_`, `.`", text::show(name)));
        } else if at == "sensitivity.default" && !self.sensitivity.levels.iter().any(|level| level == name) {
            out.push(format!("{at}: \"{}\" is none of sensitivity.levels", text::show(name)));
        }
    }

    fn numbers_and_paths(&self, out: &mut Vec<String>) {
        const MEBIBYTE: u64 = 1 << 20;
        if self.limits.memory < MEBIBYTE || i64::try_from(self.limits.memory).is_err() {
            out.push("limits.memory: at least 1 MiB, in bytes".into());
        }
        if !(1..=4_194_304).contains(&self.limits.pids) {
            out.push("limits.pids: from 1 to 4194304".into());
        }
        if self.mounts.tmpfs_size < 4096 || i64::try_from(self.mounts.tmpfs_size).is_err() {
            out.push("mounts.tmpfs_size: at least 4096, in bytes".into());
        }
        let m = &self.mounts;
        let named = [
            ("kubelet_root", &m.kubelet_root),
            ("containerd_root", &m.containerd_root),
            ("containerd_state", &m.containerd_state),
        ];
        let listed = m.sensitive.iter().map(|p| ("sensitive", p));
        for (key, path) in named.into_iter().chain(listed) {
            plain_path(&format!("mounts.{key}"), path, out);
        }
        for path in &self.devices.allow {
            device("devices.allow", path, out);
        }
        let ids = &self.user_namespace;
        if !(1..=i32::MAX as u32 - standard::LEAST_IDS).contains(&ids.min_host_id) {
            out.push("user_namespace.min_host_id: from 1 to 2147418111; the host's root is never a pod's".into());
        }
        if !(standard::LEAST_IDS..=1 << 24).contains(&ids.max_size) {
            out.push("user_namespace.max_size: from 65536 to 16777216".into());
        }
        if !(1..=64).contains(&self.landlock.abi) {
            out.push("landlock.abi: at least 1".into());
        }
    }

    fn names(&self, out: &mut Vec<String>) {
        for name in &self.process.capabilities {
            if !standard::DEFAULT_CAPABILITIES.contains(&name.as_str()) {
                out.push(format!(
                    "process.capabilities: {} is not of the default set; grant it to one image by an allowance",
                    text::show(name)
                ));
            }
        }
        for name in &self.process.sysctls {
            sysctl("process.sysctls", name, out);
        }
        if !(2..=1000).contains(&self.anomalies.port_scan) {
            out.push("anomalies.port_scan: from 2 to 1000".into());
        }
        for name in self.anomalies.syscalls.names() {
            if !standard::TRIP_WIRE.contains(&name.as_str()) {
                out.push(format!("anomalies.syscalls: {} is not of the trip-wire", text::show(&name)));
            }
        }
        for (key, list) in [("apparmor", &self.label.apparmor), ("selinux", &self.label.selinux)] {
            for name in list {
                if name == "unconfined" || name == "unconfined_t" || name == "spc_t" || !plain_name(name) {
                    out.push(format!("label.{key}: \"{}\" is not a confining profile's name", text::show(name)));
                }
            }
        }
        match (self.owner.level.as_str(), &self.owner.token) {
            ("annotation", None) => {}
            ("annotation", Some(_)) => out.push("owner.token: no token is read at owner.level \"annotation\"".into()),
            ("pod-token", None) => {
                out.push("owner.token: missing; the level pod-token needs the cluster's keys".into());
            }
            ("pod-token", Some(token)) => {
                key_file("owner.token.jwks", &token.jwks, out);
                for (name, value) in [("issuer", &token.issuer), ("audience", &token.audience)] {
                    if value.is_empty() {
                        out.push(format!("owner.token.{name}: missing; a token must be made by someone, for this"));
                    }
                }
            }
            ("grant", None) => {}
            ("grant", Some(_)) => out.push("owner.token: no token is read at owner.level \"grant\"".into()),
            _ => out.push("owner.level: this version knows `annotation`, `pod-token` and `grant`".into()),
        }
        self.owner.grants(out);
        self.system_pods(out);
        self.break_glass.lint(out);
        if self.owner.patterns.iter().any(String::is_empty) {
            out.push("owner.patterns: an empty pattern matches nobody".into());
        }
    }

    fn node_rules(&self, out: &mut Vec<String>) {
        let n = &self.node;
        match n.tpm.strip_prefix("unix:") {
            Some(path) => plain_path("node.tpm", path, out),
            None if n.tpm.starts_with("/dev/tpm") => plain_path("node.tpm", &n.tpm, out),
            None => out.push("node.tpm: `/dev/tpmrm0` or `unix:/absolute/path`".into()),
        }
        if !n.attestation_key.is_empty() {
            key_file("node.attestation_key", &n.attestation_key, out);
        }
        if !["", "certified", "trust-on-first-use"].contains(&n.enrolled.as_str()) {
            out.push("node.enrolled: `certified` or `trust-on-first-use`".into());
        }
        if let Some(pcr) = n.cap
            && (![10, 11, 12, 14, 15].contains(&pcr) || n.pcrs.contains_key(&pcr.to_string()))
        {
            out.push(
                "node.cap: a PCR of 10, 11, 12, 14, 15 that node.pcrs does not name and nothing else extends".into(),
            );
        }
        if let Some(log) = &n.log {
            let valued = |pcr: u32| n.pcrs.contains_key(&pcr.to_string());
            log.lint(n.tpm.starts_with("unix:"), valued, out);
        }
        if let Some(ear) = &n.ear {
            ear.lint(out);
            if n.attestation_key.is_empty() {
                out.push("node.ear: a token is bound to a key; name node.attestation_key".into());
            }
        }
        if n.ttl == 0 {
            out.push("node.ttl: at least 1, in seconds".into());
        }
        if self.bundle.measured && n.pcrs.contains_key(&standard::MEASURED_PCR.to_string()) {
            out.push(format!(
                "node.pcrs.{}: boltseal measures itself into it (bundle.measured)",
                standard::MEASURED_PCR
            ));
        }
        for (index, values) in &n.pcrs {
            if !index.parse::<u32>().is_ok_and(|i| i < 24 && i.to_string() == *index) {
                out.push(format!("node.pcrs: \"{}\" is no PCR index from 0 to 23", text::show(index)));
            }
            if values.is_empty() {
                out.push(format!("node.pcrs.{}: empty; nothing could start", text::show(index)));
            }
            for value in values {
                if !pattern::is_sha256_hex(value) {
                    out.push(format!("node.pcrs.{}: values are 64 lower-case hex digits", text::show(index)));
                } else if value.bytes().all(|b| b == b'0') || value.bytes().all(|b| b == b'f') {
                    out.push(format!(
                        "node.pcrs.{}: a PCR that nothing measured into proves nothing",
                        text::show(index)
                    ));
                }
            }
        }
    }

    fn allowance(&self, a: &Allowance, out: &mut Vec<String>) {
        let at = format!("allowance \"{}\"", text::show(&a.id));
        if !plain_name(&a.id) {
            out.push(format!("{at}: `id` must be letters, digits, `-`, `_`, `.`"));
        }
        if self.allowances.iter().filter(|other| other.id == a.id).count() > 1 {
            out.push(format!("{at}: the id is used twice"));
        }
        if !self.authorities.iter().any(|x| x.name == a.authority) {
            out.push(format!("{at}: no authority is named \"{}\"", text::show(&a.authority)));
        }
        repository(&format!("{at}: `repository`"), &a.repository, out);
        for name in &a.capabilities {
            let known = name
                .strip_prefix("CAP_")
                .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'));
            if !known {
                out.push(format!("{at}: \"{}\" is no capability; write it as CAP_NET_ADMIN", text::show(name)));
            }
        }
        for mount in &a.mounts {
            plain_path(&format!("{at}: `mounts.source`"), &mount.source, out);
            let root = &self.mounts.kubelet_root;
            let driver = standard::is_driver_folder(root, &mount.source);
            let explained = |s: &String| driver && (s == root || s == standard::KUBELET_ROOT);
            let touches = |s: &&String| pattern::within(&mount.source, s) || pattern::within(s, &mount.source);
            let touched = self.mounts.sensitive.iter().filter(touches).find(|s| !explained(s));
            if let Some(touched) = touched.filter(|_| mount.writable) {
                out.push(format!("{at}: {} touches {touched}, which is never writable", text::show(&mount.source)));
            }
        }
        a.devices.iter().for_each(|d| device(&at, d, out));
        a.sysctls.iter().for_each(|s| sysctl(&at, s, out));
        for kind in &a.host_namespaces {
            if !["network", "pid", "ipc", "uts"].contains(&kind.as_str()) {
                out.push(format!(
                    "{at}: host_namespaces may name network, pid, ipc, uts; not \"{}\"",
                    text::show(kind)
                ));
            }
        }
        for path in &a.exec_volumes {
            plain_path(&format!("{at}: `exec_volumes`"), path, out);
        }
        signed_process(&at, a, out);
        for hook in &a.hooks {
            if !rules::HOOK_STAGES.contains(&hook.stage.as_str()) {
                let run = rules::HOOK_STAGES.join(", ");
                out.push(format!("{at}: \"{}\" is no hook stage that runs ({run})", text::show(&hook.stage)));
            }
            plain_path(&format!("{at}: `hooks.path`"), &hook.path, out);
            if !pattern::is_digest(&hook.digest) {
                out.push(format!("{at}: `hooks.digest` must be sha256: and 64 lower-case hex digits"));
            }
        }
    }
}

/// What may differ from the signed config (BS-PRC-009).
fn signed_process(at: &str, a: &Allowance, out: &mut Vec<String>) {
    for command in &a.args {
        let more = command.iter().rev().skip(1).any(|word| word == rules::MORE_ARGUMENTS);
        if command.first().is_none_or(String::is_empty) || more {
            out.push(format!(
                "{at}: a command of `args` is a list: the program, its arguments, `...` at the end alone"
            ));
        }
    }
    for name in &a.env {
        if name.is_empty() || name.contains('=') {
            out.push(format!("{at}: `env` has names without values, `*` for any characters: \"{}\"", text::show(name)));
        } else if crate::names_loader(name) {
            out.push(format!("{at}: {} makes programs load code; set it in the image and sign that", text::show(name)));
        }
    }
    if a.cwd.iter().any(|folder| !folder.starts_with('/')) {
        out.push(format!("{at}: `cwd` has absolute paths, `*` for any characters"));
    }
    let is_user = |user: &String| {
        user.split(':').count() == 2 && user.bytes().all(|b| b.is_ascii_digit() || matches!(b, b':' | b'*'))
    };
    if !a.users.iter().all(is_user) {
        out.push(format!("{at}: `users` has numbers as uid:gid, `*` for any digits"));
    }
}

fn exception(e: &Exception, out: &mut Vec<String>) {
    let at = format!("exception of {} for \"{}\"", text::show(&e.rule), text::show(&e.scope));
    let Some(rule) = rules::find(&e.rule) else {
        out.push(format!("{at}: no such rule"));
        return;
    };
    if rule.id == "BS-AUD-001" {
        out.push(format!("{at}: nothing is excepted from the trail"));
    }
    match &e.condition {
        Some(condition) if !rule.conditions.iter().any(|(name, _)| name == condition) => {
            let known: Vec<&str> = rule.conditions.iter().map(|(name, _)| *name).collect();
            out.push(format!(
                "{at}: {} has no condition \"{}\"; it has {}",
                rule.id,
                text::show(condition),
                known.join(", ")
            ));
        }
        Some(condition) if rules::of_no_author(rule.id, condition) => {
            out.push(format!("{at}: nothing is excepted from \"{condition}\": a policy cannot vouch for itself"));
        }
        None if CONDITION_NEEDED.contains(&rule.id) => {
            out.push(format!(
                "{at}: must name a `condition`, such as \"{}\"",
                rule.conditions.first().map_or("", |(name, _)| name)
            ));
        }
        _ => {}
    }
    if e.scope != "*" {
        repository(&format!("{at}: `scope`"), &e.scope, out);
        if rule.id == "BS-IMG-001" {
            out.push(format!(
                "{at}: an image that BS-IMG-001 refuses has no verified repository; the scope can only be \"*\""
            ));
        }
    }
    for (key, value) in [("owner", &e.owner), ("reason", &e.reason)] {
        if value.trim().is_empty() {
            out.push(format!("{at}: `{key}` is empty"));
        }
    }
    if date::end_of(&e.expires).is_none() {
        out.push(format!("{at}: `expires` must be YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ"));
    }
}

fn modes(at: &str, modes: &std::collections::BTreeMap<String, Mode>, out: &mut Vec<String>) {
    for (id, mode) in modes {
        if rules::find(id).is_none() {
            out.push(format!("{at}: modes: no rule is named \"{}\"", text::show(id)));
        } else if id == "BS-AUD-001" && *mode != Mode::Enforce {
            out.push(format!("{at}: modes: BS-AUD-001 is always enforced"));
        }
    }
}

pub(super) fn repository(at: &str, prefix: &str, out: &mut Vec<String>) {
    if !pattern::is_repository(prefix) {
        out.push(format!(
            "{at}: \"{}\" is no repository prefix (as ghcr.io/corp: no scheme, tag, pattern or trailing `/`)",
            text::show(prefix)
        ));
    }
}

/// What an authority's format asks for, and what belongs to another.
fn authority(name: &str, a: &Authority, out: &mut Vec<String>) {
    let at = |key: &str| format!("authority \"{name}\": `{key}`");
    match a.format.as_str() {
        "" => {
            key_file(&at("key"), &a.key, out);
            if !a.roots.is_empty() || !a.identities.is_empty() || a.signing_authority {
                out.push(format!(
                    "{}: `roots`, `identities` and `signing_authority` need it to be `notation` (`identities`: or `keyless`)",
                    at("format")
                ));
            }
        }
        "keyless" => keyless(&at, a, out),
        "notation" => {
            key_file(&at("roots"), &a.roots, out);
            if !a.key.is_empty() {
                out.push(format!("{}: a notation signer's key is in its certificate; name `roots`", at("key")));
            }
            if a.identities.is_empty() {
                out.push(format!(
                    "{}: empty; name subjects, or \"*\" for whomever the roots certify",
                    at("identities")
                ));
            }
            if a.repositories.len() != 1 {
                out.push(format!("{}: exactly one, for notation signs a digest and no repository", at("repositories")));
            }
        }
        other => out.push(format!(
            "{}: \"{}\" is none; `notation`, `keyless`, or leave it out for a key of cosign's",
            at("format"),
            text::show(other)
        )),
    }
    let certified = !a.trusted_root.is_empty() || !a.issuers.is_empty() || a.log.is_some() || a.sct.is_some();
    if a.format != "keyless" && certified {
        out.push(format!("{}: `trusted_root`, `issuers`, `log` and `sct` need it to be `keyless`", at("format")));
    }
}

/// Signers that Fulcio certifies by an OIDC identity.
fn keyless(at: &impl Fn(&str) -> String, a: &Authority, out: &mut Vec<String>) {
    key_file(&at("trusted_root"), &a.trusted_root, out);
    if !a.key.is_empty() || !a.roots.is_empty() || a.signing_authority {
        out.push(format!("{}: a keyless signer has neither `key`, `roots` nor `signing_authority`", at("format")));
    }
    for (name, list) in [("identities", &a.identities), ("issuers", &a.issuers)] {
        if list.is_empty() {
            out.push(format!("{}: empty; name patterns, of which one must match", at(name)));
        }
        if let Some(all) = list.iter().find(|pattern| pattern.bytes().all(|byte| byte == b'*')) {
            out.push(format!(
                "{}: \"{}\" is everybody whom the CA certifies; name whom you mean",
                at(name),
                text::show(all)
            ));
        }
    }
    if a.repositories.len() != 1 {
        out.push(format!("{}: exactly one, for a bundle signs a digest and no repository", at("repositories")));
    }
}

pub(super) fn key_file(at: &str, name: &str, out: &mut Vec<String>) {
    if name.is_empty() || name.starts_with('.') || name.contains('/') || name.contains('\0') {
        out.push(format!("{at}: \"{}\" must name a file in trust/", text::show(name)));
    }
}

fn plain_path(at: &str, path: &str, out: &mut Vec<String>) {
    if pattern::normal(path).as_deref() != Some(path) {
        out.push(format!(
            "{at}: \"{}\" must be an absolute path without `..`, `.` or doubled slashes",
            text::show(path)
        ));
    }
}

fn device(at: &str, path: &str, out: &mut Vec<String>) {
    if !path.starts_with("/dev/") || pattern::normal(path).as_deref() != Some(path) {
        out.push(format!("{at}: \"{}\" must be a path below /dev", text::show(path)));
    }
}

fn sysctl(at: &str, name: &str, out: &mut Vec<String>) {
    if !rules::prc_007_sysctls::is_namespaced(name) {
        out.push(format!("{at}: \"{}\" is not a namespaced sysctl", text::show(name)));
    }
}

pub(super) fn plain_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests;
