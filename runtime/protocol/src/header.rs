//! The open part of a request: what gateway and host must know to route it and to be paid.

use crate::cbor::{Fields, Map};
use crate::{Budget, Price, WireError};

/// Most bytes of an encoded header.
pub const MAX_HEADER: usize = 512;

const VERSION: u8 = 2;

/// In the clear, and bound to the sealed body: a changed header makes the seal fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// TON global id.
    pub network: i32,
    /// Random, chosen by the client; a guest takes each id once.
    pub request_id: [u8; 16],
    /// Digest of the statement to whose seal key the request is sealed.
    pub statement: [u8; 32],
    /// Weights of the model that is asked.
    pub model: [u8; 32],
    /// The most that the client pays for.
    pub budget: Budget,
    /// What the client pays the party it sends this to.
    pub price: Price,
}

impl RequestHeader {
    /// Canonical CBOR, at most [`MAX_HEADER`] bytes.
    pub fn encode(&self) -> Vec<u8> {
        Map::default()
            .int(0, VERSION)
            .int(1, self.network)
            .bytes(2, &self.request_id)
            .bytes(3, &self.statement)
            .bytes(4, &self.model)
            .ints(5, &[self.budget.prompt_tokens.into(), self.budget.completion_tokens.into()])
            .price(6, &self.price)
            .encode()
    }

    /// Reads one header and nothing else.
    ///
    /// # Errors
    /// [`WireError::Oversized`] or [`WireError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > MAX_HEADER {
            return Err(WireError::Oversized { what: "header", limit: MAX_HEADER, got: bytes.len() });
        }
        Self::fields(bytes).ok_or(WireError::Malformed { what: "header" })
    }

    fn fields(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::decode(bytes)?;
        if fields.int::<u8>(0)? != VERSION {
            return None;
        }
        let network = fields.int(1)?;
        let request_id = fields.array(2)?;
        let statement = fields.array(3)?;
        let model = fields.array(4)?;
        let [prompt_tokens, completion_tokens] = fields.ints(5)?;
        let price = fields.price(6)?;
        fields.finish()?;
        let budget = Budget { prompt_tokens, completion_tokens };
        Some(Self { network, request_id, statement, model, budget, price })
    }
}

/// Which endpoint of the OpenAI API the sealed body is for. Sealed too: relays do not see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v1/chat/completions`
    ChatCompletions,
    /// `/v1/completions`
    Completions,
    /// `/v1/responses`
    Responses,
    /// `/v1/embeddings`
    Embeddings,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::ChatCompletions, Self::Completions, Self::Responses, Self::Embeddings];

    pub(crate) fn code(self) -> u8 {
        match self {
            Self::ChatCompletions => 1,
            Self::Completions => 2,
            Self::Responses => 3,
            Self::Embeddings => 4,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|endpoint| endpoint.code() == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_endpoint_has_a_code_of_its_own() {
        for endpoint in Endpoint::ALL {
            assert_eq!(Endpoint::from_code(endpoint.code()), Some(endpoint));
        }
        assert_eq!((Endpoint::from_code(0), Endpoint::from_code(5)), (None, None));
    }
}
