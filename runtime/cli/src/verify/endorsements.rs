//! Where endorsements come from: the files that were named. Whatever else brings some adds to [`sorted`]'s list.

use std::path::{Path, PathBuf};

use cocoon_attestation::{Endorsement, Endorsements, Refusal};

use super::inputs::read_file;
use crate::error::{Explain, Failure};

/// Most files of one folder that are looked at; one more than the verifier takes, so that it can say so.
const MAX_FILES: usize = 65;

/// A file by its name.
pub(super) struct File {
    name: String,
    bytes: Vec<u8>,
}

/// Reads files, and the files of folders by name.
///
/// # Errors
/// A mistake in usage for whatever cannot be read.
pub(super) fn read(paths: &[PathBuf]) -> Result<Vec<File>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        let named = if path.is_dir() { of_folder(path)? } else { vec![path.clone()] };
        for path in named {
            files.push(File { name: path.display().to_string(), bytes: read_file(&path)? });
            if files.len() > MAX_FILES {
                return Err(Failure::usage("more than 64 endorsement files", "name fewer files"));
            }
        }
    }
    Ok(files)
}

fn of_folder(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .explain(|| format!("cannot read the folder {}", folder.display()), "check its name and owner")?;
    entries.retain(|entry| entry.is_file());
    entries.sort();
    entries.truncate(MAX_FILES);
    Ok(entries)
}

/// What the files hold, each told apart by its form; or the refusal of the first that is nothing known.
///
/// # Errors
/// A mistake in usage if there are too many.
pub(super) fn sorted(files: &[File]) -> Result<Result<Endorsements, Refusal>, Failure> {
    for File { name, bytes } in files {
        if let Err(error) = Endorsement::sort(bytes) {
            return Ok(Err(Refusal::malformed_endorsement(name, &error)));
        }
    }
    // Each by itself is well formed, so what fails now is a limit on all of them.
    Endorsements::from_files(files.iter().map(|file| file.bytes.clone()))
        .map(Ok)
        .map_err(|error| Failure::usage(error.to_string(), "name fewer files"))
}
