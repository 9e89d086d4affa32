//! What a payer signs, and never signs.

mod common;

use cocoon_accounts::{PayError, PayerBook, Store};
use cocoon_contracts::SigningKey;
use common::{facts, key};

async fn opened(path: &std::path::Path, deposit: u64) -> (PayerBook, cocoon_accounts::ChannelFacts) {
    let store = Store::open(path).expect("the store opens");
    let book = PayerBook::open(store).expect("its rows parse");
    let facts = facts(1, deposit);
    book.open_channel(&facts.address, &facts.terms, deposit).await.expect("the disk takes it");
    (book, facts)
}

#[tokio::test]
async fn signs_what_it_owes_and_nothing_before_it_owes_anything() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let (book, facts) = opened(&folder.path().join("a.redb"), 1_000).await;
    let channel = &facts.address;
    assert_eq!(book.sign_owed(channel, &key()).await, Ok(None));
    book.owe(channel, 300).expect("within the deposit");
    let signed = book.sign_owed(channel, &key()).await.expect("within the deposit").expect("owed");
    signed.verify_for(&facts.terms).expect("the voucher is good for its channel");
    assert_eq!(signed.voucher.cumulative, 300);
}

#[tokio::test]
async fn never_owes_or_signs_beyond_the_deposit() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let (book, facts) = opened(&folder.path().join("a.redb"), 1_000).await;
    book.owe(&facts.address, 1_000).expect("the whole deposit");
    let refused = book.owe(&facts.address, 1);
    assert_eq!(refused, Err(PayError::ExceedsDeposit { deposit: 1_000, wanted: 1_001 }));
    let signed = book.sign_owed(&facts.address, &key()).await.expect("the deposit covers it");
    assert_eq!(signed.map(|s| s.voucher.cumulative), Some(1_000));
    book.open_channel(&facts.address, &facts.terms, 2_000).await.expect("a top up");
    book.owe(&facts.address, 1).expect("the top up covers it");
}

#[tokio::test]
async fn never_signs_lower_than_before_a_restart() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("a.redb");
    {
        let (book, facts) = opened(&path, 1_000).await;
        book.owe(&facts.address, 700).expect("within the deposit");
        book.sign_owed(&facts.address, &key()).await.expect("signed");
    }
    let (book, facts) = opened(&path, 1_000).await;
    let state = book.state(&facts.address).expect("the channel is known");
    assert_eq!((state.owed, state.signed, state.deposit), (700, 700, 1_000));
    let again = book.sign_owed(&facts.address, &key()).await.expect("signed").expect("owed");
    assert_eq!(again.voucher.cumulative, 700);
}

#[tokio::test]
async fn refuses_a_key_that_is_not_the_channels() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let (book, facts) = opened(&folder.path().join("a.redb"), 1_000).await;
    book.owe(&facts.address, 1).expect("within the deposit");
    let refused = book.sign_owed(&facts.address, &SigningKey::from_seed(&[9; 32])).await;
    assert_eq!(refused, Err(PayError::WrongSigner));
}

#[tokio::test]
async fn takes_the_payees_count_within_the_allowance_only() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let (book, facts) = opened(&folder.path().join("a.redb"), 1_000).await;
    let channel = &facts.address;
    book.owe(channel, 100).expect("within the deposit");
    let greedy = book.reconcile(channel, 201, 100).await;
    assert_eq!(greedy, Err(PayError::Overcharged { claimed: 201, owed: 100, allowance: 100 }));
    let lower = book.reconcile(channel, 50, 100).await.expect("a lower claim changes nothing");
    assert_eq!(lower.owed, 100);
    let fair = book.reconcile(channel, 200, 100).await.expect("within the allowance");
    assert_eq!(fair.owed, 200);
    let beyond = book.reconcile(channel, 1_001, 10_000).await;
    assert_eq!(beyond, Err(PayError::ExceedsDeposit { deposit: 1_000, wanted: 1_001 }));
}
