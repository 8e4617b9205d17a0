//! The policy of the test node: the level `restricted`, the rest as shipped, and two dated exceptions for what this kind
//! of machine lacks.
use crate::process::run;
use crate::registry::ADDRESS;
use crate::tpm;
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use toml::{Table, Value};

pub const FOLDER: &str = "/etc/boltseal";
pub const FILE: &str = "/etc/boltseal/policy.toml";
/// The owner that requests name.
pub const OWNER: &str = "team-demo@example.com";
/// Where this names the private key of who writes policies, each change of the policy is signed and applied.
pub const AUTHOR: &str = "BOLTSEAL_STACK_AUTHOR";
/// File of the node's key, which `boltseal node enroll` writes.
pub const NODE_KEY: &str = "node.pub";

/// A policy to bend: the file is written from it.
#[derive(Debug, Clone)]
pub struct Policy {
    table: Table,
}

impl Policy {
    /// `sandbox`: digests of pause images.
    pub fn for_this_node(sandbox: &[String]) -> Result<Self> {
        let mut table: Table = toml::from_str(&format!(
            r#"
version = 1
level = "restricted"

[modes]

[registries]
allow = ["{ADDRESS}/demo", "{ADDRESS}/pause"]

[[authority]]
name = "ci"
key = "ci.pub"
repositories = ["{ADDRESS}/demo"]

[[authority]]
name = "node"
key = "ci.pub"
repositories = ["{ADDRESS}/pause"]

[[scope]]
repository = "{ADDRESS}/demo"
authorities = ["ci"]

[[scope]]
repository = "{ADDRESS}/pause"
authorities = ["node"]

[sandbox]

[image]

[process]
capabilities = ["CAP_NET_BIND_SERVICE"]

[limits]
[mounts]
[devices]
[label]

[owner]
patterns = ["*@example.com"]

[node]
tpm = "unix:{tpm}"
attestation_key = "{NODE_KEY}"
[node.pcrs]

[[exception]]
rule = "BS-NOD-001"
condition = "software-tpm"
scope = "*"
owner = "{OWNER}"
reason = "the test node has no hardware TPM"
expires = "2099-01-01"

[[exception]]
rule = "BS-MAC-001"
condition = "no-lsm"
scope = "*"
owner = "{OWNER}"
reason = "the test node's kernel has no AppArmor and no SELinux"
expires = "2099-01-01"
"#,
            tpm = tpm::SOCKET
        ))?;
        for (pcr, values) in tpm::expected() {
            section(&mut table, "node.pcrs")?.insert(pcr, values.into());
        }
        section(&mut table, "sandbox")?.insert("digests".into(), sandbox.to_vec().into());
        Ok(Self { table })
    }

    /// The policy that is in place.
    pub fn in_force() -> Result<Self> {
        let text = fs::read_to_string(FILE).context(FILE)?;
        Ok(Self { table: toml::from_str(&text).context(FILE)? })
    }

    /// Sets `section.key` (`limits.memory`).
    pub fn set(&mut self, path: &str, value: impl Into<Value>) -> Result<()> {
        let (head, key) = path.rsplit_once('.').unwrap_or(("", path));
        section(&mut self.table, head)?.insert(key.into(), value.into());
        Ok(())
    }

    /// Switches one rule to `warn`.
    pub fn warn(&mut self, rule: &str) -> Result<()> {
        section(&mut self.table, "modes")?.insert(rule.into(), "warn".into());
        Ok(())
    }

    /// Has one rule enforced as `strict` has it; one that is on `warn` stays so.
    pub fn enforce(&mut self, rule: &str) -> Result<()> {
        section(&mut self.table, "modes")?.entry(rule).or_insert("enforce".into());
        Ok(())
    }

    /// Level `strict`. What the tests run is not what their images' configs say, their images are busybox, and built on nothing: those are
    /// only recorded.
    pub fn strict(&mut self) -> Result<()> {
        self.set("level", "strict")?;
        self.warn("BS-IMG-007")?;
        self.warn("BS-IMG-010")?;
        self.warn("BS-PRC-009")
    }

    /// Adds an item to an array of tables (`allowance`).
    pub fn push(&mut self, list: &str, item: Table) -> Result<()> {
        let value = self.table.entry(list).or_insert_with(|| Value::Array(Vec::new()));
        value.as_array_mut().with_context(|| format!("{list} is no list"))?.push(Value::Table(item));
        Ok(())
    }

    /// Lets an authority sign for one more repository prefix.
    pub fn authorize(&mut self, authority: &str, prefix: &str) -> Result<()> {
        let list = self.table.get_mut("authority").and_then(Value::as_array_mut).context("no authorities")?;
        let named = list.iter_mut().find(|item| item.get("name").and_then(Value::as_str) == Some(authority));
        let repositories = named.and_then(|item| item.get_mut("repositories")).and_then(Value::as_array_mut);
        repositories.with_context(|| format!("no authority {authority}"))?.push(prefix.into());
        Ok(())
    }

    /// Sets a key of the scope of that repository.
    pub fn set_scope(&mut self, repository: &str, key: &str, value: impl Into<Value>) -> Result<()> {
        let list = self.table.get_mut("scope").and_then(Value::as_array_mut).context("no scopes")?;
        let named = list.iter_mut().find(|item| item.get("repository").and_then(Value::as_str) == Some(repository));
        let scope = named.and_then(Value::as_table_mut).with_context(|| format!("no scope {repository}"))?;
        scope.insert(key.into(), value.into());
        Ok(())
    }

    /// Sets a key of that authority.
    pub fn set_authority(&mut self, name: &str, key: &str, value: impl Into<Value>) -> Result<()> {
        let list = self.table.get_mut("authority").and_then(Value::as_array_mut).context("no authorities")?;
        let named = list.iter_mut().find(|item| item.get("name").and_then(Value::as_str) == Some(name));
        let authority = named.and_then(Value::as_table_mut).with_context(|| format!("no authority {name}"))?;
        authority.insert(key.into(), value.into());
        Ok(())
    }

    /// An authority that may seal the workloads' images: their scope names it beside who signs them.
    pub fn sealer(&mut self, name: &str) -> Result<()> {
        let workloads = format!("{ADDRESS}/demo");
        let text = format!("name = \"{name}\"\nkey = \"{name}.pub\"\nrepositories = [\"{workloads}\"]");
        self.push("authority", toml::from_str(&text)?)?;
        self.set_scope(&workloads, "authorities", vec!["ci".to_owned(), name.to_owned()])
    }

    /// Removes the exceptions of a rule.
    pub fn without_exception(&mut self, rule: &str) -> Result<()> {
        let list = self.table.get_mut("exception").and_then(Value::as_array_mut).context("no exceptions")?;
        list.retain(|item| item.get("rule").and_then(Value::as_str) != Some(rule));
        Ok(())
    }

    pub fn text(&self) -> Result<String> {
        Ok(toml::to_string(&self.table)?)
    }

    /// Writes it where the gate reads it.
    pub fn write(&self) -> Result<()> {
        write(&self.text()?)
    }
}

fn section<'a>(table: &'a mut Table, path: &str) -> Result<&'a mut Table> {
    path.split('.').filter(|name| !name.is_empty()).try_fold(table, |table, name| {
        let value = table.entry(name).or_insert_with(|| Value::Table(Table::new()));
        value.as_table_mut().with_context(|| format!("{name} is no table"))
    })
}

/// The policy file as this text: put in place, or signed and applied where this node believes an author alone.
pub fn write(text: &str) -> Result<()> {
    match std::env::var_os(AUTHOR) {
        None => put(text),
        Some(key) => apply(text, Path::new(&key)),
    }
}

/// As an operator changes a signed policy: the next version of what is there.
fn apply(text: &str, key: &Path) -> Result<()> {
    let folder = Path::new("/var/tmp/next-policy");
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    run(Command::new("cp").args(["-a", FOLDER]).arg(folder))?;
    fs::write(folder.join("policy.toml"), text)?;
    run(Command::new("boltseal").args(["policy", "sign", "--key"]).arg(key).arg(folder))?;
    run(Command::new("boltseal").args(["policy", "apply"]).arg(folder)).map(drop)
}

/// The policy file as this text, put in place by a rename.
pub fn put(text: &str) -> Result<()> {
    // What an operator's installation makes, root's alone.
    for folder in [FOLDER, "/var/lib/boltseal", "/var/lib/boltseal/sig", "/var/log/boltseal"] {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    fs::set_permissions(FOLDER, fs::Permissions::from_mode(0o755))?;
    let new = Path::new(FOLDER).join(".policy.new");
    fs::write(&new, text)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o644))?;
    fs::rename(new, FILE)?;
    Ok(())
}

/// Puts a key into the trust folder.
pub fn trust(name: &str, key: &Path) -> Result<()> {
    let folder = Path::new(FOLDER).join("trust");
    fs::create_dir_all(&folder)?;
    let file = folder.join(name);
    fs::copy(key, &file).with_context(|| key.display().to_string())?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
    Ok(())
}
