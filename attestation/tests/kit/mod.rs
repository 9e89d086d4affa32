//! Look-alikes of vendors that really sign, for tables in which every rule has a good row and bad rows.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of test helpers, shared by several test crates")]

pub mod amd;
pub mod azure;
pub mod der;

use cocoon_attestation::Statement;
use cocoon_attestation::statement::{Beacon, Freshness, Keys, SEAL_KEY};

/// An encoded statement of a guest that serves nothing.
pub fn statement() -> Vec<u8> {
    let beacon = Beacon { seqno: 41, root_hash: [0x41; 32] };
    let statement = Statement {
        network: -239,
        keys: Keys { seal: vec![4; SEAL_KEY], receipt: [5; 32], tls: None },
        models: vec![],
        configuration: [3; 32],
        engine: [6; 32],
        kernels: vec![],
        gpu_evidence: vec![],
        freshness: Freshness { beacon, nonce: None, serial: 1 },
    };
    statement.encode()
}
