//! What only a development chain has: coins for the asking, and a clock that obeys.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use cocoon_contracts::parse_address;
use serde_json::{Value, json};

use super::{Shared, lock, refusal};
use crate::rpc::RpcError;

/// These have no CORS: a page from elsewhere in a developer's browser cannot use them.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/faucet", post(faucet)).route("/clock", get(read_clock).post(move_clock))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct FaucetRequest {
    address: String,
    /// In nanotons.
    amount: u64,
}

async fn faucet(
    State(shared): State<Arc<Shared>>,
    body: Result<Json<FaucetRequest>, JsonRejection>,
) -> Response {
    answer(match body {
        Ok(Json(request)) => grant(&shared, &request).await,
        Err(rejection) => Err(bad_request(&rejection)),
    })
}

async fn grant(shared: &Shared, request: &FaucetRequest) -> Result<Value, RpcError> {
    let address = parse_address(&request.address).map_err(|error| RpcError::new(422, error))?;
    shared.check_fault()?;
    let before = {
        let mut ledger = lock(&shared.ledger);
        ledger.faucet(&address, request.amount)?;
        ledger.head().seqno
    };
    shared.work.notify_one();
    shared.block_after(before).await?;
    let balance = lock(&shared.ledger).balance(&address);
    Ok(json!({ "address": address.to_string(), "amount": request.amount, "balance": balance.to_string() }))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockRequest {
    /// In seconds.
    advance: u32,
}

async fn read_clock(State(shared): State<Arc<Shared>>) -> Response {
    let head = lock(&shared.ledger).head();
    answer(Ok(json!({ "now": shared.clock.now(), "block": head.seqno, "block_time": head.time })))
}

async fn move_clock(
    State(shared): State<Arc<Shared>>,
    body: Result<Json<ClockRequest>, JsonRejection>,
) -> Response {
    answer(match body {
        Ok(Json(request)) => advance(&shared, request.advance).await,
        Err(rejection) => Err(bad_request(&rejection)),
    })
}

/// Moves the clock and answers once a block has the new time.
async fn advance(shared: &Shared, seconds: u32) -> Result<Value, RpcError> {
    shared.check_fault()?;
    let code = |error| match error {
        crate::ClockError::Fixed => 403,
        crate::ClockError::TooFar => 422,
    };
    let now = shared.clock.advance(seconds).map_err(|error| RpcError::new(code(error), error))?;
    let before = lock(&shared.ledger).head().seqno;
    shared.work.notify_one();
    shared.block_after(before).await?;
    let head = lock(&shared.ledger).head();
    Ok(json!({ "now": now, "block": head.seqno, "block_time": head.time }))
}

fn answer(outcome: Result<Value, RpcError>) -> Response {
    match outcome {
        Ok(result) => Json(json!({ "ok": true, "result": result })).into_response(),
        Err(error) => refusal(&error),
    }
}

fn bad_request(rejection: &JsonRejection) -> RpcError {
    RpcError::new(rejection.status().as_u16(), rejection.body_text())
}
