//! Transactions as the chain stores them, read for what callers need.

use cocoon_contracts::{Address, Cell, Malformed, Nanotons};
use tycho_types::cell::{CellBuilder, HashBytes};
use tycho_types::error::Error;
use tycho_types::models::{ComputePhase, IntAddr, MsgInfo, TxInfo};

/// A transaction of an account, as far as callers need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Its logical time.
    pub lt: u64,
    /// The hash of its cell.
    pub hash: [u8; 32],
    /// When it happened, Unix time in seconds.
    pub time: u32,
    /// Who sent the message that caused it; `None` for messages from outside.
    pub from: Option<Address>,
    /// The value that came with that message, in nanotons.
    pub value: Nanotons,
    /// The hash of that message's body as a cell of its own: names a signed message, however it was wrapped. `None`
    /// when no message caused the transaction.
    pub body_hash: Option<[u8; 32]>,
    /// True when that message is one of the account's own, come back.
    pub bounced: bool,
    /// True when the contract refused the message or could not carry out what it wanted.
    pub aborted: bool,
    /// The exit code of the compute phase, if it ran.
    pub exit_code: Option<i32>,
    /// Gas used.
    pub gas: u64,
    /// The body of that message, whoever sent it: what was asked of the contract. `None` where there is no message.
    pub body: Option<Cell>,
    /// The first data that the message brought along for an account that was not there yet. It counts only in the account's
    /// first transaction.
    pub first_data: Option<Cell>,
    /// All fees that were paid in it (storage, gas, actions, forwarding), in nanotons.
    pub fees: Nanotons,
}

impl Transaction {
    /// Reads a transaction's cell.
    pub fn parse(cell: &Cell) -> Result<Self, Malformed> {
        Self::load(cell).map_err(|error| Malformed { what: "transaction", why: error.to_string() })
    }

    /// The same of one that must be this account's.
    ///
    /// # Errors
    /// The cell is no transaction, or another account's.
    pub fn parse_of(account: &Address, cell: &Cell) -> Result<Self, Malformed> {
        let refused = |why: String| Malformed { what: "transaction", why };
        let tx =
            cell.parse::<tycho_types::models::Transaction>().map_err(|error| refused(error.to_string()))?;
        if tx.account != account.address {
            return Err(refused(format!("it is one of another account, not of {account}")));
        }
        Self::parse(cell)
    }

    fn load(cell: &Cell) -> Result<Self, Error> {
        let tx = cell.parse::<tycho_types::models::Transaction>()?;
        let mut fees = tx.total_fees.tokens.into_inner();
        for message in tx.iter_out_msgs() {
            if let MsgInfo::Int(info) = message?.info {
                fees = fees.checked_add(info.fwd_fee.into_inner()).ok_or(Error::IntOverflow)?;
            }
        }
        let (mut from, mut value, mut bounced) = (None, 0, false);
        let (mut body, mut first_data) = (None, None);
        if let Some(message) = tx.load_in_msg()? {
            body = Some(CellBuilder::build_from(message.body)?);
            first_data = message.init.and_then(|init| init.data);
            if let MsgInfo::Int(info) = message.info {
                if let IntAddr::Std(address) = info.src {
                    from = Some(address);
                }
                value = nanotons(info.value.tokens.into_inner())?;
                bounced = info.bounced;
            }
        }
        let (compute, aborted) = match tx.load_info()? {
            TxInfo::Ordinary(info) => (info.compute_phase, info.aborted),
            TxInfo::TickTock(info) => (info.compute_phase, info.aborted),
        };
        let (exit_code, gas) = match compute {
            ComputePhase::Executed(phase) => (Some(phase.exit_code), phase.gas_used.into_inner()),
            ComputePhase::Skipped(_) => (None, 0),
        };
        let HashBytes(hash) = *cell.repr_hash();
        let body_hash = body.as_ref().map(|body| body.repr_hash().0);
        let fees = nanotons(fees)?;
        Ok(Self {
            lt: tx.lt,
            hash,
            time: tx.now,
            from,
            value,
            body_hash,
            bounced,
            aborted,
            exit_code,
            gas,
            body,
            first_data,
            fees,
        })
    }
}

/// More than all the coins there are is no amount.
fn nanotons(value: u128) -> Result<Nanotons, Error> {
    Nanotons::try_from(value).map_err(|_| Error::IntOverflow)
}
