//! The journey with guests that are booted: by `cocoon demo --vm`, and by an operator with a configuration file.
//!
//! Needs a development image (`COCOON_TEST_IMAGE`) and the pinned tools in the cache; `./scripts/test` makes both.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use cocoon_tests::{Part, binary, tiny_model};
use serde_json::Value;

/// Emulated machines on busy ones.
const PATIENCE: Duration = Duration::from_secs(240);

fn image() -> Option<PathBuf> {
    let image = std::env::var_os("COCOON_TEST_IMAGE").map(PathBuf::from);
    if image.is_none() {
        eprintln!("SKIPPED: no VM is booted: COCOON_TEST_IMAGE names no image; run ./scripts/test");
    }
    image
}

fn cocoon(arguments: &[&str]) -> Output {
    Command::new(binary("cocoon")).args(arguments).stdin(Stdio::null()).output().expect("cocoon starts")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders are UTF-8")
}

fn json(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("no JSON: {e}: {errors}"))
}

#[test]
fn a_prompt_travels_the_whole_way_to_a_guest_that_booted() {
    let Some(image) = image() else { return };
    let keep = tempfile::tempdir().expect("a temporary folder");
    let model = tiny_model();
    let output = cocoon(&[
        "demo",
        "--vm",
        "--image",
        text(&image),
        "--model",
        text(&model),
        "--max-tokens",
        "16",
        "--keep",
        text(keep.path()),
        "--json",
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = json(&output);
    assert_eq!((&report["verdict"], &report["simulated"]), (&Value::from("trusted"), &Value::from(true)));
    assert_eq!(report["receipt_verified"], true);
    assert!(!report["answer"].as_str().expect("text").is_empty());
    assert_eq!(report["settled_nanotons"], report["voucher_nanotons"]);
    assert!(report["settled_nanotons"].as_u64().is_some_and(|paid| paid > 0));

    // The evidence that was kept is of the image's registers, and a manifest explains it.
    let manifest = image.join("manifest.json");
    let bundle = keep.path().join("bundle.cmw");
    let same = cocoon(&["image", "diff", text(&manifest), text(&bundle), "--json"]);
    assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stderr));
    assert_eq!(json(&same)["differences"], Value::Array(Vec::new()));
}

/// An operator's machine: ledger, gateway, and a host with a configuration file.
struct Bench {
    folder: tempfile::TempDir,
    _chain: Part,
    gateway: Part,
}

impl Bench {
    fn start(image: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let state = folder.path().join("state");
        std::fs::create_dir(&state).expect("it is ours");
        let model = tiny_model();
        let common = ["--listen", "127.0.0.1:0", "--state", text(&state)];
        let chain = [&["chain", "--model", text(&model), "--image", text(image)], &common[..]].concat();
        let chain = Part::start(&chain, &folder.path().join("chain.log"));
        let gateway =
            [&["gateway", "--challenge-seconds", "1", "--min-challenge-seconds", "1"], &common[..]].concat();
        let gateway = Part::start(&gateway, &folder.path().join("gateway.log"));
        let this = Self { folder, _chain: chain, gateway };
        std::fs::write(this.config(), this.configuration(image)).expect("it is ours");
        this
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("host.toml")
    }

    fn configuration(&self, image: &Path) -> String {
        format!(
            "tee = \"emulation\"\nimage = {:?}\nstate = {:?}\nlisten = \"127.0.0.1:0\"\ngateways = [{:?}]\n\n\
             [model]\nname = \"tiny\"\nfile = {:?}\n\n\
             [[guest]]\nname = \"one\"\nprofile = \"emulation-1\"\n\n\
             [[guest]]\nname = \"two\"\nvcpus = 1\nmemory = \"1 GiB\"\n",
            text(&image.canonicalize().expect("it is there")),
            text(&self.state()),
            self.gateway.url(),
            text(&tiny_model()),
        )
    }

    fn host(&self, log: &str) -> Part {
        let config = self.config();
        let arguments = ["host", "up", "--config", text(&config), "--min-challenge-seconds", "1"];
        Part::start(&arguments, &self.folder.path().join(log))
    }

    fn ask(&self, command: &[&str]) -> Output {
        let config = self.config();
        cocoon(&[&["host"], command, &["--config", text(&config)]].concat())
    }

    /// Status, once both guests serve.
    fn both_serve(&self) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = self.ask(&["status", "--json"]);
            let status: Option<Value> = serde_json::from_slice(&output.stdout).ok();
            let guests = status.as_ref().and_then(|status| status["guests"].as_array().map(Vec::len));
            match status {
                Some(status) if output.status.success() && guests == Some(2) => return status,
                _ => assert!(Instant::now() < deadline, "{}", String::from_utf8_lossy(&output.stderr)),
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

fn pids(status: &Value) -> Vec<u64> {
    let guests = status["guests"].as_array().expect("a list");
    guests.iter().map(|guest| guest["pid"].as_u64().expect("it runs")).collect()
}

fn gone(pids: &[u64]) {
    let deadline = Instant::now() + PATIENCE;
    while pids.iter().any(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
        assert!(Instant::now() < deadline, "{pids:?} are left behind");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_operator_runs_two_guests_from_a_file_and_nothing_stays_however_it_ends() {
    let Some(image) = image() else { return };
    let bench = Bench::start(&image);

    // What would be started is shown, and nothing is.
    let config = bench.config();
    let planned = cocoon(&["host", "up", "--config", text(&config), "--dry-run"]);
    let plan = String::from_utf8(planned.stdout).expect("UTF-8");
    assert!(planned.status.success(), "{}", String::from_utf8_lossy(&planned.stderr));
    for word in ["guest one", "guest two", "-kernel", "tpm-crb", "cocoon-weights"] {
        assert!(plan.contains(word), "{word} is not in: {plan}");
    }
    assert_eq!(bench.ask(&["status"]).status.code(), Some(1), "no host runs yet");

    let host = bench.host("host.log");
    let status = bench.both_serve();
    let names: Vec<&str> =
        status["guests"].as_array().expect("a list").iter().filter_map(|g| g["name"].as_str()).collect();
    assert_eq!(names, ["one", "two"]);
    let first = pids(&status);
    let second_host = cocoon(&["host", "up", "--config", text(&config)]);
    let said = String::from_utf8_lossy(&second_host.stderr).into_owned();
    assert!(!second_host.status.success() && said.contains("another host"), "{said}");

    let state = bench.state();
    let answered = cocoon(&["chat", "What is a tuple?", "--max-tokens", "8", "--state", text(&state)]);
    assert!(answered.status.success(), "{}", String::from_utf8_lossy(&answered.stderr));
    let words = String::from_utf8(answered.stdout).expect("UTF-8");
    let log = bench.ask(&["logs"]);
    let log = String::from_utf8(log.stdout).expect("UTF-8");
    assert!(log.contains("init: service") && log.contains("one") && log.contains("two"), "{log}");
    assert!(!log.contains("tuple") && !log.contains(words.trim()), "content is logged: {log}");

    // Killed, its machines are gone with it; and the next start is a start like any other.
    host.kill();
    gone(&first);
    let host = bench.host("host-again.log");
    let again = pids(&bench.both_serve());
    assert!(again.iter().all(|pid| !first.contains(pid)));
    let down = bench.ask(&["down"]);
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    gone(&again);
    host.stop();
    assert_eq!(bench.ask(&["status"]).status.code(), Some(1), "no host runs any more");
}

#[test]
fn what_cannot_be_is_said_before_anything_starts() {
    let Some(image) = image() else { return };
    let bench = Bench::start(&image);
    let good = std::fs::read_to_string(bench.config()).expect("just written");
    let refused = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        std::fs::write(bench.config(), good.replacen(from, to, 1)).expect("it is ours");
        let config = bench.config();
        let output = cocoon(&["host", "up", "--config", text(&config)]);
        assert!(!output.status.success(), "{to} was taken");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for (from, to, words) in [
        ("profile = \"emulation-1\"", "profile = \"emulation-9\"", "emulation-9"),
        ("memory = \"1 GiB\"", "memory = \"3 GiB\"", "3 GiB"),
        ("tee = \"emulation\"", "tee = \"emulation\"\nsecret = 1", "secret"),
        ("name = \"two\"", "name = \"one\"", "one"),
        ("tiny.gguf", "tinny.gguf", "tinny.gguf"),
        ("tee = \"emulation\"", "tee = \"auto\"", "doctor"),
    ] {
        let said = refused(from, to);
        assert!(said.contains(words) && said.contains("what to do"), "{to}: {said}");
    }
    let left = std::fs::read_dir(bench.state().join("operator")).map_or(0, |entries| {
        entries.flatten().filter(|entry| entry.path().join("run/qemu.pid").exists()).count()
    });
    assert_eq!(left, 0, "something was started");
}
