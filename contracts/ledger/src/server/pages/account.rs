//! The page of an account: what it is, what its data says, and what happened to it.

use cocoon_contracts::{Nanotons, decode, friendly, parse_address};
use tycho_types::models::{AccountState, StateInit, Transaction};

use super::html::Html;
use super::transaction;
use super::words::{fact, fields, ton};
use crate::Ledger;
use crate::rpc::RpcError;

/// How many transactions one page shows.
const TRANSACTIONS: usize = 20;

/// The page of the account at `address`, with its transactions at or before logical time `until`.
pub(super) fn page(ledger: &Ledger, html: &mut Html, address: &str, until: u64) -> Result<(), RpcError> {
    let address = parse_address(address).map_err(|error| RpcError::new(404, error))?;
    let account = ledger.account(&address);
    let balance = account.as_ref().map_or(0, |account| account.balance.tokens.into_inner());
    let (status, init) = match account.map(|account| account.state) {
        None => ("there is nothing at this address", None),
        Some(AccountState::Uninit) => ("no contract", None),
        Some(AccountState::Frozen(_)) => ("frozen: its rent was not paid", None),
        Some(AccountState::Active(init)) => ("active", Some(init)),
    };
    let known = init.as_ref().and_then(|init| decode::state(init, Nanotons::try_from(balance).ok()?));
    let kind = init.as_ref().and_then(kind_of);
    html.element("div", "banner", |html| {
        html.say("h1", "", &format!("Account: {}", kind.map_or("unknown code", decode::Kind::name)));
        html.element("dl", "", |html| {
            fact(html, "address", |html| html.say("span", "value", &friendly(&address, true)));
            fact(html, "raw", |html| html.say("span", "value", &address.to_string()));
            fact(html, "balance", |html| html.text(&ton(balance)));
            fact(html, "status", |html| html.text(status));
            if let Some(code) = init.as_ref().and_then(|init| init.code.as_ref()) {
                fact(html, "code", |html| {
                    html.say("span", "value", &hex::encode(code.repr_hash().as_slice()))
                });
            }
        });
    });
    if let Some((_, known)) = known.filter(|(_, known)| !known.is_empty()) {
        html.say("h2", "", "State");
        html.element("dl", "", |html| fields(html, &known));
    } else if kind.is_some_and(|kind| kind == decode::Kind::Channel || kind == decode::Kind::Registry) {
        html.say("p", "quiet more", "Its data is not that of an opened contract.");
    }
    transactions(ledger, html, &address, until)
}

fn kind_of(init: &StateInit) -> Option<decode::Kind> {
    decode::Kind::of(&init.code.as_ref()?.repr_hash().0)
}

fn transactions(
    ledger: &Ledger,
    html: &mut Html,
    address: &cocoon_contracts::Address,
    until: u64,
) -> Result<(), RpcError> {
    let cells = ledger.transactions(address, until, TRANSACTIONS + 1)?;
    html.say("h2", "", "Transactions, newest first");
    if cells.is_empty() {
        html.say("p", "quiet", "None.");
    }
    for cell in cells.iter().take(TRANSACTIONS) {
        transaction::show(ledger, html, address, cell, false);
    }
    if let Some(next) = cells.get(TRANSACTIONS).and_then(|cell| cell.parse::<Transaction>().ok()) {
        html.element("p", "more", |html| {
            html.link("", &format!("/account/{address}?lt={}", next.lt), "Older ones");
        });
    }
    Ok(())
}
