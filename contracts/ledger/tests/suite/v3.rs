//! toncenter v3: what a client of one chain asks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cocoon_contracts::wallet::{self, Transfer};
use cocoon_contracts::{SigningKey, TON, message};
use serde_json::{Value, json};

use super::http::{Served, served};

/// A wallet that was funded, and deployed itself with a payment sent over v3; its raw address in upper case.
async fn paid(served: &Served) -> (String, Value) {
    let chain = served.chain().await;
    let wallet = served.funded(&chain, 1).await;
    let key = SigningKey::from_seed(&[1; 32]);
    let to = message::basechain([9; 32]);
    let pay = Transfer { to, amount: TON, bounce: false, body: None, state_init: None };
    let external = wallet::external_message(&key, 0, u32::MAX, true, &[pay]).unwrap();
    let sent =
        served.post("/api/v3/message", json!({ "boc": BASE64.encode(message::encode(&external)) })).await;
    assert_eq!(sent["message_hash"], BASE64.encode(external.repr_hash().as_slice()));
    assert_ne!(sent["message_hash_norm"], sent["message_hash"], "its state init does not count");
    (wallet.address().to_string().to_uppercase(), sent)
}

async fn by_message(served: &Served, hash: &Value) -> Value {
    let hash = hash.as_str().unwrap().replace('+', "%2B").replace('/', "%2F");
    for _ in 0..400 {
        let found = served.get(&format!("/api/v3/transactionsByMessage?msg_hash={hash}&direction=in")).await;
        if found["transactions"] != json!([]) {
            return found;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the message led to no transaction");
}

#[tokio::test]
async fn a_message_is_sent_and_found_again_by_either_of_its_hashes() {
    let served = served().await;
    let (account, sent) = paid(&served).await;
    let found = by_message(&served, &sent["message_hash"]).await;
    assert_eq!(found, by_message(&served, &sent["message_hash_norm"]).await);
    let tx = &found["transactions"][0];
    assert_eq!((&tx["account"], &tx["end_status"]), (&json!(account), &json!("active")));
    assert_eq!(tx["in_msg"]["hash_norm"], sent["message_hash_norm"]);
    assert_eq!(tx["out_msgs"][0]["value"], TON.to_string());
    assert_eq!(tx["description"]["compute_ph"]["exit_code"], 0);
    let block = served.get(&format!("/api/v3/blocks?workchain=-1&seqno={}", tx["mc_block_seqno"])).await;
    assert_eq!(block["blocks"][0]["tx_count"], 2);
    let listed =
        served.get(&format!("/api/v3/transactionsByMasterchainBlock?seqno={}", tx["mc_block_seqno"])).await;
    assert_eq!(listed["transactions"][0], *tx, "in the order in which they happened");
}

#[tokio::test]
async fn accounts_and_their_transactions_are_listed() {
    let served = served().await;
    let (account, sent) = paid(&served).await;
    by_message(&served, &sent["message_hash"]).await;
    let nobody = message::basechain([8; 32]);
    let states = served.get(&format!("/api/v3/accountStates?address={account}&address={nobody}")).await;
    assert_eq!(states["accounts"].as_array().unwrap().len(), 1, "an index has no row of nobody: {states}");
    let state = &states["accounts"][0];
    assert_eq!((&state["address"], &state["status"]), (&json!(account), &json!("active")));
    assert_eq!(state["code_hash"], BASE64.encode(wallet::code_hash()));
    assert!(state["data_boc"].is_string());
    let short = served.get(&format!("/api/v3/accountStates?address={account}&include_boc=false")).await;
    assert!(short["accounts"][0].get("data_boc").is_none());

    let all = served.get(&format!("/api/v3/transactions?account={account}")).await;
    let all = all["transactions"].as_array().unwrap().clone();
    assert_eq!(all.len(), 2, "the faucet's money, and the payment");
    assert_eq!(all[0]["prev_trans_lt"], all[1]["lt"], "newest first");
    let reversed = served.get(&format!("/api/v3/transactions?account={account}&sort=asc&limit=1")).await;
    assert_eq!(reversed["transactions"][0], all[1]);
    let second = served.get(&format!("/api/v3/transactions?account={account}&limit=1&offset=1")).await;
    assert_eq!(second["transactions"][0], all[1]);
    let exact = served
        .get(&format!("/api/v3/transactions?account={account}&lt={}", all[1]["lt"].as_str().unwrap()))
        .await;
    assert_eq!(exact["transactions"], json!([all[1]]));

    let wallets = served.get(&format!("/api/v3/walletStates?address={account}")).await;
    assert_eq!(
        (&wallets["wallets"][0]["is_wallet"], &wallets["wallets"][0]["seqno"]),
        (&json!(true), &json!(1))
    );
    assert_eq!(served.get(&format!("/api/v3/walletInformation?address={account}")).await["seqno"], 1);
    assert_eq!(
        served.get(&format!("/api/v3/addressInformation?address={nobody}")).await["status"],
        "uninitialized"
    );
}

#[tokio::test]
async fn get_methods_run_with_arguments_and_results_of_v3() {
    let served = served().await;
    let (account, sent) = paid(&served).await;
    by_message(&served, &sent["message_hash"]).await;
    let ask = |stack: Value| json!({ "address": account, "method": "seqno", "stack": stack });
    let answer = served.post("/api/v3/runGetMethod", ask(json!([]))).await;
    assert_eq!(
        (&answer["exit_code"], &answer["stack"]),
        (&json!(0), &json!([{ "type": "num", "value": "0x1" }]))
    );
    let nested = json!([{ "type": "tuple", "value": [{ "type": "num", "value": "-5" }, { "type": "list", "value": [] }] }]);
    let answer = served.post("/api/v3/runGetMethod", ask(nested.clone())).await;
    assert_eq!(
        answer["stack"][0]["value"][0],
        json!({ "type": "num", "value": "-0x5" }),
        "it stayed below: {answer}"
    );
    for stack in [
        json!(5),
        json!([5]),
        json!([{ "type": "num", "value": "x" }]),
        json!([{ "type": "cell", "value": "!" }]),
    ] {
        assert!(served.post("/api/v3/runGetMethod", ask(stack)).await["error"].is_string());
    }
}

#[tokio::test]
async fn the_chain_is_described_and_nonsense_refused() {
    let served = served().await;
    let info = served.get("/api/v3/masterchainInfo").await;
    assert_eq!((&info["first"]["seqno"], &info["last"]["workchain"]), (&json!(1), &json!(-1)));
    assert_eq!(info["last"]["global_id"], -217);
    let blocks = served.get("/api/v3/blocks?workchain=-1&limit=1&sort=asc").await;
    assert_eq!(blocks["blocks"][0], info["first"]);
    for path in [
        "nothing",
        "accountStates",
        "accountStates?address=x",
        "transactions",
        "transactions?account=x",
        "blocks?workchain=7",
        "blocks?limit=0",
        "blocks?limit=100000",
        "blocks?sort=up",
        "blocks?seqno=x",
        "transactionsByMessage",
        "transactionsByMessage?msg_hash=x",
        "transactionsByMasterchainBlock?seqno=99999999",
    ] {
        let answer = reqwest::get(format!("{}/api/v3/{path}", served.url)).await.unwrap();
        assert!([404, 422].contains(&answer.status().as_u16()), "{path}: {}", answer.status());
        assert!(answer.json::<Value>().await.unwrap()["error"].is_string(), "{path}");
    }
}
