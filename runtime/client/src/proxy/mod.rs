//! The local OpenAI endpoint: what comes in on loopback is verified, sealed, answered, checked and paid.
//!
//! `POST` to `/v1/chat/completions`, `/v1/completions`, `/v1/responses` (whole and streamed) and `/v1/embeddings`,
//! `GET /v1/models`, `GET /health`. Bodies pass through: the guest speaks the OpenAI API inside the seal. It serves this
//! machine's user only: requests that a web page of another origin makes, or that name another host (DNS rebinding), are
//! refused.

mod local;
mod stream;

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use cocoon_protocol::http::ApiError;
use cocoon_protocol::{Answer, Budget, Endpoint, MAX_BODY, MAX_WHOLE, Outcome, Prompt};
use tokio::sync::Mutex;

pub use crate::outline::{DEFAULT_COMPLETION_TOKENS, budget_for};

use crate::outline::Outline;
use crate::{Answering, CacheSalt, Client, ClientError, Event, Finished, Peer};

/// Called after every answer that was finished and paid: the command line logs it and keeps the receipt.
pub type OnFinished = Arc<dyn Fn(&Peer, &Finished) + Send + Sync>;

/// Most bytes of a request: what can be sealed, less the salt that is added to it.
const MAX_ASKED: usize = MAX_BODY - 128;

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
        .route("/v1/models/{*model}", get(model)) // a name may have slashes
        .route("/health", get(|| async { "ok" }))
        .fallback(|| async {
            failure(
                404,
                &ApiError::invalid_request("unknown_url", "there is no such endpoint here; see /v1/models"),
            )
        })
        .method_not_allowed_fallback(|| async {
            failure(405, &ApiError::invalid_request("method_not_allowed", "this path has another method"))
        })
        .layer(DefaultBodyLimit::max(MAX_ASKED))
        .layer(from_fn(local::only_local_programs))
        .with_state(local)
}

async fn answer(
    State(local): State<Arc<Local>>,
    endpoint: Endpoint,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return not_read(&rejection),
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
            stream::stream(local, peer, endpoint, answering, first)
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
        Ok(Event::Finished(finished)) => {
            (local.on_finished)(&peer, &finished);
            match broken_off(&finished) {
                Some(error) => failure(503, &error),
                None => failure(
                    502,
                    &ApiError::server("empty_answer", "the worker ended without an answer; ask again"),
                ),
            }
        }
        Ok(Event::Progress(_)) => {
            failure(502, &ApiError::server("internal", "there was progress and no answer"))
        }
    }
}

/// Why a body was not taken, in OpenAI's shape.
fn not_read(rejection: &BytesRejection) -> Response {
    let status = rejection.status().as_u16();
    let error = match status {
        413 => {
            let message = format!("the body is longer than {MAX_ASKED} bytes: send less at a time");
            ApiError::invalid_request("too_large", message)
        }
        _ => ApiError::invalid_request("unreadable_body", rejection.body_text()),
    };
    failure(status, &error)
}

/// What a client is told of an answer that its worker broke off: it must not take it for a whole one.
fn broken_off(finished: &Finished) -> Option<ApiError> {
    let message = "the worker broke the answer off before its end; ask again";
    let whole = matches!(finished.receipt.receipt().outcome, Outcome::Stop | Outcome::Length);
    (!whole).then(|| ApiError::server("interrupted_answer", message))
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
            Some(Event::Finished(finished)) => {
                if let Some(error) = broken_off(&finished).filter(|_| status == 200) {
                    (status, body) = (503, serde_json::to_vec(&error).expect("strings are JSON"));
                }
                return Ok(Whole { status, body, finished });
            }
            Some(Event::Chunk(_) | Event::Progress(_)) => {}
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
