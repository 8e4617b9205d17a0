//! The allowances of `profiles/allowances`, as they lie there: what they are for starts and does its work; the same request
//! with another image, signed by the same authority, is refused.
use crate::pod::{self, PATIENCE, Pod};
use crate::serve::get;
use anyhow::{Context, Result, ensure};
use stack::cri::v1::{
    Capability, CdiDevice, ContainerConfig, ContainerState, Int64Value, Mount, NamespaceMode, PodSandboxConfig,
};
use stack::image::sha256;
use stack::node::World;
use stack::process::{poll, run};
use stack::registry::ADDRESS;
use stack::since::Since;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

pub(crate) struct Template {
    /// Of the file, without `.toml`.
    pub(crate) name: &'static str,
    layer: &'static str,
    /// The image's repository below the registry, as the file names it.
    path: &'static str,
    /// Rules that refuse another image, all of them.
    refused: &'static [&'static str],
    /// Rules that only warn by the file's own scope.
    warned: &'static [&'static str],
    /// Allowances that the start used.
    used: &'static [&'static str],
    sandbox: fn(&mut PodSandboxConfig),
    /// What the node must have.
    prepare: fn(&mut World) -> Result<()>,
    container: fn(&Pod, &str) -> Result<ContainerConfig>,
    works: fn(&mut World, &Pod, &str) -> Result<String>,
}

pub(crate) fn all() -> Vec<Template> {
    vec![
        Template {
            name: "istio-init",
            layer: "istio",
            path: "istio/proxyv2",
            refused: &["BS-PRC-002", "BS-PRC-003"],
            warned: &["BS-PRC-003"],
            used: &["istio-init"],
            sandbox: |_| {},
            prepare: |_| Ok(()),
            container: istio,
            works: redirected,
        },
        Template {
            name: "log-agent",
            layer: "static",
            path: "logging/agent",
            refused: &["BS-PRC-003", "BS-FSY-002"],
            warned: &["BS-PRC-003"],
            used: &["log-agent"],
            sandbox: |_| {},
            prepare: |_| Ok(()),
            container: log_agent,
            works: collected,
        },
        Template {
            name: "node-exporter",
            layer: "exporter",
            path: "monitoring/node-exporter",
            refused: &["BS-PRC-004", "BS-FSY-002"],
            warned: &[],
            used: &["node-exporter"],
            sandbox: host_sandbox,
            prepare: unpinned,
            container: exporter,
            works: exported,
        },
        Template {
            name: "csi-driver",
            layer: "python",
            path: "storage/csi-demo",
            refused: &["BS-PRC-003", "BS-FSY-002"],
            warned: &["BS-PRC-003"],
            used: &["csi-driver"],
            sandbox: |_| {},
            prepare: kubelet_folders,
            container: csi,
            works: registered,
        },
        Template {
            name: "cdi-device",
            layer: "python",
            path: "ml/trainer",
            refused: &["BS-PRC-005", "BS-FSY-002", "BS-DEV-001"],
            warned: &[],
            used: &["cdi-device"],
            sandbox: |_| {},
            prepare: vendor,
            container: cdi,
            works: device_used,
        },
    ]
}

pub(crate) fn check(world: &mut World, template: &Template) -> Result<String> {
    let image = crate::image(world, template.layer, template.path)?;
    let other = crate::image(world, template.layer, &format!("demo/not-{}", template.name))?;
    (template.prepare)(world).context("the node")?;
    install(world, template.name)?;
    let pod = Pod::run(template.name, "boltseal", template.sandbox)?;
    let outcome = both(world, template, &pod, &image.name, &other.name);
    pod.end()?;
    outcome
}

fn both(world: &mut World, template: &Template, pod: &Pod, image: &str, other: &str) -> Result<String> {
    let config = (template.container)(pod, image)?;
    let id = pod.start(&config).context("start")?;
    let said = (template.works)(world, pod, &id).with_context(|| pod.said(template.name))?;
    let used = pod::allowed(&id, template.warned)?;
    ensure!(used == template.used, "allowed by {used:?}");
    pod.cri.stop(&id)?;
    pod.cri.remove(&id)?;

    // The twin differs in the image alone.
    let before = Since::now()?;
    let mut twin = config;
    twin.image.as_mut().context("no image")?.image = other.into();
    let status = pod.start(&twin).err().context("another image starts as well")?;
    ensure!(status.message().contains("boltseal: denied by BS-"), "{status}");
    let mut rules = pod::denied(other, &before)?;
    let mut expected: Vec<String> = template.refused.iter().map(ToString::to_string).collect();
    rules.sort();
    expected.sort();
    ensure!(rules == expected, "denied by {rules:?}, not {expected:?}: {status}");
    Ok(format!("{said}; another image: {}", rules.join(" ")))
}

/// The file into policy.d, with this node's registry and the digest of the hook that lies here: what a user fills in.
fn install(world: &mut World, name: &str) -> Result<()> {
    let source = stack::private::project().join(format!("profiles/allowances/{name}.toml"));
    let mut text = fs::read_to_string(&source).with_context(|| source.display().to_string())?;
    text = text.replace("registry.example", ADDRESS);
    if let Ok(hook) = fs::read(HOOK) {
        text = text.replace(&format!("sha256:{}", "0".repeat(64)), &sha256(&hook));
    }
    let folder = Path::new(stack::policy::FOLDER).join("policy.d");
    fs::create_dir_all(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
    let file = folder.join(format!("{name}.toml"));
    fs::write(&file, text)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
    world.undo_later(move |_| Ok(fs::remove_file(file)?));
    run(Command::new("boltseal").args(["policy", "lint"])).map(|_| ())
}

fn user(config: &mut ContainerConfig, uid: i64, capabilities: &[&str]) -> Result<()> {
    let context = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut()).context("no context")?;
    context.run_as_user = Some(Int64Value { value: uid });
    context.run_as_group = Some(Int64Value { value: uid });
    context.capabilities = Some(Capability {
        add_capabilities: capabilities.iter().map(ToString::to_string).collect(),
        drop_capabilities: vec!["ALL".into()],
        ..Capability::default()
    });
    Ok(())
}

fn host_path(config: &mut ContainerConfig, source: &str, at: &str, readonly: bool) {
    config.mounts.push(Mount { container_path: at.into(), host_path: source.into(), readonly, ..Mount::default() });
}

// ---- istio-init -----------------------------------------------------------------------------------------------------

fn istio(pod: &Pod, image: &str) -> Result<ContainerConfig> {
    let rule = "exec /usr/sbin/iptables -t nat -A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 15006";
    let mut config =
        pod::container("istio-init", image, &["/bin/sh", "-c", rule], &[("XTABLES_LOCKFILE", "/tmp/xtables.lock")]);
    config.mounts.push(pod.volume("/tmp")?);
    user(&mut config, 0, &["NET_ADMIN", "NET_RAW"])?;
    Ok(config)
}

/// What is asked at port 80 of the pod is answered at port 15006 of another container in it.
fn redirected(world: &mut World, pod: &Pod, id: &str) -> Result<String> {
    let status = poll("the rules are not set", PATIENCE, || {
        pod.cri.status(id).ok().filter(|status| status.state() == ContainerState::ContainerExited)
    })?;
    ensure!(status.exit_code == 0, "iptables ended with {}", status.exit_code);
    let image = crate::image(world, "static", "demo/static")?;
    let proxy = pod::container("proxy", &image.name, &["/bin/httpd", "-f", "-p", "15006", "-h", "/srv"], &[]);
    let proxy = pod.start(&proxy).context("the proxy")?;
    let address = pod.cri.address(&pod.id)?;
    pod.answer(&proxy, "proxy", || get(&address, 15006, "/").ok())?;
    let body = get(&address, 80, "/").context("port 80 is not redirected")?;
    ensure!(body.starts_with("served by"), "{body}");
    Ok("port 80 is answered at 15006".into())
}

// ---- log agent ------------------------------------------------------------------------------------------------------

fn log_agent(_: &Pod, image: &str) -> Result<ContainerConfig> {
    let log = "/var/log/pods/demo_talker/talker.log";
    let mut config = pod::container("log-agent", image, &["/bin/tail", "-n", "+1", "-F", log], &[]);
    host_path(&mut config, "/var/log/pods", "/var/log/pods", true);
    user(&mut config, 0, &[])?;
    Ok(config)
}

/// It passes on what another pod says after it was started.
fn collected(world: &mut World, agent: &Pod, id: &str) -> Result<String> {
    let image = crate::image(world, "static", "demo/static")?;
    let talker = Pod::run("talker", "boltseal", |_| {})?;
    let script = "echo said by another pod; exec tail -f /dev/null";
    let collected = (|| {
        talker.start(&pod::container("talker", &image.name, &["/bin/sh", "-c", script], &[])).context("the talker")?;
        agent.answer(id, "log-agent", || agent.said("log-agent").contains("said by another pod").then_some(()))
    })();
    talker.end()?;
    collected.map(|()| "another pod's log is read".into())
}

// ---- node exporter --------------------------------------------------------------------------------------------------

fn host_sandbox(sandbox: &mut PodSandboxConfig) {
    sandbox.hostname.clear();
    let context = sandbox.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
    if let Some(options) = context.and_then(|context| context.namespace_options.as_mut()) {
        options.network = NamespaceMode::Node.into();
        options.pid = NamespaceMode::Node.into();
    }
}

/// A pinned sandbox has no allowances: here it counts by its signature.
fn unpinned(world: &mut World) -> Result<()> {
    let mut policy = world.node.policy.clone();
    policy.set("sandbox.digests", Vec::<toml::Value>::new())?;
    policy.write()?;
    world.undo_later(|world| world.node.policy.write());
    Ok(())
}

fn exporter(_: &Pod, image: &str) -> Result<ContainerConfig> {
    let args = [
        "/usr/bin/prometheus-node-exporter",
        "--path.procfs=/host/proc",
        "--path.sysfs=/host/sys",
        "--path.rootfs=/host/root",
        "--web.listen-address=127.0.0.1:9100",
    ];
    let mut config = pod::container("node-exporter", image, &args, &[]);
    for (source, at) in [("/proc", "/host/proc"), ("/sys", "/host/sys"), ("/", "/host/root")] {
        host_path(&mut config, source, at, true);
    }
    let context = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
    if let Some(options) = context.and_then(|context| context.namespace_options.as_mut()) {
        options.network = NamespaceMode::Node.into();
        options.pid = NamespaceMode::Node.into();
    }
    Ok(config)
}

/// Figures of the node, not of the container: its processors, its own interface, its root file system.
fn exported(_: &mut World, pod: &Pod, id: &str) -> Result<String> {
    let text = pod.answer(id, "node-exporter", || get("127.0.0.1", 9100, "/metrics").ok())?;
    for figure in [
        "node_cpu_seconds_total{cpu=\"0\",mode=\"idle\"}",
        "node_network_receive_bytes_total{device=\"pods0\"}",
        "node_filesystem_size_bytes{",
        "mountpoint=\"/\"}",
        "node_memory_MemTotal_bytes",
    ] {
        ensure!(text.contains(figure), "no {figure} in {} bytes", text.len());
    }
    let figures = text.lines().filter(|line| !line.starts_with('#')).count();
    ensure!(figures > 100, "{figures} figures");
    Ok("the node's own figures".into())
}

// ---- CSI driver -----------------------------------------------------------------------------------------------------

const DRIVER: &str = "/var/lib/kubelet/plugins/csi.demo.example";
const REGISTRY: &str = "/var/lib/kubelet/plugins_registry";

fn kubelet_folders(_: &mut World) -> Result<()> {
    for folder in [DRIVER, REGISTRY] {
        fs::create_dir_all(folder)?;
    }
    Ok(())
}

fn csi(_: &Pod, image: &str) -> Result<ContainerConfig> {
    let mut config = pod::container("csi-driver", image, &["/usr/bin/python3", "/srv/csi.py"], &[]);
    host_path(&mut config, DRIVER, "/csi", false);
    host_path(&mut config, REGISTRY, "/registration", false);
    user(&mut config, 0, &[])?;
    Ok(config)
}

/// It registers itself and answers where it says, as kubelet would ask it.
fn registered(_: &mut World, pod: &Pod, id: &str) -> Result<String> {
    let socket = format!("{REGISTRY}/csi.demo.example-reg.sock");
    let (name, version) = pod.answer(id, "csi-driver", || {
        stack::csi::register(&socket, |at| at.replacen("/csi/", &format!("{DRIVER}/"), 1)).ok()
    })?;
    Ok(format!("{name} {version} is registered"))
}

// ---- CDI device -----------------------------------------------------------------------------------------------------

const HOOK: &str = "/usr/local/bin/demo-cdi-hook";
const LIBRARY: &str = "/usr/local/lib/libdemo.so.1";
const RAN: &str = "/run/demo-cdi-hook.ran";

/// What a vendor's packages bring: library, hook, and the file that names them.
fn vendor(world: &mut World) -> Result<()> {
    // Of this private machine alone.
    let folder = world.node.work.join("usr-local-lib");
    fs::create_dir_all(&folder)?;
    run(Command::new("mount").arg("--bind").arg(&folder).arg("/usr/local/lib"))?;
    world.undo_later(|_| run(Command::new("umount").arg("/usr/local/lib")).map(|_| ()));
    let source = world.node.work.join("demo.c");
    fs::write(&source, "int demo_answer(void) { return 42; }\n")?;
    run(Command::new("musl-gcc").args(["-shared", "-fPIC", "-nostdlib", "-o", LIBRARY]).arg(&source))?;
    fs::write(HOOK, format!("#!/bin/sh\necho \"$* $(cat)\" >{RAN}\n"))?;
    fs::set_permissions(HOOK, fs::Permissions::from_mode(0o755))?;
    fs::create_dir_all("/etc/cdi")?;
    let file = stack::private::project().join("integration/tests/programs/files/cdi/demo.json");
    fs::copy(file, "/etc/cdi/demo.json")?;
    world.undo_later(|_| {
        for made in [HOOK, "/etc/cdi/demo.json", RAN] {
            if fs::exists(made)? {
                fs::remove_file(made)?;
            }
        }
        Ok(())
    });
    Ok(())
}

fn cdi(_: &Pod, image: &str) -> Result<ContainerConfig> {
    let mut config = pod::container("cdi-device", image, &["/usr/bin/python3", "/srv/cdi.py"], &[]);
    config.cdi_devices.push(CdiDevice { name: "demo.example/card=0".into() });
    Ok(config)
}

fn device_used(_: &mut World, pod: &Pod, id: &str) -> Result<String> {
    let status = poll("it does not end", PATIENCE, || {
        pod.cri.status(id).ok().filter(|status| status.state() == ContainerState::ContainerExited)
    })?;
    let said = pod.said("cdi-device");
    ensure!(
        status.exit_code == 0 && said == "library 42, device 10:229 says EPERM, all",
        "{}: {said}",
        status.exit_code
    );
    let ran = fs::read_to_string(RAN).context("the hook did not run")?;
    ensure!(ran.starts_with("update-ldcache {") && ran.contains(id), "{ran}");
    Ok("library, device and hook".into())
}
