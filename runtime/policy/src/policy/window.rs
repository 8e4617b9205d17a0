//! When an authority's signatures count.
use super::Authority;
use crate::date;

/// Why an authority's signatures do not count at a time, with the date that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed<'a> {
    NotYet(&'a str),
    Over(&'a str),
}

impl Authority {
    /// It has a window, so that its signatures count only where the time is known.
    #[must_use]
    pub fn is_dated(&self) -> bool {
        self.from.is_some() || self.until.is_some()
    }

    /// Why its signatures do not count at `now`, in seconds since the epoch; None when they do. A date that is none
    /// closes the window: lint refuses it before.
    #[must_use]
    pub fn closed(&self, now: u64) -> Option<Closed<'_>> {
        closed(self.from.as_deref(), self.until.as_deref(), now)
    }

    /// Whether a signature of that trusted time is one of those that count.
    #[must_use]
    pub fn takes(&self, signed_at: Option<u64>) -> bool {
        let Some(least) = self.min_signing_time.as_deref() else { return true };
        date::begin_of(least).zip(signed_at).is_some_and(|(least, at)| at >= least)
    }

    pub(super) fn window(&self, at: &str, out: &mut Vec<String>) {
        dates(at, self.from.as_deref(), self.until.as_deref(), out);
        if self.min_signing_time.as_deref().is_some_and(|text| date::end_of(text).is_none()) {
            out.push(format!("{at}: `min_signing_time` must be YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ"));
        }
    }
}

/// Why a window is closed at `now`.
pub(super) fn closed<'a>(from: Option<&'a str>, until: Option<&'a str>, now: u64) -> Option<Closed<'a>> {
    if let Some(from) = from
        && date::begin_of(from).is_none_or(|begin| now < begin)
    {
        return Some(Closed::NotYet(from));
    }
    let until = until?;
    date::end_of(until).is_none_or(|end| now >= end).then_some(Closed::Over(until))
}

/// Both ends of a window are dates, in their order.
pub(super) fn dates(at: &str, from: Option<&str>, until: Option<&str>, out: &mut Vec<String>) {
    for (key, value) in [("from", from), ("until", until)] {
        if value.is_some_and(|text| date::end_of(text).is_none()) {
            out.push(format!("{at}: `{key}` must be YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ"));
        }
    }
    let (from, until) = (from.and_then(date::begin_of), until.and_then(date::end_of));
    if from.zip(until).is_some_and(|(from, until)| from >= until) {
        out.push(format!("{at}: `until` is over before `from`; nothing that it signs would ever count"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-23, midnight.
    const NOW: u64 = 1_795_392_000;
    const DAY: u64 = 86_400;

    fn authority(from: Option<&str>, until: Option<&str>) -> Authority {
        Authority { from: from.map(str::to_owned), until: until.map(str::to_owned), ..Authority::default() }
    }

    #[test]
    fn windows() {
        let never = authority(None, None);
        assert_eq!((never.is_dated(), never.closed(0), never.closed(u64::MAX)), (false, None, None));
        let from = authority(Some("2026-11-23"), None);
        assert_eq!((from.is_dated(), from.closed(NOW - 1)), (true, Some(Closed::NotYet("2026-11-23"))));
        assert_eq!((from.closed(NOW), from.closed(u64::MAX)), (None, None));
        let until = authority(None, Some("2026-11-23"));
        assert_eq!((until.is_dated(), until.closed(0), until.closed(NOW + DAY - 1)), (true, None, None));
        assert_eq!(until.closed(NOW + DAY), Some(Closed::Over("2026-11-23")));
        let moment = authority(Some("2026-11-23T00:00:10Z"), Some("2026-11-23T00:00:20Z"));
        assert_eq!(moment.closed(NOW + 9), Some(Closed::NotYet("2026-11-23T00:00:10Z")));
        assert_eq!((moment.closed(NOW + 10), moment.closed(NOW + 19)), (None, None));
        assert_eq!(moment.closed(NOW + 20), Some(Closed::Over("2026-11-23T00:00:20Z")));
        assert_eq!(authority(Some("soon"), None).closed(NOW), Some(Closed::NotYet("soon")));
        assert_eq!(authority(None, Some("late")).closed(NOW), Some(Closed::Over("late")));
    }

    #[test]
    fn signing_times() {
        assert!(Authority::default().takes(None) && Authority::default().takes(Some(0)));
        let least = |text: &str| Authority { min_signing_time: Some(text.into()), ..Authority::default() };
        let day = least("2026-11-23");
        assert_eq!((day.takes(None), day.takes(Some(NOW - 1)), day.takes(Some(NOW))), (false, false, true));
        assert!(!least("soon").takes(Some(u64::MAX)));
    }

    #[test]
    fn dates_are_dates_and_in_order() {
        let said = |from: Option<&str>, until: Option<&str>, least: Option<&str>| {
            let mut out = Vec::new();
            Authority { min_signing_time: least.map(str::to_owned), ..authority(from, until) }.window("x", &mut out);
            out
        };
        let none = Vec::<String>::new();
        assert_eq!(said(None, None, None), none);
        assert_eq!(said(Some("2026-11-23"), Some("2026-11-23"), Some("2026-11-23T00:00:00Z")), none);
        let order = ["x: `until` is over before `from`; nothing that it signs would ever count"];
        assert_eq!(said(Some("2026-11-24"), Some("2026-11-23"), None), order);
        assert_eq!(said(Some("2026-11-24T01:00:00Z"), Some("2026-11-24T01:00:00Z"), None), order);
        let date = |key: &str| vec![format!("x: `{key}` must be YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ")];
        assert_eq!(said(Some("soon"), Some("2026-11-23"), None), date("from"));
        assert_eq!(said(None, Some("2026"), None), date("until"));
        assert_eq!(said(None, None, Some("")), date("min_signing_time"));
    }
}
