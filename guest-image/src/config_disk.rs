//! The configuration disk: how `config.toml` reaches the guest as a block device.
//!
//! ```text
//! 43 4f 43 4f 4f 4e 43 31   "COCOONC1"
//! 2a 00 00 00               length of the configuration, little endian
//! 6e 65 74 …                config.toml, and zeros up to a multiple of 4096 bytes
//! ```

/// What a configuration disk begins with.
pub const MAGIC: &[u8; 8] = b"COCOONC1";
/// No configuration is longer than this many bytes.
pub const CONFIG_MAX: usize = 64 << 10;

/// The configuration is longer than [`CONFIG_MAX`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration has {0} bytes, more than the {CONFIG_MAX} that a guest reads")]
pub struct TooLong(pub usize);

/// The disk's bytes for the bytes of a `config.toml`.
///
/// # Errors
/// If it is longer than [`CONFIG_MAX`].
pub fn encode(config: &[u8]) -> Result<Vec<u8>, TooLong> {
    if config.len() > CONFIG_MAX {
        return Err(TooLong(config.len()));
    }
    let length = u32::try_from(config.len()).expect("it is at most 64 KiB");
    let mut disk = [MAGIC.as_slice(), &length.to_le_bytes(), config].concat();
    disk.resize(disk.len().next_multiple_of(crate::verity::BLOCK), 0);
    Ok(disk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_is_as_the_table_says() {
        let disk = encode(b"network = -3\n").expect("short");
        assert_eq!(disk[..12], *b"COCOONC1\x0d\0\0\0");
        assert_eq!(disk[12..25], *b"network = -3\n");
        assert!(disk[25..].iter().all(|&byte| byte == 0));
        assert_eq!(disk.len(), 4096);
    }

    #[test]
    fn lengths_are_whole_blocks_and_limited() {
        assert_eq!(encode(&[]).expect("short").len(), 4096);
        assert_eq!(encode(&[1; 4084]).expect("short").len(), 4096);
        assert_eq!(encode(&[1; 4085]).expect("short").len(), 8192);
        assert_eq!(encode(&vec![1; CONFIG_MAX]).expect("the longest").len(), CONFIG_MAX + 4096);
        assert_eq!(encode(&vec![1; CONFIG_MAX + 1]), Err(TooLong(CONFIG_MAX + 1)));
    }
}
