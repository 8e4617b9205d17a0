//! A mount of the spec, read as libcontainer reads it.
use super::{list, maps};
use boltseal_policy::facts::{Fact, IdMaps, Mount};
use oci_spec::runtime as oci;

pub(super) fn mount_facts(index: usize, mount: &oci::Mount) -> Mount {
    let options = list(mount.options()).to_vec();
    let typ = mount.typ().clone().unwrap_or_default();
    // As libcontainer decides it: either the type or an option makes a bind.
    let bind = typ == "bind" || options.iter().any(|o| o == "bind" || o == "rbind");
    let kind = if bind { "bind".to_owned() } else { typ };
    let unknown_options = options.iter().filter(|o| !is_known_option(&kind, o)).cloned().collect();
    let propagation = options.iter().rev().find(|o| is_propagation(o)).cloned();
    Mount {
        idmap: idmap(mount, &options),
        index,
        destination: mount.destination().to_string_lossy().into_owned(),
        source: mount.source().as_ref().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default(),
        writable: is_writable(&options),
        unknown_options,
        propagation,
        options,
        object: if bind { Fact::Unknown("the source was not resolved".into()) } else { Fact::Absent },
        kind,
    }
}

/// Mappings of its own, or the option that takes the container's (config.md, "Mounts").
fn idmap(mount: &oci::Mount, options: &[String]) -> Option<IdMaps> {
    let ids = maps(mount.uid_mappings(), mount.gid_mappings());
    (!ids.is_empty() || options.iter().any(|o| is_idmap(o))).then_some(ids)
}

fn is_idmap(option: &str) -> bool {
    matches!(option, "idmap" | "ridmap")
}

/// `ro` and `rw` take effect in their order; `rro` seals what is below too, `rrw` opens it.
fn is_writable(options: &[String]) -> bool {
    let last = |a: &str, b: &str| options.iter().rev().find(|o| *o == a || *o == b).map(String::as_str);
    match (last("ro", "rw"), last("rro", "rrw")) {
        (_, Some("rrw")) => true,
        (_, Some(_)) | (Some("ro"), None) => false,
        (_, None) => true,
    }
}

fn is_propagation(option: &str) -> bool {
    let plain = option.strip_prefix('r').filter(|rest| is_one_propagation(rest));
    plain.is_some() || is_one_propagation(option)
}

fn is_one_propagation(option: &str) -> bool {
    matches!(option, "private" | "shared" | "slave" | "unbindable")
}

/// Options that libcontainer or the launch applies, without those that change what is mounted (`remount`, `mand`).
fn is_known_option(kind: &str, option: &str) -> bool {
    const FLAGS: &[&str] = &[
        "defaults",
        "ro",
        "rw",
        "suid",
        "nosuid",
        "dev",
        "nodev",
        "exec",
        "noexec",
        "sync",
        "async",
        "dirsync",
        "atime",
        "noatime",
        "diratime",
        "nodiratime",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
        "rro",
        "rrw",
        "rnosuid",
        "rsuid",
        "rnodev",
        "rdev",
        "rnoexec",
        "rexec",
        "rnodiratime",
        "rdiratime",
        "rrelatime",
        "rnorelatime",
        "rnoatime",
        "ratime",
        "rstrictatime",
        "rnostrictatime",
    ];
    if FLAGS.contains(&option) || is_propagation(option) {
        return true;
    }
    let data = option.split_once('=');
    // The kernel takes options apart at commas.
    let plain = |value: &str| !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'%');
    if data.is_some_and(|(_, value)| !plain(value)) {
        return false;
    }
    match (kind, data) {
        ("bind", None) => matches!(option, "bind" | "rbind") || is_idmap(option),
        ("tmpfs", Some((name, _))) => matches!(name, "size" | "mode" | "uid" | "gid" | "nr_inodes" | "nr_blocks"),
        ("devpts", Some((name, _))) => matches!(name, "ptmxmode" | "mode" | "uid" | "gid" | "max"),
        ("devpts", None) => option == "newinstance",
        ("proc", Some((name, _))) => matches!(name, "hidepid" | "subset"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::facts;
    use super::*;

    #[test]
    fn mounts_as_libcontainer_reads_them() {
        let f = facts(
            r#""args":[]|"linux":{},"mounts":[
            {"destination":"/a","type":"overlay","source":"/etc","options":["rbind","rshared","ro","rw","nosymfollow"]},
            {"destination":"/b","type":"tmpfs","source":"t","options":["nosuid","size=1k","rro","lowerdir=/etc"]},
            {"destination":"/c","type":"bind","source":"/x","options":["rw","rro","context=x"]}]"#,
        );
        assert_eq!((f.mounts[0].kind.as_str(), f.mounts[0].writable), ("bind", true));
        assert_eq!(f.mounts[0].propagation.as_deref(), Some("rshared"));
        assert_eq!(f.mounts[0].unknown_options, ["nosymfollow"]);
        assert!(matches!(f.mounts[0].object, Fact::Unknown(_)));
        assert_eq!((f.mounts[1].kind.as_str(), f.mounts[1].writable), ("tmpfs", false));
        assert_eq!(f.mounts[1].unknown_options, ["lowerdir=/etc"]);
        assert_eq!(f.mounts[1].object, Fact::Absent);
        assert_eq!((f.mounts[2].writable, f.mounts[2].unknown_options.len()), (false, 1));
    }

    #[test]
    fn mappings_of_a_mount() {
        let of = |mount: &str| {
            let f =
                facts(&format!(r#""args":[]|"linux":{{}},"mounts":[{{"destination":"/a","source":"/x",{mount}}}]"#));
            assert!(f.foreign_fields.is_empty());
            (f.mounts[0].idmap.clone(), f.mounts[0].unknown_options.len())
        };
        let map = r#"[{"containerID":0,"hostID":131072,"size":65536}]"#;
        let listed = IdMaps { uids: vec![(0, 131_072, 65_536)], gids: vec![(0, 131_072, 65_536)] };
        let both = format!(r#""uidMappings":{map},"gidMappings":{map}"#);
        assert_eq!(of(r#""type":"bind""#), (None, 0));
        assert_eq!(of(&format!(r#""type":"bind",{both}"#)), (Some(listed.clone()), 0));
        let half = IdMaps { gids: vec![], ..listed.clone() };
        assert_eq!(of(&format!(r#""type":"bind","uidMappings":{map}"#)), (Some(half), 0));
        for option in ["idmap", "ridmap"] {
            assert_eq!(of(&format!(r#""type":"bind","options":["{option}"]"#)), (Some(IdMaps::default()), 0));
            assert_eq!(of(&format!(r#""type":"tmpfs","options":["{option}"]"#)), (Some(IdMaps::default()), 1));
        }
        assert_eq!(of(&format!(r#""type":"tmpfs",{both}"#)), (Some(listed), 0));
    }

    /// A comma would bring other options with it, past every check of them.
    #[test]
    fn one_option_is_one_option() {
        for (kind, option) in [
            ("tmpfs", "size=0,nr_inodes=1"),
            ("tmpfs", "mode=755,context=x"),
            ("tmpfs", "size="),
            ("tmpfs", "size=1k\\n"),
            ("devpts", "gid=5,mode=0666"),
            ("proc", "hidepid=2,gid=0"),
        ] {
            let f = facts(&format!(
                r#""args":[]|"linux":{{}},"mounts":[{{"destination":"/a","type":"{kind}","source":"t","options":["{option}"]}}]"#
            ));
            assert_eq!(f.mounts[0].unknown_options.len(), 1, "{option}");
        }
    }

    #[test]
    fn the_last_word_counts_and_the_recursive_one_over_it() {
        for (options, writable) in [
            (&[][..], true),
            (&["ro"], false),
            (&["rw"], true),
            (&["ro", "rw"], true),
            (&["rw", "ro"], false),
            (&["rro"], false),
            (&["rrw"], true),
            (&["ro", "rrw"], true),
            (&["rro", "rw"], false),
            (&["rw", "rro"], false),
            (&["rro", "rrw"], true),
            (&["rrw", "rro"], false),
            (&["ro", "rro"], false),
        ] {
            let options: Vec<String> = options.iter().map(ToString::to_string).collect();
            assert_eq!(is_writable(&options), writable, "{options:?}");
        }
    }

    #[test]
    fn propagation_is_one_of_eight_words() {
        for how in ["private", "shared", "slave", "unbindable"] {
            assert!(is_propagation(how) && is_propagation(&format!("r{how}")), "{how}");
            assert!(!is_propagation(&format!("rr{how}")) && !is_propagation(&format!("{how}=1")), "{how}");
        }
        for other in ["", "r", "ro", "rw", "bind", "rbind"] {
            assert!(!is_propagation(other), "{other}");
        }
    }

    #[test]
    fn each_kind_has_its_own_options() {
        let known = [
            ("bind", "bind"),
            ("bind", "rbind"),
            ("tmpfs", "size=50%"),
            ("tmpfs", "mode=1777"),
            ("tmpfs", "uid=0"),
            ("tmpfs", "gid=0"),
            ("tmpfs", "nr_inodes=1k"),
            ("tmpfs", "nr_blocks=1"),
            ("devpts", "newinstance"),
            ("devpts", "ptmxmode=0666"),
            ("devpts", "mode=0620"),
            ("devpts", "uid=0"),
            ("devpts", "gid=5"),
            ("devpts", "max=7"),
            ("proc", "hidepid=2"),
            ("proc", "subset=pid"),
        ];
        for (kind, option) in known {
            assert!(is_known_option(kind, option), "{kind} {option}");
            assert!(!is_known_option("sysfs", option) && !is_known_option("", option), "{option}");
        }
        for (kind, option) in [
            ("tmpfs", "bind"),
            ("tmpfs", "newinstance"),
            ("tmpfs", "ptmxmode=0666"),
            ("tmpfs", "hidepid=2"),
            ("devpts", "rbind"),
            ("devpts", "size=1m"),
            ("devpts", "subset=pid"),
            ("proc", "mode=0"),
            ("proc", "newinstance"),
            ("bind", "size=1m"),
            ("bind", "mode=0"),
        ] {
            assert!(!is_known_option(kind, option), "{kind} {option}");
        }
        for option in ["ro", "nosuid", "rnoexec", "rslave", "private", "defaults"] {
            assert!(is_known_option("sysfs", option), "{option}");
        }
        for option in ["remount", "idmap", "mand", "nosymfollow", "size", "", "=", "size=", "mode=0\n", "ro=1"] {
            assert!(!is_known_option("tmpfs", option), "{option}");
        }
    }
}
