//! One sealed request on its way: money first, then bytes.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    extract::{Path, State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use cocoon_accounts::{ApiRefusal, PayerStream, RelayOptions, Reservation, http, relay};
use cocoon_protocol::{
    MAX_REQUEST, Meter, Part, RequestHeader, SealedRequest,
    http::{AUTHORIZATION_HEADER, ApiError, CHANNEL_HEADER, PRICE_HEADER, SEALED, code},
};

use crate::{Shared, lane, workers::Worker};

/// The largest refusal that is passed on from a host, in bytes.
const MAX_REFUSAL: usize = 16 * 1024;

pub(crate) fn unknown_worker() -> ApiRefusal {
    ApiRefusal::not_found("unknown_worker", "no such worker is registered now; list the workers again")
}

/// `POST /v1/workers/{id}/answers`.
pub(crate) async fn answer(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiRefusal> {
    let sealed = request(bytes)?;
    let worker = shared.workers.find(&id).ok_or_else(unknown_worker)?;
    let header = sealed.header().clone();
    check_header(&shared, &worker, &header)?;
    let channel = http::authorized_channel(&shared.payee, &headers, sealed.as_bytes()).await?;
    let reservation =
        http::reserve(&shared.payee, &*shared.agent, &channel, worker.listed.worst_case(&header.budget))
            .await?;
    let begun = worker.lane.begin(worker.price.worst_case(&header.budget)).await;
    lane::top_up_when_low(&shared, &worker.lane);
    let ours = begun.map_err(|error| {
        tracing::warn!(worker = %worker.id, %error, "an answer was not begun");
        unpaid("this gateway's deposit with the worker does not cover the request now; try again, or another worker")
    })?;
    let (ours, answer) = forward(&shared, &worker, sealed, ours).await?;
    let stream = stream(&shared, &worker, &header, reservation, ours, answer);
    Ok(([(CONTENT_TYPE, SEALED)], Body::from_stream(stream)).into_response())
}

fn request(bytes: Result<Bytes, BytesRejection>) -> Result<SealedRequest, ApiRefusal> {
    let bytes = http::body(bytes, MAX_REQUEST)?;
    SealedRequest::from_wire(bytes.into()).map_err(|e| ApiRefusal::malformed(e.to_string()))
}

fn check_header(shared: &Shared, worker: &Worker, header: &RequestHeader) -> Result<(), ApiRefusal> {
    if header.network != shared.network {
        let (ours, theirs) = (shared.network, header.network);
        let message = format!("the request is for network {theirs}, this is network {ours}");
        let error = ApiError::invalid_request(code::WRONG_NETWORK, message);
        return Err(ApiRefusal { status: StatusCode::FORBIDDEN, error });
    }
    if header.price != worker.listed {
        let message = format!("the worker's price is {}; list the workers again", worker.listed);
        let error = ApiError::payment("wrong_price", message);
        return Err(ApiRefusal { status: StatusCode::CONFLICT, error });
    }
    Ok(())
}

fn unpaid(message: &str) -> ApiRefusal {
    ApiRefusal::unavailable("worker_unpaid", message)
}

/// Hands the request to the host; a refusal of the host becomes ours.
async fn forward(
    shared: &Arc<Shared>,
    worker: &Arc<Worker>,
    sealed: SealedRequest,
    ours: PayerStream,
) -> Result<(PayerStream, reqwest::Response), ApiRefusal> {
    let body = sealed.into_bytes();
    let (key, now) = (&shared.options.voucher_key, cocoon_accounts::unix_seconds());
    let request = shared
        .http
        .post(format!("{}/v1/answers", worker.lane.url()))
        .header(CONTENT_TYPE, SEALED)
        .header(PRICE_HEADER, worker.price.to_words())
        .header(CHANNEL_HEADER, worker.lane.channel().to_string())
        .header(
            AUTHORIZATION_HEADER,
            cocoon_accounts::authorize(key, worker.lane.channel(), now, Some(&body)),
        )
        .body(body);
    let silence = shared.options.timing.silence;
    let sent = tokio::time::timeout(silence, request.send()).await;
    let gone = |why: String| ApiRefusal {
        status: StatusCode::BAD_GATEWAY,
        error: ApiError::server("worker_unreachable", why),
    };
    let response = match sent {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            if error.is_connect() {
                ours.finish();
                shared.workers.drop_worker(worker, "its host takes no connections");
            }
            return Err(gone(format!("the worker does not answer: {}", error.without_url())));
        }
        Err(_) => return Err(gone(format!("the worker did not answer within {silence:?}"))),
    };
    if response.status() == StatusCode::OK {
        return Ok((ours, response));
    }
    ours.finish();
    Err(passed_on(shared, worker, response).await)
}

async fn passed_on(shared: &Arc<Shared>, worker: &Arc<Worker>, response: reqwest::Response) -> ApiRefusal {
    let status = response.status();
    let reply = lane::read(response, MAX_REFUSAL).await.unwrap_or_default();
    let error: Option<ApiError> = serde_json::from_slice(&reply).ok();
    if matches!(status, StatusCode::PAYMENT_REQUIRED | StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED) {
        // Between the host and us; nothing that the client could mend.
        let why = error.map(|e| e.error.message).unwrap_or_default();
        tracing::warn!(worker = %worker.id, %why, "the host refuses our channel");
        let (shared, worker) = (Arc::clone(shared), Arc::clone(worker));
        tokio::spawn(async move {
            let lane = Arc::clone(&worker.lane);
            for done in [lane.announce().await, lane.pay().await, lane.reconcile().await] {
                if let Err(error) = done {
                    tracing::warn!(channel = %lane.channel(), %error, "the channel was not put right");
                }
            }
            if lane.is_disputed() {
                let why =
                    "it says that it is owed more than was counted here, and works for this gateway no more";
                shared.workers.drop_worker(&worker, why);
            }
            lane::top_up_when_low(&shared, &lane);
        });
        return unpaid("the worker refused this gateway's channel; try again, or another worker");
    }
    if error.as_ref().is_some_and(|error| error.error.code.as_deref() == Some("wrong_price")) {
        let why = "the worker has a new price that this gateway does not have yet; list the workers again";
        return ApiRefusal::unavailable("worker_repriced", why);
    }
    let fallback = || ApiError::server("worker_refused", format!("the worker refused with status {status}"));
    ApiRefusal { status, error: error.unwrap_or_else(fallback) }
}

/// The answer, metered both ways: what arrives is owed to the host, what leaves is charged to the client.
fn stream(
    shared: &Arc<Shared>,
    worker: &Arc<Worker>,
    header: &RequestHeader,
    reservation: Reservation,
    ours: PayerStream,
    answer: reqwest::Response,
) -> impl futures_util::Stream<Item = Result<Bytes, cocoon_accounts::RelayError>> + use<> {
    let timing = shared.options.timing;
    let options = RelayOptions { price: worker.listed, patience: timing.patience, silence: timing.silence };
    let (weak, worker, price) = (Arc::downgrade(shared), Arc::clone(worker), worker.price);
    // Dropped with the stream; unless it was finished, that says that the answer broke.
    let mut ours = Some(ours);
    let observer = move |part: &Part| match part {
        Part::Preamble => Ok(()),
        Part::Frame { usage, .. } => match &mut ours {
            Some(ours) => ours.owe_up_to(price.bill(usage)).map_err(|e| e.to_string()),
            None => Ok(()),
        },
        Part::Receipt(receipt) => {
            if let Err(error) = receipt.verify(&worker.receipt_key) {
                if let Some(shared) = weak.upgrade() {
                    shared.workers.drop_worker(&worker, "its receipt is not by the key in its evidence");
                }
                return Err(error.to_string());
            }
            if let Some(ours) = ours.take() {
                ours.finish();
            }
            Ok(())
        }
    };
    relay(Box::pin(answer.bytes_stream()), Meter::new(header), reservation, options, observer)
}
