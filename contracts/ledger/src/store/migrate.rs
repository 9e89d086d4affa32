//! From older layouts of the tables to today's, in one transaction: the file is as it was, or as it should be.

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use tycho_types::boc::{Boc, BocRepr};
use tycho_types::cell::Cell;
use tycho_types::models::Transaction;

use super::{ACCOUNTS, META, SCHEMA, account, address, broken, stored, write_externals, write_log};
use crate::LedgerError;
use crate::execute::normalised_hash;

/// The oldest layout that is understood.
pub(super) const OLDEST: u32 = 1;
/// Schema 1 kept accounts as whole bags of cells, and transactions by account and logical time.
pub(super) const OLD_TRANSACTIONS: TableDefinition<'_, ([u8; 33], u64), &[u8]> =
    TableDefinition::new("transactions");

/// Brings a file of schema 1 up to date.
pub(super) fn up(database: &Database) -> Result<(), LedgerError> {
    let read = database.begin_read().map_err(stored)?;
    let mut accounts = Vec::new();
    for entry in read.open_table(ACCOUNTS).map_err(stored)?.iter().map_err(stored)? {
        let (key, value) = entry.map_err(stored)?;
        let account = BocRepr::decode(value.value()).map_err(|_| broken("an account"))?;
        accounts.push((address(&key.value()), account));
    }
    let mut transactions = Vec::new();
    for entry in read.open_table(OLD_TRANSACTIONS).map_err(stored)?.iter().map_err(stored)? {
        let (key, value) = entry.map_err(stored)?;
        let (account, lt) = key.value();
        transactions.push((
            address(&account),
            lt,
            Boc::decode(value.value()).map_err(|_| broken("a transaction"))?,
        ));
    }
    transactions.sort_unstable_by_key(|(_, lt, _)| *lt);
    drop(read);

    let externals: Vec<_> = transactions.iter().flat_map(|(_, lt, cell)| names(cell, *lt)).collect();

    let write = database.begin_write().map_err(stored)?;
    write_externals(&write, &externals)?;
    write.delete_table(OLD_TRANSACTIONS).map_err(stored)?;
    account::write(
        &write,
        &accounts.iter().map(|(address, account)| (address, account)).collect::<Vec<_>>(),
    )?;
    write_log(
        &write,
        &transactions.iter().map(|(address, lt, cell)| (address, *lt, cell)).collect::<Vec<_>>(),
    )?;
    let mut meta = write.open_table(META).map_err(stored)?;
    meta.insert("schema", SCHEMA.to_be_bytes().as_slice()).map_err(stored)?;
    drop(meta);
    write.commit().map_err(stored)
}

/// The hashes by which a transaction's message from outside may be asked for.
fn names(transaction: &Cell, lt: u64) -> Vec<([u8; 32], u64)> {
    let message = transaction.parse::<Transaction>().ok().and_then(|transaction| transaction.in_msg);
    let normalised = message.as_ref().and_then(|message| Some((message, normalised_hash(message)?)));
    normalised.map_or_else(Vec::new, |(message, hash)| vec![(message.repr_hash().0, lt), (hash, lt)])
}
