//! The liteserver's words on the wire: TL of `lite_api.tl` (github.com/ton-blockchain/ton, tl/generate/scheme).
//!
//! ton-net's types are used where it has them. Answers with lists are read here, count first: a list of a peer's length
//! is not made room for.

use cocoon_contracts::Address;
use ton_net_tl::lite::{
    AccountId, AccountState, BlockIdExt, BlockLink, Error, GetAccountState, GetBlockProof,
    GetMasterchainInfo, MasterchainInfo, PartialBlockProof, Query, Signature, SignatureSet,
};
use ton_net_tl::{TlRead, TlResult, serialize};

/// The masterchain's only shard, as a prefix with its end bit.
pub(crate) const WHOLE_SHARD: u64 = 1 << 63;
pub(crate) const MASTERCHAIN: i32 = -1;

/// Most links in one answer; liteservers send 16.
const MAX_LINKS: u32 = 64;
/// Most signatures on one block. A network has a few hundred validators.
const MAX_SIGNATURES: u32 = 1024;
/// Most transactions in one answer; liteservers send 16.
const MAX_TRANSACTIONS: u32 = 100;
/// How much of a server's words is repeated.
const MAX_ECHO: usize = 200;

const SEND_MESSAGE: u32 = 0x690a_d482;
const SEND_MSG_STATUS: u32 = 0x3950_e597;
const GET_TRANSACTIONS: u32 = 0x1c40_e7a1;
const TRANSACTION_LIST: u32 = 0x6f26_c60b;
const LOOKUP_BLOCK: u32 = 0xfac8_f71e;
const BLOCK_HEADER: u32 = 0x752d_8219;
const PARTIAL_BLOCK_PROOF: u32 = 0x8ed0_d2c1;
const LINK_FORWARD: u32 = 0x520f_ce1c;
const SIGNATURES_ORDINARY: u32 = 0xf644_a6e6;
const SIGNATURES_SIMPLEX: u32 = 0xac24_9800;
/// `lookupBlock` by sequence number.
const BY_SEQNO: u32 = 1;

/// Why an answer has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AnswerError {
    /// The server says that it cannot.
    #[error("code {code}: {message}")]
    Refused { code: i32, message: String },
    /// The bytes are no such answer.
    #[error("{0}")]
    Malformed(String),
}

/// Where a block can be found, and a proof of its header.
pub(crate) struct BlockHeader {
    pub(crate) id: BlockIdExt,
    pub(crate) header_proof: Vec<u8>,
}

pub(crate) fn masterchain_info() -> Vec<u8> {
    wrap(serialize(GetMasterchainInfo))
}

pub(crate) fn account_state(block: &BlockIdExt, address: &Address) -> Vec<u8> {
    wrap(serialize(GetAccountState { id: block.clone(), account: account_id(address) }))
}

pub(crate) fn block_proof(known: &BlockIdExt, target: &BlockIdExt) -> Vec<u8> {
    wrap(serialize(GetBlockProof {
        mode: (),
        known_block: known.clone(),
        target_block: Some(target.clone()),
    }))
}

pub(crate) fn lookup_block(seqno: u32) -> Vec<u8> {
    let fields = (LOOKUP_BLOCK, BY_SEQNO, MASTERCHAIN);
    wrap([serialize(fields), serialize((WHOLE_SHARD, seqno))].concat())
}

pub(crate) fn transactions(count: u32, address: &Address, lt: u64, hash: &[u8; 32]) -> Vec<u8> {
    wrap(
        [serialize((GET_TRANSACTIONS, count)), serialize(account_id(address)), serialize((lt, *hash))]
            .concat(),
    )
}

pub(crate) fn send_message(message: &[u8]) -> Vec<u8> {
    wrap([serialize(SEND_MESSAGE), serialize(message)].concat())
}

fn wrap(request: Vec<u8>) -> Vec<u8> {
    serialize(Query { data: request })
}

fn account_id(address: &Address) -> AccountId {
    AccountId { workchain: i32::from(address.workchain), id: address.address.0 }
}

/// Reads an answer: an error in its place is told as such, and nothing may follow it.
fn read<T>(
    answer: &[u8],
    what: &str,
    parse: impl FnOnce(&mut &[u8]) -> TlResult<T>,
) -> Result<T, AnswerError> {
    let mut rest = answer;
    if let Ok(error) = Error::read_from(&mut rest)
        && rest.is_empty()
    {
        let message = String::from_utf8_lossy(&error.message).chars().take(MAX_ECHO).collect();
        return Err(AnswerError::Refused { code: error.code, message });
    }
    let mut rest = answer;
    let value = parse(&mut rest).map_err(|error| AnswerError::Malformed(format!("{what}: {error}")))?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(AnswerError::Malformed(format!("{what}: bytes are left over")))
    }
}

pub(crate) fn read_masterchain_info(answer: &[u8]) -> Result<BlockIdExt, AnswerError> {
    let info = read(answer, "masterchainInfo", |rest| MasterchainInfo::read_from(rest))?;
    Ok(info.last)
}

pub(crate) fn read_account_state(answer: &[u8]) -> Result<AccountState, AnswerError> {
    read(answer, "accountState", |rest| AccountState::read_from(rest))
}

pub(crate) fn read_block_header(answer: &[u8]) -> Result<BlockHeader, AnswerError> {
    read(answer, "blockHeader", |rest| {
        constructor(rest, BLOCK_HEADER)?;
        let id = BlockIdExt::read_from(rest)?;
        let _mode = u32::read_from(rest)?;
        Ok(BlockHeader { id, header_proof: Vec::read_from(rest)? })
    })
}

/// The transactions' bag; where they happened is not read, the account's chain of hashes says what they are.
pub(crate) fn read_transactions(answer: &[u8]) -> Result<Vec<u8>, AnswerError> {
    read(answer, "transactionList", |rest| {
        constructor(rest, TRANSACTION_LIST)?;
        for _ in 0..count(rest, MAX_TRANSACTIONS)? {
            BlockIdExt::read_from(rest)?;
        }
        Vec::read_from(rest)
    })
}

/// The status; 1 is success.
pub(crate) fn read_send_status(answer: &[u8]) -> Result<u32, AnswerError> {
    read(answer, "sendMsgStatus", |rest| {
        constructor(rest, SEND_MSG_STATUS)?;
        u32::read_from(rest)
    })
}

pub(crate) fn read_block_proof(answer: &[u8]) -> Result<PartialBlockProof, AnswerError> {
    read(answer, "partialBlockProof", |rest| {
        constructor(rest, PARTIAL_BLOCK_PROOF)?;
        let complete = bool::read_from(rest)?;
        let (from, to) = (BlockIdExt::read_from(rest)?, BlockIdExt::read_from(rest)?);
        let links = count(rest, MAX_LINKS)?;
        let steps = (0..links).map(|_| link(rest)).collect::<TlResult<_>>()?;
        Ok(PartialBlockProof { complete, from, to, steps })
    })
}

/// Only links forward: those backward are not asked for.
fn link(rest: &mut &[u8]) -> TlResult<BlockLink> {
    constructor(rest, LINK_FORWARD)?;
    Ok(BlockLink::Forward {
        to_key_block: bool::read_from(rest)?,
        from: BlockIdExt::read_from(rest)?,
        to: BlockIdExt::read_from(rest)?,
        dest_proof: Vec::read_from(rest)?,
        config_proof: Vec::read_from(rest)?,
        signatures: signature_set(rest)?,
    })
}

/// The two kinds differ in the order of their first fields.
fn signature_set(rest: &mut &[u8]) -> TlResult<SignatureSet> {
    match u32::read_from(rest)? {
        SIGNATURES_ORDINARY => Ok(SignatureSet::Ordinary {
            validator_set_hash: i32::read_from(rest)?,
            catchain_seqno: i32::read_from(rest)?,
            signatures: signatures(rest)?,
        }),
        SIGNATURES_SIMPLEX => Ok(SignatureSet::Simplex {
            cc_seqno: i32::read_from(rest)?,
            validator_set_hash: i32::read_from(rest)?,
            signatures: signatures(rest)?,
            session_id: <[u8; 32]>::read_from(rest)?,
            slot: i32::read_from(rest)?,
            candidate: Vec::read_from(rest)?,
        }),
        _ => Err(ton_net_tl::TlError::UnknownConstructor),
    }
}

fn signatures(rest: &mut &[u8]) -> TlResult<Vec<Signature>> {
    (0..count(rest, MAX_SIGNATURES)?).map(|_| Signature::read_from(rest)).collect()
}

fn constructor(rest: &mut &[u8], id: u32) -> TlResult<()> {
    if u32::read_from(rest)? == id { Ok(()) } else { Err(ton_net_tl::TlError::UnknownConstructor) }
}

fn count(rest: &mut &[u8], limit: u32) -> TlResult<u32> {
    let count = u32::read_from(rest)?;
    if count <= limit { Ok(count) } else { Err(ton_net_tl::TlError::InvalidData) }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
