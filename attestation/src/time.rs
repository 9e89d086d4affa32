//! Time as an argument.

use serde::{Deserialize, Serialize};

/// Seconds since 1970-01-01T00:00:00Z. Always given by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// Parses the only form Intel uses: `2026-03-16T22:06:09Z`. Years 1970 to 9999.
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let b = text.as_bytes();
        let punctuation = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'Z')];
        if b.len() != 20 || punctuation.iter().any(|&(at, byte)| b[at] != byte) {
            return None;
        }
        let (year, month, day) = (digits(&b[0..4])?, digits(&b[5..7])?, digits(&b[8..10])?);
        let (hour, minute, second) = (digits(&b[11..13])?, digits(&b[14..16])?, digits(&b[17..19])?);
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let days = days_since_epoch(year, month, day)?;
        Some(Self(days * 86_400 + hour * 3_600 + minute * 60 + second))
    }

    /// Parses a calendar day `2026-12-31` as its last second in UTC.
    pub fn end_of_day(text: &str) -> Option<Self> {
        Self::from_rfc3339(&format!("{text}T23:59:59Z"))
    }
}

impl std::fmt::Display for UnixTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (days, rest) = (self.0 / 86_400, self.0 % 86_400);
        let (year, month, day) = civil_from_days(days);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
            rest / 3600,
            rest % 3600 / 60,
            rest % 60
        )
    }
}

fn digits(bytes: &[u8]) -> Option<u64> {
    bytes.iter().try_fold(0, |sum, b| b.is_ascii_digit().then(|| sum * 10 + u64::from(b - b'0')))
}

fn days_in_month(year: u64, month: u64) -> u64 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_since_epoch(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || day == 0 || day > days_in_month(year, month) {
        return None;
    }
    // Days before this year, counting leap days since year 0; 719_528 days lie before 1970.
    let before = year - 1;
    let days_to_year = year * 365 + before / 4 - before / 100 + before / 400 + 1;
    let days_to_month: u64 = (1..month).map(|m| days_in_month(year, m)).sum();
    Some(days_to_year - 719_528 + days_to_month + day - 1)
}

fn civil_from_days(days: u64) -> (u64, u64, u64) {
    // Howard Hinnant's algorithm, for days since 1970-01-01; saturates far beyond any date in use.
    let z = days.min(4_000_000_000) + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_round_trip_over_centuries() {
        for secs in (0..253_402_300_800).step_by(86_400 * 13 + 3_601) {
            let text = UnixTime(secs).to_string();
            assert_eq!(UnixTime::from_rfc3339(&text), Some(UnixTime(secs)), "{text}");
        }
    }

    #[test]
    fn known_dates_have_their_seconds() {
        assert_eq!(UnixTime::from_rfc3339("1970-01-01T00:00:00Z"), Some(UnixTime(0)));
        assert_eq!(UnixTime::from_rfc3339("2026-03-16T22:06:09Z"), Some(UnixTime(1_773_698_769)));
        assert_eq!(UnixTime::from_rfc3339("2000-02-29T00:00:00Z"), Some(UnixTime(951_782_400)));
    }

    #[test]
    fn impossible_dates_are_refused() {
        for text in [
            "",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00+00:00",
            "2026-01-01 00:00:00Z",
            "1969-12-31T23:59:59Z",
        ] {
            assert_eq!(UnixTime::from_rfc3339(text), None, "{text}");
        }
    }
}
