//! One row of the table: an attack, how its success shows, and the control in which it does succeed.
use crate::site::{Site, Who};
use anyhow::{Result, bail};
use serde_json::Value;
use stack::client::Request;
use stack::process::Daemon;
use std::rc::Rc;

/// What is asked of a runtime: a container, and processes that are then run in it.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) request: Request,
    pub(crate) execs: Vec<Value>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The runtime's own words.
    Refused(String),
    /// Exit code of init; all that it and the exec'd processes said.
    Ran { code: u32, output: String },
}

impl Seen {
    pub(crate) fn output(&self) -> &str {
        match self {
            Self::Refused(_) => "",
            Self::Ran { output, .. } => output,
        }
    }

    /// The exploit's own last word.
    pub(crate) fn word(&self, begins: &str) -> Option<&str> {
        self.output().lines().rev().find_map(|line| line.strip_prefix(begins))
    }
}

pub(crate) type Bend = Rc<dyn Fn(&mut Site, &mut Ask) -> Result<()>>;
pub(crate) type Check = Rc<dyn Fn(&mut Site, Who, &Seen) -> Result<bool>>;
pub(crate) type Proof = Rc<dyn Fn(&mut Site) -> Result<bool>>;

/// Where the same exploit meets no protection.
#[derive(Clone)]
pub(crate) enum Control {
    /// The same program and words outside any container, as root.
    Bare,
    /// What an unprotected runtime does, by the test's own hand.
    Done(Proof),
    /// runc takes no measure against it: its own row of this run is the control.
    Runc,
    /// There is none here, and so the row does not count as tried.
    None(&'static str),
}

#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) ids: &'static str,
    pub(crate) mechanism: &'static str,
    pub(crate) test: &'static str,
    pub(crate) image: &'static str,
    /// The image of the twin.
    pub(crate) good_image: &'static str,
    pub(crate) args: Vec<String>,
    pub(crate) fault: Bend,
    /// Makes the twin: what the fault and the right request have in common.
    pub(crate) common: Bend,
    pub(crate) escaped: Check,
    pub(crate) control: Control,
    /// Why it is not run on a peer; empty: it is.
    pub(crate) not_on: fn(Who) -> &'static str,
    pub(crate) rounds: u32,
    /// Somebody who changes things at the same time.
    pub(crate) rival: Option<fn(&Site) -> Result<Daemon>>,
}

/// The last word of an exploit decides.
fn said_so(_: &mut Site, _: Who, seen: &Seen) -> Result<bool> {
    if seen.word("ESCAPED ").is_some() {
        return Ok(true);
    }
    match seen {
        Seen::Refused(_) => Ok(false),
        Seen::Ran { code: 42, .. } => Ok(true),
        // Killed by the filter, or by a call that this machine does not have.
        Seen::Ran { code, .. } if *code >= 128 => Ok(false),
        Seen::Ran { .. } if seen.word("held: ").is_some() => Ok(false),
        Seen::Ran { code, output } => bail!("the exploit gave no result (exit code {code}): {output}"),
    }
}

impl Row {
    fn new(ids: &'static str, mechanism: &'static str, test: &'static str) -> Self {
        Self {
            ids,
            mechanism,
            test,
            image: "app",
            good_image: "app",
            args: vec!["/bin/true".into()],
            fault: Rc::new(|_, _| Ok(())),
            common: Rc::new(|_, _| Ok(())),
            escaped: Rc::new(said_so),
            control: Control::Bare,
            not_on: |_| "",
            rounds: 1,
            rival: None,
        }
    }

    /// An exploit that runs in a container that nobody has anything against.
    pub(crate) fn inside(ids: &'static str, mechanism: &'static str, test: &'static str, words: &[&str]) -> Self {
        Self::new(ids, mechanism, test).exploit(words)
    }

    /// A request that is an attack itself.
    pub(crate) fn request(
        ids: &'static str,
        mechanism: &'static str,
        test: &'static str,
        fault: impl Fn(&mut Site, &mut Ask) -> Result<()> + 'static,
    ) -> Self {
        Self { fault: Rc::new(fault), ..Self::new(ids, mechanism, test) }
    }

    pub(crate) fn exploit(self, words: &[&str]) -> Self {
        let args = std::iter::once("/bin/exploit").chain(words.iter().copied()).map(str::to_owned).collect();
        Self { args, ..self }
    }
    pub(crate) fn args(self, args: &[&str]) -> Self {
        Self { args: args.iter().map(|word| (*word).to_owned()).collect(), ..self }
    }
    pub(crate) fn image(self, image: &'static str, good_image: &'static str) -> Self {
        Self { image, good_image, ..self }
    }
    pub(crate) fn common(self, common: impl Fn(&mut Site, &mut Ask) -> Result<()> + 'static) -> Self {
        Self { common: Rc::new(common), ..self }
    }
    pub(crate) fn escaped(self, escaped: impl Fn(&mut Site, Who, &Seen) -> Result<bool> + 'static) -> Self {
        Self { escaped: Rc::new(escaped), ..self }
    }
    pub(crate) fn control(self, proof: impl Fn(&mut Site) -> Result<bool> + 'static) -> Self {
        Self { control: Control::Done(Rc::new(proof)), ..self }
    }
    pub(crate) fn on_runc(self) -> Self {
        Self { control: Control::Runc, ..self }
    }
    pub(crate) fn no_control(self, why: &'static str) -> Self {
        Self { control: Control::None(why), ..self }
    }
    pub(crate) fn not_on(self, why: fn(Who) -> &'static str) -> Self {
        Self { not_on: why, ..self }
    }
    /// Asked so often; which time it is, the site says.
    pub(crate) fn rounds(self, rounds: u32) -> Self {
        Self { rounds, ..self }
    }
    pub(crate) fn race(self, rounds: u32, rival: fn(&Site) -> Result<Daemon>) -> Self {
        Self { rounds, rival: Some(rival), ..self }
    }
}
