//! What others owe us: channels of which we are the payee, the vouchers that came in, and the work done for them.
//!
//! [`PayeeBook`] is what gateways and hosts use. Under it is a [`PayeeBackend`]: the redb file of one process
//! ([`PayeeBook::open`]), or a database that several gateways of one wallet share (`cocoon-accounts-postgres`). The rules of the
//! money are [`AccountState`]'s for both.
//!
//! A voucher is on the disk before it is acknowledged; `owed` is there at the latest one window behind, and at the end
//! of every answer.

use std::{fmt, sync::Arc, time::Duration};

use cocoon_contracts::{Address, Nanotons, SignedVoucher, channel::Terms};
use cocoon_protocol::http::AccountStatus;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use crate::{
    account::{Account, ChannelFacts},
    errors::{AnnounceError, ChargeError, ReserveError, VoucherError},
    local::Local,
    reservation::Reservation,
    store::{Store, StoreError},
    summary::{PayeeSummary, now},
};

/// How many channels one book holds.
pub const MAX_CHANNELS: usize = 100_000;

/// What a book is told when it is opened.
#[derive(Clone, Copy, Debug)]
pub struct PayeeOptions {
    /// The TON global id that vouchers must name.
    pub network: i32,
    /// How much may be unpaid, in nanotons, while answers stream.
    pub window: Nanotons,
}

/// What the chain said of a channel, apart from all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainNews {
    /// So much was paid out in all.
    Paid(Nanotons),
    /// It takes no more work: closing, or gone.
    Closing,
}

/// Held while the payee's wallet sends. Several processes that share an account share its wallet too, and two messages with
/// one sequence number would cancel each other.
pub type WalletTurn = Box<dyn Send + Sync>;

/// What keeps a payee's accounts. Every method is atomic, and what it says it did survives a crash of any process; a
/// reservation does not, and is given back.
pub trait PayeeBackend: Send + Sync + 'static {
    /// Takes a channel in, or what the chain newly says of one that is there; it was looked at just now.
    fn learn<'a>(&'a self, facts: &'a ChannelFacts) -> BoxFuture<'a, Result<Account, AnnounceError>>;

    /// One account.
    fn account<'a>(&'a self, channel: &'a Address) -> BoxFuture<'a, Result<Option<Account>, StoreError>>;

    /// The terms of a channel; they never change.
    fn terms<'a>(&'a self, channel: &'a Address) -> BoxFuture<'a, Result<Option<Terms>, StoreError>>;

    /// All accounts, at most [`MAX_CHANNELS`].
    fn accounts(&self) -> BoxFuture<'_, Result<Vec<Account>, StoreError>>;

    /// Keeps a voucher, checked by [`crate::check_voucher`] and [`crate::AccountState::is_better`].
    fn take<'a>(
        &'a self,
        channel: &'a Address,
        signed: SignedVoucher,
    ) -> BoxFuture<'a, Result<Account, VoucherError>>;

    /// Sets the worst case of an answer aside, by [`crate::AccountState::reserve`].
    fn reserve<'a>(
        &'a self,
        channel: &'a Address,
        amount: Nanotons,
    ) -> BoxFuture<'a, Result<Box<dyn Hold>, ReserveError>>;

    /// Notes what the chain said. A channel that is not here is none of ours.
    fn note<'a>(&'a self, channel: &'a Address, news: ChainNews) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Takes an account out if it [is over](crate::AccountState::is_over); with `lost`, also one whose voucher was not
    /// settled in time.
    fn forget<'a>(&'a self, channel: &'a Address, lost: bool) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Waits until nobody else who shares the account sends from its wallet.
    fn wallet_turn(&self) -> BoxFuture<'_, Result<WalletTurn, StoreError>>;
}

/// What a backend set aside for one answer. Dropping it gives back what was not charged.
pub trait Hold: Send + Sync {
    /// Charges `by` more, which lies within what was set aside, if the exposure allows it now; `false` when a voucher
    /// must come first.
    fn charge(&mut self, by: Nanotons) -> BoxFuture<'_, Result<bool, ChargeError>>;

    /// Told when another attempt may succeed.
    fn signal(&self) -> Arc<Notify>;

    /// After a charge: writes what is owed when the disk is a window behind.
    fn keep_up(&mut self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The payer did not pay in time: no new work until it has. Returns what is owed, and what vouchers cover.
    fn cut(&mut self) -> BoxFuture<'_, Result<(Nanotons, Nanotons), StoreError>>;

    /// Ends it; what it charged is on the disk when this returns.
    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>>;
}

/// A voucher that is worth more than the chain has paid.
#[derive(Clone, Debug)]
pub struct Unsettled {
    /// The channel.
    pub channel: Address,
    /// Its terms.
    pub terms: Terms,
    /// The best voucher held.
    pub voucher: SignedVoucher,
    /// What settling it would bring, in nanotons, before fees.
    pub worth: Nanotons,
    /// Its payer closes it.
    pub closing: bool,
    /// When closing, and if known: the last second in which it can be settled.
    pub deadline: Option<u32>,
}

impl Unsettled {
    /// What settling it brings the payee, in nanotons: its worth without the network's share.
    pub fn net(&self) -> Nanotons {
        let cumulative = self.voucher.voucher.cumulative;
        let paid = cumulative.saturating_sub(self.worth);
        let share = self.terms.network_fee(cumulative).saturating_sub(self.terms.network_fee(paid));
        self.worth.saturating_sub(share)
    }

    /// Whether its deadline is over at second `time`: nothing settles it any more.
    pub fn is_late(&self, time: u64) -> bool {
        self.closing && self.deadline.is_some_and(|deadline| u64::from(deadline) < time)
    }
}

/// The payee's book. Clones share it.
#[derive(Clone)]
pub struct PayeeBook {
    backend: Arc<dyn PayeeBackend>,
    options: PayeeOptions,
}

impl fmt::Debug for PayeeBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PayeeBook").field("options", &self.options).finish_non_exhaustive()
    }
}

impl PayeeBook {
    /// Opens the book over a store, with every account as it was last acknowledged.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when a row does not parse.
    pub fn open(store: Store, options: PayeeOptions) -> Result<Self, StoreError> {
        Ok(Self::over(Arc::new(Local::open(store, options)?), options))
    }

    /// The book over another backend, which was given the same options.
    pub fn over(backend: Arc<dyn PayeeBackend>, options: PayeeOptions) -> Self {
        Self { backend, options }
    }

    /// How much may be unpaid while answers stream, in nanotons.
    pub fn window(&self) -> Nanotons {
        self.options.window
    }

    /// Takes a channel into the book, or what the chain newly says of one that is there. The caller has read
    /// `facts` from the chain just now. Deposits and payments only grow: what shows less is no look at the channel, and
    /// without one nothing is taken on it (see [`crate::AccountState::learn`]).
    ///
    /// # Errors
    /// [`AnnounceError`]; the book is then as it was.
    pub async fn announce(&self, facts: ChannelFacts) -> Result<AccountStatus, AnnounceError> {
        if facts.terms.network != self.options.network {
            let (expected, found) = (self.options.network, facts.terms.network);
            return Err(AnnounceError::WrongNetwork { expected, found });
        }
        let account = self.backend.learn(&facts).await?;
        if !crate::is_fresh(&account.terms, account.looked) {
            let (channel, Account { state, .. }) = (&facts.address, &account);
            tracing::warn!(%channel, known = state.deposit, found = facts.deposit, known_paid = state.paid,
                found_paid = facts.paid, "the chain shows less of a channel than it did: the past, or another channel \
                that was opened at its address; nothing is taken on it");
        }
        Ok(account.status(self.options.window))
    }

    /// Takes a voucher that was handed in for `channel`: checks that it is for this network, channel and nonce, is
    /// signed by the payer's key, lies within the deposit and is not lower than what is held, and writes it to
    /// the disk. The one that is held already is acknowledged again.
    ///
    /// # Errors
    /// [`VoucherError`]; the account is then as it was.
    pub async fn accept_voucher(
        &self,
        channel: &Address,
        signed: SignedVoucher,
    ) -> Result<AccountStatus, VoucherError> {
        let terms = self.backend.terms(channel).await?;
        let terms = terms.ok_or_else(|| VoucherError::UnknownChannel(channel.clone()))?;
        crate::check_voucher(channel, &terms, &signed)?;
        Ok(self.backend.take(channel, signed).await?.status(self.options.window))
    }

    /// Sets the worst case of a request aside, before any work. Dropping the reservation gives back what was not
    /// charged.
    ///
    /// # Errors
    /// [`ReserveError`]: deposit − owed − reserved does not cover it, or the channel may not take work now.
    pub async fn reserve(&self, channel: &Address, amount: Nanotons) -> Result<Reservation, ReserveError> {
        let hold = self.backend.reserve(channel, amount).await?;
        Ok(Reservation::new(hold, channel.clone(), amount))
    }

    /// The account as it stands, or `None` for a channel that was never announced.
    ///
    /// # Errors
    /// [`StoreError`] when a shared database does not answer.
    pub async fn status(&self, channel: &Address) -> Result<Option<AccountStatus>, StoreError> {
        let account = self.backend.account(channel).await?;
        Ok(account.map(|account| account.status(self.options.window)))
    }

    /// The terms of a channel of this book.
    ///
    /// # Errors
    /// As [`PayeeBook::status`].
    pub async fn terms(&self, channel: &Address) -> Result<Option<Terms>, StoreError> {
        self.backend.terms(channel).await
    }

    /// Every account of the book.
    ///
    /// # Errors
    /// As [`PayeeBook::status`].
    pub async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        self.backend.accounts().await
    }

    /// What is owed, covered, settled and at risk, per channel and in total.
    ///
    /// # Errors
    /// As [`PayeeBook::status`].
    pub async fn summary(&self) -> Result<PayeeSummary, StoreError> {
        Ok(PayeeSummary::of(&self.accounts().await?, now()))
    }

    /// Notes what the chain has paid out of a channel in all.
    ///
    /// # Errors
    /// [`StoreError`] when it did not reach the disk; it can be read from the chain again.
    pub async fn settled(&self, channel: &Address, paid: Nanotons) -> Result<(), StoreError> {
        self.backend.note(channel, ChainNews::Paid(paid)).await
    }

    /// Takes no more work on a channel: its contract is closing, or gone.
    ///
    /// # Errors
    /// [`StoreError`] when it did not reach the disk.
    pub async fn close(&self, channel: &Address) -> Result<(), StoreError> {
        self.backend.note(channel, ChainNews::Closing).await
    }

    /// The [active](Account::is_active) channels that nobody has looked at for `age`, those that close first; then up to
    /// `idle` others, those first that were not looked at for longest: what is gone leaves the book some time.
    ///
    /// # Errors
    /// As [`PayeeBook::status`].
    pub async fn to_watch(&self, age: Duration, idle: usize) -> Result<Vec<Address>, StoreError> {
        let mut all = self.accounts().await?;
        all.retain(|account| account.looked.is_none_or(|ago| ago >= age));
        let (mut active, mut others): (Vec<_>, Vec<_>) = all.into_iter().partition(Account::is_active);
        active.sort_by_key(|account| !account.state.closing);
        others.sort_by_key(|account| std::cmp::Reverse(account.looked.unwrap_or(Duration::MAX)));
        others.truncate(idle);
        Ok(active.into_iter().chain(others).map(|account| account.address).collect())
    }

    /// Notes that the chain has no such channel any more. It takes no more work; one that was known to be closing,
    /// with nothing to settle and nothing under way, leaves the book. So does one whose voucher was not settled when a
    /// challenge period more has passed since its deadline.
    ///
    /// # Errors
    /// [`StoreError`] when it did not reach the disk.
    pub async fn gone(&self, channel: &Address) -> Result<(), StoreError> {
        match self.backend.account(channel).await? {
            Some(account) if account.state.closing => {
                let later = u64::from(account.terms.challenge_seconds);
                let long = |deadline| u64::from(deadline).saturating_add(later) < crate::unix_seconds();
                let lost = account.state.worth() > 0 && account.state.deadline.is_some_and(long);
                if lost {
                    let nanotons = account.state.worth();
                    tracing::error!(%channel, nanotons, "a voucher was not settled before its channel was closed");
                }
                self.backend.forget(channel, lost).await
            }
            Some(_) => self.close(channel).await,
            None => Ok(()),
        }
    }

    /// The vouchers that are worth more than the chain has paid: first those of channels that close, the nearest deadline
    /// first, then the others, the best first.
    ///
    /// # Errors
    /// As [`PayeeBook::status`].
    pub async fn unsettled(&self) -> Result<Vec<Unsettled>, StoreError> {
        let mut all: Vec<Unsettled> = self.accounts().await?.into_iter().filter_map(unsettled).collect();
        // A close without a known deadline may be near its end.
        let deadline = |u: &Unsettled| if u.closing { u64::from(u.deadline.unwrap_or(0)) } else { u64::MAX };
        all.sort_by_key(|u| (deadline(u), std::cmp::Reverse(u.worth)));
        Ok(all)
    }

    /// Waits until nobody else who shares the account sends from its wallet; theirs wait until the value is dropped.
    ///
    /// # Errors
    /// [`StoreError`] when a shared database does not answer.
    pub async fn wallet_turn(&self) -> Result<WalletTurn, StoreError> {
        self.backend.wallet_turn().await
    }
}

fn unsettled(account: Account) -> Option<Unsettled> {
    let Account { address: channel, terms, state, .. } = account;
    let (worth, closing, deadline) = (state.worth(), state.closing, state.deadline);
    let voucher = state.voucher.filter(|_| worth > 0)?;
    Some(Unsettled { channel, terms, voucher, worth, closing, deadline })
}
