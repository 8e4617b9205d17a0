//! Names that change while a container is being made. The attacker holds the volume and exchanges a folder with a link
//! as fast as he can (`renameat2`, RENAME_EXCHANGE); each row starts many containers meanwhile.
use super::bind;
use crate::row::Row;
use crate::site::{OUTSIDE, Site, VOLUME};
use anyhow::Result;
use stack::process::{Daemon, output};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// Starts on boltseal; a peer gets fewer.
pub(crate) const STARTS: u32 = 500;
pub(crate) const PEER_STARTS: u32 = 40;
/// What a control may try.
const NAIVE: &str = "100000";

pub(super) fn rows() -> Vec<Row> {
    vec![
        Row::request(
            "CVE-2021-30465",
            "the destination of a mount below a volume is exchanged with a link to the host",
            "race-destination",
            |_, _| Ok(()),
        )
        .common(|_, ask| {
            made(OUTSIDE)?;
            bind(ask, "/volume", VOLUME);
            bind(ask, "/volume/a", &format!("{VOLUME}/source"));
            Ok(())
        })
        .race(STARTS, swapper)
        .args(&["/bin/sh", "-c", "[ -e /volume/b/secret ] || [ -e /volume/a/secret ] && echo LEAKED; echo end"])
        // A mount that landed on the host's folder would be seen there by its marker.
        .escaped(|_, _, seen| Ok(Path::new(OUTSIDE).join("marker").exists() || seen.output().contains("LEAKED")))
        .control(|site| {
            made(OUTSIDE)?;
            let source = format!("{VOLUME}/source");
            naive(site, &["naive-mount", VOLUME, "/a", &source, OUTSIDE, NAIVE])
        }),
        Row::request(
            "CVE-2024-45310",
            "a mount point is made in a volume while its parent is exchanged with a link to the host",
            "race-mount-point",
            |_, _| Ok(()),
        )
        .common(|_, ask| {
            made(OUTSIDE)?;
            bind(ask, "/volume", VOLUME);
            bind(ask, "/volume/a/made", &format!("{VOLUME}/source"));
            Ok(())
        })
        .race(STARTS, swapper)
        .escaped(|_, _, _| Ok(Path::new(OUTSIDE).join("made").exists()))
        .control(|site| {
            made(OUTSIDE)?;
            naive(site, &["naive-folder", VOLUME, "/a/made", &format!("{OUTSIDE}/made"), NAIVE])
        }),
        Row::request(
            "Kubernetes CVE-2021-25741, NVIDIA CVE-2024-0132",
            "the source of a mount is exchanged with a link to the host after it was judged",
            "race-source",
            |_, _| Ok(()),
        )
        .common(|_, ask| {
            made("/var/lib/cves/host")?;
            // The policy grants the folder by its own name, so that only what it leads to can be wrong.
            bind(ask, "/data", &format!("{VOLUME}/a"));
            Ok(())
        })
        .race(STARTS, swapper)
        .exploit(&["read", "/data/secret"])
        .control(|site| {
            made("/var/lib/cves/host")?;
            let target = format!("{VOLUME}/target");
            fs::create_dir_all(&target)?;
            naive(site, &["naive-source", &format!("{VOLUME}/a"), &target, NAIVE])
        }),
    ]
}

/// `a` is a folder and `b` a link, or the other way round.
fn made(leads: &str) -> Result<()> {
    for folder in ["source", "a"] {
        if fs::symlink_metadata(format!("{VOLUME}/{folder}")).is_err() {
            fs::create_dir(format!("{VOLUME}/{folder}"))?;
        }
    }
    fs::write(format!("{VOLUME}/source/marker"), "")?;
    if fs::symlink_metadata(format!("{VOLUME}/b")).is_err() {
        symlink(leads, format!("{VOLUME}/b"))?;
    }
    Ok(())
}

fn swapper(site: &Site) -> Result<Daemon> {
    let log = site.world.node.work.join("swap.log");
    let mut command = Command::new(&site.exploit);
    Daemon::start("the swapper", command.args(["swap", &format!("{VOLUME}/a"), &format!("{VOLUME}/b")]), &log)
}

fn naive(site: &Site, words: &[&str]) -> Result<bool> {
    let mut rival = swapper(site)?;
    let said = output(Command::new(&site.exploit).args(words))?;
    let raced = rival.said();
    rival.stop()?;
    let won = said.stdout.starts_with("ESCAPED");
    if !won {
        println!("    the control says: {} {}; its rival: {raced}", said.stdout.trim(), said.stderr.trim());
    }
    Ok(won)
}
