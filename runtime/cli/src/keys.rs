//! Key files, as commands use them: read, made on first use, opened with the passphrase that the user gives.
//!
//! Wallets are in the form of `cocoon-keystore`, which says their version; session keys are 64 hexadecimal digits.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cocoon_contracts::SigningKey;
use cocoon_contracts::wallet::WalletVersion;
use cocoon_keystore::{Keep, KeyFile, KeystoreError, PassphraseSource};

use crate::error::{Explain, Failure};

/// Where passphrases come from. Every command that opens a wallet takes these; they are explained in docs/wallets.md.
#[derive(clap::Args, Clone)]
pub(crate) struct PassphraseOptions {
    /// Read the wallet's passphrase from a file
    #[arg(long, value_name = "FILE", global = true, hide = true, conflicts_with = "passphrase_fd")]
    passphrase_file: Option<PathBuf>,
    /// Read it from an open file descriptor
    #[arg(long, value_name = "N", global = true, hide = true)]
    passphrase_fd: Option<u32>,
}

/// Set once, when the command line is read: the ways to a key are many.
static SOURCE: OnceLock<PassphraseSource> = OnceLock::new();

impl PassphraseOptions {
    /// From now on passphrases come from there.
    pub(crate) fn install(self) {
        let source = match (self.passphrase_file, self.passphrase_fd) {
            (Some(path), _) => PassphraseSource::File(path),
            (None, Some(number)) => PassphraseSource::Descriptor(number),
            (None, None) => PassphraseSource::Terminal,
        };
        let _ = SOURCE.set(source);
    }
}

/// Where passphrases come from.
pub(crate) fn passphrases() -> &'static PassphraseSource {
    SOURCE.get_or_init(|| PassphraseSource::Terminal)
}

/// An error of the keystore with its own remedy.
pub(crate) fn explain(error: &KeystoreError) -> Failure {
    Failure::new(error.to_string(), error.remedy())
}

/// What a wallet's key file says, without its secret; `None` when there is none.
pub(crate) fn look(path: &Path) -> Result<Option<KeyFile>, Failure> {
    KeyFile::load(path).map_err(|error| explain(&error))
}

/// The secret of a key file; asks for the passphrase if there is one.
pub(crate) fn open(file: &KeyFile, path: &Path) -> Result<SigningKey, Failure> {
    let prompt = format!("Passphrase of {}: ", path.display());
    file.open(|| passphrases().read(&prompt)).map_err(|error| explain(&error))
}

/// Reads a wallet's key, or makes one: v5r1, the seed as it is. An older file is a v4r2 wallet and stays one.
pub(crate) fn load_or_create_wallet(path: &Path) -> Result<(SigningKey, WalletVersion), Failure> {
    if let Some(file) = look(path)? {
        return Ok((open(&file, path)?, file.wallet()));
    }
    let key = generate()?;
    KeyFile::create(path, &key, WalletVersion::V5R1, &Keep::Plain).map_err(|error| explain(&error))?;
    Ok((key, WalletVersion::V5R1))
}

/// Reads a key that somebody else has made; `None` where there is none.
pub(crate) fn load_existing(path: &Path) -> Result<Option<SigningKey>, Failure> {
    look(path)?.map(|file| open(&file, path)).transpose()
}

/// Reads a session key, or makes one. The secret goes to the file and nowhere else.
pub(crate) fn load_or_create(path: &Path) -> Result<SigningKey, Failure> {
    match look(path)? {
        Some(file) => open(&file, path),
        None => create(path),
    }
}

/// A new key from the system's random generator.
pub(crate) fn generate() -> Result<SigningKey, Failure> {
    SigningKey::generate().explain(|| "no key could be made".into(), "try again")
}

fn create(path: &Path) -> Result<SigningKey, Failure> {
    let key = generate()?;
    let write = || -> std::io::Result<()> {
        // Never over an existing file: a key that is lost is money that is lost.
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(hex::encode(key.expose_seed()).as_bytes())?;
        file.sync_all()
    };
    match write() {
        // Another process of this profile made it just now.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => load_or_create(path),
        outcome => outcome.map(|()| key).explain(
            || format!("cannot write the key {}", path.display()),
            "check the disk and the folder's owner",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_stays() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("session.key");
        let made = load_or_create(&path).expect("it is made").public();
        assert_eq!(load_or_create(&path).expect("it is read").public(), made);
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_new_wallet_is_v5r1_and_an_older_one_stays_what_it_was() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("wallet.key");
        let (made, version) = load_or_create_wallet(&path).expect("it is made");
        assert_eq!(version, WalletVersion::V5R1);
        let (read, version) = load_or_create_wallet(&path).expect("it is read");
        assert_eq!((read.public(), version), (made.public(), WalletVersion::V5R1));
        let older = folder.path().join("older.key");
        let seed = load_or_create(&older).expect("the form of before").public();
        let (key, version) = load_or_create_wallet(&older).expect("it is read");
        assert_eq!((key.public(), version), (seed, WalletVersion::V4R2));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("wallet.key");
        load_or_create(&path).expect("it is made");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))
            .expect("its mode is ours to set");
        let failure = load_or_create(&path).err().expect("it is refused");
        assert!(failure.remedy.contains("chmod 600"), "{failure}");
    }

    #[test]
    fn a_damaged_key_is_never_replaced() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("wallet.key");
        std::fs::write(&path, "half a ke").expect("it is written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
            .expect("its mode is ours to set");
        assert!(load_or_create(&path).is_err());
        assert!(load_or_create_wallet(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "half a ke");
    }
}
