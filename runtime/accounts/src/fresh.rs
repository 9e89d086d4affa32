//! The first moment of a file: it gets its name when it holds its schema, so that a file which is there and empty was
//! cut short, and is no fresh book.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use redb::Database;

use crate::{schema, store::StoreError};

/// Whether there is a file.
///
/// # Errors
/// [`StoreError::Corrupt`] for an empty one, [`StoreError::Open`] when the system does not say.
pub(crate) fn exists(path: &Path) -> Result<bool, StoreError> {
    let name = || path.display().to_string();
    match fs::metadata(path) {
        Ok(found) if found.len() == 0 => {
            Err(StoreError::Corrupt { path: name(), why: "the file is empty: it was cut short".to_owned() })
        }
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::Open { path: name(), why: error.to_string() }),
    }
}

/// Makes a file with no rows in it, whole on the disk under its name when this returns.
///
/// # Errors
/// [`StoreError::Open`]; [`StoreError::Locked`] when another process makes the same one now.
pub(crate) fn create(path: &Path) -> Result<(), StoreError> {
    let name = path.display().to_string();
    let failed = |why: &dyn std::fmt::Display| StoreError::Open { path: name.clone(), why: why.to_string() };
    let beside = path.with_extension("fresh");
    {
        let database = Database::create(&beside).map_err(|e| crate::store::open_error(&name, &e))?;
        schema::prepare(&name, &database)?;
    }
    // Of two processes that start at once, one names its file and the other finds it; neither takes the other's away.
    match fs::hard_link(&beside, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(&error)),
        _ => {}
    }
    fs::remove_file(&beside).map_err(|e| failed(&e))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| failed(&e))
}
