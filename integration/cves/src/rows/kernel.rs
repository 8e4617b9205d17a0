//! Kernel surface: each row is the first call of an exploit, made by root of the container.
use super::push;
use crate::row::Row;
use serde_json::{Value, json};

pub(super) fn rows() -> Vec<Row> {
    let surface = |ids, mechanism, word| Row::inside(ids, mechanism, word, &[word]);
    vec![
        surface("CVE-2022-0185", "the mount API in a new user namespace", "fsopen"),
        surface("CVE-2023-0386", "an overlay mounted in a new user namespace", "overlay"),
        surface("CVE-2022-25636, CVE-2023-32233", "a new user namespace", "userns"),
        surface("CVE-2024-1086", "netlink to nf_tables", "nftables"),
        surface("CVE-2017-7308, CVE-2020-14386", "a packet socket", "packet"),
        surface("CVE-2025-21756", "a vsock socket", "vsock"),
        surface("CVE-2026-31431 (Copy Fail)", "AF_ALG", "alg"),
        surface("CVE-2026-31431 (Copy Fail)", "AF_ALG by the 32-bit table (int 0x80)", "alg32"),
        surface("CVE-2023-2598, CVE-2024-0582", "io_uring", "io_uring"),
        surface("CVE-2021-22555 class", "userfaultfd", "userfaultfd"),
        surface("CVE-2016-0728", "a keyring that knows no namespace", "keyring"),
        surface("CVE-2021-3490, CVE-2021-31440", "bpf", "bpf"),
        surface("CVE-2013-2094, CVE-2023-6931", "perf_event_open", "perf"),
        surface("Shocker", "open_by_handle_at", "handle"),
        surface("modules", "init_module", "module"),
        surface("CVE-2019-13272 class", "ptrace of another process", "ptrace-init"),
        Row::inside(
            "CVE-2022-0847 (Dirty Pipe)",
            "a pipe's page written into a file",
            "dirty-pipe",
            &["dirty-pipe", "/etc/release"],
        )
        .control(|site| Ok(site.bare(&["dirty-pipe", crate::site::SECRET])?.word("ESCAPED ").is_some())),
        // The kernel's files: opened for writing, never written.
        file("core_pattern", "the spec leaves the read-only paths out", &["/proc/sys/kernel/core_pattern"], |spec| {
            spec["linux"]["readonlyPaths"] = Value::Null;
        }),
        file("sysrq", "the spec leaves the read-only paths out", &["/proc/sysrq-trigger"], |spec| {
            spec["linux"]["readonlyPaths"] = Value::Null;
        }),
        file(
            "uevent_helper",
            "sysfs mounted writable",
            &["/sys/kernel/uevent_helper", "/sys/kernel/mm/ksm/run"],
            |spec| {
                if let Some(mounts) = spec["mounts"].as_array_mut() {
                    mounts.retain(|mount| mount["destination"] != "/sys");
                }
                push(
                    &mut spec["mounts"],
                    json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [] }),
                );
            },
        ),
        masked(),
        sysctl(),
    ]
}

fn file(name: &'static str, mechanism: &'static str, paths: &[&str], bend: fn(&mut Value)) -> Row {
    let mut words = vec!["open-write"];
    words.extend(paths);
    Row::request(name, mechanism, name, move |_, ask| {
        bend(&mut ask.request.spec);
        Ok(())
    })
    .exploit(&words)
}

fn masked() -> Row {
    Row::request("masked paths", "the spec leaves the masked paths out", "masked-paths", |_, ask| {
        ask.request.spec["linux"]["maskedPaths"] = Value::Null;
        Ok(())
    })
    .exploit(&["proc-file", "/proc/keys", "/proc/timer_list", "/proc/kcore"])
}

/// A sysctl of the whole node, to the value that it has: the success is that such a start is to be had at all.
fn sysctl() -> Row {
    const NAME: &str = "/proc/sys/vm/overcommit_ratio";
    Row::request("CVE-2022-0811 (cr8escape)", "a sysctl of the node in the spec", "sysctl", |_, ask| {
        ask.request.spec["linux"]["sysctl"] = json!({ "vm.overcommit_ratio": std::fs::read_to_string(NAME)?.trim() });
        Ok(())
    })
    .escaped(|_, _, seen| Ok(matches!(seen, crate::row::Seen::Ran { code: 0, .. })))
    .control(|_| Ok(std::fs::write(NAME, std::fs::read(NAME)?).is_ok()))
}
