//! The methods of toncenter v2 and v3: names and parameters in, JSON out. No HTTP here.

mod find;
pub(crate) mod v3;
mod v3_views;
mod views;

pub(crate) use views::body as message_body;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cocoon_chain::{stack_from_json, stack_to_json};
use cocoon_contracts::{Address, friendly, message, parse_address};
use serde_json::{Map, Value, json};

use crate::{Block, GetterError, Ledger, LedgerError, SubmitError, normalised_hash};

/// Most transactions in one answer.
const MAX_TRANSACTIONS: u64 = 100;
const DEFAULT_TRANSACTIONS: u64 = 10;
/// Get-methods may be named by number; the numbers of names have this bit.
const METHOD_ID_BIT: u32 = 0x1_0000;
/// Longest name of a get-method.
const MAX_METHOD_CHARS: usize = 128;

/// An error as the shape has it: a code like HTTP's, and words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RpcError {
    pub code: u16,
    pub message: String,
}

impl RpcError {
    pub(crate) fn new(code: u16, message: impl std::fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }

    fn parameter(name: &str, why: impl std::fmt::Display) -> Self {
        Self::new(422, format!("parameter {name}: {why}"))
    }
}

impl From<LedgerError> for RpcError {
    fn from(error: LedgerError) -> Self {
        Self::new(500, error)
    }
}

impl From<SubmitError> for RpcError {
    fn from(error: SubmitError) -> Self {
        let code = match error {
            SubmitError::Malformed(_) => 422,
            SubmitError::NotAccepted(_) => 500, // as toncenter answers
            SubmitError::Busy => 503,
        };
        Self::new(code, error)
    }
}

/// The parameters of a call, as an object. Over REST all of them are texts.
pub(crate) struct Parameters(pub Map<String, Value>);

impl Parameters {
    fn text(&self, name: &str) -> Result<&str, RpcError> {
        self.0.get(name).and_then(Value::as_str).ok_or_else(|| RpcError::parameter(name, "a text is needed"))
    }

    fn number(&self, name: &str) -> Result<Option<u64>, RpcError> {
        let wrong = || RpcError::parameter(name, "a whole number is needed");
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => text.parse().map(Some).map_err(|_| wrong()),
            Some(value) => value.as_u64().map(Some).ok_or_else(wrong),
        }
    }

    fn needed(&self, name: &str) -> Result<u64, RpcError> {
        self.number(name)?.ok_or_else(|| RpcError::parameter(name, "it is missing"))
    }

    /// A bag of cells in base64, at most as long as a message; `None` when it is missing or empty.
    fn bag(&self, name: &str) -> Result<Option<Vec<u8>>, RpcError> {
        let text = match self.0.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(value) => value.as_str().ok_or_else(|| RpcError::parameter(name, "a text is needed"))?,
        };
        if text.len() > message::MAX_MESSAGE_BYTES * 4 / 3 + 4 {
            return Err(RpcError::parameter(name, "it is too long for a message"));
        }
        let bytes = BASE64.decode(text).map_err(|error| RpcError::parameter(name, error))?;
        Ok((!bytes.is_empty()).then_some(bytes))
    }

    /// A hash in base64, either alphabet, or in hex.
    fn hash(&self, name: &str) -> Result<Option<[u8; 32]>, RpcError> {
        match self.0.get(name).and_then(Value::as_str) {
            None | Some("") => Ok(None),
            Some(text) => {
                parse_hash(text).map(Some).ok_or_else(|| RpcError::parameter(name, "it is no hash"))
            }
        }
    }

    fn address(&self, name: &str) -> Result<Address, RpcError> {
        parse_address(self.text(name)?).map_err(|error| RpcError::parameter(name, error))
    }
}

/// Whether a method changes what waits for the next block.
pub(crate) fn makes_work(method: &str) -> bool {
    matches!(method, "sendBoc" | "sendBocReturnHash" | "sendBocReturnHashNoError")
}

/// Answers one call.
pub(crate) fn call(ledger: &mut Ledger, method: &str, parameters: &Parameters) -> Result<Value, RpcError> {
    match method {
        "getMasterchainInfo" => Ok(views::masterchain_info(ledger, &stored(ledger, 1)?)),
        "getAddressInformation" => Ok(views::address_information(ledger, &parameters.address("address")?)),
        "getExtendedAddressInformation" => {
            Ok(views::extended_information(ledger, &parameters.address("address")?))
        }
        "packAddress" => Ok(friendly(&parameters.address("address")?, true).into()),
        "unpackAddress" => Ok(parameters.address("address")?.to_string().into()),
        "detectAddress" => Ok(views::detected(&parameters.address("address")?)),
        "getWalletInformation" => Ok(views::wallet_information(ledger, &parameters.address("address")?)),
        "getAddressBalance" => {
            Ok(views::address_information(ledger, &parameters.address("address")?)["balance"].clone())
        }
        "getAddressState" => {
            Ok(views::address_information(ledger, &parameters.address("address")?)["state"].clone())
        }
        "getTransactions" => transactions(ledger, parameters),
        "getConsensusBlock" => {
            Ok(json!({ "consensus_block": ledger.head().seqno, "timestamp": ledger.head().time }))
        }
        "lookupBlock" => {
            Ok(views::block_id(&find::lookup(ledger, parameters)?, find::workchain(parameters)?))
        }
        "getBlockTransactions" => find::block_transactions(ledger, parameters),
        "getBlockHeader" => Ok(views::block_header(
            &block(ledger, parameters)?,
            find::workchain(parameters)?,
            ledger.network(),
        )),
        "shards" => shards(ledger, parameters),
        "getConfigParam" => config_parameter(ledger, parameters),
        "runGetMethod" => run_get_method(ledger, parameters),
        "estimateFee" => find::estimate(ledger, parameters),
        "sendBoc" => send(ledger, parameters).map(|_| json!({ "@type": "ok" })),
        "sendBocReturnHash" | "sendBocReturnHashNoError" => send(ledger, parameters).map(|sent| {
            json!({
                "@type": "raw.extMessageInfo",
                "hash": BASE64.encode(sent.hash),
                "hash_norm": BASE64.encode(sent.normalised),
            })
        }),
        other => Err(RpcError::new(404, format!("there is no method {:?}", clip(other)))),
    }
}

/// A message that was taken, by both of its names.
struct Sent {
    hash: [u8; 32],
    normalised: [u8; 32],
}

fn send(ledger: &mut Ledger, parameters: &Parameters) -> Result<Sent, RpcError> {
    let bytes = parameters.bag("boc")?.ok_or_else(|| RpcError::parameter("boc", "it is missing"))?;
    let hash = ledger.submit(&bytes)?;
    let cell = message::decode(&bytes, message::MAX_MESSAGE_BYTES).ok();
    Ok(Sent { hash, normalised: cell.as_ref().and_then(normalised_hash).unwrap_or(hash) })
}

fn transactions(ledger: &Ledger, parameters: &Parameters) -> Result<Value, RpcError> {
    let address = parameters.address("address")?;
    let limit = parameters.number("limit")?.unwrap_or(DEFAULT_TRANSACTIONS).clamp(1, MAX_TRANSACTIONS);
    let until = parameters.number("lt")?.unwrap_or(u64::MAX);
    let after = parameters.number("to_lt")?.unwrap_or(0);
    let limit = usize::try_from(limit).expect("at most a hundred");
    let named = parameters.hash("hash")?;
    let mut list = Vec::new();
    for cell in ledger.transactions(&address, until, limit)? {
        if list.is_empty() && named.is_some_and(|hash| hash != cell.repr_hash().0) {
            // A client that pages names the transaction that it goes on from; of another chain it would get nonsense.
            return Err(RpcError::new(500, "cannot locate transaction with this lt and hash"));
        }
        let value = views::transaction(&address, &cell).map_err(|error| RpcError::new(500, error))?;
        let lt = value["transaction_id"]["lt"].as_str().and_then(|lt| lt.parse::<u64>().ok());
        if lt.is_some_and(|lt| lt <= after) {
            break;
        }
        list.push(value);
    }
    Ok(Value::Array(list))
}

fn block(ledger: &Ledger, parameters: &Parameters) -> Result<Block, RpcError> {
    let seqno = parameters.needed("seqno")?;
    let seqno = u32::try_from(seqno).map_err(|_| RpcError::parameter("seqno", "it is too large"))?;
    stored(ledger, seqno)
}

fn stored(ledger: &Ledger, seqno: u32) -> Result<Block, RpcError> {
    ledger.block(seqno)?.ok_or_else(|| RpcError::new(404, format!("there is no block {seqno} yet")))
}

fn shards(ledger: &Ledger, parameters: &Parameters) -> Result<Value, RpcError> {
    Ok(json!({ "@type": "blocks.shards", "shards": [views::block_id(&block(ledger, parameters)?, 0)] }))
}

fn config_parameter(ledger: &Ledger, parameters: &Parameters) -> Result<Value, RpcError> {
    let id = match parameters.number("config_id")? {
        Some(id) => id,
        None => parameters.needed("param")?,
    };
    let cell = u32::try_from(id).ok().and_then(|id| ledger.config_parameter(id));
    let cell = cell.ok_or_else(|| RpcError::new(404, format!("there is no configuration parameter {id}")))?;
    Ok(json!({
        "@type": "configInfo",
        "config": { "@type": "tvm.cell", "bytes": views::cell_text(&cell) },
    }))
}

fn run_get_method(ledger: &Ledger, parameters: &Parameters) -> Result<Value, RpcError> {
    let address = parameters.address("address")?;
    let method = match parameters.number("method") {
        Ok(Some(id)) => u32::try_from(id).map_err(|_| RpcError::parameter("method", "it is too large"))?,
        _ => method_id(parameters.text("method")?)?,
    };
    let no_arguments = json!([]);
    let stack = parameters.0.get("stack").unwrap_or(&no_arguments);
    let arguments = stack_from_json(stack).map_err(|why| RpcError::parameter("stack", why))?;
    let head = ledger.head();
    let (exit_code, gas, stack) = match ledger.run_get_method(&address, method, &arguments) {
        Ok(output) => (output.exit_code, output.gas, output.stack),
        // What a node says of an account without code.
        Err(GetterError::NoContract) => (-13, 0, Vec::new()),
        Err(error) => return Err(RpcError::new(500, error)),
    };
    Ok(json!({
        "@type": "smc.runResult",
        "gas_used": gas,
        "stack": stack_to_json(&stack),
        "exit_code": exit_code,
        "block_id": views::block_id(&head, views::MASTERCHAIN),
        "last_transaction_id": views::address_information(ledger, &address)["last_transaction_id"],
    }))
}

pub(crate) fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let bytes = match text.len() {
        64 => hex::decode(text).ok()?,
        43 | 44 => {
            let standard = text.replace('-', "+").replace('_', "/");
            BASE64.decode(format!("{:=<44}", standard.trim_end_matches('='))).ok()?
        }
        _ => return None,
    };
    bytes.try_into().ok()
}

fn method_id(name: &str) -> Result<u32, RpcError> {
    if name.is_empty() || name.len() > MAX_METHOD_CHARS {
        return Err(RpcError::parameter("method", "a name of 1 to 128 characters is needed"));
    }
    Ok(u32::from(tycho_types::crc::crc_16(name.as_bytes())) | METHOD_ID_BIT)
}

fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}
