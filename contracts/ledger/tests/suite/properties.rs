//! What happens at an address where no channel is. (Random sequences: `tests/sequences`.)

use cocoon_contracts::TON;
use cocoon_contracts::channel::{OPEN_RESERVE, top_up_body};

use super::world::{Who, World, opening, to_contract};

#[test]
fn an_unopened_address_keeps_nothing_that_is_sent_to_it_bounceable() {
    let mut world = World::new();
    let terms = world.terms(9);
    let before = world.balance(&world.stranger.address);
    world.send(Who::Stranger, to_contract(&terms.address(), TON, top_up_body()));
    assert!(before - world.balance(&world.stranger.address) < 2_000_000);
    // Value sent ahead without bounce waits for the opening and joins the deposit.
    let mut ahead = to_contract(&terms.address(), TON, top_up_body());
    ahead.bounce = false;
    world.send(Who::Stranger, ahead);
    assert_eq!(world.balance(&terms.address()), TON);
    assert!(!world.send(Who::Payer, opening(&terms, TON)).aborted);
    assert!(world.channel(&terms).unwrap().deposit() > 2 * TON - OPEN_RESERVE - 1_000_000);
}
