//! What a host is told.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use cocoon_accounts::{WallClock, server::Limits};
use cocoon_chain::Wallet;
use cocoon_contracts::{Address, Nanotons, TON};
use cocoon_fetch::Fetcher;
use cocoon_launch::vm::LineSink;
use cocoon_protocol::Price;

use crate::{GuestSettings, VmOptions};

/// What a host is told. [`HostOptions::new`] fills in what most leave alone.
pub struct HostOptions {
    /// Where it listens; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The URL that gateways are given; by default `http://` and the address that it listens on.
    pub advertise: Option<String>,
    /// The gateways' URLs.
    pub gateways: Vec<String>,
    /// The operator's wallet, on its chain: payee of gateways.
    pub wallet: Arc<Wallet>,
    /// The registry contract that it goes by.
    pub registry: Address,
    /// Where its accounts are kept.
    pub state_dir: PathBuf,
    /// The guest's run folder: configuration, sockets, log. Made if it is not there; one host at a time.
    pub run_dir: PathBuf,
    /// How the guest is launched.
    pub launch: Launch,
    /// The model, a GGUF file.
    pub model: PathBuf,
    /// The model's name, as clients ask for it.
    pub model_name: String,
    /// What the guest is configured with besides.
    pub guest: GuestSettings,
    /// The folder of the development network's simulated root.
    pub simulated_root: PathBuf,
    /// What gateways are charged: the registry's prices of the model, at the operator's coefficient. The prices follow the
    /// registry, the coefficient stays.
    pub price: Price,
    /// The id under which gateways list this worker; by default one is made and kept.
    pub worker_id: Option<String>,
    /// Amounts.
    pub money: Money,
    /// Times.
    pub timing: Timing,
    /// The wall clock by which it notes what it is owed and when: the machine's.
    pub clock: WallClock,
    /// What peers can take of this process.
    pub limits: Limits,
    /// Adds to each bundle what its verifiers would have to fetch from the CPU's vendor; without it bundles go as the guest
    /// made them.
    pub endorser: Option<Arc<Fetcher>>,
    /// Takes the guest's lines and what becomes of it; by default our own diagnostics.
    pub log: LineSink,
}

/// How a guest is launched.
#[derive(Clone, Debug)]
pub enum Launch {
    /// As a child process under a simulated TEE, beside no firmware and no kernel of ours.
    Process {
        /// The guest's executable.
        guest_binary: PathBuf,
    },
    /// In a VM that boots an image.
    Vm(Arc<VmOptions>),
}

/// A host's amounts.
#[derive(Clone, Copy, Debug)]
pub struct Money {
    /// How much a gateway may owe without a voucher while answers stream, in nanotons.
    pub window: Nanotons,
    /// The shortest challenge period of gateways' channels, in seconds.
    pub min_challenge_seconds: u32,
    /// Settle by itself when a voucher is worth this much, in nanotons.
    pub settle_at: Nanotons,
}

/// A host's times.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long the guest may take to load its model.
    pub start_limit: Duration,
    /// How often the evidence is made anew. Well below the policies' greatest age.
    pub attest_every: Duration,
    /// How long the guest may take to make evidence, at most 20 s. One that hangs is started again.
    pub evidence_limit: Duration,
    /// How often gateways are told again. Well below their lease.
    pub register_every: Duration,
    /// How long a stream over its window waits for a voucher.
    pub patience: Duration,
    /// How long the guest may be silent within an answer.
    pub silence: Duration,
    /// How often channels with unsettled vouchers are looked at.
    pub watch_every: Duration,
    /// How often what gateways owe is noted, to be held against what they publish.
    pub sample_every: Duration,
}

impl Default for Money {
    fn default() -> Self {
        Self { window: TON / 1_000, min_challenge_seconds: 600, settle_at: TON / 10 }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            start_limit: Duration::from_secs(180),
            attest_every: Duration::from_secs(60),
            evidence_limit: Duration::from_secs(20),
            register_every: Duration::from_secs(10),
            patience: Duration::from_secs(20),
            silence: Duration::from_secs(120),
            watch_every: Duration::from_secs(60),
            sample_every: Duration::from_secs(5),
        }
    }
}

/// The files of a host.
#[derive(Clone, Debug)]
pub struct Files {
    /// See [`HostOptions::state_dir`].
    pub state_dir: PathBuf,
    /// See [`HostOptions::run_dir`].
    pub run_dir: PathBuf,
    /// See [`HostOptions::launch`].
    pub launch: Launch,
    /// See [`HostOptions::model`].
    pub model: PathBuf,
    /// See [`HostOptions::simulated_root`].
    pub simulated_root: PathBuf,
}

impl HostOptions {
    /// Options with default amounts, times and limits, and no gateways yet.
    pub fn new(
        listen: SocketAddr,
        wallet: Arc<Wallet>,
        registry: Address,
        files: Files,
        model_name: String,
        price: Price,
    ) -> Self {
        Self {
            listen,
            advertise: None,
            gateways: Vec::new(),
            wallet,
            registry,
            state_dir: files.state_dir,
            run_dir: files.run_dir,
            launch: files.launch,
            model: files.model,
            model_name,
            guest: GuestSettings::default(),
            simulated_root: files.simulated_root,
            price,
            worker_id: None,
            money: Money::default(),
            timing: Timing::default(),
            clock: Arc::new(cocoon_accounts::unix_seconds),
            limits: Limits::default(),
            endorser: None,
            log: Arc::new(|line: &str| tracing::info!(target: "guest", "{line}")),
        }
    }
}
