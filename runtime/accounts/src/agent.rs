//! The payee's side of the chain: which channels are taken, when vouchers are settled, what a payer who starts to
//! close is answered.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use cocoon_chain::{ChainError, Wallet};
use cocoon_contracts::{Address, Nanotons, channel::State};
use cocoon_protocol::http::ApiError;
use futures_util::StreamExt;

use crate::{
    http::{ApiRefusal, ChannelReader, ReadChannel},
    payee::{ChannelFacts, PayeeBook, Unsettled},
};

/// How many channels are looked at on the chain at once.
const LOOKS_AT_ONCE: usize = 8;
/// How long the registry's fee and treasury are taken as read.
const RULES_AGE: Duration = Duration::from_secs(60);

/// What a payee asks of channels, and when it settles.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The registry that names the network's fee and treasury.
    pub registry: Address,
    /// The shortest challenge period that is taken: within it a last voucher must get onto the chain.
    pub min_challenge_seconds: u32,
    /// Settle by itself once a voucher is worth this many nanotons more than was paid. Many times the fee of a
    /// settlement (about 800 000).
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
        Self { wallet, book, options, rules: Mutex::new(None) }
    }

    /// Settles every voucher that is worth anything, the best first.
    pub async fn settle_all(&self) -> Vec<Settlement> {
        self.settle_from(0).await
    }

    async fn settle_from(&self, least: Nanotons) -> Vec<Settlement> {
        let mut settled = Vec::new();
        for unsettled in self.book.unsettled().into_iter().filter(|u| u.worth > least) {
            settled.push(self.settle(unsettled).await);
        }
        settled
    }

    async fn settle(&self, unsettled: Unsettled) -> Settlement {
        let Unsettled { channel, voucher, worth } = unsettled;
        let terms = self.book.terms(&channel).expect("its voucher is in the book");
        let verified = voucher.verify_for(&terms).expect("the book holds verified vouchers only");
        let result = match cocoon_chain::settle(&self.wallet, &verified).await {
            Ok(state) => {
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
        Settlement { channel, result }
    }

    /// Looks at every active channel once: the voucher of one that its payer closes is settled at once, others when
    /// they are worth it.
    pub async fn watch_once(&self) {
        let looks = self.book.active().into_iter().map(|channel| self.look_at(channel));
        let closing: HashSet<String> = futures_util::stream::iter(looks)
            .buffer_unordered(LOOKS_AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await;
        for unsettled in self.book.unsettled() {
            let urgent = closing.contains(&unsettled.channel.to_string());
            if urgent || unsettled.worth >= self.options.settle_at {
                self.settle(unsettled).await;
            }
        }
    }

    /// Notes what the chain says of a channel; its address if it is being closed.
    async fn look_at(&self, channel: Address) -> Option<String> {
        match cocoon_chain::read_channel(&**self.wallet.chain(), &channel).await {
            Ok(state) => {
                let closing = state.deadline.is_some();
                if let Err(error) = self.book.announce(facts(&channel, state)).await {
                    tracing::warn!(%error, "what the chain says was not noted");
                }
                closing.then(|| channel.to_string())
            }
            Err(error) => {
                self.not_read(&channel, &error).await;
                None
            }
        }
    }

    /// A chain that is away is asked again; a contract that is gone takes no more work.
    async fn not_read(&self, channel: &Address, error: &ChainError) {
        tracing::warn!(%error, %channel, "a channel could not be looked at");
        if matches!(error, ChainError::WrongAccount { .. })
            && let Err(error) = self.book.gone(channel).await
        {
            tracing::warn!(%error, %channel, "that it is gone was not noted");
        }
    }

    /// Watches until the returned task is aborted.
    pub fn spawn(self: &Arc<Self>) -> tokio::task::JoinHandle<()> {
        let agent = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(agent.options.watch_every).await;
                agent.watch_once().await;
            }
        })
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
        if self.book.terms(address).is_some() {
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
