//! The HTTP face of a payee's book, the same at a gateway and at a host: announce a channel, hand a voucher in, ask
//! how the account stands. Every refusal is an [`ApiError`].

use std::{future::Future, pin::Pin, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use cocoon_contracts::{Address, Nanotons, SignedVoucher};
use cocoon_protocol::http::{
    AUTHORIZATION_HEADER, AccountStatus, ApiError, CHANNEL_HEADER, ChannelAnnouncement, code,
};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::{
    account::ChannelFacts,
    authorization::{self, AuthorizationError},
    clock::unix_seconds,
    errors::{AnnounceError, ReserveError, VoucherError},
    payee::PayeeBook,
    reservation::Reservation,
    store::StoreError,
};

/// How many announcements are checked on the chain at once.
const MAX_CHAIN_READS: usize = 16;
/// 503: the chain could not be asked about the channel, and was not for a quarter of its challenge period.
const UNVERIFIED: &str = "channel_unverified";
/// The largest JSON body of these routes, in bytes.
const MAX_JSON: usize = 4096;
/// The largest voucher, in bytes.
const MAX_VOUCHER: usize = 256;

/// A refusal with its HTTP status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiRefusal {
    /// The status.
    pub status: StatusCode,
    /// The body.
    pub error: ApiError,
}

impl ApiRefusal {
    /// The caller sent something that makes no sense.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error: ApiError::invalid_request("malformed", message) }
    }

    /// The caller named something that is not here.
    pub fn not_found(code: &str, message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, error: ApiError::invalid_request(code, message) }
    }

    /// Money is missing.
    pub fn payment(code: &str, message: impl Into<String>) -> Self {
        Self { status: StatusCode::PAYMENT_REQUIRED, error: ApiError::payment(code, message) }
    }

    /// We cannot do it now.
    pub fn unavailable(code: &str, message: impl Into<String>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, error: ApiError::server(code, message) }
    }

    fn new(status: StatusCode, code: &str, error: &dyn std::fmt::Display) -> Self {
        Self { status, error: ApiError::invalid_request(code, error.to_string()) }
    }
}

impl IntoResponse for ApiRefusal {
    fn into_response(self) -> Response {
        (self.status, Json(self.error)).into_response()
    }
}

impl From<AuthorizationError> for ApiRefusal {
    fn from(error: AuthorizationError) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", &error)
    }
}

impl From<StoreError> for ApiRefusal {
    fn from(error: StoreError) -> Self {
        Self::unavailable("store_failed", error.to_string())
    }
}

impl From<VoucherError> for ApiRefusal {
    fn from(error: VoucherError) -> Self {
        use VoucherError as E;
        let (status, code) = match &error {
            E::UnknownChannel(_) => (StatusCode::NOT_FOUND, "unknown_channel"),
            E::WrongNetwork { .. } => (StatusCode::FORBIDDEN, code::WRONG_NETWORK),
            E::WrongChannel { .. } | E::WrongNonce { .. } => (StatusCode::FORBIDDEN, code::WRONG_CHANNEL),
            E::Unchecked => return Self::unavailable(UNVERIFIED, error.to_string()),
            E::WrongSigner => (StatusCode::FORBIDDEN, code::WRONG_SIGNER),
            E::Stale { .. } => (StatusCode::CONFLICT, code::STALE_VOUCHER),
            E::ExceedsDeposit { .. } => (StatusCode::BAD_REQUEST, code::EXCEEDS_DEPOSIT),
            E::Store(store) => return store.clone().into(),
        };
        Self::new(status, code, &error)
    }
}

impl From<ReserveError> for ApiRefusal {
    fn from(error: ReserveError) -> Self {
        use ReserveError as E;
        let message = error.to_string();
        match error {
            E::UnknownChannel(_) => Self::not_found("unknown_channel", message),
            E::InsufficientDeposit { .. } => Self::payment(code::INSUFFICIENT_DEPOSIT, message),
            E::VoucherRequired { .. } => Self::payment(code::VOUCHER_REQUIRED, message),
            E::Closing => Self::payment("channel_closing", message),
            E::Unchecked => Self::unavailable(UNVERIFIED, message),
            E::Store(store) => store.into(),
            E::TooManyStreams => {
                Self { status: StatusCode::TOO_MANY_REQUESTS, error: ApiError::server(code::BUSY, message) }
            }
        }
    }
}

impl From<AnnounceError> for ApiRefusal {
    fn from(error: AnnounceError) -> Self {
        match &error {
            AnnounceError::WrongNetwork { .. } => {
                Self::new(StatusCode::FORBIDDEN, code::WRONG_NETWORK, &error)
            }
            AnnounceError::Full => Self::unavailable("full", error.to_string()),
            AnnounceError::Store(store) => store.clone().into(),
        }
    }
}

/// Reads a channel from the chain, and refuses one that this payee does not take: wrong code, another payee, too
/// short a challenge period.
pub trait ChannelReader: Send + Sync + 'static {
    /// What the chain says of the channel now.
    fn read(&self, address: Address) -> ReadChannel<'_>;
}

/// What [`ChannelReader::read`] returns.
pub type ReadChannel<'a> = Pin<Box<dyn Future<Output = Result<ChannelFacts, ApiRefusal>> + Send + 'a>>;

#[derive(Clone)]
struct Face {
    book: PayeeBook,
    reader: Arc<dyn ChannelReader>,
    reads: Arc<Semaphore>,
}

/// `PUT /v1/channels`, `PUT /v1/channels/{address}/voucher` and `GET /v1/channels/{address}`.
pub fn channel_routes(book: PayeeBook, reader: Arc<dyn ChannelReader>) -> Router {
    let face = Face { book, reader, reads: Arc::new(Semaphore::new(MAX_CHAIN_READS)) };
    Router::new()
        .route("/v1/channels", put(announce))
        .route("/v1/channels/{address}", get(status))
        .route("/v1/channels/{address}/voucher", put(voucher))
        .with_state(face)
}

/// Gives unknown paths and methods the shape of all other refusals.
pub fn with_fallbacks(router: Router) -> Router {
    router
        .fallback(async || ApiRefusal::not_found("not_found", "there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            let error =
                ApiError::invalid_request("method_not_allowed", "this path does not take this method");
            ApiRefusal { status: StatusCode::METHOD_NOT_ALLOWED, error }
        })
}

/// A request's body within `limit` bytes.
///
/// # Errors
/// 413 when it is longer, 400 when it broke off.
pub fn body(body: Result<Bytes, BytesRejection>, limit: usize) -> Result<Bytes, ApiRefusal> {
    let too_large = || ApiRefusal {
        status: StatusCode::PAYLOAD_TOO_LARGE,
        error: ApiError::invalid_request("too_large", format!("the body is longer than {limit} bytes")),
    };
    match body {
        Ok(bytes) if bytes.len() <= limit => Ok(bytes),
        Ok(_) => Err(too_large()),
        Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(too_large()),
        Err(rejection) => Err(ApiRefusal::malformed(rejection.body_text())),
    }
}

/// A JSON body within `limit` bytes.
///
/// # Errors
/// As [`body`], and 400 when it is not what is expected here.
pub fn json<T: DeserializeOwned>(
    bytes: Result<Bytes, BytesRejection>,
    limit: usize,
) -> Result<T, ApiRefusal> {
    let bytes = body(bytes, limit)?;
    serde_json::from_slice(&bytes).map_err(|e| ApiRefusal::malformed(format!("the body does not parse: {e}")))
}

/// An address as it stands in a path or a header.
///
/// # Errors
/// 400 when it is none.
pub fn address(text: &str) -> Result<Address, ApiRefusal> {
    cocoon_contracts::parse_address(text).map_err(|e| ApiRefusal::malformed(e.to_string()))
}

/// The channel that a request names in its [`CHANNEL_HEADER`].
///
/// # Errors
/// 402 when it names none, 400 when it is no address.
pub fn channel_header(headers: &HeaderMap) -> Result<Address, ApiRefusal> {
    let missing = || {
        let message = format!("name the payment channel in the header {CHANNEL_HEADER}");
        ApiRefusal::payment("channel_required", message)
    };
    let value = headers.get(CHANNEL_HEADER).ok_or_else(missing)?;
    address(value.to_str().unwrap_or_default())
}

/// The channel that a request names in its [`CHANNEL_HEADER`], once its payer is shown to have sent the request with
/// this body.
///
/// # Errors
/// As [`channel_header`], 404 for a channel that is not in the book, 401 `unauthorized` for anybody but its payer.
pub async fn authorized_channel(
    book: &PayeeBook,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Address, ApiRefusal> {
    let channel = channel_header(headers)?;
    authorized(book, headers, &channel, Some(body)).await?;
    Ok(channel)
}

/// [`PayeeBook::reserve`], with the chain asked first when it was not for a quarter of the challenge period.
///
/// # Errors
/// The book's refusals, and 503 `channel_unverified` when the chain does not answer.
pub async fn reserve(
    book: &PayeeBook,
    reader: &dyn ChannelReader,
    channel: &Address,
    amount: Nanotons,
) -> Result<Reservation, ApiRefusal> {
    match book.reserve(channel, amount).await {
        Err(ReserveError::Unchecked) => {
            check_again(book, reader, channel).await?;
            Ok(book.reserve(channel, amount).await?)
        }
        other => Ok(other?),
    }
}

async fn check_again(
    book: &PayeeBook,
    reader: &dyn ChannelReader,
    channel: &Address,
) -> Result<(), ApiRefusal> {
    match reader.read(channel.clone()).await {
        Ok(facts) => drop(book.announce(facts).await?),
        Err(refusal) if refusal.status.is_server_error() => {
            return Err(ApiRefusal::unavailable(UNVERIFIED, refusal.error.error.message));
        }
        // It is gone, or is not ours any more.
        Err(refusal) => {
            book.close(channel).await?;
            return Err(refusal);
        }
    }
    Ok(())
}

async fn authorized(
    book: &PayeeBook,
    headers: &HeaderMap,
    channel: &Address,
    body: Option<&[u8]>,
) -> Result<(), ApiRefusal> {
    let terms = book.terms(channel).await?.ok_or_else(|| ReserveError::UnknownChannel(channel.clone()))?;
    let header = headers.get(AUTHORIZATION_HEADER).map(|value| value.to_str().unwrap_or_default());
    Ok(authorization::check(header, &terms.payer_key, channel, unix_seconds(), body)?)
}

async fn announce(
    State(face): State<Face>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Json<AccountStatus>, ApiRefusal> {
    let announcement: ChannelAnnouncement = json(bytes, MAX_JSON)?;
    let address = address(&announcement.address)?;
    let Ok(_permit) = face.reads.try_acquire() else {
        return Err(ApiRefusal::unavailable(code::BUSY, "too many channels are being checked; try again"));
    };
    let facts = face.reader.read(address).await?;
    Ok(Json(face.book.announce(facts).await?))
}

async fn voucher(
    State(face): State<Face>,
    Path(channel): Path<String>,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Json<AccountStatus>, ApiRefusal> {
    let channel = address(&channel)?;
    let bytes = body(bytes, MAX_VOUCHER)?;
    let signed = SignedVoucher::decode(&bytes)
        .map_err(|e| ApiRefusal::malformed(format!("the voucher does not parse: {e}")))?;
    let taken = match face.book.accept_voucher(&channel, signed.clone()).await {
        Err(VoucherError::Unchecked) => {
            check_again(&face.book, &*face.reader, &channel).await?;
            face.book.accept_voucher(&channel, signed).await
        }
        other => other,
    };
    Ok(Json(taken?))
}

async fn status(
    State(face): State<Face>,
    Path(channel): Path<String>,
    headers: HeaderMap,
) -> Result<Json<AccountStatus>, ApiRefusal> {
    let channel = address(&channel)?;
    authorized(&face.book, &headers, &channel, None).await?;
    let missing = || ReserveError::UnknownChannel(channel.clone());
    Ok(Json(face.book.status(&channel).await?.ok_or_else(missing)?))
}
