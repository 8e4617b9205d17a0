//! Update: new limits for a running container. They are judged like a start's, and can never be removed.
use crate::gather;
use crate::refuse::{Refused, Result};
use crate::state;
use crate::trail::{Book, entry};
use boltseal_message::{Reply, Request};
use boltseal_policy::{Verdict, decide};
use std::os::fd::OwnedFd;

pub(crate) fn update(request: &Request, resources: &[u8]) -> Result<(Reply, Vec<OwnedFd>)> {
    let folder = state::folder(request)?;
    let mut book = Book::open();
    let policy = gather::policy(request, &mut book, boltseal_policy::facts::Door::Update, "")?;
    let (facts, resources) = gather::update(request, &folder, resources, &book, &policy)?;
    book.judge_by(&policy.rules, &facts);
    let permit = match decide(&policy.rules, &facts) {
        Verdict::Allow(permit) => permit,
        Verdict::Deny(denial) => return Err(book.refuse(entry(request, &facts), denial, None)),
    };
    let allowed = book.allow(entry(request, &facts), permit.findings(), "")?;
    // The running container feels the new limits at once: the decision is on disk before.
    book.sync(&allowed).map_err(Refused::internal)?;
    let applied = boltseal_launch::update(&folder, &request.id, &resources);
    let end = if applied.is_ok() { boltseal_audit::Event::Started } else { boltseal_audit::Event::Aborted };
    let note = applied.as_ref().err().map(ToString::to_string).unwrap_or_else(|| "limits applied".into());
    book.end(entry(request, &facts), &allowed.id, end, None, &note)?;
    applied.map_err(|e| Refused::internal(format!("the new limits cannot be applied: {e}")))?;
    Ok((Reply::Done, Vec::new()))
}
