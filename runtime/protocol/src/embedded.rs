//! Texts as an embedding model had them, and what it made of them: enough to make the vectors again and compare.

use crate::cbor::{Fields, Map};
use crate::run::{MAX_RUN_TOKENS, Packed, packed, unpacked};
use ring::digest::{Context, SHA256};
use zeroize::Zeroizing;

/// Most texts, as the guest.
const MAX_INPUTS: usize = 2048;

/// Texts that became vectors.
///
/// No `Debug`: tokens are plaintext.
#[derive(Clone, PartialEq)]
pub struct Embedded {
    /// The tokens of each text, those that begin and end it among them.
    pub inputs: Vec<Zeroizing<Vec<u32>>>,
    /// Of the vectors: what [`VectorsHash`] says.
    pub vectors: [u8; 32],
}

/// SHA-256 over all vectors, one after the other: each number the bits of its 32-bit float, little-endian.
pub struct VectorsHash(Context);

impl Default for VectorsHash {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl VectorsHash {
    /// Takes the next vector in.
    pub fn add(&mut self, vector: &[f32]) {
        vector.iter().for_each(|number| self.0.update(&number.to_le_bytes()));
    }

    /// Of all of them.
    pub fn finish(self) -> [u8; 32] {
        self.0.finish().as_ref().try_into().expect("SHA-256 gives 32 bytes")
    }
}

impl Embedded {
    /// Tokens of all texts together.
    pub fn tokens(&self) -> usize {
        self.inputs.iter().map(|tokens| tokens.len()).sum()
    }

    /// Whether it is within the limits that [`Self::decode`] keeps.
    pub(crate) fn fits(&self) -> bool {
        (1..=MAX_INPUTS).contains(&self.inputs.len()) && self.tokens() <= MAX_RUN_TOKENS
    }

    /// Canonical CBOR. Tokens are `u32be` one after the other.
    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let inputs = self.inputs.iter().map(|tokens| Packed(packed(tokens)));
        Zeroizing::new(Map::default().blobs(0, inputs).bytes(1, &self.vectors).encode())
    }

    /// Reads what [`Self::encode`] wrote; `None` for anything else, or what is over a limit. The caller has limited the
    /// length.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::decode(bytes)?;
        let inputs = fields.blobs(0, MAX_INPUTS)?.into_iter().map(unpacked).collect::<Option<_>>()?;
        let vectors = fields.array(1)?;
        fields.finish()?;
        let embedded = Self { inputs, vectors };
        embedded.fits().then_some(embedded)
    }
}
