//! Run-time registers of a TD, through sysfs (`Documentation/ABI/testing/sysfs-devices-virtual-misc-tdx_guest`, Linux
//! 6.16 and later with `CONFIG_TSM_MEASUREMENTS`).
//!
//! A register is a file of 48 bytes: reading gives its value, one write of 48 bytes extends it (TDG.MR.RTMR.EXTEND).

use super::clock::{Clock, Trouble, persist};
use super::files::{Files, passes, read, trouble};
use super::{RUNTIME_REGISTER, TeeError};
use std::path::{Path, PathBuf};

/// Where the registers are, under the root.
pub(super) const FOLDER: &str = "sys/devices/virtual/misc/tdx_guest/measurements";

/// The registers that the kernel shows.
pub(super) struct Registers {
    files: Box<dyn Files>,
    clock: Box<dyn Clock>,
    folder: PathBuf,
}

impl Registers {
    pub(super) fn new(folder: PathBuf, files: Box<dyn Files>, clock: Box<dyn Clock>) -> Self {
        Self { files, clock, folder }
    }

    /// Extends once, and sees that it was so: the register is read before and after. Hence `&mut`.
    pub(super) fn extend(&mut self, digest: &[u8; 48]) -> Result<(), TeeError> {
        let path = self.folder.join(format!("rtmr{RUNTIME_REGISTER}:sha384"));
        if !self.files.exists(&path) {
            return Err(no_registers(&path));
        }
        let files = self.files.as_ref();
        let gave_up = |path: &Path| {
            let path = path.to_path_buf();
            |gave_up: super::clock::GaveUp| gave_up.at(path)
        };
        let before = persist(self.clock.as_ref(), || value(files, &path), gave_up(&path))?;
        let after = cocoon_attestation::extend(&before, digest);
        let attempt = || extend_once(files, &path, digest, &before, &after);
        persist(self.clock.as_ref(), attempt, gave_up(&path))
    }
}

fn extend_once(
    files: &dyn Files,
    path: &Path,
    digest: &[u8; 48],
    before: &[u8; 48],
    after: &[u8; 48],
) -> Result<(), Trouble<TeeError>> {
    // An earlier attempt may have done it, although it ended in an error.
    let now = value(files, path)?;
    if now != *before {
        return if now == *after { Ok(()) } else { Err(Trouble::Lasting(changed(path, after, &now))) };
    }
    match files.write(path, digest) {
        Ok(()) => {}
        Err(error) if passes(&error) => return Err(trouble(path, error)),
        Err(error) => return Err(Trouble::Lasting(unwritable(path, error))),
    }
    match value(files, path)? {
        now if now == *after => Ok(()),
        now => Err(Trouble::Lasting(changed(path, after, &now))),
    }
}

fn value(files: &dyn Files, path: &Path) -> Result<[u8; 48], Trouble<TeeError>> {
    let bytes = read(files, path, 48)?;
    bytes.as_slice().try_into().map_err(|_| {
        let text = format!("{} bytes in {}, where a register has 48", bytes.len(), path.display());
        Trouble::Lasting(TeeError::Malformed(text))
    })
}

fn no_registers(path: &Path) -> TeeError {
    TeeError::NoRegisters(format!(
        "this kernel cannot extend the TD's run-time registers: {} is not there; boot the guest image with Linux 6.16 or \
         later and CONFIG_TSM_MEASUREMENTS",
        path.display()
    ))
}

fn unwritable(path: &Path, source: std::io::Error) -> TeeError {
    TeeError::Unreachable { path: path.to_path_buf(), source }
}

fn changed(path: &Path, expected: &[u8; 48], got: &[u8; 48]) -> TeeError {
    TeeError::Malformed(format!(
        "{} in {}, where {} must be after this extension: something else in this guest extends the register",
        hex::encode(got),
        path.display(),
        hex::encode(expected)
    ))
}
