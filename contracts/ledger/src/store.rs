//! The ledger on disk: one redb file, one transaction for each block. A crash leaves the ledger as of a whole block.

use std::path::Path;

use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use tycho_types::boc::{Boc, BocRepr};
use tycho_types::cell::{Cell, HashBytes};
use tycho_types::models::{ShardAccount, StdAddr};

use crate::LedgerError;
use crate::block::Block;

/// Account (workchain and hash) to its state, a bag of cells.
const ACCOUNTS: TableDefinition<'_, [u8; 33], &[u8]> = TableDefinition::new("accounts");
/// Number to block.
const BLOCKS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("blocks");
/// Account and logical time to transaction, a bag of cells.
const TRANSACTIONS: TableDefinition<'_, ([u8; 33], u64), &[u8]> = TableDefinition::new("transactions");
/// Messages on their way, in order.
const QUEUE: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("queue");
/// Everything else, by name.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// The layout of these tables. Another one is refused.
const SCHEMA: u32 = 1;
/// How much memory redb may use to cache pages.
const CACHE_BYTES: usize = 16 << 20;

/// All that one block changes.
pub(crate) struct Changes<'a> {
    pub block: &'a Block,
    pub totals: &'a Totals,
    pub accounts: Vec<(&'a StdAddr, &'a ShardAccount)>,
    pub transactions: Vec<(&'a StdAddr, u64, &'a Cell)>,
    pub queue: Vec<&'a Cell>,
}

/// Sums that every nanoton is in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Fees collected since genesis.
    pub fees: u128,
    /// Value that was sent to where nothing can be.
    pub burned: u128,
}

/// What a reopened ledger starts from.
pub(crate) struct Loaded {
    pub head: Block,
    pub totals: Totals,
    pub accounts: Vec<(StdAddr, ShardAccount)>,
    pub queue: Vec<Cell>,
}

pub(crate) struct Store {
    database: Database,
    network: i32,
}

impl Store {
    pub(crate) fn in_memory(network: i32) -> Result<Self, LedgerError> {
        let database = builder().create_with_backend(InMemoryBackend::new()).map_err(stored)?;
        Ok(Self { database, network })
    }

    /// On another kind of storage: how the tests make a disk fail.
    #[cfg(test)]
    pub(crate) fn on(backend: impl redb::StorageBackend, network: i32) -> Result<Self, LedgerError> {
        let database = builder().create_with_backend(backend).map_err(stored)?;
        Ok(Self { database, network })
    }

    pub(crate) fn open(path: &Path, network: i32) -> Result<Self, LedgerError> {
        let database = builder()
            .create(path)
            .map_err(|error| LedgerError::Store { why: format!("{}: {error}", path.display()) })?;
        Ok(Self { database, network })
    }

    /// What is stored, if anything is. `genesis` must be what it began with.
    pub(crate) fn load(&self, genesis: &[u8; 32]) -> Result<Option<Loaded>, LedgerError> {
        let read = self.database.begin_read().map_err(stored)?;
        let meta = match read.open_table(META) {
            Ok(meta) => meta,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(stored(error)),
        };
        let field = |name: &str| -> Result<Option<Vec<u8>>, LedgerError> {
            Ok(meta.get(name).map_err(stored)?.map(|value| value.value().to_vec()))
        };
        if field("schema")?.as_deref() != Some(&SCHEMA.to_be_bytes()) {
            return Err(broken("it was written by another version of cocoon"));
        }
        if field("genesis")?.as_deref() != Some(genesis) {
            return Err(LedgerError::AnotherGenesis);
        }
        let totals = field("totals")?.and_then(|bytes| Totals::decode(&bytes)).ok_or(broken("totals"))?;
        let head = {
            let blocks = read.open_table(BLOCKS).map_err(stored)?;
            let last = blocks.last().map_err(stored)?.ok_or(broken("it has no block"))?;
            Block::decode(last.1.value(), self.network).ok_or(broken("its last block"))?
        };
        let mut accounts = Vec::new();
        for entry in read.open_table(ACCOUNTS).map_err(stored)?.iter().map_err(stored)? {
            let (key, value) = entry.map_err(stored)?;
            let account = BocRepr::decode(value.value()).map_err(|_| broken("an account"))?;
            accounts.push((address(&key.value()), account));
        }
        let mut queue = Vec::new();
        for entry in read.open_table(QUEUE).map_err(stored)?.iter().map_err(stored)? {
            let (_, value) = entry.map_err(stored)?;
            queue.push(Boc::decode(value.value()).map_err(|_| broken("a message"))?);
        }
        Ok(Some(Loaded { head, totals, accounts, queue }))
    }

    /// Writes what began the ledger. Follow with [`Store::commit`] of the first block.
    pub(crate) fn begin(&self, genesis: &[u8; 32], changes: &Changes<'_>) -> Result<(), LedgerError> {
        self.write(Some(genesis), changes)
    }

    /// Writes a block and all it changes, or nothing. On disk when it returns.
    pub(crate) fn commit(&self, changes: &Changes<'_>) -> Result<(), LedgerError> {
        self.write(None, changes)
    }

    fn write(&self, genesis: Option<&[u8; 32]>, changes: &Changes<'_>) -> Result<(), LedgerError> {
        let write = self.database.begin_write().map_err(stored)?;
        {
            let mut meta = write.open_table(META).map_err(stored)?;
            if let Some(genesis) = genesis {
                meta.insert("schema", SCHEMA.to_be_bytes().as_slice()).map_err(stored)?;
                meta.insert("genesis", genesis.as_slice()).map_err(stored)?;
            }
            meta.insert("totals", changes.totals.encode().as_slice()).map_err(stored)?;
            let mut blocks = write.open_table(BLOCKS).map_err(stored)?;
            blocks.insert(changes.block.seqno, changes.block.encode().as_slice()).map_err(stored)?;
            let mut accounts = write.open_table(ACCOUNTS).map_err(stored)?;
            for (address, account) in &changes.accounts {
                let bag = BocRepr::encode(account).map_err(|error| broken(&error.to_string()))?;
                accounts.insert(key(address), bag.as_slice()).map_err(stored)?;
            }
            let mut transactions = write.open_table(TRANSACTIONS).map_err(stored)?;
            for (address, lt, cell) in &changes.transactions {
                transactions.insert((key(address), *lt), Boc::encode(cell).as_slice()).map_err(stored)?;
            }
            let mut queue = write.open_table(QUEUE).map_err(stored)?;
            queue.retain(|_, _| false).map_err(stored)?;
            for (index, message) in (0..).zip(&changes.queue) {
                queue.insert(index, Boc::encode(message).as_slice()).map_err(stored)?;
            }
        }
        write.commit().map_err(stored)
    }

    pub(crate) fn block(&self, seqno: u32) -> Result<Option<Block>, LedgerError> {
        let read = self.database.begin_read().map_err(stored)?;
        let blocks = read.open_table(BLOCKS).map_err(stored)?;
        let Some(bytes) = blocks.get(seqno).map_err(stored)? else { return Ok(None) };
        Block::decode(bytes.value(), self.network).map(Some).ok_or(broken("a block"))
    }

    /// Transactions of an account at or before a logical time, newest first.
    pub(crate) fn transactions(
        &self,
        address: &StdAddr,
        until: u64,
        limit: usize,
    ) -> Result<Vec<Cell>, LedgerError> {
        let read = self.database.begin_read().map_err(stored)?;
        let table = read.open_table(TRANSACTIONS).map_err(stored)?;
        let range = table.range((key(address), 0)..=(key(address), until)).map_err(stored)?;
        let newest = range.rev().take(limit);
        newest
            .map(|entry| {
                let (_, value) = entry.map_err(stored)?;
                Boc::decode(value.value()).map_err(|_| broken("a transaction"))
            })
            .collect()
    }
}

impl Totals {
    fn encode(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.fees.to_be_bytes());
        bytes[16..].copy_from_slice(&self.burned.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (fees, rest) = bytes.split_first_chunk()?;
        let burned = rest.try_into().ok()?;
        Some(Self { fees: u128::from_be_bytes(*fees), burned: u128::from_be_bytes(burned) })
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

fn key(address: &StdAddr) -> [u8; 33] {
    let mut key = [0; 33];
    key[0] = address.workchain.cast_unsigned();
    key[1..].copy_from_slice(&address.address.0);
    key
}

fn address(key: &[u8; 33]) -> StdAddr {
    let hash = key[1..].try_into().expect("33 less 1 is 32");
    StdAddr::new(key[0].cast_signed(), HashBytes(hash))
}

fn stored(error: impl Into<redb::Error>) -> LedgerError {
    LedgerError::Store { why: error.into().to_string() }
}

fn broken(what: &str) -> LedgerError {
    LedgerError::Broken { what: what.to_owned() }
}
