//! Bytes of a fixed length that are written as lower-case hex.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// `N` bytes; in JSON and for people a string of `2 * N` lower-case hex digits, and nothing else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HexBytes<const N: usize>(pub [u8; N]);

/// A SHA-256, or a dm-verity root hash.
pub type Sha256 = HexBytes<32>;
/// A SHA-384: a register of TDX, an SNP launch digest, an event's digest.
pub type Sha384 = HexBytes<48>;

impl<const N: usize> HexBytes<N> {
    /// Reads exactly `2 * N` lower-case hex digits; `None` for anything else, so that a value has one spelling.
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.bytes().any(|digit| digit.is_ascii_uppercase()) {
            return None;
        }
        let mut bytes = [0; N];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl HexBytes<32> {
    /// SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
        Self(digest.as_ref().try_into().expect("SHA-256 gives 32 bytes"))
    }
}

impl<const N: usize> fmt::Display for HexBytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl<const N: usize> fmt::Debug for HexBytes<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<const N: usize> Serialize for HexBytes<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, const N: usize> Deserialize<'de> for HexBytes<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::from_hex(&text)
            .ok_or_else(|| de::Error::custom(format_args!("expected {} lower-case hex digits", 2 * N)))
    }
}
