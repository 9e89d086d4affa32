//! What the gateway owes to hosts, published: per epoch the root of a Merkle-sum tree on its bond, and to each host the
//! proof of its own leaf.
//!
//! An epoch's number is the chain's second of which its amounts are: it only grows, whatever the interval, and says how old
//! they are. Every step is on the disk before the next one: leaves, then signature, then chain, then proofs. So a process
//! that is killed anywhere finds the same leaves again, and signs the same root.

mod push;
mod record;

use std::{
    path::Path,
    sync::{Arc, RwLock},
    time::Duration,
};

use axum::{Json, extract::State};
use cocoon_accounts::{ApiRefusal, StoreError};
use cocoon_chain::ChainError;
use cocoon_contracts::{Address, Nanotons, SigningKey, bond::SignedStatement, liabilities::TreeError};
use cocoon_protocol::http::{PublishedRoot, Solvency};
use futures_util::{StreamExt, TryStreamExt};

pub use record::RecordError;

use self::{
    push::Delivered,
    record::{Folder, Record},
};
use crate::Shared;

/// Folder inside the state folder.
const FOLDER: &str = "liabilities";
/// How often it is looked whether something is due: a publication, or a proof that a host has not got yet.
const LOOK: Duration = Duration::from_secs(2);
/// After a failure.
const PAUSE: Duration = Duration::from_secs(10);
/// How many channels are read from the chain at once.
const READS_AT_ONCE: usize = 8;

/// Where a gateway publishes what it owes.
pub struct BondOptions {
    /// The bond; its operator must be the gateway's wallet.
    pub address: Address,
    /// The bond's key: signs roots. **Nothing else may sign with it**: what it says twice costs the stake.
    pub key: SigningKey,
    /// From one publication to the next.
    pub every: Duration,
}

/// Why a gateway with a bond does not start.
#[derive(Debug, thiserror::Error)]
pub enum LiabilitiesError {
    /// Its folder.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The bond cannot be read.
    #[error("the bond cannot be read: {0}")]
    Chain(#[from] ChainError),
    /// The bond is somebody else's.
    #[error("the bond {bond} has another {what} than this gateway: name the gateway's own bond, or back one")]
    Foreign {
        /// The bond.
        bond: Address,
        /// What differs.
        what: &'static str,
    },
}

/// Why an epoch was not published; the next attempt goes on where this one stopped.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error("the chain does not do it: {0}")]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// Whoever published it has our key, or this folder is an old copy. Going on could contradict it.
    #[error(
        "the chain shows epoch {0}, which is not in this gateway's folder: if somebody else has the bond's key, unbond and \
         take another; if the folder is an old copy, move its epoch.json away and start again"
    )]
    NotOurs(u64),
}

/// A gateway's published liabilities.
pub(crate) struct Liabilities {
    options: BondOptions,
    folder: Folder,
    newest: RwLock<Option<Arc<Record>>>,
    delivered: Delivered,
}

impl Liabilities {
    /// Opens the folder, and checks that the bond is ours.
    pub(crate) async fn open(
        options: BondOptions,
        wallet: &cocoon_chain::Wallet,
        state: &Path,
    ) -> Result<Self, LiabilitiesError> {
        let folder = Folder::open(state.join(FOLDER))?;
        let newest = folder.load()?.filter(|record| record.bond == options.address);
        let bond = cocoon_chain::read_bond(&**wallet.chain(), &options.address).await?;
        let foreign = |what| LiabilitiesError::Foreign { bond: options.address.clone(), what };
        if bond.terms.operator != *wallet.address() {
            return Err(foreign("operator"));
        }
        if bond.terms.operator_key != options.key.public() {
            return Err(foreign("key"));
        }
        let newest = RwLock::new(newest.map(Arc::new));
        Ok(Self { options, folder, newest, delivered: Delivered::default() })
    }

    fn newest(&self) -> Option<Arc<Record>> {
        self.newest.read().expect("no holder of this lock panics").clone()
    }

    /// Publishes what is due and hands out what is missing, until the returned task is aborted.
    pub(crate) fn spawn(shared: &Arc<Shared>) -> Option<tokio::task::JoinHandle<()>> {
        shared.liabilities.as_ref()?;
        let shared = Arc::clone(shared);
        Some(tokio::spawn(async move {
            loop {
                let Some(own) = &shared.liabilities else { return };
                let wait = match own.look(&shared).await {
                    Ok(()) => LOOK.min(own.options.every),
                    Err(error @ PublishError::NotOurs(_)) => {
                        tracing::error!(%error, "the liabilities are published no more");
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the liabilities were not published; trying again");
                        PAUSE.min(own.options.every)
                    }
                };
                tokio::time::sleep(wait).await;
            }
        }))
    }

    /// One look: finishes what was begun, begins what is due, hands out proofs.
    async fn look(&self, shared: &Shared) -> Result<(), PublishError> {
        let chain = &**shared.options.wallet.chain();
        let (head, bond) =
            (chain.head().await?, cocoon_chain::read_bond(chain, &self.options.address).await?);
        let on_chain = bond.published.map(|published| published.liabilities);
        let newest = self.newest();
        if let Some(record) = &newest {
            let ours = record.liabilities();
            match on_chain {
                Some(seen) if seen == ours => {}
                Some(seen) if seen.epoch >= ours.epoch => return Err(PublishError::NotOurs(seen.epoch)),
                // Begun, and never seen on the chain: the same again.
                _ => self.send(shared, record).await?,
            }
        }
        // Without a record of ours: the folder is new, and what its predecessor signed lies in the past.
        let last = newest.as_ref().map(|record| record.root.epoch);
        let next = match (last, on_chain) {
            (Some(last), _) => last.saturating_add(self.options.every.as_secs().max(1)),
            (None, Some(seen)) => seen.epoch.saturating_add(1),
            (None, None) => 0,
        };
        if head.time >= next {
            let amounts = amounts(shared).await?;
            let record = self.folder.make(self.options.address.clone(), head.time, amounts)?;
            self.folder.save(&record)?;
            let record = Arc::new(record);
            *self.newest.write().expect("no holder of this lock panics") = Some(Arc::clone(&record));
            self.send(shared, &record).await?;
        }
        if let Some(record) = self.newest() {
            self.delivered.push(shared, &record).await;
        }
        Ok(())
    }

    /// Signs and sends. The record is on the disk: whoever comes here again signs the same.
    async fn send(&self, shared: &Shared, record: &Record) -> Result<(), PublishError> {
        let (liabilities, signed) = (record.liabilities(), self.signed(shared, record));
        // Siblings that share an account share its wallet too.
        let _turn = shared.payee.wallet_turn().await?;
        cocoon_chain::publish(&shared.options.wallet, &record.bond, &liabilities, &signed.signature).await?;
        tracing::info!(epoch = liabilities.epoch, nanotons = liabilities.sum, "liabilities published");
        Ok(())
    }

    fn signed(&self, shared: &Shared, record: &Record) -> SignedStatement {
        record.liabilities().statement(shared.network, &record.bond).sign(&self.options.key)
    }

    fn solvency(&self, shared: &Shared) -> Solvency {
        let mut channels: Vec<String> = shared.payer.channels().iter().map(ToString::to_string).collect();
        channels.sort_unstable();
        let published = self.newest().map(|record| PublishedRoot {
            epoch: record.root.epoch,
            root: hex::encode(record.root.hash),
            sum: record.root.sum,
            statement: hex::encode(self.signed(shared, &record).encode()),
        });
        let every_seconds = self.options.every.as_secs();
        Solvency { bond: self.options.address.to_string(), every_seconds, published, channels }
    }
}

/// What each host's channel has unsettled, in nanotons: all that was counted or signed, less what the chain has paid. All or
/// none: a channel that cannot be read ends the attempt.
async fn amounts(shared: &Shared) -> Result<Vec<(Address, Nanotons)>, ChainError> {
    let chain = &**shared.options.wallet.chain();
    let reads = shared.payer.channels().into_iter().map(|channel| async move {
        let paid = match cocoon_chain::read_channel(chain, &channel).await {
            Ok(state) => state.paid,
            // Not opened yet, or closed: no voucher of it is worth anything.
            Err(ChainError::WrongAccount { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        // Read after the chain: what is owed only grows.
        let Some(state) = shared.payer.state(&channel) else { return Ok(None) };
        Ok(Some((channel, state.owed.max(state.signed).saturating_sub(paid))))
    });
    futures_util::stream::iter(reads)
        .buffer_unordered(READS_AT_ONCE)
        .try_filter_map(|leaf| std::future::ready(Ok(leaf)))
        .try_collect()
        .await
}

/// `GET /v1/solvency`.
pub(crate) async fn solvency(State(shared): State<Arc<Shared>>) -> Result<Json<Solvency>, ApiRefusal> {
    let none =
        || ApiRefusal::not_found("no_bond", "this gateway has no bond: it publishes nothing of what it owes");
    let own = shared.liabilities.as_ref().ok_or_else(none)?;
    Ok(Json(own.solvency(&shared)))
}
