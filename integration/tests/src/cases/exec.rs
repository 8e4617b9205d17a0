//! An exec that asks for more than its container has.
use super::Case;
use serde_json::{Value, json};

pub(super) fn cases() -> Vec<Case> {
    let exec = |name, rule, says, bend: fn(&mut Value)| Case::new(name, rule, says, |_, _| Ok(())).exec(bend);
    vec![
        exec("exec with a capability that its container has not", "BS-PRC-002", "CAP_SYS_ADMIN", |process| {
            for set in ["bounding", "effective", "permitted"] {
                process["capabilities"][set] = json!(["CAP_SYS_ADMIN"]);
            }
        }),
        exec("exec as root of the node", "BS-PRC-003", "0", |process| {
            process["user"] = json!({ "uid": 0, "gid": 0 });
        }),
        exec("exec unconfined", "BS-MAC-001", "unconfined", |process| {
            process["apparmorProfile"] = json!("unconfined");
        }),
        exec("exec with a field that nobody knows", "BS-PRC-008", "frobnicate", |process| {
            process["frobnicate"] = json!(1);
        }),
    ]
}
