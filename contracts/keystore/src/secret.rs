//! Passphrases: where they come from. Never from arguments or the environment, which other processes can read.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::KeystoreError;

/// The longest passphrase, in bytes.
pub const MAX_PASSPHRASE: usize = 1024;
/// The shortest that a new key is sealed under, in characters. Old ones of any length open what they sealed.
const MIN_NEW: usize = 8;

/// A passphrase. Has no `Debug`, no `Display`, and is wiped when dropped:
///
/// ```compile_fail
/// println!("{:?}", cocoon_keystore::Passphrase::new("secret").ok());
/// ```
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// A passphrase from text.
    ///
    /// # Errors
    /// Empty, or longer than [`MAX_PASSPHRASE`].
    pub fn new(text: &str) -> Result<Self, KeystoreError> {
        Self::from_bytes(text.as_bytes())
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, KeystoreError> {
        match bytes.len() {
            0 => Err(KeystoreError::BadPassphrase("it is empty")),
            1..=MAX_PASSPHRASE => Ok(Self(Zeroizing::new(bytes.to_vec()))),
            _ => Err(KeystoreError::BadPassphrase("it is longer than 1024 bytes")),
        }
    }

    /// What was typed, as text: for words that were asked for without echo. Named loudly on purpose.
    pub fn expose_text(&self) -> Zeroizing<String> {
        Zeroizing::new(String::from_utf8_lossy(&self.0).into_owned())
    }

    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }

    fn check_new(self) -> Result<Self, KeystoreError> {
        match String::from_utf8_lossy(&self.0).chars().count() {
            MIN_NEW.. => Ok(self),
            _ => Err(KeystoreError::BadPassphrase("a new key wants at least 8 characters")),
        }
    }
}

/// Where a passphrase comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PassphraseSource {
    /// The terminal, without echo.
    Terminal,
    /// The first line of a file that only its owner can read.
    File(PathBuf),
    /// The first line of an open file descriptor of this process: a service's way.
    Descriptor(u32),
}

impl PassphraseSource {
    /// The passphrase of an existing key; `prompt` says which, on a terminal.
    ///
    /// # Errors
    /// No terminal, an unreadable file, one that others can read, an empty passphrase.
    pub fn read(&self, prompt: &str) -> Result<Passphrase, KeystoreError> {
        match self {
            Self::Terminal => ask(prompt),
            Self::File(path) => {
                let file = File::open(path).map_err(KeystoreError::io("read", path))?;
                // The group may read it: so service managers hand over credentials.
                refuse_exposed(&file, path, 0o007)?;
                first_line(file, path)
            }
            Self::Descriptor(number) => {
                let path = PathBuf::from(format!("/proc/self/fd/{number}"));
                first_line(File::open(&path).map_err(KeystoreError::io("read", &path))?, &path)
            }
        }
    }

    /// A passphrase for a new key: on a terminal asked twice.
    ///
    /// # Errors
    /// As [`PassphraseSource::read`]; two different ones, or one that is too short.
    pub fn read_new(&self, prompt: &str) -> Result<Passphrase, KeystoreError> {
        let first = self.read(prompt)?.check_new()?;
        if *self == Self::Terminal && *ask("The same again: ")?.0 != *first.0 {
            return Err(KeystoreError::BadPassphrase("the two are not the same"));
        }
        Ok(first)
    }
}

/// Refuses a file with any of these permission bits. Asked of the open file, not of its name.
pub(crate) fn refuse_exposed(file: &File, path: &Path, bits: u32) -> Result<(), KeystoreError> {
    let mode = file.metadata().map_err(KeystoreError::io("read", path))?.permissions().mode() & 0o777;
    if mode & bits != 0 {
        return Err(KeystoreError::Exposed { path: path.to_owned(), mode });
    }
    Ok(())
}

fn ask(prompt: &str) -> Result<Passphrase, KeystoreError> {
    let typed = rpassword::prompt_password(prompt).map_err(|_| KeystoreError::NoTerminal)?;
    Passphrase::new(&Zeroizing::new(typed))
}

/// Reads into memory of a fixed size: growing would leave copies behind.
fn first_line(mut file: File, path: &Path) -> Result<Passphrase, KeystoreError> {
    let mut buffer = Zeroizing::new([0; MAX_PASSPHRASE + 2]);
    let mut length = 0;
    while length < buffer.len() && !buffer[..length].contains(&b'\n') {
        match file.read(&mut buffer[length..]).map_err(KeystoreError::io("read", path))? {
            0 => break,
            read => length += read,
        }
    }
    let line = buffer[..length].split(|byte| *byte == b'\n').next().unwrap_or_default();
    Passphrase::from_bytes(line.strip_suffix(b"\r").unwrap_or(line))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    fn file(content: &[u8], mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    fn read(content: &[u8], mode: u32) -> Result<Passphrase, KeystoreError> {
        PassphraseSource::File(file(content, mode).path().to_owned()).read("")
    }

    #[test]
    fn the_first_line_of_a_file_is_the_passphrase() {
        for content in [&b"open sesame"[..], b"open sesame\n", b"open sesame\r\n", b"open sesame\nmore"] {
            assert_eq!(read(content, 0o600).ok().unwrap().expose(), b"open sesame");
        }
        assert!(matches!(read(b"\n", 0o600), Err(KeystoreError::BadPassphrase(_))));
        assert!(read(&[b'x'; MAX_PASSPHRASE], 0o400).is_ok());
        assert!(matches!(read(&[b'x'; MAX_PASSPHRASE + 1], 0o600), Err(KeystoreError::BadPassphrase(_))));
        assert!(matches!(read(&[b'x'; 100_000], 0o600), Err(KeystoreError::BadPassphrase(_))));
    }

    #[test]
    fn a_file_that_everybody_can_read_is_refused() {
        assert!(matches!(read(b"open sesame", 0o604), Err(KeystoreError::Exposed { mode: 0o604, .. })));
        assert!(read(b"open sesame", 0o440).is_ok(), "a service manager's credential");
    }

    #[test]
    fn a_descriptor_of_a_pipe_serves() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        std::io::Write::write_all(&mut writer, b"through a pipe\n").unwrap();
        drop(writer);
        let number = u32::try_from(reader.as_raw_fd()).unwrap();
        let passphrase = PassphraseSource::Descriptor(number).read("");
        assert_eq!(passphrase.ok().unwrap().expose(), b"through a pipe");
        assert!(PassphraseSource::Descriptor(9999).read("").is_err());
    }

    #[test]
    fn a_new_key_wants_a_passphrase_that_is_not_short() {
        let of = |content: &[u8]| {
            PassphraseSource::File(file(content, 0o600).path().to_owned()).read_new("").map(|_| ())
        };
        assert!(matches!(of(b"seven77"), Err(KeystoreError::BadPassphrase(_))));
        assert!(of("achtäöüß".as_bytes()).is_ok());
    }
}
