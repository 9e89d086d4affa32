//! A gateway that lies: the client finds out, seals nothing to strangers, and pays for nothing that is not the worker's.

use cocoon_attestation::Bundle;
use cocoon_client::proxy::budget_for;
use cocoon_client::{Answering, Client, ClientError, Event, Finished, Peer, policy_from_registry};
use cocoon_protocol::{AnswerError, Prompt, WireError};
use cocoon_tests::relay::Relay;
use cocoon_tests::{Network, tiny_model};
use std::sync::{Arc, Mutex};

const DEPOSIT: u64 = 1_000_000_000;

async fn ask(client: &Client, peer: &Peer, prompt: &str) -> Result<Answering, ClientError> {
    let body = serde_json::json!({
        "model": peer.model(), "stream": true, "max_tokens": 24, "seed": 1,
        "messages": [{"role": "user", "content": prompt}],
    });
    let body = body.to_string().into_bytes();
    let budget = budget_for(&body, Some(24));
    client.ask(peer, Prompt::new(body), budget).await
}

async fn finish(mut answering: Answering) -> Result<Box<Finished>, ClientError> {
    loop {
        match answering.next().await? {
            Some(Event::Finished(finished)) => return Ok(finished),
            Some(_) => {}
            None => panic!("it ended without a receipt and without an error"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_lie_of_a_gateway_is_caught_by_the_client() {
    let network = Network::start(&tiny_model());
    let relay = Relay::start(&network.gateway_url()).await;
    let client = network.client("alice", relay.url(), DEPOSIT).await;

    // Honest first: the same relay passes everything when it does not lie.
    let peer = client.find(None).await.expect("an honest relay shows honest evidence");
    let finished = finish(ask(&client, &peer, "What is a list?").await.expect("it is sent")).await;
    let bill = finished.expect("the answer holds").bill;
    assert!(bill > 0);

    a_swapped_key_is_refused(&relay, &client).await;
    a_bundle_of_another_network_is_refused(&network, &relay).await;
    changed_answers_are_refused(&relay, &client, &peer).await;
    an_old_answer_is_refused(&relay, &client, &peer).await;

    a_price_that_is_not_the_registrys_is_refused(&relay, &client).await;

    // And after all that, the next honest answer is paid as usual.
    relay.tamper(|_, _, body| body);
    finish(ask(&client, &peer, "And now?").await.expect("it is sent")).await.expect("the answer holds");
}

async fn a_swapped_key_is_refused(relay: &Relay, client: &Client) {
    relay.tamper(|_, path, body| {
        if !path.ends_with("/bundle") {
            return body;
        }
        // The statement with a key of the gateway's own in it, everything else as it was.
        let mut bundle = Bundle::decode(&body).expect("the real bundle");
        let mut statement =
            cocoon_attestation::Statement::decode(&bundle.statement).expect("the real statement");
        statement.keys.seal = vec![7; statement.keys.seal.len()];
        bundle.statement = statement.encode();
        bundle.encode()
    });
    match client.find(None).await.err().expect("it is refused") {
        ClientError::Untrusted { refusal, .. } => assert_eq!(refusal.check, "binding.report_data"),
        other => panic!("another error: {other}"),
    }
    relay.tamper(|_, _, body| body);
}

async fn a_bundle_of_another_network_is_refused(network: &Network, relay: &Relay) {
    let mut options = network.client_options("bob", relay.url(), DEPOSIT).await;
    let registry =
        cocoon_chain::read_registry(options.chain.as_ref(), &options.registry).await.expect("it is there");
    let policy = policy_from_registry(&registry, -4242, 600).expect("it allows something");
    options.policy.also = vec![policy];
    let client = Client::connect(options).await.expect("the gateway answers");
    match client.find(None).await.err().expect("it is refused") {
        ClientError::Untrusted { refusal, .. } => assert_eq!(refusal.check, "policy.network"),
        other => panic!("another error: {other}"),
    }
}

async fn a_price_that_is_not_the_registrys_is_refused(relay: &Relay, client: &Client) {
    // The registry says 160,000,000, times ten at most; a gateway's margin lies in the coefficient.
    for (field, lie) in [("completion", 160_000_001), ("prompt", 1), ("coefficient", 10_001)] {
        relay.tamper(move |_, path, body| {
            if !path.ends_with("/v1/workers") {
                return body;
            }
            let mut list: serde_json::Value = serde_json::from_slice(&body).expect("the real list");
            list[0]["price"][field] = lie.into();
            serde_json::to_vec(&list).expect("it is JSON")
        });
        match client.find(None).await.err().expect("it is refused") {
            ClientError::Overpriced { asked, most } => {
                assert_eq!((most.completion, most.coefficient.thousandths()), (160_000_000, 10_000));
                assert!(!asked.same_list(&most) || asked.coefficient > most.coefficient, "{field}");
            }
            other => panic!("another error: {other}"),
        }
    }
    relay.tamper(|_, _, body| body);
}

async fn changed_answers_are_refused(relay: &Relay, client: &Client, peer: &Peer) {
    let is_answer = |method: &str, path: &str| method == "POST" && path.ends_with("/answers");
    type Change = fn(Vec<u8>) -> Vec<u8>;
    let changes: [(&str, Change); 5] = [
        ("drops the receipt", |body| body[..body.len() - 200].to_vec()),
        ("drops the last frame", |body| drop_last_frame(&body)),
        ("flips a byte in the middle", |mut body| {
            let at = body.len() / 2;
            body[at] ^= 1;
            body
        }),
        ("flips the receipt's last byte", |mut body| {
            *body.last_mut().expect("an answer has bytes") ^= 1;
            body
        }),
        ("appends a byte", |mut body| {
            body.push(0);
            body
        }),
    ];
    for (what, change) in changes {
        relay.tamper(move |method, path, body| if is_answer(method, path) { change(body) } else { body });
        let error = finish(ask(client, peer, "What is a class?").await.expect("it is sent")).await.err();
        match error.unwrap_or_else(|| panic!("a gateway that {what} is believed")) {
            ClientError::Tampered { .. } | ClientError::Interrupted { .. } => {}
            other => panic!("a gateway that {what}: another error: {other}"),
        }
    }
    relay.tamper(|_, _, body| body);
}

/// Cuts an answer behind its last whole frame but one: preamble, frames, trailer (see the protocol's wire table).
fn drop_last_frame(answer: &[u8]) -> Vec<u8> {
    const PREAMBLE: usize = 4 + 32;
    let (mut at, mut frames) = (PREAMBLE, Vec::new());
    loop {
        let header = &answer[at..at + cocoon_protocol::FRAME_HEADER];
        let length = u32::from_be_bytes(header[17..21].try_into().expect("four bytes")) as usize;
        frames.push(at);
        at += cocoon_protocol::FRAME_HEADER + length;
        if header[0] & 1 == 1 {
            break;
        }
    }
    let last = *frames.last().expect("there is one");
    [&answer[..last], &answer[at..]].concat()
}

async fn an_old_answer_is_refused(relay: &Relay, client: &Client, peer: &Peer) {
    let old: Arc<Mutex<Option<Vec<u8>>>> = Arc::default();
    let kept = Arc::clone(&old);
    relay.tamper(move |method, path, body| {
        if method == "POST" && path.ends_with("/answers") {
            return kept.lock().expect("no holder panics").get_or_insert(body).clone();
        }
        body
    });
    finish(ask(client, peer, "The first.").await.expect("it is sent"))
        .await
        .expect("the first is not old yet");
    let error = finish(ask(client, peer, "The second.").await.expect("it is sent")).await;
    match error.err().expect("an old answer is not believed") {
        ClientError::Tampered { error: AnswerError::Forged { .. }, .. } => {}
        ClientError::Tampered { error: AnswerError::Wire(WireError::Malformed { .. }), .. } => {}
        other => panic!("another error: {other}"),
    }
    assert!(old.lock().expect("no holder panics").is_some());
}
