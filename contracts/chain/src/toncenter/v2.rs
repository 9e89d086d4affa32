//! The client of the toncenter v2 HTTP shape.

use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cocoon_contracts::{Address, friendly};
use futures_util::future::{BoxFuture, FutureExt as _};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::ToncenterOptions;
use super::endpoints::{Endpoints, Probe};
use super::fault::Fault;
use super::transport::{Reply, Request};
use super::values::{Number, bag, hash, optional_bag};
use crate::{
    AccountState, AccountStatus, Block, Chain, ChainError, StackItem, Transaction, stack_from_json,
    stack_to_json,
};

/// The masterchain, and the shard that is all of it, as toncenter writes it.
const MASTERCHAIN: i32 = -1;
const WHOLE_SHARD: &str = "-9223372036854775808";
/// The configuration parameter with the network's global id.
const GLOBAL_ID_PARAMETER: u32 = 19;

/// One or more toncenter v2 endpoints of one network. What they say is believed.
pub struct Toncenter {
    endpoints: Endpoints,
    /// The newest block that was returned: no account of an older one is.
    seen: AtomicU32,
}

impl Toncenter {
    /// Connects to an endpoint: its base (`http://127.0.0.1:8081`), its API root (`…/api/v2`) or its `…/jsonRPC`. Asks
    /// it for the network's global id.
    pub async fn connect(url: &str) -> Result<Self, ChainError> {
        Self::open(&ToncenterOptions::new(url)).await
    }

    /// Connects to the endpoints of the options. At least one must answer; each is asked for its network before it is
    /// believed.
    pub async fn open(options: &ToncenterOptions) -> Result<Self, ChainError> {
        let endpoints = Endpoints::meet(options.roots("v2")?, options, probe()).await?;
        Ok(Self { endpoints, seen: AtomicU32::new(0) })
    }

    /// An endpoint of a network whose global id is known. Nothing is asked yet.
    pub fn new(url: &str, network: i32) -> Result<Self, ChainError> {
        let options = ToncenterOptions::new(url);
        let endpoints = Endpoints::trusted(options.roots("v2")?, &options, network, probe())?;
        Ok(Self { endpoints, seen: AtomicU32::new(0) })
    }

    async fn header(&self, seqno: u32) -> Result<Block, ChainError> {
        let parameters = json!({ "workchain": MASTERCHAIN, "shard": WHOLE_SHARD, "seqno": seqno });
        let read = |reply: &Reply| {
            let header: BlockHeader = result(reply)?;
            if header.id.seqno != seqno {
                return Err(Fault::nonsense(format!("block {} instead of {seqno}", header.id.seqno)));
            }
            Ok(Block { seqno, root_hash: hash(&header.id.root_hash)?, time: header.gen_utime })
        };
        self.endpoints.read(&request("getBlockHeader", parameters), read).await
    }

    async fn newest_block(&self) -> Result<Block, ChainError> {
        let info: MasterchainInfo =
            self.endpoints.read(&request("getMasterchainInfo", json!({})), result).await?;
        let block = self.header(info.last.seqno).await?;
        self.seen.fetch_max(block.seqno, Ordering::SeqCst);
        Ok(block)
    }

    async fn block_or_none(&self, seqno: u32) -> Result<Option<Block>, ChainError> {
        match self.header(seqno).await {
            Ok(block) => Ok(Some(block)),
            // The words for "no such block" differ between services; the head tells.
            Err(error @ ChainError::Refused { .. }) => {
                if self.newest_block().await?.seqno < seqno {
                    Ok(None)
                } else {
                    Err(error)
                }
            }
            Err(error) => Err(error),
        }
    }

    async fn account_state(&self, address: &Address) -> Result<AccountState, ChainError> {
        let asked = request("getAddressInformation", json!({ "address": friendly(address, true) }));
        let seen = self.seen.load(Ordering::SeqCst);
        self.endpoints.read(&asked, |reply| result::<AddressInformation>(reply)?.state(seen)).await
    }

    async fn newest(&self, address: &Address, limit: usize) -> Result<Vec<Transaction>, ChainError> {
        let parameters = json!({ "address": friendly(address, true), "limit": limit.clamp(1, 100) });
        let read = |reply: &Reply| {
            let raw: Vec<RawTransaction> = result(reply)?;
            raw.iter()
                .take(limit)
                .map(|tx| Transaction::parse_of(address, &bag(&tx.data)?).map_err(Fault::nonsense))
                .collect()
        };
        self.endpoints.read(&request("getTransactions", parameters), read).await
    }

    async fn get_method(
        &self,
        address: &Address,
        name: &str,
        arguments: &[StackItem],
    ) -> Result<Vec<StackItem>, ChainError> {
        let parameters =
            json!({ "address": friendly(address, true), "method": name, "stack": stack_to_json(arguments) });
        let read = |reply: &Reply| {
            let result: MethodResult = result(reply)?;
            if result.exit_code != 0 && result.exit_code != 1 {
                return Err(Fault::Outcome(ChainError::GetMethod {
                    address: Box::new(address.clone()),
                    method: name.to_owned(),
                    exit_code: result.exit_code,
                }));
            }
            stack_from_json(&result.stack).map_err(Fault::nonsense)
        };
        self.endpoints.read(&request("runGetMethod", parameters), read).await
    }
}

impl Chain for Toncenter {
    fn network(&self) -> i32 {
        self.endpoints.network()
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
            let asked = request("sendBoc", json!({ "boc": BASE64.encode(message) }));
            self.endpoints.send(&asked, |reply| result::<Value>(reply).map(drop)).await
        }
        .boxed()
    }
}

fn request(name: &'static str, parameters: Value) -> Request {
    let body = json!({ "id": "1", "jsonrpc": "2.0", "method": name, "params": parameters });
    Request { name, path: "/api/v2/jsonRPC".into(), body: Some(body) }
}

fn probe() -> Probe {
    let request = request("getConfigParam", json!({ "config_id": GLOBAL_ID_PARAMETER }));
    let read = |reply: &Reply| {
        let config: ConfigInfo = result(reply)?;
        let cell = bag(&config.config.bytes)?;
        let id = cell.as_slice().and_then(|mut slice| slice.load_u32());
        id.map(u32::cast_signed).map_err(Fault::nonsense)
    };
    Probe { request, read }
}

/// The result inside an answer, or the error that it says.
fn result<T: DeserializeOwned>(reply: &Reply) -> Result<T, Fault> {
    let status = i64::from(reply.status);
    let failed = !(200..300).contains(&reply.status);
    let answer: Answer = match serde_json::from_slice(&reply.body) {
        Ok(answer) => answer,
        Err(_) if failed => return Err(Fault::of_code(reply, status, &String::from_utf8_lossy(&reply.body))),
        Err(error) => return Err(Fault::nonsense(error)),
    };
    if !answer.ok || failed {
        let code = answer.code.unwrap_or(status);
        let message = match answer.error {
            Some(Value::String(text)) => text,
            Some(other) => other.to_string(),
            // The limit's words come as a result.
            None => answer.result.as_str().unwrap_or_default().to_owned(),
        };
        return Err(Fault::of_code(reply, code, &message));
    }
    serde_json::from_value(answer.result).map_err(Fault::nonsense)
}

#[derive(Deserialize)]
struct Answer {
    ok: bool,
    #[serde(default)]
    result: Value,
    #[serde(default)]
    error: Option<Value>,
    #[serde(default)]
    code: Option<i64>,
}

#[derive(Deserialize)]
struct BlockId {
    #[serde(default)]
    workchain: Option<i32>,
    seqno: u32,
    root_hash: String,
}

#[derive(Deserialize)]
struct MasterchainInfo {
    last: BlockId,
}

#[derive(Deserialize)]
struct BlockHeader {
    id: BlockId,
    gen_utime: u64,
}

#[derive(Deserialize)]
struct AddressInformation {
    balance: Number,
    state: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    data: String,
    last_transaction_id: TransactionId,
    /// The block that this is the state of.
    #[serde(default)]
    block_id: Option<BlockId>,
}

impl AddressInformation {
    /// The account, unless it is as of a block before `seen`: behind one address may be many nodes, and one of them late.
    fn state(&self, seen: u32) -> Result<AccountState, Fault> {
        let block = self.block_id.as_ref().filter(|id| id.workchain == Some(MASTERCHAIN));
        if let Some(id) = block.filter(|id| id.seqno < seen) {
            let message = format!("it is at block {} after it was at {seen}", id.seqno);
            return Err(Fault::Trouble { code: 0, message });
        }
        let status = match self.state.as_str() {
            "active" => AccountStatus::Active,
            "frozen" => AccountStatus::Frozen,
            "uninitialized" => AccountStatus::Uninit,
            other => return Err(Fault::nonsense(format!("an account state {other:?}"))),
        };
        let code = optional_bag(Some(&self.code))?;
        Ok(AccountState {
            balance: self.balance.nanotons()?,
            status,
            code_hash: code.map(|code| code.repr_hash().0),
            data: optional_bag(Some(&self.data))?,
            last_lt: self.last_transaction_id.lt.unsigned()?,
        })
    }
}

#[derive(Deserialize)]
struct TransactionId {
    lt: Number,
}

#[derive(Deserialize)]
struct RawTransaction {
    data: String,
}

#[derive(Deserialize)]
struct MethodResult {
    exit_code: i32,
    stack: Value,
}

#[derive(Deserialize)]
struct ConfigInfo {
    config: Bytes,
}

#[derive(Deserialize)]
struct Bytes {
    bytes: String,
}
