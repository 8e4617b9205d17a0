//! The child: reads its job, locks itself in, talks to the registry, tells what it found.
use crate::credentials;
use crate::find::find;
use crate::frames::Frame;
use crate::http::Client;
use crate::jail;
use crate::job::{Job, Secret};
use crate::proxy::Proxy;
use crate::registry::Registry;
use crate::url::{Url, bracketed};
use boltseal_trust::Digest;
use std::io::{Read, Write, stdin, stdout};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Bounded although the parent wrote it: a person may have called us.
const MAX_JOB: u64 = 8 << 20;

#[must_use]
pub fn main() -> ExitCode {
    let mut broken = false;
    let mut say = |frame: Frame| broken |= stdout().write_all(&frame.encode()).is_err();
    if let Err(why) = work(&mut say) {
        say(Frame::Note(crate::shown(&why).into_bytes()));
        say(Frame::End);
    }
    let flushed = stdout().flush().is_ok();
    if broken || !flushed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn work(say: &mut dyn FnMut(Frame)) -> Result<(), String> {
    jail::begin()?;
    let mut text = Vec::new();
    stdin().take(MAX_JOB).read_to_end(&mut text).map_err(|e| e.to_string())?;
    let job: Job = serde_json::from_slice(&text).map_err(|_| "no job. Fix: boltseal-fetch REF@DIGEST")?;
    drop(text);
    if nix::unistd::getppid().as_raw().cast_unsigned() != job.parent {
        return Err("the parent is gone".into());
    }
    let deadline = Instant::now() + Duration::from_millis(job.time);
    let registry = format!("{}{}", bracketed(&job.host), job.port.map_or_else(String::new, |port| format!(":{port}")));
    let scheme = if job.plain_http.contains(&registry) { "http" } else { "https" };
    let base = Url::parse(&format!("{scheme}://{registry}/"))?;
    let proxy = job.proxy.as_deref().map(Proxy::parse).transpose()?;
    let mut ports = job.ports.clone();
    ports.extend([base.port, 443]);
    ports.extend(proxy.as_ref().map(|proxy| proxy.port));
    jail::lock(&ports)?;
    let image: Digest = job.digest.parse().map_err(|_| "no sha256 digest")?;
    let secret = match job.secret {
        Secret::Helper(printed) => credentials::of_helper(&printed)?,
        other => other,
    };
    let client = Client::new(&job.ca, proxy, job.no_proxy, job.plain_http, deadline)?;
    find(&mut Registry::new(client, base, &job.path, secret), &image, say);
    Ok(())
}
