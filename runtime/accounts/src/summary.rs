//! What is owed, paid and at risk: plain numbers for status pages, control sockets and the books of a stopped process.

use std::path::Path;

use cocoon_contracts::{Address, Nanotons};
use serde::{Deserialize, Serialize};

use crate::{
    account::Account,
    clock::unix_seconds,
    look,
    payer::PayerState,
    row::{PayeeRow, PayerRow},
    store::{StoreError, Table},
};

/// The present second, in Unix time.
pub(crate) fn now() -> u64 {
    unix_seconds()
}

/// What others owe us, in nanotons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayeeFigures {
    /// What vouchers may reach.
    pub deposit: Nanotons,
    /// Charged so far, cumulative.
    pub owed: Nanotons,
    /// Of that, covered by vouchers.
    pub covered: Nanotons,
    /// Paid out on the chain, network fee included.
    pub settled: Nanotons,
    /// Covered, and not settled on the chain yet.
    pub unsettled: Nanotons,
    /// Set aside for answers under way.
    pub reserved: Nanotons,
    /// Lost if payers leave now and nothing more is settled: owed beyond the vouchers, and what is unsettled on channels
    /// that close.
    pub at_risk: Nanotons,
}

/// What we owe others, in nanotons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayerFigures {
    /// What vouchers may reach.
    pub deposit: Nanotons,
    /// Owed so far, cumulative, by our own count and what was conceded.
    pub owed: Nanotons,
    /// Signed away in vouchers.
    pub signed: Nanotons,
    /// Owed, and no voucher for it is known to have arrived.
    pub unpaid: Nanotons,
    /// Conceded after broken answers.
    pub conceded: Nanotons,
    /// Left to be spent.
    pub free: Nanotons,
}

/// One channel's figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfChannel<F> {
    /// The channel's address.
    pub channel: String,
    /// It is being closed.
    pub closing: bool,
    /// When it is, and if known: the seconds that are left to settle in; 0 when they are over.
    pub seconds_left: Option<u64>,
    /// Its figures.
    pub figures: F,
}

/// The payee's side: each channel, and all together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayeeSummary {
    /// All together.
    pub total: PayeeFigures,
    /// Each, by address.
    pub channels: Vec<OfChannel<PayeeFigures>>,
}

/// The payer's side: each channel, and all together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayerSummary {
    /// All together.
    pub total: PayerFigures,
    /// Each, by address.
    pub channels: Vec<OfChannel<PayerFigures>>,
}

impl PayeeSummary {
    /// Of these accounts at second `now`.
    pub fn of(accounts: &[Account], now: u64) -> Self {
        let mut summary = Self::default();
        for Account { address, state, .. } in accounts {
            let (owed, covered, unsettled) = (state.owed, state.covered(), state.worth());
            let on_closing = if state.closing { unsettled } else { 0 };
            let figures = PayeeFigures {
                deposit: state.deposit,
                owed,
                covered,
                settled: state.paid,
                unsettled,
                reserved: state.reserved,
                at_risk: state.uncovered().saturating_add(on_closing),
            };
            summary.total.add(&figures);
            let (channel, closing) = (address.to_string(), state.closing);
            let seconds_left = state.deadline.map(|deadline| u64::from(deadline).saturating_sub(now));
            summary.channels.push(OfChannel { channel, closing, seconds_left, figures });
        }
        summary.channels.sort_by(|a, b| a.channel.cmp(&b.channel));
        summary
    }

    /// Of the books in a file that no process has open; nothing is written. Answers under way are not in it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn read(path: &Path) -> Result<Self, StoreError> {
        let account = |(key, bytes): (String, Vec<u8>)| {
            PayeeRow::account(&key, &bytes).map_err(|why| StoreError::Damaged { key, why })
        };
        let accounts: Result<Vec<Account>, _> =
            look::rows(path, Table::Payee)?.into_iter().map(account).collect();
        Ok(Self::of(&accounts?, now()))
    }

    /// This one and another book's.
    pub fn and(mut self, other: Self) -> Self {
        self.total.add(&other.total);
        self.channels.extend(other.channels);
        self
    }
}

impl PayerSummary {
    pub(crate) fn of(accounts: impl Iterator<Item = (Address, PayerState)>) -> Self {
        let mut summary = Self::default();
        for (address, state) in accounts {
            let PayerState { deposit, owed, signed, conceded, closing, .. } = state;
            let (unpaid, free) = (state.unacknowledged(), state.free());
            let figures = PayerFigures { deposit, owed, signed, unpaid, conceded, free };
            summary.total.add(&figures);
            let channel = address.to_string();
            summary.channels.push(OfChannel { channel, closing, seconds_left: None, figures });
        }
        summary.channels.sort_by(|a, b| a.channel.cmp(&b.channel));
        summary
    }

    /// As [`PayeeSummary::read`]. A voucher that was signed before counts as arrived.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn read(path: &Path) -> Result<Self, StoreError> {
        let mut states = Vec::new();
        for (key, bytes) in look::rows(path, Table::Payer)? {
            let row = PayerRow::parse(&key, &bytes);
            let (address, _, state, _) = row.map_err(|why| StoreError::Damaged { key, why })?;
            states.push((address, PayerState { acknowledged: state.signed, ..state }));
        }
        Ok(Self::of(states.into_iter()))
    }
}

// For people, and never decided by: sums of amounts that each fit saturate rather than fail.
impl PayeeFigures {
    fn add(&mut self, other: &Self) {
        let Self { deposit, owed, covered, settled, unsettled, reserved, at_risk } = other;
        sum(&mut self.deposit, *deposit);
        sum(&mut self.owed, *owed);
        sum(&mut self.covered, *covered);
        sum(&mut self.settled, *settled);
        sum(&mut self.unsettled, *unsettled);
        sum(&mut self.reserved, *reserved);
        sum(&mut self.at_risk, *at_risk);
    }
}

impl PayerFigures {
    fn add(&mut self, other: &Self) {
        let Self { deposit, owed, signed, unpaid, conceded, free } = other;
        sum(&mut self.deposit, *deposit);
        sum(&mut self.owed, *owed);
        sum(&mut self.signed, *signed);
        sum(&mut self.unpaid, *unpaid);
        sum(&mut self.conceded, *conceded);
        sum(&mut self.free, *free);
    }
}

fn sum(total: &mut Nanotons, more: Nanotons) {
    *total = total.saturating_add(more);
}
