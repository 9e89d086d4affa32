//! Several gateways on one account: what they may do together, what one's death leaves, and a database that goes away.

mod cluster;
#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/suite/mod.rs"]
mod suite;

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use cluster::{Cluster, Database, options, shared};
use cocoon_accounts::{ChargeError, PayeeBook, StoreError, VoucherError};
use cocoon_accounts_postgres::{PostgresAccounts, SCHEMA, SharedOptions};
use cocoon_contracts::Address;
use common::{WINDOW, facts, voucher};
use rustix::process::Signal;
use suite::{Fixture, status};

const SOON: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(60);

async fn books(database: &Database<'_>, number: usize) -> Vec<PayeeBook> {
    let mut books = Vec::new();
    for _ in 0..number {
        books.push(database.open().await);
    }
    books
}

async fn eventually(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !so().await {
        assert!(Instant::now() < deadline, "this never came to be: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn owed_and_reserved(book: &PayeeBook, channel: &Address) -> (u64, u64) {
    let status = status(book, channel).await.expect("the channel is known");
    (status.owed, status.reserved)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_share_one_deposit_and_one_window_and_count_each_charge_once() {
    let cluster = Cluster::start();
    let database = cluster.database().await;
    let (books, facts) = (books(&database, 3).await, facts(1, 10_000));
    books[0].announce(facts.clone()).await.expect("a fresh channel is taken");

    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..36 {
        let (book, channel) = (books[number % 3].clone(), facts.address.clone());
        tasks.spawn(async move { book.reserve(&channel, 900).await.ok() });
    }
    let held: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(held.len(), 11, "eleven times 900 fit into 10000, whoever asks");
    let streams: Vec<_> = held
        .into_iter()
        .map(|mut held| {
            tokio::spawn(async move {
                let mut cumulative = 0;
                while held.charge(cumulative + 7, Duration::from_millis(400)).await.is_ok() {
                    cumulative += 7;
                }
                held.finish().await.expect("the server answers");
                cumulative
            })
        })
        .collect();
    let mut total = 0;
    for stream in streams {
        total += stream.await.expect("no stream panics");
    }
    for book in &books {
        assert_eq!(owed_and_reserved(book, &facts.address).await, (total, 0), "all gateways say the same");
    }
    assert!(total <= WINDOW, "{total}: eleven streams at three gateways owe what one may");
    assert!(total > WINDOW - 7 * 11, "{total}: nobody sits on what another needs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voucher_at_one_gateway_wakes_a_stream_that_waits_at_another() {
    let cluster = Cluster::start();
    let database = cluster.database().await;
    let (books, facts) = (books(&database, 2).await, facts(1, 10_000));
    books[0].announce(facts.clone()).await.expect("a fresh channel is taken");
    let mut best = LONG;
    for round in 1..=5 {
        let mut held = books[1].reserve(&facts.address, 1_000).await.expect("the deposit covers it");
        held.charge(1_000, SOON).await.expect("a whole window");
        held.finish().await.expect("the server answers");
        let mut held = books[1].reserve(&facts.address, 1).await.expect("the deposit covers it");
        let waiting = tokio::spawn(async move { held.charge(1, LONG).await.map(|()| held) });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!waiting.is_finished(), "the window is full");
        let handed_in = Instant::now();
        let paid = voucher(&facts, round * 1_001 - 1);
        books[0].accept_voucher(&facts.address, paid).await.expect("a good voucher");
        let held = waiting.await.expect("no panic").expect("the voucher lets it go on");
        best = best.min(handed_in.elapsed());
        held.finish().await.expect("the server answers");
        books[0].accept_voucher(&facts.address, voucher(&facts, round * 1_001)).await.expect("the last bit");
    }
    assert!(best < Duration::from_millis(500), "by notification, not by the look each second: {best:?}");
}

const CHILD: &str = "COCOON_POSTGRES_TEST_CHILD";

/// Started by the test below in a process of its own; charges, says what it charged, and is killed.
#[tokio::test]
async fn child_that_streams_until_it_is_killed() {
    let Ok(words) = std::env::var(CHILD) else { return };
    let accounts = PostgresAccounts::connect(&words, options(), shared(Duration::from_secs(3))).await;
    let (book, facts) = (accounts.expect("the server answers").book(), facts(1, 10_000));
    let mut held = book.reserve(&facts.address, 5_000).await.expect("the deposit covers it");
    for charged in 1..=600 {
        held.charge(charged, LONG).await.expect("within the window");
    }
    println!("charged");
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_gateway_set_aside_is_given_back_after_its_lease_and_what_it_charged_stays_owed() {
    let cluster = Cluster::start();
    let database = cluster.database().await;
    let (book, facts) = (database.book_with(shared(Duration::from_secs(3))).await, facts(1, 10_000));
    book.announce(facts.clone()).await.expect("a fresh channel is taken");
    let mut child = Command::new(std::env::current_exe().expect("this test has a file"))
        .args(["--exact", "child_that_streams_until_it_is_killed", "--nocapture"])
        .env(CHILD, database.words())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("charged")), "the child streams");
    child.kill().expect("it is ours");
    child.wait().expect("it is our child");

    let (owed, reserved) = owed_and_reserved(&book, &facts.address).await;
    assert_eq!(owed + reserved, 5_000, "the lease still runs");
    assert!(book.reserve(&facts.address, 5_001).await.is_err(), "what it had set aside is not free yet");
    eventually("what it had set aside is free", async || {
        owed_and_reserved(&book, &facts.address).await.1 == 0
    })
    .await;
    let (owed, _) = owed_and_reserved(&book, &facts.address).await;
    assert!((600 - WINDOW / 8..=600).contains(&owed), "{owed}: all but an allowance at most is owed");
    book.reserve(&facts.address, 10_000 - owed).await.expect("the rest is free");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_was_thought_dead_ends_its_streams_and_forgets_no_charge() {
    let cluster = Cluster::start();
    let database = cluster.database().await;
    let (book, facts) = (database.book_with(shared(Duration::from_secs(4))).await, facts(1, 10_000));
    book.announce(facts.clone()).await.expect("a fresh channel is taken");
    let mut held = book.reserve(&facts.address, 5_000).await.expect("the deposit covers it");
    held.charge(100, SOON).await.expect("within the window");
    // What another gateway does once the lease is over.
    let ended = "UPDATE cocoon_channels SET owed = owed + (SELECT coalesce(sum(charged), 0) FROM cocoon_shares); \
        DELETE FROM cocoon_shares; DELETE FROM cocoon_processes";
    database.run(ended).await;
    let lapsed = async {
        let mut charged = 100;
        loop {
            charged += 1;
            match held.charge(charged, SOON).await {
                Ok(()) => tokio::time::sleep(SOON).await,
                Err(error) => return (charged - 1, error),
            }
        }
    };
    let (charged, error) = lapsed.await;
    assert_eq!(error, ChargeError::Store(StoreError::Lapsed));
    drop(held);
    eventually("what was not reported is owed", async || {
        owed_and_reserved(&book, &facts.address).await == (charged, 0)
    })
    .await;
    let held = book.reserve(&facts.address, 1_000).await.expect("work goes on under a new lease");
    held.finish().await.expect("the server answers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_stopped_or_crashes_loses_nothing_and_work_goes_on_when_it_is_back() {
    let mut cluster = Cluster::start();
    let (name, facts) = (cluster.database().await.name, facts(1, 1_000_000));
    let connected =
        PostgresAccounts::connect(&cluster.words(&name), options(), SharedOptions::default()).await;
    let book = connected.expect("the server answers").book();
    book.announce(facts.clone()).await.expect("a fresh channel is taken");
    let mut held = book.reserve(&facts.address, 100_000).await.expect("the deposit covers it");
    let mut charged = 0;
    for (round, how) in [Signal::INT, Signal::QUIT].into_iter().enumerate() {
        charged += 900;
        held.charge(charged, LONG).await.expect("within the window");
        let acknowledged = voucher(&facts, charged);
        book.accept_voucher(&facts.address, acknowledged).await.expect("a good voucher");
        cluster.stop(how);

        let refused = book.accept_voucher(&facts.address, voucher(&facts, charged + 50)).await;
        let refused = refused.err();
        assert!(
            matches!(refused, Some(VoucherError::Store(StoreError::Unreachable { .. }))),
            "round {round}: {refused:?}"
        );
        assert!(book.reserve(&facts.address, 1).await.is_err(), "no work begins that nobody counts");
        // The stream goes on within what it drew, then waits; it is not cut.
        let streaming = tokio::spawn(async move {
            let upto = charged + 900;
            while charged < upto {
                charged += 10;
                held.charge(charged, LONG).await?;
            }
            Ok::<_, ChargeError>((held, charged))
        });
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(!streaming.is_finished(), "round {round}: it waits");
        cluster.resume(&[]);
        (held, charged) = streaming.await.expect("no panic").expect("it goes on");
        let status = status(&book, &facts.address).await.expect("the channel is known");
        assert_eq!((status.voucher, status.owed), (charged - 900, charged), "round {round}");
        book.accept_voucher(&facts.address, voucher(&facts, charged)).await.expect("a good voucher");
    }
    cluster.stop(Signal::INT);
    let finishing = tokio::spawn(held.finish());
    tokio::time::sleep(Duration::from_millis(500)).await;
    cluster.resume(&[]);
    finishing.await.expect("no panic").expect("the end of an answer waits for the database");
    assert_eq!(owed_and_reserved(&book, &facts.address).await, (charged, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wallets_turn_is_one_gateways_at_a_time_and_ends_with_it() {
    let cluster = Cluster::start();
    let database = cluster.database().await;
    let books = books(&database, 2).await;
    let first = books[0].wallet_turn().await.expect("the server answers");
    let second = tokio::time::timeout(Duration::from_millis(400), books[1].wallet_turn()).await;
    assert!(second.is_err(), "one at a time");
    drop(first);
    let second = tokio::time::timeout(LONG, books[1].wallet_turn()).await;
    drop(second.expect("it comes").expect("the server answers"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_that_start_at_once_make_the_tables_once_and_later_tables_are_refused() {
    let cluster = Cluster::start();
    let database = Arc::new(cluster.database().await);
    let starts = (0..4).map(|_| database.open());
    futures_util::future::join_all(starts).await;
    database.run(&format!("UPDATE cocoon_meta SET schema = {}", SCHEMA + 1)).await;
    let refused = PostgresAccounts::connect(&database.words(), options(), SharedOptions::default()).await;
    assert!(matches!(refused.err(), Some(StoreError::Schema { found: 2, .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgets_what_it_commits_is_refused() {
    let cluster = Cluster::start_with(&["fsync=off"]);
    let words = cluster.words("postgres");
    let refused = PostgresAccounts::connect(&words, options(), SharedOptions::default()).await;
    let error = refused.err().expect("it is refused").to_string();
    assert!(error.contains("fsync"), "{error}");
}
