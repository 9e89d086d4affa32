//! The system's keyring: the Secret Service of a desktop session, over D-Bus. (Not the kernel's keyring: it forgets at a
//! reboot, and a key that is lost is money that is lost.)

use cocoon_contracts::VerifyingKey;
use zeroize::Zeroizing;

use crate::KeystoreError;

const SERVICE: &str = "cocoon";

/// The name of a key's entry.
pub(crate) fn entry_name(public: &VerifyingKey) -> String {
    format!("key-{}", hex::encode(public))
}

/// Puts a seed into the keyring, and reads it back: a keyring that forgets is found out before anything depends on it.
pub(crate) fn put(name: &str, seed: &[u8; 32]) -> Result<(), KeystoreError> {
    let (entry_name, seed) = (name.to_owned(), Zeroizing::new(*seed));
    let kept = apart(move || {
        let entry = entry(&entry_name)?;
        entry.set_secret(&*seed).map_err(|error| refused(&entry_name, error))?;
        let back = Zeroizing::new(entry.get_secret().map_err(|error| refused(&entry_name, error))?);
        Ok(*back == *seed)
    })?;
    if kept { Ok(()) } else { Err(KeystoreError::Keyring("it gave back something else".to_owned())) }
}

/// The seed of an entry.
pub(crate) fn fetch(name: &str) -> Result<Zeroizing<[u8; 32]>, KeystoreError> {
    let name = name.to_owned();
    apart(move || {
        let secret = entry(&name)?.get_secret().map_err(|error| refused(&name, error))?;
        let secret = Zeroizing::new(secret);
        let seed: [u8; 32] = secret
            .as_slice()
            .try_into()
            .map_err(|_| KeystoreError::Keyring(format!("its entry `{name}` is not one of ours")))?;
        Ok(Zeroizing::new(seed))
    })
}

/// On a thread of its own: the D-Bus client waits, which a thread of an asynchronous runtime must not.
fn apart<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KeystoreError> + Send + 'static,
) -> Result<T, KeystoreError> {
    std::thread::spawn(work)
        .join()
        .unwrap_or_else(|_| Err(KeystoreError::Keyring("its client failed".to_owned())))
}

fn entry(name: &str) -> Result<keyring::Entry, KeystoreError> {
    keyring::Entry::new(SERVICE, name).map_err(|error| refused(name, error))
}

fn refused(name: &str, error: keyring::Error) -> KeystoreError {
    match error {
        keyring::Error::NoEntry => KeystoreError::NotInKeyring(name.to_owned()),
        // The only kind of error that carries the secret: not repeated.
        keyring::Error::BadEncoding(_) => KeystoreError::Keyring("its entry is not one of ours".to_owned()),
        other => KeystoreError::Keyring(other.to_string()),
    }
}
