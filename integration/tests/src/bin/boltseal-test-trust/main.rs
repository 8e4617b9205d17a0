//! Every signature format, each with what must be accepted and what must be refused: by boltseal, and by the tool that
//! made it where that can be had. Vectors are made in the run by cosign 2.5, cosign 3.1, notation 1.3 and openssl. Keyless ones, which take
//! programs of another build, also at a start by a real containerd.
//!
//! Each refused case names the accepted one that differs in the fault alone. Where the tool's verdict is another than
//! ours, a case says why, and one that says nothing is a failure.
mod cosign;
mod fetched;
mod grants;
mod keyless;
mod notation;
mod ours;
mod starts;

use anyhow::{Result, ensure};
use stack::fulcio::Fulcio;
use stack::image::{Image, Recipe, build};
use stack::{private, registry};
use std::path::Path;
use std::process::ExitCode;

/// One row of the table.
struct Case {
    format: &'static str,
    name: &'static str,
    accept: bool,
    /// Why not, where it was refused.
    ours: Result<(), String>,
    /// The tool's verdict, with its last words where it refused; None: it was not asked.
    tool: Option<Result<(), String>>,
    /// Why tool and boltseal differ, or why the tool was not asked.
    note: &'static str,
}

/// What is signed.
struct Given<'a> {
    work: &'a Path,
    app: Image,
    other: Image,
}

fn main() -> ExitCode {
    private::machine(work)
}

fn work(scratch: &Path) -> Result<()> {
    // `starts` alone, for a shorter wait while developing.
    let mut cases = if std::env::args().nth(1).as_deref() == Some("starts") { Vec::new() } else { vectors(scratch)? };
    cases.extend(starts::cases(scratch)?);
    report(&cases)
}

fn vectors(scratch: &Path) -> Result<Vec<Case>> {
    let _registry = registry::start(scratch)?;
    let image = |name: &str| {
        let recipe = Recipe { release: name.into(), ..Recipe::default() };
        build(scratch, registry::ADDRESS, &format!("demo/{name}"), "1", &recipe)
    };
    let given = Given { work: scratch, app: image("app")?, other: image("other")? };
    let mut cases = cosign::cases(&given)?;
    let fulcio = Fulcio::start(scratch)?;
    cases.extend(keyless::cases(&given, &fulcio)?);
    cases.extend(notation::cases(&given, &fulcio)?);
    cases.extend(grants::cases()?);
    Ok(cases)
}

fn report(cases: &[Case]) -> Result<()> {
    let verdict = |accepted: bool| if accepted { "accepted" } else { "refused" };
    let mut bad = 0;
    println!("{:<22} {:<46} {:<9} {:<9} {:<9} note", "format", "case", "intended", "boltseal", "tool");
    for case in cases {
        let ours = case.ours.is_ok();
        let theirs = case.tool.as_ref().map(Result::is_ok);
        let tool = theirs.map_or("not run", verdict);
        println!(
            "{:<22} {:<46} {:<9} {:<9} {:<9} {}",
            case.format,
            case.name,
            verdict(case.accept),
            verdict(ours),
            tool,
            case.note
        );
        if let Err(why) = &case.ours {
            println!("{:<22}   {why}", "");
        }
        if let (true, Some(Err(said))) = (ours, &case.tool) {
            println!("{:<22}   the tool: {said}", "");
        }
        let explained = !case.note.is_empty() || theirs == Some(ours);
        if ours != case.accept || !explained {
            println!("{:<22}   NOT AS INTENDED", "");
            bad += 1;
        }
    }
    ensure!(bad == 0, "{bad} of {} cases are not as intended", cases.len());
    let accepted = cases.iter().filter(|case| case.accept).count();
    println!("trust: {accepted} accepted as intended, {} refused as intended", cases.len() - accepted);
    Ok(())
}
