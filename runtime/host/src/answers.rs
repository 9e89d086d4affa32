//! One sealed request on its way to the guest, and the answer on its way back.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use cocoon_accounts::{ApiRefusal, RelayOptions, http, relay};
use cocoon_protocol::{
    MAX_REQUEST, Meter, Part, SealedRequest,
    http::{ApiError, PRICE_HEADER, SEALED},
};
use http_body_util::BodyDataStream;

use crate::{
    Shared,
    guest_client::{GuestAnswer, collect},
    routes,
};

/// `POST /v1/answers`.
pub(crate) async fn answer(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiRefusal> {
    let bytes = http::body(bytes, MAX_REQUEST)?;
    let sealed = SealedRequest::from_wire(bytes.into()).map_err(|e| ApiRefusal::malformed(e.to_string()))?;
    let header = sealed.header().clone();
    let channel = http::authorized_channel(&shared.payee, &headers, sealed.as_bytes()).await?;
    let current = routes::current(&shared)?;
    let named = headers.get(PRICE_HEADER).and_then(|value| value.to_str().ok());
    let price = shared.pricing.agree(named, Instant::now())?;
    let worst = price.worst_case(&header.budget);
    let reservation = http::reserve(&shared.payee, &*shared.agent, &channel, worst).await?;
    let timing = shared.options.timing;
    let asked =
        tokio::time::timeout(timing.silence, current.client.answer(sealed.into_bytes().into(), &channel));
    let gone = |why: String| ApiRefusal::unavailable("guest_unreachable", why);
    let late = || gone(format!("the guest did not answer within {:?}", timing.silence));
    let answer = asked.await.map_err(|_| late())?.map_err(|e| gone(e.to_string()))?;
    if answer.response.status() != StatusCode::OK {
        return Err(passed_on(answer, timing.silence).await);
    }
    shared.life.handed_over();
    let GuestAnswer { response, connection } = answer;
    let options = RelayOptions { price, patience: timing.patience, silence: timing.silence };
    let receipt_key = current.receipt_key;
    let observer = move |part: &Part| {
        // The connection ends with the stream that holds it, and the guest stops working.
        let _until_the_end = &connection;
        match part {
            Part::Receipt(receipt) => receipt.verify(&receipt_key).map(drop).map_err(|e| e.to_string()),
            _ => Ok(()),
        }
    };
    let source = BodyDataStream::new(response.into_body());
    let stream = relay(source, Meter::new(&header), reservation, options, observer);
    Ok(([(CONTENT_TYPE, SEALED)], Body::from_stream(stream)).into_response())
}

/// The guest's refusal, in its own words: it holds nothing of the request.
async fn passed_on(answer: GuestAnswer, silence: Duration) -> ApiRefusal {
    let status = answer.response.status();
    let reply = tokio::time::timeout(silence, collect(answer.response.into_body())).await;
    let reply = reply.ok().and_then(Result::ok).unwrap_or_default();
    let error: Option<ApiError> = serde_json::from_slice(&reply).ok();
    let fallback = || ApiError::server("guest_refused", format!("the guest refused with status {status}"));
    ApiRefusal { status, error: error.unwrap_or_else(fallback) }
}
