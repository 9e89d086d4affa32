//! The v2 client against endpoints that misbehave.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

mod server;

use cocoon_chain::{ApiKey, Chain as _, ChainError, Toncenter, ToncenterOptions};
use cocoon_contracts::Address;
use server::{http, serve};

/// Answers each request with the next of these whole HTTP answers, then with the last one again and again.
async fn endpoint(answers: Vec<Vec<u8>>) -> String {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let server = serve(move |_| {
        let next = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        answers[next.min(answers.len() - 1)].clone()
    });
    server.await.url
}

fn client(url: &str) -> Toncenter {
    Toncenter::new(url, -217).unwrap()
}

const UNINIT: &str = r#"{"ok":true,"result":{"balance":7,"state":"uninitialized","code":"","data":"","last_transaction_id":{"lt":"0","hash":""}}}"#;

#[tokio::test]
async fn asks_again_while_the_endpoint_is_busy() {
    let busy = http("429 Too Many Requests", r#"{"ok":false,"error":"Ratelimit exceed","code":429}"#);
    let broken = http("502 Bad Gateway", "<html>");
    let url = endpoint(vec![busy, broken, http("200 OK", UNINIT)]).await;
    assert_eq!(client(&url).account(&Address::ZERO).await.unwrap().balance, 7);
}

#[tokio::test]
async fn does_not_ask_again_when_refused() {
    let url = endpoint(vec![
        http("422 Unprocessable", r#"{"ok":false,"error":"bad address","code":422}"#),
        http("200 OK", UNINIT),
    ])
    .await;
    let error = client(&url).account(&Address::ZERO).await.unwrap_err();
    assert!(matches!(error, ChainError::Refused { code: 422, .. }), "{error}");
}

#[tokio::test]
async fn a_message_whose_answer_was_lost_is_sent_again() {
    let unavailable = http("503 Unavailable", r#"{"ok":false,"error":"later","code":503}"#);
    let taken = http("200 OK", r#"{"ok":true,"result":{"@type":"ok"}}"#);
    let not_accepted =
        http("500 Error", r#"{"ok":false,"error":"External message was not accepted","code":500}"#);
    client(&endpoint(vec![unavailable.clone(), taken]).await).send(b"x").await.unwrap();
    // It was taken the first time: the contract does not take it twice. Whoever sent it looks at the account.
    client(&endpoint(vec![unavailable, not_accepted.clone()]).await).send(b"x").await.unwrap();
    let error = client(&endpoint(vec![not_accepted]).await).send(b"x").await.unwrap_err();
    assert!(matches!(error, ChainError::Refused { code: 500, .. }) && !error.is_temporary(), "{error}");
}

#[tokio::test]
async fn the_limit_in_its_documented_words_is_told_apart() {
    let body = r#"{"ok":false,"result":"Ratelimit exceed","code":429}"#;
    let answer =
        format!("HTTP/1.1 429 Too Many\r\nretry-after: 99\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let error = client(&endpoint(vec![answer.into_bytes()]).await).head().await.unwrap_err();
    assert_eq!(error.retry_after().map(|wait| wait.as_secs()), Some(99), "{error}");
}

#[tokio::test]
async fn the_key_goes_into_its_header_and_nowhere_else() {
    const KEY: &str = "k3y-that-nobody-sees";
    let path = std::env::temp_dir().join(format!("cocoon-chain-key-{}", std::process::id()));
    std::fs::write(&path, KEY).unwrap();
    let key = ApiKey::from_file(&path);
    std::fs::remove_file(&path).unwrap();
    let server =
        serve(|_| http("401 Unauthorized", r#"{"ok":false,"error":"API key does not exist","code":401}"#))
            .await;
    let options = ToncenterOptions { key: Some(key.unwrap()), ..ToncenterOptions::new(&server.url) };
    let error = Toncenter::open(&options).await.err().expect("the key is refused");
    assert!(matches!(error, ChainError::Refused { code: 401, .. }), "{error}");
    assert!(!format!("{error}{error:?}").contains(KEY));
    let asked = server.asked.lock().unwrap()[0].clone();
    assert!(asked.head.to_lowercase().contains(&format!("x-api-key: {KEY}")), "{}", asked.head);
    assert!(!asked.body.contains(KEY) && !asked.path().contains(KEY));
}

#[tokio::test]
async fn secrets_in_addresses_are_refused_and_not_repeated() {
    for url in
        ["https://user:s3cret@a.example", "https://a.example/api/v2?api_key=s3cret", "ftp://s3cret@x", ""]
    {
        let error = Toncenter::new(url, -217).err().unwrap_or_else(|| panic!("{url} was taken"));
        assert!(matches!(error, ChainError::Url { .. }) && !error.to_string().contains("s3cret"), "{error}");
    }
    for url in
        ["http://h:1", "http://h:1/", "http://h:1/api/v2", "http://h:1/api/v2/", "http://h:1/api/v2/jsonRPC"]
    {
        assert!(Toncenter::new(url, -217).is_ok(), "{url}");
    }
}

#[tokio::test]
async fn an_account_of_a_block_before_the_head_is_not_believed() {
    let zeros = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let server = serve(move |asked| {
        let id = |seqno| format!(r#"{{"workchain":-1,"seqno":{seqno},"root_hash":"{zeros}"}}"#);
        let result = if asked.body.contains("getMasterchainInfo") {
            format!(r#"{{"last":{}}}"#, id(9))
        } else if asked.body.contains("getBlockHeader") {
            format!(r#"{{"id":{},"gen_utime":5}}"#, id(9))
        } else {
            let last = r#"{"lt":"0"}"#;
            format!(
                r#"{{"balance":7,"state":"uninitialized","last_transaction_id":{last},"block_id":{}}}"#,
                id(8)
            )
        };
        http("200 OK", &format!(r#"{{"ok":true,"result":{result}}}"#))
    })
    .await;
    let client = client(&server.url);
    assert_eq!(client.account(&Address::ZERO).await.unwrap().balance, 7);
    assert_eq!(client.head().await.unwrap().seqno, 9);
    let error = client.account(&Address::ZERO).await.unwrap_err();
    assert!(error.is_temporary() && error.to_string().contains("block 8"), "{error}");
}

#[tokio::test]
async fn nonsense_is_an_error_and_not_a_panic() {
    let deep = "[".repeat(100_000);
    let bodies = [
        "",
        "null",
        "{}",
        r#"{"ok":true}"#,
        r#"{"ok":true,"result":5}"#,
        r#"{"ok":true,"result":{"balance":-5,"state":"active","last_transaction_id":{"lt":1}}}"#,
        r#"{"ok":true,"result":{"balance":"9e9","state":"active","last_transaction_id":{"lt":1}}}"#,
        r#"{"ok":true,"result":{"balance":1,"state":"asleep","last_transaction_id":{"lt":1}}}"#,
        r#"{"ok":true,"result":{"balance":1,"state":"active","code":"te6cc","last_transaction_id":{"lt":1}}}"#,
        r#"{"ok":true,"result":{"balance":1,"state":"active","code":"AAAA","last_transaction_id":{"lt":1}}}"#,
        &deep,
    ];
    for body in bodies {
        let url = endpoint(vec![http("200 OK", body)]).await;
        let error = client(&url).account(&Address::ZERO).await.unwrap_err();
        assert!(matches!(error, ChainError::BadAnswer { .. }), "{body:.60}: {error}");
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let url = endpoint(vec![http("200 OK", &format!("\"{}\"", "x".repeat(5 << 20)))]).await;
    let error = client(&url).account(&Address::ZERO).await.unwrap_err();
    assert!(matches!(&error, ChainError::BadAnswer { why, .. } if why.contains("more than")), "{error}");
}

#[tokio::test]
async fn a_header_of_another_block_is_not_believed() {
    let zeros = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let other =
        format!(r#"{{"ok":true,"result":{{"id":{{"seqno":8,"root_hash":"{zeros}"}},"gen_utime":5}}}}"#);
    let url = endpoint(vec![http("200 OK", &other)]).await;
    assert!(matches!(client(&url).block(7).await, Err(ChainError::BadAnswer { .. })));
    assert_eq!(client(&url).block(8).await.unwrap().unwrap().time, 5);
}
