//! Wallets: addresses and signed transfers, in the two versions of TON's standard wallet that are in use, and in one of our
//! own for large payouts.
//!
//! [`WalletVersion`] is what callers hold; [`v4r2`], [`v5r1`] and [`payout`] are the versions themselves. A key alone names no
//! address: the version belongs to it, and for v5r1 the network too.

pub mod payout;
pub mod v4r2;
pub mod v5r1;

use tycho_types::cell::{Cell, CellBuilder, CellFamily as _, HashBytes};
use tycho_types::models::{
    CurrencyCollection, ExtInMsgInfo, MessageLayout, MsgInfo, OutAction, OwnedMessage, OwnedRelaxedMessage,
    RelaxedIntMsgInfo, RelaxedMsgInfo, StateInit,
};
use tycho_types::num::Tokens;

// The names from when there was one version, which is v4r2.
pub use v4r2::{MAX_TRANSFERS, address, code_hash, external_message, seqno, state_init};

use crate::message::MAX_MESSAGE_BYTES;
use crate::{Address, Malformed, Nanotons, SigningKey, VerifyingKey, build_cell, message};

/// Pay forward fees apart from the value (+1), and let one failing transfer not block the wallet (+2). All versions run
/// with it: v5r1 refuses an external message that has an action without +2.
pub(crate) const SEND_MODE: u8 = 3;
/// The longest comment of a transfer, in bytes.
pub const MAX_COMMENT: usize = 1024;

/// A version of the wallet contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WalletVersion {
    /// Version 4, revision 2: four transfers in a message. The same address on every network.
    V4R2,
    /// Version 5, revision 1: 255 transfers in a message. Another address on every network.
    V5R1,
    /// Ours, `payout.tolk`: 255 transfers in a message, for less. The same address on every network. No wallet app knows it.
    Payout,
}

/// What a wallet's message is valid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The wallet's sequence number: a message counts once.
    pub seqno: u32,
    /// Unix time after which the wallet refuses it.
    pub valid_until: u32,
    /// Attaches the wallet's code and first data: for its first message.
    pub deploy: bool,
}

/// A signed external message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedMessage {
    /// The whole message, to be sent.
    pub message: Cell,
    /// The hash of its body: names it, however the network wraps it.
    pub body_hash: [u8; 32],
}

/// One payment out of a wallet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// To whom.
    pub to: Address,
    /// How much, in nanotons.
    pub amount: Nanotons,
    /// True when the money must come back if the destination cannot handle it: for contracts. False for people.
    pub bounce: bool,
    /// The message's body.
    pub body: Option<Cell>,
    /// Code and data, when the message deploys its destination.
    pub state_init: Option<StateInit>,
}

impl WalletVersion {
    /// All of them: the newest first, ours last.
    pub const ALL: [Self; 3] = [Self::V5R1, Self::V4R2, Self::Payout];

    /// Its name: `v4r2`, `v5r1` or `payout`.
    pub fn name(self) -> &'static str {
        match self {
            Self::V4R2 => "v4r2",
            Self::V5R1 => "v5r1",
            Self::Payout => "payout",
        }
    }

    /// The version of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.name() == name)
    }

    /// The version whose code has this hash.
    pub fn from_code_hash(hash: &[u8; 32]) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.code_hash() == *hash)
    }

    /// The hash of its code.
    pub fn code_hash(self) -> [u8; 32] {
        match self {
            Self::V4R2 => v4r2::code_hash(),
            Self::V5R1 => v5r1::code_hash(),
            Self::Payout => payout::code_hash(),
        }
    }

    /// Most transfers in one message.
    pub fn max_transfers(self) -> usize {
        match self {
            Self::V4R2 => v4r2::MAX_TRANSFERS,
            Self::V5R1 => v5r1::MAX_TRANSFERS,
            Self::Payout => payout::MAX_TRANSFERS,
        }
    }

    /// The address of this key's wallet on a network.
    pub fn address(self, key: &VerifyingKey, network: i32) -> Address {
        address_of(&self.state_init(key, network))
    }

    /// Its code and first data.
    pub fn state_init(self, key: &VerifyingKey, network: i32) -> StateInit {
        match self {
            Self::V4R2 => v4r2::state_init(key),
            Self::V5R1 => v5r1::state_init(key, v5r1::wallet_id(network)),
            Self::Payout => payout::state_init(key),
        }
    }

    /// Reads the sequence number out of a wallet's data cell.
    ///
    /// # Errors
    /// If the cell is too short.
    pub fn seqno(self, data: &Cell) -> Result<u32, Malformed> {
        match self {
            Self::V4R2 => v4r2::seqno(data),
            Self::V5R1 => v5r1::seqno(data),
            Self::Payout => payout::seqno(data),
        }
    }

    /// The external message that makes this key's wallet pay.
    ///
    /// # Errors
    /// No transfer or more than [`WalletVersion::max_transfers`], a transfer to the zero address, or bodies that make the
    /// message larger than a network takes.
    pub fn sign(
        self,
        key: &SigningKey,
        network: i32,
        validity: Validity,
        transfers: &[Transfer],
    ) -> Result<SignedMessage, Malformed> {
        check_transfers(transfers, self.max_transfers())?;
        let Validity { seqno, valid_until, deploy } = validity;
        let body = match self {
            Self::V4R2 => v4r2::signed_body(key, seqno, valid_until, transfers)?,
            Self::V5R1 => v5r1::signed_body(key, v5r1::wallet_id(network), seqno, valid_until, transfers)?,
            Self::Payout => payout::signed_body(key, network, validity, transfers)?,
        };
        let init = self.state_init(&key.public(), network);
        let message = enclose(&address_of(&init), deploy.then(|| init.clone()), &body)?;
        let length = message::encode(&message).len();
        if length > MAX_MESSAGE_BYTES {
            let why = format!("{length} bytes are more than the {MAX_MESSAGE_BYTES} that a network takes");
            return Err(Malformed::new("wallet message", why));
        }
        Ok(SignedMessage { message, body_hash: body.repr_hash().0 })
    }
}

/// The message that a wallet sends for a transfer.
fn internal_message(transfer: &Transfer) -> Result<Cell, Malformed> {
    let laid_out = |layout| OwnedRelaxedMessage {
        info: RelaxedMsgInfo::Int(RelaxedIntMsgInfo {
            bounce: transfer.bounce,
            dst: transfer.to.clone().into(),
            value: CurrencyCollection { tokens: Tokens::new(transfer.amount.into()), ..Default::default() },
            ..Default::default()
        }),
        init: transfer.state_init.clone(),
        body: transfer.body.clone().unwrap_or_default().into(),
        layout,
    };
    // tycho-types 0.3 takes some messages that are full to the last bits for ones that fit: their body moves out.
    let apart = MessageLayout { init_to_cell: transfer.state_init.is_some(), body_to_cell: true };
    CellBuilder::build_from(laid_out(None))
        .or_else(|_| CellBuilder::build_from(laid_out(Some(apart))))
        .map_err(|error| Malformed::new("wallet message", error))
}

/// The actions as TVM's `OutList`: an empty cell, and around it one cell for each action, the first innermost.
fn out_list(transfers: &[Transfer]) -> Result<Cell, Malformed> {
    transfers.iter().try_fold(Cell::empty_cell(), |before, transfer| {
        let message = internal_message(transfer)?;
        Ok(build_cell(|b| {
            b.store_reference(before)?;
            b.store_u32(OutAction::TAG_SEND_MSG)?;
            b.store_u8(SEND_MODE)?;
            b.store_reference(message)
        }))
    })
}

/// The body of a transfer with words for people: a zero tag, and the text in a chain of cells.
///
/// # Errors
/// If the text is longer than [`MAX_COMMENT`] bytes.
pub fn comment(text: &str) -> Result<Cell, Malformed> {
    const FIRST: usize = 123; // 127 whole bytes in a cell, less the tag
    const NEXT: usize = 127;
    if text.len() > MAX_COMMENT {
        let why = format!("{} bytes are more than {MAX_COMMENT}", text.len());
        return Err(Malformed::new("comment", why));
    }
    let (first, rest) = text.as_bytes().split_at(text.len().min(FIRST));
    let tail = rest.chunks(NEXT).rev().fold(None, |next: Option<Cell>, chunk| Some(snake(None, chunk, next)));
    Ok(snake(Some(0), first, tail))
}

fn snake(tag: Option<u32>, bytes: &[u8], next: Option<Cell>) -> Cell {
    build_cell(|b| {
        if let Some(tag) = tag {
            b.store_u32(tag)?;
        }
        for byte in bytes {
            b.store_u8(*byte)?;
        }
        next.map_or(Ok(()), |next| b.store_reference(next))
    })
}

fn address_of(init: &StateInit) -> Address {
    let cell = CellBuilder::build_from(init).expect("a wallet's state fits in a cell");
    Address::new(0, *cell.repr_hash())
}

fn check_transfers(transfers: &[Transfer], most: usize) -> Result<(), Malformed> {
    let refuse = |why: String| Err(Malformed::new("wallet message", why));
    if transfers.is_empty() {
        return refuse("there is nothing to pay".to_owned());
    }
    if transfers.len() > most {
        return refuse(format!("{} transfers are more than {most}", transfers.len()));
    }
    // tlb-ton writes the zero address as "none", which makes the wallet's whole transaction fail, again and again; and
    // what is sent there is lost.
    if transfers.iter().any(|transfer| transfer.to.address == HashBytes::ZERO) {
        return refuse("nobody can be paid at the zero address".to_owned());
    }
    Ok(())
}

/// The outer message, laid out by tycho-types for all versions: tlb-ton 0.11 inlines a body by its bits alone, and so
/// cannot place four references beside a state init.
fn enclose(to: &Address, init: Option<StateInit>, body: &Cell) -> Result<Cell, Malformed> {
    let message = OwnedMessage {
        info: MsgInfo::ExtIn(ExtInMsgInfo { src: None, dst: to.clone().into(), import_fee: Tokens::ZERO }),
        init,
        body: body.clone().into(),
        layout: None,
    };
    CellBuilder::build_from(message).map_err(|error| Malformed::new("wallet message", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transfer(to: Address) -> Transfer {
        Transfer { to, amount: 1, bounce: false, body: None, state_init: None }
    }

    fn sign(version: WalletVersion, transfers: &[Transfer]) -> Result<SignedMessage, Malformed> {
        let validity = Validity { seqno: 0, valid_until: 0, deploy: true };
        version.sign(&SigningKey::from_seed(&[5; 32]), -217, validity, transfers)
    }

    #[test]
    fn no_more_is_signed_than_the_version_takes() {
        let one = transfer(message::basechain([9; 32]));
        for version in WalletVersion::ALL {
            let most = version.max_transfers();
            assert!(sign(version, &vec![one.clone(); most]).is_ok());
            for wrong in [0, most + 1] {
                assert!(sign(version, &vec![one.clone(); wrong]).is_err(), "{wrong} with {version:?}");
            }
            assert!(sign(version, &[transfer(Address::ZERO)]).is_err(), "the zero address");
        }
    }

    #[test]
    fn a_message_too_large_for_a_network_is_refused_before_it_is_sent() {
        let to = message::basechain([9; 32]);
        let long = |i: usize| Transfer {
            body: Some(comment(&format!("{i:01024}")).unwrap()),
            ..transfer(to.clone())
        };
        let all: Vec<_> = (0..255).map(long).collect();
        assert!(sign(WalletVersion::V5R1, &all[..30]).is_ok());
        let error = sign(WalletVersion::V5R1, &all).unwrap_err();
        assert!(error.why.contains("65535"), "{error}");
    }

    #[test]
    fn versions_are_known_by_name_and_by_code() {
        for version in WalletVersion::ALL {
            assert_eq!(WalletVersion::from_name(version.name()), Some(version));
            assert_eq!(WalletVersion::from_code_hash(&version.code_hash()), Some(version));
        }
        assert_eq!(WalletVersion::from_name("v3r2"), None);
        assert_eq!(WalletVersion::from_code_hash(&[0; 32]), None);
    }

    #[test]
    fn a_comment_is_a_zero_tag_and_its_text() {
        for length in [0, 1, 123, 124, 250, 251, MAX_COMMENT] {
            let text = "x".repeat(length);
            let mut cell = comment(&text).unwrap();
            let mut read = Vec::new();
            loop {
                let bytes = usize::from(cell.bit_len() / 8);
                read.extend_from_slice(&cell.data()[..bytes]);
                let Some(next) = cell.reference_cloned(0) else { break };
                cell = next;
            }
            assert_eq!(read, [&[0; 4], text.as_bytes()].concat());
        }
        assert!(comment(&"x".repeat(MAX_COMMENT + 1)).is_err());
    }
}
