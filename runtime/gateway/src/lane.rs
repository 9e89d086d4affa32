//! The payer's side towards one worker: where it is, who pays it, and a deposit that does not run dry.

use std::{
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cocoon_accounts::{PayError, PayeeLink, PayerAgent, PayerOptions, PayerStream, authorize, unix_seconds};
use cocoon_contracts::{Address, Nanotons, SignedVoucher, SigningKey};
use cocoon_protocol::http::{
    AUTHORIZATION_HEADER, AccountStatus, ApiError, CHANNEL_HEADER, ChannelAnnouncement, LiabilityProof, code,
};

use crate::{Shared, channels};

/// Small debts wait this long for more, so that not every token costs an fsync at both ends.
const GATHER: Duration = Duration::from_millis(100);
/// How long a host may take to acknowledge a voucher.
const ACKNOWLEDGE: Duration = Duration::from_secs(10);
/// The largest reply that is read from a host, in bytes.
const MAX_REPLY: usize = 16 * 1024;

/// Why a host did not do what we asked for. Its own words are not kept: whoever registers a URL must not learn through
/// us what is behind it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostError {
    #[error("the host does not answer")]
    Unreachable,
    #[error("the host refused with status {status}")]
    Refused { status: u16, stale: bool },
    #[error(transparent)]
    Pay(#[from] PayError),
}

/// The way to one host.
pub(crate) struct HostLink {
    http: reqwest::Client,
    url: RwLock<String>,
    /// Proves that we are the payer.
    key: SigningKey,
}

impl HostLink {
    async fn send<T: serde::de::DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<T, HostError> {
        let asked = async {
            let response = request.send().await.map_err(|_| HostError::Unreachable)?;
            let status = response.status().as_u16();
            let reply = read(response, MAX_REPLY).await.map_err(|_| HostError::Unreachable)?;
            if status != 200 {
                let error: Option<ApiError> = serde_json::from_slice(&reply).ok();
                let stale = error.is_some_and(|error| error.code() == code::STALE_VOUCHER);
                return Err(HostError::Refused { status, stale });
            }
            serde_json::from_slice(&reply).map_err(|_| HostError::Unreachable)
        };
        tokio::time::timeout(ACKNOWLEDGE, asked).await.unwrap_or(Err(HostError::Unreachable))
    }

    /// Shows the payee that a published root contains what it is owed.
    async fn show(&self, channel: &Address, proof: &LiabilityProof) -> Result<(), HostError> {
        let body = serde_json::to_vec(proof).expect("plain data always encodes");
        let authorization = authorize(&self.key, channel, unix_seconds(), Some(&body));
        let request = self.http.post(self.at("v1/liabilities")).body(body);
        let request = request.header(CHANNEL_HEADER, channel.to_string());
        let reply = self.send(request.header(AUTHORIZATION_HEADER, authorization)).await;
        reply.map(|_: LiabilityProof| ())
    }

    fn at(&self, path: &str) -> String {
        format!("{}/{path}", self.url.read().expect("no holder of this lock panics"))
    }
}

impl PayeeLink for HostLink {
    type Error = HostError;

    async fn announce(&self, channel: &Address) -> Result<AccountStatus, HostError> {
        let body = ChannelAnnouncement { address: channel.to_string() };
        self.send(self.http.put(self.at("v1/channels")).json(&body)).await
    }

    async fn voucher(&self, signed: &SignedVoucher) -> Result<AccountStatus, HostError> {
        let path = format!("v1/channels/{}/voucher", signed.voucher.channel);
        self.send(self.http.put(self.at(&path)).body(signed.encode())).await
    }

    async fn account(&self, channel: &Address) -> Result<AccountStatus, HostError> {
        let request = self.http.get(self.at(&format!("v1/channels/{channel}")));
        let proof = authorize(&self.key, channel, unix_seconds(), None);
        self.send(request.header(AUTHORIZATION_HEADER, proof)).await
    }

    fn unknown_channel(error: &HostError) -> bool {
        matches!(error, HostError::Refused { status: 404, .. })
    }

    fn stale_voucher(error: &HostError) -> bool {
        matches!(error, HostError::Refused { status: 409, stale: true })
    }
}

/// What is paid to one worker, and where.
pub(crate) struct Lane {
    agent: Arc<PayerAgent<HostLink>>,
    topping_up: AtomicBool,
    /// The host's count is beyond ours by more than broken answers explain.
    disputed: AtomicBool,
    concession: Nanotons,
    task: RwLock<Option<tokio::task::JoinHandle<()>>>,
}

impl Lane {
    /// A lane with a task that pays on it.
    pub(crate) fn start(shared: &Shared, channel: Address, url: String) -> Arc<Self> {
        let key = || SigningKey::from_seed(shared.options.voucher_key.expose_seed());
        let link = HostLink { http: shared.http.clone(), url: RwLock::new(url), key: key() };
        let options = PayerOptions { cap: shared.options.money.concession, gather: GATHER, hold: true };
        let agent = Arc::new(PayerAgent::new(shared.payer.clone(), key(), channel, link, options));
        let task = RwLock::new(Some(agent.spawn()));
        let (topping_up, disputed) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { agent, topping_up, disputed, concession: options.cap, task })
    }

    pub(crate) fn channel(&self) -> &Address {
        self.agent.channel()
    }

    pub(crate) fn url(&self) -> String {
        self.agent.link().url.read().expect("no holder of this lock panics").clone()
    }

    pub(crate) fn move_to(&self, url: String) {
        *self.agent.link().url.write().expect("no holder of this lock panics") = url;
    }

    /// Sets the worst case of an answer aside on the gateway's own deposit.
    pub(crate) async fn begin(&self, worst: Nanotons) -> Result<PayerStream, PayError> {
        self.agent.begin(worst).await
    }

    /// Tells the host about the channel.
    pub(crate) async fn announce(&self) -> Result<(), HostError> {
        self.agent.announce().await.map(drop)
    }

    /// Hands the host a voucher for all that is owed.
    pub(crate) async fn pay(&self) -> Result<(), HostError> {
        self.agent.settle_up().await.map(drop)
    }

    /// Shows the host the proof of what it is owed.
    pub(crate) async fn show(&self, proof: &LiabilityProof) -> Result<(), HostError> {
        self.agent.link().show(self.channel(), proof).await
    }

    /// Compares the counts after the host has refused the channel.
    pub(crate) async fn reconcile(&self) -> Result<(), HostError> {
        let done = self.agent.reconcile().await;
        match &done {
            Ok(()) => self.disputed.store(false, Ordering::Relaxed),
            // With half a window open a host still works.
            Err(HostError::Pay(PayError::Overcharged { claimed, owed, .. })) => {
                let far = claimed.saturating_sub(*owed) > self.concession / 2;
                self.disputed.store(far, Ordering::Relaxed);
            }
            Err(_) => {}
        }
        done
    }

    /// Whether the counts differed when they were last compared for a refusal: the host works for us no more, and no client
    /// is to be sent to it.
    pub(crate) fn is_disputed(&self) -> bool {
        self.disputed.load(Ordering::Relaxed)
    }

    /// Stops paying in step, and returns when the task is gone.
    pub(crate) async fn end(&self) {
        let task = self.task.write().expect("no holder of this lock panics").take();
        if let Some(task) = task {
            task.abort();
            drop(task.await);
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(task) = self.task.write().expect("no holder of this lock panics").take() {
            task.abort();
        }
    }
}

/// A reply of at most `limit` bytes.
pub(crate) async fn read(mut response: reqwest::Response, limit: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| e.to_string())? {
        if bytes.len() + chunk.len() > limit {
            return Err(format!("the reply is longer than {limit} bytes"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Adds a deposit, in the background, when a quarter of one is left, and half of the last one went for answers that we
/// counted ourselves: no host talks its way to another deposit.
pub(crate) fn top_up_when_low(shared: &Arc<Shared>, lane: &Arc<Lane>) {
    let policy = channels::policy(shared);
    if policy.addition(&lane.agent.state(), 0).is_none() || lane.topping_up.swap(true, Ordering::SeqCst) {
        return;
    }
    let (shared, lane) = (Arc::clone(shared), Arc::clone(lane));
    tokio::spawn(async move {
        if let Err(why) = top_up(&shared, &lane).await {
            tracing::warn!(channel = %lane.channel(), %why, "the deposit to a worker is low and was not topped up");
        }
        lane.topping_up.store(false, Ordering::SeqCst);
    });
}

async fn top_up(shared: &Arc<Shared>, lane: &Arc<Lane>) -> Result<(), String> {
    let _turn = shared.payee.wallet_turn().await.map_err(|e| e.to_string())?;
    let keeper = channels::keeper(shared, channels::policy(shared));
    match keeper.top_up(lane.channel(), 0).await.map_err(|e| e.to_string())? {
        Some(_) => lane.announce().await.map_err(|e| e.to_string()),
        None => Ok(()),
    }
}
