//! Stakes as people write them.

use cocoon_contracts::Nanotons;
use cocoon_contracts::bond::MIN_STAKE;

use crate::wallet::parse_ton;

/// Reads a stake such as `1` or `2.5` TON.
pub(crate) fn parse_stake(text: &str) -> Result<Nanotons, String> {
    match parse_ton(text)? {
        enough @ MIN_STAKE.. => Ok(enough),
        _ => Err("a stake is at least 1 TON".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use cocoon_contracts::TON;

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
