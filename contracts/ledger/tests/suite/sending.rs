//! `cocoon_chain::Wallet` over HTTP: batches, two processes with one key, messages whose fate is asked after a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cocoon_chain::{Chain, ChainError, Fate, Toncenter, Wallet};
use cocoon_contracts::wallet::{Transfer, WalletVersion};
use cocoon_contracts::{Address, Nanotons, SigningKey, TON, message};
use cocoon_ledger::{Genesis, Ledger, Pace, Schedule, Server};
use tokio::net::TcpListener;

use super::world::{NETWORK, START};

/// A served ledger whose clock the test holds, with coins for one wallet.
struct Bench {
    clock: Arc<AtomicU32>,
    chain: Arc<dyn Chain>,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Bench {
    async fn start(version: WalletVersion) -> Self {
        let genesis =
            Genesis { network: NETWORK, schedule: Schedule::Mainnet2026, time: START, accounts: Vec::new() };
        let mut ledger = Ledger::in_memory(&genesis).unwrap();
        ledger.faucet(&version.address(&key().public(), NETWORK), 100 * TON).unwrap();
        ledger.produce_block(START).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let clock = Arc::new(AtomicU32::new(START));
        let hands = Arc::clone(&clock);
        let pace = Pace { busy: Duration::from_millis(5), idle: Duration::from_millis(50) };
        let server = Server::with_clock(ledger, Box::new(move || hands.load(Ordering::Relaxed))).pace(pace);
        let task = tokio::spawn(server.run(listener));
        Self { clock, chain: Arc::new(Toncenter::connect(&url).await.unwrap()), task }
    }

    fn wallet(&self, version: WalletVersion) -> Wallet {
        Wallet::of_version(key(), version, Arc::clone(&self.chain))
    }

    async fn balance(&self, address: &Address) -> Nanotons {
        self.chain.account(address).await.unwrap().balance
    }

    async fn advance(&self, seconds: u32) {
        let time = self.clock.fetch_add(seconds, Ordering::Relaxed) + seconds;
        while self.chain.head().await.unwrap().time < u64::from(time) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn key() -> SigningKey {
    SigningKey::from_seed(&[9; 32])
}

fn person(i: u16) -> Address {
    let mut hash = [0x55; 32];
    hash[..2].copy_from_slice(&i.to_be_bytes());
    message::basechain(hash)
}

fn pay(i: u16, amount: Nanotons) -> Transfer {
    Transfer { to: person(i), amount, bounce: false, body: None, state_init: None }
}

#[tokio::test]
async fn a_large_payout_is_split_by_what_the_version_takes() {
    for (version, count, messages) in [(WalletVersion::V5R1, 300, 2), (WalletVersion::V4R2, 9, 3)] {
        let bench = Bench::start(version).await;
        let wallet = bench.wallet(version);
        let transfers: Vec<_> = (0..count).map(|i| pay(i, 1_000_000 + u64::from(i))).collect();
        let mut heard = Vec::new();
        wallet.transfer_all(&transfers, |paid, sent| heard.push((paid, sent.transaction))).await.unwrap();
        assert_eq!(heard.len(), messages);
        assert_eq!(heard.last().unwrap().0, usize::from(count));
        assert_eq!(wallet.seqno().await.unwrap(), u32::try_from(messages).unwrap());
        for transfer in &transfers {
            assert_eq!(bench.balance(&transfer.to).await, transfer.amount);
        }
    }
}

#[tokio::test]
async fn two_processes_with_one_key_pay_each_once() {
    let bench = Bench::start(WalletVersion::V5R1).await;
    let (one, two) = (bench.wallet(WalletVersion::V5R1), bench.wallet(WalletVersion::V5R1));
    for round in 0..4 {
        let (first, second) = ([pay(2 * round, 7_000_000)], [pay(2 * round + 1, 8_000_000)]);
        let (a, b) = tokio::join!(one.transfer(&first), two.transfer(&second));
        a.unwrap();
        b.unwrap();
        assert_eq!(bench.balance(&person(2 * round)).await, 7_000_000);
        assert_eq!(bench.balance(&person(2 * round + 1)).await, 8_000_000);
    }
}

#[tokio::test]
async fn a_message_that_was_taken_is_found_again_and_not_paid_twice() {
    let bench = Bench::start(WalletVersion::V5R1).await;
    let before = bench.wallet(WalletVersion::V5R1);
    let prepared = before.prepare(&[pay(1, 5_000_000)]).await.unwrap();
    // The process is killed between sending and hearing of it; others pay meanwhile, and the message's time passes.
    bench.chain.send(&prepared.message).await.unwrap();
    while bench.balance(&person(1)).await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    before.transfer(&[pay(2, 1_000_000)]).await.unwrap();
    bench.advance(1000).await;
    let after = bench.wallet(WalletVersion::V5R1);
    for _ in 0..2 {
        let Fate::Taken(sent) = after.confirm(&prepared).await.unwrap() else { panic!("it was taken") };
        let known = bench.chain.transactions(after.address(), 10).await.unwrap();
        assert!(known.iter().any(|tx| tx.hash == sent.transaction && tx.lt == sent.lt));
    }
    assert_eq!(bench.balance(&person(1)).await, 5_000_000);
}

#[tokio::test]
async fn a_message_that_never_left_is_sent_after_the_restart_while_its_time_lasts() {
    let bench = Bench::start(WalletVersion::V5R1).await;
    let prepared = bench.wallet(WalletVersion::V5R1).prepare(&[pay(1, 5_000_000)]).await.unwrap();
    let late = bench.wallet(WalletVersion::V5R1).prepare(&[pay(2, 5_000_000)]).await.unwrap();
    let after = bench.wallet(WalletVersion::V5R1);
    assert!(matches!(after.confirm(&prepared).await.unwrap(), Fate::Taken(_)));
    assert_eq!(bench.balance(&person(1)).await, 5_000_000);
    // The other one had the same number.
    assert_eq!(after.confirm(&late).await.unwrap(), Fate::Replaced);
    let expired = after.prepare(&[pay(3, 5_000_000)]).await.unwrap();
    bench.advance(61).await;
    assert_eq!(after.confirm(&expired).await.unwrap(), Fate::Expired);
    assert_eq!(bench.balance(&person(2)).await + bench.balance(&person(3)).await, 0);
}

#[tokio::test]
async fn a_wallet_of_another_version_is_another_account() {
    let bench = Bench::start(WalletVersion::V5R1).await;
    let four = bench.wallet(WalletVersion::V4R2);
    assert_eq!(four.balance().await.unwrap(), 0);
    let error = four.transfer(&[pay(1, 1)]).await.unwrap_err();
    assert!(matches!(error, ChainError::InsufficientBalance { .. }), "{error}");
    let wallet = bench.wallet(WalletVersion::V5R1);
    let many = vec![pay(1, 1); 256];
    assert!(matches!(
        wallet.transfer(&many).await,
        Err(ChainError::InsufficientBalance { .. } | ChainError::Invalid { .. })
    ));
    assert_eq!(bench.balance(&person(1)).await, 0);
}
