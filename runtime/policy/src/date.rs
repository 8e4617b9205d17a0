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

/// Seconds since the epoch of a full date-time of RFC 3339, as Go writes it: fractions of a second and offsets count too.
/// What lies before 1970 is 0: an image that says so is as old as can be.
#[must_use]
pub(crate) fn instant(text: &str) -> Option<u64> {
    let (date, time) = text.split_once('T')?;
    let (clock, rest) = time.split_at_checked(8)?;
    let [h, m, s] = numbers(clock, ':', [2, 2, 2])?;
    // A leap second is the next minute's first.
    if h > 23 || m > 59 || s > 60 {
        return None;
    }
    let zone = match rest.strip_prefix('.') {
        None => rest,
        Some(fraction) => {
            let zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
            (zone.len() < fraction.len()).then_some(zone)?
        }
    };
    let offset = match zone.split_at_checked(1)? {
        ("Z", "") => 0,
        (sign @ ("+" | "-"), offset) => {
            let (hours, minutes) = offset.split_once(':')?;
            let two = |part: &str| (part.len() == 2).then(|| part.parse::<i64>().ok().filter(|n| *n >= 0)).flatten();
            let (hours, minutes) = (two(hours)?, two(minutes)?);
            if hours > 23 || minutes > 59 || offset.contains(['+', '-']) {
                return None;
            }
            (hours * 3600 + minutes * 60) * if sign == "+" { 1 } else { -1 }
        }
        _ => return None,
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    // Of a year before the epoch nothing but its form matters; 2000 has every day.
    let days = days(&[if year < 1970 { 2000 } else { year }, month, day])?;
    if year < 1970 {
        return Some(0);
    }
    let seconds = i64::try_from(days * 86_400 + h * 3600 + m * 60 + s).ok()?;
    Some(u64::try_from(seconds - offset).unwrap_or(0))
}

/// The day of that second, `2026-11-23`.
#[must_use]
pub(crate) fn day(seconds: u64) -> String {
    let (mut days, mut year) = (seconds / 86_400, 1970);
    let leap = |y: u64| (y.is_multiple_of(4) && !y.is_multiple_of(100)) || y.is_multiple_of(400);
    // A year that a clock could show at all; what lies beyond is shown as its end.
    while year < 9999 && days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if days < length || month == 12 {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year:04}-{month:02}-{:02}", days.min(30) + 1)
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

/// As `YYYY-MM-DDTHH:MM:SSZ`.
#[must_use]
pub(crate) fn written(seconds: u64) -> String {
    let (day, of_day) = (seconds / 86_400, seconds % 86_400);
    // Years begin with March here, so that the day of a leap year is their last one; eras have 400 of them.
    let shifted = day + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + next;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}Z")
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
    fn instants() {
        for (text, expected) in [
            ("2026-11-23T00:00:00Z", Some(1_795_392_000)),
            ("2026-11-23T00:00:00.123456789Z", Some(1_795_392_000)),
            ("2026-11-23T02:00:00+02:00", Some(1_795_392_000)),
            ("2026-11-22T22:30:00.5-01:30", Some(1_795_392_000)),
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01T00:00:00+02:00", Some(0)),
            ("0001-01-01T00:00:00Z", Some(0)),
            ("1969-12-31T23:59:59Z", Some(0)),
            ("0001-13-01T00:00:00Z", None),
            ("2026-11-23", None),
            ("2026-11-23T00:00:00", None),
            ("2026-11-23T00:00:00.Z", None),
            ("2026-11-23T00:00:00z", None),
            ("2026-11-23T00:00:00Zx", None),
            ("2026-11-23T00:00:00+2:00", None),
            ("2026-11-23T00:00:00+24:00", None),
            ("2026-11-23T00:00:00+-1:00", None),
            ("2026-11-23T24:00:00Z", None),
            ("2026-02-29T00:00:00Z", None),
            ("2026-11-23T00:00:0é", None),
            ("", None),
        ] {
            assert_eq!(instant(text), expected, "{text}");
        }
    }

    #[test]
    fn days_are_shown() {
        for text in ["1970-01-01", "1999-12-31", "2000-02-29", "2026-11-23", "2026-12-31", "2027-01-01"] {
            let seconds = begin_of(text).unwrap();
            assert_eq!((day(seconds), day(seconds + 86_399)), (text.to_owned(), text.to_owned()));
        }
        assert_eq!(day(u64::MAX), "9999-12-31");
    }

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

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(written(1_795_392_000), "2026-11-23T00:00:00Z");
        for day in (0..40_000).step_by(7) {
            let seconds = day * 86_400 + 3723;
            assert_eq!(begin_of(&written(seconds)), Some(seconds), "{}", written(seconds));
        }
        for text in ["1970-01-01T00:00:00Z", "2000-02-29T23:59:59Z", "2100-03-01T00:00:00Z", "2024-12-31T12:00:01Z"] {
            assert_eq!(written(begin_of(text).unwrap()), text);
        }
    }
}
