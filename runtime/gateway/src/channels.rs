//! The channels that the gateway opens to workers: one per worker id, the same one again after a restart.

use std::{collections::HashMap, sync::Mutex};

use cocoon_accounts::{ApiRefusal, PayerState, Store};
use cocoon_chain::ChainError;
use cocoon_contracts::{Address, Nanotons, channel::Terms, parse_address};

use crate::Shared;

/// Which channel belongs to which worker.
pub(crate) struct WorkerChannels {
    store: Store,
    known: Mutex<HashMap<String, Address>>,
    /// One opening at a time: the wallet sends one message at a time anyway.
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
) -> Result<(Address, PayerState), ApiRefusal> {
    let _one = shared.channels.opening.lock().await;
    if let Some(terms) = shared.channels.known(worker).and_then(|known| shared.payer.terms(&known))
        && terms.payee == *operator
        && terms.payer_key == shared.options.voucher_key.public()
    {
        match deploy(shared, &terms).await {
            // Closed meanwhile, by us or by hand: a new one.
            Err(ChainError::Invalid { .. }) | Ok(None) => {}
            Ok(Some(deposit)) => return enter(shared, &terms, deposit).await,
            Err(error) => return Err(error.into()),
        }
    }
    let terms = fresh_terms(shared, operator).await?;
    // On the disk before anything is on the chain: a crash in between finds the same channel again.
    enter(shared, &terms, 0).await?;
    shared.channels.remember(worker, &terms.address()).await?;
    let closed = || ApiRefusal::unavailable("chain_unavailable", "the new channel is closed already");
    let deposit = deploy(shared, &terms).await?.ok_or_else(closed)?;
    enter(shared, &terms, deposit).await
}

/// Opens the channel, or finds it open; its deposit, or `None` when it is being closed.
async fn deploy(shared: &Shared, terms: &Terms) -> Result<Option<Nanotons>, ChainError> {
    let wallet = &shared.options.wallet;
    let state = cocoon_chain::open_channel(wallet, terms, shared.options.money.worker_deposit).await?;
    Ok(state.deadline.is_none().then(|| state.deposit()))
}

async fn enter(
    shared: &Shared,
    terms: &Terms,
    deposit: Nanotons,
) -> Result<(Address, PayerState), ApiRefusal> {
    let address = terms.address();
    let state = shared.payer.open_channel(&address, terms, deposit).await;
    state.map(|state| (address, state)).map_err(|e| ApiRefusal::unavailable("store_failed", e.to_string()))
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
