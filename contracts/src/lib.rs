//! The rules on chain, and the Rust words for them.
//!
//! `channel.tolk`, `registry.tolk` and `bond.tolk` are the rules; their compiled code is committed beside them and pinned by
//! `contracts.lock`. This crate builds and reads their messages and data, signs and verifies vouchers, and builds the
//! messages of a wallet. It is pure: no clock, no files, no sockets. Times and balances are arguments.
//!
//! Amounts are [`Nanotons`], integers everywhere. (The network renamed its coin from Toncoin to Gram in 2026; the unit
//! did not change.)

pub mod address;
mod amount;
pub mod bond;
pub mod channel;
pub mod decode;
pub mod keys;
pub mod liabilities;
pub mod message;
pub mod registry;
pub mod voucher;
pub mod wallet;

pub use address::{
    Address, AddressError, MAINNET, Recipient, RecipientError, TESTNET, friendly, friendly_on, parse_address,
    parse_recipient,
};
pub use amount::InTon;
pub use keys::{KeyError, SigningKey, VerifyingKey, check_key, verify_signature};
pub use tycho_types::cell::Cell;
pub use voucher::{SignedVoucher, VerifiedVoucher, Voucher, VoucherError};

/// An amount of the network's coin: 10⁻⁹ of one TON.
pub type Nanotons = u64;

/// One TON in [`Nanotons`].
pub const TON: Nanotons = 1_000_000_000;

/// A cell tree that does not have the shape its reader expects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is malformed: {why}")]
pub struct Malformed {
    /// What was read, such as `channel data`.
    pub what: &'static str,
    /// What was wrong with it.
    pub why: String,
}

impl Malformed {
    pub(crate) fn new(what: &'static str, why: impl std::fmt::Display) -> Self {
        Self { what, why: why.to_string() }
    }
}

/// Builds a cell whose content is known to fit: all our layouts are far below 1023 bits and 4 references.
pub(crate) fn build_cell(
    store: impl FnOnce(&mut tycho_types::cell::CellBuilder) -> Result<(), tycho_types::error::Error>,
) -> Cell {
    let mut builder = tycho_types::cell::CellBuilder::new();
    store(&mut builder).expect("the layout fits in one cell");
    builder.build().expect("a small ordinary cell is valid")
}
