//! One account of a payee, and the rules of its money: pure, so that every backend decides by the same lines.
//!
//! ```text
//! deposit ≥ owed + reserved          always; work that would break it is refused before it begins
//! owed + drawn − covered ≤ window    to go on; over it a stream waits for a voucher (half a window more, see `grant`)
//! covered                            only grows; on the disk before it is acknowledged
//! ```
//!
//! `drawn` is a backend's own: window that it has handed out in allowances, and that is not counted as owed yet. Where
//! one process keeps the accounts, it is 0.

use std::time::Duration;

use cocoon_contracts::{
    Address, Nanotons, SignedVoucher,
    channel::{OPEN_RESERVE, SETTLE_RESERVE, Terms},
};
use cocoon_protocol::http::AccountStatus;

use crate::{
    errors::{ChargeError, ReserveError, VoucherError},
    payee::ChainNews,
};

/// How many answers one channel may have under way at once.
pub const MAX_STREAMS_PER_CHANNEL: usize = 64;

/// What rent may take of a deposit, in nanotons, without taking a voucher's cover: a settlement may dip so far into the
/// reserve of the channel.
pub const RENT: Nanotons = OPEN_RESERVE - SETTLE_RESERVE;

/// A channel as the chain shows it.
#[derive(Clone, Debug)]
pub struct ChannelFacts {
    /// The contract's address, derived from the terms or checked against them.
    pub address: Address,
    /// Who pays whom, with which key.
    pub terms: Terms,
    /// The highest cumulative amount that vouchers may reach.
    pub deposit: Nanotons,
    /// What the contract has paid out.
    pub paid: Nanotons,
    /// A close has been started: no new work.
    pub closing: bool,
    /// When closing: the last second (Unix time) in which a voucher can be settled, if the chain said so.
    pub deadline: Option<u32>,
}

/// What an account has, in nanotons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountState {
    /// The highest cumulative amount that vouchers may reach. Only grows; see [`AccountState::learn`].
    pub deposit: Nanotons,
    /// What the chain has paid out. Only grows.
    pub paid: Nanotons,
    /// The best voucher held.
    pub voucher: Option<SignedVoucher>,
    /// Charged so far, cumulative.
    pub owed: Nanotons,
    /// Worst cases of the answers under way, less what each was charged.
    pub reserved: Nanotons,
    /// Window that was handed out and is not counted in `owed` yet. Part of `reserved`.
    pub drawn: Nanotons,
    /// Answers under way.
    pub streams: usize,
    /// An answer was cut for want of a voucher.
    pub cut: bool,
    /// A close has been started, or the contract is gone: no new work.
    pub closing: bool,
    /// When closing, and if known: the last second in which a voucher can be settled.
    pub deadline: Option<u32>,
}

impl AccountState {
    /// A channel that enters the book. What the chain has paid was owed once, also when the row of that time is gone.
    pub fn new(facts: &ChannelFacts) -> Self {
        let mut state = Self { owed: facts.paid, ..Self::default() };
        let follows = state.learn(facts.deposit, facts.paid, facts.closing, facts.deadline);
        debug_assert!(follows, "nothing is known that it could contradict");
        state
    }

    /// The amount of the best voucher.
    pub fn covered(&self) -> Nanotons {
        self.voucher.as_ref().map_or(0, |signed| signed.voucher.cumulative)
    }

    /// Owed or handed out, and covered by no voucher: what a payer who leaves now costs us.
    pub fn uncovered(&self) -> Nanotons {
        self.owed.saturating_add(self.drawn).saturating_sub(self.covered())
    }

    /// What new work may still cost.
    pub fn free(&self) -> Nanotons {
        self.deposit.saturating_sub(self.owed).saturating_sub(self.reserved)
    }

    /// What settling the best voucher brings, before fees.
    pub fn worth(&self) -> Nanotons {
        self.covered().saturating_sub(self.paid)
    }

    /// Takes over what the chain says. `false`, with nothing but a close taken over, for what cannot follow from what is
    /// known: less was paid, or less is in it than rent explains. Then an endpoint shows the past; or the channel was
    /// closed, and its payer has opened another one at the same address, which is none that was ever promised anything.
    /// Either way it is no look at the channel.
    #[must_use]
    pub fn learn(&mut self, deposit: Nanotons, paid: Nanotons, closing: bool, deadline: Option<u32>) -> bool {
        let follows = paid >= self.paid && deposit.saturating_add(RENT) >= self.deposit;
        if follows {
            self.deposit = self.deposit.max(deposit);
            self.paid = self.paid.max(paid);
        }
        if follows || closing {
            self.closing = closing;
            self.deadline = deadline.filter(|_| closing);
        }
        follows
    }

    /// Takes over a part of what the chain says.
    pub fn note(&mut self, news: ChainNews) {
        match news {
            ChainNews::Paid(paid) => self.paid = self.paid.max(paid),
            ChainNews::Closing => self.closing = true,
        }
    }

    /// Whether a voucher for `found` nanotons is better than the one held. Its signature and its domain have been
    /// checked; `fresh` says that the chain was asked about the channel lately.
    ///
    /// # Errors
    /// [`VoucherError::Unchecked`], [`VoucherError::ExceedsDeposit`], [`VoucherError::Stale`].
    pub fn is_better(&self, found: Nanotons, fresh: bool) -> Result<bool, VoucherError> {
        let (deposit, held) = (self.deposit, self.covered());
        if !fresh {
            return Err(VoucherError::Unchecked);
        }
        if found > deposit {
            return Err(VoucherError::ExceedsDeposit { deposit, found });
        }
        if found < held {
            return Err(VoucherError::Stale { held, found });
        }
        Ok(found > held)
    }

    /// Sets the worst case of one answer aside.
    ///
    /// # Errors
    /// [`ReserveError`], with nothing changed.
    pub fn reserve(&mut self, amount: Nanotons, window: Nanotons, fresh: bool) -> Result<(), ReserveError> {
        if self.closing {
            return Err(ReserveError::Closing);
        }
        if !fresh {
            return Err(ReserveError::Unchecked);
        }
        if self.cut && self.uncovered() > window / 2 {
            return Err(ReserveError::VoucherRequired { owed: self.owed, voucher: self.covered() });
        }
        if self.streams >= MAX_STREAMS_PER_CHANNEL {
            return Err(ReserveError::TooManyStreams);
        }
        let free = self.free();
        if free < amount {
            return Err(ReserveError::InsufficientDeposit { wanted: amount, free });
        }
        self.cut = false;
        self.reserved += amount;
        self.streams += 1;
        Ok(())
    }

    /// How much of the window one charge of `by` nanotons gets: `None` when a voucher must come first, else `by` and
    /// up to `extra` more, as far as the window has room.
    ///
    /// So that a payer that pays for all it has seen always gets on, a charge that is larger than what is left of the
    /// window passes when no more than half a window is open. One charge is never larger than the window: at most one
    /// and a half windows are ever unpaid, whatever a worker says that one frame cost.
    ///
    /// # Errors
    /// [`ChargeError::Jump`], [`ChargeError::Closing`].
    pub fn grant(
        &self,
        by: Nanotons,
        extra: Nanotons,
        window: Nanotons,
    ) -> Result<Option<Nanotons>, ChargeError> {
        if by > window {
            return Err(ChargeError::Jump { by, window });
        }
        if self.closing {
            return Err(ChargeError::Closing);
        }
        let open = self.uncovered();
        let room = window.saturating_sub(open);
        Ok((open <= window / 2 || by <= room).then(|| by + extra.min(room.saturating_sub(by))))
    }

    /// Counts what was set aside as owed.
    pub fn charge(&mut self, by: Nanotons) {
        self.owed += by;
        self.reserved -= by;
    }

    /// Nothing to settle, nothing under way: the account may leave the book once its contract is gone.
    pub fn is_over(&self) -> bool {
        self.streams == 0 && self.worth() == 0
    }
}

/// One account with its terms, as a backend shows it.
#[derive(Clone, Debug)]
pub struct Account {
    /// The channel's address.
    pub address: Address,
    /// Its terms.
    pub terms: Terms,
    /// What it has.
    pub state: AccountState,
    /// How long ago the chain was last asked about it, if that is known.
    pub looked: Option<Duration>,
    /// How long ago work was last asked for, if that is known.
    pub used: Option<Duration>,
}

impl Account {
    /// How long a payer that starts to close must wait.
    pub fn challenge(&self) -> Duration {
        challenge(&self.terms)
    }

    /// Whether the chain must be asked about it again and again: it has something to settle, answers under way, was used
    /// within its challenge period, or is not known to be gone since it began to close.
    pub fn is_active(&self) -> bool {
        let used = self.used.is_some_and(|used| used <= self.challenge());
        self.state.closing || self.state.streams > 0 || used || self.state.worth() > 0
    }

    /// As its payer is told.
    pub fn status(&self, window: Nanotons) -> AccountStatus {
        let state = &self.state;
        AccountStatus {
            address: self.address.to_string(),
            deposit: state.deposit,
            paid: state.paid,
            voucher: state.covered(),
            owed: state.owed,
            reserved: state.reserved,
            window,
        }
    }
}

/// A channel's challenge period.
pub(crate) fn challenge(terms: &Terms) -> Duration {
    Duration::from_secs(u64::from(terms.challenge_seconds))
}

/// A payer that starts to close is answered within its challenge period only by one who looks: nothing is taken on a
/// channel that was not looked at for a quarter of it.
pub fn is_fresh(terms: &Terms, looked: Option<Duration>) -> bool {
    looked.is_some_and(|ago| ago <= challenge(terms) / 4)
}

/// Everything about a voucher for a channel but its amount: network, address, nonce, and the payer's signature.
///
/// # Errors
/// [`VoucherError`].
pub fn check_voucher(channel: &Address, terms: &Terms, signed: &SignedVoucher) -> Result<(), VoucherError> {
    let voucher = &signed.voucher;
    if voucher.network != terms.network {
        return Err(VoucherError::WrongNetwork { expected: terms.network, found: voucher.network });
    }
    if voucher.channel != *channel {
        let (expected, found) = (channel.clone(), voucher.channel.clone());
        return Err(VoucherError::WrongChannel { expected, found });
    }
    if voucher.nonce != terms.nonce {
        return Err(VoucherError::WrongNonce { expected: terms.nonce, found: voucher.nonce });
    }
    signed.verify(&terms.payer_key).map(drop).map_err(|_| VoucherError::WrongSigner)
}
