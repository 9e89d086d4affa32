//! One user of one gateway.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cocoon_accounts::{PayerBook, Store};
use cocoon_attestation::{PlatformId, TdxCache, TrustAnchors};
use cocoon_chain::{Chain, ChainError, Wallet, open_channel, read_channel};
use cocoon_contracts::channel::Terms;
use cocoon_contracts::{Address, Nanotons, SigningKey, parse_address};
use cocoon_protocol::http::{NetworkInfo, WorkerEntry};
use cocoon_protocol::{Budget, Endpoint, Prompt, RequestHeader, SealedRequest, Usage, seal};
use tokio::sync::OnceCell;

use crate::answering::{Answering, Sent};
use crate::channel::{ChannelOptions, OpenChannel, PAYER_OPTIONS, Payer};
use crate::deposit::Deposits;
use crate::peer::{Judge, Peer};
use crate::policy::{PolicySource, Rules, SeenVersion};
use crate::recount::{Tally, TokenCounter};
use crate::{ClientError, GatewayApi};

/// What a client is made of.
pub struct ClientOptions {
    /// Base URL of the gateway.
    pub gateway: String,
    /// The chain, read by the client itself.
    pub chain: Arc<dyn Chain>,
    /// Pays for opening and closing channels.
    pub wallet: Arc<Wallet>,
    /// Signs vouchers, so that the wallet can stay cold.
    pub session_key: SigningKey,
    /// The books: what was ever signed, and which version of the registry was seen.
    pub store: Store,
    /// Roots of hardware makers, and of a simulated platform if the user gave one.
    pub anchors: TrustAnchors,
    /// The registry contract: prices, the network's fee, and what is accepted unless the user says otherwise.
    pub registry: Address,
    /// What is accepted.
    pub policy: PolicySource,
    /// How a channel is opened where there is none.
    pub channel: ChannelOptions,
    /// Counts the tokens of answers again, if they are of the model that it counts for.
    pub counter: Option<Arc<dyn TokenCounter>>,
}

/// One user of one gateway. Shared by `Arc`; all methods may be called concurrently.
pub struct Client {
    options: ClientOptions,
    book: PayerBook,
    deposits: Arc<Deposits>,
    seen: SeenVersion,
    /// What was verified of Intel's platforms before; also remembers the newest collateral, so that none older counts.
    verified: TdxCache,
    /// Which worker showed which machine or device: two that show the same are said to.
    machines: std::sync::Mutex<HashMap<PlatformId, String>>,
    /// Workers that failed lately: looked at last.
    avoided: std::sync::Mutex<HashMap<String, Instant>>,
    gateway: GatewayApi,
    network: NetworkInfo,
    payer: OnceCell<(OpenChannel, Arc<Payer>, Tasks)>,
}

/// Ends the payer's tasks with the client: one pays in step, one closes what nobody needs.
struct Tasks(Vec<tokio::task::JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Client {
    /// Meets the gateway and checks that both are on one network.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], [`ClientError::WrongNetwork`], or nonsense from the gateway.
    pub async fn connect(options: ClientOptions) -> Result<Self, ClientError> {
        let key = SigningKey::from_seed(options.session_key.expose_seed());
        let gateway = GatewayApi::new(&options.gateway).with_key(key);
        let network = gateway.network().await?;
        let expected = options.chain.network();
        if network.network != expected {
            return Err(ClientError::WrongNetwork { expected, found: network.network });
        }
        let book = PayerBook::open(options.store.clone())?;
        let deposits = Deposits::new(Arc::clone(&options.wallet), book.clone(), &options.channel);
        let seen = SeenVersion::open(options.store.clone(), &options.registry);
        Ok(Self {
            options,
            book,
            deposits,
            seen,
            verified: TdxCache::default(),
            machines: std::sync::Mutex::default(),
            avoided: std::sync::Mutex::default(),
            gateway,
            network,
            payer: OnceCell::new(),
        })
    }

    /// What the gateway said of itself.
    pub fn network(&self) -> &NetworkInfo {
        &self.network
    }

    /// The gateway's API, for what needs no trust.
    pub fn gateway(&self) -> &GatewayApi {
        &self.gateway
    }

    /// The wallet that opens and closes channels.
    pub fn wallet(&self) -> &Wallet {
        &self.options.wallet
    }

    /// The workers that the gateway lists. Hints: nothing of it is verified.
    ///
    /// # Errors
    /// The gateway's.
    pub async fn workers(&self) -> Result<Vec<WorkerEntry>, ClientError> {
        self.gateway.workers().await
    }

    /// Finds a worker of a model (or of any, for `None`) whose evidence holds, by the registry as it stands now; the
    /// cheapest is tried first.
    ///
    /// # Errors
    /// [`ClientError::NoWorker`], [`ClientError::NoSuchModel`], or the reason why the first of them was not acceptable.
    pub async fn find(&self, model: Option<&str>) -> Result<Peer, ClientError> {
        let mut entries = self.workers().await?;
        let available = model_names(&entries);
        entries.retain(|entry| model.is_none_or(|name| entry.models.iter().any(|m| m.name == name)));
        entries.sort_by_key(|entry| (self.is_avoided(&entry.id), entry.price.bill(&COMPARED)));
        entries.truncate(MAX_JUDGED);
        let rules = self.rules().await?;
        let mut first = None;
        for entry in &entries {
            match self.judge(&rules, entry, model).await {
                Ok(peer) => return Ok(peer),
                // One worker that is gone, or lies, does not hide the others.
                Err(error) => {
                    tracing::warn!(worker = %entry.id, %error, "a worker was passed over");
                    first.get_or_insert(error);
                }
            }
        }
        let Some(model) = model.map(str::to_owned) else {
            return Err(first.unwrap_or(ClientError::NoWorker));
        };
        Err(first.unwrap_or(ClientError::NoSuchModel { model, available }))
    }

    /// Another worker that showed one of this worker's machines or devices before, if one did.
    fn remember_machine(&self, peer: &Peer) -> Option<String> {
        let mut machines = self.machines.lock().expect("no holder of this lock panics");
        let ids = &peer.trusted().platform().ids;
        let twin =
            ids.iter().find_map(|id| machines.get(id).filter(|worker| *worker != peer.worker()).cloned());
        if let Some(other) = &twin {
            tracing::warn!(worker = %peer.worker(), %other, "two workers show the same machine or device");
        }
        for id in ids {
            if machines.len() < MAX_MACHINES {
                machines.entry(id.clone()).or_insert_with(|| peer.worker().to_owned());
            }
        }
        twin
    }

    /// An answer of this worker failed: others are tried before it for a while. The cheapest may be a decoy.
    pub fn avoid(&self, peer: &Peer) {
        let mut avoided = self.avoided.lock().expect("no holder of this lock panics");
        avoided.retain(|_, since| since.elapsed() < AVOID);
        if avoided.len() < MAX_AVOIDED {
            avoided.insert(peer.worker.clone(), Instant::now());
        }
    }

    fn is_avoided(&self, worker: &str) -> bool {
        let avoided = self.avoided.lock().expect("no holder of this lock panics");
        avoided.get(worker).is_some_and(|since| since.elapsed() < AVOID)
    }

    async fn rules(&self) -> Result<Rules, ClientError> {
        let options = &self.options;
        Rules::read(options.chain.as_ref(), &options.registry, &self.seen, &options.policy).await
    }

    /// Verifies, appraises, and compares the price with the registry's.
    async fn judge(
        &self,
        rules: &Rules,
        entry: &WorkerEntry,
        model: Option<&str>,
    ) -> Result<Peer, ClientError> {
        let judge = Judge {
            chain: self.options.chain.as_ref(),
            anchors: &self.options.anchors,
            rules,
            verified: &self.verified,
        };
        let mut peer = judge.judge(&self.gateway, entry, model).await?;
        peer.twin = self.remember_machine(&peer);
        // The listing named the model; what the statement names is what counts.
        if let Some(name) = model.filter(|name| *name != peer.model()) {
            return Err(ClientError::NoSuchModel {
                model: name.to_owned(),
                available: peer.model().to_owned(),
            });
        }
        let asked = peer.price();
        match rules.ceiling(&peer.weights) {
            Some(most) if !asked.same_list(&most) || asked.coefficient > most.coefficient => {
                Err(ClientError::Overpriced { asked, most })
            }
            _ => Ok(peer),
        }
    }

    /// The channel to this gateway: the one of the book, or a new one, opened on chain.
    ///
    /// # Errors
    /// The chain's, the gateway's, or [`ClientError::PoorWallet`].
    pub async fn channel(&self) -> Result<&OpenChannel, ClientError> {
        Ok(&self.payer().await?.0)
    }

    /// For a client that ends: waits until channels without work were looked at ([`ChannelOptions::close_idle`]). A client of
    /// one question would be gone before it has closed any.
    pub async fn close_idle(&self) {
        if let Some((channel, ..)) = self.payer.get() {
            self.deposits.close_once(&channel.address).await;
        }
    }

    async fn payer(&self) -> Result<&(OpenChannel, Arc<Payer>, Tasks), ClientError> {
        self.payer
            .get_or_try_init(|| async {
                let channel = match self.known_channel().await? {
                    Some(channel) => channel,
                    None => self.open_channel().await?,
                };
                let key = SigningKey::from_seed(self.options.session_key.expose_seed());
                let payer = Arc::new(Payer::new(
                    self.book.clone(),
                    key,
                    channel.address.clone(),
                    self.gateway.clone(),
                    PAYER_OPTIONS,
                ));
                payer.announce().await?;
                let mut tasks = vec![payer.spawn()];
                tasks.extend(self.deposits.spawn_closing(channel.address.clone()));
                Ok((channel, payer, Tasks(tasks)))
            })
            .await
    }

    /// A channel of the book that still stands on chain, pays this gateway and is not being closed.
    async fn known_channel(&self) -> Result<Option<OpenChannel>, ClientError> {
        let payee = self.payee()?;
        let key = self.options.session_key.public();
        for address in self.book.channels() {
            let ours = self.book.terms(&address).is_some_and(|t| t.payee == payee && t.payer_key == key);
            if !ours {
                continue;
            }
            let state = match read_channel(self.options.chain.as_ref(), &address).await {
                Ok(state) => state,
                // It is gone, or was never opened. A chain that does not answer is no reason to open a second one.
                Err(ChainError::WrongAccount { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            if state.deadline.is_some() {
                continue;
            }
            let ours = self.book.open_channel(&address, &state.terms, state.deposit()).await?;
            if is_usable(state.deposit(), ours.owed) || self.deposits.may_grow(&ours) {
                return Ok(Some(OpenChannel { address, deposit: state.deposit(), fresh: false }));
            }
        }
        Ok(None)
    }

    async fn open_channel(&self) -> Result<OpenChannel, ClientError> {
        let options = &self.options;
        let rules = self.rules().await?;
        let nonce = random_u64();
        let terms = Terms {
            payer: options.wallet.address().clone(),
            payee: self.payee()?,
            payer_key: options.session_key.public(),
            network: self.network.network,
            nonce,
            challenge_seconds: options.channel.challenge_seconds,
            fee_bps: rules.fee_bps,
            treasury: rules.treasury,
        };
        let balance = options.wallet.balance().await?;
        let needed = options.channel.deposit + OPENING_COST;
        if balance < needed {
            let wallet = options.wallet.address().to_string();
            return Err(ClientError::PoorWallet {
                wallet,
                balance,
                deposit: options.channel.deposit,
                needed,
            });
        }
        let address = terms.address();
        // In the book before any coin moves: after a crash between here and there the channel is found again.
        self.book.open_channel(&address, &terms, 0).await?;
        // Whoever steals the session key gets no more than this, even if somebody tops up.
        let limit = options.channel.deposit;
        let state = open_channel(&options.wallet, &terms, options.channel.deposit, limit).await?;
        self.book.open_channel(&address, &terms, state.deposit()).await?;
        Ok(OpenChannel { address, deposit: state.deposit(), fresh: true })
    }

    fn payee(&self) -> Result<Address, ClientError> {
        parse_address(&self.network.payee)
            .map_err(|error| ClientError::Nonsense { what: "the network", why: error.to_string() })
    }

    /// Seals a question to a worker and sends it. The body is an OpenAI chat request; the budget is the most it may cost.
    ///
    /// # Errors
    /// [`ClientError`]: nothing is owed when this fails.
    pub async fn ask(&self, peer: &Peer, body: Prompt, budget: Budget) -> Result<Answering, ClientError> {
        self.ask_at(peer, Endpoint::ChatCompletions, body, budget).await
    }

    /// The same for a request to any endpoint of the OpenAI API.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn ask_at(
        &self,
        peer: &Peer,
        endpoint: Endpoint,
        body: Prompt,
        budget: Budget,
    ) -> Result<Answering, ClientError> {
        if !peer.is_fresh() {
            return Err(ClientError::Expired);
        }
        let (channel, payer, _) = self.payer().await?;
        payer.look().await?;
        self.deposits.provide(payer, peer.price.worst_case(&budget)).await?;
        let header = RequestHeader {
            network: self.network.network,
            request_id: random_id(),
            statement: peer.trusted.statement_digest(),
            model: peer.weights,
            budget,
            price: peer.price,
        };
        // Of the other endpoints a client does not know what becomes of their requests.
        let counts = |counter: &Arc<dyn TokenCounter>| {
            endpoint == Endpoint::ChatCompletions && counter.weights() == peer.weights
        };
        let counter = self.options.counter.clone().filter(counts);
        let tally = counter.map(|counter| Tally::new(counter, body.expose()));
        let at = Instant::now();
        let (sealed, opener) = seal(&peer.trusted, &header, endpoint, body)?;
        let sent = Sent { bytes: sealed.as_bytes().len(), at };
        let worst = peer.price.worst_case(&budget);
        let stream = payer.begin(worst).await?;
        let response = match self.answer(payer, &peer.worker, &channel.address, sealed, worst).await {
            Ok(response) => response,
            Err(error) => {
                // Refused is not begun. A connection that broke may have carried a request that was answered.
                if matches!(error, ClientError::Refused { .. }) {
                    stream.finish();
                }
                payer.note_difference();
                return Err(error);
            }
        };
        Ok(Answering::new(response, opener, Arc::clone(payer), stream, peer.price, tally, sent))
    }
}

impl Client {
    /// Sends a sealed request. Questions that are asked at once may not fit into the deposit together: one that is refused for
    /// that waits until it has grown, as far as the user allowed, or until the others are answered.
    async fn answer(
        &self,
        payer: &Arc<Payer>,
        worker: &str,
        channel: &Address,
        sealed: SealedRequest,
        worst: Nanotons,
    ) -> Result<reqwest::Response, ClientError> {
        let began = Instant::now();
        loop {
            let refused = match self.gateway.answer(worker, channel, sealed.clone()).await {
                Err(error) if error.wants_deposit() && began.elapsed() < ROOM => error,
                other => return other,
            };
            // Ours is among them.
            let (streams, committed) = payer.under_way();
            let grows = self.deposits.may_grow_for(&payer.state(), committed);
            if streams < 2 && !grows {
                return Err(refused);
            }
            tracing::debug!(streams, grows, "a question waits for room in the deposit");
            if grows {
                self.deposits.provide(payer, committed.max(worst)).await?;
            }
            tokio::time::sleep(ROOM_POLL).await;
        }
    }
}

/// How long a question waits for room in the deposit while others are under way, and how often it asks.
const ROOM: Duration = Duration::from_secs(30);
const ROOM_POLL: Duration = Duration::from_millis(250);
/// What the workers' prices are compared by: prices differ by class, and what will be asked is not known yet.
const COMPARED: Usage = Usage { prompt_tokens: 1_000_000, cached_tokens: 0, completion_tokens: 1_000_000 };
/// How long a worker that failed is looked at last.
const AVOID: Duration = Duration::from_secs(600);
/// Most machines and devices that are remembered with their workers.
const MAX_MACHINES: usize = 4096;
/// Most workers that are remembered as failed.
const MAX_AVOIDED: usize = 1024;
/// Most workers that are judged for one question.
const MAX_JUDGED: usize = 16;
/// Whether enough of a deposit is left to ask anything: a twentieth of it.
fn is_usable(deposit: Nanotons, owed: Nanotons) -> bool {
    deposit.saturating_sub(owed) > deposit / 20
}

/// Fees and the rent reserve of a new channel, with room: deploying, one settlement and a close.
const OPENING_COST: Nanotons = 100_000_000;

fn model_names(entries: &[WorkerEntry]) -> String {
    let mut names: Vec<&str> =
        entries.iter().flat_map(|e| e.models.iter().map(|m| m.name.as_str())).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn random_id() -> [u8; 16] {
    use ring::rand::SecureRandom;
    let mut id = [0; 16];
    ring::rand::SystemRandom::new().fill(&mut id).expect("the system's random generator works");
    id
}

fn random_u64() -> u64 {
    let id = random_id();
    u64::from_be_bytes(*id.first_chunk().expect("sixteen bytes hold eight"))
}
