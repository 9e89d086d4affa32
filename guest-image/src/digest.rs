//! The two hashes of this crate, and what a register does with them.

use ring::digest::{Algorithm, Context, SHA256, SHA384};

/// What every run-time register holds before the first event.
pub(crate) const ZERO: [u8; 48] = [0; 48];

/// SHA-384 of the parts, one behind the other.
pub(crate) fn sha384(parts: &[&[u8]]) -> [u8; 48] {
    hash(&SHA384, parts)
}

/// SHA-256 of the parts, one behind the other.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    hash(&SHA256, parts)
}

/// What a register of 48 bytes holds after `digest` was extended into it.
pub(crate) fn extended(register: &[u8; 48], digest: &[u8; 48]) -> [u8; 48] {
    sha384(&[register, digest])
}

fn hash<const N: usize>(algorithm: &'static Algorithm, parts: &[&[u8]]) -> [u8; N] {
    let mut context = Context::new(algorithm);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().try_into().expect("N is the algorithm's length")
}
