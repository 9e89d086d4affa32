//! The file itself: whose it is, its schema, the way of an old one to it, and damage that is never a fresh book.

mod common;

use cocoon_accounts::{
    PayeeSummary, PayerBook, PayerSummary, SCHEMA, Status, StatusSocket, Store, StoreError,
};
use common::{File, NETWORK, book, facts, key, voucher};
use redb::{Database, TableDefinition};
use serde::Serialize;

const META: TableDefinition<'_, &str, u32> = TableDefinition::new("meta");

#[test]
fn a_store_in_use_says_so() {
    let file = File::new();
    let _first = Store::open(&file.path()).expect("a fresh store opens");
    assert!(matches!(Store::open(&file.path()), Err(StoreError::Locked { .. })));
}

#[test]
fn a_store_of_a_newer_schema_is_refused_and_left_as_it_is() {
    let file = File::new();
    let set = |number: u32| {
        let database = Database::create(file.path()).expect("the file opens");
        let transaction = database.begin_write().expect("a transaction");
        transaction.open_table(META).expect("a table").insert("schema", number).expect("a row");
        transaction.commit().expect("a commit");
    };
    set(SCHEMA + 1);
    for _ in 0..2 {
        let refused = Store::open(&file.path()).err();
        let path = file.path().display().to_string();
        assert_eq!(refused, Some(StoreError::Schema { path, found: SCHEMA + 1 }));
    }
    set(0);
    assert!(matches!(Store::open(&file.path()), Err(StoreError::Schema { found: 0, .. })));
}

/// The rows of schema 1, in that schema's own words.
#[derive(Serialize)]
struct Terms1 {
    payer: String,
    payee: String,
    payer_key: [u8; 32],
    network: i32,
    nonce: u64,
    challenge_seconds: u32,
    fee_bps: u16,
    treasury: String,
}

#[derive(Serialize)]
struct Payee1 {
    terms: Terms1,
    deposit: u64,
    paid: u64,
    voucher: Option<Vec<u8>>,
    owed: u64,
    closing: bool,
}

#[derive(Serialize)]
struct Payer1 {
    terms: Terms1,
    deposit: u64,
    owed: u64,
    signed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    conceded: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    marked: Option<bool>,
}

fn terms_1(nonce: u64) -> Terms1 {
    let terms = facts(nonce, 0).terms;
    Terms1 {
        payer: terms.payer.to_string(),
        payee: terms.payee.to_string(),
        payer_key: terms.payer_key,
        network: NETWORK,
        nonce,
        challenge_seconds: terms.challenge_seconds,
        fee_bps: terms.fee_bps,
        treasury: terms.treasury.to_string(),
    }
}

/// A file as a build of schema 1 left it.
fn write_schema_1(file: &File, payee: &[(u64, Payee1)], payer: &[(u64, Payer1)]) {
    let database = Database::create(file.path()).expect("a fresh file");
    let transaction = database.begin_write().expect("a transaction");
    let bytes = |name| TableDefinition::<&str, &[u8]>::new(name);
    {
        transaction.open_table(META).expect("a table").insert("schema", 1).expect("a row");
        let mut table = transaction.open_table(bytes("payee_channels")).expect("a table");
        for (nonce, row) in payee {
            let row = serde_cbor::to_vec(row).expect("plain data");
            table.insert(facts(*nonce, 0).address.to_string().as_str(), row.as_slice()).expect("a row");
        }
        let mut table = transaction.open_table(bytes("payer_channels")).expect("a table");
        for (nonce, row) in payer {
            let row = serde_cbor::to_vec(row).expect("plain data");
            table.insert(facts(*nonce, 0).address.to_string().as_str(), row.as_slice()).expect("a row");
        }
        let mut table = transaction.open_table(bytes("notes")).expect("a table");
        table.insert("worker-id", b"w-1".as_slice()).expect("a row");
    }
    transaction.commit().expect("a commit");
}

#[tokio::test]
async fn a_file_of_schema_1_opens_and_keeps_every_nanoton() {
    let file = File::new();
    let held = voucher(&facts(1, 0), 700);
    let payee = |nonce, voucher: Option<Vec<u8>>, closing| {
        (nonce, Payee1 { terms: terms_1(nonce), deposit: 10_000, paid: 600, voucher, owed: 950, closing })
    };
    let payer = |nonce, conceded, marked| {
        (nonce, Payer1 { terms: terms_1(nonce), deposit: 9_000, owed: 321, signed: 300, conceded, marked })
    };
    let payees = [payee(1, Some(held.encode()), false), payee(2, None, true)];
    let payers = [payer(3, None, None), payer(4, Some(20), Some(true))];
    write_schema_1(&file, &payees, &payers);

    for round in 0..2 {
        let store = file.store().await;
        let (book, payer) = (book(&store), PayerBook::open(store.clone()).expect("its rows parse"));
        let mut accounts = book.accounts().await.expect("the store answers");
        accounts.sort_by_key(|account| account.terms.nonce);
        let figures: Vec<_> = accounts
            .iter()
            .map(|a| (a.terms.nonce, a.state.deposit, a.state.paid, a.state.owed, a.state.closing))
            .collect();
        assert_eq!(figures, [(1, 10_000, 600, 950, false), (2, 10_000, 600, 950, true)], "round {round}");
        assert_eq!(accounts[0].state.voucher.as_ref(), Some(&held));
        assert_eq!(accounts[0].terms, facts(1, 0).terms);
        for (nonce, conceded, broken) in [(3, 0, false), (4, 20, true)] {
            let channel = facts(nonce, 0).address;
            let state = payer.state(&channel).expect("the channel is known");
            assert_eq!((state.deposit, state.owed, state.signed), (9_000, 321, 300), "round {round}");
            assert_eq!((state.conceded, payer.has_broken(&channel)), (conceded, broken), "round {round}");
        }
        assert_eq!(store.notes().collect::<Vec<_>>(), [("worker-id", b"w-1".as_slice())]);
    }
}

#[tokio::test]
async fn a_row_of_schema_1_that_does_not_parse_leaves_the_file_in_schema_1() {
    let file = File::new();
    let mut terms = terms_1(1);
    terms.payee = "nobody".to_owned();
    let row = Payee1 { terms, deposit: 1, paid: 0, voucher: None, owed: 0, closing: false };
    write_schema_1(&file, &[(1, row)], &[]);
    for _ in 0..2 {
        // Migration copies the terms as they are; the book that opens it finds the damage.
        let opened = Store::open(&file.path()).and_then(|store| {
            let options = cocoon_accounts::PayeeOptions { network: NETWORK, window: 1 };
            cocoon_accounts::PayeeBook::open(store, options)
        });
        assert!(matches!(opened.err(), Some(StoreError::Damaged { .. })));
    }
}

#[test]
fn a_file_that_is_no_store_is_refused() {
    let file = File::new();
    std::fs::write(file.path(), [0x5a; 9000]).expect("the folder is writable");
    assert!(matches!(Store::open(&file.path()), Err(StoreError::Open { .. } | StoreError::Corrupt { .. })));
}

/// A book with vouchers on both sides, closed in order.
async fn filled(file: &File) {
    let store = file.store().await;
    let (payee, payer) = (book(&store), PayerBook::open(store).expect("a fresh book"));
    for nonce in 0..40 {
        let facts = facts(nonce, 10_000);
        payee.announce(facts.clone()).await.expect("a fresh channel is taken");
        payee.accept_voucher(&facts.address, voucher(&facts, 100 + nonce)).await.expect("a good voucher");
        payer.open_channel(&facts.address, &facts.terms, 10_000).await.expect("the disk takes it");
        payer.owe(&facts.address, 50 + nonce).expect("within the deposit");
        payer.sign_owed(&facts.address, &key()).await.expect("signed");
    }
}

/// What a book with [`filled`]'s rows adds up to.
async fn is_whole(store: &Store) -> bool {
    let options = cocoon_accounts::PayeeOptions { network: NETWORK, window: 1 };
    let (Ok(payee), Ok(payer)) =
        (cocoon_accounts::PayeeBook::open(store.clone(), options), PayerBook::open(store.clone()))
    else {
        return false;
    };
    let payee = payee.summary().await.expect("the store answers").total;
    (payee.covered, payer.summary().total.signed) == (40 * 100 + 780, 40 * 50 + 780)
}

#[tokio::test]
async fn a_file_cut_short_anywhere_is_an_error_and_no_fresh_book() {
    let file = File::new();
    filled(&file).await;
    let whole = std::fs::read(file.path()).expect("it is there");
    for part in 0..16 {
        std::fs::write(file.path(), &whole[..whole.len() * part / 16]).expect("the folder is writable");
        let error = Store::open(&file.path()).err();
        let is_clear = matches!(error, Some(StoreError::Corrupt { .. } | StoreError::Open { .. }));
        assert!(is_clear, "cut to {part}/16: {error:?}");
    }
    std::fs::write(file.path(), &whole).expect("the folder is writable");
    assert!(is_whole(&Store::open(&file.path()).expect("it is whole again")).await);
}

#[tokio::test]
async fn a_flipped_byte_is_an_error_or_touches_nothing() {
    let file = File::new();
    filled(&file).await;
    let whole = std::fs::read(file.path()).expect("it is there");
    let (mut refused, step) = (0, (whole.len() / 97).max(1));
    // The first pages densely: they say where everything is.
    for at in (0..512).step_by(7).chain((512..whole.len()).step_by(step)) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        std::fs::write(file.path(), &flipped).expect("the folder is writable");
        match Store::open(&file.path()) {
            Ok(store) => assert!(is_whole(&store).await, "byte {at} changed what is owed"),
            Err(error) => {
                let clear = !matches!(error, StoreError::Locked { .. } | StoreError::Write { .. });
                assert!(clear, "byte {at}: {error:?}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0, "flips were noticed");
}

#[tokio::test]
async fn the_books_of_a_stopped_process_can_be_read_and_are_not_written() {
    let file = File::new();
    assert!(PayeeSummary::read(&file.path()).is_err(), "there is no file");
    assert!(!file.path().exists(), "and reading makes none");
    filled(&file).await;
    drop(file.store().await);
    let before = std::fs::read(file.path()).expect("it is there");
    let payee = PayeeSummary::read(&file.path()).expect("nobody has it open");
    let payer = PayerSummary::read(&file.path()).expect("nobody has it open");
    assert_eq!((payee.channels.len(), payer.channels.len()), (40, 40));
    assert_eq!((payee.total.covered, payee.total.unsettled), (4_780, 4_780));
    assert_eq!((payer.total.signed, payer.total.unpaid), (2_780, 0));
    assert_eq!(std::fs::read(file.path()).expect("it is there"), before);

    let folder = file.path().parent().expect("it is in a folder").to_path_buf();
    let of_file = Status::of(&folder).await.expect("nobody has it open");
    assert_eq!(of_file, Status { running: false, payee: Some(payee.clone()), payer: Some(payer) });

    let open = file.store().await;
    assert!(matches!(PayeeSummary::read(&file.path()), Err(StoreError::Locked { .. })));
    assert!(Status::of(&folder).await.is_err(), "whoever has it open does not tell");
    for _ in 0..2 {
        let socket = StatusSocket::serve(&folder, book(&open), None).expect("the folder is ours");
        let told = Status::of(&folder).await.expect("the process tells");
        assert_eq!(told.payee.map(|payee| payee.total), Some(payee.total));
        // As a crash would leave it: the next one takes its place.
        std::mem::forget(socket);
    }
}

#[tokio::test]
async fn the_books_of_a_killed_process_are_read_and_left_to_its_next_start() {
    let file = File::new();
    filled(&file).await;
    let running = file.store().await;
    // What is on the disk while it runs is what a kill leaves behind.
    let killed = tempfile::tempdir().expect("a folder");
    let path = killed.path().join("accounts.redb");
    std::fs::copy(file.path(), &path).expect("it is readable");
    let before = std::fs::read(&path).expect("it is there");
    drop(running);
    let status = Status::of(killed.path()).await.expect("it is repaired in memory");
    let told = status.payee.expect("it is in the file").total;
    assert_eq!((status.running, told.covered), (false, 4_780));
    assert_eq!(std::fs::read(&path).expect("it is there"), before, "nothing was written");

    let sixteenths = (1..16).map(|part| before.len() * part / 16);
    for length in [1, 100, before.len() - 1].into_iter().chain(sixteenths) {
        std::fs::write(&path, &before[..length]).expect("it is ours");
        let error = PayeeSummary::read(&path).expect_err("it is cut short");
        assert!(matches!(error, StoreError::Corrupt { .. }), "{length} bytes: {error}");
        assert_eq!(std::fs::read(&path).expect("it is there").len(), length, "looking changes nothing");
        let error = Store::open(&path).expect_err("it is cut short");
        assert!(matches!(error, StoreError::Corrupt { .. }), "{length} bytes: {error}");
    }
}
