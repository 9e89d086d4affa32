//! The ledger in the JSON of toncenter v3 (`Block`, `AccountStateFull`, `Transaction`, `Message` of its OpenAPI).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cocoon_contracts::{Address, Cell, friendly};
use serde_json::{Map, Value, json};
use tycho_types::cell::{CellBuilder, HashBytes};
use tycho_types::error::Error;
use tycho_types::models::{
    AccountState, AccountStatus, ActionPhase, ComputePhase, IntAddr, MsgInfo, OwnedMessage, Transaction,
    TxInfo,
};

use super::views::{body, cell_text};
use crate::{Block, Ledger, normalised_hash};

/// The shard that is everything, as v3 writes it.
const WHOLE_SHARD: &str = "8000000000000000";

/// An address, raw and in upper case.
pub(super) fn raw(address: &Address) -> String {
    address.to_string().to_uppercase()
}

fn hash(hash: &HashBytes) -> String {
    BASE64.encode(hash.as_slice())
}

/// The friendly spellings of addresses in an answer.
pub(super) fn address_book<'a>(addresses: impl Iterator<Item = &'a Address>) -> Value {
    let rows = addresses.map(|address| {
        let row = json!({ "user_friendly": friendly(address, true), "domain": null, "interfaces": [] });
        (raw(address), row)
    });
    Value::Object(rows.collect::<Map<_, _>>())
}

pub(super) fn block(block: &Block, workchain: i32, network: i32) -> Value {
    let id = |seqno: u32| json!({ "workchain": workchain, "shard": WHOLE_SHARD, "seqno": seqno });
    json!({
        "workchain": workchain,
        "shard": WHOLE_SHARD,
        "seqno": block.seqno,
        "root_hash": BASE64.encode(block.root_hash),
        "file_hash": BASE64.encode(block.root_hash),
        "global_id": network,
        "version": 0,
        "after_merge": false, "before_split": false, "after_split": false,
        "want_merge": false, "want_split": false, "key_block": false, "vert_seqno_incr": false,
        "flags": 0,
        "gen_utime": block.time.to_string(),
        "start_lt": block.start_lt.to_string(),
        "end_lt": block.end_lt.to_string(),
        "validator_list_hash_short": 0,
        "gen_catchain_seqno": 0,
        "min_ref_mc_seqno": block.seqno.saturating_sub(1),
        "prev_key_block_seqno": 0,
        "vert_seqno": 0,
        "master_ref_seqno": block.seqno,
        "rand_seed": BASE64.encode([0; 32]),
        "created_by": BASE64.encode([0; 32]),
        "tx_count": block.transactions,
        "masterchain_block_ref": { "workchain": -1, "shard": WHOLE_SHARD, "seqno": block.seqno },
        "prev_blocks": if block.seqno > 1 { json!([id(block.seqno - 1)]) } else { json!([]) },
    })
}

pub(super) fn account(ledger: &Ledger, address: &Address, with_cells: bool) -> Value {
    let shard = ledger.shard_account(address);
    let account = ledger.account(address);
    let status = match account.as_ref().map(|account| &account.state) {
        None => "nonexist",
        Some(AccountState::Uninit) => "uninit",
        Some(AccountState::Active(_)) => "active",
        Some(AccountState::Frozen(_)) => "frozen",
    };
    let (code, data) = match account.as_ref().map(|account| &account.state) {
        Some(AccountState::Active(init)) => (init.code.as_ref(), init.data.as_ref()),
        _ => (None, None),
    };
    let named = |cell: Option<&Cell>| cell.map(|cell| hash(cell.repr_hash()));
    let mut value = json!({
        "address": raw(address),
        "account_state_hash": shard.map(|account| hash(account.account.inner().repr_hash())),
        "balance": account.as_ref().map_or(0, |account| account.balance.tokens.into_inner()).to_string(),
        "extra_currencies": {},
        "status": status,
        "last_transaction_hash": shard.map(|account| hash(&account.last_trans_hash)),
        "last_transaction_lt": shard.map_or(0, |account| account.last_trans_lt).to_string(),
        "data_hash": named(data),
        "code_hash": named(code),
        "contract_methods": null,
        "interfaces": [],
    });
    if let Some(AccountState::Frozen(state)) = account.as_ref().map(|account| &account.state) {
        value["frozen_hash"] = hash(state).into();
    }
    if with_cells {
        value["data_boc"] = data.map(cell_text).into();
        value["code_boc"] = code.map(cell_text).into();
    }
    value
}

pub(super) fn address_information(ledger: &Ledger, address: &Address) -> Value {
    let full = account(ledger, address, true);
    // This endpoint comes from v2's, and so do its words.
    let status = if full["status"] == "nonexist" { "uninitialized".into() } else { full["status"].clone() };
    json!({
        "balance": full["balance"],
        "code": full["code_boc"],
        "data": full["data_boc"],
        "last_transaction_lt": full["last_transaction_lt"],
        "last_transaction_hash": full["last_transaction_hash"],
        "frozen_hash": full["frozen_hash"],
        "status": if status == "uninit" { "uninitialized".into() } else { status },
    })
}

pub(super) fn wallet_information(ledger: &Ledger, address: &Address) -> Value {
    let wallet = wallet(ledger, address);
    let mut value = json!({
        "balance": wallet["balance"],
        "last_transaction_lt": wallet["last_transaction_lt"],
        "last_transaction_hash": wallet["last_transaction_hash"],
        "status": wallet["status"],
    });
    for name in ["wallet_type", "seqno"] {
        if let Some(known) = wallet.get(name) {
            value[name] = known.clone();
        }
    }
    value
}

pub(super) fn wallet(ledger: &Ledger, address: &Address) -> Value {
    let full = account(ledger, address, false);
    let v2 = super::views::wallet_information(ledger, address);
    let mut value = json!({
        "address": full["address"],
        "is_wallet": v2["wallet"],
        "balance": full["balance"],
        "extra_currencies": {},
        "status": full["status"],
        "code_hash": full["code_hash"],
        "last_transaction_hash": full["last_transaction_hash"],
        "last_transaction_lt": full["last_transaction_lt"],
    });
    for name in ["wallet_type", "seqno"] {
        if let Some(known) = v2.get(name) {
            value[name] = known.clone();
        }
    }
    value
}

pub(super) fn transaction(
    address: &Address,
    cell: &Cell,
    tx: &Transaction,
    block: u32,
) -> Result<Value, Error> {
    let in_msg = tx.in_msg.as_ref().map(message).transpose()?;
    let out_msgs = tx.out_msgs.values().map(|cell| message(&cell?)).collect::<Result<Vec<_>, Error>>()?;
    let update = tx.state_update.load()?;
    let state = |at: &HashBytes| json!({ "hash": hash(at) });
    Ok(json!({
        "account": raw(address),
        "hash": hash(cell.repr_hash()),
        "lt": tx.lt.to_string(),
        "now": tx.now,
        "mc_block_seqno": block,
        "prev_trans_hash": hash(&tx.prev_trans_hash),
        "prev_trans_lt": tx.prev_trans_lt.to_string(),
        "orig_status": status(tx.orig_status),
        "end_status": status(tx.end_status),
        "total_fees": tx.total_fees.tokens.into_inner().to_string(),
        "total_fees_extra_currencies": {},
        "description": description(&tx.load_info()?),
        "block_ref": { "workchain": 0, "shard": WHOLE_SHARD, "seqno": block },
        "in_msg": in_msg,
        "out_msgs": out_msgs,
        "account_state_before": state(&update.old),
        "account_state_after": state(&update.new),
        "emulated": false,
        "finality": "finalized",
    }))
}

fn status(status: AccountStatus) -> &'static str {
    match status {
        AccountStatus::Uninit => "uninit",
        AccountStatus::Frozen => "frozen",
        AccountStatus::Active => "active",
        AccountStatus::NotExists => "nonexist",
    }
}

fn description(info: &TxInfo) -> Value {
    let TxInfo::Ordinary(info) = info else { return json!({ "type": "tick_tock" }) };
    let mut value = json!({
        "type": "ord",
        "aborted": info.aborted,
        "destroyed": info.destroyed,
        "credit_first": info.credit_first,
        "compute_ph": compute(&info.compute_phase),
    });
    if let Some(phase) = &info.storage_phase {
        value["storage_ph"] = json!({
            "storage_fees_collected": phase.storage_fees_collected.into_inner().to_string(),
            "status_change": format!("{:?}", phase.status_change).to_lowercase(),
        });
    }
    if let Some(phase) = &info.credit_phase {
        value["credit_ph"] = json!({ "credit": phase.credit.tokens.into_inner().to_string() });
    }
    if let Some(phase) = &info.action_phase {
        value["action"] = action(phase);
    }
    if info.bounce_phase.is_some() {
        value["bounce"] = json!({ "type": "ok" });
    }
    value
}

fn compute(phase: &ComputePhase) -> Value {
    let phase = match phase {
        ComputePhase::Skipped(skipped) => {
            let reason = match skipped.reason {
                tycho_types::models::ComputePhaseSkipReason::NoState => "no_state",
                tycho_types::models::ComputePhaseSkipReason::BadState => "bad_state",
                tycho_types::models::ComputePhaseSkipReason::NoGas => "no_gas",
                tycho_types::models::ComputePhaseSkipReason::Suspended => "suspended",
            };
            return json!({ "skipped": true, "reason": reason });
        }
        ComputePhase::Executed(phase) => phase,
    };
    json!({
        "skipped": false,
        "success": phase.success,
        "msg_state_used": phase.msg_state_used,
        "account_activated": phase.account_activated,
        "gas_fees": phase.gas_fees.into_inner().to_string(),
        "gas_used": phase.gas_used.into_inner().to_string(),
        "gas_limit": phase.gas_limit.into_inner().to_string(),
        "mode": phase.mode,
        "exit_code": phase.exit_code,
        "vm_steps": phase.vm_steps,
    })
}

fn action(phase: &ActionPhase) -> Value {
    json!({
        "success": phase.success,
        "valid": phase.valid,
        "no_funds": phase.no_funds,
        "status_change": format!("{:?}", phase.status_change).to_lowercase(),
        "total_fwd_fees": phase.total_fwd_fees.map(|fees| fees.into_inner().to_string()),
        "total_action_fees": phase.total_action_fees.map(|fees| fees.into_inner().to_string()),
        "result_code": phase.result_code,
        "tot_actions": phase.total_actions,
        "spec_actions": phase.special_actions,
        "skipped_actions": phase.skipped_actions,
        "msgs_created": phase.messages_created,
        "action_list_hash": hash(&phase.action_list_hash),
    })
}

fn message(cell: &Cell) -> Result<Value, Error> {
    let parsed = cell.parse::<OwnedMessage>()?;
    let content =
        |cell: &Cell| json!({ "hash": hash(cell.repr_hash()), "body": cell_text(cell), "decoded": null });
    let body = body(&parsed.body)?;
    let opcode = body.as_slice()?.load_u32().ok().map(|opcode| format!("0x{opcode:08x}"));
    let init = parsed.init.as_ref().map(CellBuilder::build_from).transpose()?;
    let mut value = json!({
        "hash": hash(cell.repr_hash()),
        "source": null, "destination": null, "value": null, "value_extra_currencies": {},
        "fwd_fee": null, "ihr_fee": null, "created_lt": null, "created_at": null, "opcode": opcode,
        "decoded_opcode": null, "ihr_disabled": null, "bounce": null, "bounced": null, "import_fee": null,
        "message_content": content(&body),
        "init_state": init.as_ref().map(content),
    });
    let name = |address: &IntAddr| match address {
        IntAddr::Std(address) => Value::String(raw(address)),
        IntAddr::Var(_) => Value::Null,
    };
    match &parsed.info {
        MsgInfo::Int(info) => {
            value["source"] = name(&info.src);
            value["destination"] = name(&info.dst);
            value["value"] = info.value.tokens.into_inner().to_string().into();
            value["fwd_fee"] = info.fwd_fee.into_inner().to_string().into();
            value["ihr_fee"] = "0".into();
            value["created_lt"] = info.created_lt.to_string().into();
            value["created_at"] = info.created_at.to_string().into();
            value["ihr_disabled"] = true.into();
            value["bounce"] = info.bounce.into();
            value["bounced"] = info.bounced.into();
        }
        MsgInfo::ExtIn(info) => {
            value["destination"] = name(&info.dst);
            value["import_fee"] = info.import_fee.into_inner().to_string().into();
            value["hash_norm"] = normalised_hash(cell).map(|hash| BASE64.encode(hash)).into();
        }
        MsgInfo::ExtOut(info) => {
            value["source"] = name(&info.src);
            value["created_lt"] = info.created_lt.to_string().into();
            value["created_at"] = info.created_at.to_string().into();
        }
    }
    Ok(value)
}
