//! RustCrypto: slower, and all Rust.

use rsa::pkcs1::DecodeRsaPublicKey;
use rsa::traits::PublicKeyParts;
use rsa::{PublicKey as RsaPublicKey, pkcs1v15, pss};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::Scheme;

fn digest<H: Digest, const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut hash = H::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().as_slice().try_into().expect("N is the algorithm's length")
}

pub(super) fn sha1(parts: &[&[u8]]) -> [u8; 20] {
    digest::<Sha1, 20>(parts)
}

pub(super) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    digest::<Sha256, 32>(parts)
}

pub(super) fn sha384(parts: &[&[u8]]) -> [u8; 48] {
    digest::<Sha384, 48>(parts)
}

pub(super) fn sha512(parts: &[&[u8]]) -> [u8; 64] {
    digest::<Sha512, 64>(parts)
}

pub(super) fn holds(scheme: Scheme, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    verify(scheme, key, message, signature).is_some()
}

/// `None` for a signature that does not hold, and for a key or signature that cannot be read.
fn verify(scheme: Scheme, key: &[u8], message: &[u8], signature: &[u8]) -> Option<()> {
    use rsa::signature::Verifier;
    match scheme {
        Scheme::P256Fixed => {
            let signature = p256::ecdsa::Signature::from_slice(signature).ok()?;
            p256_key(key)?.verify(message, &signature).ok()
        }
        Scheme::P256Der => {
            let signature = p256::ecdsa::Signature::from_der(signature).ok()?;
            p256_key(key)?.verify(message, &signature).ok()
        }
        Scheme::P384Fixed => {
            let signature = p384::ecdsa::Signature::from_slice(signature).ok()?;
            p384_key(key)?.verify(message, &signature).ok()
        }
        Scheme::P384Der => {
            let signature = p384::ecdsa::Signature::from_der(signature).ok()?;
            p384_key(key)?.verify(message, &signature).ok()
        }
        Scheme::RsaPssSha384 => {
            let signature = pss::Signature::try_from(signature).ok()?;
            pss::VerifyingKey::<Sha384>::new(rsa_key(key)?).verify(message, &signature).ok()
        }
        Scheme::RsaPkcs1Sha256 => {
            let signature = pkcs1v15::Signature::try_from(signature).ok()?;
            pkcs1v15::VerifyingKey::<Sha256>::new(rsa_key(key)?).verify(message, &signature).ok()
        }
        Scheme::RsaPkcs1Sha384 => {
            let signature = pkcs1v15::Signature::try_from(signature).ok()?;
            pkcs1v15::VerifyingKey::<Sha384>::new(rsa_key(key)?).verify(message, &signature).ok()
        }
        Scheme::Ed25519 => {
            let key = ed25519_dalek::VerifyingKey::from_bytes(key.try_into().ok()?).ok()?;
            let signature = ed25519_dalek::Signature::from_slice(signature).ok()?;
            key.verify_strict(message, &signature).ok()
        }
    }
}

fn p256_key(point: &[u8]) -> Option<p256::ecdsa::VerifyingKey> {
    // Uncompressed points alone, as the native backend takes them.
    (point.len() == 65).then(|| p256::ecdsa::VerifyingKey::from_sec1_bytes(point).ok()).flatten()
}

fn p384_key(point: &[u8]) -> Option<p384::ecdsa::VerifyingKey> {
    (point.len() == 97).then(|| p384::ecdsa::VerifyingKey::from_sec1_bytes(point).ok()).flatten()
}

fn rsa_key(pkcs1: &[u8]) -> Option<RsaPublicKey> {
    let key = RsaPublicKey::from_pkcs1_der(pkcs1).ok()?;
    (256..=1024).contains(&key.size()).then_some(key)
}
