//! What an operator is told when something is not there, and what happens when the guest dies.

use std::{fs, path::Path, time::Duration};

use cocoon_host::{GuestPhase, Host, HostError, HostOptions, Launch};

use crate::world::{Gateway, World, code, eventually, lives, tiny_model};

async fn refused(change: impl FnOnce(&World, &mut HostOptions)) -> HostError {
    let world = World::start().await;
    let mut options = world.options();
    change(&world, &mut options);
    Host::start(options).await.err().expect("it must not start")
}

fn process(guest_binary: impl Into<std::path::PathBuf>) -> Launch {
    Launch::Process { guest_binary: guest_binary.into() }
}

fn names(error: &HostError, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

#[tokio::test]
async fn a_port_in_use_is_said_with_its_number() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound");
    let error = refused(|_, options| options.listen = address).await;
    names(&error, &[&address.to_string(), "in use", "listen elsewhere"]);
}

#[tokio::test]
async fn a_missing_file_is_said_with_its_path() {
    let nowhere = Path::new("/nowhere/at/all");
    let error = refused(|_, options| options.launch = process(nowhere)).await;
    names(&error, &["guest binary", "/nowhere/at/all", "cargo build"]);
    let error = refused(|_, options| options.model = nowhere.into()).await;
    names(&error, &["model", "/nowhere/at/all", "GGUF"]);
    let error = refused(|_, options| options.simulated_root = nowhere.into()).await;
    names(&error, &["simulated root", "/nowhere/at/all"]);
    let error = refused(|_, options| options.model_name = "a \"b\"".to_owned()).await;
    assert!(matches!(error, HostError::Options(_)), "{error}");
}

#[tokio::test]
async fn a_model_that_is_cut_short_is_refused_in_the_guests_own_words() {
    let error = refused(|world, options| {
        let cut = world.folder.path().join("cut.gguf");
        let whole = fs::read(tiny_model()).expect("it lies in the repository");
        fs::write(&cut, &whole[..whole.len() / 2]).expect("the folder is writable");
        options.model = cut;
    })
    .await;
    assert!(matches!(error, HostError::GuestEnded(_)), "{error}");
    names(&error, &["model.gguf"]);
}

#[tokio::test]
async fn a_guest_that_ends_or_never_answers_is_told_apart() {
    let error = refused(|_, options| options.launch = process("/bin/false")).await;
    names(&error, &["ended with code 1"]);
    let error = refused(|_, options| {
        options.launch = process("/bin/cat");
        options.timing.start_limit = Duration::from_millis(300);
    })
    .await;
    assert!(matches!(error, HostError::GuestLate { .. }), "{error}");
}

#[tokio::test]
async fn a_chain_that_does_not_answer_is_said_before_a_model_is_loaded() {
    let error = refused(|world, options| {
        let chain = cocoon_chain::Toncenter::new("http://127.0.0.1:1", crate::world::NETWORK).expect("a URL");
        let key = crate::world::key(crate::world::OPERATOR);
        options.wallet = std::sync::Arc::new(cocoon_chain::Wallet::new(key, std::sync::Arc::new(chain)));
        options.run_dir = world.folder.path().join("unused");
    })
    .await;
    assert!(matches!(error, HostError::Chain(_)), "{error}");
    names(&error, &["http://127.0.0.1:1", "does not answer"]);
}

#[tokio::test]
async fn a_guest_that_is_killed_is_started_again_with_new_keys() {
    let world = World::start().await;
    let host = world.host().await;
    let first = host.bundle().expect("it has evidence");
    let trusted = world.trust(&first, host.expected()).await;
    let gateway = Gateway::open(&world, &host).await;
    let pid = host.guest_pid().expect("it runs");
    signal(pid, rustix::process::Signal::KILL);

    eventually("another guest has evidence", async || host.bundle().is_some_and(|bundle| bundle != first))
        .await;
    assert!(!lives(pid));
    let renewed = world.trust(&host.bundle().expect("it has evidence"), host.expected()).await;
    assert_ne!(renewed.seal_key(), trusted.seal_key());
    assert_ne!(renewed.receipt_key(), trusted.receipt_key());

    let (response, _) = gateway.ask(&trusted, 1, 4).await;
    assert_eq!(response.status(), 400);
    assert_eq!(code(response).await, "stale_statement", "what was sealed to the dead guest is refused");
    let (response, _) = gateway.ask(&renewed, 2, 4).await;
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn a_guest_that_hangs_is_ended_and_started_again() {
    let world = World::start().await;
    let mut options = world.options();
    options.timing.attest_every = Duration::from_millis(100);
    options.timing.evidence_limit = Duration::from_millis(500);
    let host = Host::start(options).await.expect("it starts");
    let pid = host.guest_pid().expect("it runs");
    signal(pid, rustix::process::Signal::STOP);
    eventually("another guest serves", async || host.guest_pid().is_some_and(|now| now != pid)).await;
    assert!(!lives(pid));
    let health = host.health();
    let why = health.last_end.expect("it is noted");
    assert!(health.restarts >= 1 && why.contains("did not renew its evidence"), "{why}");
    host.shutdown().await;
}

#[tokio::test]
async fn a_host_that_is_told_to_end_does_not_wait_for_a_guest_that_is_being_started_again() {
    let world = World::start().await;
    let host = world.host().await;
    let pid = host.guest_pid().expect("it runs");
    // The next guest waits for a model that nobody writes, so it never answers.
    let model = world.folder.path().join("run/model.gguf");
    fs::remove_file(&model).expect("it is there");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &model, rustix::fs::FileType::Fifo, mode, 0).expect("writable");
    signal(pid, rustix::process::Signal::KILL);
    eventually("another guest is started", async || {
        let health = host.health();
        (health.phase, health.restarts) == (GuestPhase::Booting, 1)
    })
    .await;
    let ended = tokio::time::timeout(Duration::from_secs(20), host.shutdown()).await;
    ended.expect("a guest may take three minutes to start; nobody waits for this one");
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    let id = rustix::process::Pid::from_raw(pid.cast_signed()).expect("not zero");
    rustix::process::kill_process(id, signal).expect("it is our guest");
}

#[tokio::test]
async fn a_guest_ends_with_its_host() {
    let world = World::start().await;
    let host = world.host().await;
    let pid = host.guest_pid().expect("it runs");
    drop(host); // as by a crash of this process: its lifeline is closed
    eventually("the guest is gone", async || !lives(pid)).await;
}
