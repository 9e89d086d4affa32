//! Which engine this is, as far as its answers go: a digest that changes when its arithmetic does.
//!
//! The digest is of the release and of [`BITS`]: hashes of what the engine computes for fixed inputs. Tests compute them
//! anew, on every instruction set, and fail where one differs from what is written here; so a change of the arithmetic
//! cannot be released without a change of the digest. Arithmetic that no entry reaches is covered by the release alone:
//! whoever adds a format or an architecture adds an entry.

use sha2::{Digest, Sha256};

const DOMAIN: &[u8] = b"cocoon engine v1";

/// What is computed, and the FNV-1a hash of the bits that come out. Held by `tests/identity.rs` and the kernels' tests.
const BITS: [(&str, u64); 4] = [
    // Products of random matrices and vectors in each format.
    ("products", 0x4c43_ca63_2d13_6167),
    // All logits of the tiny model over a prompt and an answer.
    ("logits", 0x4da3_7956_3177_07b4),
    // Tokens drawn from fixed logits, with each parameter in turn.
    ("tokens", 0xb5f1_4de2_5468_f04f),
    // Vectors of the small encoder, for texts of several lengths.
    ("vectors", 0x83a0_c93c_448a_c7f1),
];

/// An engine's release and the digest of its arithmetic: the same digest, the same tokens for the same request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Major, minor, patch.
    pub version: [u16; 3],
    /// SHA-256("cocoon engine v1" ‖ version as three `u16be` ‖ for each entry of what tests hold: name ‖ 0 ‖ `u64be`).
    pub digest: [u8; 32],
}

impl Identity {
    /// Of the engine in this program.
    pub fn current() -> Self {
        Self::of(
            [
                number(env!("CARGO_PKG_VERSION_MAJOR")),
                number(env!("CARGO_PKG_VERSION_MINOR")),
                number(env!("CARGO_PKG_VERSION_PATCH")),
            ],
            &BITS,
        )
    }

    fn of(version: [u16; 3], bits: &[(&str, u64)]) -> Self {
        let mut hash = Sha256::new().chain_update(DOMAIN);
        version.iter().for_each(|part| hash.update(part.to_be_bytes()));
        for (name, bits) in bits {
            hash.update(name.as_bytes());
            hash.update([0]);
            hash.update(bits.to_be_bytes());
        }
        Self { version, digest: hash.finalize().into() }
    }

    /// The hash that this engine's digest stands on, for the tests that hold it.
    #[doc(hidden)]
    pub fn bits(name: &str) -> Option<u64> {
        BITS.iter().find(|(of, _)| *of == name).map(|(_, bits)| *bits)
    }
}

fn number(text: &str) -> u16 {
    text.parse().expect("Cargo's versions are numbers, and ours are small")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_changes_with_the_release_and_with_each_hash() {
        let bits = [("a", 1), ("b", 2)];
        let digest = |version, bits: &[(&str, u64)]| Identity::of(version, bits).digest;
        let all = [
            digest([0, 1, 0], &bits),
            digest([0, 1, 1], &bits),
            digest([0, 2, 0], &bits),
            digest([1, 1, 0], &bits),
            digest([0, 1, 0], &[("a", 1), ("b", 3)]),
            digest([0, 1, 0], &[("a", 3), ("b", 2)]),
            digest([0, 1, 0], &[("a", 1), ("c", 2)]),
            digest([0, 1, 0], &bits[..1]),
        ];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }
}
