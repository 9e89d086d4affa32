//! Answers as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use cocoon_protocol::http::ApiError;
use cocoon_protocol::{Answer, Endpoint};
use serde::Deserialize;

use super::{Local, broken_off, drain, error_body};
use crate::{Answering, Event, Peer};

/// Server-sent events: each chunk as it comes. The end is told only after the receipt was checked: for responses it is their
/// last event, for all others `[DONE]`.
pub(super) fn stream(
    local: Arc<Local>,
    peer: Arc<Peer>,
    endpoint: Endpoint,
    answering: Answering,
    first: Answer,
) -> Response {
    let state = (local, peer, answering, Some(first), false);
    let events =
        futures_util::stream::unfold(state, move |(local, peer, mut answering, first, ended)| async move {
            if ended {
                return None;
            }
            let (line, ended) = match first {
                Some(chunk) => (event(endpoint, chunk.expose()), false),
                None => next_line(&local, &peer, endpoint, &mut answering).await,
            };
            Some((Ok::<_, Infallible>(Bytes::from(line)), (local, peer, answering, None, ended)))
        });
    let mut response = Body::from_stream(events).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// The next line of a stream, and whether it is the last.
async fn next_line(
    local: &Local,
    peer: &Peer,
    endpoint: Endpoint,
    answering: &mut Answering,
) -> (Vec<u8>, bool) {
    let mut held = Vec::new();
    loop {
        match answering.next().await {
            Ok(Some(Event::Progress(_))) => {}
            Ok(Some(Event::Chunk(chunk))) => {
                let line = event(endpoint, chunk.expose());
                if !(endpoint == Endpoint::Responses && is_last(chunk.expose())) {
                    return (line, false);
                }
                held = line; // until the receipt holds
            }
            // The stream ends with it, and without the word that says that all is well.
            Ok(Some(Event::Error { body, .. })) => {
                if let Ok(finished) = drain(answering).await {
                    (local.on_finished)(peer, &finished);
                }
                return (data(body.expose()), true);
            }
            Ok(Some(Event::Finished(finished))) => {
                (local.on_finished)(peer, &finished);
                return (last_line(endpoint, held, broken_off(&finished)), true);
            }
            Ok(None) => return (Vec::new(), true),
            Err(error) => {
                local.failed(peer, &error).await;
                return (data(&error_body(&error).1), true);
            }
        }
    }
}

/// How a stream ends whose receipt holds.
fn last_line(endpoint: Endpoint, held: Vec<u8>, broken_off: Option<ApiError>) -> Vec<u8> {
    match (broken_off, endpoint) {
        (Some(error), _) => data(&serde_json::to_vec(&error).expect("strings are JSON")),
        (None, Endpoint::Responses) => held,
        (None, _) => data(b"[DONE]"),
    }
}

/// One event. Those of responses are named, as their type says.
fn event(endpoint: Endpoint, payload: &[u8]) -> Vec<u8> {
    match kind(payload).filter(|_| endpoint == Endpoint::Responses) {
        Some(kind) => [b"event: ", kind.as_bytes(), b"\n", &data(payload)[..]].concat(),
        None => data(payload),
    }
}

/// The type of a response's event. A worker names it: it must not break out of its line.
fn kind(payload: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Typed {
        r#type: String,
    }
    let Typed { r#type } = serde_json::from_slice(payload).ok()?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'.' || byte == b'_';
    r#type.bytes().all(plain).then_some(r#type)
}

fn is_last(payload: &[u8]) -> bool {
    kind(payload).is_some_and(|kind| matches!(kind.as_str(), "response.completed" | "response.incomplete"))
}

fn data(payload: &[u8]) -> Vec<u8> {
    [b"data: ", payload, b"\n\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_was_broken_off_does_not_end_as_a_whole_one() {
        assert_eq!(last_line(Endpoint::ChatCompletions, Vec::new(), None), b"data: [DONE]\n\n");
        assert_eq!(last_line(Endpoint::Responses, b"held".to_vec(), None), b"held");
        for endpoint in [Endpoint::ChatCompletions, Endpoint::Completions, Endpoint::Responses] {
            let error = Some(ApiError::server("interrupted_answer", "why"));
            let line = last_line(endpoint, b"held".to_vec(), error);
            let told = std::str::from_utf8(&line).expect("text").strip_prefix("data: ").expect("an event");
            let told: serde_json::Value = serde_json::from_str(told).expect("JSON");
            assert_eq!(told["error"]["code"], "interrupted_answer");
        }
    }

    #[test]
    fn events_of_responses_are_named_and_others_are_not() {
        let payload = br#"{"type":"response.completed","sequence_number":1}"#;
        let named = event(Endpoint::Responses, payload);
        assert!(named.starts_with(b"event: response.completed\ndata: {") && named.ends_with(b"}\n\n"));
        assert!(is_last(payload) && !is_last(br#"{"type":"response.created"}"#));
        assert!(event(Endpoint::ChatCompletions, payload).starts_with(b"data: "));
        let broken = br#"{"type":"a\nevent: b"}"#;
        assert!(event(Endpoint::Responses, broken).starts_with(b"data: "), "a name stays in its line");
    }
}
