//! Cells as bytes: bags of cells with limits.

use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, HashBytes};

use crate::{Address, Malformed};

/// The largest message that a network accepts from outside, in bytes (`max_ext_msg_size` of the size limits).
pub const MAX_MESSAGE_BYTES: usize = 65_535;

/// A cell tree as a bag of cells.
pub fn encode(cell: &Cell) -> Vec<u8> {
    Boc::encode(cell)
}

/// Reads a bag of one root, at most `limit` bytes long.
pub fn decode(bytes: &[u8], limit: usize) -> Result<Cell, Malformed> {
    if bytes.len() > limit {
        let why = format!("{} bytes are more than the limit of {limit}", bytes.len());
        return Err(Malformed::new("bag of cells", why));
    }
    Boc::decode(bytes).map_err(|error| Malformed::new("bag of cells", error))
}

/// An address in workchain 0.
pub fn basechain(hash: [u8; 32]) -> Address {
    Address::new(0, HashBytes(hash))
}
