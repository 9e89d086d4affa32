//! Methods of toncenter v2 that look for blocks and what is in them, and the one that asks what a message would cost.

use cocoon_contracts::message;
use serde_json::{Value, json};
use tycho_types::cell::{Cell, CellBuilder};
use tycho_types::models::{ExtInMsgInfo, MsgInfo, OwnedMessage, StateInit, Transaction};
use tycho_types::num::Tokens;

use super::{Parameters, RpcError, stored, views};
use crate::{Block, Fees, Ledger};

/// How many transactions of a block are listed unless asked otherwise, and at most.
const DEFAULT_COUNT: u64 = 40;
const MAX_COUNT: u64 = 256;

/// The chain that is asked for: the masterchain, or the one shard of the basic chain, which has the same blocks here.
pub(super) fn workchain(parameters: &Parameters) -> Result<i64, RpcError> {
    match parameters.0.get("workchain") {
        None | Some(Value::Null) => Ok(views::MASTERCHAIN),
        Some(value) => match value.as_i64().or_else(|| value.as_str()?.parse().ok()) {
            Some(chain @ (-1 | 0)) => Ok(chain),
            _ => Err(RpcError::parameter("workchain", "there are -1 and 0")),
        },
    }
}

/// A block by its number, by a logical time in it, or by the time at which it was the newest.
pub(super) fn lookup(ledger: &Ledger, parameters: &Parameters) -> Result<Block, RpcError> {
    if let Some(seqno) = parameters.number("seqno")? {
        let seqno = u32::try_from(seqno).map_err(|_| RpcError::parameter("seqno", "it is too large"))?;
        return stored(ledger, seqno);
    }
    let found = if let Some(lt) = parameters.number("lt")? {
        ledger.find_block(|block| lt < block.end_lt)?
    } else if let Some(time) = parameters.number("unixtime")? {
        ledger.find_block(|block| time <= u64::from(block.time))?
    } else {
        return Err(RpcError::new(422, "seqno, lt or unixtime is needed"));
    };
    found.ok_or_else(|| RpcError::new(404, "there is no such block yet"))
}

/// All transactions here are in the basic chain.
pub(super) fn block_transactions(ledger: &Ledger, parameters: &Parameters) -> Result<Value, RpcError> {
    let block = lookup(ledger, parameters)?;
    let chain = workchain(parameters)?;
    let count = parameters.number("count")?.unwrap_or(DEFAULT_COUNT).clamp(1, MAX_COUNT);
    let from = parameters.number("after_lt")?.map_or(0, |lt| lt.saturating_add(1));
    let wanted = usize::try_from(count).expect("at most 256");
    let found = if chain == 0 { ledger.block_transactions(&block, from, wanted + 1)? } else { Vec::new() };
    let short = |(address, cell): &(cocoon_contracts::Address, Cell)| {
        let tx = cell.parse::<Transaction>().map_err(|error| RpcError::new(500, error))?;
        let mut value = views::transaction_id(tx.lt, &cell.repr_hash().0);
        value["@type"] = "blocks.shortTxId".into();
        value["mode"] = 135.into(); // account, lt and hash are there
        value["account"] = address.to_string().into();
        Ok(value)
    };
    let transactions = found.iter().take(wanted).map(short).collect::<Result<Vec<_>, RpcError>>()?;
    Ok(json!({
        "@type": "blocks.transactions",
        "id": views::block_id(&block, chain),
        "req_count": count,
        "incomplete": found.len() > wanted,
        "transactions": transactions,
    }))
}

pub(super) fn estimate(ledger: &Ledger, parameters: &Parameters) -> Result<Value, RpcError> {
    let Fees { import, storage, gas, forward } = fees(ledger, parameters)?;
    Ok(json!({
        "@type": "query.fees",
        "source_fees": {
            "@type": "fees",
            "in_fwd_fee": import, "storage_fee": storage, "gas_fee": gas, "fwd_fee": forward,
        },
        "destination_fees": [],
    }))
}

/// The fees of a message given by its parts: `address`, `body`, and for a deployment `init_code` and `init_data`.
pub(super) fn fees(ledger: &Ledger, parameters: &Parameters) -> Result<Fees, RpcError> {
    let cell = |name: &str| -> Result<Option<Cell>, RpcError> {
        let decode = |bytes: Vec<u8>| message::decode(&bytes, message::MAX_MESSAGE_BYTES);
        parameters.bag(name)?.map(decode).transpose().map_err(|error| RpcError::parameter(name, error))
    };
    let body = cell("body")?.ok_or_else(|| RpcError::parameter("body", "it is missing"))?;
    let (code, data) = (cell("init_code")?, cell("init_data")?);
    let init = (code.is_some() || data.is_some()).then(|| StateInit { code, data, ..Default::default() });
    let dst = parameters.address("address")?.into();
    let info = MsgInfo::ExtIn(ExtInMsgInfo { src: None, dst, import_fee: Tokens::ZERO });
    let message = OwnedMessage { info, init, body: body.into(), layout: None };
    let message = CellBuilder::build_from(message).map_err(|error| RpcError::new(422, error))?;
    let ignore = parameters.0.get("ignore_chksig");
    let ignore = ignore.is_none_or(|value| value.as_bool().unwrap_or(value == "true"));
    Ok(ledger.estimate(&message, ignore)?)
}
