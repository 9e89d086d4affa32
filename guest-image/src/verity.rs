//! dm-verity's hash tree, as Linux reads it: SHA-256, blocks of 4096 bytes for data and hashes, no salt, no superblock,
//! the tree right behind the data, its top level first (Documentation/admin-guide/device-mapper/verity.rst; the layout is
//! that of `veritysetup format --no-superblock --salt=-`).

use ring::digest::{SHA256, digest};

use crate::hex_bytes::{HexBytes, Sha256};

/// Bytes of a block, of data as of the tree.
pub const BLOCK: usize = 4096;
const DIGEST: usize = 32;
/// Hashes in a block of the tree.
const FAN_OUT: u64 = (BLOCK / DIGEST) as u64;

/// Builds the tree of data that comes block by block. Holds one block of each level, so that no length is too long.
pub struct Builder {
    data_blocks: u64,
    seen: u64,
    /// From the data up; empty for a single block of data, whose hash is the root hash.
    levels: Vec<Level>,
    root_hash: Option<[u8; DIGEST]>,
}

struct Level {
    /// Where its next block goes, in blocks from the tree's beginning.
    next: u64,
    block: Box<[u8; BLOCK]>,
    filled: usize,
}

/// A finished tree in memory.
#[derive(Debug, PartialEq, Eq)]
pub struct Tree {
    /// What the kernel is given; all data hangs on it.
    pub root_hash: Sha256,
    /// How many blocks of data there are.
    pub data_blocks: u64,
    /// The bytes that stand behind the data.
    pub bytes: Vec<u8>,
}

/// The bytes of a device with so many blocks of data and its tree; `None` for no data or more than 2^64 bytes.
pub fn length(data_blocks: u64) -> Option<u64> {
    let tree = (data_blocks > 0).then(|| level_blocks(data_blocks).iter().sum::<u64>())?;
    data_blocks.checked_add(tree)?.checked_mul(BLOCK as u64)
}

/// How many blocks of 4096 bytes hold so many bytes.
pub fn blocks(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK as u64)
}

/// The blocks of each level, from the data up.
fn level_blocks(data_blocks: u64) -> Vec<u64> {
    let mut levels = Vec::new();
    let mut hashes = data_blocks;
    while hashes > 1 {
        hashes = hashes.div_ceil(FAN_OUT);
        levels.push(hashes);
    }
    levels
}

impl Builder {
    /// For exactly so many blocks of data; `None` for none, or for more than a device can have.
    pub fn new(data_blocks: u64) -> Option<Self> {
        length(data_blocks)?;
        let counts = level_blocks(data_blocks);
        let first = |level: usize| counts.iter().skip(level + 1).sum::<u64>();
        let empty = |level| Level { next: first(level), block: Box::new([0; BLOCK]), filled: 0 };
        Some(Self { data_blocks, seen: 0, levels: (0..counts.len()).map(empty).collect(), root_hash: None })
    }

    /// Adds the next block of data. `write` gets each block of the tree that became whole, with its byte offset from the
    /// tree's beginning; not in the order of the offsets.
    ///
    /// # Errors
    /// Those of `write`.
    ///
    /// # Panics
    /// After more blocks than [`Builder::new`] was told: the offsets would be wrong.
    pub fn push<E>(
        &mut self,
        block: &[u8; BLOCK],
        write: &mut impl FnMut(u64, &[u8; BLOCK]) -> Result<(), E>,
    ) -> Result<(), E> {
        assert!(self.seen < self.data_blocks, "more blocks than announced");
        self.seen += 1;
        self.add(0, sha256(block), write)
    }

    /// Writes the blocks that are not full, and gives the root hash.
    ///
    /// # Errors
    /// Those of `write`.
    ///
    /// # Panics
    /// After fewer blocks than [`Builder::new`] was told.
    pub fn finish<E>(
        mut self,
        write: &mut impl FnMut(u64, &[u8; BLOCK]) -> Result<(), E>,
    ) -> Result<Sha256, E> {
        assert_eq!(self.seen, self.data_blocks, "fewer blocks than announced");
        for level in 0..self.levels.len() {
            if self.levels[level].filled > 0 {
                self.flush(level, write)?;
            }
        }
        Ok(HexBytes(
            self.root_hash.expect("the top level has one block, which was flushed, or there is no level"),
        ))
    }

    fn add<E>(
        &mut self,
        level: usize,
        hash: [u8; DIGEST],
        write: &mut impl FnMut(u64, &[u8; BLOCK]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(Level { block, filled, .. }) = self.levels.get_mut(level) else {
            self.root_hash = Some(hash);
            return Ok(());
        };
        block[*filled..*filled + DIGEST].copy_from_slice(&hash);
        *filled += DIGEST;
        if *filled == BLOCK { self.flush(level, write) } else { Ok(()) }
    }

    fn flush<E>(
        &mut self,
        level: usize,
        write: &mut impl FnMut(u64, &[u8; BLOCK]) -> Result<(), E>,
    ) -> Result<(), E> {
        let this = &mut self.levels[level];
        write(this.next * BLOCK as u64, &this.block)?;
        let hash = sha256(&this.block[..]);
        this.next += 1;
        this.block.fill(0);
        this.filled = 0;
        self.add(level + 1, hash, write)
    }
}

impl Tree {
    /// The tree of data in memory; the last block counts as filled up with zeros. `None` for no data.
    pub fn of(data: &[u8]) -> Option<Self> {
        let data_blocks = blocks(data.len() as u64);
        let tree = length(data_blocks)?.checked_sub(data_blocks * BLOCK as u64)?;
        let mut bytes = vec![0; usize::try_from(tree).ok()?];
        let mut write = |offset: u64, block: &[u8; BLOCK]| {
            let offset = usize::try_from(offset).expect("the tree was allocated");
            bytes[offset..offset + BLOCK].copy_from_slice(block);
            Ok::<(), std::convert::Infallible>(())
        };
        let mut builder = Builder::new(data_blocks)?;
        for chunk in data.chunks(BLOCK) {
            let mut block = [0; BLOCK];
            block[..chunk.len()].copy_from_slice(chunk);
            let Ok(()) = builder.push(&block, &mut write);
        }
        let Ok(root_hash) = builder.finish(&mut write);
        Some(Self { root_hash, data_blocks, bytes })
    }
}

fn sha256(bytes: &[u8]) -> [u8; DIGEST] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_block_has_no_tree_and_nothing_has_none_at_all() {
        let tree = Tree::of(b"x").expect("there is data");
        assert!(tree.bytes.is_empty());
        let mut block = [0; BLOCK];
        block[0] = b'x';
        assert_eq!(tree.root_hash.0, sha256(&block));
        assert_eq!(Tree::of(b""), None);
        assert!(Builder::new(0).is_none());
    }

    #[test]
    fn the_top_level_stands_first_and_gives_the_root_hash() {
        // 129 blocks: two blocks of hashes, and one above them.
        let data: Vec<u8> = (0..129 * BLOCK).map(|i| (i / BLOCK) as u8).collect();
        let tree = Tree::of(&data).expect("there is data");
        assert_eq!(tree.bytes.len(), 3 * BLOCK);
        let (top, below) = tree.bytes.split_at(BLOCK);
        assert_eq!(tree.root_hash.0, sha256(top));
        assert_eq!(top[..32], sha256(&below[..BLOCK]));
        assert_eq!(top[32..64], sha256(&below[BLOCK..]));
        assert!(top[64..].iter().all(|&byte| byte == 0));
        assert_eq!(below[BLOCK..BLOCK + 32], sha256(&data[128 * BLOCK..]));
        assert_eq!(length(129), Some(132 * BLOCK as u64));
    }

    #[test]
    fn a_length_beyond_a_device_is_refused() {
        assert_eq!(length(u64::MAX), None);
        assert!(Builder::new(1 << 53).is_none());
        assert_eq!(length(1 << 20), Some(((1 << 20) + (1 << 13) + (1 << 6) + 1) * 4096));
    }

    #[test]
    fn every_block_moves_the_root_hash() {
        let data = vec![7; 300 * BLOCK];
        let root = Tree::of(&data).expect("there is data").root_hash;
        for block in [0, 1, 127, 128, 299] {
            let mut changed = data.clone();
            changed[block * BLOCK + 4095] ^= 1;
            assert_ne!(Tree::of(&changed).expect("there is data").root_hash, root, "block {block}");
        }
    }
}
