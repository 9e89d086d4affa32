//! A host with the real guest on the repository's tiny model, on the embedded ledger.

mod faults;
mod journey;
mod liabilities;
mod vm;
mod world;
