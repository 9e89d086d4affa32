//! A deposit that grows with what is asked, within what the user allowed; and channels that nobody needs any more.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cocoon_accounts::{PayerBook, PayerKeeper, PayerPolicy, PayerState};
use cocoon_chain::Wallet;
use cocoon_contracts::{Address, Nanotons};
use tokio::sync::Mutex;

use crate::ClientError;
use crate::channel::{ChannelOptions, Payer};

/// How often channels without work are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Keeps a client's channels on the chain.
pub(crate) struct Deposits {
    keeper: PayerKeeper,
    policy: PayerPolicy,
    /// Adds to nothing: only the channel in use grows.
    closing: PayerKeeper,
    /// One addition at a time: the next one looks at what the last one brought.
    turn: Mutex<()>,
    /// One look at what nobody needs at a time.
    looking: Mutex<()>,
}

impl Deposits {
    pub(crate) fn new(wallet: Arc<Wallet>, book: PayerBook, options: &ChannelOptions) -> Arc<Self> {
        let policy = policy(options);
        let only_closing = PayerPolicy { top_up_below: 0, ..policy };
        let closing = PayerKeeper::new(Arc::clone(&wallet), book.clone(), only_closing);
        let keeper = PayerKeeper::new(wallet, book, policy);
        Arc::new(Self { keeper, policy, closing, turn: Mutex::default(), looking: Mutex::default() })
    }

    /// Whether a deposit that is used up may grow.
    pub(crate) fn may_grow(&self, state: &PayerState) -> bool {
        self.may_grow_for(state, 0)
    }

    /// Whether it may grow so that `needed` nanotons are free in it.
    pub(crate) fn may_grow_for(&self, state: &PayerState, needed: Nanotons) -> bool {
        self.policy.addition(state, needed).is_some()
    }

    /// Before a question that costs at most `worst`: adds to the deposit if it is low, as far as the user allowed. Waits for
    /// it only if the question would not fit; otherwise it happens beside the answer.
    ///
    /// # Errors
    /// The chain's, the book's or the gateway's, if the question does not fit without it.
    pub(crate) async fn provide(
        self: &Arc<Self>,
        payer: &Arc<Payer>,
        worst: Nanotons,
    ) -> Result<(), ClientError> {
        if self.policy.addition(&payer.state(), worst).is_none() {
            return Ok(());
        }
        let fits = payer.state().free() >= worst;
        // In a task of its own: whoever asks may leave at any time, and what was begun on the chain is ended.
        let (this, agent) = (Arc::clone(self), Arc::clone(payer));
        let adding = tokio::spawn(async move {
            let added = this.add(&agent, worst).await;
            added.inspect_err(|error| tracing::warn!(%error, "the deposit is low and was not topped up"))
        });
        match fits {
            true => Ok(()),
            // A task that panicked has said so; the gateway says what is missing.
            false => adding.await.unwrap_or(Ok(())),
        }
    }

    async fn add(&self, payer: &Payer, worst: Nanotons) -> Result<(), ClientError> {
        let _turn = self.turn.lock().await;
        if self.keeper.top_up(payer.channel(), worst).await?.is_some() {
            payer.announce().await?;
        }
        Ok(())
    }

    /// Closes, in a task, channels without work other than `current`, if the user wants that.
    pub(crate) fn spawn_closing(self: &Arc<Self>, current: Address) -> Option<tokio::task::JoinHandle<()>> {
        self.policy.close_idle?;
        let this = Arc::clone(self);
        Some(tokio::spawn(async move {
            loop {
                this.close_once(&current).await;
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }))
    }

    /// One look at channels without work other than `current`, if the user wants them closed: begins to close them, or goes
    /// on. What fails is said in the log, and tried again by the next look.
    pub(crate) async fn close_once(&self, current: &Address) {
        if self.policy.close_idle.is_none() {
            return;
        }
        let _turn = self.looking.lock().await;
        for (channel, kept) in self.closing.keep_once(&HashSet::from([current.clone()])).await {
            match kept {
                Ok(kept) => tracing::info!(%channel, ?kept, "a channel without work"),
                Err(error) => tracing::warn!(%channel, %error, "a channel without work stays open"),
            }
        }
    }
}

/// By steps of the first deposit, when a quarter of it is left.
fn policy(options: &ChannelOptions) -> PayerPolicy {
    PayerPolicy {
        close_idle: options.close_idle,
        top_up_below: options.deposit / 4 + 1,
        top_up_by: options.deposit,
        most: options.most,
    }
}
