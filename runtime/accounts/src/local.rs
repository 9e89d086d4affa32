//! A payee's accounts in the redb file of one process. Memory decides, the file follows: vouchers before they are
//! acknowledged, `owed` at the latest one window behind.

use std::{
    collections::BTreeMap,
    future::ready,
    sync::{Arc, RwLock},
};

use cocoon_contracts::{Address, Nanotons, SignedVoucher, channel::Terms};
use futures_util::{FutureExt, future::BoxFuture};
use tokio::{sync::Notify, time::Instant};

use crate::{
    MAX_CHANNELS,
    account::{Account, AccountState, ChannelFacts, is_fresh},
    errors::{AnnounceError, ChargeError, ReserveError, VoucherError},
    payee::{ChainNews, Hold, PayeeBackend, PayeeOptions, WalletTurn},
    row::{PayeeRow, encode},
    slot::{Row, Slot},
    store::{Store, StoreError, Table},
};

pub(crate) struct Local {
    store: Store,
    options: PayeeOptions,
    accounts: RwLock<BTreeMap<String, Arc<Entry>>>,
}

/// One channel.
struct Entry {
    address: Address,
    terms: Arc<Terms>,
    slot: Arc<Slot<Value>>,
}

#[derive(Clone)]
pub(crate) struct Value {
    terms: Arc<Terms>,
    state: AccountState,
    /// `owed` as it is on the disk.
    stored_owed: Nanotons,
    /// When the chain was last asked about this channel, in this process.
    looked: Option<Instant>,
    /// When work was last asked for.
    used: Option<Instant>,
}

impl Row for Value {
    const TABLE: Table = Table::Payee;

    fn encode(&self) -> Vec<u8> {
        encode(&PayeeRow::new(&self.terms, &self.state))
    }

    fn stored(&mut self, written: &Self) {
        self.stored_owed = written.state.owed;
    }

    fn is_ahead(&self) -> bool {
        self.state.owed > self.stored_owed
    }
}

impl Value {
    fn fresh(&self) -> bool {
        is_fresh(&self.terms, self.looked.map(|at| at.elapsed()))
    }
}

impl Local {
    pub(crate) fn open(store: Store, options: PayeeOptions) -> Result<Self, StoreError> {
        let mut accounts = BTreeMap::new();
        for (key, bytes) in store.rows(Table::Payee) {
            let account = PayeeRow::account(&key, &bytes);
            let account = account.map_err(|why| StoreError::Damaged { key: key.clone(), why })?;
            accounts.insert(key, Entry::new(&store, account.address, account.terms, account.state));
        }
        Ok(Self { store, options, accounts: RwLock::new(accounts) })
    }

    fn find(&self, channel: &Address) -> Option<Arc<Entry>> {
        let accounts = self.accounts.read().expect("no holder of this lock panics");
        accounts.get(&channel.to_string()).cloned()
    }

    /// The account's row exists only once [`Local::learn`] has written it.
    fn find_or_create(&self, facts: &ChannelFacts) -> Result<Arc<Entry>, AnnounceError> {
        if let Some(entry) = self.find(&facts.address) {
            return Ok(entry);
        }
        let mut accounts = self.accounts.write().expect("no holder of this lock panics");
        if accounts.len() >= MAX_CHANNELS {
            return Err(AnnounceError::Full);
        }
        let state = AccountState { owed: facts.paid, ..AccountState::default() };
        let fresh = || Entry::new(&self.store, facts.address.clone(), facts.terms.clone(), state);
        Ok(Arc::clone(accounts.entry(facts.address.to_string()).or_insert_with(fresh)))
    }

    async fn learn_now(&self, facts: &ChannelFacts) -> Result<Account, AnnounceError> {
        let (entry, now) = (self.find_or_create(facts)?, Instant::now());
        let ChannelFacts { deposit, paid, closing, deadline, .. } = *facts;
        let learn = move |value: &mut Value| {
            let follows = value.state.learn(deposit, paid, closing, deadline);
            value.looked = follows.then_some(now);
        };
        entry.slot.write(learn).await?;
        Ok(entry.account())
    }

    async fn take_now(&self, channel: &Address, signed: SignedVoucher) -> Result<Account, VoucherError> {
        let entry = self.find(channel).ok_or_else(|| VoucherError::UnknownChannel(channel.clone()))?;
        let (turn, found) = (entry.slot.turn().await, signed.voucher.cumulative);
        if entry.slot.with(|value| value.state.is_better(found, value.fresh()))? {
            let keep = move |value: &mut Value| value.state.voucher = Some(signed.clone());
            entry.slot.write_in(turn, keep).await?;
        }
        Ok(entry.account())
    }

    fn reserve_now(&self, channel: &Address, amount: Nanotons) -> Result<LocalHold, ReserveError> {
        let entry = self.find(channel).ok_or_else(|| ReserveError::UnknownChannel(channel.clone()))?;
        let window = self.options.window;
        entry.slot.with(|value| {
            value.state.reserve(amount, window, value.fresh())?;
            value.used = Some(Instant::now());
            Ok::<_, ReserveError>(())
        })?;
        let slot = Arc::clone(&entry.slot);
        Ok(LocalHold { _store: self.store.clone(), slot, window, left: amount, has_charged: false })
    }

    async fn forget_now(&self, channel: &Address, lost: bool) -> Result<(), StoreError> {
        let Some(entry) = self.find(channel) else { return Ok(()) };
        let turn = entry.slot.turn().await;
        if !entry.slot.with(|value| value.state.is_over() || lost && value.state.streams == 0) {
            return Ok(());
        }
        self.accounts.write().expect("no holder of this lock panics").remove(&channel.to_string());
        let removed = self.store.remove(Table::Payee, channel.to_string()).await;
        drop(turn);
        removed
    }
}

impl PayeeBackend for Local {
    fn learn<'a>(&'a self, facts: &'a ChannelFacts) -> BoxFuture<'a, Result<Account, AnnounceError>> {
        self.learn_now(facts).boxed()
    }

    fn account<'a>(&'a self, channel: &'a Address) -> BoxFuture<'a, Result<Option<Account>, StoreError>> {
        ready(Ok(self.find(channel).map(|entry| entry.account()))).boxed()
    }

    fn terms<'a>(&'a self, channel: &'a Address) -> BoxFuture<'a, Result<Option<Terms>, StoreError>> {
        ready(Ok(self.find(channel).map(|entry| Terms::clone(&entry.terms)))).boxed()
    }

    fn accounts(&self) -> BoxFuture<'_, Result<Vec<Account>, StoreError>> {
        let accounts = self.accounts.read().expect("no holder of this lock panics");
        ready(Ok(accounts.values().map(|entry| entry.account()).collect())).boxed()
    }

    fn take<'a>(
        &'a self,
        channel: &'a Address,
        signed: SignedVoucher,
    ) -> BoxFuture<'a, Result<Account, VoucherError>> {
        self.take_now(channel, signed).boxed()
    }

    fn reserve<'a>(
        &'a self,
        channel: &'a Address,
        amount: Nanotons,
    ) -> BoxFuture<'a, Result<Box<dyn Hold>, ReserveError>> {
        ready(self.reserve_now(channel, amount).map(|hold| Box::new(hold) as Box<dyn Hold>)).boxed()
    }

    fn note<'a>(&'a self, channel: &'a Address, news: ChainNews) -> BoxFuture<'a, Result<(), StoreError>> {
        let Some(entry) = self.find(channel) else { return ready(Ok(())).boxed() };
        let noted = async move { entry.slot.write(move |value| value.state.note(news)).await };
        noted.boxed()
    }

    fn forget<'a>(&'a self, channel: &'a Address, lost: bool) -> BoxFuture<'a, Result<(), StoreError>> {
        self.forget_now(channel, lost).boxed()
    }

    fn wallet_turn(&self) -> BoxFuture<'_, Result<WalletTurn, StoreError>> {
        // One process: the wallet itself sends one message at a time.
        ready(Ok(Box::new(()) as WalletTurn)).boxed()
    }
}

impl Entry {
    fn new(store: &Store, address: Address, terms: Terms, state: AccountState) -> Arc<Self> {
        let terms = Arc::new(terms);
        let value =
            Value { terms: Arc::clone(&terms), stored_owed: state.owed, state, looked: None, used: None };
        let slot = Slot::new(store, address.to_string(), value);
        Arc::new(Self { address, terms, slot })
    }

    fn account(&self) -> Account {
        let (address, terms) = (self.address.clone(), Terms::clone(&self.terms));
        let ago = |at: Instant| at.elapsed();
        self.slot.with(|value| Account {
            address,
            terms,
            state: value.state.clone(),
            looked: value.looked.map(ago),
            used: value.used.map(ago),
        })
    }
}

struct LocalHold {
    /// Keeps the store open until what was charged is written.
    _store: Store,
    slot: Arc<Slot<Value>>,
    window: Nanotons,
    left: Nanotons,
    has_charged: bool,
}

impl LocalHold {
    /// The look and the charge are one step: two answers of one channel cannot both take the last of the window.
    fn charge_now(&mut self, by: Nanotons) -> Result<bool, ChargeError> {
        let window = self.window;
        let granted = self.slot.with(|value| {
            let granted = value.state.grant(by, 0, window)?.is_some();
            if granted {
                value.state.charge(by);
            }
            Ok::<_, ChargeError>(granted)
        })?;
        if granted {
            self.left -= by;
            self.has_charged = true;
        }
        Ok(granted)
    }
}

impl Hold for LocalHold {
    fn charge(&mut self, by: Nanotons) -> BoxFuture<'_, Result<bool, ChargeError>> {
        ready(self.charge_now(by)).boxed()
    }

    fn signal(&self) -> Arc<Notify> {
        Arc::clone(&self.slot.changed)
    }

    fn keep_up(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        let behind = self.slot.with(|value| value.state.owed.saturating_sub(value.stored_owed));
        if behind < self.window.max(1) {
            return ready(Ok(())).boxed();
        }
        self.slot.write(|_| {}).boxed()
    }

    fn cut(&mut self) -> BoxFuture<'_, Result<(Nanotons, Nanotons), StoreError>> {
        let told = self.slot.with(|value| {
            value.state.cut = true;
            (value.state.owed, value.state.covered())
        });
        ready(Ok(told)).boxed()
    }

    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        async move {
            if self.has_charged {
                self.slot.write(|_| {}).await?;
            }
            Ok(())
        }
        .boxed()
    }
}

impl Drop for LocalHold {
    fn drop(&mut self) {
        self.slot.with(|value| {
            value.state.reserved -= self.left;
            value.state.streams -= 1;
        });
        self.slot.changed.notify_waiters();
        self.slot.catch_up();
    }
}
