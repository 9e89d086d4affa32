//! A TON ledger in one process: whole transactions by tycho-executor, blocks chained by hash, on disk after each block.
//!
//! For development networks and tests: the same contracts, messages, fees and HTTP shape as TON, and no validators.
//! [`Ledger`] is the core: synchronous and deterministic, its clock an argument. [`Server`] puts it behind the HTTP
//! shapes of toncenter v2 and v3, so that everything that talks to it can talk to TON, with pages for people beside them.
//!
//! What differs from TON, on purpose: one shard; no validators, so blocks carry no signatures; fees are counted and go
//! to nobody; the VM is at version 12 (settlement notes: keys that anybody can sign for are refused by our code instead).

mod block;
mod clock;
mod config;
mod error;
mod execute;
#[cfg(test)]
mod faults;
mod genesis;
mod getter;
mod ledger;
mod parallel;
mod rpc;
mod server;
mod store;

pub use block::Block;
pub use clock::{Clock, ClockError, MAX_ADVANCE};
pub use config::{DEVIATIONS, READ, STORAGE_2026_SINCE, Schedule, configuration};
pub use error::{LedgerError, SubmitError};
pub use execute::{Fees, normalised_hash};
pub use genesis::{FAUCET_BALANCE, Genesis, GenesisAccount, faucet_address};
pub use getter::{GetterError, GetterOutput};
pub use ledger::{Ledger, MAX_FAUCET_GRANT, Supply};
pub use server::{Limits, Pace, Server, serve};
