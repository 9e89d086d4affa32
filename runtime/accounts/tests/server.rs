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
