//! The payee's side of the chain: which channels are taken, when vouchers are settled, what a payer who starts to
//! close is answered.
//!
//! | when | what is settled |
//! | --- | --- |
//! | a payer closes its channel | its voucher, before anything else, the nearest deadline first, if it brings more than it costs |
//! | a voucher is worth `settle_at`, many times the fee | it, in batches, the best first |
//! | the end of the process | every voucher, the same way, within a limit of time; of those that bring less than they cost one message's |
//!
//! A payer that closes cannot make its payee spend more on fees than it gains: neither with vouchers of a nanoton more, nor
//! with vouchers after the deadline, nor with a channel that refuses them.
//!
//! Where the chain is away, nothing of it is: vouchers are kept, streams go on within the window and the vouchers, and new work
//! stops on channels that were not looked at for a quarter of their challenge period. When it comes back, closes that
//! were known are answered before anything is looked at, closes that are found are answered as they are found.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cocoon_chain::{ChainError, Wallet};
use cocoon_contracts::{Address, Nanotons, channel::State};
use cocoon_protocol::http::ApiError;
use futures_util::StreamExt;
use tokio::time::Instant;

use crate::{
    StoreError,
    account::ChannelFacts,
    clock::unix_seconds,
    http::{ApiRefusal, ChannelReader, ReadChannel},
    outage::Outage,
    payee::{PayeeBook, Unsettled},
    settle::{self, SETTLEMENT_FEE},
};

/// How many channels are looked at on the chain at once.
const LOOKS_AT_ONCE: usize = 8;
/// How many are looked at before closes among them are answered.
const LOOKS_BETWEEN_ANSWERS: usize = 64;
/// How many channels without work are looked at in each round, to learn which of them are gone.
const IDLE_LOOKS: usize = 16;
/// The network's fee is sent to the treasury once so much of it waits in a channel that is settled, in nanotons: a hundred
/// times what that costs.
pub const COLLECT_AT: Nanotons = 100 * SETTLEMENT_FEE;
/// How far our clock may be ahead of the chain's where the chain is not asked for the time, in seconds.
const SKEW: u64 = 900;
/// A voucher that its channel refused is tried again after so long, and after twice as long each time.
const FIRST_PENANCE: Duration = Duration::from_secs(60);
const LONGEST_PENANCE: Duration = Duration::from_secs(3600);
/// How long the registry's fee and treasury are taken as read.
const RULES_AGE: Duration = Duration::from_secs(60);
/// A close that is not answered yet is tried again after this share of the time that is left, and not more often than
/// every [`SHORTEST_PAUSE`].
const SHARE_OF_THE_REST: u64 = 8;
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// What a payee asks of channels, and when it settles.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The registry that names the network's fee and treasury.
    pub registry: Address,
    /// The shortest challenge period that is taken: within it a last voucher must get onto the chain.
    pub min_challenge_seconds: u32,
    /// Settle by itself once a voucher is worth this many nanotons more than was paid. Many times
    /// [`SETTLEMENT_FEE`], and never taken as less than that.
    pub settle_at: Nanotons,
    /// How often active channels are looked at. A quarter of the shortest challenge period, or less.
    pub watch_every: Duration,
}

/// One voucher that was settled, or not.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The channel.
    pub channel: Address,
    /// What the voucher was worth, fee included, or why it was not settled.
    pub result: Result<Nanotons, ChainError>,
}

/// Watches over a payee's channels. Shared by an [`Arc`].
pub struct PayeeAgent {
    wallet: Arc<Wallet>,
    book: PayeeBook,
    options: AgentOptions,
    rules: Mutex<Option<(Instant, Rules)>>,
    /// Channels that refused their voucher: until when they are left alone, and how long that is.
    refused: Mutex<HashMap<String, (Instant, Duration)>>,
    /// Channels in which much of the network's fee waits.
    to_collect: Mutex<BTreeMap<String, Address>>,
    /// The chain's time as it was last heard, in Unix seconds.
    chain_time: AtomicU64,
    chain: Outage,
    store: Outage,
}

/// The network's share, by the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rules {
    fee_bps: u16,
    treasury: Address,
}

impl PayeeAgent {
    /// An agent that settles from `wallet`, the payee of the book's channels.
    pub fn new(wallet: Arc<Wallet>, book: PayeeBook, options: AgentOptions) -> Self {
        let (chain, store) = (Outage::new("the chain"), Outage::new("the account store"));
        let (rules, refused, to_collect) = Default::default();
        let chain_time = AtomicU64::new(0);
        Self { wallet, book, options, rules, refused, to_collect, chain_time, chain, store }
    }

    /// Settles every voucher that is worth anything: those of closing channels first, then the best, then what brings less
    /// than it costs, of that no more than one message carries. It takes no longer than `limit`; what is not settled then
    /// is kept, and settled when the book is opened again.
    pub async fn settle_all(&self, limit: Duration) -> Vec<Settlement> {
        let now = unix_seconds().saturating_sub(SKEW);
        let mut all = self.unsettled(|unsettled| !unsettled.is_late(now)).await;
        let (worthy, mut dust): (Vec<_>, Vec<_>) = all.drain(..).partition(pays);
        dust.truncate(self.wallet.version().max_transfers());
        self.settle(worthy.into_iter().chain(dust).collect(), limit).await
    }

    /// Whether it is to be settled now since its payer closes: it brings more than it costs, its deadline is not over, and
    /// its channel has not refused it just now.
    fn is_urgent(&self, unsettled: &Unsettled) -> bool {
        let late = unsettled.is_late(self.chain_time.load(Ordering::Relaxed));
        unsettled.closing && pays(unsettled) && !late && self.may_try(unsettled)
    }

    fn may_try(&self, unsettled: &Unsettled) -> bool {
        let refused = self.refused.lock().expect("no holder of this lock panics");
        refused.get(&unsettled.channel.to_string()).is_none_or(|(until, _)| *until <= Instant::now())
    }

    /// Leaves a channel alone for a while that refused its voucher: each attempt costs a fee.
    fn note_refusal(&self, channel: &Address, result: &Result<Nanotons, ChainError>) {
        let (key, mut refused) =
            (channel.to_string(), self.refused.lock().expect("no holder of this lock panics"));
        match result {
            Ok(_) => drop(refused.remove(&key)),
            Err(ChainError::ContractRefused { .. }) => {
                let last = refused.get(&key).map(|(_, penance)| *penance * 2);
                let penance = last.unwrap_or(FIRST_PENANCE).min(LONGEST_PENANCE);
                let now = Instant::now();
                refused.retain(|_, (until, _)| *until + LONGEST_PENANCE > now);
                refused.insert(key, (now + penance, penance));
            }
            Err(_) => {}
        }
    }

    async fn unsettled(&self, which: impl Fn(&Unsettled) -> bool) -> Vec<Unsettled> {
        match self.book.unsettled().await {
            Ok(mut all) => {
                self.store.answered();
                all.retain(which);
                all
            }
            Err(error) => {
                self.store.failed(&error);
                Vec::new()
            }
        }
    }

    /// Settles in the order given, a batch at a time.
    async fn settle(&self, all: Vec<Unsettled>, limit: Duration) -> Vec<Settlement> {
        if all.is_empty() {
            return Vec::new();
        }
        let deadline = Instant::now() + limit;
        // Siblings who share this account send from the same wallet.
        let turn = tokio::time::timeout_at(deadline, self.book.wallet_turn()).await;
        let turn =
            turn.unwrap_or_else(|_| Err(StoreError::Unreachable { why: "no turn to send".to_owned() }));
        let _turn = match turn {
            Ok(turn) => turn,
            Err(error) => {
                let why = error.to_string();
                let failed = |u: Unsettled| Settlement {
                    channel: u.channel,
                    result: Err(ChainError::Invalid { action: "settle now", why: why.clone() }),
                };
                return all.into_iter().map(failed).collect();
            }
        };
        let mut settled = Vec::new();
        for batch in all.chunks(self.wallet.version().max_transfers()) {
            let done = settle::settle_batch(&self.wallet, batch.to_vec());
            match tokio::time::timeout_at(deadline, done).await {
                Ok(fates) => {
                    for (unsettled, fate) in fates {
                        settled.push(self.note(unsettled, fate).await);
                    }
                }
                Err(_) => settled.extend(batch.iter().map(|unsettled| Settlement {
                    channel: unsettled.channel.clone(),
                    result: Err(settle::late(&unsettled.channel, limit)),
                })),
            }
        }
        settled
    }

    async fn note(&self, unsettled: Unsettled, fate: Result<State, ChainError>) -> Settlement {
        let Unsettled { channel, worth, .. } = unsettled;
        let result = match fate {
            Ok(state) => {
                let waiting = state.fee_waiting();
                if waiting >= COLLECT_AT {
                    self.to_collect
                        .lock()
                        .expect("no holder of this lock panics")
                        .insert(channel.to_string(), channel.clone());
                }
                // Not fatal when the disk refuses: the chain tells it again.
                if let Err(error) = self.book.settled(&channel, state.paid).await {
                    tracing::warn!(%error, %channel, "a settlement was not noted");
                }
                tracing::info!(%channel, nanotons = worth, "settled");
                Ok(worth)
            }
            Err(error) => {
                tracing::warn!(%error, %channel, nanotons = worth, "not settled; the voucher is kept");
                Err(error)
            }
        };
        self.note_refusal(&channel, &result);
        Settlement { channel, result }
    }

    /// Answers closes, looks at every active channel once, and settles what is worth it.
    pub async fn watch_once(&self) {
        match self.wallet.chain().head().await {
            Ok(head) => self.chain_time.store(head.time, Ordering::Relaxed),
            Err(error) => {
                self.chain.failed(&error);
                return;
            }
        }
        self.chain.answered();
        self.answer_closes(&HashSet::new()).await;
        // What a sibling has looked at just now need not be looked at again.
        let channels = match self.book.to_watch(self.options.watch_every / 2, IDLE_LOOKS).await {
            Ok(channels) => channels,
            Err(error) => {
                self.store.failed(&error);
                return;
            }
        };
        let mut answered = HashSet::new();
        for some in channels.chunks(LOOKS_BETWEEN_ANSWERS) {
            let looks = some.iter().cloned().map(|channel| self.look_at(channel));
            futures_util::stream::iter(looks).buffer_unordered(LOOKS_AT_ONCE).collect::<Vec<()>>().await;
            answered.extend(self.answer_closes(&answered).await);
        }
        let least = self.options.settle_at.max(SETTLEMENT_FEE);
        let is_due = |u: &Unsettled| !u.closing && u.worth >= least && self.may_try(u);
        let ordinary = self.unsettled(is_due).await;
        // A batch at a time, so that a close which is found meanwhile does not wait for all of them.
        self.settle(ordinary, self.options.watch_every.max(Duration::from_secs(120))).await;
        // Closes are not to wait for it either.
        drop(tokio::time::timeout(Duration::from_secs(60), self.collect()).await);
    }

    /// Sends the treasury what was seen to wait for it. What does not get through is seen again with the next settlement.
    async fn collect(&self) {
        let all = std::mem::take(&mut *self.to_collect.lock().expect("no holder of this lock panics"));
        if all.is_empty() {
            return;
        }
        let Ok(_turn) = self.book.wallet_turn().await else { return };
        for channel in all.into_values() {
            match cocoon_chain::collect(&self.wallet, &channel).await {
                Ok(_) => tracing::info!(%channel, "the network's fee was sent to the treasury"),
                Err(error) => tracing::warn!(%error, %channel, "the network's fee waits on"),
            }
        }
    }

    /// Settles on the channels that close, but for `tried` ones; returns which those were.
    async fn answer_closes(&self, tried: &HashSet<String>) -> Vec<String> {
        let urgent = |u: &Unsettled| self.is_urgent(u) && !tried.contains(&u.channel.to_string());
        let urgent = self.unsettled(urgent).await;
        let which = urgent.iter().map(|unsettled| unsettled.channel.to_string()).collect();
        self.settle(urgent, Duration::from_secs(120)).await;
        which
    }

    /// Notes what the chain says of a channel.
    async fn look_at(&self, channel: Address) {
        match cocoon_chain::read_channel(&**self.wallet.chain(), &channel).await {
            Ok(state) => {
                if let Err(error) = self.book.announce(facts(&channel, state)).await {
                    tracing::warn!(%error, "what the chain says was not noted");
                }
            }
            Err(error) => self.not_read(&channel, &error).await,
        }
    }

    /// A chain that is away is asked again; a contract that is gone takes no more work.
    async fn not_read(&self, channel: &Address, error: &ChainError) {
        if !matches!(error, ChainError::WrongAccount { .. }) {
            self.chain.failed(error);
            return;
        }
        tracing::warn!(%error, %channel, "a channel could not be looked at");
        if let Err(error) = self.book.gone(channel).await {
            tracing::warn!(%error, %channel, "that it is gone was not noted");
        }
    }

    /// How long until the next look: shorter while a close is not answered.
    async fn pause(&self) -> Duration {
        let (now, usual) = (unix_seconds(), self.options.watch_every);
        let closing = self.unsettled(|unsettled| self.is_urgent(unsettled)).await;
        let rest = closing.iter().filter_map(|unsettled| unsettled.deadline);
        let rest = rest.map(|deadline| u64::from(deadline).saturating_sub(now)).min();
        rest.map_or(usual, |rest| {
            Duration::from_secs(rest / SHARE_OF_THE_REST).max(SHORTEST_PAUSE).min(usual)
        })
    }

    /// Watches for ever.
    pub async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.pause().await).await;
            self.watch_once().await;
        }
    }

    /// [`PayeeAgent::watch`] in a task, until that is aborted.
    pub fn spawn(self: &Arc<Self>) -> tokio::task::JoinHandle<()> {
        tokio::spawn(Arc::clone(self).watch())
    }

    /// Reads a channel, and refuses one that would not pay us as the network's rules say.
    async fn check(&self, address: &Address) -> Result<ChannelFacts, ApiRefusal> {
        let state = cocoon_chain::read_channel(&**self.wallet.chain(), address).await?;
        let terms = &state.terms;
        let unfit = |why: String| ApiRefusal {
            status: axum::http::StatusCode::BAD_REQUEST,
            error: ApiError::invalid_request("unfit_channel", why),
        };
        if terms.payee != *self.wallet.address() {
            let ours = self.wallet.address();
            return Err(unfit(format!("the channel pays {}, not {ours}", terms.payee)));
        }
        if terms.challenge_seconds < self.options.min_challenge_seconds {
            let (found, least) = (terms.challenge_seconds, self.options.min_challenge_seconds);
            return Err(unfit(format!("a challenge period of {found} s is too short; at least {least} s")));
        }
        if self.book.terms(address).await?.is_some() {
            // It was taken under the rules of its day; a new fee counts for new channels.
            return Ok(facts(address, state));
        }
        let rules = self.rules().await?;
        if (terms.fee_bps, &terms.treasury) != (rules.fee_bps, &rules.treasury) {
            let Rules { fee_bps, treasury } = rules;
            return Err(unfit(format!("the registry's fee is {fee_bps} basis points to {treasury}")));
        }
        Ok(facts(address, state))
    }

    async fn rules(&self) -> Result<Rules, ApiRefusal> {
        if let Some((read, rules)) = &*self.rules.lock().expect("no holder of this lock panics")
            && read.elapsed() < RULES_AGE
        {
            return Ok(rules.clone());
        }
        let registry =
            cocoon_chain::read_registry(&**self.wallet.chain(), &self.options.registry).await?.content;
        let rules = Rules { fee_bps: registry.fee_bps, treasury: registry.treasury };
        let mut known = self.rules.lock().expect("no holder of this lock panics");
        *known = Some((Instant::now(), rules.clone()));
        Ok(rules)
    }
}

/// Whether settling brings more than it costs.
fn pays(unsettled: &Unsettled) -> bool {
    unsettled.net() > SETTLEMENT_FEE
}

impl ChannelReader for PayeeAgent {
    fn read(&self, address: Address) -> ReadChannel<'_> {
        Box::pin(async move { self.check(&address).await })
    }
}

fn facts(address: &Address, state: State) -> ChannelFacts {
    ChannelFacts {
        address: address.clone(),
        deposit: state.deposit(),
        paid: state.paid,
        closing: state.deadline.is_some(),
        deadline: state.deadline,
        terms: state.terms,
    }
}

impl From<ChainError> for ApiRefusal {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::WrongAccount { .. } => Self {
                status: axum::http::StatusCode::BAD_REQUEST,
                error: ApiError::invalid_request("unfit_channel", error.to_string()),
            },
            other => Self::unavailable("chain_unavailable", other.to_string()),
        }
    }
}
