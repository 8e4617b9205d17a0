//! cgroup v1: libcgroups appends rules of its own to those it is given (every `mknod`, /dev/net/tun, /dev/console). What was
//! not sealed is taken back while init is parked, and the kernel's list is compared with the sealed rules.
use crate::error::LaunchError;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use std::path::Path;

/// Leaves the rules in the cgroup's folder and no others.
///
/// # Errors
/// The list cannot be read or changed; a line stays that no rule covers.
pub(crate) fn only(rules: &[LinuxDeviceCgroup], folder: &Path) -> Result<(), LaunchError> {
    take_back(folder, |list| foreign(rules, list))
}

/// Leaves the lines of an earlier list and no others.
///
/// # Errors
/// As [`only`].
pub(crate) fn as_before(before: &str, folder: &Path) -> Result<(), LaunchError> {
    let new = |list: &str| list.lines().filter(|line| !before.lines().any(|b| b == *line)).map(str::to_owned).collect();
    take_back(folder, new)
}

fn take_back(folder: &Path, foreign: impl Fn(&str) -> Vec<String>) -> Result<(), LaunchError> {
    for line in foreign(&list(folder)?) {
        std::fs::write(folder.join("devices.deny"), &line)
            .map_err(LaunchError::io(format_args!("take back the device rule {line}")))?;
    }
    let left = foreign(&list(folder)?);
    if left.is_empty() {
        return Ok(());
    }
    Err(LaunchError::Inspection(left.iter().map(|line| format!("device rule {line:?} was not approved")).collect()))
}

/// `devices.list` as it is.
pub(crate) fn list(folder: &Path) -> Result<String, LaunchError> {
    crate::sys::read_kernel(folder.join("devices.list")).map_err(LaunchError::io("read the cgroup's device rules"))
}

/// Lines of `devices.list` (Documentation/admin-guide/cgroup-v1/devices.rst) that no rule covers.
fn foreign(rules: &[LinuxDeviceCgroup], list: &str) -> Vec<String> {
    list.lines().filter(|line| !rules.iter().any(|rule| covers(rule, line))).map(str::to_owned).collect()
}

fn covers(rule: &LinuxDeviceCgroup, line: &str) -> bool {
    let mut words = line.split(' ');
    let (Some(kind), Some(numbers), Some(access)) = (words.next(), words.next(), words.next()) else { return false };
    let Some((major, minor)) = numbers.split_once(':') else { return false };
    let typ = match rule.typ() {
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => kind == "c",
        Some(LinuxDeviceType::B) => kind == "b",
        _ => false,
    };
    let number = |of: Option<i64>, text: &str| of.is_none_or(|n| n < 0 || text == n.to_string());
    let granted = rule.access().as_deref().unwrap_or_default();
    rule.allow()
        && typ
        && number(rule.major(), major)
        && number(rule.minor(), minor)
        && access.chars().all(|one| granted.contains(one))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_a_rule_covers_stays() {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_value(json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
            {"allow": true, "type": "c", "major": 136, "access": "rw"},
            {"allow": false, "type": "c", "major": 9, "minor": 9, "access": "rwm"},
        ]))
        .unwrap();
        let good = "c 1:3 rwm\nc 1:3 r\nc 136:* rw\nc 136:5 w\n";
        assert_eq!(foreign(&rules, good), Vec::<String>::new());
        for line in
            ["a *:* rwm", "c *:* m", "b *:* m", "b 1:3 r", "c 1:5 r", "c 136:* rwm", "c 9:9 r", "c 10:200 rwm", "x"]
        {
            assert_eq!(foreign(&rules, line), [line]);
        }
    }
}
