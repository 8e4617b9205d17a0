//! The figures on screen and in `target/bench.json`.
use crate::measure::{Cost, Memory};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;

pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.len() % 2, sorted.get(middle.wrapping_sub(1)), sorted.get(middle)) {
        (0, Some(below), Some(above)) => f64::midpoint(*below, *above),
        (_, _, Some(value)) => *value,
        _ => f64::NAN,
    }
}

/// A row of the first table: its name and how to read it from one run.
type Row = (&'static str, fn(&Cost) -> f64);

const ROWS: [Row; 7] = [
    ("create, ms", |cost| cost.create),
    ("start, ms", |cost| cost.start),
    ("wait, ms", |cost| cost.wait),
    ("delete, ms", |cost| cost.delete),
    ("wall, ms", Cost::wall),
    ("CPU, ms", |cost| cost.cpu),
    ("of which containerd, ms", |cost| cost.containerd),
];

pub(crate) fn report(
    boltseal: &[Cost],
    runc: &[Cost],
    ours: &Memory,
    theirs: &Memory,
    gate: &[f64],
    confinement: &[[f64; 4]],
    others: [(&str, Value); 2],
) -> Result<()> {
    println!(
        "medians of {} runs each, interleaved; boltseal with all gates on, runc with containerd-shim-runc-v2",
        boltseal.len()
    );
    println!("{:<26}{:>12}{:>12}{:>9}{:>9}", "", "boltseal", "runc", "ratio", "target");
    let mut rows = serde_json::Map::new();
    for (name, read) in ROWS {
        let (left, right) = (median(boltseal.iter().map(read)), median(runc.iter().map(read)));
        let target = match name {
            "wall, ms" => Some(0.5),
            "CPU, ms" => Some(0.35),
            _ => None,
        };
        println!(
            "{name:<26}{left:>12.1}{right:>12.1}{:>9.2}{:>9}",
            left / right,
            target.map(|t| t.to_string()).unwrap_or_default()
        );
        rows.insert(name.into(), json!({ "boltseal": left, "runc": right, "ratio": left / right, "target": target }));
    }
    println!("\n{:<26}{:>12}{:>12}{:>18}", "one shim, one container", "boltseal", "runc", "target");
    let sizes: [(&str, u64, u64, &str); 6] = [
        ("RSS, KiB", ours.rss, theirs.rss, "2560"),
        ("private dirty, KiB", ours.private_dirty, theirs.private_dirty, "1228"),
        ("private with clean, KiB", ours.private, theirs.private, ""),
        ("starter, RSS, KiB", ours.starter.0, theirs.starter.0, ""),
        ("both, private dirty, KiB", ours.private_dirty + ours.starter.1, theirs.private_dirty, "1228"),
        ("threads", ours.threads, theirs.threads, "1"),
    ];
    for (name, left, right, target) in sizes {
        println!("{name:<26}{left:>12}{right:>12}{target:>18}");
        rows.insert(name.into(), json!({ "boltseal": left, "runc": right, "target": target.parse::<u64>().ok() }));
    }
    let own = median(gate.iter().copied());
    println!("{:<26}{own:>12.1}{:>12}{:>18}", "the gate's own CPU, ms", "", "10");
    rows.insert("gate CPU, ms".into(), json!({ "boltseal": own, "target": 10.0, "runs": gate }));
    let of = |read: fn(&[f64; 4]) -> f64| median(confinement.iter().map(read));
    let [seal, inside, outside, image] = [of(|c| c[0]), of(|c| c[1]), of(|c| c[2]), of(|c| c[3])];
    println!("{:<26}{image:>12.0}{:>12}{:>18}", "image and owner, us", "", "6000");
    rows.insert("image and owner, us".into(), json!({ "boltseal": image, "target": 6000.0 }));
    let all = of(|c| c[0] + c[1] + c[2]);
    println!("{:<26}{all:>12.0}{:>12}{:>18}", "sealing, inspections, us", "", "2000");
    println!("{:<26}{seal:>12.0}{:>12}", "  sealing", "");
    println!("{:<26}{inside:>12.0}{:>12}", "  from inside", "");
    println!("{:<26}{outside:>12.0}{:>12}", "  from outside", "");
    rows.insert(
        "sealing and inspections, us".into(),
        json!({ "boltseal": all, "target": 2000.0, "seal": seal, "inside": inside, "outside": outside }),
    );
    rows.extend(others.map(|(name, value)| (name.to_owned(), value)));
    write(Value::Object(rows), boltseal, runc)
}

fn write(medians: Value, boltseal: &[Cost], runc: &[Cost]) -> Result<()> {
    let runs = |costs: &[Cost]| -> Vec<Value> {
        costs
            .iter()
            .map(|cost| {
                json!({ "create": cost.create, "start": cost.start, "wait": cost.wait, "delete": cost.delete,
                        "cpu": cost.cpu, "containerd": cost.containerd })
            })
            .collect()
    };
    let file = stack::private::project().join("target/bench.json");
    let document = json!({ "medians": medians, "runs": { "boltseal": runs(boltseal), "runc": runs(runc) } });
    fs::write(&file, serde_json::to_vec_pretty(&document)?).with_context(|| file.display().to_string())?;
    println!("{}", file.display());
    Ok(())
}
