//! The contracts, the ledger and its HTTP shape, tried on whole transactions.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

mod channel;
mod crash;
mod fees;
mod http;
mod properties;
mod refusals;
mod registry;
mod sending;
mod wallet;
mod world;
