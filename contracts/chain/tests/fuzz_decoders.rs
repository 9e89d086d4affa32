//! Seeded damage to what an endpoint answers: an error or a value, never a panic, never a long wait.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

#[path = "../../tests/fuzzing/mod.rs"]
mod fuzzing;

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cocoon_chain::{
    Chain, ChainError, StackItem, Toncenter, ToncenterV3, Transaction, stack_from_json, stack_to_json,
};
use cocoon_contracts::channel::Terms;
use cocoon_contracts::{Address, Cell, SigningKey, message};
use fuzzing::{Random, iterations, timed};
use num_bigint::BigInt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tycho_types::cell::HashBytes;

/// Transactions of the embedded ledger: a wallet that opens a channel, and the channel that is opened.
/// Bags of cells, one a line.
const TRANSACTIONS: &str = include_str!("transactions.txt");

fn transactions() -> Vec<Cell> {
    TRANSACTIONS
        .lines()
        .map(|text| message::decode(&BASE64.decode(text).unwrap(), 1 << 16).unwrap())
        .collect()
}

/// Whose transaction it is.
fn owner(transaction: &Cell) -> Address {
    Address::new(0, transaction.parse::<tycho_types::models::Transaction>().unwrap().account)
}

fn stack() -> Vec<StackItem> {
    let cell = transactions().remove(0);
    let inner = StackItem::Tuple(vec![StackItem::Null, StackItem::Int(BigInt::from(-7))]);
    vec![
        StackItem::Int(BigInt::from(u64::MAX) << 190),
        StackItem::Null,
        StackItem::Slice(Cell::default()),
        StackItem::Tuple(vec![inner, StackItem::Cell(cell.clone())]),
        StackItem::Cell(cell),
    ]
}

#[test]
fn stacks_survive_their_json_or_are_refused() {
    let valid = stack_to_json(&stack());
    let text = valid.to_string();
    let mut random = Random::seeded("stacks");
    let mut accepted = 0;
    for round in 0..iterations() {
        let value = if round % 2 == 0 {
            random.json(&valid)
        } else {
            serde_json::from_slice(&random.bytes(text.as_bytes())).unwrap_or(Value::Null)
        };
        timed(round, || {
            let Ok(items) = stack_from_json(&value) else { return };
            accepted += 1;
            assert_eq!(stack_from_json(&stack_to_json(&items)).unwrap(), items, "round {round}: {value}");
        });
    }
    assert!(accepted > iterations() / 100, "the damage is too coarse: {accepted} were read");
}

#[test]
fn transactions_are_read_or_refused() {
    let valid = transactions();
    for cell in &valid {
        Transaction::parse(cell).unwrap();
    }
    let mut random = Random::seeded("transactions");
    let mut accepted = 0;
    for round in 0..iterations() {
        let cell = random.tree(&valid[round as usize % valid.len()]);
        if let Ok(transaction) = timed(round, || Transaction::parse(&cell)) {
            accepted += 1;
            assert_eq!(transaction.hash, cell.repr_hash().0);
        }
    }
    assert!(accepted > iterations() / 100, "the damage is too coarse: {accepted} were read");
}

/// An endpoint that answers everything with what is in its hand.
async fn endpoint() -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let hand = Arc::new(Mutex::new(Vec::new()));
    let answers = Arc::clone(&hand);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, Arc::clone(&answers)));
        }
    });
    (url, hand)
}

async fn answer(mut stream: TcpStream, hand: Arc<Mutex<Vec<u8>>>) {
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    // Requests are JSON objects, or have no body; one at a time.
    while let Ok(count @ 1..) = stream.read(&mut chunk).await {
        request.extend_from_slice(&chunk[..count]);
        let bare = request.starts_with(b"GET") && request.ends_with(b"\r\n\r\n");
        if !request.ends_with(b"}") && !bare {
            continue;
        }
        request.clear();
        let body = hand.lock().unwrap().clone();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        if stream.write_all(&[head.into_bytes(), body].concat()).await.is_err() {
            return;
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Question {
    Head,
    Block,
    Account,
    Transactions,
    GetMethod,
    Send,
    Connect,
}

/// An honest answer to each question.
fn answers() -> Vec<(Question, Value)> {
    let hash = BASE64.encode([7; 32]);
    let id = json!({ "seqno": 7, "root_hash": hash, "file_hash": hash });
    let init = terms().state_init();
    let bag = |cell: Option<Cell>| BASE64.encode(message::encode(&cell.unwrap()));
    let account = json!({
        "balance": "5000000000", "state": "active", "code": bag(init.code), "data": bag(init.data),
        "last_transaction_id": { "lt": "47", "hash": hash },
    });
    let owner = owner(&transactions()[0]);
    let own = TRANSACTIONS.lines().zip(transactions()).filter(|(_, cell)| self::owner(cell) == owner);
    let raw: Vec<Value> = own.map(|(data, _)| json!({ "utime": 1, "data": data })).collect();
    let config = json!({ "config": { "bytes": bag(Some(Cell::default())) } });
    let result = json!({ "exit_code": 0, "gas_used": 5, "stack": stack_to_json(&stack()) });
    // The head needs two answers; one object has the fields of both.
    let head = json!({ "last": id, "id": id, "gen_utime": 1_800_000_000 });
    [
        (Question::Head, head.clone()),
        (Question::Block, head),
        (Question::Account, account),
        (Question::Transactions, json!(raw)),
        (Question::GetMethod, result),
        (Question::Send, json!({ "@type": "ok" })),
        (Question::Connect, config),
    ]
    .map(|(question, result)| (question, json!({ "ok": true, "result": result })))
    .to_vec()
}

fn terms() -> Terms {
    let address = |byte| Address::new(0, HashBytes([byte; 32]));
    Terms {
        payer: address(1),
        payee: address(2),
        payer_key: SigningKey::from_seed(&[1; 32]).public(),
        network: -217,
        nonce: 5,
        challenge_seconds: 600,
        fee_bps: 500,
        treasury: address(3),
    }
}

/// The same questions' answers in the shape of version 3.
fn answers_v3() -> Vec<(Question, Value)> {
    let hash = BASE64.encode([7; 32]);
    let init = terms().state_init();
    let bag = |cell: Option<Cell>| BASE64.encode(message::encode(&cell.unwrap()));
    let block = json!({ "workchain": -1, "seqno": 7, "root_hash": hash, "global_id": -217, "gen_utime": "1800000000" });
    let zero = Address::ZERO.to_string();
    let account = json!({ "address": zero, "balance": "5", "status": "active", "last_transaction_lt": "47",
        "code_boc": bag(init.code), "data_boc": bag(init.data) });
    let message = json!({ "source": zero, "value": "5", "fwd_fee": "6", "bounced": false });
    let transaction = json!({ "account": zero, "hash": hash, "lt": "9", "now": 5, "total_fees": "7", "emulated": false,
        "description": { "aborted": false, "compute_ph": { "skipped": false, "exit_code": 0, "gas_used": "8" } },
        "in_msg": message, "out_msgs": [message] });
    let cell = BASE64.encode(message::encode(&transactions().remove(0)));
    let stack = json!([{ "type": "num", "value": "0x5" }, { "type": "list", "value": [] }, { "type": "tuple",
        "value": [{ "type": "cell", "value": cell }, { "type": "slice", "value": cell }] }]);
    vec![
        (Question::Head, json!({ "last": block })),
        (Question::Block, json!({ "blocks": [block] })),
        (Question::Account, json!({ "accounts": [account] })),
        (Question::Transactions, json!({ "transactions": [transaction, transaction] })),
        (Question::GetMethod, json!({ "exit_code": 0, "gas_used": 5, "stack": stack })),
        (Question::Send, json!({ "message_hash": hash })),
        (Question::Connect, json!({ "last": block })),
    ]
}

async fn ask(client: &dyn Chain, url: &str, question: Question, version: u32) -> Result<(), ChainError> {
    let address = Address::ZERO;
    match question {
        Question::Head => client.head().await.map(drop),
        Question::Block => {
            let block = client.block(7).await?;
            assert!(block.is_none_or(|block| block.seqno == 7), "another block was believed");
            Ok(())
        }
        Question::Account => client.account(&address).await.map(drop),
        Question::Transactions => {
            // Version 2 brings whole transactions, which say whose they are.
            let whose = if version == 2 { owner(&transactions()[0]) } else { address };
            assert!(client.transactions(&whose, 3).await?.len() <= 3);
            Ok(())
        }
        Question::GetMethod => client.run_get_method(&address, "seqno", Vec::new()).await.map(drop),
        Question::Send => client.send(b"message").await,
        Question::Connect if version == 2 => Toncenter::connect(url).await.map(drop),
        Question::Connect => ToncenterV3::connect(url).await.map(drop),
    }
}

async fn damaged(version: u32, valid: &[(Question, Value)]) {
    let (url, hand) = endpoint().await;
    let client: Box<dyn Chain> = match version {
        2 => Box::new(Toncenter::new(&url, -217).unwrap()),
        _ => Box::new(ToncenterV3::new(&url, -217).unwrap()),
    };
    for (question, answer) in valid {
        *hand.lock().unwrap() = answer.to_string().into_bytes();
        let outcome = ask(&*client, &url, *question, version).await;
        // An empty cell is no global id, which is what the others are not asked for.
        let good = version == 3 || !matches!(question, Question::Connect);
        assert_eq!(outcome.is_ok(), good, "{question:?}: {outcome:?}");
    }
    let mut random = Random::seeded(if version == 2 { "answers" } else { "answers of version 3" });
    for round in 0..iterations() / 10 {
        let (question, answer) = &valid[round as usize % valid.len()];
        *hand.lock().unwrap() = match round % 3 {
            0 => random.bytes(answer.to_string().as_bytes()),
            _ => random.json(answer).to_string().into_bytes(),
        };
        if let Err(error) = ask(&*client, &url, *question, version).await {
            let expected = matches!(error, ChainError::BadAnswer { .. } | ChainError::Refused { .. })
                || matches!(error, ChainError::GetMethod { .. } | ChainError::WrongNetwork { .. });
            assert!(expected, "round {round}, {question:?}: {error}");
            assert!(error.to_string().len() < 8_000, "round {round}: the error repeats the answer");
        }
    }
}

#[tokio::test]
async fn answers_are_read_or_refused() {
    damaged(2, &answers()).await;
}

#[tokio::test]
async fn transactions_of_another_account_are_not_believed() {
    let (url, hand) = endpoint().await;
    let client = Toncenter::new(&url, -217).unwrap();
    let [first, other] = [0, 1].map(|at| transactions()[at].clone());
    assert_ne!(owner(&first), owner(&other));
    for (cell, whose, good) in [(&first, &first, true), (&other, &first, false)] {
        let data = BASE64.encode(message::encode(cell));
        let answer = json!({ "ok": true, "result": [{ "utime": 1, "data": data }] });
        *hand.lock().unwrap() = answer.to_string().into_bytes();
        let outcome = client.transactions(&owner(whose), 3).await;
        assert_eq!(outcome.is_ok(), good, "{outcome:?}");
    }
}

#[tokio::test]
async fn answers_of_version_3_are_read_or_refused() {
    damaged(3, &answers_v3()).await;
}
