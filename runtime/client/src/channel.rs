//! The channel to the gateway: opened once, kept in the book, paid by a task that follows what is owed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cocoon_accounts::PayerBook;
use cocoon_contracts::{Address, Nanotons, SignedVoucher, SigningKey};

use crate::{ClientError, GatewayApi};

/// What a new channel is made with.
#[derive(Clone, Debug)]
pub struct ChannelOptions {
    /// Put in at opening.
    pub deposit: Nanotons,
    /// How long the payee may still settle after a close was started.
    pub challenge_seconds: u32,
}

/// The channel in use.
#[derive(Clone, Debug)]
pub struct OpenChannel {
    /// Its contract.
    pub address: Address,
    /// Its deposit when it was last read.
    pub deposit: Nanotons,
    /// Whether it was opened just now.
    pub fresh: bool,
}

/// Pays on one channel. One for all answers of a client, so that vouchers are cumulative over them.
pub(crate) struct Payer {
    book: PayerBook,
    key: SigningKey,
    channel: Address,
    gateway: GatewayApi,
    /// The gateway's window: how far its charges may run ahead of our vouchers.
    window: Nanotons,
    /// What broken streams may have cost at the gateway beyond what arrived here.
    forgiven: AtomicU64,
    /// The two counts may differ: at the start, and after every answer that did not end well.
    differs: AtomicBool,
}

impl Payer {
    pub(crate) fn new(
        book: PayerBook,
        key: SigningKey,
        channel: Address,
        gateway: GatewayApi,
        window: Nanotons,
    ) -> Arc<Self> {
        Arc::new(Self {
            book,
            key,
            channel,
            gateway,
            window,
            forgiven: AtomicU64::new(window),
            differs: AtomicBool::new(true),
        })
    }

    pub(crate) fn owe(&self, nanotons: Nanotons) -> Result<(), ClientError> {
        self.book.owe(&self.channel, nanotons)?;
        Ok(())
    }

    /// A stream broke: the gateway may have forwarded up to a window that never arrived.
    pub(crate) fn note_broken_stream(&self) {
        self.forgiven.fetch_add(self.window, Ordering::Relaxed);
        self.note_difference();
    }

    /// The gateway's count is to be looked at before the next question.
    pub(crate) fn note_difference(&self) {
        self.differs.store(true, Ordering::Relaxed);
    }

    /// Signs and hands in a voucher for all that is owed.
    pub(crate) async fn settle_up(&self) -> Result<Option<SignedVoucher>, ClientError> {
        let Some(voucher) = self.book.sign_owed(&self.channel, &self.key).await? else { return Ok(None) };
        match self.gateway.voucher(&voucher).await {
            Ok(_) => {}
            // The task below was faster with the same or a higher one.
            Err(ClientError::Refused { code, .. }) if code == cocoon_protocol::http::code::STALE_VOUCHER => {}
            Err(error) => return Err(error),
        }
        Ok(Some(voucher))
    }

    /// Before a question, if the counts may differ: takes over what the gateway counted beyond us because a stream broke,
    /// up to a window for each.
    pub(crate) async fn reconcile(&self) -> Result<(), ClientError> {
        if !self.differs.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        self.look().await.inspect_err(|_| self.note_difference())
    }

    async fn look(&self) -> Result<(), ClientError> {
        let account = self.gateway.account(&self.channel).await?;
        let ours = self.book.state(&self.channel).unwrap_or_default();
        if account.reserved > 0 {
            // Answers are under way: their counts differ by what is on the wire. Look again before the next question.
            self.note_difference();
        } else if account.owed > ours.owed {
            let allowance = self.forgiven.load(Ordering::Relaxed);
            self.book.reconcile(&self.channel, account.owed, allowance).await?;
            self.forgiven.fetch_sub((account.owed - ours.owed).min(allowance), Ordering::Relaxed);
        }
        if account.voucher < self.book.state(&self.channel).unwrap_or_default().owed {
            self.settle_up().await?;
        }
        Ok(())
    }

    /// Follows what is owed with vouchers, until the client is dropped. A quarter of the window keeps streams from
    /// ever waiting for one on an ordinary connection.
    pub(crate) async fn follow(self: Arc<Self>) {
        let threshold = self.window / 4;
        while self.book.wait_uncovered(&self.channel, threshold).await.is_ok() {
            if let Err(error) = self.settle_up().await {
                tracing::warn!(channel = %self.channel, %error, "a voucher could not be handed in");
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            }
        }
    }
}
