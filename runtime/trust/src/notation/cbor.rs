//! The part of CBOR (RFC 8949) that a COSE_Sign1 of the Notary Project needs, with one reading: shortest lengths, none of
//! indefinite length, no key twice, no floats, nothing after the item. Worker's code.

/// Arrays, maps and tags inside each other, and items in one file.
const MAX_DEPTH: usize = 8;
const MAX_ITEMS: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item<'a> {
    Integer(i64),
    Bytes(&'a [u8]),
    Text(&'a str),
    Array(Vec<Item<'a>>),
    Map(Vec<(Item<'a>, Item<'a>)>),
    Tag(u64, Box<Item<'a>>),
}

impl<'a> Item<'a> {
    /// Reads the whole of `bytes`.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, &'static str> {
        let mut reader = Reader { rest: bytes, left: MAX_ITEMS };
        let item = reader.item(0)?;
        if reader.rest.is_empty() { Ok(item) } else { Err("bytes after the item") }
    }

    /// The value under a key of a map.
    pub(super) fn get(&self, key: &Item<'_>) -> Option<&Self> {
        match self {
            Self::Map(pairs) => pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value),
            _ => None,
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Reader<'a> {
    fn item(&mut self, depth: usize) -> Result<Item<'a>, &'static str> {
        self.left = self.left.checked_sub(1).ok_or("too many items")?;
        if depth > MAX_DEPTH {
            return Err("nested too deeply");
        }
        let (kind, value) = self.head()?;
        match kind {
            0 => i64::try_from(value).map(Item::Integer).map_err(|_| "a number beyond 63 bits"),
            1 => i64::try_from(value).map(|value| Item::Integer(-1 - value)).map_err(|_| "a number beyond 63 bits"),
            2 => self.take(value).map(Item::Bytes),
            3 => std::str::from_utf8(self.take(value)?).map(Item::Text).map_err(|_| "a text that is not UTF-8"),
            4 => (0..value).map(|_| self.item(depth + 1)).collect::<Result<_, _>>().map(Item::Array),
            5 => self.map(value, depth),
            6 => self.item(depth + 1).map(|item| Item::Tag(value, Box::new(item))),
            _ => Err("a float or a simple value"),
        }
    }

    fn map(&mut self, pairs: u64, depth: usize) -> Result<Item<'a>, &'static str> {
        let mut found: Vec<(Item<'_>, Item<'_>)> = Vec::new();
        for _ in 0..pairs {
            let (key, value) = (self.item(depth + 1)?, self.item(depth + 1)?);
            if found.iter().any(|(other, _)| *other == key) {
                return Err("a key twice in a map");
            }
            found.push((key, value));
        }
        Ok(Item::Map(found))
    }

    /// Major type and argument.
    fn head(&mut self) -> Result<(u8, u64), &'static str> {
        let (&first, rest) = self.rest.split_first().ok_or("cut short")?;
        self.rest = rest;
        if first >> 5 == 7 {
            return Ok((7, 0));
        }
        let size = match first & 0x1f {
            small @ 0..=23 => return Ok((first >> 5, u64::from(small))),
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            31 => return Err("an item of indefinite length"),
            _ => return Err("a reserved length"),
        };
        let value = self.take(size)?.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let least = match size {
            1 => 24,
            2 => 1 << 8,
            4 => 1 << 16,
            _ => 1 << 32,
        };
        if value < least { Err("a length that is not in its shortest form") } else { Ok((first >> 5, value)) }
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], &'static str> {
        let len = usize::try_from(len).map_err(|_| "cut short")?;
        let (head, rest) = self.rest.split_at_checked(len).ok_or("cut short")?;
        self.rest = rest;
        Ok(head)
    }
}

/// A byte string, as it is encoded.
pub(super) fn bytes(out: &mut Vec<u8>, content: &[u8]) {
    let len = content.len();
    match len {
        0..=23 => out.push(0x40 | len as u8),
        24..=0xff => out.extend([0x58, len as u8]),
        0x100..=0xffff => out.extend([0x59, (len >> 8) as u8, len as u8]),
        _ => {
            out.push(0x5a);
            out.extend(u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
    out.extend(content);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_reading() {
        let read = Item::read(&[0xa2, 0x01, 0x26, 0x61, b'x', 0x82, 0x41, 7, 0xc1, 0x18, 0x20]).unwrap();
        assert_eq!(read.get(&Item::Integer(1)), Some(&Item::Integer(-7)));
        let list = vec![Item::Bytes(&[7]), Item::Tag(1, Box::new(Item::Integer(32)))];
        assert_eq!(read.get(&Item::Text("x")), Some(&Item::Array(list)));
        for (bad, why) in [
            (&[][..], "cut short"),
            (&[0x42, 1], "cut short"),
            (&[0x01, 0x01], "bytes after"),
            (&[0x5f, 0x41, 1, 0xff], "indefinite"),
            (&[0x9f, 0xff], "indefinite"),
            (&[0xbf, 0xff], "indefinite"),
            (&[0x18, 0x17], "shortest"),
            (&[0x58, 0x01, 7], "shortest"),
            (&[0x1c], "reserved"),
            (&[0xa2, 1, 1, 1, 2], "twice"),
            (&[0xa2, 0x61, b'a', 1, 0x61, b'a', 2], "twice"),
            (&[0x61, 0xff], "UTF-8"),
            (&[0xf4], "simple"),
            (&[0xfb, 0, 0, 0, 0, 0, 0, 0, 0], "simple"),
            (&[0x1b, 0xff, 0, 0, 0, 0, 0, 0, 0], "63 bits"),
            (&[0x9b, 0, 0, 0, 1, 0, 0, 0, 0], "cut short"),
            (&[0x81; 64], "deeply"),
        ] {
            assert_eq!(Item::read(bad).map_err(|said| said.contains(why)), Err(true), "{bad:?}");
        }
        let many = [&[0x99, 0x04, 0x00][..], &[0; 1024]].concat();
        assert_eq!(Item::read(&many), Err("too many items"));
    }

    #[test]
    fn byte_strings_are_written_as_they_are_read() {
        for len in [0, 23, 24, 255, 256, 65_535, 65_536] {
            let (content, mut out) = (vec![7; len], Vec::new());
            bytes(&mut out, &content);
            assert_eq!(Item::read(&out), Ok(Item::Bytes(&content)));
        }
    }
}
