//! Reads little-endian fields of files without ever indexing past their end.

/// `N` bytes at `at`; `None` past the end.
pub(crate) fn bytes<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..)?.first_chunk::<N>().copied()
}

/// A 16-bit number at `at`.
pub(crate) fn u16(data: &[u8], at: usize) -> Option<u16> {
    bytes(data, at).map(u16::from_le_bytes)
}

/// A 32-bit number at `at`.
pub(crate) fn u32(data: &[u8], at: usize) -> Option<u32> {
    bytes(data, at).map(u32::from_le_bytes)
}

/// A 64-bit number at `at`.
pub(crate) fn u64(data: &[u8], at: usize) -> Option<u64> {
    bytes(data, at).map(u64::from_le_bytes)
}

/// A 32-bit length or offset at `at`.
pub(crate) fn length(data: &[u8], at: usize) -> Option<usize> {
    u32(data, at).and_then(|value| usize::try_from(value).ok())
}
