//! What a liteserver's answers prove, as pure functions over their bytes.
//!
//! Trust starts with one key block that the user pins. A key block names the validators of what follows, so a run of
//! links from it, each signed by more than two thirds of that set's weight, ends in a block that the network made; and a
//! block's root hash commits, through Merkle proofs, to the state of every account. ton-net-block does the steps; what
//! was read in its source, and what is added here, is said at each.
//!
//! Everything that comes out is of a type without a public constructor: holding a [`ProvenBlock`] or a
//! [`ProvenAccount`] means that these checks passed.

use cocoon_chain::{AccountState, AccountStatus, Block as ChainBlock, Transaction};
use cocoon_contracts::{Address, Nanotons, message};
use ton_net_block::{Block, BlockError, Lookup, proof, verify_chain};
use ton_net_cell::{ParseOptions, parse_boc_with, serialize_boc};
use ton_net_tl::lite::{self, BlockIdExt, BlockLink, PartialBlockProof};
use tycho_types::models::{Account, AccountState as StoredState, IntAddr, OptionalAccount};

use crate::settings::KeyBlock;
use crate::wire::{MASTERCHAIN, WHOLE_SHARD};

/// The largest account that is read, as a bag of cells.
const MAX_ACCOUNT_BYTES: usize = 2 << 20;
/// The largest bag of transactions.
const MAX_TRANSACTIONS_BYTES: usize = 4 << 20;
/// Most cells in a bag of transactions.
const MAX_TRANSACTION_CELLS: usize = 1 << 16;

/// Why an answer proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// A step of the proof does not hold: signatures, hashes, a branch that is missing.
    #[error("{0}")]
    Step(#[from] BlockError),
    /// It proves another block than the one that was asked for.
    #[error("it proves block {found}, not {expected}")]
    OtherBlock {
        /// What was asked for.
        expected: u32,
        /// What it proves.
        found: u32,
    },
    /// The block is of another network.
    #[error("the block is of network {found}, not {expected}")]
    OtherNetwork {
        /// The network of the key block.
        expected: i32,
        /// The block's.
        found: i32,
    },
    /// The account's bytes are not what the state commits to.
    #[error("the account is not the one that the state commits to")]
    OtherAccount,
    /// The account's bytes are no account.
    #[error("the account cannot be read: {0}")]
    BadAccount(String),
    /// The transactions are not the account's newest, in order.
    #[error("the transactions are not a chain that ends at the account's last: {0}")]
    BadTransactions(String),
}

/// A masterchain block that the validators signed for, from the pinned key block on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenBlock {
    id: BlockIdExt,
    key: bool,
    time: u32,
    network: i32,
}

impl ProvenBlock {
    /// Its number.
    pub fn seqno(&self) -> u32 {
        self.id.seqno.cast_unsigned()
    }

    /// Its identity, as liteservers name it.
    pub fn id(&self) -> &BlockIdExt {
        &self.id
    }

    /// Whether it names validators, so that further proofs can start here.
    pub fn is_key_block(&self) -> bool {
        self.key
    }

    /// The network's global id, which is in every block.
    pub fn network(&self) -> i32 {
        self.network
    }

    /// As callers of the chain see it.
    pub fn block(&self) -> ChainBlock {
        ChainBlock { seqno: self.seqno(), root_hash: self.id.root_hash, time: u64::from(self.time) }
    }

    /// As something to pin.
    pub fn pin(&self) -> KeyBlock {
        KeyBlock { seqno: self.seqno(), root_hash: self.id.root_hash, file_hash: self.id.file_hash }
    }
}

/// Checks a header's proof against a root hash that is trusted already. The file hash is taken from there too.
///
/// # Errors
/// The proof is of another block, or leaves the header out.
pub fn header(trusted: &BlockIdExt, header_proof: &[u8]) -> Result<ProvenBlock, ProofError> {
    let block = Block::from_proof(header_proof, &trusted.root_hash)?;
    let header = block.header()?;
    let expected = trusted.seqno.cast_unsigned();
    if header.seqno != expected || header.workchain != MASTERCHAIN || header.shard != WHOLE_SHARD {
        return Err(ProofError::OtherBlock { expected, found: header.seqno });
    }
    let network = global_id(&block)?;
    Ok(ProvenBlock { id: trusted.clone(), key: header.key_block, time: header.gen_utime, network })
}

/// Checks a run of links from a trusted key block, and returns its last block and the key blocks on the way.
///
/// `verify_chain` holds, for each link: that it starts where the last one ended; that the source's configuration proof is
/// of the source's root hash, and has the whole masterchain set of parameter 34 (its first `main` entries, no key twice);
/// that the destination's header proof is of the destination's root hash, of its number and kind; that distinct members
/// of the set with strictly more than two thirds of its weight signed exactly this block, in either form that mainnet
/// has used; and that it leads forward within the masterchain. Links backward are refused.
/// Added here: that all is of one network, whose id every block carries.
///
/// # Errors
/// The first step that does not hold.
pub fn chain(from: &ProvenBlock, answer: &PartialBlockProof) -> Result<Vec<ProvenBlock>, ProofError> {
    let last = verify_chain(&from.id, answer)?;
    let mut blocks = Vec::new();
    for (at, link) in answer.steps.iter().enumerate() {
        let BlockLink::Forward { to_key_block, to, dest_proof, .. } = link else {
            return Err(BlockError::BackwardLink.into());
        };
        if !*to_key_block && at + 1 < answer.steps.len() {
            return Err(BlockError::NotAKeyBlock.into()); // unreachable after verify_chain, which read its validators
        }
        let proven = header(to, dest_proof)?;
        if proven.network != from.network {
            return Err(ProofError::OtherNetwork { expected: from.network, found: proven.network });
        }
        blocks.push(proven);
    }
    match blocks.last() {
        Some(block) if block.id == last.id => Ok(blocks),
        _ => Err(BlockError::ChainBroken("ends somewhere other than it says").into()),
    }
}

fn global_id(block: &Block) -> Result<i32, BlockError> {
    let mut slice = block.cell().parse();
    slice.skip_bits(32)?; // the constructor, which is checked already
    Ok(slice.load_i32()?)
}

/// An account as a proven block has it.
#[derive(Debug, Clone)]
pub struct ProvenAccount {
    state: AccountState,
    last: (u64, [u8; 32]),
}

impl ProvenAccount {
    /// Its state: balance, status, code hash and data, all from proven cells.
    pub fn state(&self) -> &AccountState {
        &self.state
    }

    pub(crate) fn into_state(self) -> AccountState {
        self.state
    }

    /// The logical time and the hash of its last transaction; zeros when it never had one.
    pub fn last_transaction(&self) -> (u64, &[u8; 32]) {
        (self.last.0, &self.last.1)
    }

    fn nothing() -> Self {
        let state = AccountState {
            balance: 0,
            status: AccountStatus::Uninit,
            code_hash: None,
            data: None,
            last_lt: 0,
        };
        Self { state, last: (0, [0; 32]) }
    }
}

/// Checks the answer to `getAccountState` against a proven masterchain block.
///
/// The shard block is derived from the masterchain's state by the bits of the address, never taken from the answer; the
/// accounts of that block's state either show the account's hash or show that it is not there. A branch that is left out
/// is no answer. The state's own bytes are then hashed, whole: nothing in them may be pruned.
///
/// # Errors
/// The first step that does not hold.
pub fn account(
    head: &ProvenBlock,
    address: &Address,
    answer: &lite::AccountState,
) -> Result<ProvenAccount, ProofError> {
    let (id, workchain) = (&address.address.0, i32::from(address.workchain));
    let block_hash = if workchain == MASTERCHAIN {
        head.id.root_hash
    } else {
        proof::verify_shard_block(&answer.shard_proof, &head.id.root_hash, workchain, id)?
    };
    let roots = ton_net_cell::parse_boc(&answer.proof).map_err(BlockError::from)?;
    let state_hash = proof::verify_block_state(&roots, &block_hash)?;
    let entry = match proof::verify_shard_state(&roots, &state_hash)?.account(id)? {
        Lookup::Found(entry) => entry,
        Lookup::Pruned => return Err(BlockError::NotCovered.into()),
        // That it is not there is shown; bytes of it contradict that.
        Lookup::Absent if answer.state.is_empty() => return Ok(ProvenAccount::nothing()),
        Lookup::Absent => return Err(ProofError::OtherAccount),
    };
    let last = (entry.last_trans_lt(), *entry.last_trans_hash());
    let state = stored_account(address, entry.account_hash(), &answer.state)?;
    Ok(ProvenAccount { state: AccountState { last_lt: last.0, ..state }, last })
}

fn stored_account(address: &Address, hash: &[u8; 32], bytes: &[u8]) -> Result<AccountState, ProofError> {
    let bad = |why: &dyn std::fmt::Display| ProofError::BadAccount(why.to_string());
    if bytes.is_empty() {
        return Err(ProofError::OtherAccount); // it exists, and its bytes are withheld
    }
    let cell = message::decode(bytes, MAX_ACCOUNT_BYTES).map_err(|error| bad(&error))?;
    // A pruned branch has the hash of what it stands for; only the level tells.
    if cell.repr_hash().0 != *hash || cell.is_exotic() || cell.level() != 0 {
        return Err(ProofError::OtherAccount);
    }
    let OptionalAccount(account) = cell.parse().map_err(|error| bad(&error))?;
    let Some(account) = account else { return Ok(ProvenAccount::nothing().state) };
    if account.address != IntAddr::Std(address.clone()) {
        return Err(ProofError::OtherAccount);
    }
    contents(account).map_err(|error| bad(&error))
}

fn contents(account: Account) -> Result<AccountState, &'static str> {
    let balance = Nanotons::try_from(account.balance.tokens.into_inner())
        .map_err(|_| "its balance exceeds all coins")?;
    let (status, code_hash, data) = match account.state {
        StoredState::Uninit => (AccountStatus::Uninit, None, None),
        StoredState::Frozen(_) => (AccountStatus::Frozen, None, None),
        StoredState::Active(init) => {
            (AccountStatus::Active, init.code.map(|code| code.repr_hash().0), init.data)
        }
    };
    Ok(AccountState { balance, status, code_hash, data, last_lt: 0 })
}

/// Some of an account's transactions, newest first, all of them proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The transactions.
    pub list: Vec<Transaction>,
    /// The one before them: its logical time and hash; `None` when they reach the account's first.
    pub before: Option<(u64, [u8; 32])>,
}

/// Checks the answer to `getTransactions`: each transaction must be the one that the account, or the one after it, names
/// by hash and time.
///
/// # Errors
/// They are others, or none although there are some.
pub fn transactions(
    address: &Address,
    last: (u64, &[u8; 32]),
    bag: &[u8],
    limit: usize,
) -> Result<Page, ProofError> {
    let bad = |why: &dyn std::fmt::Display| ProofError::BadTransactions(why.to_string());
    if bag.len() > MAX_TRANSACTIONS_BYTES {
        return Err(bad(&"the bag is too large"));
    }
    let options = ParseOptions::default().with_max_cells(MAX_TRANSACTION_CELLS);
    let roots = parse_boc_with(bag, &options).map_err(|error| bad(&error))?;
    let mut expected = (last.0, *last.1);
    let mut list = Vec::new();
    for root in roots.iter().take(limit) {
        if expected.0 == 0 {
            break; // the account's first was reached
        }
        if *root.hash() != expected.1 || root.is_exotic() || root.level_mask() != 0 {
            return Err(bad(&"one is not the one that is named by its hash"));
        }
        let bytes = serialize_boc(std::slice::from_ref(root)).map_err(|error| bad(&error))?;
        let cell = message::decode(&bytes, MAX_TRANSACTIONS_BYTES).map_err(|error| bad(&error))?;
        let stored = cell.parse::<tycho_types::models::Transaction>().map_err(|error| bad(&error))?;
        if stored.lt != expected.0 || stored.account != address.address {
            return Err(bad(&"one is of another account or time"));
        }
        expected = (stored.prev_trans_lt, stored.prev_trans_hash.0);
        list.push(Transaction::parse(&cell).map_err(|error| bad(&error))?);
    }
    if list.is_empty() && limit > 0 && expected.0 != 0 {
        return Err(bad(&"there are none"));
    }
    Ok(Page { list, before: Some(expected).filter(|(lt, _)| *lt != 0) })
}
