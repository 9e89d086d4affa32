//! What we owe others: channels of which we are the payer, and the highest amount ever signed away on each.
//!
//! A voucher's amount is on the disk before the voucher exists, so no crash makes this book sign twice for the
//! same work, sign lower than before, or sign beyond the deposit.
//!
//! Owed is what we counted ourselves. The payee's count may be higher for one reason only: an answer broke, and
//! frames that it charged never arrived. What is conceded for that is bounded three ways: nothing unless an answer
//! broke since the counts were last compared; at most one concession (the smaller of the payee's window and our own
//! cap) each time; and over the channel's life one concession and a quarter of what we counted. A mark on the disk
//! says that answers are under way or one has broken: a process that finds it set when it starts, after a crash, may
//! concede once, and the same write that concedes clears the mark. A process that finds it clear concedes nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, RwLock},
};

use cocoon_contracts::{Address, Nanotons, SignedVoucher, SigningKey, Voucher, channel::Terms};
use tokio::sync::{Notify, OwnedMutexGuard};

use crate::{
    errors::PayError,
    row::PayerRow,
    store::{Done, Job, Store, StoreError, Table, WeakStore},
};

/// The payer's book. Clones share it.
#[derive(Clone)]
pub struct PayerBook {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    accounts: RwLock<HashMap<String, Arc<Account>>>,
}

struct Account {
    address: Address,
    terms: Terms,
    store: WeakStore,
    writing: Arc<tokio::sync::Mutex<()>>,
    inside: Mutex<Inside>,
    changed: Notify,
}

/// One channel as its payer sees it, in nanotons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PayerState {
    /// What we have put in.
    pub deposit: Nanotons,
    /// What we owe, cumulative: our own count, and what was conceded.
    pub owed: Nanotons,
    /// Of that, what we never counted and took over from the payee after broken answers.
    pub conceded: Nanotons,
    /// The highest amount that we ever signed.
    pub signed: Nanotons,
    /// The highest amount that the payee is known to hold a voucher for, in this process.
    pub acknowledged: Nanotons,
}

impl PayerState {
    /// Owed, and no voucher for it is known to have arrived.
    pub fn unacknowledged(&self) -> Nanotons {
        self.owed.saturating_sub(self.acknowledged)
    }

    /// What we counted ourselves.
    pub fn counted(&self) -> Nanotons {
        self.owed.saturating_sub(self.conceded)
    }

    /// What may still be owed within the deposit.
    pub fn free(&self) -> Nanotons {
        self.deposit.saturating_sub(self.owed)
    }
}

/// Everything that changes, under one lock.
#[derive(Clone, Copy, Default)]
struct Inside {
    state: PayerState,
    /// Answers under way, and how many ever began: together they tell a quiet moment.
    streams: usize,
    begun: u64,
    /// Worst cases of the answers under way, less what each owes already.
    committed: Nanotons,
    /// What the answers that broke since the last comparison may have cost beyond our count.
    forgiven: Nanotons,
    /// The mark was on the disk when the book was opened.
    unclean: bool,
    /// The mark as it is on the disk.
    marked: bool,
}

impl Inside {
    fn to_mark(self) -> bool {
        self.streams > 0 || self.forgiven > 0 || self.unclean
    }
}

/// A moment without answers under way; see [`PayerBook::quiet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet(u64);

impl PayerBook {
    /// Opens the book over a store, with every account as it was last written.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when a row does not parse.
    pub fn open(store: Store) -> Result<Self, StoreError> {
        let mut accounts = HashMap::new();
        for (key, bytes) in store.rows(Table::Payer) {
            let damaged = |why: String| StoreError::Damaged { key: key.clone(), why };
            let row = PayerRow::decode(bytes).map_err(damaged)?;
            let address = cocoon_contracts::parse_address(key).map_err(|e| damaged(e.to_string()))?;
            let inside =
                Inside { state: row.state(), unclean: row.marked, marked: row.marked, ..Inside::default() };
            let account = Account::new(&store, address, row.terms().map_err(damaged)?, inside);
            accounts.insert(key.clone(), Arc::new(account));
        }
        Ok(Self { inner: Arc::new(Inner { store, accounts: RwLock::new(accounts) }) })
    }

    /// Takes a channel that we opened into the book, or its deposit after a top up. Deposits only grow.
    ///
    /// # Errors
    /// [`StoreError`] when it did not reach the disk.
    pub async fn open_channel(
        &self,
        address: &Address,
        terms: &Terms,
        deposit: Nanotons,
    ) -> Result<PayerState, StoreError> {
        let account = {
            let mut accounts = self.inner.accounts.write().expect("no holder of this lock panics");
            let fresh = || {
                let inside = Inside::default();
                Arc::new(Account::new(&self.inner.store, address.clone(), terms.clone(), inside))
            };
            Arc::clone(accounts.entry(address.to_string()).or_insert_with(fresh))
        };
        account.write(move |state| state.deposit = state.deposit.max(deposit)).await?;
        Ok(account.lock().state)
    }

    /// Says that an answer is about to be asked for that costs at most `worst`; the mark is on the disk when this
    /// returns. With `hold`, the worst cases of all answers under way must lie within the deposit. What the answer
    /// costs is counted on the returned value; one that is dropped without [`PayerStream::finish`] has broken, and
    /// may have cost up to `concession` more than was counted.
    ///
    /// # Errors
    /// [`PayError`]; nothing is under way then.
    pub async fn begin(
        &self,
        channel: &Address,
        worst: Nanotons,
        hold: bool,
        concession: Nanotons,
    ) -> Result<PayerStream, PayError> {
        let account = self.find(channel)?;
        let marked = {
            let mut inside = account.lock();
            let committed = inside.committed.saturating_add(worst);
            if hold && committed > inside.state.free() {
                let (deposit, wanted) = (inside.state.deposit, inside.state.owed.saturating_add(committed));
                return Err(PayError::ExceedsDeposit { deposit, wanted });
            }
            inside.committed = committed;
            inside.streams += 1;
            inside.begun += 1;
            inside.marked
        };
        let store = self.inner.store.clone();
        let stream = PayerStream { _store: store, account, worst, owed: 0, concession };
        if !marked && let Err(error) = stream.account.write(|_| {}).await {
            stream.finish();
            return Err(error.into());
        }
        Ok(stream)
    }

    /// Counts work that was done for us: `by` nanotons more are owed. In memory; the disk follows with the next
    /// voucher or [`PayerBook::store_owed`].
    ///
    /// # Errors
    /// [`PayError::UnknownChannel`], or [`PayError::ExceedsDeposit`] with nothing counted.
    pub fn owe(&self, channel: &Address, by: Nanotons) -> Result<PayerState, PayError> {
        self.find(channel)?.owe(by)
    }

    /// Writes what is owed to the disk.
    ///
    /// # Errors
    /// [`PayError`] when the channel is unknown or the disk refuses.
    pub async fn store_owed(&self, channel: &Address) -> Result<(), PayError> {
        Ok(self.find(channel)?.write(|_| {}).await?)
    }

    /// The present moment if none of our answers is under way. What the payee says after it may be compared with our
    /// count, unless an answer has begun since.
    pub fn quiet(&self, channel: &Address) -> Option<Quiet> {
        let account = self.find(channel).ok()?;
        let inside = account.lock();
        (inside.streams == 0).then_some(Quiet(inside.begun))
    }

    /// Whether an answer has broken since the counts were last compared, or may have before a crash.
    pub fn has_broken(&self, channel: &Address) -> bool {
        self.find(channel).is_ok_and(|account| {
            let inside = account.lock();
            inside.forgiven > 0 || inside.unclean
        })
    }

    /// Compares the payee's own count, told after `since`, with ours, and takes over what broken answers explain: at
    /// most one `concession`, see the head of this module. While an answer is under way nothing is compared, since
    /// frames that are not read yet would be owed twice.
    ///
    /// # Errors
    /// [`PayError::Overcharged`] beyond the allowance, [`PayError::ExceedsDeposit`] beyond the deposit; nothing is
    /// then counted.
    pub async fn reconcile(
        &self,
        channel: &Address,
        claimed: Nanotons,
        since: Quiet,
        concession: Nanotons,
    ) -> Result<PayerState, PayError> {
        let account = self.find(channel)?;
        let write = {
            let mut inside = account.lock();
            if inside.streams > 0 || inside.begun != since.0 {
                return Ok(inside.state);
            }
            inside.concede(claimed, concession)?;
            inside.marked != inside.to_mark()
        };
        account.changed.notify_waiters();
        if write {
            account.write(|_| {}).await?;
        }
        Ok(account.lock().state)
    }

    /// Signs a voucher for all that is owed, or for what was signed before if that is more. `None` while nothing
    /// was ever owed. The amount is on the disk before the voucher is returned.
    ///
    /// # Errors
    /// [`PayError`]; no voucher exists then.
    pub async fn sign_owed(
        &self,
        channel: &Address,
        key: &SigningKey,
    ) -> Result<Option<SignedVoucher>, PayError> {
        let account = self.find(channel)?;
        if key.public() != account.terms.payer_key {
            return Err(PayError::WrongSigner);
        }
        let guard = Arc::clone(&account.writing).lock_owned().await;
        let inside = *account.lock();
        let state = inside.state;
        let cumulative = state.owed.max(state.signed);
        if cumulative > state.deposit {
            return Err(PayError::ExceedsDeposit { deposit: state.deposit, wanted: cumulative });
        }
        if cumulative > state.signed || inside.marked != inside.to_mark() {
            account.write_locked(guard, move |state| state.signed = state.signed.max(cumulative)).await?;
        }
        if cumulative == 0 {
            return Ok(None);
        }
        let voucher = Voucher {
            network: account.terms.network,
            channel: account.address.clone(),
            nonce: account.terms.nonce,
            cumulative,
        };
        Ok(Some(voucher.sign(key)))
    }

    /// Notes that the payee holds a voucher for `cumulative`. More than we ever signed is not believed.
    pub fn acknowledge(&self, channel: &Address, cumulative: Nanotons) {
        let Ok(account) = self.find(channel) else { return };
        let mut inside = account.lock();
        let known = cumulative.min(inside.state.signed);
        inside.state.acknowledged = inside.state.acknowledged.max(known);
    }

    /// The account as it stands, or `None` for a channel that is not in the book.
    pub fn state(&self, channel: &Address) -> Option<PayerState> {
        self.find(channel).ok().map(|account| account.lock().state)
    }

    /// The terms of a channel of this book.
    pub fn terms(&self, channel: &Address) -> Option<Terms> {
        self.find(channel).ok().map(|account| account.terms.clone())
    }

    /// Every channel of the book.
    pub fn channels(&self) -> Vec<Address> {
        let accounts = self.inner.accounts.read().expect("no holder of this lock panics");
        accounts.values().map(|account| account.address.clone()).collect()
    }

    /// Returns once more than `threshold` nanotons are owed of which the payee is not known to hold a voucher.
    ///
    /// # Errors
    /// [`PayError::UnknownChannel`].
    pub async fn wait_unacknowledged(
        &self,
        channel: &Address,
        threshold: Nanotons,
    ) -> Result<PayerState, PayError> {
        let account = self.find(channel)?;
        loop {
            let mut changed = std::pin::pin!(account.changed.notified());
            changed.as_mut().enable();
            let state = account.lock().state;
            if state.unacknowledged() > threshold {
                return Ok(state);
            }
            changed.await;
        }
    }

    fn find(&self, channel: &Address) -> Result<Arc<Account>, PayError> {
        let accounts = self.inner.accounts.read().expect("no holder of this lock panics");
        let account = accounts.get(&channel.to_string()).cloned();
        account.ok_or_else(|| PayError::UnknownChannel(channel.clone()))
    }
}

impl Inside {
    /// One comparison: whatever its outcome within the allowance, the broken answers before it are dealt with.
    fn concede(&mut self, claimed: Nanotons, concession: Nanotons) -> Result<(), PayError> {
        let (state, broken) = (self.state, if self.unclean { concession } else { self.forgiven });
        let more = claimed.saturating_sub(state.owed);
        let in_all = concession.saturating_add(state.counted() / 4);
        let allowance = broken.min(concession).min(in_all.saturating_sub(state.conceded));
        if more > allowance {
            return Err(PayError::Overcharged { claimed, owed: state.owed, allowance });
        }
        if claimed > state.deposit && more > 0 {
            return Err(PayError::ExceedsDeposit { deposit: state.deposit, wanted: claimed });
        }
        self.state.owed += more;
        self.state.conceded += more;
        self.forgiven = 0;
        self.unclean = false;
        Ok(())
    }
}

/// One answer that is under way for us. Dropping it without [`PayerStream::finish`] says that it broke.
pub struct PayerStream {
    /// Keeps the store open until what is owed is written.
    _store: Store,
    account: Arc<Account>,
    worst: Nanotons,
    owed: Nanotons,
    concession: Nanotons,
}

impl PayerStream {
    /// Owes `bill` nanotons in all for this answer. A bill that is not above the last one changes nothing.
    ///
    /// # Errors
    /// [`PayError::ExceedsDeposit`] with nothing counted.
    pub fn owe_up_to(&mut self, bill: Nanotons) -> Result<(), PayError> {
        let by = bill.saturating_sub(self.owed);
        if by == 0 {
            return Ok(());
        }
        self.account.owe(by)?;
        let held = self.worst.saturating_sub(self.owed);
        self.owed = bill;
        let now = self.worst.saturating_sub(self.owed);
        let mut inside = self.account.lock();
        inside.committed = inside.committed.saturating_sub(held - now);
        Ok(())
    }

    /// The answer came whole, or never began: the payee has charged nothing for it beyond our count.
    pub fn finish(mut self) {
        self.concession = 0;
    }
}

impl Drop for PayerStream {
    fn drop(&mut self) {
        let left = self.worst.saturating_sub(self.owed);
        let mut inside = self.account.lock();
        inside.streams -= 1;
        inside.committed = inside.committed.saturating_sub(left);
        if self.concession > 0 {
            let lost = left.min(self.concession);
            inside.forgiven = inside.forgiven.saturating_add(lost).min(self.concession);
        }
    }
}

impl Account {
    fn new(store: &Store, address: Address, terms: Terms, inside: Inside) -> Self {
        let store = store.downgrade();
        Self {
            address,
            terms,
            store,
            writing: Arc::default(),
            inside: Mutex::new(inside),
            changed: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().expect("no holder of this lock panics")
    }

    fn owe(&self, by: Nanotons) -> Result<PayerState, PayError> {
        let after = {
            let mut inside = self.lock();
            let state = &mut inside.state;
            let wanted = state.owed.saturating_add(by);
            if wanted > state.deposit {
                return Err(PayError::ExceedsDeposit { deposit: state.deposit, wanted });
            }
            state.owed = wanted;
            *state
        };
        self.changed.notify_waiters();
        Ok(after)
    }

    async fn write(
        self: &Arc<Self>,
        change: impl Fn(&mut PayerState) + Send + 'static,
    ) -> Result<(), StoreError> {
        let guard = Arc::clone(&self.writing).lock_owned().await;
        self.write_locked(guard, change).await
    }

    /// Writes the row with `change` in it; memory follows on the writer's thread when the disk has it, whether or
    /// not the caller still waits.
    async fn write_locked(
        self: &Arc<Self>,
        guard: OwnedMutexGuard<()>,
        change: impl Fn(&mut PayerState) + Send + 'static,
    ) -> Result<(), StoreError> {
        let (row, marked) = {
            let mut next = *self.lock();
            change(&mut next.state);
            (PayerRow::new(&self.terms, &next.state, next.to_mark()).encode(), next.to_mark())
        };
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let account = Arc::clone(self);
        let done: Done = Box::new(move |result| {
            if result.is_ok() {
                let mut inside = account.lock();
                change(&mut inside.state);
                inside.marked = marked;
            }
            drop(guard);
            drop(sender.send(result));
            None
        });
        self.store.submit(Job { table: Table::Payer, key: self.address.to_string(), row, done });
        receiver.await.unwrap_or(Err(StoreError::Closed))
    }
}
