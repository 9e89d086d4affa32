//! A signed message on its way: handed in until it was taken, or certainly never will be.

use std::time::Duration;

use cocoon_contracts::Nanotons;
use tokio::time::Instant;

use super::{PATIENCE, Wallet};
use crate::{AccountStatus, ChainError};

/// How often to look.
const POLL: Duration = Duration::from_millis(60);
/// How often to look, at least, while the chain is away.
const SLOW_POLL: Duration = Duration::from_secs(2);
/// How long a chain that is away, or whose clock stands still, is waited for once a message was handed in.
const SILENCE: Duration = Duration::from_secs(600);
/// How often to hand the same message in again: a node may have lost it.
const RESEND: Duration = Duration::from_secs(3);
/// How many refusals in a row, [`RESEND`] apart, are believed.
const REFUSALS: u32 = 3;
/// How many of the wallet's newest transactions are searched for a message: as many as a chain shows at once.
const SEARCHED: usize = 100;

/// A signed message that was not sent yet, or whose fate is not known. Holds no secret: whoever has it can do no more
/// than send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The external message as a bag of cells.
    pub message: Vec<u8>,
    /// The hash of its body, by which its transaction is found.
    pub body_hash: [u8; 32],
    /// The wallet's number that it takes.
    pub seqno: u32,
    /// Unix time, by the chain's clock, after which the wallet refuses it.
    pub valid_until: u32,
    /// The wallet's newest logical time when it was signed: its transaction is later.
    pub after_lt: u64,
}

/// The wallet's transaction that took a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// The hash of the transaction's cell.
    pub transaction: [u8; 32],
    /// Its logical time.
    pub lt: u64,
    /// All that the wallet paid in it beside the amounts, in nanotons.
    pub fees: Nanotons,
}

/// What became of a message. Each of them is final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The wallet took it: its transfers are on their way.
    Taken(Sent),
    /// Its time is over: it never happens.
    Expired,
    /// Another message, of another process with this key, took its number: it never happens.
    Replaced,
}

impl Wallet {
    /// Hands a message in until its fate is certain. Doing it again, also after a restart, does no harm.
    ///
    /// # Errors
    /// Of the first look at the chain, before anything was handed in; then as [`Wallet::transfer`]: the fate stays open
    /// with all but [`ChainError::Refused`]. Not to be answered with another message; ask again.
    pub async fn confirm(&self, prepared: &Prepared) -> Result<Fate, ChainError> {
        // First a look: what is known already, after a restart, needs no sending.
        match self.progress(prepared).await? {
            Some(fate) => Ok(fate),
            None => self.deliver(prepared).await,
        }
    }

    /// The same without a look first. A lost answer, a silent chain or a slow one end nothing: the message may be on its
    /// way, so it is watched until the chain's own clock has passed its end.
    ///
    /// # Errors
    /// [`ChainError::Refused`] when every try was refused and none may have been taken; [`ChainError::FateUnknown`] when
    /// the chain was silent for very long.
    pub(super) async fn deliver(&self, prepared: &Prepared) -> Result<Fate, ChainError> {
        let mut vigil = Vigil::start();
        let mut next_send = Instant::now();
        let (mut refusals, mut in_doubt) = (0, false);
        loop {
            if Instant::now() >= next_send {
                next_send = Instant::now() + RESEND;
                match self.chain.send(&prepared.message).await {
                    // It may have been carried out a moment ago, by an answer that was lost or by another process: the next
                    // looks tell. A chain that goes on refusing what it did not take says why.
                    Err(error @ ChainError::Refused { .. }) => {
                        refusals += 1;
                        let never = refusals >= REFUSALS && !in_doubt;
                        if never && matches!(self.progress(prepared).await, Ok(None)) {
                            return Err(error);
                        }
                    }
                    Err(error) => {
                        tracing::debug!(%error, "sending a wallet's message");
                        in_doubt = true;
                    }
                    Ok(()) => in_doubt = true,
                }
            }
            let looked = self.progress(prepared).await;
            if let Ok(Some(fate)) = looked {
                return Ok(fate);
            }
            if vigil.is_over(&looked) {
                return Err(self.unknown(prepared));
            }
            vigil.rest().await;
        }
    }

    /// The fate of a message, if it is certain by now.
    async fn progress(&self, prepared: &Prepared) -> Result<Option<Fate>, ChainError> {
        // First the clock, then the account: a seqno read after a block past the message's end is final, where accounts are
        // no older than the head that was shown before.
        let end = u64::from(prepared.valid_until).saturating_add(self.chain.accounts_lag_seconds());
        let expired = self.chain.head().await?.time > end;
        let account = self.chain.account(&self.address).await?;
        if account.status == AccountStatus::Active && self.seqno_of(&account)? > prepared.seqno {
            return self.who_took_the_number(prepared, account.last_lt).await;
        }
        Ok(expired.then_some(Fate::Expired))
    }

    /// The seqno has passed. It was ours if the transaction is there; it was another's if all transactions since are
    /// there and ours is not among them.
    async fn who_took_the_number(
        &self,
        prepared: &Prepared,
        last_lt: u64,
    ) -> Result<Option<Fate>, ChainError> {
        let recent = self.chain.transactions(&self.address, SEARCHED).await?;
        let ours = recent.iter().find(|tx| tx.from.is_none() && tx.body_hash == Some(prepared.body_hash));
        if let Some(tx) = ours {
            return Ok(Some(Fate::Taken(Sent { transaction: tx.hash, lt: tx.lt, fees: tx.fees })));
        }
        let newest = recent.first().map_or(0, |tx| tx.lt);
        // A chain that shows fewer than it has must not make a message look lost: the list must reach back to what was
        // there before, or to the wallet's beginning.
        let complete = match prepared.after_lt {
            0 => recent.len() < SEARCHED,
            after => recent.iter().any(|tx| tx.lt <= after),
        };
        Ok((complete && newest >= last_lt).then_some(Fate::Replaced))
    }

    fn unknown(&self, prepared: &Prepared) -> ChainError {
        ChainError::FateUnknown {
            address: Box::new(self.address.clone()),
            seqno: prepared.seqno,
            valid_until: prepared.valid_until,
        }
    }
}

/// The wait for something that was sent already: it outlasts a chain that is away, since giving up while the message may
/// be on its way invites paying twice.
pub(super) struct Vigil {
    started: Instant,
    pause: Duration,
}

impl Vigil {
    pub(super) fn start() -> Self {
        Self { started: Instant::now(), pause: POLL }
    }

    /// Whether there is no use in looking again, after a look that did not show the end: a chain that is away may come
    /// back, one that answers with lasting errors will not.
    pub(super) fn is_over<T>(&mut self, looked: &Result<T, ChainError>) -> bool {
        let limit = match looked {
            Ok(_) => {
                self.pause = POLL;
                SILENCE
            }
            Err(error) => {
                tracing::warn!(%error, "waiting for what was sent");
                self.pause = (self.pause * 2).min(SLOW_POLL);
                if error.is_temporary() { SILENCE } else { PATIENCE }
            }
        };
        self.started.elapsed() >= limit
    }

    pub(super) async fn rest(&self) {
        tokio::time::sleep(self.pause).await;
    }
}
