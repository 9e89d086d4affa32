//! Key files: a 32-byte seed in hex, readable by its owner alone, made on first use.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use cocoon_contracts::SigningKey;

use crate::error::{Explain, Failure};

/// Reads a key, or makes one. The secret goes to the file and nowhere else.
pub(crate) fn load_or_create(path: &Path) -> Result<SigningKey, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => load(path, text.trim()),
        Err(error) if error.kind() == ErrorKind::NotFound => create(path),
        Err(error) => {
            Err(error).explain(|| format!("cannot read the key {}", path.display()), "check the file's owner")
        }
    }
}

/// Reads a key if there is one, and makes none.
pub(crate) fn load_existing(path: &Path) -> Result<Option<SigningKey>, Failure> {
    match path.exists() {
        true => load_or_create(path).map(Some),
        false => Ok(None),
    }
}

fn load(path: &Path, text: &str) -> Result<SigningKey, Failure> {
    let mode = std::fs::metadata(path)
        .explain(|| format!("cannot look at {}", path.display()), "check the file's owner")?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        return Err(Failure::new(
            format!("the key {} can be read by others (mode {:03o})", path.display(), mode & 0o777),
            format!("chmod 600 {}", path.display()),
        ));
    }
    let mut seed = [0; 32];
    hex::decode_to_slice(text, &mut seed).map_err(|_| {
        Failure::new(
            format!("{} is not a key: 64 hexadecimal digits were expected", path.display()),
            "restore it from your backup; delete it only if nothing is owed to or held by its wallet",
        )
    })?;
    Ok(SigningKey::from_seed(&seed))
}

fn create(path: &Path) -> Result<SigningKey, Failure> {
    let key = SigningKey::generate().explain(|| "no key could be made".into(), "try again")?;
    let write = || -> std::io::Result<()> {
        // Never over an existing file: a key that is lost is money that is lost.
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(hex::encode(key.expose_seed()).as_bytes())?;
        file.sync_all()
    };
    write().explain(
        || format!("cannot write the key {}", path.display()),
        "check the disk and the folder's owner",
    )?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_stays() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("wallet.key");
        let made = load_or_create(&path).expect("it is made").public();
        assert_eq!(load_or_create(&path).expect("it is read").public(), made);
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
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
        assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "half a ke");
    }
}
