//! The host: launches the guest, relays sealed bytes, and collects what the worker earned.
//!
//! - [`Host::start`] is the door; [`RunningHost`] settles and ends.
//! - [`Expected`]: what this guest will measure, for the registry or a release manifest.
//! - `process`: the guest as a child process, executed from the very bytes that were measured.
//! - `supervisor`: evidence that stays fresh, a guest that is started again when it ends.
//! - `registration`: the bundle, handed to gateways again and again.
//! - `pricing`: the registry's prices at the operator's coefficient, agreed on with each request.
//! - `answers`: one request on its way to the guest and back.
//! - `liabilities`: what gateways publish that they owe us, held against our own book.
//!
//! The host sees sealed bytes and counts. What it could change, the client notices; what it measures, the client
//! demands.

mod answers;
mod error;
mod expected;
mod guest_client;
mod image;
mod liabilities;
mod life;
mod machine;
mod options;
mod pricing;
mod process;
mod registration;
mod routes;
mod run_folder;
mod supervisor;
mod vm;

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use cocoon_accounts::{
    AgentOptions, PayeeAgent, PayeeBook, PayeeOptions, Settlement, Store,
    server::{self, BindError, Server},
};
use cocoon_contracts::Address;
use tokio::sync::watch;

pub use error::HostError;
pub use expected::{Expected, GuestSettings, Reference};
pub use guest_client::GuestError;
pub use image::Image;
pub use life::{BootPhase, GuestPhase, Health};
pub use options::{Files, HostOptions, Launch, Money, Timing};
pub use process::MAX_GUEST_BINARY;
pub use vm::{VmOptions, VmTee};

use crate::{
    liabilities::Liabilities,
    life::Life,
    pricing::Pricing,
    registration::Registrations,
    supervisor::{Current, Supervisor},
};

/// How long settling may take at the end. Service managers wait 90 s by default, and other things end too; what is not
/// settled then is settled at the next start.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);

/// The parts that requests share.
pub(crate) struct Shared {
    pub(crate) options: HostOptions,
    pub(crate) payee: PayeeBook,
    pub(crate) pricing: Pricing,
    pub(crate) agent: Arc<PayeeAgent>,
    /// What gateways say that they owe.
    pub(crate) liabilities: Liabilities,
    /// What becomes of the guest.
    pub(crate) life: Life,
    /// The guest that serves now, if one does.
    pub(crate) current: watch::Receiver<Option<Arc<Current>>>,
}

/// Starts hosts.
pub struct Host;

impl Host {
    /// Measures and starts the guest, waits until it has made evidence, listens, and registers with the gateways.
    ///
    /// # Errors
    /// [`HostError`]: the address is taken, a file is missing, the guest does not start (its own words are in the
    /// error), the chain does not answer.
    pub async fn start(options: HostOptions) -> Result<RunningHost, HostError> {
        let listener = server::bind(options.listen).await?;
        let address =
            listener.local_addr().map_err(|source| BindError::Refused { address: options.listen, source })?;
        make_folder(&options.state_dir)?;
        let store = Store::open(&options.state_dir.join("accounts.redb"))?;
        let worker = registration::worker_id(&options, &store).await?;
        let chain = Arc::clone(options.wallet.chain());
        let network = chain.network();
        // Before a model is loaded for nothing.
        cocoon_chain::read_registry(&*chain, &options.registry).await?;
        let expected = read_expected(&options, network).await?;
        let life = Life::new(Arc::clone(&options.log));
        let supervisor = Supervisor::start(&options, expected.clone(), life.clone()).await?;
        let shared = Arc::new(shared(options, store, network, life, supervisor.current())?);
        let limits = shared.options.limits;
        let server = Server::start(listener, routes::router(&shared), limits)
            .map_err(|source| BindError::Refused { address, source })?;
        let registrations = Registrations::start(&shared, worker, server.address());
        let watching = [shared.agent.spawn(), Liabilities::spawn(&shared)];
        tracing::info!(%address, operator = %shared.options.wallet.address(), "host");
        Ok(RunningHost { shared, expected, supervisor, registrations, watching, server: Some(server) })
    }
}

async fn read_expected(options: &HostOptions, network: i32) -> Result<Expected, HostError> {
    let (model, name, settings) = (&options.model, &options.model_name, options.guest.clone());
    match &options.launch {
        Launch::Process { guest_binary } => {
            Expected::read(guest_binary, model, name, network, settings).await
        }
        Launch::Vm(vm) => Expected::of_image(&vm.image, model, name, network, settings).await,
    }
}

fn shared(
    options: HostOptions,
    store: Store,
    network: i32,
    life: Life,
    current: watch::Receiver<Option<Arc<Current>>>,
) -> Result<Shared, HostError> {
    let payee = PayeeBook::open(store, PayeeOptions { network, window: options.money.window })?;
    let agent = AgentOptions {
        registry: options.registry.clone(),
        min_challenge_seconds: options.money.min_challenge_seconds,
        settle_at: options.money.settle_at,
        watch_every: options.timing.watch_every,
    };
    let agent = Arc::new(PayeeAgent::new(Arc::clone(&options.wallet), payee.clone(), agent));
    let pricing = Pricing::new(&options.model_name, options.price);
    let liabilities = Liabilities::open(&options.state_dir)
        .map_err(|source| HostError::Folder { path: options.state_dir.clone(), source })?;
    Ok(Shared { options, payee, pricing, agent, liabilities, life, current })
}

pub(crate) fn make_folder(path: &std::path::Path) -> Result<(), HostError> {
    fs::create_dir_all(path).map_err(|source| HostError::Folder { path: path.to_path_buf(), source })
}

/// A host that serves, with its guest. Dropping it ends both at once, as a crash would; its accounts are safe either
/// way.
pub struct RunningHost {
    shared: Arc<Shared>,
    expected: Expected,
    supervisor: Supervisor,
    registrations: Registrations,
    watching: [tokio::task::JoinHandle<()>; 2],
    server: Option<Server>,
}

impl RunningHost {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.server.as_ref().expect("it is there until the end").address()
    }

    /// Where it is reached from this machine.
    pub fn url(&self) -> String {
        format!("http://{}", self.local_addr())
    }

    /// The operator's wallet.
    pub fn address(&self) -> &Address {
        self.shared.options.wallet.address()
    }

    /// The id under which gateways list this worker.
    pub fn worker_id(&self) -> &str {
        self.registrations.worker_id()
    }

    /// What the guest was told and must measure.
    pub fn expected(&self) -> &Expected {
        &self.expected
    }

    /// The newest evidence bundle, or `None` while the guest is being started again.
    pub fn bundle(&self) -> Option<bytes::Bytes> {
        self.shared.current.borrow().as_ref().map(|current| current.bundle.clone())
    }

    /// The guest's process, while it runs.
    pub fn guest_pid(&self) -> Option<u32> {
        self.shared.current.borrow().as_ref().and_then(|current| current.pid)
    }

    /// Whether its guest's TEE is simulated.
    pub fn is_simulated(&self) -> bool {
        match &self.shared.options.launch {
            Launch::Process { .. } => true,
            Launch::Vm(vm) => matches!(vm.tee, VmTee::Emulation { .. }),
        }
    }

    /// How the guest is, and how its newest boot went.
    pub fn health(&self) -> Health {
        self.shared.life.health()
    }

    /// What gateways owe: the account book.
    pub fn payee_book(&self) -> &PayeeBook {
        &self.shared.payee
    }

    /// Returns once every gateway has taken the registration. Holds nothing of the host.
    ///
    /// # Errors
    /// [`HostError::NotRegistered`] with the gateway's own words, after `patience`.
    pub fn wait_registered(
        &self,
        patience: Duration,
    ) -> impl Future<Output = Result<(), HostError>> + Send + use<> {
        self.registrations.wait(patience)
    }

    /// Settles every voucher of gateways that is worth anything, within a minute; what is left then is kept.
    pub async fn settle_all(&self) -> Vec<Settlement> {
        self.shared.agent.settle_all(SETTLE_LIMIT).await
    }

    /// Ends in order: no new requests, answers under way get the limit's grace, the guest ends, vouchers are settled.
    pub async fn shutdown(mut self) -> Vec<Settlement> {
        self.registrations.end().await;
        if let Some(server) = self.server.take() {
            server.shutdown().await;
        }
        self.supervisor.shutdown().await;
        for task in &mut self.watching {
            task.abort();
            // Only when the tasks are gone does nobody but us hold the accounts' file.
            drop(task.await);
        }
        self.settle_all().await
    }
}

impl Drop for RunningHost {
    fn drop(&mut self) {
        self.watching.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
