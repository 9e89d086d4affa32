//! Where keys are kept: TON mnemonics, key files, the system's keyring, and the passphrases that open them.
//!
//! - [`Mnemonic`]: the 24 words that every TON wallet knows, and the key that they stand for.
//! - [`KeyFile`]: one file for each key. It says which wallet the key belongs to and its public key; the secret is in it
//!   as it is (development), sealed under a passphrase, or in the system's keyring.
//! - [`PassphraseSource`]: a terminal without echo, a file, or a file descriptor; never an argument, never the environment.
//!
//! Nothing secret here can be printed: secrets have no `Debug`, no `Display`, and are wiped when dropped. A key file is
//! written whole or not at all, for its owner alone, and never over another.

mod error;
mod file;
mod mnemonic;
mod sealed;
mod secret;
mod system;

pub use error::{KeystoreError, MnemonicError};
pub use file::{Keep, KeyFile, MAX_KEY_FILE, Protection};
pub use mnemonic::{Mnemonic, WORDS};
pub use sealed::Cost;
pub use secret::{MAX_PASSPHRASE, Passphrase, PassphraseSource};
