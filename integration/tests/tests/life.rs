//! A container's whole life, through `ctr` and through every call of the Task service.
use crate::Report;
use crate::checks::confined;
use anyhow::{Context, Result, ensure};
use serde_json::json;
use stack::client::{BOLTSEAL, Code};
use stack::node::{World, trail};
use stack::policy::OWNER;
use stack::process::{output, poll, run};
use stack::since::Since;
use stack::spec;
use std::fs;
use std::time::Duration;

pub(crate) fn all(world: &mut World, report: &mut Report, name: &dyn Fn(&str) -> String) {
    let mut check = |what: &str, run: fn(&mut World) -> Result<String>| report.clean(&name(what), world, run);
    check("ctr run: init is confined", ctr_run);
    check("ctr run and exec: both are confined", ctr_exec);
    check("a cosign 3 bundle counts as well", bundle);
    check("create, start, exec, stats, pause, resume, update, kill, delete", every_call);
    check("exit codes and signals", exit_codes);
    check("the root file system cannot be written, the tmpfs can", read_only);
    check("an oom_score_adj below the allowed is sealed and recorded", oom_score);
    check("its user opens /dev/stdout and /dev/stderr anew", own_streams);
    check("limits cannot be removed", limits_stay);
    check("a terminal", terminal);
    check("stdio over fifos", fifos);
    check("the shim is killed: nothing stays", shim_killed);
    check("the shim's starter is killed: what runs goes on, and can be ended", starter_killed);
    check("containerd is killed and comes back: the container runs on", containerd_killed);
    check("a policy that is gone does not stop kill and delete", no_policy_no_harm);
}

const CTR: [&str; 6] = ["run", "--runtime", BOLTSEAL, "--read-only", "--annotation", "owner"];

/// `ctr run` as the README shows it.
fn ctr(world: &World, options: &[&str], id: &str, args: &[&str]) -> Result<String> {
    let image = world.node.images.get("app")?.name.clone();
    let owner = format!("boltseal.dev/owner={OWNER}");
    let mut command = world.containerd.ctr(stack::node::NAMESPACE);
    for word in CTR {
        command.arg(if word == "owner" { owner.as_str() } else { word });
    }
    run(command.args(options).arg(image).arg(id).args(args))
}

fn ctr_run(world: &mut World) -> Result<String> {
    let status = ctr(world, &["--rm"], "life-run", &["/bin/cat", "/proc/self/status"])?;
    confined(&status)?;
    Ok(String::new())
}

fn ctr_exec(world: &mut World) -> Result<String> {
    ctr(world, &["--detach"], "life-exec", &["/bin/sleep", "600"])?;
    let both = || -> Result<()> {
        let exec = |file: &str| {
            let mut command = world.containerd.ctr(stack::node::NAMESPACE);
            run(command.args(["tasks", "exec", "--exec-id", "e1", "life-exec", "/bin/cat", file]))
        };
        confined(&exec("/proc/1/status")?).context("init")?;
        confined(&exec("/proc/self/status")?).context("exec")
    };
    let outcome = both();
    run(world.containerd.ctr(stack::node::NAMESPACE).args(["tasks", "rm", "--force", "life-exec"]))?;
    run(world.containerd.ctr(stack::node::NAMESPACE).args(["containers", "rm", "life-exec"]))?;
    outcome.map(|()| String::new())
}

fn bundle(world: &mut World) -> Result<String> {
    let request = world.request("app3", &["/bin/true"])?;
    let ended = world.complete(&request)?;
    ensure!(ended.status == 0, "{ended:?}");
    Ok(String::new())
}

fn every_call(world: &mut World) -> Result<String> {
    let request = world.request("app", &["/bin/sleep", "600"])?;
    let id = request.id.clone();
    let pid = world.create(&request)?;
    let outcome = (|| -> Result<()> {
        let client = &world.client;
        ensure!(client.state(&id)? == 1, "not created");
        let early = client
            .exec(&id, "early", &spec::process(&["/bin/true"]), "")
            .and_then(|()| client.start(&id, "early").map(|_| ()));
        ensure!(early.is_err(), "an exec before the container was started");
        ensure!(client.start(&id, "")? == pid, "another pid");
        ensure!(client.state(&id)? == 2, "not running");
        ensure!(client.pids(&id)?.contains(&pid), "init is not among the pids");
        let (kind, size) = client.stats(&id)?;
        ensure!(kind.contains("Metrics") && size > 0, "stats: {kind} of {size} bytes");
        let shim = fs::read_to_string(format!("/proc/{}/status", parent(pid)?))?;
        for line in ["Seccomp:\t2\n", "Seccomp_filters:\t1\n", "NoNewPrivs:\t1\n", "Threads:\t1\n"] {
            ensure!(shim.contains(line), "the shim is not confined: {shim}");
        }

        let out = world.output_file("exec");
        client.exec(
            &id,
            "e1",
            &spec::process(&["/bin/cat", "/proc/self/status"]),
            &format!("file://{}", out.display()),
        )?;
        client.start(&id, "e1")?;
        ensure!(client.wait(&id, "e1")? == 0, "the exec failed");
        ensure!(client.delete_exec(&id, "e1")? == 0, "the exec's status");
        confined(&fs::read_to_string(out)?)?;
        let again = client
            .exec(&id, "e2", &spec::process(&["/bin/true"]), "")
            .and_then(|()| client.exec(&id, "e2", &spec::process(&["/bin/true"]), ""));
        ensure!(again.is_err_and(|status| status.code() == Code::AlreadyExists), "the same exec id twice");

        client.pause(&id)?;
        ensure!(client.state(&id)? == 4, "not paused");
        client.resume(&id)?;
        ensure!(client.state(&id)? == 2, "not resumed");
        client.update(&id, &json!({ "memory": { "limit": 67_108_864 } }))?;
        let limit = limit_of(pid)?;
        ensure!(limit == 67_108_864, "memory limit after the update: {limit}");

        client.kill(&id, "", 15, false)?;
        std::thread::sleep(Duration::from_millis(50));
        client.kill(&id, "", 9, false)?;
        ensure!(client.wait(&id, "")? == 137, "not killed");
        ensure!(client.state(&id)? == 3, "not stopped");
        ensure!(client.delete_task(&id)? == 137, "status at delete");
        ensure!(client.state(&id).is_err_and(|status| status.code() == Code::NotFound), "still known");
        Ok(())
    })();
    world.client.remove(&request)?;
    outcome.map(|()| String::new())
}

/// The memory limit of the cgroup that a process is in, bytes.
fn limit_of(pid: u32) -> Result<u64> {
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let v1 = cgroups.lines().find_map(|line| line.split_once(":memory:"));
    let file = match v1 {
        Some((_, path)) => format!("/sys/fs/cgroup/memory{path}/memory.limit_in_bytes"),
        None => {
            let path = cgroups.lines().find_map(|line| line.strip_prefix("0::")).context("no memory cgroup")?;
            format!("/sys/fs/cgroup{path}/memory.max")
        }
    };
    Ok(fs::read_to_string(&file).context(file)?.trim().parse()?)
}

fn exit_codes(world: &mut World) -> Result<String> {
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$; sleep 5", 137)] {
        let request = world.request("app", &["/bin/sh", "-c", script])?;
        let ended = world.complete(&request)?;
        // pid 1 of a namespace is not killed from within: the shell then ends by itself.
        ensure!(ended.status == code || script.starts_with("kill"), "{script}: {ended:?}");
    }
    Ok(String::new())
}

fn read_only(world: &mut World) -> Result<String> {
    let script = "touch /x 2>/dev/null && echo root-written; touch /bin/x 2>/dev/null && echo bin-written; \
                  touch /dev/shm/x && echo shm-written; mount -t tmpfs t /data 2>/dev/null && echo mounted; \
                  cat /proc/kcore 2>/dev/null | head -c1; echo 1 2>/dev/null >/proc/sys/kernel/panic && echo sys-written; echo end";
    let request = world.request("app", &["/bin/sh", "-c", script])?;
    let ended = world.complete(&request)?;
    ensure!(ended.output == "shm-written\nend\n", "{:?}", ended.output);
    Ok(String::new())
}

/// As nginx and others do that log there.
fn own_streams(world: &mut World) -> Result<String> {
    let request = world.request("app", &["/bin/sh", "-c", "echo out >/dev/stdout && echo err >>/dev/stderr"])?;
    let ended = world.complete(&request)?;
    ensure!(ended.status == 0 && ended.output == "out\nerr\n", "{ended:?}");
    let request = world.request("app", &["/bin/sleep", "600"])?;
    world.run(&request)?;
    let out = world.output_file("own-streams");
    let asked = (|| {
        let process = spec::process(&["/bin/sh", "-c", "echo exec >/dev/stdout"]);
        world.client.exec(&request.id, "e1", &process, &format!("file://{}", out.display()))?;
        world.client.start(&request.id, "e1")?;
        world.client.wait(&request.id, "e1")
    })();
    world.client.remove(&request)?;
    ensure!(asked? == 0 && fs::read_to_string(out)? == "exec\n", "the exec cannot");
    Ok(String::new())
}

fn oom_score(world: &mut World) -> Result<String> {
    let before = Since::now()?;
    let mut request = world.request("app", &["/bin/cat", "/proc/self/oom_score_adj"])?;
    request.spec["process"]["oomScoreAdj"] = json!(-998);
    let ended = world.complete(&request)?;
    let lowest = fs::read_to_string("/proc/self/oom_score_adj")?;
    // The shim's own is one above its parent's, and without CAP_SYS_RESOURCE nothing goes below one's own.
    let allowed = lowest.trim().parse::<i32>()? + 1;
    let got: i32 = ended.output.trim().parse()?;
    ensure!((-998..=allowed).contains(&got), "{ended:?}, lowest {lowest}");
    if got == -998 {
        // With CAP_SYS_RESOURCE it is set as asked.
        return Ok(ended.output.trim().to_owned());
    }
    let new = before.records()?;
    ensure!(new.iter().any(|record| record.to_string().contains("oom_score_adj")), "not recorded: {new:?}");
    Ok(ended.output.trim().to_owned())
}

fn limits_stay(world: &mut World) -> Result<String> {
    let request = world.request("app", &["/bin/sleep", "600"])?;
    let pid = world.run(&request)?;
    let asked = world.client.update(&request.id, &json!({ "memory": { "limit": -1 } }));
    let limit = limit_of(pid);
    world.client.remove(&request)?;
    let status = asked.err().context("the limit was removed")?;
    ensure!(status.message().contains("BS-PRC-006"), "{status}");
    ensure!(limit? == 134_217_728, "the limit changed");
    Ok(String::new())
}

fn terminal(world: &mut World) -> Result<String> {
    // `ctr` wants a terminal of its own: util-linux's script gives it one.
    let image = world.node.images.get("app")?.name.clone();
    let ctr = world.containerd.version.folder().join("ctr");
    let line = format!(
        "{} -a {} -n {} run --rm --tty --runtime {BOLTSEAL} --read-only --annotation boltseal.dev/owner={OWNER} {image} life-tty /bin/tty",
        ctr.display(),
        stack::containerd::SOCKET,
        stack::node::NAMESPACE,
    );
    let said =
        output(std::process::Command::new("script").args(["--quiet", "--return", "--command", &line, "/dev/null"]))?;
    ensure!(said.stdout.contains("/dev/pts/0") || said.stdout.contains("/dev/console"), "{said:?}");
    Ok(String::new())
}

fn fifos(world: &mut World) -> Result<String> {
    let said = ctr(world, &["--rm"], "life-fifo", &["/bin/seq", "1", "20000"])?;
    let (lines, last) = (said.lines().count(), said.lines().last().unwrap_or_default());
    let lost = trail()?.iter().rev().take(8).map(ToString::to_string).collect::<Vec<_>>().join("\n");
    ensure!(
        (lines, last) == (20000, "20000"),
        "{lines} lines, {} bytes, the last {last:?}; the trail: {lost}",
        said.len()
    );
    Ok(String::new())
}

pub(crate) fn parent(pid: u32) -> Result<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(status.lines().find_map(|line| line.strip_prefix("PPid:")).context("no parent")?.trim().parse()?)
}

fn shim_killed(world: &mut World) -> Result<String> {
    let request = world.request("app", &["/bin/sleep", "600"])?;
    let pid = world.run(&request)?;
    let shim = parent(pid)?;
    let name = fs::read_to_string(format!("/proc/{shim}/comm"))?;
    ensure!(name.starts_with("containerd-shim"), "the parent of init is {name}");
    run(std::process::Command::new("kill").args(["-9", &shim.to_string()]))?;
    poll("init outlives its shim", Duration::from_secs(10), || {
        (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    })?;
    poll("containerd does not notice", Duration::from_secs(10), || {
        (world.client.state(&request.id).map_or(true, |state| state == 3)).then_some(())
    })?;
    world.client.remove(&request)?;
    Ok(String::new())
}

fn starter_killed(world: &mut World) -> Result<String> {
    let request = world.request("app", &["/bin/sleep", "600"])?;
    let (id, pid) = (request.id.clone(), world.run(&request)?);
    let outcome = (|| -> Result<()> {
        let client = &world.client;
        let exec = |exec: &str| {
            client.exec(&id, exec, &spec::process(&["/bin/true"]), "").and_then(|()| client.start(&id, exec))
        };
        exec("before")?;
        ensure!(client.wait(&id, "before")? == 0 && client.delete_exec(&id, "before")? == 0, "the exec before it");
        let shim = parent(pid)?;
        let starter = children(shim)?.into_iter().find(|child| {
            fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|name| name.trim() == "shim-starter")
        });
        let starter = starter.context("the shim has no starter")?;
        run(std::process::Command::new("kill").args(["-9", &starter.to_string()]))?;
        poll("the starter does not end", Duration::from_secs(5), || {
            (!children(shim).ok()?.contains(&starter)).then_some(())
        })?;
        let refused = exec("after").err().context("an exec without a starter")?;
        ensure!(refused.message().contains("starter") && refused.message().contains("Fix:"), "{refused}");
        ensure!(client.state(&id)? == 2 && fs::exists(format!("/proc/{pid}"))?, "it does not run on");
        client.kill(&id, "", 9, false)?;
        ensure!(client.wait(&id, "")? == 137, "not killed");
        // Nobody can remove what the gate keeps: the shim ends, and containerd removes it.
        let delete = client.delete_task(&id).err().context("a delete without a starter")?;
        ensure!(delete.message().contains("delete again"), "{delete}");
        poll("containerd does not remove it", Duration::from_secs(10), || match client.delete_task(&id) {
            Err(status) if status.code() == Code::NotFound => Some(()),
            _ => None,
        })
    })();
    world.client.remove(&request)?;
    outcome.map(|()| String::new())
}

fn children(pid: u32) -> Result<Vec<u32>> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    text.split_whitespace().map(|word| Ok(word.parse()?)).collect()
}

fn containerd_killed(world: &mut World) -> Result<String> {
    let request = world.request("app", &["/bin/sleep", "600"])?;
    let pid = world.run(&request)?;
    world.containerd.restart()?;
    world.client = stack::client::Client::new(stack::containerd::SOCKET, stack::node::NAMESPACE)?;
    let alive = std::path::Path::new(&format!("/proc/{pid}")).exists();
    let state = world.client.state(&request.id);
    world.client.remove(&request)?;
    ensure!(alive, "the container died with containerd");
    ensure!(state? == 2, "containerd does not know it as running");
    // Its own log fifos and sockets are new ones now: the next snapshot is taken after this.
    Ok(String::new())
}

fn no_policy_no_harm(world: &mut World) -> Result<String> {
    let request = world.request("app", &["/bin/sleep", "600"])?;
    world.run(&request)?;
    fs::remove_file(stack::policy::FILE)?;
    let removed = world.client.remove(&request);
    world.node.policy.write()?;
    removed?;
    Ok(String::new())
}
