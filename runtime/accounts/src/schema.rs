//! The file's schema, and the way of an older file to it.
//!
//! The table `meta` holds the number. A file of an older schema is migrated when it is opened, step by step, all in one
//! transaction: it is either whole in the new schema or still whole in the old one. A file of a newer schema is
//! refused: what a later version keeps in it (a close that has begun, say) would be lost here.
//!
//! | schema | rows |
//! | --- | --- |
//! | 1 | payee: terms, deposit, paid, voucher, owed, closing. Payer: terms, deposit, owed, signed; conceded and marked where they are known |
//! | 2 | payee: also the close's deadline. Payer: all of these, when it was last used, whether it is being closed |

use std::fmt::Display;

use cocoon_contracts::Nanotons;
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::{
    row::{PayeeRow, PayerRow, TermsRow, decode, encode},
    store::{StoreError, Table},
};

/// The schema of the rows that this build writes.
pub const SCHEMA: u32 = 2;

const META: TableDefinition<'_, &str, u32> = TableDefinition::new("meta");
const KEY: &str = "schema";

/// From the schema of its index plus one to the next: one row's new bytes, for each table that changed.
type Step = fn(Table, &[u8]) -> Result<Option<Vec<u8>>, String>;
const STEPS: &[Step] = &[one_to_two];

/// Creates the tables of a new file, brings an older one to [`SCHEMA`], and refuses a newer one. `now` is Unix time.
pub(crate) fn prepare(name: &str, database: &Database) -> Result<(), StoreError> {
    let failed = |why: &dyn Display| StoreError::Open { path: name.to_owned(), why: why.to_string() };
    let transaction = database.begin_write().map_err(|e| failed(&e))?;
    let found = {
        let meta = transaction.open_table(META).map_err(|e| failed(&e))?;
        meta.get(KEY).map_err(|e| failed(&e))?.map(|value| value.value())
    };
    if found == Some(SCHEMA) {
        return transaction.abort().map_err(|e| failed(&e));
    }
    for table in Table::ALL {
        transaction.open_table(table.definition()).map_err(|e| failed(&e))?;
    }
    if let Some(found) = found {
        migrate(name, &transaction, found)?;
        tracing::info!(file = name, from = found, to = SCHEMA, "the account store was migrated");
    }
    {
        let mut meta = transaction.open_table(META).map_err(|e| failed(&e))?;
        meta.insert(KEY, SCHEMA).map_err(|e| failed(&e))?;
    }
    transaction.commit().map_err(|e| failed(&e))
}

/// Refuses a file of any other schema, for those who only read.
pub(crate) fn check(name: &str, database: &impl ReadableDatabase) -> Result<(), StoreError> {
    let failed = |why: &dyn Display| StoreError::Open { path: name.to_owned(), why: why.to_string() };
    let transaction = database.begin_read().map_err(|e| failed(&e))?;
    let meta: ReadOnlyTable<&str, u32> = transaction.open_table(META).map_err(|e| failed(&e))?;
    match meta.get(KEY).map_err(|e| failed(&e))?.map(|value| value.value()) {
        Some(SCHEMA) => Ok(()),
        found => Err(StoreError::Schema { path: name.to_owned(), found: found.unwrap_or(0) }),
    }
}

fn migrate(name: &str, transaction: &WriteTransaction, found: u32) -> Result<(), StoreError> {
    let steps = usize::try_from(found).ok().and_then(|found| STEPS.get(found.checked_sub(1)?..));
    let Some(steps) = steps.filter(|steps| !steps.is_empty()) else {
        return Err(StoreError::Schema { path: name.to_owned(), found });
    };
    let failed = |why: &dyn Display| StoreError::Open { path: name.to_owned(), why: why.to_string() };
    for table in Table::ALL {
        let mut open = transaction.open_table(table.definition()).map_err(|e| failed(&e))?;
        let mut changed = Vec::new();
        for row in open.iter().map_err(|e| failed(&e))? {
            let (key, value) = row.map_err(|e| failed(&e))?;
            let mut bytes = value.value().to_vec();
            for step in steps {
                let next = step(table, &bytes);
                let key = || key.value().to_owned();
                let next = next.map_err(|why| StoreError::Damaged { key: key(), why })?;
                bytes = next.unwrap_or(bytes);
            }
            changed.push((key.value().to_owned(), bytes));
        }
        for (key, bytes) in changed {
            open.insert(key.as_str(), bytes.as_slice()).map_err(|e| failed(&e))?;
        }
    }
    Ok(())
}

/// A channel that pays us, as schema 1 has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PayeeRow1 {
    terms: TermsRow,
    deposit: Nanotons,
    paid: Nanotons,
    voucher: Option<Vec<u8>>,
    owed: Nanotons,
    closing: bool,
}

/// A channel that we pay into, as schema 1 has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PayerRow1 {
    terms: TermsRow,
    deposit: Nanotons,
    owed: Nanotons,
    signed: Nanotons,
    #[serde(default)]
    conceded: Nanotons,
    #[serde(default)]
    marked: bool,
}

fn one_to_two(table: Table, bytes: &[u8]) -> Result<Option<Vec<u8>>, String> {
    match table {
        Table::Notes => Ok(None),
        Table::Payee => {
            let PayeeRow1 { terms, deposit, paid, voucher, owed, closing } = decode(bytes)?;
            // The chain tells the deadline again at the first look.
            Ok(Some(encode(&PayeeRow { terms, deposit, paid, voucher, owed, closing, deadline: None })))
        }
        Table::Payer => {
            let PayerRow1 { terms, deposit, owed, signed, conceded, marked } = decode(bytes)?;
            // Used in the unknown past: 0 says so, and the first look counts from then.
            let (used, closing) = (0, false);
            Ok(Some(encode(&PayerRow { terms, deposit, owed, signed, conceded, marked, used, closing })))
        }
    }
}
