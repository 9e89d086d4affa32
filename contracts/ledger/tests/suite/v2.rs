//! toncenter v2: the methods beside those that our own client uses, over REST as people try them.

use cocoon_contracts::{TON, message};
use serde_json::{Value, json};

use super::http::{Served, served};

async fn ok(served: &Served, path: &str) -> Value {
    let answer = served.get(&format!("/api/v2/{path}")).await;
    assert_eq!(answer["ok"], true, "{path}: {answer}");
    answer["result"].clone()
}

#[tokio::test]
async fn accounts_in_all_their_spellings() {
    let served = served().await;
    let chain = served.chain().await;
    let wallet = served.funded(&chain, 1).await;
    let raw = wallet.address().to_string();
    let packed = ok(&served, &format!("packAddress?address={raw}")).await;
    assert_eq!(ok(&served, &format!("unpackAddress?address={}", packed.as_str().unwrap())).await, raw);
    assert_eq!(ok(&served, &format!("detectAddress?address={raw}")).await["bounceable"]["b64url"], packed);
    let extended = ok(&served, &format!("getExtendedAddressInformation?address={raw}")).await;
    assert_eq!(extended["account_state"]["@type"], "uninited.accountState");
    assert_eq!(ok(&served, &format!("getAddressBalance?address={raw}")).await, (50 * TON).to_string());
    assert_eq!(ok(&served, &format!("getAddressState?address={raw}")).await, "uninitialized");
    let refused = served.get("/api/v2/getAddressState?address=nobody").await;
    assert_eq!((refused["ok"].as_bool(), refused["code"].as_u64()), (Some(false), Some(422)));
}

#[tokio::test]
async fn blocks_and_their_transactions_are_found() {
    let served = served().await;
    let chain = served.chain().await;
    let wallet = served.funded(&chain, 1).await;
    let raw = wallet.address().to_string();
    let transactions = ok(&served, &format!("getTransactions?address={raw}")).await;
    let id = &transactions[0]["transaction_id"];
    let lt = id["lt"].as_str().unwrap();
    let whole = "workchain=0&shard=-9223372036854775808";
    let block = ok(&served, &format!("lookupBlock?{whole}&lt={lt}")).await;
    let listed = ok(&served, &format!("getBlockTransactions?{whole}&seqno={}", block["seqno"])).await;
    assert_eq!(listed["incomplete"], false);
    assert_eq!(listed["transactions"][0]["hash"], id["hash"]);
    assert_eq!(listed["transactions"][0]["account"], raw);
    let after =
        ok(&served, &format!("getBlockTransactions?{whole}&seqno={}&after_lt={lt}", block["seqno"])).await;
    assert_eq!(after["transactions"], json!([]));
    let header = ok(&served, &format!("getBlockHeader?{whole}&seqno={}", block["seqno"])).await;
    assert_eq!(header["id"], block);
    let same = ok(&served, &format!("lookupBlock?{whole}&unixtime={}", header["gen_utime"])).await;
    assert!(same["seqno"].as_u64() <= block["seqno"].as_u64());
    assert_eq!(served.get(&format!("/api/v2/lookupBlock?{whole}")).await["code"], 422);
    let consensus = ok(&served, "getConsensusBlock").await;
    assert!(consensus["consensus_block"].as_u64() >= block["seqno"].as_u64());

    // Paging goes on from a transaction of that name, and from no other.
    let hash = id["hash"].as_str().unwrap().replace('+', "%2B").replace('/', "%2F");
    let page = ok(&served, &format!("getTransactions?address={raw}&lt={lt}&hash={hash}")).await;
    assert_eq!(page[0]["transaction_id"], *id);
    let other = "A".repeat(43);
    let refused = served.get(&format!("/api/v2/getTransactions?address={raw}&lt={lt}&hash={other}=")).await;
    assert_eq!(refused["ok"], false, "{refused}");
}

#[tokio::test]
async fn fees_are_told_before_a_message_is_sent() {
    let served = served().await;
    let chain = served.chain().await;
    let wallet = served.funded(&chain, 1).await;
    let key = cocoon_contracts::SigningKey::from_seed(&[1; 32]);
    let init = cocoon_contracts::wallet::state_init(&key.public());
    let pay = cocoon_contracts::wallet::Transfer {
        to: wallet.address().clone(),
        amount: 1,
        bounce: false,
        body: None,
        state_init: None,
    };
    let external = cocoon_contracts::wallet::external_message(&key, 0, u32::MAX, false, &[pay]).unwrap();
    let parsed = external.parse::<tycho_types::models::OwnedMessage>().unwrap();
    let mut body = tycho_types::cell::CellBuilder::new();
    body.store_slice(parsed.body.0.apply(&parsed.body.1).unwrap()).unwrap();
    let text = |cell: &cocoon_contracts::Cell| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(message::encode(cell))
    };
    let ask = json!({
        "address": wallet.address().to_string(),
        "body": text(&body.build().unwrap()),
        "init_code": text(&init.code.unwrap()),
        "init_data": text(&init.data.unwrap()),
        "ignore_chksig": false,
    });
    let answer = served.post("/api/v2/estimateFee", ask.clone()).await;
    let fees = answer["result"]["source_fees"].clone();
    assert!(fees["gas_fee"].as_u64().unwrap() > 0 && fees["fwd_fee"].as_u64().unwrap() > 0, "{answer}");
    let v3 = served.post("/api/v3/estimateFee", ask).await;
    assert_eq!(v3["source_fees"]["gas_fee"], fees["gas_fee"]);
}
