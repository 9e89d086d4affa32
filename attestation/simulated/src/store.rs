//! The root on disk: certificates for everybody, keys for the owner alone.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::keys::Key;
use crate::pki::{Authority, Pki, SimulatedRoot};

/// The largest file of a stored root, in bytes.
const MAX_FILE: u64 = 8 * 1024;
const NAMES: [&str; 4] = ["root-ca", "pck-ca", "pck", "tcb-signer"];

/// A stored root that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system said no.
    #[error("simulated root: cannot use {path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("simulated root: {0} is not a P-256 key or certificate of ours; create the root anew")]
    Damaged(PathBuf),
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> StoreError + '_ {
    move |source| StoreError::File { path: path.to_owned(), source }
}

impl SimulatedRoot {
    /// Writes certificates (`NAME.der`) and keys (`NAME.pk8`, mode 0600) into `folder`, made with mode 0700 if missing.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), StoreError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed(folder))?;
        for (name, authority) in NAMES.into_iter().zip(self.authorities()) {
            write(&folder.join(format!("{name}.pk8")), authority.key.pkcs8(), 0o600)?;
            write(&folder.join(format!("{name}.der")), &authority.certificate, 0o644)?;
        }
        Ok(())
    }

    /// Reads what [`SimulatedRoot::save`] wrote.
    ///
    /// # Errors
    /// If a file is missing, too large, or holds no key.
    pub fn load(folder: &Path) -> Result<Self, StoreError> {
        let mut authorities = NAMES.into_iter().map(|name| authority(folder, name));
        let mut next = || authorities.next().expect("there are four names");
        Ok(Self(Arc::new(Pki { root: next()?, pck_ca: next()?, pck: next()?, tcb_signer: next()? })))
    }

    fn authorities(&self) -> [&Authority; 4] {
        let pki = &self.0;
        [&pki.root, &pki.pck_ca, &pki.pck, &pki.tcb_signer]
    }
}

fn authority(folder: &Path, name: &str) -> Result<Authority, StoreError> {
    let key_path = folder.join(format!("{name}.pk8"));
    let key = Key::from_pkcs8(read(&key_path)?).ok_or(StoreError::Damaged(key_path))?;
    let path = folder.join(format!("{name}.der"));
    let certificate = read(&path)?;
    // The certificate must be this key's, or every quote would be refused later for a reason hard to see.
    if !certificate.windows(key.public().len()).any(|window| window == key.public()) {
        return Err(StoreError::Damaged(path));
    }
    Ok(Authority { certificate, key })
}

/// Writes beside and renames, so that a file is never half written.
fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), StoreError> {
    let beside = path.with_extension("new");
    let create = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    create().map_err(failed(path))
}

fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    let mut content = Vec::new();
    let file = fs::File::open(path).map_err(failed(path))?;
    file.take(MAX_FILE + 1).read_to_end(&mut content).map_err(failed(path))?;
    if content.len() as u64 > MAX_FILE { Err(StoreError::Damaged(path.to_owned())) } else { Ok(content) }
}
