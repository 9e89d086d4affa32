//! The client against endpoints that misbehave.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

use cocoon_chain::{Chain as _, ChainError, Toncenter};
use cocoon_contracts::Address;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Answers each connection with the next of these whole HTTP answers, then with the last one again and again.
async fn endpoint(answers: Vec<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let last = answers.last().cloned().unwrap();
        let mut answers = answers.into_iter();
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answers.next().unwrap_or_else(|| last.clone());
            tokio::spawn(reply(stream, answer));
        }
    });
    url
}

async fn reply(mut stream: TcpStream, answer: String) {
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    // The requests here fit one segment after their headers; read until the JSON's end.
    while !request.ends_with(b"}") {
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(count) => request.extend_from_slice(&chunk[..count]),
        }
    }
    let _the_client_may_have_left = stream.write_all(answer.as_bytes()).await;
}

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
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
async fn never_sends_a_message_twice_by_itself() {
    let url = endpoint(vec![
        http("503 Unavailable", r#"{"ok":false,"error":"later","code":503}"#),
        http("200 OK", r#"{"ok":true,"result":{"@type":"ok"}}"#),
    ])
    .await;
    let client = client(&url);
    assert!(matches!(client.send(b"x").await, Err(ChainError::Refused { code: 503, .. })));
    client.send(b"x").await.unwrap();
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
