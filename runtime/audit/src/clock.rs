//! Wall time as RFC 3339 in UTC, and the two clocks that a record carries.
use crate::TrailError;
use nix::time::{ClockId, clock_gettime};

pub(crate) struct Stamp {
    /// Nanoseconds since the epoch; 0 when the clock stands before it.
    pub(crate) wall_ns: u128,
    pub(crate) boottime_ns: u64,
}

pub(crate) fn now() -> Result<Stamp, TrailError> {
    let ns = |clock: ClockId| -> Result<u128, TrailError> {
        let t = clock_gettime(clock).map_err(TrailError::sys("clock_gettime"))?;
        let whole = u128::try_from(t.tv_sec()).unwrap_or(0);
        Ok(whole * 1_000_000_000 + u128::try_from(t.tv_nsec()).unwrap_or(0))
    };
    Ok(Stamp {
        wall_ns: ns(ClockId::CLOCK_REALTIME)?,
        boottime_ns: u64::try_from(ns(ClockId::CLOCK_BOOTTIME)?).unwrap_or(u64::MAX),
    })
}

/// Nanoseconds since the epoch as `2026-01-31T23:59:59.123456789Z`. Years above 9999 are shown as they are.
#[must_use]
pub fn rfc3339(ns: u128) -> String {
    let (seconds, fraction) = (u64::try_from(ns / 1_000_000_000).unwrap_or(u64::MAX), ns % 1_000_000_000);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{fraction:09}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Seconds since the epoch of an RFC 3339 date or date-time in UTC (`Z`, or no zone at all).
pub(crate) fn parse_rfc3339(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, time) = text.split_once('T').unwrap_or((text, "00:00:00"));
    let [year, month, day] = numbers(date, '-', &[4, 2, 2])?;
    let time = match time.split_once('.') {
        None => time,
        Some((whole, fraction)) if !fraction.is_empty() && fraction.bytes().all(|b| b.is_ascii_digit()) => whole,
        Some(_) => return None,
    };
    let [hour, minute, second] = numbers(time, ':', &[2, 2, 2])?;
    if hour > 23 || minute > 59 || second > 59 || !(1970..=9999).contains(&year) || !(1..=12).contains(&month) {
        return None;
    }
    // Days before this year, then this month; checked by turning them back.
    let mut days = (year - 1970) * 365 + leaps(year - 1) - leaps(1969);
    for m in 1..month {
        days += length(year, m);
    }
    days += day.checked_sub(1).filter(|d| *d < length(year, month))?;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

/// A moment for `--since`: `90s`, `15m`, `1h`, `7d` before `now` (seconds since the epoch), or RFC 3339 in UTC.
#[must_use]
pub fn parse_since(text: &str, now: u64) -> Option<u64> {
    let unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return parse_rfc3339(text),
    };
    let number = text.get(..text.len() - 1)?;
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(now.saturating_sub(number.parse::<u64>().ok()?.checked_mul(unit)?))
}

fn numbers<const N: usize>(text: &str, separator: char, widths: &[usize; N]) -> Option<[u64; N]> {
    let mut out = [0; N];
    let mut parts = text.split(separator);
    for (slot, width) in out.iter_mut().zip(widths) {
        let part = parts.next().filter(|p| p.len() == *width && p.bytes().all(|b| b.is_ascii_digit()))?;
        *slot = part.parse().ok()?;
    }
    parts.next().is_none().then_some(out)
}

fn leaps(year: u64) -> u64 {
    year / 4 - year / 100 + year / 400
}

fn length(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + (leaps(year) - leaps(year - 1)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn civil(mut days: u64) -> (u64, u64, u64) {
    // 146,097 days are 400 years; the loops below run at most 400 + 12 times.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    loop {
        let in_year = 365 + leaps(year) - leaps(year - 1);
        if days < in_year {
            break;
        }
        days -= in_year;
        year += 1;
    }
    let mut month = 1;
    while days >= length(year, month) {
        days -= length(year, month);
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_moments() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(951_827_696_000_000_007), "2000-02-29T12:34:56.000000007Z");
        assert_eq!(rfc3339(1_798_761_599_999_999_999), "2026-12-31T23:59:59.999999999Z");
        assert_eq!(parse_rfc3339("2000-02-29T12:34:56Z"), Some(951_827_696));
        assert_eq!(parse_rfc3339("2026-01-01"), Some(1_767_225_600));
        for bad in [
            "2100-02-29",
            "2026-13-01",
            "2026-00-01",
            "2026-01-00",
            "2026-1-1",
            "2026-01-01T24:00:00",
            "",
            "x",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00+01:00",
            "2026-01-01T00:00",
            "1969-12-31",
        ] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }

    #[test]
    fn since() {
        assert_eq!(parse_since("1h", 10_000), Some(6_400));
        assert_eq!(parse_since("7d", 10), Some(0));
        assert_eq!(parse_since("1970-01-02", 0), Some(86_400));
        for bad in ["h", "-1h", "1.5h", "99999999999999999999d", "1w", ""] {
            assert_eq!(parse_since(bad, 0), None, "{bad}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn there_and_back(seconds in 0u64..253_402_300_800) {
            prop_assert_eq!(parse_rfc3339(&rfc3339(u128::from(seconds) * 1_000_000_000)), Some(seconds));
        }
    }
}
