//! The v3 client against servers of the documented shape (toncenter/ton-indexer, docs/swagger.json).
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

mod server;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cocoon_chain::{AccountStatus, Chain as _, ChainError, StackItem, ToncenterOptions, ToncenterV3};
use cocoon_contracts::{Address, Cell, message};
use num_bigint::BigInt;
use serde_json::{Value, json};
use server::{Server, http, serve};
use tycho_types::cell::CellBuilder;

const HASH: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
const WALLET: &str = "0:ABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABAB";

fn address() -> Address {
    cocoon_contracts::parse_address(WALLET).unwrap()
}

fn block(seqno: u32, global_id: i32) -> Value {
    json!({
        "workchain": -1, "shard": "8000000000000000", "seqno": seqno, "root_hash": HASH, "file_hash": HASH,
        "global_id": global_id, "version": 0, "key_block": false, "flags": 1, "gen_utime": "1800000000",
        "start_lt": "5", "end_lt": "9", "tx_count": 3, "prev_blocks": [],
    })
}

fn transaction(lt: u64, extra: Value) -> Value {
    let mut value = json!({
        "account": WALLET, "hash": HASH, "lt": lt.to_string(), "now": 1_800_000_000, "mc_block_seqno": 8,
        "orig_status": "active", "end_status": "active", "total_fees": "4000",
        "description": {
            "type": "ord", "aborted": true, "destroyed": false, "credit_first": false,
            "compute_ph": { "skipped": false, "success": false, "gas_fees": "900", "gas_used": "1234", "exit_code": 264, "mode": 0 },
        },
        "in_msg": { "hash": HASH, "source": WALLET, "destination": WALLET, "value": "70", "fwd_fee": "3", "bounced": false },
        "out_msgs": [{ "hash": HASH, "source": WALLET, "destination": null, "value": null, "fwd_fee": "600", "bounced": null }],
        "emulated": false,
    });
    value.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    value
}

fn account(status: &str, boc: Option<&str>) -> Value {
    json!({ "accounts": [{
        "address": WALLET, "account_state_hash": HASH, "balance": "5000000000", "status": status,
        "last_transaction_hash": HASH, "last_transaction_lt": "47", "data_boc": boc, "code_boc": boc,
    }], "address_book": {} })
}

/// Answers `/api/v3/<name>` with the value of that name.
async fn service(answers: &[(&'static str, Value)]) -> Server {
    let answers = answers.to_vec();
    serve(move |asked| {
        let name =
            asked.path().trim_start_matches("/api/v3/").split('?').next().unwrap_or_default().to_owned();
        match answers.iter().find(|(own, _)| *own == name) {
            Some((_, value)) => http("200 OK", &value.to_string()),
            None => http("404 Not Found", r#"{"error":"not found"}"#),
        }
    })
    .await
}

async fn client(answers: &[(&'static str, Value)]) -> (ToncenterV3, Server) {
    let server = service(answers).await;
    (ToncenterV3::new(&server.url, -217).unwrap(), server)
}

#[tokio::test]
async fn blocks_are_read_and_those_to_come_are_none() {
    let info = json!({ "first": block(1, -217), "last": block(8, -217) });
    let (chain, server) =
        client(&[("masterchainInfo", info), ("blocks", json!({ "blocks": [block(7, -217)] }))]).await;
    let head = chain.head().await.unwrap();
    assert_eq!((head.seqno, head.root_hash, head.time), (8, [7; 32], 1_800_000_000));
    assert_eq!(chain.block(7).await.unwrap().unwrap().seqno, 7);
    assert!(matches!(chain.block(6).await, Err(ChainError::BadAnswer { .. })), "another block was believed");
    assert_eq!(server.asked.lock().unwrap()[1].path(), "/api/v3/blocks?workchain=-1&seqno=7&limit=1");
    let (chain, _server) = client(&[("blocks", json!({ "blocks": [] }))]).await;
    assert_eq!(chain.block(7).await.unwrap(), None);
    let (chain, _server) = client(&[]).await;
    assert_eq!(chain.block(7).await.unwrap(), None);
}

#[tokio::test]
async fn the_network_is_asked_for_and_another_one_refused() {
    let server = service(&[("masterchainInfo", json!({ "last": block(8, -239) }))]).await;
    assert_eq!(ToncenterV3::connect(&server.url).await.unwrap().network(), -239);
    let options = ToncenterOptions { network: Some(-3), ..ToncenterOptions::new(&server.url) };
    let error = ToncenterV3::open(&options).await.err().expect("it is another network");
    assert!(matches!(error, ChainError::WrongNetwork { expected: -3, found: -239, .. }), "{error}");
    let lying = ToncenterV3::new(&server.url, -217).unwrap().head().await.unwrap_err();
    assert!(matches!(lying, ChainError::WrongNetwork { .. }), "{lying}");
}

#[tokio::test]
async fn accounts_are_read_in_each_of_their_states() {
    let cell = Cell::default();
    let boc = BASE64.encode(message::encode(&cell));
    let (chain, server) = client(&[("accountStates", account("active", Some(&boc)))]).await;
    let state = chain.account(&address()).await.unwrap();
    assert_eq!((state.balance, state.status, state.last_lt), (5_000_000_000, AccountStatus::Active, 47));
    assert_eq!((state.code_hash, state.data), (Some(cell.repr_hash().0), Some(cell)));
    let path = format!("/api/v3/accountStates?address={WALLET}&include_boc=true");
    assert_eq!(server.asked.lock().unwrap()[0].path(), path);
    assert!(
        matches!(chain.account(&Address::ZERO).await, Err(ChainError::BadAnswer { .. })),
        "another's state was believed"
    );
    for (status, read) in [
        ("uninit", AccountStatus::Uninit),
        ("nonexist", AccountStatus::Uninit),
        ("frozen", AccountStatus::Frozen),
    ] {
        let (chain, _server) = client(&[("accountStates", account(status, None))]).await;
        assert_eq!(chain.account(&address()).await.unwrap().status, read);
    }
    let (chain, _server) = client(&[("accountStates", json!({ "accounts": [] }))]).await;
    assert_eq!(chain.account(&address()).await.unwrap().balance, 0);
    let (chain, _server) = client(&[("accountStates", account("asleep", None))]).await;
    assert!(matches!(chain.account(&address()).await, Err(ChainError::BadAnswer { .. })));
}

#[tokio::test]
async fn transactions_are_read_without_those_that_are_only_expected() {
    let skipped = json!({ "description": { "aborted": true, "compute_ph": { "skipped": true, "reason": "no_state" } }, "in_msg": null, "out_msgs": [] });
    let list = json!({ "transactions": [
        transaction(50, json!({ "emulated": true })), transaction(49, json!({})), transaction(48, skipped), transaction(47, json!({})),
    ] });
    let (chain, server) = client(&[("transactions", list)]).await;
    let read = chain.transactions(&address(), 2).await.unwrap();
    assert_eq!(read.iter().map(|tx| tx.lt).collect::<Vec<_>>(), [49, 48]);
    let tx = &read[0];
    assert_eq!((tx.from.as_ref(), tx.value, tx.bounced, tx.aborted), (Some(&address()), 70, false, true));
    assert_eq!(
        (tx.exit_code, tx.gas, tx.fees, tx.time, tx.hash),
        (Some(264), 1234, 4600, 1_800_000_000, [7; 32])
    );
    assert_eq!((read[1].from.as_ref(), read[1].exit_code, read[1].gas), (None, None, 0));
    assert_eq!((&tx.body, &read[1].body), (&None, &None), "a service may leave it out");
    let path = format!("/api/v3/transactions?account={WALLET}&limit=2&sort=desc");
    assert_eq!(server.asked.lock().unwrap()[0].path(), path);
    assert!(chain.transactions(&Address::ZERO, 2).await.is_err(), "another's transactions were believed");
}

#[tokio::test]
async fn what_a_message_said_and_brought_along_is_read() {
    let bag =
        |cell: &Cell| json!({ "hash": HASH, "body": BASE64.encode(message::encode(cell)), "decoded": null });
    let body = cocoon_contracts::registry::top_up_body();
    let init = cocoon_contracts::channel::Terms {
        payer: address(),
        payee: address(),
        payer_key: [9; 32],
        network: -239,
        nonce: 1,
        challenge_seconds: 600,
        fee_bps: 5,
        treasury: address(),
    };
    let init = init.state_init();
    let cell = CellBuilder::build_from(&init).unwrap();
    let told =
        json!({ "in_msg": { "source": WALLET, "message_content": bag(&body), "init_state": bag(&cell) } });
    let (chain, _server) =
        client(&[("transactions", json!({ "transactions": [transaction(9, told)] }))]).await;
    let read = chain.transactions(&address(), 1).await.unwrap();
    assert_eq!((&read[0].body, &read[0].first_data), (&Some(body.clone()), &init.data));

    let broken = json!({ "in_msg": { "source": WALLET, "init_state": bag(&body) } });
    let (chain, _server) =
        client(&[("transactions", json!({ "transactions": [transaction(9, broken)] }))]).await;
    assert!(matches!(chain.transactions(&address(), 1).await, Err(ChainError::BadAnswer { .. })));
}

#[tokio::test]
async fn get_methods_take_and_give_values() {
    let boc = BASE64.encode(message::encode(&Cell::default()));
    let stack = json!([
        { "type": "num", "value": "-0x5" }, { "type": "cell", "value": boc }, { "type": "list", "value": [] },
        { "type": "tuple", "value": [{ "type": "num", "value": "0x7" }, { "type": "slice", "value": boc }] },
    ]);
    let result = json!({ "gas_used": 5, "exit_code": 0, "stack": stack });
    let (chain, server) = client(&[("runGetMethod", result)]).await;
    let arguments = vec![StackItem::Int(BigInt::from(9)), StackItem::Slice(Cell::default())];
    let values = chain.run_get_method(&address(), "seqno", arguments).await.unwrap();
    let tuple = StackItem::Tuple(vec![StackItem::Int(BigInt::from(7)), StackItem::Slice(Cell::default())]);
    assert_eq!(
        values,
        [StackItem::Int(BigInt::from(-5)), StackItem::Cell(Cell::default()), StackItem::Null, tuple]
    );
    let asked: Value = serde_json::from_str(&server.asked.lock().unwrap()[0].body).unwrap();
    let sent = json!([{ "type": "num", "value": "0x9" }, { "type": "slice", "value": boc }]);
    assert_eq!(asked, json!({ "address": WALLET, "method": "seqno", "stack": sent }));
    let unspeakable = chain.run_get_method(&address(), "seqno", vec![StackItem::Null]).await.unwrap_err();
    assert!(matches!(unspeakable, ChainError::Invalid { .. }), "{unspeakable}");
    let (chain, _server) =
        client(&[("runGetMethod", json!({ "gas_used": 5, "exit_code": 11, "stack": [] }))]).await;
    let error = chain.run_get_method(&address(), "seqno", Vec::new()).await.unwrap_err();
    assert!(matches!(error, ChainError::GetMethod { exit_code: 11, .. }), "{error}");
}

#[tokio::test]
async fn messages_are_posted_and_errors_of_each_shape_told_apart() {
    let (chain, server) = client(&[("message", json!({ "message_hash": HASH }))]).await;
    chain.send(b"boc").await.unwrap();
    let asked = server.asked.lock().unwrap()[0].clone();
    assert_eq!(asked.body, format!(r#"{{"boc":"{}"}}"#, BASE64.encode(b"boc")));
    assert!(asked.head.starts_with("POST /api/v3/message "), "{}", asked.head);
    for (status, body, code) in [
        (
            "500 Error",
            r#"{"error":"LITE_SERVER_UNKNOWN: cannot apply external message to current state"}"#,
            500,
        ),
        ("422 Unprocessable", r#"{"detail":[{"loc":["boc"],"msg":"bad","type":"value"}]}"#, 422),
        ("418 Teapot", "<html>", 418),
    ] {
        let server = serve(move |_| http(status, body)).await;
        let error = ToncenterV3::new(&server.url, -217).unwrap().send(b"boc").await.unwrap_err();
        assert!(matches!(error, ChainError::Refused { code: own, .. } if own == code), "{error}");
        assert_eq!(server.asked.lock().unwrap().len(), 1);
    }
    let server = serve(|_| http("502 Bad Gateway", "<html>")).await;
    let error = ToncenterV3::new(&server.url, -217).unwrap().head().await.unwrap_err();
    assert!(matches!(error, ChainError::Unreachable { .. }) && error.is_temporary(), "{error}");
    assert_eq!(server.asked.lock().unwrap().len(), 4);
}
