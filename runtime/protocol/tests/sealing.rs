//! Sealing starts from a peer that was verified and appraised, and from nothing else.

mod common;

use cocoon_protocol::{AnswerEvent, Endpoint, RequestHeader, SealError, Usage, seal};
use common::{Guest, body, header};

#[test]
fn a_prompt_travels_to_a_trusted_peer_and_back() {
    let guest = Guest::new();
    let peer = guest.trusted();
    assert!(peer.simulated());
    let header = header(&peer, 1);
    let sealed = seal(&peer, &header, Endpoint::ChatCompletions, body());
    let (request, mut opener) = sealed.expect("the header fits the peer");
    let opened = guest.open(request.as_bytes()).expect("it is for this guest");
    assert_eq!(opened.prompt.expose(), body().expose());

    let wire = guest.answer(opened.answer, b"an answer");
    let events = opener.push(&wire).expect("an honest answer");
    let text = events.iter().find_map(|(event, usage)| match event {
        AnswerEvent::Chunk(answer) => Some((answer.expose(), *usage)),
        _ => None,
    });
    assert_eq!(
        text,
        Some((b"an answer".as_slice(), Usage { prompt_tokens: 5, cached_tokens: 0, completion_tokens: 1 }))
    );
    let verified = opener.finish().expect("the receipt holds");
    assert_eq!(verified.receipt().bill(), 5 + 2);
    assert_eq!(verified.receipt().statement, peer.statement_digest());
    assert!(verified.signed().verify(peer.receipt_key()).is_ok());
    assert_eq!(verified.opening().commitment(), verified.receipt().commitment);
}

#[test]
fn a_header_that_does_not_fit_the_peer_is_not_sealed() {
    let peer = Guest::new().trusted();
    let good = header(&peer, 1);
    let cases = [
        (RequestHeader { statement: [0; 32], ..good.clone() }, SealError::WrongStatement),
        (RequestHeader { network: -239, ..good.clone() }, SealError::WrongNetwork { header: -239, peer: -3 }),
        (RequestHeader { model: [0; 32], ..good.clone() }, SealError::ModelNotServed),
    ];
    for (header, expected) in cases {
        assert_eq!(seal(&peer, &header, Endpoint::ChatCompletions, body()).err(), Some(expected));
    }
    assert!(seal(&peer, &good, Endpoint::ChatCompletions, body()).is_ok());
}
