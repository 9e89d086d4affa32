//! Blocks: what was decided, chained by hash.

use tycho_types::boc::Boc;
use tycho_types::cell::HashBytes;

/// A block of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Its number; the first one, genesis, is 1.
    pub seqno: u32,
    /// The hash of all that follows, and so of everything before.
    pub root_hash: [u8; 32],
    /// The block before; zeros for genesis.
    pub previous: [u8; 32],
    /// When it was made, Unix time in seconds. Never before its predecessor.
    pub time: u32,
    /// The first logical time in it.
    pub start_lt: u64,
    /// The first logical time after it.
    pub end_lt: u64,
    /// How many transactions it has.
    pub transactions: u32,
    /// The hash of the transactions' hashes, in order.
    pub transactions_hash: [u8; 32],
    /// The hash of the changed accounts' addresses and new states, in order of address.
    pub accounts_hash: [u8; 32],
}

/// Bytes of an encoded block: everything but the root hash.
const ENCODED_BYTES: usize = 4 + 32 + 4 + 8 + 8 + 4 + 32 + 32;

impl Block {
    /// Fills in the root hash.
    pub(crate) fn seal(mut self, network: i32) -> Self {
        let mut bytes = b"cocoon ledger block v1".to_vec();
        bytes.extend_from_slice(&network.to_be_bytes());
        bytes.extend_from_slice(&self.encode());
        self.root_hash = sha256(&bytes);
        self
    }

    /// The block as it is stored: its fields and its hash.
    pub(crate) fn stored(&self) -> Vec<u8> {
        [self.encode(), self.root_hash.to_vec()].concat()
    }

    /// Reads a stored block; `None` when it is not one, or not as it was.
    pub(crate) fn read(bytes: &[u8], network: i32) -> Option<Self> {
        let (fields, hash) = bytes.split_last_chunk::<32>()?;
        Self::decode(fields, network).filter(|block| block.root_hash == *hash)
    }

    /// The fields, which the hash is made of.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ENCODED_BYTES);
        bytes.extend_from_slice(&self.seqno.to_be_bytes());
        bytes.extend_from_slice(&self.previous);
        bytes.extend_from_slice(&self.time.to_be_bytes());
        bytes.extend_from_slice(&self.start_lt.to_be_bytes());
        bytes.extend_from_slice(&self.end_lt.to_be_bytes());
        bytes.extend_from_slice(&self.transactions.to_be_bytes());
        bytes.extend_from_slice(&self.transactions_hash);
        bytes.extend_from_slice(&self.accounts_hash);
        bytes
    }

    /// Reads a block from its fields alone.
    pub(crate) fn decode(bytes: &[u8], network: i32) -> Option<Self> {
        fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
            let (field, after) = rest.split_first_chunk()?;
            *rest = after;
            Some(*field)
        }
        let rest = &mut &*bytes;
        let block = Self {
            seqno: u32::from_be_bytes(take(rest)?),
            root_hash: [0; 32],
            previous: take(rest)?,
            time: u32::from_be_bytes(take(rest)?),
            start_lt: u64::from_be_bytes(take(rest)?),
            end_lt: u64::from_be_bytes(take(rest)?),
            transactions: u32::from_be_bytes(take(rest)?),
            transactions_hash: take(rest)?,
            accounts_hash: take(rest)?,
        };
        rest.is_empty().then(|| block.seal(network))
    }
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let HashBytes(hash) = Boc::file_hash(bytes);
    hash
}
