//! A process's lease, and what is done every second while it runs: renew, end what died, tell what is not told, wake who
//! waits. And the ear for NOTIFY.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, Weak},
    time::{Duration, Instant},
};

use cocoon_accounts::StoreError;
use tokio_postgres::AsyncMessage;

use crate::{backend::Inner, convert::failed};

/// How often streams that wait look again, should a notification have been missed.
const POLL: Duration = Duration::from_secs(1);
/// Between attempts to listen.
const PAUSE: Duration = Duration::from_millis(500);

/// The lease as this process knows it.
pub(crate) struct Lease {
    length: Duration,
    inside: Mutex<Inside>,
}

#[derive(Clone, Copy)]
struct Inside {
    process: i64,
    /// By our own clock, counted from before it was asked for: never later than the database's.
    until: Instant,
}

impl Lease {
    pub(crate) fn new(length: Duration, process: i64, asked: Instant) -> Self {
        Self { length, inside: Mutex::new(Inside { process, until: asked + length }) }
    }

    /// Our number, while the lease surely runs.
    pub(crate) fn process(&self) -> Result<i64, StoreError> {
        let inside = *self.inside.lock().expect("no holder of this lock panics");
        if Instant::now() < inside.until {
            return Ok(inside.process);
        }
        Err(StoreError::Unreachable { why: "this process's lease could not be renewed in time".to_owned() })
    }

    /// Our number, whether or not the lease still runs.
    pub(crate) fn last_process(&self) -> i64 {
        self.inside.lock().expect("no holder of this lock panics").process
    }

    fn renewed(&self, process: i64, asked: Instant) {
        *self.inside.lock().expect("no holder of this lock panics") =
            Inside { process, until: asked + self.length };
    }
}

/// Runs until the accounts are dropped.
pub(crate) async fn keep(inner: Weak<Inner>) {
    let mut renew = Instant::now();
    loop {
        tokio::time::sleep(POLL).await;
        let Some(inner) = inner.upgrade() else { return };
        if renew.elapsed() >= inner.lease.length / 4 {
            renew = Instant::now();
            if let Err(error) = inner.renew().await {
                tracing::debug!(%error, "the lease was not renewed");
            }
        }
        inner.catch_up().await;
        inner.wake_all();
    }
}

impl Inner {
    /// Renews the lease, or begins another when it had ended; then ends those of the dead.
    async fn renew(&self) -> Result<(), StoreError> {
        let (asked, seconds) = (Instant::now(), self.lease.length.as_secs_f64());
        let process = self.lease.last_process();
        let renewed = async |connection: &mut crate::pool::Connection| {
            let statements = Arc::clone(&connection.statements);
            let rows = connection.execute(&statements.renew, &[&process, &seconds]).await.map_err(failed)?;
            if rows == 1 {
                return Ok(process);
            }
            let row = connection.query_one(&statements.begin, &[&seconds]).await.map_err(failed)?;
            Ok(row.get(0))
        };
        let now = self.pool.run(renewed).await?;
        self.lease.renewed(now, asked);
        if now != process {
            tracing::warn!(
                "this process was not heard from for longer than its lease: its answers under way end"
            );
            for channel in self.known() {
                channel.share(now);
            }
        }
        let reap = async |connection: &mut crate::pool::Connection| {
            let statements = Arc::clone(&connection.statements);
            connection.query(&statements.reap, &[&None::<i64>]).await.map_err(failed)
        };
        for row in self.pool.run(reap).await? {
            let channel: String = row.get(0);
            tracing::warn!(%channel, "another gateway's lease ended; what it had set aside is free again");
            self.wake(&channel);
        }
        Ok(())
    }

    /// Tells the database what it may not know.
    async fn catch_up(&self) {
        for channel in self.known() {
            if channel.with(|share| share.is_dirty())
                && let Err(error) = self.sync(&channel).await
            {
                tracing::debug!(%error, "a share was not written yet");
            }
        }
    }
}

/// Wakes streams when a sibling says that something changed. Runs until the accounts are dropped.
pub(crate) async fn listen(inner: Weak<Inner>) {
    loop {
        let Some(strong) = inner.upgrade() else { return };
        if let Err(error) = listen_once(strong, &inner).await {
            tracing::debug!(%error, "not listening to the account database");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn listen_once(strong: Arc<Inner>, inner: &Weak<Inner>) -> Result<(), StoreError> {
    let (client, mut connection) = strong.pool.connect().await?;
    drop(strong);
    let mut listening = std::pin::pin!(client.batch_execute("LISTEN cocoon_accounts"));
    let mut is_listening = false;
    loop {
        let message = poll_fn(|context| connection.poll_message(context));
        tokio::select! {
            done = &mut listening, if !is_listening => {
                done.map_err(failed)?;
                is_listening = true;
                // What was said before is made up for.
                let Some(inner) = inner.upgrade() else { return Ok(()) };
                inner.wake_all();
            }
            message = message => match message {
                Some(Ok(AsyncMessage::Notification(said))) => {
                    let Some(inner) = inner.upgrade() else { return Ok(()) };
                    inner.wake(said.payload());
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(failed(error)),
                None => return Ok(()),
            },
            () = tokio::time::sleep(POLL) => if inner.strong_count() == 0 { return Ok(()) },
        }
    }
}
