//! The line of a verity target, as the kernel shows it (Documentation/admin-guide/device-mapper/verity.rst): which root hash every
//! block is compared with, and whether anything in it makes that worth less.

const SECTOR: u64 = 512;

/// Options that leave every block compared each time that it is read from disk. What is wrong is an error, or the machine's end; what
/// an error correction made of it is compared as well; a block of zeroes that is not read is the block that was hashed.
const HARMLESS: [&str; 6] = [
    "restart_on_corruption",
    "panic_on_corruption",
    "restart_on_error",
    "panic_on_error",
    "ignore_zero_blocks",
    "try_verify_in_tasklet",
];
/// The same, with a value.
const HARMLESS_VALUES: [&str; 5] =
    ["use_fec_from_device", "fec_blocks", "fec_start", "fec_roots", "root_hash_sig_key_desc"];

/// `sha256:<root hash>` of a device of `sectors` with this one target.
///
/// # Errors
/// What keeps it from being one that compares every block.
pub(super) fn root_hash(target: &str, sectors: u64, line: &str) -> Result<String, String> {
    if target != "verity" {
        return Err(format!("a device of target {target:?}, not of verity"));
    }
    let wrong = || "a verity table that is not understood".to_owned();
    let mut words = line.split(' ');
    let mut next = || words.next().ok_or_else(wrong);
    let version = next()?;
    let (_data, _tree) = (next()?, next()?);
    let number = |word: &str| word.parse::<u64>().map_err(|_| wrong());
    let (block, _hash_block) = (number(next()?)?, number(next()?)?);
    let (blocks, _start) = (number(next()?)?, number(next()?)?);
    let (algorithm, root, salt) = (next()?, next()?, next()?);
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let known = matches!((algorithm, root.len()), ("sha256", 64) | ("sha512", 128));
    let whole = blocks.checked_mul(block / SECTOR).is_some_and(|most| sectors > 0 && sectors <= most);
    if version != "1" || !known || !hex(root) || !(salt == "-" || hex(salt)) || !whole {
        return Err(wrong());
    }
    let count = words.next().map_or(Ok(0), |word| word.parse::<usize>().map_err(|_| wrong()))?;
    let mut options = words.by_ref().take(count);
    let mut taken = 0;
    while let Some(option) = options.next() {
        taken += 1;
        if HARMLESS_VALUES.contains(&option) {
            options.next().ok_or_else(wrong)?;
            taken += 1;
        } else if !HARMLESS.contains(&option) {
            return Err(format!("a verity device with the option {option:?}"));
        }
    }
    if taken != count || words.next().is_some() {
        return Err(wrong());
    }
    Ok(format!("{algorithm}:{root}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(more: &str) -> String {
        format!("1 7:3 7:3 4096 4096 3 4 sha256 {} {}{more}", "a".repeat(64), "b".repeat(64))
    }

    #[test]
    fn a_device_that_compares_every_block() {
        let root = Ok(format!("sha256:{}", "a".repeat(64)));
        for more in [
            "",
            " 1 restart_on_corruption",
            " 1 panic_on_corruption",
            " 2 panic_on_corruption panic_on_error",
            " 1 ignore_zero_blocks",
            " 3 restart_on_error try_verify_in_tasklet ignore_zero_blocks",
            " 2 root_hash_sig_key_desc %:key",
            " 8 use_fec_from_device 7:4 fec_blocks 9 fec_start 9 fec_roots 2",
            " 0",
        ] {
            assert_eq!(root_hash("verity", 24, &line(more)), root, "{more}");
        }
        assert_eq!(root_hash("verity", 24, &line("").replace(&"b".repeat(64), "-")), root);
        let long = line("").replace("sha256", "sha512").replace(&"a".repeat(64), &"c".repeat(128));
        assert_eq!(root_hash("verity", 8, &long), Ok(format!("sha512:{}", "c".repeat(128))));
    }

    #[test]
    fn what_weakens_it_and_what_nobody_knows() {
        for option in ["ignore_corruption", "check_at_most_once", "something_new", "", "V"] {
            let said = root_hash("verity", 24, &line(&format!(" 1 {option}"))).unwrap_err();
            assert!(said.contains(&format!("option {option:?}")), "{said}");
            let behind = format!(" 2 panic_on_corruption {option}");
            assert!(root_hash("verity", 24, &line(&behind)).is_err(), "{behind}");
        }
        // A value is no option, and an option no value.
        assert!(root_hash("verity", 24, &line(" 3 root_hash_sig_key_desc x ignore_corruption")).is_err());
        assert!(root_hash("verity", 24, &line(" 2 root_hash_sig_key_desc ignore_corruption")).is_ok());
    }

    #[test]
    fn what_is_not_understood() {
        let good = line("");
        let a = "a".repeat(64);
        for bad in [
            String::new(),
            good.replacen('1', "0", 1),
            good.replacen('1', "2", 1),
            good.replace("sha256", "md5"),
            good.replace("sha256", "sha512"),
            good.replace(&a, &"a".repeat(63)),
            good.replace(&a, &"A".repeat(64)),
            good.replace(&"b".repeat(64), "x"),
            good.replace(" 3 4 ", " 3 x "),
            good.replace(" 3 4 ", " 2 4 "),
            good.replace("4096 4096 3", "4096 4096 18446744073709551615"),
            line(" x"),
            line(" 1"),
            line(" 2 panic_on_corruption"),
            line(" 1 panic_on_corruption more"),
            line(" 0 ignore_corruption"),
            line(" 1 root_hash_sig_key_desc"),
            line("  1 panic_on_corruption"),
            line(" 18446744073709551616 panic_on_corruption"),
        ] {
            assert!(root_hash("verity", 24, &bad).is_err(), "{bad}");
        }
        for target in ["linear", "crypt", "", "Verity"] {
            assert!(root_hash(target, 24, &good).unwrap_err().contains("not of verity"));
        }
        assert!(root_hash("verity", 0, &good).is_err());
        assert!(root_hash("verity", 25, &good).is_err());
    }

    /// Cut or changed at any byte it is another device's line, or none; it never panics.
    #[test]
    fn any_line_has_an_answer() {
        let whole = line(" 2 panic_on_corruption ignore_zero_blocks");
        // A salt may have any length.
        let salt = line("").len() - 63..=line("").len();
        for at in 0..whole.len() {
            assert_eq!(root_hash("verity", 24, &whole[..at]).is_ok(), salt.contains(&at), "cut at {at}");
            for byte in [b' ', b'0', b'z', b'-'] {
                let mut bytes = whole.clone().into_bytes();
                bytes[at] = byte;
                let changed = String::from_utf8(bytes).unwrap();
                if let Ok(root) = root_hash("verity", 24, &changed) {
                    assert!(changed.contains(root.trim_start_matches("sha256:")), "{changed}");
                }
            }
        }
    }
}
