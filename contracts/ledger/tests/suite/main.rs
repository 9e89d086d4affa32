//! The contracts, the ledger and its HTTP shape, tried on whole transactions.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

mod bond;
mod channel;
mod clock;
mod crash;
mod damage;
mod fees;
mod http;
mod limits;
mod pages;
mod properties;
mod refusals;
mod registry;
mod sending;
mod v2;
mod v3;
mod wallet;
mod world;
