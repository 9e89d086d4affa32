//! What can go wrong between us and the chain: what happened, to what, and what to do.
//!
//! Whether to try again is decided in one place: [`ChainError::is_temporary`].

use std::time::Duration;

use cocoon_contracts::{Address, InTon, Malformed, Nanotons};

/// An error of the chain or of the way to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The endpoint's address is not an HTTP URL.
    #[error("`{url}` is not the URL of a TON endpoint ({why}): give one such as http://127.0.0.1:8081")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nothing answered, also after retries; or the service says that it is in trouble itself.
    #[error("the TON endpoint {url} does not answer {method} ({why}): check that it runs and is reachable")]
    Unreachable {
        /// The endpoint.
        url: String,
        /// What was asked.
        method: String,
        /// The last failure.
        why: String,
    },
    /// Every endpoint limits how often it may be asked, and the limit is reached.
    #[error(
        "the TON endpoint {url} takes no more requests for {} s ({method}): wait, or use an API key",
        retry_after.as_secs_f32()
    )]
    RateLimited {
        /// The endpoint that frees up first.
        url: String,
        /// What was asked.
        method: String,
        /// When to ask again.
        retry_after: Duration,
    },
    /// The endpoint serves another network than the one that is wanted. Nothing of it is believed.
    #[error(
        "the TON endpoint {url} is of network {found}, not {expected}: correct the address or the network"
    )]
    WrongNetwork {
        /// The endpoint.
        url: String,
        /// The global id that is wanted.
        expected: i32,
        /// The global id that it has.
        found: i32,
    },
    /// A server's answer does not prove what it says. Another server may answer honestly.
    #[error("{server} answered {method} without proof ({why}): it is broken or lies; use another")]
    Unproven {
        /// The server.
        server: String,
        /// What was asked.
        method: String,
        /// Which step of the proof failed.
        why: String,
    },
    /// The newest block that could be proven is older than allowed.
    #[error("the newest block of {server} is {age_seconds} s old: it lags, or this machine's clock is wrong")]
    Stale {
        /// The server.
        server: String,
        /// The block's age by this machine's clock.
        age_seconds: u64,
    },
    /// This way to the chain cannot do what was asked.
    #[error("{backend} cannot {action}: {instead}")]
    Unsupported {
        /// The kind of chain.
        backend: &'static str,
        /// What was wanted.
        action: &'static str,
        /// What can be done instead.
        instead: &'static str,
    },
    /// A file or variable that says how to reach the chain cannot be used.
    #[error("{what} cannot be used ({why})")]
    Settings {
        /// Which file or variable.
        what: String,
        /// What is wrong with it; never a secret.
        why: String,
    },
    /// The endpoint answered with an error that will stay.
    #[error("the TON endpoint {url} refused {method} (code {code}): {message}")]
    Refused {
        /// The endpoint.
        url: String,
        /// What was asked.
        method: String,
        /// Its error code.
        code: i64,
        /// Its words, cut short when long.
        message: String,
    },
    /// The endpoint answered something that is not of the shape that was expected.
    #[error("the TON endpoint {url} answered {method} with nonsense ({why}): is it a service of this kind?")]
    BadAnswer {
        /// The endpoint.
        url: String,
        /// What was asked.
        method: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// A get-method ended with an exit code.
    #[error("the get-method {method} of {address} ended with exit code {exit_code}")]
    GetMethod {
        /// The contract.
        address: Box<Address>,
        /// The method.
        method: String,
        /// Its exit code.
        exit_code: i32,
    },
    /// The account at an address is not what it should be.
    #[error("the account {address} is no {expected}: {why}")]
    WrongAccount {
        /// The account.
        address: Box<Address>,
        /// `channel`, `registry` or `wallet`.
        expected: &'static str,
        /// How one can tell.
        why: String,
    },
    /// A wallet has too little.
    #[error("the wallet {address} holds {} TON and needs {}: send it the difference", InTon(*have), InTon(*need))]
    InsufficientBalance {
        /// The wallet.
        address: Box<Address>,
        /// Amount and fees.
        need: Nanotons,
        /// What is there.
        have: Nanotons,
    },
    /// A contract refused what a wallet sent; the money came back, less fees.
    #[error("{address} refused to {action}: {meaning} (exit code {exit_code})")]
    ContractRefused {
        /// The contract.
        address: Box<Address>,
        /// What was wanted.
        action: &'static str,
        /// The exit code of its transaction.
        exit_code: i32,
        /// What it means.
        meaning: String,
    },
    /// A message did not happen in time.
    #[error("{action} at {address} did not happen within {seconds} s: {remedy}")]
    NotConfirmed {
        /// What was wanted.
        action: &'static str,
        /// Where.
        address: Box<Address>,
        /// How long was waited.
        seconds: u64,
        /// What to do.
        remedy: &'static str,
    },
    /// A message was handed in, and the chain fell silent before it said whether it happened. Never to be answered with
    /// another one: [`crate::Wallet`] itself asks for its fate first.
    #[error(
        "the chain fell silent before it said whether message {seqno} of the wallet {address} happened (it may until {valid_until}, Unix time): look at the wallet before sending again"
    )]
    FateUnknown {
        /// The wallet.
        address: Box<Address>,
        /// The wallet's number that the message takes.
        seqno: u32,
        /// After this second of the chain's clock it cannot happen.
        valid_until: u32,
    },
    /// What was asked cannot be put into a message, or must not.
    #[error("cannot {action}: {why}")]
    Invalid {
        /// What was wanted.
        action: &'static str,
        /// Why not.
        why: String,
    },
}

impl ChainError {
    /// Whether the same call may succeed later although nothing is corrected: nobody answers, a limit is reached, a
    /// server lags or answered badly where another may answer well. After such an error of [`crate::Chain::send`] the
    /// message may or may not be on its way.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::RateLimited { .. }
            | Self::Unproven { .. }
            | Self::Stale { .. } => true,
            Self::Url { .. }
            | Self::WrongNetwork { .. }
            | Self::Unsupported { .. }
            | Self::Settings { .. }
            | Self::Refused { .. }
            | Self::BadAnswer { .. }
            | Self::GetMethod { .. }
            | Self::WrongAccount { .. }
            | Self::InsufficientBalance { .. }
            | Self::ContractRefused { .. }
            | Self::NotConfirmed { .. }
            | Self::FateUnknown { .. }
            | Self::Invalid { .. } => false,
        }
    }

    /// When to ask again, if the other side said so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    pub(crate) fn wrong_account(
        address: &Address,
        expected: &'static str,
        why: impl std::fmt::Display,
    ) -> Self {
        Self::WrongAccount { address: Box::new(address.clone()), expected, why: why.to_string() }
    }

    pub(crate) fn invalid(action: &'static str, why: impl std::fmt::Display) -> Self {
        Self::Invalid { action, why: why.to_string() }
    }
}

impl From<Malformed> for ChainError {
    fn from(error: Malformed) -> Self {
        Self::invalid("build the message", error)
    }
}
