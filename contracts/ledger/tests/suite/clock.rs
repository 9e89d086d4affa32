//! Time is an argument: the same beginning, messages and times make the same blocks, and a year may pass at once.

use std::time::Duration;

use cocoon_contracts::wallet::{self, Transfer};
use cocoon_contracts::{TON, message};
use cocoon_ledger::{Genesis, Ledger, Pace, Schedule, Server};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::world::{Actor, START, genesis};

const YEAR: u32 = 365 * 24 * 3600;

/// Blocks with payments and idle years between them; their hashes.
fn history(mut ledger: Ledger) -> Vec<[u8; 32]> {
    let (payer, payee) = (Actor::new(1), Actor::new(2));
    let mut hashes = Vec::new();
    for (round, now) in
        [START + 1, START + 2, START + YEAR, START + YEAR, START + 3 * YEAR].into_iter().enumerate()
    {
        let pay =
            Transfer { to: payee.address.clone(), amount: TON, bounce: false, body: None, state_init: None };
        let message = wallet::external_message(&payer.key, round as u32, now + 60, false, &[pay]).unwrap();
        ledger.produce_block(now).unwrap();
        ledger.submit(&message::encode(&message)).unwrap();
        hashes.push(ledger.produce_block(now).unwrap().root_hash);
    }
    hashes
}

#[test]
fn the_same_messages_at_the_same_times_make_the_same_blocks() {
    let settings = genesis(Schedule::Mainnet2026, &[&Actor::new(1), &Actor::new(2)]);
    let in_memory = || history(Ledger::in_memory(&settings).unwrap());
    let first = in_memory();
    assert_eq!(first, in_memory());
    let folder = tempfile::tempdir().unwrap();
    let on_disk = Ledger::open(&folder.path().join("ledger.redb"), &settings).unwrap();
    assert_eq!(first, history(on_disk), "wherever it is kept");
    let later = Genesis { time: START + 1, ..settings };
    assert_ne!(first, history(Ledger::in_memory(&later).unwrap()), "another beginning is another chain");
}

#[test]
fn a_clock_that_goes_back_is_held() {
    let settings = genesis(Schedule::Mainnet2026, &[&Actor::new(1)]);
    let mut ledger = Ledger::in_memory(&settings).unwrap();
    assert_eq!(ledger.produce_block(START + 100).unwrap().time, START + 100);
    assert_eq!(ledger.produce_block(START + 50).unwrap().time, START + 100);
    assert_eq!(ledger.produce_block(START + 101).unwrap().time, START + 101);
}

#[test]
fn blocks_are_found_by_logical_time_and_by_time() {
    let settings = genesis(Schedule::Mainnet2026, &[&Actor::new(1), &Actor::new(2)]);
    let mut ledger = Ledger::in_memory(&settings).unwrap();
    let blocks: Vec<_> = (1..50).map(|i| ledger.produce_block(START + i * 10).unwrap()).collect();
    for block in &blocks {
        assert_eq!(ledger.block_of(block.start_lt).unwrap().unwrap(), *block);
        let at = ledger.find_block(|found| block.time <= found.time).unwrap().unwrap();
        assert_eq!(at, *block);
        let before = ledger.find_block(|found| block.time - 9 <= found.time).unwrap().unwrap();
        assert_eq!(before, *block, "the first that is not before");
    }
    assert_eq!(ledger.block_of(u64::MAX).unwrap(), None);
}

async fn served(adjustable: bool) -> (String, tokio::task::JoinHandle<std::io::Result<()>>) {
    let settings = genesis(Schedule::Mainnet2026, &[&Actor::new(1)]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let pace = Pace { busy: Duration::from_millis(5), idle: Duration::from_secs(3600) };
    let server = Server::with_clock(Ledger::in_memory(&settings).unwrap(), Box::new(|| START + 7)).pace(pace);
    let server = if adjustable { server.adjustable_clock() } else { server };
    (url, tokio::spawn(server.run(listener)))
}

async fn advance(url: &str, seconds: u32) -> (u16, Value) {
    let sent =
        reqwest::Client::new().post(format!("{url}/clock")).json(&json!({ "advance": seconds })).send();
    let response = sent.await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn a_year_passes_over_http_where_it_was_allowed() {
    let (url, task) = served(true).await;
    let (status, answer) = advance(&url, YEAR).await;
    assert_eq!(
        (status, answer["result"]["block_time"].as_u64()),
        (200, Some(u64::from(START + 7 + YEAR))),
        "{answer}"
    );
    assert_eq!(advance(&url, 0).await.0, 422);
    assert_eq!(advance(&url, u32::MAX).await.0, 422);
    let now: Value = reqwest::get(format!("{url}/clock")).await.unwrap().json().await.unwrap();
    assert_eq!(now["result"]["now"], START + 7 + YEAR);
    task.abort();
}

#[tokio::test]
async fn a_clock_that_nobody_may_move_says_how_to_start_one() {
    let (url, task) = served(false).await;
    let (status, answer) = advance(&url, 1).await;
    assert_eq!(status, 403);
    assert!(answer["error"].as_str().unwrap().contains("--adjustable-clock"), "{answer}");
    task.abort();
}
