//! Many requests, readers that leave or do not read, and the end.

use crate::common::{Setup, config, header, hear, question, sealed};
use crate::http;
use cocoon_protocol::http::GuestState;
use cocoon_protocol::{Meter, Outcome};
use rustix::process::{Pid, Signal, kill_process};
use std::time::{Duration, Instant};

/// As long an answer as the tiny model gives: its end token is not chosen at this temperature before the limit.
fn long(seed: u32) -> String {
    question("Write about everything.", &format!(r#","stream":true,"temperature":2,"seed":{seed}"#))
}

#[test]
fn beyond_its_queue_a_guest_says_busy_and_recovers() {
    let setup = Setup::new();
    let config = config(1, 1, &setup.weights());
    let guest = Setup { config, ..setup }.start();
    let peer = guest.trusted();
    let body = question("Hi", r#","max_tokens":2"#);
    // A place is taken when a request begins to arrive: two that do not go on fill a queue of one and one.
    let begun: Vec<_> = (0..2)
        .map(|_| {
            let (wire, opener) = sealed(&peer, &header(&peer), &body);
            (http::begin(&guest.socket(), "/v1/answers", &wire), wire, opener)
        })
        .collect();
    guest.wait_for("two are here", |health| health.running + health.queued == 2);
    let (third, opener) = sealed(&peer, &header(&peer), &body);
    let refused = guest.send(&third).whole();
    assert_eq!((refused.status, refused.code().as_str()), (503, "busy"));
    for (stream, wire, opener) in begun {
        let reply = http::go_on(stream, &wire).whole();
        assert_eq!(reply.status, 200);
        assert!(hear(opener, &reply.body).end.is_ok());
    }
    guest.wait_for("idle", |health| (health.running, health.queued) == (0, 0));
    // What was refused was not taken: the same bytes may come again.
    assert!(hear(opener, &guest.send(&third).whole().body).end.is_ok());
}

#[test]
fn answers_run_at_the_same_time_and_stay_apart() {
    let guest = Setup::new().start();
    let peer = guest.trusted();
    let texts: Vec<(String, String)> = std::thread::scope(|scope| {
        let ask = |seed: usize| {
            let (guest, peer) = (&guest, &peer);
            scope.spawn(move || {
                let body = question(
                    "Write about lists.",
                    &format!(r#","stream":true,"max_tokens":60,"seed":{}"#, seed % 3),
                );
                guest.ask(peer, &header(peer), &body).text()
            })
        };
        let threads: Vec<_> = (0..6).map(ask).collect();
        let texts: Vec<String> = threads.into_iter().map(|thread| thread.join().expect("answered")).collect();
        (0..3).map(|seed| (texts[seed].clone(), texts[seed + 3].clone())).collect()
    });
    for (one, same) in &texts {
        assert_eq!(one, same, "one seed, one text, whatever runs beside it");
    }
    assert_ne!(texts[0].0, texts[1].0);
}

#[test]
fn a_client_that_leaves_cancels_its_answer() {
    let guest = Setup::new().start();
    let peer = guest.trusted();
    for seed in 0..16 {
        let mut stream = guest.send(&sealed(&peer, &header(&peer), &long(seed)).0);
        assert_eq!(stream.status, 200);
        assert!(stream.chunk().is_some());
        drop(stream);
        guest.wait_for("idle", |health| (health.running, health.queued) == (0, 0));
    }
    let heard = guest.ask(&peer, &header(&peer), &question("Hi", r#","max_tokens":2"#));
    assert!(heard.end.is_ok());
    let (_, log) = guest.end();
    // An answer may be done before its reader is seen to leave; sixteen are not.
    assert!(log.contains("outcome=Cancelled"), "{log}");
}

#[test]
fn usage_grows_frame_by_frame_for_who_is_blind() {
    let guest = Setup::new().start();
    let peer = guest.trusted();
    let header = header(&peer);
    let body = question("Write about loops.", r#","max_tokens":30,"seed":1"#);
    let (wire, _) = sealed(&peer, &header, &body);
    let mut stream = guest.send(&wire);
    let mut meter = Meter::new(&header);
    let mut seen = Vec::new();
    while let Some(chunk) = stream.chunk() {
        meter.push(&chunk).expect("within the budget");
        seen.push(meter.usage());
    }
    assert!(meter.is_complete());
    let last = seen.last().expect("frames");
    assert!(
        last.completion_tokens > 4
            && seen.iter().any(|usage| (1..last.completion_tokens).contains(&usage.completion_tokens))
    );
}

#[test]
fn a_guest_ends_with_its_lifeline() {
    let guest = Setup::new().start();
    guest.trusted();
    let socket = guest.socket();
    assert!(socket.exists());
    let begun = Instant::now();
    let (status, log) = guest.end();
    assert!(status.success(), "{status}\n{log}");
    assert!(begun.elapsed() < Duration::from_secs(20), "it took {:?}", begun.elapsed());
    assert!(log.contains("standard input ended"), "{log}");
}

#[test]
fn told_to_end_it_finishes_what_runs_with_a_receipt() {
    let guest = Setup::new().start();
    let peer = guest.trusted();
    let (wire, opener) = sealed(&peer, &header(&peer), &long(1));
    let mut stream = guest.send(&wire);
    let mut body = stream.chunk().expect("the preamble");
    let id = Pid::from_child(&guest.child);
    kill_process(id, Signal::TERM).expect("it is our child");
    body.extend(stream.whole().body);
    let heard = hear(opener, &body);
    let outcome = heard.receipt().receipt().outcome;
    // Whatever it had come to: even a request that was taken but not begun ends with a sealed refusal and a receipt.
    let refused = outcome == Outcome::Error && heard.receipt().receipt().usage.completion_tokens == 0;
    assert!(
        refused || matches!(outcome, Outcome::Cancelled | Outcome::Length | Outcome::Stop),
        "{outcome:?}"
    );
    // An answer that was broken off says so: it must not pass for a whole one.
    let told = heard.error.as_ref().map(|(status, error)| (*status, error["error"]["code"].clone()));
    let broken = matches!(outcome, Outcome::Cancelled | Outcome::Error);
    assert_eq!(told, broken.then(|| (503, "draining".into())), "{outcome:?}");
    // What was written is in the opening, token for token, so that it can be replayed as far as it went.
    if let Some(run) = &heard.receipt().opening().run {
        assert_eq!(run.completion_tokens(), heard.receipt().receipt().usage.completion_tokens as usize);
    } else {
        assert!(heard.receipt().receipt().usage.completion_tokens == 0, "{outcome:?}");
    }
    let (status, log) = guest.end();
    assert!(status.success() && log.contains("told to end"), "{status}\n{log}");
}

#[test]
fn health_says_what_the_limits_are() {
    let guest = Setup::new().start();
    let health = guest.health();
    assert_eq!((health.running, health.queued, health.limit), (0, 0, 4));
    assert_eq!(health.state, GuestState::Unattested);
}
