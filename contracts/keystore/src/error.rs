//! What can go wrong with keys: what happened, to which file, and what to do. No error repeats a secret.

use std::path::{Path, PathBuf};

use cocoon_contracts::KeyError;

/// Why a key could not be kept or opened.
#[derive(Debug, thiserror::Error)]
pub enum KeystoreError {
    /// A file cannot be read or written.
    #[error("cannot {action} {path}: {error}", path = path.display())]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// There is a key already.
    #[error("there is a key at {path} already: it was not touched", path = .0.display())]
    Exists(PathBuf),
    /// Others can read the file.
    #[error("{path} can be read by others (mode {mode:03o})", path = path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file is not a key file, or only a part of one.
    #[error("{path} is not a key: {why}", path = path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The sealed key does not open.
    #[error("{path} does not open: the passphrase is wrong, or the file was changed", path = .0.display())]
    DoesNotOpen(PathBuf),
    /// The secret is not the one that the file names.
    #[error("the secret is not that of the public key in {path}", path = .0.display())]
    AnotherKey(PathBuf),
    /// There is no keyring, or it refuses.
    #[error("the system's keyring cannot be used: {0}")]
    Keyring(String),
    /// The keyring has no such key.
    #[error("the system's keyring has no entry `{0}`")]
    NotInKeyring(String),
    /// Nobody to ask.
    #[error("the passphrase cannot be asked for: there is no terminal")]
    NoTerminal,
    /// A passphrase that cannot be used.
    #[error("the passphrase cannot be used: {0}")]
    BadPassphrase(&'static str),
    /// No random bytes, or a key that proves nothing.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The words.
    #[error(transparent)]
    Mnemonic(#[from] MnemonicError),
}

impl KeystoreError {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Io { .. } => "check the file's owner, its folder and the disk".to_owned(),
            Self::Exists(_) => "name another file, or move that one away if nothing depends on it".to_owned(),
            Self::Exposed { path, .. } => format!("chmod 600 {}", path.display()),
            Self::NotAKey { .. } => {
                "restore it from your backup, or from its words; delete it only if nothing is owed to or held by its wallet".to_owned()
            }
            Self::DoesNotOpen(_) => {
                "try the passphrase again; if it is right, restore the file from your backup, or the key from its words".to_owned()
            }
            Self::AnotherKey(_) => "restore the file and its secret together".to_owned(),
            Self::Keyring(_) => {
                "log in to a session with a Secret Service (GNOME Keyring, KWallet, KeePassXC), or keep the key in an encrypted file (without --keyring)".to_owned()
            }
            Self::NotInKeyring(_) => {
                "unlock the keyring that it was put into, or restore the key from its words".to_owned()
            }
            Self::NoTerminal => {
                "name a file with --passphrase-file FILE, or an open descriptor with --passphrase-fd N".to_owned()
            }
            Self::BadPassphrase(_) => "choose another".to_owned(),
            Self::Key(_) => "try again".to_owned(),
            Self::Mnemonic(_) => "look at the words again; they are 24, in order".to_owned(),
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self::Io { action, path: path.to_owned(), error }
    }
}

/// Why words are no mnemonic. Says where, and repeats no word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MnemonicError {
    /// Not 24.
    #[error("a TON mnemonic has 24 words, these are {0}")]
    Count(usize),
    /// A word that is not on the list.
    #[error("word {0} is not on the list of mnemonic words")]
    UnknownWord(usize),
    /// All words are known, and they do not belong together.
    #[error(
        "the words do not belong together: one is wrong, two are exchanged, or they have a password of their own"
    )]
    DoNotBelong,
    /// The words are good without a password, and one was given.
    #[error("these words have no password of their own")]
    NoPasswordNeeded,
}
