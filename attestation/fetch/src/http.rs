//! One request at a time: limits, retries, and no going elsewhere.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode};

use crate::{Clock, FetchError, Service, ServiceUrl};

/// How long, how often.
#[derive(Debug, Clone)]
pub struct Limits {
    /// For one request with its whole answer.
    pub request: Duration,
    /// Requests for one thing, the first included.
    pub attempts: u32,
    /// Before the second attempt; doubled before each further one.
    pub backoff: Duration,
    /// A service that asks for a longer wait (Retry-After) gets no further request.
    pub longest_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(30),
            attempts: 4,
            backoff: Duration::from_secs(2),
            longest_wait: Duration::from_secs(30),
        }
    }
}

/// What is being done: for a line on a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A request is on its way.
    Asking {
        /// What for.
        what: String,
        /// Whom.
        service: Service,
        /// Where.
        url: String,
    },
    /// The service wants a pause, or has trouble.
    Waiting {
        /// Which.
        service: Service,
        /// How long.
        time: Duration,
        /// What it said.
        why: FetchError,
    },
}

pub(crate) type Listener = Arc<dyn Fn(&Progress) + Send + Sync>;

/// A body and the headers beside it.
pub(crate) struct Answer {
    pub(crate) body: Vec<u8>,
    pub(crate) headers: HeaderMap,
}

/// A request below a service's base.
pub(crate) struct Request<'q> {
    pub(crate) service: Service,
    pub(crate) what: &'q str,
    pub(crate) path: &'q str,
    /// POSTed as an OCSP request, if there is one.
    pub(crate) body: Option<&'q [u8]>,
    /// Most bytes of an answer.
    pub(crate) limit: usize,
}

pub(crate) struct Http {
    /// Through the system's proxy, https alone.
    outside: Client,
    /// This machine's loopback.
    inside: Client,
    limits: Limits,
}

impl Http {
    pub(crate) fn new(limits: Limits) -> Result<Self, FetchError> {
        let builder = || {
            Client::builder()
                .user_agent(concat!("cocoon/", env!("CARGO_PKG_VERSION")))
                // An answer is taken from whom was asked.
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(limits.request)
        };
        let failed = |error: reqwest::Error| FetchError::Unreachable(chain(&error));
        Ok(Self {
            outside: builder().https_only(true).build().map_err(failed)?,
            inside: builder().no_proxy().build().map_err(failed)?,
            limits,
        })
    }

    /// Asks, and asks again after a pause while the service says that it has trouble.
    pub(crate) async fn ask(
        &self,
        base: &ServiceUrl,
        request: &Request<'_>,
        clock: &dyn Clock,
        listener: &Listener,
    ) -> Result<Answer, FetchError> {
        let mut pause = self.limits.backoff;
        let mut attempt = 1;
        loop {
            listener(&Progress::Asking {
                what: request.what.to_owned(),
                service: request.service,
                url: base.to_string(),
            });
            let why = match self.once(base, request).await {
                Err(why) if attempt < self.limits.attempts && worth_repeating(&why) => why,
                result => return result,
            };
            let time = match why {
                FetchError::TooMany(Some(wanted)) if wanted > self.limits.longest_wait => return Err(why),
                FetchError::TooMany(Some(wanted)) => wanted.max(pause),
                _ => pause,
            };
            listener(&Progress::Waiting { service: request.service, time, why });
            clock.sleep(time).await;
            pause = pause.saturating_mul(2).min(self.limits.longest_wait);
            attempt += 1;
        }
    }

    async fn once(&self, base: &ServiceUrl, request: &Request<'_>) -> Result<Answer, FetchError> {
        let work = async {
            let response = self.send(base, request).await?;
            let response = judged(response)?;
            let headers = response.headers().clone();
            Ok(Answer { body: bounded(response, request.limit).await?, headers })
        };
        let time = self.limits.request;
        tokio::time::timeout(time, work).await.unwrap_or(Err(FetchError::TimedOut(time)))
    }

    async fn send(&self, base: &ServiceUrl, request: &Request<'_>) -> Result<Response, FetchError> {
        let url = base.join(request.path).map_err(|error| FetchError::Unusable(error.to_string()))?;
        let client = if base.loopback() { &self.inside } else { &self.outside };
        let builder = match request.body {
            None => client.get(url),
            Some(body) => {
                client.post(url).header(CONTENT_TYPE, "application/ocsp-request").body(body.to_vec())
            }
        };
        builder.send().await.map_err(|error| FetchError::Unreachable(chain(&error.without_url())))
    }
}

/// Trouble that may pass in seconds. A timeout took long enough, and a refused connection tells a service that is down.
fn worth_repeating(why: &FetchError) -> bool {
    match why {
        FetchError::TooMany(_) => true,
        FetchError::Status(status) => matches!(status, 500 | 502 | 503 | 504),
        _ => false,
    }
}

fn judged(response: Response) -> Result<Response, FetchError> {
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    match response.status() {
        StatusCode::OK => Ok(response),
        StatusCode::NOT_FOUND => Err(FetchError::NotFound),
        StatusCode::TOO_MANY_REQUESTS => {
            // In seconds. A date (RFC 9110, 10.2.3) counts as no word about it.
            let wanted = header(RETRY_AFTER).and_then(|text| text.trim().parse().ok());
            Err(FetchError::TooMany(wanted.map(Duration::from_secs)))
        }
        status if status.is_redirection() => {
            const SHOWN: usize = 200;
            let place = header(LOCATION).unwrap_or_default();
            Err(FetchError::Redirected(place.chars().take(SHOWN).collect()))
        }
        status => Err(FetchError::Status(status.as_u16())),
    }
}

/// The body, cut off at the limit whatever the service says of its length.
async fn bounded(mut response: Response, limit: usize) -> Result<Vec<u8>, FetchError> {
    if response.content_length().is_some_and(|length| length > limit as u64) {
        return Err(FetchError::TooLong(limit));
    }
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|error| FetchError::Unreachable(chain(&error)))? {
        if body.len() + part.len() > limit {
            return Err(FetchError::TooLong(limit));
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}

/// An error with its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
