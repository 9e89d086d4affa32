//! What a payer signs, and never signs.

mod common;

use cocoon_accounts::{PayError, PayerBook, PayerState, Store};
use cocoon_contracts::{Address, SigningKey};
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

/// Compares the counts in a quiet moment.
async fn compare(
    book: &PayerBook,
    channel: &Address,
    claimed: u64,
    concession: u64,
) -> Result<PayerState, PayError> {
    let quiet = book.quiet(channel).expect("no answer is under way");
    book.reconcile(channel, claimed, quiet, concession).await
}

fn overcharged(claimed: u64, owed: u64, allowance: u64) -> Result<PayerState, PayError> {
    Err(PayError::Overcharged { claimed, owed, allowance })
}

#[tokio::test]
async fn a_higher_count_is_taken_over_after_a_broken_answer_only_and_once() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let (book, facts) = opened(&folder.path().join("a.redb"), 10_000).await;
    let channel = &facts.address;
    let mut whole = book.begin(channel, 4_000, true, 100).await.expect("within the deposit");
    whole.owe_up_to(4_000).expect("within the deposit");
    whole.finish();
    assert_eq!(compare(&book, channel, 4_001, 100).await, overcharged(4_001, 4_000, 0));
    compare(&book, channel, 3_000, 100).await.expect("a lower count changes nothing");

    let mut broken = book.begin(channel, 500, true, 100).await.expect("within the deposit");
    broken.owe_up_to(10).expect("within the deposit");
    drop(broken);
    assert!(book.has_broken(channel));
    assert_eq!(compare(&book, channel, 4_111, 100).await, overcharged(4_111, 4_010, 100));
    let after = compare(&book, channel, 4_090, 100).await.expect("a broken answer explains it");
    assert_eq!((after.owed, after.conceded, after.counted()), (4_090, 80, 4_010));
    assert_eq!(compare(&book, channel, 4_091, 100).await, overcharged(4_091, 4_090, 0));
}

#[tokio::test]
async fn a_payee_that_breaks_every_answer_gets_a_quarter_of_what_was_counted_at_most() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let (book, facts) = opened(&folder.path().join("a.redb"), 1_000_000).await;
    let channel = &facts.address;
    for _ in 0..100 {
        drop(book.begin(channel, 1_000, true, 1_000).await.expect("within the deposit"));
        let owed = book.state(channel).expect("the channel is known").owed;
        drop(compare(&book, channel, owed + 1_000, 1_000).await);
    }
    let state = book.state(channel).expect("the channel is known");
    assert_eq!((state.owed, state.conceded), (1_000, 1_000), "it never delivered anything");
}

#[tokio::test]
async fn nothing_is_compared_while_an_answer_is_under_way_or_after_one_has_begun() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let (book, facts) = opened(&folder.path().join("a.redb"), 1_000).await;
    let channel = &facts.address;
    drop(book.begin(channel, 500, true, 100).await.expect("within the deposit"));
    let before = book.quiet(channel).expect("no answer is under way");
    let stream = book.begin(channel, 500, true, 100).await.expect("within the deposit");
    assert_eq!(book.quiet(channel), None);
    let unread = book.reconcile(channel, 50, before, 100).await.expect("it is ignored");
    assert_eq!(unread.owed, 0, "frames that are on their way are not owed twice");
    stream.finish();
    let late = book.reconcile(channel, 50, before, 100).await.expect("it is ignored");
    assert_eq!(late.owed, 0, "the count was told before that answer began");
    assert_eq!(compare(&book, channel, 50, 100).await.expect("one answer broke").owed, 50);
}

#[tokio::test]
async fn a_process_start_concedes_nothing_unless_answers_were_under_way_and_then_once() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("a.redb");
    {
        let (book, facts) = opened(&path, 1_000).await;
        let mut stream = book.begin(&facts.address, 500, true, 100).await.expect("within the deposit");
        stream.owe_up_to(300).expect("within the deposit");
        stream.finish();
        book.sign_owed(&facts.address, &key()).await.expect("signed");
    }
    let (book, facts) = opened(&path, 1_000).await;
    let channel = facts.address.clone();
    assert_eq!(compare(&book, &channel, 301, 100).await, overcharged(301, 300, 0), "it ended in order");
    let stream = book.begin(&channel, 500, true, 100).await.expect("within the deposit");
    std::mem::forget((stream, book)); // as by a crash: nothing more reaches the disk

    let copy = folder.path().join("b.redb");
    std::fs::copy(&path, &copy).expect("the folder is writable");
    let (book, _) = opened(&copy, 1_000).await;
    assert_eq!(compare(&book, &channel, 401, 100).await, overcharged(401, 300, 100));
    let after = compare(&book, &channel, 350, 100).await.expect("the crash explains it");
    assert_eq!((after.owed, after.conceded), (350, 50));
    drop(book);
    let (book, _) = opened(&copy, 1_000).await;
    assert_eq!(book.state(&channel).map(|state| (state.owed, state.conceded)), Some((350, 50)));
    assert_eq!(compare(&book, &channel, 351, 100).await, overcharged(351, 350, 0), "once for each crash");
}

#[tokio::test]
async fn answers_are_begun_only_while_the_deposit_covers_all_worst_cases() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let (book, facts) = opened(&folder.path().join("a.redb"), 1_000).await;
    let channel = &facts.address;
    let mut first = book.begin(channel, 600, true, 0).await.expect("within the deposit");
    first.owe_up_to(200).expect("within the deposit");
    let refused = book.begin(channel, 401, true, 0).await.err();
    assert_eq!(refused, Some(PayError::ExceedsDeposit { deposit: 1_000, wanted: 1_001 }));
    let second = book.begin(channel, 400, true, 0).await.expect("exactly the rest");
    first.finish();
    second.finish();
    book.begin(channel, 800, true, 0).await.expect("what was not used is free again").finish();
}

/// A disk that keeps what is handed in until the test says that it is written.
#[derive(Default)]
struct Slow(std::sync::Mutex<Vec<cocoon_accounts::Write>>);

impl cocoon_accounts::Disk for Slow {
    fn submit(&self, write: cocoon_accounts::Write) {
        self.0.lock().expect("nobody panics here").push(write);
    }
}

impl Slow {
    /// Writes what was handed in, and what follows from it; the last row.
    async fn write(&self) -> Option<Vec<u8>> {
        tokio::task::yield_now().await;
        let mut last = None;
        loop {
            let all = std::mem::take(&mut *self.0.lock().expect("nobody panics here"));
            if all.is_empty() {
                return last;
            }
            for write in all {
                last = Some(write.row().to_vec());
                if let Some(next) = write.finish(Ok(())) {
                    self.0.lock().expect("nobody panics here").push(next);
                }
            }
            tokio::task::yield_now().await;
        }
    }
}

/// What a process that starts after a crash finds: whether an answer may have broken.
fn is_marked(facts: &cocoon_accounts::ChannelFacts, row: &[u8]) -> bool {
    let key = facts.address.to_string();
    let store = Store::over(std::sync::Arc::new(Slow::default()), [("payer_channels", key.as_str(), row)]);
    PayerBook::open(store).expect("the row parses").has_broken(&facts.address)
}

#[tokio::test]
async fn an_answer_that_begins_while_the_mark_is_being_taken_away_is_marked_again() {
    let disk = std::sync::Arc::new(Slow::default());
    let book = PayerBook::open(Store::over(std::sync::Arc::clone(&disk) as _, [])).expect("no rows");
    let facts = facts(1, 1_000);
    let channel = facts.address.clone();
    let (opened, _) = tokio::join!(book.open_channel(&channel, &facts.terms, 1_000), disk.write());
    opened.expect("written");
    let (stream, row) = tokio::join!(book.begin(&channel, 100, true, 10), disk.write());
    assert!(is_marked(&facts, &row.expect("a row")));
    stream.expect("within the deposit").finish();

    // The voucher's row says that nothing is under way. Before it is written, an answer begins.
    book.owe(&channel, 50).expect("within the deposit");
    let (signing, beginning) = (book.clone(), book.clone());
    let key = key();
    let ((), signed, begun) = tokio::join!(
        async {
            // Both others have had their turns by then.
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            let mut last = None;
            for _ in 0..10 {
                last = disk.write().await.or(last);
            }
            assert!(is_marked(&facts, &last.expect("a row")), "a crash now is one within an answer");
        },
        signing.sign_owed(&channel, &key),
        async {
            tokio::task::yield_now().await;
            beginning.begin(&channel, 100, true, 10).await
        },
    );
    signed.expect("signed");
    begun.expect("within the deposit").finish();
}
