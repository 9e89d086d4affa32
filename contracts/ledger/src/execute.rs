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
use crate::store::Totals;

/// Most transactions in one block; the rest waits for the next.
pub(crate) const MAX_BLOCK_TRANSACTIONS: usize = 4096;

/// A message from outside that waits for a block.
pub(crate) struct External {
    pub to: Address,
    pub message: Cell,
}

/// The block that is being made. Nothing of the ledger changes until it is done and on disk.
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

impl Draft<'_> {
    pub(crate) fn is_full(&self) -> bool {
        self.transactions.len() >= MAX_BLOCK_TRANSACTIONS
    }

    /// Carries out a message from outside and all that follows from it. One that is not accepted leaves no trace.
    pub(crate) fn external(&mut self, external: &External) -> Result<(), LedgerError> {
        match self.run(&external.to, true, external.message.clone()) {
            Ok(output) => {
                let lt = output.new_state.last_trans_lt;
                self.externals.push((external.message.repr_hash().0, lt));
                self.externals.extend(normalised_hash(&external.message).map(|hash| (hash, lt)));
                self.apply(&external.to, output)?;
            }
            Err(why) => tracing::debug!(to = %external.to, %why, "a message from outside was dropped"),
        }
        self.deliver()
    }

    /// Delivers messages between accounts, in the order in which they were sent.
    pub(crate) fn deliver(&mut self) -> Result<(), LedgerError> {
        while !self.is_full() {
            let Some(message) = self.queue.pop_front() else { break };
            self.internal(message)?;
        }
        Ok(())
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
        self.deliver()
    }

    fn internal(&mut self, message: Cell) -> Result<(), LedgerError> {
        let Ok(MsgInfo::Int(info)) = message.parse::<MsgInfo>() else {
            return Err(broken("a message in the queue is not one between accounts"));
        };
        // The rest of the forward fee belongs to whoever delivers.
        self.totals.fees += info.fwd_fee.into_inner();
        let IntAddr::Std(to) = info.dst else {
            self.totals.burned += info.value.tokens.into_inner();
            return Ok(());
        };
        match self.run(&to, false, message) {
            Ok(output) => self.apply(&to, output),
            Err(why) => {
                tracing::error!(%to, %why, "a message between accounts could not be executed: its value is lost");
                self.totals.burned += info.value.tokens.into_inner();
                Ok(())
            }
        }
    }

    fn run(&self, to: &Address, is_external: bool, message: Cell) -> Result<ExecutorOutput, String> {
        let account = self.account(to);
        let executor = Executor::new(&self.params, self.config).with_min_lt(self.lt);
        guarded(|| {
            executor
                .begin_ordinary(to, is_external, message, &account)
                .and_then(|transaction| transaction.commit().map_err(TxError::Fatal))
        })
    }

    fn apply(&mut self, to: &Address, output: ExecutorOutput) -> Result<(), LedgerError> {
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
        self.transactions.push((to.clone(), lt, output.transaction.into_inner()));
        Ok(())
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
