//! Where proofs from liteservers start: the pinned key block, or a newer one that was proven from it before, so that the walk
//! does not grow longer with every month.
//!
//! The file lies beside the network file and is worth as much: whoever can write the one can write the other. It says from
//! which pinned block it was proven, and counts with that one alone.

use std::path::{Path, PathBuf};

use cocoon_liteserver::KeyBlock;
use serde::{Deserialize, Serialize};

/// File name inside the state folder.
const FILE: &str = "key-block.toml";
/// A start that is larger than this is none.
const MAX_BYTES: u64 = 4096;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    /// The root hash of the pinned block that it was proven from.
    proven_from: String,
    seqno: u32,
    root_hash: String,
    file_hash: String,
}

/// The saved start of a state folder, for one pinned block.
#[derive(Debug, Clone)]
pub(crate) struct StartBlock {
    path: PathBuf,
    pinned: KeyBlock,
}

impl StartBlock {
    pub(crate) fn new(folder: &Path, pinned: KeyBlock) -> Self {
        Self { path: folder.join(FILE), pinned }
    }

    /// The saved block, if there is one that was proven from the pinned one and is newer. A file that says nothing of the
    /// kind is no error: the pinned block is always a start.
    pub(crate) fn load(&self) -> Option<KeyBlock> {
        let length = std::fs::metadata(&self.path).ok()?.len();
        let text = (length <= MAX_BYTES).then(|| std::fs::read_to_string(&self.path).ok())??;
        let saved: Saved = toml::from_str(&text)
            .inspect_err(|error| tracing::warn!(path = %self.path.display(), %error, "not a saved key block"))
            .ok()?;
        let fits = saved.proven_from == hex::encode(self.pinned.root_hash) && saved.seqno > self.pinned.seqno;
        let hash = |text: &str| <[u8; 32]>::try_from(hex::decode(text).ok()?).ok();
        fits.then_some(())?;
        let (root_hash, file_hash) = (hash(&saved.root_hash)?, hash(&saved.file_hash)?);
        Some(KeyBlock { seqno: saved.seqno, root_hash, file_hash })
    }

    /// Saves a block that was proven from the pinned one, unless a newer one is saved: whole, or not at all.
    pub(crate) fn save(&self, block: &KeyBlock) {
        if block.seqno <= self.load().map_or(self.pinned.seqno, |saved| saved.seqno) {
            return;
        }
        let saved = Saved {
            proven_from: hex::encode(self.pinned.root_hash),
            seqno: block.seqno,
            root_hash: hex::encode(block.root_hash),
            file_hash: hex::encode(block.file_hash),
        };
        let text = toml::to_string(&saved).expect("hashes and a number are TOML");
        let staging = self.path.with_extension(format!("toml.{}", std::process::id()));
        let written = std::fs::write(&staging, text).and_then(|()| std::fs::rename(&staging, &self.path));
        if let Err(error) = written {
            tracing::warn!(path = %self.path.display(), %error, "where to start next time was not saved");
        }
    }

    /// Takes the saved block away: no server proves it.
    pub(crate) fn forget(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(seqno: u32) -> KeyBlock {
        let byte = u8::try_from(seqno).expect("small");
        KeyBlock { seqno, root_hash: [byte; 32], file_hash: [byte + 1; 32] }
    }

    #[test]
    fn only_newer_blocks_are_saved_and_only_for_the_pinned_one() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let start = StartBlock::new(folder.path(), block(5));
        assert_eq!(start.load(), None);
        for (offered, kept) in [(5, None), (9, Some(9)), (7, Some(9)), (9, Some(9)), (12, Some(12))] {
            start.save(&block(offered));
            assert_eq!(start.load(), kept.map(block), "after {offered}");
        }
        let files = std::fs::read_dir(folder.path()).expect("it is there").count();
        assert_eq!(files, 1, "nothing half written stays");
        assert_eq!(StartBlock::new(folder.path(), block(6)).load(), None, "another pinned block");
        let newer = KeyBlock { seqno: 20, ..block(5) };
        assert_eq!(StartBlock::new(folder.path(), newer).load(), None, "the pinned one is newer");
        start.forget();
        assert_eq!(start.load(), None);
    }

    #[test]
    fn a_damaged_file_is_no_start() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let start = StartBlock::new(folder.path(), block(5));
        start.save(&block(9));
        let good = std::fs::read_to_string(folder.path().join(FILE)).expect("it was written");
        for bad in [
            "",
            "seqno = 9",
            &good[..good.len() - 8],
            &good.replace("seqno = 9", "seqno = -9"),
            &"#".repeat(5000),
        ] {
            std::fs::write(folder.path().join(FILE), bad).expect("ours");
            assert_eq!(start.load(), None, "{bad:.60}");
        }
        start.save(&block(9));
        assert_eq!(start.load(), Some(block(9)), "it is written anew");
    }
}
