//! What a payee takes, refuses, sets aside, charges and remembers.

mod common;

use std::{sync::Arc, time::Duration};

use cocoon_accounts::{AnnounceError, ChargeError, PayeeBook, ReserveError, Store, StoreError, VoucherError};
use cocoon_contracts::SigningKey;
use common::{NETWORK, WINDOW, account, book, facts, unsigned, voucher};

const SOON: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(30);

async fn opened(deposit: u64) -> (tempfile::TempDir, PayeeBook, cocoon_accounts::ChannelFacts) {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let store = Store::open(&folder.path().join("accounts.redb")).expect("a fresh store opens");
    let book = book(&store);
    let facts = facts(1, deposit);
    book.announce(facts.clone()).await.expect("a fresh channel is taken");
    (folder, book, facts)
}

#[tokio::test]
async fn refuses_each_kind_of_wrong_voucher_and_keeps_the_account_as_it_was() {
    let (_folder, book, facts) = opened(10_000).await;
    let channel = &facts.address;
    let before = book.accept_voucher(channel, voucher(&facts, 500)).await.expect("a good voucher is taken");
    assert_eq!(before.voucher, 500);

    let stale = book.accept_voucher(channel, voucher(&facts, 499)).await;
    assert_eq!(stale, Err(VoucherError::Stale { held: 500, found: 499 }));

    let high = book.accept_voucher(channel, voucher(&facts, 10_001)).await;
    assert_eq!(high, Err(VoucherError::ExceedsDeposit { deposit: 10_000, found: 10_001 }));

    let mut foreign = unsigned(&facts, 600);
    foreign.network = -3;
    let foreign = book.accept_voucher(channel, foreign.sign(&common::key())).await;
    assert_eq!(foreign, Err(VoucherError::WrongNetwork { expected: NETWORK, found: -3 }));

    let mut elsewhere = unsigned(&facts, 600);
    elsewhere.channel = account(9);
    let elsewhere = book.accept_voucher(channel, elsewhere.sign(&common::key())).await;
    assert_eq!(elsewhere, Err(VoucherError::WrongChannel { expected: channel.clone(), found: account(9) }));

    let mut other_life = unsigned(&facts, 600);
    other_life.nonce = 2;
    let other_life = book.accept_voucher(channel, other_life.sign(&common::key())).await;
    assert_eq!(other_life, Err(VoucherError::WrongNonce { expected: 1, found: 2 }));

    let stranger = unsigned(&facts, 600).sign(&SigningKey::from_seed(&[8; 32]));
    assert_eq!(book.accept_voucher(channel, stranger).await, Err(VoucherError::WrongSigner));

    let mut forged = voucher(&facts, 600);
    forged.voucher.cumulative = 601;
    assert_eq!(book.accept_voucher(channel, forged).await, Err(VoucherError::WrongSigner));

    let unknown = book.accept_voucher(&account(9), voucher(&facts, 600)).await;
    assert_eq!(unknown, Err(VoucherError::UnknownChannel(account(9))));

    assert_eq!(book.status(channel), Some(before));
}

#[tokio::test]
async fn acknowledges_the_voucher_it_holds_again() {
    let (_folder, book, facts) = opened(10_000).await;
    let first = book.accept_voucher(&facts.address, voucher(&facts, 500)).await;
    assert_eq!(book.accept_voucher(&facts.address, voucher(&facts, 500)).await, first);
}

#[tokio::test]
async fn refuses_a_channel_of_another_network() {
    let (_folder, book, _) = opened(1).await;
    let mut foreign = facts(5, 1);
    foreign.terms.network = -3;
    let refused = book.announce(foreign).await;
    assert_eq!(refused, Err(AnnounceError::WrongNetwork { expected: NETWORK, found: -3 }));
}

#[tokio::test]
async fn refuses_work_that_the_deposit_does_not_cover_before_it_begins() {
    let (_folder, book, facts) = opened(10_000).await;
    let held = book.reserve(&facts.address, 7_000).expect("the deposit covers it");
    let refused = book.reserve(&facts.address, 3_001).err();
    assert_eq!(refused, Some(ReserveError::InsufficientDeposit { wanted: 3_001, free: 3_000 }));
    drop(held);
    book.reserve(&facts.address, 10_000).expect("what was given back is free again");
}

#[tokio::test]
async fn refuses_new_work_on_a_closing_channel() {
    let (_folder, book, mut facts) = opened(10_000).await;
    facts.closing = true;
    book.announce(facts.clone()).await.expect("what the chain says is taken");
    assert_eq!(book.reserve(&facts.address, 1).err(), Some(ReserveError::Closing));
}

#[tokio::test]
async fn a_charge_beyond_the_reservation_or_backwards_is_refused_and_charges_nothing() {
    let (_folder, book, facts) = opened(10_000).await;
    let mut held = book.reserve(&facts.address, 400).expect("the deposit covers it");
    held.charge(300, SOON).await.expect("within the reservation and the window");
    let over = held.charge(401, SOON).await;
    assert_eq!(over, Err(ChargeError::OverReservation { wanted: 401, reserved: 400 }));
    let back = held.charge(299, SOON).await;
    assert_eq!(back, Err(ChargeError::Backwards { charged: 300, wanted: 299 }));
    let status = book.status(&facts.address).expect("the channel is known");
    assert_eq!((status.owed, status.reserved), (300, 100));
}

#[tokio::test]
async fn a_stream_over_its_window_waits_for_a_voucher_and_goes_on() {
    let (_folder, book, facts) = opened(10_000).await;
    let mut held = book.reserve(&facts.address, 5_000).expect("the deposit covers it");
    held.charge(900, LONG).await.expect("within the window");
    let paying = {
        let (book, facts) = (book.clone(), facts.clone());
        async move {
            // The charge is waiting by now: both futures run on this one thread, and it was polled first.
            book.accept_voucher(&facts.address, voucher(&facts, 900)).await
        }
    };
    let (charged, paid) = tokio::join!(held.charge(1_800, LONG), paying);
    charged.expect("the voucher lets it go on");
    paid.expect("the voucher is good");
    assert_eq!(book.status(&facts.address).expect("the channel is known").owed, 1_800);
}

#[tokio::test]
async fn a_stream_without_a_voucher_is_cut_and_new_work_refused_until_one_comes() {
    let (_folder, book, facts) = opened(10_000).await;
    let mut held = book.reserve(&facts.address, 5_000).expect("the deposit covers it");
    held.charge(900, SOON).await.expect("within the window");
    let cut = held.charge(1_001, SOON).await;
    assert_eq!(cut, Err(ChargeError::VoucherRequired { owed: 900, voucher: 0, waited: SOON }));
    drop(held);
    let refused = book.reserve(&facts.address, 1).err();
    assert_eq!(refused, Some(ReserveError::VoucherRequired { owed: 900, voucher: 0 }));
    book.accept_voucher(&facts.address, voucher(&facts, 900)).await.expect("the debt is paid");
    book.reserve(&facts.address, 1).expect("work is taken again");
}

#[tokio::test]
async fn a_single_charge_larger_than_the_window_never_passes_and_waits_for_nothing() {
    let (_folder, book, facts) = opened(100_000).await;
    let mut held = book.reserve(&facts.address, 50_000).expect("the deposit covers it");
    let jump = held.charge(WINDOW + 1, LONG).await;
    assert_eq!(jump, Err(ChargeError::Jump { by: WINDOW + 1, window: WINDOW }));
    held.charge(WINDOW / 2, SOON).await.expect("within the window");
    held.charge(WINDOW / 2 + WINDOW, SOON).await.expect("a whole window while half of one is open");
    let third = held.charge(WINDOW / 2 + WINDOW + 1, SOON).await;
    assert!(matches!(third, Err(ChargeError::VoucherRequired { .. })), "{third:?}");
}

#[tokio::test]
async fn many_streams_share_one_window() {
    let (_folder, book, facts) = opened(1_000_000).await;
    let streams: Vec<_> = (0..20)
        .map(|_| {
            let mut held = book.reserve(&facts.address, 1_000).expect("the deposit covers it");
            tokio::spawn(async move {
                let mut cumulative = 0;
                while held.charge(cumulative + 50, SOON).await.is_ok() {
                    cumulative += 50;
                }
                cumulative
            })
        })
        .collect();
    let mut total = 0;
    for stream in streams {
        total += stream.await.expect("no stream panics");
    }
    let status = book.status(&facts.address).expect("the channel is known");
    assert_eq!(status.owed, total, "each charge was counted once");
    assert_eq!(status.owed, WINDOW, "twenty streams owe what one may");
    assert_eq!(status.reserved, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_reservations_never_exceed_the_deposit() {
    let (_folder, book, facts) = opened(10_000).await;
    let start = Arc::new(tokio::sync::Barrier::new(32));
    let tasks: Vec<_> = (0..32)
        .map(|_| {
            let (book, facts, start) = (book.clone(), facts.clone(), Arc::clone(&start));
            tokio::spawn(async move {
                start.wait().await;
                book.reserve(&facts.address, 900).ok()
            })
        })
        .collect();
    let mut held = Vec::new();
    for task in tasks {
        held.extend(task.await.expect("no task panics"));
    }
    assert_eq!(held.len(), 11, "eleven times 900 fit into 10000");
    assert_eq!(book.status(&facts.address).expect("the channel is known").reserved, 9_900);
}

#[tokio::test]
async fn everything_acknowledged_is_there_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("accounts.redb");
    let facts = facts(1, 10_000);
    let before = {
        let store = Store::open(&path).expect("a fresh store opens");
        let book = book(&store);
        book.announce(facts.clone()).await.expect("a fresh channel is taken");
        let mut held = book.reserve(&facts.address, 2_000).expect("the deposit covers it");
        held.charge(700, SOON).await.expect("within the window");
        book.accept_voucher(&facts.address, voucher(&facts, 700)).await.expect("a good voucher");
        held.charge(950, SOON).await.expect("within the window");
        held.finish().await.expect("the disk takes it");
        book.settled(&facts.address, 600).await.expect("the disk takes it");
        book.status(&facts.address)
    };
    let store = Store::open(&path).expect("the store opens again");
    let book = book(&store);
    assert_eq!(book.status(&facts.address), before);
    assert_eq!(before.map(|s| (s.owed, s.voucher, s.paid)), Some((950, 700, 600)));
    assert_eq!(book.terms(&facts.address), Some(facts.terms.clone()));
    let unsettled = book.unsettled();
    assert_eq!(unsettled.len(), 1);
    assert_eq!((unsettled[0].worth, &unsettled[0].voucher), (100, &voucher(&facts, 700)));
}

#[tokio::test]
async fn a_dropped_reservation_writes_what_it_charged() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("accounts.redb");
    let facts = facts(1, 10_000);
    {
        let store = Store::open(&path).expect("a fresh store opens");
        let book = book(&store);
        book.announce(facts.clone()).await.expect("a fresh channel is taken");
        let mut held = book.reserve(&facts.address, 2_000).expect("the deposit covers it");
        held.charge(321, SOON).await.expect("within the window");
        drop(held);
    }
    let store = Store::open(&path).expect("the store opens again");
    assert_eq!(book(&store).status(&facts.address).map(|s| s.owed), Some(321));
}

#[tokio::test]
async fn nothing_is_taken_on_a_channel_that_was_not_looked_at_for_a_quarter_of_its_challenge_period() {
    let (_folder, book, _) = opened(10_000).await;
    let mut brief = facts(2, 10_000);
    brief.terms.challenge_seconds = 1;
    brief.address = brief.terms.address();
    book.announce(brief.clone()).await.expect("a fresh channel is taken");
    book.reserve(&brief.address, 1).expect("it was looked at just now");
    book.accept_voucher(&brief.address, voucher(&brief, 1)).await.expect("it was looked at just now");
    tokio::time::sleep(Duration::from_millis(260)).await;
    assert_eq!(book.reserve(&brief.address, 1).err(), Some(ReserveError::Unchecked));
    let refused = book.accept_voucher(&brief.address, voucher(&brief, 2)).await;
    assert_eq!(refused, Err(VoucherError::Unchecked));
    book.announce(brief.clone()).await.expect("what the chain says is taken");
    book.reserve(&brief.address, 1).expect("it was looked at again");
}

#[tokio::test]
async fn an_answer_under_way_on_a_channel_that_closes_is_cut_while_it_waits() {
    let (_folder, book, mut facts) = opened(10_000).await;
    let mut held = book.reserve(&facts.address, 5_000).expect("the deposit covers it");
    held.charge(1_000, LONG).await.expect("within the window");
    facts.closing = true;
    let (charged, noted) = tokio::join!(held.charge(1_001, LONG), book.announce(facts));
    noted.expect("what the chain says is taken");
    assert_eq!(charged, Err(ChargeError::Closing));
}

#[tokio::test]
async fn a_channel_that_is_gone_and_settled_leaves_the_book_and_one_with_a_voucher_does_not() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("accounts.redb");
    let (mut settled, mut unpaid) = (facts(1, 10_000), facts(2, 10_000));
    {
        let book = book(&Store::open(&path).expect("a fresh store opens"));
        for facts in [&mut settled, &mut unpaid] {
            book.announce(facts.clone()).await.expect("a fresh channel is taken");
            book.accept_voucher(&facts.address, voucher(facts, 500)).await.expect("a good voucher");
        }
        settled.paid = 500;
        for facts in [&mut settled, &mut unpaid] {
            book.gone(&facts.address).await.expect("the disk takes it");
            assert!(book.status(&facts.address).is_some(), "one word of one endpoint is not enough");
            facts.closing = true;
            book.announce(facts.clone()).await.expect("what the chain says is taken");
            assert!(book.active().contains(&facts.address));
            book.gone(&facts.address).await.expect("the disk takes it");
        }
        assert_eq!(book.channels(), std::slice::from_ref(&unpaid.address));
    }
    let book = book(&Store::open(&path).expect("the store opens again"));
    assert_eq!(book.channels(), [unpaid.address]);
    settled.closing = false;
    let again = book.announce(settled).await.expect("the chain is believed");
    assert_eq!((again.owed, again.paid), (500, 500), "what was paid is not free again");
}

#[test]
fn a_store_in_use_says_so() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("accounts.redb");
    let _first = Store::open(&path).expect("a fresh store opens");
    assert!(matches!(Store::open(&path), Err(StoreError::Locked { .. })));
}

#[test]
fn a_store_of_another_schema_is_refused() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("accounts.redb");
    {
        let database = redb::Database::create(&path).expect("a fresh file");
        let transaction = database.begin_write().expect("a fresh file takes a transaction");
        let meta: redb::TableDefinition<'_, &str, u32> = redb::TableDefinition::new("meta");
        transaction.open_table(meta).expect("a table").insert("schema", 99).expect("a row");
        transaction.commit().expect("a commit");
    }
    let refused = Store::open(&path).err();
    assert_eq!(refused, Some(StoreError::Schema { path: path.display().to_string(), found: 99 }));
}

#[test]
fn a_file_that_is_no_store_is_refused() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("accounts.redb");
    std::fs::write(&path, [0x5a; 9000]).expect("the folder is writable");
    assert!(matches!(Store::open(&path), Err(StoreError::Open { .. })));
}
