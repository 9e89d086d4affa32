//! The payer's side towards one payee: vouchers in step with what is owed, sent again until they are acknowledged.
//!
//! One agent pays on one channel, for a client towards its gateway and for a gateway towards a host alike.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use cocoon_contracts::{Address, Nanotons, SignedVoucher, SigningKey};
use cocoon_protocol::http::AccountStatus;

use crate::{
    errors::PayError,
    payer::{PayerBook, PayerState, PayerStream, Quiet},
};

/// Between attempts to hand in a voucher that is not taken: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// A payee's HTTP API, as far as its payer needs it.
pub trait PayeeLink: Send + Sync + 'static {
    /// What a call fails with.
    type Error: From<PayError> + fmt::Display + Send;

    /// `PUT /v1/channels`.
    fn announce(&self, channel: &Address) -> impl Future<Output = Result<AccountStatus, Self::Error>> + Send;

    /// `PUT /v1/channels/{address}/voucher`.
    fn voucher(
        &self,
        signed: &SignedVoucher,
    ) -> impl Future<Output = Result<AccountStatus, Self::Error>> + Send;

    /// `GET /v1/channels/{address}`.
    fn account(&self, channel: &Address) -> impl Future<Output = Result<AccountStatus, Self::Error>> + Send;

    /// Whether the payee said that it does not know the channel.
    fn unknown_channel(error: &Self::Error) -> bool;

    /// Whether the payee said that it holds a higher voucher.
    fn stale_voucher(error: &Self::Error) -> bool;
}

/// How a payer pays.
#[derive(Clone, Copy, Debug)]
pub struct PayerOptions {
    /// The most that is conceded for a broken answer, whatever window the payee claims, in nanotons.
    pub cap: Nanotons,
    /// Small debts wait this long for more, so that not every token costs an fsync at both ends.
    pub gather: Duration,
    /// Answers whose worst cases the deposit does not cover together are not begun.
    pub hold: bool,
}

/// Pays on one channel. Shared by an [`Arc`].
pub struct PayerAgent<L> {
    book: PayerBook,
    key: SigningKey,
    channel: Address,
    link: L,
    options: PayerOptions,
    /// The payee's window, as it last said.
    window: AtomicU64,
    /// The counts may differ for another reason than a broken answer.
    differs: AtomicBool,
    /// One voucher on its way at a time, so that none overtakes another.
    paying: tokio::sync::Mutex<()>,
}

impl<L: PayeeLink> PayerAgent<L> {
    /// An agent for a channel of the book. It pays in step once [`PayerAgent::follow`] runs.
    pub fn new(book: PayerBook, key: SigningKey, channel: Address, link: L, options: PayerOptions) -> Self {
        let (window, differs) = (AtomicU64::new(0), AtomicBool::new(false));
        let paying = tokio::sync::Mutex::default();
        Self { book, key, channel, link, options, window, differs, paying }
    }

    /// The channel it pays on.
    pub fn channel(&self) -> &Address {
        &self.channel
    }

    /// The way to the payee.
    pub fn link(&self) -> &L {
        &self.link
    }

    /// The account as we count it.
    pub fn state(&self) -> PayerState {
        self.book.state(&self.channel).unwrap_or_default()
    }

    /// Answers under way, and what they may cost beyond what is owed already, in nanotons.
    pub fn under_way(&self) -> (usize, Nanotons) {
        self.book.under_way(&self.channel)
    }

    /// The most that a broken answer may have cost beyond our count.
    fn concession(&self) -> Nanotons {
        self.window.load(Ordering::Relaxed).min(self.options.cap)
    }

    /// Tells the payee about the channel, learns its window, and compares the counts.
    ///
    /// # Errors
    /// The link's.
    pub async fn announce(&self) -> Result<AccountStatus, L::Error> {
        let quiet = self.book.quiet(&self.channel);
        let status = self.link.announce(&self.channel).await?;
        self.heard(&status);
        self.compare_or_warn(quiet, &status).await;
        Ok(status)
    }

    /// Says that an answer is about to be asked for; see [`PayerBook::begin`].
    ///
    /// # Errors
    /// The book's; then nothing may be asked for.
    pub async fn begin(&self, worst: Nanotons) -> Result<PayerStream, PayError> {
        self.book.begin(&self.channel, worst, self.options.hold, self.concession()).await
    }

    /// Signs a voucher for all that is owed, and hands it in unless the payee is known to hold it.
    ///
    /// # Errors
    /// The book's or the link's. What was not acknowledged is handed in again by [`PayerAgent::follow`].
    pub async fn settle_up(&self) -> Result<Option<SignedVoucher>, L::Error> {
        let _one = self.paying.lock().await;
        let quiet = self.book.quiet(&self.channel);
        let Some(signed) = self.book.sign_owed(&self.channel, &self.key).await? else { return Ok(None) };
        if self.state().acknowledged >= signed.voucher.cumulative {
            return Ok(Some(signed));
        }
        let status = match self.link.voucher(&signed).await {
            Err(error) if L::unknown_channel(&error) => {
                self.heard(&self.link.announce(&self.channel).await?);
                self.link.voucher(&signed).await
            }
            other => other,
        };
        match status {
            Ok(status) => {
                self.heard(&status);
                self.book.acknowledge(&self.channel, signed.voucher.cumulative);
                self.compare_or_warn(quiet, &status).await;
            }
            // A higher one of ours covers this too.
            Err(error) if L::stale_voucher(&error) => {
                self.book.acknowledge(&self.channel, signed.voucher.cumulative);
            }
            Err(error) => return Err(error),
        }
        Ok(Some(signed))
    }

    /// The counts are to be compared before the next question.
    pub fn note_difference(&self) {
        self.differs.store(true, Ordering::Relaxed);
    }

    /// Before a question: [`PayerAgent::reconcile`] if an answer broke, or a difference was noted.
    ///
    /// # Errors
    /// As [`PayerAgent::reconcile`].
    pub async fn look(&self) -> Result<(), L::Error> {
        if !self.differs.swap(false, Ordering::Relaxed) && !self.book.has_broken(&self.channel) {
            return Ok(());
        }
        self.reconcile().await.inspect_err(|_| self.note_difference())
    }

    /// Asks for the payee's count and compares it with ours, then pays what is owed.
    ///
    /// # Errors
    /// The link's, or [`PayError::Overcharged`] for a difference that no broken answer explains.
    pub async fn reconcile(&self) -> Result<(), L::Error> {
        let quiet = self.book.quiet(&self.channel);
        let status = self.link.account(&self.channel).await?;
        self.heard(&status);
        self.compare(quiet, &status).await?;
        if self.state().unacknowledged() > 0 {
            self.settle_up().await?;
        }
        Ok(())
    }

    fn heard(&self, status: &AccountStatus) {
        self.window.store(status.window, Ordering::Relaxed);
        self.book.acknowledge(&self.channel, status.voucher);
    }

    /// While the payee says that something of ours is under way, it has not noticed yet that we left: its count is
    /// not final, and is asked for another time.
    async fn compare(&self, quiet: Option<Quiet>, status: &AccountStatus) -> Result<(), PayError> {
        if let Some(quiet) = quiet
            && status.reserved == 0
        {
            self.book.reconcile(&self.channel, status.owed, quiet, self.concession()).await?;
        }
        Ok(())
    }

    async fn compare_or_warn(&self, quiet: Option<Quiet>, status: &AccountStatus) {
        if let Err(error) = self.compare(quiet, status).await {
            tracing::warn!(channel = %self.channel, %error, "the payee's count is not ours");
            self.note_difference();
        }
    }

    /// Follows what is owed with vouchers, and sends one again until it is acknowledged, while the agent lives.
    /// Nothing of it is held while waiting, so that it can end.
    pub async fn follow(agent: Weak<Self>) {
        let Some((book, channel, gather)) =
            agent.upgrade().map(|a| (a.book.clone(), a.channel.clone(), a.options.gather))
        else {
            return;
        };
        let mut pause = FIRST_PAUSE;
        while book.wait_unacknowledged(&channel, 0).await.is_ok() {
            // A quarter of the window keeps streams from ever waiting for a voucher on an ordinary connection.
            let Some(soon) = agent.upgrade().map(|agent| agent.concession() / 4) else { return };
            drop(tokio::time::timeout(gather, book.wait_unacknowledged(&channel, soon)).await);
            let Some(agent) = agent.upgrade() else { return };
            let paid = agent.settle_up().await;
            drop(agent);
            match paid {
                Ok(_) => pause = FIRST_PAUSE,
                Err(error) => {
                    tracing::warn!(%channel, %error, ?pause, "a voucher was not taken; it is sent again after a pause");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// [`PayerAgent::follow`] in a task.
    pub fn spawn(self: &Arc<Self>) -> tokio::task::JoinHandle<()> {
        tokio::spawn(Self::follow(Arc::downgrade(self)))
    }
}
