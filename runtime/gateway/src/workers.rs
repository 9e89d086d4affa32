//! The workers that hosts registered: evidence checked, a channel open, alive within their lease.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use base64::Engine as _;
use bytes::Bytes;
use cocoon_accounts::{ApiRefusal, prices};
use cocoon_attestation::{
    Bundle, Context, Endorsements, Evidence, KnownBlock, Platform, Statement, TdxCache, Trusted, UnixTime,
    Verifier, shared_ids,
};
use cocoon_contracts::{Address, registry::Registry};
use cocoon_protocol::{
    Price,
    http::{ApiError, ModelEntry, RegisterWorker, WorkerEntry},
};
use tokio::sync::Semaphore;

use crate::{
    Shared, channels,
    lane::{self, Lane},
};

/// The longest worker id.
pub const MAX_WORKER_ID: usize = 64;
/// How many models of a worker are listed.
pub const MAX_LISTED_MODELS: usize = 16;
/// The longest URL of a host.
const MAX_URL: usize = 256;
/// How many registrations are verified at once.
const MAX_VERIFYING: usize = 4;
/// Probes that fail in a row before a worker is dropped.
const MAX_MISSED: u32 = 3;
/// The largest bundle that is read from a host, in bytes.
const MAX_BUNDLE: usize = 1024 * 1024;
/// How long a host may take to show its evidence when it registers.
const HOST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a worker may take to answer a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// One worker as it last registered.
pub(crate) struct Worker {
    pub(crate) id: String,
    pub(crate) operator: Address,
    /// What the host charges us, and what we charge clients.
    pub(crate) price: Price,
    pub(crate) listed: Price,
    pub(crate) bundle: Bytes,
    /// Signs the receipts of its answers.
    pub(crate) receipt_key: [u8; 32],
    models: Vec<ModelEntry>,
    /// What was proven about its machine.
    platform: Platform,
    registered: Instant,
    pub(crate) lane: Arc<Lane>,
}

impl Worker {
    fn entry(&self) -> WorkerEntry {
        WorkerEntry {
            id: self.id.clone(),
            models: self.models.clone(),
            price: self.listed,
            bundle_age_seconds: self.registered.elapsed().as_secs(),
        }
    }
}

/// The table of workers.
pub(crate) struct Workers {
    limit: usize,
    table: RwLock<HashMap<String, Arc<Worker>>>,
    verifying: Semaphore,
    /// What was verified of Intel's platforms before; workers register again and again.
    verified: TdxCache,
}

impl Workers {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            table: RwLock::default(),
            verifying: Semaphore::new(MAX_VERIFYING),
            verified: TdxCache::default(),
        }
    }

    pub(crate) fn find(&self, id: &str) -> Option<Arc<Worker>> {
        self.table.read().expect("no holder of this lock panics").get(id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Worker>> {
        self.table.read().expect("no holder of this lock panics").values().cloned().collect()
    }

    pub(crate) fn list(&self) -> Vec<WorkerEntry> {
        let mut entries: Vec<WorkerEntry> = self.all().iter().map(|worker| worker.entry()).collect();
        entries.sort_by(|a, b| a.id.cmp(&b.id));
        entries
    }

    pub(crate) fn clear(&self) {
        self.table.write().expect("no holder of this lock panics").clear();
    }

    /// Takes the worker off the list, unless it has registered anew since.
    pub(crate) fn drop_worker(&self, worker: &Arc<Worker>, why: &str) {
        let mut table = self.table.write().expect("no holder of this lock panics");
        if table.get(&worker.id).is_some_and(|listed| Arc::ptr_eq(listed, worker)) {
            tracing::warn!(worker = %worker.id, %why, "a worker is off the list");
            table.remove(&worker.id);
        }
    }

    /// One guest is one worker: no machine takes more than one channel's deposit.
    fn refuse_twin(&self, id: &str, receipt_key: &[u8; 32]) -> Result<(), ApiRefusal> {
        let table = self.table.read().expect("no holder of this lock panics");
        if !table.values().any(|worker| worker.id != id && worker.receipt_key == *receipt_key) {
            return Ok(());
        }
        let why = "this guest is registered under another id already";
        Err(ApiRefusal {
            status: StatusCode::CONFLICT,
            error: ApiError::invalid_request("worker_id_taken", why),
        })
    }

    /// Says which workers show the same machine or device: an operator may run several guests on one, and a client may want
    /// to know.
    fn flag_shared_machines(&self) {
        let workers = self.all();
        for (machine, at) in shared_ids(workers.iter().map(|worker| &worker.platform)) {
            let names: Vec<&str> = at.iter().map(|at| workers[*at].id.as_str()).collect();
            tracing::warn!(%machine, workers = ?names, "several workers show the same machine or device");
        }
    }

    fn full_for(&self, id: &str) -> bool {
        let table = self.table.read().expect("no holder of this lock panics");
        !table.contains_key(id) && table.len() >= self.limit
    }

    /// The second look at the limit is the one that counts: others may have registered meanwhile.
    fn enter(&self, worker: Worker) -> Result<(), ApiRefusal> {
        let mut table = self.table.write().expect("no holder of this lock panics");
        if !table.contains_key(&worker.id) && table.len() >= self.limit {
            return Err(full());
        }
        table.insert(worker.id.clone(), Arc::new(worker));
        Ok(())
    }
}

fn full() -> ApiRefusal {
    ApiRefusal::unavailable("full", "this gateway lists as many workers as it takes; try another")
}

/// Takes a registration: a new worker, or the new evidence of one that is here.
pub(crate) async fn register(
    shared: &Arc<Shared>,
    id: String,
    registration: RegisterWorker,
) -> Result<WorkerEntry, ApiRefusal> {
    let url = check_names(&id, &registration)?;
    let operator = cocoon_accounts::http::address(&registration.operator)?;
    let listed = with_margin(registration.price, shared.options.money.margin_bps)?;
    if shared.workers.full_for(&id) {
        return Err(full());
    }
    let known = shared.workers.find(&id);
    if let Some(known) = &known {
        refuse_taken(shared, known, &operator, &url).await?;
    }
    let bundle = base64::engine::general_purpose::STANDARD
        .decode(registration.bundle)
        .map_err(|e| ApiRefusal::malformed(format!("the bundle is not base64: {e}")))?;
    let bundle = Bytes::from(bundle);
    let registry =
        cocoon_chain::read_registry(&**shared.options.wallet.chain(), &shared.options.registry).await?;
    let trusted = check_evidence(shared, &registry, bundle.clone()).await?;
    let (statement, platform) = (trusted.statement().clone(), trusted.platform().clone());
    check_price(&registry, &statement, registration.price, listed)?;
    shared.workers.refuse_twin(&id, &statement.keys.receipt)?;
    check_host(shared, &url, &statement).await?;
    let channel = channels::to_worker(shared, &id, &operator).await?;
    let lane = match known.filter(|known| *known.lane.channel() == channel) {
        Some(known) => Arc::clone(&known.lane),
        None => Lane::start(shared, channel, url.clone()),
    };
    lane.move_to(url);
    lane.announce().await.map_err(|error| ApiRefusal {
        status: StatusCode::BAD_GATEWAY,
        error: ApiError::server("host_unreachable", format!("your host does not take our channel: {error}")),
    })?;
    settled(&lane).await?;
    let models = statement
        .models
        .iter()
        .take(MAX_LISTED_MODELS)
        .map(|model| ModelEntry { name: model.name.clone(), weights: hex::encode(model.weights) });
    let worker = Worker {
        id,
        operator,
        price: registration.price,
        listed,
        bundle,
        receipt_key: statement.keys.receipt,
        models: models.collect(),
        platform,
        registered: Instant::now(),
        lane,
    };
    let entry = worker.entry();
    shared.workers.enter(worker)?;
    shared.workers.flag_shared_machines();
    Ok(entry)
}

/// A host that works for us no more, since it counts more than we do, is not listed until the counts agree.
async fn settled(lane: &Lane) -> Result<(), ApiRefusal> {
    // Whatever else fails is said when there is an answer to be paid for.
    let compared = lane.reconcile().await;
    if lane.is_disputed() {
        tracing::warn!(channel = %lane.channel(), ?compared, "a host's count is not ours");
        let why = "your count of what this gateway owes is beyond its own by more than broken answers explain: it lists \
            this worker again when the counts agree, or on a channel to another worker id";
        let error = ApiError::invalid_request("counts_differ", why);
        return Err(ApiRefusal { status: StatusCode::CONFLICT, error });
    }
    Ok(())
}

/// The host's URL without its last slash.
fn check_names(id: &str, registration: &RegisterWorker) -> Result<String, ApiRefusal> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if id.is_empty() || id.len() > MAX_WORKER_ID || !id.chars().all(fits) {
        let why = format!("a worker's id is 1 to {MAX_WORKER_ID} of a-z, 0-9 and -");
        return Err(ApiRefusal::malformed(why));
    }
    let url = &registration.url;
    let bad = || {
        ApiRefusal::malformed(format!(
            "the url is not http(s)://host:port without a path, at most {MAX_URL} bytes"
        ))
    };
    if url.len() > MAX_URL {
        return Err(bad());
    }
    let parsed = reqwest::Url::parse(url).map_err(|_| bad())?;
    let alone = parsed.username().is_empty() && parsed.password().is_none();
    let plain = alone && parsed.query().is_none() && parsed.fragment().is_none() && parsed.path() == "/";
    if !matches!(parsed.scheme(), "http" | "https") || !parsed.has_host() || !plain {
        return Err(bad());
    }
    Ok(parsed.as_str().trim_end_matches('/').to_owned())
}

/// What clients are asked: the worker's price with our margin on its coefficient.
pub(crate) fn with_margin(price: Price, margin_bps: u32) -> Result<Price, ApiRefusal> {
    let coefficient = price.coefficient.with_margin(margin_bps);
    let coefficient = coefficient
        .ok_or_else(|| ApiRefusal::malformed("the price's coefficient is too high to be counted"))?;
    Ok(price.at(coefficient))
}

/// Nobody takes a worker's place while it lives: neither its id for another operator, nor its traffic to another host.
async fn refuse_taken(
    shared: &Shared,
    known: &Worker,
    operator: &Address,
    url: &str,
) -> Result<(), ApiRefusal> {
    if known.operator == *operator && known.lane.url() == url {
        return Ok(());
    }
    if !alive(shared, &known.lane).await {
        return Ok(());
    }
    let message = "a worker with this id is registered from elsewhere, and lives; choose another id";
    Err(ApiRefusal {
        status: StatusCode::CONFLICT,
        error: ApiError::invalid_request("worker_id_taken", message),
    })
}

fn refused(why: impl Into<String>) -> ApiRefusal {
    ApiRefusal {
        status: StatusCode::UNPROCESSABLE_ENTITY,
        error: ApiError::invalid_request("evidence_refused", why),
    }
}

/// Verifies and appraises the bundle before any money is locked for it: genuine hardware, and an image, a model, a
/// network and a beacon block that the registry's policy takes. The refusal names the check.
async fn check_evidence(
    shared: &Arc<Shared>,
    registry: &Registry,
    bytes: Bytes,
) -> Result<Trusted, ApiRefusal> {
    let Ok(_permit) = shared.workers.verifying.try_acquire() else {
        return Err(ApiRefusal::unavailable("busy", "too many registrations are being verified; try again"));
    };
    let named = Bundle::decode(&bytes).map_err(|e| refused(e.to_string()))?;
    let statement = Statement::decode(&named.statement).map_err(|e| refused(e.to_string()))?;
    let block = shared.options.wallet.chain().block(statement.freshness.beacon.seqno).await?;
    let beacon = block.map(|b| KnownBlock { seqno: b.seqno, root_hash: b.root_hash, time: UnixTime(b.time) });
    let max_age = shared.options.timing.bundle_age.as_secs();
    let policy = cocoon_reference::policy_from_registry(registry, shared.network, max_age);
    let verifier = Arc::clone(shared);
    let appraised = tokio::task::spawn_blocking(move || {
        let (options, now) = (&verifier.options, UnixTime(cocoon_accounts::unix_seconds()));
        let (evidence, none) = (Evidence::Bundle(named), Endorsements::none());
        let genuine = Verifier::new(&options.anchors, &options.exceptions, now)
            .with_cache(&verifier.workers.verified)
            .verify(&evidence, &none)?;
        policy.appraise(genuine, &Context { now, beacon, nonce: None })
    });
    let trusted = appraised.await.map_err(|e| refused(e.to_string()))?;
    trusted.map_err(|refusal| refused(format!("{}: {refusal}", refusal.check)))
}

/// A price that clients would refuse is refused here: the gateway would pay it and not be paid. It is the registry's own
/// list, at a coefficient within the registry's bounds, with our margin on it too.
fn check_price(
    registry: &Registry,
    statement: &Statement,
    price: Price,
    listed: Price,
) -> Result<(), ApiRefusal> {
    let wrong = |code: &str, why: String| {
        let error = ApiError::invalid_request(code, why);
        Err(ApiRefusal { status: StatusCode::UNPROCESSABLE_ENTITY, error })
    };
    for model in &statement.models {
        let list = prices::of_weights(registry, &model.weights)
            .ok_or_else(|| refused(format!("policy.model: the registry has no price for {}", model.name)))?;
        if !price.same_list(&list) {
            let why = format!("the registry's price for {} is {list}; yours is {price}", model.name);
            return wrong("price_not_the_registrys", why);
        }
    }
    let bounds = prices::coefficients(registry);
    if price.coefficient < *bounds.start() || listed.coefficient > *bounds.end() {
        let why = format!(
            "the registry allows coefficients from {} to {}; yours is {}, and {} with this gateway's margin",
            bounds.start(),
            bounds.end(),
            price.coefficient,
            listed.coefficient
        );
        return wrong("coefficient_out_of_bounds", why);
    }
    Ok(())
}

/// The host at the URL must serve evidence with the same receipt key: nobody registers what is not his. What else is
/// there is not told.
async fn check_host(shared: &Shared, url: &str, statement: &Statement) -> Result<(), ApiRefusal> {
    let asked = async {
        let response = shared.http.get(format!("{url}/v1/bundle")).send().await.ok()?;
        let bytes = lane::read(response, MAX_BUNDLE).await.ok()?;
        let bundle = Bundle::decode(&bytes).ok()?;
        Some(Statement::decode(&bundle.statement).ok()?.keys.receipt)
    };
    let served = tokio::time::timeout(HOST_TIMEOUT, asked).await.ok().flatten();
    if served == Some(statement.keys.receipt) {
        return Ok(());
    }
    let why =
        "the url does not serve this worker's evidence to us; it must be the host's, and reachable from here";
    Err(ApiRefusal { status: StatusCode::BAD_GATEWAY, error: ApiError::server("host_unreachable", why) })
}

async fn alive(shared: &Shared, lane: &Lane) -> bool {
    let asked = shared.http.get(format!("{}/v1/health", lane.url())).timeout(PROBE_TIMEOUT).send().await;
    asked.is_ok_and(|response| response.status().is_success())
}

/// Drops workers whose lease has run out or that do not answer, until aborted.
pub(crate) fn spawn_probes(shared: &Arc<Shared>) -> tokio::task::JoinHandle<()> {
    let weak = Arc::downgrade(shared);
    let every = shared.options.timing.probe_every;
    tokio::spawn(async move {
        let mut missed: HashMap<String, u32> = HashMap::new();
        loop {
            tokio::time::sleep(every).await;
            let Some(shared) = weak.upgrade() else { return };
            probe_all(&shared, &mut missed).await;
        }
    })
}

async fn probe_all(shared: &Arc<Shared>, missed: &mut HashMap<String, u32>) {
    let workers = shared.workers.all();
    missed.retain(|id, _| workers.iter().any(|worker| worker.id == *id));
    let probes = workers.into_iter().map(|worker| async {
        let alive = alive(shared, &worker.lane).await;
        (worker, alive)
    });
    for (worker, alive) in futures_util::future::join_all(probes).await {
        let count = missed.entry(worker.id.clone()).or_default();
        *count = if alive { 0 } else { *count + 1 };
        if *count >= MAX_MISSED {
            shared.workers.drop_worker(&worker, "it does not answer");
        } else if worker.registered.elapsed() > shared.options.timing.lease {
            shared.workers.drop_worker(&worker, "it did not renew its registration");
        }
    }
}
