//! The file itself: found, made, and told apart from what only looks like one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError};

use super::{builder, guarded};
use crate::LedgerError;

/// Opens the file, if it is there. One that is there is never taken for a new ledger, whatever it holds.
pub(super) fn open(path: &Path) -> Result<Option<Database>, LedgerError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(path, &error)),
        Ok(found) if found.len() == 0 => {
            return Err(LedgerError::Broken { what: format!("{}: the file is empty", path.display()) });
        }
        Ok(_) => {}
    }
    guarded(|| builder().open(path).map_err(|error| refused(path, error)))
        .map(Some)
        .map_err(|error| located(path, error))
}

/// Makes a file: `begin` fills it under another name, so that the right name never names half a beginning.
pub(super) fn create(
    path: &Path,
    begin: impl FnOnce(Database) -> Result<(), LedgerError>,
) -> Result<Database, LedgerError> {
    let beside = beginning(path);
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unusable(&beside, &error)),
        _ => {}
    }
    let database = guarded(|| builder().create(&beside).map_err(|error| refused(&beside, error)))?;
    begin(database)?;
    fs::rename(&beside, path).map_err(|error| unusable(path, &error))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| unusable(folder, &error))?;
    open(path)?.ok_or_else(|| unusable(path, &io::Error::from(io::ErrorKind::NotFound)))
}

fn beginning(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

fn refused(path: &Path, error: DatabaseError) -> LedgerError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => LedgerError::InUse { path: path.to_owned() },
        DatabaseError::UpgradeRequired(version) => {
            LedgerError::Broken { what: format!("a redb file of version {version}") }
        }
        DatabaseError::Storage(redb::StorageError::Corrupted(what)) => LedgerError::Broken { what },
        DatabaseError::Storage(redb::StorageError::Io(error))
            if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            LedgerError::Broken { what: error.to_string() }
        }
        other => LedgerError::Store { why: format!("{}: {other}", path.display()) },
    }
}

/// The damage, with where it is.
fn located(path: &Path, error: LedgerError) -> LedgerError {
    match error {
        LedgerError::Broken { what } => LedgerError::Broken { what: format!("{}: {what}", path.display()) },
        other => other,
    }
}

fn unusable(path: &Path, error: &io::Error) -> LedgerError {
    LedgerError::Store { why: format!("{}: {error}", path.display()) }
}
