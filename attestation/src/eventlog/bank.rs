//! The hash algorithms of a log's digests.

use crate::crypto::{sha256, sha384, sha512};

/// How many algorithms are known.
pub(super) const BANKS: usize = 4;

/// A bank of registers: all of them, under one hash algorithm (TCG Algorithm Registry, TPM_ALG_ID).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bank {
    /// TPM_ALG_SHA1, 20 bytes. Read, and never believed: neither recomputed nor replayed.
    Sha1,
    /// TPM_ALG_SHA256, 32 bytes.
    Sha256,
    /// TPM_ALG_SHA384, 48 bytes: TDX's registers.
    Sha384,
    /// TPM_ALG_SHA512, 64 bytes.
    Sha512,
}

impl Bank {
    pub(super) const ALL: [Self; BANKS] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];

    /// The bank of a TPM_ALG_ID; `None` for algorithms that are only skipped, such as SM3.
    pub(super) fn of_id(id: u16) -> Option<Self> {
        match id {
            0x0004 => Some(Self::Sha1),
            0x000b => Some(Self::Sha256),
            0x000c => Some(Self::Sha384),
            0x000d => Some(Self::Sha512),
            _ => None,
        }
    }

    /// Its place in a table of [`BANKS`] entries.
    pub(super) fn place(self) -> usize {
        self as usize
    }

    /// Digest length, in bytes.
    pub fn size(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "SHA-1",
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
            Self::Sha512 => "SHA-512",
        }
    }

    /// The digest of the parts, one behind the other; `None` for SHA-1.
    pub(super) fn hash(self, parts: &[&[u8]]) -> Option<Vec<u8>> {
        match self {
            Self::Sha1 => None,
            Self::Sha256 => Some(sha256(parts).to_vec()),
            Self::Sha384 => Some(sha384(parts).to_vec()),
            Self::Sha512 => Some(sha512(parts).to_vec()),
        }
    }
}
