//! The payer's side of the chain: channels that it no longer needs are closed and their rest comes home, deposits that run
//! low are topped up, both within limits.
//!
//! What was signed away can be settled by its payee until the deadline, so closing takes nothing from anybody.

use std::{collections::HashSet, sync::Arc, time::Duration};

use cocoon_chain::{ChainError, Wallet};
use cocoon_contracts::{Address, Nanotons, channel::State};

use crate::{
    clock::unix_seconds,
    errors::PayError,
    payer::{PayerBook, PayerState},
};

/// When a payer closes and tops up.
#[derive(Clone, Copy, Debug)]
pub struct PayerPolicy {
    /// A channel without work for this long is closed; `None` closes none.
    pub close_idle: Option<Duration>,
    /// Tops up when less than this is left to be spent, in nanotons; 0 never does.
    pub top_up_below: Nanotons,
    /// By how much, in nanotons.
    pub top_up_by: Nanotons,
    /// The most that one channel may hold in all its life, in nanotons.
    pub most: Nanotons,
}

impl PayerPolicy {
    /// By how much a deposit is to grow now, if `needed` nanotons must be free in it (0: only what the policy says): it is
    /// low, the channel may hold more, and half of the last top up went for answers that we counted ourselves. No payee
    /// talks its way to another deposit.
    pub fn addition(&self, state: &PayerState, needed: Nanotons) -> Option<Nanotons> {
        let low = state.free() < self.top_up_below.max(needed);
        let earned = state.counted().saturating_add(self.top_up_by / 2) >= state.deposit;
        let by = self.most.saturating_sub(state.deposit).min(self.top_up_by);
        // What is left below the limit may be too little to be worth the fees.
        let worth = by > self.top_up_by / 8;
        (low && earned && worth && !state.closing).then_some(by)
    }

    fn is_idle(&self, state: &PayerState, now: u64) -> bool {
        let idle = |limit: Duration| state.used != 0 && now.saturating_sub(state.used) >= limit.as_secs();
        self.close_idle.is_some_and(idle)
    }
}

/// What was done for one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Its close has begun: the payee may settle until the deadline.
    CloseBegun,
    /// Its rest came home, and it left the book.
    Closed,
    /// It holds more.
    ToppedUp,
}

/// Why something was not done; it is tried again at the next round.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The book.
    #[error(transparent)]
    Book(#[from] PayError),
}

/// Keeps a payer's channels on the chain as the policy says.
pub struct PayerKeeper {
    wallet: Arc<Wallet>,
    book: PayerBook,
    policy: PayerPolicy,
}

impl PayerKeeper {
    /// A keeper that sends from `wallet`, the payer of the book's channels.
    pub fn new(wallet: Arc<Wallet>, book: PayerBook, policy: PayerPolicy) -> Self {
        Self { wallet, book, policy }
    }

    /// One round over every channel but those in `in_use`, which are never closed for being idle. Returns what was done,
    /// and what was not; a channel that needs nothing is not in it.
    pub async fn keep_once(&self, in_use: &HashSet<Address>) -> Vec<(Address, Result<Kept, KeepError>)> {
        let mut done = Vec::new();
        for channel in self.book.channels() {
            match self.keep(&channel, in_use.contains(&channel)).await {
                Ok(None) => {}
                Ok(Some(kept)) => done.push((channel, Ok(kept))),
                Err(error) => done.push((channel, Err(error))),
            }
        }
        done
    }

    /// Whether a round would ask the chain about anything.
    pub fn has_work(&self, in_use: &HashSet<Address>) -> bool {
        let channels = self.book.channels();
        channels.iter().any(|channel| self.needs(channel, in_use.contains(channel)).is_some())
    }

    /// The channel as we count it, and whether it is idle, if anything is to be done for it.
    fn needs(&self, channel: &Address, in_use: bool) -> Option<(PayerState, bool)> {
        let ours = self.book.state(channel)?;
        let idle = !in_use && self.policy.is_idle(&ours, unix_seconds());
        // Without a deposit, it is noted and not on the chain yet; or it is, and nobody heard of it.
        if ours.deposit == 0 && !idle {
            return None;
        }
        (ours.closing || idle || self.policy.addition(&ours, 0).is_some()).then_some((ours, idle))
    }

    async fn keep(&self, channel: &Address, in_use: bool) -> Result<Option<Kept>, KeepError> {
        let Some((ours, idle)) = self.needs(channel, in_use) else { return Ok(None) };
        let chain = self.wallet.chain();
        match cocoon_chain::read_channel(&**chain, channel).await {
            Ok(state) if ours.closing || state.deadline.is_some() => self.go_on_closing(channel, state).await,
            Ok(_) if idle => self.begin_to_close(channel).await,
            Ok(state) => self.add(channel, state, 0).await,
            // Only what we closed ourselves is over when it is gone; else one word of one endpoint would do. One that never
            // came to be, and for which nothing was signed, is no loss.
            Err(ChainError::WrongAccount { .. }) if ours.closing => self.over(channel).await,
            Err(ChainError::WrongAccount { .. }) if ours.deposit == 0 && ours.signed == 0 => {
                self.over(channel).await
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn begin_to_close(&self, channel: &Address) -> Result<Option<Kept>, KeepError> {
        // In the book first: no answer begins on a channel that closes.
        if !self.book.close(channel).await? {
            return Ok(None);
        }
        cocoon_chain::start_close(&self.wallet, channel).await?;
        Ok(Some(Kept::CloseBegun))
    }

    async fn go_on_closing(&self, channel: &Address, state: State) -> Result<Option<Kept>, KeepError> {
        let Some(deadline) = state.deadline else { return self.begin_to_close(channel).await };
        if self.wallet.chain().head().await?.time <= u64::from(deadline) {
            return Ok(None);
        }
        self.book.close(channel).await?;
        cocoon_chain::finish_close(&self.wallet, channel).await?;
        self.over(channel).await
    }

    async fn over(&self, channel: &Address) -> Result<Option<Kept>, KeepError> {
        self.book.forget(channel).await.map_err(PayError::from)?;
        Ok(Some(Kept::Closed))
    }

    /// Tops one channel up if the policy says so, or if `needed` nanotons must be free in it and the policy allows it. A
    /// channel that closes is left alone.
    ///
    /// # Errors
    /// [`KeepError`]: what was not done is done by the next call, not twice.
    pub async fn top_up(&self, channel: &Address, needed: Nanotons) -> Result<Option<Kept>, KeepError> {
        let ours = self.book.state(channel).filter(|state| state.deposit > 0);
        if ours.is_none_or(|ours| self.policy.addition(&ours, needed).is_none()) {
            return Ok(None);
        }
        let state = cocoon_chain::read_channel(&**self.wallet.chain(), channel).await?;
        if state.deadline.is_some() {
            return Ok(None);
        }
        self.add(channel, state, needed).await
    }

    async fn add(
        &self,
        channel: &Address,
        state: State,
        needed: Nanotons,
    ) -> Result<Option<Kept>, KeepError> {
        // What the chain shows comes first: an addition may have arrived whose outcome nobody heard.
        let before = self.book.state(channel).unwrap_or_default().deposit;
        let ours = self.enter(channel, &state).await?;
        let Some(by) = self.policy.addition(&ours, needed) else {
            return Ok((ours.deposit > before).then_some(Kept::ToppedUp));
        };
        let wanted = ours.deposit.checked_add(by).expect("an addition stays within the policy's most");
        // The session key's limit grows no further than what is put in: coins alone would not let it sign for them.
        let state = match state.limit >= wanted {
            true => cocoon_chain::top_up(&self.wallet, channel, by).await?,
            false => cocoon_chain::authorize(&self.wallet, channel, wanted, by).await?,
        };
        self.enter(channel, &state).await?;
        Ok(Some(Kept::ToppedUp))
    }

    async fn enter(&self, channel: &Address, state: &State) -> Result<PayerState, KeepError> {
        let entered = self.book.open_channel(channel, &state.terms, state.deposit()).await;
        Ok(entered.map_err(PayError::from)?)
    }
}
