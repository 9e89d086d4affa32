//! What one try came to, and what follows from it.

use std::time::Duration;

use super::transport::{Reply, Request};
use crate::ChainError;

/// How much of an error's words is repeated.
const MAX_ECHO: usize = 300;
/// What callers are told to wait when a limit was reached without a word about its end.
const UNSAID_WAIT: Duration = Duration::from_secs(1);

/// Why one try gave no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nobody is there: the request was not served.
    Away(String),
    /// The request may have been served, its answer was lost.
    Silent(String),
    /// The service is in trouble; whether it did what was asked is not known.
    Trouble { code: i64, message: String },
    /// Our own limit: the next turn comes after the deadline.
    NoTurn(Duration),
    /// The endpoint limits how often it is asked.
    Busy { retry_after: Option<Duration> },
    /// The answer makes no sense.
    Nonsense(String),
    /// A refusal that other endpoints may not share: a key that is unknown here.
    Closed { code: i64, message: String },
    /// A refusal of what was asked.
    Refused { code: i64, message: String },
    /// The endpoint is of another network.
    Foreign { expected: i32, found: i32 },
    /// What was asked ended in an error of its own.
    Outcome(ChainError),
}

impl Fault {
    /// The fault of an answer that has no value: what its HTTP status, or the code in its body, and its words mean.
    pub(crate) fn of_code(reply: &Reply, code: i64, message: &str) -> Self {
        let message = clip(message);
        match code {
            429 => Self::Busy { retry_after: reply.retry_after },
            // tonlib's words for a liteserver that does not answer, or not yet.
            500 if ["LITE_SERVER_NETWORK", "LITE_SERVER_NOTREADY", "LITE_SERVER_TIMEOUT"]
                .iter()
                .any(|words| message.contains(words)) =>
            {
                Self::Trouble { code, message }
            }
            502..=504 => match reply.retry_after {
                Some(_) => Self::Busy { retry_after: reply.retry_after },
                None => Self::Trouble { code, message },
            },
            401 | 403 => Self::Closed { code, message },
            _ => Self::Refused { code, message },
        }
    }

    pub(crate) fn nonsense(why: impl std::fmt::Display) -> Self {
        Self::Nonsense(clip(&why.to_string()))
    }

    /// Whether no endpoint would say anything else.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Outcome(_))
    }

    /// Whether asking again later may help.
    pub(crate) fn passes(&self) -> bool {
        matches!(
            self,
            Self::Away(_) | Self::Silent(_) | Self::Trouble { .. } | Self::Busy { .. } | Self::NoTurn(_)
        )
    }

    /// Whether the endpoint may have done what was asked.
    pub(crate) fn leaves_doubt(&self) -> bool {
        matches!(self, Self::Silent(_) | Self::Trouble { .. } | Self::Nonsense(_))
    }

    /// The same fault of a question that came before the one that was meant: that one was not asked.
    pub(crate) fn before(self) -> Self {
        match self {
            Self::Silent(why) => Self::Away(why),
            Self::Trouble { code, message } => Self::Away(format!("code {code}: {message}")),
            Self::Refused { code, message } => Self::Closed { code, message },
            other => other,
        }
    }

    pub(crate) fn explain(self, root: &str, request: &Request) -> ChainError {
        let (url, method) = (root.to_owned(), request.name.to_owned());
        match self {
            Self::Away(why) | Self::Silent(why) => ChainError::Unreachable { url, method, why },
            Self::Trouble { code, message } => {
                ChainError::Unreachable { url, method, why: format!("code {code}: {message}") }
            }
            Self::Busy { retry_after } => {
                ChainError::RateLimited { url, method, retry_after: retry_after.unwrap_or(UNSAID_WAIT) }
            }
            Self::NoTurn(retry_after) => ChainError::RateLimited { url, method, retry_after },
            Self::Nonsense(why) => ChainError::BadAnswer { url, method, why },
            Self::Closed { code, message } | Self::Refused { code, message } => {
                ChainError::Refused { url, method, code, message }
            }
            Self::Foreign { expected, found } => ChainError::WrongNetwork { url, expected, found },
            Self::Outcome(error) => error,
        }
    }
}

/// A service's words, on one line: a line of its own could pass for one of ours. Cut short when long.
pub(crate) fn clip(text: &str) -> String {
    let plain = text.chars().take(MAX_ECHO).map(|c| if c.is_control() { ' ' } else { c });
    plain.collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_writes_no_line_of_its_own() {
        let said = clip("oops\nwhat to do: send\u{1b}[31m all\r\n to me");
        assert_eq!(said, "oops what to do: send [31m all to me");
        assert_eq!(clip(&"x".repeat(100_000)).len(), MAX_ECHO);
    }
}
