//! The boots, as a table: what is changed against the enrolled node, and what must come of it.
use crate::job::{Leap, What};
use stack::cases::SHOWN;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lsm {
    AppArmor,
    SeLinux,
}

impl Lsm {
    pub(crate) const ALL: [Self; 2] = [Self::AppArmor, Self::SeLinux];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AppArmor => "apparmor",
            Self::SeLinux => "selinux",
        }
    }

    /// Part of the label that a container's processes must have.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::AppArmor => "boltseal-default (enforce)",
            Self::SeLinux => ":boltseal_t:",
        }
    }

    pub(crate) fn cmdline(self) -> String {
        // Permissive until the node has loaded its policy and says enforce.
        let more = if self == Self::SeLinux { " enforcing=0" } else { "" };
        format!("console=ttyS0 panic=-1 quiet lsm=landlock,lockdown,yama,integrity,{},bpf{more}", self.name())
    }
}

/// The one thing that differs from the good boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Nothing,
    Cmdline,
    Kernel,
    Initrd,
    SecureBootOff,
    Kexec,
}

/// What must come of the container start.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expect {
    Trusted,
    /// Denied by these rules and no other; part of what they say.
    Refused {
        rules: &'static [&'static str],
        says: &'static str,
    },
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) lsm: Lsm,
    pub(crate) change: Change,
    pub(crate) expect: Expect,
    pub(crate) more: More,
}

/// What runs in the VM beside the one start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum More {
    Nothing,
    /// The tests' main job.
    Life,
    /// The main job, the refusals that the demo shows, user namespaces, and tampering with the node's disk.
    Demo,
    /// A sealed image, and what is changed below it.
    Sealed,
    /// Layers with digests of the node's own, and what is changed below them.
    Levels,
}

/// What the label changes of a user namespace, whose exec is a join of our own: that it works, and that it refuses.
const USERS: [&str; 2] = ["user-namespace", "exec as an id of the node"];

impl More {
    pub(crate) fn what(self) -> What {
        let words = |more: &[&str]| ["2.1", "life"].iter().chain(more).map(|&word| word.to_owned()).collect();
        match self {
            Self::Nothing => What::Start,
            Self::Sealed => What::Sealed,
            Self::Levels => What::Levels,
            Self::Life => What::Job { words: words(&[]), tamper: false },
            Self::Demo => What::Job { words: words(&[&USERS[..], &SHOWN[..]].concat()), tamper: true },
        }
    }
}

impl Plan {
    /// With the command line that was measured only the cap tells the second one from the kernel that was booted.
    pub(crate) fn kexec(&self) -> Vec<Leap> {
        if self.change != Change::Kexec {
            return Vec::new();
        }
        let cmdline = self.lsm.cmdline();
        vec![Leap { cmdline: format!("{cmdline} init=/bin/sh"), padding: 0 }, Leap { cmdline, padding: 512 }]
    }
}

const ATTESTED: &str = "BS-NOD-001";
pub(crate) const BUNDLE: &str = "BS-NOD-004";

const fn refused(name: &'static str, change: Change, says: &'static str) -> Plan {
    let expect = Expect::Refused { rules: &[ATTESTED], says };
    Plan { name, lsm: Lsm::AppArmor, change, expect, more: More::Nothing }
}

/// After kexec the measured PCR is the old kernel's, and the note of it is gone: that denies beside the cap.
pub(crate) const AFTER_KEXEC: [&str; 2] = [ATTESTED, BUNDLE];

pub(crate) const PLANS: [Plan; 9] = [
    Plan {
        name: "apparmor good",
        lsm: Lsm::AppArmor,
        change: Change::Nothing,
        expect: Expect::Trusted,
        more: More::Demo,
    },
    Plan {
        name: "selinux good",
        lsm: Lsm::SeLinux,
        change: Change::Nothing,
        expect: Expect::Trusted,
        more: More::Life,
    },
    Plan {
        name: "sealed image",
        lsm: Lsm::AppArmor,
        change: Change::Nothing,
        expect: Expect::Trusted,
        more: More::Sealed,
    },
    Plan {
        name: "local digests",
        lsm: Lsm::AppArmor,
        change: Change::Nothing,
        expect: Expect::Trusted,
        more: More::Levels,
    },
    refused("cmdline changed", Change::Cmdline, "PCR 9 is"),
    refused("kernel changed", Change::Kernel, "PCR 4 is"),
    refused("initrd changed", Change::Initrd, "PCR 9 is"),
    refused("secure boot off", Change::SecureBootOff, "PCR 7 is"),
    Plan {
        name: "kexec",
        lsm: Lsm::AppArmor,
        change: Change::Kexec,
        // The same command line and another initrd: nothing but the cap says so.
        expect: Expect::Refused { rules: &AFTER_KEXEC, says: "PCR 14 (node.cap)" },
        more: More::Nothing,
    },
];
