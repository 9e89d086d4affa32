//! A transaction with its messages, ours by name.

use cocoon_contracts::{Address, Cell, decode};
use tycho_types::error::Error;
use tycho_types::models::{ComputePhase, IntAddr, MsgInfo, OwnedMessage, Transaction, TxInfo};

use super::html::Html;
use super::words::{account, fact, fields, time, ton};
use crate::Ledger;
use crate::rpc::message_body;

/// Most messages that are shown of one transaction.
const MESSAGES: usize = 20;

/// One transaction of `address`. One that cannot be read is said to be so.
pub(super) fn show(ledger: &Ledger, html: &mut Html, address: &Address, cell: &Cell, with_account: bool) {
    html.element("section", "transaction", |html| {
        let mut inside = Html::default();
        match write(ledger, &mut inside, address, cell, with_account) {
            Ok(()) => html.append(inside),
            Err(error) => html.say("p", "fail", &format!("This transaction cannot be read: {error}")),
        }
    });
}

fn write(
    ledger: &Ledger,
    html: &mut Html,
    address: &Address,
    cell: &Cell,
    with_account: bool,
) -> Result<(), Error> {
    let tx = cell.parse::<Transaction>()?;
    let TxInfo::Ordinary(info) = tx.load_info()? else { return Err(Error::InvalidTag) };
    html.element("h3", "", |html| {
        html.text(&time(tx.now));
        html.text(" ");
        match outcome(ledger, address, &info.compute_phase, info.aborted) {
            None => html.say("span", "pass", "carried out"),
            Some(why) => html.say("span", "fail", &why),
        }
    });
    html.element("dl", "", |html| {
        if with_account {
            fact(html, "account", |html| account(html, address));
        }
        fact(html, "logical time", |html| html.text(&tx.lt.to_string()));
        fact(html, "hash", |html| html.say("span", "value", &hex::encode(cell.repr_hash().as_slice())));
        fact(html, "fees", |html| html.text(&ton(tx.total_fees.tokens.into_inner())));
        if let ComputePhase::Executed(phase) = &info.compute_phase {
            fact(html, "gas", |html| html.text(&phase.gas_used.into_inner().to_string()));
        }
    });
    let messages = tx.in_msg.iter().map(|cell| Ok(("in", cell.clone())));
    let messages = messages.chain(tx.out_msgs.values().map(|cell| Ok(("out", cell?))));
    let messages = messages.take(MESSAGES).collect::<Result<Vec<_>, Error>>()?;
    let read = messages.iter().map(|(role, cell)| Ok((*role, cell.parse::<OwnedMessage>()?)));
    let read = read.collect::<Result<Vec<_>, Error>>()?;
    html.element("ul", "", |html| {
        for (role, parsed) in &read {
            html.element("li", "", |html| message(html, role, parsed));
        }
    });
    Ok(())
}

/// Why it was not carried out.
fn outcome(ledger: &Ledger, address: &Address, compute: &ComputePhase, aborted: bool) -> Option<String> {
    match compute {
        ComputePhase::Executed(phase) if !phase.success => {
            let kind = ledger.account(address).and_then(|account| match account.state {
                tycho_types::models::AccountState::Active(init) => {
                    decode::Kind::of(&init.code?.repr_hash().0)
                }
                _ => None,
            });
            let meaning = kind.and_then(|kind| kind.exit_code_meaning(phase.exit_code));
            Some(match meaning {
                Some(meaning) => format!("refused: {meaning} (exit code {:#x})", phase.exit_code),
                None => format!("refused with exit code {}", phase.exit_code),
            })
        }
        _ if aborted => Some("not carried out".into()),
        _ => None,
    }
}

fn message(html: &mut Html, role: &str, message: &OwnedMessage) {
    html.say("span", "role", role);
    let body = message_body(&message.body).ok();
    let decoded = body.as_ref().and_then(decode::body);
    match (&decoded, body.as_ref().and_then(decode::opcode)) {
        (Some(decoded), _) => html.say("b", "", &decoded.name),
        (None, Some(opcode)) if !matches!(message.info, MsgInfo::ExtIn(_)) => {
            html.say("span", "", &format!("opcode {opcode:#010x}"));
        }
        _ => {}
    }
    html.element("dl", "", |html| {
        match &message.info {
            MsgInfo::Int(info) => {
                party(
                    html,
                    if role == "in" { "from" } else { "to" },
                    if role == "in" { &info.src } else { &info.dst },
                );
                fact(html, "value", |html| html.text(&ton(info.value.tokens.into_inner())));
                if info.bounced {
                    fact(html, "bounced", |html| html.text("it came back"));
                }
            }
            MsgInfo::ExtIn(_) => fact(html, "from", |html| html.text("outside")),
            MsgInfo::ExtOut(_) => fact(html, "to", |html| html.text("outside")),
        }
        if message.init.is_some() {
            fact(html, "deploys", |html| html.text("it carries code and data"));
        }
        if let Some(decoded) = &decoded {
            fields(html, &decoded.fields);
        }
    });
}

fn party(html: &mut Html, name: &str, address: &IntAddr) {
    fact(html, name, |html| match address {
        IntAddr::Std(address) => account(html, address),
        IntAddr::Var(_) => html.text("an address of variable length"),
    });
}
