//! How amounts are shown to people.

use core::fmt;

use crate::{Nanotons, TON};

/// An amount in TON, exact: as many of the nine decimals as it needs. For error messages and pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InTon(pub Nanotons);

impl fmt::Display for InTon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0 / TON, self.0 % TON);
        if fraction == 0 {
            return write!(f, "{whole}");
        }
        write!(f, "{whole}.{}", format!("{fraction:09}").trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_shown_exactly_and_without_idle_zeros() {
        for (nanotons, text) in [
            (0, "0"),
            (1, "0.000000001"),
            (14_250, "0.00001425"),
            (TON, "1"),
            (18_999_019_997, "18.999019997"),
            (u64::MAX, "18446744073.709551615"),
        ] {
            assert_eq!(InTon(nanotons).to_string(), text);
        }
    }
}
