//! Values in the JSON of both versions.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cocoon_contracts::{Cell, Nanotons, message};
use serde::Deserialize;

use super::fault::Fault;

/// The largest account state or transaction, as a bag of cells.
const MAX_BAG_BYTES: usize = 2 << 20;

/// Reads a bag of cells in base64.
pub(crate) fn bag(text: &str) -> Result<Cell, Fault> {
    let bytes = BASE64.decode(text).map_err(Fault::nonsense)?;
    message::decode(&bytes, MAX_BAG_BYTES).map_err(Fault::nonsense)
}

/// As [`bag`]; an empty text is no cell.
pub(crate) fn optional_bag(text: Option<&str>) -> Result<Option<Cell>, Fault> {
    text.filter(|text| !text.is_empty()).map(bag).transpose()
}

/// Reads a hash in base64.
pub(crate) fn hash(text: &str) -> Result<[u8; 32], Fault> {
    let bytes = BASE64.decode(text).map_err(Fault::nonsense)?;
    bytes.try_into().map_err(|_| Fault::nonsense("a hash is not 32 bytes"))
}

/// Amounts and times are numbers or texts, as the method likes.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Number {
    Unsigned(u64),
    Signed(i64),
    Text(String),
}

impl Number {
    /// The number, if it is one and not negative.
    pub(crate) fn unsigned(&self) -> Result<u64, Fault> {
        match self {
            Self::Unsigned(value) => Ok(*value),
            Self::Signed(value) => u64::try_from(*value).map_err(|_| Fault::nonsense("a number is negative")),
            Self::Text(text) => text.parse().map_err(|_| Fault::nonsense("a number is none")),
        }
    }

    /// An amount. "-1" is how toncenter v2 says that there is no such account.
    pub(crate) fn nanotons(&self) -> Result<Nanotons, Fault> {
        match self {
            Self::Signed(-1) => Ok(0),
            Self::Text(text) if text == "-1" => Ok(0),
            number => number.unsigned(),
        }
    }
}
