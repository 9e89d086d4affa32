//! dm-verity (`Documentation/admin-guide/device-mapper/verity.rst`): a disk whose every block is checked when it is read.
//!
//! The hash tree starts right after the data blocks. SHA-256, blocks of 4096 bytes, no salt, no superblock: what differs
//! is the root hash and the number of data blocks, and both are measured.

use crate::device_mapper;
use crate::devices::{BLOCK, Disk};
use crate::failure::{Failure, Outcome};
use std::path::PathBuf;

/// Digests of 32 bytes in a block of the tree.
const FAN: u64 = BLOCK / 32;
/// Sectors of 512 bytes in a block: what device-mapper counts in.
const SECTORS: u64 = BLOCK / 512;
/// A wrong block ends the guest: an error to the reader could be steered, by choice of the block.
const OPTIONS: &str = "2 panic_on_corruption panic_on_error";

/// Opens the verified device `name` over the first `blocks` blocks of a disk; gives its path.
pub(crate) fn open(name: &str, disk: &Disk, blocks: u64, root: &[u8; 32]) -> Outcome<PathBuf> {
    fits(name, disk, blocks)?;
    device_mapper::create(name, "verity", blocks * SECTORS, &table(&disk.number, blocks, root))
}

/// Whether data and tree are on the disk.
fn fits(name: &str, disk: &Disk, blocks: u64) -> Outcome {
    let needed = tree(blocks).and_then(|tree| blocks.checked_add(tree));
    if needed.is_none_or(|needed| needed > disk.blocks) {
        let (has, wants) = (disk.blocks, needed.map_or("too many".to_owned(), |needed| needed.to_string()));
        return Err(Failure::new(format!(
            "the disk {name} has {has} blocks of {BLOCK}, but {blocks} of data with their hash tree take {wants}; \
             attach the disk that belongs to this image and configuration"
        )));
    }
    Ok(())
}

/// Blocks of the hash tree; `None` without data, or with more than device-mapper's sectors can count.
fn tree(blocks: u64) -> Option<u64> {
    blocks.checked_mul(SECTORS).filter(|sectors| *sectors > 0)?;
    let mut level = blocks;
    let mut sum = 0;
    while level > 1 {
        level = level.div_ceil(FAN);
        sum += level;
    }
    Some(sum)
}

/// The target's line.
fn table(number: &str, blocks: u64, root: &[u8; 32]) -> String {
    let root = hex::encode(root);
    format!("1 {number} {number} {BLOCK} {BLOCK} {blocks} {blocks} sha256 {root} - {OPTIONS}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_one_that_the_kernel_documents() {
        let expected = format!(
            "1 254:0 254:0 4096 4096 300 300 sha256 {} - 2 panic_on_corruption panic_on_error",
            "cd".repeat(32)
        );
        assert_eq!(table("254:0", 300, &[0xcd; 32]), expected);
    }

    #[test]
    fn the_tree_has_as_many_blocks_as_its_levels() {
        // veritysetup's figures for these data blocks, less its superblock.
        for (blocks, expected) in [(1, 0), (2, 1), (128, 1), (129, 3), (16384, 129), (16385, 132), (8192, 65)]
        {
            assert_eq!(tree(blocks), Some(expected), "{blocks}");
        }
        assert_eq!(tree(0), None);
        assert_eq!(tree(u64::MAX), None);
    }

    #[test]
    fn a_disk_one_block_too_small_is_refused() {
        let disk = |blocks| Disk { number: "254:0".into(), path: "/dev/vda".into(), blocks };
        assert_eq!(fits("d", &disk(132), 129), Ok(()));
        for (disk, blocks) in [(disk(131), 129), (disk(100), 0), (disk(u64::MAX), u64::MAX)] {
            assert!(fits("d", &disk, blocks).is_err(), "{blocks}");
        }
    }
}
