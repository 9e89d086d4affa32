//! A ledger's file that was cut short, changed, emptied, or is somebody else's: an error that says so, never a panic,
//! never a fresh ledger, never another state, and the file stays as it was for whoever repairs it.

use std::path::{Path, PathBuf};

use cocoon_contracts::wallet::{self, Transfer};
use cocoon_contracts::{TON, message};
use cocoon_ledger::{Genesis, Ledger, LedgerError, Schedule};
use redb::{Database, TableDefinition};

use super::world::{Actor, genesis};

fn settings() -> Genesis {
    genesis(Schedule::Mainnet2026, &[&Actor::new(1), &Actor::new(2)])
}

/// A ledger with a few payments in it, closed in order.
fn written(folder: &Path) -> PathBuf {
    let file = folder.join("ledger.redb");
    let mut ledger = Ledger::open(&file, &settings()).unwrap();
    let (payer, payee) = (Actor::new(1), Actor::new(2));
    for seqno in 0..5 {
        let pay =
            Transfer { to: payee.address.clone(), amount: TON, bounce: false, body: None, state_init: None };
        let now = ledger.head().time + 1;
        let message = wallet::external_message(&payer.key, seqno, now + 60, false, &[pay]).unwrap();
        ledger.submit(&message::encode(&message)).unwrap();
        ledger.produce_block(now).unwrap();
    }
    file
}

/// All that a ledger says, or why it says nothing.
fn all(file: &Path) -> Result<String, LedgerError> {
    let ledger = Ledger::open(file, &settings())?;
    let mut said = format!("{:?} {:?}", ledger.head(), ledger.supply());
    for seqno in 1..=ledger.head().seqno {
        said += &format!("{:?}", ledger.block(seqno)?);
    }
    for (address, account) in ledger.accounts() {
        said += &format!("{address} {} ", account.account.inner().repr_hash());
        for cell in ledger.transactions(address, u64::MAX, 100)? {
            said += &format!("{} ", cell.repr_hash());
        }
    }
    Ok(said)
}

fn assert_refused(outcome: &Result<String, LedgerError>, sound: &str, what: &str) {
    match outcome {
        Ok(said) => assert!(said == sound, "{what}: another state"),
        Err(LedgerError::Broken { .. } | LedgerError::Store { .. } | LedgerError::AnotherGenesis) => {}
        Err(LedgerError::Newer { .. }) => {}
        Err(other) => panic!("{what}: {other}"),
    }
}

#[test]
fn a_file_cut_short_at_any_sector_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(written(folder.path())).unwrap();
    let file = folder.path().join("cut.redb");
    let mut refused = 0;
    let lengths = (0..bytes.len()).step_by(512).chain([1, 8, 9, 63, 511, bytes.len() - 1]);
    for length in lengths.filter(|length| length % 4096 == 0 || *length < 16_384) {
        std::fs::write(&file, &bytes[..length]).unwrap();
        let error = all(&file).expect_err(&format!("{length} of {} bytes", bytes.len()));
        assert!(matches!(error, LedgerError::Broken { .. } | LedgerError::Store { .. }), "{length}: {error}");
        assert!(error.to_string().contains("cut.redb"), "it says which file: {error}");
        refused += 1;
    }
    println!("{refused} lengths of {} bytes", bytes.len());
    assert!(refused > 20);
}

#[test]
fn a_changed_byte_is_found_or_does_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    let original = written(folder.path());
    let sound = all(&original).unwrap();
    let bytes = std::fs::read(&original).unwrap();
    let file = folder.path().join("flipped.redb");
    // Where there is something: most of a young file's pages are empty.
    let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let mut found = 0;
    for at in used.iter().step_by(used.len() / 400 + 1).chain(used.iter().take(64)) {
        let mut changed = bytes.clone();
        changed[*at] ^= 0x41;
        std::fs::write(&file, &changed).unwrap();
        let outcome = all(&file);
        found += u32::from(outcome.is_err());
        assert_refused(&outcome, &sound, &format!("byte {at}"));
    }
    println!("{found} of {} changes were found", used.len().min(464));
    assert!(found > 50);
}

#[test]
fn what_is_no_ledger_is_never_taken_for_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.redb");
    for content in [&b""[..], b"not a ledger", &[0; 8192]] {
        std::fs::write(&file, content).unwrap();
        let error = Ledger::open(&file, &settings()).err().expect("refused");
        assert!(matches!(error, LedgerError::Broken { .. }), "{error}");
        assert_eq!(std::fs::read(&file).unwrap(), content, "it is left as it was");
    }
    // A database of somebody else's.
    let other = folder.path().join("other.redb");
    drop(Database::create(&other).unwrap());
    assert!(matches!(Ledger::open(&other, &settings()), Err(LedgerError::Broken { .. })));
}

#[test]
fn half_a_beginning_is_begun_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.redb");
    std::fs::write(folder.path().join("ledger.redb.new"), b"a crash left this").unwrap();
    let ledger = Ledger::open(&file, &settings()).unwrap();
    assert_eq!(ledger.head().seqno, 1);
    assert!(!folder.path().join("ledger.redb.new").exists());
}

#[test]
fn one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = written(folder.path());
    let _first = Ledger::open(&file, &settings()).unwrap();
    let error = Ledger::open(&file, &settings()).err().expect("refused");
    assert_eq!(error, LedgerError::InUse { path: file.clone() });
    assert!(error.to_string().contains("cocoon chain"), "{error}");
}

#[test]
fn a_newer_schema_is_refused_and_named() {
    const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
    let folder = tempfile::tempdir().unwrap();
    let file = written(folder.path());
    let database = Database::open(&file).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(META).unwrap().insert("schema", 99u32.to_be_bytes().as_slice()).unwrap();
    write.commit().unwrap();
    drop(database);
    let error = Ledger::open(&file, &settings()).err().expect("refused");
    assert!(matches!(error, LedgerError::Newer { found: 99, .. }), "{error}");
}
