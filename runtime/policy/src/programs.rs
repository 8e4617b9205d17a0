//! The programs that a container may execute: what a scope's list means, and what a process may lead to. Names alone: what they
//! lead to in the image the launch finds out, and Landlock holds it.
use crate::facts::Process;
use crate::{pattern, text};
use std::collections::BTreeSet;

/// PATH where the environment has none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where nothing of the image lies: a list that leads there would lead out of it.
const OUTSIDE: [&str; 3] = ["/proc", "/sys", "/dev"];

/// One entry of a list: `/a/program`, `/a/folder/` with all below it, and either after a `-` when it may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    pub path: &'a str,
    pub folder: bool,
    pub optional: bool,
}

impl<'a> Entry<'a> {
    #[must_use]
    pub fn of(text: &'a str) -> Self {
        let path = text.strip_prefix('-').unwrap_or(text);
        Self { path, folder: path.ends_with('/'), optional: path != text }
    }

    /// `path`, which is normal, is this program or lies below this folder.
    fn covers(self, path: &str) -> bool {
        if self.folder { path.starts_with(self.path) } else { path == self.path }
    }
}

/// Whether the list names what this process may lead to. Of a name that is looked for in PATH, one of the places suffices:
/// which it is, and where it leads, only the launch sees.
#[must_use]
pub fn names(list: &[String], process: &Process) -> bool {
    let places = places(process);
    places.iter().any(|place| list.iter().any(|entry| Entry::of(entry).covers(place)))
}

/// Where execvp would look for the program, as normal paths; what is none is nowhere.
fn places(process: &Process) -> Vec<String> {
    let name = process.args.first().map_or("", String::as_str);
    let from = |folder: &str, name: &str| {
        let place = if folder.starts_with('/') {
            format!("{folder}/{name}")
        } else {
            format!("{}/{folder}/{name}", process.cwd)
        };
        pattern::normal(&place)
    };
    if name.is_empty() || name.ends_with('/') {
        Vec::new()
    } else if name.starts_with('/') {
        pattern::normal(name).into_iter().collect()
    } else if name.contains('/') {
        from("", name).into_iter().collect()
    } else {
        process.search.as_deref().unwrap_or(DEFAULT_PATH).split(':').filter_map(|folder| from(folder, name)).collect()
    }
}

/// What is wrong with a list; one line each.
#[must_use]
pub fn problems(list: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    let mut say = |why: String| out.push(format!("`programs`: {why}"));
    if list.is_empty() {
        say("empty; nothing could start".into());
    }
    let mut seen = BTreeSet::new();
    for entry in list.iter().map(|text| Entry::of(text)) {
        let shown = text::show(entry.path);
        let plain = if entry.folder { entry.path.strip_suffix('/').unwrap_or_default() } else { entry.path };
        if pattern::normal(plain).as_deref() != Some(plain) {
            say(format!(
                "\"{shown}\" must be an absolute path in the container without `..`, `.` or doubled slashes; a folder ends in one"
            ));
        } else if OUTSIDE.iter().any(|folder| pattern::within(plain, folder)) {
            say(format!("\"{shown}\" is not of the image"));
        } else if !seen.insert(plain) {
            say(format!("\"{shown}\" is named twice"));
        } else if list
            .iter()
            .map(|text| Entry::of(text))
            .any(|other| other.path != entry.path && other.covers(entry.path))
        {
            say(format!("\"{shown}\" lies in a folder that is listed"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(args: &[&str], cwd: &str, search: Option<&str>) -> Process {
        Process {
            args: args.iter().map(ToString::to_string).collect(),
            cwd: cwd.into(),
            search: search.map(str::to_owned),
            ..Process::default()
        }
    }

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn entries() {
        let entry = |path, folder, optional| Entry { path, folder, optional };
        assert_eq!(Entry::of("/bin/a"), entry("/bin/a", false, false));
        assert_eq!(Entry::of("-/bin/a"), entry("/bin/a", false, true));
        assert_eq!(Entry::of("/opt/"), entry("/opt/", true, false));
        assert_eq!(Entry::of("-/opt/"), entry("/opt/", true, true));
    }

    #[test]
    fn where_a_program_may_lie() {
        for (args, cwd, search, expected) in [
            (&["/bin/a", "/bin/b"][..], "/", None, &["/bin/a"][..]),
            (&["//bin//a"], "/", None, &["/bin/a"]),
            (&["/bin/../a"], "/", None, &[]),
            (&["/bin/a/"], "/", None, &[]),
            (&["./a"], "/srv", None, &[]),
            (&["x/a"], "/srv", Some("/bin"), &["/srv/x/a"]),
            (&["a"], "/srv", Some("/usr/bin:/bin"), &["/usr/bin/a", "/bin/a"]),
            (&["a"], "/srv", Some("/usr/../bin:/bin"), &["/bin/a"]),
            (&["a"], "/srv", Some(":rel:/bin/"), &["/srv/a", "/srv/rel/a", "/bin/a"]),
            (&["a"], "/srv", Some(""), &["/srv/a"]),
            (
                &["a"],
                "/srv",
                None,
                &["/usr/local/sbin/a", "/usr/local/bin/a", "/usr/sbin/a", "/usr/bin/a", "/sbin/a", "/bin/a"],
            ),
            (&[""], "/srv", Some("/bin"), &[]),
            (&[], "/srv", Some("/bin"), &[]),
        ] {
            assert_eq!(places(&process(args, cwd, search)), expected, "{args:?} {cwd} {search:?}");
        }
    }

    #[test]
    fn what_a_list_names() {
        let list = strings(&["/usr/sbin/nginx", "-/opt/java/", "/srv/x/a"]);
        for (program, cwd, search, expected) in [
            ("/usr/sbin/nginx", "/", None, true),
            ("/usr/sbin/nginx2", "/", None, false),
            ("/usr/sbin", "/", None, false),
            ("/opt/java/17/bin/java", "/", None, true),
            ("/opt/java", "/", None, false),
            ("/opt/javax/java", "/", None, false),
            ("/opt/java/../bin/sh", "/", None, false),
            ("x/a", "/srv", None, true),
            ("x/a", "/", None, false),
            ("nginx", "/", None, true),
            ("nginx", "/", Some("/bin"), false),
            ("java", "/opt/java", Some(""), true),
            ("", "/", None, false),
        ] {
            assert_eq!(names(&list, &process(&[program], cwd, search)), expected, "{program} {cwd} {search:?}");
        }
        assert!(!names(&[], &process(&["/bin/a"], "/", None)));
    }

    #[test]
    fn what_is_wrong_with_a_list() {
        for good in
            [&["/bin/a", "/bin/b", "-/lib64/ld-linux-x86-64.so.2", "/opt/java/", "/procfs/a", "/devel"][..], &["/a"]]
        {
            assert_eq!(problems(&strings(good)), Vec::<String>::new());
        }
        for (bad, expected) in [
            (&[][..], "empty; nothing could start"),
            (&["bin/a"], "\"bin/a\" must be an absolute path"),
            (&["/bin/../a"], "must be an absolute path"),
            (&["/bin//a"], "must be an absolute path"),
            (&["/opt//"], "must be an absolute path"),
            (&["/opt/./"], "must be an absolute path"),
            (&["--/a"], "must be an absolute path"),
            (&["/"], "\"/\" must be an absolute path"),
            (&["-/"], "must be an absolute path"),
            (&[""], "must be an absolute path"),
            (&["-"], "must be an absolute path"),
            (&["/proc/self/exe"], "\"/proc/self/exe\" is not of the image"),
            (&["/sys/"], "is not of the image"),
            (&["-/dev/shm/"], "is not of the image"),
            (&["/a", "/a"], "\"/a\" is named twice"),
            (&["/a", "-/a"], "is named twice"),
            (&["/a", "/a/"], "is named twice"),
            (&["/a/", "/a/b"], "\"/a/b\" lies in a folder that is listed"),
            (&["/a/b/", "-/a/"], "\"/a/b/\" lies in a folder"),
        ] {
            let found = problems(&strings(bad));
            assert!(found.len() == 1 && found[0].contains(expected), "{bad:?}: {found:?}");
            assert!(found[0].starts_with("`programs`: "), "{found:?}");
        }
    }
}
