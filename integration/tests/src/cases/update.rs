//! New limits that would lift the old ones.
use super::Case;
use serde_json::{Value, json};

pub(super) fn cases() -> Vec<Case> {
    let update = |name, says, bad: fn() -> Value, good: fn() -> Value| {
        Case::new(name, "BS-PRC-006", says, |_, _| Ok(())).update(bad, good)
    };
    vec![
        update(
            "an update that lifts the memory limit",
            "memory.limit",
            || json!({ "memory": { "limit": -1 } }),
            || json!({ "memory": { "limit": 67_108_864 } }),
        ),
        update(
            "an update to a limit that limits nothing",
            "limits nothing",
            || json!({ "memory": { "limit": i64::MAX } }),
            || json!({ "memory": { "limit": 67_108_864 } }),
        ),
        update(
            "an update that lifts the swap limit",
            "memory.swap",
            || json!({ "memory": { "swap": -1 } }),
            || json!({ "memory": { "limit": 67_108_864 } }),
        ),
        update(
            "an update that lifts the pids limit",
            "pids.limit",
            || json!({ "pids": { "limit": -1 } }),
            || json!({ "pids": { "limit": 32 } }),
        ),
    ]
}
