//! The demo and what it leaves: one prompt the whole way, by the real binaries, and evidence that verifies afterwards.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use cocoon_tests::{PATIENCE, binary, tiny_model};
use serde_json::Value;

fn cocoon(arguments: &[&str]) -> Output {
    Command::new(binary("cocoon")).args(arguments).stdin(Stdio::null()).output().expect("cocoon starts")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders are UTF-8")
}

/// Runs the demo with the tiny model and keeps what it keeps.
fn demo(keep: &Path, more: &[&str]) -> Output {
    let model = tiny_model();
    let fixed = ["demo", "--model", text(&model), "--keep", text(keep), "--max-tokens", "48"];
    cocoon(&[&fixed[..], more].concat())
}

#[test]
fn a_prompt_travels_the_whole_way_and_every_figure_holds() {
    let keep = tempfile::tempdir().expect("a temporary folder");
    let output = demo(keep.path(), &["--json", "--prompt", "Write about the sea."]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "exit {:?}: {errors}", output.status.code());
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object and nothing else");

    assert_eq!(report["verdict"], "trusted");
    assert_eq!(report["simulated"], true);
    assert_eq!(report["receipt_verified"], true);
    assert!(!report["answer"].as_str().expect("text").is_empty());
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{value} is no amount"));
    let (prompt, completion) =
        (number(&report["usage"]["prompt_tokens"]), number(&report["usage"]["completion_tokens"]));
    assert!(prompt > 0 && (1..=48).contains(&completion), "{prompt} + {completion}");
    assert!(report["ttft_ms"].as_f64().expect("a number") > 0.0);
    assert!(report["tokens_per_second"].as_f64().expect("a number") > 0.0);

    money_adds_up(&report, prompt, completion);
    evidence_verifies_and_nothing_else_does(keep.path());
}

/// Prices of a development network, with the gateway's margin of 5 % rounded up.
fn money_adds_up(report: &Value, prompt: u64, completion: u64) {
    let number = |value: &Value| value.as_u64().expect("an amount");
    let bill = (prompt * 21_000_000 + completion * 168_000_000) / 1_000_000;
    let voucher = number(&report["voucher_nanotons"]);
    assert_eq!(voucher, bill, "the voucher is for exactly what was used");
    assert_eq!(number(&report["settled_nanotons"]), voucher);

    let operator_bill = (prompt * 20_000_000 + completion * 160_000_000) / 1_000_000;
    assert_eq!(number(&report["operator_settled_nanotons"]), operator_bill);
    let balance = |who: &str, when: &str| number(&report["balances"][who][when]);
    let fee = number(&report["network_fee_nanotons"]);
    assert_eq!(fee, balance("treasury", "after") - balance("treasury", "before"));
    let share = |amount: u64| amount * 500 / 10_000;
    let expected = share(bill) + share(operator_bill);
    assert!(
        fee <= expected && fee + 2 >= expected,
        "5 % of both bills is {expected}, the treasury got {fee}"
    );

    let total = |when: &str| -> u64 {
        ["client", "gateway", "operator", "treasury"].iter().map(|who| balance(who, when)).sum()
    };
    let chain_fees = number(&report["chain_fees_nanotons"]);
    assert_eq!(total("before"), total("after") + chain_fees, "coins are where they are, or were fees");
    // Two wallets deployed, two channels opened, settled, closed: a few hundredths of a TON, not more.
    assert!(chain_fees > 0 && chain_fees < 100_000_000, "chain fees of {chain_fees}");
}

fn evidence_verifies_and_nothing_else_does(kept: &Path) {
    let file = |name: &str| text(&kept.join(name)).to_owned();
    let (bundle, root, policy, beacon) =
        (file("bundle.cmw"), file("simulated-root.der"), file("policy.toml"), file("beacon.json"));
    let full = ["--simulated-root", &root, "--policy", &policy, "--beacon", &beacon, "--json"];
    let verify = |arguments: &[&str]| {
        let output = cocoon(&[&["verify"], arguments].concat());
        let verdict: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (output.status.code().expect("it was not killed"), verdict)
    };
    let failed = |verdict: &Value| verdict["refusal"]["check"].as_str().unwrap_or_default().to_owned();

    let (code, verdict) = verify(&[&[bundle.as_str()], &full[..]].concat());
    assert_eq!(
        (code, verdict["verdict"].as_str(), verdict["simulated"].as_bool()),
        (0, Some("trusted"), Some(true))
    );

    let (code, verdict) = verify(&[&bundle, "--simulated-root", &root, "--json"]);
    assert_eq!(
        (code, verdict["verdict"].as_str()),
        (0, Some("genuine")),
        "without a policy it is never trusted"
    );

    let (code, verdict) = verify(&[&bundle, "--json"]);
    assert_ne!(code, 0, "no simulated root is built in: {verdict}");

    let tomorrow = unix_seconds() + 24 * 3600;
    let (code, verdict) = verify(&[&[bundle.as_str()], &full[..], &["--at", &tomorrow.to_string()]].concat());
    assert_eq!((code, failed(&verdict).as_str()), (3, "freshness"), "an old beacon");

    let other = kept.join("other-network.toml");
    let original = std::fs::read_to_string(&policy).expect("the policy");
    let changed: String = original
        .lines()
        .map(|line| {
            if line.starts_with("network = ") { "network = -4242\n".to_owned() } else { format!("{line}\n") }
        })
        .collect();
    std::fs::write(&other, changed).expect("it can be written");
    let arguments = ["--simulated-root", &root, "--policy", text(&other), "--beacon", &beacon, "--json"];
    let (code, verdict) = verify(&[&[bundle.as_str()], &arguments[..]].concat());
    assert_eq!((code, failed(&verdict).as_str()), (3, "policy.network"));

    a_receipt_verifies_under_its_bundle_alone(kept, &bundle, &root);

    let bytes = std::fs::read(&bundle).expect("the bundle");
    let flipped = kept.join("flipped.cmw");
    for at in (0..bytes.len()).step_by(bytes.len() / 16) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        std::fs::write(&flipped, changed).expect("it can be written");
        let (code, verdict) = verify(&[&[text(&flipped)], &full[..]].concat());
        assert!((3..=6).contains(&code), "byte {at} flipped: exit {code}, {verdict}");
    }
}

fn a_receipt_verifies_under_its_bundle_alone(kept: &Path, bundle: &str, root: &str) {
    let check = |receipt: &Path, opening: &Path| {
        let arguments = ["verify", bundle, "--simulated-root", root, "--json"];
        let output =
            cocoon(&[&arguments[..], &["--receipt", text(receipt), "--opening", text(opening)]].concat());
        let verdict: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (output.status.code().expect("it was not killed"), verdict["receipt"].clone())
    };
    let (receipt, opening) = (kept.join("receipt.cbor"), kept.join("opening.cbor"));
    let (code, checked) = check(&receipt, &opening);
    assert_eq!(
        (code, &checked["verified"], &checked["opened"]),
        (0, &true.into(), &true.into()),
        "{checked}"
    );
    for kept_file in [&receipt, &opening] {
        let mut bytes = std::fs::read(kept_file).expect("it was kept");
        *bytes.last_mut().expect("it is not empty") ^= 1;
        let changed = kept.join("changed.cbor");
        std::fs::write(&changed, bytes).expect("it can be written");
        let (code, checked) =
            if kept_file == &receipt { check(&changed, &opening) } else { check(&receipt, &changed) };
        assert_ne!(code, 0, "{} changed: {checked}", kept_file.display());
    }
}

#[test]
fn without_a_terminal_the_screen_is_plain_and_tells_the_whole_story() {
    let keep = tempfile::tempdir().expect("a temporary folder");
    let output = demo(keep.path(), &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let screen = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(!screen.contains('\x1b'), "escape codes in a pipe");
    for word in [
        "SIMULATED",
        "Verify",
        "tdx.signature",
        "policy.rtmr3",
        "freshness",
        "TRUSTED",
        "Seal",
        "sealed",
        "Answer",
        "Receipt",
        "Pay",
        "voucher",
        "Settle",
        "client",
        "gateway",
        "operator",
        "treasury",
        "cocoon verify",
    ] {
        assert!(screen.contains(word), "{word} is missing from the screen:\n{screen}");
    }
}

#[test]
fn an_interrupted_demo_leaves_no_process_behind() {
    let keep = tempfile::tempdir().expect("a temporary folder");
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let model = tiny_model();
    let mut child = Command::new(binary("cocoon"))
        .args(["demo", "--model", text(&model), "--keep", text(keep.path())])
        .env("TMPDIR", temporary.path()) // the demo's processes are told apart by the folder they were given
        .stdout(Stdio::piped())
        .spawn()
        .expect("cocoon starts");
    let mut output = child.stdout.take().expect("it is piped");
    let mut seen = Vec::new();
    let mut piece = [0; 64];
    while !String::from_utf8_lossy(&seen).contains("evidence") {
        let read = output.read(&mut piece).expect("it can be read");
        assert!(read > 0, "it ended early: {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&piece[..read]);
    }
    assert!(!processes_of(temporary.path()).is_empty(), "the parts run in {}", temporary.path().display());
    let id = rustix::process::Pid::from_raw(child.id().try_into().expect("a process id")).expect("not zero");
    rustix::process::kill_process(id, rustix::process::Signal::INT).expect("it is ours");
    std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));

    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            break status;
        }
        assert!(Instant::now() < deadline, "it did not end");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(130));
    while !processes_of(temporary.path()).is_empty() {
        assert!(Instant::now() < deadline, "left behind: {:?}", processes_of(temporary.path()));
        std::thread::sleep(Duration::from_millis(20));
    }
    let rest: Vec<PathBuf> =
        std::fs::read_dir(temporary.path()).expect("it is there").flatten().map(|e| e.path()).collect();
    assert!(rest.is_empty(), "files left behind: {rest:?}");
}

/// Processes whose arguments or working folder name this folder.
fn processes_of(folder: &Path) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc is there").flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|id| *id != std::process::id())
        .filter(|id| {
            let arguments = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            let here = std::fs::read_link(format!("/proc/{id}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
            here || String::from_utf8_lossy(&arguments).contains(text(folder))
        })
        .collect()
}

fn unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[test]
fn mistakes_are_explained_with_a_remedy() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let empty = text(&folder.path().join("not/there/yet")).to_owned();
    let cases: &[(&[&str], i32, &str)] = &[
        (&["demo", "--model", "/nowhere/model.gguf"], 2, "no model file"),
        (&["chat", "hello", "--state", &empty], 1, "cocoon chain"),
        (&["verify", "/nowhere/bundle"], 2, "cannot read"),
        (&["verify", "/dev/null"], 5, ""),
        (&["verify", "/dev/zero"], 2, "longer than"),
        (&["verify", "/tmp"], 2, "not a file"),
        (&["verify", "/dev/null", "--allow", "everything"], 2, "everything"),
        (&["proxy", "--listen", "0.0.0.0:0"], 2, "loopback"),
    ];
    for (arguments, code, word) in cases {
        let output = cocoon(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(*code), "{arguments:?}: {said}");
        assert!(said.contains(word), "{arguments:?} does not name {word:?}: {said}");
        assert!(*code == 5 || said.contains("what to do"), "{arguments:?} gives no remedy: {said}");
    }
}
