//! What image trust costs, each beside a tool that does the same work: a signature verified, a layer scanned.
use crate::table::median;
use anyhow::{Context, Result, anyhow, bail, ensure};
use boltseal_scan::{Limits, scan};
use boltseal_trust::{Digest, Key, Proposal, Source, propose, verify_signature};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};
use stack::node::{Node, SIGNATURES};
use stack::process::run;
use stack::sign::Cosign;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;
const VERIFIED: u32 = 500;
/// Programs of this machine: of an executable a scan reads every byte, of any other file its name and mode.
const LAYERS: [&str; 2] = ["/usr/bin", "/usr/sbin"];

pub(crate) fn report(node: &Node) -> Result<Value> {
    let (mut ours, mut cosign, mut scanned, mut hashed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let signature = Signature::of(node)?;
    for round in 0..ROUNDS {
        ours.push(signature.verified()?);
        cosign.push(signature.by_cosign(node)?);
        scanned.push(scan_rate(&node.work.join("scans"), round)?);
        hashed.push(hash_rate(&node.work.join("hashed"))?);
    }
    let of = |list: &[f64]| median(list.iter().copied());
    let rows = [
        ("a keyed signature, us CPU", of(&ours), of(&cosign), "200"),
        ("layer scan, MB/s per core", of(&scanned), of(&hashed), "300"),
    ];
    println!(
        "\nimage trust, medians of {ROUNDS} rounds; cosign verify --offline as a process, sha256sum of files in the same folders"
    );
    println!("{:<26}{:>12}{:>12}{:>9}  target", "", "boltseal", "peer", "ratio");
    let mut all = serde_json::Map::new();
    for (name, left, right, target) in rows {
        println!("{name:<26}{left:>12.1}{right:>12.1}{:>9.4}  {target}", left / right);
        all.insert(name.into(), json!({ "boltseal": left, "peer": right, "ratio": left / right, "target": target }));
    }
    Ok(Value::Object(all))
}

/// One that cosign 2.5 made of the image `app`.
struct Signature {
    bytes: Vec<u8>,
    key: Key,
    image: String,
    reference: String,
}

impl Signature {
    fn of(node: &Node) -> Result<Self> {
        let app = node.images.get("app")?;
        let folder = Path::new(SIGNATURES).join(app.hex());
        let files: Vec<PathBuf> = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        let file = files.iter().find(|path| path.to_string_lossy().ends_with(".sig.json"));
        let bytes = fs::read(file.with_context(|| format!("no signature in {}", folder.display()))?)?;
        let key = Key::from_spki_pem(&fs::read_to_string(&node.key.public)?).map_err(|e| anyhow!("{e}"))?;
        let reference = format!("{}@{}", app.repository, app.manifest);
        Ok(Self { bytes, key, image: app.manifest.clone(), reference })
    }

    /// Parsed as the worker does and verified as the gate does; microseconds each.
    fn verified(&self) -> Result<f64> {
        let image: Digest = self.image.parse().map_err(|e| anyhow!("{e:?}"))?;
        let before = cpu(UsageWho::RUSAGE_SELF)?;
        for _ in 0..VERIFIED {
            match propose(Source::CosignSignature, &self.bytes) {
                Ok(Proposal::Signature(found)) => {
                    verify_signature(&found, &self.key, &image).map_err(|e| anyhow!("{e}"))?;
                }
                other => bail!("it is no signature: {other:?}"),
            }
        }
        Ok((cpu(UsageWho::RUSAGE_SELF)? - before) * 1e6 / f64::from(VERIFIED))
    }

    fn by_cosign(&self, node: &Node) -> Result<f64> {
        let before = cpu(UsageWho::RUSAGE_CHILDREN)?;
        let mut command = Cosign::V2.command(&node.work);
        command.args(["verify", "--offline", "--insecure-ignore-tlog=true", "--key"]).arg(&node.key.public);
        run(command.arg(&self.reference))?;
        Ok((cpu(UsageWho::RUSAGE_CHILDREN)? - before) * 1e6)
    }
}

/// Megabytes of layers per second of the jailed worker, without the cache.
fn scan_rate(cache: &Path, round: usize) -> Result<f64> {
    fs::create_dir_all(cache)?;
    let lowers = LAYERS.map(String::from);
    let chain = format!("sha256:{round:064x}");
    let image = boltseal_scan::Image {
        chain_id: &chain,
        integrity: "unpacked",
        layers: boltseal_scan::Source::Folders(&lowers),
        digests: &[],
    };
    let before = cpu(UsageWho::RUSAGE_CHILDREN)?;
    let soon = Instant::now() + Duration::from_secs(300);
    let found = scan(cache, &image, &Limits::default(), soon, &mut |_| {}).map_err(|e| anyhow!("{e}"))?;
    let spent = cpu(UsageWho::RUSAGE_CHILDREN)? - before;
    ensure!(found.bytes > 50_000_000, "the layers have only {} bytes", found.bytes);
    #[allow(clippy::cast_precision_loss, reason = "for people to read")]
    Ok(found.bytes as f64 / 1e6 / spent)
}

fn hash_rate(list: &Path) -> Result<f64> {
    let before = cpu(UsageWho::RUSAGE_CHILDREN)?;
    let find = ["-type", "f", "-print0"];
    let files = run(Command::new("find").args(LAYERS).args(find))?;
    let mut bytes = 0;
    let names: Vec<&str> = files.split('\0').filter(|name| !name.is_empty()).collect();
    for name in &names {
        bytes += fs::metadata(name)?.len();
    }
    fs::write(list, &files)?;
    run(Command::new("xargs").args(["-0", "-a"]).arg(list).arg("sha256sum"))?;
    #[allow(clippy::cast_precision_loss, reason = "for people to read")]
    Ok(bytes as f64 / 1e6 / (cpu(UsageWho::RUSAGE_CHILDREN)? - before))
}

/// Seconds.
fn cpu(who: UsageWho) -> Result<f64> {
    let usage = getrusage(who)?;
    #[allow(clippy::cast_precision_loss, reason = "seconds")]
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}
