//! The host's HTTP API.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use cocoon_accounts::{
    ApiRefusal,
    http::{channel_routes, with_fallbacks},
};
use cocoon_protocol::http::{BUNDLE, HostHealth};

use crate::{Shared, answers, liabilities, supervisor::Current};

pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    let reader = Arc::clone(&shared.agent);
    let routes = Router::new()
        .route("/v1/health", get(health))
        .route("/v1/bundle", get(bundle))
        .route("/v1/answers", post(answers::answer))
        .route("/v1/liabilities", post(liabilities::take))
        .with_state(Arc::clone(shared))
        .merge(channel_routes(shared.payee.clone(), reader));
    with_fallbacks(routes)
}

/// The guest that serves now.
pub(crate) fn current(shared: &Shared) -> Result<Arc<Current>, ApiRefusal> {
    let starting = || ApiRefusal::unavailable("guest_starting", "the guest is being started; try again");
    shared.current.borrow().clone().ok_or_else(starting)
}

async fn health(State(shared): State<Arc<Shared>>) -> Result<Json<HostHealth>, ApiRefusal> {
    let current = current(&shared)?;
    let guest = current.client.health().await.ok();
    let guest = guest.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    Ok(Json(HostHealth { guest, bundle_age_seconds: current.made.elapsed().as_secs() }))
}

async fn bundle(State(shared): State<Arc<Shared>>) -> Result<Response, ApiRefusal> {
    let current = current(&shared)?;
    Ok(([(CONTENT_TYPE, BUNDLE)], current.bundle.clone()).into_response())
}
