//! Amounts in TON as people write them: at most nine decimals, an integer of nanotons and never a float.

use cocoon_contracts::bond::MIN_STAKE;
use cocoon_contracts::{Nanotons, TON};

/// Reads a stake such as `1` or `2.5` TON.
pub(crate) fn parse_stake(text: &str) -> Result<Nanotons, String> {
    let wrong = || "an amount in TON was expected, such as 1 or 2.5, with at most nine decimals".to_owned();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return Err(wrong());
    }
    let fraction: Nanotons = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
    let whole: Nanotons = whole.parse().map_err(|_| wrong())?;
    let amount = whole.checked_mul(TON).and_then(|whole| whole.checked_add(fraction));
    let amount = amount.ok_or("that is more than all the coins there are")?;
    if amount < MIN_STAKE {
        return Err("a stake is at least 1 TON".to_owned());
    }
    Ok(amount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stake_is_read_to_the_nanoton() {
        assert_eq!(parse_stake("1"), Ok(TON));
        assert_eq!(parse_stake("2.500000001"), Ok(2_500_000_001));
        assert_eq!(parse_stake("18446744073.709551615"), Ok(u64::MAX));
    }

    #[test]
    fn what_is_no_stake_is_refused() {
        for text in
            ["", "0.999999999", "1.", ".5", "-1", "+2", "1e9", "1.0000000001", "18446744073.709551616"]
        {
            assert!(parse_stake(text).is_err(), "{text:?}");
        }
    }
}
