//! The payment channel, `channel.tolk`: its terms, its state, its messages.

use std::sync::LazyLock;

use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder, CellFamily, CellSlice, HashBytes, Load, Store};
use tycho_types::models::StateInit;

use crate::{Address, KeyError, Malformed, Nanotons, SignedVoucher, VerifyingKey, build_cell, check_key};

/// Messages and constants, as in `channel.tolk`.
const OPEN: u32 = 0x4348_0001;
const TOP_UP: u32 = 0x4348_0002;
const SETTLE: u32 = 0x4348_0003;
const START_CLOSE: u32 = 0x4348_0004;
const FINISH_CLOSE: u32 = 0x4348_0005;
const CLOSE: u32 = 0x4348_0006;
const AUTHORIZE: u32 = 0x4348_0007;
const COLLECT: u32 = 0x4348_0008;
/// The deadline's values that are no time.
const UNOPENED: u32 = 0;
const OPENED: u32 = u32::MAX;

/// Kept at opening for rent: not part of what vouchers may claim. 0.02 TON.
pub const OPEN_RESERVE: Nanotons = 20_000_000;
/// What a settlement must leave in the contract. Less than [`OPEN_RESERVE`], so that a voucher which was covered when
/// it was accepted still is after more than a year's rent. 0.002 TON.
pub const SETTLE_RESERVE: Nanotons = 2_000_000;
/// Value to attach to a settlement, to a close or its end, and to a collection; what is not used comes back. 0.01 TON.
pub const SETTLE_VALUE: Nanotons = 10_000_000;
/// Value to attach to start a close; what is not used joins the deposit and comes home with it. 0.003 TON.
pub const CLOSE_VALUE: Nanotons = 3_000_000;
/// Value that pays for the transaction of a top-up, an opening or an authorization, in addition to what is to join the
/// deposit. 0.002 TON.
pub const OPEN_VALUE: Nanotons = 2_000_000;
/// The network fee's unit: 10 000 basis points are the whole.
pub const BASIS_POINTS: u16 = 10_000;
/// The shortest challenge period that [`Terms::check`] accepts: generous against block time and an hour's outage would
/// be too short for production, but development networks must be able to watch a close.
pub const MIN_CHALLENGE_SECONDS: u32 = 1;
/// The longest one: a payer's money is never locked for more than 30 days after it asks.
pub const MAX_CHALLENGE_SECONDS: u32 = 30 * 24 * 3600;

static CODE: LazyLock<Cell> = LazyLock::new(|| {
    Boc::decode(include_bytes!("../channel.boc")).expect("the committed code is a valid bag of cells")
});

/// The contract's code.
pub fn code() -> Cell {
    CODE.clone()
}

/// The hash of the contract's code: what an account must have to be a channel.
pub fn code_hash() -> [u8; 32] {
    CODE.repr_hash().0
}

/// Why terms are not acceptable, whoever proposes them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TermsError {
    /// The payer's key proves nothing.
    #[error("the channel's payer key cannot be used: {0}")]
    Key(#[from] KeyError),
    /// An address is not in the basic workchain.
    #[error("the channel's {who} is {address}: channels work in workchain 0 only")]
    Workchain {
        /// Which of the parties.
        who: &'static str,
        /// Its address.
        address: Box<Address>,
    },
    /// The fee is more than the whole.
    #[error("the network fee of {0} basis points is more than the whole (10000)")]
    Fee(u16),
    /// The challenge period is out of bounds.
    #[error("a challenge period of {0} s is outside {MIN_CHALLENGE_SECONDS}..={MAX_CHALLENGE_SECONDS}")]
    Challenge(u32),
}

/// What never changes in a channel. Its address is made of these and of the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Who pays, and takes home what is left.
    pub payer: Address,
    /// Who is paid.
    pub payee: Address,
    /// The key that signs vouchers. A session key of the payer: the wallet stays cold, and what the key may sign in total
    /// is [`State::limit`], which only the wallet raises. Another key needs another channel.
    pub payer_key: VerifyingKey,
    /// The network's global id.
    pub network: i32,
    /// Makes the address unique. **Never use one twice**: vouchers of a closed channel would count again.
    pub nonce: u64,
    /// How long the payee may still settle after the payer starts to close, in seconds.
    pub challenge_seconds: u32,
    /// The network's share of what is paid, in basis points.
    pub fee_bps: u16,
    /// Who gets that share.
    pub treasury: Address,
}

impl Terms {
    /// Refuses terms that the contract would refuse, or that would hurt a party.
    pub fn check(&self) -> Result<(), TermsError> {
        check_key(&self.payer_key)?;
        for (who, address) in [("payer", &self.payer), ("payee", &self.payee), ("treasury", &self.treasury)] {
            if address.workchain != 0 || address.anycast.is_some() {
                return Err(TermsError::Workchain { who, address: Box::new(address.clone()) });
            }
        }
        if self.fee_bps > BASIS_POINTS {
            return Err(TermsError::Fee(self.fee_bps));
        }
        if !(MIN_CHALLENGE_SECONDS..=MAX_CHALLENGE_SECONDS).contains(&self.challenge_seconds) {
            return Err(TermsError::Challenge(self.challenge_seconds));
        }
        Ok(())
    }

    /// The channel's address.
    pub fn address(&self) -> Address {
        Address::new(0, *self.state_init_cell().repr_hash())
    }

    /// Code and first data, as deployed with the opening message.
    pub fn state_init(&self) -> StateInit {
        let data =
            Data { deadline: UNOPENED, paid: 0, limit: 0, collected: 0, terms: self.clone() }.to_cell();
        StateInit { code: Some(code()), data: Some(data), ..Default::default() }
    }

    /// The network's share of a cumulative amount. Of the total, so it does not depend on how often one settles.
    pub fn network_fee(&self, cumulative: Nanotons) -> Nanotons {
        let fee = u128::from(cumulative) * u128::from(self.fee_bps) / u128::from(BASIS_POINTS);
        // Terms that nobody checked may ask for more than the whole.
        Nanotons::try_from(fee).unwrap_or(Nanotons::MAX)
    }

    fn state_init_cell(&self) -> Cell {
        CellBuilder::build_from(self.state_init()).expect("a state init without libraries fits in a cell")
    }
}

/// What a channel's account says now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// What never changes.
    pub terms: Terms,
    /// The cumulative amount settled so far, fee included.
    pub paid: Nanotons,
    /// The most that the session key may sign in total. Whoever steals it gets no more, whoever tops up.
    pub limit: Nanotons,
    /// What the treasury has received of the network's fee. The rest of it waits in the contract: [`State::fee_waiting`].
    pub collected: Nanotons,
    /// When closing: the last second (Unix time) in which the payee may settle.
    pub deadline: Option<u32>,
    /// What the account holds.
    pub balance: Nanotons,
}

impl State {
    /// Reads an open channel's data cell. `balance` is the account's.
    pub fn parse(data: &Cell, balance: Nanotons) -> Result<Self, Malformed> {
        let Data { deadline, paid, limit, collected, terms } = Data::parse(data)?;
        let deadline = match deadline {
            UNOPENED => {
                return Err(Malformed::new("channel data", "the channel was never opened by its payer"));
            }
            OPENED => None,
            closing => Some(closing),
        };
        Ok(Self { terms, paid, limit, collected, deadline, balance })
    }

    /// The network's share of what was paid that waits here until anybody sends it to the treasury.
    pub fn fee_waiting(&self) -> Nanotons {
        self.terms.network_fee(self.paid).saturating_sub(self.collected)
    }

    /// The highest cumulative amount that a voucher may have: what was paid and what can still be, and no more than the
    /// session key may sign.
    pub fn deposit(&self) -> Nanotons {
        let spendable = self.balance.saturating_sub(self.fee_waiting()).saturating_sub(OPEN_RESERVE);
        // A sum beyond all integers is more than any limit.
        self.paid.checked_add(spendable).map_or(self.limit, |covered| covered.min(self.limit))
    }
}

struct Data {
    deadline: u32,
    paid: Nanotons,
    limit: Nanotons,
    collected: Nanotons,
    terms: Terms,
}

impl Data {
    fn to_cell(&self) -> Cell {
        let terms = &self.terms;
        let context = Cell::empty_context();
        let rest = build_cell(|b| {
            terms.payer.store_into(b, context)?;
            terms.treasury.store_into(b, context)?;
            b.store_u32(terms.network.cast_unsigned())?;
            b.store_u32(terms.challenge_seconds)
        });
        build_cell(|b| {
            b.store_u32(self.deadline)?;
            b.store_u64(self.paid)?;
            b.store_u64(self.limit)?;
            b.store_u64(self.collected)?;
            terms.payee.store_into(b, context)?;
            b.store_u256(&HashBytes(terms.payer_key))?;
            b.store_u16(terms.fee_bps)?;
            b.store_u64(terms.nonce)?;
            b.store_reference(rest)
        })
    }

    fn parse(cell: &Cell) -> Result<Self, Malformed> {
        Self::load(cell).map_err(|error| Malformed::new("channel data", error))
    }

    fn load(cell: &Cell) -> Result<Self, tycho_types::error::Error> {
        let mut root = cell.as_slice()?;
        let deadline = root.load_u32()?;
        let paid = root.load_u64()?;
        let limit = root.load_u64()?;
        let collected = root.load_u64()?;
        let payee = Address::load_from(&mut root)?;
        let payer_key = root.load_u256()?.0;
        let fee_bps = root.load_u16()?;
        let nonce = root.load_u64()?;
        let mut rest = root.load_reference_as_slice()?;
        ends(&root)?;
        let payer = Address::load_from(&mut rest)?;
        let treasury = Address::load_from(&mut rest)?;
        let network = rest.load_u32()?.cast_signed();
        let challenge_seconds = rest.load_u32()?;
        ends(&rest)?;
        let terms = Terms { payer, payee, payer_key, network, nonce, challenge_seconds, fee_bps, treasury };
        Ok(Self { deadline, paid, limit, collected, terms })
    }
}

fn ends(slice: &CellSlice<'_>) -> Result<(), tycho_types::error::Error> {
    if slice.is_data_empty() && slice.is_refs_empty() {
        Ok(())
    } else {
        Err(tycho_types::error::Error::InvalidData)
    }
}

/// The payer's first message: deploys with [`Terms::state_init`] and opens. `limit` is the most that the session key may
/// sign in total; [`Nanotons::MAX`] leaves it to the deposit.
pub fn open_body(limit: Nanotons) -> Cell {
    build_cell(|b| {
        b.store_u32(OPEN)?;
        b.store_u64(limit)
    })
}

/// The payer's wallet raises [`State::limit`]; the message's value joins the deposit.
pub fn authorize_body(limit: Nanotons) -> Cell {
    build_cell(|b| {
        b.store_u32(AUTHORIZE)?;
        b.store_u64(limit)
    })
}

/// Adds the message's value to the deposit, and nothing to the limit. From anyone.
pub fn top_up_body() -> Cell {
    build_cell(|b| b.store_u32(TOP_UP))
}

/// The payee settles a voucher.
pub fn settle_body(voucher: &SignedVoucher) -> Cell {
    build_cell(|b| {
        b.store_u32(SETTLE)?;
        store_claim(b, voucher)
    })
}

/// The cumulative amount that a settlement's body claims; `None` for any other body. What was settled is what a
/// transaction says that was not aborted.
pub fn settled(body: &Cell) -> Option<Nanotons> {
    let mut slice = body.as_slice().ok()?;
    (slice.load_u32().ok()? == SETTLE).then(|| slice.load_u64().ok()).flatten()
}

/// The payer starts to close: the challenge period runs.
pub fn start_close_body() -> Cell {
    build_cell(|b| b.store_u32(START_CLOSE))
}

/// After the deadline anyone may send the rest home to the payer.
pub fn finish_close_body() -> Cell {
    build_cell(|b| b.store_u32(FINISH_CLOSE))
}

/// Anyone sends the treasury the part of the network's fee that waits. What is not used of the value comes back.
pub fn collect_body() -> Cell {
    build_cell(|b| b.store_u32(COLLECT))
}

/// The payee agrees to end at once: it is paid the last voucher, if there is one, and the rest goes home.
pub fn cooperative_close_body(voucher: Option<&SignedVoucher>) -> Cell {
    build_cell(|b| {
        b.store_u32(CLOSE)?;
        b.store_bit(voucher.is_some())?;
        voucher.map_or(Ok(()), |voucher| store_claim(b, voucher))
    })
}

fn store_claim(b: &mut CellBuilder, voucher: &SignedVoucher) -> Result<(), tycho_types::error::Error> {
    b.store_u64(voucher.voucher.cumulative)?;
    b.store_raw(&voucher.signature, 512)
}

/// The exit codes of `channel.tolk`, in words: what was refused and why.
pub fn exit_code_meaning(code: i32) -> Option<&'static str> {
    Some(match code {
        0x100 => "the channel is not open",
        0x101 => "the channel is open already",
        0x102 => "the sender may not do this",
        0x103 => "the channel is for another network",
        0x104 => "the terms are not acceptable",
        0x105 => "the opening deposit does not cover the rent reserve of 0.02 TON",
        0x106 => "the voucher is not newer than what was settled",
        0x107 => "the voucher's signature does not verify",
        0x108 => "the voucher is more than the deposit covers",
        0x109 => "the deadline for settling has passed, or the channel was never opened",
        0x10a => "the channel is closing already",
        0x10b => "the channel is not closing",
        0x10c => "the deadline has not passed yet",
        0x10d => "the voucher is more than the session key may sign in total",
        0x10e => "the new limit is not above the one in force",
        0x10f => "no network fee waits to be collected",
        0x110 => "the message brings less than the 0.003 TON that finishing a close takes",
        0xffff => "the message is none of a channel's",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SigningKey, Voucher};

    #[test]
    fn a_settlement_says_what_it_claims_and_nothing_else_does() {
        let voucher = Voucher { network: -3, channel: Address::ZERO, nonce: 1, cumulative: 77 };
        assert_eq!(settled(&settle_body(&voucher.sign(&SigningKey::from_seed(&[1; 32])))), Some(77));
        assert_eq!(settled(&open_body(77)), None);
        assert_eq!(settled(&build_cell(|b| b.store_u32(SETTLE))), None, "cut short");
    }
}
