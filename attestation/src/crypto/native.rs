//! ring, and aws-lc-rs for P-256, P-384 and RSA.

use aws_lc_rs::signature as aws;
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, SHA512};
use ring::signature as ring_signature;

use super::Scheme;

fn digest<const N: usize>(algorithm: &'static ring::digest::Algorithm, parts: &[&[u8]]) -> [u8; N] {
    let mut context = Context::new(algorithm);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().try_into().expect("N is the algorithm's length")
}

pub(super) fn sha1(parts: &[&[u8]]) -> [u8; 20] {
    digest(&SHA1_FOR_LEGACY_USE_ONLY, parts)
}

pub(super) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    digest(&SHA256, parts)
}

pub(super) fn sha384(parts: &[&[u8]]) -> [u8; 48] {
    digest(&SHA384, parts)
}

pub(super) fn sha512(parts: &[&[u8]]) -> [u8; 64] {
    digest(&SHA512, parts)
}

pub(super) fn holds(scheme: Scheme, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let with_ring = |algorithm: &'static dyn ring_signature::VerificationAlgorithm| {
        ring_signature::UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
    };
    let with_aws = |algorithm: &'static dyn aws::VerificationAlgorithm| {
        aws::UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
    };
    match scheme {
        Scheme::P256Fixed => with_aws(&aws::ECDSA_P256_SHA256_FIXED),
        Scheme::P256Der => with_aws(&aws::ECDSA_P256_SHA256_ASN1),
        Scheme::Ed25519 => with_ring(&ring_signature::ED25519),
        Scheme::P384Fixed => with_aws(&aws::ECDSA_P384_SHA384_FIXED),
        Scheme::P384Der => with_aws(&aws::ECDSA_P384_SHA384_ASN1),
        Scheme::RsaPssSha384 => with_aws(&aws::RSA_PSS_2048_8192_SHA384),
        Scheme::RsaPkcs1Sha256 => with_aws(&aws::RSA_PKCS1_2048_8192_SHA256),
        Scheme::RsaPkcs1Sha384 => with_aws(&aws::RSA_PKCS1_2048_8192_SHA384),
    }
}
