//! `boltseal`: what an operator looks with. Nothing here is needed for a start, and nothing here loosens one.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests"))]

mod args;
mod audit;
mod check;
mod doctor;
mod explain;
mod grant;
mod image;
mod install;
mod node;
mod paths;
mod policy;
mod policy_apply;
mod policy_files;
mod policy_import;
mod policy_measured;
mod policy_sign;
mod profile;
mod profile_learn;
mod screen;
mod seal;
mod sig;

use args::{Args, AuditCommand, Command, ImageCommand, PolicyCommand, ProfileCommand, SigCommand};
use clap::Parser;
use screen::{Exit, Failure, Screen};
use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Usage errors leave here with code 2, help and version with 0.
    let args = Args::parse();
    let mut screen = Screen::new(args.output);
    let exit = run(&args.command, &mut screen).unwrap_or_else(|failure| report(&failure));
    ExitCode::from(exit as u8)
}

fn run(command: &Command, screen: &mut Screen) -> Result<Exit, Failure> {
    match command {
        Command::Check { bundle, policy } => check::check(bundle, policy.as_deref(), screen),
        Command::Explain { rule } => explain::explain(rule.as_deref(), screen),
        Command::Image(ImageCommand::Inspect { name, address, namespace, snapshotter }) => {
            image::inspect(name, &image::Place { address, namespace, snapshotter }, screen)
        }
        Command::Sig(SigCommand::Import { path }) => sig::import(path, screen),
        Command::Sig(SigCommand::List) => sig::list(screen),
        Command::Sig(SigCommand::Gc { grace, address, dry_run }) => sig::gc(address, grace, *dry_run, screen),
        Command::Image(ImageCommand::Seal { layout, key, predicate, image }) => {
            let by = match (key, predicate) {
                (_, Some(folder)) => seal::Signer::Predicate(folder),
                (key, None) => seal::Signer::Key(key.as_deref().unwrap_or(std::path::Path::new(""))),
            };
            seal::seal(layout, by, image.as_deref(), screen)
        }
        Command::Grant(command) => grant::run(command, screen),
        Command::Node(command) => node::run(command, screen),
        Command::Policy(PolicyCommand::Lint { dir }) => policy::lint(dir.as_deref(), screen),
        Command::Policy(PolicyCommand::Sign { dir, key, public, signature, number }) => {
            let by = match (key, public, signature) {
                (_, Some(public), None) => policy_sign::By::Elsewhere(public),
                (_, Some(public), Some(made)) => policy_sign::By::Signature(public, made),
                (key, None, _) => policy_sign::By::Private(key.as_deref().unwrap_or(std::path::Path::new(""))),
            };
            policy_sign::sign(dir, by, *number, screen)
        }
        Command::Policy(PolicyCommand::Import { file, write, trusted_root }) => {
            policy_import::import(file, write.as_deref(), trusted_root.as_deref(), screen)
        }
        Command::Policy(PolicyCommand::Trust { key, tpm, no_floor, replace }) => {
            policy_sign::trust(key, tpm.as_deref(), !no_floor, *replace, screen)
        }
        Command::Policy(PolicyCommand::Apply { dir, anyway, dry_run }) => {
            policy_apply::apply(dir, *anyway, *dry_run, screen)
        }
        Command::Audit(AuditCommand::List(filters)) => audit::list(filters, screen),
        Command::Audit(AuditCommand::Verify { head }) => audit::verify(head.as_deref(), screen),
        Command::Profile(ProfileCommand::Lint { file }) => profile::lint(file, screen),
        Command::Profile(ProfileCommand::Diff { old, new }) => profile::diff(old, new, screen),
        Command::Profile(ProfileCommand::Learn { socket, profile }) => {
            profile_learn::learn(socket, profile.as_deref(), screen)
        }
        Command::Install => install::install(screen),
        Command::Doctor => doctor::doctor(screen),
        Command::Version => version(screen),
    }
}

fn version(screen: &mut Screen) -> Result<Exit, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if screen.json() {
        screen.document(&serde_json::json!({ "version": version }))?;
    } else {
        screen.line(&format!("boltseal {version}"))?;
    }
    Ok(Exit::Ok)
}

/// A reader that went away (`| head`) is no failure worth words.
fn report(failure: &Failure) -> Exit {
    if failure.io != Some(io::ErrorKind::BrokenPipe) {
        screen::talk(&failure.text);
    }
    failure.exit
}
