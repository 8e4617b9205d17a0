//! What goes wrong beside the answer: warnings of our own crates, to stderr, which the shim hands to containerd's log. An answer
//! is never waiting for it, and what libcontainer has to say stays out: its errors reach us as values.
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// The shim reads after the gate has ended: what is written must fit into a pipe.
const MAX_LINES: usize = 16;
const MAX_LINE: usize = 240;

struct Stderr {
    /// A forked child's stderr is the container's.
    pid: u32,
    written: AtomicUsize,
}

/// From here on warnings are written.
pub(crate) fn start() -> anyhow::Result<()> {
    let stderr = Stderr { pid: std::process::id(), written: AtomicUsize::new(0) };
    tracing::subscriber::set_global_default(stderr).map_err(Into::into)
}

/// One line to stderr.
pub(crate) fn spill(line: &str) {
    if writeln!(std::io::stderr(), "{line}").is_err() {
        // There is nowhere left to say it.
    }
}

/// As much of the message as a line may hold, without what would begin another.
fn line(message: &str) -> String {
    message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_LINE).collect()
}

impl Subscriber for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN && metadata.target().starts_with("boltseal")
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::WARN)
    }

    fn event(&self, event: &Event<'_>) {
        if std::process::id() != self.pid || self.written.fetch_add(1, Ordering::Relaxed) >= MAX_LINES {
            return;
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        spill(&line(&message.0));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" && write!(self.0, "{value:?}").is_err() {
            // A String takes everything.
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stays_one_bounded_line() {
        assert_eq!(line("a\nb\u{1b}[2J"), "a b [2J");
        assert_eq!(line(&"x".repeat(1000)).len(), MAX_LINE);
    }

    #[test]
    fn only_warnings_of_our_own_count() {
        tracing::subscriber::with_default(Stderr { pid: std::process::id(), written: AtomicUsize::new(0) }, || {
            assert!(tracing::enabled!(target: "boltseal_launch::create", Level::WARN));
            assert!(!tracing::enabled!(target: "boltseal_launch::create", Level::INFO));
            assert!(!tracing::enabled!(target: "libcontainer::process", Level::ERROR));
        });
    }
}
