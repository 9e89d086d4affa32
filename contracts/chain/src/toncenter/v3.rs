//! The client of the toncenter v3 HTTP shape: an index of the chain, under `/api/v3`.
//!
//! Names and types are those of the service's own description (github.com/toncenter/ton-indexer, docs/swagger.json and
//! index/models.go). Tried against servers of that shape only.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cocoon_contracts::{Address, Cell, message, parse_address};
use futures_util::future::{BoxFuture, FutureExt as _};
use num_bigint::BigInt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tycho_types::models::StateInit;

use super::ToncenterOptions;
use super::endpoints::{Endpoints, Probe};
use super::fault::Fault;
use super::transport::{Reply, Request};
use super::values::{Number, hash, optional_bag};
use crate::stack::{MAX_DEPTH, MAX_ITEMS, cell, hex_number, number};
use crate::{AccountState, AccountStatus, Block, Chain, ChainError, StackItem, Transaction};

/// The masterchain.
const MASTERCHAIN: i32 = -1;
/// How far one replica of the index may be behind another. Its accounts do not say of which block they are, as those of
/// version 2 do: a seqno that is read may be older than the head.
const LAG_SECONDS: u64 = 30;

/// One or more toncenter v3 endpoints of one network. What they say is believed.
pub struct ToncenterV3 {
    endpoints: Endpoints,
}

impl ToncenterV3 {
    /// Connects to an endpoint: its base (`https://toncenter.com`) or its API root (`…/api/v3`).
    pub async fn connect(url: &str) -> Result<Self, ChainError> {
        Self::open(&ToncenterOptions::new(url)).await
    }

    /// Connects to the endpoints of the options. At least one must answer; each is asked for its network before it is
    /// believed.
    pub async fn open(options: &ToncenterOptions) -> Result<Self, ChainError> {
        Ok(Self { endpoints: Endpoints::meet(options.roots("v3")?, options, probe()).await? })
    }

    /// An endpoint of a network whose global id is known. Nothing is asked yet.
    pub fn new(url: &str, network: i32) -> Result<Self, ChainError> {
        let options = ToncenterOptions::new(url);
        Ok(Self { endpoints: Endpoints::trusted(options.roots("v3")?, &options, network, probe())? })
    }

    async fn newest_block(&self) -> Result<Block, ChainError> {
        let network = self.network();
        let read = |reply: &Reply| result::<MasterchainInfo>(reply)?.last.read(network);
        self.endpoints.read(&masterchain_info(), read).await
    }

    async fn block_or_none(&self, seqno: u32) -> Result<Option<Block>, ChainError> {
        let network = self.network();
        let path = format!("/api/v3/blocks?workchain={MASTERCHAIN}&seqno={seqno}&limit=1");
        let read = |reply: &Reply| {
            let blocks: Blocks = result(reply)?;
            let Some(block) = blocks.blocks.first() else { return Ok(None) };
            let block = block.read(network)?;
            if block.seqno != seqno {
                return Err(Fault::nonsense(format!("block {} instead of {seqno}", block.seqno)));
            }
            Ok(Some(block))
        };
        match self.endpoints.read(&get("blocks", path), read).await {
            Err(ChainError::Refused { code: 404, .. }) => Ok(None),
            outcome => outcome,
        }
    }

    async fn account_state(&self, address: &Address) -> Result<AccountState, ChainError> {
        let path = format!("/api/v3/accountStates?address={}&include_boc=true", raw(address));
        let read = |reply: &Reply| {
            let states: AccountStates = result(reply)?;
            match states.accounts.iter().find(|account| account.is(address)) {
                Some(account) => account.read(),
                None if states.accounts.is_empty() => Ok(nothing()),
                None => Err(Fault::nonsense("it is the state of another account")),
            }
        };
        match self.endpoints.read(&get("accountStates", path), read).await {
            Err(ChainError::Refused { code: 404, .. }) => Ok(nothing()),
            outcome => outcome,
        }
    }

    async fn newest(&self, address: &Address, limit: usize) -> Result<Vec<Transaction>, ChainError> {
        let path =
            format!("/api/v3/transactions?account={}&limit={}&sort=desc", raw(address), limit.clamp(1, 100));
        let read = |reply: &Reply| {
            let list: Transactions = result(reply)?;
            let done = list.transactions.iter().filter(|tx| !tx.emulated).take(limit);
            done.map(|tx| tx.read(address)).collect()
        };
        match self.endpoints.read(&get("transactions", path), read).await {
            Err(ChainError::Refused { code: 404, .. }) => Ok(Vec::new()),
            outcome => outcome,
        }
    }

    async fn get_method(
        &self,
        address: &Address,
        name: &str,
        arguments: &[StackItem],
    ) -> Result<Vec<StackItem>, ChainError> {
        const ACTION: &str = "run the get-method";
        let stack = arguments
            .iter()
            .map(|item| {
                argument(item)
                    .ok_or_else(|| ChainError::invalid(ACTION, "v3 takes integers, cells and slices"))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let body = json!({ "address": raw(address), "method": name, "stack": stack });
        let asked = Request { name: "runGetMethod", path: "/api/v3/runGetMethod".into(), body: Some(body) };
        let read = |reply: &Reply| {
            let result: MethodResult = result(reply)?;
            if result.exit_code != 0 && result.exit_code != 1 {
                return Err(Fault::Outcome(ChainError::GetMethod {
                    address: Box::new(address.clone()),
                    method: name.to_owned(),
                    exit_code: result.exit_code,
                }));
            }
            items(&result.stack, 0).map_err(Fault::nonsense)
        };
        self.endpoints.read(&asked, read).await
    }
}

impl Chain for ToncenterV3 {
    fn network(&self) -> i32 {
        self.endpoints.network()
    }

    fn accounts_lag_seconds(&self) -> u64 {
        LAG_SECONDS
    }

    fn head(&self) -> BoxFuture<'_, Result<Block, ChainError>> {
        self.newest_block().boxed()
    }

    fn block(&self, seqno: u32) -> BoxFuture<'_, Result<Option<Block>, ChainError>> {
        self.block_or_none(seqno).boxed()
    }

    fn account<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, Result<AccountState, ChainError>> {
        self.account_state(address).boxed()
    }

    fn transactions<'a>(
        &'a self,
        address: &'a Address,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Transaction>, ChainError>> {
        self.newest(address, limit).boxed()
    }

    fn run_get_method<'a>(
        &'a self,
        address: &'a Address,
        method: &'a str,
        arguments: Vec<StackItem>,
    ) -> BoxFuture<'a, Result<Vec<StackItem>, ChainError>> {
        async move { self.get_method(address, method, &arguments).await }.boxed()
    }

    fn send<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<(), ChainError>> {
        async move {
            let body = json!({ "boc": BASE64.encode(message) });
            let asked = Request { name: "message", path: "/api/v3/message".into(), body: Some(body) };
            self.endpoints.send(&asked, |reply| result::<MessageTaken>(reply).map(drop)).await
        }
        .boxed()
    }
}

fn get(name: &'static str, path: String) -> Request {
    Request { name, path, body: None }
}

fn masterchain_info() -> Request {
    get("masterchainInfo", "/api/v3/masterchainInfo".into())
}

fn probe() -> Probe {
    Probe { request: masterchain_info(), read: |reply| Ok(result::<MasterchainInfo>(reply)?.last.global_id) }
}

/// Upper case, as the service spells addresses.
fn raw(address: &Address) -> String {
    address.to_string().to_uppercase()
}

fn nothing() -> AccountState {
    AccountState { balance: 0, status: AccountStatus::Uninit, code_hash: None, data: None, last_lt: 0 }
}

/// The answer itself, or the error that it says: `{"error": …}`, or `{"detail": …}` when a parameter is wrong.
fn result<T: DeserializeOwned>(reply: &Reply) -> Result<T, Fault> {
    if (200..300).contains(&reply.status) {
        return serde_json::from_slice(&reply.body).map_err(Fault::nonsense);
    }
    let words = serde_json::from_slice::<Value>(&reply.body).ok().and_then(|body| {
        let part = ["error", "detail", "result"].into_iter().find_map(|name| body.get(name))?;
        Some(part.as_str().map_or_else(|| part.to_string(), str::to_owned))
    });
    let words = words.unwrap_or_else(|| String::from_utf8_lossy(&reply.body).into_owned());
    Err(Fault::of_code(reply, i64::from(reply.status), &words))
}

/// An argument in the spelling of v3; `None` for what it has no spelling for.
fn argument(item: &StackItem) -> Option<Value> {
    let (kind, value) = match item {
        StackItem::Int(value) => ("num", hex_number(value)),
        StackItem::Cell(cell) => ("cell", BASE64.encode(message::encode(cell))),
        StackItem::Slice(cell) => ("slice", BASE64.encode(message::encode(cell))),
        StackItem::Null | StackItem::Tuple(_) => return None,
    };
    Some(json!({ "type": kind, "value": value }))
}

fn items(stack: &[Entry], depth: usize) -> Result<Vec<StackItem>, String> {
    if stack.len() > MAX_ITEMS || depth > MAX_DEPTH {
        return Err("a stack or tuple is too large".into());
    }
    stack.iter().map(|entry| entry.read(depth)).collect()
}

#[derive(Deserialize)]
struct MasterchainInfo {
    last: IndexedBlock,
}

#[derive(Deserialize)]
struct Blocks {
    blocks: Vec<IndexedBlock>,
}

#[derive(Deserialize)]
struct IndexedBlock {
    workchain: i32,
    seqno: u32,
    root_hash: String,
    global_id: i32,
    gen_utime: Number,
}

impl IndexedBlock {
    fn read(&self, network: i32) -> Result<Block, Fault> {
        if self.workchain != MASTERCHAIN {
            return Err(Fault::nonsense("a block of another chain than the masterchain"));
        }
        if self.global_id != network {
            return Err(Fault::Foreign { expected: network, found: self.global_id });
        }
        Ok(Block { seqno: self.seqno, root_hash: hash(&self.root_hash)?, time: self.gen_utime.unsigned()? })
    }
}

#[derive(Deserialize)]
struct AccountStates {
    accounts: Vec<IndexedAccount>,
}

#[derive(Deserialize)]
struct IndexedAccount {
    address: String,
    #[serde(default)]
    balance: Option<Number>,
    status: String,
    #[serde(default)]
    last_transaction_lt: Option<Number>,
    #[serde(default)]
    code_boc: Option<String>,
    #[serde(default)]
    data_boc: Option<String>,
}

impl IndexedAccount {
    fn is(&self, address: &Address) -> bool {
        parse_address(&self.address).is_ok_and(|own| own == *address)
    }

    fn read(&self) -> Result<AccountState, Fault> {
        let status = match self.status.as_str() {
            "active" => AccountStatus::Active,
            "frozen" => AccountStatus::Frozen,
            "uninit" | "nonexist" => AccountStatus::Uninit,
            other => return Err(Fault::nonsense(format!("an account status {other:?}"))),
        };
        let active = |boc: &Option<String>| match status {
            AccountStatus::Active => optional_bag(boc.as_deref()),
            AccountStatus::Uninit | AccountStatus::Frozen => Ok(None),
        };
        Ok(AccountState {
            balance: self.balance.as_ref().map_or(Ok(0), Number::unsigned)?,
            status,
            code_hash: active(&self.code_boc)?.map(|code| code.repr_hash().0),
            data: active(&self.data_boc)?,
            last_lt: self.last_transaction_lt.as_ref().map_or(Ok(0), Number::unsigned)?,
        })
    }
}

#[derive(Deserialize)]
struct Transactions {
    transactions: Vec<IndexedTransaction>,
}

#[derive(Deserialize)]
struct IndexedTransaction {
    account: String,
    hash: String,
    lt: Number,
    now: u32,
    total_fees: Number,
    description: Description,
    #[serde(default)]
    in_msg: Option<IndexedMessage>,
    #[serde(default)]
    out_msgs: Vec<IndexedMessage>,
    /// Not a transaction of the chain but what the service thinks will become one.
    #[serde(default)]
    emulated: bool,
}

#[derive(Deserialize)]
struct IndexedMessage {
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    value: Option<Number>,
    #[serde(default)]
    fwd_fee: Option<Number>,
    #[serde(default)]
    bounced: Option<bool>,
    #[serde(default)]
    message_content: Option<Content>,
    #[serde(default)]
    init_state: Option<Content>,
}

/// A cell of a message. Services leave out what they do not keep.
#[derive(Deserialize)]
struct Content {
    /// Of the cell, also where it is left out.
    #[serde(default)]
    hash: Option<String>,
    #[serde(default)]
    body: Option<String>,
}

impl IndexedMessage {
    fn body(&self) -> Result<Option<Cell>, Fault> {
        optional_bag(self.message_content.as_ref().and_then(|content| content.body.as_deref()))
    }

    fn first_data(&self) -> Result<Option<Cell>, Fault> {
        let init = optional_bag(self.init_state.as_ref().and_then(|content| content.body.as_deref()))?;
        let init = init.map(|cell| cell.parse::<StateInit>()).transpose().map_err(Fault::nonsense)?;
        Ok(init.and_then(|init| init.data))
    }
}

#[derive(Deserialize)]
struct Description {
    #[serde(default)]
    aborted: bool,
    #[serde(default)]
    compute_ph: Option<ComputePhase>,
}

#[derive(Deserialize)]
struct ComputePhase {
    #[serde(default)]
    skipped: bool,
    #[serde(default)]
    exit_code: Option<i32>,
    #[serde(default)]
    gas_used: Option<Number>,
}

impl IndexedTransaction {
    fn read(&self, account: &Address) -> Result<Transaction, Fault> {
        if parse_address(&self.account).map_err(Fault::nonsense)? != *account {
            return Err(Fault::nonsense("it is a transaction of another account"));
        }
        let amount = |number: &Option<Number>| number.as_ref().map_or(Ok(0), Number::unsigned);
        let mut fees = self.total_fees.unsigned()?;
        for message in &self.out_msgs {
            let fee = amount(&message.fwd_fee)?;
            fees = fees.checked_add(fee).ok_or_else(|| Fault::nonsense("the fees overflow"))?;
        }
        let from = self.in_msg.as_ref().and_then(|message| message.source.as_deref());
        let content = self.in_msg.as_ref().and_then(|message| message.message_content.as_ref());
        let executed = self.description.compute_ph.as_ref().filter(|phase| !phase.skipped);
        Ok(Transaction {
            lt: self.lt.unsigned()?,
            hash: hash(&self.hash)?,
            time: self.now,
            from: from.map(parse_address).transpose().map_err(Fault::nonsense)?,
            value: self.in_msg.as_ref().map_or(Ok(0), |message| amount(&message.value))?,
            body_hash: content.and_then(|content| content.hash.as_deref()).map(hash).transpose()?,
            bounced: self.in_msg.as_ref().is_some_and(|message| message.bounced == Some(true)),
            aborted: self.description.aborted,
            exit_code: executed.and_then(|phase| phase.exit_code),
            gas: executed.map_or(Ok(0), |phase| amount(&phase.gas_used))?,
            body: self.in_msg.as_ref().map_or(Ok(None), IndexedMessage::body)?,
            first_data: self.in_msg.as_ref().map_or(Ok(None), IndexedMessage::first_data)?,
            fees,
        })
    }
}

#[derive(Deserialize)]
struct MessageTaken {
    #[serde(rename = "message_hash")]
    _hash: String,
}

#[derive(Deserialize)]
struct MethodResult {
    exit_code: i32,
    stack: Vec<Entry>,
}

/// An item of a stack: a type, and a text, or a list for tuples and lists.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    value: Value,
}

impl Entry {
    fn read(&self, depth: usize) -> Result<StackItem, String> {
        let text = || self.value.as_str().ok_or("a cell is no text");
        match self.kind.as_str() {
            "num" => number(&self.value).map(|value: BigInt| StackItem::Int(value)),
            "cell" => Ok(StackItem::Cell(cell(text()?)?)),
            "slice" => Ok(StackItem::Slice(cell(text()?)?)),
            "null" => Ok(StackItem::Null),
            "tuple" | "list" => {
                let entries = Vec::<Entry>::deserialize(&self.value).map_err(|error| error.to_string())?;
                // An empty list is how null comes through.
                match items(&entries, depth + 1)? {
                    items if items.is_empty() && self.kind == "list" => Ok(StackItem::Null),
                    items => Ok(StackItem::Tuple(items)),
                }
            }
            other => Err(format!("items of kind {other:?} are not supported")),
        }
    }
}
