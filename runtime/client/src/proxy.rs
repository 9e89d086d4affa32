//! The local OpenAI endpoint: what comes in on loopback is verified, sealed, answered, checked and paid.
//!
//! `POST /v1/chat/completions` (whole and streamed), `GET /v1/models`, `GET /health`. Bodies pass through: the guest
//! speaks the OpenAI API inside the seal. It serves this machine's user only: requests that a web page of another origin
//! makes, or that name another host (DNS rebinding), are refused.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use cocoon_protocol::http::ApiError;
use cocoon_protocol::{Answer, Budget, MAX_BODY, Prompt};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::sync::Mutex;

use crate::{Answering, CacheSalt, Client, ClientError, Event, Finished, Peer};

/// Completion tokens reserved when a request names no limit.
pub const DEFAULT_COMPLETION_TOKENS: u32 = 1024;
/// Tokens that a chat template may add around the messages.
const TEMPLATE_TOKENS: u32 = 512;

/// Called after every answer that was finished and paid: the command line logs it and keeps the receipt.
pub type OnFinished = Arc<dyn Fn(&Peer, &Finished) + Send + Sync>;

struct Local {
    client: Arc<Client>,
    /// The worker in use, until its evidence ages or it fails.
    peer: Mutex<Option<Arc<Peer>>>,
    /// Lets a worker share the beginnings of this endpoint's prompts among them, and with nobody else's.
    salt: CacheSalt,
    on_finished: OnFinished,
}

/// The endpoint's router, to be served on a loopback address.
pub fn router(client: Arc<Client>, on_finished: OnFinished) -> Router {
    let local = Local { client, peer: Mutex::new(None), salt: CacheSalt::random(), on_finished };
    let local = Arc::new(local);
    Router::new()
        .route("/v1/chat/completions", post(chat_completions))
        .route("/v1/models", get(models))
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

/// What the proxy reads of a request; the rest is for the guest alone.
#[derive(Deserialize)]
struct Outline {
    model: String,
    #[serde(default)]
    stream: bool,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    cache_salt: Option<IgnoredAny>,
}

/// The worst case of a request: every byte of its body a token, and the completion limit it names. The prompt's part is
/// rounded up to a power of two, since the budget travels in the clear: it shows about how long a request is, not how long.
pub fn budget_for(body: &[u8], completion_tokens: Option<u32>) -> Budget {
    let bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let prompt = bytes.saturating_add(TEMPLATE_TOKENS);
    Budget {
        prompt_tokens: prompt.checked_next_power_of_two().unwrap_or(u32::MAX),
        completion_tokens: completion_tokens.unwrap_or(DEFAULT_COMPLETION_TOKENS),
    }
}

async fn chat_completions(State(local): State<Arc<Local>>, body: Bytes) -> Response {
    let outline: Outline = match serde_json::from_slice(&body) {
        Ok(outline) => outline,
        Err(error) => {
            let message = format!("the body is not a chat completion request: {error}");
            return failure(400, &ApiError::invalid_request("invalid_json", message));
        }
    };
    let body = if outline.cache_salt.is_none() { local.salt.add_to(&body) } else { body };
    let budget = budget_for(&body, outline.max_completion_tokens.or(outline.max_tokens));
    let (peer, mut answering) = match local.ask(&outline.model, &body, budget).await {
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
        Ok(Event::Chunk(first)) if outline.stream => stream(local, peer, answering, first),
        Ok(Event::Chunk(whole)) => match drain(&mut answering).await {
            Ok(finished) => {
                (local.on_finished)(&peer, &finished);
                json_response(200, whole.expose().to_vec())
            }
            Err(error) => client_failure(&error),
        },
        Ok(Event::Finished(_) | Event::Progress(_)) => {
            failure(502, &ApiError::server("empty_answer", "the worker ended without an answer; ask again"))
        }
    }
}

impl Local {
    /// Asks the worker in use; finds another, once, when it has gone or has newer evidence.
    async fn ask(
        &self,
        model: &str,
        body: &Bytes,
        budget: Budget,
    ) -> Result<(Arc<Peer>, Answering), ClientError> {
        let peer = self.peer(model, false).await?;
        match self.client.ask(&peer, Prompt::new(body.to_vec()), budget).await {
            Err(error) if error.wants_fresh_evidence() || error.blames_worker() => {
                self.failed(&peer, &error).await;
                let peer = self.peer(model, true).await?;
                let answering = self.client.ask(&peer, Prompt::new(body.to_vec()), budget).await?;
                Ok((peer, answering))
            }
            other => other.map(|answering| (peer, answering)),
        }
    }

    /// After a failure that may be the worker's: the next question looks for another first.
    async fn failed(&self, peer: &Peer, error: &ClientError) {
        if error.blames_worker() {
            self.client.avoid(peer);
            *self.peer.lock().await = None;
        }
    }

    async fn peer(&self, model: &str, again: bool) -> Result<Arc<Peer>, ClientError> {
        let mut known = self.peer.lock().await;
        if let Some(peer) = known.as_ref().filter(|p| !again && p.model() == model && p.is_fresh()) {
            return Ok(Arc::clone(peer));
        }
        let found = Arc::new(self.client.find(Some(model)).await?);
        *known = Some(Arc::clone(&found));
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

/// Server-sent events: each chunk as it comes; `[DONE]` only after the receipt was checked.
fn stream(local: Arc<Local>, peer: Arc<Peer>, answering: Answering, first: Answer) -> Response {
    let state = (local, peer, answering, Some(first), false);
    let events =
        futures_util::stream::unfold(state, |(local, peer, mut answering, first, ended)| async move {
            if ended {
                return None;
            }
            let (line, ended) = match first {
                Some(chunk) => (data(chunk.expose()), false),
                None => next_line(&local, &peer, &mut answering).await,
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
async fn next_line(local: &Local, peer: &Peer, answering: &mut Answering) -> (Vec<u8>, bool) {
    loop {
        match answering.next().await {
            Ok(Some(Event::Progress(_))) => {}
            Ok(Some(Event::Chunk(chunk))) => return (data(chunk.expose()), false),
            Ok(Some(Event::Error { body, .. })) => return (data(body.expose()), false),
            Ok(Some(Event::Finished(finished))) => {
                (local.on_finished)(peer, &finished);
                return (data(b"[DONE]"), true);
            }
            Ok(None) => return (Vec::new(), true),
            Err(error) => {
                local.failed(peer, &error).await;
                return (data(&error_body(&error).1), true);
            }
        }
    }
}

fn data(payload: &[u8]) -> Vec<u8> {
    [b"data: ", payload, b"\n\n"].concat()
}

async fn models(State(local): State<Arc<Local>>) -> Response {
    let entries = match local.client.workers().await {
        Ok(entries) => entries,
        Err(error) => return client_failure(&error),
    };
    let mut names: Vec<String> = entries.into_iter().flat_map(|e| e.models).map(|m| m.name).collect();
    names.sort_unstable();
    names.dedup();
    let list: Vec<_> = names
        .iter()
        .map(|id| serde_json::json!({"id": id, "object": "model", "created": 0, "owned_by": "cocoon"}))
        .collect();
    let body = serde_json::json!({"object": "list", "data": list});
    json_response(200, body.to_string().into_bytes())
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
    fn a_budget_covers_every_byte_as_a_token() {
        let budget = budget_for(b"12345", None);
        assert_eq!(budget.prompt_tokens, (5 + TEMPLATE_TOKENS).next_power_of_two());
        assert_eq!(
            budget_for(b"1234567890", None).prompt_tokens,
            budget.prompt_tokens,
            "lengths are blurred"
        );
        assert_eq!(budget.completion_tokens, DEFAULT_COMPLETION_TOKENS);
        assert_eq!(budget_for(b"", Some(7)).completion_tokens, 7);
    }
}
