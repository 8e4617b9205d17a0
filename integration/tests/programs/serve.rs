//! Programs that serve: what each is started with, and what it must answer.
use crate::pod::{self, Pod};
use anyhow::{Context, Result, ensure};
use stack::cri::Cri;
use stack::node::World;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

pub(crate) struct Program {
    pub(crate) name: &'static str,
    args: &'static [&'static str],
    env: &'static [(&'static str, &'static str)],
    /// Volumes that it writes to.
    volumes: &'static [&'static str],
    /// MiB.
    memory: i64,
    ask: fn(&Asked<'_>) -> Result<String>,
}

/// A running program.
struct Asked<'a> {
    cri: &'a Cri,
    id: &'a str,
    address: &'a str,
}

pub(crate) fn all() -> Vec<Program> {
    let plain = Program { name: "", args: &[], env: &[], volumes: &[], memory: 128, ask: page };
    vec![
        Program {
            name: "nginx",
            args: &["/usr/sbin/nginx", "-c", "/etc/nginx-app/nginx.conf"],
            volumes: &["/tmp"],
            ..plain
        },
        Program {
            name: "redis",
            args: &["/usr/bin/redis-server", "--protected-mode", "no", "--dir", "/data", "--appendonly", "yes"],
            volumes: &["/data"],
            ask: redis,
            ..plain
        },
        Program {
            name: "postgres",
            args: &["/bin/sh", "/srv/start.sh"],
            env: &[("PATH", "/usr/bin:/bin")],
            volumes: &["/data", "/tmp"],
            memory: 512,
            ask: postgres,
        },
        Program {
            name: "jvm",
            args: &["/usr/lib/jvm/java-21-openjdk-amd64/bin/java", "/srv/Server.java"],
            volumes: &["/tmp"],
            memory: 512,
            ..plain
        },
        Program { name: "node", args: &["/usr/bin/node", "/srv/server.js"], memory: 256, ..plain },
        Program {
            name: "python",
            args: &["/usr/bin/python3", "-m", "http.server", "8080", "--directory", "/srv"],
            ..plain
        },
        Program {
            name: "go",
            args: &["/usr/bin/docker-registry", "serve", "/srv/registry.yml"],
            volumes: &["/data"],
            ask: registry,
            ..plain
        },
        Program {
            name: "musl",
            args: &["/usr/bin/civetweb", "-document_root", "/srv", "-listening_ports", "8080"],
            ..plain
        },
        Program { name: "static", args: &["/bin/httpd", "-f", "-p", "8080", "-h", "/srv"], ..plain },
    ]
}

/// Starts it in a pod of its own; it answers, and the trail says that nothing but the shipped policy was needed.
pub(crate) fn check(world: &mut World, program: &Program) -> Result<String> {
    let image = crate::image(world, program.name, &format!("demo/{}", program.name))?;
    let pod = Pod::run(program.name, "boltseal", |_| {})?;
    let answered = serve(&pod, program, &image.name);
    pod.end()?;
    answered
}

fn serve(pod: &Pod, program: &Program, image: &str) -> Result<String> {
    let mut config = pod::container(program.name, image, program.args, program.env);
    for at in program.volumes {
        config.mounts.push(pod.volume(at)?);
    }
    if let Some(resources) = config.linux.as_mut().and_then(|linux| linux.resources.as_mut()) {
        resources.memory_limit_in_bytes = program.memory << 20;
    }
    let address = pod.cri.address(&pod.id)?;
    let id = pod.start(&config).context("start")?;
    let asked = Asked { cri: &pod.cri, id: &id, address: &address };
    let mut last = None;
    let said = pod.answer(&id, program.name, || (program.ask)(&asked).map_err(|error| last = Some(error)).ok());
    let said = said.with_context(|| format!("{:#}", last.unwrap_or_else(|| anyhow::anyhow!("never asked"))))?;
    let by = pod::allowed(&id, &[])?;
    ensure!(by.is_empty(), "it needed allowances: {by:?}");
    Ok(said)
}

/// The body of `http://address:port/path`, when the status is 200.
pub(crate) fn get(address: &str, port: u16, path: &str) -> Result<String> {
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let answer = talk(address, port, request.as_bytes(), usize::MAX)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no end of the header")?;
    ensure!(head.lines().next().is_some_and(|line| line.contains(" 200 ")), "{head}");
    Ok(body.to_owned())
}

/// Sends `question` and reads until `size` bytes have come or the other side is done.
fn talk(address: &str, port: u16, question: &[u8], size: usize) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&format!("{address}:{port}").parse()?, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(question)?;
    let mut answer = Vec::new();
    stream.take(u64::try_from(size)?).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn page(asked: &Asked<'_>) -> Result<String> {
    let body = get(asked.address, 8080, "/")?;
    ensure!(body.starts_with("served by "), "{body}");
    Ok(body.trim().to_owned())
}

fn redis(asked: &Asked<'_>) -> Result<String> {
    let said =
        talk(asked.address, 6379, b"PING\r\nSET sealed yes\r\nGET sealed\r\n", "+PONG\r\n+OK\r\n$3\r\nyes\r\n".len())?;
    ensure!(said == "+PONG\r\n+OK\r\n$3\r\nyes\r\n", "{said:?}");
    Ok("PING, SET, GET".into())
}

/// A table is made, filled and read, by psql in an exec of its own; the last query is compiled by LLVM.
fn postgres(asked: &Asked<'_>) -> Result<String> {
    let sql = "create table if not exists t as select n from generate_series(1, 1000) n; \
               set jit_above_cost = 0; set jit_inline_above_cost = 0; set jit_optimize_above_cost = 0; \
               select sum(n) from t;";
    let psql = "/usr/lib/postgresql/17/bin/psql";
    let said = asked.cri.exec(asked.id, &[psql, "-h", "/tmp", "-U", "app", "-d", "postgres", "-qAtc", sql])?;
    let text = String::from_utf8_lossy(&said.stdout);
    ensure!(said.exit_code == 0 && text.trim() == "500500", "{text}{}", String::from_utf8_lossy(&said.stderr));
    // Over the network as well: what a server says to a wish for encryption.
    let tls = talk(asked.address, 5432, &[0, 0, 0, 8, 4, 210, 22, 47], 1)?;
    ensure!(tls == "N" || tls == "S", "{tls:?}");
    Ok("create, insert, select with a compiled query".into())
}

fn registry(asked: &Asked<'_>) -> Result<String> {
    let body = get(asked.address, 5000, "/v2/_catalog")?;
    ensure!(body.trim() == r#"{"repositories":[]}"#, "{body}");
    Ok("docker-registry: an empty catalogue".into())
}
