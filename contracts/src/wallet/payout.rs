//! The wallet for whoever pays many people often, `payout.tolk`: 255 transfers in one signed message, for no more gas than one.
//!
//! It hands its list to the network as it was signed; nothing on chain looks at it. So the list that is built here is the
//! whole care: every action is a send that skips what cannot be paid, and a list that the network refuses is never signed.

use std::sync::LazyLock;

use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellFamily, HashBytes, Store as _};
use tycho_types::models::StateInit;

use super::{Transfer, Validity, address_of, out_list};
use crate::{Malformed, SigningKey, VerifyingKey, build_cell};

/// Most transfers in one message: as many actions as TVM carries out.
pub const MAX_TRANSFERS: usize = 255;
/// How far ahead of the chain's clock a message's validity may end, in seconds (`MAX_VALID_SECONDS`).
pub const MAX_VALID_SECONDS: u32 = 3600;
/// The tag of what is signed, `Order`.
const ORDER: u32 = 0x5059_0001;

static CODE: LazyLock<Cell> = LazyLock::new(|| {
    Boc::decode(include_bytes!("../../payout.boc")).expect("the committed code is a valid bag of cells")
});

/// The hash of the wallet's code.
pub fn code_hash() -> [u8; 32] {
    CODE.repr_hash().0
}

/// What an exit code of the wallet means (`PayoutError`).
pub fn exit_code_meaning(code: i32) -> Option<&'static str> {
    Some(match code {
        0x500 => "the order's number is not the wallet's next",
        0x501 => "the order has expired",
        0x502 => "the order would be valid for more than an hour",
        0x503 => "the order is for another network",
        0x504 => "the order is for another wallet",
        0x505 => "the order's signature is not the owner's",
        _ => return None,
    })
}

/// The wallet's code and first data: seqno 0 and the key. The same on every network; orders name theirs.
pub fn state_init(key: &VerifyingKey) -> StateInit {
    let data = build_cell(|b| {
        b.store_u32(0)?;
        b.store_u256(&HashBytes(*key))
    });
    StateInit { code: Some(CODE.clone()), data: Some(data), ..Default::default() }
}

/// Reads the sequence number out of a wallet's data cell: it stands first.
///
/// # Errors
/// If the cell is too short.
pub fn seqno(data: &Cell) -> Result<u32, Malformed> {
    data.as_slice()
        .and_then(|mut slice| slice.load_u32())
        .map_err(|error| Malformed::new("wallet data", error))
}

/// The body of the external message: the signature, and behind a reference the order whose hash it covers.
pub(crate) fn signed_body(
    key: &SigningKey,
    network: i32,
    validity: Validity,
    transfers: &[Transfer],
) -> Result<Cell, Malformed> {
    let actions = out_list(transfers)?;
    let wallet = address_of(&state_init(&key.public()));
    let order = build_cell(|b| {
        b.store_u32(ORDER)?;
        b.store_u32(network.cast_unsigned())?;
        wallet.store_into(b, Cell::empty_context())?;
        b.store_u32(validity.seqno)?;
        b.store_u32(validity.valid_until)?;
        b.store_reference(actions)
    });
    let signature = key.sign(&order.repr_hash().0);
    Ok(build_cell(|b| {
        b.store_raw(&signature, 512)?;
        b.store_reference(order)
    }))
}
