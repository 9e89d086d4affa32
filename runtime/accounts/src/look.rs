//! Looking into the books of a process that does not run. Nothing is written: whoever looks may have no right to, and what
//! is to be repaired is the program's own.

use std::{fmt::Display, path::Path};

use redb::{
    Database, DatabaseError, ReadOnlyDatabase, ReadableDatabase, StorageBackend, backends::InMemoryBackend,
};

use crate::{
    fresh, schema,
    store::{Rows, StoreError, Table, guarded, open_error, read_all},
};

/// The rows of a file that no process has open.
///
/// # Errors
/// As [`crate::Store::open`].
pub(crate) fn rows(path: &Path, table: Table) -> Result<Rows, StoreError> {
    let name = path.display().to_string();
    fresh::exists(path)?;
    guarded(&name, || match ReadOnlyDatabase::open(path) {
        Ok(database) => known(&name, &database, table),
        // Its program was killed. The repair that the next start makes is made on a copy.
        Err(DatabaseError::RepairAborted) => known(&name, &repaired(&name, path)?, table),
        Err(error) => Err(open_error(&name, &error)),
    })
}

fn known(name: &str, database: &impl ReadableDatabase, table: Table) -> Result<Rows, StoreError> {
    schema::check(name, database)?;
    read_all(name, database, table)
}

/// A repaired copy of a file, in memory.
fn repaired(name: &str, path: &Path) -> Result<Database, StoreError> {
    let failed = |why: &dyn Display| StoreError::Open { path: name.to_owned(), why: why.to_string() };
    let corrupt = |why: String| StoreError::Corrupt { path: name.to_owned(), why };
    let bytes = std::fs::read(path).map_err(|e| failed(&e))?;
    let memory = InMemoryBackend::new();
    memory.set_len(bytes.len() as u64).and_then(|()| memory.write(0, &bytes)).map_err(|e| failed(&e))?;
    // Memory does not fail: what goes wrong from here on is in the bytes.
    let opened = Database::builder().create_with_backend(memory);
    let mut database = opened.map_err(|e| corrupt(e.to_string()))?;
    match database.check_integrity() {
        Ok(true) => Ok(database),
        Ok(false) => Err(corrupt("its newest state does not match its checksums".to_owned())),
        Err(error) => Err(corrupt(error.to_string())),
    }
}
