//! The contracts on a ledger beside their models: each step is sent, predicted, and compared to the nanoton.

use std::collections::BTreeMap;

use cocoon_contracts::bond::{self, ACTION_VALUE, BACK_VALUE};
use cocoon_contracts::channel::{self, CLOSE_VALUE, OPEN_RESERVE, OPEN_VALUE, SETTLE_VALUE};
use cocoon_contracts::registry::{self, CHANGE_VALUE, DEPLOY_VALUE, Registry};
use cocoon_contracts::{Address, Cell, Nanotons, SigningKey, TON, message, wallet};
use cocoon_ledger::{STORAGE_2026_SINCE, Schedule};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use tycho_types::models::{Account, AccountState, StateInit};

use super::bond::{Bond, BondAct};
use super::channel::{Channel, ChannelAct};
use super::differential::Tape;
use super::record::{Out, Ran, Record};
use super::registry::{self as owned, RegistryAct};
use super::steps::{Sent, Step, Value, Wait, What};
use super::world::{CHALLENGE, NETWORK, Who, World, deploying, to_contract};

/// The prediction that there is nothing that could run.
pub(crate) const NO_STATE: i32 = i32::MIN;
const DELAY: u32 = 5000;
const YEAR: u32 = 365 * 24 * 3600;
/// Longer idleness would freeze accounts under the older price list.
const MOST_YEARS: u32 = 6;

/// A message at its destination, as a model sees it.
pub(crate) struct Request<'a> {
    pub(crate) by: Who,
    pub(crate) sender: &'a Address,
    pub(crate) now: u32,
    /// What the account holds without the message, rent paid.
    pub(crate) held: Nanotons,
    pub(crate) value: Nanotons,
    /// There is code to run.
    pub(crate) runs: bool,
}

/// What passing does with money. Fees come out of the message's value, and its rest goes to one place.
pub(crate) struct Effect {
    /// What the account holds afterwards; `None` when the value's rest joins it.
    balance: Option<Nanotons>,
    /// Who gets how much, in this order; `None` is the rest.
    outs: Vec<(Address, Option<Nanotons>)>,
    /// When there is too little for the message with the rest, none is sent and the rest joins the balance.
    lenient: bool,
}

impl Effect {
    pub(crate) fn joins() -> Self {
        Self { balance: None, outs: Vec::new(), lenient: false }
    }

    pub(crate) fn leaves<'a>(
        balance: Nanotons,
        outs: impl IntoIterator<Item = (&'a Address, Option<Nanotons>)>,
    ) -> Self {
        let outs = outs.into_iter().map(|(to, amount)| (to.clone(), amount)).collect();
        Self { balance: Some(balance), outs, lenient: false }
    }

    pub(crate) fn returns(balance: Nanotons, sender: &Address) -> Self {
        Self { lenient: true, ..Self::leaves(balance, [(sender, None)]) }
    }
}

pub(crate) struct Net {
    pub(crate) world: World,
    schedule: Schedule,
    channels: Vec<Channel>,
    bond: Bond,
    registry: owned::Model,
    years: u32,
    /// How often each outcome was seen.
    pub(crate) seen: BTreeMap<String, u32>,
    pub(crate) tape: Option<Tape>,
}

/// A message that arrived, and what came of it.
struct Arrived {
    record: Record,
    held: Nanotons,
    value: Nanotons,
    after: Nanotons,
    sender: Address,
}

/// What is sent, and to whom.
struct Letter {
    by: Who,
    to: Address,
    value: Nanotons,
    body: Cell,
    bounce: bool,
    init: Option<StateInit>,
}

impl Net {
    pub(crate) fn new(schedule: Schedule) -> Self {
        Self::taped(schedule, None)
    }

    pub(crate) fn taped(schedule: Schedule, tape: Option<Tape>) -> Self {
        let world = World::under(schedule);
        let other = |nonce, challenge_seconds, fee_bps| channel::Terms {
            challenge_seconds,
            fee_bps,
            ..world.terms(nonce)
        };
        let back = channel::Terms {
            payer: world.payee.address.clone(),
            payee: world.stranger.address.clone(),
            ..other(2, 60, 0)
        };
        let channel = |terms, payer: Who, payee| {
            let key = match payer {
                Who::Payer => 1,
                Who::Payee => 2,
                Who::Stranger => 3,
            };
            Channel::new(terms, payer, payee, world.session_key(), SigningKey::from_seed(&[key; 32]))
        };
        let channels = vec![
            channel(world.terms(1), Who::Payer, Who::Payee),
            channel(back, Who::Payee, Who::Stranger),
            channel(other(3, CHALLENGE, 10_000), Who::Payer, Who::Payee),
        ];
        let key = SigningKey::from_seed(&[88; 32]);
        let terms = bond::Terms {
            operator: world.payee.address.clone(),
            operator_key: key.public(),
            treasury: world.treasury.address.clone(),
            network: NETWORK,
            delay_seconds: DELAY,
            salt: 1,
            platforms: vec![bond::platform_digest("chip:01")],
        };
        let deployment = owned::deployment(&world.treasury.address);
        let registry = owned::Model::new(&deployment);
        let bond = Bond::new(terms, Who::Payee, key);
        let mut net =
            Self { world, schedule, channels, bond, registry, years: 0, seen: BTreeMap::new(), tape };
        net.begin(&deployment.state_init().unwrap());
        net
    }

    /// The registry is there, and one channel and the bond: the rest is up to the sequence.
    fn begin(&mut self, registry: &StateInit) {
        let to = self.registry.address.clone();
        let body = registry::top_up_body();
        let letter = Letter {
            by: Who::Stranger,
            to,
            value: DEPLOY_VALUE,
            body,
            bounce: true,
            init: Some(registry.clone()),
        };
        assert!(self.deliver(letter).unwrap().unwrap().record.passed);
        let sent = Sent { bounce: true, init: true };
        for (who, what) in [
            (Who::Payer, What::Channel(0, ChannelAct::Open(TON / 2))),
            (Who::Payee, What::Bond(BondAct::Back)),
        ] {
            self.tell(who, &what, Value::Nanotons(TON + OPEN_RESERVE + OPEN_VALUE), sent).unwrap();
        }
    }

    pub(crate) fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Tell(who, what, value, sent) => self.tell(*who, what, *value, *sent),
            Step::Wait(wait) => {
                self.wait(*wait);
                Ok(())
            }
        }
    }

    fn wait(&mut self, wait: Wait) {
        let at =
            |time: Option<u32>, beyond: i8| time.map(|time| time.saturating_add_signed(i32::from(beyond)));
        let until = match wait {
            Wait::Seconds(seconds) => Some(self.world.now + seconds),
            Wait::Deadline(channel, beyond) => {
                at(self.channels[channel].life.as_ref().and_then(|it| it.deadline), beyond)
            }
            Wait::Release(beyond) => at(self.bond.life.as_ref().and_then(|it| it.release_at), beyond),
            Wait::Ready(beyond) => at(self.registry.state.proposal.as_ref().map(|it| it.ready_at), beyond),
            Wait::Year if self.years == MOST_YEARS => None,
            Wait::Year => {
                self.years += 1;
                Some(self.world.now + YEAR)
            }
        };
        self.world.now = self.world.now.max(until.unwrap_or(0));
    }

    fn tell(&mut self, by: Who, what: &What, value: Value, sent: Sent) -> Result<(), TestCaseError> {
        match what {
            What::Channel(at, act) => self.tell_channel(by, *at, act, value, sent),
            What::Bond(act) => self.tell_bond(by, act, value, sent),
            What::Registry(act) => self.tell_registry(by, act, value, sent),
        }
    }

    fn tell_channel(
        &mut self,
        by: Who,
        at: usize,
        act: &ChannelAct,
        value: Value,
        sent: Sent,
    ) -> Result<(), TestCaseError> {
        let (name, enough) = channel_usual(act);
        let usual = if matches!(act, ChannelAct::Open(_)) { TON } else { enough };
        let value = amount(value, usual);
        let to = self.channels[at].terms.address();
        let active = self.active(&to).is_some();
        let init = (!active && (sent.init || matches!(act, ChannelAct::Open(_))))
            .then(|| self.channels[at].terms.state_init());
        let runs = active || init.is_some();
        let held = self.rest_after_rent(&to);
        let prepared = self.channels[at].prepare(act, held);
        let letter =
            Letter { by, to: to.clone(), value, body: prepared.body.clone(), bounce: sent.bounce, init };
        let Some(arrived) = self.deliver(letter)? else { return Ok(()) };
        let now = self.world.now;
        let request =
            Request { by, sender: &arrived.sender, now, held: arrived.held, value: arrived.value, runs };
        let predicted = self.channels[at].predict(act, &prepared, &request);
        let effect = predicted.as_ref().map(|(_, effect)| effect).map_err(|code| *code);
        let passed = self.judge(("channel", name), effect, &arrived, enough, sent.bounce)?;
        let model = &mut self.channels[at];
        let before = model.life.as_ref().map_or(0, |life| life.paid);
        if model.life.is_none() {
            model.put_in = arrived.held;
        }
        model.put_in += arrived.after.saturating_sub(arrived.held);
        if let (true, Ok((next, _))) = (passed, predicted) {
            model.life = next;
        }
        let paid = model.life.as_ref().map_or(before, |life| life.paid);
        prop_assert!(model.life.is_none() || paid >= before, "what is paid only grows");
        prop_assert!(paid <= model.put_in, "no more is paid than was put in: {paid} of {}", model.put_in);
        prop_assert!(
            model.life.as_ref().is_none_or(|life| life.paid <= life.limit),
            "nor more than the limit"
        );
        let said = self.world.channel(&self.channels[at].terms);
        let said = said.map(|it| super::channel::Life {
            deadline: it.deadline,
            paid: it.paid,
            limit: it.limit,
            collected: it.collected,
        });
        prop_assert_eq!(&said, &self.channels[at].life, "what the contract says");
        Ok(())
    }

    fn tell_bond(&mut self, by: Who, act: &BondAct, value: Value, sent: Sent) -> Result<(), TestCaseError> {
        let (name, enough) = bond_usual(act);
        let usual = if matches!(act, BondAct::Back) { TON + BACK_VALUE } else { enough };
        let value = amount(value, usual);
        let to = self.bond.terms.address();
        let active = self.active(&to).is_some();
        let init =
            (!active && (sent.init || matches!(act, BondAct::Back))).then(|| self.bond.terms.state_init());
        let runs = active || init.is_some();
        let letter =
            Letter { by, to: to.clone(), value, body: self.bond.body(act), bounce: sent.bounce, init };
        let Some(arrived) = self.deliver(letter)? else { return Ok(()) };
        let now = self.world.now;
        let request =
            Request { by, sender: &arrived.sender, now, held: arrived.held, value: arrived.value, runs };
        let predicted = self.bond.predict(act, &request);
        let effect = predicted.as_ref().map(|(_, effect)| effect).map_err(|code| *code);
        let passed = self.judge(("bond", name), effect, &arrived, enough, sent.bounce)?;
        if let (true, Ok((next, _))) = (passed, predicted) {
            self.bond.life = next;
        }
        let said = self.active(&to).and_then(|(data, balance)| bond::State::parse(&data, balance).ok());
        let said = said.map(|it| super::bond::Life { release_at: it.release_at, published: it.published });
        prop_assert_eq!(&said, &self.bond.life, "what the contract says");
        Ok(())
    }

    fn tell_registry(
        &mut self,
        by: Who,
        act: &RegistryAct,
        value: Value,
        sent: Sent,
    ) -> Result<(), TestCaseError> {
        let value = amount(value, CHANGE_VALUE);
        let to = self.registry.address.clone();
        let (body, ballot) = self.registry.prepare(act, self.world.now);
        let letter = Letter { by, to: to.clone(), value, body, bounce: sent.bounce, init: None };
        let Some(arrived) = self.deliver(letter)? else { return Ok(()) };
        let now = self.world.now;
        let request = Request {
            by,
            sender: &arrived.sender,
            now,
            held: arrived.held,
            value: arrived.value,
            runs: true,
        };
        let predicted = self.registry.predict(act, ballot.as_ref(), &request);
        let effect = predicted.as_ref().map(|(_, effect)| effect).map_err(|code| *code);
        let name = registry_name(act);
        let passed = self.judge(("registry", name), effect, &arrived, CHANGE_VALUE, sent.bounce)?;
        if let (true, Ok((next, _))) = (passed, predicted) {
            self.registry.state = next;
        }
        let (data, _) = self.active(&to).expect("a registry stays");
        prop_assert_eq!(&Registry::parse(&data).unwrap(), &self.registry.state, "what the contract says");
        Ok(())
    }

    /// Data and balance of an account with code.
    fn active(&self, address: &Address) -> Option<(Cell, Nanotons)> {
        let account = self.world.ledger.account(address)?;
        let AccountState::Active(init) = &account.state else { return None };
        Some((init.data.clone().unwrap(), self.world.balance(address)))
    }

    /// What is left of what an account holds when it pays its rent now.
    fn rest_after_rent(&self, address: &Address) -> Nanotons {
        let rent = self
            .world
            .ledger
            .account(address)
            .map_or(0, |account| rent(&account, self.world.now, self.schedule));
        self.world.balance(address).saturating_sub(rent)
    }

    /// Sends from a wallet and makes a block. `None` when the wallet could not pay.
    fn deliver(&mut self, letter: Letter) -> Result<Option<Arrived>, TestCaseError> {
        let Letter { by, to, value, body, bounce, init } = letter;
        let world = &mut self.world;
        let before = world.balance(&to);
        let owed = world.ledger.account(&to).map_or(0, |account| rent(&account, world.now, self.schedule));
        let mut transfer = to_contract(&to, value, body);
        transfer.bounce = bounce;
        let transfer = init.into_iter().fold(transfer, deploying);
        let actor = world.who(by);
        let sender = actor.address.clone();
        let external =
            wallet::external_message(&actor.key, world.seqno(actor), world.now + 60, false, &[transfer])
                .unwrap();
        let tape = self.tape.as_mut().map(|tape| tape.before(&world.ledger));
        world.ledger.submit(&message::encode(&external)).unwrap();
        world.block();
        let head = world.ledger.head();
        let transactions = world.ledger.block_transactions(&head, 0, 100).unwrap();
        if let (Some(tape), Some(accounts)) = (&mut self.tape, tape) {
            tape.block(&world.ledger, accounts, &transactions);
        }
        let records =
            transactions.iter().filter(|(address, _)| *address == to).map(|(_, cell)| Record::parse(cell));
        let Some(record) =
            records.into_iter().find(|record| record.from.as_ref() == Some(&sender) && !record.bounced)
        else {
            return Ok(None);
        };
        prop_assert_eq!(record.value, value);
        let pays = before + if bounce { 0 } else { value };
        prop_assert_eq!(record.rent, owed.min(pays), "rent is what the price list says");
        let all = before + value - record.rent;
        // What is not to bounce pays old debts first.
        let value = if bounce { value } else { value.min(all) };
        let after = world.balance(&to);
        Ok(Some(Arrived { record, held: all - value, value, after, sender }))
    }

    /// Compares what happened with what the model says, to the nanoton. True when the message passed.
    fn judge(
        &mut self,
        what: (&str, &str),
        effect: Result<&Effect, i32>,
        arrived: &Arrived,
        enough: Nanotons,
        bounce: bool,
    ) -> Result<bool, TestCaseError> {
        let Arrived { record, held, value, after, sender } = arrived;
        let told = match record.ran {
            _ if record.passed => "ok".to_owned(),
            _ if record.starved() => "starved".into(),
            Ran::Exit(0) => "could not send".into(),
            Ran::Exit(code) => format!("{code:#x}"),
            Ran::NoState | Ran::NoGas => "nobody there".into(),
        };
        let say = format!("{} {} {told}", what.0, what.1);
        *self.seen.entry(say.clone()).or_default() += 1;
        if record.passed {
            let Ok(effect) = effect else {
                return Err(TestCaseError::fail(format!(
                    "{say}, but must be refused with {effect:x?}",
                    effect = effect.err()
                )));
            };
            passed(&say, effect, arrived)?;
            return Ok(true);
        }
        let poor = *value < enough;
        match (record.ran, effect) {
            (Ran::NoState, Err(NO_STATE)) => {}
            (Ran::Exit(code), Err(expected)) if code == expected => {}
            _ if record.starved() && poor => {}
            (Ran::Exit(0), Ok(_)) if poor => {}
            (ran, effect) => {
                let expected = effect.map(|_| "to pass");
                return Err(TestCaseError::fail(format!(
                    "{say}: {ran:?}, expected {expected:x?}; value {value}"
                )));
            }
        }
        // Nothing happened: the value goes back, or stays with the account, and what was there is still there.
        match record.outs.as_slice() {
            [] => {
                prop_assert!(after >= held, "{say}: what was held paid for a refused message: {held} {after}")
            }
            [Out { to, bounced: true, .. }] => {
                prop_assert!(bounce && to == sender, "{say}");
                prop_assert_eq!(after, held, "{}: what was held is untouched", say);
            }
            other => {
                return Err(TestCaseError::fail(format!(
                    "{say}: a refused message sends nothing: {other:?}"
                )));
            }
        }
        Ok(false)
    }

    /// At the end of each sequence: whatever happened, nothing is stuck.
    pub(crate) fn everybody_goes_home(&mut self) -> Result<(), TestCaseError> {
        let sent = Sent { bounce: true, init: true };
        for at in 0..self.channels.len() {
            let (payer, to) = (self.channels[at].payer, self.channels[at].terms.address());
            let tell = |net: &mut Self, by, act| net.tell(by, &What::Channel(at, act), Value::Usual, sent);
            if self.channels[at].life.is_none() {
                if self.world.balance(&to) == 0 {
                    continue;
                }
                // Sent without bounce to where nothing was: only the payer can fetch it.
                tell(self, payer, ChannelAct::Open(0))?;
            }
            if self.channels[at].life.as_ref().is_some_and(|life| life.deadline.is_none()) {
                tell(self, payer, ChannelAct::StartClose)?;
            }
            self.wait(Wait::Deadline(at, 1));
            tell(self, Who::Stranger, ChannelAct::FinishClose)?;
            prop_assert!(
                self.channels[at].life.is_none() && self.world.balance(&to) == 0,
                "channel {} is stuck",
                at
            );
        }
        let (operator, to) = (self.bond.operator, self.bond.terms.address());
        if self.bond.life.is_some() || self.world.balance(&to) > 0 {
            if self.bond.life.is_none() {
                self.tell(operator, &What::Bond(BondAct::Back), Value::Usual, sent)?;
            }
            if self.bond.life.as_ref().is_some_and(|life| life.release_at.is_none()) {
                self.tell(operator, &What::Bond(BondAct::Unbond), Value::Usual, sent)?;
            }
            self.wait(Wait::Release(0));
            self.tell(operator, &What::Bond(BondAct::Withdraw), Value::Usual, sent)?;
            prop_assert!(self.bond.life.is_none() && self.world.balance(&to) == 0, "the bond is stuck");
        }
        self.registry_answers()
    }

    fn registry_answers(&self) -> Result<(), TestCaseError> {
        let method = u32::from(tycho_types::crc::crc_16(b"registry_state")) | 0x1_0000;
        let answer = self.world.ledger.run_get_method(&self.registry.address, method, &[]).unwrap();
        prop_assert_eq!(answer.exit_code, 0);
        let version = answer.stack.first().unwrap().as_u64().unwrap();
        prop_assert_eq!(version, u64::from(self.registry.state.version), "the registry answers");
        Ok(())
    }
}

/// Every amount is the model's; the rest of the value is where the model says, and fees were taken from it alone.
fn passed(say: &str, effect: &Effect, arrived: &Arrived) -> Result<(), TestCaseError> {
    let Arrived { record, held, value, after, .. } = arrived;
    let outs = &record.outs;
    if effect.lenient && outs.is_empty() {
        prop_assert!(*after >= *held && *after <= held + value, "{say}: the rest stays");
        return Ok(());
    }
    match effect.balance {
        Some(balance) => prop_assert_eq!(*after, balance, "{}: what is left", say),
        None => prop_assert_eq!(*after, held + value - record.gas_fees, "{}: the value joins", say),
    }
    prop_assert_eq!(outs.len(), effect.outs.len(), "{}: {:?}", say, outs);
    for (out, (to, amount)) in outs.iter().zip(&effect.outs) {
        prop_assert_eq!((&out.to, out.bounced), (to, false), "{}", say);
        if let Some(amount) = amount {
            prop_assert_eq!(out.value, *amount, "{}: to {}", say, to);
        }
    }
    Ok(())
}

/// What an account owes for storage, by the price lists of the network.
fn rent(account: &Account, now: u32, schedule: Schedule) -> Nanotons {
    let info = &account.storage_stat;
    let (cells, bits) = (info.used.cells.into_inner(), info.used.bits.into_inner());
    let (per_cell, per_bit) = match schedule {
        Schedule::Mainnet2026 => (135, 0),
        Schedule::Mainnet2025 => (500, 1),
    };
    assert!(info.last_paid >= STORAGE_2026_SINCE || info.last_paid == 0, "one price list at a time");
    let seconds = if info.last_paid == 0 { 0 } else { u64::from(now - info.last_paid) };
    let fee = (u128::from(cells * per_cell + bits * per_bit) * u128::from(seconds)).div_ceil(1 << 16);
    let due = info.due_payment.map_or(0, |due| due.into_inner());
    Nanotons::try_from(fee + due).unwrap()
}

fn amount(value: Value, usual: Nanotons) -> Nanotons {
    match value {
        Value::Usual => usual,
        Value::Nanotons(amount) => amount,
    }
}

/// An operation's name, and the value that is enough for it.
fn channel_usual(act: &ChannelAct) -> (&'static str, Nanotons) {
    match act {
        ChannelAct::Open(_) => ("open", OPEN_VALUE),
        ChannelAct::TopUp => ("top-up", OPEN_VALUE),
        ChannelAct::Settle(_) => ("settle", SETTLE_VALUE),
        ChannelAct::Authorize(_) => ("authorize", OPEN_VALUE),
        ChannelAct::StartClose => ("start-close", CLOSE_VALUE),
        ChannelAct::FinishClose => ("finish-close", SETTLE_VALUE),
        ChannelAct::Close(_) => ("close", SETTLE_VALUE),
        ChannelAct::Collect => ("collect", SETTLE_VALUE),
        ChannelAct::Nonsense(_) => ("nonsense", OPEN_VALUE),
    }
}

fn bond_usual(act: &BondAct) -> (&'static str, Nanotons) {
    match act {
        BondAct::Back => ("back", BACK_VALUE),
        BondAct::TopUp => ("top-up", BACK_VALUE),
        BondAct::Publish(..) => ("publish", ACTION_VALUE),
        BondAct::Unbond => ("unbond", BACK_VALUE),
        BondAct::Withdraw => ("withdraw", ACTION_VALUE),
        BondAct::Forfeit { .. } => ("forfeit", ACTION_VALUE),
        BondAct::Nonsense(_) => ("nonsense", BACK_VALUE),
    }
}

fn registry_name(act: &RegistryAct) -> &'static str {
    match act {
        RegistryAct::Propose(..) => "propose",
        RegistryAct::Cancel(..) => "cancel",
        RegistryAct::Activate(_) => "activate",
        RegistryAct::Replay(_) => "replay",
        RegistryAct::TopUp => "top-up",
        RegistryAct::Nonsense(_) => "nonsense",
    }
}
