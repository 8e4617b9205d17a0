//! `make demo`: a node that boltseal guards, from nothing: one signed image that starts and lives, then what is refused,
//! each with its twin that differs only in the fault and starts; at last the trail.
#![forbid(unsafe_code)]

mod show;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use show::{refused, say, step, title, twin};
use stack::cases::{Case, SHOWN, Try, all, allowed, denies, first_line};
use stack::client::BOLTSEAL;
use stack::containerd::{SOCKET, Version};
use stack::granted::{self, FAULTS, People};
use stack::node::{NAMESPACE, Node, World, trail};
use stack::policy::OWNER;
use stack::process::{output, run};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, ExitCode};

/// Of the faults that a grant can have, and a pod beside it.
const GRANTS: [&str; 4] = [
    "a grant for another namespace",
    "a grant for another image",
    "a grant that has expired",
    "a command that the grant does not have",
];

fn main() -> ExitCode {
    stack::private::machine(demo)
}

fn demo(scratch: &Path) -> Result<()> {
    title("A node of its own: registry, signed images, TPM, containerd");
    let node = Node::make(scratch, true)?;
    for name in ["app", "pause"] {
        let image = node.images.get(name)?;
        step(&format!("signed by cosign 2.5: {}@{}", image.repository, image.manifest));
    }
    let bundle = node.images.get("app3")?;
    step(&format!("signed by cosign 3.1: {}@{}", bundle.repository, bundle.manifest));
    node.enroll()?;
    step("a software TPM with a measured boot; enrolled: its key and its PCR values stand in the policy");
    for image in node.images.iter() {
        node.import(image)?;
    }
    step("signatures imported: the node needs no registry for a start");
    let mut world = World::start(node, Version::V1_6)?;
    step("containerd 1.6 with the runtime handler boltseal; policy level restricted");

    title("A signed image starts and lives");
    let before = trail()?;
    let started = life(&mut world)?;

    title("What is refused, and the same without the fault");
    let mut shown = 0;
    for name in SHOWN {
        let case = all().into_iter().find(|case| case.name == name).with_context(|| format!("no case {name}"))?;
        refuse(&mut world, &case)?;
        shown += 1;
    }

    title("Grants of owners: the pod's annotation carries what its owner signed");
    shown += grants(&world)?;

    title("What stands behind an image, and what would refuse it");
    inspected(&mut world)?;

    title("The shipped policy alone, on this machine");
    shipped_policy(&mut world)?;
    shown += 1;

    title("The trail");
    summary(before.len(), &started, shown)
}

/// Run, exec, logs, stats, kill, delete: through `ctr`, as an operator would. Answers with the container's id.
fn life(world: &mut World) -> Result<String> {
    let id = "demo-app";
    let image = world.node.images.get("app")?.name.clone();
    let log = world.output_file("demo");
    let owner = format!("boltseal.dev/owner={OWNER}");
    let ctr = |args: &[&str]| -> Result<String> { run(world.containerd.ctr(NAMESPACE).args(args)) };

    let log_uri = format!("file://{}", log.display());
    let script =
        "echo hello from a sealed container; grep -E 'Seccomp:|NoNewPrivs|CapBnd' /proc/self/status; exec sleep 600";
    say(&format!("$ ctr run --detach --runtime {BOLTSEAL} --read-only --annotation {owner} {image} {id} ..."));
    ctr(&[
        "run",
        "--detach",
        "--log-uri",
        &log_uri,
        "--runtime",
        BOLTSEAL,
        "--read-only",
        "--annotation",
        &owner,
        &image,
        id,
        "/bin/sh",
        "-c",
        script,
    ])?;
    ensure!(state_of(id)?, "no state where it was looked for");
    say("$ ctr tasks ls");
    show::lines(&ctr(&["tasks", "ls"])?);
    say("the container's log:");
    let text = stack::process::poll("no log", std::time::Duration::from_secs(5), || {
        std::fs::read_to_string(&log).ok().filter(|text| text.contains("Seccomp"))
    })?;
    show::lines(&text);
    ensure!(text.contains("Seccomp:\t2") && text.contains("NoNewPrivs:\t1"), "it is not confined: {text}");

    say(&format!("$ ctr tasks exec --exec-id e1 {id} /bin/cat /proc/self/status"));
    let status = ctr(&["tasks", "exec", "--exec-id", "e1", id, "/bin/cat", "/proc/self/status"])?;
    for line in status
        .lines()
        .filter(|line| ["Uid", "NoNewPrivs", "Seccomp:", "CapBnd"].iter().any(|name| line.starts_with(name)))
    {
        show::lines(line);
    }
    ensure!(status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"), "the exec is not confined: {status}");

    say(&format!("$ ctr tasks metrics {id}"));
    let metrics = ctr(&["tasks", "metrics", id])?;
    show::lines(
        &metrics
            .lines()
            .filter(|line| line.contains("usage") || line.contains("pids"))
            .take(6)
            .collect::<Vec<_>>()
            .join("\n"),
    );
    say(&format!("$ ctr tasks kill --signal SIGKILL {id}; ctr tasks rm {id}; ctr containers rm {id}"));
    ctr(&["tasks", "kill", "--signal", "SIGKILL", id])?;
    stack::process::poll("it does not stop", std::time::Duration::from_secs(10), || {
        world.client.state(id).ok().filter(|state| *state == 3)
    })?;
    // `ctr` answers with the exit code of the container: 137.
    let said = output(world.containerd.ctr(NAMESPACE).args(["tasks", "rm", id]))?;
    ensure!(said.ok() || said.code == 137, "{said:?}");
    ctr(&["containers", "rm", id])?;
    ensure!(!state_of(id)?, "state is left");
    step("gone: no process, no mount, no cgroup, no state");
    Ok(id.into())
}

/// Whether there is a `/run/boltseal/<containerd>/<namespace>/<id>`.
fn state_of(id: &str) -> Result<bool> {
    for containerd in std::fs::read_dir("/run/boltseal")? {
        let containerd = containerd?;
        if containerd.file_type()?.is_dir() {
            for namespace in std::fs::read_dir(containerd.path())? {
                if namespace?.path().join(id).exists() {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

fn refuse(world: &mut World, case: &Case) -> Result<()> {
    let status = match case.attempt(world).with_context(|| case.name.to_owned())? {
        Try::Started => bail!("{}: it started", case.name),
        Try::Refused(status) => status,
    };
    let line = first_line(&status);
    ensure!(
        line.contains(case.rule) && case.is_status(world.containerd.version, &status),
        "{}: refused otherwise: {status}",
        case.name
    );
    refused(case.name, &line);
    case.twin(world).with_context(|| format!("{}: the twin", case.name))?;
    twin();
    Ok(())
}

/// Pods as kubelet asks for them, under a policy that takes an owner's word only signed. How many were refused.
fn grants(world: &World) -> Result<usize> {
    let people = People::new(world)?;
    for name in GRANTS {
        let fault = FAULTS.iter().find(|fault| fault.0 == name).with_context(|| format!("no case {name}"))?;
        let line = granted::refused(world, &people, "web", fault).with_context(|| name.to_owned())?;
        refused(name, &line);
        twin();
    }
    world.node.policy.write()?;
    Ok(GRANTS.len())
}

/// One image before any start, under a policy that asks what its layers hold.
fn inspected(world: &mut World) -> Result<()> {
    let mut policy = world.node.policy.clone();
    policy.enforce("BS-IMG-007")?;
    policy.enforce("BS-IMG-008")?;
    policy.write()?;
    let name = world.node.images.get("shell")?.name.clone();
    let words = ["image", "inspect", "--address", SOCKET, "--namespace", NAMESPACE, &name];
    let said = output(Command::new("boltseal").args(words));
    world.node.policy.write()?;
    let said = said?;
    say(&format!("$ boltseal {}", words.join(" ")));
    show::lines(&said.stdout);
    ensure!(said.code == 1 && said.stdout.contains("would be DENIED by BS-IMG-007"), "{said:?}");
    Ok(())
}

/// `profiles/policy/default.toml` with nothing added but this node's own names: no exception, so no software TPM and no
/// kernel without AppArmor or SELinux.
fn shipped_policy(world: &mut World) -> Result<()> {
    let file = stack::private::project().join("profiles/policy/default.toml");
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    stack::policy::write(&text)?;
    let request = world.request("app", &["/bin/true"])?;
    let answer = world.complete(&request);
    world.node.policy.write()?;
    let status = answer.err().context("the shipped policy let it start")?;
    refused("the shipped policy, as it is", &first_line(&status));
    for rule in ["BS-NOD-001", "BS-MAC-001"] {
        ensure!(status.message().contains(rule), "{rule} says nothing: {}", status.message());
        let line = status.message().lines().find(|line| line.contains(rule)).unwrap_or_default();
        say(line.trim());
    }
    let request = world.request("app", &["/bin/true"])?;
    world.complete(&request).context("the twin: the same request under this node's policy")?;
    twin();
    Ok(())
}

/// Lists and verifies the trail, and takes the counts of the last line from it.
fn summary(before: usize, started: &str, shown: usize) -> Result<()> {
    let records = trail()?;
    let own = records.get(before..).unwrap_or_default();
    let rules: BTreeSet<&str> = own
        .iter()
        .filter(|record| record["decision"] == "deny")
        .flat_map(|record| record["findings"].as_array().into_iter().flatten())
        .filter(|finding| finding["outcome"] == "deny")
        .filter_map(|finding| finding["rule"].as_str())
        .collect();
    say("$ boltseal audit list --denied");
    show::lines(&run(Command::new("boltseal").args(["audit", "list", "--denied"]))?);
    say("$ boltseal audit verify");
    let verified = run(Command::new("boltseal").args(["audit", "verify"]))?;
    show::lines(&verified);

    // Twins are starts too: the one start that is meant is the container of the first part.
    let ours = |record: &&Value| record["what"]["id"] == started && allowed(record) && record["door"] == "create";
    let count = own.iter().filter(ours).count();
    let denied = own.iter().filter(|record| record["decision"] == "deny").count();
    ensure!(count == 1, "the trail shows {count} starts of {started}");
    ensure!(denied == shown, "{shown} refusals were shown, the trail holds {denied}");
    ensure!(shown >= 15, "only {shown} refusals");
    ensure!(rules.len() >= 10, "only {} rules refused: {rules:?}", rules.len());
    ensure!(own.iter().any(|record| denies(record, "BS-IMG-001")), "no unsigned image in the trail");
    ensure!(Path::new(SOCKET).exists(), "containerd is gone");
    println!("{} rules refused: {}", rules.len(), rules.into_iter().collect::<Vec<_>>().join(" "));
    println!("demo: {count} started, {denied} refused as intended, trail verified ({} records)", records.len());
    Ok(())
}
