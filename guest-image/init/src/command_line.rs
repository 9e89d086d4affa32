//! The kernel's command line. It is measured; of it, PID 1 knows three words, and takes no other of its own.

use crate::failure::{Explain, Failure, Outcome};

/// What the command line says to PID 1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// `cocoon.root=`: root hash of the root file system's dm-verity tree.
    pub(crate) root: [u8; 32],
    /// `cocoon.root_blocks=`: its data blocks of 4096 bytes.
    pub(crate) root_blocks: u64,
    /// `cocoon.development`: the simulated TEE and a network card are allowed.
    pub(crate) development: bool,
}

impl CommandLine {
    /// Reads `/proc/cmdline`.
    pub(crate) fn read() -> Outcome<Self> {
        let text =
            std::fs::read_to_string("/proc/cmdline").explain("/proc/cmdline", "use the image's kernel")?;
        Self::parse(&text)
    }

    /// Every word that starts with `cocoon` is one of the three, well-formed, and there once.
    pub(crate) fn parse(text: &str) -> Outcome<Self> {
        let (mut root, mut root_blocks, mut development) = (None, None, None);
        for word in text.split_ascii_whitespace().filter(|word| word.starts_with("cocoon")) {
            let (name, value) =
                word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
            let fresh = match (name, value) {
                ("cocoon.root", Some(value)) => root.replace(digest(value, word)?).is_none(),
                ("cocoon.root_blocks", Some(value)) => root_blocks.replace(blocks(value, word)?).is_none(),
                ("cocoon.development", None) => development.replace(true).is_none(),
                _ => return Err(wrong(word, "it is not a word that this PID 1 knows")),
            };
            if !fresh {
                return Err(wrong(word, "it is there twice"));
            }
        }
        let missing = |name| move || wrong(name, "it is missing");
        Ok(Self {
            root: root.ok_or_else(missing("cocoon.root"))?,
            root_blocks: root_blocks.ok_or_else(missing("cocoon.root_blocks"))?,
            development: development.unwrap_or(false),
        })
    }
}

fn digest(value: &str, word: &str) -> Outcome<[u8; 32]> {
    let mut digest = [0; 32];
    let lower = !value.bytes().any(|byte| byte.is_ascii_uppercase());
    match hex::decode_to_slice(value, &mut digest) {
        Ok(()) if lower => Ok(digest),
        _ => Err(wrong(word, "it must be 64 lower-case hex digits")),
    }
}

/// Decimal, as Rust writes it: no sign, no leading zeros.
fn blocks(value: &str, word: &str) -> Outcome<u64> {
    match value.parse::<u64>() {
        Ok(blocks) if blocks > 0 && blocks.to_string() == value => Ok(blocks),
        _ => Err(wrong(word, "it must be a number of blocks")),
    }
}

fn wrong(word: &str, what: &str) -> Failure {
    Failure::new(format!(
        "the command line's {word}: {what}; boot with the image's own command line, unchanged"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn good() -> String {
        format!("console=ttyS0 ro cocoon.root={} cocoon.root_blocks=8192", "ab".repeat(32))
    }

    #[test]
    fn the_words_are_read_wherever_they_stand() {
        let expected = CommandLine { root: [0xab; 32], root_blocks: 8192, development: false };
        assert_eq!(CommandLine::parse(&good()), Ok(expected));
        let line =
            CommandLine::parse(&format!("cocoon.development initrd=initrd {}\n", good())).expect("good");
        assert!(line.development);
    }

    #[test]
    fn one_wrong_word_at_a_time_is_refused() {
        for (good_word, bad) in [
            ("cocoon.root=ab", "cocoon.root=a"),
            ("cocoon.root=ab", "cocoon.root=AB"),
            ("cocoon.root=ab", "cocoon.root=zb"),
            ("cocoon.root=", "cocoon.roof="),
            ("cocoon.root=", "xcocoon.root="),
            ("=8192", "=0"),
            ("=8192", "=08192"),
            ("=8192", "=+8192"),
            ("=8192", "=18446744073709551616"),
            ("=8192", ""),
            ("=8192", "=8192 cocoon.root_blocks=8192"),
            ("ro ", "ro cocoon.debug "),
            ("ro ", "ro cocoon.development=1 "),
            ("ro ", "ro cocoon.development cocoon.development "),
            ("ro ", "ro cocoon_development "),
        ] {
            let line = good().replacen(good_word, bad, 1);
            assert_ne!(line, good());
            assert!(CommandLine::parse(&line).is_err(), "{line} was taken");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_taken_says_exactly_what_was_read(text in "(cocoon\\.(root|root_blocks|development|x)?=?[0-9a-f]{0,64} ?|ro ){0,6}") {
            if let Ok(line) = CommandLine::parse(&text) {
                let root = format!("cocoon.root={}", hex::encode(line.root));
                let blocks = format!("cocoon.root_blocks={}", line.root_blocks);
                let words = || text.split_ascii_whitespace();
                prop_assert_eq!(words().filter(|word| *word == root).count(), 1);
                prop_assert_eq!(words().filter(|word| *word == blocks).count(), 1);
                let development = words().any(|word| word == "cocoon.development");
                prop_assert_eq!(line.development, development);
            }
        }

        #[test]
        fn any_text_is_answered(text in ".{0,200}") {
            let _ = CommandLine::parse(&text);
        }
    }
}
