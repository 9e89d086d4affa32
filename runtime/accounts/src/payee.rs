//! What others owe us: channels of which we are the payee, the vouchers that came in, and the work done for them.
//!
//! An account is `deposit ≥ owed + reserved` at every instant, and its voucher only ever grows. The voucher is on
//! the disk before it is acknowledged; `owed` is there at the latest one window behind, and at the end of every
//! answer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, RwLock},
    time::{Duration, Instant},
};

use cocoon_contracts::{Address, Nanotons, SignedVoucher, channel::Terms};
use cocoon_protocol::http::AccountStatus;
use tokio::sync::{Notify, OwnedMutexGuard};

use crate::{
    errors::{AnnounceError, ReserveError, VoucherError},
    reservation::Reservation,
    row::PayeeRow,
    store::{Done, Job, Store, StoreError, Table, WeakStore},
};

/// How many channels one book holds.
pub const MAX_CHANNELS: usize = 100_000;
/// How many answers one channel may have under way at once.
pub const MAX_STREAMS_PER_CHANNEL: usize = 64;

/// What a book is told when it is opened.
#[derive(Clone, Copy, Debug)]
pub struct PayeeOptions {
    /// The TON global id that vouchers must name.
    pub network: i32,
    /// How much may be unpaid, in nanotons, while answers stream.
    pub window: Nanotons,
}

/// A channel as the chain shows it.
#[derive(Clone, Debug)]
pub struct ChannelFacts {
    /// The contract's address, derived from the terms or checked against them.
    pub address: Address,
    /// Who pays whom, with which key.
    pub terms: Terms,
    /// What the payer has put in.
    pub deposit: Nanotons,
    /// What the contract has paid out.
    pub paid: Nanotons,
    /// A close has been started: no new work.
    pub closing: bool,
}

/// A voucher that is worth more than the chain has paid.
#[derive(Clone, Debug)]
pub struct Unsettled {
    /// The channel.
    pub channel: Address,
    /// The best voucher held.
    pub voucher: SignedVoucher,
    /// What settling it would bring, in nanotons, before fees.
    pub worth: Nanotons,
}

/// The payee's book. Clones share it.
#[derive(Clone)]
pub struct PayeeBook {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    options: PayeeOptions,
    accounts: RwLock<HashMap<String, Arc<Account>>>,
}

/// One channel.
pub(crate) struct Account {
    pub(crate) address: Address,
    terms: Terms,
    store: WeakStore,
    pub(crate) window: Nanotons,
    /// Held while a row of this account is on its way to the disk, so that rows cannot overtake each other.
    writing: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<State>,
    /// Told when a voucher came in or a reservation ended.
    pub(crate) changed: Notify,
}

#[derive(Clone, Default)]
pub(crate) struct State {
    pub(crate) deposit: Nanotons,
    pub(crate) paid: Nanotons,
    pub(crate) voucher: Option<SignedVoucher>,
    pub(crate) owed: Nanotons,
    pub(crate) closing: bool,
    // Below: in memory only.
    /// When the chain was last asked about this channel, in this process.
    pub(crate) checked: Option<Instant>,
    /// When work was last asked for.
    used: Option<Instant>,
    pub(crate) reserved: Nanotons,
    pub(crate) streams: usize,
    pub(crate) cut: bool,
    /// `owed` as it is on the disk.
    pub(crate) stored_owed: Nanotons,
    /// A reservation ended while a row was under way: write once more.
    pub(crate) dirty: bool,
}

impl State {
    pub(crate) fn covered(&self) -> Nanotons {
        self.voucher.as_ref().map_or(0, |signed| signed.voucher.cumulative)
    }

    pub(crate) fn uncovered(&self) -> Nanotons {
        self.owed.saturating_sub(self.covered())
    }

    pub(crate) fn free(&self) -> Nanotons {
        self.deposit.saturating_sub(self.owed).saturating_sub(self.reserved)
    }
}

/// What a row changes once it is on the disk.
#[derive(Clone)]
pub(crate) enum Change {
    Owed,
    Voucher(SignedVoucher),
    Facts { deposit: Nanotons, paid: Nanotons, closing: bool },
}

impl Change {
    fn apply(&self, state: &mut State) {
        match self {
            Change::Owed => {}
            Change::Voucher(signed) => {
                state.voucher = Some(signed.clone());
            }
            Change::Facts { deposit, paid, closing } => {
                state.deposit = state.deposit.max(*deposit);
                state.paid = state.paid.max(*paid);
                state.closing = *closing;
            }
        }
    }
}

impl PayeeBook {
    /// Opens the book over a store, with every account as it was last acknowledged.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when a row does not parse.
    pub fn open(store: Store, options: PayeeOptions) -> Result<Self, StoreError> {
        let mut accounts = HashMap::new();
        for (key, bytes) in store.rows(Table::Payee) {
            let damaged = |why: String| StoreError::Damaged { key: key.clone(), why };
            let row = PayeeRow::decode(bytes).map_err(damaged)?;
            let facts = row.facts(key).map_err(damaged)?;
            let mut state = State::default();
            Change::facts(&facts).apply(&mut state);
            state.voucher = row.voucher().map_err(damaged)?;
            state.owed = row.owed;
            state.stored_owed = row.owed;
            accounts.insert(key.clone(), Arc::new(Account::new(&store, options, &facts, state)));
        }
        let accounts = RwLock::new(accounts);
        Ok(Self { inner: Arc::new(Inner { store, options, accounts }) })
    }

    /// How much may be unpaid while answers stream, in nanotons.
    pub fn window(&self) -> Nanotons {
        self.inner.options.window
    }

    /// Takes a channel into the book, or what the chain newly says of one that is there. The caller has read
    /// `facts` from the chain just now. Deposits and payments only grow.
    ///
    /// # Errors
    /// [`AnnounceError`]; the book is then as it was.
    pub async fn announce(&self, facts: ChannelFacts) -> Result<AccountStatus, AnnounceError> {
        if facts.terms.network != self.inner.options.network {
            let (expected, found) = (self.inner.options.network, facts.terms.network);
            return Err(AnnounceError::WrongNetwork { expected, found });
        }
        let account = match self.find(&facts.address) {
            Some(account) => account,
            None => self.create(&facts)?,
        };
        let now = Instant::now();
        account.write(Change::facts(&facts)).await?;
        account.lock().checked = Some(now);
        Ok(account.status())
    }

    /// The account's row exists only once [`PayeeBook::announce`] has written it.
    fn create(&self, facts: &ChannelFacts) -> Result<Arc<Account>, AnnounceError> {
        let mut accounts = self.inner.accounts.write().expect("no holder of this lock panics");
        if accounts.len() >= crate::MAX_CHANNELS {
            return Err(AnnounceError::Full);
        }
        // What the chain has paid was owed once, also when the row of that time is gone.
        let state = State { owed: facts.paid, ..State::default() };
        let fresh = || Arc::new(Account::new(&self.inner.store, self.inner.options, facts, state));
        Ok(Arc::clone(accounts.entry(facts.address.to_string()).or_insert_with(fresh)))
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
        let account = self.find(channel).ok_or_else(|| VoucherError::UnknownChannel(channel.clone()))?;
        account.check_domain(&signed)?;
        if signed.verify(&account.terms.payer_key).is_err() {
            return Err(VoucherError::WrongSigner);
        }
        let guard = Arc::clone(&account.writing).lock_owned().await;
        let found = signed.voucher.cumulative;
        {
            let state = account.lock();
            if account.unchecked(&state) {
                return Err(VoucherError::Unchecked);
            }
            let (deposit, held) = (state.deposit, state.covered());
            if found > deposit {
                return Err(VoucherError::ExceedsDeposit { deposit, found });
            }
            if found < held {
                return Err(VoucherError::Stale { held, found });
            }
            if found == held {
                drop(state);
                return Ok(account.status());
            }
        }
        account.write_locked(guard, Change::Voucher(signed)).await?;
        Ok(account.status())
    }

    /// Sets the worst case of a request aside, before any work. Dropping the reservation gives back what was not
    /// charged.
    ///
    /// # Errors
    /// [`ReserveError`]: deposit − owed − reserved does not cover it, or the channel may not take work now.
    pub fn reserve(&self, channel: &Address, amount: Nanotons) -> Result<Reservation, ReserveError> {
        let account = self.find(channel).ok_or_else(|| ReserveError::UnknownChannel(channel.clone()))?;
        {
            let mut state = account.lock();
            if state.closing {
                return Err(ReserveError::Closing);
            }
            if account.unchecked(&state) {
                return Err(ReserveError::Unchecked);
            }
            if state.cut && state.uncovered() > account.window / 2 {
                return Err(ReserveError::VoucherRequired { owed: state.owed, voucher: state.covered() });
            }
            if state.streams >= crate::MAX_STREAMS_PER_CHANNEL {
                return Err(ReserveError::TooManyStreams);
            }
            let free = state.free();
            if free < amount {
                return Err(ReserveError::InsufficientDeposit { wanted: amount, free });
            }
            state.cut = false;
            state.used = Some(Instant::now());
            state.reserved += amount;
            state.streams += 1;
        }
        Ok(Reservation::new(self.inner.store.clone(), account, amount))
    }

    /// The account as it stands, or `None` for a channel that was never announced.
    pub fn status(&self, channel: &Address) -> Option<AccountStatus> {
        self.find(channel).map(|account| account.status())
    }

    /// The terms of a channel of this book.
    pub fn terms(&self, channel: &Address) -> Option<Terms> {
        self.find(channel).map(|account| account.terms.clone())
    }

    /// Every channel of the book.
    pub fn channels(&self) -> Vec<Address> {
        let accounts = self.inner.accounts.read().expect("no holder of this lock panics");
        accounts.values().map(|account| account.address.clone()).collect()
    }

    /// Notes what the chain has paid out of a channel in all.
    ///
    /// # Errors
    /// [`StoreError`] when it did not reach the disk; it can be read from the chain again.
    pub async fn settled(&self, channel: &Address, paid: Nanotons) -> Result<(), StoreError> {
        let Some(account) = self.find(channel) else { return Ok(()) };
        let change = {
            let state = account.lock();
            Change::Facts { deposit: state.deposit, paid, closing: state.closing }
        };
        account.write(change).await
    }

    /// Takes no more work on a channel: its contract is closing, or gone.
    ///
    /// # Errors
    /// [`StoreError`] when it did not reach the disk.
    pub async fn close(&self, channel: &Address) -> Result<(), StoreError> {
        let Some(account) = self.find(channel) else { return Ok(()) };
        let change = {
            let state = account.lock();
            Change::Facts { deposit: state.deposit, paid: state.paid, closing: true }
        };
        account.write(change).await
    }

    /// The channels that the chain must be asked about again and again: those with something to settle, with answers
    /// under way, used within their challenge period, or not known to be gone since they began to close.
    pub fn active(&self) -> Vec<Address> {
        let accounts = self.inner.accounts.read().expect("no holder of this lock panics");
        let active = accounts.values().filter(|account| account.is_active());
        active.map(|account| account.address.clone()).collect()
    }

    /// Notes that the chain has no such channel any more. It takes no more work; one that was known to be closing,
    /// with nothing to settle and nothing under way, leaves the book.
    ///
    /// # Errors
    /// [`StoreError`] when it did not reach the disk.
    pub async fn gone(&self, channel: &Address) -> Result<(), StoreError> {
        let Some(account) = self.find(channel) else { return Ok(()) };
        let (was_closing, over) = {
            let state = account.lock();
            (state.closing, state.streams == 0 && state.covered() <= state.paid)
        };
        if !was_closing {
            return self.close(channel).await;
        }
        if !over {
            return Ok(());
        }
        let guard = Arc::clone(&account.writing).lock_owned().await;
        self.inner.accounts.write().expect("no holder of this lock panics").remove(&channel.to_string());
        let removed = self.inner.store.remove(Table::Payee, channel.to_string()).await;
        drop(guard);
        removed
    }

    /// The vouchers that are worth more than the chain has paid, the best first.
    pub fn unsettled(&self) -> Vec<Unsettled> {
        let accounts = self.inner.accounts.read().expect("no holder of this lock panics");
        let mut all: Vec<Unsettled> = accounts.values().filter_map(|account| account.unsettled()).collect();
        all.sort_by_key(|unsettled| std::cmp::Reverse(unsettled.worth));
        all
    }

    fn find(&self, channel: &Address) -> Option<Arc<Account>> {
        let accounts = self.inner.accounts.read().expect("no holder of this lock panics");
        accounts.get(&channel.to_string()).cloned()
    }
}

impl Change {
    fn facts(facts: &ChannelFacts) -> Self {
        Change::Facts { deposit: facts.deposit, paid: facts.paid, closing: facts.closing }
    }
}

impl Account {
    fn new(store: &Store, options: PayeeOptions, facts: &ChannelFacts, state: State) -> Self {
        Self {
            address: facts.address.clone(),
            terms: facts.terms.clone(),
            store: store.downgrade(),
            window: options.window,
            writing: Arc::default(),
            state: Mutex::new(state),
            changed: Notify::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// Everything about a voucher but its signature and its amount.
    fn check_domain(&self, signed: &SignedVoucher) -> Result<(), VoucherError> {
        let voucher = &signed.voucher;
        if voucher.network != self.terms.network {
            let (expected, found) = (self.terms.network, voucher.network);
            return Err(VoucherError::WrongNetwork { expected, found });
        }
        if voucher.channel != self.address {
            let (expected, found) = (self.address.clone(), voucher.channel.clone());
            return Err(VoucherError::WrongChannel { expected, found });
        }
        if voucher.nonce != self.terms.nonce {
            return Err(VoucherError::WrongNonce { expected: self.terms.nonce, found: voucher.nonce });
        }
        Ok(())
    }

    /// A payer that starts to close is answered within its challenge period only by one who looks. Nothing is taken
    /// on a channel that was not looked at for a quarter of it.
    fn unchecked(&self, state: &State) -> bool {
        let limit = self.challenge() / 4;
        state.checked.is_none_or(|checked| checked.elapsed() > limit)
    }

    fn challenge(&self) -> Duration {
        Duration::from_secs(u64::from(self.terms.challenge_seconds))
    }

    fn is_active(&self) -> bool {
        let state = self.lock();
        let used = state.used.is_some_and(|used| used.elapsed() <= self.challenge());
        state.closing || state.streams > 0 || used || state.covered() > state.paid
    }

    fn status(&self) -> AccountStatus {
        let state = self.lock();
        AccountStatus {
            address: self.address.to_string(),
            deposit: state.deposit,
            paid: state.paid,
            voucher: state.covered(),
            owed: state.owed,
            reserved: state.reserved,
            window: self.window,
        }
    }

    fn unsettled(&self) -> Option<Unsettled> {
        let state = self.lock();
        let voucher = state.voucher.clone()?;
        let worth = voucher.voucher.cumulative.saturating_sub(state.paid);
        (worth > 0).then(|| Unsettled { channel: self.address.clone(), voucher, worth })
    }

    /// Writes the account with `change` in it; memory follows when the disk has it.
    pub(crate) async fn write(self: &Arc<Self>, change: Change) -> Result<(), StoreError> {
        let guard = Arc::clone(&self.writing).lock_owned().await;
        self.write_locked(guard, change).await
    }

    async fn write_locked(
        self: &Arc<Self>,
        guard: OwnedMutexGuard<()>,
        change: Change,
    ) -> Result<(), StoreError> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let told = Box::new(move |result| drop(sender.send(result)));
        self.store.submit(self.job(guard, change, told));
        receiver.await.unwrap_or(Err(StoreError::Closed))
    }

    /// The row with `change` in it. What follows the write runs on the writer's thread, so that a caller who
    /// stops waiting cannot leave memory behind the disk.
    fn job(
        self: &Arc<Self>,
        guard: OwnedMutexGuard<()>,
        change: Change,
        told: Box<dyn FnOnce(Result<(), StoreError>) + Send>,
    ) -> Job {
        let (row, owed) = {
            let mut next = self.lock().clone();
            change.apply(&mut next);
            (PayeeRow::new(&self.terms, &next).encode(), next.owed)
        };
        let account = Arc::clone(self);
        let done: Done = Box::new(move |result| {
            let again = account.after_write(&change, owed, result.is_ok());
            account.changed.notify_waiters();
            told(result);
            if again {
                return Some(account.job(guard, Change::Owed, Box::new(drop)));
            }
            drop(guard); // the next writer's turn
            None
        });
        Job { table: Table::Payee, key: self.address.to_string(), row, done }
    }

    /// Returns whether another row must follow, since a reservation ended meanwhile.
    fn after_write(&self, change: &Change, owed: Nanotons, written: bool) -> bool {
        let mut state = self.lock();
        if written {
            change.apply(&mut state);
            state.stored_owed = owed;
        }
        std::mem::take(&mut state.dirty) && written && state.owed > state.stored_owed
    }

    /// Gives back what a reservation did not use, and sees to it that `owed` reaches the disk soon.
    pub(crate) fn release(self: &Arc<Self>, unused: Nanotons) {
        let write_now = {
            let mut state = self.lock();
            state.reserved -= unused;
            state.streams -= 1;
            state.owed > state.stored_owed
        };
        self.changed.notify_waiters();
        if !write_now {
            return;
        }
        match Arc::clone(&self.writing).try_lock_owned() {
            Ok(guard) => self.store.submit(self.job(guard, Change::Owed, Box::new(drop))),
            Err(_) => self.lock().dirty = true,
        }
    }
}
