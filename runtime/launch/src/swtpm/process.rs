//! swtpm as a child process.

use std::{
    fs,
    os::{
        fd::OwnedFd,
        unix::{fs::DirBuilderExt, net::UnixStream, process::CommandExt},
    },
    process::{Child, Stdio},
};

use super::TpmError;
use crate::{
    folder::{RunFolder, SWTPM, TPM_STATE},
    program::Program,
};

/// Its log, beside its state.
const LOG: &str = "log";
/// So much of it is quoted in an error, in bytes.
const MAX_SAID: usize = 1000;

/// A running swtpm. Ends with [`Process::end`], and when its data connection closes.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    state: std::path::PathBuf,
}

impl Process {
    /// Starts it with `control` as its control connection, which is its standard input: no name on disk, and no
    /// descriptor that another child could inherit.
    pub(super) fn start(swtpm: &Program, folder: &RunFolder, control: UnixStream) -> Result<Self, TpmError> {
        let state = folder.path().join(TPM_STATE);
        fs::DirBuilder::new().mode(0o700).create(&state).map_err(TpmError::Folder)?;
        let log = fs::File::create(state.join(LOG)).map_err(TpmError::Folder)?;
        let child = swtpm
            .command()
            .args(["socket", "--tpm2", "--terminate"])
            // Relative to its folder: a state folder may have a comma in its path.
            .args(["--tpmstate", "dir=.", "--ctrl", "type=unixio,clientfd=0"])
            .current_dir(&state)
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(control)))
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .spawn()
            .map_err(|source| TpmError::Start { program: swtpm.file().to_path_buf(), source })?;
        let process = Self { child, state };
        folder.note_process(SWTPM, process.id()).map_err(TpmError::Folder)?;
        Ok(process)
    }

    /// That it would not serve, with its own words.
    pub(super) fn refused(&self, source: std::io::Error) -> TpmError {
        let said = fs::read(self.state.join(LOG)).unwrap_or_default();
        let said =
            String::from_utf8_lossy(said.get(said.len().saturating_sub(MAX_SAID)..).unwrap_or_default());
        TpmError::Mute { source, said: said.trim().replace('\n', " | ") }
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it, waits, and removes its state: the next run has a new TPM.
    pub(super) fn end(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.state));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
