//! Both sides against each other, and a host against strangers.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use super::*;

/// A host that counts how often it was told to end.
#[derive(Default)]
struct Fake {
    ended: AtomicU64,
}

impl Lifecycle for Fake {
    async fn status(&self) -> HostStatus {
        let guest = GuestStatus {
            name: "gpu-0".into(),
            kind: "tdx".into(),
            phase: Phase::Serving,
            url: None,
            pid: Some(7),
            uptime_seconds: Some(60),
            restarts: 1,
            last_end: Some("the guest shut itself down".into()),
            served: 12,
            resident_bytes: None,
            boot: vec![BootPhase { name: "firmware".into(), millis: 1500 }],
        };
        let money = Some(Money {
            total: Amounts { owed: 1, paid: 2, at_risk: 1, ..Amounts::default() },
            channels: vec![ChannelMoney {
                channel: "0:ab".to_owned(),
                closing: true,
                seconds_left: Some(9),
                amounts: Amounts::default(),
            }],
        });
        HostStatus { pid: 42, uptime_seconds: 61, ending: false, guests: vec![guest], money }
    }

    fn end(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }
}

async fn raw(state: &Path, question: &[u8]) -> String {
    let mut stream = UnixStream::connect(state.join(SOCKET)).await.expect("it listens");
    // It may answer and close before it has read all.
    drop(stream.write_all(question).await);
    drop(stream.shutdown().await);
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);
    String::from_utf8(answer).expect("text")
}

#[tokio::test]
async fn a_status_comes_as_it_was_given() {
    let at = tempfile::tempdir().expect("a folder");
    let host = Arc::new(Fake::default());
    let _control = Control::serve(at.path(), Arc::clone(&host)).expect("free");
    assert_eq!(status(at.path()).await.expect("an answer"), host.status().await);
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(at.path().join(SOCKET)).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "its user's alone");
}

#[tokio::test]
async fn down_returns_when_the_host_is_gone_and_not_before() {
    let at = tempfile::tempdir().expect("a folder");
    let state = at.path().join("long".repeat(40));
    std::fs::create_dir(&state).expect("writable");
    let host = Arc::new(Fake::default());
    // A runtime of its own plays the host's process.
    let process =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("one");
    let control = {
        let _inside = process.enter();
        Control::serve(&state, Arc::clone(&host)).expect("free")
    };
    let early = down(&state, Duration::from_millis(200)).await;
    assert!(matches!(early, Err(AskError::Late(_))), "{early:?}");
    assert_eq!(host.ended.load(Ordering::Relaxed), 1);
    let waits = tokio::spawn({
        let state = state.clone();
        async move { down(&state, Duration::from_secs(30)).await }
    });
    while host.ended.load(Ordering::Relaxed) < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!waits.is_finished());
    drop(control);
    process.shutdown_background();
    waits.await.expect("no panic").expect("it is gone");
    assert!(matches!(status(&state).await, Err(AskError::NoHost(_))));
}

#[tokio::test]
async fn two_hosts_are_refused_and_a_killed_ones_socket_is_replaced() {
    let at = tempfile::tempdir().expect("a folder");
    assert!(matches!(status(at.path()).await, Err(AskError::NoHost(_))));
    // What a killed host leaves: a socket that nobody listens on.
    drop(UnixListener::bind(at.path().join(SOCKET)).expect("a short path"));
    assert!(matches!(status(at.path()).await, Err(AskError::Killed(_))));
    let control = Control::serve(at.path(), Arc::new(Fake::default())).expect("cleared");
    let second = Control::serve(at.path(), Arc::new(Fake::default()));
    assert!(matches!(second, Err(ControlError::Taken(_))));
    assert!(status(at.path()).await.is_ok(), "the first goes on");
    drop(control);
    assert!(Control::serve(at.path(), Arc::new(Fake::default())).is_ok());
}

#[tokio::test]
async fn strangers_are_told_what_to_ask_and_take_no_memory() {
    let at = tempfile::tempdir().expect("a folder");
    let host = Arc::new(Fake::default());
    let _control = Control::serve(at.path(), Arc::clone(&host)).expect("free");
    let endless = vec![b'x'; 100_000];
    for question in [
        &b"\n"[..],
        b"GET / HTTP/1.1\r\n",
        b"{\"ask\":\"down\",\"now\":true}\n",
        b"{\"ask\":\"content\"}\n",
        b"",
    ] {
        let answer = raw(at.path(), question).await;
        assert!(answer.contains("ask for status or down"), "{answer}");
    }
    raw(at.path(), &endless).await;
    assert_eq!(host.ended.load(Ordering::Relaxed), 0);
    let mut waiting = Vec::new();
    for _ in 0..MAX_CONNECTIONS - 1 {
        waiting.push(UnixStream::connect(at.path().join(SOCKET)).await.expect("it listens"));
    }
    assert!(status(at.path()).await.is_ok(), "there is a place left");
    drop(waiting);
}

#[tokio::test]
async fn a_host_that_says_nonsense_is_not_believed() {
    let at = tempfile::tempdir().expect("a folder");
    let listener = UnixListener::bind(at.path().join(SOCKET)).expect("a short path");
    tokio::spawn(async move {
        for answer in [&b"{\"pid\":1}\n"[..], b"no end", b"{\"ending\":false}\n"] {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            drop(stream.read(&mut [0; 256]).await);
            stream.write_all(answer).await.expect("room");
        }
    });
    for _ in 0..2 {
        assert!(matches!(status(at.path()).await, Err(AskError::Strange(_))));
    }
    assert!(matches!(down(at.path(), Duration::from_secs(1)).await, Err(AskError::Strange(_))));
}
