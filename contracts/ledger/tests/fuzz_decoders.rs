//! Seeded damage to all that reaches the ledger from outside: messages, what they deploy, and requests over HTTP.
//! Nothing may panic the ledger or stop its blocks, and no nanoton may come or go.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

#[path = "../../tests/fuzzing/mod.rs"]
mod fuzzing;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cocoon_chain::Transaction;
use cocoon_contracts::channel::{self, Terms};
use cocoon_contracts::wallet::{self, Transfer};
use cocoon_contracts::{Address, Cell, Malformed, SigningKey, TON, message};
use cocoon_ledger::{Genesis, GenesisAccount, Ledger, Pace, STORAGE_2026_SINCE, Schedule, Server};
use fuzzing::{Random, iterations, timed};
use serde_json::{Value, json};
use tycho_types::cell::{CellBuilder, HashBytes};
use tycho_types::models::{AccountState, ExtInMsgInfo, MsgInfo, OwnedMessage, StateInit};
use tycho_types::num::Tokens;

const NETWORK: i32 = -217;
const START: u32 = STORAGE_2026_SINCE + 1_000_000;

fn key() -> SigningKey {
    SigningKey::from_seed(&[1; 32])
}

fn wallet_address() -> Address {
    wallet::address(&key().public())
}

fn ledger() -> Ledger {
    let rich = GenesisAccount {
        address: wallet_address(),
        balance: 1_000_000_000 * TON,
        state_init: Some(wallet::state_init(&key().public())),
    };
    let accounts = vec![rich];
    Ledger::in_memory(&Genesis { network: NETWORK, schedule: Schedule::Mainnet2026, time: START, accounts })
        .unwrap()
}

fn seqno(ledger: &Ledger) -> u32 {
    match ledger.account(&wallet_address()).unwrap().state {
        AccountState::Active(init) => wallet::seqno(&init.data.unwrap()).unwrap(),
        _ => 0,
    }
}

fn terms() -> Terms {
    Terms {
        payer: wallet_address(),
        payee: Address::new(0, HashBytes([2; 32])),
        payer_key: key().public(),
        network: NETWORK,
        nonce: 1,
        challenge_seconds: 60,
        fee_bps: 500,
        treasury: Address::new(0, HashBytes([3; 32])),
    }
}

fn opening() -> Transfer {
    let terms = terms();
    Transfer {
        to: terms.address(),
        amount: TON,
        bounce: true,
        body: Some(channel::open_body(u64::MAX)),
        state_init: Some(terms.state_init()),
    }
}

fn signed(ledger: &Ledger, transfer: Transfer) -> Result<Cell, Malformed> {
    wallet::external_message(&key(), seqno(ledger), START + 1_000_000, false, &[transfer])
}

#[test]
fn messages_that_changed_are_not_carried_out() {
    let mut ledger = ledger();
    let supply = ledger.supply().total();
    let valid = signed(&ledger, opening()).unwrap();
    let encoded = message::encode(&valid);
    let mut random = Random::seeded("messages from outside");
    for round in 0..iterations() {
        let bytes = match round % 3 {
            0 => random.bytes(&encoded),
            1 => message::encode(&random.tree(&valid)),
            _ => [&encoded[..4], &random.rubbish(300)].concat(),
        };
        let taken = timed(round, || ledger.submit(&bytes));
        if let Ok(hash) = taken {
            // The same tree in another bag is the same message; and its state init is not signed.
            let cell = message::decode(&bytes, message::MAX_MESSAGE_BYTES).unwrap();
            assert_eq!(hash, cell.repr_hash().0, "round {round}");
        }
    }
    timed(0, || ledger.produce_block(START + 1).unwrap());
    assert_eq!(ledger.supply().total(), supply, "nanotons are conserved");
    // At most the one opening that was signed.
    assert!(seqno(&ledger) <= 1);
    assert!(ledger.balance(&wallet_address()) >= 1_000_000_000 * TON - 2 * TON);
}

/// Whoever has money can run any code: here, ours with its bits changed, on data with its bits changed.
#[test]
fn code_and_data_of_anybody_harm_nobody_else() {
    let mut ledger = ledger();
    let supply = ledger.supply().total();
    let honest = terms().state_init();
    let mut random = Random::seeded("deployed code");
    let mut ran = 0;
    for round in 0..iterations() / 40 {
        let code = random.tree(&honest.code.clone().unwrap());
        let data = random.tree(&honest.data.clone().unwrap());
        let init = StateInit { code: Some(code), data: Some(data), ..Default::default() };
        let to = Address::new(0, *CellBuilder::build_from(&init).unwrap().repr_hash());
        let body = Some(random.tree(&channel::open_body(u64::MAX)));
        let transfer = Transfer { to: to.clone(), amount: TON, bounce: true, body, state_init: Some(init) };
        // A body with references to spare does not fit beside the wallet's own.
        let Ok(message) = signed(&ledger, transfer) else { continue };
        ledger.submit(&message::encode(&message)).unwrap();
        timed(round, || ledger.produce_block(START + round as u32).unwrap());
        assert_eq!(ledger.supply().total(), supply, "round {round}: nanotons are conserved");
        let history = ledger.history(&to, 10).unwrap();
        ran += u64::from(history.iter().any(|tx| tx.exit_code.is_some()));
        for method in [0, 65_536 + round as u32] {
            let _ = timed(round, || ledger.run_get_method(&to, method, &[]));
        }
    }
    assert!(ran > iterations() / 40 / 10, "the damage is too coarse: {ran} ran");
}

#[test]
fn transactions_are_read_or_refused() {
    let mut ledger = ledger();
    let opening = signed(&ledger, opening()).unwrap();
    ledger.submit(&message::encode(&opening)).unwrap();
    ledger.produce_block(START + 1).unwrap();
    let valid: Vec<Cell> = [wallet_address(), terms().address()]
        .iter()
        .flat_map(|address| ledger.transactions(address, u64::MAX, 10).unwrap())
        .collect();
    assert_eq!(valid.len(), 2);
    let mut random = Random::seeded("transactions");
    for round in 0..iterations() {
        let cell = random.tree(&valid[round as usize % 2]);
        if let Ok(transaction) = timed(round, || Transaction::parse(&cell)) {
            assert_eq!(transaction.hash, cell.repr_hash().0);
        }
    }
}

fn requests(boc: &str) -> Vec<Value> {
    let address = wallet_address().to_string();
    let stack = json!([["num", "0x1"], ["tvm.Cell", boc], ["tuple", { "elements": [] }]]);
    [
        ("getMasterchainInfo", json!({})),
        ("getAddressInformation", json!({ "address": address })),
        ("getWalletInformation", json!({ "address": address })),
        ("getAddressBalance", json!({ "address": address })),
        ("getTransactions", json!({ "address": address, "limit": 10, "lt": "99", "to_lt": 0 })),
        ("lookupBlock", json!({ "workchain": -1, "shard": "0", "seqno": 1 })),
        ("getBlockHeader", json!({ "workchain": -1, "shard": "0", "seqno": 1 })),
        ("shards", json!({ "seqno": 1 })),
        ("getConfigParam", json!({ "config_id": 19 })),
        ("getExtendedAddressInformation", json!({ "address": address })),
        ("detectAddress", json!({ "address": address })),
        ("getBlockTransactions", json!({ "workchain": 0, "seqno": 2, "count": 9, "after_lt": "1" })),
        ("lookupBlock", json!({ "workchain": 0, "shard": "0", "unixtime": 1 })),
        ("estimateFee", json!({ "address": address, "body": boc, "init_code": "", "ignore_chksig": true })),
        ("runGetMethod", json!({ "address": address, "method": "seqno", "stack": stack })),
        ("sendBoc", json!({ "boc": boc })),
        ("sendBocReturnHash", json!({ "boc": boc })),
    ]
    .into_iter()
    .map(|(method, params)| json!({ "id": 1, "jsonrpc": "2.0", "method": method, "params": params }))
    .collect()
}

#[tokio::test]
async fn requests_get_an_answer_and_the_ledger_lives_on() {
    let ledger = ledger();
    let boc = BASE64.encode(message::encode(&signed(&ledger, opening()).unwrap()));
    let valid = requests(&boc);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let pace = Pace { busy: Duration::from_millis(5), idle: Duration::from_millis(50) };
    let task = tokio::spawn(Server::with_clock(ledger, Box::new(|| START + 5)).pace(pace).run(listener));
    let client = reqwest::Client::new();
    let rpc = format!("{url}/api/v2/jsonRPC");
    let faucet = json!({ "address": wallet_address().to_string(), "amount": 5 });
    let mut random = Random::seeded("requests");
    for round in 0..iterations() / 10 {
        let request = &valid[round as usize % valid.len()];
        let damaged = random.json(request);
        let (path, body) = match round % 4 {
            0 => (rpc.clone(), random.bytes(request.to_string().as_bytes())),
            1 => (format!("{url}/faucet"), random.bytes(faucet.to_string().as_bytes())),
            2 => {
                let method = request["method"].as_str().unwrap();
                (format!("{url}/api/v2/{method}"), damaged["params"].to_string().into_bytes())
            }
            _ => (rpc.clone(), damaged.to_string().into_bytes()),
        };
        let sent = client.post(path).header("content-type", "application/json").body(body.clone()).send();
        let answer = sent.await.unwrap().text().await.unwrap();
        let shown = String::from_utf8_lossy(&body);
        assert!(!answer.contains("panic"), "round {round}: {answer}\n{shown}");
        assert!(answer.contains("\"ok\"") || answer.is_empty(), "round {round}: {answer}\n{shown}");
    }
    let before = head(&client, &rpc).await;
    client.post(format!("{url}/faucet")).json(&faucet).send().await.unwrap();
    assert!(head(&client, &rpc).await > before, "blocks are still made");
    task.abort();
}

/// What v3 is asked, with its values where they are damaged.
fn v3_paths(address: &str) -> Vec<String> {
    let hash = "A".repeat(43);
    [
        format!("masterchainInfo?x={hash}"),
        "blocks?workchain=-1&seqno=1&limit=5&offset=0&sort=desc&start_utime=1".to_owned(),
        format!("accountStates?address={address}&address={address}&include_boc=true"),
        format!("addressInformation?address={address}"),
        format!("walletStates?address={address}"),
        format!("transactions?account={address}&limit=5&offset=1&sort=asc&start_lt=1&end_lt=99999999&lt=7"),
        format!("transactions?mc_seqno=2&limit=5&hash={hash}="),
        format!("transactionsByMessage?msg_hash={hash}=&direction=in"),
        "transactionsByMasterchainBlock?seqno=2&limit=3".to_owned(),
    ]
    .to_vec()
}

#[tokio::test]
async fn v3_and_the_pages_answer_whatever_is_asked() {
    let mut ledger = ledger();
    ledger.submit(&message::encode(&signed(&ledger, opening()).unwrap())).unwrap();
    ledger.produce_block(START + 1).unwrap();
    let boc = BASE64.encode(message::encode(&signed(&ledger, opening()).unwrap()));
    let address = wallet_address().to_string();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(Server::with_clock(ledger, Box::new(|| START + 5)).run(listener));
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let paths = v3_paths(&address);
    let pages = [format!("/account/{address}?lt=99"), "/block/2".to_owned(), format!("/search?q={address}")];
    let deep = (0..40).fold(json!([]), |inner, _| json!([{ "type": "tuple", "value": inner }]));
    let stack = json!([{ "type": "num", "value": "0x1" }, { "type": "cell", "value": boc }, { "type": "list", "value": [] }]);
    let bodies = [
        ("message", json!({ "boc": boc })),
        ("runGetMethod", json!({ "address": address, "method": "seqno", "stack": stack })),
        ("runGetMethod", json!({ "address": address, "method": "seqno", "stack": deep })),
        (
            "estimateFee",
            json!({ "address": address, "body": boc, "init_code": boc, "init_data": boc, "ignore_chksig": true }),
        ),
    ];
    let mut random = Random::seeded("v3 and pages");
    for round in 0..iterations() / 20 {
        let at = round as usize;
        let answer = match round % 3 {
            0 => {
                let (path, body) = &bodies[at / 3 % bodies.len()];
                let damaged = random.json(body);
                client.post(format!("{url}/api/v3/{path}")).json(&damaged).send().await
            }
            1 => {
                client
                    .get(spoilt(&mut random, &url, &format!("/api/v3/{}", paths[at / 3 % paths.len()])))
                    .send()
                    .await
            }
            _ => client.get(spoilt(&mut random, &url, &pages[at / 3 % pages.len()])).send().await,
        };
        let answer = answer.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        assert!(!text.contains("panic") && !text.contains("<script"), "round {round}: {text}");
        // 500 is what toncenter says of a message that nobody accepts.
        assert!(
            status != 500 || text.contains("cannot apply external message"),
            "round {round}: {status} {text}"
        );
    }
    assert!(client.get(format!("{url}/api/v3/masterchainInfo")).send().await.unwrap().status().is_success());
    task.abort();
}

/// The path with damage behind its first slashes, as far as it still can be asked for.
fn spoilt(random: &mut Random, url: &str, path: &str) -> reqwest::Url {
    let whole = format!("{url}{}", random.text(path).trim_start_matches(|c| c != '/'));
    let sound = reqwest::Url::parse(&format!("{url}{path}")).unwrap();
    match reqwest::Url::parse(&whole) {
        Ok(changed) if changed.authority() == sound.authority() => changed,
        _ => sound,
    }
}

/// Bags whose headers lie about how many cells, roots and bytes there are, and trees as wide and deep as cells allow.
#[test]
fn bags_that_lie_and_trees_that_explode_cost_nothing() {
    let mut ledger = ledger();
    let honest = message::encode(&signed(&ledger, opening()).unwrap());
    let mut random = Random::seeded("lying bags");
    for round in 0..iterations() / 4 {
        let mut lying = honest.clone();
        // Magic, then flags, sizes and counts: twelve bytes of promises.
        for _ in 0..=random.below(3) {
            lying[4 + random.below(12)] = *random.pick(&[0, 1, 4, 8, 0x7f, 0x80, 0xc8, 0xff]);
        }
        let taken = timed(round, || ledger.submit(&lying));
        assert!(taken.is_err() || lying == honest || message::decode(&lying, 65_535).is_ok());
    }
    // Four references to the same cell, again and again: few bytes, and 4^200 cells if each were visited.
    let mut wide = Cell::default();
    for _ in 0..200 {
        let mut builder = CellBuilder::new();
        for _ in 0..4 {
            builder.store_reference(wide.clone()).unwrap();
        }
        wide = builder.build().unwrap();
    }
    let bytes = message::encode(&wide);
    assert!(bytes.len() < 4096);
    assert!(timed(0, || ledger.submit(&bytes)).is_err());
    // In a message that is one: for the wallet, which refuses it.
    let info =
        MsgInfo::ExtIn(ExtInMsgInfo { src: None, dst: wallet_address().into(), import_fee: Tokens::ZERO });
    let message = OwnedMessage { info, init: None, body: wide.into(), layout: None };
    let message = message::encode(&CellBuilder::build_from(message).unwrap());
    assert!(timed(1, || ledger.submit(&message)).is_err());
    timed(2, || ledger.produce_block(START + 1).unwrap());
}

#[test]
fn addresses_are_read_or_refused() {
    let valid = [wallet_address().to_string(), cocoon_contracts::friendly(&wallet_address(), true)];
    let mut random = Random::seeded("addresses");
    for round in 0..iterations() {
        let text = random.text(&valid[round as usize % 2]);
        if let Ok(address) = timed(round, || cocoon_contracts::parse_address(&text)) {
            let spelt = [address.to_string(), cocoon_contracts::friendly(&address, true)];
            assert!(
                spelt.iter().all(|text| cocoon_contracts::parse_address(text).as_ref() == Ok(&address)),
                "{text}"
            );
        }
    }
}

async fn head(client: &reqwest::Client, rpc: &str) -> u64 {
    let request = json!({ "id": 1, "jsonrpc": "2.0", "method": "getMasterchainInfo", "params": {} });
    let answer: Value = client.post(rpc).json(&request).send().await.unwrap().json().await.unwrap();
    answer["result"]["last"]["seqno"].as_u64().unwrap()
}
