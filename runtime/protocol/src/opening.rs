//! The private part of a receipt, which only the client gets.

use crate::cbor::{Fields, Map};
use crate::crypto::sha256;
use crate::receipt::{VERSION, check_version};
use crate::run::MAX_RUN;
use crate::{Embedded, ReceiptError, Run};
use zeroize::Zeroizing;

/// Most bytes of an encoded opening: a run, and three hashes.
pub const MAX_OPENING: usize = MAX_RUN + 256;

const OPENING_DOMAIN: &[u8] = b"cocoon opening v1";

/// Opens a receipt's commitment. It is sealed to the client, who may show it to an auditor: whoever has it can read the
/// prompt and the answer, and run them again.
///
/// No `Debug`: it holds plaintext, as tokens.
#[derive(Clone, PartialEq)]
pub struct Opening {
    /// Makes the commitment hide what it commits to.
    pub salt: [u8; 32],
    /// SHA-256 of the endpoint's code and the request's body.
    pub request_hash: [u8; 32],
    /// SHA-256 over every chunk and error of the answer: kind, `u32be` length, bytes.
    pub answer_hash: [u8; 32],
    /// What the engine was asked and what it wrote; `None` where no engine of ours did.
    pub run: Option<Run>,
    /// The texts that became vectors; `None` where none did.
    pub vectors: Option<Embedded>,
}

impl Opening {
    /// Canonical CBOR. Wiped when it goes.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let map = Map::default()
            .int(0, VERSION)
            .bytes(1, &self.salt)
            .bytes(2, &self.request_hash)
            .bytes(3, &self.answer_hash);
        let map = match &self.run {
            None => map,
            Some(run) => map.bytes(4, &run.encode()),
        };
        let map = match &self.vectors {
            None => map,
            Some(vectors) => map.bytes(5, &vectors.encode()),
        };
        Zeroizing::new(map.encode())
    }

    /// Reads one opening of at most [`MAX_OPENING`] bytes and nothing else.
    ///
    /// # Errors
    /// [`ReceiptError::BadOpening`], or [`ReceiptError::Version`] for one of another time.
    pub fn decode(bytes: &[u8]) -> Result<Self, ReceiptError> {
        if bytes.len() > MAX_OPENING {
            return Err(ReceiptError::BadOpening);
        }
        let mut fields = Fields::decode(bytes).ok_or(ReceiptError::BadOpening)?;
        check_version(&mut fields).map_err(|error| match error {
            ReceiptError::Malformed => ReceiptError::BadOpening,
            other => other,
        })?;
        Self::fields(fields).ok_or(ReceiptError::BadOpening)
    }

    /// All but the version.
    fn fields(mut fields: Fields) -> Option<Self> {
        let salt = fields.array(1)?;
        let request_hash = fields.array(2)?;
        let answer_hash = fields.array(3)?;
        let run = match fields.has(4) {
            true => Some(Run::decode(&Zeroizing::new(fields.bytes(4)?))?),
            false => None,
        };
        let vectors = match fields.has(5) {
            // One answer is of one kind, and has room for one.
            true if run.is_some() => return None,
            true => Some(Embedded::decode(&Zeroizing::new(fields.bytes(5)?))?),
            false => None,
        };
        fields.finish()?;
        Some(Self { salt, request_hash, answer_hash, run, vectors })
    }

    /// SHA-256("cocoon opening v1" ‖ CBOR).
    pub fn commitment(&self) -> [u8; 32] {
        sha256(&[OPENING_DOMAIN, &self.encode()])
    }
}
