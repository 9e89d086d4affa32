//! The methods of toncenter v3 that a client of one chain needs. Addresses come out raw and in upper case, hashes in
//! base64, amounts and logical times as texts, an empty value as `null`.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cocoon_chain::StackItem;
use cocoon_contracts::{Address, Cell, message, parse_address};
use num_bigint::BigInt;
use serde_json::{Map, Value, json};

use super::{Parameters, RpcError, find, method_id, parse_hash, send, stored, v3_views as views};
use crate::{Block, GetterError, Ledger};

/// How many items one answer has unless asked otherwise, and at most.
const DEFAULT_LIMIT: u64 = 10;
const MAX_LIMIT: u64 = 500;
/// Most addresses in one request.
const MAX_ADDRESSES: usize = 256;
/// Furthest that an answer may skip.
const MAX_OFFSET: u64 = 10_000;
/// How deep tuples of a stack may nest, and how many items there may be.
const MAX_DEPTH: usize = 16;
const MAX_ITEMS: usize = 255;
/// Longest spelling of an integer.
const MAX_NUMBER_CHARS: usize = 80;

/// Whether a method changes what waits for the next block.
pub(crate) fn makes_work(method: &str) -> bool {
    method == "message"
}

/// Answers a GET.
pub(crate) fn get(ledger: &Ledger, method: &str, query: &[(String, String)]) -> Result<Value, RpcError> {
    let query = Query(query);
    match method {
        "masterchainInfo" => Ok(json!({
            "last": views::block(&ledger.head(), -1, ledger.network()),
            "first": views::block(&stored(ledger, 1)?, -1, ledger.network()),
        })),
        "blocks" => blocks(ledger, &query),
        "accountStates" => account_states(ledger, &query),
        "addressInformation" => Ok(views::address_information(ledger, &query.address()?)),
        "walletInformation" => Ok(views::wallet_information(ledger, &query.address()?)),
        "walletStates" => wallet_states(ledger, &query),
        "addressBook" => Ok(views::address_book(query.addresses("address")?.iter())),
        "transactions" => transactions(ledger, &query),
        "transactionsByMasterchainBlock" => {
            let block = find_block(ledger, &query)?;
            let all =
                ledger.block_transactions(&block, 0, usize::try_from(MAX_LIMIT + MAX_OFFSET).unwrap_or(0))?;
            listed(ledger, all, &query, "asc")
        }
        "transactionsByMessage" => by_message(ledger, &query),
        other => Err(RpcError::new(404, format!("there is no method {:?}", super::clip(other)))),
    }
}

/// Answers a POST.
pub(crate) fn post(ledger: &mut Ledger, method: &str, body: &Parameters) -> Result<Value, RpcError> {
    match method {
        "message" => send(ledger, body).map(|sent| {
            json!({
                "message_hash": BASE64.encode(sent.hash),
                "message_hash_norm": BASE64.encode(sent.normalised),
            })
        }),
        "runGetMethod" => run_get_method(ledger, body),
        "estimateFee" => {
            let fees = find::fees(ledger, body)?;
            let fees = json!({
                "in_fwd_fee": fees.import, "storage_fee": fees.storage,
                "gas_fee": fees.gas, "fwd_fee": fees.forward,
            });
            Ok(json!({ "source_fees": fees, "destination_fees": [] }))
        }
        other => Err(RpcError::new(404, format!("there is no method {:?}", super::clip(other)))),
    }
}

/// What follows the question mark. Names may come more than once.
struct Query<'a>(&'a [(String, String)]);

impl Query<'_> {
    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.all(name).next().filter(|text| !text.is_empty())
    }

    fn number(&self, name: &str) -> Result<Option<u64>, RpcError> {
        let parse =
            |text: &str| text.parse().map_err(|_| RpcError::parameter(name, "a whole number is needed"));
        self.text(name).map(parse).transpose()
    }

    fn hash(&self, name: &str) -> Result<Option<[u8; 32]>, RpcError> {
        let parse = |text| parse_hash(text).ok_or_else(|| RpcError::parameter(name, "it is no hash"));
        self.text(name).map(parse).transpose()
    }

    /// The addresses under a name, each once.
    fn addresses(&self, name: &str) -> Result<Vec<Address>, RpcError> {
        let parse = |text: &str| parse_address(text).map_err(|error| RpcError::parameter(name, error));
        let found = self.all(name).take(MAX_ADDRESSES + 1).map(parse).collect::<Result<BTreeSet<_>, _>>()?;
        if found.len() > MAX_ADDRESSES {
            return Err(RpcError::parameter(name, format!("there are more than {MAX_ADDRESSES}")));
        }
        Ok(found.into_iter().collect())
    }

    fn address(&self) -> Result<Address, RpcError> {
        self.addresses("address")?.pop().ok_or_else(|| RpcError::parameter("address", "it is missing"))
    }

    fn page(&self) -> Result<(usize, usize), RpcError> {
        let limit = self.number("limit")?.unwrap_or(DEFAULT_LIMIT);
        let offset = self.number("offset")?.unwrap_or(0);
        if limit == 0 || limit > MAX_LIMIT || offset > MAX_OFFSET {
            return Err(RpcError::new(
                422,
                format!("limit is 1 to {MAX_LIMIT}, offset at most {MAX_OFFSET}"),
            ));
        }
        Ok((usize::try_from(limit).unwrap_or(0), usize::try_from(offset).unwrap_or(0)))
    }

    fn newest_first(&self, default: &str) -> Result<bool, RpcError> {
        match self.text("sort").unwrap_or(default) {
            "desc" => Ok(true),
            "asc" => Ok(false),
            _ => Err(RpcError::parameter("sort", "asc or desc")),
        }
    }

    /// Whether a value lies between two limits, if they are given.
    fn between(&self, from: &str, to: &str) -> Result<impl Fn(u64) -> bool + use<>, RpcError> {
        let (from, to) = (self.number(from)?.unwrap_or(0), self.number(to)?.unwrap_or(u64::MAX));
        Ok(move |value| from <= value && value <= to)
    }
}

fn find_block(ledger: &Ledger, query: &Query<'_>) -> Result<Block, RpcError> {
    let seqno = query.number("seqno")?.ok_or_else(|| RpcError::parameter("seqno", "it is missing"))?;
    stored(ledger, u32::try_from(seqno).unwrap_or(u32::MAX))
}

fn blocks(ledger: &Ledger, query: &Query<'_>) -> Result<Value, RpcError> {
    let chain = match query.text("workchain") {
        None | Some("-1") => -1,
        Some("0") => 0,
        Some(_) => return Err(RpcError::parameter("workchain", "there are -1 and 0")),
    };
    let (limit, offset) = query.page()?;
    let exact = match query.number("seqno")? {
        Some(seqno) => Some(seqno),
        None => query.number("mc_seqno")?,
    };
    let in_time = query.between("start_utime", "end_utime")?;
    let newest_first = query.newest_first("desc")?;
    let head = ledger.head().seqno;
    let mut numbers: Box<dyn Iterator<Item = u32>> = match exact {
        Some(seqno) => {
            Box::new(u32::try_from(seqno).ok().filter(|seqno| (1..=head).contains(seqno)).into_iter())
        }
        None if newest_first => Box::new((1..=head).rev()),
        None => Box::new(1..=head),
    };
    let (mut list, mut skipped) = (Vec::new(), 0);
    // Times only grow, but the range may begin anywhere: look no further than a page and what may be skipped.
    for seqno in numbers.by_ref().take(limit + offset + usize::try_from(MAX_OFFSET).unwrap_or(0)) {
        let block = stored(ledger, seqno)?;
        if !in_time(u64::from(block.time)) {
            continue;
        }
        if skipped < offset {
            skipped += 1;
        } else {
            list.push(views::block(&block, chain, ledger.network()));
        }
        if list.len() == limit {
            break;
        }
    }
    Ok(json!({ "blocks": list }))
}

fn account_states(ledger: &Ledger, query: &Query<'_>) -> Result<Value, RpcError> {
    let addresses = query.addresses("address")?;
    if addresses.is_empty() {
        return Err(RpcError::parameter("address", "it is missing"));
    }
    let with_cells = query.text("include_boc") != Some("false");
    // Accounts that never were are left out, as an index has no row of them.
    let there = addresses.iter().filter(|address| ledger.shard_account(address).is_some());
    let accounts = there.map(|address| views::account(ledger, address, with_cells)).collect::<Vec<_>>();
    Ok(json!({
        "accounts": accounts,
        "address_book": views::address_book(addresses.iter()),
        "metadata": {},
    }))
}

fn wallet_states(ledger: &Ledger, query: &Query<'_>) -> Result<Value, RpcError> {
    let addresses = query.addresses("address")?;
    let wallets = addresses.iter().map(|address| views::wallet(ledger, address)).collect::<Vec<_>>();
    Ok(json!({
        "wallets": wallets,
        "address_book": views::address_book(addresses.iter()),
        "metadata": {},
    }))
}

fn transactions(ledger: &Ledger, query: &Query<'_>) -> Result<Value, RpcError> {
    if query.text("mc_seqno").is_some() || query.text("seqno").is_some() {
        let name = if query.text("mc_seqno").is_some() { "mc_seqno" } else { "seqno" };
        let seqno = query.number(name)?.unwrap_or(0);
        let block = stored(ledger, u32::try_from(seqno).unwrap_or(u32::MAX))?;
        let all =
            ledger.block_transactions(&block, 0, usize::try_from(MAX_LIMIT + MAX_OFFSET).unwrap_or(0))?;
        return listed(ledger, all, query, "desc");
    }
    let accounts = query.addresses("account")?;
    let [account] = accounts.as_slice() else {
        return Err(RpcError::parameter(
            "account",
            "this ledger lists the transactions of one account or block",
        ));
    };
    let (limit, offset) = query.page()?;
    let exact = query.number("lt")?;
    let until = exact.or(query.number("end_lt")?).unwrap_or(u64::MAX);
    // Oldest first needs all of them: within what one may skip.
    let most = match (exact, query.newest_first("desc")?) {
        (Some(_), _) => 1,
        (None, true) => limit + offset,
        (None, false) => usize::try_from(MAX_OFFSET + MAX_LIMIT).unwrap_or(0),
    };
    let cells = ledger.transactions(account, until, most)?;
    let all = cells.into_iter().map(|cell| (account.clone(), cell)).collect();
    listed(ledger, all, query, "desc")
}

fn by_message(ledger: &Ledger, query: &Query<'_>) -> Result<Value, RpcError> {
    let hash = query.hash("msg_hash")?;
    let hash =
        hash.ok_or_else(|| RpcError::parameter("msg_hash", "the hash of a message from outside is needed"))?;
    let found = if query.text("direction") == Some("out") { None } else { ledger.transaction_of(&hash)? };
    listed(ledger, found.into_iter().collect(), query, "desc")
}

/// Transactions as v3 lists them: filtered, in the order asked for, one page.
fn listed(
    ledger: &Ledger,
    all: Vec<(Address, Cell)>,
    query: &Query<'_>,
    order: &str,
) -> Result<Value, RpcError> {
    let (limit, offset) = query.page()?;
    let (hash, exact) = (query.hash("hash")?, query.number("lt")?);
    let lts = query.between("start_lt", "end_lt")?;
    let times = query.between("start_utime", "end_utime")?;
    let mut kept = Vec::new();
    for (address, cell) in all {
        let tx =
            cell.parse::<tycho_types::models::Transaction>().map_err(|error| RpcError::new(500, error))?;
        let named = hash.is_none_or(|hash| hash == cell.repr_hash().0) && exact.is_none_or(|lt| lt == tx.lt);
        if named && lts(tx.lt) && times(u64::from(tx.now)) {
            kept.push((address, cell, tx));
        }
    }
    kept.sort_unstable_by_key(|(_, _, tx)| tx.lt);
    if query.newest_first(order)? {
        kept.reverse();
    }
    let page = kept.iter().skip(offset).take(limit);
    let list = page.clone().map(|(address, cell, tx)| {
        let block = ledger.block_of(tx.lt)?.map_or(0, |block| block.seqno);
        views::transaction(address, cell, tx, block).map_err(|error| RpcError::new(500, error))
    });
    let list = list.collect::<Result<Vec<_>, RpcError>>()?;
    let people = page.map(|(address, ..)| address.clone()).collect::<BTreeSet<_>>();
    Ok(json!({ "transactions": list, "address_book": views::address_book(people.iter()) }))
}

fn run_get_method(ledger: &Ledger, body: &Parameters) -> Result<Value, RpcError> {
    let address = body.address("address")?;
    let method = method_id(body.text("method")?)?;
    let no_arguments = Value::Array(Vec::new());
    let stack = body.0.get("stack").unwrap_or(&no_arguments);
    let arguments = items(stack, 0).map_err(|why| RpcError::parameter("stack", why))?;
    let (exit_code, gas, stack) = match ledger.run_get_method(&address, method, &arguments) {
        Ok(output) => (output.exit_code, output.gas, output.stack),
        Err(GetterError::NoContract) => (-13, 0, Vec::new()),
        Err(error) => return Err(RpcError::new(500, error)),
    };
    let stack: Vec<_> = stack.iter().map(entry).collect();
    Ok(json!({ "gas_used": gas, "exit_code": exit_code, "stack": stack }))
}

fn entry(item: &StackItem) -> Value {
    let bag = |cell: &Cell| Value::String(BASE64.encode(message::encode(cell)));
    let (kind, value) = match item {
        StackItem::Null => ("list", json!([])),
        StackItem::Int(value) => {
            let sign = if value.sign() == num_bigint::Sign::Minus { "-" } else { "" };
            ("num", format!("{sign}0x{}", value.magnitude().to_str_radix(16)).into())
        }
        StackItem::Cell(cell) => ("cell", bag(cell)),
        StackItem::Slice(cell) => ("slice", bag(cell)),
        StackItem::Tuple(items) => ("tuple", items.iter().map(entry).collect()),
    };
    json!({ "type": kind, "value": value })
}

fn items(value: &Value, depth: usize) -> Result<Vec<StackItem>, String> {
    let list = value.as_array().ok_or("it is not a list")?;
    if list.len() > MAX_ITEMS || depth > MAX_DEPTH {
        return Err(format!("more than {MAX_ITEMS} items, or deeper than {MAX_DEPTH}"));
    }
    list.iter()
        .map(|item| item.as_object().ok_or("an item is no object".into()).and_then(|it| read(it, depth)))
        .collect()
}

fn read(item: &Map<String, Value>, depth: usize) -> Result<StackItem, String> {
    let kind = item.get("type").and_then(Value::as_str).ok_or("an item has no type")?;
    let value = item.get("value").unwrap_or(&Value::Null);
    let text = || value.as_str().ok_or(format!("the value of a {kind} is no text"));
    match kind {
        "num" | "int" => {
            number(&value.as_str().map_or_else(|| value.to_string(), str::to_owned)).map(StackItem::Int)
        }
        "cell" => cell(text()?).map(StackItem::Cell),
        "slice" => cell(text()?).map(StackItem::Slice),
        "list" | "tuple" => match items(value, depth + 1)? {
            nothing if nothing.is_empty() && kind == "list" => Ok(StackItem::Null),
            items => Ok(StackItem::Tuple(items)),
        },
        "null" => Ok(StackItem::Null),
        other => Err(format!("items of type {:?} are not supported", super::clip(other))),
    }
}

fn number(text: &str) -> Result<BigInt, String> {
    let wrong = || "a number is not one of 257 bits".to_owned();
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (digits, radix) = digits.strip_prefix("0x").map_or((digits, 10), |rest| (rest, 16));
    let plain = !digits.is_empty()
        && digits.len() <= MAX_NUMBER_CHARS
        && digits.bytes().all(|b| b.is_ascii_hexdigit());
    let value = plain.then(|| BigInt::parse_bytes(digits.as_bytes(), radix)).flatten().ok_or_else(wrong)?;
    if value.bits() > 256 {
        return Err(wrong());
    }
    Ok(if negative { -value } else { value })
}

fn cell(text: &str) -> Result<Cell, String> {
    if text.len() > message::MAX_MESSAGE_BYTES * 4 / 3 + 4 {
        return Err("a cell tree is too large".into());
    }
    let bytes = BASE64.decode(text).map_err(|error| format!("a cell is no base64: {error}"))?;
    message::decode(&bytes, message::MAX_MESSAGE_BYTES).map_err(|error| error.to_string())
}
