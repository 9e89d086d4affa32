//! A wallet that sends, and waits until what it sent has happened.

use std::sync::Arc;
use std::time::Duration;

use cocoon_contracts::wallet::{self, Transfer};
use cocoon_contracts::{Address, Nanotons, SigningKey, VerifyingKey, message};
use tokio::time::Instant;

use crate::{AccountState, AccountStatus, Chain, ChainError};

/// How long an external message stays valid, in seconds of the chain's clock.
const VALID_SECONDS: u64 = 60;
/// How long to wait for anything to happen, at most. Longer than a message stays valid: afterwards it never will.
const PATIENCE: Duration = Duration::from_secs(75);
/// How often to look.
const POLL: Duration = Duration::from_millis(60);
/// How often to hand the same message in again: a node may have lost it.
const RESEND: Duration = Duration::from_secs(3);
/// How many messages are tried when one expires unseen.
const ATTEMPTS: u32 = 2;
/// Kept in the wallet for its own fees, in addition to what it sends.
const FEE_MARGIN: Nanotons = 10_000_000;

/// A wallet (v4r2) on a chain. One message at a time: transfers wait for each other.
pub struct Wallet {
    key: SigningKey,
    chain: Arc<dyn Chain>,
    address: Address,
    sending: tokio::sync::Mutex<()>,
}

impl Wallet {
    /// The wallet of this key. Nothing is sent; the contract is deployed with its first transfer.
    pub fn new(key: SigningKey, chain: Arc<dyn Chain>) -> Self {
        let address = wallet::address(&key.public());
        Self { key, chain, address, sending: tokio::sync::Mutex::new(()) }
    }

    /// Its address.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Its public key.
    pub fn public_key(&self) -> VerifyingKey {
        self.key.public()
    }

    /// The chain it is on.
    pub fn chain(&self) -> &Arc<dyn Chain> {
        &self.chain
    }

    /// What it holds, in nanotons.
    pub async fn balance(&self) -> Result<Nanotons, ChainError> {
        Ok(self.chain.account(&self.address).await?.balance)
    }

    /// The number of messages it has sent; 0 before it is deployed.
    pub async fn seqno(&self) -> Result<u32, ChainError> {
        self.seqno_of(&self.chain.account(&self.address).await?)
    }

    /// Pays one to four transfers in one message, and returns once the wallet has sent them on (its seqno advanced).
    /// Whether the destinations accepted is theirs to say: see [`Wallet::perform`].
    ///
    /// # Errors
    /// Too little balance, an unreachable chain, or no confirmation before the message expired: then it never happens.
    pub async fn transfer(&self, transfers: &[Transfer]) -> Result<(), ChainError> {
        let _one_at_a_time = self.sending.lock().await;
        let account = self.chain.account(&self.address).await?;
        let need = transfers
            .iter()
            .try_fold(FEE_MARGIN, |sum, t| sum.checked_add(t.amount))
            .ok_or_else(|| ChainError::invalid("transfer", "the amounts overflow"))?;
        if account.balance < need {
            let address = Box::new(self.address.clone());
            return Err(ChainError::InsufficientBalance { address, need, have: account.balance });
        }
        // A message can expire unseen: the chain's clock jumps, or a node loses it for a minute. It then never happens, and
        // another one may be sent.
        for attempt in 1..=ATTEMPTS {
            match self.attempt(transfers).await {
                Err(ChainError::NotConfirmed { .. }) if attempt < ATTEMPTS => {
                    tracing::warn!(address = %self.address, "a message expired unseen; sending another");
                }
                outcome => return outcome,
            }
        }
        unreachable!("the last attempt returns")
    }

    async fn attempt(&self, transfers: &[Transfer]) -> Result<(), ChainError> {
        let account = self.chain.account(&self.address).await?;
        let seqno = self.seqno_of(&account)?;
        let valid_until = self.chain.head().await?.time + VALID_SECONDS;
        let valid_until = u32::try_from(valid_until)
            .map_err(|_| ChainError::invalid("transfer", "the chain's clock is beyond 2106"))?;
        let deploy = account.status != AccountStatus::Active;
        let message = wallet::external_message(&self.key, seqno, valid_until, deploy, transfers)?;
        self.send_until_seqno_passes(&message::encode(&message), seqno, u64::from(valid_until)).await
    }

    /// Sends one message to a contract and waits until `done` says that its account shows the effect, or the contract's
    /// transaction shows that it refused.
    ///
    /// # Errors
    /// As [`Wallet::transfer`]; [`ChainError::ContractRefused`] with the exit code in words (`meaning`).
    pub async fn perform<T>(
        &self,
        action: &'static str,
        transfer: Transfer,
        meaning: fn(i32) -> Option<&'static str>,
        done: impl Fn(&AccountState) -> Option<T>,
    ) -> Result<T, ChainError> {
        let to = transfer.to.clone();
        let before = self.newest_lt(&to).await?;
        self.transfer(std::slice::from_ref(&transfer)).await?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            // First the outcome, then the state: the state then shows at least what that transaction did.
            let refused = self.refusal(action, &to, before, meaning).await?;
            if let Some(value) = done(&self.chain.account(&to).await?) {
                return Ok(value);
            }
            if let Some(error) = refused {
                return Err(error);
            }
            if Instant::now() >= deadline {
                return Err(not_confirmed(action, &to, "look at the account's transactions and try again"));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn newest_lt(&self, address: &Address) -> Result<u64, ChainError> {
        Ok(self.chain.account(address).await?.last_lt)
    }

    async fn refusal(
        &self,
        action: &'static str,
        to: &Address,
        after_lt: u64,
        meaning: fn(i32) -> Option<&'static str>,
    ) -> Result<Option<ChainError>, ChainError> {
        const RECENT: usize = 16;
        let recent = self.chain.transactions(to, RECENT).await?;
        let ours = recent
            .into_iter()
            .filter(|tx| tx.lt > after_lt && tx.from.as_ref() == Some(&self.address))
            .find(|tx| tx.aborted);
        Ok(ours.map(|tx| {
            let exit_code = tx.exit_code.unwrap_or(-1);
            let words = match tx.exit_code {
                None => "there is no contract at this address, or the value does not pay for its gas",
                Some(code) => meaning(code).unwrap_or("it could not carry out its actions"),
            };
            ChainError::ContractRefused {
                address: Box::new(to.clone()),
                action,
                exit_code,
                meaning: words.to_owned(),
            }
        }))
    }

    /// Returns when the wallet took the message, or when it is certain that it never will.
    async fn send_until_seqno_passes(
        &self,
        message: &[u8],
        seqno: u32,
        valid_until: u64,
    ) -> Result<(), ChainError> {
        self.chain.send(message).await?;
        let deadline = Instant::now() + PATIENCE;
        let mut resend = Instant::now() + RESEND;
        loop {
            tokio::time::sleep(POLL).await;
            match self.progress(seqno, valid_until).await {
                Ok(Progress::Taken) => return Ok(()),
                Ok(Progress::Waiting) if Instant::now() < deadline => {}
                Ok(Progress::Expired) => {
                    let remedy = "the message expired and will never happen; send again";
                    return Err(not_confirmed("transfer", &self.address, remedy));
                }
                // A chain that is away for a moment does not end the wait: the message may already be on its way.
                Err(error) if Instant::now() < deadline => {
                    tracing::warn!(%error, "waiting for a wallet's message");
                }
                Ok(Progress::Waiting) | Err(_) => return Err(self.unknown()),
            }
            if Instant::now() >= resend {
                resend = Instant::now() + RESEND;
                // Refused now means at worst that it was carried out a moment ago; the next look tells.
                if let Err(error) = self.chain.send(message).await {
                    tracing::debug!(%error, "sending a wallet's message again");
                }
            }
        }
    }

    async fn progress(&self, seqno: u32, valid_until: u64) -> Result<Progress, ChainError> {
        // First the clock, then the account: a seqno read after a block past the message's end is final.
        let expired = self.chain.head().await?.time > valid_until;
        let account = self.chain.account(&self.address).await?;
        if account.status == AccountStatus::Active && self.seqno_of(&account)? > seqno {
            Ok(Progress::Taken)
        } else if expired {
            Ok(Progress::Expired)
        } else {
            Ok(Progress::Waiting)
        }
    }

    /// The chain fell silent: the message may still happen until it expires. Not to be answered with another one.
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

    fn seqno_of(&self, account: &AccountState) -> Result<u32, ChainError> {
        let Some(data) = &account.data else { return Ok(0) };
        if account.code_hash != Some(wallet::code_hash()) {
            return Err(ChainError::wrong_account(&self.address, "wallet", "its code is not that of v4r2"));
        }
        wallet::seqno(data).map_err(|error| ChainError::wrong_account(&self.address, "wallet", error))
    }
}

enum Progress {
    Waiting,
    Taken,
    Expired,
}

fn not_confirmed(action: &'static str, address: &Address, remedy: &'static str) -> ChainError {
    ChainError::NotConfirmed {
        action,
        address: Box::new(address.clone()),
        seconds: PATIENCE.as_secs(),
        remedy,
    }
}
