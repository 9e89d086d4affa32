//! Over HTTP: the client, the wallet and the channel operations, against the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cocoon_chain::{
    Chain, ChainError, Toncenter, Wallet, authorize, cooperative_close, finish_close, open_channel,
    read_channel, settle, start_close, top_up,
};
use cocoon_contracts::channel::Terms;
use cocoon_contracts::registry::{Approval, Change, Content, Deployment, Owners};
use cocoon_contracts::{Address, SignedVoucher, SigningKey, TON, VerifiedVoucher, Voucher};
use cocoon_ledger::{Genesis, Ledger, Pace, Schedule, Server, faucet_address};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::world::{NETWORK, START};

/// A served ledger whose clock the test holds.
pub(super) struct Served {
    pub(super) url: String,
    clock: Arc<AtomicU32>,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) async fn served() -> Served {
    let genesis =
        Genesis { network: NETWORK, schedule: Schedule::Mainnet2026, time: START, accounts: Vec::new() };
    let ledger = Ledger::in_memory(&genesis).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let clock = Arc::new(AtomicU32::new(START));
    let hands = Arc::clone(&clock);
    let pace = Pace { busy: Duration::from_millis(5), idle: Duration::from_millis(50) };
    let server = Server::with_clock(ledger, Box::new(move || hands.load(Ordering::Relaxed))).pace(pace);
    let task = tokio::spawn(server.run(listener));
    Served { url, clock, task }
}

impl Served {
    pub(super) async fn chain(&self) -> Arc<dyn Chain> {
        Arc::new(Toncenter::connect(&self.url).await.unwrap())
    }

    pub(super) async fn funded(&self, chain: &Arc<dyn Chain>, seed: u8) -> Wallet {
        let wallet = Wallet::new(SigningKey::from_seed(&[seed; 32]), Arc::clone(chain));
        let answer = self
            .post("/faucet", json!({ "address": wallet.address().to_string(), "amount": 50 * TON }))
            .await;
        assert_eq!(answer["ok"], true, "{answer}");
        assert_eq!(wallet.balance().await.unwrap(), 50 * TON);
        wallet
    }

    /// Sets the clock, and waits for a block that has seen it.
    async fn advance(&self, chain: &Arc<dyn Chain>, time: u32) {
        self.clock.store(time, Ordering::Relaxed);
        while chain.head().await.unwrap().time < u64::from(time) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> Value {
        let client = reqwest::Client::new();
        client.post(format!("{}{path}", self.url)).json(&body).send().await.unwrap().json().await.unwrap()
    }

    pub(super) async fn get(&self, path: &str) -> Value {
        reqwest::get(format!("{}{path}", self.url)).await.unwrap().json().await.unwrap()
    }
}

fn terms(payer: &Wallet, payee: &Wallet, treasury: &Address, nonce: u64) -> Terms {
    Terms {
        payer: payer.address().clone(),
        payee: payee.address().clone(),
        payer_key: session().public(),
        network: NETWORK,
        nonce,
        challenge_seconds: 60,
        fee_bps: 500,
        treasury: treasury.clone(),
    }
}

fn session() -> SigningKey {
    SigningKey::from_seed(&[42; 32])
}

fn signed(terms: &Terms, cumulative: u64) -> SignedVoucher {
    Voucher { network: NETWORK, channel: terms.address(), nonce: terms.nonce, cumulative }.sign(&session())
}

fn voucher(terms: &Terms, cumulative: u64) -> VerifiedVoucher {
    signed(terms, cumulative).verify_for(terms).unwrap()
}

#[tokio::test]
async fn a_channel_lives_over_http() {
    let served = served().await;
    let chain = served.chain().await;
    assert_eq!(chain.network(), NETWORK);
    let payer = served.funded(&chain, 1).await;
    let payee = served.funded(&chain, 2).await;
    let treasury = faucet_address();
    let terms = terms(&payer, &payee, &treasury, 1);

    let opened = open_channel(&payer, &terms, TON, 2 * TON).await.unwrap();
    assert!(opened.deposit() >= TON);
    assert_eq!(
        open_channel(&payer, &terms, TON, 2 * TON).await.unwrap(),
        opened,
        "asking again changes nothing"
    );
    let address = terms.address();
    assert_eq!(read_channel(&*chain, &address).await.unwrap(), opened);

    let topped = top_up(&payee, &address, TON).await.unwrap();
    assert!(topped.balance > opened.balance + TON * 99 / 100);
    assert_eq!(topped.deposit(), 2 * TON, "and the session key may sign no more than its limit");

    let state = settle(&payee, &voucher(&terms, 300_000_000)).await.unwrap();
    assert_eq!(state.paid, 300_000_000);
    let again = settle(&payee, &voucher(&terms, 200_000_000)).await.unwrap();
    assert_eq!(again.paid, 300_000_000, "settling what was settled is no error");

    let over_the_limit = settle(&payee, &voucher(&terms, 2 * TON + 1)).await.unwrap_err();
    assert!(
        matches!(over_the_limit, ChainError::ContractRefused { exit_code: 0x10d, .. }),
        "{over_the_limit}"
    );
    let by_the_payee = authorize(&payee, &address, 20 * TON, 0).await.unwrap_err();
    assert!(matches!(by_the_payee, ChainError::Invalid { .. }), "{by_the_payee}");
    let raised = authorize(&payer, &address, 20 * TON, TON).await.unwrap();
    assert_eq!(raised.limit, 20 * TON);
    assert!(raised.deposit() > opened.deposit() + TON, "its value joined the deposit");
    let once = authorize(&payer, &address, 19 * TON, TON).await.unwrap();
    assert_eq!(once, raised, "a limit in force adds nothing");

    let too_much = settle(&payee, &voucher(&terms, 10 * TON)).await.unwrap_err();
    assert!(matches!(too_much, ChainError::ContractRefused { exit_code: 0x108, .. }), "{too_much}");
    let by_the_payer = settle(&payer, &voucher(&terms, 400_000_000)).await.unwrap_err();
    assert!(matches!(by_the_payer, ChainError::ContractRefused { exit_code: 0x102, .. }), "{by_the_payer}");

    let closing = start_close(&payer, &address).await.unwrap();
    let early = finish_close(&payer, &address).await.unwrap_err();
    assert!(matches!(early, ChainError::ContractRefused { exit_code: 0x10c, .. }), "{early}");
    served.advance(&chain, closing.deadline.unwrap() + 1).await;
    finish_close(&payer, &address).await.unwrap();
    assert!(matches!(read_channel(&*chain, &address).await, Err(ChainError::WrongAccount { .. })));
    let reopened = open_channel(&payer, &terms, TON, 2 * TON).await.unwrap_err();
    assert!(matches!(reopened, ChainError::Invalid { .. }), "a nonce is used once: {reopened}");
}

#[tokio::test]
async fn a_cooperative_close_ends_at_once() {
    let served = served().await;
    let chain = served.chain().await;
    let payer = served.funded(&chain, 1).await;
    let payee = served.funded(&chain, 2).await;
    let terms = terms(&payer, &payee, &faucet_address(), 2);
    open_channel(&payer, &terms, TON, 2 * TON).await.unwrap();
    let before = payer.balance().await.unwrap();
    cooperative_close(&payee, &terms.address(), Some(&voucher(&terms, TON / 2))).await.unwrap();
    let home = payer.balance().await.unwrap() - before;
    assert!(home > TON / 2 && home < TON / 2 + 30_000_000, "{home}");
}

#[tokio::test]
async fn a_registry_lives_over_http() {
    let served = served().await;
    let chain = served.chain().await;
    let owner = served.funded(&chain, 1).await;
    let content = Content::empty(100, owner.address().clone());
    let keys = [61, 62, 63].map(|seed| SigningKey::from_seed(&[seed; 32]));
    let owners = Owners::new(2, keys.iter().map(SigningKey::public)).unwrap();
    let deployment = Deployment { owners: owners.clone(), delay: 30, salt: 5, content: content.clone() };
    let address = cocoon_chain::deploy_registry(&owner, &deployment).await.unwrap();
    let registry = cocoon_chain::read_registry(&*chain, &address).await.unwrap();
    let change = Change { owners, content: Content { fee_bps: 200, ..content } };
    let until = START + 1_000_000;
    let mut approval = Approval::to_propose(NETWORK, &address, &registry, change, until).unwrap();
    approval.sign(&keys[0]).unwrap();
    let alone = cocoon_chain::propose(&owner, &address, &approval).await.unwrap_err();
    assert!(matches!(alone, ChainError::Invalid { .. }), "{alone}");
    approval.sign(&keys[2]).unwrap();
    let announced = cocoon_chain::propose(&owner, &address, &approval).await.unwrap();
    let again = cocoon_chain::propose(&owner, &address, &approval).await.unwrap_err();
    assert!(matches!(again, ChainError::Invalid { .. }), "signatures count once: {again}");
    let mut back = Approval::to_cancel(NETWORK, &address, &announced, until).unwrap();
    keys[..2].iter().for_each(|key| back.sign(key).unwrap());
    let cancelled = cocoon_chain::cancel(&owner, &address, &back).await.unwrap();
    assert_eq!((cancelled.version, cancelled.proposals, &cancelled.proposal), (1, 1, &None));
    let change = approval.change().unwrap().clone();
    let mut approval = Approval::to_propose(NETWORK, &address, &cancelled, change, until).unwrap();
    keys[1..].iter().for_each(|key| approval.sign(key).unwrap());
    cocoon_chain::propose(&owner, &address, &approval).await.unwrap();
    let early = cocoon_chain::activate(&owner, &address).await.unwrap_err();
    assert!(matches!(early, ChainError::ContractRefused { exit_code: 0x203, .. }), "{early}");
    served.advance(&chain, served.clock.load(Ordering::Relaxed) + 31).await;
    let registry = cocoon_chain::activate(&owner, &address).await.unwrap();
    assert_eq!((registry.version, registry.content.fee_bps), (2, 200));
    assert_eq!(cocoon_chain::read_registry(&*chain, &address).await.unwrap(), registry);
    let not_one = cocoon_chain::read_registry(&*chain, owner.address()).await.unwrap_err();
    assert!(matches!(not_one, ChainError::WrongAccount { .. }), "{not_one}");
}

#[tokio::test]
async fn blocks_are_a_clock_and_a_beacon() {
    let served = served().await;
    let chain = served.chain().await;
    let first = chain.block(1).await.unwrap().unwrap();
    assert_eq!(first.time, u64::from(START));
    let head = chain.head().await.unwrap();
    served.clock.fetch_add(100, Ordering::Relaxed);
    let later = loop {
        let block = chain.head().await.unwrap();
        if block.seqno > head.seqno + 1 {
            break block;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(later.time, u64::from(START) + 100, "blocks come without messages too");
    assert_ne!(later.root_hash, head.root_hash);
    assert_eq!(chain.block(head.seqno).await.unwrap(), Some(head));
    assert_eq!(chain.block(u32::MAX).await.unwrap(), None);
}

#[tokio::test]
async fn two_transfers_at_once_wait_for_each_other() {
    let served = served().await;
    let chain = served.chain().await;
    let wallet = served.funded(&chain, 1).await;
    let to = |seed| {
        let address = cocoon_contracts::wallet::address(&SigningKey::from_seed(&[seed; 32]).public());
        cocoon_contracts::wallet::Transfer {
            to: address,
            amount: TON,
            bounce: false,
            body: None,
            state_init: None,
        }
    };
    let (one, two) = ([to(50)], [to(51)]);
    let (a, b) = tokio::join!(wallet.transfer(&one), wallet.transfer(&two));
    a.unwrap();
    b.unwrap();
    assert_eq!(wallet.seqno().await.unwrap(), 2);
    for transfer in one.iter().chain(&two) {
        assert_eq!(chain.account(&transfer.to).await.unwrap().balance, TON);
    }
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let served = served().await;
    let chain = served.chain().await;
    let poor = Wallet::new(SigningKey::from_seed(&[99; 32]), Arc::clone(&chain));
    let transfer = cocoon_contracts::wallet::Transfer {
        to: faucet_address(),
        amount: TON,
        bounce: false,
        body: None,
        state_init: None,
    };
    let error = poor.transfer(&[transfer]).await.unwrap_err();
    assert!(matches!(error, ChainError::InsufficientBalance { have: 0, .. }), "{error}");
    assert!(matches!(chain.send(b"garbage").await, Err(ChainError::Refused { code: 422, .. })));
    assert!(matches!(Toncenter::connect("ftp://x").await, Err(ChainError::Url { .. })));
    assert!(matches!(
        chain.run_get_method(&faucet_address(), "channel_state", vec![]).await,
        Err(ChainError::GetMethod { exit_code: -13, .. })
    ));
    // A port that nobody listens on: bound, then let go.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert!(matches!(
        Toncenter::connect(&format!("http://{free}")).await,
        Err(ChainError::Unreachable { .. })
    ));
}

#[tokio::test]
async fn the_shape_is_that_of_toncenter() {
    let served = served().await;
    let info = served
        .post(
            "/api/v2/jsonRPC",
            json!({ "id": "1", "jsonrpc": "2.0", "method": "getMasterchainInfo", "params": {} }),
        )
        .await;
    assert_eq!((info["ok"].as_bool(), info["id"].as_str()), (Some(true), Some("1")));
    assert_eq!(info["result"]["last"]["@type"], "ton.blockIdExt");
    assert_eq!(served.get("/api/v2/getMasterchainInfo").await["result"]["last"]["workchain"], -1);
    let account = served.get(&format!("/api/v2/getAddressInformation?address={}", faucet_address())).await;
    assert_eq!(account["result"]["state"], "uninitialized");
    assert!(account["result"]["balance"].is_string());
    let block = served.get("/api/v2/lookupBlock?workchain=-1&shard=-9223372036854775808&seqno=1").await;
    assert_eq!(block["result"]["seqno"], 1);

    for (path, body) in [
        ("/api/v2/jsonRPC", json!({})),
        ("/api/v2/jsonRPC", json!({ "method": 5 })),
        ("/api/v2/jsonRPC", json!({ "method": "nothing", "params": {} })),
        ("/api/v2/jsonRPC", json!({ "method": "getTransactions", "params": { "address": "0:zz" } })),
        ("/api/v2/jsonRPC", json!({ "method": "getTransactions", "params": [1] })),
        ("/api/v2/jsonRPC", json!({ "method": "lookupBlock", "params": { "seqno": -1 } })),
        (
            "/api/v2/runGetMethod",
            json!({ "address": faucet_address().to_string(), "method": "x", "stack": [["num", "z"]] }),
        ),
        ("/api/v2/sendBoc", json!({ "boc": "te6ccgEBAQEAAgAAAA==" })),
        ("/api/v2/sendBoc", json!({ "boc": "????" })),
        ("/faucet", json!({ "address": "nobody", "amount": 1 })),
        ("/faucet", json!({ "address": faucet_address().to_string(), "amount": u64::MAX })),
    ] {
        let answer = served.post(path, body.clone()).await;
        assert_eq!(answer["ok"], false, "{path} {body}");
        assert!(answer["error"].is_string() && answer["code"].is_number(), "{answer}");
    }
    let oversized = reqwest::Client::new()
        .post(format!("{}/api/v2/sendBoc", served.url))
        .json(&json!({ "boc": "A".repeat(300_000) }))
        .send()
        .await
        .unwrap();
    assert_eq!(oversized.status(), 413);
    let page = reqwest::get(&served.url).await.unwrap().text().await.unwrap();
    assert!(page.contains("-217") && page.starts_with("<!DOCTYPE html>"), "{page}");
}

/// The shape, proven with an independent client: npm's `@ton/ton`.
#[tokio::test(flavor = "multi_thread")]
async fn ton_client_deploys_pays_and_reads() {
    let scripts = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/contracts");
    if !scripts.join("node_modules/@ton/ton").is_dir() {
        eprintln!(
            "SKIPPED: @ton/ton is not installed (npm ci in scripts/contracts): NO INDEPENDENT CLIENT WAS TRIED"
        );
        return;
    }
    let genesis =
        Genesis { network: NETWORK, schedule: Schedule::Mainnet2026, time: now(), accounts: Vec::new() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(Server::new(Ledger::in_memory(&genesis).unwrap()).run(listener));
    let node = move || {
        std::process::Command::new("node")
            .arg("tonclient.mjs")
            .arg(url)
            .current_dir(scripts)
            .output()
            .unwrap()
    };
    let output = tokio::task::spawn_blocking(node).await.unwrap();
    server.abort();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{}", said.concat());
}

fn now() -> u32 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u32::try_from(since.as_secs()).unwrap()
}
