//! The words of the HTTP APIs between client, gateway, host and guest. Amounts are nanotons, digests lower-case hex.

use crate::{Price, RequestError};
use serde::{Deserialize, Serialize};

/// Content type of sealed requests and answers.
pub const SEALED: &str = "application/vnd.cocoon.sealed";
/// Content type of evidence bundles (a CMW collection in CBOR).
pub const BUNDLE: &str = "application/cmw+cbor";
/// Header that names the payment channel of a request: its address.
pub const CHANNEL_HEADER: &str = "cocoon-channel";
/// Header that proves that the channel's payer sent the request: `<unix seconds> <hex Ed25519 signature>`.
pub const AUTHORIZATION_HEADER: &str = "cocoon-authorization";
/// Header with the price that a gateway counts a request with, as [`Price::to_words`] writes it.
pub const PRICE_HEADER: &str = "cocoon-price";

/// Header by which a host tells its guest which requests are of one payer, so that payers share the guest evenly. Any bytes; a
/// host makes them so that they say nothing else.
pub const LANE_HEADER: &str = "cocoon-lane";

/// An error in the shape that OpenAI's clients expect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// The only member.
    pub error: ApiErrorBody,
}

/// Inside an [`ApiError`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiErrorBody {
    /// What happened, to what, and what to do; for people.
    pub message: String,
    /// Class, as `invalid_request_error`.
    #[serde(rename = "type")]
    pub kind: String,
    /// For programs, as `busy`.
    pub code: Option<String>,
    /// The request's field at fault, if it is one.
    #[serde(default)]
    pub param: Option<String>,
}

impl ApiError {
    /// An error of class `kind` with a code.
    pub fn new(kind: &str, code: &str, message: impl Into<String>) -> Self {
        let error = ApiErrorBody {
            message: message.into(),
            kind: kind.to_owned(),
            code: Some(code.to_owned()),
            param: None,
        };
        Self { error }
    }

    /// The request is at fault.
    pub fn invalid_request(code: &str, message: impl Into<String>) -> Self {
        Self::new("invalid_request_error", code, message)
    }

    /// The server is at fault, or busy.
    pub fn server(code: &str, message: impl Into<String>) -> Self {
        Self::new("server_error", code, message)
    }

    /// Money is missing.
    pub fn payment(code: &str, message: impl Into<String>) -> Self {
        Self::new("payment_error", code, message)
    }

    /// Names the field at fault.
    pub fn with_param(mut self, param: &str) -> Self {
        self.error.param = Some(param.to_owned());
        self
    }

    /// The code, or nothing.
    pub fn code(&self) -> &str {
        self.error.code.as_deref().unwrap_or_default()
    }
}

impl From<&RequestError> for ApiError {
    fn from(error: &RequestError) -> Self {
        Self::invalid_request(error.code(), error.to_string())
    }
}

/// Codes that more than one part relies on.
pub mod code {
    /// 503: the queue is full; try again or elsewhere.
    pub const BUSY: &str = "busy";
    /// 400: fetch the bundle again, then seal again.
    pub const STALE_STATEMENT: &str = "stale_statement";
    /// 402: deposit − owed − reserved does not cover the budget.
    pub const INSUFFICIENT_DEPOSIT: &str = "insufficient_deposit";
    /// 402: the stream was cut for want of a voucher.
    pub const VOUCHER_REQUIRED: &str = "voucher_required";
    /// 409: a voucher lower than the best one held; an equal one is acknowledged.
    pub const STALE_VOUCHER: &str = "stale_voucher";
    /// 403: not signed by the channel's payer.
    pub const WRONG_SIGNER: &str = "wrong_signer";
    /// 403: for another channel.
    pub const WRONG_CHANNEL: &str = "wrong_channel";
    /// 403: for another network.
    pub const WRONG_NETWORK: &str = "wrong_network";
    /// 400: above the deposit.
    pub const EXCEEDS_DEPOSIT: &str = "exceeds_deposit";
}

/// Guest: `GET /v1/health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestHealth {
    /// What the guest is doing.
    pub state: GuestState,
    /// Answers in progress.
    pub running: usize,
    /// Requests waiting.
    pub queued: usize,
    /// Most requests waiting; beyond it the guest says busy.
    pub limit: usize,
}

/// In [`GuestHealth`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestState {
    /// No bundle was asked for yet, so no request can be sealed to it.
    Unattested,
    /// Takes requests.
    Ready,
    /// What computes its answers is started again; takes none meanwhile. Evidence from before holds no more then.
    Restarting,
    /// Ends; takes no more.
    Draining,
    /// The device that computes failed. It takes no more, and ends.
    Failed,
}

/// Guest: `POST /v1/attest`; the reply is the bundle's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttestRequest {
    /// Masterchain block: sequence number.
    pub seqno: u32,
    /// Its root hash, 64 hex digits.
    pub root_hash: String,
    /// A client's nonce, 64 hex digits, where it wants a quote of its own.
    pub nonce: Option<String>,
}

/// Host and gateway: `PUT /v1/channels`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelAnnouncement {
    /// Address of the deployed channel.
    pub address: String,
}

/// Host and gateway: `GET /v1/channels/{address}` and the reply to a voucher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountStatus {
    /// The channel's address.
    pub address: String,
    /// Deposited on chain.
    pub deposit: u64,
    /// Settled on chain.
    pub paid: u64,
    /// The best cumulative voucher held.
    pub voucher: u64,
    /// Charged so far, cumulative.
    pub owed: u64,
    /// Set aside for requests in progress.
    pub reserved: u64,
    /// How far `owed` may run ahead of `voucher`.
    pub window: u64,
}

/// Gateway: `GET /v1/network`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInfo {
    /// TON global id.
    pub network: i32,
    /// The gateway's wallet, payee of clients' channels.
    pub payee: String,
    /// How far charges may run ahead of vouchers.
    pub window_nanotons: u64,
    /// The registry contract that the gateway goes by.
    pub registry: String,
}

/// A model in a worker's listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelEntry {
    /// For people.
    pub name: String,
    /// SHA-256, hex.
    pub weights: String,
}

/// Gateway: one of `GET /v1/workers`. A hint only: what counts is in the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerEntry {
    /// Names the worker in the gateway's paths.
    pub id: String,
    /// What it says it serves.
    pub models: Vec<ModelEntry>,
    /// What the gateway charges clients for it.
    pub price: Price,
    /// Seconds since the gateway got its bundle.
    pub bundle_age_seconds: u64,
}

/// Gateway: `PUT /v1/workers/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterWorker {
    /// Where the host is reached.
    pub url: String,
    /// The operator's wallet, payee of the gateway's channel.
    pub operator: String,
    /// What the host charges.
    pub price: Price,
    /// The evidence bundle, base64 (standard alphabet, padded).
    pub bundle: String,
}

/// Host: `GET /v1/health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostHealth {
    /// The guest's, if it answers.
    pub guest: Option<GuestHealth>,
    /// Seconds since the bundle was made.
    pub bundle_age_seconds: u64,
}

/// Gateway: `GET /v1/solvency`. Where to look on the chain; the chain is what counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Solvency {
    /// The address of the gateway's bond, on which it publishes roots of its liabilities.
    pub bond: String,
    /// Seconds between two publications.
    pub every_seconds: u64,
    /// The newest root that was published, if one was.
    pub published: Option<PublishedRoot>,
    /// The channels that it pays hosts by. Their deposits are public.
    pub channels: Vec<String>,
}

/// In [`Solvency`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedRoot {
    /// The chain's second of which the amounts are.
    pub epoch: u64,
    /// The Merkle-sum tree's root, hex.
    pub root: String,
    /// All that is owed, in nanotons.
    pub sum: u64,
    /// The signed statement for the bond, hex: two that differ for one epoch forfeit the stake.
    pub statement: String,
}

/// Host: `POST /v1/liabilities`, and the file that a payee keeps: the way from what one channel is owed to a published root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiabilityProof {
    /// The address of the bond on which the root is published.
    pub bond: String,
    /// The encoded proof, hex.
    pub proof: String,
}
