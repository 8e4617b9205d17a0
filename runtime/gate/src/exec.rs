//! Exec: a second process takes the same way, bounded by what its container was sealed to. It needs no containerd.
//! It has no parked window: all inspection happens inside, before its execve.
use crate::ahead::Ahead;
use crate::gather;
use crate::pipeline::{listener, refused, stdio};
use crate::refuse::{Refused, Result};
use crate::state;
use crate::trail::Book;
use boltseal_audit::Entry;
use boltseal_audit::Event;
use boltseal_evidence::record::ContainerRecord;
use boltseal_launch::ExecRequest;
use boltseal_message::{Exec, Reply, Request};
use boltseal_policy::facts::{Door, Facts};
use boltseal_policy::{Verdict, decide};
use boltseal_seal::seal_process;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

pub(crate) fn exec(request: &Request, exec: &Exec, fds: Vec<OwnedFd>) -> Result<(Reply, Vec<OwnedFd>)> {
    let deadline = Instant::now() + Duration::from_millis(u64::from(request.deadline_ms));
    let _ahead = Ahead::start();
    let folder = state::folder(request)?;
    state::check_name("exec id", &exec.exec_id)?;
    let mut book = Book::open();

    let policy = gather::policy(request, &mut book, Door::Exec, &exec.exec_id)?;
    let (facts, process, record) = gather::exec(request, &folder, exec, &mut book, &policy)?;
    book.judge_by(&policy.rules, &facts);
    let permit = match decide(&policy.rules, &facts) {
        Verdict::Allow(permit) => permit,
        Verdict::Deny(denial) => return Err(book.refuse(entry(request, &facts, &record), denial, None)),
    };
    let findings = permit.findings().to_vec();
    // No parked window: the decision must be on disk before the process may run.
    let decision = book.allow(entry(request, &facts, &record), &findings, "")?;
    book.sync(&decision).map_err(Refused::internal)?;

    // Whatever comes of it stands in the trail.
    let launch = || {
        let sealed = seal_process(permit, process, &state::table(&folder)?)
            .map_err(|why| Refused::internal(format!("the process cannot be sealed: {why}")))?;
        boltseal_launch::exec(ExecRequest {
            id: &request.id,
            state: &folder,
            process_json: &sealed.json,
            table: &sealed.table,
            stdio: stdio(exec.stdio.fds, fds)?,
            terminal: exec.stdio.terminal,
            deadline,
            init_pid: record.pid,
            init_start_time: record.start_time,
        })
        .map_err(refused)
    };
    match launch().map_err(|refused| refused.let_through(&findings)) {
        Ok(process) => {
            let recorded =
                book.end(entry(request, &facts, &record), &decision.id, Event::Started, Some(process.pid), "");
            if let Err(unrecorded) = recorded {
                // We are its parent, so the number is still its own. What cannot be recorded does not go on.
                let pid = Pid::from_raw(i32::try_from(process.pid).map_err(|_| Refused::internal("pid"))?);
                kill(pid, Signal::SIGKILL)
                    .map_err(|e| Refused::internal(format!("an unrecorded process does not die: {e}")))?;
                return Err(unrecorded);
            }
            let mut fds = vec![process.pidfd];
            fds.extend(process.console);
            let (traps, listener) = listener(process.listener);
            fds.extend(listener);
            Ok((Reply::Execed { pid: process.pid, traps }, fds))
        }
        Err(refused) => {
            book.end(entry(request, &facts, &record), &decision.id, Event::Aborted, None, &refused.to_string())?;
            Err(refused)
        }
    }
}

/// An exec runs the bytes that its container's record vouches for.
fn entry(request: &Request, facts: &Facts, record: &ContainerRecord) -> Entry {
    Entry { integrity: record.integrity.clone(), ..crate::trail::entry(request, facts) }
}
