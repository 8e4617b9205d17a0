//! The whole way of a start, on one page. Every name below is a step; each lives in the module or crate of that name.
use crate::ahead::Ahead;
use crate::checked;
use crate::claim;
use crate::gather::{self, Gathered};
use crate::refuse::{Refused, Result};
use crate::state;
use crate::trail::{Book, entry};
use crate::verity;
use boltseal_audit::{Cost, Entry, Event};
use boltseal_launch::{CreateRequest, LaunchError, Listener, Parked, Rootfs};
use boltseal_message::{Code, Create, Created, Expected, Reply, Request, Trap};
use boltseal_policy::facts::Door;
use boltseal_policy::{Verdict, decide};
use boltseal_seal::network::Watch;
use boltseal_seal::{Sealed, seal};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a permit stays fresh, on CLOCK_BOOTTIME.
const FRESH: Duration = Duration::from_secs(300);

/// Create: gather, verify, decide, record, seal, launch, inspect, record. Init is parked when this returns.
pub(crate) fn create(
    request: &Request,
    create: &Create,
    fds: Vec<OwnedFd>,
    version: u16,
) -> Result<(Reply, Vec<OwnedFd>)> {
    let deadline = Instant::now() + Duration::from_millis(u64::from(request.deadline_ms));
    // Before anything is open that a child should not hold.
    let _ahead = Ahead::start();
    let folder = state::folder(request)?;
    let mut book = Book::open();

    let policy = gather::policy(request, &mut book, Door::Create, "")?;
    let Gathered { facts, spec, code, hooks: _hooks, turn: _turn, image, sealed: mounts } =
        gather::create(request, create, &mut book, &policy, deadline)?;

    book.judge_by(&policy.rules, &facts);
    let permit = match decide(&policy.rules, &facts) {
        Verdict::Allow(permit) => permit,
        Verdict::Deny(denial) => return Err(book.refuse(entry(request, &facts), denial, code)),
    };
    let not_after_boottime_ns = gather::boottime_ns()? + u64::try_from(FRESH.as_nanos()).unwrap_or(u64::MAX);

    let (findings, terms) = (permit.findings().to_vec(), permit.terms().clone());
    let begun = Instant::now();
    let sealed = seal(permit, spec, &facts)
        .map_err(|why| Refused::internal(format!("the spec cannot be sealed: {why}")).let_through(&findings));
    let sealing = begun.elapsed();
    let digest = sealed.as_ref().map_or("", |sealed| &sealed.digest);
    let decision = book.allow(entry(request, &facts), &findings, digest)?;
    // What comes of it stands in the trail whatever it is: also that there is no folder for it.
    let ready = sealed.and_then(|sealed| Ok((sealed, claim::make(&folder, &request.id)?)));
    let (mut sealed, claim) = match ready {
        Ok(ready) => ready,
        Err(refused) => {
            book.end(entry(request, &facts), &decision.id, Event::Aborted, None, &refused.to_string())?;
            return Err(refused);
        }
    };
    // A shim of an earlier version takes no listener, and no ring.
    if version < 2 {
        sealed.table.traps.clear();
    }
    if version < 3 {
        sealed.table.watch = Watch::default();
    }
    let checked = checked::layers(&facts);
    let rootfs = Rootfs { checked: checked.as_deref(), ..verity::mountable(facts.rootfs.is(), mounts.as_deref()) };

    let launched = launch(&folder, request, &sealed, rootfs, create.stdio.fds, fds, deadline).and_then(|parked| {
        let record = gather::record(request, &facts, &terms, &sealed, &parked, &decision.id);
        state::save(&folder, &record, &sealed.table, facts.image.is().unwrap_or(&Default::default()))?;
        // One flush makes the decision and its end durable, before Create answers and long before init may run.
        let [inside, outside] = parked.inspections;
        let cost = Cost {
            image_us: micros(image),
            seal_us: micros(sealing),
            inside_us: micros(inside),
            outside_us: micros(outside),
        };
        let started = Entry { cost: Some(cost), layers: checked::digests(&facts), ..entry(request, &facts) };
        book.end(started, &decision.id, Event::Started, Some(parked.pid), "")?;
        Ok(parked)
    });
    let parked = match launched {
        Ok(parked) => parked,
        Err(refused) => {
            let refused = refused.let_through(&findings);
            // What stays behind is told beside the reason, never in its place.
            let note = match claim.abandon(&request.id) {
                Ok(()) => refused.to_string(),
                Err(left) => format!("{refused}; {left}"),
            };
            book.end(entry(request, &facts), &decision.id, Event::Aborted, None, &note)?;
            return Err(refused);
        }
    };

    let (traps, listener) = listener(parked.listener);
    let created = Created {
        pid: parked.pid,
        terminal: create.stdio.terminal,
        not_after_boottime_ns,
        policy_files: policy.stamps,
        expected: Expected { seccomp_filters: parked.seccomp_filters, label: parked.expected_label },
        cgroups: parked.cgroups,
        shared_pid_namespace: sealed.table.namespaces.iter().any(|n| n.kind == "pid" && n.object.is_some()),
        traps,
        scan: parked.ring.as_ref().map_or(0, |_| sealed.table.watch.scan),
    };
    let mut fds = vec![parked.pidfd, parked.release, parked.exec_status];
    fds.extend(parked.console);
    fds.extend(listener);
    fds.extend(parked.ring.map(|ring| [ring.events, ring.lost]).into_iter().flatten());
    Ok((Reply::Created(created), fds))
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

/// The trip-wire as the shim hears of it: a table to look up in, and the listener.
pub(crate) fn listener(listener: Option<Listener>) -> (Vec<Trap>, Option<OwnedFd>) {
    let Some(Listener { fd, traps }) = listener else { return (Vec::new(), None) };
    let trap = |t: boltseal_launch::seccomp::Trap| Trap {
        nr: t.nr,
        name: t.name.into(),
        errno: u32::from(t.errno),
        args: t.args,
    };
    (traps.into_iter().map(trap).collect(), Some(fd))
}

fn launch(
    folder: &Path,
    request: &Request,
    sealed: &Sealed,
    rootfs: Rootfs<'_>,
    which: [bool; 3],
    fds: Vec<OwnedFd>,
    deadline: Instant,
) -> Result<Parked> {
    boltseal_launch::create(CreateRequest {
        id: &request.id,
        state: folder,
        sealed,
        rootfs,
        stdio: stdio(which, fds)?,
        deadline,
    })
    .map_err(refused)
}

/// The fds of the frame, each in its place.
pub(crate) fn stdio(which: [bool; 3], fds: Vec<OwnedFd>) -> Result<[Option<OwnedFd>; 3]> {
    let mut fds = fds.into_iter();
    let mut take = |wanted: bool| -> Result<Option<OwnedFd>> {
        if !wanted {
            return Ok(None);
        }
        fds.next().map(Some).ok_or_else(|| Refused::malformed("the request names more stdio than it brings"))
    };
    let [stdin, stdout, stderr] = which;
    Ok([take(stdin)?, take(stdout)?, take(stderr)?])
}

/// A launch that did not come about, for the person who asked.
pub(crate) fn refused(error: LaunchError) -> Refused {
    match error {
        LaunchError::Inspection(differences) => Refused::because(
            Code::FailedPrecondition,
            format!(
                "stopped by inspection: what the kernel shows is not what was approved: {}. Fix: report it with `boltseal doctor`",
                differences.join("; ")
            ),
        ),
        late @ LaunchError::TimedOut(_) => Refused::because(Code::Unavailable, late.to_string()),
        other => Refused::because(Code::FailedPrecondition, other.to_string()),
    }
}
