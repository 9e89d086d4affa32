//! Account addresses in both of their spellings.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE;
use tycho_types::models::{Base64StdAddrFlags, DisplayBase64StdAddr, StdAddrFormat};

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

/// The friendly form for a network: on testnet with the flag that keeps it away from mainnet.
pub fn friendly_on(address: &Address, bounceable: bool, network: i32) -> String {
    let testnet = network == TESTNET;
    let flags = Base64StdAddrFlags { testnet, base64_url: true, bounceable };
    DisplayBase64StdAddr { addr: address, flags }.to_string()
}

/// Mainnet's global id.
pub const MAINNET: i32 = -239;
/// Testnet's global id.
pub const TESTNET: i32 = -3;

/// Whom somebody wants to pay, as written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// The account.
    pub address: Address,
    /// Whether money must come back if the account cannot handle it; the raw form does not say.
    pub bounce: Option<bool>,
}

/// Why a text names nobody who can be paid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    /// It is no address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The address says that it must not be used on mainnet.
    #[error("`{0}` is an address for testnets only, and this is mainnet")]
    TestOnly(String),
    /// An address of another workchain: the network's contracts and wallets are in workchain 0.
    #[error("`{0}` is not in workchain 0")]
    Workchain(String),
}

/// Reads an address that is to be paid on a network, with what its friendly form says of how.
pub fn parse_recipient(text: &str, network: i32) -> Result<Recipient, RecipientError> {
    let address = parse_address(text)?;
    let named = || text.chars().take(MAX_ECHO).collect::<String>();
    if address.workchain != 0 {
        return Err(RecipientError::Workchain(named()));
    }
    if text.contains(':') {
        return Ok(Recipient { address, bounce: None });
    }
    // The first byte (TEP-2): 0x11 bounceable, 0x51 not, and 0x80 beside it for testnets.
    let tag = BASE64_URL_SAFE.decode(text.get(..4).unwrap_or_default().replace('+', "-").replace('/', "_"));
    let tag = tag.ok().and_then(|bytes| bytes.first().copied()).unwrap_or_default();
    let bounce = match tag & 0x7f {
        0x11 => true,
        0x51 => false,
        _ => return Err(AddressError { text: named() }.into()),
    };
    if tag & 0x80 != 0 && network == MAINNET {
        return Err(RecipientError::TestOnly(named()));
    }
    Ok(Recipient { address, bounce: Some(bounce) })
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

    #[test]
    fn a_recipient_says_whether_money_may_bounce_and_where_it_counts() {
        let address =
            parse_address("0:527964d55cfa6eb731f4bfc07e9d025098097ef8505519e853986279bd8400d8").unwrap();
        for bounceable in [false, true] {
            let main = friendly_on(&address, bounceable, MAINNET);
            assert_eq!(main, friendly(&address, bounceable));
            let test = friendly_on(&address, bounceable, TESTNET);
            assert!(test.starts_with(if bounceable { 'k' } else { '0' }), "{test}");
            let expected = Recipient { address: address.clone(), bounce: Some(bounceable) };
            for (text, network) in [(&main, MAINNET), (&main, TESTNET), (&test, TESTNET), (&test, -217)] {
                assert_eq!(parse_recipient(text, network).as_ref(), Ok(&expected));
            }
            let error = parse_recipient(&test, MAINNET).unwrap_err();
            assert!(matches!(error, RecipientError::TestOnly(_)), "{error}");
        }
        let raw = Recipient { address: address.clone(), bounce: None };
        assert_eq!(parse_recipient(&address.to_string(), MAINNET), Ok(raw));
        let masterchain = Address::new(-1, address.address);
        for text in [masterchain.to_string(), friendly(&masterchain, true)] {
            assert!(matches!(parse_recipient(&text, MAINNET), Err(RecipientError::Workchain(_))), "{text}");
        }
        for text in ["", "x", "EQ", "0:12"] {
            assert!(matches!(parse_recipient(text, MAINNET), Err(RecipientError::Address(_))), "{text}");
        }
    }

    #[test]
    fn a_first_byte_that_means_nothing_is_refused() {
        let mut bytes = vec![0x31, 0];
        bytes.extend_from_slice(&[9; 32]);
        let crc = tycho_types::crc::crc_16(&bytes);
        bytes.extend_from_slice(&crc.to_be_bytes());
        let text = BASE64_URL_SAFE.encode(&bytes);
        assert!(parse_address(&text).is_ok());
        assert!(parse_recipient(&text, MAINNET).is_err());
    }
}
