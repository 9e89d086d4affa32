//! A transaction as it was, phase by phase.

use cocoon_contracts::{Address, Cell, Nanotons};
use tycho_types::models::{ComputePhase, ComputePhaseSkipReason, IntAddr, MsgInfo, Transaction, TxInfo};

/// A message that left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Out {
    pub(crate) to: Address,
    pub(crate) value: Nanotons,
    pub(crate) bounced: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ran {
    Exit(i32),
    NoState,
    NoGas,
}

/// One transaction.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) from: Option<Address>,
    pub(crate) value: Nanotons,
    pub(crate) bounced: bool,
    pub(crate) rent: Nanotons,
    pub(crate) ran: Ran,
    pub(crate) gas_fees: Nanotons,
    /// Its code ran and all its actions were carried out.
    pub(crate) passed: bool,
    pub(crate) outs: Vec<Out>,
}

fn nanotons(value: u128) -> Nanotons {
    Nanotons::try_from(value).unwrap()
}

fn std_address(address: IntAddr) -> Address {
    match address {
        IntAddr::Std(address) => address,
        IntAddr::Var(_) => panic!("only standard addresses are used"),
    }
}

impl Record {
    pub(crate) fn parse(cell: &Cell) -> Self {
        let tx = cell.parse::<Transaction>().unwrap();
        let TxInfo::Ordinary(info) = tx.load_info().unwrap() else { panic!("an ordinary transaction") };
        let (mut from, mut value, mut bounced) = (None, 0, false);
        if let MsgInfo::Int(message) = tx.load_in_msg().unwrap().unwrap().info {
            (value, bounced) = (nanotons(message.value.tokens.into_inner()), message.bounced);
            from = Some(std_address(message.src));
        }
        let (ran, gas_fees) = match info.compute_phase {
            ComputePhase::Executed(phase) => {
                (Ran::Exit(phase.exit_code), nanotons(phase.gas_fees.into_inner()))
            }
            ComputePhase::Skipped(phase) if phase.reason == ComputePhaseSkipReason::NoGas => (Ran::NoGas, 0),
            ComputePhase::Skipped(_) => (Ran::NoState, 0),
        };
        let out = |message: MsgInfo| match message {
            MsgInfo::Int(info) => Out {
                to: std_address(info.dst),
                value: nanotons(info.value.tokens.into_inner()),
                bounced: info.bounced,
            },
            other => panic!("only messages between accounts are sent: {other:?}"),
        };
        Self {
            from,
            value,
            bounced,
            rent: info.storage_phase.map_or(0, |phase| nanotons(phase.storage_fees_collected.into_inner())),
            ran,
            gas_fees,
            passed: !info.aborted,
            outs: tx.iter_out_msgs().map(|message| out(message.unwrap().info)).collect(),
        }
    }

    /// It had not the gas to say whether it is allowed.
    pub(crate) fn starved(&self) -> bool {
        matches!(self.ran, Ran::NoGas | Ran::Exit(-14))
    }
}
