//! Account addresses in both of their spellings.

use tycho_types::models::StdAddrFormat;

/// An account: workchain and hash. `Display` and `FromStr` are the raw spelling, `0:` and 64 hex digits.
pub use tycho_types::models::StdAddr as Address;

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an address: expected 0:<64 hex digits> or the 48 characters of the friendly form")]
pub struct AddressError {
    /// The text, cut short when it is long.
    pub text: String,
}

/// Longest text that an error repeats.
const MAX_ECHO: usize = 80;

/// Reads an address in the raw form (`0:…`) or in the friendly one (48 characters of base64, its checksum verified).
pub fn parse_address(text: &str) -> Result<Address, AddressError> {
    match Address::from_str_ext(text, StdAddrFormat::any()) {
        Ok((address, _)) if address.anycast.is_none() => Ok(address),
        _ => Err(AddressError { text: text.chars().take(MAX_ECHO).collect() }),
    }
}

/// The friendly form, URL-safe: `EQ…` for contracts (bounceable), `UQ…` for wallets.
pub fn friendly(address: &Address, bounceable: bool) -> String {
    address.display_base64_url(bounceable).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_spellings() {
        let raw = "0:527964d55cfa6eb731f4bfc07e9d025098097ef8505519e853986279bd8400d8";
        let address = parse_address(raw).unwrap();
        assert_eq!(address.to_string(), raw);
        for bounceable in [false, true] {
            assert_eq!(parse_address(&friendly(&address, bounceable)).unwrap(), address);
        }
    }

    #[test]
    fn refuses_what_is_no_address() {
        let good = friendly(&Address::ZERO, true);
        let mut wrong_checksum = good.clone();
        wrong_checksum.replace_range(10..11, "B");
        for text in ["", "0:12", "x", &wrong_checksum, &"é".repeat(24), &"9".repeat(500)] {
            let error = parse_address(text).unwrap_err();
            assert!(error.text.len() <= MAX_ECHO * 4);
        }
    }
}
