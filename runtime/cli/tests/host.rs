//! `cocoon host down`, `status`, `logs` and `unit`, against a host that this test plays.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cocoon_launch::control::{Amounts, BootPhase, Control, GuestStatus, HostStatus, Lifecycle, Money, Phase};
use cocoon_launch::logbook::{HOST, LogBook};
use common::{cocoon, exit, stderr, stdout};
use tokio::sync::watch;

struct Played {
    phase: Phase,
    ended: watch::Sender<bool>,
}

impl Lifecycle for Played {
    async fn status(&self) -> HostStatus {
        let guest = GuestStatus {
            name: "gpu-0".into(),
            kind: "tdx".into(),
            phase: self.phase,
            url: Some("http://127.0.0.1:8083".into()),
            pid: Some(4711),
            uptime_seconds: Some(3700),
            restarts: 2,
            last_end: Some("the guest restarted\u{1b}[2J".into()),
            served: 1234,
            resident_bytes: Some(300 << 20),
            boot: vec![
                BootPhase { name: "firmware".into(), millis: 1500 },
                BootPhase { name: "kernel".into(), millis: 2250 },
            ],
        };
        let money = Some(Money {
            total: Amounts { owed: 14_250, paid: 1_000_000_000, ..Amounts::default() },
            channels: Vec::new(),
        });
        HostStatus { pid: 42, uptime_seconds: 4000, ending: false, guests: vec![guest], money }
    }

    fn end(&self) {
        self.ended.send_replace(true);
    }
}

/// A host in a runtime of its own, as in a process of its own; it goes when it is told to.
struct Host {
    runtime: Option<tokio::runtime::Runtime>,
}

impl Host {
    fn play(state: &Path, phase: Phase) -> Self {
        let folder = state.join("operator");
        std::fs::create_dir_all(&folder).expect("writable");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (ended, _) = watch::channel(false);
        let host = Arc::new(Played { phase, ended });
        let control = runtime.block_on(async { Control::serve(&folder, Arc::clone(&host)) }).expect("free");
        let mut told = host.ended.subscribe();
        let handle = runtime.handle().clone();
        runtime.spawn(async move {
            told.wait_for(|told| *told).await.expect("the host lives");
            // Some work of ending, which `down` waits for.
            tokio::time::sleep(Duration::from_millis(300)).await;
            drop((control, handle));
        });
        Self { runtime: Some(runtime) }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn state() -> (tempfile::TempDir, String) {
    let at = tempfile::tempdir().expect("a folder");
    let path = at.path().to_str().expect("text").to_owned();
    (at, path)
}

#[test]
fn status_shows_guests_boot_and_money_and_its_exit_code_whether_all_serve() {
    let (at, state) = state();
    let host = Host::play(at.path(), Phase::Serving);
    let output = cocoon(&["host", "status", "--state", &state]);
    let text = stdout(&output);
    assert_eq!(exit(&output), 0, "{text}{}", stderr(&output));
    for words in [
        "running for 1 h 6 min (process 42)",
        "0.00001425 TON owed, 1 TON settled",
        "gpu-0 tdx serving",
        "1,234 requests",
        "300 MiB",
        "3.75 s: firmware 1.50 s, kernel 2.25 s",
        "2, the last one: the guest restarted",
    ] {
        assert!(text.contains(words), "{words} in {text}");
    }
    assert!(!text.contains('\u{1b}'), "{text}");
    let output = cocoon(&["host", "status", "--json", "--state", &state]);
    let json: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("one object");
    assert_eq!(
        (json["guests"][0]["phase"].as_str(), json["money"]["owed"].as_u64()),
        (Some("serving"), Some(14_250))
    );
    drop(host);

    let (at, state) = self::state();
    let _host = Host::play(at.path(), Phase::Waiting);
    let output = cocoon(&["host", "status", "--state", &state]);
    assert_eq!(exit(&output), 3, "a guest does not serve");
    assert!(stdout(&output).contains("waiting to be started again"));
}

#[test]
fn where_no_host_runs_that_is_said_and_nothing_is_made() {
    let (at, _) = state();
    let nowhere = at.path().join("nowhere");
    let nowhere_text = nowhere.to_str().expect("text");
    for (command, code, words) in [
        ("status", 1, "what to do: start one with `cocoon host up`"),
        ("logs", 1, "there is no log of a host"),
        ("down", 0, "no host runs here"),
    ] {
        let output = cocoon(&["host", command, "--state", nowhere_text]);
        assert_eq!(exit(&output), code, "{command}");
        let said = stdout(&output) + &stderr(&output);
        assert!(said.contains(words), "{command}: {said}");
    }
    assert!(!nowhere.exists());
}

#[test]
fn logs_are_shown_filtered_and_steer_no_terminal() {
    let (at, state) = state();
    let folder = at.path().join("operator");
    std::fs::create_dir_all(&folder).expect("writable");
    let book = LogBook::open(&folder).expect("writable");
    book.note(HOST, "a guest is started");
    book.note("gpu-0", "model loaded");
    // What was written by other means.
    let raw = "{\"at\":1795000000123,\"from\":\"gpu-0\\u001b[2J\",\"line\":\"x\\ny\"}\n";
    let mut file = std::fs::OpenOptions::new().append(true).open(folder.join("host.log")).expect("there");
    std::io::Write::write_all(&mut file, raw.as_bytes()).expect("writable");
    let text = stdout(&cocoon(&["host", "logs", "--state", &state]));
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(
        text.contains("host       a guest is started") && text.contains(".123Z ") && !text.contains('\u{1b}'),
        "{text}"
    );
    let text = stdout(&cocoon(&["host", "logs", "--state", &state, "--from", "gpu-0", "--json"]));
    let entry: serde_json::Value = serde_json::from_str(text.trim()).expect("one line");
    assert_eq!(entry["line"], "model loaded");
    assert_eq!(stdout(&cocoon(&["host", "logs", "--state", &state, "-n", "0"])), "");
}

#[test]
fn a_configuration_names_the_folder_and_makes_the_service() {
    let (at, state) = state();
    let config = at.path().join("host.toml");
    let example = include_str!("../../launch/host.toml").replace("/var/lib/cocoon/state", &state);
    std::fs::write(&config, &example).expect("writable");
    let config = config.to_str().expect("text");
    assert!(stdout(&cocoon(&["host", "down", "--config", config])).contains("no host runs here"));
    let text = stdout(&cocoon(&["host", "unit", "--config", config]));
    assert!(
        text.contains(&format!("ReadWritePaths={state}\n")) && text.contains("User=root"),
        "GPUs: {text}"
    );
    assert!(text.contains(&format!("host up --config {config}\n")), "{text}");
    let output = cocoon(&["host", "unit", "--config", config, "--install", "--folder", &state]);
    assert_eq!(exit(&output), 0, "{}", stderr(&output));
    assert_eq!(std::fs::read_to_string(at.path().join("cocoon-host.service")).expect("written"), text);
    assert!(stdout(&output).contains("systemctl daemon-reload"));

    std::fs::write(config, example.replace("cid = 16", "cid = 2")).expect("writable");
    let output = cocoon(&["host", "unit", "--config", config]);
    assert_eq!(exit(&output), 2);
    assert!(stderr(&output).contains("2 is no guest's CID"), "{}", stderr(&output));
}

#[test]
fn the_service_starts_this_program_with_arguments_that_it_takes() {
    let (at, state) = state();
    let config = at.path().join("host.toml");
    let example = include_str!("../../launch/host.toml")
        .replace("/var/lib/cocoon/state", &state)
        .replace("tee = \"auto\"", "tee = \"tdx\"");
    std::fs::write(&config, example).expect("writable");
    let unit = stdout(&cocoon(&["host", "unit", "--config", config.to_str().expect("text")]));
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("it starts something");
    let mut words: Vec<&str> = line.split(' ').skip(1).collect();
    words.push("--dry-run");
    let said = stderr(&cocoon(&words));
    assert!(!said.contains("Usage:"), "{words:?}: {said}");
    assert!(said.contains("network.toml"), "it gets as far as the network, which is not there: {said}");
    words.push("--vm");
    assert!(stderr(&cocoon(&words)).contains("Usage:"), "and wrong arguments would be said");
}

#[test]
fn a_second_host_touches_nothing_and_down_gives_back_what_a_killed_one_left() {
    let (at, state) = state();
    let host = Host::play(at.path(), Phase::Serving);
    let config = at.path().join("host.toml");
    let example = include_str!("../../launch/host.toml")
        .replace("/var/lib/cocoon/state", &state)
        .replace("tee = \"auto\"", "tee = \"tdx\"");
    std::fs::write(&config, example).expect("writable");
    let config = config.to_str().expect("text");
    let network = "network = -7\nchain = \"http://127.0.0.1:1\"\nregistry = \"\"\n";
    std::fs::write(at.path().join("network.toml"), network).expect("writable");
    let left = at.path().join("operator/gpus.json");
    std::fs::write(&left, r#"{"version":1,"before":[],"begun":[]}"#).expect("writable");

    let second = cocoon(&["host", "up", "--config", config]);
    assert_ne!(exit(&second), 0);
    assert!(stderr(&second).contains("another host runs"), "before all else: {}", stderr(&second));
    assert!(left.exists());

    drop(host);
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while left.exists() {
        assert!(std::time::Instant::now() < until, "it is given back once the host has gone");
        drop(cocoon(&["host", "down", "--config", config]));
    }
}

#[test]
fn down_waits_until_the_host_has_gone() {
    let (at, state) = state();
    let mut host = Host::play(at.path(), Phase::Serving);
    let runtime = host.runtime.take().expect("it plays");
    let asked = std::thread::spawn({
        let state = state.clone();
        move || cocoon(&["host", "down", "--state", &state])
    });
    // The process is gone only when its connections are: a while after its socket.
    let socket = at.path().join("operator/control.sock");
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while socket.exists() {
        assert!(std::time::Instant::now() < until, "it was not told");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!asked.is_finished(), "the process still runs");
    runtime.shutdown_background();
    let output = asked.join().expect("no panic");
    assert_eq!(exit(&output), 0);
    assert!(stdout(&output).contains("the host has ended"));
}
