//! The local OpenAI endpoint: what comes in on loopback is verified, sealed, answered, checked and paid.
//!
//! `POST` to `/v1/chat/completions`, `/v1/completions`, `/v1/responses` (whole and streamed) and `/v1/embeddings`,
//! `GET /v1/models`, `GET /health`. Bodies pass through: the guest speaks the OpenAI API inside the seal. It serves this machine's user only: requests that a web page of another origin
//! makes, or that name another host (DNS rebinding), are refused.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use cocoon_protocol::http::ApiError;
use cocoon_protocol::{Answer, Budget, Endpoint, MAX_BODY, MAX_WHOLE, Outcome, Prompt};
use serde::Deserialize;
use tokio::sync::Mutex;

pub use crate::outline::{DEFAULT_COMPLETION_TOKENS, budget_for};

use crate::outline::Outline;
use crate::{Answering, CacheSalt, Client, ClientError, Event, Finished, Peer};

/// Called after every answer that was finished and paid: the command line logs it and keeps the receipt.
pub type OnFinished = Arc<dyn Fn(&Peer, &Finished) + Send + Sync>;

struct Local {
    client: Arc<Client>,
    /// The worker in use for each model, until its evidence ages or it fails.
    peers: Mutex<HashMap<String, Arc<Peer>>>,
    /// Lets a worker share the beginnings of this endpoint's prompts among them, and with nobody else's.
    salt: CacheSalt,
    on_finished: OnFinished,
}

/// The endpoint's router, to be served on a loopback address.
pub fn router(client: Arc<Client>, on_finished: OnFinished) -> Router {
    let local = Local { client, peers: Mutex::default(), salt: CacheSalt::random(), on_finished };
    let local = Arc::new(local);
    Router::new()
        .route("/v1/chat/completions", post(|it, body| answer(it, Endpoint::ChatCompletions, body)))
        .route("/v1/completions", post(|it, body| answer(it, Endpoint::Completions, body)))
        .route("/v1/responses", post(|it, body| answer(it, Endpoint::Responses, body)))
        .route("/v1/embeddings", post(|it, body| answer(it, Endpoint::Embeddings, body)))
        .route("/v1/models", get(models))
        .route("/v1/models/{model}", get(model))
        .route("/health", get(|| async { "ok" }))
        .fallback(|| async {
            failure(
                404,
                &ApiError::invalid_request("unknown_url", "there is no such endpoint here; see /v1/models"),
            )
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn(only_local_programs))
        .with_state(local)
}

async fn answer(
    State(local): State<Arc<Local>>,
    endpoint: Endpoint,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            let message = format!("the body has more than {MAX_BODY} bytes: send less at a time");
            return failure(413, &ApiError::invalid_request("too_large", message));
        }
        Err(rejection) => {
            return failure(400, &ApiError::invalid_request("malformed", rejection.body_text()));
        }
    };
    let outline = match Outline::read(&body) {
        Ok(outline) => outline,
        Err(error) => return failure(400, &error),
    };
    let body = if outline.is_salted() { body } else { local.salt.add_to(&body) };
    let question = Question { endpoint, budget: outline.budget(endpoint, &body), body };
    let (peer, mut answering) = match local.ask(outline.model(), &question).await {
        Ok(started) => started,
        Err(error) => return client_failure(&error),
    };
    match first_event(&mut answering).await {
        Err(error) => {
            local.failed(&peer, &error).await;
            client_failure(&error)
        }
        Ok(Event::Error { status, body }) => {
            let rest = drain(&mut answering).await;
            if let Ok(finished) = &rest {
                (local.on_finished)(&peer, finished);
            }
            json_response(status, body.expose().to_vec())
        }
        Ok(Event::Chunk(first)) if outline.streams() && endpoint != Endpoint::Embeddings => {
            stream(local, peer, endpoint, answering, first)
        }
        Ok(Event::Chunk(first)) => match whole(&mut answering, &first).await {
            Ok(Whole { status, body, finished }) => {
                (local.on_finished)(&peer, &finished);
                json_response(status, body)
            }
            Err(error) => {
                local.failed(&peer, &error).await;
                client_failure(&error)
            }
        },
        Ok(Event::Finished(_) | Event::Progress(_)) => {
            failure(502, &ApiError::server("empty_answer", "the worker ended without an answer; ask again"))
        }
    }
}

/// What is to be sealed.
struct Question {
    endpoint: Endpoint,
    body: Bytes,
    budget: Budget,
}

impl Local {
    /// Asks the worker in use; finds another, once, when it has gone or has newer evidence.
    async fn ask(&self, model: &str, question: &Question) -> Result<(Arc<Peer>, Answering), ClientError> {
        let peer = self.peer(model, false).await?;
        match self.put(&peer, question).await {
            Err(error) if error.wants_fresh_evidence() || error.blames_worker() => {
                self.failed(&peer, &error).await;
                let peer = self.peer(model, true).await?;
                let answering = self.put(&peer, question).await?;
                Ok((peer, answering))
            }
            other => other.map(|answering| (peer, answering)),
        }
    }

    async fn put(&self, peer: &Peer, question: &Question) -> Result<Answering, ClientError> {
        let prompt = Prompt::new(question.body.to_vec());
        self.client.ask_at(peer, question.endpoint, prompt, question.budget).await
    }

    /// After a failure that may be the worker's: the next question looks for another first.
    async fn failed(&self, peer: &Peer, error: &ClientError) {
        if error.blames_worker() {
            self.client.avoid(peer);
            self.peers.lock().await.remove(peer.model());
        }
    }

    async fn peer(&self, model: &str, again: bool) -> Result<Arc<Peer>, ClientError> {
        // Names that no worker has never come to stand in here: those of models that the registry allows do.
        let mut known = self.peers.lock().await;
        if let Some(peer) = known.get(model).filter(|peer| !again && peer.is_fresh()) {
            return Ok(Arc::clone(peer));
        }
        let found = Arc::new(self.client.find(Some(model)).await?);
        known.insert(model.to_owned(), Arc::clone(&found));
        Ok(found)
    }
}

/// The first event that decides the shape of the response.
async fn first_event(answering: &mut Answering) -> Result<Event, ClientError> {
    loop {
        match answering.next().await? {
            Some(Event::Progress(_)) => {}
            Some(event) => return Ok(event),
            None => return Err(ended(answering)),
        }
    }
}

/// An answer that is not streamed.
struct Whole {
    status: u16,
    body: Vec<u8>,
    finished: Box<Finished>,
}

/// Reads to the receipt, and puts an answer together that comes in parts. What a worker breaks off or has wrong in the middle
/// is no answer.
async fn whole(answering: &mut Answering, first: &Answer) -> Result<Whole, ClientError> {
    let (mut status, mut body) = (200, first.expose().to_vec());
    loop {
        match answering.next().await? {
            Some(Event::Chunk(part)) if body.len() + part.expose().len() > MAX_WHOLE => {
                let why = format!("it has more than {MAX_WHOLE} bytes");
                return Err(ClientError::Nonsense { what: "an answer", why });
            }
            Some(Event::Chunk(part)) if status == 200 => body.extend_from_slice(part.expose()),
            Some(Event::Error { status: refused, body: why }) => {
                (status, body) = (refused, why.expose().to_vec())
            }
            Some(Event::Finished(finished)) if status == 200 && is_broken_off(&finished) => {
                let error =
                    ApiError::server("interrupted_answer", "the worker broke the answer off; ask again");
                let body = serde_json::to_vec(&error).expect("strings are JSON");
                return Ok(Whole { status: 502, body, finished });
            }
            Some(Event::Finished(finished)) => return Ok(Whole { status, body, finished }),
            Some(Event::Chunk(_) | Event::Progress(_)) => {}
            None => return Err(ended(answering)),
        }
    }
}

fn is_broken_off(finished: &Finished) -> bool {
    finished.receipt.receipt().outcome == Outcome::Cancelled
}

/// Reads to the receipt.
async fn drain(answering: &mut Answering) -> Result<Box<Finished>, ClientError> {
    loop {
        match answering.next().await? {
            Some(Event::Finished(finished)) => return Ok(finished),
            Some(_) => {}
            None => return Err(ended(answering)),
        }
    }
}

fn ended(answering: &Answering) -> ClientError {
    let why = format!("it ended after {} bytes without a receipt", answering.received_bytes());
    ClientError::Nonsense { what: "an answer", why }
}

/// Server-sent events: each chunk as it comes. The end is told only after the receipt was checked: for responses it is their
/// last event, for all others `[DONE]`.
fn stream(
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
            Ok(Some(Event::Error { body, .. })) => return (data(body.expose()), false),
            Ok(Some(Event::Finished(finished))) => {
                (local.on_finished)(peer, &finished);
                let done = if endpoint == Endpoint::Responses { held } else { data(b"[DONE]") };
                return (done, true);
            }
            Ok(None) => return (Vec::new(), true),
            Err(error) => {
                local.failed(peer, &error).await;
                return (data(&error_body(&error).1), true);
            }
        }
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

async fn models(State(local): State<Arc<Local>>) -> Response {
    match names(&local).await {
        Ok(names) => {
            let list: Vec<_> = names.iter().map(|name| model_object(name)).collect();
            let body = serde_json::json!({"object": "list", "data": list});
            json_response(200, body.to_string().into_bytes())
        }
        Err(error) => client_failure(&error),
    }
}

async fn model(State(local): State<Arc<Local>>, Path(model): Path<String>) -> Response {
    match names(&local).await {
        Ok(names) if names.contains(&model) => {
            json_response(200, model_object(&model).to_string().into_bytes())
        }
        Ok(names) => client_failure(&ClientError::NoSuchModel { model, available: names.join(", ") }),
        Err(error) => client_failure(&error),
    }
}

/// The models of all workers that are listed.
async fn names(local: &Local) -> Result<Vec<String>, ClientError> {
    let entries = local.client.workers().await?;
    let mut names: Vec<String> = entries.into_iter().flat_map(|e| e.models).map(|m| m.name).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

fn model_object(id: &str) -> serde_json::Value {
    serde_json::json!({"id": id, "object": "model", "created": 0, "owned_by": "cocoon"})
}

/// Refuses what a browser sends for another origin, and hosts that are not this machine.
async fn only_local_programs(request: Request, next: Next) -> Response {
    if let Err(what) = check_local(request.headers()) {
        let message = format!("{what}; this endpoint serves programs of this machine only");
        return failure(403, &ApiError::invalid_request("not_local", message));
    }
    next.run(request).await
}

fn check_local(headers: &HeaderMap) -> Result<(), String> {
    let local = |authority: &str| {
        let host = authority.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        let host = host.map_or(authority, |(host, _)| host);
        matches!(host, "127.0.0.1" | "localhost" | "[::1]")
    };
    let text =
        |name| headers.get(name).map(|v: &HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned());
    if let Some(host) = text(header::HOST).filter(|host| !local(host)) {
        return Err(format!("the request names the host {host:?}"));
    }
    if let Some(origin) = text(header::ORIGIN) {
        let authority = origin.split_once("://").map_or(origin.as_str(), |(_, rest)| rest);
        if !local(authority) {
            return Err(format!("the request comes from a page of {origin:?}"));
        }
    }
    Ok(())
}

fn client_failure(error: &ClientError) -> Response {
    let (status, body) = error_body(error);
    json_response(status, body)
}

/// Status and OpenAI error JSON of an error of ours.
fn error_body(error: &ClientError) -> (u16, Vec<u8>) {
    let message = format!("{error}. {}", error.remedy());
    let (status, body) = match error {
        ClientError::NoWorker => (503, ApiError::server("no_worker", message)),
        ClientError::NoSuchModel { .. } => {
            (404, ApiError::invalid_request("model_not_found", message).with_param("model"))
        }
        ClientError::Refused { status, code, .. } => (*status, ApiError::server(code, message)),
        ClientError::Untrusted { .. } => (502, ApiError::server("untrusted_worker", message)),
        ClientError::Tampered { .. } => (502, ApiError::server("tampered_answer", message)),
        ClientError::Interrupted { .. } => (502, ApiError::server("interrupted_answer", message)),
        ClientError::Pay(_) | ClientError::PoorWallet { .. } => {
            (402, ApiError::payment("cannot_pay", message))
        }
        _ => (502, ApiError::server("gateway_error", message)),
    };
    (status, serde_json::to_vec(&body).expect("strings are JSON"))
}

fn failure(status: u16, error: &ApiError) -> Response {
    json_response(status, serde_json::to_vec(error).expect("strings are JSON"))
}

fn json_response(status: u16, body: Vec<u8>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn programs_of_this_machine_are_served() {
        for host in ["127.0.0.1:8080", "localhost", "[::1]:9", "[::1]"] {
            assert_eq!(check_local(&headers(&[(header::HOST, host)])), Ok(()), "{host}");
        }
        let own_page = headers(&[(header::HOST, "localhost:1"), (header::ORIGIN, "http://localhost:3000")]);
        assert_eq!(check_local(&own_page), Ok(()));
    }

    #[test]
    fn pages_of_other_origins_and_rebound_names_are_refused() {
        assert!(check_local(&headers(&[(header::HOST, "evil.example:8080")])).is_err());
        assert!(check_local(&headers(&[(header::HOST, "127.0.0.1.evil.example")])).is_err());
        let page = headers(&[(header::HOST, "127.0.0.1:1"), (header::ORIGIN, "https://evil.example")]);
        assert!(check_local(&page).is_err());
        assert!(check_local(&headers(&[(header::ORIGIN, "null")])).is_err());
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
