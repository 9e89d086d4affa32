//! Ed25519 keys of payers and wallets.

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use zeroize::Zeroizing;

/// An Ed25519 public key, 32 bytes.
pub type VerifyingKey = [u8; 32];

/// Why a key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The key is a point of small order: anybody can sign for it.
    #[error(
        "the public key is a point of small order, for which anybody can make signatures: use another key"
    )]
    SmallOrder,
    /// The system's random generator failed.
    #[error("the system's random generator gave no bytes: no key was made")]
    NoRandom,
}

/// An Ed25519 signing key, kept as its seed and wiped when dropped. Has no `Debug`, `Display` or `Serialize`:
///
/// ```compile_fail
/// println!("{:?}", cocoon_contracts::SigningKey::from_seed(&[1; 32]));
/// ```
///
/// ```compile_fail
/// println!("{}", cocoon_contracts::SigningKey::from_seed(&[1; 32]));
/// ```
pub struct SigningKey {
    seed: Zeroizing<[u8; 32]>,
    pair: Ed25519KeyPair,
}

impl SigningKey {
    /// A new random key.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(&mut *seed).map_err(|_| KeyError::NoRandom)?;
        Ok(Self::from_seed(&seed))
    }

    /// The key of a seed (RFC 8032's private key).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("every 32 bytes are a seed");
        Self { seed: Zeroizing::new(*seed), pair }
    }

    /// The public key.
    pub fn public(&self) -> VerifyingKey {
        self.pair.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes")
    }

    /// Signs a message. What is signed must say what it is: sign hashes of cells with a tag.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.pair.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }

    /// The secret itself, to be written to a key file. Named loudly on purpose.
    pub fn expose_seed(&self) -> &[u8; 32] {
        &self.seed
    }
}

/// True when the signature of this message verifies under this key. Keys of small order verify nothing.
pub fn verify_signature(key: &VerifyingKey, message: &[u8], signature: &[u8; 64]) -> bool {
    check_key(key).is_ok() && UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
}

/// Refuses the encodings of points of small order (the zero key and the identity among them), for which signatures can
/// be made without a secret. TVM before version 13 accepts them.
pub fn check_key(key: &VerifyingKey) -> Result<(), KeyError> {
    let mut unsigned = *key;
    unsigned[31] &= 0x7f; // the sign of x does not change the order
    if SMALL_ORDER.contains(&unsigned) { Err(KeyError::SmallOrder) } else { Ok(()) }
}

/// y coordinates of the points of order 1, 2, 4 and 8, with their encodings above the field's prime.
const SMALL_ORDER: [[u8; 32]; 7] = [
    [0; 32],
    low(1),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5,
        0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a,
        0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
    high(0xec),
    high(0xed),
    high(0xee),
];

const fn low(first: u8) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[0] = first;
    bytes
}

const fn high(first: u8) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    bytes[0] = first;
    bytes[31] = 0x7f;
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_as_rfc_8032_says() {
        // RFC 8032, 7.1, test 2.
        let seed = hex::decode("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb").unwrap();
        let key = SigningKey::from_seed(seed.as_slice().try_into().unwrap());
        assert_eq!(
            hex::encode(key.public()),
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
        );
        let signature = key.sign(&[0x72]);
        assert!(hex::encode(signature).starts_with("92a009a9f0d4cab8720e820b5f642540"));
        assert!(verify_signature(&key.public(), &[0x72], &signature));
        assert!(!verify_signature(&key.public(), &[0x73], &signature));
    }

    #[test]
    fn refuses_keys_that_anybody_can_sign_for() {
        for mut key in SMALL_ORDER {
            assert_eq!(check_key(&key), Err(KeyError::SmallOrder));
            key[31] |= 0x80;
            assert_eq!(check_key(&key), Err(KeyError::SmallOrder));
            // The forgery: R = identity, s = 0.
            let mut forged = [0; 64];
            forged[0] = 1;
            assert!(!verify_signature(&key, b"anything", &forged));
        }
        assert_eq!(check_key(&SigningKey::from_seed(&[7; 32]).public()), Ok(()));
    }
}
