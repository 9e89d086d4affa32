//! The one place where hashes are computed and signatures are verified.
//!
//! | feature | uses | why |
//! | --- | --- | --- |
//! | `native-crypto` (default) | ring; aws-lc-rs for P-256, P-384 and RSA | ring's P-384 takes 3.6 times as long, and AMD's and NVIDIA's chains are P-384 and RSA-4096; its P-256, which Intel's are, 4 % longer |
//! | `pure-rust-crypto` | RustCrypto | builds for `wasm32-unknown-unknown`, where no C compiler is |
//!
//! With both features on, the native one is used, and the tests here hold each against the other.

#[cfg(feature = "native-crypto")]
mod native;
#[cfg(feature = "native-crypto")]
use native as backend;

#[cfg(all(feature = "pure-rust-crypto", any(test, not(feature = "native-crypto"))))]
mod pure;
#[cfg(all(feature = "pure-rust-crypto", not(feature = "native-crypto")))]
use pure as backend;

#[cfg(not(any(feature = "native-crypto", feature = "pure-rust-crypto")))]
compile_error!("choose a backend: feature `native-crypto`, or `pure-rust-crypto` where no C compiler is");

/// SHA-256 of the parts, one after the other.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    backend::sha256(parts)
}

/// SHA-384 of the parts, one after the other.
pub(crate) fn sha384(parts: &[&[u8]]) -> [u8; 48] {
    backend::sha384(parts)
}

/// SHA-512 of the parts, one after the other.
pub(crate) fn sha512(parts: &[&[u8]]) -> [u8; 64] {
    backend::sha512(parts)
}

/// SHA-1 of the parts. It names an issuer in an OCSP response and proves nothing: what is named is proven by a signature.
pub(crate) fn sha1(parts: &[&[u8]]) -> [u8; 20] {
    backend::sha1(parts)
}

/// A signature algorithm with the form of its signature.
///
/// Keys are given as they stand in a SubjectPublicKeyInfo's bit string: the uncompressed point (elliptic curves), the
/// PKCS #1 `RSAPublicKey` (RSA, 2048 to 8192 bits), 32 bytes (Ed25519).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// ECDSA P-256 with SHA-256, signature r ‖ s.
    P256Fixed,
    /// ECDSA P-256 with SHA-256, signature in DER.
    P256Der,
    /// ECDSA P-384 with SHA-384, signature r ‖ s.
    P384Fixed,
    /// ECDSA P-384 with SHA-384, signature in DER.
    P384Der,
    /// RSASSA-PSS with SHA-384, MGF1 with SHA-384, salt of 48 bytes.
    RsaPssSha384,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RsaPkcs1Sha256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RsaPkcs1Sha384,
    /// Ed25519.
    Ed25519,
}

/// Does the signature hold? A malformed key or signature does not.
pub(crate) fn holds(scheme: Scheme, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    backend::holds(scheme, key, message, signature)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_the_standards() {
        assert!(hex::encode(sha256(&[b"a", b"bc"])).starts_with("ba7816bf8f01cfea"));
        assert!(hex::encode(sha384(&[b"abc"])).starts_with("cb00753f45a35e8b"));
        assert!(hex::encode(sha1(&[b"ab", b"c"])).starts_with("a9993e364706816a"));
        assert!(hex::encode(sha512(&[b"", b"abc"])).starts_with("ddaf35a193617aba"));
    }

    #[cfg(all(feature = "native-crypto", feature = "pure-rust-crypto"))]
    mod backends {
        use aws_lc_rs::rand::SystemRandom;
        use aws_lc_rs::rsa::KeySize;
        use aws_lc_rs::signature::{self as aws, KeyPair, RsaKeyPair};

        use super::super::{Scheme, native, pure};

        /// A key, a message and its signature under each scheme.
        fn signed() -> Vec<(Scheme, Vec<u8>, Vec<u8>, Vec<u8>)> {
            let (random, message) = (SystemRandom::new(), b"what is signed".to_vec());
            let mut rows = Vec::new();
            for (scheme, algorithm) in [
                (Scheme::P256Fixed, &aws::ECDSA_P256_SHA256_FIXED_SIGNING),
                (Scheme::P256Der, &aws::ECDSA_P256_SHA256_ASN1_SIGNING),
                (Scheme::P384Fixed, &aws::ECDSA_P384_SHA384_FIXED_SIGNING),
                (Scheme::P384Der, &aws::ECDSA_P384_SHA384_ASN1_SIGNING),
            ] {
                let key = aws::EcdsaKeyPair::generate(algorithm).expect("a key");
                let signature = key.sign(&random, &message).expect("a signature").as_ref().to_vec();
                rows.push((scheme, key.public_key().as_ref().to_vec(), message.clone(), signature));
            }
            let key = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
            let paddings: [(Scheme, &'static dyn aws::RsaEncoding); 3] = [
                (Scheme::RsaPssSha384, &aws::RSA_PSS_SHA384),
                (Scheme::RsaPkcs1Sha256, &aws::RSA_PKCS1_SHA256),
                (Scheme::RsaPkcs1Sha384, &aws::RSA_PKCS1_SHA384),
            ];
            for (scheme, padding) in paddings {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(padding, &random, &message, &mut signature).expect("a signature");
                rows.push((scheme, key.public_key().as_ref().to_vec(), message.clone(), signature));
            }
            let key = aws::Ed25519KeyPair::generate().expect("a key");
            let signature = key.sign(&message).as_ref().to_vec();
            rows.push((Scheme::Ed25519, key.public_key().as_ref().to_vec(), message, signature));
            rows
        }

        #[test]
        fn both_backends_say_the_same() {
            for (scheme, key, message, signature) in signed() {
                let both = |key: &[u8], message: &[u8], signature: &[u8]| {
                    let verdicts =
                        [native::holds, pure::holds].map(|holds| holds(scheme, key, message, signature));
                    assert_eq!(verdicts[0], verdicts[1], "{scheme:?}");
                    verdicts[0]
                };
                assert!(both(&key, &message, &signature), "{scheme:?}");
                let flip = |bytes: &[u8], at: usize| {
                    let mut bytes = bytes.to_vec();
                    bytes[at] ^= 0x10;
                    bytes
                };
                for at in (0..signature.len()).step_by(7) {
                    assert!(!both(&key, &message, &flip(&signature, at)), "{scheme:?} {at}");
                }
                for at in (0..key.len()).step_by(11) {
                    assert!(!both(&flip(&key, at), &message, &signature), "{scheme:?} {at}");
                }
                assert!(!both(&key, &flip(&message, 3), &signature), "{scheme:?}");
                for cut in [0, 1, signature.len() - 1] {
                    assert!(!both(&key, &message, &signature[..cut]), "{scheme:?}");
                }
            }
            let parts: [&[u8]; 2] = [b"a", b"bc"];
            assert_eq!(native::sha1(&parts), pure::sha1(&parts));
            assert_eq!(native::sha256(&parts), pure::sha256(&parts));
            assert_eq!(native::sha384(&parts), pure::sha384(&parts));
            assert_eq!(native::sha512(&parts), pure::sha512(&parts));
        }
    }
}
