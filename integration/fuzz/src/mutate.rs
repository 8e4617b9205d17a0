//! Small changes to an input, several at a time, the same for the same seed.
use boltseal_fuzz::random::Random;

/// Inputs are kept below this, bytes: parsers have larger caps, but time goes further on small ones.
const MAX_INPUT: usize = 32 << 10;

/// What the formats of this project are made of.
const WORDS: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b":",
    b",",
    b"\\",
    b"null",
    b"true",
    b"0",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"{}",
    b"[]",
    b"\"\"",
    b"\\u0000",
    b"\\ud800",
    b"\\u0041",
    b"\xff",
    b"\0",
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b"=",
    b"==",
    b"#",
    b"[[",
    b"]]",
    b"\"digest\":",
    b"\"manifests\":[",
    b"\"config\":{",
    b"\"Config\":{",
    b"\"layers\":[",
    b"\"diff_ids\":[",
    b"\"rootfs\":{",
    b"\"critical\":{",
    b"\"subject\":[",
    b"\"payload\":",
    b"\"annotations\":{",
    b"\"optional\":{}",
    b"\"predicateType\":\"",
    b"sha256:",
    b"sha256:0000000000000000000000000000000000000000000000000000000000000000",
    b"/",
    b"..",
    b"/../",
    b"@",
    b"*",
    "\u{17f}".as_bytes(),
    "\u{212a}".as_bytes(),
    "\u{feff}".as_bytes(),
    "\u{202e}".as_bytes(),
    b"-----BEGIN PUBLIC KEY-----",
    b"-----END PUBLIC KEY-----",
    b"2026-01-01",
    b"level = \"observe\"\n",
    b"[[exception]]\n",
];

/// `input` after one to eight changes; `other` is what a splice takes from.
pub(crate) fn mutate(random: &mut Random, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut out = input.to_vec();
    for _ in 0..=random.below(8) {
        change(random, &mut out, other);
    }
    out.truncate(MAX_INPUT);
    out
}

fn change(random: &mut Random, out: &mut Vec<u8>, other: &[u8]) {
    let at = random.below(out.len());
    match random.below(13) {
        0 => {
            let bit = random.below(8);
            if let Some(byte) = out.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        1 => {
            let value = [0, 1, 0x7f, 0x80, 0xff, b'"', b'\\', random.byte()][random.below(8)];
            if let Some(byte) = out.get_mut(at) {
                *byte = value;
            }
        }
        2 => {
            let word = WORDS[random.below(WORDS.len())];
            out.splice(at..at, word.iter().copied());
        }
        3 => {
            let word = WORDS[random.below(WORDS.len())];
            let end = (at + word.len()).min(out.len());
            out.splice(at..end, word.iter().copied());
        }
        4 => drop(out.drain(random.range(out.len(), 64))),
        5 => out.truncate(at),
        6 => {
            let part = out[random.range(out.len(), 256)].to_vec();
            out.splice(at..at, part);
        }
        7 => {
            let (from, to) = (random.range(out.len(), 64), random.range(out.len(), 64));
            let part = out[from].to_vec();
            out.splice(to, part);
        }
        8 => {
            let part = other[random.range(other.len(), 512)].to_vec();
            out.splice(at..at, part);
        }
        9 => {
            let from = random.below(other.len());
            out.truncate(at);
            out.extend_from_slice(other.get(from..).unwrap_or_default());
        }
        10 => {
            let value = [0, 1, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u32::from(random.byte())][random.below(7)];
            let bytes = if random.below(2) == 0 { value.to_le_bytes() } else { value.to_be_bytes() };
            let width = [1, 2, 4][random.below(3)];
            let part = if random.below(2) == 0 { &bytes[..width] } else { &bytes[4 - width..] };
            let end = (at + width).min(out.len());
            out.splice(at..end, part.iter().copied());
        }
        11 => number(random, out, at),
        _ => {
            let word = WORDS[random.below(9)];
            let times = [3, 40, 200, 3000][random.below(4)];
            out.splice(at..at, word.repeat(times));
        }
    }
}

/// Another number where one stands at or after `at`.
fn number(random: &mut Random, out: &mut Vec<u8>, at: usize) {
    let Some(start) = out.iter().skip(at).position(u8::is_ascii_digit).map(|found| at + found) else { return };
    let digits = out.iter().skip(start).take_while(|byte| byte.is_ascii_digit()).count();
    let value: &[u8] = [
        &b"0"[..],
        b"1",
        b"255",
        b"65536",
        b"4294967296",
        b"9223372036854775808",
        b"18446744073709551615",
        b"1e400",
        b"-0",
        b"00",
    ][random.below(10)];
    out.splice(start..start + digits, value.iter().copied());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_inputs_and_another_other_ones() {
        let make = |seed| {
            let mut random = Random(seed);
            (0..200).map(|_| mutate(&mut random, b"{\"a\":12}", b"[3]")).collect::<Vec<_>>()
        };
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
        assert!(make(1).iter().filter(|input| input.as_slice() != b"{\"a\":12}").count() > 190);
    }

    #[test]
    fn nothing_is_too_small_or_too_large_to_change() {
        let mut random = Random(7);
        let large = vec![b'x'; MAX_INPUT];
        for _ in 0..2000 {
            mutate(&mut random, b"", b"");
            assert!(mutate(&mut random, &large, &large).len() <= MAX_INPUT);
        }
    }
}
