//! The ledger: accounts, a queue of messages, and the chain of blocks.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::Path;

use cocoon_chain::Transaction;
use cocoon_contracts::{Address, Cell, Nanotons, message};
use tycho_executor::ParsedConfig;
use tycho_types::models::{Account, IntAddr, MsgInfo, OwnedMessage, ShardAccount};

use crate::block::{Block, sha256};
use crate::execute::{Draft, External, Fees, check_external, normalised_hash, parameters};
use crate::genesis::{Genesis, no_account};
use crate::getter::{GetterError, GetterOutput, run_getter};
use crate::store::{Changes, Loaded, Store, Totals};
use crate::{LedgerError, SubmitError, config};

/// Most messages from outside that wait for a block.
const MAX_PENDING: usize = 4096;
/// Most requests to the faucet that wait for a block.
const MAX_GRANTS: usize = 256;
/// The most that the faucet gives at once: a million TON.
pub const MAX_FAUCET_GRANT: Nanotons = 1_000_000_000_000_000;
/// The deepest message from outside (`max_ext_msg_depth`).
const MAX_MESSAGE_DEPTH: u16 = 512;
/// Blocks begin at multiples of this logical time, as on TON.
const LT_ALIGN: u64 = 1_000_000;
/// The number of the first block.
const GENESIS_SEQNO: u32 = 1;

/// Where every nanoton is. The sum never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Supply {
    /// On accounts.
    pub accounts: u128,
    /// In messages on their way.
    pub in_flight: u128,
    /// Collected as fees since genesis.
    pub fees: u128,
    /// Sent to where nothing can be.
    pub burned: u128,
}

impl Supply {
    /// All of it.
    pub fn total(&self) -> u128 {
        self.accounts + self.in_flight + self.fees + self.burned
    }
}

/// A ledger. Its state changes only in [`Ledger::produce_block`], and only once the block is on disk.
pub struct Ledger {
    network: i32,
    config: ParsedConfig,
    store: Store,
    head: Block,
    totals: Totals,
    accounts: BTreeMap<Address, ShardAccount>,
    queue: VecDeque<Cell>,
    pending: VecDeque<External>,
    known: HashSet<[u8; 32]>,
    grants: VecDeque<(Address, Nanotons)>,
}

impl Ledger {
    /// A ledger that lives in memory and is gone with it.
    pub fn in_memory(genesis: &Genesis) -> Result<Self, LedgerError> {
        Self::on(Store::in_memory(genesis.network)?, genesis)
    }

    /// The ledger in this file: begun with `genesis`, or reopened where it was.
    pub fn open(path: &Path, genesis: &Genesis) -> Result<Self, LedgerError> {
        let digest = genesis.digest().map_err(execution)?;
        let Some(store) = Store::open(path, genesis.network)? else {
            let beginning = Beginning::of(genesis)?;
            let store = Store::create(path, genesis.network, &digest, &beginning.changes())?;
            return Self::with(store, genesis, beginning.state());
        };
        // A file that is there and holds nothing is no ledger of ours: those have their first block before their name.
        let nothing = || LedgerError::Broken { what: format!("{}: it holds no ledger", path.display()) };
        let loaded = store.load(&digest)?.ok_or_else(nothing)?;
        Self::with(store, genesis, State::from(loaded))
    }

    /// The network of the ledger in this file: `None` when there is no file, or an old one that does not say.
    ///
    /// # Errors
    /// The file is there, and is no ledger that can be opened.
    pub fn network_of(path: &Path) -> Result<Option<i32>, LedgerError> {
        Store::open(path, 0)?.map_or(Ok(None), |store| store.written_network())
    }

    pub(crate) fn on(store: Store, genesis: &Genesis) -> Result<Self, LedgerError> {
        let digest = genesis.digest().map_err(execution)?;
        let state = match store.load(&digest)? {
            Some(loaded) => State::from(loaded),
            None => {
                let beginning = Beginning::of(genesis)?;
                store.begin(&digest, &beginning.changes())?;
                beginning.state()
            }
        };
        Self::with(store, genesis, state)
    }

    fn with(store: Store, genesis: &Genesis, state: State) -> Result<Self, LedgerError> {
        let State { head, totals, accounts, queue } = state;
        let network = genesis.network;
        let config = config::parsed(network, genesis.schedule, head.time).map_err(execution)?;
        let ledger = Self {
            network,
            config,
            store,
            head,
            totals,
            accounts,
            queue,
            pending: VecDeque::new(),
            known: HashSet::new(),
            grants: VecDeque::new(),
        };
        if ledger.supply().total() == genesis.supply() {
            Ok(ledger)
        } else {
            Err(LedgerError::Broken { what: "there are more or fewer coins than it began with".into() })
        }
    }

    /// The network's global id.
    pub fn network(&self) -> i32 {
        self.network
    }

    /// The newest block.
    pub fn head(&self) -> Block {
        self.head
    }

    /// The block with this number.
    pub fn block(&self, seqno: u32) -> Result<Option<Block>, LedgerError> {
        self.store.block(seqno)
    }

    /// A parameter of the configuration.
    pub fn config_parameter(&self, id: u32) -> Option<Cell> {
        self.config.raw.get_raw_cell(id).ok().flatten()
    }

    /// All accounts that ever were, in order of address.
    pub fn accounts(&self) -> impl Iterator<Item = (&Address, &ShardAccount)> {
        self.accounts.iter()
    }

    /// An account with its last transaction, if it ever had one or exists.
    pub fn shard_account(&self, address: &Address) -> Option<&ShardAccount> {
        self.accounts.get(address)
    }

    /// An account, if it exists.
    pub fn account(&self, address: &Address) -> Option<Account> {
        self.accounts.get(address)?.load_account().ok().flatten()
    }

    /// What an account holds, in nanotons.
    pub fn balance(&self, address: &Address) -> Nanotons {
        let balance = self.account(address).map_or(0, |account| account.balance.tokens.into_inner());
        Nanotons::try_from(balance).unwrap_or(Nanotons::MAX)
    }

    /// Transactions of an account at or before the logical time `until`, newest first.
    pub fn transactions(
        &self,
        address: &Address,
        until: u64,
        limit: usize,
    ) -> Result<Vec<Cell>, LedgerError> {
        let cells = self.store.transactions(address, until, limit)?;
        // Each names the one before it, and the account its last: a gap is no history.
        let newest = self.accounts.get(address).filter(|account| account.last_trans_lt <= until && limit > 0);
        let mut expected = newest.map(|account| (account.last_trans_lt, account.last_trans_hash));
        for cell in &cells {
            let tx = cell.parse::<tycho_types::models::Transaction>().map_err(execution)?;
            if expected.is_some_and(|expected| expected != (tx.lt, *cell.repr_hash())) {
                return Err(gap(address));
            }
            expected = Some((tx.prev_trans_lt, tx.prev_trans_hash));
        }
        if cells.len() < limit && expected.is_some_and(|(lt, _)| lt != 0) {
            return Err(gap(address));
        }
        Ok(cells)
    }

    /// The transactions of a block with their accounts, in the order in which they happened, from logical time `from`.
    pub fn block_transactions(
        &self,
        block: &Block,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(Address, Cell)>, LedgerError> {
        self.store.log(from.max(block.start_lt), block.end_lt, limit)
    }

    /// The first block for which `reached` holds. It must hold for all blocks after one for which it does.
    pub fn find_block(&self, reached: impl Fn(&Block) -> bool) -> Result<Option<Block>, LedgerError> {
        let (mut low, mut high) = (GENESIS_SEQNO, self.head.seqno + 1);
        let mut found = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let block =
                self.block(middle)?.ok_or(LedgerError::Broken { what: "a block is missing".into() })?;
            if reached(&block) {
                (high, found) = (middle, Some(block));
            } else {
                low = middle + 1;
            }
        }
        Ok(found)
    }

    /// The block in which logical time `lt` is.
    pub fn block_of(&self, lt: u64) -> Result<Option<Block>, LedgerError> {
        Ok(self.find_block(|block| lt < block.end_lt)?.filter(|block| block.start_lt <= lt))
    }

    /// The transaction that a message from outside caused, by the message's hash or its normalised one
    /// ([`normalised_hash`](crate::normalised_hash)).
    pub fn transaction_of(&self, hash: &[u8; 32]) -> Result<Option<(Address, Cell)>, LedgerError> {
        let Some(lt) = self.store.external(hash)? else { return Ok(None) };
        let found = self.store.log(lt, lt.saturating_add(1), 1)?.pop();
        let names = |cell: &Cell| -> Option<bool> {
            let message = cell.parse::<tycho_types::models::Transaction>().ok()?.in_msg?;
            Some(message.repr_hash().as_slice() == hash || normalised_hash(&message) == Some(*hash))
        };
        if found.as_ref().and_then(|(_, cell)| names(cell)) == Some(true) {
            Ok(found)
        } else {
            Err(LedgerError::Broken { what: "the index of messages names another transaction".into() })
        }
    }

    /// What a message from outside would cost its account now. With `ignore_signature`, whoever signed it.
    pub fn estimate(&self, message: &Cell, ignore_signature: bool) -> Result<Fees, SubmitError> {
        let external = external(message.clone())?;
        let mut params = parameters(self.head.time, self.head.end_lt, self.head.root_hash);
        params.vm_modifiers.chksig_always_succeed = ignore_signature;
        let account = self.accounts.get(&external.to).cloned().unwrap_or_else(no_account);
        Fees::of(&params, &self.config, &account, &external)
            .map_err(|_| SubmitError::NotAccepted(external.to.to_string()))
    }

    /// The newest transactions of an account, read for what callers need.
    pub fn history(&self, address: &Address, limit: usize) -> Result<Vec<Transaction>, LedgerError> {
        let cells = self.transactions(address, u64::MAX, limit)?;
        cells.iter().map(|cell| Transaction::parse(cell).map_err(execution)).collect()
    }

    /// Runs a get-method on the newest state, at the time of the newest block.
    pub fn run_get_method(
        &self,
        address: &Address,
        method: u32,
        arguments: &[cocoon_chain::StackItem],
    ) -> Result<GetterOutput, GetterError> {
        let account = self.account(address).ok_or(GetterError::NoContract)?;
        run_getter(&self.config, &account, self.head.time, method, arguments)
    }

    /// Where every nanoton is.
    pub fn supply(&self) -> Supply {
        let accounts = self.accounts.values().filter_map(|account| account.load_account().ok().flatten());
        let accounts = accounts.map(|account| account.balance.tokens.into_inner()).sum();
        let value = |message: &Cell| match message.parse::<MsgInfo>() {
            Ok(MsgInfo::Int(info)) => info.value.tokens.into_inner() + info.fwd_fee.into_inner(),
            _ => 0,
        };
        let in_flight = self.queue.iter().map(value).sum();
        Supply { accounts, in_flight, fees: self.totals.fees, burned: self.totals.burned }
    }

    /// Takes a message from outside (a bag of cells) for the next block, if its contract accepts it as of now. Returns
    /// its hash. Handing in the same message twice is no error.
    pub fn submit(&mut self, bytes: &[u8]) -> Result<[u8; 32], SubmitError> {
        let external = read_external(bytes)?;
        let hash = external.message.repr_hash().0;
        if self.known.contains(&hash) {
            return Ok(hash);
        }
        if self.pending.len() >= MAX_PENDING {
            return Err(SubmitError::Busy);
        }
        let (time, lt) = (self.head.time, self.head.end_lt);
        let params = parameters(time, lt, self.head.root_hash);
        let account = self.accounts.get(&external.to).cloned().unwrap_or_else(no_account);
        check_external(&params, &self.config, &account, lt, &external).map_err(|why| {
            tracing::debug!(to = %external.to, %why, "a message from outside was refused");
            SubmitError::NotAccepted(external.to.to_string())
        })?;
        self.known.insert(hash);
        self.pending.push_back(external);
        Ok(hash)
    }

    /// Money for development: `amount` nanotons for this account, in the next block.
    pub fn faucet(&mut self, to: &Address, amount: Nanotons) -> Result<(), SubmitError> {
        if amount == 0 || amount > MAX_FAUCET_GRANT {
            return Err(SubmitError::Malformed(format!("the faucet gives 1 to {MAX_FAUCET_GRANT} nanotons")));
        }
        if self.grants.len() >= MAX_GRANTS {
            return Err(SubmitError::Busy);
        }
        self.grants.push_back((to.clone(), amount));
        Ok(())
    }

    /// True when the next block would have something in it.
    pub fn has_work(&self) -> bool {
        !(self.pending.is_empty() && self.queue.is_empty() && self.grants.is_empty())
    }

    /// Makes the next block out of all that waits. `now` is Unix time in seconds; a clock that goes back is held.
    ///
    /// # Errors
    /// The block could not be written: then nothing happened, and what waited still waits.
    pub fn produce_block(&mut self, now: u32) -> Result<Block, LedgerError> {
        let time = now.max(self.head.time);
        let start_lt = self.head.end_lt.next_multiple_of(LT_ALIGN);
        let seed = sha256(&[self.head.root_hash.as_slice(), &time.to_be_bytes()].concat());
        let mut draft = Draft {
            accounts: &self.accounts,
            config: &self.config,
            params: parameters(time, start_lt, seed),
            lt: start_lt,
            totals: self.totals,
            queue: self.queue.clone(),
            changed: BTreeMap::new(),
            transactions: Vec::new(),
            externals: Vec::new(),
        };
        for (to, amount) in &self.grants {
            draft.grant(to, *amount)?;
        }
        let taken = draft.fill(&self.pending)?;

        let block = seal(&self.head, self.network, time, start_lt, &draft);
        self.store.commit(&Changes {
            block: &block,
            totals: &draft.totals,
            accounts: draft.changed.iter().collect(),
            transactions: draft.transactions.iter().map(|(to, lt, cell)| (to, *lt, cell)).collect(),
            queue: draft.queue.iter().collect(),
            externals: &draft.externals,
        })?;

        let Draft { totals, queue, changed, .. } = draft;
        self.totals = totals;
        self.queue = queue;
        self.accounts.extend(changed);
        self.grants.clear();
        self.pending.drain(..taken);
        self.known = self.pending.iter().map(|external| external.message.repr_hash().0).collect();
        self.head = block;
        Ok(block)
    }
}

/// What a ledger goes on from.
struct State {
    head: Block,
    totals: Totals,
    accounts: BTreeMap<Address, ShardAccount>,
    queue: VecDeque<Cell>,
}

impl From<Loaded> for State {
    fn from(loaded: Loaded) -> Self {
        let Loaded { head, totals, accounts, queue } = loaded;
        Self { head, totals, accounts: accounts.into_iter().collect(), queue: queue.into() }
    }
}

/// The first block.
struct Beginning {
    block: Block,
    totals: Totals,
    accounts: BTreeMap<Address, ShardAccount>,
}

impl Beginning {
    fn of(genesis: &Genesis) -> Result<Self, LedgerError> {
        let accounts: BTreeMap<_, _> = genesis.shard_accounts().map_err(execution)?.into_iter().collect();
        let block = Block {
            seqno: GENESIS_SEQNO,
            root_hash: [0; 32],
            previous: [0; 32],
            time: genesis.time,
            start_lt: 0,
            end_lt: LT_ALIGN,
            transactions: 0,
            transactions_hash: sha256(&[]),
            accounts_hash: accounts_hash(&accounts),
        };
        Ok(Self { block: block.seal(genesis.network), totals: Totals::default(), accounts })
    }

    fn changes(&self) -> Changes<'_> {
        Changes {
            block: &self.block,
            totals: &self.totals,
            accounts: self.accounts.iter().collect(),
            transactions: Vec::new(),
            queue: Vec::new(),
            externals: &[],
        }
    }

    fn state(self) -> State {
        State { head: self.block, totals: self.totals, accounts: self.accounts, queue: VecDeque::new() }
    }
}

fn seal(head: &Block, network: i32, time: u32, start_lt: u64, draft: &Draft<'_>) -> Block {
    let hashes: Vec<u8> = draft.transactions.iter().flat_map(|(_, _, cell)| cell.repr_hash().0).collect();
    Block {
        seqno: head.seqno + 1,
        root_hash: [0; 32],
        previous: head.root_hash,
        time,
        start_lt,
        end_lt: draft.lt + 1,
        transactions: u32::try_from(draft.transactions.len()).expect("blocks are limited"),
        transactions_hash: sha256(&hashes),
        accounts_hash: accounts_hash(&draft.changed),
    }
    .seal(network)
}

fn accounts_hash(accounts: &BTreeMap<Address, ShardAccount>) -> [u8; 32] {
    let mut bytes = Vec::new();
    for (address, account) in accounts {
        bytes.push(address.workchain.cast_unsigned());
        bytes.extend_from_slice(&address.address.0);
        bytes.extend_from_slice(&account.account.inner().repr_hash().0);
    }
    sha256(&bytes)
}

fn read_external(bytes: &[u8]) -> Result<External, SubmitError> {
    let malformed = |why: &dyn std::fmt::Display| SubmitError::Malformed(why.to_string());
    let cell = message::decode(bytes, message::MAX_MESSAGE_BYTES).map_err(|error| malformed(&error))?;
    external(cell)
}

fn external(cell: Cell) -> Result<External, SubmitError> {
    let malformed = |why: &dyn std::fmt::Display| SubmitError::Malformed(why.to_string());
    if cell.repr_depth() > MAX_MESSAGE_DEPTH {
        return Err(malformed(&format!("deeper than {MAX_MESSAGE_DEPTH} cells")));
    }
    let parsed = cell.parse::<OwnedMessage>().map_err(|error| malformed(&error))?;
    let MsgInfo::ExtIn(info) = parsed.info else {
        return Err(malformed(&"it is not a message from outside"));
    };
    match info.dst {
        IntAddr::Std(to) if to.anycast.is_none() => Ok(External { to, message: cell }),
        _ => Err(malformed(&"its destination is not a standard address")),
    }
}

fn gap(address: &Address) -> LedgerError {
    LedgerError::Broken { what: format!("the history of {address} has a gap") }
}

fn execution(error: impl std::fmt::Display) -> LedgerError {
    LedgerError::Execution { why: error.to_string() }
}
