//! A gateway between a real client's bytes and a host that misbehaves on demand, on the embedded ledger.

mod fake_host;
mod liabilities;
mod money;
mod refusals;
mod registration;
mod streams;
mod world;
