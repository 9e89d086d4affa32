//! The channels that the gateway opens to workers: one per worker id, the same one again after a restart.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use cocoon_accounts::{ApiRefusal, PayerBook, PayerKeeper, PayerPolicy, Store};
use cocoon_chain::ChainError;
use cocoon_contracts::{Address, Nanotons, channel::Terms, parse_address};

use crate::Shared;

/// Which channel belongs to which worker.
pub(crate) struct WorkerChannels {
    store: Store,
    known: Mutex<HashMap<String, Address>>,
    /// One opening at a time: the wallet sends one message at a time anyway. No renewal waits for it.
    opening: tokio::sync::Mutex<()>,
}

const NOTE: &str = "worker-channel/";

impl WorkerChannels {
    pub(crate) fn open(store: Store) -> Self {
        let mut known = HashMap::new();
        for (key, value) in store.notes() {
            if let Some(worker) = key.strip_prefix(NOTE)
                && let Ok(address) = parse_address(&String::from_utf8_lossy(value))
            {
                known.insert(worker.to_owned(), address);
            }
        }
        Self { store, known: Mutex::new(known), opening: tokio::sync::Mutex::new(()) }
    }

    fn known(&self, worker: &str) -> Option<Address> {
        self.known.lock().expect("no holder of this lock panics").get(worker).cloned()
    }

    /// Every worker id costs a deposit once; an id that comes back finds its channel, or replaces its own. Ids whose
    /// channel was closed, and is in the book no more, make room for others.
    async fn room_for(&self, worker: &str, limit: usize, book: &PayerBook) -> Result<(), ApiRefusal> {
        let mut gone = Vec::new();
        let has_room = {
            let mut known = self.known.lock().expect("no holder of this lock panics");
            if !known.contains_key(worker) && known.len() >= limit {
                gone.extend(known.extract_if(|_, channel| book.state(channel).is_none()).map(|(id, _)| id));
            }
            known.contains_key(worker) || known.len() < limit
        };
        for id in gone {
            // Should the disk refuse, the note is there at the next start, and leads to no channel.
            if let Err(error) = self.store.put_note(&format!("{NOTE}{id}"), &[]).await {
                tracing::warn!(%error, worker = %id, "that its channel is closed was not noted");
            }
        }
        if has_room {
            return Ok(());
        }
        let why = "this gateway has opened as many channels to workers as it affords; try another";
        Err(ApiRefusal::unavailable("full", why))
    }

    async fn remember(&self, worker: &str, address: &Address) -> Result<(), ApiRefusal> {
        let text = address.to_string();
        let noted = self.store.put_note(&format!("{NOTE}{worker}"), text.as_bytes()).await;
        noted.map_err(|e| ApiRefusal::unavailable("store_failed", e.to_string()))?;
        self.known.lock().expect("no holder of this lock panics").insert(worker.to_owned(), address.clone());
        Ok(())
    }
}

/// The channel to `worker`, opened if there is none that pays `operator` by our key.
pub(crate) async fn to_worker(
    shared: &Shared,
    worker: &str,
    operator: &Address,
) -> Result<Address, ApiRefusal> {
    // Without the lock: a worker that renews does not wait for another's channel to be opened.
    if let Some(open) = still_open(shared, worker, operator).await? {
        return Ok(open);
    }
    let _one = shared.channels.opening.lock().await;
    if let Some(open) = still_open(shared, worker, operator).await? {
        return Ok(open);
    }
    let terms = match begun(shared, worker, operator) {
        Some(terms) => terms,
        None => {
            shared.channels.room_for(worker, shared.options.max_workers, &shared.payer).await?;
            let terms = fresh_terms(shared, operator).await?;
            // On the disk before anything is on the chain: a crash in between finds the same channel again.
            enter(shared, &terms, 0).await?;
            shared.channels.remember(worker, &terms.address()).await?;
            terms
        }
    };
    let wallet = &shared.options.wallet;
    let _turn = shared.payee.wallet_turn().await?;
    // No limit below the deposit: the wallet, which could raise it, lies beside the session key in this process.
    let deposit = shared.options.money.worker_deposit;
    let state = cocoon_chain::open_channel(wallet, &terms, deposit, Nanotons::MAX).await?;
    enter(shared, &terms, state.deposit()).await?;
    Ok(terms.address())
}

/// The terms of the known channel to `worker`, if they fit.
fn fitting(shared: &Shared, worker: &str, operator: &Address) -> Option<Terms> {
    let terms = shared.channels.known(worker).and_then(|known| shared.payer.terms(&known))?;
    (terms.payee == *operator && terms.payer_key == shared.options.voucher_key.public()).then_some(terms)
}

/// A channel that was noted, and was not on the chain yet when this process or the last one stopped opening it.
fn begun(shared: &Shared, worker: &str, operator: &Address) -> Option<Terms> {
    let terms = fitting(shared, worker, operator)?;
    let state = shared.payer.state(&terms.address())?;
    (state.deposit == 0 && state.signed == 0).then_some(terms)
}

/// The known channel to `worker` if it stands on the chain and is not being closed.
async fn still_open(
    shared: &Shared,
    worker: &str,
    operator: &Address,
) -> Result<Option<Address>, ApiRefusal> {
    let Some(terms) = fitting(shared, worker, operator) else { return Ok(None) };
    let address = terms.address();
    match cocoon_chain::read_channel(&**shared.options.wallet.chain(), &address).await {
        Ok(state) if state.deadline.is_none() => {
            enter(shared, &terms, state.deposit()).await?;
            Ok(Some(address))
        }
        // Closed meanwhile, by us or by hand, or never opened.
        Ok(_) | Err(ChainError::WrongAccount { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// When channels to workers are topped up and closed.
pub(crate) fn policy(shared: &Shared) -> PayerPolicy {
    let one = shared.options.money.worker_deposit;
    PayerPolicy {
        close_idle: Some(shared.options.timing.close_idle),
        top_up_below: one / 4 + 1,
        top_up_by: one,
        most: shared.options.money.worker_most,
    }
}

/// Keeps the channels to workers by a policy.
pub(crate) fn keeper(shared: &Shared, policy: PayerPolicy) -> PayerKeeper {
    PayerKeeper::new(Arc::clone(&shared.options.wallet), shared.payer.clone(), policy)
}

/// Closes channels to workers that are gone, and brings their rest home. Lanes top theirs up themselves.
pub(crate) fn spawn_keeper(shared: &Arc<Shared>) -> tokio::task::JoinHandle<()> {
    let shared = Arc::downgrade(shared);
    tokio::spawn(async move {
        while let Some(every) = shared.upgrade().map(|shared| shared.options.timing.watch_every) {
            tokio::time::sleep(every).await;
            let Some(shared) = shared.upgrade() else { return };
            keep_once(&shared).await;
        }
    })
}

async fn keep_once(shared: &Shared) {
    let in_use = shared.workers.all().iter().map(|worker| worker.lane.channel().clone()).collect();
    let policy = PayerPolicy { top_up_below: 0, ..policy(shared) };
    let keeper = keeper(shared, policy);
    if !keeper.has_work(&in_use) {
        return;
    }
    let Ok(_turn) = shared.payee.wallet_turn().await else { return };
    for (channel, kept) in keeper.keep_once(&in_use).await {
        match kept {
            Ok(kept) => tracing::info!(%channel, ?kept, "a channel to a worker"),
            Err(error) => tracing::warn!(%channel, %error, "a channel to a worker was not closed yet"),
        }
    }
}

async fn enter(shared: &Shared, terms: &Terms, deposit: Nanotons) -> Result<(), ApiRefusal> {
    let entered = shared.payer.open_channel(&terms.address(), terms, deposit).await;
    entered.map(drop).map_err(|e| ApiRefusal::unavailable("store_failed", e.to_string()))
}

async fn fresh_terms(shared: &Shared, operator: &Address) -> Result<Terms, ApiRefusal> {
    let wallet = &shared.options.wallet;
    let registry = cocoon_chain::read_registry(&**wallet.chain(), &shared.options.registry).await?;
    let mut nonce = [0; 8];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut nonce)
        .map_err(|_| ApiRefusal::unavailable("no_random", "the system's random generator gave no bytes"))?;
    Ok(Terms {
        payer: wallet.address().clone(),
        payee: operator.clone(),
        payer_key: shared.options.voucher_key.public(),
        network: shared.network,
        nonce: u64::from_be_bytes(nonce),
        challenge_seconds: shared.options.money.challenge_seconds,
        fee_bps: registry.content.fee_bps,
        treasury: registry.content.treasury,
    })
}
