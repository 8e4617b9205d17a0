//! The columns side by side, on screen or as JSON.
use crate::control::Control;
use crate::runtimes::{NAMES, Run};
use anyhow::Result;
use probe::{Report, columns};
use serde_json::{Map, Value, json};

pub(crate) fn print(control: &Control, runs: &[Run], misses: &[String]) {
    for run in runs {
        println!("{:<10}{}", run.name, run.how);
    }
    header("");
    let kinds: Vec<&str> = columns(&Report::default()).into_iter().map(|(name, _)| name).collect();
    for (at, name) in kinds.into_iter().enumerate() {
        row(name, "", runs, |report| columns(report).get(at).map(|(_, count)| count.to_string()).unwrap_or_default());
    }
    row("seccomp filters", "", runs, |report| report.process.seccomp_filters.to_string());
    row("no_new_privs", "", runs, |report| word(report.process.no_new_privs));
    row("label", "", runs, |report| match report.process.label.as_str() {
        "" => "none".into(),
        label => label.to_owned(),
    });
    header("\nescape primitive, and whether it succeeds as root in no container");
    for primitive in &control.primitives {
        let open = |report: &Report| report.primitives.iter().any(|other| other.name == primitive.name && other.open);
        row(&primitive.name, if primitive.open { "open" } else { "not here" }, runs, |report| {
            if open(report) { "OPEN".into() } else { "-".into() }
        });
    }
    details(runs);
    for miss in misses {
        println!("MISS  {miss}");
    }
}

fn word(yes: bool) -> String {
    if yes { "yes".into() } else { "no".into() }
}

fn header(title: &str) {
    println!("{title}");
    print!("{:<36}{:>10}", "", "");
    for name in NAMES {
        print!("{name:>10}");
    }
    println!();
}

fn row(name: &str, control: &str, runs: &[Run], value: impl Fn(&Report) -> String) {
    print!("{name:<36}{control:>10}");
    for run in runs {
        match &run.report {
            Ok(report) => print!("{:>10}", value(report)),
            Err(_) => print!("{:>10}", "no run"),
        }
    }
    println!();
}

/// What the small counts are of.
fn details(runs: &[Run]) {
    println!();
    for run in runs {
        let Ok(report) = &run.report else { continue };
        let list = |name: &str, items: &[String]| {
            if !items.is_empty() {
                println!("{:<10}{name}: {}", run.name, items.join(" "));
            }
        };
        list("host namespaces", &report.process.host_namespaces);
        list("writable", &report.paths.writable);
        list("executable", &report.paths.executable);
        list("writable and executable", &report.paths.both);
        list("devices", &report.devices);
        list("kernel files", &report.kernel_files);
    }
}

pub(crate) fn json(control: &Control, runs: &[Run], misses: &[String]) -> Result<()> {
    let mut all = Map::new();
    for run in runs {
        let value = match &run.report {
            Ok(report) => {
                let counted: Map<String, Value> =
                    columns(report).into_iter().map(|(name, count)| (name.into(), count.into())).collect();
                json!({ "how": run.how, "columns": counted, "report": report })
            }
            Err(why) => json!({ "how": run.how, "error": why }),
        };
        all.insert(run.name.into(), value);
    }
    let control = json!({ "primitives": control.primitives, "calls": control.calls });
    let document = json!({ "runtimes": all, "control": control, "misses": misses });
    println!("{}", serde_json::to_string_pretty(&document)?);
    Ok(())
}
