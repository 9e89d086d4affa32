//! Amounts, times and values as people read them.

use cocoon_contracts::decode::{Field, Value};
use cocoon_contracts::{Address, friendly};

use super::html::Html;

/// An amount of nanotons in TON, without zeros at its end.
pub(super) fn ton(nanotons: u128) -> String {
    let (whole, rest) = (nanotons / 1_000_000_000, nanotons % 1_000_000_000);
    let rest = format!("{rest:09}");
    match rest.trim_end_matches('0') {
        "" => format!("{whole} TON"),
        rest => format!("{whole}.{rest} TON"),
    }
}

/// Unix time in seconds as a date in UTC (days to civil date: H. Hinnant's algorithm, era by era of 400 years).
pub(super) fn time(seconds: u32) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153; // months from March
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u32::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{:02} UTC", second % 60)
}

/// An account with its page behind it.
pub(super) fn account(html: &mut Html, address: &Address) {
    html.link("value", &format!("/account/{address}"), &friendly(address, true));
}

/// A name and what stands for it.
pub(super) fn fact(html: &mut Html, name: &str, inside: impl FnOnce(&mut Html)) {
    html.say("dt", "", name);
    html.element("dd", "", inside);
}

/// Decoded fields, within a list of facts.
pub(super) fn fields(html: &mut Html, fields: &[Field]) {
    for (name, value) in fields {
        fact(html, name, |html| match value {
            Value::Amount(nanotons) => html.text(&ton(u128::from(*nanotons))),
            Value::Number(number) => html.text(&number.to_string()),
            Value::Time(seconds) => html.text(&time(*seconds)),
            Value::Account(address) => account(html, address),
            Value::Bytes(bytes) => html.say("span", "value", &hex::encode(bytes)),
            Value::Text(text) => html.text(text),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact() {
        for (nanotons, text) in [
            (0, "0 TON"),
            (1, "0.000000001 TON"),
            (1_500_000_000, "1.5 TON"),
            (1_000_000_000_000_000_000, "1000000000 TON"),
        ] {
            assert_eq!(ton(nanotons), text);
        }
    }

    #[test]
    fn times_are_dates() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_777_500_000, "2026-04-29 22:00:00 UTC"),
            (u32::MAX, "2106-02-07 06:28:15 UTC"),
        ] {
            assert_eq!(time(seconds), text);
        }
    }
}
