//! Peers that say half of what they want, too much, or too slowly.

use std::time::{Duration, Instant};

use cocoon_ledger::{Ledger, Limits, Schedule, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::world::{Actor, genesis};

const LIMITS: Limits = Limits {
    connections: 4,
    head: Duration::from_millis(200),
    body: Duration::from_millis(200),
    whole: Duration::from_millis(1500),
};

async fn served() -> (std::net::SocketAddr, tokio::task::JoinHandle<std::io::Result<()>>) {
    let ledger = Ledger::in_memory(&genesis(Schedule::Mainnet2026, &[&Actor::new(1)])).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (address, tokio::spawn(Server::new(ledger).limits(LIMITS).run(listener)))
}

/// What comes back until the server closes the connection.
async fn until_closed(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    drop(read.expect("the server lets go"));
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn half_a_head_and_half_a_body_are_waited_for_only_so_long() {
    let (address, task) = served().await;
    let head = "POST /api/v2/jsonRPC HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n";
    for half in ["GET / HT", "GET / HTTP/1.1\r\nhost: x\r\n", head, &format!("{head}{{\"id\":")] {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(half.as_bytes()).await.unwrap();
        let answer = until_closed(&mut stream).await;
        assert!(begun.elapsed() < Duration::from_secs(3), "{half:?} was waited for {:?}", begun.elapsed());
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{half:?}: {answer}");
    }
    task.abort();
}

#[tokio::test]
async fn idle_connections_do_not_keep_others_out() {
    let (address, task) = served().await;
    let idle: Vec<_> = futures_util::future::join_all((0..20).map(|_| TcpStream::connect(address))).await;
    // More than there are places; each leaves when its time is over.
    let answer = reqwest::get(format!("http://{address}/api/v2/getMasterchainInfo")).await.unwrap();
    assert_eq!(answer.status(), 200);
    drop(idle);
    task.abort();
}

#[tokio::test]
async fn what_is_too_large_or_unknown_is_refused_in_words() {
    let (address, task) = served().await;
    let client = reqwest::Client::new();
    let large = "9".repeat(300 << 10);
    let refused = client
        .post(format!("http://{address}/api/v3/message"))
        .header("content-type", "application/json")
        .body(format!("{{\"boc\":\"{large}\"}}"))
        .send();
    let refused = refused.await.unwrap();
    assert_eq!(refused.status(), 413);
    let nothing = client.get(format!("http://{address}/nothing")).send().await.unwrap();
    assert_eq!(nothing.status(), 404);
    assert!(nothing.text().await.unwrap().contains("\"error\""));
    let method = client.delete(format!("http://{address}/faucet")).send().await.unwrap();
    assert_eq!(method.status(), 405);
    task.abort();
}

#[tokio::test]
async fn pages_from_elsewhere_may_ask_the_chain_and_not_its_faucet() {
    let (address, task) = served().await;
    let client = reqwest::Client::new();
    let preflight =
        |path: &str| client.request(reqwest::Method::OPTIONS, format!("http://{address}{path}")).send();
    let allowed = preflight("/api/v2/jsonRPC").await.unwrap();
    assert_eq!(
        (allowed.status().as_u16(), allowed.headers()["access-control-allow-origin"].as_bytes()),
        (204, &b"*"[..])
    );
    let answer = client.get(format!("http://{address}/api/v3/masterchainInfo")).send().await.unwrap();
    assert_eq!(answer.headers()["access-control-allow-origin"], "*");
    for path in ["/faucet", "/clock", "/"] {
        let refused = preflight(path).await.unwrap();
        assert!(refused.headers().get("access-control-allow-origin").is_none(), "{path}");
    }
    task.abort();
}
