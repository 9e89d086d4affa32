//! The accounts over the database.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
    time::{Duration, Instant},
};

use cocoon_accounts::{
    Account, AnnounceError, ChainNews, ChannelFacts, Hold, MAX_CHANNELS, PayeeBackend, PayeeBook,
    PayeeOptions, RENT, ReserveError, StoreError, VoucherError, WalletTurn, is_fresh,
};
use cocoon_contracts::{Address, Nanotons, SignedVoucher, channel::Terms};
use futures_util::{FutureExt, future::BoxFuture};

use crate::{
    convert::{self, Shares, amount, failed, key},
    decide::{Then, lock},
    hold::SharedHold,
    lease::{self, Lease},
    pool::{Connection, Pool},
    schema::Statements,
    share::{Channel, Share},
};

/// Advisory lock of the wallet's turn.
const WALLET: i64 = 0x636f_636f_6f6e_0002;
/// How often the wallet's turn is asked for.
const WALLET_POLL: Duration = Duration::from_millis(100);
/// How the accounts are shared.
#[derive(Clone, Copy, Debug)]
pub struct SharedOptions {
    /// How long after its last sign of life what a process had set aside is given back. A few seconds at least.
    pub lease: Duration,
    /// The share of the exposure window that is drawn at a time: 8 is an eighth. 1 at least.
    pub draws: u64,
}

impl Default for SharedOptions {
    fn default() -> Self {
        Self { lease: Duration::from_secs(20), draws: 8 }
    }
}

/// A payee's accounts in a database. One database (or schema in it) is for one payee's wallet.
pub struct PostgresAccounts {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) pool: Pool,
    pub(crate) lease: Lease,
    pub(crate) options: PayeeOptions,
    pub(crate) allowance: Nanotons,
    channels: RwLock<HashMap<String, Arc<Channel>>>,
    pub(crate) runtime: tokio::runtime::Handle,
}

impl PostgresAccounts {
    /// Connects by the words of a connection (`host=/run/postgresql user=cocoon dbname=cocoon`, or a URL), makes the tables if
    /// there are none, and begins this process's lease. All who share the accounts must have the same options.
    ///
    /// # Errors
    /// [`StoreError::Open`] for a server that is too far away or does not keep what it commits, [`StoreError::Schema`] for
    /// tables of a later version, [`StoreError::Unreachable`] when nothing answers.
    pub async fn connect(
        words: &str,
        options: PayeeOptions,
        shared: SharedOptions,
    ) -> Result<Self, StoreError> {
        let pool = Pool::open(words).await?;
        let (asked, seconds) = (Instant::now(), shared.lease.as_secs_f64());
        let begin = async |connection: &mut Connection| {
            let statements = Arc::clone(&connection.statements);
            let row = connection.query_one(&statements.begin, &[&seconds]).await.map_err(failed)?;
            Ok(row.get(0))
        };
        let process = pool.run(begin).await?;
        let inner = Arc::new(Inner {
            pool,
            lease: Lease::new(shared.lease, process, asked),
            options,
            allowance: options.window / shared.draws.max(1),
            channels: RwLock::default(),
            runtime: tokio::runtime::Handle::current(),
        });
        tokio::spawn(lease::keep(Arc::downgrade(&inner)));
        tokio::spawn(lease::listen(Arc::downgrade(&inner)));
        Ok(Self { inner })
    }

    /// The book over them.
    pub fn book(self) -> PayeeBook {
        let options = self.inner.options;
        PayeeBook::over(Arc::new(self), options)
    }
}

impl Inner {
    pub(crate) fn known(&self) -> Vec<Arc<Channel>> {
        self.channels.read().expect("no holder of this lock panics").values().cloned().collect()
    }

    pub(crate) fn wake(&self, key: &str) {
        if let Some(channel) = self.channels.read().expect("no holder of this lock panics").get(key) {
            channel.changed.notify_waiters();
        }
    }

    pub(crate) fn wake_all(&self) {
        for channel in self.known() {
            channel.changed.notify_waiters();
        }
    }

    fn enter(&self, address: &Address, terms: &Terms) -> Arc<Channel> {
        let mut channels = self.channels.write().expect("no holder of this lock panics");
        let fresh = || Arc::new(Channel::new(address.clone(), terms.clone()));
        Arc::clone(channels.entry(key(address)).or_insert_with(fresh))
    }

    /// The channel, asked for once: its terms never change.
    async fn channel(&self, address: &Address) -> Result<Option<Arc<Channel>>, StoreError> {
        let known = self.channels.read().expect("no holder of this lock panics").get(&key(address)).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let account = self.account(address).await?;
        Ok(account.map(|account| self.enter(address, &account.terms)))
    }

    pub(crate) async fn account(&self, address: &Address) -> Result<Option<Account>, StoreError> {
        let (key, process) = (key(address), self.lease.last_process());
        let read = async |connection: &mut Connection| {
            let statements = Arc::clone(&connection.statements);
            connection.query_opt(&statements.read, &[&key, &process]).await.map_err(failed)
        };
        self.pool.run(read).await?.map(|row| self.whole(&row, process)).transpose()
    }

    async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        let (most, process) = (i64::try_from(MAX_CHANNELS).unwrap_or(i64::MAX), self.lease.last_process());
        let read = async |connection: &mut Connection| {
            let statements = Arc::clone(&connection.statements);
            connection.query(&statements.read_all, &[&most, &process]).await.map_err(failed)
        };
        self.pool.run(read).await?.iter().map(|row| self.whole(row, process)).collect()
    }

    /// A row with the others' shares, and ours as memory has it.
    fn whole(&self, row: &tokio_postgres::Row, process: i64) -> Result<Account, StoreError> {
        let (mut account, life) = convert::account(row)?;
        Shares::read(row)?.add_to(&mut account.state);
        let known =
            self.channels.read().expect("no holder of this lock panics").get(&key(&account.address)).cloned();
        if let Some(channel) = known {
            let share = channel.share(process);
            if share.tag.life == life {
                share.add_to(&mut account.state);
            }
        }
        Ok(account)
    }

    /// Runs one statement that changes a channel, and tells everybody.
    pub(crate) async fn change(
        &self,
        key: &str,
        statement: impl Fn(&Statements) -> &tokio_postgres::Statement,
        arguments: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<(), StoreError> {
        let changed = async |connection: &mut Connection| {
            let statements = Arc::clone(&connection.statements);
            let transaction = connection.transaction().await.map_err(failed)?;
            transaction.execute(statement(&statements), arguments).await.map_err(failed)?;
            transaction.execute(&statements.notify, &[&key]).await.map_err(failed)?;
            transaction.commit().await.map_err(failed)
        };
        self.pool.run(changed).await
    }

    async fn learn(&self, facts: &ChannelFacts) -> Result<Account, AnnounceError> {
        let (key, terms) = (key(&facts.address), cocoon_accounts::encode_terms(&facts.terms));
        let (deposit, paid, rent) = (amount(facts.deposit)?, amount(facts.paid)?, amount(RENT)?);
        let deadline = facts.deadline.filter(|_| facts.closing).map(i64::from);
        let most = i64::try_from(MAX_CHANNELS).unwrap_or(i64::MAX);
        let learn = |s: &Statements| s.learn.clone();
        let learned = async |connection: &mut Connection| {
            let statements = Arc::clone(&connection.statements);
            let transaction = connection.transaction().await.map_err(failed)?;
            let rows = transaction
                .execute(
                    &learn(&statements),
                    &[&key, &terms, &deposit, &paid, &facts.closing, &deadline, &most, &rent],
                )
                .await
                .map_err(failed)?;
            transaction.execute(&statements.notify, &[&key]).await.map_err(failed)?;
            transaction.commit().await.map_err(failed)?;
            Ok(rows == 1)
        };
        if !self.pool.run(learned).await? {
            return Err(AnnounceError::Full);
        }
        self.enter(&facts.address, &facts.terms);
        self.wake(&key);
        let gone = || StoreError::Unreachable { why: "the channel left meanwhile".to_owned() };
        Ok(self.account(&facts.address).await?.ok_or_else(gone)?)
    }

    async fn take(&self, address: &Address, signed: SignedVoucher) -> Result<Account, VoucherError> {
        let unknown = || VoucherError::UnknownChannel(address.clone());
        let channel = self.channel(address).await?.ok_or_else(unknown)?;
        let _turn = channel.turn.lock().await;
        let taken = self.decide(&channel, |account, _| {
            let (found, fresh) = (signed.voucher.cumulative, is_fresh(&account.terms, account.looked));
            let is_better = account.state.is_better(found, fresh)?;
            let voucher = is_better.then(|| (signed.encode(), found));
            if is_better {
                account.state.voucher = Some(signed);
            }
            Ok::<_, VoucherError>(((), Then { voucher, ..Then::default() }))
        });
        let (_, account) = taken.await?.ok_or_else(unknown)?;
        self.wake(&channel.key);
        Ok(account)
    }

    async fn reserve(
        self: &Arc<Self>,
        address: &Address,
        wanted: Nanotons,
    ) -> Result<SharedHold, ReserveError> {
        let unknown = || ReserveError::UnknownChannel(address.clone());
        let channel = self.channel(address).await?.ok_or_else(unknown)?;
        let _turn = channel.turn.lock().await;
        let window = self.options.window;
        let reserved = self.decide(&channel, |account, share| {
            account.state.reserve(wanted, window, is_fresh(&account.terms, account.looked))?;
            share.reserved += wanted;
            share.streams += 1;
            Ok::<_, ReserveError>((share.tag, Then { share: true, work: true, ..Then::default() }))
        });
        let (tag, _) = reserved.await?.ok_or_else(unknown)?;
        let channel = Arc::clone(&channel);
        Ok(SharedHold { inner: Arc::clone(self), channel, tag, left: wanted, is_released: false })
    }

    async fn forget(&self, address: &Address, lost: bool) -> Result<(), StoreError> {
        let (key, process) = (key(address), self.lease.last_process());
        let forgot = async |connection: &mut Connection| {
            let statements = Arc::clone(&connection.statements);
            let transaction = connection.transaction().await.map_err(failed)?;
            // Nobody reserves between the look and the deletion.
            lock(&transaction, &statements, &key, process, &mut Share::default()).await?;
            let rows = transaction.execute(&statements.forget, &[&key, &lost]).await.map_err(failed)?;
            transaction.commit().await.map_err(failed)?;
            Ok(rows == 1)
        };
        if self.pool.run(forgot).await? {
            // Answers that still hold it are of a life that is over.
            self.channels.write().expect("no holder of this lock panics").remove(&key);
        }
        Ok(())
    }

    async fn wallet_turn(&self) -> Result<WalletTurn, StoreError> {
        let (client, driver) = self.pool.connect_plainly().await?;
        loop {
            let row =
                client.query_one("SELECT pg_try_advisory_lock($1)", &[&WALLET]).await.map_err(failed)?;
            if row.get(0) {
                // The lock ends with the connection, however it ends.
                return Ok(Box::new((client, driver)));
            }
            tokio::time::sleep(WALLET_POLL).await;
        }
    }
}

impl PayeeBackend for PostgresAccounts {
    fn learn<'a>(&'a self, facts: &'a ChannelFacts) -> BoxFuture<'a, Result<Account, AnnounceError>> {
        self.inner.learn(facts).boxed()
    }

    fn account<'a>(&'a self, channel: &'a Address) -> BoxFuture<'a, Result<Option<Account>, StoreError>> {
        self.inner.account(channel).boxed()
    }

    fn terms<'a>(&'a self, channel: &'a Address) -> BoxFuture<'a, Result<Option<Terms>, StoreError>> {
        async move { Ok(self.inner.channel(channel).await?.map(|channel| channel.terms.clone())) }.boxed()
    }

    fn accounts(&self) -> BoxFuture<'_, Result<Vec<Account>, StoreError>> {
        self.inner.accounts().boxed()
    }

    fn take<'a>(
        &'a self,
        channel: &'a Address,
        signed: SignedVoucher,
    ) -> BoxFuture<'a, Result<Account, VoucherError>> {
        self.inner.take(channel, signed).boxed()
    }

    fn reserve<'a>(
        &'a self,
        channel: &'a Address,
        amount: Nanotons,
    ) -> BoxFuture<'a, Result<Box<dyn Hold>, ReserveError>> {
        async move { Ok(Box::new(self.inner.reserve(channel, amount).await?) as Box<dyn Hold>) }.boxed()
    }

    fn note<'a>(&'a self, channel: &'a Address, news: ChainNews) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            let key = key(channel);
            match news {
                ChainNews::Paid(paid) => self.inner.change(&key, |s| &s.paid, &[&key, &amount(paid)?]).await,
                ChainNews::Closing => self.inner.change(&key, |s| &s.close, &[&key]).await,
            }
        }
        .boxed()
    }

    fn forget<'a>(&'a self, channel: &'a Address, lost: bool) -> BoxFuture<'a, Result<(), StoreError>> {
        self.inner.forget(channel, lost).boxed()
    }

    fn wallet_turn(&self) -> BoxFuture<'_, Result<WalletTurn, StoreError>> {
        self.inner.wallet_turn().boxed()
    }
}
