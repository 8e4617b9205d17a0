//! Enrolment by two parties, over three boots of a TPM that has never been used: the node asks, its maker's certificate is
//! checked here and the key approved, the node proves it, the policy is written and signed, the node puts it in force. What is
//! on its disk then, and in its TPM, is the node of every boot after that. Kept until something that is measured, or a
//! program of ours, changes.
use crate::author::{Maker, Pair, boltseal};
use crate::boot::{self, Given};
use crate::boots;
use crate::build::Built;
use crate::job::{Boot, Job, MADE, What, file, version};
use crate::plan::Lsm;
use crate::{cache, sealed, uki, vm};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use stack::image::sha256;
use stack::policy::{NODE_KEY, Policy};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// PCRs that the policy names: firmware, loader and kernel, Secure Boot, command line and initrd.
pub(crate) const MEASURED: [u32; 5] = [0, 2, 4, 7, 9];
const CAP: i64 = 14;

/// A node that an operator has enrolled.
#[derive(Debug)]
pub(crate) struct Enrolled {
    /// Facts of the good boots.
    good: BTreeMap<String, Boot>,
    folder: PathBuf,
}

impl Enrolled {
    pub(crate) fn good(&self, lsm: Lsm) -> Result<&Boot> {
        self.good.get(lsm.name()).with_context(|| format!("{} was not enrolled", lsm.name()))
    }

    /// The firmware's event log of that boot.
    pub(crate) fn log(&self, lsm: Lsm) -> PathBuf {
        self.folder.join(format!("{}.log", lsm.name()))
    }

    /// State of its TPM.
    pub(crate) fn tpm(&self) -> PathBuf {
        self.folder.join("tpm")
    }

    /// The key for anchors.
    pub(crate) fn bound(&self) -> PathBuf {
        self.folder.join(file::BOUND)
    }

    /// What the main job signs its changes of the policy with.
    pub(crate) fn author(&self) -> (PathBuf, &'static str) {
        (self.folder.join(file::AUTHOR_KEY), file::AUTHOR_KEY)
    }

    /// Its disk, the signed policies, and the approval of that state.
    pub(crate) fn given(&self, lsm: Lsm) -> Given {
        let at = |name: &str| self.folder.join(name);
        vec![
            (at(file::ETC), file::ETC),
            (at(file::LIB), file::LIB),
            (at(file::POLICIES), file::POLICIES),
            (at(file::AUTHORITY), file::AUTHORITY),
            (approved(&self.folder, lsm), file::APPROVED),
        ]
    }
}

fn approved(folder: &Path, lsm: Lsm) -> PathBuf {
    folder.join(format!("{}.approved.json", lsm.name()))
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    key: String,
    good: BTreeMap<String, Boot>,
}

pub(crate) fn enrolled(built: &Built) -> Result<Enrolled> {
    let folder = cache().join("enrolled");
    let key = key(built)?;
    let note = folder.join("kept.json");
    let kept = fs::read(&note).ok().and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
    let good = match kept {
        Some(kept) if kept.key == key => kept.good,
        _ => {
            if folder.exists() {
                fs::remove_dir_all(&folder)?;
            }
            fs::create_dir_all(&folder)?;
            let good = Enrolment { built, folder: &folder }.run()?;
            fs::write(&note, serde_json::to_vec_pretty(&Kept { key, good: good.clone() })?)?;
            good
        }
    };
    Ok(Enrolled { good, folder })
}

fn key(built: &Built) -> Result<String> {
    let mut all = vec![built.programs.clone(), sha256(&built.kernel), sha256(&built.initrd)];
    all.push(built.images.display().to_string());
    all.extend(Lsm::ALL.map(Lsm::cmdline));
    for file in ["stub.efi", "PACKAGES"] {
        all.push(sha256(&fs::read(cache().join(file))?));
    }
    for file in [vm::FIRMWARE, vm::KEYS] {
        all.push(sha256(&fs::read(file).context(file)?));
    }
    // How the policy is made of it, on either side.
    let made = [
        include_str!("enrol.rs"),
        include_str!("author.rs"),
        include_str!("job.rs"),
        include_str!("uki.rs"),
        include_str!("guest/enrol.rs"),
        include_str!("guest/machine.rs"),
        include_str!("../node.cil"),
        include_str!("../../tests/src/policy.rs"),
        include_str!("../../tests/src/tpm.rs"),
    ];
    all.extend(made.map(|text| sha256(text.as_bytes())));
    Ok(sha256(all.join("\n").as_bytes()))
}

struct Enrolment<'a> {
    built: &'a Built,
    folder: &'a Path,
}

impl Enrolment<'_> {
    fn run(&self) -> Result<BTreeMap<String, Boot>> {
        let [first, second] = Lsm::ALL;
        let maker = Maker::new(&self.at("maker"))?;
        maker.tpm(&self.at("tpm"))?;
        let author = Pair::generate(self.folder, "author")?;
        let authority = Pair::generate(self.folder, "authority")?;
        let to_approve = (authority.public.clone(), file::AUTHORITY);

        let (asked, made) = self.boot(first, What::Request, vec![to_approve.clone()])?;
        let request = made.join(file::REQUEST);
        fs::copy(made.join(file::BOUND), self.at(file::BOUND))?;
        self.approve_state(first, &made, &authority)?;
        let approvals = self.at("approvals");
        fs::create_dir_all(&approvals)?;
        let words = ["node", "enroll", "approve", "--node", "test-*", "--ek-roots"].map(PathBuf::from);
        let (root, issuer) = (maker.root(), maker.issuer());
        let more = [root, "--ek-intermediates".into(), issuer, "--out".into(), approvals.clone(), request];
        boltseal(&[&words[..], &more].concat())?;

        let approval = approvals.join("test-node.approval.json");
        let (proved, made) = self.boot(second, What::Complete, vec![to_approve, (approval, file::APPROVAL)])?;
        ensure!(
            fs::read(made.join(file::BOUND))? == fs::read(self.at(file::BOUND))?,
            "the key for anchors is another one in the next boot"
        );
        self.approve_state(second, &made, &authority)?;
        let words = ["node", "enroll", "confirm", "--pcrs", "0,2,4,7,9", "--write-key"].map(PathBuf::from);
        let (key, pending, proof) =
            (self.at(NODE_KEY), approvals.join("test-node.pending.json"), made.join(file::PROOF));
        let part = boltseal(&[&words[..], &[key.clone(), pending, proof]].concat())?;
        ensure!(part.contains("enrolled = \"certified\""), "{part}");

        self.policies(&part, &key, &proved, &author)?;
        let given = vec![(author.public, file::AUTHOR), (self.at(file::POLICIES), file::POLICIES)];
        let (_, made) = self.boot(first, What::Apply, given)?;
        for name in [file::ETC, file::LIB] {
            boot::copy(&made.join(name), &self.at(name))?;
        }
        Ok(BTreeMap::from([(first.name().to_owned(), asked), (second.name().to_owned(), proved)]))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Answers with the boot's facts and the folder of what it made.
    fn boot(&self, lsm: Lsm, what: What, given: Given) -> Result<(Boot, PathBuf)> {
        let name = format!("enrol-{what:?}").to_lowercase();
        let program = self.built.work.join("node.efi");
        uki::program(&cache().join("stub.efi"), &boots::parts(self.built, lsm), &self.built.work, &program)?;
        let tpm = self.at("tpm");
        let machine = boot::Boot { program: &program, variables: vm::KEYS, tpm: &tpm, given, name: &name };
        let job = Job { what, kexec: Vec::new(), systemd: false };
        let (outcome, took) = machine.run(self.built, &job).with_context(|| name.clone())?;
        println!("node: {name}, {} ({} s)", lsm.name(), took.as_secs());
        let back = boot::logs(&name).join("back");
        fs::copy(back.join("binary_bios_measurements"), self.at(&format!("{}.log", lsm.name())))
            .context("the firmware's event log")?;
        Ok((outcome.boot.context("no facts of the boot")?, back.join(MADE)))
    }

    fn approve_state(&self, lsm: Lsm, made: &Path, authority: &Pair) -> Result<()> {
        let words = ["node", "anchor", "approve", "--key"].map(PathBuf::from);
        let more = [authority.private.clone(), "--out".into(), approved(self.folder, lsm), made.join(file::STATE)];
        boltseal(&[&words[..], &more].concat()).map(drop)
    }

    /// Signs each version of the policy: `part` is what `confirm` said of the node and the first boot, `second` the other
    /// good boot.
    fn policies(&self, part: &str, key: &Path, second: &Boot, author: &Pair) -> Result<()> {
        for number in version::OLD..=version::LAST {
            let folder = self.at(file::POLICIES).join(number.to_string());
            for name in ["trust", "policy.d"] {
                fs::create_dir_all(folder.join(name))?;
            }
            fs::write(folder.join("policy.toml"), self.policy(number, second)?.text()?)?;
            fs::write(folder.join("policy.d/20-node.toml"), part)?;
            fs::copy(self.built.images.join("keys/ci.pub"), folder.join("trust/ci.pub"))?;
            fs::copy(key, folder.join("trust").join(NODE_KEY))?;
            let sealer = format!("{}.pub", sealed::AUTHORITY);
            fs::copy(self.built.images.join("keys").join(&sealer), folder.join("trust").join(&sealer))?;
            let words = ["policy", "sign", "--number"].map(PathBuf::from);
            let more = [number.to_string().into(), "--key".into(), author.private.clone(), folder];
            boltseal(&[&words[..], &more].concat())?;
        }
        Ok(())
    }

    /// The tests' policy without its exceptions: a real TPM device and a real security module.
    fn policy(&self, number: u64, second: &Boot) -> Result<Policy> {
        let images = stack::given::images(&self.built.images)?;
        let pause = images.get("pause").context("no image pause")?;
        let mut policy = Policy::for_this_node(std::slice::from_ref(&pause.manifest))?;
        policy.without_exception("BS-NOD-001")?;
        policy.without_exception("BS-MAC-001")?;
        policy.set("node.tpm", stack::tpm::DEVICE)?;
        policy.sealer(sealed::AUTHORITY)?;
        for pcr in stack::tpm::MEASURED.into_iter().chain(MEASURED) {
            let value = second.pcrs.get(&pcr).context("PCR")?.clone();
            policy.set(&format!("node.pcrs.{pcr}"), vec![value])?;
        }
        // For the case in which a PCR has another value: the others of a real TPM cannot be set back.
        policy.set(&format!("node.pcrs.{}", stack::tpm::DEBUG), vec![stack::tpm::settled()])?;
        // After kexec the PCRs are the old kernel's: what was measured must be the command line that is in force.
        policy.set("node.log.command_line_never", vec!["init=".to_owned()])?;
        policy.set("node.log.secure_boot", true)?;
        policy.set("bundle.signed", true)?;
        if number != version::OPEN {
            policy.set("bundle.measured", true)?;
            policy.set("node.cap", CAP)?;
        }
        if [version::KEXEC, version::OPEN].contains(&number) {
            policy.warn("BS-NOD-002")?;
        }
        let workloads = format!("{}/demo", stack::registry::ADDRESS);
        if number == version::SCANNED {
            policy.enforce("BS-IMG-008")?;
        }
        if [version::SEALED, version::SCANNED].contains(&number) {
            policy.set_scope(&workloads, "integrity", "dmverity-signed")?;
        }
        if number >= version::EROFS {
            policy.set("image.snapshotters", vec!["overlayfs".to_owned(), "erofs".to_owned()])?;
        }
        match number {
            version::FSVERITY => policy.set_scope(&workloads, "integrity", "fsverity")?,
            version::LOCAL => policy.set_scope(&workloads, "integrity", "dmverity-local")?,
            _ => {}
        }
        if number == version::OLD {
            policy.set("limits.pids", 512)?;
        }
        Ok(policy)
    }
}
