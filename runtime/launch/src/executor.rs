//! What runs inside, as the last code before the container's program. `validate` is part of create: whatever differs
//! from the table makes create fail; then Landlock and the base filter, so that a parked init shows them from outside.
//! `exec` waits for the shim's release, adds the pod's own filter and executes.
use crate::error::LaunchError;
use crate::inspect::{self, IdMap, Mounts, Objects, Status};
use crate::label::Attribute;
use crate::rootfs::Resolved;
use crate::seccomp::{self, Compiled};
use crate::{label, landlock, listener, memfd, program, sys};
use boltseal_seal::Table;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use oci_spec::runtime::{Process, Spec};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

/// Exactly these bytes, then the end of the stream, release a parked init.
pub(crate) const RELEASE: &[u8] = b"start container";
/// Longest text on the exec-status pipe.
const STATUS_MAX: usize = 4096;

/// Everything that the inside needs, made by the gate before it forks.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) table: Table,
    pub(crate) mounts: Vec<Resolved>,
    pub(crate) host: Objects,
    pub(crate) base: Compiled,
    pub(crate) pod: Option<Compiled>,
    pub(crate) console: bool,
    pub(crate) bound_devices: Vec<String>,
    /// Write end of the exec-status pipe.
    pub(crate) status: RawFd,
    /// Our end of the release socket; None for an exec, which is not parked.
    pub(crate) release: Option<RawFd>,
    /// Where the inside tells that it is ready; see [`listener`].
    pub(crate) way_out: RawFd,
    /// Files of memory must not be executable by now.
    pub(crate) memory_noexec: bool,
    /// See [`label::enforcement`].
    pub(crate) enforcing: Option<std::fs::File>,
    /// See [`crate::cgroup2::make_beside`].
    pub(crate) beside: Option<std::fs::File>,
    /// What fds 0, 1, 2 must be.
    pub(crate) stdio: [Stdio; 3],
    /// The gate's own descriptors, closed inside.
    pub(crate) inherited: Vec<RawFd>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stdio {
    /// (device, inode) of what the shim passed.
    Passed(u64, u64),
    /// The container's own /dev/null.
    Null,
    /// The container's own terminal.
    Terminal,
}

#[derive(Debug, Clone)]
pub(crate) struct Inside {
    plan: Rc<Plan>,
    label: Rc<RefCell<Option<Attribute>>>,
}

impl Inside {
    pub(crate) fn new(plan: Plan) -> Self {
        Self { plan: Rc::new(plan), label: Rc::new(RefCell::new(None)) }
    }

    /// For a process that libcontainer did not make: all that it would have called, one after the other.
    pub(crate) fn go(&self, spec: &Spec) -> ! {
        match self.check(spec) {
            Ok(()) => self.execute(spec),
            Err(error) => self.give_up(&error),
        }
    }

    /// Ends this process with the reason on the exec-status pipe.
    pub(crate) fn give_up(&self, error: &LaunchError) -> ! {
        self.report(&encode(error));
        sys::exit_now(program::exit_code(error))
    }

    fn execute(&self, spec: &Spec) -> ! {
        let error = self.run(spec);
        self.report(&bounded(error.to_string().trim_start_matches("exec: ")));
        sys::exit_now(program::exit_code(&error))
    }

    fn check(&self, spec: &Spec) -> Result<(), LaunchError> {
        let plan = &self.plan;
        plan.inherited.iter().for_each(|fd| sys::close_raw(*fd));
        if plan.release.is_none() {
            use_own_null(&plan.stdio)?;
        }
        if let Some(mut join) = plan.beside.as_ref() {
            join.write_all(b"0").map_err(LaunchError::io("join the cgroup that confines sockets"))?;
        }
        let begun = Instant::now();
        let lines = self.differences(spec);
        let inspection = begun.elapsed();
        if !lines.is_empty() {
            return Err(LaunchError::Inspection(lines));
        }
        if let Some(label) = &plan.table.label {
            let mut attribute = Attribute::open(label)?;
            attribute.set()?;
            *self.label.borrow_mut() = Some(attribute);
        }
        let listed = landlock::restrict(&plan.table.landlock)?;
        if let (Some(listed), Some(process)) = (listed, spec.process()) {
            listed.name(process)?;
        }
        listener::hand_out(plan.way_out, inspection, seccomp::install(&plan.base)?)
    }

    fn differences(&self, spec: &Spec) -> Vec<String> {
        let (plan, proc) = (&self.plan, Path::new("/proc/self"));
        let mut lines = Vec::new();
        if !sys::no_new_privs() {
            lines.push("no_new_privs is not set".to_owned());
        }
        match Status::read(proc) {
            Ok(status) => lines.extend(inspect::credentials(&status, &plan.table, (&IdMap::new(), &IdMap::new()))),
            Err(line) => lines.push(line),
        }
        match inspect::objects(proc) {
            Ok(objects) => lines.extend(inspect::namespaces(&objects, &plan.host, &plan.table.namespaces)),
            Err(line) => lines.push(line),
        }
        lines.extend(inspect::id_maps(proc, plan.table.user_ids));
        lines.extend(inspect::mounts(proc, &self.mounts()));
        lines.extend(cwd(&plan.table.cwd));
        lines.extend(descriptors(&plan.stdio));
        match spec.process() {
            Some(process) => lines.extend(environment(process)),
            None => lines.push("the spec has no process".to_owned()),
        }
        lines
    }

    fn mounts(&self) -> Mounts<'_> {
        let plan = &self.plan;
        Mounts {
            approved: &plan.mounts,
            masked: &plan.table.masked,
            readonly: &plan.table.readonly,
            console: plan.console,
            bound_devices: &plan.bound_devices,
            later: plan.release.is_none(),
            root: "/".into(),
        }
    }

    /// Only comes back with the reason why the program does not run.
    fn run(&self, spec: &Spec) -> LaunchError {
        match self.ready(spec) {
            Ok(program) => program.execute(self.plan.table.landlock.programs.is_some()),
            Err(error) => error,
        }
    }

    fn ready(&self, spec: &Spec) -> Result<program::Program, LaunchError> {
        let process = spec.process().as_ref().ok_or_else(|| LaunchError::Exec("the spec has no process".into()))?;
        if let Some(release) = self.plan.release {
            wait_for_release(release)?;
        }
        if let Some(attribute) = self.label.borrow_mut().as_mut() {
            attribute.check()?;
        }
        self.plan.enforcing.as_ref().map_or(Ok(()), label::enforces)?;
        if self.plan.memory_noexec {
            memfd::check()?;
        }
        // Found before the pod's filter, which may forbid looking for it or telling that it is not there.
        let program = program::Program::find(process)?;
        sys::default_signals().map_err(LaunchError::io("reset the signals"))?;
        if let Some(pod) = &self.plan.pod {
            seccomp::install(pod)?;
        }
        Ok(program)
    }

    /// Tells the shim or the gate why; when this fails there is nobody left to tell.
    fn report(&self, text: &str) {
        let mut pipe = std::fs::File::from(match sys::dup_high(sys::borrow(self.plan.status)) {
            Ok(fd) => fd,
            Err(e) => return tracing::error!("no exec-status pipe: {e}"),
        });
        if let Err(e) = pipe.write_all(text.as_bytes()) {
            tracing::error!("exec-status pipe: {e}");
        }
    }
}

impl Executor for Inside {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        self.check(spec).map_err(|error| {
            self.report(&encode(&error));
            ExecutorValidationError::ArgValidationError(error.to_string())
        })
    }

    /// The environment is given to execve as it stands in the spec; this process's own stays empty.
    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        // Not returned: libcontainer would write to a channel that it has closed.
        self.execute(spec)
    }
}

/// How validate tells the gate: first line the kind, then the text, one difference per line. What exec tells is text
/// for the person alone.
fn encode(error: &LaunchError) -> String {
    let text = match error {
        LaunchError::Inspection(lines) => format!("inspection\n{}", lines.join("\n")),
        LaunchError::Unsupported(text) => format!("unsupported\n{text}"),
        LaunchError::Exec(text) => text.clone(),
        LaunchError::TimedOut(text) | LaunchError::Other(text) => format!("other\n{text}"),
    };
    bounded(&text)
}

fn bounded(text: &str) -> String {
    let end = (0..=STATUS_MAX.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    text.get(..end).unwrap_or_default().to_owned()
}

/// What came through the pipe before the process was let go; None when it is empty.
pub(crate) fn decode(text: &str) -> Option<LaunchError> {
    if text.is_empty() {
        return None;
    }
    Some(match text.split_once('\n') {
        Some(("inspection", rest)) => LaunchError::Inspection(rest.lines().map(str::to_owned).collect()),
        Some(("unsupported", rest)) => LaunchError::Unsupported(rest.to_owned()),
        Some(("other", rest)) => LaunchError::Other(rest.to_owned()),
        _ => LaunchError::Exec(text.to_owned()),
    })
}

/// libcontainer goes on as soon as its own socket is closed, so a shim that dies would start the container. Not here.
fn wait_for_release(fd: RawFd) -> Result<(), LaunchError> {
    let mut socket =
        std::fs::File::from(sys::dup_high(sys::borrow(fd)).map_err(LaunchError::io("read the release socket"))?);
    let mut token = Vec::new();
    let mut bounded = (&mut socket).take(64);
    bounded.read_to_end(&mut token).map_err(LaunchError::io("read the release socket"))?;
    if token == RELEASE {
        return Ok(());
    }
    Err(LaunchError::Exec("never released: the release socket was closed without the start token".into()))
}

/// libcontainer reopens /dev/null inside for init only: an exec would hold the host's node.
fn use_own_null(stdio: &[Stdio; 3]) -> Result<(), LaunchError> {
    use std::os::fd::AsFd;
    for (number, kind) in (0..).zip(stdio) {
        if *kind == Stdio::Null {
            let own = std::fs::File::options()
                .read(true)
                .write(true)
                .open("/dev/null")
                .map_err(LaunchError::io("open /dev/null"))?;
            sys::dup_onto(own.as_fd(), number).map_err(LaunchError::io("use the container's /dev/null"))?;
        }
    }
    Ok(())
}

/// The working folder lies in the container and is the approved one (CVE-2024-21626).
fn cwd(approved: &str) -> Vec<String> {
    let actual = match std::env::current_dir() {
        Ok(path) => path,
        Err(e) => return vec![format!("the working folder is outside of the container: {e}")],
    };
    if actual == Path::new(approved) {
        return Vec::new();
    }
    let same = std::fs::metadata(approved)
        .and_then(|a| std::fs::metadata(".").map(|b| (a.dev(), a.ino()) == (b.dev(), b.ino())));
    if actual.is_absolute() && same.is_ok_and(|same| same) {
        return Vec::new();
    }
    vec![format!("the working folder is {}, approved is {approved}", actual.display())]
}

/// 0, 1, 2 are what was passed; everything else closes on execve.
fn descriptors(stdio: &[Stdio; 3]) -> Vec<String> {
    let mut lines = Vec::new();
    for (number, expected) in (0..).zip(stdio) {
        let actual = match sys::fstat(number) {
            Ok(stat) => stat,
            Err(e) => {
                lines.push(format!("fd {number}: {e}"));
                continue;
            }
        };
        let device = (libc::major(actual.st_rdev), libc::minor(actual.st_rdev));
        let character = actual.st_mode & libc::S_IFMT == libc::S_IFCHR;
        let fits = match expected {
            // A passed /dev/null is exchanged for the container's own.
            Stdio::Passed(dev, ino) => {
                (*dev, *ino) == (actual.st_dev, actual.st_ino) || (character && device == (1, 3))
            }
            Stdio::Null => character && device == (1, 3),
            // Unix98 terminals, major 136 to 143 (admin-guide/devices.txt).
            Stdio::Terminal => character && (136..=143).contains(&device.0),
        };
        if !fits {
            lines.push(format!("fd {number} is not what was passed"));
        }
    }
    match sys::open_fds() {
        Ok(all) => {
            for fd in all.into_iter().filter(|fd| *fd > 2) {
                if !sys::closes_on_exec(fd).unwrap_or(false) {
                    lines.push(format!("fd {fd} would stay open in the container"));
                }
            }
        }
        Err(e) => lines.push(format!("open descriptors cannot be listed: {e}")),
    }
    lines
}

/// Without HOME libcontainer asks the image's name service for it (notes: code of the image before any filter).
fn environment(process: &Process) -> Vec<String> {
    let home = process.env().iter().flatten().any(|e| e.starts_with("HOME="));
    if home { Vec::new() } else { vec!["HOME is not in the environment".to_owned()] }
}

/// (device, inode) of a descriptor that the shim passed.
pub(crate) fn identity(fd: &impl AsRawFd) -> Result<Stdio, LaunchError> {
    let stat = sys::fstat(fd.as_raw_fd()).map_err(LaunchError::io("stat the passed stdio"))?;
    Ok(Stdio::Passed(stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_come_back_as_they_were() {
        for error in [
            LaunchError::Inspection(vec!["a".into(), "b".into()]),
            LaunchError::Unsupported("no".into()),
            LaunchError::Other("x".into()),
            LaunchError::Exec("\"/bin/x\": not found".into()),
        ] {
            assert_eq!(decode(&encode(&error)), Some(error));
        }
        assert_eq!(decode(""), None);
        let long = encode(&LaunchError::Other("ä".repeat(5000)));
        assert!(long.len() <= STATUS_MAX && long.len() > STATUS_MAX - 4);
    }
}
