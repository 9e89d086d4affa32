//! A guest that answers through a child: sealed prompt in, sealed answer out, the stand-in in between.

use crate::common::{Setup, header, question};
use cocoon_protocol::Outcome;
use cocoon_protocol::http::GuestState;

/// Does nothing, unless a guest of the tests below started it as its child.
#[test]
fn the_child_of_another_test() {
    if let Ok(address) = std::env::var("VLLM_STAND_IN") {
        crate::stand_in::run(&address, "honest");
    }
}

fn setup() -> Setup {
    let mut setup = Setup::new();
    let program = std::env::current_exe().expect("this program");
    setup.config += &format!(
        "[engine]\nkind = \"child\"\ndialect = \"vllm\"\naddress = \"unix:/dev/shm/child.sock\"\n\
         argv = [{:?}, \"--exact\", \"child::the_child_of_another_test\", \"--nocapture\"]\n\
         [engine.environment]\nVLLM_STAND_IN = \"/dev/shm/child.sock\"\n\
         [engine.canary]\nprompt = \"Say the same.\"\n",
        program.to_str().expect("a plain path")
    );
    setup
}

#[test]
fn a_sealed_prompt_is_answered_by_the_child_and_a_restart_calls_for_new_evidence() {
    let guest = setup().start();
    let peer = guest.trusted();
    let heard = guest.ask(&peer, &header(&peer), &question("!honest", r#","stream":true,"seed":5"#));
    assert_eq!(heard.text(), "one two three four");
    let receipt = heard.receipt().receipt();
    assert_eq!((receipt.usage.prompt_tokens, receipt.usage.completion_tokens), (7, 4));
    assert_eq!(receipt.outcome, Outcome::Stop);

    // Neither ids nor the client's secret get through.
    let salted = r#","user":"me","metadata":{"a":"b"},"cache_salt":"b25lIHNlY3JldCBvZiBtaW5l""#;
    let heard = guest.ask(&peer, &header(&peer), &question("!body", salted));
    let body =
        heard.chunks[0]["choices"][0]["message"]["content"].as_str().expect("what it was sent").to_owned();
    let sent: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(sent["cache_salt"].as_str().map(str::len), Some(64));
    for secret in ["b25lIHNl", "user\":\"me", "metadata", &hex::encode(heard.receipt().receipt().request_id)]
    {
        assert!(!body.contains(secret), "{secret}: {body}");
    }

    let heard = guest.ask(&peer, &header(&peer), &question("!crash", ""));
    assert_eq!(heard.error.as_ref().map(|(status, _)| *status), Some(502));
    guest.wait_for("unattested", |health| health.state == GuestState::Unattested);
    let (wire, _) = crate::common::sealed(&peer, &header(&peer), &question("!honest", ""));
    assert_ne!(guest.send(&wire).whole().status, 200, "sealed to evidence from before");
    let peer = guest.trusted();
    let heard = guest.ask(&peer, &header(&peer), &question("!honest", ""));
    assert!(heard.end.is_ok() && heard.error.is_none());
    let (status, log) = guest.end();
    assert!(status.success(), "{status}");
    assert!(!log.contains("something private"), "what the child writes is in the log:\n{log}");
}

#[test]
fn a_booted_image_refuses_a_child_with_words() {
    let mut setup = setup();
    let digest = ring::digest::digest(&ring::digest::SHA384, setup.config.as_bytes());
    setup.files.push(("measured", hex::encode(digest).into_bytes()));
    let mut guest = setup.launch();
    assert!(!guest.wait().success());
    let (_, log) = guest.end();
    assert!(log.contains("leave [engine] out"), "{log}");
}
