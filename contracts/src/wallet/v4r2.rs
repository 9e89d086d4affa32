//! Wallets, version 4 release 2: addresses and signed transfers.
//!
//! The code and the layouts are those of `ton-contracts`. Keys stay in [`SigningKey`]: the crate's own key pair, which
//! can be printed and copied, is not used.

use std::sync::{Arc, LazyLock};

use num_bigint::BigUint;
use tlb_ton::bits::NoArgs;
use tlb_ton::message::{CommonMsgInfo, Message};
use tlb_ton::ser::CellSerializeExt;
use tlb_ton::state_init::StateInit as TlbStateInit;
use tlb_ton::{BagOfCellsArgs, BoC, MsgAddress};
use ton_contracts::wallet::WalletVersion as _;
use ton_contracts::wallet::v4r2::V4R2;
use tycho_types::boc::Boc;
use tycho_types::cell::Cell;
use tycho_types::models::StateInit;

use super::{SEND_MODE, Transfer, Validity, WalletVersion, address_of};
use crate::{Address, Malformed, SigningKey, VerifyingKey};

/// Most transfers in one external message: each is a reference of the signed cell.
pub const MAX_TRANSFERS: usize = 4;

static CODE: LazyLock<Cell> = LazyLock::new(|| from_tlb(&V4R2::code()));

/// The hash of the wallet's code.
pub fn code_hash() -> [u8; 32] {
    CODE.repr_hash().0
}

/// The wallet's address.
pub fn address(key: &VerifyingKey) -> Address {
    address_of(&state_init(key))
}

/// The wallet's code and first data.
pub fn state_init(key: &VerifyingKey) -> StateInit {
    let data = V4R2::init_data(V4R2::DEFAULT_WALLET_ID, *key)
        .to_cell(NoArgs::EMPTY)
        .expect("a wallet's data fits in a cell");
    StateInit { code: Some(CODE.clone()), data: Some(from_tlb(&data)), ..Default::default() }
}

/// The external message that makes the wallet pay. `seqno` must be the wallet's; `valid_until` is Unix time, after which
/// the wallet refuses it; `deploy` attaches the wallet's code, for its first message.
///
/// # Errors
/// As [`WalletVersion::sign`].
pub fn external_message(
    key: &SigningKey,
    seqno: u32,
    valid_until: u32,
    deploy: bool,
    transfers: &[Transfer],
) -> Result<Cell, Malformed> {
    let validity = Validity { seqno, valid_until, deploy };
    // v4r2's address is the same on every network.
    WalletVersion::V4R2.sign(key, 0, validity, transfers).map(|signed| signed.message)
}

/// The body of the external message: the signature, and behind it the request that it covers by its cell's hash.
pub(crate) fn signed_body(
    key: &SigningKey,
    seqno: u32,
    valid_until: u32,
    transfers: &[Transfer],
) -> Result<Cell, Malformed> {
    let malformed = |error: &dyn std::fmt::Display| Malformed::new("wallet message", error);
    let actions = transfers.iter().map(action).collect::<Result<Vec<_>, _>>()?;
    let body = V4R2::create_sign_body(V4R2::DEFAULT_WALLET_ID, valid_until, seqno, actions);
    let hash = body.to_cell(NoArgs::EMPTY).map_err(|error| malformed(&error))?.hash();
    let signed = V4R2::wrap_signed_external(body, key.sign(&hash));
    Ok(from_tlb(&signed.to_cell(NoArgs::EMPTY).map_err(|error| malformed(&error))?))
}

/// Reads the sequence number out of a wallet's data cell.
pub fn seqno(data: &Cell) -> Result<u32, Malformed> {
    data.as_slice()
        .and_then(|mut slice| slice.load_u32())
        .map_err(|error| Malformed::new("wallet data", error))
}

fn action(transfer: &Transfer) -> Result<tlb_ton::action::SendMsgAction, Malformed> {
    let init = transfer.state_init.as_ref().map(|init| {
        Ok::<_, Malformed>(TlbStateInit {
            code: init.code.as_ref().map(to_tlb).transpose()?,
            data: init.data.as_ref().map(to_tlb).transpose()?,
            ..Default::default()
        })
    });
    Ok(tlb_ton::action::SendMsgAction {
        mode: SEND_MODE,
        message: Message {
            info: CommonMsgInfo::transfer(
                tlb_address(&transfer.to),
                BigUint::from(transfer.amount),
                transfer.bounce,
            ),
            init: init.transpose()?,
            body: transfer.body.as_ref().map(to_tlb).transpose()?.unwrap_or_default(),
        },
    })
}

fn tlb_address(address: &Address) -> MsgAddress {
    MsgAddress { workchain_id: i32::from(address.workchain), address: address.address.0 }
}

/// Between the two libraries' cells: through the bytes that both agree on.
fn from_tlb(cell: &tlb_ton::Cell) -> Cell {
    let bytes = BoC::from_root(Arc::new(cell.clone()))
        .serialize(BagOfCellsArgs::default())
        .expect("a cell tree built here serialises");
    Boc::decode(bytes).expect("both libraries write the same format")
}

fn to_tlb(cell: &Cell) -> Result<tlb_ton::Cell, Malformed> {
    let bag = BoC::deserialize(Boc::encode(cell)).map_err(|error| Malformed::new("message body", error))?;
    let root = bag.into_single_root().ok_or_else(|| Malformed::new("message body", "no root"))?;
    Ok(Arc::unwrap_or_clone(root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_the_official_one() {
        // Published hash of the v4r2 code, as explorers and ton-core know it.
        assert_eq!(
            hex::encode(code_hash()),
            "feb5ff6820e2ff0d9483e7e0d62c817d846789fb4ae580c878866d959dabd5c0"
        );
    }

    #[test]
    fn the_address_is_what_ton_contracts_and_ton_ton_derive() {
        let key = SigningKey::from_seed(&[5; 32]);
        // @ton/ton 16.3: `WalletContractV4.create({workchain: 0, publicKey}).address`.
        assert_eq!(
            address(&key.public()).to_string(),
            "0:c407047cd223cc106d4aea6ed9b5b0b3180ff75c2365b60de873727fdf4c3836"
        );
        let pair = ton_contracts::wallet::KeyPair::new([0; 64], key.public());
        let theirs = ton_contracts::wallet::Wallet::<V4R2>::derive_default(pair).unwrap().address();
        assert_eq!(theirs.to_hex(), address(&key.public()).to_string());
    }
}
