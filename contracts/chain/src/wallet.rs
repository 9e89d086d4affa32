//! A wallet that sends, and waits until what it sent has happened.
//!
//! **What cannot be paid twice, and what can.** A signed message counts once: the wallet's seqno guards it, so it is handed
//! in again and again until it was taken or has expired. A *new* message after a crash carries a new seqno and could pay
//! a second time. Callers that act on a contract look at the contract first (`open_channel`, `settle` and the others do);
//! callers that pay people keep the [`Prepared`] message on disk before they send it, and ask [`Wallet::confirm`] for its
//! fate before they sign another.

mod sending;

use std::sync::Arc;
use std::time::Duration;

use cocoon_contracts::wallet::{Transfer, Validity, WalletVersion};
use cocoon_contracts::{Address, Nanotons, SigningKey, VerifyingKey, message};
use tokio::time::Instant;

use sending::Vigil;
pub use sending::{Fate, Prepared, Sent};

use crate::{AccountState, AccountStatus, Chain, ChainError, Transaction};

/// How long an external message stays valid, in seconds of the chain's clock.
const VALID_SECONDS: u64 = 60;
/// How long to wait for anything to happen while the chain answers. Longer than a message stays valid.
const PATIENCE: Duration = Duration::from_secs(75);
/// How many messages are tried when one expires unseen.
const ATTEMPTS: u32 = 2;
/// Kept in the wallet for its own fees, in addition to what it sends: for a message with one transfer.
const FEE_MARGIN: Nanotons = 10_000_000;
/// And for each transfer beside the first: a third more than one of 255 costs under the older price list.
const FEE_PER_TRANSFER: Nanotons = 1_300_000;

/// A wallet on a chain. One message at a time: transfers wait for each other.
pub struct Wallet {
    key: SigningKey,
    version: WalletVersion,
    chain: Arc<dyn Chain>,
    address: Address,
    /// Held while a message is on its way; inside, one whose fate was not known when the wait for it ended.
    sending: tokio::sync::Mutex<Option<Open>>,
}

/// A message that was signed to be sent, and whose fate nobody has heard yet.
struct Open {
    prepared: Prepared,
    transfers: Vec<Transfer>,
}

impl Wallet {
    /// This key's wallet of version v4r2. Nothing is sent; the contract is deployed with its first transfer.
    pub fn new(key: SigningKey, chain: Arc<dyn Chain>) -> Self {
        Self::of_version(key, WalletVersion::V4R2, chain)
    }

    /// This key's wallet of a version: each version has an address of its own.
    pub fn of_version(key: SigningKey, version: WalletVersion, chain: Arc<dyn Chain>) -> Self {
        let address = version.address(&key.public(), chain.network());
        Self { key, version, chain, address, sending: tokio::sync::Mutex::default() }
    }

    /// Its address.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Its version.
    pub fn version(&self) -> WalletVersion {
        self.version
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

    /// The most that a message with so many transfers costs in fees, under either price list; the wallet must hold it
    /// in addition to what it sends. It usually costs a tenth of it.
    pub fn fee_bound(transfers: usize) -> Nanotons {
        let more = Nanotons::try_from(transfers.saturating_sub(1)).unwrap_or(Nanotons::MAX);
        FEE_PER_TRANSFER.saturating_mul(more).saturating_add(FEE_MARGIN)
    }

    /// Pays in one message, and returns once the wallet has sent the transfers on. Whether the destinations accepted is
    /// theirs to say: see [`Wallet::perform`].
    ///
    /// Once a message was handed in, a chain that is away is waited for. If the wait ends all the same (an error, or the
    /// caller gave up), this wallet signs nothing else before that message's fate is certain; and a next call with the
    /// very same transfers is taken as the same payment said again: it is not paid twice.
    ///
    /// # Errors
    /// More transfers than the version takes, too little balance, an unreachable chain, all before anything was sent;
    /// [`ChainError::NotConfirmed`] when it never happens; [`ChainError::FateUnknown`] when it may still happen.
    pub async fn transfer(&self, transfers: &[Transfer]) -> Result<Sent, ChainError> {
        let mut open = self.sending.lock().await;
        if let Some(last) = open.as_ref() {
            let fate = self.confirm(&last.prepared).await?;
            let same = last.transfers == transfers;
            *open = None;
            match fate {
                Fate::Taken(sent) if same => return Ok(sent),
                Fate::Taken(_) | Fate::Expired | Fate::Replaced => {}
            }
        }
        // A message can expire unseen: the chain's clock jumps, or a node loses it for a minute. And another process with
        // the same key can take its number. It then never happens, and another one may be sent.
        let mut gone: Option<Prepared> = None;
        for attempt in 1..=ATTEMPTS {
            let prepared = self.prepare(transfers).await?;
            // Whose number is taken now was perhaps taken itself: by a node that was late when it said that it was not.
            if let Some(gone) = gone.take_if(|gone| gone.seqno != prepared.seqno)
                && let Fate::Taken(sent) = self.confirm(&gone).await?
            {
                return Ok(sent);
            }
            // From here on the message may leave, even if nobody waits for this call any more.
            let signed = prepared.clone();
            let last = open.insert(Open { prepared, transfers: transfers.to_vec() });
            let fate = self.deliver(&last.prepared).await;
            if !matches!(fate, Err(ChainError::FateUnknown { .. })) {
                *open = None;
            }
            match fate? {
                Fate::Taken(sent) => return Ok(sent),
                Fate::Expired | Fate::Replaced if attempt < ATTEMPTS => {
                    tracing::warn!(address = %self.address, "a message never happened; sending another");
                }
                Fate::Expired | Fate::Replaced => {}
            }
            gone = Some(signed);
        }
        Err(not_confirmed("transfer", &self.address, "the message will never happen; send again"))
    }

    /// Pays any number of transfers, in as many messages as the version needs, one after the other. `done` hears after
    /// each message how many transfers were paid so far.
    ///
    /// # Errors
    /// As [`Wallet::transfer`]: what `done` heard was paid, nothing after it was.
    pub async fn transfer_all(
        &self,
        transfers: &[Transfer],
        mut done: impl FnMut(usize, &Sent),
    ) -> Result<(), ChainError> {
        let mut paid = 0;
        for batch in transfers.chunks(self.version.max_transfers()) {
            let sent = self.transfer(batch).await?;
            paid += batch.len();
            done(paid, &sent);
        }
        Ok(())
    }

    /// Signs the next message without sending it.
    ///
    /// # Errors
    /// As [`Wallet::transfer`]; nothing was sent.
    pub async fn prepare(&self, transfers: &[Transfer]) -> Result<Prepared, ChainError> {
        let account = self.chain.account(&self.address).await?;
        let need = transfers
            .iter()
            .try_fold(Self::fee_bound(transfers.len()), |sum, t| sum.checked_add(t.amount))
            .ok_or_else(|| ChainError::invalid("transfer", "the amounts overflow"))?;
        if account.balance < need {
            let address = Box::new(self.address.clone());
            return Err(ChainError::InsufficientBalance { address, need, have: account.balance });
        }
        let valid_until = self.chain.head().await?.time.saturating_add(VALID_SECONDS);
        let valid_until = u32::try_from(valid_until)
            .map_err(|_| ChainError::invalid("transfer", "the chain's clock is beyond 2106"))?;
        let deploy = account.status != AccountStatus::Active;
        let validity = Validity { seqno: self.seqno_of(&account)?, valid_until, deploy };
        let signed = self.version.sign(&self.key, self.chain.network(), validity, transfers)?;
        Ok(Prepared {
            message: message::encode(&signed.message),
            body_hash: signed.body_hash,
            seqno: validity.seqno,
            valid_until,
            after_lt: account.last_lt,
        })
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
        self.perform_or_land(action, transfer, meaning, |account, _landed| done(account)).await
    }

    /// As [`Wallet::perform`], for effects that others may hide at once: `done` also hears whether the message was carried
    /// out.
    pub(crate) async fn perform_or_land<T>(
        &self,
        action: &'static str,
        transfer: Transfer,
        meaning: fn(i32) -> Option<&'static str>,
        done: impl Fn(&AccountState, bool) -> Option<T>,
    ) -> Result<T, ChainError> {
        let to = transfer.to.clone();
        // What the message causes is later than what sent it, on whatever shard. What the account knew before may be
        // nothing: TON forgets an account that ended, and its services may still list what it once refused.
        let after = self.transfer(std::slice::from_ref(&transfer)).await?.lt;
        let (mut vigil, sent) = (Vigil::start(), Instant::now());
        loop {
            let looked = self.outcome(action, &to, after, meaning, &done).await;
            match looked {
                Ok(Some(value)) => return Ok(value),
                Err(error @ ChainError::ContractRefused { .. }) => return Err(error),
                // The transfer has left: a chain that is away now must not make it look as if nothing had happened.
                Ok(None) if !vigil.is_over(&looked) && sent.elapsed() < PATIENCE => {}
                Err(_) if !vigil.is_over(&looked) => {}
                Ok(None) | Err(_) => {
                    return Err(not_confirmed(
                        action,
                        &to,
                        "look at the account's transactions and try again",
                    ));
                }
            }
            vigil.rest().await;
        }
    }

    /// One look at what a message did: its effect, nothing yet, or that the contract refused.
    async fn outcome<T>(
        &self,
        action: &'static str,
        to: &Address,
        after_lt: u64,
        meaning: fn(i32) -> Option<&'static str>,
        done: &impl Fn(&AccountState, bool) -> Option<T>,
    ) -> Result<Option<T>, ChainError> {
        // First the outcome, then the state: the state then shows at least what that transaction did.
        let ours = self.landed(to, after_lt).await?;
        let refused = ours.as_ref().is_some_and(|tx| tx.aborted);
        match done(&self.chain.account(to).await?, ours.is_some() && !refused) {
            Some(value) => Ok(Some(value)),
            None => match ours.filter(|tx| tx.aborted) {
                Some(tx) => Err(refusal(action, to, &tx, meaning)),
                None => Ok(None),
            },
        }
    }

    /// The transaction of `to` that this wallet's message caused, which left after `after_lt`; a refused one first.
    async fn landed(&self, to: &Address, after_lt: u64) -> Result<Option<Transaction>, ChainError> {
        const RECENT: usize = 16;
        let recent = self.chain.transactions(to, RECENT).await?;
        let ours =
            recent.into_iter().filter(|tx| tx.lt > after_lt && tx.from.as_ref() == Some(&self.address));
        Ok(ours.max_by_key(|tx| tx.aborted))
    }

    fn seqno_of(&self, account: &AccountState) -> Result<u32, ChainError> {
        let Some(data) = &account.data else { return Ok(0) };
        if account.code_hash != Some(self.version.code_hash()) {
            let why = format!("its code is not that of {}", self.version.name());
            return Err(ChainError::wrong_account(&self.address, "wallet", why));
        }
        self.version.seqno(data).map_err(|error| ChainError::wrong_account(&self.address, "wallet", error))
    }
}

fn refusal(
    action: &'static str,
    to: &Address,
    tx: &Transaction,
    meaning: fn(i32) -> Option<&'static str>,
) -> ChainError {
    let words = match tx.exit_code {
        None => "there is no contract at this address, or the value does not pay for its gas",
        Some(code) => meaning(code).unwrap_or("it could not carry out its actions"),
    };
    ChainError::ContractRefused {
        address: Box::new(to.clone()),
        action,
        exit_code: tx.exit_code.unwrap_or(-1),
        meaning: words.to_owned(),
    }
}

fn not_confirmed(action: &'static str, address: &Address, remedy: &'static str) -> ChainError {
    ChainError::NotConfirmed {
        action,
        address: Box::new(address.clone()),
        seconds: PATIENCE.as_secs(),
        remedy,
    }
}
