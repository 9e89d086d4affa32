//! The chain behind liteservers.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use cocoon_chain::{AccountState, Block, Chain, ChainError, StackItem, Transaction};
use cocoon_contracts::Address;
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;
use ton_net_tl::lite::BlockIdExt;

use crate::fail::Fail;
use crate::peer::Peer;
use crate::proof::{self, ProofError, ProvenAccount, ProvenBlock};
use crate::settings::Settings;
use crate::wire::{self, MASTERCHAIN, WHOLE_SHARD};

/// How long a proven head is the newest block without asking again. Masterchain blocks take about as long.
const HEAD_REUSE: Duration = Duration::from_millis(400);
/// How often all servers are tried, and the wait before the second time (doubled before the third).
const ROUNDS: u32 = 3;
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
/// How long a server that failed is asked after the others.
const QUARANTINE: Duration = Duration::from_secs(30);
/// Most answers that one walk takes; a walk that is longer goes on with the next call.
const MAX_STEPS: u32 = 4096;
/// Key blocks that are kept to start from, and proven blocks that are kept at all. Beacons are minutes old at most.
const MAX_KEY_BLOCKS: usize = 64;
const MAX_BLOCKS: usize = 512;
/// Transactions in one answer; servers give no more.
const PAGE: u32 = 16;
/// How many servers a message is handed to.
const MAX_SENDS: usize = 8;

/// How old a key block must be to be handed out as a start: blocks from before the start cannot be proven, and a worker's
/// beacon is minutes old.
const START_AGE: u64 = 3600;

/// Told where to start next time.
type Remember = Box<dyn Fn(crate::KeyBlock) + Send + Sync>;

/// Unix time in seconds, against which the newest block's age is measured.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// A view of one TON network through liteservers, all of it proven from the pinned key block.
///
/// Time goes forward only: after a block was returned as the head, no older one is, whatever server answers.
pub struct Liteservers {
    peers: Vec<Arc<Peer>>,
    ails_until: Mutex<Vec<Option<Instant>>>,
    settings: Settings,
    clock: Clock,
    network: i32,
    trail: Mutex<Trail>,
    /// Who wants to know where to start next time, and the number of the last block that was told.
    remember: Option<Remember>,
    remembered: AtomicU32,
    /// Held while walking to a new head: callers that come meanwhile share what it finds.
    walking: tokio::sync::Mutex<()>,
}

/// What was proven so far.
#[derive(Default)]
struct Trail {
    key_blocks: BTreeMap<u32, ProvenBlock>,
    blocks: BTreeMap<u32, Block>,
    head: Option<(ProvenBlock, Instant)>,
}

impl Trail {
    fn keep(&mut self, block: &ProvenBlock) {
        self.blocks.insert(block.seqno(), block.block());
        if block.is_key_block() {
            self.key_blocks.insert(block.seqno(), block.clone());
        }
        while self.blocks.len() > MAX_BLOCKS {
            self.blocks.pop_first();
        }
        while self.key_blocks.len() > MAX_KEY_BLOCKS {
            self.key_blocks.pop_first();
        }
    }

    fn key_block_until(&self, seqno: u32) -> Option<ProvenBlock> {
        self.key_blocks.range(..=seqno).next_back().map(|(_, block)| block.clone())
    }
}

impl Liteservers {
    /// Meets the servers: one must prove the header of the pinned key block. The walk from there to the newest block
    /// begins with the first call that needs it, and goes on with the next when it takes longer than a call may.
    ///
    /// # Errors
    /// No server answers, or the pinned block is no key block of the network.
    pub async fn connect(settings: Settings) -> Result<Self, ChainError> {
        let clock =
            || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Self::connect_with_clock(settings, Arc::new(clock)).await
    }

    /// As [`Liteservers::connect`], with a clock of the caller's.
    pub async fn connect_with_clock(settings: Settings, clock: Clock) -> Result<Self, ChainError> {
        let unusable = |what: &str, why: &str| ChainError::Settings { what: what.into(), why: why.into() };
        if settings.servers.is_empty() {
            return Err(unusable("the list of liteservers", "it is empty"));
        }
        let peers: Vec<_> =
            settings.servers.iter().map(|server| Arc::new(Peer::new(server.clone()))).collect();
        let ails_until = Mutex::new(vec![None; peers.len()]);
        let (trail, walking) = (Mutex::default(), tokio::sync::Mutex::default());
        let remembered = AtomicU32::new(settings.key_block.seqno);
        let (network, remember) = (0, None);
        let mut this =
            Self { peers, ails_until, settings, clock, network, trail, remember, remembered, walking };
        let pinned = this.pinned().await?;
        if !pinned.is_key_block() {
            return Err(unusable(
                "the pinned key block",
                "it is a block, but no key block: it names no validators",
            ));
        }
        this.network = pinned.network();
        this.trail().keep(&pinned);
        Ok(this)
    }

    /// The newest key block that was proven: what to pin next time, so that the walk is short.
    pub fn newest_key_block(&self) -> crate::KeyBlock {
        self.trail()
            .key_blocks
            .last_key_value()
            .map_or_else(|| self.settings.key_block.clone(), |(_, block)| block.pin())
    }

    /// Calls `remember`, briefly and in order, with each key block that is a better start for the next time than those
    /// before: proven, newer than the pinned one, and an hour old, so that what is proven from it reaches back as far.
    #[must_use]
    pub fn remembering(mut self, remember: impl Fn(crate::KeyBlock) + Send + Sync + 'static) -> Self {
        self.remember = Some(Box::new(remember));
        self
    }

    fn note_start(&self) {
        let Some(remember) = &self.remember else { return };
        let until = (self.clock)().saturating_sub(START_AGE);
        let trail = self.trail();
        let start = trail.key_blocks.values().rev().find(|block| block.block().time <= until);
        if let Some(pin) = start.map(ProvenBlock::pin)
            && self.remembered.fetch_max(pin.seqno, Ordering::Relaxed) < pin.seqno
        {
            remember(pin);
        }
    }

    fn trail(&self) -> MutexGuard<'_, Trail> {
        self.trail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pinned(&self) -> Result<ProvenBlock, ChainError> {
        let id = self.settings.key_block.id();
        let query = wire::lookup_block(self.settings.key_block.seqno);
        self.each("lookupBlock", |peer, deadline| {
            let (id, query) = (&id, &query);
            async move {
                let answer = peer.ask(query, deadline).await?;
                Ok(proof::header(id, &wire::read_block_header(&answer)?.header_proof)?)
            }
        })
        .await
    }

    /// The newest block: proven a moment ago, or now.
    async fn newest(&self) -> Result<ProvenBlock, ChainError> {
        let recent =
            || self.trail().head.clone().filter(|(_, at)| at.elapsed() < HEAD_REUSE).map(|(block, _)| block);
        if let Some(head) = recent() {
            return Ok(head);
        }
        let _one_walks = self.walking.lock().await;
        if let Some(head) = recent() {
            return Ok(head);
        }
        self.each("getMasterchainInfo", |peer, deadline| self.walk(peer, deadline)).await
    }

    async fn walk(&self, peer: Arc<Peer>, deadline: Instant) -> Result<ProvenBlock, Fail> {
        let answer = peer.ask(&wire::masterchain_info(), deadline).await?;
        let target = wire::read_masterchain_info(&answer)?;
        let known = self.trail().head.clone().map(|(block, _)| block);
        let behind = known.as_ref().map_or(0, ProvenBlock::seqno);
        if target.seqno.cast_unsigned() < behind {
            return Err(Fail::Away(format!(
                "it is at block {}, after block {behind} was seen",
                target.seqno
            )));
        }
        let head = match known {
            Some(head) if *head.id() == target => head,
            _ => self.reach(&peer, &target, deadline).await?,
        };
        let age_seconds = (self.clock)().saturating_sub(head.block().time);
        if age_seconds > self.settings.max_head_age.as_secs() {
            return Err(Fail::Stale(age_seconds));
        }
        self.trail().head = Some((head.clone(), Instant::now()));
        Ok(head)
    }

    /// Proves a block that a server named, from the newest key block before it.
    async fn reach(&self, peer: &Peer, target: &BlockIdExt, deadline: Instant) -> Result<ProvenBlock, Fail> {
        let seqno = target.seqno.cast_unsigned();
        if target.workchain != MASTERCHAIN || target.shard != WHOLE_SHARD {
            return Err(Fail::Malformed("the block is not of the masterchain".into()));
        }
        let other = |found: u32| Fail::Unproven(ProofError::OtherBlock { expected: seqno, found });
        let mut from = self.trail().key_block_until(seqno).ok_or_else(|| other(0))?;
        if from.seqno() == seqno {
            return if from.id() == target { Ok(from) } else { Err(other(seqno)) };
        }
        for _ in 0..MAX_STEPS {
            let query = wire::block_proof(from.id(), target);
            let answer = peer.ask(&query, deadline).await?;
            let answer = wire::read_block_proof(&answer)?;
            let complete = answer.complete;
            // Hundreds of signatures: not on a thread that others wait for.
            let blocks = tokio::task::spawn_blocking(move || proof::chain(&from, &answer))
                .await
                .map_err(|error| Fail::Away(error.to_string()))??;
            blocks.iter().for_each(|block| self.trail().keep(block));
            self.note_start();
            let last = blocks.into_iter().next_back().ok_or_else(|| other(0))?;
            if last.id() == target {
                return Ok(last);
            }
            if complete || !last.is_key_block() || last.seqno() >= seqno {
                return Err(other(last.seqno()));
            }
            tracing::debug!(key_block = last.seqno(), target = seqno, "walking the key blocks");
            from = last;
        }
        Err(Fail::Away(format!("the walk to block {seqno} goes on with the next call")))
    }

    async fn block_or_none(&self, seqno: u32) -> Result<Option<Block>, ChainError> {
        if self.newest().await?.seqno() < seqno {
            return Ok(None);
        }
        if let Some(block) = self.trail().blocks.get(&seqno) {
            return Ok(Some(*block));
        }
        if self.trail().key_block_until(seqno).is_none() {
            return Err(ChainError::Unsupported {
                backend: "the liteserver client",
                action: "prove a block from before the pinned key block",
                instead: "pin an older one",
            });
        }
        let query = wire::lookup_block(seqno);
        self.each("lookupBlock", |peer, deadline| {
            let query = &query;
            async move {
                let answer = peer.ask(query, deadline).await?;
                let named = wire::read_block_header(&answer)?.id;
                if named.seqno.cast_unsigned() != seqno {
                    let found = named.seqno.cast_unsigned();
                    return Err(Fail::Unproven(ProofError::OtherBlock { expected: seqno, found }));
                }
                Ok(Some(self.reach(&peer, &named, deadline).await?.block()))
            }
        })
        .await
    }

    async fn proven_account(&self, address: &Address) -> Result<ProvenAccount, ChainError> {
        let head = self.newest().await?;
        let query = wire::account_state(head.id(), address);
        self.each("getAccountState", |peer, deadline| {
            let (head, query) = (&head, &query);
            async move {
                let answer = peer.ask(query, deadline).await?;
                Ok(proof::account(head, address, &wire::read_account_state(&answer)?)?)
            }
        })
        .await
    }

    async fn newest_transactions(
        &self,
        address: &Address,
        limit: usize,
    ) -> Result<Vec<Transaction>, ChainError> {
        let limit = limit.min(100);
        let account = self.proven_account(address).await?;
        let (lt, hash) = account.last_transaction();
        let (mut next, mut list) = (Some((lt, *hash)).filter(|(lt, _)| *lt != 0), Vec::new());
        while let Some((lt, hash)) = next.filter(|_| list.len() < limit) {
            let left = limit - list.len();
            let query = wire::transactions(PAGE.min(u32::try_from(left).unwrap_or(PAGE)), address, lt, &hash);
            let page = self
                .each("getTransactions", |peer, deadline| {
                    let query = &query;
                    async move {
                        let answer = peer.ask(query, deadline).await?;
                        let bag = wire::read_transactions(&answer)?;
                        Ok(proof::transactions(address, (lt, &hash), &bag, left)?)
                    }
                })
                .await?;
            list.extend(page.list);
            next = page.before;
        }
        Ok(list)
    }

    /// Hands a message to several servers at once and returns with the first that takes it; the others are not waited
    /// for. A lost answer beside refusals leaves open whether it was taken, and is no refusal: see [`Chain::send`].
    async fn hand_in(&self, message: &[u8]) -> Result<(), ChainError> {
        const METHOD: &str = "sendMessage";
        let deadline = Instant::now() + self.settings.deadline;
        let query: Arc<[u8]> = wire::send_message(message).into();
        let mut sends: FuturesUnordered<_> = self
            .in_order()
            .into_iter()
            .take(MAX_SENDS)
            .map(|at| {
                let (peer, query) = (Arc::clone(&self.peers[at]), Arc::clone(&query));
                tokio::spawn(async move { (at, peer.ask(&query, deadline).await) })
            })
            .collect();
        let mut failures = Vec::new();
        while let Some(done) = sends.next().await {
            let Ok((at, answer)) = done else { continue };
            let status = answer.and_then(|answer| Ok(wire::read_send_status(&answer)?));
            let fail = match status {
                Ok(1) => return Ok(()),
                Ok(status) => Fail::Refused(0, format!("status {status}")),
                Err(fail) => fail,
            };
            self.note(at);
            failures.push((at, fail));
        }
        let refused = failures.iter().any(|(_, fail)| matches!(fail, Fail::Refused(..)));
        let in_doubt = failures.iter().any(|(_, fail)| matches!(fail, Fail::Silent(_) | Fail::Malformed(_)));
        match failures.into_iter().max_by_key(|(_, fail)| fail.rank()) {
            Some(_) if refused && in_doubt => Ok(()),
            Some((at, fail)) => Err(fail.explain(&self.peers[at], METHOD)),
            None => Err(Fail::Away("no server could be asked".into()).explain(&self.peers[0], METHOD)),
        }
    }

    /// Asks the servers, the healthy ones first, until one answers with proof or the deadline has come.
    async fn each<T, F>(
        &self,
        method: &'static str,
        attempt: impl Fn(Arc<Peer>, Instant) -> F,
    ) -> Result<T, ChainError>
    where
        F: Future<Output = Result<T, Fail>>,
    {
        let deadline = Instant::now() + self.settings.deadline;
        let mut backoff = FIRST_BACKOFF;
        let mut worst: Option<(Fail, usize)> = None;
        for round in 1..=ROUNDS {
            for at in self.in_order() {
                match attempt(Arc::clone(&self.peers[at]), deadline).await {
                    Ok(value) => return Ok(value),
                    Err(fail) => {
                        tracing::debug!(server = %self.peers[at].name(), ?fail, method, "a liteserver failed");
                        self.note(at);
                        if worst.as_ref().is_none_or(|(known, _)| known.rank() < fail.rank()) {
                            worst = Some((fail, at));
                        }
                    }
                }
            }
            let until = Instant::now() + backoff;
            if round == ROUNDS || until >= deadline {
                break;
            }
            tokio::time::sleep_until(until).await;
            backoff *= 2;
        }
        let (fail, at) = worst.expect("there is a server, and it was asked");
        Err(fail.explain(&self.peers[at], method))
    }

    fn in_order(&self) -> Vec<usize> {
        let now = Instant::now();
        let ails = self.ails_until.lock().unwrap_or_else(PoisonError::into_inner);
        let mut order: Vec<_> = (0..self.peers.len()).collect();
        order.sort_by_key(|at| ails[*at].filter(|until| *until > now));
        order
    }

    fn note(&self, at: usize) {
        let mut ails = self.ails_until.lock().unwrap_or_else(PoisonError::into_inner);
        ails[at] = Some(Instant::now() + QUARANTINE);
    }
}

impl Chain for Liteservers {
    fn network(&self) -> i32 {
        self.network
    }

    fn head(&self) -> BoxFuture<'_, Result<Block, ChainError>> {
        async { Ok(self.newest().await?.block()) }.boxed()
    }

    fn block(&self, seqno: u32) -> BoxFuture<'_, Result<Option<Block>, ChainError>> {
        self.block_or_none(seqno).boxed()
    }

    fn account<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, Result<AccountState, ChainError>> {
        async move { Ok(self.proven_account(address).await?.into_state()) }.boxed()
    }

    fn transactions<'a>(
        &'a self,
        address: &'a Address,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Transaction>, ChainError>> {
        self.newest_transactions(address, limit).boxed()
    }

    /// A liteserver's result of a get-method carries no proof of itself.
    fn run_get_method<'a>(
        &'a self,
        _address: &'a Address,
        _method: &'a str,
        _arguments: Vec<StackItem>,
    ) -> BoxFuture<'a, Result<Vec<StackItem>, ChainError>> {
        let error = ChainError::Unsupported {
            backend: "the liteserver client",
            action: "run a get-method, whose result no server proves",
            instead: "read the account's data, or use a toncenter endpoint for what is only shown",
        };
        async { Err(error) }.boxed()
    }

    fn send<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<(), ChainError>> {
        self.hand_in(message).boxed()
    }
}
