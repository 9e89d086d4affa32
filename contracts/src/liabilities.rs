//! What somebody owes to many, committed to in one hash: a Merkle-sum tree.
//!
//! A gateway publishes, for each epoch, the root of a tree whose leaves are its channels' unsettled amounts. Each payee
//! gets the path of its own leaf and nothing of the others'; anybody sees the sum. So nobody can be left out or counted
//! short without the chance of noticing, and what one payee is owed stays between the two.
//!
//! - A leaf is `SHA-256("cocoon liability leaf v1" ‖ salt ‖ workchain ‖ channel ‖ epoch ‖ amount)`. The salt is the leaf's
//!   own, so that nobody can try amounts.
//! - A node is `SHA-256("cocoon liability node v1" ‖ left hash ‖ left sum ‖ right hash ‖ right sum)`: both sums are bound, one
//!   by one, and not their total alone (a total alone lets a node hide the larger of two).
//! - The root binds the number of leaves, which fixes the tree's shape and each path's length.
//!
//! Amounts are `u64`, so no sum can be made smaller by a negative leaf; sums that overflow are refused.

use ring::digest::{Context, SHA256};

use crate::{Address, Malformed, Nanotons};

/// Most leaves of one tree.
pub const MAX_LEAVES: usize = 1 << 20;
/// The first bytes of an encoded proof: the form and its version.
const MAGIC: &[u8; 4] = b"CLP1";
/// Bytes of a proof before its path: magic, epoch, workchain, channel, amount, salt, index, leaves.
const PROOF_HEAD: usize = 4 + 8 + 1 + 32 + 8 + 32 + 4 + 4;
/// Bytes of one step of a path: hash and sum.
const STEP: usize = 32 + 8;
/// The longest encoded proof, in bytes.
pub const MAX_PROOF_BYTES: usize = PROOF_HEAD + 20 * STEP;

/// A hash and the sum of all amounts under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Node {
    hash: [u8; 32],
    sum: Nanotons,
}

/// What is published of one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root {
    /// The epoch.
    pub epoch: u64,
    /// Commits to every leaf, every sum and the number of leaves.
    pub hash: [u8; 32],
    /// All that is owed, in nanotons.
    pub sum: Nanotons,
}

/// One amount that is owed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Liability {
    /// The channel on which it is owed.
    pub channel: Address,
    /// What is owed and not settled, in nanotons.
    pub amount: Nanotons,
    /// Known to the payee and the tree's owner alone.
    pub salt: [u8; 32],
}

/// Why no tree can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// More leaves than [`MAX_LEAVES`].
    #[error("{0} liabilities are more than {MAX_LEAVES}: publish several trees")]
    TooMany(usize),
    /// The amounts do not fit in 64 bits.
    #[error("the liabilities' sum is more than 2^64 nanotons: an amount is wrong")]
    Overflow,
}

/// Why a proof does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// For another epoch than the root.
    #[error("the proof is for epoch {found}, the root for epoch {expected}")]
    Epoch {
        /// The root's.
        expected: u64,
        /// The proof's.
        found: u64,
    },
    /// The path has not the length that this leaf's place in such a tree has.
    #[error("the proof's path does not fit leaf {index} of {leaves}")]
    Shape {
        /// The leaf's place.
        index: u32,
        /// How many leaves the tree has.
        leaves: u32,
    },
    /// The hashes or sums on the path do not lead to the root.
    #[error("the proof does not lead to the published root: this liability is not in it")]
    Root,
}

/// A whole tree: what the one who owes keeps.
pub struct Tree {
    epoch: u64,
    leaves: Vec<Liability>,
    /// From the leaves up; a last node without a neighbour moves up as it is.
    levels: Vec<Vec<Node>>,
}

impl Tree {
    /// The tree of these liabilities, in the order of their channels whatever order they come in.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn new(epoch: u64, mut leaves: Vec<Liability>) -> Result<Self, TreeError> {
        if leaves.len() > MAX_LEAVES {
            return Err(TreeError::TooMany(leaves.len()));
        }
        leaves.sort_by(|a, b| a.channel.cmp(&b.channel));
        let mut levels = vec![leaves.iter().map(|leaf| leaf_node(epoch, leaf)).collect::<Vec<_>>()];
        while levels.last().is_some_and(|level| level.len() > 1) {
            let below = levels.last().expect("there is the level of leaves");
            let above = below.chunks(2).map(|pair| match pair {
                [left, right] => join(left, right).ok_or(TreeError::Overflow),
                _ => Ok(pair[0]),
            });
            let above = above.collect::<Result<Vec<_>, _>>()?;
            levels.push(above);
        }
        Ok(Self { epoch, leaves, levels })
    }

    /// What is published.
    pub fn root(&self) -> Root {
        let top = self.levels.last().and_then(|level| level.first()).copied();
        seal(self.epoch, &top.unwrap_or(EMPTY), self.count())
    }

    /// The proof for a channel's payee; `None` where nothing is owed to it in this tree.
    pub fn prove(&self, channel: &Address) -> Option<Proof> {
        let index = self.leaves.iter().position(|leaf| leaf.channel == *channel)?;
        let mut path = Vec::new();
        let mut at = index;
        for level in self.levels.iter().take(self.levels.len() - 1) {
            path.extend(level.get(at ^ 1));
            at /= 2;
        }
        let index = u32::try_from(index).expect("within MAX_LEAVES");
        Some(Proof {
            epoch: self.epoch,
            liability: self.leaves[index as usize].clone(),
            index,
            leaves: self.count(),
            path,
        })
    }

    /// What is owed, in the order of the channels.
    pub fn leaves(&self) -> &[Liability] {
        &self.leaves
    }

    fn count(&self) -> u32 {
        u32::try_from(self.leaves.len()).expect("within MAX_LEAVES")
    }
}

/// That one liability is in a published root. Private to the payee: it shows the amount, the salt and the neighbours' sums.
#[derive(Clone, PartialEq, Eq)]
pub struct Proof {
    epoch: u64,
    liability: Liability,
    index: u32,
    leaves: u32,
    path: Vec<Node>,
}

impl Proof {
    /// The epoch that it is for.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The channel that it says to be about. Unchecked, like all of a proof before [`Proof::verify`].
    pub fn channel(&self) -> &Address {
        &self.liability.channel
    }

    /// Checks that the liability is in the root, and returns it.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn verify(&self, root: &Root) -> Result<&Liability, ProofError> {
        if self.epoch != root.epoch {
            return Err(ProofError::Epoch { expected: root.epoch, found: self.epoch });
        }
        let shape = ProofError::Shape { index: self.index, leaves: self.leaves };
        if self.index >= self.leaves || self.leaves as usize > MAX_LEAVES {
            return Err(shape);
        }
        let mut node = leaf_node(self.epoch, &self.liability);
        let (mut at, mut width, mut path) = (self.index, self.leaves, self.path.iter());
        while width > 1 {
            // The last of an odd level moves up alone.
            if at ^ 1 < width {
                let neighbour = path.next().ok_or(shape)?;
                let pair = if at % 2 == 0 { (&node, neighbour) } else { (neighbour, &node) };
                node = join(pair.0, pair.1).ok_or(ProofError::Root)?;
            }
            (at, width) = (at / 2, width.div_ceil(2));
        }
        if path.next().is_some() {
            return Err(shape);
        }
        if seal(self.epoch, &node, self.leaves) != *root {
            return Err(ProofError::Root);
        }
        Ok(&self.liability)
    }

    /// The form in which proofs travel and are kept: at most [`MAX_PROOF_BYTES`], big-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(PROOF_HEAD + self.path.len() * STEP);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        bytes.extend_from_slice(&self.liability.channel.workchain.to_be_bytes());
        bytes.extend_from_slice(&self.liability.channel.address.0);
        bytes.extend_from_slice(&self.liability.amount.to_be_bytes());
        bytes.extend_from_slice(&self.liability.salt);
        bytes.extend_from_slice(&self.index.to_be_bytes());
        bytes.extend_from_slice(&self.leaves.to_be_bytes());
        for node in &self.path {
            bytes.extend_from_slice(&node.hash);
            bytes.extend_from_slice(&node.sum.to_be_bytes());
        }
        bytes
    }

    /// Reads [`Proof::encode`]'s form and nothing else.
    ///
    /// # Errors
    /// [`Malformed`]: another form, or a length that no proof has.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let malformed = |why: &str| Malformed::new("proof of a liability", why);
        if bytes.len() > MAX_PROOF_BYTES {
            return Err(malformed("it is longer than the longest path"));
        }
        let mut rest = bytes.strip_prefix(MAGIC).ok_or_else(|| malformed("it does not begin with CLP1"))?;
        let head = || malformed("it ends too early");
        let epoch = u64::from_be_bytes(take(&mut rest).ok_or_else(head)?);
        let workchain = i8::from_be_bytes(take(&mut rest).ok_or_else(head)?);
        let channel =
            Address::new(workchain, tycho_types::cell::HashBytes(take(&mut rest).ok_or_else(head)?));
        let amount = Nanotons::from_be_bytes(take(&mut rest).ok_or_else(head)?);
        let salt = take(&mut rest).ok_or_else(head)?;
        let index = u32::from_be_bytes(take(&mut rest).ok_or_else(head)?);
        let leaves = u32::from_be_bytes(take(&mut rest).ok_or_else(head)?);
        let mut path = Vec::new();
        while !rest.is_empty() {
            let hash = take(&mut rest).ok_or_else(head)?;
            let sum = Nanotons::from_be_bytes(take(&mut rest).ok_or_else(head)?);
            path.push(Node { hash, sum });
        }
        Ok(Self { epoch, liability: Liability { channel, amount, salt }, index, leaves, path })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (field, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*field)
}

/// The top of a tree without leaves.
const EMPTY: Node = Node { hash: [0; 32], sum: 0 };

fn leaf_node(epoch: u64, leaf: &Liability) -> Node {
    let hash = sha256(&[
        b"cocoon liability leaf v1",
        &leaf.salt,
        &leaf.channel.workchain.to_be_bytes(),
        &leaf.channel.address.0,
        &epoch.to_be_bytes(),
        &leaf.amount.to_be_bytes(),
    ]);
    Node { hash, sum: leaf.amount }
}

fn join(left: &Node, right: &Node) -> Option<Node> {
    let hash = sha256(&[
        b"cocoon liability node v1",
        &left.hash,
        &left.sum.to_be_bytes(),
        &right.hash,
        &right.sum.to_be_bytes(),
    ]);
    Some(Node { hash, sum: left.sum.checked_add(right.sum)? })
}

fn seal(epoch: u64, top: &Node, leaves: u32) -> Root {
    let hash = sha256(&[
        b"cocoon liability root v1",
        &epoch.to_be_bytes(),
        &leaves.to_be_bytes(),
        &top.hash,
        &top.sum.to_be_bytes(),
    ]);
    Root { epoch, hash, sum: top.sum }
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tycho_types::cell::HashBytes;

    use super::*;

    fn liability(number: u32, amount: Nanotons) -> Liability {
        let mut bytes = [7; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        Liability { channel: Address::new(0, HashBytes(bytes)), amount, salt: [number as u8; 32] }
    }

    fn tree(amounts: &[Nanotons]) -> Tree {
        let leaves = amounts.iter().zip(0..).map(|(amount, number)| liability(number, *amount));
        Tree::new(3, leaves.collect()).unwrap()
    }

    #[test]
    fn an_empty_tree_owes_nothing_and_has_a_root() {
        let root = tree(&[]).root();
        assert_eq!((root.epoch, root.sum), (3, 0));
        assert!(tree(&[]).prove(&liability(0, 0).channel).is_none());
        assert_ne!(root.hash, tree(&[0]).root().hash);
    }

    #[test]
    fn the_order_of_liabilities_does_not_matter() {
        let (a, b, c) = (liability(1, 10), liability(2, 20), liability(3, 30));
        let one = Tree::new(1, vec![a.clone(), b.clone(), c.clone()]).unwrap().root();
        assert_eq!(one, Tree::new(1, vec![c, a, b]).unwrap().root());
    }

    #[test]
    fn sums_that_overflow_are_refused() {
        let two = vec![liability(1, u64::MAX), liability(2, 1)];
        assert_eq!(Tree::new(1, two).err(), Some(TreeError::Overflow));
    }

    #[test]
    fn a_proof_holds_for_its_own_root_only() {
        let proof = tree(&[5, 6, 7]).prove(&liability(1, 6).channel).unwrap();
        assert_eq!(proof.verify(&tree(&[5, 6, 7]).root()).unwrap().amount, 6);
        assert_eq!(proof.verify(&tree(&[5, 6, 8]).root()), Err(ProofError::Root));
        assert_eq!(proof.verify(&tree(&[5, 6]).root()), Err(ProofError::Root));
        let later = Root { epoch: 4, ..tree(&[5, 6, 7]).root() };
        assert_eq!(proof.verify(&later), Err(ProofError::Epoch { expected: 4, found: 3 }));
        // A sum that is published lower than the leaves' is no root of theirs.
        let root = tree(&[5, 6, 7]).root();
        assert_eq!(proof.verify(&Root { sum: 17, ..root }), Err(ProofError::Root));
    }

    #[test]
    fn paths_of_another_length_are_refused() {
        let whole = tree(&[1, 2, 3, 4, 5]);
        let proof = whole.prove(&liability(2, 3).channel).unwrap();
        let shape = |index, leaves| Err(ProofError::Shape { index, leaves });
        let mut short = proof.clone();
        short.path.pop();
        assert_eq!(short.verify(&whole.root()), shape(2, 5));
        let mut long = proof.clone();
        long.path.push(EMPTY);
        assert_eq!(long.verify(&whole.root()), shape(2, 5));
        let outside = Proof { index: 5, ..proof.clone() };
        assert_eq!(outside.verify(&whole.root()), shape(5, 5));
        let huge = Proof { leaves: u32::MAX, ..proof };
        assert_eq!(huge.verify(&whole.root()), shape(2, u32::MAX));
    }

    #[test]
    fn every_flipped_bit_of_a_proof_is_refused() {
        let whole = tree(&[1, 2, 3, 4, 5, 6, 7]);
        let bytes = whole.prove(&liability(4, 5).channel).unwrap().encode();
        assert!(bytes.len() <= MAX_PROOF_BYTES);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let held = Proof::decode(&flipped).is_ok_and(|proof| proof.verify(&whole.root()).is_ok());
            assert!(!held, "bit {bit}");
        }
        for length in 0..bytes.len() {
            let held = Proof::decode(&bytes[..length]).is_ok_and(|proof| proof.verify(&whole.root()).is_ok());
            assert!(!held, "length {length}");
        }
        assert!(Proof::decode(&vec![b'C'; MAX_PROOF_BYTES + 1]).is_err());
    }

    proptest! {
        #[test]
        fn every_payee_finds_its_amount_in_a_root_that_sums_all(
            amounts in proptest::collection::vec(0..u64::MAX / 100, 1..70)
        ) {
            let whole = tree(&amounts);
            let root = whole.root();
            prop_assert_eq!(root.sum, amounts.iter().sum::<u64>());
            for (number, amount) in (0..).zip(&amounts) {
                let proof = whole.prove(&liability(number, 0).channel).unwrap();
                let carried = Proof::decode(&proof.encode()).unwrap();
                prop_assert_eq!(carried.verify(&root).unwrap().amount, *amount);
            }
        }

        /// No root hides a part: to prove a leaf, its whole amount must be in the sum.
        #[test]
        fn no_proof_shows_more_than_the_root_sums(
            amounts in proptest::collection::vec(0..1_000u64, 1..40), which in any::<prop::sample::Index>(), less in 1..1_000u64
        ) {
            let whole = tree(&amounts);
            let number = which.index(amounts.len());
            let root = whole.root();
            let smaller = Root { sum: root.sum.saturating_sub(less), ..root };
            prop_assume!(smaller.sum != root.sum);
            let proof = whole.prove(&liability(number as u32, 0).channel).unwrap();
            prop_assert!(proof.verify(&smaller).is_err());
        }
    }
}
