//! The newest blocks, and one of them.

use super::html::Html;
use super::transaction;
use super::words::{fact, time, ton};
use crate::rpc::RpcError;
use crate::{Block, Ledger};

/// How many blocks the first page shows, and how many transactions the page of a block.
const BLOCKS: u32 = 25;
const TRANSACTIONS: usize = 50;

/// The first page.
pub(super) fn newest(ledger: &Ledger, html: &mut Html) -> Result<(), RpcError> {
    let head = ledger.head();
    html.element("div", "banner", |html| {
        html.say("h1", "", &format!("Block {}", head.seqno));
        html.element("dl", "", |html| {
            let supply = ledger.supply();
            fact(html, "network", |html| html.text(&ledger.network().to_string()));
            fact(html, "time", |html| html.text(&time(head.time)));
            fact(html, "hash", |html| html.say("span", "value", &hex::encode(head.root_hash)));
            fact(html, "accounts", |html| html.text(&ton(supply.accounts)));
            fact(html, "fees so far", |html| html.text(&ton(supply.fees)));
        });
    });
    html.say("h2", "", "Newest blocks");
    let first = head.seqno.saturating_sub(BLOCKS - 1).max(1);
    let blocks = (first..=head.seqno).rev().map(|seqno| stored(ledger, seqno));
    let blocks = blocks.collect::<Result<Vec<_>, _>>()?;
    html.element("table", "", |html| {
        html.markup(
            "<thead><tr><th scope=\"col\" class=\"seqno\">block</th><th scope=\"col\">hash</th>\
             <th scope=\"col\" class=\"time\">time</th><th scope=\"col\" class=\"count\">transactions</th></tr></thead>",
        );
        html.element("tbody", "", |html| blocks.iter().for_each(|block| row(html, block)));
    });
    Ok(())
}

fn row(html: &mut Html, block: &Block) {
    html.element("tr", "", |html| {
        html.element("td", "seqno", |html| {
            html.link("", &format!("/block/{}", block.seqno), &block.seqno.to_string());
        });
        html.say("td", "value", &hex::encode(block.root_hash));
        html.say("td", "time", &time(block.time));
        html.say("td", "count", &block.transactions.to_string());
    });
}

/// The page of a block, by its number.
pub(super) fn one(ledger: &Ledger, html: &mut Html, seqno: &str) -> Result<(), RpcError> {
    let not_found = || RpcError::new(404, "There is no block of this number yet.");
    let block = stored(ledger, seqno.parse().map_err(|_| not_found())?)?;
    html.element("div", "banner", |html| {
        html.say("h1", "", &format!("Block {}", block.seqno));
        html.element("dl", "", |html| {
            fact(html, "time", |html| html.text(&time(block.time)));
            fact(html, "hash", |html| html.say("span", "value", &hex::encode(block.root_hash)));
            if block.seqno > 1 {
                let before = format!("/block/{}", block.seqno - 1);
                fact(html, "before it", |html| html.link("value", &before, &hex::encode(block.previous)));
            }
            fact(html, "logical times", |html| html.text(&format!("{} to {}", block.start_lt, block.end_lt)));
        });
    });
    let transactions = ledger.block_transactions(&block, 0, TRANSACTIONS)?;
    html.say("h2", "", &format!("Transactions: {}", block.transactions));
    for (address, cell) in &transactions {
        transaction::show(ledger, html, address, cell, true);
    }
    if usize::try_from(block.transactions).is_ok_and(|all| all > transactions.len()) {
        html.say("p", "quiet more", &format!("The first {TRANSACTIONS} are shown."));
    }
    Ok(())
}

fn stored(ledger: &Ledger, seqno: u32) -> Result<Block, RpcError> {
    ledger.block(seqno)?.ok_or_else(|| RpcError::new(404, "There is no block of this number yet."))
}
