//! Why there is no answer, and what to do.

use std::time::Duration;

/// Why a service gave nothing that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The caller wants no requests.
    #[error("no request was made: only the cache was to be used")]
    Offline,
    /// No connection, no TLS, or it broke.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// Nothing, or not all of the answer, in this time.
    #[error("no whole answer within {} s", .0.as_secs_f32())]
    TimedOut(Duration),
    /// 404: the service does not have it.
    #[error("it does not have this (status 404)")]
    NotFound,
    /// 429, again and again, or with a longer wait than is waited for.
    #[error("it asks for fewer requests (status 429){}", wait(.0))]
    TooMany(Option<Duration>),
    /// Another status than 200.
    #[error("it answers with status {0}")]
    Status(u16),
    /// It sends elsewhere, where nobody said to go.
    #[error("it sends to {0:?}, which is not followed")]
    Redirected(String),
    /// More bytes than such an answer may have.
    #[error("its answer is longer than {0} bytes")]
    TooLong(usize),
    /// What came is not what was asked for.
    #[error("its answer cannot be used: {0}")]
    Unusable(String),
    /// Genuine perhaps, but older than what was seen before.
    #[error("it hands out tcbEvaluationDataNumber {got}, but {mark} was seen before: refused as a rollback")]
    Rollback {
        /// In its answer.
        got: u32,
        /// Seen before.
        mark: u32,
    },
    /// There is nobody who gives this out.
    #[error("{0}")]
    NotOffered(&'static str),
}

fn wait(time: &Option<Duration>) -> String {
    time.map(|time| format!(", and for {} s of patience", time.as_secs())).unwrap_or_default()
}

impl FetchError {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Offline => "leave out --offline",
            Self::Unreachable(_) | Self::TimedOut(_) => {
                "check the network and the proxy (HTTPS_PROXY), or bring the file with --endorsements"
            }
            Self::NotFound => {
                "the evidence may be of a platform that its vendor does not know, or was changed"
            }
            Self::TooMany(_) => "wait a minute and try again; what was fetched is kept",
            Self::Status(_) => "try again later; the service has trouble of its own",
            Self::Redirected(_) => "name the address that serves this itself",
            Self::TooLong(_) | Self::Unusable(_) => {
                "check that the address is this service's, and that no portal or proxy answers in its place"
            }
            Self::Rollback { .. } => {
                "the service, or somebody before it, serves old data: ask the vendor's own service, or wait"
            }
            Self::NotOffered(_) => "bring it with --endorsements",
        }
    }

    /// The next request to the same service would fail in the same way.
    pub(crate) fn of_service(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::TimedOut(_) | Self::TooMany(_))
    }
}
