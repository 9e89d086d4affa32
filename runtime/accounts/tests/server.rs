//! A peer that sends slowly holds no connection for long.

use std::time::Duration;

use axum::{Router, body::Bytes, extract::rejection::BytesRejection, routing::put};
use cocoon_accounts::{
    ApiRefusal, http,
    server::{Limits, Server, bind},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

async fn take(body: Result<Bytes, BytesRejection>) -> Result<String, ApiRefusal> {
    Ok(http::body(body, 100)?.len().to_string())
}

#[tokio::test]
async fn a_body_that_does_not_arrive_in_time_is_refused_and_the_connection_ends() {
    let limits = Limits { body_timeout: Duration::from_millis(200), ..Limits::default() };
    let listener = bind(([127, 0, 0, 1], 0).into()).await.expect("a free port");
    let server = Server::start(listener, Router::new().route("/", put(take)), limits).expect("it is bound");
    let ask = async |body: &[u8]| {
        let mut peer = TcpStream::connect(server.address()).await.expect("it listens");
        peer.write_all(b"PUT / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 10\r\n\r\n")
            .await
            .expect("sent");
        peer.write_all(body).await.expect("sent");
        let mut reply = String::new();
        let read = tokio::time::timeout(Duration::from_secs(10), peer.read_to_string(&mut reply));
        read.await.expect("the connection ends by itself").expect("it is text");
        reply
    };
    let whole = ask(&[0; 10]).await;
    assert!(whole.starts_with("HTTP/1.1 200") && whole.ends_with("10"), "{whole}");
    let slow = ask(&[0; 9]).await;
    assert!(slow.starts_with("HTTP/1.1 400") && slow.contains("malformed"), "{slow}");
}

#[tokio::test]
async fn a_peer_that_stops_reading_holds_no_answer_for_long() {
    let limits = Limits { stall: Duration::from_millis(300), ..Limits::default() };
    let listener = bind(([127, 0, 0, 1], 0).into()).await.expect("a free port");
    let (ended, mut end) = tokio::sync::mpsc::channel::<()>(1);
    let endless = move || {
        let ended = ended.clone();
        async move {
            // The sender lives as long as the answer: when the connection is gone, the receiver hears of it.
            let pieces = futures_util::stream::repeat_with(move || {
                let _lives = &ended;
                Ok::<_, std::io::Error>(Bytes::from_static(&[0; 16 * 1024]))
            });
            axum::body::Body::from_stream(pieces)
        }
    };
    let router = Router::new().route("/", axum::routing::get(endless));
    let server = Server::start(listener, router, limits).expect("it is bound");
    let mut peer = TcpStream::connect(server.address()).await.expect("it listens");
    peer.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    let mut some = vec![0; 1 << 20];
    for _ in 0..8 {
        // One that reads now and then is served on.
        tokio::time::sleep(Duration::from_millis(100)).await;
        peer.read_exact(&mut some).await.expect("it goes on");
    }
    server_lets_go(&mut end, peer).await;
}

/// The answer is dropped though the peer keeps its connection open.
async fn server_lets_go(end: &mut tokio::sync::mpsc::Receiver<()>, peer: TcpStream) {
    let (mut gone, deadline) = (false, tokio::time::Instant::now() + Duration::from_secs(20));
    while !gone && tokio::time::Instant::now() < deadline {
        // The router keeps one sender; an answer under way has another.
        gone = end.sender_strong_count() == 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(peer);
    assert!(gone, "the answer waits for a peer that does not read");
}
