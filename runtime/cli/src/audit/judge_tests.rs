//! Verdicts on gateways that are sound, and on each way of not being so.

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
    let other = |epoch| Liabilities { epoch, root: [9; 32], sum: 1 }.statement(-3, &sound().0.bond_address);
    facts.shown = Some(other(1000).sign(&SigningKey::from_seed(&[2; 32])));
    assert!(judge(&facts).solvent(), "anybody can write another root");
    facts.shown = Some(other(999).sign(&key()));
    assert!(judge(&facts).solvent(), "another epoch has another root");
    facts.shown = Some(other(1000).sign(&key()));
    assert_eq!(failed(&judge(&facts)), ["statements"]);
}
