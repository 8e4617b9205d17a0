//! What somebody put into an image's folder of signatures. The twin has the signature beside as much of the same kind as may be.
use super::Case;
use super::image::store_anew;
use crate::image::sha256;
use crate::node::{SIGNATURES, World};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

pub(super) fn cases() -> Vec<Case> {
    let case = |name, says, fault, mend| Case::new(name, "BS-IMG-001", says, fault).mend(mend);
    vec![
        case(
            "10 000 files beside the signature",
            "holds more than 1024 files",
            |world, _| strangers(world, 10_000),
            |world, _| strangers(world, 1_000),
        ),
        case(
            "16 files of a signature's form before the signature",
            "there are 16 before it",
            |world, _| before_it(world, 16),
            |world, _| before_it(world, 15),
        ),
        case(
            "a link to the signature in its place",
            "is a symbolic link",
            |world, _| instead(world, |kept, place| Ok(symlink(kept, place)?)),
            |world, _| beside(world, |kept, place| Ok(symlink(kept, place)?)),
        ),
        // A fifo that is opened waits for a writer: the start would never end.
        case(
            "a fifo in the place of the signature",
            "is not a regular file",
            |world, _| instead(world, |_, place| fifo(place)),
            |world, _| beside(world, |_, place| fifo(place)),
        ),
        case(
            "a signature that is not of its name",
            "is not the sha256 of its content",
            |world, _| instead(world, changed),
            |world, _| beside(world, changed),
        ),
        case(
            "a signature with bytes behind it",
            "signature",
            |world, _| instead(world, |kept, place| by_content(kept, place, |text| format!("{text} {{}}"))),
            |world, _| beside(world, |kept, place| by_content(kept, place, |text| format!("{text} {{}}"))),
        ),
        case(
            "a signature with a key of its JSON twice",
            "signature",
            |world, _| instead(world, |kept, place| by_content(kept, place, twice)),
            |world, _| beside(world, |kept, place| by_content(kept, place, twice)),
        ),
        case(
            "a signature within 30 000 brackets",
            "signature",
            |world, _| instead(world, |kept, place| by_content(kept, place, deep)),
            |world, _| beside(world, |kept, place| by_content(kept, place, deep)),
        ),
        case(
            "a folder of signatures that everybody may write to",
            "its signatures",
            |world, _| mode(world, 0o777),
            |world, _| mode(world, 0o755),
        ),
    ]
}

/// The folder of `app`, anew until the case is over, with nothing in it; and the signature that was there.
fn emptied(world: &mut World) -> Result<(PathBuf, PathBuf)> {
    let app = world.node.images.get("app")?.clone();
    let folder = Path::new(SIGNATURES).join(app.hex());
    let names: Vec<PathBuf> = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    let [signature] = names.as_slice() else { anyhow::bail!("{} holds {names:?}", folder.display()) };
    let kept = world.node.work.join(signature.file_name().context("a file without a name")?);
    fs::copy(signature, &kept)?;
    store_anew(world, &app)?;
    fs::create_dir(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
    Ok((folder, kept))
}

/// The same, with the signature in it.
fn filled(world: &mut World) -> Result<(PathBuf, PathBuf)> {
    let (folder, kept) = emptied(world)?;
    fs::copy(&kept, folder.join(name(&kept)?))?;
    Ok((folder, kept))
}

fn name(file: &Path) -> Result<&str> {
    file.file_name().and_then(|name| name.to_str()).context("a file without a name")
}

/// What `make` makes of the signature, in its place.
fn instead(world: &mut World, make: fn(&Path, &Path) -> Result<()>) -> Result<()> {
    let (folder, kept) = emptied(world)?;
    make(&kept, &folder.join(name(&kept)?))
}

/// The same beside the signature, by a name that no content has.
fn beside(world: &mut World, make: fn(&Path, &Path) -> Result<()>) -> Result<()> {
    let (folder, kept) = filled(world)?;
    make(&kept, &folder.join(format!("{}.sig.json", "0".repeat(64))))
}

fn fifo(place: &Path) -> Result<()> {
    crate::process::run(Command::new("mkfifo").args(["-m", "600"]).arg(place)).map(drop)
}

fn changed(kept: &Path, place: &Path) -> Result<()> {
    Ok(fs::write(place, fs::read_to_string(kept)? + "\n")?)
}

/// Changed, and named by what it is now.
fn by_content(kept: &Path, place: &Path, change: fn(&str) -> String) -> Result<()> {
    let bytes = change(&fs::read_to_string(kept)?);
    let name = sha256(bytes.as_bytes());
    let file = place.with_file_name(format!("{}.sig.json", name.trim_start_matches("sha256:")));
    Ok(fs::write(file, bytes)?)
}

fn twice(text: &str) -> String {
    text.replacen('{', "{\"payload\":\"e30=\",", 1)
}

fn deep(text: &str) -> String {
    format!("{}{text}{}", "[".repeat(30_000), "]".repeat(30_000))
}

fn strangers(world: &mut World, number: usize) -> Result<()> {
    let (folder, _) = filled(world)?;
    (0..number).try_for_each(|n| Ok(fs::write(folder.join(format!("{n}.txt")), "")?))
}

/// As many files of a signature's form and name, each before the signature where names are sorted.
fn before_it(world: &mut World, number: usize) -> Result<()> {
    let (folder, kept) = filled(world)?;
    let signature = name(&kept)?;
    let texts = (0..1_000_000).map(|n| format!("{{\"payload\":\"\",\"signature\":\"\",\"n\":{n}}}"));
    let named = texts.map(|text| {
        let name = sha256(text.as_bytes());
        (format!("{}.sig.json", name.trim_start_matches("sha256:")), text)
    });
    let mut made = 0;
    for (name, text) in named.filter(|(name, _)| name.as_str() < signature).take(number) {
        fs::write(folder.join(name), text)?;
        made += 1;
    }
    ensure!(made == number, "only {made} names come before {signature}");
    Ok(())
}

fn mode(world: &mut World, mode: u32) -> Result<()> {
    let (folder, _) = filled(world)?;
    Ok(fs::set_permissions(folder, fs::Permissions::from_mode(mode))?)
}
