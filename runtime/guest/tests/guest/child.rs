//! A guest that answers through a child: sealed prompt in, sealed answer out, the stand-in in between.

use crate::common::{Setup, header, hear, question, sealed, tiny_model};
use cocoon_protocol::Outcome;
use cocoon_protocol::http::GuestState;

/// Does nothing, unless a guest of the tests below started it as its child.
#[test]
fn the_child_of_another_test() {
    if let Ok(address) = std::env::var("VLLM_STAND_IN") {
        crate::stand_in::run(&address, "honest");
    }
}

/// A guest with the stand-in; `counting` says who counts, `more` stands in the child's table.
fn setup_with(counting: &str, more: &str) -> Setup {
    let mut setup = Setup::new();
    let program = std::env::current_exe().expect("this program");
    let folder = program.parent().expect("a program lies in a folder");
    setup.config += &format!(
        "[engine]\nkind = \"child\"\ndialect = \"vllm\"\nprefix_cache = \"salted\"\ncounting = \"{counting}\"\n\
         address = \"unix:/dev/shm/child.sock\"\n\
         argv = [{:?}, \"--exact\", \"child::the_child_of_another_test\", \"--nocapture\"]\n{more}\
         [[engine.roots]]\npath = {:?}\n\
         [engine.environment]\nVLLM_STAND_IN = \"/dev/shm/child.sock\"\n\
         [engine.canary]\nprompt = \"Say the same.\"\n",
        program.to_str().expect("a plain path"),
        folder.to_str().expect("a plain path"),
    );
    setup
}

fn setup() -> Setup {
    setup_with("bounds", "")
}

/// What the stand-in is told where it is sent tokens, which say nothing to it.
fn commanded(command: &str, more: &str) -> String {
    question("Some words.", &format!(r#","stop":["!{command}"],"stream":true{more}"#))
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
    let usage = heard.receipt().receipt().usage;
    assert!(usage.completion_tokens <= 2, "two words came: {usage:?}");
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
fn a_child_that_is_sent_tokens_bills_what_the_guest_counts() {
    let guest = setup_with("tokens", "").start();
    let peer = guest.trusted();
    let vocabulary = cocoon_engine::Vocabulary::open(&tiny_model()).expect("a tokenizer");
    let message = cocoon_engine::ChatMessage { role: "user".into(), content: "Some words.".into() };
    let prompt = vocabulary.chat_tokens(&[message]).expect("a template").len() as u32;
    let text = "one two three four";
    let ours = vocabulary.tokenizer().encode(text, false).len() as u32;

    // Honest: four pieces, four tokens by its own count, which is fewer than ours.
    let heard = guest.ask(&peer, &header(&peer), &commanded("honest", ""));
    assert_eq!(heard.text(), text);
    let usage = heard.receipt().receipt().usage;
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (prompt, ours.min(4)));

    // Each letter sold as a token: the text is worth what the tokenizer makes of it.
    let heard = guest.ask(&peer, &header(&peer), &commanded("letters", ""));
    assert_eq!(heard.text(), text);
    let usage = heard.receipt().receipt().usage;
    assert!(usage.completion_tokens <= ours + 2 && ours + 2 < text.len() as u32, "{usage:?}, ours {ours}");

    // Fifty times as many as there are: refused, and not billed.
    let heard = guest.ask(&peer, &header(&peer), &commanded("too many", ""));
    let (status, error) = heard.error.as_ref().expect("it is refused");
    assert_eq!((*status, error["error"]["code"].as_str()), (502, Some("engine_counts")));
    let usage = heard.receipt().receipt().usage;
    assert!(usage.completion_tokens <= ours + 2, "{usage:?}");

    // Another prompt than it was sent: nothing of it is billed.
    let heard = guest.ask(&peer, &header(&peer), &commanded("another prompt", ""));
    assert_eq!(heard.error.as_ref().map(|(status, _)| *status), Some(502));
    assert_eq!(heard.receipt().receipt().usage, cocoon_protocol::Usage::default());
    assert!(guest.ask(&peer, &header(&peer), &commanded("honest", "")).error.is_none());
}

#[test]
fn what_the_child_is_not_asked_for_is_refused_by_name() {
    let guest = setup_with("tokens", "").start();
    let peer = guest.trusted();
    let long = format!("words {}", "and more words ".repeat(400));
    for (body, param, code) in [
        (question("Hi", r#","n":2"#), Some("n"), "unsupported_parameter"),
        (question("Hi", r#","logprobs":true"#), Some("logprobs"), "unsupported_parameter"),
        (
            question("Hi", r#","response_format":{"type":"json_object"}"#),
            Some("response_format"),
            "unsupported_parameter",
        ),
        (question("Hi", r#","max_tokens":0"#), Some("max_tokens"), "invalid_value"),
        (question(&long, ""), None, "context_length_exceeded"),
    ] {
        let heard = guest.ask(&peer, &header(&peer), &body);
        let (_, error) = heard.error.as_ref().unwrap_or_else(|| panic!("{body} was answered"));
        assert_eq!((error["error"]["code"].as_str(), error["error"]["param"].as_str()), (Some(code), param));
        assert_eq!(heard.receipt().receipt().usage, cocoon_protocol::Usage::default());
    }
}

/// The seconds that the stand-in takes for an answer to "slowly".
const SLOW: std::time::Duration = std::time::Duration::from_millis(1600);

#[test]
fn a_payer_with_many_questions_lets_another_have_the_next_turn() {
    let mut setup = setup();
    setup.config = setup.config.replacen("max_running = 2", "max_running = 1", 1);
    let guest = setup.start();
    let peer = guest.trusted();
    let ended = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let ask = |lane: &'static str| {
            let (guest, peer, ended) = (&guest, &peer, &ended);
            scope.spawn(move || {
                let (wire, opener) = sealed(peer, &header(peer), &question("!slowly", r#","stream":true"#));
                let reply = crate::http::send_of(&guest.socket(), lane, &wire).whole();
                assert!(hear(opener, &reply.body).error.is_none());
                ended.lock().expect("no panic").push(lane);
            });
        };
        for here in 1..=3 {
            ask("many");
            guest.wait_for("it is here", |health| health.running + health.queued >= here.min(3));
        }
        ask("one");
    });
    let ended = ended.into_inner().expect("no panic");
    assert_eq!(ended, ["many", "one", "many", "many"], "who got least comes next");
}

#[test]
fn a_payer_has_no_more_questions_here_than_it_may() {
    let guest = setup_with("bounds", "[engine.limits]\nof_payer = 1\n").start();
    let peer = guest.trusted();
    let ask = |lane: &str, text: &str| {
        let (wire, opener) = sealed(&peer, &header(&peer), &question(text, r#","stream":true"#));
        (crate::http::send_of(&guest.socket(), lane, &wire), opener)
    };
    let (first, opener) = ask("one", "!slowly");
    guest.wait_for("it runs", |health| health.running == 1);
    let (second, refused) = ask("one", "!honest");
    let error = hear(refused, &second.whole().body).error.expect("it is refused");
    assert_eq!((error.0, error.1["error"]["code"].as_str()), (503, Some("busy")));
    let (other, heard) = ask("another", "!honest");
    assert!(hear(heard, &other.whole().body).error.is_none());
    assert!(hear(opener, &first.whole().body).error.is_none());
}

#[test]
fn told_to_end_a_guest_lets_the_running_answer_end_takes_no_more_and_ends_its_child() {
    let guest = setup().start();
    let peer = guest.trusted();
    let (wire, opener) = sealed(&peer, &header(&peer), &question("!slowly", r#","stream":true"#));
    let mut running = guest.send(&wire);
    let mut body = running.chunk().expect("it begins");
    body.extend(running.chunk().expect("it is asked"));
    guest.wait_for("it runs", |health| health.running == 1);
    let since = std::time::Instant::now();
    terminate(&guest.child);
    guest.wait_for("it drains", |health| health.state == GuestState::Draining);
    let late = guest.send(&sealed(&peer, &header(&peer), &question("!honest", "")).0).whole();
    assert_eq!((late.status, late.code().as_str()), (503, "draining"));
    while let Some(chunk) = running.chunk() {
        body.extend(chunk);
    }
    let heard = hear(opener, &body);
    assert_eq!(
        (heard.text().as_str(), heard.receipt().receipt().outcome),
        ("one two three four", Outcome::Stop)
    );
    let (status, log) = guest.end();
    assert!(status.success(), "{status}: {log}");
    assert!(log.contains("process ended"), "its child was ended in order: {log}");
    assert!(since.elapsed() < SLOW + std::time::Duration::from_secs(30));
}

#[test]
fn an_answer_that_does_not_end_in_time_is_cut_with_its_receipt() {
    let guest =
        setup_with("bounds", "[engine.limits]\ndrain = 1\nfirst_piece = 60\nbetween_pieces = 60\n").start();
    let peer = guest.trusted();
    let body = question("!hang in the middle", r#","stream":true"#);
    let (wire, opener) = sealed(&peer, &header(&peer), &body);
    let mut running = guest.send(&wire);
    let mut body = running.chunk().expect("it begins");
    body.extend(running.chunk().expect("it is asked"));
    guest.wait_for("it runs", |health| health.running == 1);
    terminate(&guest.child);
    while let Some(chunk) = running.chunk() {
        body.extend(chunk);
    }
    assert_eq!(hear(opener, &body).receipt().receipt().outcome, Outcome::Cancelled);
    assert!(guest.end().0.success());
}

/// A child that is not started again takes its guest with it, and nobody's receipt.
#[test]
fn whose_answers_a_child_s_death_ends_gets_a_receipt_all_the_same() {
    let limits = "[engine.limits]\nrestarts = 0\nfirst_piece = 60\nbetween_pieces = 60\n";
    let mut guest = setup_with("bounds", limits).start();
    let peer = guest.trusted();
    let body = question("!hang in the middle", r#","stream":true"#);
    let (wire, opener) = sealed(&peer, &header(&peer), &body);
    let mut running = guest.send(&wire);
    let mut body = [running.chunk().expect("it begins"), running.chunk().expect("it is asked")].concat();
    let crashed = guest.ask(&peer, &header(&peer), &question("!crash", ""));
    assert!(crashed.error.is_some() && crashed.end.is_ok());
    while let Some(chunk) = running.chunk() {
        body.extend(chunk);
    }
    let heard = hear(opener, &body);
    assert_eq!(heard.receipt().receipt().outcome, Outcome::Error);
    assert_eq!(heard.error.as_ref().map(|(status, _)| *status), Some(502), "it is told why");
    guest.wait();
    let (status, log) = guest.end();
    assert!(!status.success() && log.contains("failed too often"), "{status}: {log}");
}

pub(crate) fn terminate(child: &std::process::Child) {
    let id = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("it is ours");
}

#[test]
fn a_program_that_was_changed_is_not_started() {
    let mut setup = setup();
    let folder = env!("CARGO_MANIFEST_DIR"); // small, and more than nothing
    let pinned = format!(
        "[[engine.roots]]\npath = {folder:?}\nsha256 = \"{}\"\n[engine.environment]",
        "ab".repeat(32)
    );
    setup.config = setup.config.replacen("[engine.environment]", &pinned, 1);
    let mut guest = setup.launch();
    assert!(!guest.wait().success());
    let (_, log) = guest.end();
    assert!(log.contains("engine.roots says another"), "{log}");
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
