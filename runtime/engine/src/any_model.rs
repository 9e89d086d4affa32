//! A model of either kind, and a folder as one file.

use std::{io::Write, path::Path};

use crate::{
    archive::{self, Archive, PackError},
    container::FileSource,
    embedder::EmbeddingModel,
    error::ModelError,
    files::{Files, Folder, Noted},
    model::Model,
};

/// A model of either kind. What it is, its own bytes say.
#[expect(clippy::large_enum_variant, reason = "there is one of it, which is taken apart at once")]
pub enum AnyModel {
    /// Writes text.
    Text(Model),
    /// Makes vectors of texts.
    Vectors(EmbeddingModel),
}

impl AnyModel {
    /// Reads a GGUF file, a Hugging Face folder, or the archive of one ([`pack`]).
    ///
    /// # Errors
    /// The file cannot be read, is cut short or malformed, or holds a model that this engine does not run.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if path.is_dir() {
            return Self::from_files(&Folder(path));
        }
        let file = FileSource::open(path)?;
        match Archive::is_at(&file)? {
            true => Self::from_files(&Archive::load(&file)?),
            false => Model::open(path).map(Self::Text),
        }
    }

    /// A GGUF or an archive from memory. Hash these bytes first, and what was measured is what runs.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, ModelError> {
        match Archive::is_one(&bytes) {
            true => Self::from_files(&Archive::read(bytes)?),
            false => Model::from_bytes(bytes).map(Self::Text),
        }
    }

    fn from_files(files: &dyn Files) -> Result<Self, ModelError> {
        match EmbeddingModel::is_one(files)? {
            true => EmbeddingModel::read(files).map(Self::Vectors),
            false => Model::from_files(files).map(Self::Text),
        }
    }
}

/// Writes a folder's model as one file: the archive of all that is read of it, in POSIX's ustar format with one spelling, so
/// that its hash names the model. Reads the model first: what this engine does not run is not packed.
///
/// # Errors
/// [`PackError`].
pub fn pack(folder: &Path, out: &mut dyn Write) -> Result<(), PackError> {
    let folder = Folder(folder);
    let noted = Noted::new(&folder);
    drop(AnyModel::from_files(&noted)?);
    let names = noted.into_names();
    archive::write(&folder, names.iter().map(String::as_str), out)
}
