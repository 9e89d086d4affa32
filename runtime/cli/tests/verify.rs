//! `cocoon verify` as a process: every kind of input, every exit code, text and JSON.

mod common;

use common::{Guest, case_arguments, cocoon, cocoon_with, exit, stderr, stdout, text, verify};
use serde_json::Value;

fn strs(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

fn refused_by(verdict: &Value) -> &str {
    verdict["refusal"]["check"].as_str().unwrap_or_default()
}

#[test]
fn every_real_case_gets_its_verdict() {
    let Some(vectors) = common::vectors() else { return };
    let mut wrong = Vec::new();
    let cases = common::cases(&vectors);
    for case in &cases {
        let id = case["id"].as_str().expect("a name");
        let (code, verdict) = verify(&strs(&case_arguments(&vectors, case)));
        let as_expected = match case["expect"].as_str() {
            Some("genuine") => code == 0 && verdict["verdict"] == "genuine",
            Some("refused") => (3..=6).contains(&code) && !refused_by(&verdict).is_empty(),
            other => panic!("{id}: {other:?}"),
        };
        let empty = serde_json::Map::new();
        let wanted = case["checks"].as_object().unwrap_or(&empty);
        let checked = wanted.iter().all(|(id, status)| {
            let list = verdict["checks"].as_array().expect("a list");
            list.iter().any(|check| check["id"] == **id && check["status"] == *status)
        });
        if !as_expected || !checked {
            wrong.push(format!("{id}: exit {code}, {verdict}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(cases.len() > 40, "{} cases", cases.len());
}

#[test]
fn each_exit_code_says_one_thing() {
    let guest = Guest::new();
    let bundle = guest.file("bundle.cmw");
    let mut forged = guest.quote();
    forged[200] ^= 1; // in MRTD
    let forged = guest.write("forged.bin", &forged);
    let quote = guest.file("quote.bin");
    let collateral = guest.file("collateral.json");
    let other = "11".repeat(64);
    let (at, trusting) = (guest.at(), guest.trusting());
    let with = |evidence: &str, more: &[&str]| [&[evidence], &strs(&at)[..], more].concat().join("\n");
    for (code, word, arguments) in [
        (0, "trusted", [&[bundle.as_str()], &strs(&trusting)[..]].concat().join("\n")),
        (0, "genuine", with(&bundle, &[])),
        (0, "genuine", with(&quote, &["--endorsements", &collateral])),
        (3, "rejected", with(&bundle, &["--report-data", &other])),
        (4, "unverified", with(&forged, &["--endorsements", &collateral])),
        (5, "malformed", with(&guest.write("garbage", b"nothing known"), &[])),
        (6, "unavailable", with(&quote, &[])),
    ] {
        let (got, verdict) = verify(&arguments.split('\n').collect::<Vec<_>>());
        assert_eq!((got, verdict["verdict"].as_str()), (code, Some(word)), "{arguments}\n{verdict}");
        assert_eq!(verdict["refusal"].is_null(), code == 0, "{verdict}");
    }
    assert_eq!(exit(&cocoon(&["verify", &bundle, "--html", "/nowhere/page.html"])), 1, "our own fault");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_cocoon"))
        .args(["verify", &bundle, "--json"])
        .stdout(full)
        .stderr(std::process::Stdio::null())
        .status();
    assert_eq!(status.expect("it ran").code(), Some(1), "a full disk");
}

#[test]
fn mistakes_in_usage_are_told_from_verdicts() {
    let guest = Guest::new();
    let (bundle, quote) = (guest.file("bundle.cmw"), guest.file("quote.bin"));
    let fifo = guest.file("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo runs").success());
    let policy = guest.file("policy.toml");
    let nonce = "09".repeat(32);
    for (arguments, told) in [
        (vec!["/nowhere"], "cannot read"),
        (vec!["/dev/zero"], "longer than"),
        (vec!["/tmp"], "not a file"),
        (vec![&fifo], "not a file"),
        (vec![&bundle, "--endorsements", "/nowhere"], "cannot read"),
        (vec![&bundle, "--endorsements", "/dev/zero"], "longer than"),
        (vec![&bundle, "--endorsements", &fifo], "not a file"),
        (vec![&bundle, "--allow", "everything"], "everything"),
        (vec![&bundle, "--allow", "tcb:OutOfDate@someday"], "someday"),
        (vec![&bundle, "--nonce", "12"], "64 hex digits"),
        (vec![&bundle, "--nonce", &nonce], "--policy"),
        (vec![&quote, "--nonce", &nonce], "--report-data"),
        (vec![&bundle, "--at", "noon"], "Unix seconds"),
        (vec![&bundle, "--policy", &bundle], "not UTF-8"),
        (vec![&bundle, "--policy", &guest.file("beacon.json")], "beacon.json"),
        (vec![&bundle, "--release", &policy], "--policy"),
        (vec![&bundle, "--policy", &policy, "--release", &policy], "policy.toml"),
        (vec![&bundle, "--simulated-root", &bundle], "DER"),
        (vec![&bundle, "--beacon", &bundle], "--policy"),
        (vec![], "EVIDENCE"),
    ] {
        let output = cocoon(&[&["verify"], &arguments[..]].concat());
        assert_eq!(exit(&output), 2, "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(told), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}

#[test]
fn garbage_gets_a_verdict_with_its_place() {
    let guest = Guest::new();
    let cut = guest.write("cut.bin", &guest.quote()[..700]);
    for (name, bytes) in [("empty", &b""[..]), ("text", b"hello"), ("json", b"{}"), ("zero", &[0; 1184])] {
        let (code, verdict) = verify(&[&guest.write(name, bytes)]);
        assert_eq!((code, verdict["verdict"].as_str()), (5, Some("malformed")), "{name}: {verdict}");
    }
    let (code, verdict) = verify(&[&cut]);
    let found = verdict["refusal"]["got"].as_str().expect("what was found");
    assert!(code == 5 && found.contains("at byte") && found.contains("signature data"), "{verdict}");
}

#[test]
fn an_endorsement_of_no_known_form_is_named() {
    let guest = Guest::new();
    let bundle = guest.file("bundle.cmw");
    let mut der = guest.root.root_der().to_vec();
    der[40] ^= 0x20;
    der.truncate(200);
    for (name, bytes) in [("notes.txt", &b"hello"[..]), ("broken.der", &der)] {
        let file = guest.write(name, bytes);
        let (code, verdict) = verify(&[&bundle, "--endorsements", &file]);
        assert_eq!((code, refused_by(&verdict)), (5, "endorsements.form"), "{verdict}");
        let found = verdict["refusal"]["got"].as_str().expect("what was found");
        assert!(found.contains(name) && found.contains("at byte") && found.contains('('), "{found}");
    }
}

#[test]
fn hex_and_standard_input_are_the_same_evidence() {
    let guest = Guest::new();
    let collateral = guest.file("collateral.json");
    let at = guest.at();
    let more = [&["--endorsements", &collateral], &strs(&at)[..]].concat();
    let (code, expected) = verify(&[&[guest.file("quote.bin").as_str()], &more[..]].concat());
    assert_eq!(code, 0);
    let digits = hex::encode(guest.quote());
    let lines: Vec<&str> =
        (0..digits.len()).step_by(64).map(|at| &digits[at..(at + 64).min(digits.len())]).collect();
    let hex = guest.write("quote.hex", format!(" {}\r\n", lines.join("\n")).as_bytes());
    assert_eq!(verify(&[&[hex.as_str()], &more[..]].concat()), (0, expected.clone()));
    let upper = guest.write("upper.hex", digits.to_uppercase().as_bytes());
    assert_eq!(verify(&[&[upper.as_str()], &more[..]].concat()), (0, expected.clone()));
    for input in [guest.quote(), digits.into_bytes()] {
        let output = cocoon_with(&[&["verify", "--json", "-"], &more[..]].concat(), input);
        let verdict: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!((exit(&output), verdict), (0, expected.clone()));
    }
    let output = cocoon_with(&["verify", "-"], vec![b'x'; 5 << 20]);
    assert_eq!(exit(&output), 2, "more than any evidence");
}

#[test]
fn the_order_of_endorsements_means_nothing() {
    let Some(vectors) = common::vectors() else { return };
    for case in common::cases(&vectors) {
        let names = case["endorsements"].as_array().expect("a list");
        if names.len() < 2 {
            continue;
        }
        let mut turned = case.clone();
        turned["endorsements"].as_array_mut().expect("a list").reverse();
        let [first, second] = [&case, &turned].map(|case| verify(&strs(&case_arguments(&vectors, case))));
        assert_eq!(first, second, "{}", case["id"]);
        let guest = tempfile::tempdir().expect("a folder");
        for (at, name) in names.iter().enumerate() {
            let name = name.as_str().expect("a name");
            std::fs::copy(vectors.join(name), guest.path().join(format!("{at}"))).expect("it can be copied");
        }
        let evidence = text(&vectors.join(case["evidence"].as_str().expect("a name"))).to_owned();
        let at = case["at"].to_string();
        let folder = verify(&[&evidence, "--at", &at, "--endorsements", text(guest.path())]);
        assert_eq!(first, folder, "a folder of the same files: {}", case["id"]);
    }
}

#[test]
fn the_json_has_its_fields_in_their_order() {
    let guest = Guest::new();
    let bundle = guest.file("bundle.cmw");
    let trusting = guest.trusting();
    let arguments = ["verify", "--json", &bundle, "--allow", "tcb:OutOfDate@2026-12-31", "--report-data"];
    let other = "00".repeat(64);
    let output = cocoon(&[&arguments[..], &[&other], &strs(&trusting)].concat());
    let json = stdout(&output);
    let place =
        |name: &str| json.find(&format!("\n  \"{name}\"")).unwrap_or_else(|| panic!("no {name} in {json}"));
    let places = ["verdict", "platform", "simulated", "exceptions", "checks", "refusal"].map(place);
    assert!(places.is_sorted(), "{json}");
    let verdict: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(verdict["exceptions"], serde_json::json!(["tcb:OutOfDate@2026-12-31"]));
    assert_eq!((verdict["platform"].as_str(), verdict["simulated"].as_bool()), (Some("tdx"), Some(true)));
    for check in verdict["checks"].as_array().expect("a list") {
        let fields: Vec<&String> = check.as_object().expect("an object").keys().collect();
        assert_eq!(fields.len(), 5, "{check}");
        assert!(["pass", "fail", "skip"].contains(&check["status"].as_str().expect("a word")), "{check}");
    }
}

#[test]
fn a_nonce_is_compared_with_the_statement() {
    let guest = Guest::new();
    let bundle = guest.file("bundle.cmw");
    let trusting = guest.trusting();
    let (right, wrong) = ("09".repeat(32), "0a".repeat(32));
    let (code, verdict) = verify(&[&[bundle.as_str(), "--nonce", &right], &strs(&trusting)[..]].concat());
    assert_eq!((code, verdict["verdict"].as_str()), (0, Some("trusted")), "{verdict}");
    let (code, verdict) = verify(&[&[bundle.as_str(), "--nonce", &wrong], &strs(&trusting)[..]].concat());
    assert_eq!((code, refused_by(&verdict)), (3, "freshness"), "{verdict}");
}

#[test]
fn a_nonce_is_compared_with_raw_gpu_evidence() {
    let Some(vectors) = common::vectors() else { return };
    let case = common::cases(&vectors)
        .into_iter()
        .find(|case| case["id"] == "gpu-multi-8-ppcie")
        .expect("it is there");
    let arguments = case_arguments(&vectors, &case);
    let (_, verdict) = verify(&strs(&arguments));
    let check = verdict["checks"].as_array().expect("a list").iter().find(|check| check["id"] == "gpu.nonce");
    let own = check.expect("it is made")["got"]
        .as_str()
        .expect("text")
        .rsplit(' ')
        .next()
        .expect("a nonce")
        .to_owned();
    assert_eq!(verify(&[&strs(&arguments)[..], &["--nonce", &own]].concat()).0, 0);
    let (code, verdict) = verify(&[&strs(&arguments)[..], &["--nonce", &"00".repeat(32)]].concat());
    assert_ne!(code, 0);
    assert_eq!(refused_by(&verdict), "gpu.nonce");
}

#[test]
fn of_several_policies_the_strictest_wins() {
    let guest = Guest::new();
    let bundle = guest.file("bundle.cmw");
    let trusting = guest.trusting();
    let mut strict = guest.policy(&common::registers());
    strict.max_age_seconds = 10; // the beacon is a minute old
    let strict = guest.write("strict.toml", strict.to_toml().as_bytes());
    let same = guest.file("policy.toml");
    let (code, _) = verify(&[&[bundle.as_str(), "--policy", &same], &strs(&trusting)[..]].concat());
    assert_eq!(code, 0, "the same twice");
    for order in [["--policy", &strict].to_vec(), vec![]] {
        let mut arguments = [&[bundle.as_str()][..], &order, &strs(&trusting)].concat();
        if order.is_empty() {
            arguments.extend(["--policy", &strict]);
        }
        let (code, verdict) = verify(&arguments);
        assert_eq!((code, refused_by(&verdict)), (3, "freshness"), "{verdict}");
    }
}

#[test]
fn a_release_accepts_its_images_alone() {
    let guest = Guest::new();
    let bundle = guest.file("bundle.cmw");
    let trusting = guest.trusting();
    let release = |name: &str, mrtd: [u8; 48]| {
        let registers = cocoon_attestation::Measurements { mrtd, ..common::registers() };
        let image = cocoon_attestation::ImageReference::on_tdx(
            "guest 0.1.0",
            Some(common::CONFIGURATION),
            &registers,
        );
        let release = cocoon_attestation::Release { name: "release 0.1".into(), images: vec![image] };
        guest.write(name, toml::to_string(&release).expect("it is TOML").as_bytes())
    };
    let (good, other) = (release("good.toml", [0xa0; 48]), release("other.toml", [0xa1; 48]));
    let (code, verdict) = verify(&[&[bundle.as_str(), "--release", &good], &strs(&trusting)[..]].concat());
    assert_eq!((code, verdict["verdict"].as_str()), (0, Some("trusted")), "{verdict}");
    let (code, verdict) = verify(&[&[bundle.as_str(), "--release", &other], &strs(&trusting)[..]].concat());
    assert_eq!((code, refused_by(&verdict)), (3, "policy.mrtd"), "{verdict}");
    let expected = verdict["refusal"]["expected"].as_str().expect("text");
    assert!(expected.contains("release 0.1"), "whose expectation it was: {expected}");
}
