//! The gateway's HTTP API.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use cocoon_accounts::{
    ApiRefusal,
    http::{channel_routes, json, with_fallbacks},
};
use cocoon_protocol::http::{BUNDLE, NetworkInfo, RegisterWorker, WorkerEntry};

use crate::{Shared, answers, liabilities, workers};

/// The largest registration, in bytes: a bundle of 1 MiB in base64, and names.
const MAX_REGISTRATION: usize = 1_400_000 + 64 * 1024;

pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    let reader = Arc::clone(&shared.agent);
    let routes = Router::new()
        .route("/v1/network", get(network))
        .route("/v1/solvency", get(liabilities::solvency))
        .route("/v1/workers", get(list))
        .route("/v1/workers/{id}", put(register))
        .route("/v1/workers/{id}/bundle", get(bundle))
        .route("/v1/workers/{id}/answers", post(answers::answer))
        .with_state(Arc::clone(shared))
        .merge(channel_routes(shared.payee.clone(), reader));
    with_fallbacks(routes)
}

async fn network(State(shared): State<Arc<Shared>>) -> Json<NetworkInfo> {
    Json(shared.info())
}

async fn list(State(shared): State<Arc<Shared>>) -> Json<Vec<WorkerEntry>> {
    Json(shared.workers.list())
}

async fn register(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Json<WorkerEntry>, ApiRefusal> {
    let registration: RegisterWorker = json(bytes, MAX_REGISTRATION)?;
    let entry = workers::register(&shared, id.clone(), registration).await;
    match &entry {
        Ok(_) => tracing::info!(worker = %id, "registered"),
        Err(refusal) => tracing::warn!(worker = %id, why = %refusal.error.error.message, "not registered"),
    }
    entry.map(Json)
}

async fn bundle(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Result<Response, ApiRefusal> {
    let worker = shared.workers.find(&id).ok_or_else(answers::unknown_worker)?;
    Ok(([(CONTENT_TYPE, BUNDLE)], worker.bundle.clone()).into_response())
}
