//! One HTTP request and its whole answer.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use serde_json::Value;

use super::ApiKey;

/// How long to try to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The largest answer that is read, in bytes.
pub(crate) const MAX_ANSWER_BYTES: usize = 4 << 20;

/// What is asked of an endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// The method's name in errors.
    pub(crate) name: &'static str,
    /// What comes after the endpoint's root, with its query.
    pub(crate) path: String,
    /// Sent by POST when there is one, else the request is a GET.
    pub(crate) body: Option<Value>,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// The `Retry-After` header, when it gives seconds (RFC 9110, 10.2.3; its dates are not used by these services).
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Vec<u8>,
}

/// No whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The request did not leave: nothing came of it.
    NotSent(String),
    /// It may have been served.
    NoAnswer(String),
    /// The answer exceeds [`MAX_ANSWER_BYTES`].
    TooLong,
}

/// Asks, once. The seam between what decides about retries and the network.
pub(crate) trait Transport: Send + Sync {
    /// Asks the endpoint with this root; gives up after `timeout`.
    fn ask<'a>(
        &'a self,
        root: &'a str,
        request: &'a Request,
        key: Option<&'a ApiKey>,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Reply, Lost>>;
}

/// Over the network.
pub(crate) struct Http(reqwest::Client);

impl Http {
    pub(crate) fn new() -> Result<Self, String> {
        reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none()) // a key goes where it was configured to go
            .no_proxy() // as every client of ours: what is configured is what is asked
            .build()
            .map(Self)
            .map_err(|error| error.to_string())
    }
}

impl Transport for Http {
    fn ask<'a>(
        &'a self,
        root: &'a str,
        request: &'a Request,
        key: Option<&'a ApiKey>,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Reply, Lost>> {
        async move {
            let url = format!("{root}{}", request.path);
            let mut builder = match &request.body {
                Some(body) => self.0.post(url).json(body),
                None => self.0.get(url),
            };
            if let Some(key) = key {
                builder = builder.header("X-API-Key", key.header());
            }
            let response = builder.timeout(timeout).send().await.map_err(lost)?;
            let status = response.status().as_u16();
            let retry_after = response
                .headers()
                .get(reqwest::header::RETRY_AFTER)
                .and_then(|value| value.to_str().ok()?.trim().parse().ok())
                .map(Duration::from_secs);
            let mut body = Vec::new();
            let mut chunks = response.bytes_stream();
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk.map_err(lost)?;
                if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                    return Err(Lost::TooLong);
                }
                body.extend_from_slice(&chunk);
            }
            Ok(Reply { status, retry_after, body })
        }
        .boxed()
    }
}

fn lost(error: reqwest::Error) -> Lost {
    let never_left = error.is_connect() || error.is_builder();
    let error = error.without_url();
    let mut deepest: &dyn std::error::Error = &error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    let why = deepest.to_string();
    if never_left { Lost::NotSent(why) } else { Lost::NoAnswer(why) }
}
