//! What we owe others: channels of which we are the payer, and the highest amount ever signed away on each.
//!
//! A voucher's amount is on the disk before the voucher exists, so no crash makes this book sign twice for the
//! same work, sign lower than before, or sign beyond the deposit.

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
    state: Mutex<PayerState>,
    changed: Notify,
}

/// One channel as its payer sees it, in nanotons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PayerState {
    /// What we have put in.
    pub deposit: Nanotons,
    /// What we owe by our own count, cumulative.
    pub owed: Nanotons,
    /// The highest amount that we ever signed.
    pub signed: Nanotons,
}

impl PayerState {
    /// Owed and not yet covered by a voucher.
    pub fn uncovered(&self) -> Nanotons {
        self.owed.saturating_sub(self.signed)
    }
}

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
            let account = Account::new(&store, address, row.terms().map_err(damaged)?, row.state());
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
                let state = PayerState::default();
                Arc::new(Account::new(&self.inner.store, address.clone(), terms.clone(), state))
            };
            Arc::clone(accounts.entry(address.to_string()).or_insert_with(fresh))
        };
        account.write(move |state| state.deposit = state.deposit.max(deposit)).await?;
        Ok(*account.lock())
    }

    /// Counts work that was done for us: `by` nanotons more are owed. In memory; the disk follows with the next
    /// voucher or [`PayerBook::store_owed`].
    ///
    /// # Errors
    /// [`PayError::UnknownChannel`], or [`PayError::ExceedsDeposit`] with nothing counted.
    pub fn owe(&self, channel: &Address, by: Nanotons) -> Result<PayerState, PayError> {
        let account = self.find(channel)?;
        let after = {
            let mut state = account.lock();
            let wanted = state.owed.saturating_add(by);
            if wanted > state.deposit {
                return Err(PayError::ExceedsDeposit { deposit: state.deposit, wanted });
            }
            state.owed = wanted;
            *state
        };
        account.changed.notify_waiters();
        Ok(after)
    }

    /// Writes what is owed to the disk.
    ///
    /// # Errors
    /// [`PayError`] when the channel is unknown or the disk refuses.
    pub async fn store_owed(&self, channel: &Address) -> Result<(), PayError> {
        Ok(self.find(channel)?.write(|_| {}).await?)
    }

    /// Takes the payee's own count where it is higher than ours by at most `allowance` nanotons: frames that were
    /// charged there and lost on the way, or counted here in the moments before a crash.
    ///
    /// # Errors
    /// [`PayError::Overcharged`] beyond the allowance, [`PayError::ExceedsDeposit`] beyond the deposit; nothing is
    /// then counted.
    pub async fn reconcile(
        &self,
        channel: &Address,
        claimed: Nanotons,
        allowance: Nanotons,
    ) -> Result<PayerState, PayError> {
        let account = self.find(channel)?;
        {
            let state = account.lock();
            if claimed <= state.owed {
                return Ok(*state);
            }
            if claimed - state.owed > allowance {
                return Err(PayError::Overcharged { claimed, owed: state.owed, allowance });
            }
            if claimed > state.deposit {
                return Err(PayError::ExceedsDeposit { deposit: state.deposit, wanted: claimed });
            }
        }
        account.write(move |state| state.owed = state.owed.max(claimed)).await?;
        account.changed.notify_waiters();
        Ok(*account.lock())
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
        let state = *account.lock();
        let cumulative = state.owed.max(state.signed);
        if cumulative == 0 {
            return Ok(None);
        }
        if cumulative > state.deposit {
            return Err(PayError::ExceedsDeposit { deposit: state.deposit, wanted: cumulative });
        }
        if cumulative > state.signed {
            account.write_locked(guard, move |state| state.signed = state.signed.max(cumulative)).await?;
        }
        let voucher = Voucher {
            network: account.terms.network,
            channel: account.address.clone(),
            nonce: account.terms.nonce,
            cumulative,
        };
        Ok(Some(voucher.sign(key)))
    }

    /// The account as it stands, or `None` for a channel that is not in the book.
    pub fn state(&self, channel: &Address) -> Option<PayerState> {
        self.find(channel).ok().map(|account| *account.lock())
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

    /// Returns once more than `threshold` nanotons are owed without a voucher.
    ///
    /// # Errors
    /// [`PayError::UnknownChannel`].
    pub async fn wait_uncovered(
        &self,
        channel: &Address,
        threshold: Nanotons,
    ) -> Result<PayerState, PayError> {
        let account = self.find(channel)?;
        loop {
            let mut changed = std::pin::pin!(account.changed.notified());
            changed.as_mut().enable();
            let state = *account.lock();
            if state.uncovered() > threshold {
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

impl Account {
    fn new(store: &Store, address: Address, terms: Terms, state: PayerState) -> Self {
        let store = store.downgrade();
        Self {
            address,
            terms,
            store,
            writing: Arc::default(),
            state: Mutex::new(state),
            changed: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, PayerState> {
        self.state.lock().expect("no holder of this lock panics")
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
        let row = {
            let mut next = *self.lock();
            change(&mut next);
            PayerRow::new(&self.terms, &next).encode()
        };
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let account = Arc::clone(self);
        let done: Done = Box::new(move |result| {
            if result.is_ok() {
                change(&mut account.lock());
            }
            drop(guard);
            drop(sender.send(result));
            None
        });
        self.store.submit(Job { table: Table::Payer, key: self.address.to_string(), row, done });
        receiver.await.unwrap_or(Err(StoreError::Closed))
    }
}
