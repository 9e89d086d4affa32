//! The bond: a stake that leaves whole, once, to its operator or to the treasury.

use cocoon_chain::Transaction;
use cocoon_contracts::bond::{
    self, ACTION_VALUE, BACK_VALUE, KIND_LISTING, Liabilities, MIN_STAKE, SignedStatement, State, Statement,
    Terms, contradiction, forfeit_body, publish_body,
};
use cocoon_contracts::{Cell, Nanotons, SigningKey, TON};
use cocoon_ledger::Schedule;
use proptest::prelude::*;
use tycho_types::cell::{CellBuilder, HashBytes};
use tycho_types::models::AccountState;

use super::world::{NETWORK, Who, World, deploying, to_contract};

const DELAY: u32 = 7 * 24 * 3600;
const STAKE: Nanotons = 20 * TON;

fn key() -> SigningKey {
    SigningKey::from_seed(&[88; 32])
}

/// The payee of the other tests is the operator here.
fn terms(world: &World) -> Terms {
    Terms {
        operator: world.payee.address.clone(),
        operator_key: key().public(),
        treasury: world.treasury.address.clone(),
        network: NETWORK,
        delay_seconds: DELAY,
        salt: 1,
        platforms: (0..5).map(|byte| bond::platform_digest(&format!("chip:{byte:02x}"))).collect(),
    }
}

fn back(world: &mut World, who: Who, terms: &Terms, amount: Nanotons) -> Transaction {
    let transfer = to_contract(&terms.address(), amount, bond::back_body());
    world.send(who, deploying(transfer, terms.state_init()))
}

fn backed(world: &mut World) -> Terms {
    let terms = terms(world);
    let tx = back(world, Who::Payee, &terms, STAKE + BACK_VALUE);
    assert_eq!((tx.exit_code, tx.aborted), (Some(0), false));
    terms
}

fn read(world: &World, terms: &Terms) -> Option<State> {
    let account = world.ledger.account(&terms.address())?;
    let AccountState::Active(init) = account.state else { return None };
    let balance = Nanotons::try_from(account.balance.tokens.into_inner()).unwrap();
    State::parse(&init.data.unwrap(), balance).ok()
}

fn tell(world: &mut World, who: Who, terms: &Terms, body: Cell) -> Transaction {
    world.send(who, to_contract(&terms.address(), ACTION_VALUE, body))
}

fn said(terms: &Terms, number: u64, digest: u8) -> SignedStatement {
    let statement = Statement {
        network: NETWORK,
        bond: terms.address(),
        kind: KIND_LISTING,
        number,
        digest: [digest; 32],
    };
    statement.sign(&key())
}

fn proof(terms: &Terms) -> Cell {
    forfeit_body(&contradiction(terms, &said(terms, 7, 1), &said(terms, 7, 2)).unwrap())
}

/// A proof that the library would not build.
fn forged(first: &SignedStatement, second: &SignedStatement) -> Cell {
    let build = |store: &dyn Fn(&mut CellBuilder)| {
        let mut builder = CellBuilder::new();
        store(&mut builder);
        builder.build().unwrap()
    };
    let signed = |it: &SignedStatement| {
        build(&|b| {
            b.store_u256(&HashBytes(it.statement.digest)).unwrap();
            b.store_raw(&it.signature, 512).unwrap();
        })
    };
    build(&|b| {
        b.store_u32(0x424e_0006).unwrap();
        b.store_u8(first.statement.kind).unwrap();
        b.store_u64(first.statement.number).unwrap();
        b.store_reference(signed(first)).unwrap();
        b.store_reference(signed(second)).unwrap();
    })
}

/// All that the bond ever sent to the treasury.
fn treasurys(world: &World, terms: &Terms) -> Nanotons {
    let history = world.ledger.history(&world.treasury.address, 1000).unwrap();
    history.iter().filter(|tx| tx.from.as_ref() == Some(&terms.address())).map(|tx| tx.value).sum()
}

#[test]
fn is_backed_by_its_operator_and_answers_for_its_machines() {
    let mut world = World::new();
    let terms = backed(&mut world);
    let state = read(&world, &terms).unwrap();
    assert_eq!((&state.terms, state.release_at, state.published), (&terms, None, None));
    assert!(state.balance >= STAKE);
    assert!(state.answers_for("chip:03") && !state.answers_for("chip:05") && !state.answers_for("ppid:03"));
    assert_eq!(back(&mut world, Who::Payee, &terms, STAKE).exit_code, Some(0x301));
}

#[test]
fn terms_that_prove_nothing_are_refused_on_chain_and_off() {
    let mut world = World::new();
    let good = terms(&world);
    assert_eq!(back(&mut world, Who::Stranger, &good, STAKE).exit_code, Some(0x302));
    assert_eq!(back(&mut world, Who::Payee, &good, MIN_STAKE - 1).exit_code, Some(0x305));
    let foreign = Terms { network: -239, ..good.clone() };
    assert_eq!(back(&mut world, Who::Payee, &foreign, STAKE).exit_code, Some(0x303));
    let identity: [u8; 32] = std::array::from_fn(|at| u8::from(at == 0));
    for bad in [
        Terms { operator_key: [0; 32], ..good.clone() },
        Terms { operator_key: identity, ..good.clone() },
        Terms { delay_seconds: 0, ..good.clone() },
        Terms { delay_seconds: bond::MAX_DELAY_SECONDS + 1, ..good.clone() },
    ] {
        assert!(bad.check().is_err());
        assert_eq!(back(&mut world, Who::Payee, &bad, STAKE).exit_code, Some(0x304));
        assert_eq!(read(&world, &bad), None);
    }
    assert_eq!(back(&mut world, Who::Payee, &good, MIN_STAKE).exit_code, Some(0));
}

#[test]
fn two_statements_that_differ_forfeit_the_stake_to_the_nanoton() {
    let mut world = World::new();
    let terms = backed(&mut world);
    let held = read(&world, &terms).unwrap().balance;
    let before = world.balance(&world.stranger.address);
    let proof = proof(&terms);
    assert!(!tell(&mut world, Who::Stranger, &terms, proof.clone()).aborted, "anybody may hand it in");
    assert_eq!((read(&world, &terms), world.balance(&terms.address())), (None, 0));
    assert_eq!(treasurys(&world, &terms), held, "the treasury has it whole");
    let spent = before - world.balance(&world.stranger.address);
    assert!(spent < 3_000_000, "what is not used comes back: {spent}");
    // Nobody forfeits it twice, or brings it back to do so.
    let again = deploying(to_contract(&terms.address(), TON, proof), terms.state_init());
    assert_eq!(world.send(Who::Stranger, again).exit_code, Some(0x300));
}

#[test]
fn what_is_no_contradiction_forfeits_nothing() {
    let mut world = World::new();
    let terms = backed(&mut world);
    let good = said(&terms, 7, 1);
    let with = |change: &dyn Fn(&mut Statement)| {
        let mut statement = said(&terms, 7, 2).statement;
        change(&mut statement);
        statement.sign(&key())
    };
    let stranger = said(&terms, 7, 2).statement.sign(&SigningKey::from_seed(&[3; 32]));
    for (what, other, expected) in [
        ("the same twice", good.clone(), 0x306),
        ("another number", with(&|it| it.number = 8), 0x307),
        ("another kind", with(&|it| it.kind = 1), 0x307),
        ("another bond", with(&|it| it.bond.address.0[0] ^= 1), 0x307),
        ("another network", with(&|it| it.network = -239), 0x307),
        ("another key", stranger, 0x307),
    ] {
        for (a, b) in [(&good, &other), (&other, &good)] {
            // The message's kind and number are the first one's: the other's signature is of something else.
            let tx = tell(&mut world, Who::Stranger, &terms, forged(a, b));
            assert_eq!((tx.exit_code, tx.aborted), (Some(expected), true), "{what}");
        }
    }
    let state = read(&world, &terms).unwrap();
    assert!(state.balance >= STAKE && treasurys(&world, &terms) == 0);
}

#[test]
fn a_release_waits_its_delay_and_can_be_forfeited_until_withdrawn() {
    let mut world = World::new();
    let terms = backed(&mut world);
    assert_eq!(tell(&mut world, Who::Payee, &terms, bond::withdraw_body()).exit_code, Some(0x30a));
    assert_eq!(tell(&mut world, Who::Stranger, &terms, bond::unbond_body()).exit_code, Some(0x302));
    assert!(!tell(&mut world, Who::Payee, &terms, bond::unbond_body()).aborted);
    let release_at = read(&world, &terms).unwrap().release_at.unwrap();
    assert_eq!(release_at, world.now + DELAY);
    assert_eq!(tell(&mut world, Who::Payee, &terms, bond::unbond_body()).exit_code, Some(0x309));
    world.now = release_at - 1;
    assert_eq!(tell(&mut world, Who::Payee, &terms, bond::withdraw_body()).exit_code, Some(0x30b));
    world.now = release_at;
    assert_eq!(tell(&mut world, Who::Stranger, &terms, bond::withdraw_body()).exit_code, Some(0x302));
    let held = read(&world, &terms).unwrap().balance;
    let before = world.balance(&world.payee.address);
    assert!(!tell(&mut world, Who::Payee, &terms, bond::withdraw_body()).aborted);
    assert_eq!((read(&world, &terms), world.balance(&terms.address())), (None, 0));
    let home = world.balance(&world.payee.address) - before;
    assert!(home + 3_000_000 > held && home < held + ACTION_VALUE, "{home} of {held}");

    // As long as it was not withdrawn, the delay's end protects nobody.
    let mut world = World::new();
    let terms = backed(&mut world);
    assert!(!tell(&mut world, Who::Payee, &terms, bond::unbond_body()).aborted);
    world.now += DELAY + 1;
    let held = read(&world, &terms).unwrap().balance;
    let body = proof(&terms);
    let tx = tell(&mut world, Who::Stranger, &terms, body);
    assert!(!tx.aborted);
    assert!(treasurys(&world, &terms) <= held && treasurys(&world, &terms) >= STAKE, "{held} less rent");
}

#[test]
fn liabilities_are_published_by_signature_and_epochs_only_grow() {
    let mut world = World::new();
    let terms = backed(&mut world);
    let owed = |epoch| Liabilities { epoch, root: [5; 32], sum: 77 };
    let sign =
        |owed: &Liabilities, key: &SigningKey| owed.statement(NETWORK, &terms.address()).sign(key).signature;
    let body = |owed: &Liabilities| publish_body(owed, &sign(owed, &key()));
    let held = read(&world, &terms).unwrap().balance;
    assert!(!tell(&mut world, Who::Stranger, &terms, body(&owed(3))).aborted, "the signature counts");
    let state = read(&world, &terms).unwrap();
    let published = state.published.unwrap();
    assert_eq!((published.liabilities, published.at), (owed(3), world.now));
    assert_eq!(state.balance, held, "the stake pays for nothing");
    for epoch in [3, 2, 0] {
        assert_eq!(tell(&mut world, Who::Payee, &terms, body(&owed(epoch))).exit_code, Some(0x308));
    }
    let signature = sign(&owed(4), &key());
    for changed in [
        Liabilities { epoch: 5, ..owed(4) },
        Liabilities { root: [6; 32], ..owed(4) },
        Liabilities { sum: 78, ..owed(4) },
    ] {
        let tx = tell(&mut world, Who::Payee, &terms, publish_body(&changed, &signature));
        assert_eq!(tx.exit_code, Some(0x307));
    }
    let stolen = publish_body(&owed(4), &sign(&owed(4), &world.payee.key));
    assert_eq!(tell(&mut world, Who::Payee, &terms, stolen).exit_code, Some(0x307));
    assert!(!tell(&mut world, Who::Payee, &terms, body(&owed(4))).aborted);

    // Two roots for one epoch are a contradiction like any other.
    let other = Liabilities { sum: 1, ..owed(4) };
    let [one, two] = [owed(4), other].map(|it| it.statement(NETWORK, &terms.address()).sign(&key()));
    let body = forfeit_body(&contradiction(&terms, &one, &two).unwrap());
    assert!(!tell(&mut world, Who::Stranger, &terms, body).aborted);
    assert_eq!(treasurys(&world, &terms), held);
}

#[test]
fn nothing_works_before_it_is_backed_and_other_messages_bounce() {
    let mut world = World::new();
    let terms = terms(&world);
    let owed = Liabilities { epoch: 1, root: [5; 32], sum: 77 };
    let signature = owed.statement(NETWORK, &terms.address()).sign(&key()).signature;
    for body in [
        bond::top_up_body(),
        publish_body(&owed, &signature),
        bond::unbond_body(),
        bond::withdraw_body(),
        proof(&terms),
    ] {
        let deploy = deploying(to_contract(&terms.address(), TON, body), terms.state_init());
        let tx = world.send(Who::Payee, deploy);
        assert_eq!((tx.exit_code, tx.aborted), (Some(0x300), true));
        assert_eq!(read(&world, &terms), None);
    }
    let terms = backed(&mut world);
    let mut builder = CellBuilder::new();
    builder.store_u32(0x424e_0007).unwrap();
    for body in [builder.build().unwrap(), Cell::default()] {
        assert_eq!(tell(&mut world, Who::Stranger, &terms, body).exit_code, Some(0xffff));
    }
}

#[test]
fn what_a_bond_costs() {
    for schedule in [Schedule::Mainnet2026, Schedule::Mainnet2025] {
        let mut world = World::under(schedule);
        let terms = terms(&world);
        println!("\n{}: gas, fees of the contract's own transaction in TON", schedule.name());
        let note = |operation: &str, tx: &Transaction| {
            assert_eq!((tx.exit_code, tx.aborted), (Some(0), false), "{operation}");
            println!("  {operation:<10} {:>6}  0.{:09}", tx.gas, tx.fees);
            let most = if schedule == Schedule::Mainnet2026 { 900_000 } else { 6_000_000 };
            assert!(tx.fees < most, "{operation}");
        };
        note("back", &back(&mut world, Who::Payee, &terms, STAKE));
        note("top up", &world.send(Who::Stranger, to_contract(&terms.address(), TON, bond::top_up_body())));
        let owed = Liabilities { epoch: 1, root: [5; 32], sum: 77 };
        let signature = owed.statement(NETWORK, &terms.address()).sign(&key()).signature;
        note("publish", &tell(&mut world, Who::Payee, &terms, publish_body(&owed, &signature)));
        let unbond = to_contract(&terms.address(), BACK_VALUE, bond::unbond_body());
        note("unbond", &world.send(Who::Payee, unbond));
        world.now += DELAY;
        note("withdraw", &tell(&mut world, Who::Payee, &terms, bond::withdraw_body()));
        let terms = Terms { salt: 2, ..terms };
        back(&mut world, Who::Payee, &terms, STAKE);
        let body = proof(&terms);
        note("forfeit", &tell(&mut world, Who::Stranger, &terms, body));
    }
}

#[derive(Debug, Clone)]
enum Act {
    Back,
    TopUp,
    Publish(u64),
    Unbond,
    Withdraw,
    Forfeit(bool),
    Wait(u32),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        1 => Just(Act::Back),
        2 => Just(Act::TopUp),
        3 => (0u64..6).prop_map(Act::Publish),
        2 => Just(Act::Unbond),
        3 => Just(Act::Withdraw),
        1 => Just(Act::Forfeit(true)),
        2 => Just(Act::Forfeit(false)),
        2 => prop_oneof![Just(DELAY), Just(DELAY - 1), 1u32..1000].prop_map(Act::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_stake_leaves_whole_and_once_whoever_does_what(
        steps in proptest::collection::vec(
            (prop_oneof![3 => Just(Who::Payee), 2 => Just(Who::Stranger)], act(), prop_oneof![3 => Just(ACTION_VALUE), 1 => 1u64..1_000_000]),
            1..25,
        )
    ) {
        let mut world = World::new();
        let terms = backed(&mut world);
        for (who, act, value) in &steps {
            step(&mut world, &terms, *who, act, *value)?;
        }
    }
}

fn step(world: &mut World, terms: &Terms, who: Who, act: &Act, value: Nanotons) -> Result<(), TestCaseError> {
    let owed = |epoch| Liabilities { epoch, root: [5; 32], sum: epoch };
    let body = match act {
        Act::Wait(seconds) => {
            world.now += seconds;
            world.block();
            return Ok(());
        }
        Act::Back => bond::back_body(),
        Act::TopUp => bond::top_up_body(),
        Act::Publish(epoch) => {
            let signature = owed(*epoch).statement(NETWORK, &terms.address()).sign(&key()).signature;
            publish_body(&owed(*epoch), &signature)
        }
        Act::Unbond => bond::unbond_body(),
        Act::Withdraw => bond::withdraw_body(),
        Act::Forfeit(true) => proof(terms),
        Act::Forfeit(false) => forged(&said(terms, 1, 1), &said(terms, 2, 2)),
    };
    let (before, operator) = (read(world, terms), who == Who::Payee);
    let tx = world.send(who, to_contract(&terms.address(), value, body));
    let Some(before) = before else {
        prop_assert!(tx.aborted && read(world, terms).is_none(), "a bond that is gone stays gone");
        return Ok(());
    };
    let newest = before.published.map(|published| published.liabilities.epoch);
    let permitted = match act {
        Act::TopUp => true,
        Act::Publish(epoch) => newest.is_none_or(|newest| *epoch > newest),
        Act::Unbond => operator && before.release_at.is_none(),
        Act::Withdraw => operator && before.release_at.is_some_and(|at| world.now >= at),
        Act::Forfeit(genuine) => *genuine,
        Act::Back | Act::Wait(_) => false,
    };
    prop_assert!(permitted || tx.aborted, "{act:?} by {who:?} must be refused: {tx:?}");
    if value >= ACTION_VALUE {
        prop_assert_eq!(permitted, !tx.aborted, "{:?} by {:?}", act, who);
    }
    let rent = 10_000_000;
    match (read(world, terms), act) {
        (Some(after), _) => {
            prop_assert!(after.balance + rent >= before.balance, "the stake pays for nothing but rent");
            let newest = after.published.map(|published| published.liabilities.epoch);
            prop_assert!(newest >= before.published.map(|published| published.liabilities.epoch));
        }
        (None, Act::Forfeit(_)) => prop_assert!(treasurys(world, terms) + rent >= before.balance),
        (None, Act::Withdraw) => prop_assert_eq!(treasurys(world, terms), 0),
        (None, other) => prop_assert!(false, "{other:?} ends no bond"),
    }
    Ok(())
}
