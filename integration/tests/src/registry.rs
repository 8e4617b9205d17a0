//! Debian's docker-registry on the private loopback.
use crate::process::Daemon;
use anyhow::Result;
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

pub const ADDRESS: &str = "127.0.0.1:5000";

pub fn start(work: &Path) -> Result<Daemon> {
    let config = work.join("registry.yml");
    fs::write(
        &config,
        format!(
            "version: 0.1\nlog: {{ level: warn }}\nstorage: {{ filesystem: {{ rootdirectory: {} }} }}\n\
             http: {{ addr: {ADDRESS} }}\n",
            work.join("registry").display()
        ),
    )?;
    let mut daemon = Daemon::start(
        "docker-registry",
        Command::new("docker-registry").arg("serve").arg(&config),
        &work.join("registry.log"),
    )?;
    daemon.wait_until(Duration::from_secs(20), || TcpStream::connect(ADDRESS).is_ok())?;
    Ok(daemon)
}
