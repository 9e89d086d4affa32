//! What everybody really did, seen from outside: the receipts that the books are measured by.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use cocoon_contracts::{
    Address, Nanotons,
    channel::{State, Terms},
};
use tycho_types::models::AccountState;

use crate::world::World;

/// One channel, in nanotons.
#[derive(Clone, Debug)]
pub(crate) struct Channel {
    pub(crate) terms: Terms,
    /// The members at its ends.
    pub(crate) payer: usize,
    pub(crate) payee: usize,
    /// What the payee charged for.
    pub(crate) charged: Nanotons,
    /// What arrived at the payer.
    pub(crate) received: Nanotons,
    /// The highest amount that left the payer's book in a voucher.
    pub(crate) signed: Nanotons,
    /// The vouchers that the payee acknowledged, each higher than the last, and when.
    pub(crate) acknowledged: Vec<(Duration, Nanotons)>,
    /// Answers that broke at the payer, and crashes of it.
    pub(crate) breaks: u64,
    pub(crate) payee_crashes: u64,
    /// A close that its payer started with vouchers out: when, and the deadline by the chain's clock.
    pub(crate) closed_early: Option<(Duration, u32)>,
    /// Its payee ends it: the voucher that it holds then.
    pub(crate) ended: Option<Nanotons>,
    /// Its payer has made the terms of another one.
    pub(crate) replaced: bool,
}

impl Channel {
    /// The best voucher that the payee acknowledged until `time`.
    pub(crate) fn acknowledged_until(&self, time: Duration) -> Nanotons {
        self.acknowledged.iter().rev().find(|(at, _)| *at <= time).map_or(0, |(_, amount)| *amount)
    }

    pub(crate) fn acknowledged(&self) -> Nanotons {
        self.acknowledged_until(Duration::MAX)
    }

    /// The most that the payer may have conceded for what broke.
    fn conceded(&self, window: Nanotons) -> Nanotons {
        (self.breaks * window).min(window + self.received / 4)
    }
}

#[derive(Default)]
pub(crate) struct Receipts(Mutex<BTreeMap<Address, Channel>>);

impl Receipts {
    fn inside(&self) -> MutexGuard<'_, BTreeMap<Address, Channel>> {
        self.0.lock().expect("nobody panics here")
    }

    pub(crate) fn opened(&self, terms: &Terms, payer: usize, payee: usize) {
        let channel = Channel {
            terms: terms.clone(),
            payer,
            payee,
            charged: 0,
            received: 0,
            signed: 0,
            acknowledged: Vec::new(),
            breaks: 0,
            payee_crashes: 0,
            closed_early: None,
            ended: None,
            replaced: false,
        };
        self.inside().insert(terms.address(), channel);
    }

    pub(crate) fn channel(&self, address: &Address) -> Channel {
        self.inside()[address].clone()
    }

    pub(crate) fn channels(&self) -> Vec<(Address, Channel)> {
        self.inside().iter().map(|(address, channel)| (address.clone(), channel.clone())).collect()
    }

    fn with(&self, address: &Address, act: impl FnOnce(&mut Channel)) {
        act(self.inside().get_mut(address).expect("every channel was opened"));
    }

    pub(crate) fn charged(&self, address: &Address, by: Nanotons) {
        self.with(address, |channel| channel.charged += by);
    }

    pub(crate) fn received(&self, address: &Address, by: Nanotons) {
        self.with(address, |channel| channel.received += by);
    }

    pub(crate) fn broke(&self, address: &Address) {
        self.with(address, |channel| channel.breaks += 1);
    }

    pub(crate) fn crashed(&self, member: usize) {
        for channel in self.inside().values_mut() {
            channel.breaks += u64::from(channel.payer == member);
            channel.payee_crashes += u64::from(channel.payee == member);
        }
    }

    pub(crate) fn closes_early(&self, address: &Address, at: Duration, deadline: u32) {
        self.with(address, |channel| {
            channel.closed_early.get_or_insert((at, deadline));
        });
    }

    pub(crate) fn ends(&self, address: &Address, held: Nanotons) {
        self.with(address, |channel| channel.ended = channel.ended.or(Some(held)));
    }

    /// The terms of the channel that follows on one that ended; `None` when there are such already.
    pub(crate) fn replace(&self, address: &Address) -> Option<Terms> {
        let nonce = self.inside().len() as u64;
        let old = self.channel(address);
        if old.replaced {
            return None;
        }
        self.with(address, |channel| channel.replaced = true);
        let terms = Terms { nonce, ..old.terms };
        self.opened(&terms, old.payer, old.payee);
        Some(terms)
    }

    /// A voucher leaves its payer's book.
    pub(crate) fn signed(&self, world: &World, address: &Address, amount: Nanotons) {
        self.with(address, |channel| channel.signed = channel.signed.max(amount));
        let channel = self.channel(address);
        let most = channel.received + channel.conceded(world.plan.window);
        let who = &world.nodes[channel.payer].name;
        world.trace.say(who, format_args!("signs {amount} of {} received", channel.received));
        if amount > most {
            world.trace.fail(format_args!("{who} signed {amount} for what is worth {most}: {channel:?}"));
        }
        if amount > limit_on_chain(world, address).min(world.plan.most) {
            world.trace.fail(format_args!("{who} signed {amount}, more than its key may"));
        }
    }

    /// A payee told a payer that it holds a voucher.
    pub(crate) fn acknowledged(&self, world: &World, address: &Address, amount: Nanotons) {
        let time = world.trace.time();
        let mut better = false;
        self.with(address, |channel| {
            better = amount > channel.acknowledged();
            if better {
                channel.acknowledged.push((time, amount));
            }
        });
        if better {
            let name = &world.nodes[self.channel(address).payee].name;
            world.trace.say(name, format_args!("holds {amount}"));
        }
    }
}

/// What the session key may sign, as the ledger itself has it: the keeper raises it, up to the plan's most. Where the
/// channel is gone nothing can be claimed any more.
fn limit_on_chain(world: &World, address: &Address) -> Nanotons {
    let (account, balance) =
        world.network.with_ledger(|ledger| (ledger.account(address), ledger.balance(address)));
    let Some(AccountState::Active(init)) = account.map(|account| account.state) else { return Nanotons::MAX };
    let state = init.data.as_ref().and_then(|data| State::parse(data, balance).ok());
    state.map_or(Nanotons::MAX, |state| state.limit)
}
