//! `cocoon verify --fetch` by the real binary, against a local server that plays Intel's services.

#[path = "../../attestation/fetch/tests/local/mod.rs"]
mod local;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use cocoon_attestation::UnixTime;
use cocoon_simulated_tee::{Emulator, SimulatedRoot};
use cocoon_tests::binary;
use local::Local;
use serde_json::Value;

const DAY: u64 = 86_400;
const NOWHERE: &str = "http://127.0.0.1:1";

struct World {
    folder: tempfile::TempDir,
    local: Local,
    now: UnixTime,
}

impl World {
    /// A quote and its root as files, and services that have its collateral.
    async fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let now = UnixTime(now);
        let root = SimulatedRoot::create(now);
        let folder = tempfile::tempdir().expect("a folder");
        let quote = Emulator::launch(&root, b"binary", &[]).quote(&[7; 64]);
        std::fs::write(folder.path().join("quote.bin"), quote).expect("it can be written");
        std::fs::write(folder.path().join("root.der"), root.root_der()).expect("it can be written");
        let local = Local::start().await;
        local.put_intel(&root.collateral(now));
        Self { folder, local, now }
    }

    fn start(&self, arguments: &[&str]) -> Child {
        Command::new(binary("cocoon"))
            .args(["verify", "quote.bin", "--simulated-root", "root.der"])
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cocoon starts")
    }

    fn fetching(&self, url: &str, more: &[&str]) -> Child {
        let fixed = ["--fetch", "--cache", "cache", "--intel-pcs", url, "--intel-certificates", url];
        self.start(&[&fixed[..], more].concat())
    }

    async fn run(&self, url: &str, more: &[&str]) -> Answer {
        Answer::of(self.fetching(url, more)).await
    }
}

/// What the program did.
struct Answer {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Answer {
    /// Waits beside the server, which runs on this very runtime.
    async fn of(child: Child) -> Self {
        let output = tokio::task::spawn_blocking(move || child.wait_with_output());
        let Output { status, stdout, stderr } = output.await.expect("no panic").expect("it ran");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Self { code: status.code().expect("it was not killed"), stdout: text(stdout), stderr: text(stderr) }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn two_processes_at_once_fetch_into_one_cache_and_a_third_asks_nobody() {
    let world = World::new().await;
    let both = [world.fetching(&world.local.url, &["--json"]), world.fetching(&world.local.url, &["--json"])];
    for child in both {
        let answer = Answer::of(child).await;
        assert_eq!((answer.code, answer.stderr.as_str()), (0, ""));
        assert_eq!(answer.json()["verdict"], "genuine");
    }
    let folder = world.folder.path().join("cache/intel");
    assert_eq!(names(&folder), ["pckcrl-platform", "qe-tdx", "rootcrl", "tcb-tdx-53494d544458"]);
    let marks = std::fs::read_to_string(world.folder.path().join("cache/marks")).expect("marks");
    let words: Vec<&str> = marks.split_whitespace().collect();
    assert_eq!((words.len(), &words[1..4]), (5, &["tdx", "53494d544458", "1"][..]), "{marks}");

    world.local.requests();
    let answer = world.run(&world.local.url, &[]).await;
    assert_eq!((answer.code, answer.stderr.as_str()), (0, ""));
    assert!(answer.stdout.contains("0 fetched, 4 from the cache"), "{}", answer.stdout);
    assert!(world.local.requests().is_empty());
}

#[tokio::test]
async fn the_cache_serves_within_its_dates_and_the_verdict_names_what_ran_out() {
    let world = World::new().await;
    let answer = world.run(NOWHERE, &["--json"]).await;
    assert_eq!((answer.code, answer.json()["refusal"]["check"].as_str()), (6, Some("tdx.collateral")));
    for word in [
        "Intel's PCS: it cannot be reached",
        "Intel's certificate server",
        "TDX QE identity (not in",
        "what to do:",
    ] {
        assert!(answer.stderr.contains(word), "{word}: {}", answer.stderr);
    }
    assert_eq!(world.run(&world.local.url, &[]).await.code, 0);

    let soon = (world.now.0 + 20 * DAY).to_string();
    let answer = world.run(NOWHERE, &["--at", &soon]).await;
    assert_eq!(answer.code, 0, "{}", answer.stdout);
    assert!(answer.stderr.contains("in date, and used"), "{}", answer.stderr);
    let answer = world.run(NOWHERE, &["--offline", "--at", &soon]).await;
    assert_eq!(answer.code, 0, "{}", answer.stdout);

    let late = (world.now.0 + 31 * DAY).to_string();
    let answer = world.run(NOWHERE, &["--at", &late, "--json"]).await;
    assert_eq!((answer.code, answer.json()["refusal"]["check"].as_str()), (6, Some("tdx.validity")));
    assert!(answer.stderr.contains("ran out at"), "{}", answer.stderr);
}

#[tokio::test]
async fn what_was_saved_verifies_offline_later() {
    let world = World::new().await;
    let answer = world.run(&world.local.url, &["--save", "kept"]).await;
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    assert_eq!(names(&world.folder.path().join("kept")), ["01-intel-collateral.json"]);
    let told = answer.stdout.lines().find(|line| line.contains("later:")).expect("how to");
    let (_, command) = told.split_once("EVIDENCE ").expect("the command");
    world.local.requests();
    let later: Vec<&str> = command.split(' ').chain(["--json"]).collect();
    let answer = Answer::of(world.start(&later)).await;
    assert_eq!((answer.code, answer.json()["verdict"].as_str()), (0, Some("genuine")), "{later:?}");
    assert!(world.local.requests().is_empty());

    let answer = world.run(&world.local.url, &["--save", "kept"]).await;
    assert_eq!(answer.code, 2, "a folder that has files");
    assert!(answer.stderr.contains("--save"), "{}", answer.stderr);
}

#[tokio::test]
async fn mistakes_in_usage_are_told() {
    let world = World::new().await;
    for (arguments, word) in [
        (&["--fetch", "--cache", "c", "--intel-pcs", "http://192.0.2.1"][..], "only https"),
        (&["--fetch", "--cache", "c", "--amd-kds", "kdsintf.amd.com"], "https://host/path"),
        (&["--offline"], "--fetch"),
        (&["--cache", "c"], "--fetch"),
        (&["--save", "c"], "--fetch"),
    ] {
        let answer = Answer::of(world.start(arguments)).await;
        assert_eq!(answer.code, 2, "{arguments:?}");
        assert!(answer.stderr.contains(word), "{arguments:?}: {}", answer.stderr);
    }
    // Whatever stands there, it is no evidence: nobody is asked.
    std::fs::write(world.folder.path().join("quote.bin"), b"rubbish").expect("it can be written");
    assert_eq!(world.run(&world.local.url, &[]).await.code, 5);
    assert!(world.local.requests().is_empty());
}
