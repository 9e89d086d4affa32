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
        format!("{counted} channels cover the published sum"),
        format!(
            "{counted} channels cover {} TON of the {} TON published",
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
mod tests {
    use cocoon_contracts::bond::{self, Liabilities, Published};
    use cocoon_contracts::channel;
    use cocoon_contracts::liabilities::{Liability, Tree};
    use cocoon_contracts::registry::{Content, Gateway, Owners};
    use cocoon_contracts::{SigningKey, parse_address};

    use super::*;

    const OPERATOR: &str = "11";
    const HOST: &str = "22";
    const TREASURY: &str = "33";

    fn address(byte: &str) -> Address {
        parse_address(&format!("0:{}", byte.repeat(32))).expect("an address")
    }

    fn key() -> SigningKey {
        SigningKey::from_seed(&[1; 32])
    }

    fn channel(nonce: u64, covered: Nanotons, paid: Nanotons) -> ChannelFacts {
        let terms = channel::Terms {
            payer: address(OPERATOR),
            payee: address(HOST),
            payer_key: key().public(),
            network: -3,
            nonce,
            challenge_seconds: 60,
            fee_bps: 0,
            treasury: address(TREASURY),
        };
        let (limit, collected, deadline) = (Nanotons::MAX, 0, None);
        let balance = covered - paid + channel::OPEN_RESERVE;
        let address = terms.address();
        let state = ChannelState { terms, paid, limit, collected, deadline, balance };
        ChannelFacts { address, state: Ok(state), settled: 0 }
    }

    /// Two channels with 100 each, of which 30 and 50 are owed.
    fn sound() -> (Facts, Tree) {
        let channels = vec![channel(1, 100, 0), channel(2, 100, 0)];
        let leaves = channels.iter().zip([30, 50]).map(|(channel, amount)| Liability {
            channel: channel.address.clone(),
            amount,
            salt: [7; 32],
        });
        let tree = Tree::new(1000, leaves.collect()).expect("a small tree");
        let root = tree.root();
        let terms = bond::Terms {
            operator: address(OPERATOR),
            operator_key: key().public(),
            treasury: address(TREASURY),
            network: -3,
            delay_seconds: 60,
            salt: 0,
            platforms: Vec::new(),
        };
        let bond_address = terms.address();
        let liabilities = Liabilities { epoch: 1000, root: root.hash, sum: root.sum };
        let published = Some(Published { liabilities, at: 1004 });
        let bond = BondState { terms, release_at: None, published, balance: cocoon_contracts::TON };
        let mut content = Content::empty(0, address(TREASURY));
        content.gateways.push(Gateway {
            name: "one".to_owned(),
            status: Status::Allowed,
            address: bond_address.clone(),
        });
        let registry = Registry {
            version: 1,
            delay: 1,
            proposals: 0,
            owners: Owners::new(1, [key().public()]).expect("a sound key"),
            content,
            proposal: None,
        };
        let facts = Facts {
            gateway: None,
            bond_address,
            bond: Ok(bond),
            registry,
            channels,
            own: None,
            shown: None,
            now: 1100,
            max_age: 200,
        };
        (facts, tree)
    }

    fn state(facts: &mut Facts, at: usize) -> &mut ChannelState {
        facts.channels[at].state.as_mut().expect("it is there")
    }

    fn bond_of(facts: &mut Facts) -> &mut BondState {
        facts.bond.as_mut().expect("it is there")
    }

    fn failed(audit: &Audit) -> Vec<&'static str> {
        audit.checks.iter().filter(|it| it.outcome == Outcome::Fail).map(|it| it.id).collect()
    }

    #[test]
    fn what_is_covered_is_solvent() {
        let (mut facts, tree) = sound();
        let channel = facts.channels[1].address.clone();
        let proof = tree.prove(&channel).expect("a leaf");
        facts.own = Some(OwnProof { bond: facts.bond_address.clone(), proof });
        let audit = judge(&facts);
        assert!(audit.solvent(), "{:?}", audit.checks);
        assert_eq!(audit.totals, Some(Totals { epoch: 1000, owed: 80, locked: 200, settled: 0 }));
        assert_eq!(audit.own, Some(50));
    }

    #[test]
    fn coverage_is_exact_to_the_nanoton() {
        let (mut facts, _) = sound();
        state(&mut facts, 0).balance = channel::OPEN_RESERVE;
        state(&mut facts, 1).balance = channel::OPEN_RESERVE + 80;
        assert!(judge(&facts).solvent());
        state(&mut facts, 1).balance -= 1;
        assert_eq!(failed(&judge(&facts)), ["coverage"]);
    }

    /// A host that settled took from the deposit what the published sum still names.
    #[test]
    fn what_hosts_settled_since_is_no_gap() {
        let (mut facts, _) = sound();
        for at in 0..2 {
            facts.channels[at] = channel(at as u64 + 1, 40, 40);
            facts.channels[at].settled = 40;
        }
        assert!(judge(&facts).solvent());
        facts.channels[0].settled = 39;
        assert_eq!(failed(&judge(&facts)), ["coverage"], "what was settled before is no cover");
    }

    type Change = fn(&mut Facts);

    #[test]
    fn a_channel_that_is_no_cover_does_not_count() {
        let useless: [(&str, Change); 6] = [
            ("another payer", |facts| state(facts, 1).terms.payer = address("44")),
            ("itself", |facts| state(facts, 1).terms.payee = address(OPERATOR)),
            ("another treasury", |facts| state(facts, 1).terms.treasury = address("44")),
            ("closed", |facts| state(facts, 1).deadline = Some(1099)),
            ("a limit", |facts| state(facts, 1).limit = 0),
            ("gone", |facts| facts.channels[1].state = Err("gone".to_owned())),
        ];
        for (what, change) in useless {
            let (mut facts, _) = sound();
            state(&mut facts, 0).balance = channel::OPEN_RESERVE + 79;
            assert!(judge(&facts).solvent());
            change(&mut facts);
            assert_eq!(failed(&judge(&facts)), ["coverage"], "{what}");
        }
        let (mut facts, _) = sound();
        state(&mut facts, 1).deadline = Some(1100);
        assert!(judge(&facts).solvent(), "until its last second a close can be answered");
    }

    #[test]
    fn each_thing_that_is_wrong_with_a_bond_is_found() {
        let wrong: [(&str, Change); 7] = [
            ("bond", |facts| facts.bond = Err("gone".to_owned())),
            ("treasury", |facts| bond_of(facts).terms.treasury = address("44")),
            ("epoch", |facts| bond_of(facts).published = None),
            ("age", |facts| facts.now = 1201),
            ("registry", |facts| facts.registry.content.gateways[0].status = Status::Barred),
            ("lag", |facts| bond_of(facts).published.as_mut().expect("it is").at = 1601),
            ("lag", |facts| bond_of(facts).published.as_mut().expect("it is").at = 999),
        ];
        for (id, change) in wrong {
            let (mut facts, _) = sound();
            change(&mut facts);
            let audit = judge(&facts);
            assert!(failed(&audit).contains(&id), "{id}: {:?}", audit.checks);
            assert!(!audit.solvent());
        }
    }

    #[test]
    fn a_proof_must_lead_to_the_newest_root_of_this_bond() {
        let (mut facts, tree) = sound();
        let (bond, channel) = (facts.bond_address.clone(), facts.channels[0].address.clone());
        let proof = tree.prove(&channel).expect("a leaf");
        facts.own = Some(OwnProof { bond: address("44"), proof: proof.clone() });
        assert_eq!(failed(&judge(&facts)), ["own leaf"]);
        facts.own = Some(OwnProof { bond: bond.clone(), proof });
        // Our channel is empty, whatever the others hold.
        state(&mut facts, 0).balance = channel::OPEN_RESERVE;
        assert_eq!(failed(&judge(&facts)), ["own channel"]);
        let newer = Tree::new(1001, Vec::new()).expect("a small tree").root();
        let said = &mut bond_of(&mut facts).published.as_mut().expect("it is").liabilities;
        *said = Liabilities { epoch: newer.epoch, root: newer.hash, sum: newer.sum };
        let audit = judge(&facts);
        assert_eq!((failed(&audit), audit.own), (vec!["own leaf"], None), "left out of a newer root");
    }

    #[test]
    fn a_gateway_that_shows_another_root_is_caught_only_by_its_own_signature() {
        let (mut facts, _) = sound();
        let other =
            |epoch| Liabilities { epoch, root: [9; 32], sum: 1 }.statement(-3, &sound().0.bond_address);
        facts.shown = Some(other(1000).sign(&SigningKey::from_seed(&[2; 32])));
        assert!(judge(&facts).solvent(), "anybody can write another root");
        facts.shown = Some(other(999).sign(&key()));
        assert!(judge(&facts).solvent(), "another epoch has another root");
        facts.shown = Some(other(1000).sign(&key()));
        assert_eq!(failed(&judge(&facts)), ["statements"]);
    }
}
