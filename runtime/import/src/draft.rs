//! What is gathered while a file is read, and the policy that it becomes.
use crate::keyless::Keyless;
use boltseal_policy::{Policy, pattern, text};
use boltseal_trust::Key;
use std::collections::{BTreeMap, BTreeSet};

/// A boltseal policy that says the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// `policy.toml`, the notes as comments above it.
    pub policy: String,
    /// Files of `trust/`: name and text, a PEM key or a trusted root.
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
    /// Ids of keys, and of whom a CA certifies.
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
    /// By id: the name.
    keys: BTreeMap<String, (String, Signer)>,
    notes: BTreeSet<Note>,
    full: bool,
    sound: fn(&Key) -> bool,
    /// What the operator gave.
    root: Option<String>,
}

#[derive(Debug)]
enum Signer {
    /// PEM.
    Key(String),
    Keyless(Keyless),
}

impl Draft {
    pub(crate) fn new(source: &'static str, all_hold: bool, sound: fn(&Key) -> bool, root: Option<String>) -> Self {
        let (demands, lost, keys, notes) = (Vec::new(), Vec::new(), BTreeMap::new(), BTreeSet::new());
        Self { source, all_hold, demands, lost, keys, notes, full: false, sound, root }
    }

    /// The trusted root that came beside the file, for those whose CA and logs it only names.
    pub(crate) fn root(&self) -> Result<String, String> {
        self.root.clone().ok_or_else(|| "its CA and logs are not in this file: name them with --trusted-root".into())
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
        self.insert(&id, hint, Signer::Key(pem.trim().to_owned() + "\n"));
        Ok(id)
    }

    /// Takes whom a CA certifies and answers with an id.
    pub(crate) fn keyless(&mut self, hint: &str, at: &str, keyless: Keyless) -> Result<String, String> {
        keyless.check()?;
        let id = keyless.id();
        self.insert(&id, hint, Signer::Keyless(keyless));
        let why = "keyless: bundles of cosign 3 alone count, and it takes a build with FEATURES=keyless";
        self.note(Kind::Differs, at, why);
        Ok(id)
    }

    fn insert(&mut self, id: &str, hint: &str, signer: Signer) {
        if !self.keys.contains_key(id) {
            let kept = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            let name: String = hint.chars().map(|c| if kept(&c) { c } else { '-' }).take(64).collect();
            let name = name.trim_matches(['-', '.']).to_owned();
            let short = id.get(..12).unwrap_or(id);
            let taken = name.is_empty() || self.keys.values().any(|(other, _)| *other == name);
            let kind = if matches!(signer, Signer::Key(_)) { "key" } else { "keyless" };
            let name = if taken { format!("{kind}-{short}") } else { name };
            self.keys.insert(id.to_owned(), (name, signer));
        }
    }

    /// How many these are where several must sign.
    fn count(&self, ids: &BTreeSet<String>) -> usize {
        let as_one = |id: &String| match self.keys.get(id) {
            Some((_, Signer::Keyless(keyless))) => keyless.counts_as(),
            _ => id.clone(),
        };
        ids.iter().map(as_one).collect::<BTreeSet<_>>().len()
    }

    pub(crate) fn demand(&mut self, demand: Demand) {
        let count = self.count(&demand.keys);
        if !(1..=MAX_NEED).contains(&demand.need) || demand.need > count {
            let why = format!("it asks for {} of {count} keys; a scope needs 1 to {MAX_NEED}", demand.need);
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
        let several = repositories.iter().filter(|(_, of)| of.len() > 1).map(|(key, _)| &self.keys[*key]);
        let pinned = several.filter(|(_, signer)| matches!(signer, Signer::Key(_))).map(|(name, _)| name.clone());
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
            keys: keys.map(|(_, (name, signer))| (signer.file(name), signer.text().to_owned())).collect(),
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
        let names = self.names(repositories);
        for (key, of) in repositories {
            let (name, signer) = &self.keys[*key];
            let file = signer.file(name);
            match signer {
                Signer::Key(_) => out.push_str(&format!(
                    "\n[[authority]]\nname = {name:?}\nkey = {file:?}\nrepositories = {}\n",
                    texts(of.iter().copied())
                )),
                // A bundle names no repository: an authority for each.
                Signer::Keyless(keyless) => {
                    for repository in of {
                        out.push_str(&keyless.authority(&names[&(*key, *repository)], &file, repository));
                    }
                }
            }
        }
        for demand in &self.demands {
            let of = demand.repository.as_str();
            let names = demand.keys.iter().map(|key| names[&(key.as_str(), of)].as_str());
            out.push_str(&format!("\n# {}\n", text::show(&demand.what)));
            out.push_str(&format!("[[scope]]\nrepository = {:?}\nauthorities = {}\n", demand.repository, texts(names)));
            if demand.need > 1 {
                out.push_str(&format!("need = {}\n", demand.need));
            }
        }
        out
    }

    /// What each signer is called for each of its repositories: a key the same for all of them.
    fn names<'a>(&self, repositories: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeMap<(&'a str, &'a str), String> {
        let mut taken: BTreeSet<String> = self.keys.values().map(|(name, _)| name.clone()).collect();
        let mut names = BTreeMap::new();
        for (key, of) in repositories {
            let (own, signer) = &self.keys[*key];
            for (at, repository) in of.iter().enumerate() {
                let mut name = own.clone();
                if at > 0 && matches!(signer, Signer::Keyless(_)) {
                    let free = |n: &usize| !taken.contains(&format!("{own}-{n}"));
                    name = format!("{own}-{}", (2..).find(free).unwrap_or_default());
                    taken.insert(name.clone());
                }
                names.insert((*key, *repository), name);
            }
        }
        names
    }
}

impl Signer {
    fn file(&self, name: &str) -> String {
        format!("{name}.{}", if matches!(self, Self::Key(_)) { "pub" } else { "json" })
    }

    fn text(&self) -> &str {
        match self {
            Self::Key(pem) => pem,
            Self::Keyless(keyless) => &keyless.root,
        }
    }
}

fn same(a: &Demand, b: &Demand) -> bool {
    (&a.repository, &a.keys, a.need) == (&b.repository, &b.keys, b.need)
}

/// Names and repositories are ASCII without quotes and backslashes.
fn texts<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    format!("[{}]", items.into_iter().map(|item| format!("{item:?}")).collect::<Vec<_>>().join(", "))
}
