//! Delete and record: what must always work. No policy, no TPM, no containerd, no verdict.
use crate::claim;
use crate::log::spill;
use crate::refuse::{Refused, Result};
use crate::state;
use crate::trail::Book;
use boltseal_evidence::record;
use boltseal_message::{Event, Reply, Request};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Kills what is left of the container, removes its cgroup and its state. Idempotent.
/// What the trail cannot take does not keep a container from being removed.
pub(crate) fn delete(request: &Request, events: &[Event]) -> Result<(Reply, Vec<OwnedFd>)> {
    let folder = state::folder(request)?;
    let recorded = note(request, events);
    claim::remove(&folder, &request.id)?;
    // The container is gone either way; only then is the trail's complaint worth an error, and Delete has none to give.
    if let Err(Refused::Because { message, .. }) = recorded {
        spill(&message);
    }
    Ok((Reply::Done, Vec::new()))
}

/// Appends events and nothing else.
pub(crate) fn record(request: &Request, events: &[Event]) -> Result<(Reply, Vec<OwnedFd>)> {
    note(request, events)?;
    Ok((Reply::Done, Vec::new()))
}

fn note(request: &Request, events: &[Event]) -> Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let book = Book::open();
    let root = record::state_root(&request.address).join(&request.namespace);
    let folder = |id: &str| -> Result<PathBuf> {
        state::check_name("container id", id)?;
        Ok(root.join(id))
    };
    for event in events {
        let known = folder(&event.id).ok().and_then(|folder| record::load(&folder).ok());
        book.event(request, known.as_ref(), event)?;
    }
    Ok(())
}
