//! The accounts over the database.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
    time::{Duration, Instant},
};

use cocoon_accounts::{
    Account, AnnounceError, ChainNews, ChannelFacts, ChargeError, Hold, MAX_CHANNELS, PayeeBackend,
    PayeeBook, PayeeOptions, ReserveError, StoreError, VoucherError, WalletTurn, is_fresh,
};
use cocoon_contracts::{Address, Nanotons, SignedVoucher, channel::Terms};
use futures_util::{FutureExt, future::BoxFuture, future::join};
use tokio::sync::Notify;
use tokio_postgres::Transaction;

use crate::{
    convert::{self, Shares, amount, failed, key},
    lease::{self, Lease},
    pool::{Connection, Pool},
    schema::Statements,
    share::{Channel, Share, Tag},
};

/// Advisory lock of the wallet's turn.
const WALLET: i64 = 0x636f_636f_6f6e_0002;
/// How often the wallet's turn is asked for.
const WALLET_POLL: Duration = Duration::from_millis(100);
/// How long the end of an answer waits for a database that is away. Afterwards it is told when the database is back.
const FINISH: Duration = Duration::from_secs(15);
const FINISH_POLL: Duration = Duration::from_millis(250);

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
    options: PayeeOptions,
    allowance: Nanotons,
    channels: RwLock<HashMap<String, Arc<Channel>>>,
    runtime: tokio::runtime::Handle,
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

/// What a decision does to the channel's row, beside the share's.
#[derive(Default)]
struct Then {
    /// The share has changed.
    share: bool,
    /// Work was taken.
    work: bool,
    /// A voucher and its amount.
    voucher: Option<(Vec<u8>, Nanotons)>,
}

/// What is decided, and what follows from it.
type Decided<T, E> = Result<(T, Then), E>;

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

    async fn account(&self, address: &Address) -> Result<Option<Account>, StoreError> {
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

    /// Decides something about a channel under its row's lock, with all shares added up. Nobody else decides meanwhile, in
    /// no process; what is decided is on the disk when this returns. `None`: the channel is not there.
    async fn decide<T, E: From<StoreError>>(
        &self,
        channel: &Channel,
        decide: impl FnOnce(&mut Account, &mut Share) -> Decided<T, E>,
    ) -> Result<Option<(T, Account)>, E> {
        let process = self.lease.process()?;
        let before = channel.freeze(process);
        let mut after = before;
        let decided = self.pool.run(async |connection: &mut Connection| {
            let statements = Arc::clone(&connection.statements);
            let transaction = connection.transaction().await.map_err(failed)?;
            let Some(mut account) =
                lock(&transaction, &statements, &channel.key, process, &mut after).await?
            else {
                return Ok(Ok(None));
            };
            let (told, then) = match decide(&mut account, &mut after) {
                Ok(decided) => decided,
                Err(refused) => return Ok(Err(refused)), // rolled back by dropping it
            };
            let with_share = then.share;
            if write(&transaction, &statements, &channel.key, &after, then).await? {
                transaction.commit().await.map_err(failed)?;
            }
            Ok(Ok(Some((told, account, with_share))))
        });
        match decided.await? {
            Ok(Some((told, account, true))) => {
                channel.decided(&before, &after);
                Ok(Some((told, account)))
            }
            other => {
                channel.thaw(&before);
                Ok(other?.map(|(told, account, _)| (told, account)))
            }
        }
    }

    /// Draws what a charge of `by` needs, and an allowance beyond it. `false`: a voucher must come first.
    async fn draw(&self, channel: &Channel, tag: Tag, by: Nanotons) -> Result<bool, ChargeError> {
        let _turn = channel.turn.lock().await;
        if channel.with(|share| share.tag != tag) {
            return Err(StoreError::Lapsed.into());
        }
        if channel.with(|share| by <= share.allowed - share.charged) {
            return Ok(true);
        }
        let (window, allowance) = (self.options.window, self.allowance);
        let drawn = self.decide(channel, |account, share| {
            // What is left of the last allowance goes into the next, or back.
            let left = share.allowed - share.charged;
            account.state.drawn -= left;
            let extra = allowance.min(share.reserved.saturating_sub(by));
            let granted = account.state.grant(by, extra, window)?;
            share.allowed = share.charged + granted.unwrap_or(0);
            let share = granted.is_some() || left > 0;
            Ok::<_, ChargeError>((granted.is_some(), Then { share, ..Then::default() }))
        });
        let (drawn, _) = drawn.await?.ok_or(ChargeError::Closing)?;
        Ok(drawn)
    }

    /// Writes the share as it is, and wakes who may wait for what it gives back.
    pub(crate) async fn sync(&self, channel: &Channel) -> Result<(), StoreError> {
        let _turn = channel.turn.lock().await;
        let share = channel.share(self.lease.process()?);
        if !share.is_dirty() {
            return Ok(());
        }
        let written = async |connection: &mut Connection| {
            let statements = Arc::clone(&connection.statements);
            let transaction = connection.transaction().await.map_err(failed)?;
            write_share(&transaction, &statements, &channel.key, &share).await?;
            transaction.execute(&statements.notify, &[&channel.key]).await.map_err(failed)?;
            transaction.commit().await.map_err(failed)
        };
        self.pool.run(written).await?;
        channel.synced(&share);
        Ok(())
    }

    /// [`Inner::sync`], again and again while the database is away, for a while.
    async fn sync_patiently(&self, channel: &Channel) -> Result<(), StoreError> {
        let began = Instant::now();
        loop {
            match self.sync(channel).await {
                Err(error) if error.is_passing() && began.elapsed() < FINISH => {
                    tokio::time::sleep(FINISH_POLL).await;
                }
                other => return other,
            }
        }
    }

    /// Runs one statement that changes a channel, and tells everybody.
    async fn change(
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
        let (deposit, paid) = (amount(facts.deposit)?, amount(facts.paid)?);
        let deadline = facts.deadline.filter(|_| facts.closing).map(i64::from);
        let most = i64::try_from(MAX_CHANNELS).unwrap_or(i64::MAX);
        let learn = |s: &Statements| s.learn.clone();
        let learned = async |connection: &mut Connection| {
            let statements = Arc::clone(&connection.statements);
            let transaction = connection.transaction().await.map_err(failed)?;
            let rows = transaction
                .execute(
                    &learn(&statements),
                    &[&key, &terms, &deposit, &paid, &facts.closing, &deadline, &most],
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

    async fn forget(&self, address: &Address) -> Result<(), StoreError> {
        let (key, process) = (key(address), self.lease.last_process());
        let forgot = async |connection: &mut Connection| {
            let statements = Arc::clone(&connection.statements);
            let transaction = connection.transaction().await.map_err(failed)?;
            // Nobody reserves between the look and the deletion.
            lock(&transaction, &statements, &key, process, &mut Share::default()).await?;
            transaction.execute(&statements.forget, &[&key]).await.map_err(failed)?;
            transaction.commit().await.map_err(failed)
        };
        self.pool.run(forgot).await
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

/// Locks a channel's row and adds all shares to it, `share` being ours.
async fn lock(
    transaction: &Transaction<'_>,
    statements: &Statements,
    key: &str,
    process: i64,
    share: &mut Share,
) -> Result<Option<Account>, StoreError> {
    // Sent together; the second sees what was committed until the first has its lock.
    let (row, others) = join(
        transaction.query_opt(&statements.lock, &[&key]),
        transaction.query_one(&statements.others, &[&key, &process]),
    )
    .await;
    let Some(row) = row.map_err(failed)? else { return Ok(None) };
    let (mut account, life) = convert::account(&row)?;
    share.live(life);
    Shares::read(&others.map_err(failed)?)?.add_to(&mut account.state);
    share.add_to(&mut account.state);
    Ok(Some(account))
}

/// Writes what was decided; whether there was anything.
async fn write(
    transaction: &Transaction<'_>,
    statements: &Statements,
    key: &str,
    share: &Share,
    then: Then,
) -> Result<bool, StoreError> {
    let Then { share: with_share, work, voucher } = then;
    let has_voucher = voucher.is_some();
    if with_share {
        write_share(transaction, statements, key, share).await?;
    }
    if work {
        transaction.execute(&statements.work, &[&key]).await.map_err(failed)?;
    }
    if let Some((bytes, found)) = voucher {
        let arguments: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&key, &bytes, &amount(found)?];
        transaction.execute(&statements.take, &arguments).await.map_err(failed)?;
        transaction.execute(&statements.notify, &[&key]).await.map_err(failed)?;
    }
    Ok(with_share || work || has_voucher)
}

async fn write_share(
    transaction: &Transaction<'_>,
    statements: &Statements,
    key: &str,
    share: &Share,
) -> Result<(), StoreError> {
    let Tag { process, life } = share.tag;
    let streams = i32::try_from(share.streams).map_err(|e| StoreError::Write { why: e.to_string() })?;
    let (charged, allowed, reserved) =
        (amount(share.charged)?, amount(share.allowed)?, amount(share.reserved)?);
    transaction
        .execute(&statements.share, &[&key, &life, &process, &charged, &allowed, &reserved, &streams])
        .await
        .map(drop) // no row: the channel left, or came anew, and nothing of this share counts
        .map_err(failed)
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

    fn forget<'a>(&'a self, channel: &'a Address) -> BoxFuture<'a, Result<(), StoreError>> {
        self.inner.forget(channel).boxed()
    }

    fn wallet_turn(&self) -> BoxFuture<'_, Result<WalletTurn, StoreError>> {
        self.inner.wallet_turn().boxed()
    }
}

/// What one answer has set aside, as part of its process's share.
struct SharedHold {
    inner: Arc<Inner>,
    channel: Arc<Channel>,
    tag: Tag,
    left: Nanotons,
    is_released: bool,
}

impl SharedHold {
    fn release(&mut self) {
        if !std::mem::replace(&mut self.is_released, true) {
            self.channel.release(self.tag, self.left);
        }
    }
}

impl Hold for SharedHold {
    fn charge(&mut self, by: Nanotons) -> BoxFuture<'_, Result<bool, ChargeError>> {
        async move {
            loop {
                // From an allowance only while the lease surely runs: later, another may have it.
                self.inner.lease.process()?;
                match self.channel.charge(self.tag, by) {
                    None => return Err(StoreError::Lapsed.into()),
                    Some(true) => {
                        self.left -= by;
                        return Ok(true);
                    }
                    Some(false) => {}
                }
                if !self.inner.draw(&self.channel, self.tag, by).await? {
                    return Ok(false);
                }
            }
        }
        .boxed()
    }

    fn signal(&self) -> Arc<Notify> {
        Arc::clone(&self.channel.changed)
    }

    fn keep_up(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        // What is charged beyond what was reported is an allowance at most.
        std::future::ready(Ok(())).boxed()
    }

    fn cut(&mut self) -> BoxFuture<'_, Result<(Nanotons, Nanotons), StoreError>> {
        async move {
            self.inner.change(&self.channel.key, |s| &s.cut, &[&self.channel.key]).await?;
            let account = self.inner.account(&self.channel.address).await?;
            Ok(account.map_or((0, 0), |account| (account.state.owed, account.state.covered())))
        }
        .boxed()
    }

    fn finish(mut self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        async move {
            self.release();
            self.inner.sync_patiently(&self.channel).await
        }
        .boxed()
    }
}

impl Drop for SharedHold {
    fn drop(&mut self) {
        if self.is_released {
            return;
        }
        self.release();
        let (inner, channel) = (Arc::clone(&self.inner), Arc::clone(&self.channel));
        self.inner.runtime.spawn(async move {
            // What does not get through now is told with the next turn of the lease.
            if let Err(error) = inner.sync_patiently(&channel).await {
                tracing::debug!(%error, "what an answer gave back is not told yet");
            }
        });
    }
}
