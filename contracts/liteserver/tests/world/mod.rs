//! A network of the tests' own: validators whose keys we hold, key blocks that name them, states with accounts, and the
//! proofs of a liteserver that has it all.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]
#![allow(dead_code, reason = "each test program uses its part")]

use std::collections::HashSet;
use std::num::NonZeroU16;

use cocoon_contracts::{Address, Cell, message};
use cocoon_liteserver::KeyBlock;
use ring::digest::{SHA256, digest};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use ton_net_tl::lite::{AccountState, BlockIdExt, BlockLink, PartialBlockProof, Signature, SignatureSet};
use tycho_types::boc::Boc;
use tycho_types::cell::{CellBuilder, HashBytes, Lazy, Store};
use tycho_types::merkle::{FilterAction, MerkleFilter, MerkleProof, MerkleUpdate};
use tycho_types::models::{
    Account, AccountState as State, Block, BlockExtra, BlockInfo, BlockchainConfig, BlockchainConfigParams,
    CurrencyCollection, DepthBalanceInfo, IntAddr, McBlockExtra, McStateExtra, OptionalAccount, ShardAccount,
    ShardAccounts, ShardDescription, ShardHashes, ShardIdent, ShardStateUnsplit, StateInit, StorageInfo,
    Transaction, ValidatorDescription, ValidatorInfo, ValidatorSet, ValueFlow,
};
use tycho_types::num::Tokens;

pub(crate) const NETWORK: i32 = -7017;
pub(crate) const TIME: u32 = 1_800_000_000;
/// The seqnos of the blocks: the pinned one, the next key block, and the newest.
pub(crate) const PINNED: u32 = 100;
pub(crate) const NEXT_KEY: u32 = 110;
pub(crate) const HEAD: u32 = 115;
pub(crate) const BALANCE: u64 = 5_000_000_007;

/// A validator with its weight.
pub(crate) struct Validator {
    pub(crate) pair: Ed25519KeyPair,
    pub(crate) weight: u64,
}

impl Validator {
    fn new(seed: u8, weight: u64) -> Self {
        Self { pair: Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap(), weight }
    }

    /// SHA-256 of the key in its TL form, as signatures name it.
    fn short_id(&self) -> [u8; 32] {
        let bytes = [&[0xc6, 0xb4, 0x13, 0x48][..], self.pair.public_key().as_ref()].concat();
        digest(&SHA256, &bytes).as_ref().try_into().unwrap()
    }

    fn sign(&self, id: &BlockIdExt) -> Signature {
        let message = [&[0x70, 0x6e, 0x0b, 0xc5][..], &id.root_hash, &id.file_hash].concat();
        Signature { node_id_short: self.short_id(), signature: self.pair.sign(&message).as_ref().to_vec() }
    }
}

/// Weights 40, 30, 20 and 10: three of them are needed at times, two at others.
pub(crate) fn validators(first_seed: u8) -> Vec<Validator> {
    [40, 30, 20, 10].iter().zip(first_seed..).map(|(weight, seed)| Validator::new(seed, *weight)).collect()
}

fn config(validators: &[Validator]) -> BlockchainConfig {
    let mut list = Vec::new();
    for validator in validators {
        list.push(ValidatorDescription {
            public_key: HashBytes::from_slice(validator.pair.public_key().as_ref()),
            weight: validator.weight,
            adnl_addr: None,
            mc_seqno_since: 0,
            prev_total_weight: 0,
        });
    }
    let set = ValidatorSet {
        utime_since: TIME - 1000,
        utime_until: TIME + 1000,
        main: NonZeroU16::new(u16::try_from(list.len()).unwrap()).unwrap(),
        total_weight: validators.iter().map(|validator| validator.weight).sum(),
        list,
    };
    let mut params = tycho_types::dict::Dict::<u32, Cell>::new();
    params.set(34, CellBuilder::build_from(&set).unwrap()).unwrap();
    params.set(19, CellBuilder::build_from(NETWORK.cast_unsigned()).unwrap()).unwrap();
    let root = params.into_root().unwrap();
    BlockchainConfig { address: HashBytes([0x55; 32]), params: BlockchainConfigParams::from_raw(root) }
}

/// A block with its state.
pub(crate) struct Made {
    pub(crate) id: BlockIdExt,
    pub(crate) block: Cell,
    pub(crate) state: Cell,
}

fn make(ident: ShardIdent, seqno: u32, state: Cell, config: Option<BlockchainConfig>, network: i32) -> Made {
    let key_block = config.is_some();
    let info = BlockInfo { seqno, shard: ident, gen_utime: TIME + seqno, key_block, ..BlockInfo::default() };
    let custom = ident.is_masterchain().then(|| McBlockExtra {
        shards: ShardHashes::default(),
        fees: Default::default(),
        prev_block_signatures: Default::default(),
        recover_create_msg: None,
        mint_msg: None,
        config,
    });
    let extra =
        BlockExtra { custom: custom.map(|custom| Lazy::new(&custom).unwrap()), ..BlockExtra::default() };
    let flow = ValueFlow {
        from_prev_block: CurrencyCollection::ZERO,
        to_next_block: CurrencyCollection::ZERO,
        imported: CurrencyCollection::ZERO,
        exported: CurrencyCollection::ZERO,
        fees_collected: CurrencyCollection::ZERO,
        burned: CurrencyCollection::ZERO,
        fees_imported: CurrencyCollection::ZERO,
        recovered: CurrencyCollection::ZERO,
        created: CurrencyCollection::ZERO,
        minted: CurrencyCollection::ZERO,
    };
    let old = CellBuilder::build_from(seqno).unwrap();
    let update = MerkleUpdate::create(old.as_ref(), state.as_ref(), Pruned(HashSet::new())).build().unwrap();
    let block = Block {
        global_id: network,
        info: Lazy::new(&info).unwrap(),
        value_flow: Lazy::new(&flow).unwrap(),
        state_update: Lazy::new(&update).unwrap(),
        out_msg_queue_updates: None,
        extra: Lazy::new(&extra).unwrap(),
    };
    let block = CellBuilder::build_from(&block).unwrap();
    let id = BlockIdExt {
        workchain: ident.workchain(),
        shard: ident.prefix(),
        seqno: seqno.cast_signed(),
        root_hash: block.repr_hash().0,
        file_hash: Boc::file_hash(Boc::encode(&block)).0,
    };
    Made { id, block, state }
}

/// Includes all but these.
struct Pruned(HashSet<HashBytes>);

impl MerkleFilter for Pruned {
    fn check(&self, cell: &HashBytes) -> FilterAction {
        if self.0.contains(cell) { FilterAction::Skip } else { FilterAction::Include }
    }
}

/// A Merkle proof of a tree without some of its cells.
pub(crate) fn proof(root: &Cell, without: &[&Cell]) -> Cell {
    let pruned = Pruned(without.iter().map(|cell| *cell.repr_hash()).collect());
    CellBuilder::build_from(MerkleProof::create(root.as_ref(), pruned).build().unwrap()).unwrap()
}

/// A block's parts: header, value flow, state update, extra.
pub(crate) fn part(block: &Cell, at: u8) -> Cell {
    block.reference_cloned(at).unwrap()
}

/// The proof of a header: everything else is left out.
pub(crate) fn header_proof(block: &Cell) -> Vec<u8> {
    Boc::encode(proof(block, &[&part(block, 1), &part(block, 2), &part(block, 3)]))
}

/// The proof of a key block's configuration.
pub(crate) fn config_proof(block: &Cell) -> Vec<u8> {
    Boc::encode(proof(block, &[&part(block, 0), &part(block, 1), &part(block, 2)]))
}

/// An account's address in workchain 0 and an account there.
pub(crate) fn address(byte: u8) -> Address {
    Address::new(0, HashBytes([byte; 32]))
}

pub(crate) fn code() -> Cell {
    CellBuilder::build_from(0xc0de_u32).unwrap()
}

pub(crate) fn data() -> Cell {
    let mut builder = CellBuilder::new();
    builder.store_u32(0xda7a).unwrap();
    builder.store_reference(CellBuilder::build_from(7_u32).unwrap()).unwrap();
    builder.build().unwrap()
}

pub(crate) fn account(address: &Address, balance: u64) -> Account {
    let init = StateInit { code: Some(code()), data: Some(data()), ..StateInit::default() };
    Account {
        address: IntAddr::Std(address.clone()),
        storage_stat: StorageInfo::default(),
        last_trans_lt: 48,
        balance: CurrencyCollection { tokens: Tokens::new(balance.into()), other: Default::default() },
        state: State::Active(init),
    }
}

/// Two transactions of the account, the newest first.
pub(crate) fn transactions(address: &Address) -> [Cell; 2] {
    let model = include_str!("../../../chain/tests/transactions.txt").lines().next().unwrap();
    let cell = Boc::decode_base64(model).unwrap();
    let make = |lt, previous: Option<&Cell>| {
        let mut transaction = cell.parse::<Transaction>().unwrap();
        transaction.account = address.address;
        transaction.lt = lt;
        transaction.prev_trans_lt = previous.map_or(0, |_| lt - 10);
        transaction.prev_trans_hash = previous.map_or(HashBytes::ZERO, |cell| *cell.repr_hash());
        CellBuilder::build_from(&transaction).unwrap()
    };
    let first = make(37, None);
    [make(47, Some(&first)), first]
}

fn stored<T: Store>(value: &T) -> Cell {
    CellBuilder::build_from(value).unwrap()
}

fn shard_state(ident: ShardIdent, accounts: &ShardAccounts) -> Cell {
    stored(&ShardStateUnsplit {
        global_id: NETWORK,
        shard_ident: ident,
        accounts: Lazy::new(accounts).unwrap(),
        ..ShardStateUnsplit::default()
    })
}

fn accounts(of: &[(Address, u64)]) -> ShardAccounts {
    let mut dict = ShardAccounts::new();
    for (address, balance) in of {
        let account = account(address, *balance);
        let depth = DepthBalanceInfo { split_depth: 0, balance: account.balance.clone() };
        let last = &transactions(address)[0];
        let value = ShardAccount {
            account: Lazy::new(&OptionalAccount(Some(account))).unwrap(),
            last_trans_hash: *last.repr_hash(),
            last_trans_lt: 47,
        };
        dict.set(address.address, depth, value).unwrap();
    }
    dict
}

fn description(block: &Made) -> ShardDescription {
    ShardDescription {
        seqno: block.id.seqno.cast_unsigned(),
        reg_mc_seqno: HEAD,
        start_lt: 40,
        end_lt: 50,
        root_hash: HashBytes(block.id.root_hash),
        file_hash: HashBytes(block.id.file_hash),
        before_split: false,
        before_merge: false,
        want_split: false,
        want_merge: false,
        nx_cc_updated: false,
        next_catchain_seqno: 1,
        next_validator_shard: block.id.shard,
        min_ref_mc_seqno: PINNED,
        gen_utime: TIME,
        split_merge_at: None,
        fees_collected: CurrencyCollection::ZERO,
        funds_created: CurrencyCollection::ZERO,
    }
}

/// The network: two sets of validators, three masterchain blocks, two shards.
pub(crate) struct World {
    pub(crate) first: Vec<Validator>,
    pub(crate) second: Vec<Validator>,
    pub(crate) pinned: Made,
    pub(crate) next_key: Made,
    pub(crate) head: Made,
    /// Addresses whose first bit is 0, and those whose first bit is 1.
    pub(crate) left: Made,
    pub(crate) right: Made,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::of_network(NETWORK)
    }

    /// As [`World::new`]; blocks after the pinned one say that they are of this network.
    pub(crate) fn of_network(network: i32) -> Self {
        let (first, second) = (validators(1), validators(11));
        let (left, right) = ShardIdent::BASECHAIN.split().unwrap();
        let left = make(
            left,
            77,
            shard_state(left, &accounts(&[(address(0x11), BALANCE), (address(0x22), 9)])),
            None,
            network,
        );
        let right = make(right, 88, shard_state(right, &accounts(&[(address(0xee), 3)])), None, network);
        let (l, r) = (description(&left), description(&right));
        let idents = ShardIdent::BASECHAIN.split().unwrap();
        let extra = McStateExtra {
            shards: ShardHashes::from_shards([(&idents.0, &l), (&idents.1, &r)]).unwrap(),
            config: config(&second),
            validator_info: ValidatorInfo {
                validator_list_hash_short: 0,
                catchain_seqno: 0,
                nx_cc_updated: false,
            },
            prev_blocks: Default::default(),
            after_key_block: false,
            last_key_block: None,
            block_create_stats: None,
            global_balance: CurrencyCollection::ZERO,
        };
        let masterchain = ShardIdent::MASTERCHAIN;
        let state = stored(&ShardStateUnsplit {
            global_id: network,
            shard_ident: masterchain,
            seqno: HEAD,
            accounts: Lazy::new(&accounts(&[(Address::new(-1, HashBytes([0x33; 32])), 4)])).unwrap(),
            custom: Some(Lazy::new(&extra).unwrap()),
            ..ShardStateUnsplit::default()
        });
        let empty = |seqno| stored(&ShardStateUnsplit { seqno, ..ShardStateUnsplit::default() });
        Self {
            pinned: make(masterchain, PINNED, empty(PINNED), Some(config(&first)), NETWORK),
            next_key: make(masterchain, NEXT_KEY, empty(NEXT_KEY), Some(config(&second)), network),
            head: make(masterchain, HEAD, state, None, network),
            first,
            second,
            left,
            right,
        }
    }

    /// Has the pinned block name other validators.
    pub(crate) fn rekey(&mut self, validators: Vec<Validator>) {
        let state = self.pinned.state.clone();
        self.pinned = make(ShardIdent::MASTERCHAIN, PINNED, state, Some(config(&validators)), NETWORK);
        self.first = validators;
    }

    pub(crate) fn pin(&self) -> KeyBlock {
        KeyBlock { seqno: PINNED, root_hash: self.pinned.id.root_hash, file_hash: self.pinned.id.file_hash }
    }

    /// A link from a key block, signed by these validators.
    pub(crate) fn link(from: &Made, to: &Made, to_key_block: bool, signers: &[&Validator]) -> BlockLink {
        BlockLink::Forward {
            to_key_block,
            from: from.id.clone(),
            to: to.id.clone(),
            dest_proof: header_proof(&to.block),
            config_proof: config_proof(&from.block),
            signatures: SignatureSet::Ordinary {
                validator_set_hash: 0,
                catchain_seqno: 0,
                signatures: signers.iter().map(|signer| signer.sign(&to.id)).collect(),
            },
        }
    }

    /// The honest way from the pinned block to the head.
    pub(crate) fn chain(&self) -> PartialBlockProof {
        PartialBlockProof {
            complete: true,
            from: self.pinned.id.clone(),
            to: self.head.id.clone(),
            steps: vec![
                Self::link(&self.pinned, &self.next_key, true, &self.first.iter().collect::<Vec<_>>()),
                Self::link(&self.next_key, &self.head, false, &self.second.iter().collect::<Vec<_>>()),
            ],
        }
    }

    /// The masterchain's half of an account's proof: the head's state update, and the shards in its state.
    pub(crate) fn shard_proof(&self) -> Vec<u8> {
        let accounts = self.head.state.reference_cloned(1).unwrap();
        Boc::encode_pair((
            proof(&self.head.block, &[&part(&self.head.block, 3)]),
            proof(&self.head.state, &[&accounts]),
        ))
    }

    /// The other half: a shard block's state update, and the way to one account in its state, which itself is left out.
    pub(crate) fn account_proof(shard: &Made, accounts: &[Address]) -> Vec<u8> {
        let cells: Vec<Cell> =
            accounts.iter().filter_map(|address| Self::stored_account(shard, address)).collect();
        let without: Vec<_> = cells.iter().collect();
        Boc::encode_pair((proof(&shard.block, &[&part(&shard.block, 3)]), proof(&shard.state, &without)))
    }

    /// The account's own cell, if it is there.
    pub(crate) fn stored_account(shard: &Made, address: &Address) -> Option<Cell> {
        let state = shard.state.parse::<ShardStateUnsplit>().unwrap();
        let (_, account) = state.accounts.load().unwrap().get(address.address).unwrap()?;
        Some(account.account.into_inner())
    }

    pub(crate) fn shard_of(&self, address: &Address) -> &Made {
        match (address.workchain, address.address.0[0] >> 7) {
            (-1, _) => &self.head,
            (_, 0) => &self.left,
            _ => &self.right,
        }
    }

    /// The honest answer to `getAccountState`.
    pub(crate) fn account_state(&self, address: &Address) -> AccountState {
        let shard = self.shard_of(address);
        let state = Self::stored_account(shard, address);
        AccountState {
            id: self.head.id.clone(),
            shardblk: shard.id.clone(),
            shard_proof: if address.is_masterchain() { Vec::new() } else { self.shard_proof() },
            proof: Self::account_proof(shard, std::slice::from_ref(address)),
            state: state.map(|cell| message::encode(&cell)).unwrap_or_default(),
        }
    }
}

/// Several roots in one bag, as liteservers send transactions.
pub(crate) fn bag(roots: &[Cell]) -> Vec<u8> {
    let mut header = tycho_types::boc::ser::BocHeader::<std::collections::hash_map::RandomState>::default();
    roots.iter().for_each(|root| header.add_root(root.as_ref()));
    let mut bytes = Vec::new();
    header.encode(&mut bytes);
    bytes
}
