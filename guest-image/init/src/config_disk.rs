//! The configuration disk: `COCOONC1` ‖ u32 length, little-endian ‖ config.toml ‖ zeros to a multiple of 4096 bytes.
//!
//! The host writes it. There is one way to write a configuration, so that no byte of the disk is left unmeasured.

use crate::devices::BLOCK;
use crate::failure::{Explain, Failure, Outcome};
use serde::Deserialize;

/// Most bytes of `config.toml`.
pub(crate) const MAX_CONFIG: usize = 64 * 1024;
/// Most bytes of the disk: header, configuration, zeros.
pub(crate) const MAX_DISK: u64 = (HEADER + MAX_CONFIG as u64).next_multiple_of(BLOCK);
const MAGIC: &[u8; 8] = b"COCOONC1";
const HEADER: u64 = 12;

/// The bytes of `config.toml`. They must be measured before [`Model::parse`].
pub(crate) fn configuration(disk: &[u8]) -> Outcome<&[u8]> {
    let wrong = |what: String| {
        Failure::new(format!(
            "the disk cocoon-config {what}; the launcher must write it anew from config.toml"
        ))
    };
    let rest = disk.strip_prefix(MAGIC).ok_or_else(|| wrong("does not start with COCOONC1".into()))?;
    let (length, rest) = rest.split_first_chunk().ok_or_else(|| wrong("ends before its length".into()))?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > MAX_CONFIG {
        return Err(wrong(format!("says that config.toml has {length} bytes, more than {MAX_CONFIG}")));
    }
    let (config, padding) =
        rest.split_at_checked(length).ok_or_else(|| wrong("ends within config.toml".into()))?;
    if disk.len() as u64 != (HEADER + length as u64).next_multiple_of(BLOCK) {
        return Err(wrong(format!("has {} bytes, which is not the next multiple of {BLOCK}", disk.len())));
    }
    if padding.iter().any(|byte| *byte != 0) {
        return Err(wrong("holds something after config.toml".into()));
    }
    Ok(config)
}

/// What PID 1 needs of `[model]`. The guest service checks the rest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Model {
    /// Bytes of the model file, at least 1.
    pub(crate) bytes: u64,
    /// Root hash of the weights disk's dm-verity tree.
    pub(crate) verity: [u8; 32],
}

impl Model {
    /// Reads `[model] bytes` and `verity` of a configuration.
    pub(crate) fn parse(config: &[u8]) -> Outcome<Self> {
        #[derive(Deserialize)]
        struct Config {
            model: Fields,
        }
        #[derive(Deserialize)]
        struct Fields {
            bytes: u64,
            verity: String,
        }
        let remedy = "the launcher must write [model] bytes and verity";
        let Config { model: Fields { bytes, verity: text } } =
            toml::from_slice(config).explain("config.toml", remedy)?;
        let mut verity = [0; 32];
        hex::decode_to_slice(text, &mut verity).explain("config.toml: model.verity", remedy)?;
        if bytes == 0 {
            return Err(Failure::new(format!("config.toml: model.bytes is 0; {remedy}")));
        }
        Ok(Self { bytes, verity })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn disk(config: &[u8]) -> Vec<u8> {
        let mut disk = [MAGIC, (config.len() as u32).to_le_bytes().as_slice(), config].concat();
        disk.resize(disk.len().next_multiple_of(4096), 0);
        disk
    }

    #[test]
    fn configurations_of_every_length_up_to_the_limit_are_read() {
        for length in [0, 1, 4083, 4084, 4085, MAX_CONFIG] {
            let config = vec![b'#'; length];
            let disk = disk(&config);
            assert_eq!(configuration(&disk), Ok(config.as_slice()));
            assert!(disk.len() as u64 <= MAX_DISK);
        }
        assert!(configuration(&disk(&vec![b'#'; MAX_CONFIG + 1])).is_err());
    }

    #[test]
    fn one_wrong_byte_of_the_frame_is_refused() {
        let good = disk(b"x = 1");
        // Each byte but those of config.toml itself, where the measurement tells.
        for index in (0..12).chain(17..good.len()) {
            let mut bad = good.clone();
            bad[index] ^= 1;
            let read = configuration(&bad);
            // A length of 4 leaves a byte of config.toml in the padding; one more takes a zero into it, and is measured.
            assert!(read.is_err() || read.is_ok_and(|config| config.len() != 5), "byte {index}");
        }
        assert!(configuration(&good[..4095]).is_err());
        assert!(configuration(&[good.as_slice(), &[0; 4096]].concat()).is_err());
        assert!(configuration(&[]).is_err());
    }

    #[test]
    fn the_model_needs_its_length_and_its_root_hash() {
        let text =
            format!("network = -3\n[model]\nname = \"m\"\nbytes = 5000\nverity = \"{}\"\n", "0a".repeat(32));
        assert_eq!(Model::parse(text.as_bytes()), Ok(Model { bytes: 5000, verity: [10; 32] }));
        for (good, bad) in [
            ("bytes = 5000\n", ""),
            ("= 5000", "= 0"),
            ("= 5000", "= -1"),
            ("0a0a", "0a"),
            ("0a0a", "zz0a"),
            ("[model]", ""),
        ] {
            let changed = text.replacen(good, bad, 1);
            assert_ne!(changed, text);
            assert!(Model::parse(changed.as_bytes()).is_err(), "{bad} was taken");
        }
        assert!(Model::parse(&[0xff]).is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_read_makes_the_same_disk_again(
            head in prop_oneof![Just(MAGIC.to_vec()), any::<[u8; 8]>().prop_map(|bytes| bytes.to_vec())],
            length in prop_oneof![0..5000_u32, any::<u32>()],
            body in proptest::collection::vec(any::<u8>(), 0..5000),
            size in 0..9000_usize,
        ) {
            let mut bytes = [head.as_slice(), &length.to_le_bytes(), &body].concat();
            bytes.resize(if size % 2 == 0 { bytes.len().next_multiple_of(4096) } else { size }, 0);
            if let Ok(config) = configuration(&bytes) {
                prop_assert_eq!(disk(config), bytes.clone());
                let _ = Model::parse(config);
            }
        }
    }
}
