//! The agents over a ledger: what is settled first, in how few messages, and what a chain that is away costs: nothing.

mod common;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use cocoon_accounts::{
    AgentOptions, COLLECT_AT, ChannelFacts, Kept, PayeeAgent, PayeeBook, PayerBook, PayerKeeper, PayerPolicy,
    SETTLEMENT_FEE, Store, VoucherError, http,
};
use cocoon_chain::{AccountState, Block, Chain, ChainError, StackItem, Toncenter, Transaction, Wallet};
use cocoon_contracts::{
    Address, Nanotons, SigningKey, TON,
    channel::{self, Terms},
    wallet::{self, MAX_TRANSFERS},
};
use cocoon_ledger::{Genesis, GenesisAccount, Ledger, Pace, Schedule, Server};
use common::{File, NETWORK, account, book, key, voucher};
use futures_util::future::BoxFuture;

const DEPOSIT: Nanotons = TON;
const SETTLE_AT: Nanotons = TON / 10;
const LIMIT: Duration = Duration::from_secs(60);

/// A chain that can be away (calls fail) or hang (they never return).
struct Switch {
    inner: Toncenter,
    mode: AtomicU8,
}

const HERE: u8 = 0;
const AWAY: u8 = 1;
const HANGS: u8 = 2;

impl Switch {
    fn set(&self, mode: u8) {
        self.mode.store(mode, Ordering::SeqCst);
    }

    fn pass<'a, T: Send + 'a>(
        &'a self,
        call: BoxFuture<'a, Result<T, ChainError>>,
    ) -> BoxFuture<'a, Result<T, ChainError>> {
        Box::pin(async move {
            match self.mode.load(Ordering::SeqCst) {
                HERE => call.await,
                AWAY => {
                    let (url, method, why) = ("test".to_owned(), "all".to_owned(), "away".to_owned());
                    Err(ChainError::Unreachable { url, method, why })
                }
                _ => std::future::pending().await,
            }
        })
    }
}

impl Chain for Switch {
    fn network(&self) -> i32 {
        self.inner.network()
    }

    fn head(&self) -> BoxFuture<'_, Result<Block, ChainError>> {
        self.pass(self.inner.head())
    }

    fn block(&self, seqno: u32) -> BoxFuture<'_, Result<Option<Block>, ChainError>> {
        self.pass(self.inner.block(seqno))
    }

    fn account<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, Result<AccountState, ChainError>> {
        self.pass(self.inner.account(address))
    }

    fn transactions<'a>(
        &'a self,
        address: &'a Address,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Transaction>, ChainError>> {
        self.pass(self.inner.transactions(address, limit))
    }

    fn run_get_method<'a>(
        &'a self,
        address: &'a Address,
        method: &'a str,
        arguments: Vec<StackItem>,
    ) -> BoxFuture<'a, Result<Vec<StackItem>, ChainError>> {
        self.pass(self.inner.run_get_method(address, method, arguments))
    }

    fn send<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<(), ChainError>> {
        self.pass(self.inner.send(message))
    }
}

fn payee_key() -> SigningKey {
    SigningKey::from_seed(&[22; 32])
}

/// A ledger with two rich wallets, and the payee's view of it through a switch.
struct World {
    url: String,
    file: File,
    switch: Arc<Switch>,
    payer: Arc<Wallet>,
    payee: Arc<Wallet>,
    ledger: tokio::task::JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.ledger.abort();
    }
}

impl World {
    async fn start() -> Self {
        let time = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
        let rich = |key: SigningKey| {
            let address = wallet::address(&key.public());
            GenesisAccount { address, balance: 1000 * TON, state_init: None }
        };
        let accounts = vec![rich(key()), rich(payee_key())];
        let time = u32::try_from(time).expect("before 2106");
        let genesis = Genesis { network: NETWORK, schedule: Schedule::Mainnet2026, time, accounts };
        let ledger = Ledger::in_memory(&genesis).expect("a ledger begins");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let pace = Pace { busy: Duration::from_millis(10), idle: Duration::from_millis(100) };
        let server = Server::new(ledger).pace(pace);
        let ledger = tokio::spawn(async move { drop(server.run(listener).await) });
        let chain = || Toncenter::new(&url, NETWORK).expect("a good URL");
        let switch = Arc::new(Switch { inner: chain(), mode: AtomicU8::new(HERE) });
        let payer = Arc::new(Wallet::new(key(), Arc::new(chain())));
        let payee = Arc::new(Wallet::new(payee_key(), Arc::clone(&switch) as Arc<dyn Chain>));
        Self { file: File::new(), switch, payer, payee, ledger, url }
    }

    fn terms(&self, nonce: u64, challenge_seconds: u32) -> Terms {
        Terms {
            payer: self.payer.address().clone(),
            payee: self.payee.address().clone(),
            payer_key: key().public(),
            network: NETWORK,
            nonce,
            challenge_seconds,
            fee_bps: 100,
            treasury: account(3),
        }
    }

    /// A channel on the chain and in the book, with a voucher for `amount`.
    async fn channel(&self, book: &PayeeBook, nonce: u64, challenge: u32, amount: Nanotons) -> ChannelFacts {
        let terms = self.terms(nonce, challenge);
        let state =
            cocoon_chain::open_channel(&self.payer, &terms, DEPOSIT, Nanotons::MAX).await.expect("it opens");
        let deposit = state.deposit();
        let facts = ChannelFacts {
            address: terms.address(),
            terms,
            deposit,
            paid: 0,
            closing: false,
            deadline: None,
        };
        book.announce(facts.clone()).await.expect("it is taken");
        book.accept_voucher(&facts.address, voucher(&facts, amount)).await.expect("a good voucher");
        facts
    }

    fn agent(&self, book: &PayeeBook) -> PayeeAgent {
        let options = AgentOptions {
            registry: account(9),
            min_challenge_seconds: 60,
            settle_at: SETTLE_AT,
            watch_every: Duration::ZERO,
        };
        PayeeAgent::new(Arc::clone(&self.payee), book.clone(), options)
    }

    async fn book(&self) -> PayeeBook {
        book(&self.file.store().await)
    }

    async fn paid(&self, facts: &ChannelFacts) -> Nanotons {
        let chain = Toncenter::new(&self.url, NETWORK).expect("a good URL");
        cocoon_chain::read_channel(&chain, &facts.address).await.expect("it is open").paid
    }

    /// The logical time of the payee's last transaction with a channel.
    async fn settled_at(&self, facts: &ChannelFacts) -> u64 {
        let chain = Toncenter::new(&self.url, NETWORK).expect("a good URL");
        let all = chain.transactions(&facts.address, 10).await.expect("the chain answers");
        let ours = all.iter().find(|tx| tx.from.as_ref() == Some(self.payee.address()));
        ours.expect("the payee settled").lt
    }
}

#[tokio::test]
async fn after_an_outage_closes_are_answered_first_the_nearest_deadline_before_the_others() {
    let world = World::start().await;
    let book = world.book().await;
    let worth = 2 * SETTLE_AT;
    let mut ordinary = Vec::new();
    for nonce in 0..6 {
        ordinary.push(world.channel(&book, nonce, 3600, 3 * worth + nonce).await);
    }
    let (late, near, unseen) = (
        world.channel(&book, 11, 7200, 4 * SETTLEMENT_FEE).await,
        world.channel(&book, 12, 600, 3 * SETTLEMENT_FEE).await,
        world.channel(&book, 13, 3600, 2 * SETTLEMENT_FEE).await,
    );
    let agent = world.agent(&book);
    // Two closes were seen by somebody's look before the chain went away, one begins while it is.
    for facts in [&late, &near] {
        let state = cocoon_chain::start_close(&world.payer, &facts.address).await.expect("a payer may close");
        let deadline = state.deadline;
        book.announce(ChannelFacts { closing: true, deadline, ..facts.clone() }).await.expect("it is noted");
    }
    world.switch.set(AWAY);
    cocoon_chain::start_close(&world.payer, &unseen.address).await.expect("a payer may close");
    for _ in 0..20 {
        agent.watch_once().await;
    }
    assert_eq!(book.unsettled().await.expect("the store answers").len(), 9, "nothing is lost");
    let order: Vec<Address> =
        book.unsettled().await.expect("the store answers").into_iter().map(|u| u.channel).collect();
    assert_eq!(order[..2], [near.address.clone(), late.address.clone()]);

    world.switch.set(HERE);
    agent.watch_once().await;
    let mut times = Vec::new();
    for facts in &ordinary {
        assert!(world.paid(facts).await >= worth);
        times.push(world.settled_at(facts).await);
    }
    let first = times.into_iter().min().expect("six of them");
    for facts in [&near, &late, &unseen] {
        assert!(world.paid(facts).await > 0, "the close was answered");
        assert!(world.settled_at(facts).await < first, "and before anything ordinary");
    }
}

impl World {
    /// Notes that the payer closes a channel.
    async fn close(&self, book: &PayeeBook, facts: &ChannelFacts) -> ChannelFacts {
        let state = cocoon_chain::start_close(&self.payer, &facts.address).await.expect("a payer may close");
        let closing = ChannelFacts { closing: true, deadline: state.deadline, ..facts.clone() };
        book.announce(closing.clone()).await.expect("it is noted");
        closing
    }
}

#[tokio::test]
async fn a_payer_that_closes_cannot_make_its_payee_spend_more_on_fees_than_it_gains() {
    let world = World::start().await;
    let book = world.book().await;
    let agent = world.agent(&book);
    // Vouchers that are worth less than their settlement, one after another.
    let dust = world.channel(&book, 1, 3600, 1).await;
    world.close(&book, &dust).await;
    for amount in 2..6 {
        book.accept_voucher(&dust.address, voucher(&dust, amount)).await.expect("a good voucher");
        agent.watch_once().await;
    }
    // A voucher for all of the deposit that comes when the deadline is over.
    let late = world.channel(&book, 2, 2, 1).await;
    let late = world.close(&book, &late).await;
    let deadline = u64::from(late.deadline.expect("it closes"));
    while world.payee.chain().head().await.expect("the chain answers").time <= deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    book.announce(late.clone()).await.expect("it is still there");
    book.accept_voucher(&late.address, voucher(&late, DEPOSIT / 2))
        .await
        .expect("it is not beyond the deposit");
    for _ in 0..3 {
        agent.watch_once().await;
    }
    assert_eq!(world.payee.seqno().await, Ok(0), "no message was sent");
    // A voucher that its channel refuses, since there is less in it than it seemed.
    let poor = world.channel(&book, 3, 3600, 1).await;
    book.announce(ChannelFacts { deposit: 9 * DEPOSIT, ..poor.clone() }).await.expect("it is noted");
    book.accept_voucher(&poor.address, voucher(&poor, 2 * DEPOSIT)).await.expect("within what was said");
    for _ in 0..3 {
        agent.watch_once().await;
    }
    assert_eq!(world.payee.seqno().await, Ok(1), "it is left alone for a while");
    assert_eq!(book.unsettled().await.expect("the store answers").len(), 3, "the vouchers are kept");
}

/// What the contract cannot prevent: the same terms have the same address, and a payer that wants to may open it again.
#[tokio::test]
async fn work_is_refused_on_a_channel_that_its_payer_opened_again_with_less() {
    let world = World::start().await;
    let book = world.book().await;
    let agent = world.agent(&book);
    let facts = world.channel(&book, 1, 3600, DEPOSIT / 4).await;
    agent.settle_all(LIMIT).await;
    assert_eq!(world.paid(&facts).await, DEPOSIT / 4);
    cocoon_chain::cooperative_close(&world.payee, &facts.address, None).await.expect("the payee may");
    let again = wallet::Transfer {
        to: facts.address.clone(),
        amount: TON / 20,
        bounce: false,
        body: Some(channel::open_body(Nanotons::MAX)),
        state_init: Some(facts.terms.state_init()),
    };
    world.payer.transfer(&[again]).await.expect("a payer may send what it likes");
    let chain = &**world.payer.chain();
    let deadline = Instant::now() + LIMIT;
    let reopened = loop {
        match cocoon_chain::read_channel(chain, &facts.address).await {
            Ok(state) => break state,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(reopened.paid, 0, "it is another channel");
    agent.watch_once().await;
    let refused = http::reserve(&book, &agent, &facts.address, DEPOSIT / 2).await.err();
    assert_eq!(refused.map(|refusal| refusal.error.code().to_owned()).as_deref(), Some("channel_unverified"));
    let more = book.accept_voucher(&facts.address, voucher(&facts, DEPOSIT / 2)).await;
    assert_eq!(more, Err(VoucherError::Unchecked));
}

#[tokio::test]
async fn small_vouchers_wait_and_the_end_settles_all_in_as_few_messages_as_the_wallet_can() {
    let world = World::start().await;
    let book = world.book().await;
    let number = 2 * MAX_TRANSFERS.min(4) + 1;
    let mut channels = Vec::new();
    for nonce in 0..number {
        channels.push(world.channel(&book, nonce as u64, 3600, SETTLE_AT / 2).await);
    }
    let agent = world.agent(&book);
    agent.watch_once().await;
    assert_eq!(world.payee.seqno().await, Ok(0), "nothing was worth it");
    let settled = agent.settle_all(LIMIT).await;
    assert_eq!(settled.iter().filter(|s| s.result == Ok(SETTLE_AT / 2)).count(), number, "{settled:?}");
    let messages = u32::try_from(number.div_ceil(MAX_TRANSFERS)).expect("a few");
    assert_eq!(world.payee.seqno().await, Ok(messages));
    let summary = book.summary().await.expect("the store answers").total;
    let all = SETTLE_AT / 2 * number as u64;
    assert_eq!((summary.settled, summary.unsettled, summary.at_risk), (all, 0, 0));
    assert!(agent.settle_all(LIMIT).await.is_empty(), "nothing is settled twice");
}

#[tokio::test]
async fn settling_again_what_was_settled_sends_nothing_and_a_channel_that_is_gone_holds_up_no_other() {
    let world = World::start().await;
    let before = world.book().await;
    let (good, gone) =
        (world.channel(&before, 1, 3600, 500).await, world.channel(&before, 2, 3600, 600).await);
    let settled = world.agent(&before).settle_all(LIMIT).await;
    assert!(settled.iter().all(|settlement| settlement.result.is_ok()), "{settled:?}");
    let sent = world.payee.seqno().await;
    // A book that was restored from a copy does not know.
    let restored = File::new();
    let book = book(&restored.store().await);
    for facts in [&good, &gone] {
        book.announce(facts.clone()).await.expect("it is taken");
        book.accept_voucher(&facts.address, voucher(facts, 500)).await.expect("a good voucher");
    }
    cocoon_chain::cooperative_close(&world.payee, &gone.address, None).await.expect("the payee may");
    let sent = sent.map(|sent| sent + 1);
    let settled = world.agent(&book).settle_all(LIMIT).await;
    let of =
        |facts: &ChannelFacts| settled.iter().find(|s| s.channel == facts.address).map(|s| s.result.clone());
    assert_eq!(of(&good), Some(Ok(500)));
    assert!(matches!(of(&gone), Some(Err(ChainError::WrongAccount { .. }))), "{settled:?}");
    assert_eq!(world.payee.seqno().await, sent, "no message was sent for it");
}

#[tokio::test]
async fn the_end_takes_no_longer_than_its_limit_and_keeps_what_it_did_not_settle() {
    let world = World::start().await;
    let book = world.book().await;
    let facts = world.channel(&book, 1, 3600, 500).await;
    let agent = world.agent(&book);
    for mode in [HANGS, AWAY] {
        world.switch.set(mode);
        let began = Instant::now();
        let settled = agent.settle_all(Duration::from_millis(300)).await;
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert!(settled.len() == 1 && settled[0].result.is_err(), "{settled:?}");
        assert_eq!(book.unsettled().await.expect("the store answers").len(), 1);
    }
    world.switch.set(HERE);
    let settled = agent.settle_all(LIMIT).await;
    assert_eq!(settled[0].result, Ok(500));
    assert_eq!(world.paid(&facts).await, 500);
}

#[tokio::test]
async fn while_the_chain_is_away_streams_go_on_within_window_and_vouchers() {
    let world = World::start().await;
    let book = world.book().await;
    let facts = world.channel(&book, 1, 3600, 500).await;
    let agent = world.agent(&book);
    world.switch.set(AWAY);
    agent.watch_once().await;
    let mut held = book.reserve(&facts.address, 5_000).await.expect("it was looked at lately");
    held.charge(1_000, LIMIT).await.expect("within the window");
    book.accept_voucher(&facts.address, voucher(&facts, 1_000)).await.expect("vouchers are taken");
    held.charge(2_000, LIMIT).await.expect("within the next window");
    held.charge(3_001, Duration::from_millis(20)).await.expect_err("not beyond it");
    let summary = book.summary().await.expect("the store answers").total;
    assert_eq!((summary.owed, summary.covered, summary.at_risk), (2_000, 1_000, 1_000));
}

fn policy() -> PayerPolicy {
    PayerPolicy { close_idle: None, top_up_below: TON / 2, top_up_by: TON, most: 3 * TON }
}

async fn paying(world: &World, store: Store, challenge: u32, limit: Nanotons) -> (PayerBook, Address) {
    let (book, terms) = (PayerBook::open(store).expect("a fresh book"), world.terms(1, challenge));
    let state = cocoon_chain::open_channel(&world.payer, &terms, DEPOSIT, limit).await.expect("it opens");
    book.open_channel(&terms.address(), &terms, state.deposit()).await.expect("the disk takes it");
    (book, terms.address())
}

#[tokio::test]
async fn a_deposit_that_runs_low_is_topped_up_for_what_was_earned_and_no_further_than_the_limit() {
    let world = World::start().await;
    let (book, channel) = paying(&world, world.file.store().await, 3600, Nanotons::MAX).await;
    let keeper = PayerKeeper::new(Arc::clone(&world.payer), book.clone(), policy());
    let nobody = HashSet::new();
    assert!(keeper.keep_once(&nobody).await.is_empty(), "nothing was spent");
    for round in 0..5 {
        let state = book.state(&channel).expect("it is in the book");
        book.owe(&channel, state.free()).expect("all of it");
        let kept = keeper.keep_once(&nobody).await;
        let holds = book.state(&channel).expect("it is in the book").deposit;
        if round < 1 {
            assert!(matches!(kept[..], [(_, Ok(Kept::ToppedUp))]), "{kept:?}");
            assert!(holds > state.deposit);
        }
        assert!(holds <= 3 * TON, "never beyond the limit");
    }
    assert!(keeper.keep_once(&nobody).await.is_empty(), "the limit is reached");
}

#[tokio::test]
async fn a_top_up_whose_end_was_not_seen_is_noted_and_not_made_again() {
    let world = World::start().await;
    let (book, channel) = paying(&world, world.file.store().await, 3600, Nanotons::MAX).await;
    let keeper = PayerKeeper::new(Arc::clone(&world.payer), book.clone(), policy());
    book.owe(&channel, DEPOSIT).expect("all of it");
    // What a process did that died before its book knew.
    cocoon_chain::top_up(&world.payer, &channel, TON).await.expect("anybody may");
    let sent = world.payer.seqno().await;
    let kept = keeper.keep_once(&HashSet::new()).await;
    assert!(matches!(kept[..], [(_, Ok(Kept::ToppedUp))]), "{kept:?}");
    assert!(book.state(&channel).is_some_and(|state| state.deposit > 2 * TON - TON / 100));
    assert_eq!(world.payer.seqno().await, sent, "no message was sent for it");
}

#[tokio::test]
async fn an_idle_channel_is_closed_its_rest_comes_home_and_it_leaves_the_book() {
    let world = World::start().await;
    let (book, channel) = paying(&world, world.file.store().await, 1, Nanotons::MAX).await;
    let policy = PayerPolicy { close_idle: Some(Duration::ZERO), top_up_below: 0, ..policy() };
    let keeper = PayerKeeper::new(Arc::clone(&world.payer), book.clone(), policy);
    let in_use = HashSet::from([channel.clone()]);
    assert!(keeper.keep_once(&in_use).await.is_empty(), "it is in use");
    let nobody = HashSet::new();
    let stream = book.begin(&channel, 10, true, 1).await.expect("within the deposit");
    assert!(keeper.keep_once(&nobody).await.is_empty(), "an answer is under way");
    stream.finish();
    let before = world.payer.balance().await.expect("the chain answers");
    let kept = keeper.keep_once(&nobody).await;
    assert!(matches!(kept[..], [(_, Ok(Kept::CloseBegun))]), "{kept:?}");
    assert!(book.begin(&channel, 10, true, 1).await.is_err(), "no work begins on it");
    let deadline = Instant::now() + LIMIT;
    loop {
        let kept = keeper.keep_once(&nobody).await;
        match &kept[..] {
            [] => assert!(Instant::now() < deadline, "it never closed"),
            [(_, Ok(Kept::Closed))] => break,
            other => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(book.channels().is_empty());
    let home = world.payer.balance().await.expect("the chain answers");
    assert!(home > before + DEPOSIT - TON / 10, "the rest came home: {before} {home}");
}

#[tokio::test]
async fn a_session_keys_limit_grows_with_the_deposit_and_an_addition_that_nobody_heard_of_is_not_made_twice()
{
    let world = World::start().await;
    let (book, channel) = paying(&world, world.file.store().await, 3600, DEPOSIT).await;
    let policy = PayerPolicy { most: 3 * TON + TON / 2, ..policy() };
    let keeper = PayerKeeper::new(Arc::clone(&world.payer), book.clone(), policy);
    let on_chain = async || {
        let state = cocoon_chain::read_channel(&**world.payer.chain(), &channel).await.expect("it is open");
        (state.limit, state.deposit())
    };
    let spend = || book.owe(&channel, book.state(&channel).expect("it is there").free()).expect("all of it");
    assert_eq!(keeper.top_up(&channel, TON / 2).await.expect("nothing to do"), None);
    assert_eq!(
        keeper.top_up(&channel, 2 * TON).await.expect("nothing to do"),
        None,
        "nothing was earned yet"
    );
    spend();
    assert_eq!(keeper.top_up(&channel, 0).await.expect("it is low"), Some(Kept::ToppedUp));
    assert_eq!(on_chain().await, (2 * TON, 2 * TON));

    // A process that was killed between the addition and its book.
    spend();
    cocoon_chain::authorize(&world.payer, &channel, 3 * TON, TON).await.expect("it is added");
    assert_eq!(keeper.top_up(&channel, 0).await.expect("it is seen"), Some(Kept::ToppedUp));
    assert_eq!(
        (on_chain().await, book.state(&channel).expect("it is there").deposit),
        ((3 * TON, 3 * TON), 3 * TON)
    );

    // What is left below the limit, and then nothing.
    spend();
    assert_eq!(keeper.top_up(&channel, 0).await.expect("it is low"), Some(Kept::ToppedUp));
    let most = 3 * TON + TON / 2;
    assert_eq!(on_chain().await, (most, most));
    spend();
    assert_eq!(keeper.top_up(&channel, TON).await.expect("nothing more is allowed"), None);
    assert_eq!(on_chain().await, (most, most));
}

/// The process died between the message and its book, and whoever the channel was for never came back.
#[tokio::test]
async fn a_deposit_of_which_the_book_never_heard_comes_home_and_a_channel_that_never_came_to_be_is_forgotten()
{
    let world = World::start().await;
    let book = PayerBook::open(world.file.store().await).expect("a fresh book");
    let (opened, never) = (world.terms(1, 1), world.terms(2, 1));
    for terms in [&opened, &never] {
        book.open_channel(&terms.address(), terms, 0).await.expect("noted before any coin moves");
    }
    cocoon_chain::open_channel(&world.payer, &opened, DEPOSIT, Nanotons::MAX).await.expect("it opens");
    let keep = |close_idle| {
        let policy = PayerPolicy { close_idle, top_up_below: 0, ..policy() };
        PayerKeeper::new(Arc::clone(&world.payer), book.clone(), policy)
    };
    let nobody = HashSet::new();
    let young = keep(Some(Duration::from_secs(3600))).keep_once(&nobody).await;
    assert!(young.is_empty(), "they may be on their way: {young:?}");
    let keeper = keep(Some(Duration::ZERO));
    let deadline = Instant::now() + LIMIT;
    let mut done = Vec::new();
    while !book.channels().is_empty() {
        assert!(Instant::now() < deadline, "{done:?}");
        done.extend(keeper.keep_once(&nobody).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let home = world.payer.balance().await.expect("the chain answers");
    assert!(home > 1000 * TON - TON / 10, "the deposit came home: {home} {done:?}");
}

#[tokio::test]
async fn what_waits_for_the_treasury_is_sent_to_it_when_it_is_worth_the_fee() {
    let world = World::start().await;
    let book = world.book().await;
    let agent = world.agent(&book);
    // One in a hundred of what is paid is the network's.
    let enough = COLLECT_AT * 100;
    let mut terms = world.terms(1, 3600);
    terms.nonce = 77;
    let state =
        cocoon_chain::open_channel(&world.payer, &terms, 2 * enough, Nanotons::MAX).await.expect("it opens");
    let facts = ChannelFacts {
        address: terms.address(),
        terms,
        deposit: state.deposit(),
        paid: 0,
        closing: false,
        deadline: None,
    };
    book.announce(facts.clone()).await.expect("it is taken");
    for (amount, collected) in [(enough - 100, 0), (enough, COLLECT_AT)] {
        book.accept_voucher(&facts.address, voucher(&facts, amount)).await.expect("a good voucher");
        if amount == enough {
            // Little more than what is paid: it is settled at the end only, and collected with the next round.
            agent.settle_all(LIMIT).await;
        }
        agent.watch_once().await;
        let chain = &**world.payer.chain();
        let state = cocoon_chain::read_channel(chain, &facts.address).await.expect("it is open");
        assert_eq!((state.paid, state.collected), (amount, collected));
    }
}
