//! What runs is another thing than the signed config says. The config of `own`: Entrypoint `/bin/true`, Cmd `signed`, `PATH=/bin`,
//! 65532:65532, `/`.
//!
//! Below `strict` all but a loader's variable is only recorded: there the case has the rule on `enforce`, and so has its twin.
use super::{Bend, Case};
use crate::client::Request;
use crate::node::World;
use crate::policy::Policy;
use crate::registry::ADDRESS;
use anyhow::Result;
use serde_json::{Value, json};

pub(super) fn cases() -> Vec<Case> {
    // Its fault is its fault alone: the command is the signed one, but where that is the fault.
    let own = |name, says, fault: Bend| {
        Case::new(name, "BS-PRC-009", says, fault).image("own").mend(|world, request| {
            enforced(world, "")?;
            set(request, "args", json!(SIGNED))
        })
    };
    let exec = |name, bend: fn(&mut Value)| Case::new(name, "BS-PRC-009", "can load code", |_, _| Ok(())).exec(bend);
    vec![
        Case::new("LD_PRELOAD that no signed config sets", "BS-PRC-009", "LD_PRELOAD can load code", |_, request| {
            set(request, "env", json!(["PATH=/bin", "LD_PRELOAD=/data/x.so"]))
        })
        // Beside it, what kubelet puts in, and a stage that happens to be called ENV.
        .mend(|_, request| set(request, "env", json!(["PATH=/bin", "ENV=production"]))),
        Case::new("a JVM's options that no signed config sets", "BS-PRC-009", "JAVA_TOOL_OPTIONS", |_, request| {
            set(request, "env", json!(["PATH=/bin", "JAVA_TOOL_OPTIONS=-javaagent:/data/x.jar"]))
        }),
        own("a loader's variable that a granted pattern covers", "LD_AUDIT", |world, request| {
            enforced(world, "env = [\"*\"]")?;
            set(request, "env", json!(["PATH=/bin", "LD_AUDIT=/data/x.so"]))?;
            set(request, "args", json!(SIGNED))
        })
        .mend(|world, request| {
            enforced(world, "env = [\"*\"]")?;
            set(request, "env", json!(["PATH=/bin", "LOG_LEVEL=debug"]))?;
            set(request, "args", json!(SIGNED))
        }),
        own("another program than the signed one", "another command", |world, request| {
            enforced(world, "")?;
            set(request, "args", json!(["/bin/echo", "signed"]))
        }),
        own("the signed program with other arguments", "other arguments", |world, request| {
            enforced(world, "")?;
            set(request, "args", json!(["/bin/true", "other"]))
        }),
        own("arguments that no granted pattern covers", "other arguments", |world, request| {
            enforced(world, "args = [[\"/bin/true\", \"--level=*\"]]")?;
            set(request, "args", json!(["/bin/true", "--evil"]))
        })
        .mend(|world, request| {
            enforced(world, "args = [[\"/bin/true\", \"--level=*\"]]")?;
            set(request, "args", json!(["/bin/true", "--level=3"]))
        }),
        own("a variable that no signed config sets", "LOG_LEVEL", |world, request| {
            enforced(world, "")?;
            set(request, "env", json!(["PATH=/bin", "HOSTNAME=web-0", "LOG_LEVEL=debug"]))?;
            set(request, "args", json!(SIGNED))
        })
        .mend(|world, request| {
            enforced(world, "")?;
            set(request, "env", json!(["PATH=/bin", "HOSTNAME=web-0", "KUBERNETES_SERVICE_HOST=10.96.0.1"]))?;
            set(request, "args", json!(SIGNED))
        }),
        own("another search path than the signed one", "PATH", |world, request| {
            enforced(world, "")?;
            set(request, "env", json!(["PATH=/data:/bin"]))?;
            set(request, "args", json!(SIGNED))
        }),
        own("a working folder that is neither signed nor granted", "works in /tmp", |world, request| {
            enforced(world, "cwd = [\"/data\"]")?;
            set(request, "cwd", json!("/tmp"))?;
            set(request, "args", json!(SIGNED))
        })
        .mend(|world, request| {
            enforced(world, "cwd = [\"/data\"]")?;
            set(request, "cwd", json!("/data"))?;
            set(request, "args", json!(SIGNED))
        }),
        own("a user that is neither signed nor granted", "runs as 1001:65532", |world, request| {
            enforced(world, "users = [\"1000:*\"]")?;
            user(request, 1001)?;
            set(request, "args", json!(SIGNED))
        })
        .mend(|world, request| {
            enforced(world, "users = [\"1000:*\"]")?;
            user(request, 1000)?;
            set(request, "args", json!(SIGNED))
        }),
        exec("exec with LD_PRELOAD", |process| {
            process["env"] = json!(["PATH=/bin", "LD_PRELOAD=/data/x.so"]);
        }),
        exec("exec with a file that shells read first", |process| {
            process["env"] = json!(["PATH=/bin", "ENV=/data/rc"]);
        }),
    ]
}

fn set(request: &mut Request, key: &str, value: Value) -> Result<()> {
    request.spec["process"][key] = value;
    Ok(())
}

/// Entrypoint and Cmd of `own`.
pub const SIGNED: [&str; 2] = ["/bin/true", "signed"];

fn user(request: &mut Request, uid: u32) -> Result<()> {
    request.spec["process"]["user"]["uid"] = json!(uid);
    Ok(())
}

/// The rule as `strict` has it, unless the policy has it on `warn`, and an allowance of the workload's images.
fn enforced(world: &mut World, grants: &str) -> Result<()> {
    let mut policy = world.node.policy.clone();
    enforce(&mut policy, grants)?;
    policy.write()?;
    world.undo_later(|world| world.node.policy.write());
    Ok(())
}

/// The same of a policy.
pub fn enforce(policy: &mut Policy, grants: &str) -> Result<()> {
    policy.enforce("BS-PRC-009")?;
    if !grants.is_empty() {
        let text = format!("id = \"signed\"\nauthority = \"ci\"\nrepository = \"{ADDRESS}/demo\"\n{grants}");
        policy.push("allowance", toml::from_str(&text)?)?;
    }
    Ok(())
}
