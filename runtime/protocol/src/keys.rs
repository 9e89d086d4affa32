//! The guest's two keys. Both are born in memory, never written, and have one role each.

use crate::crypto::random;
use hpke::{Deserializable, Kem as _, Serializable};
use ring::signature::{Ed25519KeyPair, KeyPair};
use zeroize::Zeroizing;

pub(crate) type Kem = hpke::kem::XWing;
pub(crate) type PublicKey = <Kem as hpke::Kem>::PublicKey;
pub(crate) type EncappedKey = <Kem as hpke::Kem>::EncappedKey;

/// Bytes of an X-Wing public key.
pub const SEAL_KEY_BYTES: usize = 1216;
/// Bytes of an X-Wing encapsulated key.
pub(crate) const ENCAPPED_BYTES: usize = 1120;

/// Opens requests: X-Wing (X25519 and ML-KEM-768), so that what is recorded today stays private tomorrow.
pub struct SealKey {
    private: <Kem as hpke::Kem>::PrivateKey, // wiped on drop by x-wing
    public: Vec<u8>,
}

impl SealKey {
    /// A new random key.
    pub fn generate() -> Self {
        let (private, public) = Kem::gen_keypair();
        Self { private, public: public.to_bytes().to_vec() }
    }

    /// The public half, [`SEAL_KEY_BYTES`] long, for the statement.
    pub fn public_bytes(&self) -> &[u8] {
        &self.public
    }

    pub(crate) fn private(&self) -> &<Kem as hpke::Kem>::PrivateKey {
        &self.private
    }
}

pub(crate) fn public_key(bytes: &[u8]) -> Option<PublicKey> {
    PublicKey::from_bytes(bytes).ok()
}

/// Signs receipts: Ed25519. Only the seed is kept, and wiped on drop; the expanded key lives for one signature.
pub struct ReceiptKey {
    seed: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl ReceiptKey {
    /// A new random key.
    pub fn generate() -> Self {
        let seed = Zeroizing::new(random());
        let public =
            pair(&seed).public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes");
        Self { seed, public }
    }

    /// The public half, for the statement.
    pub fn public_bytes(&self) -> &[u8; 32] {
        &self.public
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        pair(&self.seed).sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

fn pair(seed: &[u8; 32]) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are an Ed25519 seed")
}
