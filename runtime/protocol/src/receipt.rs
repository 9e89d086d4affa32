//! Receipts: what a guest swears about an answer, and the opening that only the client gets.

use crate::cbor::{Fields, Map};
use crate::crypto::sha256;
use crate::{Price, ReceiptError, ReceiptKey, RequestHeader, Usage};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Serialize, Serializer};

/// Most bytes of an encoded signed receipt.
pub const MAX_RECEIPT: usize = 1024;
/// Most bytes of an encoded opening.
pub(crate) const MAX_OPENING: usize = 512;

const VERSION: u8 = 2;
const RECEIPT_DOMAIN: &[u8] = b"cocoon receipt v1";
const OPENING_DOMAIN: &[u8] = b"cocoon opening v1";

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The model stopped, or a stop string was met.
    Stop,
    /// The token limit or the budget was reached.
    Length,
    /// The reader went away.
    Cancelled,
    /// A sealed error was the answer.
    Error,
}

impl Outcome {
    fn code(self) -> u8 {
        match self {
            Self::Stop => 0,
            Self::Length => 1,
            Self::Cancelled => 2,
            Self::Error => 3,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Self::Stop, Self::Length, Self::Cancelled, Self::Error].into_iter().find(|it| it.code() == code)
    }
}

/// The open part: readable by all who relay it, so it holds counts and digests only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// TON global id.
    pub network: i32,
    /// Of the request.
    #[serde(serialize_with = "as_hex")]
    pub request_id: [u8; 16],
    /// Digest of the statement that the request was sealed under.
    #[serde(serialize_with = "as_hex")]
    pub statement: [u8; 32],
    /// Weights of the model that answered.
    #[serde(serialize_with = "as_hex")]
    pub model: [u8; 32],
    /// Tokens in all.
    pub usage: Usage,
    /// As in the request's header.
    pub price: Price,
    /// Unix milliseconds by the guest's clock when work began. The host can set that clock: an indication, not a proof.
    pub started_ms: u64,
    /// Unix milliseconds when it ended.
    pub finished_ms: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Commits to an [`Opening`].
    #[serde(serialize_with = "as_hex")]
    pub commitment: [u8; 32],
}

fn as_hex<S: Serializer, const N: usize>(bytes: &[u8; N], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(bytes))
}

impl Receipt {
    /// What the client owes for it, in nanotons.
    pub fn bill(&self) -> u64 {
        self.price.bill(&self.usage)
    }

    /// Checks that the receipt is for this request and within its budget.
    ///
    /// # Errors
    /// [`ReceiptError::Mismatch`] with the field.
    pub fn answers(&self, header: &RequestHeader) -> Result<(), ReceiptError> {
        let fields = [
            ("network", self.network == header.network),
            ("request id", self.request_id == header.request_id),
            ("statement", self.statement == header.statement),
            ("model", self.model == header.model),
            ("price", self.price == header.price),
            ("usage", self.usage.within(&header.budget)),
            ("times", self.started_ms <= self.finished_ms),
        ];
        match fields.iter().find(|(_, holds)| !holds) {
            Some((field, _)) => Err(ReceiptError::Mismatch { field }),
            None => Ok(()),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let usage = &self.usage;
        Map::default()
            .int(0, VERSION)
            .int(1, self.network)
            .bytes(2, &self.request_id)
            .bytes(3, &self.statement)
            .bytes(4, &self.model)
            .ints(
                5,
                &[usage.prompt_tokens.into(), usage.cached_tokens.into(), usage.completion_tokens.into()],
            )
            .price(6, &self.price)
            .int(7, self.started_ms)
            .int(8, self.finished_ms)
            .int(9, self.outcome.code())
            .bytes(10, &self.commitment)
            .encode()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::decode(bytes)?;
        if fields.int::<u8>(0)? != VERSION {
            return None;
        }
        let network = fields.int(1)?;
        let request_id = fields.array(2)?;
        let statement = fields.array(3)?;
        let model = fields.array(4)?;
        let [prompt_tokens, cached_tokens, completion_tokens] = fields.ints(5)?;
        let price = fields.price(6)?;
        let started_ms = fields.int(7)?;
        let finished_ms = fields.int(8)?;
        let outcome = Outcome::from_code(fields.int(9)?)?;
        let commitment = fields.array(10)?;
        fields.finish()?;
        let usage = Usage { prompt_tokens, cached_tokens, completion_tokens };
        if !usage.is_consistent() {
            return None;
        }
        Some(Self {
            network,
            request_id,
            statement,
            model,
            usage,
            price,
            started_ms,
            finished_ms,
            outcome,
            commitment,
        })
    }
}

/// A receipt with its signature. What it claims counts only after [`SignedReceipt::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedReceipt {
    receipt: Receipt,
    signature: [u8; 64],
}

impl SignedReceipt {
    /// Signs Ed25519("cocoon receipt v1" ‖ CBOR).
    pub fn sign(receipt: Receipt, key: &ReceiptKey) -> Self {
        let signature = key.sign(&[RECEIPT_DOMAIN, &receipt.encode()].concat());
        Self { receipt, signature }
    }

    /// The receipt, if it was signed by `key`.
    ///
    /// # Errors
    /// [`ReceiptError::Signature`].
    pub fn verify(&self, key: &[u8; 32]) -> Result<&Receipt, ReceiptError> {
        let message = [RECEIPT_DOMAIN, &self.receipt.encode()].concat();
        UnparsedPublicKey::new(&ED25519, key)
            .verify(&message, &self.signature)
            .map_err(|_| ReceiptError::Signature)?;
        Ok(&self.receipt)
    }

    /// What it says, whoever signed it.
    pub fn claimed(&self) -> &Receipt {
        &self.receipt
    }

    /// Canonical CBOR `{0: receipt bytes, 1: signature}`, at most [`MAX_RECEIPT`] bytes.
    pub fn encode(&self) -> Vec<u8> {
        Map::default().bytes(0, &self.receipt.encode()).bytes(1, &self.signature).encode()
    }

    /// Reads one signed receipt and nothing else; the signature is not checked here.
    ///
    /// # Errors
    /// [`ReceiptError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ReceiptError> {
        if bytes.len() > MAX_RECEIPT {
            return Err(ReceiptError::Malformed);
        }
        Self::fields(bytes).ok_or(ReceiptError::Malformed)
    }

    fn fields(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::decode(bytes)?;
        let receipt = Receipt::decode(&fields.bytes(0)?)?;
        let signature = fields.array(1)?;
        fields.finish()?;
        Some(Self { receipt, signature })
    }

    /// SHA-256 of the encoding: the sealed last frame names the receipt by it.
    pub fn digest(&self) -> [u8; 32] {
        sha256(&[&self.encode()])
    }
}

/// With what the tokens were drawn, as the guest applied it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sampling {
    /// Of the random generator.
    pub seed: u64,
    /// 0 is greedy.
    pub temperature: f32,
    /// Nucleus; 1 is all.
    pub top_p: f32,
    /// 1 is none.
    pub repetition_penalty: f32,
    /// Most completion tokens that were allowed.
    pub max_tokens: u32,
}

/// The private part of a receipt: opens its commitment. It is sealed to the client, who may show it to an auditor.
///
/// No `Debug`: the hashes of short prompts can be guessed.
#[derive(Clone, PartialEq)]
pub struct Opening {
    /// Makes the commitment hide what it commits to.
    pub salt: [u8; 32],
    /// SHA-256 of the endpoint's code and the request's body.
    pub request_hash: [u8; 32],
    /// SHA-256 over every chunk and error of the answer: kind, `u32be` length, bytes.
    pub answer_hash: [u8; 32],
    /// With what it was drawn.
    pub sampling: Sampling,
}

impl Opening {
    /// Canonical CBOR.
    pub fn encode(&self) -> Vec<u8> {
        let sampling = &self.sampling;
        Map::default()
            .int(0, VERSION)
            .bytes(1, &self.salt)
            .bytes(2, &self.request_hash)
            .bytes(3, &self.answer_hash)
            .int(4, sampling.seed)
            .int(5, sampling.temperature.to_bits())
            .int(6, sampling.top_p.to_bits())
            .int(7, sampling.repetition_penalty.to_bits())
            .int(8, sampling.max_tokens)
            .encode()
    }

    /// Reads one opening and nothing else; `None` if malformed.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_OPENING {
            return None;
        }
        let mut fields = Fields::decode(bytes)?;
        if fields.int::<u8>(0)? != VERSION {
            return None;
        }
        let salt = fields.array(1)?;
        let request_hash = fields.array(2)?;
        let answer_hash = fields.array(3)?;
        let sampling = Sampling {
            seed: fields.int(4)?,
            temperature: f32::from_bits(fields.int(5)?),
            top_p: f32::from_bits(fields.int(6)?),
            repetition_penalty: f32::from_bits(fields.int(7)?),
            max_tokens: fields.int(8)?,
        };
        fields.finish()?;
        Some(Self { salt, request_hash, answer_hash, sampling })
    }

    /// SHA-256("cocoon opening v1" ‖ CBOR).
    pub fn commitment(&self) -> [u8; 32] {
        sha256(&[OPENING_DOMAIN, &self.encode()])
    }
}
