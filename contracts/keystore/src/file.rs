//! Key files. One line for each fact, in this order and no other:
//!
//! ```text
//! cocoon-key 1
//! wallet v5r1
//! public 80a6f98dba4d1192d62685b8d0a9f85186c78f9a6a302dc03d344ccee0a01671
//! argon2id 65536 3 SALT NONCE SEALED          or: seed HEX          or: keyring NAME
//! ```
//!
//! A file of 64 hexadecimal digits alone is the older form: a seed as it is, of a v4r2 wallet or of no wallet.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cocoon_contracts::wallet::WalletVersion;
use cocoon_contracts::{SigningKey, VerifyingKey, check_key};
use zeroize::Zeroizing;

use crate::sealed::Sealed;
use crate::secret::refuse_exposed;
use crate::{Cost, KeystoreError, Passphrase, system};

/// The longest key file that is read, in bytes.
pub const MAX_KEY_FILE: usize = 1024;
const FIRST_LINE: &str = "cocoon-key 1";

/// A key file that was read. Says everything but the secret.
pub struct KeyFile {
    path: PathBuf,
    wallet: WalletVersion,
    public: VerifyingKey,
    secret: Secret,
}

enum Secret {
    Plain(Zeroizing<[u8; 32]>),
    Sealed(Sealed),
    Keyring(String),
}

/// Where a key's secret is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// In the file, as it is: for development networks.
    Plain,
    /// In the file, under a passphrase.
    Passphrase,
    /// In the system's keyring.
    Keyring,
}

impl Protection {
    /// It in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Plain => "in the file as it is, for its owner alone",
            Self::Passphrase => "in the file, encrypted under a passphrase",
            Self::Keyring => "in the system's keyring",
        }
    }
}

/// How a new key is to be kept.
pub enum Keep<'a> {
    /// See [`Protection::Plain`].
    Plain,
    /// See [`Protection::Passphrase`].
    Sealed(&'a Passphrase, Cost),
    /// See [`Protection::Keyring`].
    Keyring,
}

impl KeyFile {
    /// Reads a key file; `None` when there is none.
    ///
    /// # Errors
    /// A file that others can read, or that is not a whole key file.
    pub fn load(path: &Path) -> Result<Option<Self>, KeystoreError> {
        let file = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(KeystoreError::io("read", path))?,
        };
        refuse_exposed(&file, path, 0o077)?;
        let not_a_key = |why| KeystoreError::NotAKey { path: path.to_owned(), why };
        // Into memory of a fixed size: growing would leave copies of a plain key behind.
        let mut buffer = Zeroizing::new([0; MAX_KEY_FILE + 1]);
        let length = read_whole(file, &mut *buffer).map_err(KeystoreError::io("read", path))?;
        if length > MAX_KEY_FILE {
            return Err(not_a_key("it is too long"));
        }
        let text = std::str::from_utf8(&buffer[..length]).map_err(|_| not_a_key("it is not text"))?;
        let (wallet, public, secret) = parse(text.trim_end()).map_err(not_a_key)?;
        Ok(Some(Self { path: path.to_owned(), wallet, public, secret }))
    }

    /// Keeps a new key. The file is written whole or not at all, for its owner alone, and is on the disk when this returns.
    ///
    /// # Errors
    /// If there is a file of this name already, whatever is in it; if it cannot be written; if the keyring refuses.
    pub fn create(
        path: &Path,
        key: &SigningKey,
        wallet: WalletVersion,
        keep: &Keep<'_>,
    ) -> Result<Self, KeystoreError> {
        let public = key.public();
        let head = header(wallet, &public);
        let (line, secret) = match keep {
            Keep::Plain => {
                let mut line = Zeroizing::new(String::with_capacity(80));
                line.push_str("seed ");
                let mut digits = Zeroizing::new([0; 64]);
                hex::encode_to_slice(key.expose_seed(), &mut *digits).expect("32 bytes are 64 digits");
                line.push_str(std::str::from_utf8(&*digits).expect("digits are text"));
                (line, Secret::Plain(Zeroizing::new(*key.expose_seed())))
            }
            Keep::Sealed(passphrase, cost) => {
                let sealed = Sealed::seal(key.expose_seed(), passphrase, *cost, &head)?;
                (Zeroizing::new(sealed.to_line()), Secret::Sealed(sealed))
            }
            Keep::Keyring => {
                let name = system::entry_name(&public);
                // Before the file: a file never names an entry that is not there.
                system::put(&name, key.expose_seed())?;
                (Zeroizing::new(format!("keyring {name}")), Secret::Keyring(name))
            }
        };
        write_new(path, &[head.as_bytes(), line.as_bytes(), b"\n"])?;
        Ok(Self { path: path.to_owned(), wallet, public, secret })
    }

    /// Which wallet of the key is meant.
    pub fn wallet(&self) -> WalletVersion {
        self.wallet
    }

    /// The public key, by the file. It is certain only after [`KeyFile::open`].
    pub fn public(&self) -> VerifyingKey {
        self.public
    }

    /// Where the secret is.
    pub fn protection(&self) -> Protection {
        match self.secret {
            Secret::Plain(_) => Protection::Plain,
            Secret::Sealed(_) => Protection::Passphrase,
            Secret::Keyring(_) => Protection::Keyring,
        }
    }

    /// The key. `passphrase` is asked only if the file is sealed.
    ///
    /// # Errors
    /// A wrong passphrase or a changed file (they cannot be told apart), no keyring, a secret of another key.
    pub fn open(
        &self,
        passphrase: impl FnOnce() -> Result<Passphrase, KeystoreError>,
    ) -> Result<SigningKey, KeystoreError> {
        let key = match &self.secret {
            Secret::Plain(seed) => SigningKey::from_seed(seed),
            Secret::Sealed(sealed) => {
                let opened = sealed.open(&passphrase()?, &header(self.wallet, &self.public));
                let seed = opened.ok_or_else(|| KeystoreError::DoesNotOpen(self.path.clone()))?;
                SigningKey::from_seed(&seed)
            }
            Secret::Keyring(name) => SigningKey::from_seed(&*system::fetch(name)?),
        };
        if key.public() != self.public {
            return Err(KeystoreError::AnotherKey(self.path.clone()));
        }
        Ok(key)
    }
}

/// What a file says of its key, as its first lines.
fn header(wallet: WalletVersion, public: &VerifyingKey) -> String {
    format!("{FIRST_LINE}\nwallet {}\npublic {}\n", wallet.name(), hex::encode(public))
}

fn parse(text: &str) -> Result<(WalletVersion, VerifyingKey, Secret), &'static str> {
    if let Some(rest) = text.strip_prefix(FIRST_LINE) {
        return parse_lines(rest);
    }
    if !text.is_empty() && FIRST_LINE.starts_with(text) {
        return Err("a line is missing: the file was cut short");
    }
    if text.starts_with("cocoon-key") {
        return Err("it was written by a newer version of this program");
    }
    let seed = seed(text).map_err(|_| "64 hexadecimal digits or a cocoon-key file were expected")?;
    let public = SigningKey::from_seed(&seed).public();
    Ok((WalletVersion::V4R2, public, Secret::Plain(seed)))
}

fn parse_lines(rest: &str) -> Result<(WalletVersion, VerifyingKey, Secret), &'static str> {
    const CUT: &str = "a line is missing: the file was cut short";
    let mut lines = rest.strip_prefix('\n').ok_or(CUT)?.split('\n');
    let wallet = lines.next().and_then(|line| line.strip_prefix("wallet ")).ok_or(CUT)?;
    let wallet = WalletVersion::from_name(wallet).ok_or("it is for a wallet of an unknown version")?;
    let public = lines.next().and_then(|line| line.strip_prefix("public ")).ok_or(CUT)?;
    let mut key = [0; 32];
    hex::decode_to_slice(public, &mut key).map_err(|_| "its public key is not 64 hexadecimal digits")?;
    check_key(&key).map_err(|_| "its public key is one that anybody can sign for")?;
    let secret = lines.next().ok_or(CUT)?;
    if lines.next().is_some() {
        return Err("there is more in it than a key");
    }
    let secret = match secret.split_once(' ').ok_or(CUT)? {
        ("seed", digits) => Secret::Plain(seed(digits)?),
        (Sealed::WORD, words) => Secret::Sealed(Sealed::parse(&words.split(' ').collect::<Vec<_>>())?),
        ("keyring", name) if name == system::entry_name(&key) => Secret::Keyring(name.to_owned()),
        ("keyring", _) => return Err("it names another key's entry in the keyring"),
        _ => return Err("its secret is of an unknown kind"),
    };
    Ok((wallet, key, secret))
}

fn seed(digits: &str) -> Result<Zeroizing<[u8; 32]>, &'static str> {
    let mut seed = Zeroizing::new([0; 32]);
    hex::decode_to_slice(digits, &mut *seed).map_err(|_| "its seed is not 64 hexadecimal digits")?;
    Ok(seed)
}

fn read_whole(mut file: File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..])? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

/// Beside it under another name first, then linked to its own: a link never replaces what is there.
fn write_new(path: &Path, parts: &[&[u8]]) -> Result<(), KeystoreError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path
        .file_name()
        .ok_or_else(|| KeystoreError::NotAKey { path: path.to_owned(), why: "a file name was expected" })?;
    let staging = folder.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staging)?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        file.sync_all()?;
        std::fs::hard_link(&staging, path)?;
        File::open(folder)?.sync_all()
    };
    let written = write();
    let _ = std::fs::remove_file(&staging);
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => KeystoreError::Exists(path.to_owned()),
        _ => KeystoreError::Io { action: "write", path: path.to_owned(), error },
    })
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
