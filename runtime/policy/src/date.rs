//! Dates of exceptions and authorities: a small part of RFC 3339, in UTC, without a clock.

/// Seconds since the epoch of the first moment at which `text` has passed. A date alone lasts to the end of its day,
/// UTC. None when it is not `YYYY-MM-DD` or `YYYY-MM-DDTHH:MM:SSZ`, or lies before 1970.
#[must_use]
pub(crate) fn end_of(text: &str) -> Option<u64> {
    moment(text, 86_400)
}

/// Seconds since the epoch of the first moment of `text`: a date alone begins with its day, UTC.
#[must_use]
pub(crate) fn begin_of(text: &str) -> Option<u64> {
    moment(text, 0)
}

/// `bare`: what a date without a time stands for, in seconds of its day.
fn moment(text: &str, bare: u64) -> Option<u64> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, Some(time.strip_suffix('Z')?)),
        None => (text, None),
    };
    let midnight = days(&numbers(date, '-', [4, 2, 2])?)?.checked_mul(86_400)?;
    let seconds = match time {
        None => bare,
        Some(time) => {
            let [h, m, s] = numbers(time, ':', [2, 2, 2])?;
            if h > 23 || m > 59 || s > 59 {
                return None;
            }
            h * 3600 + m * 60 + s
        }
    };
    midnight.checked_add(seconds)
}

fn numbers(text: &str, separator: char, widths: [usize; 3]) -> Option<[u64; 3]> {
    let mut parts = text.split(separator);
    let mut out = [0; 3];
    for (slot, width) in out.iter_mut().zip(widths) {
        let part = parts.next()?;
        if part.len() != width || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *slot = part.parse().ok()?;
    }
    parts.next().is_none().then_some(out)
}

/// Days from 1970-01-01.
fn days([year, month, day]: &[u64; 3]) -> Option<u64> {
    let leap = |y: u64| (y.is_multiple_of(4) && !y.is_multiple_of(100)) || y.is_multiple_of(400);
    let lengths = [31, if leap(*year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let index = usize::try_from(month.checked_sub(1)?).ok()?;
    if *year < 1970 || *day == 0 || day > lengths.get(index)? {
        return None;
    }
    let years: u64 = (1970..*year).map(|y| if leap(y) { 366 } else { 365 }).sum();
    let months: u64 = lengths.iter().take(index).sum();
    Some(years + months + day - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (text, expected) in [
            ("1970-01-01", Some(86_400)),
            ("1970-01-01T00:00:01Z", Some(1)),
            ("2000-03-01T00:00:00Z", Some(951_868_800)),
            ("2026-12-31T23:59:59Z", Some(1_798_761_599)),
            ("2026-12-31", Some(1_798_761_600)),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800)),
            ("2023-02-29", None),
            ("2026-13-01", None),
            ("2026-00-01", None),
            ("2026-1-1", None),
            ("2026-01-01T24:00:00Z", None),
            ("2026-01-01T23:60:00Z", None),
            ("2026-01-01T23:59:60Z", None),
            ("2026-01-01T00:00:00", None),
            ("2026-01-01T00:00:00+02:00", None),
            ("1969-12-31", None),
            ("+026-01-01", None),
            ("", None),
        ] {
            assert_eq!(end_of(text), expected, "{text}");
            let day = if text.contains('T') { 0 } else { 86_400 };
            assert_eq!(begin_of(text), expected.map(|end| end - day), "{text}");
        }
    }
}
