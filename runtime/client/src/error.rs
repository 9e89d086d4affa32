//! Why a question was not answered: who is to blame, and what to do.

use cocoon_accounts::{KeepError, PayError, StoreError};
use cocoon_attestation::Refusal;
use cocoon_chain::ChainError;
use cocoon_contracts::{InTon, Nanotons};
use cocoon_protocol::{AnswerError, Price, SealError, http::code};

use crate::policy::PolicyError;

/// An error of the client's journey.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The gateway could not be reached, or the connection broke before an answer began.
    #[error("the gateway {url} cannot be reached: {why}")]
    Unreachable {
        /// The gateway.
        url: String,
        /// What the network said.
        why: String,
    },
    /// The gateway, host or guest refused, in the clear and before any work.
    #[error("the gateway refused ({status}, {code}): {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Code of the error body, as `busy`.
        code: String,
        /// Its message.
        message: String,
    },
    /// The gateway answered something that is not its API.
    #[error("the gateway answered nonsense for {what}: {why}")]
    Nonsense {
        /// Which reply.
        what: &'static str,
        /// What was wrong with it.
        why: String,
    },
    /// The gateway is of another network.
    #[error("the gateway is on network {found}, this client on {expected}")]
    WrongNetwork {
        /// The client's.
        expected: i32,
        /// The gateway's.
        found: i32,
    },
    /// The gateway has no worker at all.
    #[error("the gateway lists no worker at the moment")]
    NoWorker,
    /// No worker serves the model.
    #[error("no worker serves {model:?}; there are: {available}")]
    NoSuchModel {
        /// What was asked for.
        model: String,
        /// What the listing has.
        available: String,
    },
    /// A worker's evidence does not hold, or is not what is accepted. Nothing was sealed.
    #[error("worker {worker} is not acceptable: {refusal}")]
    Untrusted {
        /// The gateway's name for it.
        worker: String,
        /// Which check, expected, found, what it means.
        refusal: Box<Refusal>,
    },
    /// The gateway asks for more than the registry allows, or by another price list.
    #[error("the gateway asks {asked}; the registry allows at most {most}")]
    Overpriced {
        /// The listed price.
        asked: Price,
        /// The registry's price at the highest coefficient.
        most: Price,
    },
    /// The worker's evidence has grown old since it was verified.
    #[error("the worker's evidence has expired")]
    Expired,
    /// The policy could not be made.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The chain could not be read or written.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The wallet holds too little to open the channel.
    #[error(
        "the wallet {wallet} holds {} TON, a channel with {} TON and its fees needs {}",
        InTon(*balance), InTon(*deposit), InTon(*needed)
    )]
    PoorWallet {
        /// Its address.
        wallet: String,
        /// What it holds.
        balance: Nanotons,
        /// The deposit asked for.
        deposit: Nanotons,
        /// Deposit and fees.
        needed: Nanotons,
    },
    /// Sealing failed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The stream ended before the answer did.
    #[error(
        "the answer broke off after {completion_tokens} tokens ({why}); {owed} nanotons are owed for what arrived"
    )]
    Interrupted {
        /// Tokens that arrived.
        completion_tokens: u32,
        /// What those cost.
        owed: Nanotons,
        /// What the connection said.
        why: String,
    },
    /// The answer or its receipt is not the worker's: somebody on the way changed it.
    #[error("the answer does not hold: {error}; {owed} nanotons are owed for the part that did")]
    Tampered {
        /// Which check failed.
        error: AnswerError,
        /// What the authentic frames cost.
        owed: Nanotons,
    },
    /// The books refused.
    #[error(transparent)]
    Pay(#[from] PayError),
    /// The disk refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<KeepError> for ClientError {
    fn from(error: KeepError) -> Self {
        match error {
            KeepError::Chain(error) => Self::Chain(error),
            KeepError::Book(error) => Self::Pay(error),
        }
    }
}

impl ClientError {
    /// What to do about it, in a sentence.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => {
                "check that the gateway runs and its address is right, or name another gateway"
            }
            Self::Refused { code, .. } => match code.as_str() {
                "busy" => "try again in a moment, or use another worker",
                "insufficient_deposit" => {
                    "let the deposit grow with --most TON, add to it with `cocoon channel topup`, or ask for fewer tokens"
                }
                "voucher_required" => {
                    "the gateway holds less than it is owed: check that the client can reach it, then ask again"
                }
                "stale_statement" => "ask again: the worker has newer evidence",
                _ => "read the message; if it is the gateway's fault, use another",
            },
            Self::Nonsense { .. } => "this is not a gateway of this version: check the address, or update",
            Self::WrongNetwork { .. } => "use a gateway of this network",
            Self::NoWorker => {
                "try again in a minute: hosts register again by themselves; or use another gateway"
            }
            Self::NoSuchModel { .. } => "choose one of the models named",
            Self::Untrusted { .. } => {
                "nothing was sent; if the difference is expected, change the policy or the registry, never the check"
            }
            Self::Overpriced { .. } => "use another gateway",
            Self::Expired => "look for the worker again: its evidence is renewed every minute",
            Self::Policy(_) => "check the registry's address and the policy file",
            Self::Chain(_) => "check that the chain's endpoint runs and is reachable",
            Self::PoorWallet { .. } => "send coins to the wallet, or choose a smaller deposit",
            Self::Seal(_) => "fetch the worker's evidence again",
            Self::Interrupted { .. } => {
                "ask again; at most one window of tokens is owed for the broken answer"
            }
            Self::Tampered { .. } => "use another gateway; keep the files of this answer as proof",
            Self::Pay(_) => "top the channel up or open another",
            Self::Store(_) => "check the disk and the state folder; nothing was signed",
        }
    }

    /// Whether this is the worker's fault, or may be: another should be tried first next time.
    pub fn blames_worker(&self) -> bool {
        match self {
            Self::Interrupted { .. } | Self::Tampered { .. } => true,
            Self::Refused { status, .. } => *status >= 500,
            _ => false,
        }
    }

    /// Whether the gateway found too little left of the deposit. Nothing was begun.
    pub(crate) fn wants_deposit(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == code::INSUFFICIENT_DEPOSIT)
    }

    /// Whether another try with fresh evidence may succeed, nothing having been answered yet.
    pub(crate) fn wants_fresh_evidence(&self) -> bool {
        const CODES: [&str; 5] = [
            "stale_statement",
            "statement_exhausted",
            "unknown_worker",
            "guest_starting",
            "guest_unreachable",
        ];
        match self {
            Self::Expired => true,
            Self::Refused { code, .. } => CODES.contains(&code.as_str()),
            _ => false,
        }
    }
}
