//! Wallets, version 4 release 2: addresses and signed transfers.
//!
//! The code, the data and the layout of requests are those of `ton-contracts`; messages are laid out by tycho-types, since
//! tlb-ton 0.11 cannot place some bodies beside a header. Keys stay in [`SigningKey`]: the crate's own key pair, which can be
//! printed and copied, is not used.

use std::sync::{Arc, LazyLock};

use tlb_ton::bits::NoArgs;
use tlb_ton::ser::CellSerializeExt;
use tlb_ton::{BagOfCellsArgs, BoC};
use ton_contracts::wallet::WalletVersion as _;
use ton_contracts::wallet::v4r2::V4R2;
use tycho_types::boc::Boc;
use tycho_types::cell::Cell;
use tycho_types::models::StateInit;

use super::{SEND_MODE, Transfer, Validity, WalletVersion, address_of, internal_message};
use crate::{Address, Malformed, SigningKey, VerifyingKey, build_cell};

/// Most transfers in one external message: each is a reference of the signed cell.
pub const MAX_TRANSFERS: usize = 4;
/// The request to send, `WalletV4R2Op::Send`.
const SEND: u8 = 0;

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
    let messages = transfers.iter().map(internal_message).collect::<Result<Vec<_>, _>>()?;
    let request = build_cell(|b| {
        b.store_u32(V4R2::DEFAULT_WALLET_ID)?;
        b.store_u32(valid_until)?;
        b.store_u32(seqno)?;
        b.store_u8(SEND)?;
        messages.into_iter().try_for_each(|message| {
            b.store_u8(SEND_MODE)?;
            b.store_reference(message)
        })
    });
    let signature = key.sign(&request.repr_hash().0);
    Ok(build_cell(|b| {
        b.store_raw(&signature, 512)?;
        b.store_slice(request.as_slice()?)
    }))
}

/// Reads the sequence number out of a wallet's data cell.
pub fn seqno(data: &Cell) -> Result<u32, Malformed> {
    data.as_slice()
        .and_then(|mut slice| slice.load_u32())
        .map_err(|error| Malformed::new("wallet data", error))
}

/// Between the two libraries' cells: through the bytes that both agree on.
fn from_tlb(cell: &tlb_ton::Cell) -> Cell {
    let bytes = BoC::from_root(Arc::new(cell.clone()))
        .serialize(BagOfCellsArgs::default())
        .expect("a cell tree built here serialises");
    Boc::decode(bytes).expect("both libraries write the same format")
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

    fn transfer(amount: u64, body: Option<Cell>) -> Transfer {
        let to = crate::message::basechain([9; 32]);
        Transfer { to, amount, bounce: true, body, state_init: None }
    }

    #[test]
    fn a_request_is_laid_out_as_ton_contracts_does() {
        use tlb_ton::message::{CommonMsgInfo, Message};
        let key = SigningKey::from_seed(&[5; 32]);
        let ours = signed_body(&key, 7, 1_780_000_000, &[transfer(5, None), transfer(6, None)]).unwrap();
        let action = |amount: u64| tlb_ton::action::SendMsgAction {
            mode: SEND_MODE,
            message: Message {
                info: CommonMsgInfo::transfer(
                    tlb_ton::MsgAddress { workchain_id: 0, address: [9; 32] },
                    num_bigint::BigUint::from(amount),
                    true,
                ),
                init: None,
                body: tlb_ton::Cell::default(),
            },
        };
        let request =
            V4R2::create_sign_body(V4R2::DEFAULT_WALLET_ID, 1_780_000_000, 7, [action(5), action(6)]);
        let hash = request.to_cell(NoArgs::EMPTY).unwrap().hash();
        let theirs = V4R2::wrap_signed_external(request, key.sign(&hash)).to_cell(NoArgs::EMPTY).unwrap();
        assert_eq!(ours, from_tlb(&theirs));
    }

    #[test]
    fn a_body_is_carried_whatever_the_amount_leaves_of_the_cell() {
        let key = SigningKey::from_seed(&[5; 32]);
        for bits in 0..=1023 {
            let body = build_cell(|b| b.store_zeros(bits));
            for amount in [0, 19_999_999, u64::MAX] {
                let made = signed_body(&key, 7, 1_780_000_000, &[transfer(amount, Some(body.clone()))]);
                assert!(made.is_ok(), "{bits} bits, {amount} nanotons");
            }
        }
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
