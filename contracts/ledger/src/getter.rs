//! Get-methods.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cocoon_chain::StackItem;
use num_bigint::BigInt;
use tycho_executor::ParsedConfig;
use tycho_types::cell::{Cell, CellBuilder};
use tycho_types::models::{Account, AccountState, IntAddr};
use tycho_vm::{
    GasParams, OwnedCellSlice, RcStackValue, SafeRc, SmcInfoBase, Stack, Tuple, VmState, VmVersion,
};

/// How deep tuples in a result may nest.
const MAX_TUPLE_DEPTH: usize = 16;

/// What a get-method left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetterOutput {
    /// 0 or 1 for success.
    pub exit_code: i32,
    /// Gas used.
    pub gas: u64,
    /// The stack, first result first.
    pub stack: Vec<StackItem>,
}

/// Why a get-method could not be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GetterError {
    /// There is no code at the address.
    #[error("there is no contract at this address")]
    NoContract,
    /// Arguments or results that have no form outside the VM.
    #[error("a value of the stack cannot be carried: {0}")]
    Value(&'static str),
    /// The VM gave up.
    #[error("the VM could not run the method")]
    Vm,
}

/// Runs a get-method of an account's code.
pub(crate) fn run_getter(
    config: &ParsedConfig,
    account: &Account,
    now: u32,
    method: u32,
    arguments: &[StackItem],
) -> Result<GetterOutput, GetterError> {
    let AccountState::Active(state) = &account.state else { return Err(GetterError::NoContract) };
    let code = state.code.clone().ok_or(GetterError::NoContract)?;
    let data = state.data.clone().unwrap_or_default();
    let IntAddr::Std(address) = &account.address else { return Err(GetterError::NoContract) };
    let info = SmcInfoBase::new()
        .with_now(now)
        .with_block_lt(account.last_trans_lt)
        .with_tx_lt(account.last_trans_lt)
        .with_mixed_rand_seed(&Default::default(), &address.address)
        .with_account_balance(account.balance.clone())
        .with_account_addr(account.address.clone())
        .with_config(config.raw.params.clone())
        .require_ton_v4()
        .with_code(code.clone())
        .require_ton_v6()
        .with_unpacked_config(config.unpacked.as_tuple())
        .require_ton_v11();
    let mut items = arguments.iter().map(into_vm).collect::<Result<Vec<_>, _>>()?;
    items.push(RcStackValue::new_dyn_value(BigInt::from(method)));
    let run = || {
        let mut vm = VmState::builder()
            .with_smc_info(info)
            .with_version(VmVersion::LATEST_TON)
            .with_code(code)
            .with_data(data)
            .with_libraries(&state.libraries)
            .with_init_selector(false)
            .with_raw_stack(SafeRc::new(Stack { items }))
            .with_gas(GasParams::getter())
            .build();
        let exit_code = !vm.run();
        let stack = vm.stack.items.iter().map(|item| from_vm(item, 0)).collect::<Result<Vec<_>, _>>();
        (exit_code, vm.gas.consumed(), stack)
    };
    let (exit_code, gas, stack) = catch_unwind(AssertUnwindSafe(run)).map_err(|_| GetterError::Vm)?;
    Ok(GetterOutput { exit_code, gas, stack: stack? })
}

fn into_vm(item: &StackItem) -> Result<RcStackValue, GetterError> {
    Ok(match item {
        StackItem::Null => Stack::make_null(),
        StackItem::Int(value) => RcStackValue::new_dyn_value(value.clone()),
        StackItem::Cell(cell) => RcStackValue::new_dyn_value(cell.clone()),
        StackItem::Slice(cell) => RcStackValue::new_dyn_value(OwnedCellSlice::new_allow_exotic(cell.clone())),
        StackItem::Tuple(items) => {
            let items = items.iter().map(into_vm).collect::<Result<Tuple, _>>()?;
            RcStackValue::new_dyn_value(items)
        }
    })
}

fn from_vm(item: &RcStackValue, depth: usize) -> Result<StackItem, GetterError> {
    if depth > MAX_TUPLE_DEPTH {
        return Err(GetterError::Value("tuples are nested too deep"));
    }
    if item.is_null() {
        Ok(StackItem::Null)
    } else if let Some(value) = item.as_int() {
        Ok(StackItem::Int(value.clone()))
    } else if let Some(cell) = item.as_cell() {
        Ok(StackItem::Cell(cell.clone()))
    } else if let Some(slice) = item.as_cell_slice() {
        slice_cell(slice).map(StackItem::Slice)
    } else if let Some(items) = item.as_tuple() {
        items.iter().map(|item| from_vm(item, depth + 1)).collect::<Result<_, _>>().map(StackItem::Tuple)
    } else {
        Err(GetterError::Value("only integers, cells, slices, tuples and null can be"))
    }
}

fn slice_cell(slice: &OwnedCellSlice) -> Result<Cell, GetterError> {
    let refused = |_| GetterError::Value("a slice is not an ordinary cell's");
    let mut builder = CellBuilder::new();
    builder.store_slice(slice.apply()).map_err(refused)?;
    builder.build().map_err(refused)
}
