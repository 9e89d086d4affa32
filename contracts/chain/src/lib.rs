//! The chain as every party of the network sees it: reading blocks and accounts, sending messages, and the operations
//! on channels and registries that are made of these.
//!
//! [`Chain`] is the only door, and has three backends: the embedded ledger and public services behind HTTP
//! ([`Toncenter`] for toncenter v2, [`ToncenterV3`] for v3), which are believed, and liteservers with proofs (the crate
//! `cocoon-liteserver`), which are not. [`Wallet`] sends and waits until what it sent has happened.
//!
//! Tried against: v2 against `cocoon chain` and servers of the documented shape; v3 against servers of the documented
//! shape. Nothing here has talked to a public network yet.

mod bonds;
mod channels;
mod error;
mod registries;
mod stack;
mod toncenter;
mod transaction;
mod wallet;

pub use bonds::{back_bond, forfeit, publish, read_bond, unbond, withdraw};
pub use channels::{
    authorize, collect, cooperative_close, finish_close, open_channel, read_channel, settle, start_close,
    top_up,
};
pub use error::ChainError;
pub use registries::{activate, cancel, deploy_registry, propose, read_registry};
pub use stack::{stack_from_json, stack_to_json};
pub use toncenter::{ApiKey, Toncenter, ToncenterOptions, ToncenterV3};
pub use transaction::Transaction;
pub use wallet::{Fate, Prepared, Sent, Wallet};

use cocoon_contracts::{Address, Cell, Nanotons};
use futures_util::future::BoxFuture;
use num_bigint::BigInt;

/// A masterchain block: the network's public clock and beacon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Its number.
    pub seqno: u32,
    /// The hash that commits to its content and, through its predecessor, to all before.
    pub root_hash: [u8; 32],
    /// When it was made, Unix time in seconds.
    pub time: u64,
}

/// What an account is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountStatus {
    /// No code and no data; perhaps a balance.
    Uninit,
    /// A contract.
    Active,
    /// Emptied for unpaid rent.
    Frozen,
}

/// An account as the newest block has it. One that does not exist is `Uninit` with nothing.
#[derive(Debug, Clone)]
pub struct AccountState {
    /// In nanotons.
    pub balance: Nanotons,
    /// What it is.
    pub status: AccountStatus,
    /// The hash of its code, when it is active.
    pub code_hash: Option<[u8; 32]>,
    /// Its data, when it is active.
    pub data: Option<Cell>,
    /// The logical time of its last transaction; 0 when it never had one, and when it ended: TON forgets it then.
    pub last_lt: u64,
}

/// A value that goes into or comes out of a get-method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StackItem {
    /// No value.
    Null,
    /// An integer of at most 257 bits.
    Int(BigInt),
    /// A cell.
    Cell(Cell),
    /// A slice, as the cell of its content.
    Slice(Cell),
    /// A tuple.
    Tuple(Vec<StackItem>),
}

impl StackItem {
    /// The integer as `u64`, if it is one and fits.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Int(value) => u64::try_from(value).ok(),
            _ => None,
        }
    }
}

/// A view of one TON network.
///
/// Every call has a deadline of its own and retries what may be retried: an error that
/// [is temporary](ChainError::is_temporary) means that there is no use in asking again at once, and that the same call
/// works when the chain is back. Whether answers are proven or believed is the backend's to say; callers are the same.
pub trait Chain: Send + Sync {
    /// The network's global id: -239 mainnet, -3 testnet, others for development networks.
    fn network(&self) -> i32;

    /// How far an account may be behind the head that was returned before it, in seconds of the chain's clock. Nothing,
    /// where the backend can tell; otherwise what never happened is said only so much later.
    fn accounts_lag_seconds(&self) -> u64 {
        0
    }

    /// The newest block.
    fn head(&self) -> BoxFuture<'_, Result<Block, ChainError>>;

    /// The block with this number, which is what a freshness beacon is compared with; `None` when there is none yet.
    fn block(&self, seqno: u32) -> BoxFuture<'_, Result<Option<Block>, ChainError>>;

    /// An account, at a block that is no older than the last [`Chain::head`] that was returned by more than
    /// [`Chain::accounts_lag_seconds`].
    fn account<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, Result<AccountState, ChainError>>;

    /// An account's newest transactions, newest first, at most `limit` (and at most 100).
    fn transactions<'a>(
        &'a self,
        address: &'a Address,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Transaction>, ChainError>>;

    /// Runs a get-method and returns its stack, top first as written in the contract. A convenience for what is only
    /// shown: decisions read [`Chain::account`]'s data instead, which every backend has and one can prove.
    fn run_get_method<'a>(
        &'a self,
        address: &'a Address,
        method: &'a str,
        arguments: Vec<StackItem>,
    ) -> BoxFuture<'a, Result<Vec<StackItem>, ChainError>>;

    /// Hands in an external message (a bag of cells). Success says that the network took it, or that it may have: look
    /// at the account to see whether it was carried out. Sending the same message again does no harm: contracts take one
    /// once.
    fn send<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<(), ChainError>>;
}
