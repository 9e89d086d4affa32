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
    collections::BTreeMap,
    sync::{Arc, RwLock},
};

use cocoon_contracts::{Address, Nanotons, SignedVoucher, SigningKey, Voucher, channel::Terms};

use crate::{
    clock::unix_seconds,
    errors::PayError,
    row::{PayerRow, encode},
    slot::{Row, Slot},
    store::{Store, StoreError, Table},
    summary::PayerSummary,
};

/// The payer's book. Clones share it.
#[derive(Clone)]
pub struct PayerBook {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    accounts: RwLock<BTreeMap<String, Arc<Account>>>,
}

struct Account {
    address: Address,
    terms: Arc<Terms>,
    slot: Arc<Slot<Inside>>,
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
    /// The second (Unix time) in which work was last asked for, or the channel was taken into the book.
    pub used: u64,
    /// We close it: no new work.
    pub closing: bool,
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
#[derive(Clone)]
struct Inside {
    terms: Arc<Terms>,
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
    fn new(terms: &Arc<Terms>, state: PayerState, marked: bool) -> Self {
        let (streams, begun, committed, forgiven) = (0, 0, 0, 0);
        let terms = Arc::clone(terms);
        Self { terms, state, streams, begun, committed, forgiven, unclean: marked, marked }
    }

    fn to_mark(&self) -> bool {
        self.streams > 0 || self.forgiven > 0 || self.unclean
    }
}

impl Row for Inside {
    const TABLE: Table = Table::Payer;

    fn encode(&self) -> Vec<u8> {
        encode(&PayerRow::new(&self.terms, &self.state, self.to_mark()))
    }

    fn stored(&mut self, written: &Self) {
        self.marked = written.to_mark();
    }

    fn is_ahead(&self) -> bool {
        false // what is owed goes with the next voucher
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
        let mut accounts = BTreeMap::new();
        for (key, bytes) in store.rows(Table::Payer) {
            let row = PayerRow::parse(&key, &bytes);
            let (address, terms, state, marked) =
                row.map_err(|why| StoreError::Damaged { key: key.clone(), why })?;
            let account = Account::new(&store, address, terms, state, marked);
            accounts.insert(key, Arc::new(account));
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
                let (store, state) = (&self.inner.store, PayerState::default());
                Arc::new(Account::new(store, address.clone(), terms.clone(), state, false))
            };
            Arc::clone(accounts.entry(address.to_string()).or_insert_with(fresh))
        };
        let now = unix_seconds();
        let enter = move |inside: &mut Inside| {
            let state = &mut inside.state;
            state.deposit = state.deposit.max(deposit);
            if state.used == 0 {
                state.used = now;
            }
        };
        account.slot.write(enter).await?;
        Ok(account.state())
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
        let (account, now) = (self.find(channel)?, unix_seconds());
        // In a turn of its own: a row that is on its way now may be one that takes the mark away.
        let turn = account.slot.turn().await;
        let marked = account.slot.with(|inside| inside.begin(worst, hold, now))?;
        let store = self.inner.store.clone();
        let stream = PayerStream { _store: store, account, worst, owed: 0, concession };
        if !marked && let Err(error) = stream.account.slot.write_in(turn, |_| {}).await {
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
        Ok(self.find(channel)?.slot.write(|_| {}).await?)
    }

    /// The present moment if none of our answers is under way. What the payee says after it may be compared with our
    /// count, unless an answer has begun since.
    pub fn quiet(&self, channel: &Address) -> Option<Quiet> {
        let account = self.find(channel).ok()?;
        account.slot.with(|inside| (inside.streams == 0).then_some(Quiet(inside.begun)))
    }

    /// Whether an answer has broken since the counts were last compared, or may have before a crash.
    pub fn has_broken(&self, channel: &Address) -> bool {
        self.find(channel)
            .is_ok_and(|account| account.slot.with(|inside| inside.forgiven > 0 || inside.unclean))
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
        let write = account.slot.with(|inside| {
            if inside.streams > 0 || inside.begun != since.0 {
                return Ok(None);
            }
            inside.concede(claimed, concession)?;
            Ok::<_, PayError>(Some(inside.marked != inside.to_mark()))
        })?;
        if write.is_some() {
            account.slot.changed.notify_waiters();
        }
        if write == Some(true) {
            account.slot.write(|_| {}).await?;
        }
        Ok(account.state())
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
        let turn = account.slot.turn().await;
        let (state, mark) = account.slot.with(|inside| (inside.state, inside.marked != inside.to_mark()));
        let cumulative = state.owed.max(state.signed);
        if cumulative > state.deposit {
            return Err(PayError::ExceedsDeposit { deposit: state.deposit, wanted: cumulative });
        }
        if cumulative > state.signed || mark {
            let sign = move |inside: &mut Inside| inside.state.signed = inside.state.signed.max(cumulative);
            account.slot.write_in(turn, sign).await?;
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
        account.slot.with(|inside| {
            let known = cumulative.min(inside.state.signed);
            inside.state.acknowledged = inside.state.acknowledged.max(known);
        });
    }

    /// Takes no more work on a channel: we close it. `false` when answers are under way; nothing is noted then.
    ///
    /// # Errors
    /// [`PayError`] when the channel is unknown or the disk refuses.
    pub async fn close(&self, channel: &Address) -> Result<bool, PayError> {
        let account = self.find(channel)?;
        let idle = account.slot.with(|inside| {
            let idle = inside.streams == 0;
            inside.state.closing |= idle;
            idle
        });
        if idle {
            account.slot.write(|inside| inside.state.closing = true).await?;
        }
        Ok(idle)
    }

    /// Takes a channel out of the book whose contract is gone. What was signed for it can never count again, since its
    /// address is never used again.
    ///
    /// # Errors
    /// [`StoreError`] when it did not reach the disk.
    pub async fn forget(&self, channel: &Address) -> Result<(), StoreError> {
        let Ok(account) = self.find(channel) else { return Ok(()) };
        let turn = account.slot.turn().await;
        self.inner.accounts.write().expect("no holder of this lock panics").remove(&channel.to_string());
        let removed = self.inner.store.remove(Table::Payer, channel.to_string()).await;
        drop(turn);
        removed
    }

    /// Answers under way on a channel, and what they may cost beyond what is owed already, in nanotons.
    pub fn under_way(&self, channel: &Address) -> (usize, Nanotons) {
        let found = self.find(channel);
        found.map_or((0, 0), |account| account.slot.with(|inside| (inside.streams, inside.committed)))
    }

    /// What is owed, signed away and left, per channel and in total.
    pub fn summary(&self) -> PayerSummary {
        let accounts = self.inner.accounts.read().expect("no holder of this lock panics");
        PayerSummary::of(accounts.values().map(|account| (account.address.clone(), account.state())))
    }

    /// The account as it stands, or `None` for a channel that is not in the book.
    pub fn state(&self, channel: &Address) -> Option<PayerState> {
        self.find(channel).ok().map(|account| account.state())
    }

    /// The terms of a channel of this book.
    pub fn terms(&self, channel: &Address) -> Option<Terms> {
        self.find(channel).ok().map(|account| Terms::clone(&account.terms))
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
            let mut changed = std::pin::pin!(account.slot.changed.notified());
            changed.as_mut().enable();
            let state = account.state();
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
    /// Whether the mark is on the disk already.
    fn begin(&mut self, worst: Nanotons, hold: bool, now: u64) -> Result<bool, PayError> {
        if self.state.closing {
            return Err(PayError::Closing);
        }
        let committed = self.committed.saturating_add(worst);
        if hold && committed > self.state.free() {
            let (deposit, wanted) = (self.state.deposit, self.state.owed.saturating_add(committed));
            return Err(PayError::ExceedsDeposit { deposit, wanted });
        }
        self.committed = committed;
        self.streams += 1;
        self.begun += 1;
        self.state.used = self.state.used.max(now);
        Ok(self.marked)
    }

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
        self.account.slot.with(|inside| inside.committed = inside.committed.saturating_sub(held - now));
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
        self.account.slot.with(|inside| {
            inside.streams -= 1;
            inside.committed = inside.committed.saturating_sub(left);
            if self.concession > 0 {
                let lost = left.min(self.concession);
                inside.forgiven = inside.forgiven.saturating_add(lost).min(self.concession);
            }
        });
    }
}

impl Account {
    fn new(store: &Store, address: Address, terms: Terms, state: PayerState, marked: bool) -> Self {
        let terms = Arc::new(terms);
        let slot = Slot::new(store, address.to_string(), Inside::new(&terms, state, marked));
        Self { address, terms, slot }
    }

    fn state(&self) -> PayerState {
        self.slot.with(|inside| inside.state)
    }

    fn owe(&self, by: Nanotons) -> Result<PayerState, PayError> {
        let after = self.slot.with(|inside| {
            let state = &mut inside.state;
            let wanted = state.owed.saturating_add(by);
            if wanted > state.deposit {
                return Err(PayError::ExceedsDeposit { deposit: state.deposit, wanted });
            }
            state.owed = wanted;
            Ok(*state)
        })?;
        self.slot.changed.notify_waiters();
        Ok(after)
    }
}
