//! What a guest refuses, and what is refused of a changed guest: each names the cause.

use crate::common::{Running, Setup, config, header, hear, question, sealed};
use cocoon_attestation::Statement;
use cocoon_attestation::statement::digest;
use cocoon_protocol::http::SEALED;
use cocoon_protocol::{Budget, MAX_REQUEST, Outcome, RequestHeader};
use std::os::unix::fs::PermissionsExt;

/// What an auditor of the honest files says of a changed guest.
fn named(changed: Setup) -> Vec<&'static str> {
    let honest = Setup::new().predicted();
    let guest = changed.start();
    let bundle = guest.bundle(7, None);
    let refusal = guest.judge(bundle, honest).expect_err("a changed guest is not trusted");
    refusal.failed().collect()
}

#[test]
fn a_changed_configuration_is_refused_by_its_register() {
    let mut setup = Setup::new();
    setup.config.push_str("# one byte more\n");
    assert_eq!(named(setup), ["policy.rtmr3"]);
}

#[test]
fn a_changed_binary_is_refused_by_its_register() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("guest");
    let mut bytes = std::fs::read(crate::common::binary()).expect("it was built");
    bytes.push(0); // behind the sections: it still runs
    std::fs::write(&path, bytes).expect("it is ours");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    assert_eq!(named(Setup { binary: path, ..Setup::new() }), ["policy.mrtd"]);
}

#[test]
fn a_changed_model_is_refused_by_its_register() {
    // Trailing bytes that the engine has no tensor for would be refused by it; so a weight is changed.
    let mut model = Setup::new().model;
    let last = model.len() - 1;
    model[last] ^= 1;
    let changed = Setup { config: config(2, 4, &crate::common::sha256(&model)), model, ..Setup::new() };
    let failed = named(changed);
    assert_eq!(failed, ["policy.rtmr3"]);
}

fn fails_to_start(setup: Setup) -> String {
    let mut guest = setup.launch();
    assert!(!guest.wait().success());
    guest.end().1
}

#[test]
fn a_model_that_was_cut_short_or_changed_is_not_loaded() {
    let whole = Setup::new().model;
    for length in [0, 1, whole.len() / 2, whole.len() - 1] {
        let model = whole[..length].to_vec();
        let log = fails_to_start(Setup { model, ..Setup::new() });
        assert!(log.contains("model.gguf has SHA-256") && log.contains("cut short"), "{log}");
    }
    // With a digest that is right and a file that lies about its sizes, the engine refuses.
    let cut = whole[..whole.len() / 2].to_vec();
    let setup = Setup { config: config(2, 4, &crate::common::sha256(&cut)), model: cut, ..Setup::new() };
    let log = fails_to_start(setup);
    assert!(log.contains("model.gguf") && !log.contains("panic"), "{log}");
}

#[test]
fn unmeasured_inputs_and_unknown_settings_are_refused() {
    let log = fails_to_start(Setup { arguments: vec!["--debug"], ..Setup::new() });
    assert!(log.contains("command line"), "{log}");
    let log = fails_to_start(Setup { environment: vec![("RUST_LOG", "trace")], ..Setup::new() });
    assert!(log.contains("environment") && log.contains("RUST_LOG"), "{log}");
    let mut setup = Setup::new();
    setup.config.insert_str(0, "debug = true\n");
    let log = fails_to_start(setup);
    assert!(log.contains("config.toml") && log.contains("debug"), "{log}");
}

fn code(guest: &Running, wire: &[u8]) -> (u16, String) {
    let reply = guest.send(wire).whole();
    (reply.status, reply.code())
}

#[test]
fn requests_that_do_not_open_are_refused_and_say_why() {
    let guest = Setup::new().start();
    let peer = guest.trusted();
    let body = question("Hi", r#","max_tokens":2"#);
    let (wire, _) = sealed(&peer, &header(&peer), &body);
    let refused = |status: u16, code: &str| (status, code.to_owned());

    assert_eq!(code(&guest, b""), refused(400, "malformed"));
    assert_eq!(code(&guest, &[0; 100]), refused(400, "malformed"));
    for length in (0..wire.len()).step_by(97) {
        assert_eq!(code(&guest, &wire[..length]), refused(400, "malformed"), "cut at {length}");
    }
    for at in (200..wire.len()).step_by(53) {
        let mut changed = wire.clone();
        changed[at] ^= 4;
        let (status, code) = code(&guest, &changed);
        assert!(status == 400 && code != "replayed", "byte {at}: {status} {code}");
    }
    let mut long = wire.clone();
    long[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(code(&guest, &long), refused(400, "too_large"));
    assert_eq!(code(&guest, &vec![0; MAX_REQUEST + 1]), refused(413, "too_large"));

    // Untouched, it still opens: once.
    assert_eq!(guest.send(&wire).whole().status, 200);
    assert_eq!(code(&guest, &wire), refused(400, "replayed"));

    // Sealed to the same key under a statement that was pushed out by newer ones.
    let (old, _) = sealed(&peer, &header(&peer), &body);
    for seqno in 8..40 {
        guest.bundle(seqno, None);
    }
    assert_eq!(code(&guest, &old), refused(400, "stale_statement"));
    assert_eq!(guest.get("/v1/nowhere").code(), "not_found");
}

#[test]
fn a_request_to_another_guest_is_stale_here() {
    let (one, other) = (Setup::new().start(), Setup::new().start());
    let peer = one.trusted();
    other.trusted();
    let (wire, _) = sealed(&peer, &header(&peer), &question("Hi", ""));
    assert_eq!(code(&other, &wire), (400, "stale_statement".to_owned()));
}

#[test]
fn bad_attestation_requests_are_refused() {
    let guest = Setup::new().start();
    for body in [
        "",
        "{}",
        r#"{"seqno":1,"root_hash":"00"}"#,
        r#"{"seqno":-1,"root_hash":"","nonce":null}"#,
        &format!(r#"{{"seqno":1,"root_hash":"{}","nonce":"zz"}}"#, "ab".repeat(32)),
        &format!(r#"{{"seqno":1,"root_hash":"{}","nonce":null,"debug":true}}"#, "ab".repeat(32)),
    ] {
        let reply = guest.post("/v1/attest", "application/json", body.as_bytes());
        assert_eq!((reply.status, reply.code().as_str()), (400, "malformed"), "{body}");
    }
    let reply = guest.post("/v1/attest", "application/json", &[b' '; 5000]);
    assert_eq!((reply.status, reply.code().as_str()), (413, "too_large"));
    // Without a bundle there is no statement that a request could name.
    let (other, (wire, _)) = {
        let other = Setup::new().start();
        let peer = other.trusted();
        let sealed = sealed(&peer, &header(&peer), &question("Hi", ""));
        (other, sealed)
    };
    drop(other);
    assert_eq!(code(&guest, &wire).1, "stale_statement");
}

/// A host may ask for as many statements as it likes, and so have the guest forget which requests it took under one.
#[test]
fn no_statement_is_issued_twice_so_no_request_is_answered_twice() {
    let guest = Setup::new().start();
    let peer = guest.trusted();
    let (wire, opener) = sealed(&peer, &header(&peer), &question("Hi", r#","max_tokens":2"#));
    assert!(hear(opener, &guest.send(&wire).whole().body).end.is_ok());
    assert_eq!(code(&guest, &wire).1, "replayed");
    let serials: Vec<u64> = (0..40)
        .map(|nonce| {
            let bundle = guest.bundle(7, Some([nonce; 32]));
            Statement::decode(&bundle.statement).expect("a statement").freshness.serial
        })
        .collect();
    assert_eq!(serials, (1..=40).collect::<Vec<_>>());
    assert_eq!(code(&guest, &wire).1, "stale_statement", "its statement is forgotten");
    // The very request for evidence that the first statement came from.
    let again = guest.bundle(7, None);
    assert_ne!(digest(&again.statement), peer.statement_digest());
    assert_eq!(code(&guest, &wire).1, "stale_statement", "and stays forgotten");
}

#[test]
fn refusals_of_content_are_sealed_and_cost_nothing() {
    let guest = Setup::new().start();
    let peer = guest.trusted();
    let long = question(&"list ".repeat(600), "");
    let medium = question(&"list ".repeat(30), "");
    let tight = Budget { prompt_tokens: 5, completion_tokens: 5 };
    let cases = [
        (header(&peer), "not json".to_owned(), "invalid_json"),
        (header(&peer), question("Hi", r#","n":17"#), "invalid_value"),
        (header(&peer), question("Hi", r#","functions":[{}]"#), "unsupported_parameter"),
        (header(&peer), long, "context_length_exceeded"),
        (RequestHeader { budget: tight, ..header(&peer) }, medium, "budget_exceeded"),
    ];
    for (header, body, code) in cases {
        let heard = guest.ask(&peer, &header, &body);
        let (status, error) = heard.error.as_ref().expect("a sealed error");
        assert_eq!((*status, error["error"]["code"].as_str()), (400, Some(code)));
        let receipt = heard.receipt().receipt();
        assert_eq!((receipt.outcome, receipt.bill()), (Outcome::Error, 0), "{code}");
        assert!(heard.chunks.is_empty());
    }
    let reply = guest.send(&sealed(&peer, &header(&peer), "not json").0).whole();
    assert!(!reply.text().contains("invalid_json"), "the error is readable on the wire");
    assert_eq!((reply.status, reply.kind.as_str()), (200, SEALED));
}
