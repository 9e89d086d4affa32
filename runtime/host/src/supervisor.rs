//! The guest's life: started, asked for evidence again and again, and started anew when it ends.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cocoon_attestation::{Bundle, Statement};
use cocoon_chain::Chain;
use cocoon_protocol::http::AttestRequest;
use cocoon_simulated_tee::{Emulator, Serving, SimulatedRoot};
use tokio::sync::watch;

use crate::{
    Expected, HostError, HostOptions, Timing,
    guest_client::{GuestClient, Reach},
    process::{COMMAND_LINE, GuestProcess},
    run_folder::RunFolder,
};

/// Between looks whether the guest is ready.
const POLL: Duration = Duration::from_millis(20);
/// Before a guest that ended is started again: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A guest that lived this long starts the pauses over.
const STABLE: Duration = Duration::from_secs(60);
/// After evidence could not be made: the chain or the guest may be back soon.
const RETRY_EVIDENCE: Duration = Duration::from_secs(2);

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
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

/// What a guest is started from.
struct Launcher {
    expected: Expected,
    root: SimulatedRoot,
    folder: RunFolder,
    chain: Arc<dyn Chain>,
    timing: Timing,
}

/// A guest with its emulator.
struct Guest {
    process: GuestProcess,
    client: GuestClient,
    _tee: Serving,
}

impl Supervisor {
    /// Starts the guest and returns once it has made evidence.
    pub(crate) async fn start(
        options: &HostOptions,
        expected: Expected,
        root: SimulatedRoot,
    ) -> Result<Self, HostError> {
        let folder = RunFolder::prepare(&options.run_dir, &expected.configuration, &options.model)?;
        let (chain, timing) = (Arc::clone(options.wallet.chain()), options.timing);
        let launcher = Launcher { expected, root, folder, chain, timing };
        let guest = launcher.launch().await?;
        let first = match launcher.evidence(&guest.client, guest.process.id()).await {
            Ok(current) => current,
            Err(error) => {
                guest.process.end().await;
                return Err(error);
            }
        };
        let (sender, current) = watch::channel(Some(Arc::new(first)));
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(supervise(launcher, guest, sender, stopped));
        Ok(Self { current, stop, task })
    }

    pub(crate) fn current(&self) -> watch::Receiver<Option<Arc<Current>>> {
        self.current.clone()
    }

    /// Ends the guest, and returns when it is gone.
    pub(crate) async fn shutdown(&mut self) {
        self.stop.send_replace(true);
        drop((&mut self.task).await);
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Launcher {
    /// A guest that answers on its socket.
    async fn launch(&self) -> Result<Guest, HostError> {
        let emulator = Emulator::launch(&self.root, &self.expected.binary.bytes, COMMAND_LINE);
        let tee = emulator.serve(self.folder.tee_listener()?);
        let process = GuestProcess::start(&self.expected.binary, &self.folder.path)?;
        let client = GuestClient::new(Reach::Socket(self.folder.guest_socket()));
        let mut guest = Guest { process, client, _tee: tee };
        let limit = self.timing.start_limit;
        let ready = tokio::time::timeout(limit, async {
            tokio::select! {
                how = guest.process.ended() => Err(HostError::GuestEnded(how)),
                () = answers(&guest.client) => Ok(()),
            }
        });
        let late = || HostError::GuestLate {
            seconds: limit.as_secs(),
            why: "its socket does not answer".to_owned(),
        };
        match ready.await.unwrap_or_else(|_| Err(late())) {
            Ok(()) => Ok(guest),
            Err(error) => {
                guest.process.end().await;
                Err(error)
            }
        }
    }

    /// A bundle that is bound to the chain's newest block.
    async fn evidence(&self, client: &GuestClient, pid: Option<u32>) -> Result<Current, HostError> {
        let block = self.chain.head().await?;
        let question =
            AttestRequest { seqno: block.seqno, root_hash: hex::encode(block.root_hash), nonce: None };
        let question = serde_json::to_vec(&question).expect("plain data always encodes");
        let bundle = client.attest(question).await.map_err(|e| HostError::NoEvidence(e.to_string()))?;
        let nonsense = |e: &dyn std::fmt::Display| HostError::NoEvidence(format!("it is no bundle: {e}"));
        let decoded = Bundle::decode(&bundle).map_err(|e| nonsense(&e))?;
        let statement = Statement::decode(&decoded.statement).map_err(|e| nonsense(&e))?;
        let receipt_key = statement.keys.receipt;
        Ok(Current { client: client.clone(), bundle, receipt_key, made: Instant::now(), pid })
    }
}

async fn answers(client: &GuestClient) {
    while client.health().await.is_err() {
        tokio::time::sleep(POLL).await;
    }
}

type Publish = watch::Sender<Option<Arc<Current>>>;

async fn supervise(launcher: Launcher, first: Guest, publish: Publish, mut stopped: watch::Receiver<bool>) {
    let mut guest = first;
    let mut pause = FIRST_PAUSE;
    loop {
        let (started, pid) = (Instant::now(), guest.process.id());
        let how = tokio::select! {
            how = guest.process.ended() => Some(how),
            () = stay_fresh(&launcher, &guest.client, pid, &publish) => None,
            _ = stopped.wait_for(|stop| *stop) => None,
        };
        publish.send_replace(None);
        guest.process.end().await;
        let Some(how) = how else { return };
        tracing::error!("the guest {how}; it is started again with new keys");
        if started.elapsed() > STABLE {
            pause = FIRST_PAUSE;
        }
        guest = loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stopped.wait_for(|stop| *stop) => return,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            match relaunch(&launcher, &publish).await {
                Ok(guest) => break guest,
                Err(error) => tracing::error!(%error, "the guest does not start; trying again"),
            }
        };
    }
}

async fn relaunch(launcher: &Launcher, publish: &Publish) -> Result<Guest, HostError> {
    let guest = launcher.launch().await?;
    match launcher.evidence(&guest.client, guest.process.id()).await {
        Ok(current) => {
            publish.send_replace(Some(Arc::new(current)));
            Ok(guest)
        }
        Err(error) => {
            guest.process.end().await;
            Err(error)
        }
    }
}

/// Makes evidence anew for ever. Evidence that cannot be renewed is not extended: it goes on to age.
async fn stay_fresh(launcher: &Launcher, client: &GuestClient, pid: Option<u32>, publish: &Publish) {
    let mut next = launcher.timing.attest_every;
    loop {
        tokio::time::sleep(next).await;
        next = match launcher.evidence(client, pid).await {
            Ok(current) => {
                publish.send_replace(Some(Arc::new(current)));
                launcher.timing.attest_every
            }
            Err(error) => {
                tracing::warn!(%error, "the evidence was not renewed; trying again");
                RETRY_EVIDENCE.min(launcher.timing.attest_every)
            }
        };
    }
}
