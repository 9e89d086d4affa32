//! The chain as members see it: the embedded ledger behind calls that are slow, lost, answered by an endpoint that is a
//! few blocks behind, or away for an hour.
//!
//! Blocks are made when somebody looks, for the times at which they were due.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use cocoon_chain::{AccountState, AccountStatus, Block, Chain, ChainError, StackItem, Transaction};
use cocoon_contracts::Address;
use cocoon_ledger::{Genesis, Ledger, SubmitError};
use futures_util::future::BoxFuture;
use tycho_types::models::AccountState as Kind;

use crate::{dice::Dice, plan::Plan, trace::Trace};

/// Between blocks without work.
const IDLE: Duration = Duration::from_secs(8);
/// How many blocks an endpoint may be behind.
const LAG: u32 = 6;

/// The ledger and everything it ever was.
pub(crate) struct Network {
    dice: Arc<Dice>,
    trace: Arc<Trace>,
    calm: Arc<AtomicBool>,
    plan: Arc<Plan>,
    start: u32,
    inside: Mutex<Inside>,
}

struct Inside {
    ledger: Ledger,
    blocks: Vec<Block>,
    accounts: BTreeMap<Address, Vec<(u32, AccountState)>>,
    /// When the newest block was made, and when the next one is due if there is work.
    made: Duration,
    due: Duration,
}

impl Network {
    pub(crate) fn new(
        dice: &Arc<Dice>,
        trace: &Arc<Trace>,
        calm: &Arc<AtomicBool>,
        plan: &Arc<Plan>,
        genesis: &Genesis,
    ) -> Self {
        let ledger = Ledger::in_memory(genesis).expect("a ledger begins");
        let accounts: Vec<Address> = ledger.accounts().map(|(address, _)| address.clone()).collect();
        let seqno = ledger.head().seqno;
        let accounts = accounts.into_iter().map(|it| {
            let state = state_of(&ledger, &it);
            (it, vec![(seqno, state)])
        });
        let (accounts, blocks) = (accounts.collect(), vec![block_of(&ledger)]);
        let inside = Inside { ledger, blocks, accounts, made: Duration::ZERO, due: Duration::ZERO };
        let (dice, trace) = (Arc::clone(dice), Arc::clone(trace));
        let (calm, plan) = (Arc::clone(calm), Arc::clone(plan));
        Self { dice, trace, calm, plan, start: genesis.time, inside: Mutex::new(inside) }
    }

    /// The ledger as of now, for the audit.
    pub(crate) fn with_ledger<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.now().ledger)
    }

    /// Everything that an account's data ever was.
    pub(crate) fn history(&self, address: &Address) -> Vec<AccountState> {
        let inside = self.now();
        let all = inside.accounts.get(address).into_iter().flatten();
        all.map(|(_, state)| state.clone()).collect()
    }

    /// The simulation's time at which the chain's clock shows `second`.
    pub(crate) fn time_of(&self, second: u32) -> Duration {
        let since = i64::from(second) - i64::from(self.start) - self.plan.chain_skew;
        Duration::from_secs(u64::try_from(since).unwrap_or(0))
    }

    /// Brings the chain up to the present.
    fn now(&self) -> MutexGuard<'_, Inside> {
        let now = self.trace.time();
        let mut inside = self.inside.lock().expect("nobody panics here");
        loop {
            let at = if inside.ledger.has_work() { inside.due } else { inside.made + IDLE };
            if at > now {
                return inside;
            }
            // Idle blocks that nobody saw need not have been.
            let at = if inside.ledger.has_work() { at } else { now };
            inside.make_block(at, self.second(at));
            inside.due = at + self.dice.millis(400, 3_500);
        }
    }

    fn second(&self, at: Duration) -> u32 {
        let seconds = i64::from(self.start) + self.plan.chain_skew + at.as_secs() as i64;
        u32::try_from(seconds).expect("before 2106")
    }

    fn submit(&self, message: &[u8]) -> Result<(), ChainError> {
        let now = self.trace.time();
        let mut inside = self.now();
        if !inside.ledger.has_work() {
            inside.due = inside.due.max(now + Duration::from_millis(200));
        }
        match inside.ledger.submit(message) {
            Ok(_) => Ok(()),
            Err(SubmitError::Busy) => Err(away("send", "busy")),
            Err(error) => Err(ChainError::Refused {
                url: "simulated".to_owned(),
                method: "send".to_owned(),
                code: 500,
                message: error.to_string(),
            }),
        }
    }
}

impl Inside {
    fn make_block(&mut self, at: Duration, second: u32) {
        let block = self.ledger.produce_block(second).expect("memory takes every block");
        let changed = self.ledger.block_transactions(&block, 0, usize::MAX).expect("memory has every block");
        for (address, _) in changed {
            let state = state_of(&self.ledger, &address);
            let history = self.accounts.entry(address).or_default();
            history.retain(|(seqno, _)| *seqno != block.seqno);
            history.push((block.seqno, state));
        }
        self.made = at;
        let block = block_of(&self.ledger);
        self.blocks.push(block);
    }

    fn account(&self, address: &Address, seqno: u32) -> AccountState {
        let history = self.accounts.get(address).into_iter().flatten();
        let newest = history.rev().find(|(since, _)| *since <= seqno);
        newest.map_or_else(nothing, |(_, state)| state.clone())
    }

    fn block(&self, seqno: u32) -> Option<Block> {
        self.blocks.iter().rev().find(|block| block.seqno == seqno).copied()
    }
}

fn block_of(ledger: &Ledger) -> Block {
    let head = ledger.head();
    Block { seqno: head.seqno, root_hash: head.root_hash, time: u64::from(head.time) }
}

fn nothing() -> AccountState {
    AccountState { balance: 0, status: AccountStatus::Uninit, code_hash: None, data: None, last_lt: 0 }
}

fn state_of(ledger: &Ledger, address: &Address) -> AccountState {
    let last_lt = ledger.shard_account(address).map_or(0, |account| account.last_trans_lt);
    let Some(account) = ledger.account(address) else { return AccountState { last_lt, ..nothing() } };
    let balance = ledger.balance(address);
    match account.state {
        Kind::Active(init) => AccountState {
            balance,
            status: AccountStatus::Active,
            code_hash: init.code.map(|code| code.repr_hash().0),
            data: init.data,
            last_lt,
        },
        Kind::Frozen(_) => AccountState { balance, status: AccountStatus::Frozen, last_lt, ..nothing() },
        Kind::Uninit => AccountState { balance, last_lt, ..nothing() },
    }
}

fn away(method: &str, why: &str) -> ChainError {
    ChainError::Unreachable { url: "simulated".to_owned(), method: method.to_owned(), why: why.to_owned() }
}

/// One member's way to the chain.
pub(crate) struct View {
    network: Arc<Network>,
    /// The newest head that was returned: nothing older is shown after it.
    seen: AtomicU32,
}

impl View {
    pub(crate) fn new(network: &Arc<Network>) -> Self {
        Self { network: Arc::clone(network), seen: AtomicU32::new(0) }
    }

    /// One call: late, lost on its way, or lost on its way back, when it has had its effect.
    async fn call<T>(
        &self,
        method: &'static str,
        act: impl FnOnce() -> Result<T, ChainError> + Send,
    ) -> Result<T, ChainError> {
        let Network { dice, trace, calm, plan, .. } = &*self.network;
        tokio::time::sleep(dice.millis(20, 400)).await;
        let loss = if calm.load(Ordering::Relaxed) { 0 } else { plan.chain_loss };
        let now = trace.time();
        if loss_of_all(calm, plan, now) || dice.chance(loss) {
            trace.count("chain call lost");
            tokio::time::sleep(dice.seconds(2, 8)).await;
            return Err(away(method, "timed out"));
        }
        let result = act();
        if dice.chance(loss) {
            trace.count("chain answer lost");
            tokio::time::sleep(dice.seconds(2, 8)).await;
            return Err(away(method, "no answer"));
        }
        tokio::time::sleep(dice.millis(20, 200)).await;
        result
    }

    /// The block as of which a call is answered: no older than the last head.
    fn seqno(&self, inside: &Inside) -> u32 {
        let Network { dice, trace, calm, plan, .. } = &*self.network;
        let newest = inside.ledger.head().seqno;
        if calm.load(Ordering::Relaxed) || !dice.chance(plan.stale) {
            return newest;
        }
        trace.count("stale read");
        let lag = u32::try_from(dice.between(0, u64::from(LAG))).expect("it is small");
        newest.saturating_sub(lag).max(self.seen.load(Ordering::Relaxed)).max(1)
    }
}

fn loss_of_all(calm: &AtomicBool, plan: &Plan, now: Duration) -> bool {
    !calm.load(Ordering::Relaxed) && plan.outages.iter().any(|(from, to)| (*from..*to).contains(&now))
}

impl Chain for View {
    fn network(&self) -> i32 {
        crate::world::NETWORK
    }

    fn head(&self) -> BoxFuture<'_, Result<Block, ChainError>> {
        Box::pin(self.call("head", || {
            let inside = self.network.now();
            let seqno = self.seqno(&inside);
            self.seen.fetch_max(seqno, Ordering::Relaxed);
            Ok(inside.block(seqno).expect("no block is forgotten"))
        }))
    }

    fn block(&self, seqno: u32) -> BoxFuture<'_, Result<Option<Block>, ChainError>> {
        Box::pin(self.call("block", move || Ok(self.network.now().block(seqno))))
    }

    fn account<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, Result<AccountState, ChainError>> {
        Box::pin(self.call("account", move || {
            let inside = self.network.now();
            Ok(inside.account(address, self.seqno(&inside)))
        }))
    }

    fn transactions<'a>(
        &'a self,
        address: &'a Address,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Transaction>, ChainError>> {
        Box::pin(self.call("transactions", move || {
            let inside = self.network.now();
            let last_lt = inside.account(address, self.seqno(&inside)).last_lt;
            let cells = inside.ledger.transactions(address, last_lt, limit).expect("memory has every one");
            cells.iter().map(|cell| Ok(Transaction::parse(cell)?)).collect()
        }))
    }

    fn run_get_method<'a>(
        &'a self,
        _address: &'a Address,
        _method: &'a str,
        _arguments: Vec<StackItem>,
    ) -> BoxFuture<'a, Result<Vec<StackItem>, ChainError>> {
        Box::pin(async { Err(away("run_get_method", "nobody decides by it")) })
    }

    fn send<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<(), ChainError>> {
        Box::pin(self.call("send", move || self.network.submit(message)))
    }
}
