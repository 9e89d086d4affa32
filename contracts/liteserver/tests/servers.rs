//! The chain behind servers that answer, lie, lag, hang and leave.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

mod server;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cocoon_chain::{Chain as _, ChainError};
use cocoon_liteserver::{Liteservers, Settings};
use server::{Running, Say, honest, refuse, start};
use ton_liteapi::tl::request::Request;
use ton_liteapi::tl::response::Response;
use world::{BALANCE, HEAD, NETWORK, NEXT_KEY, PINNED, TIME, World, address};

fn settings(world: &World, servers: &[&Running]) -> Settings {
    let servers = servers.iter().map(|running| running.server.clone()).collect();
    Settings { deadline: Duration::from_secs(5), ..Settings::new(servers, world.pin()) }
}

async fn connect(settings: Settings) -> Result<Liteservers, ChainError> {
    Liteservers::connect_with_clock(settings, Arc::new(|| u64::from(TIME + HEAD + 5))).await
}

async fn one() -> (Arc<World>, Running, Liteservers) {
    let (world, running) = (Arc::new(World::new()), start(1).await);
    running.honest(&world);
    let chain = connect(settings(&world, &[&running])).await.unwrap();
    (world, running, chain)
}

#[tokio::test]
async fn everything_is_read_through_one_honest_server() {
    let (world, running, chain) = one().await;
    assert_eq!(chain.network(), NETWORK);
    let head = chain.head().await.unwrap();
    assert_eq!((head.seqno, head.root_hash), (HEAD, world.head.id.root_hash));
    assert_eq!(chain.newest_key_block().seqno, NEXT_KEY);
    for (seqno, made) in [(PINNED, &world.pinned), (NEXT_KEY, &world.next_key), (HEAD, &world.head)] {
        let block = chain.block(seqno).await.unwrap().unwrap();
        assert_eq!((block.seqno, block.root_hash), (seqno, made.id.root_hash));
    }
    assert_eq!(chain.block(HEAD + 1).await.unwrap(), None);
    assert!(matches!(chain.block(PINNED - 1).await, Err(ChainError::Unsupported { .. })));
    assert_eq!(chain.account(&address(0x11)).await.unwrap().balance, BALANCE);
    let lts: Vec<_> = chain.transactions(&address(0x11), 5).await.unwrap().iter().map(|tx| tx.lt).collect();
    assert_eq!(lts, [47, 37]);
    assert_eq!(chain.transactions(&address(0x11), 1).await.unwrap().len(), 1);
    assert!(chain.transactions(&address(0x12), 5).await.unwrap().is_empty());
    chain.send(b"message").await.unwrap();
    let last = running.asked.lock().unwrap().last().cloned();
    assert!(matches!(last, Some(Request::SendMessage(sent)) if sent.body == b"message"));
    let unsupported = chain.run_get_method(&address(0x11), "seqno", Vec::new()).await.unwrap_err();
    assert!(
        matches!(unsupported, ChainError::Unsupported { .. }) && !unsupported.is_temporary(),
        "{unsupported}"
    );
}

#[tokio::test]
async fn the_next_start_is_from_a_newer_key_block_that_is_an_hour_old() {
    let (world, running) = (Arc::new(World::new()), start(1).await);
    running.honest(&world);
    let day = Duration::from_secs(24 * 3600);
    let settings = || Settings { max_head_age: day, ..settings(&world, &[&running]) };
    let told = |seconds_later: u64, settings: Settings| async move {
        let starts = Arc::new(std::sync::Mutex::new(Vec::new()));
        let heard = Arc::clone(&starts);
        let clock = Arc::new(move || u64::from(TIME + HEAD) + seconds_later);
        let chain = Liteservers::connect_with_clock(settings, clock).await.unwrap();
        let chain = chain.remembering(move |start| heard.lock().unwrap().push(start));
        for _ in 0..3 {
            assert_eq!(chain.head().await.unwrap().seqno, HEAD);
            tokio::time::sleep(Duration::from_millis(450)).await;
        }
        starts.lock().unwrap().clone()
    };
    assert_eq!(told(60, settings()).await, [], "blocks of the last hour could not be proven from it");
    let starts = told(2 * 3600, settings()).await;
    assert_eq!(starts.iter().map(|start| start.seqno).collect::<Vec<_>>(), [NEXT_KEY], "told once");
    // What was told is a start, from which nothing older is told.
    let from_there = Settings { key_block: starts[0].clone(), ..settings() };
    assert_eq!(told(2 * 3600, from_there).await, []);
}

#[tokio::test]
async fn a_liar_is_passed_over_and_told_when_alone() {
    let world = Arc::new(World::new());
    let (liar, good) = (start(1).await, start(2).await);
    good.honest(&world);
    let own = Arc::clone(&world);
    liar.think(move |request| match honest(&own, request) {
        Say::Answer(mut answer) => {
            let Response::AccountState(state) = &mut *answer else { return Say::Answer(answer) };
            state.state =
                cocoon_contracts::message::encode(&World::stored_account(&own.left, &address(0x22)).unwrap());
            Say::Answer(answer)
        }
        other => other,
    });
    let chain = connect(settings(&world, &[&liar, &good])).await.unwrap();
    assert_eq!(chain.account(&address(0x11)).await.unwrap().balance, BALANCE);
    let alone = connect(settings(&world, &[&liar])).await.unwrap();
    let error = alone.account(&address(0x11)).await.unwrap_err();
    assert!(matches!(error, ChainError::Unproven { .. }) && error.is_temporary(), "{error}");
}

#[tokio::test]
async fn another_pinned_block_is_met_by_nobody() {
    let (world, running) = (Arc::new(World::new()), start(1).await);
    running.honest(&world);
    let mut wrong = settings(&world, &[&running]);
    wrong.key_block.root_hash[0] ^= 1;
    assert!(matches!(connect(wrong).await.err(), Some(ChainError::Unproven { .. })));
    let mut ordinary = settings(&world, &[&running]);
    ordinary.key_block = cocoon_liteserver::KeyBlock {
        seqno: HEAD,
        root_hash: world.head.id.root_hash,
        file_hash: world.head.id.file_hash,
    };
    assert!(
        matches!(connect(ordinary).await.err(), Some(ChainError::Settings { .. })),
        "an ordinary block was pinned"
    );
    assert!(matches!(connect(settings(&world, &[])).await.err(), Some(ChainError::Settings { .. })));
}

#[tokio::test]
async fn a_head_that_is_too_old_is_not_the_head() {
    let (world, running) = (Arc::new(World::new()), start(1).await);
    running.honest(&world);
    let now = Arc::new(AtomicU64::new(u64::from(TIME + HEAD) + 120));
    let clock = Arc::clone(&now);
    let settings = settings(&world, &[&running]);
    let chain = Liteservers::connect_with_clock(settings, Arc::new(move || clock.load(Ordering::SeqCst)))
        .await
        .unwrap();
    chain.head().await.unwrap();
    now.fetch_add(1, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(500)).await; // a head is not asked for again at once
    let error = chain.head().await.unwrap_err();
    assert!(matches!(error, ChainError::Stale { age_seconds: 121, .. }) && error.is_temporary(), "{error}");
    assert!(chain.account(&address(0x11)).await.is_err(), "an account of a stale block");
}

#[tokio::test]
async fn time_does_not_go_back() {
    let (world, running, chain) = one().await;
    chain.head().await.unwrap();
    let own = Arc::clone(&world);
    running.think(move |request| match honest(&own, request) {
        Say::Answer(mut answer) => {
            let Response::MasterchainInfo(info) = &mut *answer else { return Say::Answer(answer) };
            info.last = server::id(&own.next_key.id);
            Say::Answer(answer)
        }
        other => other,
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let error = chain.head().await.unwrap_err();
    assert!(error.is_temporary() && error.to_string().contains("after block 115"), "{error}");
}

#[tokio::test]
async fn servers_that_hang_leave_or_talk_nonsense_are_passed_over() {
    let world = Arc::new(World::new());
    let good = start(9).await;
    good.honest(&world);
    let minds: [fn(&Request) -> Say; 6] = [
        |_| Say::Nothing,
        |_| Say::Leave,
        |_| Say::Bytes(Vec::new()),
        |_| Say::Bytes(vec![0xff; 3_000_000]),
        |_| Say::Bytes([&0x8ed0_d2c1_u32.to_le_bytes()[..], &[0xff; 400]].concat()),
        |_| refuse(228, "too many requests"),
    ];
    for (seed, mind) in (1..).zip(minds) {
        let bad = start(seed).await;
        bad.think(mind);
        let chain =
            connect(Settings { deadline: Duration::from_secs(25), ..settings(&world, &[&bad, &good]) }).await;
        assert_eq!(chain.unwrap().account(&address(0x11)).await.unwrap().balance, BALANCE, "server {seed}");
        let began = Instant::now();
        let settings = Settings { deadline: Duration::from_secs(2), ..settings(&world, &[&bad]) };
        assert!(connect(settings).await.is_err(), "server {seed}");
        assert!(began.elapsed() < Duration::from_secs(4), "server {seed}: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn an_unknown_key_and_a_closed_port_are_no_servers() {
    let (world, good) = (Arc::new(World::new()), start(1).await);
    good.honest(&world);
    let mut closed = good.server.clone();
    closed.address.set_port(1);
    let mut disguised = good.server.clone();
    disguised.key = start(2).await.server.key;
    let servers = vec![closed.clone(), disguised, good.server.clone()];
    let chain = connect(Settings::new(servers, world.pin())).await.unwrap();
    assert_eq!(chain.head().await.unwrap().seqno, HEAD);
    let error = connect(Settings::new(vec![closed], world.pin())).await.err().unwrap();
    assert!(matches!(error, ChainError::Unreachable { .. }) && error.is_temporary(), "{error}");
}

#[tokio::test]
async fn a_connection_that_broke_is_made_again() {
    let (world, running, chain) = one().await;
    running.think(|_| Say::Leave);
    assert!(chain.head().await.is_err());
    running.honest(&world);
    assert_eq!(chain.head().await.unwrap().seqno, HEAD);
}

#[tokio::test]
async fn a_message_goes_to_several_and_one_that_takes_it_suffices() {
    let world = Arc::new(World::new());
    let (hangs, refuses, takes) = (start(1).await, start(2).await, start(3).await);
    hangs.think(|_| Say::Nothing);
    let own = Arc::clone(&world);
    refuses.think(move |request| match request {
        Request::SendMessage(_) => refuse(0, "cannot apply external message to current state"),
        other => honest(&own, other),
    });
    takes.honest(&world);
    let chain = connect(settings(&world, &[&refuses, &hangs, &takes])).await.unwrap();
    let began = Instant::now();
    chain.send(b"message").await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "it waited for the one that hangs");
    let sent = |running: &Running| {
        running.asked.lock().unwrap().iter().any(|one| matches!(one, Request::SendMessage(_)))
    };
    assert!([&refuses, &hangs, &takes].into_iter().all(sent));

    let alone = connect(settings(&world, &[&refuses])).await.unwrap();
    let error = alone.send(b"message").await.unwrap_err();
    assert!(matches!(error, ChainError::Refused { .. }) && !error.is_temporary(), "{error}");
    // One refuses and the other's answer is lost: it may be on its way, so it is not called refused.
    let doubtful = connect(settings(&world, &[&refuses, &hangs])).await.unwrap();
    doubtful.send(b"message").await.unwrap();
    // One refuses and the other was never reached: that is a refusal.
    let mut servers = settings(&world, &[&refuses, &hangs]);
    servers.servers[1].address.set_port(1);
    assert!(matches!(
        connect(servers).await.unwrap().send(b"message").await,
        Err(ChainError::Refused { .. })
    ));
}
