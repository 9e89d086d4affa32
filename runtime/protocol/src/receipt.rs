//! Receipts: what a guest swears about an answer.

use crate::cbor::{Fields, Map};
use crate::crypto::sha256;
use crate::{EngineId, Price, ReceiptError, ReceiptKey, RequestHeader, Usage};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Serialize, Serializer};

/// Most bytes of an encoded signed receipt.
pub const MAX_RECEIPT: usize = 1024;

/// The version that is written, and the only one that is read; an [`Opening`](crate::Opening) has its receipt's.
pub(crate) const VERSION: u8 = 3;
const RECEIPT_DOMAIN: &[u8] = b"cocoon receipt v1";

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
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Stop => 0,
            Self::Length => 1,
            Self::Cancelled => 2,
            Self::Error => 3,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
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
    /// What computed it.
    pub engine: EngineId,
    /// Commits to an [`Opening`](crate::Opening): request, answer, their tokens, and with what they were drawn.
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
        let map = Map::default()
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
            .bytes(10, &self.commitment);
        self.engine.add_to(map).encode()
    }

    fn decode(bytes: &[u8]) -> Result<Self, ReceiptError> {
        let mut fields = Fields::decode(bytes).ok_or(ReceiptError::Malformed)?;
        check_version(&mut fields)?;
        Self::fields(fields).ok_or(ReceiptError::Malformed)
    }

    /// All but the version.
    fn fields(mut fields: Fields) -> Option<Self> {
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
        let engine = EngineId::take_from(&mut fields)?;
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
            engine,
            commitment,
        })
    }
}

/// Takes the version, and refuses all but ours.
///
/// # Errors
/// [`ReceiptError::Version`], or [`ReceiptError::Malformed`] where there is none.
pub(crate) fn check_version(fields: &mut Fields) -> Result<(), ReceiptError> {
    match fields.int::<u8>(0).ok_or(ReceiptError::Malformed)? {
        VERSION => Ok(()),
        found => Err(ReceiptError::Version { found, expected: VERSION }),
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
    /// [`ReceiptError::Malformed`], or [`ReceiptError::Version`] for one of another time.
    pub fn decode(bytes: &[u8]) -> Result<Self, ReceiptError> {
        if bytes.len() > MAX_RECEIPT {
            return Err(ReceiptError::Malformed);
        }
        let (receipt, signature) = Self::parts(bytes).ok_or(ReceiptError::Malformed)?;
        Ok(Self { receipt: Receipt::decode(&receipt)?, signature })
    }

    fn parts(bytes: &[u8]) -> Option<(Vec<u8>, [u8; 64])> {
        let mut fields = Fields::decode(bytes)?;
        let parts = (fields.bytes(0)?, fields.array(1)?);
        fields.finish()?;
        Some(parts)
    }

    /// SHA-256 of the encoding: the sealed last frame names the receipt by it.
    pub fn digest(&self) -> [u8; 32] {
        sha256(&[&self.encode()])
    }
}
