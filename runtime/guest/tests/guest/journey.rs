//! The honest way: evidence, sealed prompt, answer, receipt.

use crate::common::{Setup, header, question};
use cocoon_protocol::http::GuestState;
use cocoon_protocol::{Budget, Outcome, Price, RequestHeader};

#[test]
fn a_guest_attests_answers_and_signs() {
    let guest = Setup::new().start();
    assert_eq!(guest.health().state, GuestState::Unattested);
    let peer = guest.trusted();
    assert!(peer.simulated());
    assert_eq!(guest.health().state, GuestState::Ready);
    assert_eq!(guest.registers(), guest.setup.predicted());
    assert_eq!(peer.statement().configuration, crate::common::sha256(guest.setup.config.as_bytes()));

    let header = header(&peer);
    let body =
        question("What is a list?", r#","stream":true,"stream_options":{"include_usage":true},"seed":5"#);
    let heard = guest.ask(&peer, &header, &body);
    let first = &heard.chunks[0];
    assert_eq!(first["object"], "chat.completion.chunk");
    assert_eq!(first["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(first["id"], format!("chatcmpl-{}", hex::encode(header.request_id)));
    assert_eq!(first["model"], "tiny");
    assert!(first["system_fingerprint"].as_str().is_some_and(|it| it.starts_with("fp_") && it.len() == 13));
    assert!(!heard.text().is_empty());
    let [.., last, usage] = heard.chunks.as_slice() else { panic!("at least a last and a usage chunk") };
    let reason = last["choices"][0]["finish_reason"].as_str().expect("the last chunk says why");
    assert!(["stop", "length"].contains(&reason));

    let receipt = heard.receipt().receipt();
    assert_eq!(usage["usage"]["prompt_tokens"], receipt.usage.prompt_tokens);
    assert_eq!(usage["usage"]["completion_tokens"], receipt.usage.completion_tokens);
    assert_eq!((receipt.statement, receipt.model), (peer.statement_digest(), guest.setup.weights()));
    assert!(matches!(receipt.outcome, Outcome::Stop | Outcome::Length));
    let run = heard.receipt().opening().run.as_ref().expect("an engine of ours answered");
    assert_eq!(run.sampling.seed, 5);
    assert_eq!(
        (run.prompt.len(), run.completion_tokens()),
        (receipt.usage.prompt_tokens as usize, receipt.usage.completion_tokens as usize)
    );
    assert_eq!(run.written[0].outcome, receipt.outcome);
    assert_eq!(receipt.engine.digest, cocoon_engine::Identity::current().digest);
    // The prompt was announced before it was read.
    assert_eq!(
        (heard.ticks[0].prompt_tokens, heard.ticks[0].completion_tokens),
        (receipt.usage.prompt_tokens, 0)
    );
}

#[test]
fn one_seed_gives_one_text_streamed_or_whole() {
    let guest = Setup::new().start();
    let peer = guest.trusted();
    let ask = |more: &str| {
        let body = question("Write about the import statement.", &format!(r#","max_tokens":40,{more}"#));
        guest.ask(&peer, &header(&peer), &body)
    };
    let first = ask(r#""stream":true,"seed":7,"temperature":0.7"#);
    let second = ask(r#""stream":true,"seed":7,"temperature":0.7"#);
    assert_eq!(first.text(), second.text());
    let whole = ask(r#""seed":7,"temperature":0.7"#);
    let [object] = whole.chunks.as_slice() else { panic!("one object") };
    assert_eq!(object["object"], "chat.completion");
    assert_eq!(object["choices"][0]["message"]["content"], first.text());
    assert_eq!(object["usage"]["total_tokens"], {
        let usage = whole.receipt().receipt().usage;
        usage.prompt_tokens + usage.completion_tokens
    });
    // Nothing was said meanwhile, but the usage was shown.
    assert!(whole.ticks.len() >= 2, "{:?}", whole.ticks);
    let other = ask(r#""stream":true,"seed":8,"temperature":0.7"#);
    assert_ne!(first.text(), other.text(), "another seed");
    // Replays exactly from the receipt's opening.
    let sampling = ask(r#""stream":true,"temperature":0.7"#);
    let seed = sampling.receipt().opening().run.as_ref().expect("it ran").sampling.seed;
    assert_eq!(ask(&format!(r#""stream":true,"seed":{seed},"temperature":0.7"#)).text(), sampling.text());
}

#[test]
fn a_prompt_that_begins_as_one_before_is_cheaper_for_who_asked_before() {
    let guest = Setup::new().start();
    let peer = guest.trusted();
    let price = Price::new(4_000_000, 1_000_000, 9_000_000);
    let ask = |more: &str| {
        let text = "Write about the list, the tuple and the set, and about what their methods return.";
        let body = question(text, &format!(r#","max_tokens":5,"seed":3{more}"#));
        let heard = guest.ask(&peer, &RequestHeader { price, ..header(&peer) }, &body);
        let receipt = heard.receipt().receipt().clone();
        let [object] = heard.chunks.as_slice() else { panic!("one object") };
        let told = &object["usage"]["prompt_tokens_details"]["cached_tokens"];
        assert_eq!(told, receipt.usage.cached_tokens);
        assert_eq!(
            heard.ticks[0].cached_tokens, receipt.usage.cached_tokens,
            "told before anything is computed"
        );
        (object["choices"].clone(), receipt.usage, receipt.bill())
    };
    let (mine, yours) =
        (r#","cache_salt":"b25lIHNlY3JldCBvZiBtaW5l""#, r#","cache_salt":"YW5vdGhlciBvZiB5b3VycyE""#);
    let (first, usage, bill) = ask(mine);
    assert_eq!(usage.cached_tokens, 0);
    let (again, usage_again, bill_again) = ask(mine);
    let cached = (usage.prompt_tokens - 1) / 16 * 16;
    assert!(cached >= 16, "{usage:?}");
    assert_eq!((usage_again.cached_tokens, usage_again.prompt_tokens), (cached, usage.prompt_tokens));
    assert_eq!(bill - bill_again, u64::from(cached) * 3, "four nanotons less one for each");
    assert_eq!(first, again, "the same answer");
    for other in [yours, "", ""] {
        let (choices, usage, _) = ask(other);
        assert_eq!((choices, usage.cached_tokens), (first.clone(), 0), "nobody else's cache is met");
    }
}

#[test]
fn limits_and_stop_strings_end_an_answer() {
    let guest = Setup::new().start();
    let peer = guest.trusted();
    let long = |more: &str| question("Write about classes.", &format!(r#","stream":true,"seed":3{more}"#));
    let heard = guest.ask(&peer, &header(&peer), &long(r#","max_tokens":9"#));
    assert_eq!(heard.receipt().receipt().usage.completion_tokens, 9);
    assert_eq!(heard.receipt().receipt().outcome, Outcome::Length);

    // The budget is a limit too, where the request sets none.
    let small = Budget { prompt_tokens: 400, completion_tokens: 6 };
    let heard = guest.ask(&peer, &RequestHeader { budget: small, ..header(&peer) }, &long(""));
    assert_eq!(heard.receipt().receipt().usage.completion_tokens, 6);

    let full = guest.ask(&peer, &header(&peer), &long(r#","max_tokens":40"#)).text();
    let stop: String = full.chars().skip(10).take(4).collect();
    let stopped = serde_json::to_string(&stop).expect("a string");
    let heard =
        guest.ask(&peer, &header(&peer), &long(&format!(r#","max_tokens":40,"stop":[{stopped},"\u0000x"]"#)));
    assert_eq!(heard.text(), full[..full.find(&stop).expect("it is in there")]);
    assert_eq!(heard.receipt().receipt().outcome, Outcome::Stop);
}

#[test]
fn a_second_bundle_has_new_freshness_and_the_same_keys() {
    let guest = Setup::new().start();
    let (first, second) = (guest.bundle(7, None), guest.bundle(8, Some([9; 32])));
    let decode = |bundle: &cocoon_attestation::Bundle| {
        cocoon_attestation::Statement::decode(&bundle.statement).expect("a statement")
    };
    let (old, new) = (decode(&first), decode(&second));
    assert_eq!(old.keys, new.keys);
    assert_eq!((old.freshness.beacon.seqno, new.freshness.beacon.seqno), (7, 8));
    assert_eq!((old.freshness.nonce, new.freshness.nonce), (None, Some([9; 32])));
    // Requests under either are answered.
    for bundle in [first, second] {
        let peer = guest.judge(bundle, guest.setup.predicted()).expect("trusted");
        let heard = guest.ask(&peer, &header(&peer), &question("Hi", r#","max_tokens":2"#));
        assert!(heard.end.is_ok());
    }
}

#[test]
fn the_log_counts_and_says_nothing() {
    let guest = Setup::new().start();
    let peer = guest.trusted();
    let secret = "xyzzyplugh the private question";
    let heard =
        guest.ask(&peer, &header(&peer), &question(secret, r#","stream":true,"max_tokens":20,"seed":1"#));
    let refused = guest.ask(&peer, &header(&peer), r#"{"messages":"xyzzyplugh as no list"}"#);
    assert!(refused.error.is_some());
    let text = heard.text();
    guest.wait_for("idle", |health| health.running == 0); // it counts after the last frame
    let (status, log) = guest.end();
    assert!(status.success(), "{status}");
    let tokens = heard.receipt().receipt().usage.completion_tokens;
    assert!(log.contains(&format!("completion_tokens={tokens}")), "it counts:\n{log}");
    assert!(log.contains("SIMULATED"), "{log}");
    assert!(!log.contains("xyzzyplugh") && !log.contains("private"), "the prompt is in the log:\n{log}");
    assert!(text.len() > 8 && !log.contains(text.trim()), "the answer is in the log:\n{log}");
}
