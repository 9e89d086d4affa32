//! Each state of a child's life, and how it ends.

use crate::kit::{PATIENCE, config, question, ready, start};
use cocoon_supervisor::{AskError, Event, State};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_child_starts_is_tried_and_is_ready() {
    let kit = start(config("slow start"), None);
    let early = kit.supervisor.ask(&question("!honest")).await.err();
    assert_eq!(early, Some(AskError::NotReady(State::Starting)));
    assert_eq!(kit.settled().await, State::Ready);
    assert!(kit.ask("!honest").await.1.is_ok());
    assert_eq!(kit.ready_again.load(Ordering::Relaxed), 0, "the first start is no restart");
}

#[tokio::test]
async fn one_that_never_gets_ready_is_tried_a_named_number_of_times() {
    for mode in ["ends at once", "never starts", "hangs at start"] {
        let mut config = config(mode);
        config.limits.start = 1;
        let kit = start(config, None);
        assert_eq!(kit.settled().await, State::Dead, "{mode}");
        assert_eq!(kit.supervisor.status().starts, 2, "one restart was allowed: {mode}");
        assert_eq!(kit.supervisor.ask(&question("x")).await.err(), Some(AskError::NotReady(State::Dead)));
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_no_child() {
    let mut config = config("honest");
    config.argv[0] += "-that-is-not-there";
    assert_eq!(start(config, None).settled().await, State::Dead);
}

#[tokio::test]
async fn a_pinned_canary_must_be_met() {
    let digest = ring::digest::digest(&ring::digest::SHA256, b"the same answer");
    let mut pinned = config("honest");
    pinned.canary.sha256 = Some(hex::encode(digest));
    ready(pinned.clone()).await;
    pinned.canary.sha256 = Some("ab".repeat(32));
    assert_eq!(start(pinned, None).settled().await, State::Dead);
}

#[tokio::test]
async fn a_canary_that_changes_over_a_restart_ends_the_child() {
    let kit = ready(config("wrong canary")).await;
    assert!(kit.ask("!crash").await.1.is_err());
    kit.reached(State::Dead).await;
    assert_eq!(kit.ready_again.load(Ordering::Relaxed), 0, "nobody was let near it");
}

#[tokio::test]
async fn each_restart_calls_for_new_evidence() {
    let kit = ready(config("honest")).await;
    assert!(kit.ask("!crash").await.1.is_err());
    kit.started(2).await;
    assert_eq!(kit.settled().await, State::Ready);
    assert_eq!(kit.ready_again.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn one_that_is_sick_is_started_again() {
    // It is sick once it was asked, which the canary does.
    let kit = start(config("sick"), None);
    kit.started(2).await;
    kit.reached(State::Dead).await;
}

#[tokio::test]
async fn draining_finishes_what_is_in_progress_and_takes_nothing_more() {
    let kit = ready(config("honest")).await;
    let mut answer = kit.supervisor.ask(&question("!slowly")).await.expect("ready");
    assert!(matches!(answer.next().await, Some(Event::Piece { .. })));
    let reading = async {
        let mut last = None;
        while let Some(event) = answer.next().await {
            last = Some(event);
        }
        last
    };
    let asking = async {
        kit.reached(State::Draining).await;
        kit.supervisor.ask(&question("!honest")).await.err()
    };
    let (last, refused, ()) = tokio::join!(reading, asking, kit.supervisor.drain());
    assert!(matches!(last, Some(Event::End(Ok(_)))));
    assert!(matches!(refused, Some(AskError::NotReady(State::Draining | State::Dead))));
    assert_eq!(kit.supervisor.state(), State::Dead);
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_child_that_hangs() {
    let mut config = config("honest");
    (config.limits.drain, config.limits.first_piece) = (1, 60);
    let kit = ready(config).await;
    let _answer = kit.supervisor.ask(&question("!hang")).await.expect("ready");
    let since = Instant::now();
    kit.supervisor.drain().await;
    assert!(since.elapsed() < Duration::from_secs(30));
}

/// Whether any process of this machine has this argument.
fn runs(argument: &str) -> bool {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    processes
        .map(|entry| entry.path().join("cmdline"))
        .filter_map(|path| std::fs::read(path).ok())
        .any(|line| line.split(|byte| *byte == 0).any(|part| part == argument.as_bytes()))
}

async fn gone(argument: &str) {
    let gone = async {
        while runs(argument) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("it ended");
}

async fn forked(kit: &crate::kit::Kit) -> String {
    let (token, outcome) = kit.ask("!fork").await;
    assert!(outcome.is_ok());
    let there = async {
        while !runs(&token) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, there).await.unwrap_or_else(|_| panic!("{token} never ran"));
    token
}

#[tokio::test]
async fn what_a_child_forked_ends_with_it() {
    let kit = ready(config("honest")).await;
    let token = forked(&kit).await;
    kit.supervisor.drain().await;
    gone(&token).await;
    let kit = ready(config("honest")).await;
    let token = forked(&kit).await;
    drop(kit); // not drained
    gone(&token).await;
}

const CASE: &str = "COCOON_SUPERVISOR_CASE";

/// Does nothing, unless it is started by the test after it.
#[tokio::test]
async fn a_supervisor_that_is_to_be_killed() {
    if std::env::var_os(CASE).is_none() {
        return;
    }
    let kit = ready(config("honest")).await;
    println!("token {}", forked(&kit).await);
    tokio::time::sleep(PATIENCE).await;
}

#[tokio::test]
async fn no_child_survives_a_supervisor_that_is_killed() {
    use std::io::{BufRead, BufReader};
    let program = std::env::current_exe().expect("this program");
    let mut supervisor = Command::new(Path::new(&program))
        .args(["--exact", "life::a_supervisor_that_is_to_be_killed", "--nocapture"])
        .env(CASE, "1")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("it starts");
    let lines = BufReader::new(supervisor.stdout.take().expect("piped")).lines();
    let token = lines.map_while(Result::ok).find_map(|line| Some(line.split_once("token ")?.1.to_owned()));
    let token = token.expect("it is ready");
    supervisor.kill().expect("it is ours");
    supervisor.wait().expect("it is ours");
    gone(&token).await;
}
