//! The end of the day: where every nanoton is, by the ledger's own transactions, against the receipts.

use std::time::Duration;

use cocoon_accounts::SETTLEMENT_FEE;
use cocoon_chain::AccountStatus;
use cocoon_contracts::{
    Address, Nanotons,
    channel::{OPEN_RESERVE, State},
};
use tycho_types::models::{IntAddr, MsgInfo, Transaction, TxInfo};

use crate::{
    payer::short,
    plan::Vice,
    receipts::Channel,
    world::{World, treasury},
};

/// A payee that has been up and has reached the chain for so long on end has answered what it held before. One look and
/// one batch, each with its retries.
const TIME_TO_ANSWER: Duration = Duration::from_secs(600);
/// What comes to a channel beside deposits: the rests of a few messages' values.
const CRUMBS: Nanotons = 20_000_000;

/// The opcode of the message that brings a payee its money.
const PAYOUT: u32 = 0x4348_0010;

/// What went through a channel's account, in nanotons.
#[derive(Default)]
struct Flows {
    came: u128,
    went: u128,
    fees: u128,
    /// Out of the deposit to the payee, and to the treasury.
    payee: u128,
    treasury: u128,
}

/// Whether the channel's contract is no more.
pub(crate) fn is_gone(world: &World, channel: &Address) -> bool {
    world.network.history(channel).last().is_none_or(|state| state.status != AccountStatus::Active)
}

pub(crate) fn audit(world: &World, supply: u128) {
    let total = world.network.with_ledger(|ledger| ledger.supply().total());
    if total != supply {
        world.trace.fail(format_args!("there were {supply} nanotons and are {total}"));
    }
    let mut fees = 0;
    for (address, channel) in world.receipts.channels() {
        let states = states(world, &address);
        // A close pays, and leaves no state behind.
        let paid = states.last().map_or(0, |state| state.paid).max(paid_out(world, &address));
        let name = short(&address);
        let Channel { charged, received, signed, .. } = channel;
        let held = channel.acknowledged();
        world.trace.say(
            "audit",
            format_args!("{name}: charged {charged}, received {received}, signed {signed}, acknowledged {held}, paid {paid}"),
        );
        if !is_gone(world, &address) {
            world.trace.fail(format_args!("{name} is stuck"));
            continue;
        }
        fees += check_flows(world, &address, &channel, paid);
        check_payer(world, &name, &channel, &states);
        check_payee(world, &name, &channel, paid);
    }
    let treasury = world.network.with_ledger(|ledger| u128::from(ledger.balance(&treasury())));
    // Its own account pays a little rent.
    if treasury > fees || fees - treasury > 1_000_000 {
        world.trace.fail(format_args!("the treasury has {treasury} of {fees}"));
    }
}

/// Everything that the channel ever was, oldest first.
fn states(world: &World, address: &Address) -> Vec<State> {
    let history = world.network.history(address).into_iter();
    history.filter_map(|it| State::parse(it.data.as_ref()?, it.balance).ok()).collect()
}

/// The contract gave the payee what was paid less the network's fee, the treasury the fee, and kept nothing. The fee.
fn check_flows(world: &World, address: &Address, channel: &Channel, paid: Nanotons) -> u128 {
    let (flows, name) = (flows(world, address, channel), short(address));
    let fee = channel.terms.network_fee(paid);
    if flows.payee != u128::from(paid - fee) {
        let got = flows.payee;
        world.trace.fail(format_args!("{name}: the payee got {got} of {} less {fee}", paid));
    }
    if flows.treasury != u128::from(fee) {
        world.trace.fail(format_args!("{name}: the treasury got {} of {fee}", flows.treasury));
    }
    if flows.came != flows.went + flows.fees {
        let Flows { came, went, fees, .. } = flows;
        world.trace.fail(format_args!("{name}: {came} came, {went} went, {fees} were fees"));
    }
    u128::from(fee)
}

/// The highest amount that a payout names.
fn paid_out(world: &World, address: &Address) -> Nanotons {
    let cells = world.network.with_ledger(|ledger| ledger.transactions(address, u64::MAX, usize::MAX));
    let mut most = 0;
    for cell in cells.expect("memory has every one") {
        let tx = cell.parse::<Transaction>().expect("the ledger wrote it");
        for message in tx.iter_out_msgs() {
            let message = message.expect("the ledger wrote it");
            let mut body = message.body;
            if body.load_u32().is_ok_and(|opcode| opcode == PAYOUT) {
                most = most.max(body.load_u64().expect("a payout names its amount"));
            }
        }
    }
    most
}

fn flows(world: &World, address: &Address, channel: &Channel) -> Flows {
    let cells = world.network.with_ledger(|ledger| ledger.transactions(address, u64::MAX, usize::MAX));
    let mut flows = Flows::default();
    for cell in cells.expect("memory has every one") {
        let tx = cell.parse::<Transaction>().expect("the ledger wrote it");
        let came = match tx.load_in_msg().expect("the ledger wrote it").map(|message| message.info) {
            Some(MsgInfo::Int(info)) => info.value.tokens.into_inner(),
            _ => 0,
        };
        let (mut went, mut to_payee, mut to_others) = (0, false, 0);
        for message in tx.iter_out_msgs() {
            let MsgInfo::Int(info) = message.expect("the ledger wrote it").info else { continue };
            let value = info.value.tokens.into_inner();
            went += value + info.fwd_fee.into_inner();
            let to = |party: &Address| info.dst == IntAddr::Std(party.clone());
            to_payee |= to(&channel.terms.payee);
            to_others += if to(&channel.terms.payee) { 0 } else { value };
            flows.treasury += if to(&channel.terms.treasury) { value } else { 0 };
        }
        let fees = tx.total_fees.tokens.into_inner();
        let TxInfo::Ordinary(info) = tx.load_info().expect("the ledger wrote it") else { continue };
        if to_payee && !info.aborted {
            // What left the account beyond what the message brought and the rent is the payee's.
            let rent = info.storage_phase.map_or(0, |phase| phase.storage_fees_collected.into_inner());
            flows.payee += went + fees - rent - came - to_others;
        }
        (flows.came, flows.went, flows.fees) = (flows.came + came, flows.went + went, flows.fees + fees);
    }
    flows
}

/// Nobody got more from a payer than it signed, and it put in no more than it meant to.
fn check_payer(world: &World, name: &str, channel: &Channel, states: &[State]) {
    let most = world.plan.most.saturating_add(CRUMBS);
    for state in states {
        if state.paid > channel.signed || state.paid > state.limit {
            let (paid, signed, limit) = (state.paid, channel.signed, state.limit);
            world.trace.fail(format_args!("{name}: {paid} was paid, {signed} signed, the limit {limit}"));
        }
        let held = state.paid + state.balance.saturating_sub(state.fee_waiting() + OPEN_RESERVE);
        if held > most {
            world.trace.fail(format_args!("{name}: {held} was put in, of {most} at most"));
        }
    }
}

/// A payee has everything that it acknowledged, and is short of what it charged by its exposure at most.
fn check_payee(world: &World, name: &str, channel: &Channel, paid: Nanotons) {
    let exposure = world.plan.window / 2 * 3;
    let (short_of, at_most) =
        (channel.charged.saturating_sub(channel.acknowledged()), exposure * (1 + channel.payee_crashes));
    if short_of > at_most {
        world.trace.fail(format_args!("{name}: charged {short_of} more than vouchers, {at_most} at most"));
    }
    let payee = &world.nodes[channel.payee];
    if payee.member.vice.is_some_and(|(vice, _)| vice == Vice::Vanishes) {
        return;
    }
    let due = match channel.closed_early {
        _ if channel.ended.is_some() => channel.ended.unwrap_or_default(),
        None => channel.acknowledged(),
        // What costs more than it brings is nobody's loss.
        Some((began, deadline)) => due_before(world, channel, began, world.network.time_of(deadline))
            .saturating_sub(SETTLEMENT_FEE + channel.terms.network_fee(2 * SETTLEMENT_FEE)),
    };
    if paid < due {
        let early = channel.closed_early;
        world.trace.fail(format_args!("{name}: paid {paid} of {due} acknowledged ({early:?})"));
    }
    if channel.closed_early.is_some() {
        world.trace.count(if due > 0 { "close answered" } else { "close not answerable" });
    }
}

/// What a payee must have settled before a deadline: what it held when it had last had time to answer.
fn due_before(world: &World, channel: &Channel, began: Duration, deadline: Duration) -> Nanotons {
    let payee = &world.nodes[channel.payee];
    let mut away = payee.away.lock().expect("nobody panics here").clone();
    away.extend(world.plan.outages.iter().copied());
    away.sort();
    let time = TIME_TO_ANSWER + world.plan.watch * 2;
    let (mut free, mut due) = (began, 0);
    for (from, to) in away.into_iter().chain([(deadline, deadline)]) {
        if from.min(deadline) >= free + time {
            due = channel.acknowledged_until(from.min(deadline) - time);
        }
        free = free.max(to);
    }
    due
}
