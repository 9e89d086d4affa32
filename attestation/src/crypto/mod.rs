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

#[cfg(feature = "pure-rust-crypto")]
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
}
