//! Making one block: messages in, transactions and messages out.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use cocoon_contracts::{Address, Cell, Nanotons};
use tycho_executor::{Executor, ExecutorOutput, ExecutorParams, ParsedConfig, TxError};
use tycho_types::cell::{CellBuilder, CellFamily as _, HashBytes, Store as _};
use tycho_types::models::{
    ComputePhase, CurrencyCollection, IntAddr, IntMsgInfo, MsgInfo, OwnedMessage, ShardAccount, TxInfo,
};

use crate::LedgerError;
use crate::genesis::{debit, faucet_address, no_account};
use crate::parallel::in_parallel;
use crate::store::Totals;

/// Most transactions in one block; the rest waits for the next.
pub(crate) const MAX_BLOCK_TRANSACTIONS: usize = 4096;

/// A message from outside that waits for a block.
pub(crate) struct External {
    pub to: Address,
    pub message: Cell,
}

/// Logical times that each message of a block gets for its transaction and what that sends (255 messages at most): known
/// before it is carried out, so that accounts need not wait for each other.
const LT_OF_A_MESSAGE: u64 = 1000;
/// So many accounts at least are worth a thread's start.
const WORTH_A_THREAD: usize = 8;

/// The block that is being made. Nothing of the ledger changes until it is done and on disk.
///
/// It is made in rounds: all that waits is carried out, each account's messages in their order, and what they send waits
/// for the next round. In a round no account depends on another, so all processors share it; what comes of it is the same
/// for any number of them.
pub(crate) struct Draft<'a> {
    pub accounts: &'a BTreeMap<Address, ShardAccount>,
    pub config: &'a ParsedConfig,
    pub params: ExecutorParams,
    pub lt: u64,
    pub totals: Totals,
    pub queue: VecDeque<Cell>,
    pub changed: BTreeMap<Address, ShardAccount>,
    pub transactions: Vec<(Address, u64, Cell)>,
    /// Hashes of messages from outside, with the logical times of their transactions.
    pub externals: Vec<([u8; 32], u64)>,
}

/// A message in a round.
struct Delivery {
    to: Address,
    message: Cell,
    /// What is lost if it cannot be carried out. `None` when it came from outside.
    value: Option<u128>,
    lt: u64,
}

type Outcome = Result<ExecutorOutput, String>;

impl Draft<'_> {
    /// Carries out what is in the queue, then messages from outside, until nothing waits or the block is full. Returns how
    /// many of `externals` it took; one that is not accepted leaves no trace.
    pub(crate) fn fill(&mut self, externals: &VecDeque<External>) -> Result<usize, LedgerError> {
        let mut taken = 0;
        loop {
            let mut round = Vec::new();
            let room = MAX_BLOCK_TRANSACTIONS.saturating_sub(self.transactions.len());
            while round.len() < room
                && let Some(message) = self.queue.pop_front()
            {
                self.internal(message, &mut round)?;
            }
            while round.len() < room
                && let Some(External { to, message }) = externals.get(taken)
            {
                let lt = self.next_lt();
                round.push(Delivery { to: to.clone(), message: message.clone(), value: None, lt });
                taken += 1;
            }
            if round.is_empty() {
                return Ok(taken);
            }
            let outcomes = self.carry_out(&round);
            for (delivery, outcome) in round.into_iter().zip(outcomes) {
                self.apply(delivery, outcome);
            }
        }
    }

    /// Sends money out of the faucet's account, if there is as much.
    pub(crate) fn grant(&mut self, to: &Address, amount: Nanotons) -> Result<(), LedgerError> {
        let faucet = faucet_address();
        let Some(account) = debit(&self.account(&faucet), amount).map_err(broken)? else {
            tracing::warn!(%to, amount, "the faucet is empty");
            return Ok(());
        };
        self.changed.insert(faucet.clone(), account);
        let message = OwnedMessage {
            info: MsgInfo::Int(IntMsgInfo {
                src: faucet.into(),
                dst: to.clone().into(),
                value: CurrencyCollection::new(u128::from(amount)),
                created_lt: self.lt,
                created_at: self.params.block_unixtime,
                ..Default::default()
            }),
            init: None,
            body: Cell::default().into(),
            layout: None,
        };
        self.lt += 1;
        self.queue.push_back(CellBuilder::build_from(message).map_err(broken)?);
        Ok(())
    }

    /// Takes a message of the queue into the round, unless it goes to where nothing can be.
    fn internal(&mut self, message: Cell, round: &mut Vec<Delivery>) -> Result<(), LedgerError> {
        let Ok(MsgInfo::Int(info)) = message.parse::<MsgInfo>() else {
            return Err(broken("a message in the queue is not one between accounts"));
        };
        // The rest of the forward fee belongs to whoever delivers.
        self.totals.fees += info.fwd_fee.into_inner();
        let value = info.value.tokens.into_inner();
        if let IntAddr::Std(to) = info.dst {
            let lt = self.next_lt();
            round.push(Delivery { to, message, value: Some(value), lt });
        } else {
            self.totals.burned += value;
        }
        Ok(())
    }

    fn next_lt(&mut self) -> u64 {
        let lt = self.lt;
        self.lt += LT_OF_A_MESSAGE;
        lt
    }

    /// What comes of each message of a round, in the round's order.
    fn carry_out(&self, round: &[Delivery]) -> Vec<Outcome> {
        let mut of_account: BTreeMap<&Address, Vec<(usize, &Delivery)>> = BTreeMap::new();
        for (place, delivery) in round.iter().enumerate() {
            of_account.entry(&delivery.to).or_default().push((place, delivery));
        }
        let of_account: Vec<_> = of_account.into_values().collect();
        let mut outcomes = in_parallel(&of_account, WORTH_A_THREAD, |part| {
            part.iter().flat_map(|deliveries| self.carry_out_on_one(deliveries)).collect()
        });
        outcomes.sort_unstable_by_key(|(place, _)| *place);
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }

    /// The same of one account's messages, one after the other.
    fn carry_out_on_one(&self, deliveries: &[(usize, &Delivery)]) -> Vec<(usize, Outcome)> {
        let mut changed: Option<ShardAccount> = None;
        let each = |(place, delivery): &(usize, &Delivery)| {
            let account = changed.take().unwrap_or_else(|| self.account(&delivery.to));
            let outcome = self.run(delivery, &account);
            changed = Some(outcome.as_ref().map_or(account, |output| output.new_state.clone()));
            (*place, outcome)
        };
        deliveries.iter().map(each).collect()
    }

    fn run(&self, delivery: &Delivery, account: &ShardAccount) -> Outcome {
        let executor = Executor::new(&self.params, self.config).with_min_lt(delivery.lt);
        let Delivery { to, message, value, .. } = delivery;
        guarded(|| {
            executor
                .begin_ordinary(to, value.is_none(), message.clone(), account)
                .and_then(|transaction| transaction.commit().map_err(TxError::Fatal))
        })
    }

    fn apply(&mut self, delivery: Delivery, outcome: Outcome) {
        let Delivery { to, message, value, .. } = delivery;
        match (outcome, value) {
            (Ok(output), value) => {
                if value.is_none() {
                    let lt = output.new_state.last_trans_lt;
                    self.externals.push((message.repr_hash().0, lt));
                    self.externals.extend(normalised_hash(&message).map(|hash| (hash, lt)));
                }
                self.keep(to, output);
            }
            (Err(why), None) => tracing::debug!(%to, %why, "a message from outside was dropped"),
            (Err(why), Some(value)) => {
                tracing::error!(%to, %why, "a message between accounts could not be executed: its value is lost");
                self.totals.burned += value;
            }
        }
    }

    fn keep(&mut self, to: Address, output: ExecutorOutput) {
        self.totals.fees += output.transaction_meta.total_fees.into_inner();
        self.totals.burned += output.burned.into_inner();
        for message in &output.transaction_meta.out_msgs {
            let cell = message.inner().clone();
            // Messages to the outside (events) stay in the transaction.
            if let Ok(MsgInfo::Int(_)) = cell.parse::<MsgInfo>() {
                self.queue.push_back(cell);
            }
        }
        let lt = output.new_state.last_trans_lt;
        self.lt = self.lt.max(output.transaction_meta.next_lt);
        self.changed.insert(to.clone(), output.new_state);
        self.transactions.push((to, lt, output.transaction.into_inner()));
    }

    fn account(&self, address: &Address) -> ShardAccount {
        self.changed.get(address).or_else(|| self.accounts.get(address)).cloned().unwrap_or_else(no_account)
    }
}

/// Whether an account would accept a message from outside now.
pub(crate) fn check_external(
    params: &ExecutorParams,
    config: &ParsedConfig,
    account: &ShardAccount,
    lt: u64,
    external: &External,
) -> Result<(), String> {
    let executor = Executor::new(params, config).with_min_lt(lt);
    guarded(|| executor.check_ordinary(&external.to, external.message.clone(), account))
}

/// What a message from outside costs its account, in nanotons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fees {
    /// For taking the message in.
    pub import: u64,
    /// Rent until now.
    pub storage: u64,
    /// For the code that runs.
    pub gas: u64,
    /// For the messages that it sends, their delivery included.
    pub forward: u64,
}

impl Fees {
    /// Tries the message on the account.
    pub(crate) fn of(
        params: &ExecutorParams,
        config: &ParsedConfig,
        account: &ShardAccount,
        external: &External,
    ) -> Result<Self, String> {
        let executor = Executor::new(params, config).with_min_lt(params.block_lt);
        let output = guarded(|| {
            let message = external.message.clone();
            let transaction = executor.begin_ordinary(&external.to, true, message, account)?;
            transaction.commit().map_err(TxError::Fatal)
        })?;
        let info =
            output.transaction.load().and_then(|tx| tx.load_info()).map_err(|error| error.to_string())?;
        let TxInfo::Ordinary(info) = info else { return Err("it is no ordinary transaction".into()) };
        let storage = info.storage_phase.map_or(0, |phase| phase.storage_fees_collected.into_inner());
        let gas = match info.compute_phase {
            ComputePhase::Executed(phase) => phase.gas_fees.into_inner(),
            ComputePhase::Skipped(_) => 0,
        };
        let action = info.action_phase.as_ref();
        let taken = action.and_then(|phase| phase.total_action_fees).map_or(0, |fees| fees.into_inner());
        let forward = action.and_then(|phase| phase.total_fwd_fees).map_or(0, |fees| fees.into_inner());
        let total = output.transaction_meta.total_fees.into_inner();
        let import = total.saturating_sub(storage).saturating_sub(gas).saturating_sub(taken);
        let amount =
            |value: u128| u64::try_from(value).map_err(|_| "more than all the coins there are".to_owned());
        Ok(Self {
            import: amount(import)?,
            storage: amount(storage)?,
            gas: amount(gas)?,
            forward: amount(forward)?,
        })
    }
}

/// The hash of a message from outside without what relays may change: its state init and its layout, as TEP-467 defines
/// it. `None` when it is no such message.
pub fn normalised_hash(message: &Cell) -> Option<[u8; 32]> {
    let message = message.parse::<OwnedMessage>().ok()?;
    let MsgInfo::ExtIn(info) = message.info else { return None };
    let mut body = CellBuilder::new();
    body.store_slice(message.body.0.apply(&message.body.1).ok()?).ok()?;
    let mut normal = CellBuilder::new();
    normal.store_small_uint(0b10, 2).ok()?; // from outside
    normal.store_small_uint(0b00, 2).ok()?; // by nobody
    info.dst.store_into(&mut normal, Cell::empty_context()).ok()?;
    normal.store_small_uint(0, 4).ok()?; // no import fee
    normal.store_small_uint(0b01, 2).ok()?; // no state init, the body in a cell of its own
    normal.store_reference(body.build().ok()?).ok()?;
    Some(normal.build().ok()?.repr_hash().0)
}

/// The parameters of a block's transactions.
pub(crate) fn parameters(time: u32, lt: u64, seed: [u8; 32]) -> ExecutorParams {
    ExecutorParams {
        rand_seed: HashBytes(seed),
        block_unixtime: time,
        block_lt: lt,
        strict_extra_currency: true,
        charge_action_fees_on_fail: true,
        ..Default::default()
    }
}

/// The executor is other people's code on bytes from anywhere: should it panic, the message is refused.
fn guarded<T>(run: impl FnOnce() -> Result<T, TxError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(TxError::Skipped)) => Err("it was not accepted".into()),
        Ok(Err(TxError::Fatal(error))) => Err(format!("{error:#}")),
        Err(_) => Err("the executor panicked".into()),
    }
}

fn broken(why: impl std::fmt::Display) -> LedgerError {
    LedgerError::Execution { why: why.to_string() }
}
