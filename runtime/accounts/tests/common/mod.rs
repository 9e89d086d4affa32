//! A payer with a key, and channels of it as the chain would show them.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::PathBuf;

use cocoon_accounts::{ChannelFacts, PayeeBook, PayeeOptions, Store, StoreError};
use cocoon_contracts::{Address, Nanotons, SignedVoucher, SigningKey, Voucher, channel::Terms};

pub(crate) const NETWORK: i32 = -217;
pub(crate) const WINDOW: Nanotons = 1_000;

pub(crate) fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32])
}

pub(crate) fn account(number: u8) -> Address {
    cocoon_contracts::parse_address(&format!("0:{}", format!("{number:02x}").repeat(32)))
        .expect("64 hex digits are an address")
}

/// The channel with this nonce, of [`key`].
pub(crate) fn facts(nonce: u64, deposit: Nanotons) -> ChannelFacts {
    let terms = Terms {
        payer: account(1),
        payee: account(2),
        payer_key: key().public(),
        network: NETWORK,
        nonce,
        challenge_seconds: 3600,
        fee_bps: 100,
        treasury: account(3),
    };
    ChannelFacts { address: terms.address(), terms, deposit, paid: 0, closing: false, deadline: None }
}

pub(crate) fn voucher(facts: &ChannelFacts, cumulative: Nanotons) -> SignedVoucher {
    unsigned(facts, cumulative).sign(&key())
}

pub(crate) fn unsigned(facts: &ChannelFacts, cumulative: Nanotons) -> Voucher {
    let (channel, nonce) = (facts.address.clone(), facts.terms.nonce);
    Voucher { network: NETWORK, channel, nonce, cumulative }
}

pub(crate) fn book(store: &Store) -> PayeeBook {
    PayeeBook::open(store.clone(), PayeeOptions { network: NETWORK, window: WINDOW })
        .expect("the rows of this store parse")
}

/// A redb file in a folder of its own.
pub(crate) struct File {
    folder: tempfile::TempDir,
}

impl File {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder for the test") }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("accounts.redb")
    }

    /// Opens it once nobody else lets go of it any more.
    pub(crate) async fn store(&self) -> Store {
        loop {
            match Store::open(&self.path()) {
                Err(StoreError::Locked { .. }) => {
                    tokio::time::sleep(std::time::Duration::from_millis(2)).await
                }
                other => return other.expect("the store opens"),
            }
        }
    }
}
