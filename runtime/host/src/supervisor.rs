//! The guest's life: started, asked for evidence again and again, and started anew when it ends.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cocoon_attestation::{Bundle, Statement, TrustAnchors, UnixTime};
use cocoon_chain::Chain;
use cocoon_fetch::Fetcher;
use cocoon_launch::backoff::Backoff;
use cocoon_protocol::http::{AttestRequest, GuestHealth, GuestState};
use cocoon_simulated_tee::SimulatedRoot;
use tokio::sync::watch;

use crate::{
    Expected, HostError, HostOptions, Image, Launch, Timing,
    expected::Boots as Source,
    guest_client::GuestClient,
    life::Life,
    machine::{Launcher, Machine},
    run_folder::RunFolder,
    vm::{VmLauncher, VmOptions, VmTee},
};

/// Between looks whether the guest is ready.
const POLL: Duration = Duration::from_millis(20);
/// How long one such look may take.
const ATTEMPT: Duration = Duration::from_millis(500);
/// Between looks whether the guest's evidence still holds.
const HEALTH_EVERY: Duration = Duration::from_secs(1);
/// After evidence could not be made: the chain or the guest may be back soon.
const RETRY_EVIDENCE: Duration = Duration::from_secs(2);
/// Evidence that the guest did not make so often in a row, while its newest grew older than twice the time between two,
/// says that it hangs: a quote service that is started anew is back sooner.
const MOST_FAILURES: u32 = 5;

/// The guest that serves now, with its newest evidence.
pub(crate) struct Current {
    pub(crate) client: GuestClient,
    pub(crate) bundle: Bytes,
    /// Signs the receipts of its answers.
    pub(crate) receipt_key: [u8; 32],
    pub(crate) made: Instant,
    pub(crate) pid: Option<u32>,
}

/// Keeps a guest running. Dropping it kills the guest; [`Supervisor::shutdown`] ends it in order.
pub(crate) struct Supervisor {
    current: watch::Receiver<Option<Arc<Current>>>,
    life: Life,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

/// How a guest is started and asked for evidence.
struct Keeper {
    launcher: Launcher,
    chain: Arc<dyn Chain>,
    timing: Timing,
    endorser: Option<Arc<Fetcher>>,
    life: Life,
}

/// A guest that answers.
struct Guest {
    machine: Machine,
    client: GuestClient,
}

impl Supervisor {
    /// Starts the guest and returns once it has made evidence.
    pub(crate) async fn start(
        options: &HostOptions,
        expected: Expected,
        life: Life,
    ) -> Result<Self, HostError> {
        let keeper = Keeper::prepare(options, expected, life.clone())?;
        let guest = keeper.launch().await?;
        let first = match keeper.evidence(&guest).await {
            Ok(current) => current,
            Err(error) => {
                guest.machine.end().await;
                return Err(error);
            }
        };
        let (sender, current) = watch::channel(Some(Arc::new(first)));
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(supervise(keeper, guest, sender, stopped));
        Ok(Self { current, life, stop, task })
    }

    pub(crate) fn current(&self) -> watch::Receiver<Option<Arc<Current>>> {
        self.current.clone()
    }

    /// Ends the guest, and returns when it is gone.
    pub(crate) async fn shutdown(&mut self) {
        self.life.ending();
        self.stop.send_replace(true);
        drop((&mut self.task).await);
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Keeper {
    fn prepare(options: &HostOptions, expected: Expected, life: Life) -> Result<Self, HostError> {
        let launcher = match (&options.launch, &expected.boots) {
            (Launch::Process { .. }, Source::Process(binary)) => Launcher::Process {
                binary: binary.clone(),
                folder: RunFolder::prepare(&options.run_dir, &expected.configuration, &options.model)?,
                root: simulated_root(options)?,
                life: life.clone(),
            },
            (Launch::Vm(vm), Source::Vm(image)) => {
                Launcher::Vm(Box::new(prepare_vm(options, vm, image, &expected, life.clone())?))
            }
            _ => return Err(HostError::Options("what boots is not what was read".to_owned())),
        };
        let (chain, timing) = (Arc::clone(options.wallet.chain()), options.timing);
        Ok(Self { launcher, chain, timing, endorser: options.endorser.clone(), life })
    }

    /// A guest that answers.
    async fn launch(&self) -> Result<Guest, HostError> {
        self.life.begins();
        let mut machine = self.launcher.start().await?;
        let client = GuestClient::new(machine.reach());
        let limit = self.timing.start_limit;
        let ready = tokio::time::timeout(limit, async {
            tokio::select! {
                how = machine.ended() => Err(HostError::GuestEnded(how)),
                () = answers(&client) => Ok(()),
            }
        });
        let late = || HostError::GuestLate { seconds: limit.as_secs(), why: "it does not answer".to_owned() };
        match ready.await.unwrap_or_else(|_| Err(late())) {
            Ok(()) => {
                self.life.reached("answers");
                Ok(Guest { machine, client })
            }
            Err(error) => {
                machine.end().await;
                Err(error)
            }
        }
    }

    /// A bundle that is bound to the chain's newest block.
    async fn evidence(&self, guest: &Guest) -> Result<Current, HostError> {
        let current = self.renewed(&guest.client, guest.machine.id()).await?;
        self.life.reached("evidence");
        self.life.serves(guest.machine.id());
        Ok(current)
    }

    async fn renewed(&self, client: &GuestClient, pid: Option<u32>) -> Result<Current, HostError> {
        let block = self.chain.head().await?;
        let question =
            AttestRequest { seqno: block.seqno, root_hash: hex::encode(block.root_hash), nonce: None };
        let question = serde_json::to_vec(&question).expect("plain data always encodes");
        let limit = self.timing.evidence_limit;
        let late = |_| HostError::NoEvidence(format!("the guest did not make it within {limit:?}"));
        let bundle = tokio::time::timeout(limit, client.attest(question)).await.map_err(late)?;
        let bundle = bundle.map_err(|e| HostError::NoEvidence(e.to_string()))?;
        let nonsense = |e: &dyn std::fmt::Display| HostError::NoEvidence(format!("it is no bundle: {e}"));
        let decoded = Bundle::decode(&bundle).map_err(|e| nonsense(&e))?;
        let statement = Statement::decode(&decoded.statement).map_err(|e| nonsense(&e))?;
        let receipt_key = statement.keys.receipt;
        let bundle = match &self.endorser {
            Some(endorser) => completed(endorser, decoded).await,
            None => bundle,
        };
        Ok(Current { client: client.clone(), bundle, receipt_key, made: Instant::now(), pid })
    }
}

/// The bundle with what its verifiers would have to fetch. Nothing here is trusted: all of it is signed by the vendor, and
/// verifiers judge it.
async fn completed(endorser: &Fetcher, bundle: Bundle) -> Bytes {
    let now = UnixTime(cocoon_accounts::unix_seconds());
    let (bundle, outcomes) = endorser.complete(bundle, &TrustAnchors::hardware(), now).await;
    for outcome in outcomes {
        if let Some(why) = outcome.source.trouble() {
            tracing::warn!("{}: {why}; gateways may refuse the evidence. {}", outcome.what, why.remedy());
        }
    }
    Bytes::from(bundle.encode())
}

fn simulated_root(options: &HostOptions) -> Result<SimulatedRoot, HostError> {
    SimulatedRoot::load(&options.simulated_root)
        .map_err(|e| HostError::SimulatedRoot { folder: options.simulated_root.clone(), why: e.to_string() })
}

fn prepare_vm(
    options: &HostOptions,
    vm: &Arc<VmOptions>,
    image: &Image,
    expected: &Expected,
    life: Life,
) -> Result<VmLauncher, HostError> {
    let root = match vm.tee {
        VmTee::Emulation { .. } => Some(simulated_root(options)?),
        VmTee::Tdx { .. } | VmTee::Snp { .. } => None,
    };
    VmLauncher::prepare(vm, expected, image, root, life)
}

async fn answers(client: &GuestClient) {
    // A forwarded port takes connections before the guest is there, and holds them: so none is waited for long.
    while !matches!(tokio::time::timeout(ATTEMPT, client.health()).await, Ok(Ok(_))) {
        tokio::time::sleep(POLL).await;
    }
}

type Publish = watch::Sender<Option<Arc<Current>>>;

async fn supervise(keeper: Keeper, first: Guest, publish: Publish, mut stopped: watch::Receiver<bool>) {
    let (mut guest, mut pauses) = (first, Backoff::default());
    loop {
        let (started, pid) = (Instant::now(), guest.machine.id());
        let how = tokio::select! {
            how = guest.machine.ended() => Some(how),
            how = stay_fresh(&keeper, &guest.client, pid, &publish) => Some(how),
            _ = stopped.wait_for(|stop| *stop) => None,
        };
        publish.send_replace(None);
        if let Some(how) = &how {
            tracing::error!("the guest {how}; it is started again with new keys");
            keeper.life.ended(how);
        }
        guest.machine.end().await;
        if how.is_none() {
            return;
        }
        // A relaunch that is let go of ends what it has started.
        guest = tokio::select! {
            guest = launched_again(&keeper, &publish, &mut pauses, started.elapsed()) => guest,
            _ = stopped.wait_for(|stop| *stop) => return drop(publish.send_replace(None)),
        };
    }
}

/// Tries until a guest serves, each time after a longer pause; the one before lived for `lived`.
async fn launched_again(
    keeper: &Keeper,
    publish: &Publish,
    pauses: &mut Backoff,
    mut lived: Duration,
) -> Guest {
    loop {
        tokio::time::sleep(pauses.pause(lived)).await;
        lived = Duration::ZERO;
        match relaunch(keeper, publish).await {
            Ok(guest) => return guest,
            Err(error) => tracing::error!(%error, "the guest does not start; trying again"),
        }
    }
}

async fn relaunch(keeper: &Keeper, publish: &Publish) -> Result<Guest, HostError> {
    let guest = keeper.launch().await?;
    match keeper.evidence(&guest).await {
        Ok(current) => {
            publish.send_replace(Some(Arc::new(current)));
            Ok(guest)
        }
        Err(error) => {
            guest.machine.end().await;
            Err(error)
        }
    }
}

async fn state(client: &GuestClient) -> Option<GuestState> {
    let health: GuestHealth = serde_json::from_slice(&client.health().await.ok()?).ok()?;
    Some(health.state)
}

/// Waits for so long, or until the guest's evidence holds no more: what computes its answers was started again. While it is not
/// there, nothing is handed to the guest. Whether it was so when it was last asked: who hangs says nothing.
async fn until_due(client: &GuestClient, wait: Duration, publish: &Publish) -> bool {
    let mut restarting = false;
    let watched = async {
        loop {
            tokio::time::sleep(HEALTH_EVERY).await;
            let state = state(client).await;
            restarting = state == Some(GuestState::Restarting);
            match state {
                Some(GuestState::Unattested) => return,
                Some(state @ (GuestState::Restarting | GuestState::Failed)) if publish.borrow().is_some() => {
                    let what = if state == GuestState::Failed { "has failed" } else { "is started again" };
                    tracing::warn!("the guest's engine {what}; it gets no requests until one answers");
                    publish.send_replace(None);
                }
                _ => {}
            }
        }
    };
    let _ = tokio::time::timeout(wait, watched).await; // due in any case
    restarting
}

/// Makes evidence anew for as long as the guest does; then says what it did not. Evidence that cannot be renewed is not
/// extended: it goes on to age.
async fn stay_fresh(keeper: &Keeper, client: &GuestClient, pid: Option<u32>, publish: &Publish) -> String {
    let every = keeper.timing.attest_every;
    let (mut next, mut failures, mut newest) = (every, 0, Instant::now());
    loop {
        if until_due(client, next, publish).await {
            continue; // evidence of now would hold no more when it answers
        }
        match keeper.renewed(client, pid).await {
            Ok(current) => {
                publish.send_replace(Some(Arc::new(current)));
                (next, failures, newest) = (every, 0, Instant::now());
                continue;
            }
            Err(error) => {
                tracing::warn!(%error, "the evidence was not renewed; trying again");
                // Without a chain there is nothing to ask the guest.
                failures = if matches!(error, HostError::Chain(_)) { 0 } else { failures + 1 };
                if failures >= MOST_FAILURES && newest.elapsed() > 2 * every {
                    return format!("did not renew its evidence {failures} times in a row: {error}");
                }
            }
        }
        next = RETRY_EVIDENCE.min(every);
    }
}
