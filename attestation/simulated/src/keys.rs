//! P-256 keys that sign in both forms Intel uses.

use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
};

/// A signing key. It has no `Debug` and no way out but [`Key::pkcs8`], for the store.
pub(crate) struct Key {
    pkcs8: Vec<u8>,
    asn1: EcdsaKeyPair,
    fixed: EcdsaKeyPair,
}

impl Key {
    pub(crate) fn generate() -> Self {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
            .expect("the system's random source works");
        Self::from_pkcs8(document.as_ref().to_vec()).expect("ring reads what it wrote")
    }

    pub(crate) fn from_pkcs8(pkcs8: Vec<u8>) -> Option<Self> {
        let random = SystemRandom::new();
        let asn1 = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8, &random).ok()?;
        let fixed = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &random).ok()?;
        Some(Self { pkcs8, asn1, fixed })
    }

    pub(crate) fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// Uncompressed point: 4 ‖ x ‖ y.
    pub(crate) fn public(&self) -> &[u8] {
        self.asn1.public_key().as_ref()
    }

    /// A DER signature, as in certificates.
    pub(crate) fn sign_der(&self, message: &[u8]) -> Vec<u8> {
        let signature = self.asn1.sign(&SystemRandom::new(), message);
        signature.expect("the system's random source works").as_ref().to_vec()
    }

    /// r ‖ s, as in quotes and collateral.
    pub(crate) fn sign_raw(&self, message: &[u8]) -> [u8; 64] {
        let signature =
            self.fixed.sign(&SystemRandom::new(), message).expect("the system's random source works");
        signature.as_ref().try_into().expect("P-256 signatures are 64 bytes")
    }
}

/// The key a quoting enclave signs quotes with; lives as long as its emulator.
pub struct AttestationKey(pub(crate) Key);

impl AttestationKey {
    /// A fresh key.
    pub fn generate() -> Self {
        Self(Key::generate())
    }

    /// x ‖ y.
    pub fn public(&self) -> [u8; 64] {
        self.0.public()[1..].try_into().expect("an uncompressed P-256 point is 65 bytes")
    }
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    ring::rand::SecureRandom::fill(&SystemRandom::new(), &mut bytes)
        .expect("the system's random source works");
    bytes
}
