//! A signed message on its way: handed in until it was taken, or certainly never will be.

use std::time::Duration;

use cocoon_contracts::Nanotons;
use tokio::time::Instant;

use super::{PATIENCE, POLL, Wallet};
use crate::{AccountStatus, ChainError};

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
    /// The chain does not answer, or shows too little to tell: the fate stays open. Not to be answered with another
    /// message; ask again.
    pub async fn confirm(&self, prepared: &Prepared) -> Result<Fate, ChainError> {
        // First a look: what is known already, after a restart, needs no sending.
        if let Some(fate) = self.progress(prepared).await? {
            return Ok(fate);
        }
        let deadline = Instant::now() + PATIENCE;
        let mut next_send = Instant::now();
        let mut refusals = 0;
        loop {
            if Instant::now() >= next_send {
                next_send = Instant::now() + RESEND;
                match self.chain.send(&prepared.message).await {
                    // It may have been carried out a moment ago, by an answer that was lost or by another process: the next
                    // looks tell. A chain that goes on refusing what it did not take says why.
                    Err(error @ ChainError::Refused { .. }) => {
                        refusals += 1;
                        if refusals >= REFUSALS && matches!(self.progress(prepared).await, Ok(None)) {
                            return Err(error);
                        }
                    }
                    Err(error) => tracing::debug!(%error, "sending a wallet's message"),
                    Ok(()) => refusals = 0,
                }
            }
            tokio::time::sleep(POLL).await;
            match self.progress(prepared).await {
                Ok(Some(fate)) => return Ok(fate),
                Ok(None) if Instant::now() < deadline => {}
                // A chain that is away for a moment does not end the wait: the message may already be on its way.
                Err(error) if Instant::now() < deadline => {
                    tracing::warn!(%error, "waiting for a wallet's message");
                }
                Ok(None) | Err(_) => return Err(self.unknown()),
            }
        }
    }

    /// The fate of a message, if it is certain by now.
    async fn progress(&self, prepared: &Prepared) -> Result<Option<Fate>, ChainError> {
        // First the clock, then the account: a seqno read after a block past the message's end is final.
        let expired = self.chain.head().await?.time > u64::from(prepared.valid_until);
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

    /// The chain fell silent: the message may still happen until it expires.
    fn unknown(&self) -> ChainError {
        ChainError::Invalid {
            action: "tell whether the transfer happened",
            why: format!(
                "the chain did not say within {} s; look at the wallet {} before sending again",
                PATIENCE.as_secs(),
                self.address
            ),
        }
    }
}
