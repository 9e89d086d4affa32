//! The bundle, handed to each gateway: at once when it is new, and again and again, since gateways forget.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use base64::Engine as _;
use cocoon_accounts::Store;
use cocoon_protocol::http::{ApiError, RegisterWorker};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::watch;

use crate::{HostError, HostOptions, Shared, supervisor::Current};

/// How long a gateway may take: it opens a channel on the chain meanwhile.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between attempts that fail: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The largest reply that is read, in bytes.
const MAX_REPLY: usize = 64 * 1024;
const NOTE: &str = "worker-id";

/// How one gateway answered last: `None` before it did.
type Outcome = Option<Result<(), String>>;

/// One task for each gateway. Ends when dropped.
pub(crate) struct Registrations {
    worker: String,
    gateways: Vec<(String, watch::Receiver<Outcome>, tokio::task::JoinHandle<()>)>,
}

/// The id under which gateways know this worker: from the options, or made once and kept.
pub(crate) async fn worker_id(options: &HostOptions, store: &Store) -> Result<String, HostError> {
    if let Some(id) = &options.worker_id {
        return Ok(id.clone());
    }
    if let Some((_, id)) = store.notes().find(|(key, _)| *key == NOTE) {
        return Ok(String::from_utf8_lossy(id).into_owned());
    }
    let mut random = [0; 8];
    let filled = SystemRandom::new().fill(&mut random);
    filled.map_err(|_| HostError::Options("the system's random generator gave no bytes".to_owned()))?;
    let id = format!("w-{}", hex::encode(random));
    store.put_note(NOTE, id.as_bytes()).await?;
    Ok(id)
}

impl Registrations {
    pub(crate) fn start(shared: &Arc<Shared>, worker: String, address: SocketAddr) -> Self {
        let url = shared.options.advertise.clone().unwrap_or_else(|| format!("http://{address}"));
        let start = |gateway: &String| {
            let (sender, receiver) = watch::channel(None);
            let to = format!("{}/v1/workers/{worker}", gateway.trim_end_matches('/'));
            let task = tokio::spawn(keep_registered(Arc::clone(shared), to, url.clone(), sender));
            (gateway.clone(), receiver, task)
        };
        let gateways = shared.options.gateways.iter().map(start).collect();
        Self { worker, gateways }
    }

    pub(crate) fn worker_id(&self) -> &str {
        &self.worker
    }

    /// Ends the tasks, and returns when they are gone.
    pub(crate) async fn end(&mut self) {
        for (_, _, task) in &mut self.gateways {
            task.abort();
            drop(task.await);
        }
        self.gateways.clear();
    }

    /// Returns once every gateway has taken the registration. It holds nothing of the host, which may end meanwhile.
    pub(crate) fn wait(
        &self,
        patience: Duration,
    ) -> impl Future<Output = Result<(), HostError>> + Send + use<> {
        let gateways: Vec<_> =
            self.gateways.iter().map(|(gateway, outcome, _)| (gateway.clone(), outcome.clone())).collect();
        async move {
            let deadline = tokio::time::Instant::now() + patience;
            for (gateway, mut outcome) in gateways {
                let taken = outcome.wait_for(|outcome| matches!(outcome, Some(Ok(()))));
                if matches!(tokio::time::timeout_at(deadline, taken).await, Ok(Ok(_))) {
                    continue;
                }
                let why = match &*outcome.borrow() {
                    Some(Err(why)) => why.clone(),
                    _ => format!("no reply within {patience:?}"),
                };
                return Err(HostError::NotRegistered { gateway, why });
            }
            Ok(())
        }
    }
}

impl Drop for Registrations {
    fn drop(&mut self) {
        for (_, _, task) in &self.gateways {
            task.abort();
        }
    }
}

async fn keep_registered(shared: Arc<Shared>, to: String, url: String, told: watch::Sender<Outcome>) {
    let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build();
    let http = match http {
        Ok(http) => http,
        Err(error) => return drop(told.send_replace(Some(Err(error.to_string())))),
    };
    let mut current = shared.current.clone();
    let mut pause = FIRST_PAUSE;
    loop {
        let newest = current.borrow_and_update().clone();
        let wait = match newest {
            None => shared.options.timing.register_every,
            Some(newest) => {
                let outcome = register(&shared, &http, &to, &url, &newest).await;
                let wait = match &outcome {
                    Ok(()) => shared.options.timing.register_every,
                    Err(why) => {
                        tracing::warn!(%to, %why, "not registered; trying again");
                        pause
                    }
                };
                pause = if outcome.is_ok() { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
                told.send_replace(Some(outcome));
                wait
            }
        };
        // New evidence is told at once, else after the wait.
        if matches!(tokio::time::timeout(wait, current.changed()).await, Ok(Err(_))) {
            return;
        }
    }
}

async fn register(
    shared: &Shared,
    http: &reqwest::Client,
    to: &str,
    url: &str,
    current: &Current,
) -> Result<(), String> {
    match cocoon_chain::read_registry(&**shared.options.wallet.chain(), &shared.options.registry).await {
        Ok(registry) => shared.pricing.follow(&registry),
        Err(error) => tracing::warn!(%error, "the registry was not read; the prices stay as they are"),
    }
    let body = RegisterWorker {
        url: url.to_owned(),
        operator: shared.options.wallet.address().to_string(),
        price: shared.pricing.present(),
        bundle: base64::engine::general_purpose::STANDARD.encode(&current.bundle),
    };
    let body = serde_json::to_vec(&body).expect("plain data always encodes");
    let sent = http.put(to).timeout(PATIENCE).body(body).send().await;
    let mut response = sent.map_err(|e| e.without_url().to_string())?;
    let status = response.status();
    let mut reply = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| e.to_string())? {
        if reply.len() + chunk.len() > MAX_REPLY {
            return Err(format!("its reply is longer than {MAX_REPLY} bytes"));
        }
        reply.extend_from_slice(&chunk);
    }
    if status.is_success() {
        return Ok(());
    }
    let error: Result<ApiError, _> = serde_json::from_slice(&reply);
    Err(error.map_or_else(|_| format!("status {status}"), |error| error.error.message))
}
