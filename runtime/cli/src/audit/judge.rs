//! From what the chain says to a verdict. Pure: everything is an argument.

use cocoon_contracts::bond::{SignedStatement, State as BondState};
use cocoon_contracts::channel::State as ChannelState;
use cocoon_contracts::liabilities::{Proof, Root};
use cocoon_contracts::registry::{Registry, Status};
use cocoon_contracts::{Address, Nanotons};
use serde::Serialize;

use crate::ui::ton;

/// How much older than its publication an epoch's amounts may be, in seconds.
const MAX_LAG: u64 = 600;

/// One channel, as the chain has it.
pub(super) struct ChannelFacts {
    pub(super) address: Address,
    /// Its state, or why there is none.
    pub(super) state: Result<ChannelState, String>,
    /// What its payee settled since the publication.
    pub(super) settled: Nanotons,
}

/// A proof of one's own.
pub(super) struct OwnProof {
    pub(super) bond: Address,
    pub(super) proof: Proof,
}

/// Everything that is judged.
pub(super) struct Facts {
    pub(super) gateway: Option<String>,
    pub(super) bond_address: Address,
    /// Code, address and network are checked; or why it is no bond.
    pub(super) bond: Result<BondState, String>,
    pub(super) registry: Registry,
    pub(super) channels: Vec<ChannelFacts>,
    pub(super) own: Option<OwnProof>,
    /// The signed statement that the gateway shows.
    pub(super) shown: Option<SignedStatement>,
    /// The chain's time, Unix seconds.
    pub(super) now: u64,
    pub(super) max_age: u64,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    Pass,
    Fail,
    /// Worth knowing, and neither.
    Note,
}

/// One check, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    pub(super) id: &'static str,
    pub(super) outcome: Outcome,
    pub(super) text: String,
}

/// The sums that were compared, in nanotons.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) epoch: u64,
    pub(super) owed: Nanotons,
    pub(super) locked: Nanotons,
    pub(super) settled: Nanotons,
}

/// The verdict with its reasons.
#[derive(Default)]
pub(super) struct Audit {
    pub(super) checks: Vec<Check>,
    pub(super) totals: Option<Totals>,
    /// What the own proof shows, if it holds.
    pub(super) own: Option<Nanotons>,
}

impl Audit {
    /// Nothing failed, and the sums were compared.
    pub(super) fn solvent(&self) -> bool {
        self.totals.is_some() && self.checks.iter().all(|check| check.outcome != Outcome::Fail)
    }

    fn say(&mut self, id: &'static str, outcome: Outcome, text: String) {
        self.checks.push(Check { id, outcome, text });
    }

    fn hold(&mut self, id: &'static str, holds: bool, good: String, bad: String) {
        let (outcome, text) = if holds { (Outcome::Pass, good) } else { (Outcome::Fail, bad) };
        self.say(id, outcome, text);
    }
}

impl Facts {
    fn root(&self) -> Option<Root> {
        let said = self.bond.as_ref().ok()?.published?.liabilities;
        Some(Root { epoch: said.epoch, hash: said.root, sum: said.sum })
    }

    /// Whether a statement that the bond's key signed says another thing than the chain of one epoch.
    pub(super) fn contradicts(&self, shown: &SignedStatement) -> bool {
        let Ok(bond) = &self.bond else { return false };
        let Some(published) = bond.published else { return false };
        let said = published.liabilities.statement(bond.terms.network, &self.bond_address);
        let same = (shown.statement.kind, shown.statement.number) == (said.kind, said.number);
        same && shown.statement.digest != said.digest && shown.verify_for(&bond.terms).is_ok()
    }
}

pub(super) fn judge(facts: &Facts) -> Audit {
    let mut audit = Audit::default();
    match &facts.bond {
        Err(why) => audit.say("bond", Outcome::Fail, format!("there is no bond to go by: {why}")),
        Ok(bond) => {
            the_bond(&mut audit, facts, bond);
            the_epoch(&mut audit, facts, bond);
            the_sums(&mut audit, facts, bond);
        }
    }
    if let Some(own) = &facts.own {
        the_own_leaf(&mut audit, facts, own);
    }
    audit
}

fn the_bond(audit: &mut Audit, facts: &Facts, bond: &BondState) {
    let stake = ton(bond.balance);
    audit.say(
        "bond",
        Outcome::Pass,
        format!("the bond has the known code and its own address; {stake} TON at stake"),
    );
    let treasury = &facts.registry.content.treasury;
    audit.hold(
        "treasury",
        bond.terms.treasury == *treasury,
        "a forfeited stake goes to the registry's treasury".to_owned(),
        format!("a forfeited stake would go to {}, not to the treasury {treasury}", bond.terms.treasury),
    );
    let delay = bond.terms.delay_seconds;
    audit.say(
        "delay",
        if u64::from(delay) < facts.max_age { Outcome::Note } else { Outcome::Pass },
        format!("a stake leaves {delay} s after it is asked back at the earliest: whoever holds two statements of one epoch has as long"),
    );
    if let Some(at) = bond.release_at {
        let text = format!("the stake is being released: it may be gone from second {at} on");
        audit.say("releasing", Outcome::Note, text);
    }
    let ours = |address: &Address| *address == facts.bond_address || *address == bond.terms.operator;
    let mut listed = facts.registry.content.gateways.iter().filter(|gateway| ours(&gateway.address));
    match listed.clone().find(|gateway| gateway.status == Status::Barred).or_else(|| listed.next()) {
        None => audit.say("registry", Outcome::Note, "the registry does not list this gateway".to_owned()),
        Some(gateway) => audit.hold(
            "registry",
            gateway.status == Status::Allowed,
            format!("the registry lists it as {}", gateway.name),
            format!("the registry bars it, as {}", gateway.name),
        ),
    }
    if let Some(shown) = &facts.shown {
        let number = shown.statement.number;
        audit.hold(
            "statements",
            !facts.contradicts(shown),
            "the gateway shows no other root than the chain".to_owned(),
            format!(
                "the gateway shows another root of epoch {number} than it published, and signed both: run again with --keep \
                 DIR, then cocoon bond forfeit"
            ),
        );
    }
}

fn the_epoch(audit: &mut Audit, facts: &Facts, bond: &BondState) {
    let Some(published) = bond.published else {
        audit.say(
            "epoch",
            Outcome::Fail,
            "nothing was ever published: nobody can tell what is owed".to_owned(),
        );
        return;
    };
    let (epoch, at) = (published.liabilities.epoch, u64::from(published.at));
    let (age, lag) = (facts.now.saturating_sub(epoch), at.saturating_sub(epoch));
    audit.hold(
        "age",
        age <= facts.max_age,
        format!("the amounts are {age} s old"),
        format!(
            "the amounts are {age} s old, and {} s are allowed: what was owed since is not known",
            facts.max_age
        ),
    );
    audit.hold(
        "lag",
        epoch <= at && lag <= MAX_LAG,
        format!("they were published {lag} s after the second they are of"),
        format!("epoch {epoch} does not fit its publication in second {at}: its number is no time at which amounts were read"),
    );
}

fn the_sums(audit: &mut Audit, facts: &Facts, bond: &BondState) {
    let Some(root) = facts.root() else { return };
    let (mut locked, mut settled) = (0_u128, 0_u128);
    let mut counted = 0;
    for channel in &facts.channels {
        match countable(facts, bond, channel) {
            Ok(amount) => {
                counted += 1;
                locked += u128::from(amount);
                settled += u128::from(channel.settled);
            }
            Err(why) => {
                audit.say("channel", Outcome::Note, format!("{} does not count: {why}", channel.address));
            }
        }
    }
    let amount = |sum: u128| Nanotons::try_from(sum).unwrap_or(Nanotons::MAX);
    let covered = locked + settled;
    audit.hold(
        "coverage",
        covered >= u128::from(root.sum),
        format!("what is locked in {} covers the published sum", crate::ui::counted(counted, "open channel")),
        format!(
            "locked in {}: {} TON of the {} TON published",
            crate::ui::counted(counted, "open channel"),
            ton(amount(covered)),
            ton(root.sum)
        ),
    );
    let (owed, locked, settled) = (root.sum, amount(locked), amount(settled));
    audit.totals = Some(Totals { epoch: root.epoch, owed, locked, settled });
}

/// What a channel still holds for its payee, if it counts.
fn countable(facts: &Facts, bond: &BondState, channel: &ChannelFacts) -> Result<Nanotons, String> {
    let state = channel.state.as_ref().map_err(Clone::clone)?;
    let terms = &state.terms;
    if terms.payer != bond.terms.operator {
        return Err("another pays by it than the bond's operator".to_owned());
    }
    if terms.payee == terms.payer {
        return Err("the gateway pays itself by it".to_owned());
    }
    if terms.treasury != facts.registry.content.treasury {
        return Err("its fee goes elsewhere than to the registry's treasury".to_owned());
    }
    if state.deadline.is_some_and(|deadline| facts.now > u64::from(deadline)) {
        return Err("it is closed, and its deposit may go home at any time".to_owned());
    }
    Ok(state.deposit().saturating_sub(state.paid))
}

fn the_own_leaf(audit: &mut Audit, facts: &Facts, own: &OwnProof) {
    const ID: &str = "own leaf";
    if own.bond != facts.bond_address {
        let text = format!("your proof is for another bond: {}", own.bond);
        return audit.say(ID, Outcome::Fail, text);
    }
    let Some(root) = facts.root() else {
        return audit.say(ID, Outcome::Fail, "there is no root to hold your proof against".to_owned());
    };
    let liability = match own.proof.verify(&root) {
        Ok(liability) => liability,
        Err(error) if own.proof.epoch() < root.epoch => {
            let text = format!(
                "{error}: a newer epoch was published, and you have no proof that it includes you. Right after a publication, \
                 wait for your proof; otherwise settle"
            );
            return audit.say(ID, Outcome::Fail, text);
        }
        Err(error) => return audit.say(ID, Outcome::Fail, error.to_string()),
    };
    audit.own = Some(liability.amount);
    let owed = ton(liability.amount);
    audit.say(
        ID,
        Outcome::Pass,
        format!("your channel {} is in the root with {owed} TON", liability.channel),
    );
    let channel = facts.channels.iter().find(|channel| channel.address == liability.channel);
    let Ok(bond) = &facts.bond else { return };
    let covered = channel.and_then(|channel| {
        let locked = countable(facts, bond, channel).ok()?;
        Some(u128::from(locked) + u128::from(channel.settled))
    });
    audit.hold(
        "own channel",
        covered.is_some_and(|covered| covered >= u128::from(liability.amount)),
        "your own channel covers what you are owed".to_owned(),
        "your own channel does not cover what you are owed: other channels' deposits are not for you"
            .to_owned(),
    );
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
