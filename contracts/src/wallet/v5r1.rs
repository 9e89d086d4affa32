//! Wallets, version 5 revision 1, built on tycho-types: 255 transfers in one signed message.
//!
//! The layouts are those of the contract's specification (ton-blockchain/wallet-contract-v5, `types.tlb`). Of its three
//! doors only the external signed one is used: `signed_request` with opcode `sign`, and no extended actions.

use std::sync::LazyLock;

use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, HashBytes};
use tycho_types::models::StateInit;

use super::{Transfer, out_list};
use crate::{Malformed, SigningKey, VerifyingKey, build_cell};

/// Most transfers in one external message: as many actions as TVM carries out.
pub const MAX_TRANSFERS: usize = 255;
/// The external signed request: `sign` in ASCII. It is part of what is signed.
const SIGNED_EXTERNAL: u32 = 0x7369_676e;
/// The context of a wallet id: a client's (bit 31), workchain 0 (8 bits), version 0 = v5r1 (8 bits), subwallet 0 (15 bits).
const CONTEXT: u32 = 1 << 31;

static CODE: LazyLock<Cell> = LazyLock::new(|| {
    Boc::decode(include_bytes!("v5r1.boc")).expect("the committed code is a valid bag of cells")
});

/// The hash of the wallet's code.
pub fn code_hash() -> [u8; 32] {
    CODE.repr_hash().0
}

/// The id that a wallet keeps in its data and asks of every message: the network's global id, XOR the context. So a
/// message of one network means nothing on another.
pub fn wallet_id(network: i32) -> u32 {
    network.cast_unsigned() ^ CONTEXT
}

/// The wallet's code and first data: signatures allowed, seqno 0, id, key, no extensions.
pub fn state_init(key: &VerifyingKey, wallet_id: u32) -> StateInit {
    let data = build_cell(|b| {
        b.store_bit_one()?;
        b.store_u32(0)?;
        b.store_u32(wallet_id)?;
        b.store_u256(&HashBytes(*key))?;
        b.store_bit_zero()
    });
    StateInit { code: Some(CODE.clone()), data: Some(data), ..Default::default() }
}

/// Reads the sequence number out of a wallet's data cell: it stands behind one bit.
///
/// # Errors
/// If the cell is too short.
pub fn seqno(data: &Cell) -> Result<u32, Malformed> {
    let read = || {
        let mut slice = data.as_slice()?;
        slice.load_bit()?;
        slice.load_u32()
    };
    read().map_err(|error| Malformed::new("wallet data", error))
}

/// The body of the external message: the request, and behind it the signature over the hash of the request's cell.
pub(crate) fn signed_body(
    key: &SigningKey,
    wallet_id: u32,
    seqno: u32,
    valid_until: u32,
    transfers: &[Transfer],
) -> Result<Cell, Malformed> {
    let actions = out_list(transfers)?;
    let body = |signature: Option<[u8; 64]>| {
        build_cell(|b| {
            b.store_u32(SIGNED_EXTERNAL)?;
            b.store_u32(wallet_id)?;
            b.store_u32(valid_until)?;
            b.store_u32(seqno)?;
            b.store_bit_one()?; // there are actions, behind a reference
            b.store_reference(actions.clone())?;
            b.store_bit_zero()?; // and no extended ones
            signature.map_or(Ok(()), |signature| b.store_raw(&signature, 512))
        })
    };
    Ok(body(Some(key.sign(body(None).repr_hash().as_slice()))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_address;
    use crate::wallet::{WalletVersion, comment, v4r2};

    fn key() -> SigningKey {
        SigningKey::from_seed(&[5; 32])
    }

    #[test]
    fn the_code_is_the_official_one() {
        // Published hash of the v5r1 code, as explorers and @ton/ton know it.
        assert_eq!(
            hex::encode(code_hash()),
            "20834b7b72b112147e1b2fb457b84e74d1a30f04f737d4f62a668e9552d2b72f"
        );
    }

    /// Made by @ton/ton 16.3: `WalletContractV5R1.create({publicKey, walletId: {networkGlobalId}}).address`.
    #[test]
    fn addresses_are_those_of_ton_ton() {
        for (network, expected) in [
            (-239, "0:7fd215a40b81daadef08d32aec841f737c3dd92908d0b9231cf7058158991096"),
            (-3, "0:373e8f72255ff86cd35fa56e499d28eb6319633209969ffcbfc8ce678cf18224"),
            (-217, "0:ae85d3f1bcad31555d67faca4d3c5f135aedd1b86416b8276d9cd7e6d6b4c9e5"),
        ] {
            let address = WalletVersion::V5R1.address(&key().public(), network);
            assert_eq!(address.to_string(), expected, "network {network}");
        }
    }

    /// Made by @ton/ton 16.3: `createTransfer({seqno: 3, timeout: 1800000000, sendMode: 3, messages: [...]})` with this
    /// key, on network -217. Ed25519 is deterministic: the whole body is the same.
    #[test]
    fn a_signed_body_is_that_of_ton_ton() {
        let to = v4r2::address(&SigningKey::from_seed(&[9; 32]).public());
        assert_eq!(
            to,
            parse_address("0:1f3841f04e9a3349f64fe1626c6f045b54d6c2d839d3e0001518331d6c203352").unwrap()
        );
        let transfers = [
            Transfer { to: to.clone(), amount: 1_500_000_000, bounce: false, body: None, state_init: None },
            Transfer { to, amount: 7, bounce: true, body: Some(comment("hi").unwrap()), state_init: None },
        ];
        let body = signed_body(&key(), wallet_id(-217), 3, 1_800_000_000, &transfers).unwrap();
        assert_eq!(
            body.repr_hash().to_string(),
            "2ca5569e4481a4602c02ff41baa26ac7766366840ccb37744ac585b2f5b101bb"
        );
    }

    #[test]
    fn the_seqno_stands_behind_a_bit() {
        let data = state_init(&key().public(), wallet_id(-217)).data.unwrap();
        assert_eq!(seqno(&data).unwrap(), 0);
        assert!(seqno(&build_cell(|b| b.store_u32(7))).is_err());
    }
}
