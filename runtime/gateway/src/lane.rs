//! The payer's side towards one worker: vouchers in step with what it delivers, and a deposit that does not run dry.

use std::{
    sync::{
        Arc, RwLock, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use cocoon_accounts::PayerBook;
use cocoon_contracts::{Address, Nanotons};
use cocoon_protocol::http::{AccountStatus, ChannelAnnouncement};

use crate::Shared;

/// Small debts wait this long for more, so that not every token costs an fsync at both ends.
const GATHER: Duration = Duration::from_millis(100);
/// How long a host may take to acknowledge a voucher.
const ACKNOWLEDGE: Duration = Duration::from_secs(10);
/// Between attempts to hand a voucher to a host that does not take it.
const RETRY: Duration = Duration::from_millis(500);
/// The largest reply that is read from a host, in bytes.
const MAX_REPLY: usize = 16 * 1024;

/// What is paid to one worker, and where.
pub(crate) struct Lane {
    pub(crate) channel: Address,
    url: RwLock<String>,
    window: AtomicU64,
    /// Answers under way, and how many ever began: together they tell a quiet moment.
    running: AtomicUsize,
    begun: AtomicU64,
    /// Worst cases of the answers under way, by the host's price.
    committed: AtomicU64,
    topping_up: AtomicBool,
    payer: RwLock<Option<tokio::task::JoinHandle<()>>>,
}

/// One answer under way on a lane; ends with the stream that holds it.
pub(crate) struct Running {
    lane: Arc<Lane>,
    worst: Nanotons,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.lane.committed.fetch_sub(self.worst, Ordering::SeqCst);
        self.lane.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Lane {
    /// A lane with a task that pays on it.
    pub(crate) fn start(shared: &Arc<Shared>, channel: Address, url: String) -> Arc<Self> {
        let lane = Arc::new(Self {
            channel,
            url: RwLock::new(url),
            window: AtomicU64::new(0),
            running: AtomicUsize::new(0),
            begun: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            topping_up: AtomicBool::new(false),
            payer: RwLock::new(None),
        });
        let (weak_shared, weak_lane) = (Arc::downgrade(shared), Arc::downgrade(&lane));
        let task = pay_in_step(shared.payer.clone(), lane.channel.clone(), weak_shared, weak_lane);
        let task = tokio::spawn(task);
        *lane.payer.write().expect("no holder of this lock panics") = Some(task);
        lane
    }

    pub(crate) fn url(&self) -> String {
        self.url.read().expect("no holder of this lock panics").clone()
    }

    pub(crate) fn move_to(&self, url: String) {
        *self.url.write().expect("no holder of this lock panics") = url;
    }

    /// Sets the worst case of an answer aside on the gateway's own deposit; `None` when it does not cover it.
    pub(crate) fn begin(self: &Arc<Self>, shared: &Shared, worst: Nanotons) -> Option<Running> {
        let state = shared.payer.state(&self.channel)?;
        let free = state.deposit.saturating_sub(state.owed);
        let add = |committed: u64| committed.checked_add(worst).filter(|sum| *sum <= free);
        self.committed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add).ok()?;
        self.running.fetch_add(1, Ordering::SeqCst);
        self.begun.fetch_add(1, Ordering::SeqCst);
        Some(Running { lane: Arc::clone(self), worst })
    }

    /// Stops paying in step, and returns when the task is gone.
    pub(crate) async fn end(&self) {
        let task = self.payer.write().expect("no holder of this lock panics").take();
        if let Some(task) = task {
            task.abort();
            drop(task.await);
        }
    }

    fn quiet(&self) -> Option<u64> {
        let begun = self.begun.load(Ordering::SeqCst);
        (self.running.load(Ordering::SeqCst) == 0).then_some(begun)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(task) = self.payer.write().expect("no holder of this lock panics").take() {
            task.abort();
        }
    }
}

/// Pays while the lane lives. Nothing of it is held while waiting, so that it can end.
async fn pay_in_step(payer: PayerBook, channel: Address, shared: Weak<Shared>, lane: Weak<Lane>) {
    while payer.wait_uncovered(&channel, 0).await.is_ok() {
        let Some(soon) = lane.upgrade().map(|lane| lane.window.load(Ordering::SeqCst) / 4) else { return };
        drop(tokio::time::timeout(GATHER, payer.wait_uncovered(&channel, soon)).await);
        let (Some(shared), Some(lane)) = (shared.upgrade(), lane.upgrade()) else { return };
        let paid = pay(&shared, &lane).await;
        drop((shared, lane));
        if let Err(why) = paid {
            tracing::warn!(%channel, %why, "a host did not take its voucher; trying again");
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Signs for all that is owed on the lane, and hands it to the host.
pub(crate) async fn pay(shared: &Arc<Shared>, lane: &Arc<Lane>) -> Result<(), String> {
    let quiet = lane.quiet();
    let signed = shared.payer.sign_owed(&lane.channel, &shared.options.voucher_key).await;
    let Some(signed) = signed.map_err(|e| e.to_string())? else { return Ok(()) };
    let path = format!("v1/channels/{}/voucher", lane.channel);
    let bytes = signed.encode();
    let status = match put(shared, lane, &path, bytes.clone()).await {
        Err(Refused { status: 404, .. }) => {
            announce(shared, lane).await?;
            put(shared, lane, &path, bytes).await
        }
        other => other,
    };
    let status = status.map_err(|refused| refused.why)?;
    if quiet.is_some() && quiet == lane.quiet() {
        reconcile(shared, lane, &status).await;
    }
    top_up_when_low(shared, lane);
    Ok(())
}

/// Tells the host about the channel, and learns its window.
pub(crate) async fn announce(shared: &Arc<Shared>, lane: &Arc<Lane>) -> Result<(), String> {
    let body = ChannelAnnouncement { address: lane.channel.to_string() };
    let body = serde_json::to_vec(&body).expect("plain data always encodes");
    let quiet = lane.quiet();
    let status = put(shared, lane, "v1/channels", body).await.map_err(|refused| refused.why)?;
    lane.window.store(status.window, Ordering::SeqCst);
    if quiet.is_some() && quiet == lane.quiet() {
        reconcile(shared, lane, &status).await;
    }
    Ok(())
}

/// In a quiet moment the host's count is final: what it charged beyond ours was lost on the way to us. More than one
/// window of that is not believed.
async fn reconcile(shared: &Shared, lane: &Lane, status: &AccountStatus) {
    if let Err(error) = shared.payer.reconcile(&lane.channel, status.owed, status.window).await {
        tracing::warn!(channel = %lane.channel, %error, "the host's count is not ours");
    }
}

struct Refused {
    status: u16,
    why: String,
}

async fn put(shared: &Shared, lane: &Lane, path: &str, body: Vec<u8>) -> Result<AccountStatus, Refused> {
    let unreachable = |why: String| Refused { status: 0, why };
    let asked = async {
        let url = format!("{}/{path}", lane.url());
        let sent = shared.http.put(url).body(body).send().await;
        let response = sent.map_err(|e| unreachable(e.to_string()))?;
        let status = response.status().as_u16();
        let reply = read(response, MAX_REPLY).await.map_err(unreachable)?;
        if status != 200 {
            let why = String::from_utf8_lossy(&reply).chars().take(300).collect();
            return Err(Refused { status, why });
        }
        serde_json::from_slice(&reply).map_err(|e| unreachable(e.to_string()))
    };
    let late = || unreachable(format!("no reply within {ACKNOWLEDGE:?}"));
    tokio::time::timeout(ACKNOWLEDGE, asked).await.map_err(|_| late())?
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

/// Adds a deposit, in the background, when a quarter of one is left.
pub(crate) fn top_up_when_low(shared: &Arc<Shared>, lane: &Arc<Lane>) {
    let Some(state) = shared.payer.state(&lane.channel) else { return };
    let left = state.deposit.saturating_sub(state.owed);
    if left > shared.options.money.worker_deposit / 4 || lane.topping_up.swap(true, Ordering::SeqCst) {
        return;
    }
    let (shared, lane) = (Arc::clone(shared), Arc::clone(lane));
    tokio::spawn(async move {
        if let Err(why) = top_up(&shared, &lane).await {
            tracing::warn!(channel = %lane.channel, %why, "the deposit to a worker is low and was not topped up");
        }
        lane.topping_up.store(false, Ordering::SeqCst);
    });
}

async fn top_up(shared: &Arc<Shared>, lane: &Arc<Lane>) -> Result<(), String> {
    let (wallet, amount) = (&shared.options.wallet, shared.options.money.worker_deposit);
    let state = cocoon_chain::top_up(wallet, &lane.channel, amount).await.map_err(|e| e.to_string())?;
    let entered = shared.payer.open_channel(&lane.channel, &state.terms, state.deposit()).await;
    entered.map_err(|e| e.to_string())?;
    announce(shared, lane).await
}
