//! Blocks of the KV cache that sequences share: counted references, names, and which to forget first.
//!
//! A block is nobody's (wiped), held by one sequence or more, or idle: named, held by nobody, and kept for whoever asks
//! for the same beginning, until its room is needed. The block that was idle longest goes first, and of a sequence the
//! last block before the first, since none is of use without those before it.

use std::collections::{BTreeMap, HashMap};

use super::prefix::Name;
use crate::cache::{Cache, Table};

/// What is known of a block besides its contents.
#[derive(Default)]
struct Block {
    /// Sequences that hold it.
    holders: u32,
    /// Its name, once it is full and known by it.
    name: Option<Name>,
    /// Since when it has been idle, if it is.
    idle: u64,
}

/// All blocks of a scheduler.
pub(crate) struct Blocks {
    cache: Cache,
    blocks: Vec<Block>,
    named: HashMap<Name, u32>,
    /// Idle blocks in the order in which they are forgotten.
    idle: BTreeMap<u64, u32>,
    clock: u64,
}

impl Blocks {
    /// Over a cache of which no page is taken yet.
    pub(crate) fn new(cache: Cache) -> Self {
        Self { cache, blocks: Vec::new(), named: HashMap::new(), idle: BTreeMap::new(), clock: 0 }
    }

    /// The keys and values.
    pub(crate) fn cache(&mut self) -> &mut Cache {
        &mut self.cache
    }

    /// Blocks that sequences hold.
    pub(crate) fn held(&self) -> usize {
        self.cache.limit() - self.available()
    }

    /// Blocks that are kept for whoever asks for the same beginning.
    pub(crate) fn idle(&self) -> usize {
        self.idle.len()
    }

    /// Blocks that a sequence could get, idle ones among them.
    pub(crate) fn available(&self) -> usize {
        self.cache.available() + self.idle.len()
    }

    /// Gives a sequence its next block, wiped; false if all are held.
    pub(crate) fn extend(&mut self, table: &mut Table) -> bool {
        if self.cache.available() == 0
            && let Some((_, block)) = self.idle.pop_first()
        {
            self.forget(block);
        }
        let Some(block) = self.cache.take() else { return false };
        if self.blocks.len() <= block as usize {
            self.blocks.resize_with(block as usize + 1, Block::default);
        }
        self.blocks[block as usize] = Block { holders: 1, name: None, idle: 0 };
        table.push(block);
        true
    }

    /// Blocks that nobody holds but this sequence.
    pub(crate) fn held_alone(&self, table: &Table) -> usize {
        table.pages().iter().filter(|block| self.blocks[**block as usize].holders == 1).count()
    }

    /// How many blocks of a beginning are here, and how many of these are idle.
    pub(crate) fn find(&self, names: &[Name]) -> (usize, usize) {
        let found: Vec<u32> = names.iter().map_while(|name| self.named.get(name).copied()).collect();
        let idle = found.iter().filter(|block| self.blocks[**block as usize].holders == 0).count();
        (found.len(), idle)
    }

    /// Lets a sequence that has no block yet share those with these names, all of which are here.
    pub(crate) fn share(&mut self, names: &[Name], table: &mut Table) {
        for name in names {
            let index = self.named[name];
            let block = &mut self.blocks[index as usize];
            if block.holders == 0 {
                self.idle.remove(&block.idle);
            }
            block.holders += 1;
            table.push(index);
        }
    }

    /// Makes a full block known by its name. Where another has the name already, this one stays without.
    pub(crate) fn name(&mut self, block: u32, name: Name) {
        let this = &mut self.blocks[block as usize];
        if this.name.is_none() && !self.named.contains_key(&name) {
            this.name = Some(name);
            self.named.insert(name, block);
        }
    }

    /// Takes a sequence's blocks back. Those that nobody holds then are kept by their names if `keep` says so, and
    /// wiped otherwise.
    pub(crate) fn release(&mut self, table: &mut Table, keep: bool) {
        for index in table.take().into_iter().rev() {
            let block = &mut self.blocks[index as usize];
            block.holders -= 1;
            if block.holders > 0 {
                continue;
            }
            if keep && block.name.is_some() {
                self.clock += 1;
                block.idle = self.clock;
                self.idle.insert(self.clock, index);
            } else {
                self.forget(index);
            }
        }
    }

    /// Wipes the idle ones among the blocks with these names.
    pub(crate) fn purge(&mut self, names: &[Name]) {
        for name in names {
            let Some(&index) = self.named.get(name) else { continue };
            let block = &self.blocks[index as usize];
            if block.holders == 0 {
                self.idle.remove(&block.idle);
                self.forget(index);
            }
        }
    }

    /// Wipes a block that nobody holds.
    fn forget(&mut self, index: u32) {
        let block = &mut self.blocks[index as usize];
        debug_assert_eq!(block.holders, 0, "what is held is not forgotten");
        if let Some(name) = block.name.take() {
            self.named.remove(&name);
        }
        self.cache.give_back(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::PageShape;

    fn blocks(limit: usize) -> Blocks {
        Blocks::new(Cache::new(PageShape { layers: 1, heads: 1, head_len: 16 }, limit))
    }

    /// A sequence of so many full blocks, named `first`, `first + 1` and so on.
    fn sequence(blocks: &mut Blocks, first: u8, count: u8) -> Table {
        let mut table = Table::default();
        for name in first..first + count {
            assert!(blocks.extend(&mut table));
            let block = *table.pages().last().expect("just pushed");
            blocks.cache().write(&table, 0, (table.pages().len() - 1) * 16, &[1.0; 16], &[1.0; 16]);
            blocks.name(block, [name; 32]);
        }
        table
    }

    fn names(first: u8, count: u8) -> Vec<Name> {
        (first..first + count).map(|name| [name; 32]).collect()
    }

    #[test]
    fn shared_blocks_stay_until_their_last_holder_goes() {
        let mut blocks = blocks(4);
        let mut first = sequence(&mut blocks, 1, 2);
        let mut second = Table::default();
        assert_eq!(blocks.find(&names(1, 3)), (2, 0));
        blocks.share(&names(1, 2), &mut second);
        assert_eq!(second.pages(), first.pages());
        assert_eq!((blocks.held(), blocks.available()), (2, 2));
        assert_eq!(blocks.held_alone(&first), 0);
        blocks.release(&mut first, false);
        assert_eq!((blocks.held(), blocks.idle()), (2, 0), "the other holds them");
        assert_eq!(blocks.held_alone(&second), 2);
        let pages = second.pages().to_vec();
        blocks.release(&mut second, false);
        assert_eq!((blocks.held(), blocks.idle(), blocks.find(&names(1, 2))), (0, 0, (0, 0)));
        assert!(pages.iter().all(|page| blocks.cache.is_blank(*page)));
    }

    #[test]
    fn idle_blocks_are_forgotten_from_the_end_of_who_left_first() {
        let mut blocks = blocks(5);
        let mut old = sequence(&mut blocks, 1, 2);
        let mut new = sequence(&mut blocks, 11, 2);
        blocks.release(&mut old, true);
        blocks.release(&mut new, true);
        assert_eq!((blocks.held(), blocks.idle(), blocks.available()), (0, 4, 5));
        let mut table = Table::default();
        assert!(blocks.extend(&mut table), "the one that nobody had");
        assert_eq!(blocks.idle(), 4);
        for (left_of_old, left_of_new) in [(1, 2), (0, 2), (0, 1), (0, 0)] {
            assert!(blocks.extend(&mut table));
            let block = *table.pages().last().expect("just pushed");
            assert!(blocks.cache.is_blank(block), "it comes wiped");
            assert_eq!(
                (blocks.find(&names(1, 2)).0, blocks.find(&names(11, 2)).0),
                (left_of_old, left_of_new)
            );
        }
        assert!(!blocks.extend(&mut table), "what is held is not forgotten");
    }

    #[test]
    fn idle_blocks_come_back_to_life_by_name() {
        let mut blocks = blocks(4);
        let mut table = sequence(&mut blocks, 1, 3);
        blocks.release(&mut table, true);
        assert_eq!(blocks.find(&names(1, 3)), (3, 3));
        let mut again = Table::default();
        blocks.share(&names(1, 2), &mut again);
        assert_eq!((blocks.held(), blocks.idle()), (2, 1));
        assert!(!blocks.cache.is_blank(again.pages()[0]));
        blocks.release(&mut again, true);
        assert_eq!((blocks.held(), blocks.idle()), (0, 3));
    }

    #[test]
    fn a_purge_wipes_what_is_idle_and_leaves_what_is_held() {
        let mut blocks = blocks(4);
        let mut table = sequence(&mut blocks, 1, 2);
        blocks.purge(&names(1, 2));
        assert_eq!((blocks.held(), blocks.find(&names(1, 2))), (2, (2, 0)));
        let pages = table.pages().to_vec();
        blocks.release(&mut table, true);
        blocks.purge(&names(2, 1));
        assert_eq!((blocks.idle(), blocks.find(&names(1, 2)).0), (1, 1));
        assert!(blocks.cache.is_blank(pages[1]) && !blocks.cache.is_blank(pages[0]));
    }

    #[test]
    fn a_name_belongs_to_the_first_block_that_had_it() {
        let mut blocks = blocks(4);
        let mut first = sequence(&mut blocks, 1, 1);
        let mut twin = sequence(&mut blocks, 1, 1);
        blocks.release(&mut twin, true);
        assert_eq!((blocks.held(), blocks.idle()), (1, 0), "the twin is wiped, not kept");
        assert_eq!(blocks.find(&names(1, 1)), (1, 0));
        blocks.release(&mut first, true);
        assert_eq!(blocks.idle(), 1);
    }
}
