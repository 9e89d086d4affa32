//! Key files: kept, opened, and refused when one thing is wrong with them.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// So cheap that a test can open thousands.
const CHEAP: Cost = Cost { memory_kib: 8, passes: 1 };

fn key() -> SigningKey {
    SigningKey::from_seed(&[5; 32])
}

fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(text).expect("a passphrase")
}

fn nobody() -> Result<Passphrase, KeystoreError> {
    panic!("no passphrase is needed")
}

fn load(path: &Path) -> Result<KeyFile, KeystoreError> {
    KeyFile::load(path).map(|file| file.expect("it is there"))
}

/// Opens a file with these bytes, under this passphrase.
fn open(bytes: &[u8], secret: &str) -> Result<SigningKey, KeystoreError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, bytes).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    load(&path)?.open(|| Ok(passphrase(secret)))
}

fn sealed_bytes() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    KeyFile::create(&path, &key(), WalletVersion::V5R1, &Keep::Sealed(&passphrase("open sesame"), CHEAP))
        .unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn a_key_comes_back_as_it_was_kept() {
    let folder = tempfile::tempdir().unwrap();
    let secret = passphrase("open sesame");
    let ways = [("plain", Keep::Plain), ("sealed", Keep::Sealed(&secret, CHEAP))];
    for (name, keep) in ways {
        for wallet in WalletVersion::ALL {
            let path = folder.path().join(format!("{name}-{}", wallet.name()));
            let made = KeyFile::create(&path, &key(), wallet, &keep).unwrap();
            let read = load(&path).unwrap();
            for file in [made, read] {
                assert_eq!((file.wallet(), file.public()), (wallet, key().public()));
                let opened = match file.protection() {
                    Protection::Plain => file.open(nobody),
                    _ => file.open(|| Ok(passphrase("open sesame"))),
                };
                assert_eq!(opened.ok().unwrap().expose_seed(), key().expose_seed());
            }
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
    let names = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name());
    assert!(names.into_iter().all(|name| !name.to_string_lossy().starts_with('.')), "nothing is left behind");
}

#[test]
fn the_older_form_is_a_v4r2_wallet() {
    let text = "05".repeat(32);
    for bytes in [text.clone(), format!("{text}\n")] {
        assert_eq!(open(bytes.as_bytes(), "x").ok().unwrap().public(), key().public());
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(load(&path).ok().unwrap().wallet(), WalletVersion::V4R2);
}

#[test]
fn no_key_is_ever_written_over_another() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, "something else").unwrap();
    let outcome = KeyFile::create(&path, &key(), WalletVersion::V5R1, &Keep::Plain);
    assert!(matches!(outcome, Err(KeystoreError::Exists(_))));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "something else");
    assert!(KeyFile::load(&folder.path().join("none")).unwrap().is_none());
}

#[test]
fn a_wrong_passphrase_opens_nothing() {
    assert!(open(&sealed_bytes(), "open sesame").is_ok());
    for wrong in ["open sesamf", "open sesame ", "Open sesame", "x"] {
        assert!(matches!(open(&sealed_bytes(), wrong), Err(KeystoreError::DoesNotOpen(_))), "{wrong}");
    }
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let good = sealed_bytes();
    for at in 0..good.len() - 1 {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            // Hexadecimal digits have two cases; both say the same.
            if bytes[at].eq_ignore_ascii_case(&good[at]) {
                continue;
            }
            let outcome = open(&bytes, "open sesame");
            let known = matches!(outcome, Err(KeystoreError::NotAKey { .. } | KeystoreError::DoesNotOpen(_)));
            assert!(known, "bit {bit} of byte {at}: {:?}", outcome.err());
        }
    }
}

#[test]
fn a_file_cut_short_is_refused() {
    let plain = format!("{}seed {}\n", header(WalletVersion::V5R1, &key().public()), "05".repeat(32));
    for good in [sealed_bytes(), plain.into_bytes(), "05".repeat(32).into_bytes()] {
        assert!(open(&good, "open sesame").is_ok());
        let end = good.trim_ascii_end().len();
        for length in 0..end {
            let outcome = open(&good[..length], "open sesame");
            let error = outcome.err().expect("it is refused");
            assert!(matches!(error, KeystoreError::NotAKey { .. }), "{length} of {end} bytes: {error}");
            assert!(!error.to_string().contains("newer version"), "{length} of {end} bytes: {error}");
        }
        assert!(matches!(
            open(&[&good, &b"more"[..]].concat(), "open sesame"),
            Err(KeystoreError::NotAKey { .. })
        ));
    }
}

#[test]
fn a_file_cannot_ask_for_all_memory_or_an_hour() {
    let good = String::from_utf8(sealed_bytes()).unwrap();
    for cost in ["4294967295 1", "1048577 1", "8 17", "8 4294967295", "0 1", "8 0", "-8 1", "8 x"] {
        let greedy = good.replace("argon2id 8 1 ", &format!("argon2id {cost} "));
        assert_ne!(greedy, good);
        assert!(
            matches!(open(greedy.as_bytes(), "open sesame"), Err(KeystoreError::NotAKey { .. })),
            "{cost}"
        );
    }
    assert!(matches!(open(&[b' '; MAX_KEY_FILE + 1], "x"), Err(KeystoreError::NotAKey { .. })));
}

#[test]
fn what_the_file_says_of_the_key_is_bound_to_the_secret() {
    let good = String::from_utf8(sealed_bytes()).unwrap();
    let other = hex::encode(SigningKey::from_seed(&[6; 32]).public());
    let swapped = good.replace(&hex::encode(key().public()), &other);
    assert!(matches!(open(swapped.as_bytes(), "open sesame"), Err(KeystoreError::DoesNotOpen(_))));
    let older = good.replace("v5r1", "v4r2");
    assert!(matches!(open(older.as_bytes(), "open sesame"), Err(KeystoreError::DoesNotOpen(_))));
    let plain = format!("cocoon-key 1\nwallet v5r1\npublic {other}\nseed {}\n", "05".repeat(32));
    assert!(matches!(open(plain.as_bytes(), "x"), Err(KeystoreError::AnotherKey(_))));
    let entry =
        format!("cocoon-key 1\nwallet v5r1\npublic {other}\nkeyring key-{}\n", hex::encode(key().public()));
    assert!(matches!(open(entry.as_bytes(), "x"), Err(KeystoreError::NotAKey { .. })));
    let newer = good.replace("cocoon-key 1", "cocoon-key 2");
    assert!(
        matches!(open(newer.as_bytes(), "x"), Err(KeystoreError::NotAKey { why, .. }) if why.contains("newer"))
    );
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    KeyFile::create(&path, &key(), WalletVersion::V5R1, &Keep::Plain).unwrap();
    for mode in [0o640, 0o604, 0o660] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let error = load(&path).err().expect("it is refused");
        assert!(matches!(error, KeystoreError::Exposed { .. }));
        assert!(error.remedy().starts_with("chmod 600"), "{}", error.remedy());
    }
}

#[test]
fn errors_repeat_no_secret() {
    let digits = "05".repeat(32);
    let broken =
        format!("cocoon-key 1\nwallet v5r1\npublic {}\nseed {digits}0\n", hex::encode(key().public()));
    let error = open(broken.as_bytes(), "x").err().expect("it is refused");
    let text = format!("{error} {error:?} {}", error.remedy());
    assert!(!text.contains("0505"), "{text}");
}

#[test]
fn a_session_without_a_keyring_is_told_what_to_do() {
    // No session bus can be reached in tests; where one can, this says nothing.
    if std::env::var_os("DBUS_SESSION_BUS_ADDRESS").is_some() {
        eprintln!("SKIPPED: there is a session bus");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let outcome = KeyFile::create(&path, &key(), WalletVersion::V5R1, &Keep::Keyring);
    let error = outcome.err().expect("there is no keyring");
    assert!(matches!(error, KeystoreError::Keyring(_)), "{error}");
    assert!(error.remedy().contains("encrypted file"), "{}", error.remedy());
    assert!(!path.exists(), "no file names what is not there");
}
