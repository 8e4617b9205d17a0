//! Times of certificates and envelopes as seconds since the epoch. No clock.

/// `YYMMDDHHMMSSZ` (RFC 5280, 4.1.2.5.1: 50 to 99 are of the last century).
pub(super) fn utc(text: &[u8]) -> Option<u64> {
    let (year, rest) = text.split_at_checked(2)?;
    let year = number(year)?;
    let century = if year < 50 { 2000 } else { 1900 };
    compact(century + year, rest)
}

/// `YYYYMMDDHHMMSSZ`.
pub(super) fn generalized(text: &[u8]) -> Option<u64> {
    let (year, rest) = text.split_at_checked(4)?;
    compact(number(year)?, rest)
}

fn compact(year: u64, rest: &[u8]) -> Option<u64> {
    let digits: &[u8; 10] = rest.strip_suffix(b"Z")?.try_into().ok()?;
    let mut parts = digits.chunks(2).map(number);
    let mut next = || parts.next().flatten();
    seconds([year, next()?, next()?, next()?, next()?, next()?])
}

/// `YYYY-MM-DDTHH:MM:SS`, a fraction that is dropped, then `Z` or an offset (RFC 3339, section 5.6).
pub(super) fn rfc3339(text: &str) -> Option<u64> {
    let (date_time, rest) = text.as_bytes().split_at_checked(19)?;
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T', h0, h1, b':', n0, n1, b':', s0, s1] = date_time else {
        return None;
    };
    let two = |a: &u8, b: &u8| number(&[*a, *b]);
    let year = number(&[*y0, *y1, *y2, *y3])?;
    let local = seconds([year, two(m0, m1)?, two(d0, d1)?, two(h0, h1)?, two(n0, n1)?, two(s0, s1)?])?;
    let zone = match rest.strip_prefix(b".") {
        None => rest,
        Some(fraction) => {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            fraction.get(digits..).filter(|_| (1..=9).contains(&digits))?
        }
    };
    match zone {
        b"Z" => Some(local),
        [sign @ (b'+' | b'-'), h0, h1, b':', m0, m1] => {
            let (hours, minutes) = (two(h0, h1)?, two(m0, m1)?);
            let offset = (hours < 24 && minutes < 60).then_some(hours * 3600 + minutes * 60)?;
            if *sign == b'+' { local.checked_sub(offset) } else { local.checked_add(offset) }
        }
        _ => None,
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0')))
}

/// None before 1970, and for days and hours that are none. The year has at most four digits.
fn seconds([year, month, day, hour, minute, second]: [u64; 6]) -> Option<u64> {
    let leap = |year: u64| (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
    let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let index = usize::try_from(month.checked_sub(1)?).ok()?;
    if year < 1970 || day == 0 || day > *lengths.get(index)? || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let years: u64 = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    let days = years + lengths.iter().take(index).sum::<u64>() + day - 1;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_what_is_none() {
        for (text, want) in
            [("700101000001Z", Some(1)), ("491231235959Z", Some(2_524_607_999)), ("000301000000Z", Some(951_868_800))]
        {
            assert_eq!(utc(text.as_bytes()), want, "{text}");
        }
        for bad in [
            "",
            "Z",
            "6912312359Z",
            "700101000001",
            "7001010000010Z",
            "700101000001+0000",
            "701301000000Z",
            "70010100000xZ",
            "691231235959Z",
        ] {
            assert_eq!(utc(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(generalized(b"20500101000000Z"), Some(2_524_608_000));
        assert_eq!(generalized(b"20500101000000.0Z"), None);
        for (text, want) in [
            ("1970-01-01T00:00:01Z", Some(1)),
            ("2000-03-01T00:00:00.123456789Z", Some(951_868_800)),
            ("2000-03-01T01:30:00+01:30", Some(951_868_800)),
            ("2000-02-29T23:00:00-01:00", Some(951_868_800)),
            ("2001-02-29T00:00:00Z", None),
            ("2000-03-01T00:00:00", None),
            ("2000-03-01 00:00:00Z", None),
            ("2000-03-01T00:00:00.Z", None),
            ("2000-03-01T00:00:00+0100", None),
            ("2000-03-01T24:00:00Z", None),
            ("1970-01-01T00:00:00+00:01", None),
            ("", None),
        ] {
            assert_eq!(rfc3339(text), want, "{text}");
        }
    }
}
