//! What can go wrong between us and the chain: what happened, to what, and what to do.

use cocoon_contracts::{Address, Malformed, Nanotons};

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
    /// Nothing answered, also after retries.
    #[error("the TON endpoint {url} does not answer {method} ({why}): check that it runs and is reachable")]
    Unreachable {
        /// The endpoint.
        url: String,
        /// What was asked.
        method: String,
        /// The last failure.
        why: String,
    },
    /// The endpoint answered with an error.
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
    /// The endpoint answered something that is not of the toncenter v2 shape.
    #[error("the TON endpoint {url} answered {method} with nonsense ({why}): is it a toncenter v2 endpoint?")]
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
    #[error("the wallet {address} holds {have} nanotons and needs {need}: send it the difference")]
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
