//! Several sealed layers: what the container sees is what the unpacked snapshot shows. A user namespace over them, and an exec.
use super::{LATE, SLEEP, complete_of, file_of, flip, late, layer, nothing_left, of, reads, refused_of, said};
use crate::guest::work::{World, exec, in_time};
use crate::sealed::LAYOUT;
use anyhow::{Context, Result, ensure};
use stack::cases::users::{HOST, SIZE, own};
use std::fs;

/// Everything of the root file system but times and sizes of folders, which are another file system's.
const LIST: &str = "cd /; B=/bin/busybox; \
    $B find . -xdev ! -type d | $B sort | $B xargs $B stat -c '%N %F %a %u %g %s %Y'; \
    $B find . -xdev -type d | $B sort | $B xargs $B stat -c '%n %F %a %u %g'; \
    $B find . -xdev -type f | $B sort | $B xargs $B md5sum; $B echo all";

pub(super) fn listing(world: &World, id: &str) -> Result<String> {
    let seen = complete_of(world, id, "layered", &["/bin/sh", "-c", LIST])?;
    ensure!(seen.ends_with("\nall\n") && !seen.contains("rror"), "{id}: {}", tail(&seen));
    Ok(seen)
}

fn tail(text: &str) -> String {
    text.lines().rev().take(5).collect::<Vec<_>>().join(" | ")
}

pub(super) fn all(world: &World, unpacked: &str) -> Result<Vec<String>> {
    let sealed = listing(world, "layers-sealed")?;
    if let Some((was, is)) = unpacked.lines().zip(sealed.lines()).find(|(was, is)| was != is) {
        anyhow::bail!("unpacked: {was}; sealed: {is}");
    }
    ensure!(
        unpacked == sealed,
        "unpacked there are {} lines, sealed {}",
        unpacked.lines().count(),
        sealed.lines().count()
    );
    // The layers do to each other what they were made for.
    let has = |path: &str| {
        sealed.lines().any(|line| line.starts_with(&format!("'./{path}' ")) || line.starts_with(&format!("./{path} ")))
    };
    for path in ["etc/release", "opt/b/c", "opt/dir", "srv/0/1", "srv/1999", "data"] {
        ensure!(has(path), "{path} is not there");
    }
    for path in ["data/one", "data/sub", "data/sub/old", "data/two", "opt/a", "opt/dir/x", "bin/touch"] {
        ensure!(!has(path), "{path} is there");
    }
    nothing_left()?;

    // The uppermost layer, without which the image would be another one.
    let upper = file_of(&layer(&of("layered"), 3)?)?;
    let away = upper.with_extension("away");
    fs::rename(&upper, &away)?;
    let tried = refused_of(world, "layer", "layered");
    fs::rename(&away, &upper)?;
    tried?;
    complete_of(world, "layer-twin", "layered", &["/bin/true"])?;
    nothing_left()?;
    Ok(vec![
        format!(
            "four layers with whiteouts and opaque folders: {} lines of what is seen, unpacked and sealed the same; one of them missing: refused; put back: started",
            sealed.lines().count()
        ),
        users(world)?,
        entered(world)?,
    ])
}

/// Layers that are idmapped: root of the container is nobody's on the node, and its files are root's inside.
fn users(world: &World) -> Result<String> {
    let script = "cat /proc/self/uid_map; ls -ldn / /bin /srv/1999 /etc/release; cat /etc/release; exec sleep 600";
    let mut request = world.named("users", "layered", &["/bin/sh", "-c", script])?;
    own(&mut request, HOST, SIZE)?;
    request.spec["process"]["user"] = serde_json::json!({ "uid": 0, "gid": 0 });
    let pid = in_time(|| world.run(&request)).map_err(|status| said("users", &status))?;
    let seen = (|| {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        ensure!(status.contains(&format!("Uid:\t{HOST}\t")), "{status}");
        let (code, inside) = exec(world, "users", &["/bin/busybox", "id", "-u"])?;
        ensure!((code, inside.as_str()) == (0, "65532\n"), "{code} {inside}");
        let out = world.output_file("users");
        stack::process::poll("nothing said", std::time::Duration::from_secs(20), || {
            fs::read_to_string(&out).ok().filter(|text| text.contains("layered 2"))
        })
    })();
    world.client.remove(&request)?;
    let seen = seen?;
    ensure!(seen.starts_with(&format!("         0    {HOST}")), "{seen}");
    for path in ["/", "/bin", "/srv/1999", "/etc/release"] {
        let line = seen.lines().find(|line| line.ends_with(&format!(" {path}"))).context("not listed")?;
        ensure!(line.split_whitespace().skip(2).take(2).eq(["0", "0"]), "{line}");
    }
    nothing_left()?;
    Ok("a user namespace over sealed layers: root's files are its root's; an exec in it".into())
}

/// What an exec reads is held to the root hash as well.
fn entered(world: &World) -> Result<String> {
    let request = world.named("entered", "app", &SLEEP)?;
    in_time(|| world.run(&request)).map_err(|status| said("entered", &status))?;
    let seen = (|| {
        let blob = super::blob()?;
        let at = late(&fs::read(&blob)?)?;
        flip(&blob, at)?;
        let changed = exec(world, "entered", &["/bin/sh", "-c", &reads()]);
        flip(&blob, at)?;
        let (_, changed) = changed?;
        ensure!(changed.contains("begins") && changed.contains("ended with 1"), "the read of block {LATE}: {changed}");
        let (code, whole) = exec(world, "entered", &["/bin/sh", "-c", &reads()])?;
        ensure!(code == 0 && whole.contains("ended with 0"), "{code} {whole}");
        Ok(())
    })();
    world.client.remove(&request)?;
    seen?;
    nothing_left()?;
    Ok(format!(
        "an exec in a sealed container ({LAYOUT}): a byte changed below it is an I/O error to it, put back it reads"
    ))
}
