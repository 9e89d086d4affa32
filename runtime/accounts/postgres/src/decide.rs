//! Decisions: under the lock of a channel's row, with all shares added up, by the rules of an account.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use cocoon_accounts::{Account, ChargeError, StoreError};
use cocoon_contracts::Nanotons;
use futures_util::future::join;
use tokio_postgres::Transaction;

use crate::{
    backend::Inner,
    convert::{self, Shares, amount, failed},
    pool::Connection,
    schema::Statements,
    share::{Channel, Share, Tag},
};

/// How long the end of an answer waits for a database that is away. Afterwards it is told when the database is back.
const FINISH: Duration = Duration::from_secs(15);
const FINISH_POLL: Duration = Duration::from_millis(250);

/// What a decision does to the channel's row, beside the share's.
#[derive(Default)]
pub(crate) struct Then {
    /// The share has changed.
    pub(crate) share: bool,
    /// Work was taken.
    pub(crate) work: bool,
    /// A voucher and its amount.
    pub(crate) voucher: Option<(Vec<u8>, Nanotons)>,
}

/// What is decided, and what follows from it.
pub(crate) type Decided<T, E> = Result<(T, Then), E>;

impl Inner {
    /// Decides something about a channel under its row's lock, with all shares added up. Nobody else decides meanwhile, in
    /// no process; what is decided is on the disk when this returns. `None`: the channel is not there.
    pub(crate) async fn decide<T, E: From<StoreError>>(
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
    pub(crate) async fn draw(&self, channel: &Channel, tag: Tag, by: Nanotons) -> Result<bool, ChargeError> {
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
    pub(crate) async fn sync_patiently(&self, channel: &Channel) -> Result<(), StoreError> {
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
}

/// Locks a channel's row and adds all shares to it, `share` being ours.
pub(crate) async fn lock(
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
