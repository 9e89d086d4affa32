//! Amounts as people write them: TON with at most nine decimals, read as an integer of nanotons and never as a float.

use cocoon_contracts::Nanotons;

/// Reads `1`, `0.5` or `12.000000001` TON.
pub(crate) fn parse_ton(text: &str) -> Result<Nanotons, String> {
    let wrong = || "an amount in TON was expected, such as 1 or 0.25, with at most nine decimals".to_owned();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return Err(wrong());
    }
    let too_much = || "that is more than all the coins there are".to_owned();
    let whole: Nanotons = whole.parse().map_err(|_| too_much())?;
    let fraction: Nanotons = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
    whole.checked_mul(cocoon_contracts::TON).and_then(|n| n.checked_add(fraction)).ok_or_else(too_much)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::ton;

    #[test]
    fn every_nanoton_is_read_as_it_is_written() {
        for nanotons in [0, 1, 999_999_999, 1_000_000_000, 123_456_789_012, u64::MAX] {
            assert_eq!(parse_ton(&ton(nanotons)), Ok(nanotons));
        }
        assert_eq!(parse_ton("0.1"), Ok(100_000_000));
        assert_eq!(parse_ton("007.50"), Ok(7_500_000_000));
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1e9",
            "1,5",
            " 1",
            "1 ",
            "0x1",
            "1.0000000001",
            "1.2.3",
            "١",
            "NaN",
            "18446744073.709551616",
            "99999999999999999999999",
        ] {
            assert!(parse_ton(text).is_err(), "{text:?}");
        }
    }
}
