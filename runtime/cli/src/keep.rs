//! Papers of an answer, kept for whoever audits it later.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use cocoon_protocol::VerifiedReceipt;

use crate::error::{Explain, Failure};

/// Writes `bundle.cmw`, `receipt.cbor` and `opening.cbor` into a folder that is made if need be.
///
/// # Errors
/// The disk's.
pub(crate) fn papers(folder: &Path, bundle: &[u8], receipt: &VerifiedReceipt) -> Result<(), Failure> {
    let cannot = || format!("cannot make {}", folder.display());
    std::fs::create_dir_all(folder)
        .explain(cannot, "check the disk, or choose another folder with --keep DIR")?;
    write(folder, "bundle.cmw", bundle)?;
    self::receipt(folder, receipt)
}

/// Writes `receipt.cbor` and `opening.cbor`.
///
/// # Errors
/// The disk's.
pub(crate) fn receipt(folder: &Path, receipt: &VerifiedReceipt) -> Result<(), Failure> {
    write(folder, "receipt.cbor", &receipt.signed().encode())?;
    write(folder, "opening.cbor", &receipt.opening().encode())
}

/// Writes a file that nobody else may read: an opening holds the prompt.
///
/// # Errors
/// The disk's.
pub(crate) fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    let path = folder.join(name);
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
    file.and_then(|mut file| file.write_all(bytes)).explain(
        || format!("cannot write {}", path.display()),
        "check the disk, or choose another folder with --keep DIR",
    )
}
