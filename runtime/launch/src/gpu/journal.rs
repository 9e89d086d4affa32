//! The run file: how the devices were found, and which steps were begun. It outlives the process.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::plan::Modes;
use super::{PciAddress, Plan, Step};

/// The format's version.
const VERSION: u32 = 1;
/// A run file of sixteen devices with all their steps is a fraction of this.
const MOST_BYTES: u64 = 1 << 20;

/// How a device was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Before {
    /// Which.
    pub device: PciAddress,
    /// The driver that had it.
    pub driver: Option<String>,
    /// What `driver_override` said.
    pub driver_override: Option<String>,
    /// The modes it was in.
    pub modes: Modes,
}

/// The state before, and what was begun since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    version: u32,
    /// How the devices were found.
    pub before: Vec<Before>,
    /// The steps that were begun, in order; the last may not have been done.
    pub begun: Vec<Step>,
}

/// A run file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be read or written.
    #[error("the run file {path} cannot be {what}: {source}")]
    File {
        /// Where.
        path: PathBuf,
        /// "read", "written", "removed".
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not one.
    #[error(
        "{path} is no run file of this version ({why}); give the GPUs back by hand: clear driver_override and bind them to \
         their driver, then delete the file"
    )]
    NotOurs {
        /// Where.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

impl Journal {
    /// Of a plan of which nothing has been done.
    pub fn of(plan: &Plan) -> Self {
        Self { version: VERSION, before: plan.before.clone(), begun: Vec::new() }
    }

    /// Reads a run file; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read, or is not one.
    pub fn read(path: &Path) -> Result<Option<Self>, JournalError> {
        let failed = |source| JournalError::File { path: path.to_owned(), what: "read", source };
        let file = match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        let mut text = String::new();
        file.take(MOST_BYTES).read_to_string(&mut text).map_err(failed)?;
        let not_ours = |why: String| JournalError::NotOurs { path: path.to_owned(), why };
        let journal: Self = serde_json::from_str(&text).map_err(|error| not_ours(error.to_string()))?;
        match journal.version {
            VERSION => Ok(Some(journal)),
            other => Err(not_ours(format!("version {other}"))),
        }
    }

    /// Writes it so that after a crash, of the machine too, either the old or the new one is whole on the disk.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), JournalError> {
        let failed = |source| JournalError::File { path: path.to_owned(), what: "written", source };
        let text = serde_json::to_vec_pretty(self).expect("it holds only text, numbers and lists");
        let staging = path.with_extension("new");
        let mut file = File::create(&staging).map_err(failed)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
        std::fs::rename(&staging, path).map_err(failed)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all()).map_err(failed)
    }

    /// Deletes a run file that is done with.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(path: &Path) -> Result<(), JournalError> {
        std::fs::remove_file(path).map_err(|source| JournalError::File {
            path: path.to_owned(),
            what: "removed",
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal() -> Journal {
        let device = "41:00.0".parse().expect("an address");
        Journal {
            version: VERSION,
            before: vec![Before {
                device,
                driver: Some("nvidia".into()),
                driver_override: None,
                modes: Modes::default(),
            }],
            begun: vec![Step::Unbind { device, driver: "nvidia".into() }],
        }
    }

    #[test]
    fn a_run_file_survives_the_disk() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("gpus.json");
        assert_eq!(Journal::read(&path).expect("it can be read"), None);
        journal().write(&path).expect("it can be written");
        assert_eq!(Journal::read(&path).expect("it can be read"), Some(journal()));
        Journal::remove(&path).expect("it can be removed");
        assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 0, "nothing is left");
    }

    #[test]
    fn a_run_file_of_another_version_is_refused_with_the_way_out() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("gpus.json");
        for text in [
            r#"{"version":2,"before":[],"begun":[]}"#,
            "",
            "{",
            r#"{"version":1,"before":[],"begun":[],"x":1}"#,
        ] {
            std::fs::write(&path, text).expect("it can be written");
            let error = Journal::read(&path).expect_err("it is not ours").to_string();
            assert!(error.contains("by hand"), "{error}");
        }
    }
}
