//! The ledger on disk: one redb file, one transaction for each block. A crash leaves the ledger as of a whole block.
//!
//! Whatever the file holds, nothing here panics and nothing passes for what it is not: accounts and transactions are
//! kept with their hashes, and redb's own panics on a damaged file become [`LedgerError::Broken`].

mod account;
mod file;
mod migrate;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::backends::InMemoryBackend;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use tycho_types::boc::Boc;
use tycho_types::boc::ser::BocHeaderCache;
use tycho_types::cell::{Cell, HashBytes};
use tycho_types::models::{ShardAccount, StdAddr};

use crate::LedgerError;
use crate::block::Block;
use crate::parallel::in_parallel;

/// Account (workchain and hash) to its state, as `account.rs` writes it.
const ACCOUNTS: TableDefinition<'_, [u8; 33], &[u8]> = TableDefinition::new("accounts");
/// Hash to code, a bag of cells: a thousand wallets have one.
const CODES: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("codes");
/// Number to block.
const BLOCKS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("blocks");
/// Logical time, unique in a ledger, to transaction: its account (33 bytes), its hash (32), a bag of cells. Only grows
/// at its end.
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// Account and logical time: an account's transactions.
const HISTORY: TableDefinition<'_, ([u8; 33], u64), ()> = TableDefinition::new("history");
/// Hash of a message from outside, as it came and normalised, to its transaction's logical time.
const EXTERNALS: TableDefinition<'_, [u8; 32], u64> = TableDefinition::new("externals");
/// Messages on their way, in order: the hash, a bag of cells.
const QUEUE: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("queue");
/// Everything else, by name.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// The layout of these tables. An older one is brought up to it, a newer one is refused.
const SCHEMA: u32 = 2;
/// Bytes before the bag of cells in [`LOG`]: account and hash.
const LOG_HEAD: usize = 33 + 32;
/// So many items at least are worth a thread's start.
const WORTH_A_THREAD: usize = 128;
/// How much memory redb may use to cache pages.
const CACHE_BYTES: usize = 16 << 20;

/// All that one block changes.
pub(crate) struct Changes<'a> {
    pub block: &'a Block,
    pub totals: &'a Totals,
    pub accounts: Vec<(&'a StdAddr, &'a ShardAccount)>,
    pub transactions: Vec<(&'a StdAddr, u64, &'a Cell)>,
    pub queue: Vec<&'a Cell>,
    pub externals: &'a [([u8; 32], u64)],
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
    database: Handle,
    network: i32,
}

/// The database, until it is dropped: redb writes once more then, and panics if what it finds is damaged.
struct Handle(Option<Database>);

impl std::ops::Deref for Handle {
    type Target = Database;

    fn deref(&self) -> &Database {
        self.0.as_ref().expect("it is taken out only to be dropped")
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let database = self.0.take();
        if catch_unwind(AssertUnwindSafe(|| drop(database))).is_err() {
            tracing::error!("the ledger's file could not be closed in order: it is damaged");
        }
    }
}

impl Store {
    pub(crate) fn in_memory(network: i32) -> Result<Self, LedgerError> {
        Self::on(InMemoryBackend::new(), network)
    }

    /// On another kind of storage: how the tests make a disk fail.
    pub(crate) fn on(backend: impl redb::StorageBackend, network: i32) -> Result<Self, LedgerError> {
        let database = guarded(|| builder().create_with_backend(backend).map_err(stored))?;
        Ok(Self { database: Handle(Some(database)), network })
    }

    /// The ledger in this file, if there is the file.
    pub(crate) fn open(path: &Path, network: i32) -> Result<Option<Self>, LedgerError> {
        Ok(file::open(path)?.map(|database| Self { database: Handle(Some(database)), network }))
    }

    /// A new file that holds a ledger's beginning: either there as a whole, or not at all.
    pub(crate) fn create(
        path: &Path,
        network: i32,
        genesis: &[u8; 32],
        changes: &Changes<'_>,
    ) -> Result<Self, LedgerError> {
        let holding = |database| Self { database: Handle(Some(database)), network };
        file::create(path, |database| holding(database).begin(genesis, changes)).map(holding)
    }

    /// What is stored, if anything is. `genesis` must be what it began with.
    pub(crate) fn load(&self, genesis: &[u8; 32]) -> Result<Option<Loaded>, LedgerError> {
        guarded(|| self.load_all(genesis))
    }

    fn load_all(&self, genesis: &[u8; 32]) -> Result<Option<Loaded>, LedgerError> {
        let Some(schema) = self.field("schema")? else { return Ok(None) };
        if self.field("genesis")?.as_deref() != Some(genesis) {
            return Err(LedgerError::AnotherGenesis);
        }
        match schema.as_slice().try_into().map(u32::from_be_bytes) {
            Ok(SCHEMA) => {}
            Ok(migrate::OLDEST..SCHEMA) => migrate::up(&self.database, self.network)?,
            Ok(newer) => return Err(LedgerError::Newer { found: newer, known: SCHEMA }),
            Err(_) => return Err(broken("its schema's number")),
        }
        let totals =
            self.field("totals")?.and_then(|bytes| Totals::decode(&bytes)).ok_or(broken("totals"))?;
        Ok(Some(Loaded { head: self.head()?, totals, accounts: self.accounts()?, queue: self.queue()? }))
    }

    /// The network that the file says it is of. Files of schema 1 did not say.
    pub(crate) fn written_network(&self) -> Result<Option<i32>, LedgerError> {
        let field = guarded(|| self.field("network"))?;
        Ok(field.and_then(|bytes| bytes.try_into().ok()).map(i32::from_be_bytes))
    }

    fn field(&self, name: &str) -> Result<Option<Vec<u8>>, LedgerError> {
        let read = self.database.begin_read().map_err(stored)?;
        let meta = match read.open_table(META) {
            Ok(meta) => meta,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(stored(error)),
        };
        Ok(meta.get(name).map_err(stored)?.map(|value| value.value().to_vec()))
    }

    /// The newest block, which must name the one before it.
    fn head(&self) -> Result<Block, LedgerError> {
        let read = self.database.begin_read().map_err(stored)?;
        let blocks = read.open_table(BLOCKS).map_err(stored)?;
        let newest = blocks.iter().map_err(stored)?.rev().take(2);
        let newest = newest.map(|entry| {
            let (seqno, value) = entry.map_err(stored)?;
            let block = Block::read(value.value(), self.network).ok_or(broken("a block"))?;
            if block.seqno == seqno.value() { Ok(block) } else { Err(broken("a block's number")) }
        });
        let newest = newest.collect::<Result<Vec<_>, _>>()?;
        match newest.as_slice() {
            [] => Err(broken("it has no block")),
            [head, before] if head.previous != before.root_hash || before.seqno + 1 != head.seqno => {
                Err(broken("its newest block does not follow the one before"))
            }
            [head, ..] => Ok(*head),
        }
    }

    fn accounts(&self) -> Result<Vec<(StdAddr, ShardAccount)>, LedgerError> {
        let read = self.database.begin_read().map_err(stored)?;
        let mut codes = HashMap::new();
        for entry in read.open_table(CODES).map_err(stored)?.iter().map_err(stored)? {
            let (hash, value) = entry.map_err(stored)?;
            codes.insert(
                HashBytes(hash.value()),
                verified(&hash.value(), value.value(), "a contract's code")?,
            );
        }
        let mut accounts = Vec::new();
        for entry in read.open_table(ACCOUNTS).map_err(stored)?.iter().map_err(stored)? {
            let (key, value) = entry.map_err(stored)?;
            let address = address(&key.value());
            let account = account::decode(value.value(), &codes);
            let account = account.map_err(|why| broken(&format!("account {address}: {why}")))?;
            accounts.push((address, account));
        }
        Ok(accounts)
    }

    fn queue(&self) -> Result<Vec<Cell>, LedgerError> {
        let read = self.database.begin_read().map_err(stored)?;
        let mut queue = Vec::new();
        for entry in read.open_table(QUEUE).map_err(stored)?.iter().map_err(stored)? {
            let (_, value) = entry.map_err(stored)?;
            let (hash, bag) = value.value().split_first_chunk().ok_or(broken("a message on its way"))?;
            queue.push(verified(hash, bag, "a message on its way")?);
        }
        Ok(queue)
    }

    /// Writes what began the ledger, its first block with it.
    pub(crate) fn begin(&self, genesis: &[u8; 32], changes: &Changes<'_>) -> Result<(), LedgerError> {
        guarded(|| self.write(Some(genesis), changes))
    }

    /// Writes a block and all it changes, or nothing. On disk when it returns.
    pub(crate) fn commit(&self, changes: &Changes<'_>) -> Result<(), LedgerError> {
        guarded(|| self.write(None, changes))
    }

    fn write(&self, genesis: Option<&[u8; 32]>, changes: &Changes<'_>) -> Result<(), LedgerError> {
        let write = self.database.begin_write().map_err(stored)?;
        {
            let mut meta = write.open_table(META).map_err(stored)?;
            if let Some(genesis) = genesis {
                meta.insert("schema", SCHEMA.to_be_bytes().as_slice()).map_err(stored)?;
                meta.insert("genesis", genesis.as_slice()).map_err(stored)?;
                meta.insert("network", self.network.to_be_bytes().as_slice()).map_err(stored)?;
            }
            meta.insert("totals", changes.totals.encode().as_slice()).map_err(stored)?;
            let mut blocks = write.open_table(BLOCKS).map_err(stored)?;
            blocks.insert(changes.block.seqno, changes.block.stored().as_slice()).map_err(stored)?;
        }
        write_queue(&write, &changes.queue)?;
        write_externals(&write, changes.externals)?;
        account::write(&write, &changes.accounts)?;
        write_log(&write, &changes.transactions)?;
        write.commit().map_err(stored)
    }

    pub(crate) fn block(&self, seqno: u32) -> Result<Option<Block>, LedgerError> {
        guarded(|| {
            let read = self.database.begin_read().map_err(stored)?;
            let blocks = read.open_table(BLOCKS).map_err(stored)?;
            let Some(bytes) = blocks.get(seqno).map_err(stored)? else { return Ok(None) };
            let block = Block::read(bytes.value(), self.network).filter(|block| block.seqno == seqno);
            block.map(Some).ok_or(broken("a block"))
        })
    }

    /// Transactions of an account at or before a logical time, newest first.
    pub(crate) fn transactions(
        &self,
        address: &StdAddr,
        until: u64,
        limit: usize,
    ) -> Result<Vec<Cell>, LedgerError> {
        guarded(|| {
            let read = self.database.begin_read().map_err(stored)?;
            let log = read.open_table(LOG).map_err(stored)?;
            let history = read.open_table(HISTORY).map_err(stored)?;
            let range = history.range((key(address), 0)..=(key(address), until)).map_err(stored)?;
            let newest = range.rev().take(limit).map(|entry| {
                let (_, lt) = entry.map_err(stored)?.0.value();
                let value = log.get(lt).map_err(stored)?.ok_or(broken("a transaction is missing"))?;
                Ok(entry_of_log(value.value())?.1)
            });
            newest.collect()
        })
    }

    /// The logical time of the transaction that a message from outside caused.
    pub(crate) fn external(&self, hash: &[u8; 32]) -> Result<Option<u64>, LedgerError> {
        guarded(|| {
            let read = self.database.begin_read().map_err(stored)?;
            let table = read.open_table(EXTERNALS).map_err(stored)?;
            Ok(table.get(hash).map_err(stored)?.map(|lt| lt.value()))
        })
    }

    /// All transactions with logical times from `from` to before `end`, in the order in which they happened.
    pub(crate) fn log(&self, from: u64, end: u64, limit: usize) -> Result<Vec<(StdAddr, Cell)>, LedgerError> {
        guarded(|| {
            let read = self.database.begin_read().map_err(stored)?;
            let log = read.open_table(LOG).map_err(stored)?;
            let range = log.range(from..end).map_err(stored)?.take(limit);
            range.map(|entry| entry_of_log(entry.map_err(stored)?.1.value())).collect()
        })
    }
}

fn write_queue(write: &redb::WriteTransaction, messages: &[&Cell]) -> Result<(), LedgerError> {
    let mut queue = write.open_table(QUEUE).map_err(stored)?;
    queue.retain(|_, _| false).map_err(stored)?;
    for (index, message) in (0..).zip(messages) {
        let value = [message.repr_hash().as_slice(), &Boc::encode(*message)].concat();
        queue.insert(index, value.as_slice()).map_err(stored)?;
    }
    Ok(())
}

fn write_externals(write: &redb::WriteTransaction, externals: &[([u8; 32], u64)]) -> Result<(), LedgerError> {
    let mut table = write.open_table(EXTERNALS).map_err(stored)?;
    let mut externals = externals.to_vec();
    externals.sort_unstable();
    for (hash, lt) in externals {
        table.insert(hash, lt).map_err(stored)?;
    }
    Ok(())
}

fn write_log(
    write: &redb::WriteTransaction,
    transactions: &[(&StdAddr, u64, &Cell)],
) -> Result<(), LedgerError> {
    let values = in_parallel(transactions, WORTH_A_THREAD, |part| {
        let mut cache = BocHeaderCache::default();
        let value = |(address, _, cell): &(&StdAddr, u64, &Cell)| {
            let bag = Boc::encode_with_cache(*cell, &mut cache);
            let mut value = Vec::with_capacity(LOG_HEAD + bag.len());
            value.extend_from_slice(&key(address));
            value.extend_from_slice(cell.repr_hash().as_slice());
            value.extend_from_slice(&bag);
            value
        };
        part.iter().map(value).collect()
    });
    let mut log = write.open_table(LOG).map_err(stored)?;
    for ((_, lt, _), value) in transactions.iter().zip(values) {
        log.insert(lt, value.as_slice()).map_err(stored)?;
    }
    // In order of their keys: neighbours share pages.
    let mut keys: Vec<_> = transactions.iter().map(|(address, lt, _)| (key(address), *lt)).collect();
    keys.sort_unstable();
    let mut history = write.open_table(HISTORY).map_err(stored)?;
    for key in keys {
        history.insert(key, ()).map_err(stored)?;
    }
    Ok(())
}

fn entry_of_log(value: &[u8]) -> Result<(StdAddr, Cell), LedgerError> {
    let parts = value.split_first_chunk::<33>();
    let parts = parts.and_then(|(account, rest)| Some((account, rest.split_first_chunk::<32>()?)));
    let (account, (hash, bag)) = parts.ok_or(broken("a transaction is cut short"))?;
    Ok((address(account), verified(hash, bag, "a transaction")?))
}

/// The cell in a bag, if it is the one that was written.
fn verified(hash: &[u8; 32], bag: &[u8], what: &str) -> Result<Cell, LedgerError> {
    match Boc::decode(bag) {
        Ok(cell) if cell.repr_hash().as_slice() == hash => Ok(cell),
        _ => Err(broken(what)),
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

/// redb panics on some damaged files, and on none that it wrote: the panic says no more than that.
fn guarded<T>(act: impl FnOnce() -> Result<T, LedgerError>) -> Result<T, LedgerError> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| Err(broken("its pages make no sense")))
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
    match error.into() {
        redb::Error::Corrupted(what) => LedgerError::Broken { what },
        error => LedgerError::Store { why: error.to_string() },
    }
}

fn broken(what: &str) -> LedgerError {
    LedgerError::Broken { what: what.to_owned() }
}
