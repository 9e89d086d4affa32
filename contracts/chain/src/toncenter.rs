//! The client of the toncenter v2 HTTP shape.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cocoon_contracts::{Address, Cell, Nanotons, friendly, message};
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    AccountState, AccountStatus, Block, Chain, ChainError, StackItem, Transaction, stack_from_json,
    stack_to_json,
};

/// How long one request may take, with its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to try to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a read is tried, and the wait before the second try (doubled before each further one).
const ATTEMPTS: u32 = 4;
const FIRST_BACKOFF: Duration = Duration::from_millis(150);
/// The largest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 4 << 20;
/// The largest account state or transaction, as a bag of cells.
const MAX_BAG_BYTES: usize = 2 << 20;
/// How much of an error's words is repeated.
const MAX_ECHO: usize = 300;
/// The shard that is all of the masterchain, as toncenter writes it.
const WHOLE_SHARD: &str = "-9223372036854775808";
/// The configuration parameter with the network's global id.
const GLOBAL_ID_PARAMETER: u32 = 19;

/// A toncenter v2 endpoint.
pub struct Toncenter {
    client: reqwest::Client,
    rpc: String,
    api_key: Option<String>,
    network: i32,
}

impl Toncenter {
    /// Connects to an endpoint: its base (`http://127.0.0.1:8081`), its API root (`…/api/v2`) or its `…/jsonRPC`. Asks
    /// it for the network's global id.
    pub async fn connect(url: &str) -> Result<Self, ChainError> {
        Self::connect_with_key(url, None).await
    }

    /// As [`Toncenter::connect`], with the API key of a public service.
    pub async fn connect_with_key(url: &str, api_key: Option<String>) -> Result<Self, ChainError> {
        let mut this = Self::new(url, 0)?;
        this.api_key = api_key;
        this.network = this.global_id().await?;
        Ok(this)
    }

    /// An endpoint of a network whose global id is known. Nothing is asked yet.
    pub fn new(url: &str, network: i32) -> Result<Self, ChainError> {
        let bad_url = |why: String| ChainError::Url { url: url.to_owned(), why };
        let parsed = reqwest::Url::parse(url).map_err(|error| bad_url(error.to_string()))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(bad_url(format!("the scheme {} is not http or https", parsed.scheme())));
        }
        let base = url.trim_end_matches('/');
        let rpc = if base.ends_with("/jsonRPC") {
            base.to_owned()
        } else if base.ends_with("/api/v2") {
            format!("{base}/jsonRPC")
        } else {
            format!("{base}/api/v2/jsonRPC")
        };
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy() // as every client of ours: what is configured is what is asked
            .build()
            .map_err(|error| bad_url(error.to_string()))?;
        Ok(Self { client, rpc, api_key: None, network })
    }

    async fn global_id(&self) -> Result<i32, ChainError> {
        let method = "getConfigParam";
        let config: ConfigInfo = self.read(method, json!({ "config_id": GLOBAL_ID_PARAMETER })).await?;
        let cell = self.bag(method, &config.config.bytes)?;
        let id = cell.as_slice().and_then(|mut slice| slice.load_u32());
        id.map(u32::cast_signed).map_err(|error| self.nonsense(method, error))
    }

    async fn header(&self, seqno: u32) -> Result<Block, ChainError> {
        let method = "getBlockHeader";
        let parameters = json!({ "workchain": -1, "shard": WHOLE_SHARD, "seqno": seqno });
        let header: BlockHeader = self.read(method, parameters).await?;
        if header.id.seqno != seqno {
            return Err(self.nonsense(method, format!("block {} instead of {seqno}", header.id.seqno)));
        }
        Ok(Block { seqno, root_hash: self.hash(method, &header.id.root_hash)?, time: header.gen_utime })
    }

    /// Asks, and asks again while the endpoint is away or busy: only for what may be asked twice.
    async fn read<T: DeserializeOwned>(&self, method: &str, parameters: Value) -> Result<T, ChainError> {
        let mut backoff = FIRST_BACKOFF;
        for _ in 1..ATTEMPTS {
            match self.call(method, &parameters).await {
                Err(error) if passes(&error) => {
                    tracing::debug!(%error, "asking again");
                    tokio::time::sleep(backoff).await;
                    backoff *= 2;
                }
                outcome => return outcome,
            }
        }
        self.call(method, &parameters).await
    }

    async fn call<T: DeserializeOwned>(&self, method: &str, parameters: &Value) -> Result<T, ChainError> {
        let request = json!({ "id": "1", "jsonrpc": "2.0", "method": method, "params": parameters });
        let mut builder = self.client.post(&self.rpc).json(&request);
        if let Some(key) = &self.api_key {
            builder = builder.header("X-API-Key", key);
        }
        let unreachable = |error: reqwest::Error| ChainError::Unreachable {
            url: self.rpc.clone(),
            method: method.to_owned(),
            why: root_cause(&error.without_url()),
        };
        let response = builder.send().await.map_err(unreachable)?;
        let status = response.status();
        let mut body = Vec::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(unreachable)?;
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(self.nonsense(method, format!("more than {MAX_ANSWER_BYTES} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        let answer: Answer = match serde_json::from_slice(&body) {
            Ok(answer) => answer,
            Err(_) if !status.is_success() => {
                let message = clip(&String::from_utf8_lossy(&body));
                return Err(self.refused(method, i64::from(status.as_u16()), message));
            }
            Err(error) => return Err(self.nonsense(method, error)),
        };
        if !answer.ok {
            let code = answer.code.unwrap_or_else(|| i64::from(status.as_u16()));
            let message = match answer.error {
                Some(Value::String(text)) => clip(&text),
                other => clip(&other.unwrap_or(Value::Null).to_string()),
            };
            return Err(self.refused(method, code, message));
        }
        serde_json::from_value(answer.result).map_err(|error| self.nonsense(method, error))
    }

    fn refused(&self, method: &str, code: i64, message: String) -> ChainError {
        ChainError::Refused { url: self.rpc.clone(), method: method.to_owned(), code, message }
    }

    fn nonsense(&self, method: &str, why: impl std::fmt::Display) -> ChainError {
        let why = clip(&why.to_string());
        ChainError::BadAnswer { url: self.rpc.clone(), method: method.to_owned(), why }
    }

    fn bag(&self, method: &str, text: &str) -> Result<Cell, ChainError> {
        let bytes = BASE64.decode(text).map_err(|error| self.nonsense(method, error))?;
        message::decode(&bytes, MAX_BAG_BYTES).map_err(|error| self.nonsense(method, error))
    }

    fn optional_bag(&self, method: &str, text: &str) -> Result<Option<Cell>, ChainError> {
        if text.is_empty() { Ok(None) } else { self.bag(method, text).map(Some) }
    }

    fn hash(&self, method: &str, text: &str) -> Result<[u8; 32], ChainError> {
        let bytes = BASE64.decode(text).map_err(|error| self.nonsense(method, error))?;
        bytes.try_into().map_err(|_| self.nonsense(method, "a hash is not 32 bytes"))
    }

    async fn account_state(&self, address: &Address) -> Result<AccountState, ChainError> {
        let method = "getAddressInformation";
        let info: AddressInformation =
            self.read(method, json!({ "address": friendly(address, true) })).await?;
        let code = self.optional_bag(method, &info.code)?;
        let status = match info.state.as_str() {
            "active" => AccountStatus::Active,
            "frozen" => AccountStatus::Frozen,
            "uninitialized" => AccountStatus::Uninit,
            other => return Err(self.nonsense(method, format!("an account state {other:?}"))),
        };
        Ok(AccountState {
            balance: info
                .balance
                .nanotons()
                .ok_or_else(|| self.nonsense(method, "the balance is no amount"))?,
            status,
            code_hash: code.map(|code| code.repr_hash().0),
            data: self.optional_bag(method, &info.data)?,
            last_lt: info.last_transaction_id.lt.number(),
        })
    }

    async fn newest(&self, address: &Address, limit: usize) -> Result<Vec<Transaction>, ChainError> {
        let method = "getTransactions";
        let parameters = json!({ "address": friendly(address, true), "limit": limit.clamp(1, 100) });
        let raw: Vec<RawTransaction> = self.read(method, parameters).await?;
        raw.iter()
            .take(limit)
            .map(|tx| {
                Transaction::parse(&self.bag(method, &tx.data)?).map_err(|error| self.nonsense(method, error))
            })
            .collect()
    }

    async fn get_method(
        &self,
        address: &Address,
        name: &str,
        arguments: &[StackItem],
    ) -> Result<Vec<StackItem>, ChainError> {
        let method = "runGetMethod";
        let parameters =
            json!({ "address": friendly(address, true), "method": name, "stack": stack_to_json(arguments) });
        let result: MethodResult = self.read(method, parameters).await?;
        if result.exit_code != 0 && result.exit_code != 1 {
            return Err(ChainError::GetMethod {
                address: Box::new(address.clone()),
                method: name.to_owned(),
                exit_code: result.exit_code,
            });
        }
        stack_from_json(&result.stack).map_err(|why| self.nonsense(method, why))
    }
}

impl Chain for Toncenter {
    fn network(&self) -> i32 {
        self.network
    }

    fn head(&self) -> BoxFuture<'_, Result<Block, ChainError>> {
        async {
            let info: MasterchainInfo = self.read("getMasterchainInfo", json!({})).await?;
            self.header(info.last.seqno).await
        }
        .boxed()
    }

    fn block(&self, seqno: u32) -> BoxFuture<'_, Result<Option<Block>, ChainError>> {
        async move {
            match self.header(seqno).await {
                Ok(block) => Ok(Some(block)),
                // The words for "no such block" differ between services; the head tells.
                Err(error @ ChainError::Refused { .. }) => {
                    if self.head().await?.seqno < seqno {
                        Ok(None)
                    } else {
                        Err(error)
                    }
                }
                Err(error) => Err(error),
            }
        }
        .boxed()
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
            let _ok: Value = self.call("sendBoc", &json!({ "boc": BASE64.encode(message) })).await?;
            Ok(())
        }
        .boxed()
    }
}

/// Whether an error may pass by itself: nobody there, too many requests, a server in trouble.
fn passes(error: &ChainError) -> bool {
    match error {
        ChainError::Unreachable { .. } => true,
        ChainError::Refused { code, .. } => matches!(code, 429 | 502 | 503 | 504),
        _ => false,
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

fn clip(text: &str) -> String {
    text.chars().take(MAX_ECHO).collect()
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

/// toncenter writes amounts as numbers or as texts.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Unsigned(u64),
    Signed(i64),
    Text(String),
}

impl Number {
    fn nanotons(&self) -> Option<Nanotons> {
        match self {
            // "-1" is how toncenter says that there is no such account.
            Self::Signed(value) => (*value == -1).then_some(0),
            Self::Unsigned(value) => Some(*value),
            Self::Text(text) if text == "-1" => Some(0),
            Self::Text(text) => text.parse().ok(),
        }
    }

    fn number(&self) -> u64 {
        self.nanotons().unwrap_or(0)
    }
}
