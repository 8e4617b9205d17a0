//! BS-PRC-009: what runs is what was signed: program, arguments, environment, working folder and user of the image's config.
//!
//! A value of the environment and an argument may be a secret: findings name variables, places and lengths, never them.
//! `covered` is where a difference is granted: by an allowance, or by an owner's grant that BS-OWN-001 found to hold.
use super::own_001_owner::granted_container;
use super::{Ctx, Identity, PROCESSES, Rule, TIMEOUT_ROW, UNKNOWN_ROW};
use crate::facts::{Door, Fact, GrantedContainer, Image, Variable};
use crate::policy::{Allowance, Level};
use crate::verdict::Finding;
use crate::{pattern, text};
use std::collections::{BTreeMap, BTreeSet};

pub(super) static RULE: Rule = Rule {
    id: "BS-PRC-009",
    title: "What runs is what was signed: command, environment, folder, user",
    nist: "4.4.4, 4.1.5",
    from: Level::Strict,
    misfit: "deny",
    doors: PROCESSES,
    reads: "image.{args,entrypoint,env,cwd,user,signatures}, process.{args,env,cwd,uid,gid}, owner_grant, allowance args, env, cwd, users",
    predicate: "the arguments are the signed config's Entrypoint and Cmd, the working folder its WorkingDir, user and group its User, \
        each variable of the environment one of its Env with the same value; or an allowance or the owner's grant covers the difference. What kubelet and \
        containerd put in themselves is known by name and form. A variable from which loaders and interpreters take code (LD_PRELOAD, \
        JAVA_TOOL_OPTIONS, NODE_OPTIONS, PYTHONPATH, BASH_ENV ...) is the config's, with the same value, whatever an allowance or a grant says; \
        of an exec, whose command is its own, this alone is asked. A pod's sandbox runs as the pod's user.",
    fix: "set it in the image and sign that, or grant it by an [[allowance]]",
    conditions: &[
        (LOADER, "a variable that makes programs load code is not the signed config's with that value"),
        (UNVERIFIED, "such a variable, and what the signed config says is not known"),
        ("command", "another program than the signed Entrypoint (Kubernetes: command)"),
        ("args", "the signed Entrypoint with other arguments than the signed Cmd (Kubernetes: args)"),
        ("env", "variables beside the signed ones, with other values, or missing"),
        ("cwd", "another working folder"),
        ("user", "another user or group"),
        (
            "user-name",
            "the config names its user without numbers of user and group, which only the image's passwd explains",
        ),
        ("unsigned", "nobody's signature on the config counts"),
        UNKNOWN_ROW,
        TIMEOUT_ROW,
    ],
    cves: &["CVE-2025-23266 (LD_PRELOAD of a pod in a hook of the node)"],
    check,
};

/// Conditions that are enforced before the rule as a whole is.
pub(super) const EARLIER: &[(&str, Level)] = &[(LOADER, Level::Baseline), (UNVERIFIED, Level::Baseline)];
const LOADER: &str = "loader";
const UNVERIFIED: &str = "unverified";

fn check(ctx: &Ctx<'_>) -> Vec<Finding> {
    let signed = ctx.facts.image.is().map(environment).unwrap_or_default();
    let mut out: Vec<Finding> = loaders(ctx, &signed).into_iter().collect();
    let passes = if ctx.facts.door == Door::Create {
        out.extend(config(ctx, &signed));
        "as the signed config says"
    } else {
        "no variable that makes programs load code, but the signed config's"
    };
    if out.is_empty() {
        out.push(RULE.pass(passes));
    }
    out
}

/// What the image's config sets; of a name that stands there twice the last counts, as in containerd.
fn environment(image: &Image) -> BTreeMap<String, Variable> {
    image.env.iter().map(|entry| Variable::of(entry)).map(|v| (v.name.clone(), v)).collect()
}

type Signed = BTreeMap<String, Variable>;

fn is_signed(signed: &Signed, variable: &Variable) -> bool {
    signed.get(&variable.name) == Some(variable)
}

fn loaders(ctx: &Ctx<'_>, signed: &Signed) -> Option<Finding> {
    let env = &ctx.facts.process.env;
    let names: BTreeSet<&str> =
        env.iter().filter(|v| v.is_loader() && !is_signed(signed, v)).map(|v| v.name.as_str()).collect();
    let names = (!names.is_empty()).then(|| text::list(names))?;
    let fix = "take it away, or set it in the image (ENV) and sign that";
    Some(match ctx.facts.image {
        Fact::Is(_) => RULE.deny_fix(LOADER, format!("{names} can load code, and no signed config sets it so"), fix),
        Fact::Absent | Fact::Unknown(_) => {
            RULE.deny_fix(UNVERIFIED, format!("{names} can load code, and what the config sets is not known"), fix)
        }
    })
}

fn config(ctx: &Ctx<'_>, signed: &Signed) -> Vec<Finding> {
    let image = match &ctx.facts.image {
        Fact::Is(image) => image,
        Fact::Absent => return vec![RULE.unknown_fix("the image's config", "no image", START)],
        Fact::Unknown(why) => return vec![RULE.unknown_fix("the image's config", why, START)],
    };
    if matches!(ctx.identity, Identity::None(_)) {
        return vec![RULE.deny_fix("unsigned", "nobody's signature on the image's config counts", "see BS-IMG-001")];
    }
    let mut out: Vec<Finding> =
        [command(ctx, image), folder(ctx, image), user(ctx, image)].into_iter().flatten().collect();
    out.extend(variables(ctx, signed));
    out
}

const START: &str = "start it from an image: see BS-IMG-001";

/// What covers a difference: the id of an allowance, or of the owner's grant.
fn covered(
    ctx: &Ctx<'_>,
    allows: impl Fn(&Allowance) -> bool,
    grants: impl Fn(&GrantedContainer) -> bool,
) -> Option<String> {
    ctx.allowed(allows).map(|allowance| allowance.id.clone()).or_else(|| {
        let (grant, _) = granted_container(ctx).filter(|(_, container)| grants(container))?;
        Some(format!("grant {}", grant.id))
    })
}

fn settle(condition: &str, fact: String, by: Option<String>) -> Finding {
    match by {
        Some(by) => RULE.allowed_by(&by, condition, fact),
        None => RULE.deny(condition, fact),
    }
}

/// Kubernetes: `command` stands for Entrypoint and drops Cmd, `args` stands for Cmd.
fn command(ctx: &Ctx<'_>, image: &Image) -> Option<Finding> {
    // containerd takes a single empty word for no Entrypoint.
    let (whole, entrypoint) = match image.entrypoint.as_slice() {
        [empty] if empty.is_empty() => (image.args.get(1..).unwrap_or_default(), &[][..]),
        entrypoint => (image.args.as_slice(), entrypoint),
    };
    let args = ctx.facts.process.args.as_slice();
    // That nothing is to run was signed by nobody.
    if args == whole && !args.is_empty() {
        return None;
    }
    let same = args.iter().zip(whole).take_while(|(ours, signed)| ours == signed).count();
    let (condition, what) = if !entrypoint.is_empty() && args.starts_with(entrypoint) {
        ("args", "other arguments than the signed ones")
    } else {
        ("command", "another command than the signed one")
    };
    let fact = format!("{what}, from argument {same} on");
    let by = covered(
        ctx,
        |a| a.args.iter().any(|granted| is_command(granted, args)),
        |container| is_granted(container, entrypoint, whole, args),
    );
    Some(settle(condition, fact, by))
}

/// Kubernetes' way, with the grant's words in the place of the manifest's; of a word None is any.
fn is_granted(container: &GrantedContainer, entrypoint: &[String], whole: &[String], args: &[String]) -> bool {
    // Absent and empty are the same to CRI.
    let given = |words: &Option<Vec<Option<String>>>| words.clone().filter(|words| !words.is_empty());
    let signed = |words: &[String]| words.iter().cloned().map(Some).collect::<Vec<_>>();
    let expected = match (given(&container.command), given(&container.args)) {
        (Some(command), more) => [command, more.unwrap_or_default()].concat(),
        (None, Some(more)) => [signed(entrypoint), more].concat(),
        (None, None) => signed(whole),
    };
    let same = |(word, arg): (&Option<String>, &String)| word.as_ref().is_none_or(|word| word == arg);
    !args.is_empty() && expected.len() == args.len() && expected.iter().zip(args).all(same)
}

/// One pattern per argument; [`MORE`] at the end stands for any number of them.
fn is_command(granted: &[String], args: &[String]) -> bool {
    let (patterns, more) = match granted.split_last() {
        Some((last, patterns)) if last == MORE => (patterns, true),
        _ => (granted, false),
    };
    let enough = if more { args.len() >= patterns.len() } else { args.len() == patterns.len() };
    enough && patterns.iter().zip(args).all(|(pattern, arg)| pattern::matches(pattern, arg))
}

/// The last word of a granted command that any arguments may follow.
pub(crate) const MORE: &str = "...";

fn folder(ctx: &Ctx<'_>, image: &Image) -> Option<Finding> {
    let (ours, signed) = (&ctx.facts.process.cwd, if image.cwd.is_empty() { "/" } else { &image.cwd });
    let plain = pattern::normal(ours);
    if plain.is_some() && plain == pattern::normal(signed) {
        return None;
    }
    let fact = format!("works in {}, not in the signed {}", text::show(ours), text::show(signed));
    let grants =
        |a: &Allowance| plain.as_ref().is_some_and(|p| a.cwd.iter().any(|granted| pattern::matches(granted, p)));
    let of_grant =
        |c: &GrantedContainer| plain.is_some() && c.cwd.as_deref().map(pattern::normal) == Some(plain.clone());
    Some(settle("cwd", fact, covered(ctx, grants, of_grant)))
}

fn user(ctx: &Ctx<'_>, image: &Image) -> Option<Finding> {
    let (subject, process) = (&ctx.facts.subject, &ctx.facts.process);
    // kubelet gives it the pod's own, and it runs nothing of the pod's.
    if subject.is_pod && subject.sandbox_id == subject.id {
        return None;
    }
    let ours = format!("{}:{}", process.uid, process.gid);
    let (condition, fact) = match ids(&image.user) {
        Some(signed) if signed == (process.uid, process.gid) => return None,
        Some((uid, gid)) => ("user", format!("runs as {ours}, not as the signed {uid}:{gid}")),
        None => {
            let shown = text::show(&image.user);
            ("user-name", format!("runs as {ours}; the signed user is \"{shown}\", without both numbers"))
        }
    };
    let by = covered(
        ctx,
        |a| a.users.iter().any(|granted| pattern::matches(granted, &ours)),
        |container| container.user.as_deref() == Some(ours.as_str()),
    );
    let mut finding = settle(condition, fact, by);
    if condition == "user-name" && !finding.fix.is_empty() {
        finding.fix = "name USER as uid:gid in the image, or grant users by an [[allowance]]".into();
    }
    Some(finding)
}

/// `uid:gid`; nothing at all is root.
fn ids(user: &str) -> Option<(u32, u32)> {
    if user.is_empty() {
        return Some((0, 0));
    }
    let (uid, gid) = user.split_once(':')?;
    Some((number(uid)?, number(gid)?))
}

fn number(text: &str) -> Option<u32> {
    text.parse::<u32>().ok().filter(|n| n.to_string() == text)
}

/// One finding for what nobody grants, and one for each allowance that grants something.
fn variables(ctx: &Ctx<'_>, signed: &Signed) -> Vec<Finding> {
    let env = &ctx.facts.process.env;
    let known =
        |v: &Variable| v.is_loader() || is_signed(signed, v) || !signed.contains_key(&v.name) && v.is_injected();
    let here: BTreeSet<&str> = env.iter().map(|v| v.name.as_str()).collect();
    let others = env.iter().filter(|v| !known(v)).map(|v| v.name.as_str());
    let missing = signed.keys().map(String::as_str).filter(|name| !here.contains(name));
    let mut by: BTreeMap<Option<String>, BTreeSet<&str>> = BTreeMap::new();
    for name in others.chain(missing) {
        let by_whom = covered(
            ctx,
            |a| a.env.iter().any(|granted| pattern::matches(granted, name)),
            |container| here.contains(name) && container.env.contains(name),
        );
        by.entry(by_whom).or_default().insert(name);
    }
    let finding = |(by, names): (Option<String>, BTreeSet<&str>)| {
        settle("env", format!("not as the signed config has it: {}", text::list(names)), by)
    };
    by.into_iter().map(finding).collect()
}

#[cfg(test)]
mod grants;
#[cfg(test)]
mod tests;
