//! What one answer has set aside, as part of its process's share.

use std::sync::Arc;

use cocoon_accounts::{ChargeError, Hold, StoreError};
use cocoon_contracts::Nanotons;
use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::Notify;

use crate::{
    backend::Inner,
    share::{Channel, Tag},
};

/// What one answer has set aside.
pub(crate) struct SharedHold {
    pub(crate) inner: Arc<Inner>,
    pub(crate) channel: Arc<Channel>,
    pub(crate) tag: Tag,
    pub(crate) left: Nanotons,
    pub(crate) is_released: bool,
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
