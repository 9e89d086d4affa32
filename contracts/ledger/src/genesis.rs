//! What a ledger begins with.

use cocoon_contracts::{Address, Nanotons};
use tycho_types::cell::{Cell, CellBuilder, CellFamily as _, HashBytes, Lazy, Store as _};
use tycho_types::error::Error;
use tycho_types::models::{
    Account, AccountState, CurrencyCollection, OptionalAccount, ShardAccount, StateInit, StorageInfo,
    StorageUsed,
};
use tycho_types::num::{Tokens, VarUint56};

use crate::block::sha256;
use crate::config::Schedule;

/// What the faucet's account begins with: a thousand million TON.
pub const FAUCET_BALANCE: Nanotons = 1_000_000_000_000_000_000;
/// More cells than any account at genesis has.
const MAX_ACCOUNT_CELLS: usize = 1 << 16;

/// An account that exists from the start.
#[derive(Debug, Clone)]
pub struct GenesisAccount {
    /// Where. For a contract, the hash of its state init, as everywhere.
    pub address: Address,
    /// What it holds, in nanotons.
    pub balance: Nanotons,
    /// Its code and data; none for an account that is deployed later.
    pub state_init: Option<StateInit>,
}

/// The settings and accounts of a new ledger. A ledger on disk is reopened only with those it began with.
#[derive(Debug, Clone)]
pub struct Genesis {
    /// The network's global id. Not that of mainnet (-239) or testnet (-3): vouchers must not count there.
    pub network: i32,
    /// The price list.
    pub schedule: Schedule,
    /// Unix time of the first block, in seconds. Not compared when a ledger is reopened.
    pub time: u32,
    /// The accounts. Beside them there is the faucet's, with [`FAUCET_BALANCE`].
    pub accounts: Vec<GenesisAccount>,
}

/// The faucet's account: money for development, given out by the ledger itself.
pub fn faucet_address() -> Address {
    Address::new(0, HashBytes([0xfa; 32]))
}

impl Genesis {
    /// A name for what a ledger begins with, its time apart.
    pub(crate) fn digest(&self) -> Result<[u8; 32], Error> {
        let mut bytes = b"cocoon ledger genesis v1".to_vec();
        bytes.extend_from_slice(&self.network.to_be_bytes());
        bytes.extend_from_slice(self.schedule.name().as_bytes());
        for account in &self.accounts {
            bytes.extend_from_slice(account.address.to_string().as_bytes());
            bytes.extend_from_slice(&account.balance.to_be_bytes());
            if let Some(init) = &account.state_init {
                bytes.extend_from_slice(CellBuilder::build_from(init)?.repr_hash().as_slice());
            }
        }
        Ok(sha256(&bytes))
    }

    /// All coins that there ever are, in nanotons.
    pub(crate) fn supply(&self) -> u128 {
        let accounts = self.accounts.iter().map(|account| u128::from(account.balance));
        accounts.sum::<u128>() + u128::from(FAUCET_BALANCE)
    }

    /// The accounts as the executor has them.
    pub(crate) fn shard_accounts(&self) -> Result<Vec<(Address, ShardAccount)>, Error> {
        let faucet = GenesisAccount { address: faucet_address(), balance: FAUCET_BALANCE, state_init: None };
        let all = self.accounts.iter().chain(std::iter::once(&faucet));
        all.map(|account| Ok((account.address.clone(), shard_account(account, self.time)?))).collect()
    }
}

fn shard_account(account: &GenesisAccount, now: u32) -> Result<ShardAccount, Error> {
    let state = match &account.state_init {
        Some(init) => AccountState::Active(init.clone()),
        None => AccountState::Uninit,
    };
    let mut new = Account {
        address: account.address.clone().into(),
        storage_stat: StorageInfo {
            used: StorageUsed::ZERO,
            storage_extra: Default::default(),
            last_paid: now,
            due_payment: None,
        },
        last_trans_lt: 0,
        balance: CurrencyCollection::new(u128::from(account.balance)),
        state,
    };
    new.storage_stat.used = storage_used(&new)?;
    into_shard_account(new, HashBytes::ZERO, 0)
}

/// How much an account stores. (tycho-types 0.3.6 has `StorageUsed::compute`, which refuses every account.)
fn storage_used(account: &Account) -> Result<StorageUsed, Error> {
    let context = Cell::empty_context();
    let mut storage = CellBuilder::new();
    storage.store_u64(account.last_trans_lt)?;
    account.balance.store_into(&mut storage, context)?;
    account.state.store_into(&mut storage, context)?;
    let cell = storage.build()?;
    let stats = cell.compute_unique_stats(MAX_ACCOUNT_CELLS).ok_or(Error::Cancelled)?;
    Ok(StorageUsed { cells: VarUint56::new(stats.cell_count), bits: VarUint56::new(stats.bit_count) })
}

/// An account with its last transaction.
pub(crate) fn into_shard_account(
    account: Account,
    last_trans_hash: HashBytes,
    last_trans_lt: u64,
) -> Result<ShardAccount, Error> {
    Ok(ShardAccount { account: Lazy::new(&OptionalAccount(Some(account)))?, last_trans_hash, last_trans_lt })
}

/// An account that never existed.
pub(crate) fn no_account() -> ShardAccount {
    ShardAccount {
        account: Lazy::new(&OptionalAccount::EMPTY).expect("one bit fits in a cell"),
        last_trans_hash: HashBytes::ZERO,
        last_trans_lt: 0,
    }
}

/// Takes from an account's balance, outside of any transaction: for the faucet.
pub(crate) fn debit(account: &ShardAccount, amount: Nanotons) -> Result<Option<ShardAccount>, Error> {
    let Some(mut state) = account.load_account()? else { return Ok(None) };
    let Some(rest) = state.balance.tokens.into_inner().checked_sub(u128::from(amount)) else {
        return Ok(None);
    };
    state.balance.tokens = Tokens::new(rest);
    into_shard_account(state, account.last_trans_hash, account.last_trans_lt).map(Some)
}
