//! A wallet whose way to the chain loses answers: nothing is paid twice, and nothing is said to be lost that happened.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cocoon_chain::{AccountState, Block, Chain, ChainError, StackItem, Toncenter, Transaction, Wallet};
use cocoon_contracts::wallet::{Transfer, WalletVersion};
use cocoon_contracts::{Address, Nanotons, SigningKey, TON, message};
use cocoon_ledger::{Genesis, Ledger, Pace, Schedule, Server};
use futures_util::future::BoxFuture;

const NETWORK: i32 = -4040;
const START: u32 = 1_780_000_000;
const AMOUNT: Nanotons = 5_000_000;
const VERSION: WalletVersion = WalletVersion::V5R1;

/// A chain whose answers get lost: so many of the next sends and, once something was sent, so many reads.
struct Lossy {
    inner: Toncenter,
    sends: AtomicU32,
    reads: AtomicU32,
    /// Whether a send that loses its answer arrives.
    arrives: bool,
    sent: AtomicU32,
    /// So many reads of an account, once something was sent, show what the first read showed.
    late: AtomicU32,
    /// The most that the backend says it may be late, in seconds.
    lag: u64,
    first: Mutex<Option<AccountState>>,
}

/// Takes one from a counter, unless it is empty.
fn one_of(counter: &AtomicU32) -> bool {
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

fn lost<T>(method: &str) -> Result<T, ChainError> {
    let why = "the answer was lost".to_owned();
    Err(ChainError::Unreachable { url: "test".into(), method: method.into(), why })
}

impl Lossy {
    fn read<'a, T: Send + 'a>(
        &'a self,
        call: BoxFuture<'a, Result<T, ChainError>>,
    ) -> BoxFuture<'a, Result<T, ChainError>> {
        Box::pin(async move {
            let value = call.await?;
            let may_fail = self.sent.load(Ordering::SeqCst) > 0;
            if may_fail && one_of(&self.reads) { lost("a read") } else { Ok(value) }
        })
    }
}

impl Chain for Lossy {
    fn network(&self) -> i32 {
        self.inner.network()
    }

    fn accounts_lag_seconds(&self) -> u64 {
        self.lag
    }

    fn head(&self) -> BoxFuture<'_, Result<Block, ChainError>> {
        self.read(self.inner.head())
    }

    fn block(&self, seqno: u32) -> BoxFuture<'_, Result<Option<Block>, ChainError>> {
        self.read(self.inner.block(seqno))
    }

    fn account<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, Result<AccountState, ChainError>> {
        Box::pin(async move {
            let now = self.read(self.inner.account(address)).await?;
            let mut first = self.first.lock().unwrap();
            let first = first.get_or_insert_with(|| now.clone());
            let late = self.sent.load(Ordering::SeqCst) > 0 && one_of(&self.late);
            Ok(if late { first.clone() } else { now })
        })
    }

    fn transactions<'a>(
        &'a self,
        address: &'a Address,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Transaction>, ChainError>> {
        self.read(self.inner.transactions(address, limit))
    }

    fn run_get_method<'a>(
        &'a self,
        address: &'a Address,
        method: &'a str,
        arguments: Vec<StackItem>,
    ) -> BoxFuture<'a, Result<Vec<StackItem>, ChainError>> {
        self.read(self.inner.run_get_method(address, method, arguments))
    }

    fn send<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<(), ChainError>> {
        Box::pin(async move {
            self.sent.fetch_add(1, Ordering::SeqCst);
            let loses = one_of(&self.sends);
            if !loses || self.arrives {
                self.inner.send(message).await?;
            }
            if loses { lost("sendBoc") } else { Ok(()) }
        })
    }
}

/// A served ledger whose clock the test holds, and a wallet with coins behind a lossy way to it.
struct Bench {
    clock: Arc<AtomicU32>,
    lossy: Arc<Lossy>,
    wallet: Arc<Wallet>,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Bench {
    async fn start(sends: u32, reads: u32, arrives: bool) -> Self {
        Self::behind(sends, reads, arrives, 0, 0).await
    }

    async fn behind(sends: u32, reads: u32, arrives: bool, late: u32, lag: u64) -> Self {
        let genesis =
            Genesis { network: NETWORK, schedule: Schedule::Mainnet2026, time: START, accounts: Vec::new() };
        let mut ledger = Ledger::in_memory(&genesis).unwrap();
        let key = SigningKey::from_seed(&[9; 32]);
        ledger.faucet(&VERSION.address(&key.public(), NETWORK), 100 * TON).unwrap();
        ledger.produce_block(START).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let clock = Arc::new(AtomicU32::new(START));
        let hands = Arc::clone(&clock);
        let pace = Pace { busy: Duration::from_millis(5), idle: Duration::from_millis(50) };
        let server = Server::with_clock(ledger, Box::new(move || hands.load(Ordering::Relaxed))).pace(pace);
        let task = tokio::spawn(server.run(listener));
        let lossy = Arc::new(Lossy {
            inner: Toncenter::connect(&url).await.unwrap(),
            sends: sends.into(),
            reads: reads.into(),
            arrives,
            sent: AtomicU32::new(0),
            late: late.into(),
            lag,
            first: Mutex::default(),
        });
        let wallet = Arc::new(Wallet::of_version(key, VERSION, Arc::clone(&lossy) as _));
        Self { clock, lossy, wallet, task }
    }

    async fn paid(&self) -> Nanotons {
        self.lossy.inner.account(&person()).await.unwrap().balance
    }

    async fn messages(&self) -> usize {
        let all = self.lossy.inner.transactions(self.wallet.address(), 100).await.unwrap();
        all.iter().filter(|tx| tx.from.is_none()).count()
    }
}

fn person() -> Address {
    message::basechain([0x55; 32])
}

fn pay() -> [Transfer; 1] {
    [Transfer { to: person(), amount: AMOUNT, bounce: false, body: None, state_init: None }]
}

#[tokio::test]
async fn a_message_that_was_taken_while_its_answer_was_lost_is_paid_once() {
    let bench = Bench::start(1, 0, true).await;
    let sent = bench.wallet.transfer(&pay()).await.expect("it happened");
    let known = bench.lossy.inner.transactions(bench.wallet.address(), 10).await.unwrap();
    assert!(known.iter().any(|tx| tx.hash == sent.transaction));
    assert_eq!((bench.paid().await, bench.messages().await), (AMOUNT, 1));
}

#[tokio::test]
async fn a_message_that_got_lost_is_handed_in_again() {
    let bench = Bench::start(1, 0, false).await;
    bench.wallet.transfer(&pay()).await.expect("the second try arrives");
    assert_eq!(bench.lossy.sent.load(Ordering::SeqCst), 2);
    assert_eq!((bench.paid().await, bench.messages().await), (AMOUNT, 1));
}

#[tokio::test]
async fn a_chain_that_cannot_be_read_for_a_while_after_sending_does_not_end_the_wait() {
    let bench = Bench::start(1, 6, true).await;
    bench.wallet.transfer(&pay()).await.expect("it is seen in the end");
    assert_eq!(bench.lossy.reads.load(Ordering::SeqCst), 0, "reads did fail");
    assert_eq!((bench.paid().await, bench.messages().await), (AMOUNT, 1));
}

#[tokio::test]
async fn a_message_that_never_arrives_is_given_up_by_the_chains_clock_alone() {
    let bench = Bench::start(u32::MAX, 0, false).await;
    let wallet = Arc::clone(&bench.wallet);
    let mut paying = tokio::spawn(async move { wallet.transfer(&pay()).await });
    let early = tokio::time::timeout(Duration::from_millis(500), &mut paying).await;
    early.expect_err("before the chain's clock passed its end, nothing is said");
    while !paying.is_finished() {
        bench.clock.fetch_add(61, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let error = paying.await.unwrap().expect_err("it cannot have happened");
    assert!(matches!(error, ChainError::NotConfirmed { .. }), "{error}");
    assert_eq!((bench.paid().await, bench.messages().await), (0, 0));
}

#[tokio::test]
async fn a_caller_that_gave_up_and_says_the_same_again_pays_once() {
    let bench = Bench::start(1, 0, true).await;
    let payment = pay();
    {
        let mut paying = std::pin::pin!(bench.wallet.transfer(&payment));
        while bench.lossy.sent.load(Ordering::SeqCst) == 0 {
            let early = tokio::time::timeout(Duration::from_millis(1), &mut paying).await;
            early.expect_err("it was not even sent");
        }
        // Dropped here, with its message on the way.
    }
    bench.wallet.transfer(&pay()).await.expect("it is the same payment");
    assert_eq!((bench.paid().await, bench.messages().await), (AMOUNT, 1));
    bench.wallet.transfer(&pay()).await.expect("and now it is another");
    assert_eq!(bench.messages().await, 2);
}

/// Behind one address are many nodes. One that is late shows a wallet as it was before a message was taken, beside a head
/// that is past the message's end.
#[tokio::test]
async fn a_message_that_a_late_node_does_not_show_is_not_paid_again() {
    // As late as the backend says that a node may be; and later than that.
    for (late, lag, past) in [(5, 30, 61 + 25), (1, 30, 61 + 40)] {
        let bench = Bench::behind(0, 0, true, u32::MAX, lag).await;
        let wallet = Arc::clone(&bench.wallet);
        let paying = tokio::spawn(async move { wallet.transfer(&pay()).await });
        while bench.paid().await == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        bench.lossy.late.store(late, Ordering::SeqCst);
        bench.clock.fetch_add(past, Ordering::Relaxed);
        paying.await.unwrap().expect("it happened");
        assert_eq!(bench.lossy.late.load(Ordering::SeqCst), 0, "a node was late");
        assert_eq!((bench.paid().await, bench.messages().await), (AMOUNT, 1), "late by {lag} s");
    }
}
