//! What one try with one server came to.

use cocoon_chain::ChainError;

use crate::peer::Peer;
use crate::proof::ProofError;
use crate::wire::AnswerError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fail {
    /// Not reached, or it lags behind what was seen.
    Away(String),
    /// Asked, and its answer was lost.
    Silent(String),
    /// Bytes that are no answer.
    Malformed(String),
    /// Its newest block is this many seconds old.
    Stale(u64),
    /// It says that it cannot, with a code.
    Refused(i32, String),
    /// Its answer does not prove what it says.
    Unproven(ProofError),
}

impl Fail {
    /// Of several servers' failures the one that says most is told.
    pub(crate) fn rank(&self) -> u8 {
        match self {
            Self::Away(_) | Self::Silent(_) => 0,
            Self::Malformed(_) => 1,
            Self::Refused(..) => 2,
            Self::Stale(_) => 3,
            Self::Unproven(_) => 4,
        }
    }

    pub(crate) fn explain(self, peer: &Peer, method: &'static str) -> ChainError {
        let (url, method) = (format!("liteserver {}", peer.name()), method.to_owned());
        match self {
            Self::Away(why) | Self::Silent(why) => ChainError::Unreachable { url, method, why },
            Self::Malformed(why) => ChainError::BadAnswer { url, method, why },
            Self::Stale(age_seconds) => ChainError::Stale { server: url, age_seconds },
            Self::Refused(code, message) => {
                ChainError::Refused { url, method, code: i64::from(code), message }
            }
            Self::Unproven(error) => ChainError::Unproven { server: url, method, why: error.to_string() },
        }
    }
}

impl From<AnswerError> for Fail {
    fn from(error: AnswerError) -> Self {
        match error {
            AnswerError::Refused { code, message } => Self::Refused(code, message),
            AnswerError::Malformed(why) => Self::Malformed(why),
        }
    }
}

impl From<ProofError> for Fail {
    fn from(error: ProofError) -> Self {
        Self::Unproven(error)
    }
}
