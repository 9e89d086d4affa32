//! The gateway's HTTP API, called. Every reply has a size limit and a time limit.

use std::sync::Arc;
use std::time::Duration;

use cocoon_accounts::{authorize, unix_seconds};
use cocoon_contracts::{Address, SignedVoucher, SigningKey};
use cocoon_protocol::SealedRequest;
use cocoon_protocol::http::{
    AUTHORIZATION_HEADER, AccountStatus, ApiError, CHANNEL_HEADER, ChannelAnnouncement, NetworkInfo, SEALED,
    WorkerEntry,
};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;

use crate::ClientError;

/// Most bytes of a listing or a status.
const MAX_REPLY: usize = 4 * 1024 * 1024;
/// Most bytes of an evidence bundle.
const MAX_BUNDLE: usize = 1024 * 1024;

const CONNECT: Duration = Duration::from_secs(5);
/// For a small reply.
const REPLY: Duration = Duration::from_secs(20);
/// Longest silence within an answer: prefill of a long prompt on a slow worker.
const SILENCE: Duration = Duration::from_secs(180);

/// One gateway. Cheap to clone.
#[derive(Clone)]
pub struct GatewayApi {
    http: reqwest::Client,
    base: String,
    key: Option<Arc<SigningKey>>,
}

impl GatewayApi {
    /// A gateway by its base URL, without a trailing slash.
    pub fn new(base: &str) -> Self {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .no_proxy()
            .build()
            .expect("the TLS roots are compiled in");
        Self { http, base: base.trim_end_matches('/').to_owned(), key: None }
    }

    /// The same gateway, for one who spends channels: requests on a channel carry the proof that its payer, the owner
    /// of this key, sent them. Without a key the gateway refuses [`Self::account`] and [`Self::answer`].
    pub fn with_key(self, key: SigningKey) -> Self {
        Self { key: Some(Arc::new(key)), ..self }
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// Who the gateway is.
    ///
    /// # Errors
    /// [`ClientError`], as all calls here.
    pub async fn network(&self) -> Result<NetworkInfo, ClientError> {
        self.json("the network", self.http.get(self.at("/v1/network"))).await
    }

    /// The workers it lists: hints, not facts.
    pub async fn workers(&self) -> Result<Vec<WorkerEntry>, ClientError> {
        self.json("the list of workers", self.http.get(self.at("/v1/workers"))).await
    }

    /// A worker's evidence bundle, unverified bytes.
    pub async fn bundle(&self, worker: &str) -> Result<Vec<u8>, ClientError> {
        let request = self.http.get(self.at(&format!("/v1/workers/{worker}/bundle"))).timeout(REPLY);
        self.bytes("a bundle", request, MAX_BUNDLE).await
    }

    /// Tells it of a channel of ours.
    pub async fn announce(&self, channel: &Address) -> Result<AccountStatus, ClientError> {
        let body = ChannelAnnouncement { address: channel.to_string() };
        self.json("a channel", self.http.put(self.at("/v1/channels")).json(&body)).await
    }

    /// Our account with it.
    pub async fn account(&self, channel: &Address) -> Result<AccountStatus, ClientError> {
        let request = self.http.get(self.at(&format!("/v1/channels/{channel}")));
        self.json("an account", self.authorized(request, channel, None)).await
    }

    /// Hands in a voucher.
    pub async fn voucher(&self, voucher: &SignedVoucher) -> Result<AccountStatus, ClientError> {
        let path = format!("/v1/channels/{}/voucher", voucher.voucher.channel);
        self.json("a voucher", self.http.put(self.at(&path)).body(voucher.encode())).await
    }

    /// Sends a sealed request; the reply is the answer's byte stream.
    pub async fn answer(
        &self,
        worker: &str,
        channel: &Address,
        request: SealedRequest,
    ) -> Result<Response, ClientError> {
        let body = request.into_bytes();
        let request = self
            .http
            .post(self.at(&format!("/v1/workers/{worker}/answers")))
            .header(CHANNEL_HEADER, channel.to_string())
            .header("content-type", SEALED);
        let request = self.authorized(request, channel, Some(&body));
        self.send(request.body(body)).await
    }

    fn authorized(&self, request: RequestBuilder, channel: &Address, body: Option<&[u8]>) -> RequestBuilder {
        match &self.key {
            Some(key) => request.header(AUTHORIZATION_HEADER, authorize(key, channel, unix_seconds(), body)),
            None => request,
        }
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn json<T: DeserializeOwned>(
        &self,
        what: &'static str,
        request: RequestBuilder,
    ) -> Result<T, ClientError> {
        let bytes = self.bytes(what, request.timeout(REPLY), MAX_REPLY).await?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::Nonsense { what, why: error.to_string() })
    }

    async fn bytes(
        &self,
        what: &'static str,
        request: RequestBuilder,
        limit: usize,
    ) -> Result<Vec<u8>, ClientError> {
        let response = self.send(request).await?;
        self.read(response, limit)
            .await?
            .ok_or_else(|| ClientError::Nonsense { what, why: format!("it is longer than {limit} bytes") })
    }

    /// Reads a body up to a limit; `None` beyond it.
    async fn read(&self, mut response: Response, limit: usize) -> Result<Option<Vec<u8>>, ClientError> {
        let mut bytes = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            if bytes.len() + piece.len() > limit {
                return Ok(None);
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(Some(bytes))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let body = self.read(response, MAX_REPLY).await?.unwrap_or_default();
        Err(refused(status, &body))
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        ClientError::Unreachable { url: self.base.clone(), why: causes(error) }
    }
}

fn refused(status: u16, body: &[u8]) -> ClientError {
    match serde_json::from_slice::<ApiError>(body) {
        Ok(error) => ClientError::Refused {
            status,
            code: one_line(error.code()),
            message: one_line(&error.error.message),
        },
        Err(_) => {
            ClientError::Nonsense { what: "a request", why: format!("status {status} without an error body") }
        }
    }
}

/// A gateway's words, on one line: a line of its own could pass for one of ours.
fn one_line(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The innermost cause of a network error says what happened; reqwest's own text only says where.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(next) = last.source() {
        last = next;
    }
    last.to_string()
}
