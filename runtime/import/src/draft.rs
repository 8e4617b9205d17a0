//! What is gathered while a file is read, and the policy that it becomes.
use boltseal_policy::{Policy, pattern, text};
use boltseal_trust::Key;
use std::collections::{BTreeMap, BTreeSet};

/// A boltseal policy that says the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// `policy.toml`, the notes as comments above it.
    pub policy: String,
    /// Files of `trust/`: name and PEM.
    pub keys: Vec<(String, String)>,
    /// What was lost.
    pub notes: Vec<Note>,
    pub scopes: usize,
}

/// One thing that the policy does not say as the file did.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    pub kind: Kind,
    /// Where it stands in the file.
    pub what: String,
    pub why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Nothing starts by it.
    LeftOut,
    /// The policy asks for less here.
    NotDemanded,
    /// The policy is stricter, or the difference changes no verdict of boltseal's.
    Differs,
}

impl Kind {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LeftOut => "left out",
            Self::NotDemanded => "not demanded",
            Self::Differs => "differs",
        }
    }
}

/// Whose signatures a repository needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Demand {
    pub(crate) repository: String,
    /// Ids of keys.
    pub(crate) keys: BTreeSet<String>,
    pub(crate) need: usize,
    /// Where it stands.
    pub(crate) what: String,
}

/// Most scopes, so that the work is bounded.
const MAX_DEMANDS: usize = 256;
/// As the policy has it.
const MAX_NEED: usize = 8;

#[derive(Debug)]
pub(crate) struct Draft {
    source: &'static str,
    /// Every demand on an image must hold, not the one with the longest prefix alone.
    all_hold: bool,
    demands: Vec<Demand>,
    /// (prefix, where): demands that cannot be kept.
    lost: Vec<(String, String)>,
    /// By id: name and PEM.
    keys: BTreeMap<String, (String, String)>,
    notes: BTreeSet<Note>,
    full: bool,
    sound: fn(&Key) -> bool,
}

impl Draft {
    pub(crate) fn new(source: &'static str, all_hold: bool, sound: fn(&Key) -> bool) -> Self {
        let (demands, lost) = (Vec::new(), Vec::new());
        Self { source, all_hold, demands, lost, keys: BTreeMap::new(), notes: BTreeSet::new(), full: false, sound }
    }

    pub(crate) fn note(&mut self, kind: Kind, what: &str, why: impl Into<String>) {
        self.notes.insert(Note { kind, what: text::show(what), why: text::shorten(&text::escape(&why.into()), 300) });
    }

    /// A demand that cannot be kept: nothing below `prefix` may start by another one instead.
    pub(crate) fn lose(&mut self, prefix: &str, what: &str, why: impl Into<String>) {
        self.note(Kind::LeftOut, what, why);
        self.lost.push((prefix.to_owned(), what.to_owned()));
    }

    /// What the file refuses itself, so that nothing is lost; but it must not start by a scope above it.
    pub(crate) fn forbid(&mut self, prefix: &str, what: &str) {
        self.lost.push((prefix.to_owned(), what.to_owned()));
    }

    /// Takes a key in PEM and answers with its id.
    pub(crate) fn key(&mut self, hint: &str, pem: &str) -> Result<String, String> {
        let key = Key::from_spki_pem(pem).map_err(|e| e.to_string())?;
        if !(self.sound)(&key) {
            return Err("a point that is not on its curve".into());
        }
        let id = key.id().to_owned();
        if !self.keys.contains_key(&id) {
            let kept = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            let name: String = hint.chars().map(|c| if kept(&c) { c } else { '-' }).take(64).collect();
            let name = name.trim_matches(['-', '.']).to_owned();
            let short = id.get(..12).unwrap_or(&id);
            let taken = name.is_empty() || self.keys.values().any(|(other, _)| *other == name);
            let name = if taken { format!("key-{short}") } else { name };
            self.keys.insert(id.clone(), (name, pem.trim().to_owned() + "\n"));
        }
        Ok(id)
    }

    pub(crate) fn demand(&mut self, demand: Demand) {
        if !(1..=MAX_NEED).contains(&demand.need) || demand.need > demand.keys.len() {
            let why =
                format!("it asks for {} of {} keys; a scope needs 1 to {MAX_NEED}", demand.need, demand.keys.len());
            self.lose(&demand.repository, &demand.what, why);
        } else if self.demands.len() == MAX_DEMANDS {
            self.full = true;
        } else if !self.demands.iter().any(|d| same(d, &demand)) {
            self.demands.push(demand);
        }
    }

    /// Leaves out what would now be judged by less than the file asked for, until nothing more is.
    fn settle(&mut self) {
        let covers = |prefix: &str, repository: &str| prefix.is_empty() || pattern::covers(prefix, repository);
        loop {
            let all = &self.demands;
            let clash = all.iter().enumerate().find_map(|(at, demand)| {
                let lost = self.lost.iter().find(|(prefix, _)| {
                    pattern::covers(&demand.repository, prefix) || (self.all_hold && covers(prefix, &demand.repository))
                });
                if let Some((_, what)) = lost {
                    let why =
                        format!("{} cannot be kept, and its images would be judged by this instead", text::show(what));
                    return Some((at, why));
                }
                let other = all.iter().enumerate().find(|(other, d)| {
                    let nested = covers(&d.repository, &demand.repository) || covers(&demand.repository, &d.repository);
                    *other != at && if self.all_hold { nested } else { d.repository == demand.repository }
                });
                other.map(|(_, d)| {
                    (
                        at,
                        format!(
                            "{} is about the same images, and a scope cannot say that both must hold",
                            text::show(&d.what)
                        ),
                    )
                })
            });
            let Some((at, why)) = clash else { return };
            let demand = self.demands.remove(at);
            self.lose(&demand.repository, &demand.what, why);
        }
    }

    pub(crate) fn finish(mut self) -> Result<Imported, String> {
        if self.full {
            return Err(format!("more than {MAX_DEMANDS} scopes"));
        }
        self.settle();
        let mut repositories: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for demand in &self.demands {
            for key in &demand.keys {
                repositories.entry(key).or_default().insert(&demand.repository);
            }
        }
        let pinned = repositories.iter().filter(|(_, of)| of.len() > 1).map(|(key, _)| self.keys[*key].0.clone());
        let notes: Vec<Note> = pinned
            .map(|name| Note {
                kind: Kind::Differs,
                what: format!("key {name}"),
                why: "it signs for several repositories: signatures that name none (cosign 3) do not count".into(),
            })
            .collect();
        self.notes.extend(notes);
        let policy = self.text(&repositories);
        // Also what a reader of the policy would find: nothing is printed that lint refuses.
        Policy::parse(&policy, &[]).map_err(|problems| problems.join("; "))?;
        let used = |id: &String| repositories.contains_key(id.as_str());
        let keys = self.keys.iter().filter(|(id, _)| used(id));
        Ok(Imported {
            keys: keys.map(|(_, (name, pem))| (format!("{name}.pub"), pem.clone())).collect(),
            notes: self.notes.into_iter().collect(),
            scopes: self.demands.len(),
            policy,
        })
    }

    fn text(&self, repositories: &BTreeMap<&str, BTreeSet<&str>>) -> String {
        let mut out = format!("# Made by `boltseal policy import` of {}.\n", self.source);
        for note in &self.notes {
            out.push_str(&format!("# {}: {}: {}\n", note.kind.name(), note.what, note.why));
        }
        out.push_str("version = 1\n\n[registries]\n");
        let allowed: BTreeSet<&str> = self.demands.iter().map(|d| d.repository.as_str()).collect();
        out.push_str(&format!("allow = {}\n", texts(allowed)));
        for (key, of) in repositories {
            let name = &self.keys[*key].0;
            out.push_str(&format!(
                "\n[[authority]]\nname = {name:?}\nkey = \"{name}.pub\"\nrepositories = {}\n",
                texts(of.iter().copied())
            ));
        }
        for demand in &self.demands {
            let names = demand.keys.iter().map(|key| self.keys[key].0.as_str());
            out.push_str(&format!("\n# {}\n", text::show(&demand.what)));
            out.push_str(&format!("[[scope]]\nrepository = {:?}\nauthorities = {}\n", demand.repository, texts(names)));
            if demand.need > 1 {
                out.push_str(&format!("need = {}\n", demand.need));
            }
        }
        out
    }
}

fn same(a: &Demand, b: &Demand) -> bool {
    (&a.repository, &a.keys, a.need) == (&b.repository, &b.keys, b.need)
}

/// Names and repositories are ASCII without quotes and backslashes.
fn texts<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    format!("[{}]", items.into_iter().map(|item| format!("{item:?}")).collect::<Vec<_>>().join(", "))
}
