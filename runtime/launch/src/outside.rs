//! Inspection from outside, while init is parked: /proc/PID against the same table that the inside compared.
use crate::error::LaunchError;
use crate::inspect::{self, IdMap, Mounts, Objects, Status};
use crate::record::Record;
use crate::sys;
use crate::{cgroup, label, network};
use boltseal_seal::{Label, Table};
use std::path::{Path, PathBuf};

/// The parked init as the kernel shows it to the host.
pub(crate) fn outside(pid: u32, host: &Objects, table: &Table, record: &Record) -> Result<Objects, LaunchError> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let inspection = |line: String| LaunchError::Inspection(vec![line]);
    let status = Status::read(&proc).map_err(inspection)?;
    let own = Status::read(Path::new("/proc/self")).map_err(inspection)?;
    let map: IdMap = table.user_ids.map(|(host, size)| (0, host, size)).into_iter().collect();
    let mut lines = inspect::credentials(&status, table, (&map, &map));
    lines.extend(inspect::id_maps(&proc, table.user_ids));
    let base = own.number("Seccomp_filters").map(|n| n + 1);
    for (name, expected) in [("Seccomp", Some(2)), ("Seccomp_filters", base)] {
        if status.number(name) != expected {
            lines.push(format!("{name} is {:?}, expected is {expected:?}", status.number(name)));
        }
    }
    let objects = inspect::objects(&proc).map_err(inspection)?;
    lines.extend(inspect::namespaces(&objects, host, &table.namespaces));
    let expected = Mounts {
        approved: &record.mounts,
        masked: &table.masked,
        readonly: &table.readonly,
        console: table.terminal,
        bound_devices: &record.bound_devices,
        later: false,
        root: proc.join("root"),
    };
    lines.extend(inspect::mounts(&proc, &expected));
    lines.extend(cgroup::differences(pid, &table.cgroup_path, network::is_held(table))?);
    lines.extend(waiting_label(&proc, table));
    if lines.is_empty() { Ok(objects) } else { Err(LaunchError::Inspection(lines)) }
}

/// The label that waits for the execve, from outside.
fn waiting_label(proc: &Path, table: &Table) -> Option<String> {
    let file = match table.label.as_ref()? {
        Label::AppArmor(_) => "attr/apparmor/exec",
        Label::Selinux(_) => "attr/exec",
    };
    let expected = label::expected(table.label.as_ref());
    match sys::read_kernel(proc.join(file)) {
        Ok(text) if text.trim_end_matches(['\0', '\n']) == expected => None,
        Ok(text) => Some(format!("label at execve is {text:?}, approved is {expected:?}")),
        Err(e) => Some(format!("label at execve cannot be read: {e}")),
    }
}
