//! What a gateway is told.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use cocoon_accounts::server::Limits;
use cocoon_attestation::{Exceptions, TrustAnchors};
use cocoon_chain::Wallet;
use cocoon_contracts::{Address, Nanotons, SigningKey, TON};

use crate::BondOptions;

/// What a gateway is told. [`GatewayOptions::new`] fills in what most leave alone.
pub struct GatewayOptions {
    /// Where it listens; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Its wallet, on its chain: payee of clients, payer of hosts.
    pub wallet: Arc<Wallet>,
    /// Signs vouchers to hosts. The same after a restart, or the channels to hosts are opened anew.
    pub voucher_key: SigningKey,
    /// The registry contract that it goes by.
    pub registry: Address,
    /// Where its accounts are kept.
    pub state_dir: PathBuf,
    /// The database that keeps what clients owe, where several gateways of this wallet serve the same clients: the words of a
    /// connection. `None`: the file in the state folder keeps it. What this gateway owes hosts is always in that file, and
    /// each gateway needs a voucher key of its own.
    pub shared_accounts: Option<String>,
    /// Whose hardware it takes. Clients decide for themselves.
    pub anchors: TrustAnchors,
    /// TCB levels that it takes beside those in date, by name.
    pub exceptions: Exceptions,
    /// Amounts.
    pub money: Money,
    /// Times.
    pub timing: Timing,
    /// What peers can take of this process.
    pub limits: Limits,
    /// How many workers it lists. Each costs it a channel with a deposit.
    pub max_workers: usize,
    /// Where it publishes what it owes; without one nothing is published.
    pub bond: Option<BondOptions>,
}

/// A gateway's amounts.
#[derive(Clone, Copy, Debug)]
pub struct Money {
    /// How much a client may owe without a voucher while an answer streams, in nanotons.
    pub window: Nanotons,
    /// What comes on top of a host's price, in basis points, rounded up.
    pub margin_bps: u32,
    /// Put into the channel to each worker, and again when a quarter is left, in nanotons.
    pub worker_deposit: Nanotons,
    /// The most that is conceded to a host for a broken answer beyond what was counted here, whatever window it claims,
    /// in nanotons. A host with a larger window may stop working for us after a broken answer that cost more.
    pub concession: Nanotons,
    /// The challenge period of the channels to workers, in seconds.
    pub challenge_seconds: u32,
    /// The shortest challenge period of clients' channels, in seconds.
    pub min_challenge_seconds: u32,
    /// Settle by itself when a voucher is worth this much, in nanotons.
    pub settle_at: Nanotons,
    /// The most that the channel to one worker may hold in all its life, in nanotons.
    pub worker_most: Nanotons,
}

/// A gateway's times.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long a stream over its window waits for a voucher.
    pub patience: Duration,
    /// How long a host may be silent within an answer.
    pub silence: Duration,
    /// How long a host may take to accept a connection.
    pub connect: Duration,
    /// How long a registration counts; hosts renew it.
    pub lease: Duration,
    /// The oldest beacon block of a bundle that is registered.
    pub bundle_age: Duration,
    /// How often workers are asked whether they live.
    pub probe_every: Duration,
    /// How often channels with unsettled vouchers are looked at.
    pub watch_every: Duration,
    /// A channel to a worker that is not listed and had no work for this long is closed; its rest comes home.
    pub close_idle: Duration,
}

impl Default for Money {
    fn default() -> Self {
        Self {
            window: TON / 1_000,
            margin_bps: 500,
            worker_deposit: TON,
            concession: TON / 1_000,
            challenge_seconds: 3600,
            min_challenge_seconds: 600,
            settle_at: TON / 10,
            worker_most: 1_000 * TON,
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(20),
            silence: Duration::from_secs(120),
            connect: Duration::from_secs(5),
            lease: Duration::from_secs(180),
            bundle_age: Duration::from_secs(600),
            probe_every: Duration::from_secs(10),
            watch_every: Duration::from_secs(60),
            close_idle: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

impl GatewayOptions {
    /// Options with default amounts, times and limits, for hardware roots only.
    pub fn new(
        listen: SocketAddr,
        wallet: Arc<Wallet>,
        voucher_key: SigningKey,
        registry: Address,
        state_dir: PathBuf,
    ) -> Self {
        Self {
            listen,
            wallet,
            voucher_key,
            registry,
            state_dir,
            shared_accounts: None,
            anchors: TrustAnchors::hardware(),
            exceptions: Exceptions::default(),
            money: Money::default(),
            timing: Timing::default(),
            limits: Limits::default(),
            max_workers: 64,
            bond: None,
        }
    }
}
