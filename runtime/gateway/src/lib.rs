//! The gateway: matches sealed requests to workers, keeps the account of vouchers, and can read nothing.
//!
//! ```text
//!  client ──PUT voucher──► PayeeBook            PayerBook ──PUT voucher──► host
//!  client ──POST answers─► reserve ─► forward sealed bytes ──────────────► host
//!         ◄── charge ◄──── Meter ◄─────────────────────────── frames ◄──── host
//! ```
//!
//! - [`Gateway::start`] is the door; [`RunningGateway`] settles and ends.
//! - `workers`: hosts register evidence; it is verified before a channel is opened and money is locked for them.
//! - `lane`: the payer's side towards one worker: vouchers in step with what it delivers.
//! - `answers`: one request on its way.
//! - `liabilities`: what it owes to hosts, published on its bond epoch by epoch, with a proof for each host.
//!
//! Nobody has to believe a gateway: clients verify bundles themselves, seal to the key inside, and sign what they
//! owe. Here is no key that opens anything, and no type of the plaintext.

mod answers;
mod channels;
mod lane;
mod liabilities;
mod options;
mod routes;
mod workers;

use std::{fs, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use cocoon_accounts::{
    AgentOptions, PayeeAgent, PayeeBook, PayeeOptions, PayerBook, Settlement, StatusSocket, Store,
    StoreError,
    server::{self, BindError, Server},
};
use cocoon_accounts_postgres::{PostgresAccounts, SharedOptions};
use cocoon_chain::ChainError;
use cocoon_contracts::Address;
use cocoon_protocol::http::NetworkInfo;

pub use liabilities::{BondOptions, LiabilitiesError, RecordError};
pub use options::{GatewayOptions, Money, Timing};
pub use workers::{MAX_LISTED_MODELS, MAX_WORKER_ID};

use crate::{channels::WorkerChannels, liabilities::Liabilities, workers::Workers};

/// How long settling may take at the end. Service managers wait 90 s by default, and other things end too; what is not
/// settled then is settled at the next start.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// Its address cannot be had.
    #[error("the gateway cannot start: {0}")]
    Bind(#[from] BindError),
    /// Its state folder cannot be made.
    #[error("the gateway's state folder {path} cannot be used: {source}")]
    StateFolder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its accounts cannot be opened.
    #[error("the gateway cannot open its accounts: {0}")]
    Store(#[from] StoreError),
    /// The chain does not answer, or the registry is not there.
    #[error("the gateway cannot start: {0}")]
    Chain(#[from] ChainError),
    /// What it owes cannot be published.
    #[error("the gateway cannot publish what it owes: {0}")]
    Liabilities(#[from] LiabilitiesError),
    /// The HTTP client could not be made.
    #[error("the gateway's HTTP client cannot be made: {0}")]
    Client(String),
}

/// The parts that requests share.
pub(crate) struct Shared {
    pub(crate) options: GatewayOptions,
    pub(crate) network: i32,
    pub(crate) payee: PayeeBook,
    pub(crate) payer: PayerBook,
    pub(crate) agent: Arc<PayeeAgent>,
    pub(crate) workers: Workers,
    pub(crate) channels: WorkerChannels,
    pub(crate) http: reqwest::Client,
    pub(crate) liabilities: Option<Liabilities>,
}

/// Starts gateways.
pub struct Gateway;

impl Gateway {
    /// Opens the accounts in the state folder, listens, and serves until the returned value is shut down.
    ///
    /// # Errors
    /// [`GatewayError`] when the address is taken, the accounts cannot be opened, or the chain does not answer.
    pub async fn start(mut options: GatewayOptions) -> Result<RunningGateway, GatewayError> {
        let listener = server::bind(options.listen).await?;
        let folder = &options.state_dir;
        fs::create_dir_all(folder)
            .map_err(|source| GatewayError::StateFolder { path: folder.clone(), source })?;
        let chain = Arc::clone(options.wallet.chain());
        // An operator should hear now, not at the first client, that the chain or the registry is not there.
        cocoon_chain::read_registry(&*chain, &options.registry).await?;
        let bond = options.bond.take();
        let mut shared = shared(options, chain.network()).await?;
        // Behind the lock of the accounts' file: no two processes publish from one folder.
        if let Some(bond) = bond {
            let (wallet, folder) = (&shared.options.wallet, &shared.options.state_dir);
            shared.liabilities = Some(Liabilities::open(bond, wallet, folder).await?);
        }
        let shared = Arc::new(shared);
        let router = routes::router(&shared);
        let limits = shared.options.limits;
        let server = Server::start(listener, router, limits)
            .map_err(|source| BindError::Refused { address: shared.options.listen, source })?;
        let mut tasks =
            vec![shared.agent.spawn(), workers::spawn_probes(&shared), channels::spawn_keeper(&shared)];
        tasks.extend(Liabilities::spawn(&shared));
        let (payee, payer) = (shared.payee.clone(), shared.payer.clone());
        let status = StatusSocket::serve(&shared.options.state_dir, payee, Some(payer))
            .map_err(|source| GatewayError::StateFolder { path: shared.options.state_dir.clone(), source })?;
        tracing::info!(address = %server.address(), wallet = %shared.options.wallet.address(), "gateway");
        Ok(RunningGateway { shared, server: Some(server), status: Some(status), tasks })
    }
}

async fn shared(options: GatewayOptions, network: i32) -> Result<Shared, GatewayError> {
    let store = Store::open(&options.state_dir.join("accounts.redb"))?;
    let payee_options = PayeeOptions { network, window: options.money.window };
    let payee = match &options.shared_accounts {
        None => PayeeBook::open(store.clone(), payee_options)?,
        Some(words) => {
            PostgresAccounts::connect(words, payee_options, SharedOptions::default()).await?.book()
        }
    };
    let payer = PayerBook::open(store.clone())?;
    let agent = AgentOptions {
        registry: options.registry.clone(),
        min_challenge_seconds: options.money.min_challenge_seconds,
        settle_at: options.money.settle_at,
        watch_every: options.timing.watch_every,
    };
    let agent = Arc::new(PayeeAgent::new(Arc::clone(&options.wallet), payee.clone(), agent));
    let http = reqwest::Client::builder()
        .connect_timeout(options.timing.connect)
        // Hosts close what is idle for longer than their limit for a request's head.
        .pool_idle_timeout(options.limits.head_timeout / 2)
        // A worker's answer comes from the worker: it cannot send us elsewhere, and no proxy stands between.
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .map_err(|e| GatewayError::Client(e.to_string()))?;
    let channels = WorkerChannels::open(store);
    let workers = Workers::new(options.max_workers);
    Ok(Shared { options, network, payee, payer, agent, workers, channels, http, liabilities: None })
}

impl Shared {
    pub(crate) fn info(&self) -> NetworkInfo {
        NetworkInfo {
            network: self.network,
            payee: self.options.wallet.address().to_string(),
            window_nanotons: self.options.money.window,
            registry: self.options.registry.to_string(),
        }
    }
}

/// A gateway that serves. Dropping it ends it at once, as a crash would; its accounts are safe either way.
pub struct RunningGateway {
    shared: Arc<Shared>,
    server: Option<Server>,
    status: Option<StatusSocket>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl RunningGateway {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.server.as_ref().expect("it is there until the end").address()
    }

    /// Where clients and hosts reach it from this machine.
    pub fn url(&self) -> String {
        format!("http://{}", self.local_addr())
    }

    /// What it tells clients about itself.
    pub fn info(&self) -> NetworkInfo {
        self.shared.info()
    }

    /// Its wallet: payee of clients' channels.
    pub fn address(&self) -> &Address {
        self.shared.options.wallet.address()
    }

    /// What clients owe: the account book.
    pub fn payee_book(&self) -> &PayeeBook {
        &self.shared.payee
    }

    /// What hosts are owed.
    pub fn payer_book(&self) -> &PayerBook {
        &self.shared.payer
    }

    /// Settles every voucher of clients that is worth anything, within a minute; what is left then is kept.
    pub async fn settle_all(&self) -> Vec<Settlement> {
        self.shared.agent.settle_all(SETTLE_LIMIT).await
    }

    /// Pays every host what it is owed by a last voucher. Hosts that do not answer keep what they hold.
    pub async fn pay_hosts(&self) {
        for worker in self.shared.workers.all() {
            if let Err(error) = worker.lane.pay().await {
                tracing::warn!(worker = %worker.id, %error, "a host was not paid at the end; it holds its last voucher");
            }
        }
    }

    /// Ends in order: no new requests, answers under way get the limit's grace, hosts get their last vouchers,
    /// and clients' vouchers are settled.
    pub async fn shutdown(mut self) -> Vec<Settlement> {
        if let Some(server) = self.server.take() {
            server.shutdown().await;
        }
        if let Some(status) = self.status.take() {
            status.end().await;
        }
        for task in &mut self.tasks {
            task.abort();
            // Only when the tasks are gone does nobody but us hold the accounts' file.
            drop(task.await);
        }
        self.tasks.clear();
        self.pay_hosts().await;
        for worker in self.shared.workers.all() {
            worker.lane.end().await;
        }
        self.shared.workers.clear();
        self.settle_all().await
    }
}

impl Drop for RunningGateway {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.shared.workers.clear();
    }
}
