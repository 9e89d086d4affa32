//! Byte-pair merging: the pair with the lowest rank first, the leftmost among equals.

use std::{cmp::Reverse, collections::BinaryHeap, collections::HashMap};

use super::Words;
use crate::error::ModelError;

/// No token: the end of the list of pieces, and bytes that have none.
pub(super) const NONE: u32 = u32::MAX;

/// For each pair of tokens that may merge: its rank, and the token that it becomes.
pub(super) struct Merges(HashMap<(u32, u32), (u32, u32)>);

/// One piece of a word; pieces form a doubly linked list.
#[derive(Clone, Copy)]
struct Piece {
    token: u32,
    previous: u32,
    next: u32,
}

/// Memory that is used again from word to word.
#[derive(Default)]
pub(super) struct Scratch {
    pieces: Vec<Piece>,
    /// Rank, place of the left piece, and both tokens, so that entries that no longer hold are seen.
    queue: BinaryHeap<Reverse<(u32, u32, u32, u32)>>,
}

impl Merges {
    /// Reads pairs of tokens in the order of their ranks; `decode` gives a token's bytes. Pairs over tokens that are not
    /// there never apply.
    pub(super) fn read<'m>(
        pairs: impl Iterator<Item = Option<(&'m str, &'m str)>>,
        words: &Words,
        decode: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<Self, ModelError> {
        let mut table = HashMap::with_capacity(pairs.size_hint().0);
        for (pair, rank) in pairs.zip(0u32..) {
            let malformed = || ModelError::Malformed(format!("merge {rank} is not a pair of tokens"));
            let (left, right) = pair.ok_or_else(malformed)?;
            let mut joined = decode(left).ok_or_else(malformed)?;
            let split = joined.len();
            joined.extend(decode(right).ok_or_else(malformed)?);
            let id = |bytes: &[u8]| words.get(bytes).copied();
            if let (Some(l), Some(r), Some(whole)) = (id(&joined[..split]), id(&joined[split..]), id(&joined))
            {
                table.entry((l, r)).or_insert((rank, whole));
            }
        }
        Ok(Self(table))
    }

    /// Pairs with their ranks and what they become.
    pub(super) fn from_table(table: HashMap<(u32, u32), (u32, u32)>) -> Self {
        Self(table)
    }

    /// Merges one word and appends its tokens. The work grows as n log n, so that no word is too long.
    pub(super) fn apply(&self, word: impl Iterator<Item = u32>, scratch: &mut Scratch, out: &mut Vec<u32>) {
        let Scratch { pieces, queue } = scratch;
        pieces.clear();
        queue.clear();
        for (token, at) in word.zip(0u32..) {
            pieces.push(Piece { token, previous: at.wrapping_sub(1), next: at + 1 });
        }
        let Some(last) = pieces.last_mut() else { return };
        last.next = NONE;
        for at in 1..pieces.len() as u32 {
            self.offer(pieces, queue, at - 1, at);
        }
        while let Some(Reverse((_, at, left, right))) = queue.pop() {
            let piece = pieces[at as usize];
            if piece.token != left || piece.next == NONE || pieces[piece.next as usize].token != right {
                continue; // one of the two has merged with something else since
            }
            let gone = piece.next;
            let after = pieces[gone as usize].next;
            pieces[at as usize].token = self.0[&(left, right)].1;
            pieces[at as usize].next = after;
            pieces[gone as usize].token = NONE;
            if after != NONE {
                pieces[after as usize].previous = at;
                self.offer(pieces, queue, at, after);
            }
            if piece.previous != NONE {
                self.offer(pieces, queue, piece.previous, at);
            }
        }
        let mut at = 0;
        while at != NONE {
            let token = pieces[at as usize].token;
            if token != NONE {
                out.push(token);
            }
            at = pieces[at as usize].next;
        }
    }

    fn offer(
        &self,
        pieces: &[Piece],
        queue: &mut BinaryHeap<Reverse<(u32, u32, u32, u32)>>,
        at: u32,
        next: u32,
    ) {
        let (left, right) = (pieces[at as usize].token, pieces[next as usize].token);
        if let Some(&(rank, _)) = self.0.get(&(left, right)) {
            queue.push(Reverse((rank, at, left, right)));
        }
    }
}
