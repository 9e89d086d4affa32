//! Routes of toncenter v2 (`/api/v2/…`, JSON-RPC and REST) and v3 (`/api/v3/…`), open to pages from anywhere as
//! toncenter's own are.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Json, Path, Query, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde_json::{Map, Value, json};

use super::{Shared, lock, status};
use crate::rpc::{self, Parameters, RpcError, v3};

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/api/v2/jsonRPC", post(json_rpc).options(preflight))
        .route("/jsonRPC", post(json_rpc).options(preflight))
        .route("/api/v2/{method}", get(rest_get).post(rest_post).options(preflight))
        .route("/api/v3/{method}", get(v3_get).post(v3_post).options(preflight))
        .layer(axum::middleware::from_fn(cross_origin))
}

/// A browser asks before it sends JSON to another origin.
async fn preflight() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// CORS: everything here is public, and nothing is done in anybody's name.
async fn cross_origin(request: Request, next: Next) -> Response {
    const ALLOWED: [(HeaderName, HeaderValue); 4] = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
        (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, OPTIONS")),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("Content-Type, X-API-Key")),
        (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400")),
    ];
    let mut response = next.run(request).await;
    response.headers_mut().extend(ALLOWED);
    response
}

async fn json_rpc(State(shared): State<Arc<Shared>>, body: Result<Json<Value>, JsonRejection>) -> Response {
    let request = match body {
        Ok(Json(request)) => request,
        Err(rejection) => return answer(Err(bad_request(&rejection)), None),
    };
    let id = request.get("id").cloned();
    let Some(method) = request.get("method").and_then(Value::as_str) else {
        return answer(Err(RpcError::new(422, "the request has no method")), id);
    };
    let parameters = match request.get("params") {
        Some(Value::Object(parameters)) => parameters.clone(),
        None | Some(Value::Null) => Map::new(),
        Some(_) => return answer(Err(RpcError::new(422, "params must be an object")), id),
    };
    answer(call(shared, method.to_owned(), parameters).await, id)
}

async fn rest_get(
    State(shared): State<Arc<Shared>>,
    Path(method): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Response {
    if rpc::makes_work(&method) {
        return answer(Err(RpcError::new(405, format!("{method} must be a POST"))), None);
    }
    let parameters = query.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
    answer(call(shared, method, parameters).await, None)
}

async fn rest_post(
    State(shared): State<Arc<Shared>>,
    Path(method): Path<String>,
    body: Result<Json<Map<String, Value>>, JsonRejection>,
) -> Response {
    match body {
        Ok(Json(parameters)) => answer(call(shared, method, parameters).await, None),
        Err(rejection) => answer(Err(bad_request(&rejection)), None),
    }
}

async fn call(
    shared: Arc<Shared>,
    method: String,
    parameters: Map<String, Value>,
) -> Result<Value, RpcError> {
    let work = rpc::makes_work(&method);
    run(shared, work, move |ledger| rpc::call(ledger, &method, &Parameters(parameters))).await
}

/// Runs a call off the reactor's threads; wakes the block maker when there is something for it.
async fn run(
    shared: Arc<Shared>,
    work: bool,
    act: impl FnOnce(&mut crate::Ledger) -> Result<Value, RpcError> + Send + 'static,
) -> Result<Value, RpcError> {
    let run = move || {
        if work {
            shared.check_fault()?;
        }
        let outcome = act(&mut lock(&shared.ledger));
        if work && outcome.is_ok() {
            shared.work.notify_one();
        }
        outcome
    };
    let joined = tokio::task::spawn_blocking(run).await;
    joined.unwrap_or_else(|_| Err(RpcError::new(500, "the request made the ledger panic; it was dropped")))
}

async fn v3_get(
    State(shared): State<Arc<Shared>>,
    Path(method): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Response {
    v3_answer(run(shared, false, move |ledger| v3::get(ledger, &method, &query)).await)
}

async fn v3_post(
    State(shared): State<Arc<Shared>>,
    Path(method): Path<String>,
    body: Result<Json<Map<String, Value>>, JsonRejection>,
) -> Response {
    let body = match body {
        Ok(Json(body)) => Parameters(body),
        Err(rejection) => return v3_answer(Err(bad_request(&rejection))),
    };
    let work = v3::makes_work(&method);
    v3_answer(run(shared, work, move |ledger| v3::post(ledger, &method, &body)).await)
}

/// v3 has no envelope: the result itself, or `{"error": …}`.
fn v3_answer(outcome: Result<Value, RpcError>) -> Response {
    match outcome {
        Ok(result) => Json(result).into_response(),
        Err(RpcError { code, message }) => (status(code), Json(json!({ "error": message }))).into_response(),
    }
}

fn answer(outcome: Result<Value, RpcError>, id: Option<Value>) -> Response {
    let id = id.unwrap_or(Value::Null);
    match outcome {
        Ok(result) => {
            Json(json!({ "ok": true, "result": result, "jsonrpc": "2.0", "id": id })).into_response()
        }
        Err(RpcError { code, message }) => {
            let body = json!({ "ok": false, "error": message, "code": code, "jsonrpc": "2.0", "id": id });
            (status(code), Json(body)).into_response()
        }
    }
}

fn bad_request(rejection: &JsonRejection) -> RpcError {
    RpcError::new(rejection.status().as_u16(), rejection.body_text())
}
