//! The official wallet code (v4r2) runs what ton-contracts builds.

use cocoon_contracts::wallet::{self, MAX_TRANSFERS, Transfer};
use cocoon_contracts::{TON, message};
use cocoon_ledger::{SubmitError, faucet_address};

use super::world::{Actor, World};

fn pay(to: &Actor, amount: u64) -> Transfer {
    Transfer { to: to.address.clone(), amount, bounce: false, body: None, state_init: None }
}

#[test]
fn deploys_itself_pays_and_refuses_a_replay() {
    let mut world = World::new();
    let new = Actor::new(9);
    world.ledger.faucet(&new.address, 10 * TON).unwrap();
    world.block();
    assert_eq!(world.balance(&new.address), 10 * TON);

    let first =
        wallet::external_message(&new.key, 0, world.now + 60, true, &[pay(&world.stranger, TON)]).unwrap();
    let first = message::encode(&first);
    let before = world.balance(&world.stranger.address);
    world.ledger.submit(&first).unwrap();
    world.block();
    assert!(world.balance(&world.stranger.address) - before > TON - 1_000_000);
    assert_eq!(world.seqno(&new), 1);

    assert!(matches!(world.ledger.submit(&first), Err(SubmitError::NotAccepted(_))), "a replay is refused");
    let old =
        wallet::external_message(&new.key, 0, world.now + 60, false, &[pay(&world.stranger, TON)]).unwrap();
    assert!(matches!(world.ledger.submit(&message::encode(&old)), Err(SubmitError::NotAccepted(_))));
}

#[test]
fn refuses_expired_messages_and_other_signers() {
    let mut world = World::new();
    let late =
        wallet::external_message(&world.payer.key, 0, world.now - 1, false, &[pay(&world.payee, 1)]).unwrap();
    assert!(matches!(world.ledger.submit(&message::encode(&late)), Err(SubmitError::NotAccepted(_))));

    // A good message whose signature has one flipped bit.
    let good = wallet::external_message(&world.payer.key, 0, world.now + 60, false, &[pay(&world.payee, 1)])
        .unwrap();
    let bytes = message::encode(&good);
    let mut refused = 0;
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        match world.ledger.submit(&flipped) {
            Ok(_) => panic!("byte {at} may not be flipped"),
            Err(_) => refused += 1,
        }
    }
    assert_eq!(refused, bytes.len());
}

#[test]
fn pays_four_at_once() {
    let mut world = World::new();
    let people: Vec<_> = (20..24).map(Actor::new).collect();
    let transfers: Vec<_> = people.iter().map(|person| pay(person, TON)).collect();
    assert_eq!(transfers.len(), MAX_TRANSFERS);
    let message = wallet::external_message(&world.payer.key, 0, world.now + 60, false, &transfers).unwrap();
    world.ledger.submit(&message::encode(&message)).unwrap();
    world.block();
    for person in &people {
        assert_eq!(world.balance(&person.address), TON);
    }
}

#[test]
fn the_faucet_gives_what_it_has_and_no_more() {
    let mut world = World::new();
    let person = Actor::new(30);
    assert!(world.ledger.faucet(&person.address, 0).is_err());
    assert!(world.ledger.faucet(&person.address, u64::MAX).is_err());
    let before = world.balance(&faucet_address());
    world.ledger.faucet(&person.address, 5).unwrap();
    world.block();
    assert_eq!(before - world.balance(&faucet_address()), 5);
    assert_eq!(world.balance(&person.address), 5);
}
