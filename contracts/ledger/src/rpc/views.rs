//! The ledger in the JSON of toncenter v2.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cocoon_contracts::wallet::WalletVersion;
use cocoon_contracts::{Address, Cell, friendly, message};
use serde_json::{Value, json};
use tycho_types::cell::{CellBuilder, CellSliceParts};
use tycho_types::error::Error;
use tycho_types::models::{AccountState, IntAddr, MsgInfo, OwnedMessage, Transaction, TxInfo};

use crate::{Block, Ledger};

/// The shard that is everything, as toncenter writes it.
pub(crate) const WHOLE_SHARD: &str = "-9223372036854775808";
pub(crate) const MASTERCHAIN: i64 = -1;

pub(crate) fn block_id(block: &Block, workchain: i64) -> Value {
    json!({
        "@type": "ton.blockIdExt",
        "workchain": workchain,
        "shard": WHOLE_SHARD,
        "seqno": block.seqno,
        "root_hash": BASE64.encode(block.root_hash),
        // There is no block file apart from its content: the same hash names both.
        "file_hash": BASE64.encode(block.root_hash),
    })
}

pub(crate) fn masterchain_info(ledger: &Ledger, first: &Block) -> Value {
    let head = ledger.head();
    json!({
        "@type": "blocks.masterchainInfo",
        "last": block_id(&head, MASTERCHAIN),
        "state_root_hash": BASE64.encode(head.accounts_hash),
        "init": block_id(first, MASTERCHAIN),
    })
}

pub(crate) fn block_header(block: &Block, workchain: i64, network: i32) -> Value {
    json!({
        "@type": "blocks.header",
        "id": block_id(block, workchain),
        "global_id": network,
        "version": 0,
        "after_merge": false,
        "after_split": false,
        "before_split": false,
        "want_merge": false,
        "want_split": false,
        "validator_list_hash_short": 0,
        "catchain_seqno": 0,
        "min_ref_mc_seqno": block.seqno.saturating_sub(1),
        "is_key_block": false,
        "prev_key_block_seqno": 0,
        "start_lt": block.start_lt.to_string(),
        "end_lt": block.end_lt.to_string(),
        "gen_utime": block.time,
        "prev_blocks": [{
            "@type": "ton.blockIdExt",
            "workchain": workchain,
            "shard": WHOLE_SHARD,
            "seqno": block.seqno.saturating_sub(1),
            "root_hash": BASE64.encode(block.previous),
            "file_hash": BASE64.encode(block.previous),
        }],
    })
}

pub(crate) fn address_information(ledger: &Ledger, address: &Address) -> Value {
    let bag = |cell: &Option<Cell>| cell.as_ref().map(cell_text).unwrap_or_default();
    let account = ledger.account(address);
    let (state, code, data, frozen) = match account.as_ref().map(|account| &account.state) {
        None | Some(AccountState::Uninit) => ("uninitialized", String::new(), String::new(), String::new()),
        Some(AccountState::Active(init)) => ("active", bag(&init.code), bag(&init.data), String::new()),
        Some(AccountState::Frozen(hash)) => {
            ("frozen", String::new(), String::new(), BASE64.encode(hash.as_slice()))
        }
    };
    let balance = account.map_or(0, |account| account.balance.tokens.into_inner());
    json!({
        "@type": "raw.fullAccountState",
        "balance": balance.to_string(),
        "extra_currencies": [],
        "code": code,
        "data": data,
        "last_transaction_id": last_transaction(ledger, address),
        "block_id": block_id(&ledger.head(), MASTERCHAIN),
        "frozen_hash": frozen,
        "sync_utime": ledger.head().time,
        "state": state,
    })
}

pub(crate) fn wallet_information(ledger: &Ledger, address: &Address) -> Value {
    let info = address_information(ledger, address);
    let mut wallet = json!({
        "wallet": false,
        "balance": info["balance"],
        "account_state": info["state"],
        "last_transaction_id": info["last_transaction_id"],
    });
    if let Some(AccountState::Active(init)) = ledger.account(address).map(|account| account.state)
        && let Some(version) = init.code.and_then(|code| WalletVersion::from_code_hash(&code.repr_hash().0))
        && let Some(Ok(seqno)) = init.data.as_ref().map(|data| version.seqno(data))
    {
        wallet["wallet"] = true.into();
        // The words of the public services.
        wallet["wallet_type"] = match version {
            WalletVersion::V4R2 => "wallet v4 r2",
            WalletVersion::V5R1 => "wallet v5 r1",
            WalletVersion::Payout => "cocoon payout wallet",
        }
        .into();
        wallet["seqno"] = seqno.into();
    }
    wallet
}

/// As tonlib's `getAccountState` says it, for accounts of any kind.
pub(crate) fn extended_information(ledger: &Ledger, address: &Address) -> Value {
    let info = address_information(ledger, address);
    let state = match info["state"].as_str() {
        Some("uninitialized") => json!({ "@type": "uninited.accountState", "frozen_hash": "" }),
        _ => json!({
            "@type": "raw.accountState",
            "code": info["code"], "data": info["data"], "frozen_hash": info["frozen_hash"],
        }),
    };
    json!({
        "@type": "fullAccountState",
        "address": { "@type": "accountAddress", "account_address": friendly(address, true) },
        "balance": info["balance"],
        "extra_currencies": [],
        "last_transaction_id": info["last_transaction_id"],
        "block_id": info["block_id"],
        "sync_utime": info["sync_utime"],
        "account_state": state,
        "revision": 0,
    })
}

/// Every spelling of an address.
pub(crate) fn detected(address: &Address) -> Value {
    let spellings = |bounceable| {
        let url = friendly(address, bounceable);
        json!({ "b64": url.replace('-', "+").replace('_', "/"), "b64url": url })
    };
    json!({
        "raw_form": address.to_string(),
        "bounceable": spellings(true),
        "non_bounceable": spellings(false),
        "given_type": "friendly_bounceable",
        "test_only": false,
    })
}

/// TON forgets an account that ended, with its last transaction: so does version 2 (the index of version 3 does not).
fn last_transaction(ledger: &Ledger, address: &Address) -> Value {
    let (lt, hash) = ledger
        .shard_account(address)
        .filter(|_| ledger.account(address).is_some())
        .map_or((0, [0; 32]), |account| (account.last_trans_lt, account.last_trans_hash.0));
    transaction_id(lt, &hash)
}

pub(super) fn transaction_id(lt: u64, hash: &[u8; 32]) -> Value {
    json!({ "@type": "internal.transactionId", "lt": lt.to_string(), "hash": BASE64.encode(hash) })
}

pub(crate) fn transaction(address: &Address, cell: &Cell) -> Result<Value, Error> {
    let tx = cell.parse::<Transaction>()?;
    let storage_fee = match tx.load_info()? {
        TxInfo::Ordinary(info) => info.storage_phase.map(|phase| phase.storage_fees_collected),
        TxInfo::TickTock(info) => Some(info.storage_phase.storage_fees_collected),
    };
    let storage_fee = storage_fee.map_or(0, |fee| fee.into_inner());
    let mut fee = tx.total_fees.tokens.into_inner();
    let mut out_msgs = Vec::new();
    for cell in tx.out_msgs.values() {
        let message = cell?.parse::<OwnedMessage>()?;
        if let MsgInfo::Int(info) = &message.info {
            fee += info.fwd_fee.into_inner();
        }
        out_msgs.push(self::message(&message)?);
    }
    let mut value = json!({
        "@type": "raw.transaction",
        "address": { "@type": "accountAddress", "account_address": friendly(address, true) },
        "utime": tx.now,
        "data": cell_text(cell),
        "transaction_id": transaction_id(tx.lt, &cell.repr_hash().0),
        "fee": fee.to_string(),
        "storage_fee": storage_fee.to_string(),
        "other_fee": fee.saturating_sub(storage_fee).to_string(),
        "out_msgs": out_msgs,
    });
    if let Some(cell) = &tx.in_msg {
        value["in_msg"] = self::message(&cell.parse::<OwnedMessage>()?)?;
    }
    Ok(value)
}

fn message(message: &OwnedMessage) -> Result<Value, Error> {
    let name = |address: &IntAddr| match address {
        IntAddr::Std(address) => friendly(address, true),
        IntAddr::Var(_) => String::new(),
    };
    let (source, destination, value, fwd_fee, created_lt) = match &message.info {
        MsgInfo::Int(info) => (
            name(&info.src),
            name(&info.dst),
            info.value.tokens.into_inner(),
            info.fwd_fee.into_inner(),
            info.created_lt,
        ),
        MsgInfo::ExtIn(info) => (String::new(), name(&info.dst), 0, 0, 0),
        MsgInfo::ExtOut(info) => (name(&info.src), String::new(), 0, 0, info.created_lt),
    };
    let body = body(&message.body)?;
    let init = message.init.as_ref().map(CellBuilder::build_from).transpose()?;
    Ok(json!({
        "@type": "raw.message",
        "source": source,
        "destination": destination,
        "value": value.to_string(),
        "extra_currencies": [],
        "fwd_fee": fwd_fee.to_string(),
        "ihr_fee": "0",
        "created_lt": created_lt.to_string(),
        "body_hash": BASE64.encode(body.repr_hash().as_slice()),
        "msg_data": {
            "@type": "msg.dataRaw",
            "body": cell_text(&body),
            "init_state": init.as_ref().map(cell_text).unwrap_or_default(),
        },
    }))
}

/// A body that lies inside its message, as a cell of its own.
pub(crate) fn body((range, cell): &CellSliceParts) -> Result<Cell, Error> {
    let mut builder = CellBuilder::new();
    builder.store_slice(range.apply(cell)?)?;
    builder.build()
}

pub(crate) fn cell_text(cell: &Cell) -> String {
    BASE64.encode(message::encode(cell))
}
