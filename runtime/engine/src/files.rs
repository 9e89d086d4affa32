//! The files of a model that lies in several: in a folder, or in an archive of one.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Mutex,
};

use serde::de::DeserializeOwned;

use crate::{
    container::{FileSource, Source},
    error::ModelError,
};

/// Files by name. A name may have folders in it, parted by `/`, and never leads out: readers check what files say of others.
pub(crate) trait Files: Sync {
    /// What the whole is called, if it has a name.
    fn name(&self) -> Option<&str>;

    /// The file of this name; `None` if there is none.
    fn open(&self, name: &str) -> Result<Option<Box<dyn Source>>, ModelError>;
}

/// A folder.
pub(crate) struct Folder<'p>(pub(crate) &'p Path);

impl Files for Folder<'_> {
    fn name(&self) -> Option<&str> {
        self.0.file_name().and_then(|name| name.to_str())
    }

    fn open(&self, name: &str) -> Result<Option<Box<dyn Source>>, ModelError> {
        let path: PathBuf = self.0.join(name);
        if path.exists() { Ok(Some(Box::new(FileSource::open(&path)?))) } else { Ok(None) }
    }
}

/// Notes which files are there of those that a reader asks for.
pub(crate) struct Noted<'f> {
    files: &'f dyn Files,
    names: Mutex<BTreeSet<String>>,
}

impl<'f> Noted<'f> {
    pub(crate) fn new(files: &'f dyn Files) -> Self {
        Self { files, names: Mutex::default() }
    }

    /// What was asked for and is there, in order.
    pub(crate) fn into_names(self) -> BTreeSet<String> {
        self.names.into_inner().expect("no code panics while it holds this lock")
    }
}

impl Files for Noted<'_> {
    fn name(&self) -> Option<&str> {
        self.files.name()
    }

    fn open(&self, name: &str) -> Result<Option<Box<dyn Source>>, ModelError> {
        let found = self.files.open(name)?;
        if found.is_some() {
            self.names.lock().expect("no code panics while it holds this lock").insert(name.to_owned());
        }
        Ok(found)
    }
}

/// A file that must be there.
pub(crate) fn required(files: &dyn Files, name: &str) -> Result<Box<dyn Source>, ModelError> {
    files.open(name)?.ok_or_else(|| ModelError::Missing(format!("the file {name}")))
}

/// The bytes of a file that must be there, up to `limit` of them.
pub(crate) fn whole(files: &dyn Files, name: &str, limit: u64) -> Result<Vec<u8>, ModelError> {
    read(&*required(files, name)?, name, limit)
}

/// A JSON file that must be there, of up to `limit` bytes.
pub(crate) fn json<T: DeserializeOwned>(files: &dyn Files, name: &str, limit: u64) -> Result<T, ModelError> {
    parse(&whole(files, name, limit)?, name)
}

/// The same of one that need not be there.
pub(crate) fn optional<T: DeserializeOwned + Default>(
    files: &dyn Files,
    name: &str,
    limit: u64,
) -> Result<T, ModelError> {
    match files.open(name)? {
        Some(file) => parse(&read(&*file, name, limit)?, name),
        None => Ok(T::default()),
    }
}

fn read(file: &dyn Source, name: &str, limit: u64) -> Result<Vec<u8>, ModelError> {
    if file.size() > limit {
        return Err(ModelError::Limit { what: format!("the size of {name}"), found: file.size(), limit });
    }
    let mut bytes = vec![0; file.size() as usize];
    file.read(0, &mut bytes, name)?;
    Ok(bytes)
}

fn parse<T: DeserializeOwned>(bytes: &[u8], name: &str) -> Result<T, ModelError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ModelError::Malformed(format!("{name} cannot be understood: {error}")))
}
