//! Clients of the HTTP shapes in which TON's data is served: toncenter v2 and v3.
//!
//! What both have in common, from retries to API keys, is in `endpoints` and below; `v2` and `v3` only know
//! their words. Limits that the public service states: one request a second without a key, ten with the smallest one
//! (docs.ton.org, "Rate limits").

mod endpoints;
mod fault;
mod key;
mod pace;
mod transport;
mod v2;
mod v3;
mod values;

pub use key::ApiKey;
pub use v2::Toncenter;
pub use v3::ToncenterV3;

use std::time::Duration;

use crate::ChainError;

/// How long one call may take with all its retries, unless said otherwise.
const DEADLINE: Duration = Duration::from_secs(30);

/// How a service is reached.
#[derive(Clone)]
pub struct ToncenterOptions {
    /// Its endpoints, the preferred one first: each a base (`http://127.0.0.1:8081`) or an API root (`…/api/v2`).
    pub endpoints: Vec<String>,
    /// Its API key, the same for all endpoints.
    pub key: Option<ApiKey>,
    /// How often each endpoint may be asked; `None` for what public services allow, and no limit on this machine.
    pub requests_per_second: Option<u32>,
    /// The network that the endpoints must be of; `None` to take it from the first that answers.
    pub network: Option<i32>,
    /// How long one call may take with all its retries.
    pub deadline: Duration,
}

impl ToncenterOptions {
    /// One endpoint, no key, the usual limits.
    pub fn new(url: &str) -> Self {
        let endpoints = vec![url.to_owned()];
        Self { endpoints, key: None, requests_per_second: None, network: None, deadline: DEADLINE }
    }

    /// The endpoints' bases, without the path of the API, whose last part is `version`.
    fn roots(&self, version: &str) -> Result<Vec<String>, ChainError> {
        if self.endpoints.is_empty() {
            return Err(ChainError::Url { url: String::new(), why: "there is no endpoint".into() });
        }
        self.endpoints.iter().map(|url| root(url, version)).collect()
    }
}

fn root(url: &str, version: &str) -> Result<String, ChainError> {
    let bad = |why: String| ChainError::Url { url: clean(url), why };
    let parsed = reqwest::Url::parse(url).map_err(|error| bad(error.to_string()))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(bad(format!("the scheme {} is not http or https", parsed.scheme())));
    }
    if parsed.query().is_some() || !parsed.username().is_empty() || parsed.password().is_some() {
        return Err(bad("no query and no user belong into it; keys come from files or variables".into()));
    }
    let base = url.trim_end_matches('/').trim_end_matches("/jsonRPC").trim_end_matches('/');
    let base = base.strip_suffix(version).and_then(|base| base.strip_suffix("/api/")).unwrap_or(base);
    Ok(base.to_owned())
}

/// The URL without what may be a secret.
fn clean(url: &str) -> String {
    let plain = url.split('?').next().unwrap_or_default();
    match plain.split_once('@') {
        Some((_, host)) => format!("…@{host}"),
        None => plain.to_owned(),
    }
}
