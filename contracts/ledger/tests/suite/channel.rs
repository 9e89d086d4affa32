//! The payment channel's life.

use cocoon_contracts::channel::{
    self, OPEN_RESERVE, OPEN_VALUE, SETTLE_VALUE, State, authorize_body, cooperative_close_body,
    finish_close_body, open_body, start_close_body, top_up_body,
};
use cocoon_contracts::{Cell, Nanotons, TON, Voucher};

use super::world::{CHALLENGE, Who, World, deploying, opening, to_contract};

#[test]
fn opens_with_its_deposit() {
    let mut world = World::new();
    let terms = world.open(1, TON);
    let state = world.channel(&terms).unwrap();
    assert_eq!(state.terms, terms);
    assert_eq!((state.paid, state.deadline), (0, None));
    assert!(state.deposit() >= TON && state.deposit() < TON + OPEN_VALUE);
}

#[test]
fn settles_and_splits_the_fee_exactly() {
    let mut world = World::new();
    let terms = world.open(1, TON);
    let payee = world.payee.address.clone();
    // Amounts whose shares do not divide evenly, over several settlements.
    let mut paid = 0;
    for cumulative in [1_000_003, 1_000_004, 77_777_777, 999_999_999] {
        let before = world.channel(&terms).unwrap();
        let payee_before = world.balance(&payee);
        let tx = world.settle(&terms, cumulative);
        assert_eq!((tx.exit_code, tx.aborted), (Some(0), false));

        let fee = terms.network_fee(cumulative) - terms.network_fee(paid);
        let after = world.channel(&terms).unwrap();
        assert_eq!((after.paid, after.collected), (cumulative, 0));
        assert_eq!(after.fee_waiting(), terms.network_fee(cumulative), "the network's share to the nanoton");
        let gone = cumulative - paid - fee;
        assert_eq!(before.balance - after.balance, gone, "the deposit pays the due and no fees");
        assert_eq!(before.deposit(), after.deposit(), "what may be claimed in total stays");
        let due = i128::from(cumulative - paid - fee);
        let gained = i128::from(world.balance(&payee)) - i128::from(payee_before);
        assert!((due - gained) < 1_500_000, "the payee pays the fees, less than 0.0015 TON: {due} {gained}");
        paid = cumulative;
    }
    assert_eq!(terms.network_fee(paid), 49_999_999);
}

#[test]
fn anyone_sends_the_treasury_what_waits_for_it() {
    let mut world = World::new();
    let terms = world.open(1, TON);
    let collect = |value| to_contract(&terms.address(), value, channel::collect_body());
    assert_eq!(world.send(Who::Stranger, collect(SETTLE_VALUE)).exit_code, Some(0x10f), "nothing waits");
    let mut collected = 0;
    for cumulative in [100_000_019, 300_000_000] {
        world.settle(&terms, cumulative);
        let before = world.channel(&terms).unwrap();
        let stranger = world.balance(&world.stranger.address);
        assert!(!world.send(Who::Stranger, collect(SETTLE_VALUE)).aborted);
        let after = world.channel(&terms).unwrap();
        let fee = terms.network_fee(cumulative);
        assert_eq!((after.collected, after.fee_waiting()), (fee, 0));
        assert_eq!(
            before.balance - after.balance,
            fee - collected,
            "the deposit pays the fee and nothing else"
        );
        assert_eq!(before.deposit(), after.deposit());
        assert_eq!(world.network_fees(&terms), fee, "to the nanoton");
        assert!(stranger - world.balance(&world.stranger.address) < 2_000_000, "the excess came back");
        collected = fee;
    }
    // Too little to pay for it: nothing happens, whoever asks.
    world.settle(&terms, 400_000_000);
    let before = world.channel(&terms).unwrap();
    for value in (50_000..800_000).step_by(25_000) {
        if !world.send(Who::Stranger, collect(value)).aborted {
            return;
        }
        let after = world.channel(&terms).unwrap();
        assert!(after.collected == before.collected && after.balance >= before.balance, "{value}");
    }
    panic!("0.0008 TON should pay for a collection");
}

#[test]
fn the_treasurys_part_is_not_the_payees_to_take() {
    let mut world = World::new();
    let terms = world.open(1, TON);
    world.settle(&terms, 500_000_000);
    let state = world.channel(&terms).unwrap();
    let most = state.paid + state.balance - state.fee_waiting() - channel::SETTLE_RESERVE;
    assert_eq!(world.settle(&terms, most + 1).exit_code, Some(0x108));
    assert!(!world.settle(&terms, most).aborted);
    let state = world.channel(&terms).unwrap();
    assert_eq!(state.balance, state.fee_waiting() + channel::SETTLE_RESERVE);
    let collect = to_contract(&terms.address(), SETTLE_VALUE, channel::collect_body());
    assert!(!world.send(Who::Payee, collect).aborted);
    assert_eq!(world.channel(&terms).unwrap().balance, channel::SETTLE_RESERVE);
    assert_eq!(world.network_fees(&terms), terms.network_fee(most));
}

#[test]
fn a_channel_ends_though_rent_ate_into_the_treasurys_part() {
    let mut world = World::new();
    let terms = world.open(1, TON);
    let state = world.channel(&terms).unwrap();
    let most = state.balance - channel::SETTLE_RESERVE;
    assert!(!world.settle(&terms, most).aborted);
    world.now += 20 * 365 * 24 * 3600;
    let address = terms.address();
    assert!(!world.send(Who::Payer, to_contract(&address, channel::CLOSE_VALUE, start_close_body())).aborted);
    world.now += CHALLENGE + 1;
    assert!(!world.send(Who::Payer, to_contract(&address, SETTLE_VALUE, finish_close_body())).aborted);
    assert_eq!((world.channel(&terms), world.balance(&address)), (None, 0), "nothing is stuck");
    assert!(world.network_fees(&terms) > 0);
}

/// Years after its deadline an empty channel owes rent: who pays to end it, ends it.
#[test]
fn a_close_that_nobody_finished_for_years_can_still_be_finished() {
    for (years, settled) in [(1, true), (5, true), (40, true), (5, false), (60, false)] {
        let mut world = World::new();
        let terms = world.open(1, TON);
        let state = world.channel(&terms).unwrap();
        let most = state.balance - channel::SETTLE_RESERVE;
        assert!(!world.settle(&terms, most).aborted);
        if settled {
            let collect = to_contract(&terms.address(), SETTLE_VALUE, channel::collect_body());
            assert!(!world.send(Who::Stranger, collect).aborted);
        }
        let start = to_contract(&terms.address(), channel::CLOSE_VALUE, start_close_body());
        assert!(!world.send(Who::Payer, start).aborted);
        world.now += years * 365 * 24 * 3600;
        let address = terms.address();
        let tx = world.send(Who::Payer, to_contract(&address, 10 * SETTLE_VALUE, finish_close_body()));
        assert_eq!((tx.exit_code, tx.aborted), (Some(0), false), "after {years} years");
        assert_eq!((world.channel(&terms), world.balance(&address)), (None, 0), "nothing is stuck");
    }
}

#[test]
fn refuses_stale_vouchers_and_keeps_the_money() {
    let mut world = World::new();
    let terms = world.open(1, TON);
    world.settle(&terms, 5_000_000);
    let before = world.channel(&terms).unwrap();
    for cumulative in [5_000_000, 4_999_999, 0] {
        let tx = world.settle(&terms, cumulative);
        assert_eq!((tx.exit_code, tx.aborted), (Some(0x106), true));
    }
    assert_eq!(world.channel(&terms).unwrap(), before);
}

#[test]
fn pays_the_whole_deposit_and_not_one_nanoton_more() {
    let mut world = World::new();
    let terms = world.open(1, TON);
    let balance = world.channel(&terms).unwrap().balance;
    let most = balance - channel::SETTLE_RESERVE;
    let tx = world.settle(&terms, most + 1);
    assert_eq!((tx.exit_code, tx.aborted), (Some(0x108), true));
    let tx = world.settle(&terms, Nanotons::MAX);
    assert_eq!((tx.exit_code, tx.aborted), (Some(0x108), true));
    // What a reader of the state may claim is covered, with the rent reserve to spare.
    assert_eq!(most - world.channel(&terms).unwrap().deposit(), OPEN_RESERVE - channel::SETTLE_RESERVE);
    let tx = world.settle(&terms, most);
    assert_eq!((tx.exit_code, tx.aborted), (Some(0), false));
    let after = world.channel(&terms).unwrap();
    assert_eq!(after.balance, channel::SETTLE_RESERVE + after.fee_waiting());
}

#[test]
fn a_voucher_covered_when_accepted_still_is_after_a_year() {
    let mut world = World::new();
    let terms = world.open(1, TON);
    let deposit = world.channel(&terms).unwrap().deposit();
    world.now += 366 * 24 * 3600;
    let tx = world.settle(&terms, deposit);
    assert_eq!((tx.exit_code, tx.aborted), (Some(0), false));
}

#[test]
fn anyone_may_top_up() {
    let mut world = World::new();
    let terms = world.open(1, TON);
    for who in [Who::Payer, Who::Payee, Who::Stranger] {
        let before = world.channel(&terms).unwrap().deposit();
        let tx = world.send(who, to_contract(&terms.address(), TON, top_up_body()));
        assert!(!tx.aborted);
        let added = world.channel(&terms).unwrap().deposit() - before;
        assert!(TON - added < 50_000, "a top-up costs less than 0.00005 TON: {}", TON - added);
    }
    let tx = world.settle(&terms, 3 * TON);
    assert!(!tx.aborted);
}

#[test]
fn a_close_waits_until_its_deadline_and_the_payee_may_settle_to_the_last_second() {
    let mut world = World::new();
    let terms = world.open(1, TON);
    world.settle(&terms, 100_000_000);
    let address = terms.address();
    let start = |who| (who, to_contract(&address, channel::CLOSE_VALUE, start_close_body()));
    let (who, transfer) = start(Who::Stranger);
    assert_eq!(world.send(who, transfer).exit_code, Some(0x102));
    let (who, transfer) = start(Who::Payer);
    assert!(!world.send(who, transfer).aborted);
    let deadline = world.channel(&terms).unwrap().deadline.unwrap();
    assert_eq!(deadline, world.now + CHALLENGE);

    // Starting again does not move the deadline.
    world.now += 10;
    let (who, transfer) = start(Who::Payer);
    assert_eq!(world.send(who, transfer).exit_code, Some(0x10a));

    // At the deadline itself the payee still settles, and nobody finishes.
    world.now = deadline;
    let finish = to_contract(&address, SETTLE_VALUE, finish_close_body());
    assert_eq!(world.send(Who::Payer, finish.clone()).exit_code, Some(0x10c));
    assert!(!world.settle(&terms, 250_000_000).aborted);

    // One second later it is the other way round.
    world.now = deadline + 1;
    assert_eq!(world.settle(&terms, 300_000_000).exit_code, Some(0x109));
    let low = to_contract(&address, 2_999_999, finish_close_body());
    assert_eq!(world.send(Who::Stranger, low).exit_code, Some(0x110), "the payer's part pays for nothing");
    let state = world.channel(&terms).unwrap();
    let held = state.balance - state.fee_waiting();
    let before = world.balance(&world.payer.address);
    assert!(!world.send(Who::Stranger, finish).aborted, "anyone may finish");
    assert_eq!(world.channel(&terms), None);
    assert_eq!(world.balance(&address), 0);
    assert_eq!(world.network_fees(&terms), terms.network_fee(250_000_000));
    let home = world.balance(&world.payer.address) - before;
    assert!(home >= held && home < held + SETTLE_VALUE, "all that was left came home: {home} of {held}");
}

#[test]
fn nobody_finishes_a_close_that_was_not_started() {
    let mut world = World::new();
    let terms = world.open(1, TON);
    let finish = to_contract(&terms.address(), SETTLE_VALUE, finish_close_body());
    assert_eq!(world.send(Who::Payer, finish).exit_code, Some(0x10b));
}

#[test]
fn the_payee_closes_at_once_with_a_last_voucher() {
    let mut world = World::new();
    let terms = world.open(1, TON);
    world.settle(&terms, 100_000_000);
    let last = world.voucher(&terms, 400_000_000);
    let state = world.channel(&terms).unwrap();
    let close = to_contract(&terms.address(), SETTLE_VALUE, cooperative_close_body(Some(&last)));
    assert_eq!(world.send(Who::Payer, close.clone()).exit_code, Some(0x102), "only the payee may agree");

    let [payer, payee] = [&world.payer, &world.payee].map(|actor| world.balance(&actor.address));
    assert!(!world.send(Who::Payee, close).aborted);
    assert_eq!(world.channel(&terms), None);
    let fee = terms.network_fee(400_000_000) - terms.network_fee(100_000_000);
    assert_eq!(world.network_fees(&terms), terms.network_fee(400_000_000));
    let home = world.balance(&world.payer.address) - payer;
    let rest = state.balance - state.fee_waiting() - 300_000_000;
    assert!(rest - home < 100_000, "the rest came home, less the wallet's gas: {rest} {home}");
    let gained = world.balance(&world.payee.address) - payee;
    assert!(gained > 300_000_000 - fee - 1_500_000 && gained < 300_000_000);
}

#[test]
fn the_payee_closes_without_a_voucher_when_nothing_is_owed() {
    let mut world = World::new();
    let terms = world.open(1, TON);
    let close = to_contract(&terms.address(), SETTLE_VALUE, cooperative_close_body(None));
    assert!(!world.send(Who::Payee, close).aborted);
    assert_eq!((world.channel(&terms), world.balance(&terms.address())), (None, 0));
}

#[test]
fn a_closed_channel_comes_back_for_nobody_but_its_payer() {
    let mut world = World::new();
    let terms = world.open(1, TON);
    let voucher = world.voucher(&terms, 500_000_000);
    let close = to_contract(&terms.address(), SETTLE_VALUE, cooperative_close_body(Some(&voucher)));
    world.send(Who::Payee, close);
    // The payee revives the address to settle its old voucher against somebody's top-up: no message of its does that.
    for body in [
        open_body(Nanotons::MAX),
        top_up_body(),
        channel::settle_body(&voucher),
        cooperative_close_body(None),
    ] {
        let revive = deploying(to_contract(&terms.address(), TON, body), terms.state_init());
        let tx = world.send(Who::Payee, revive);
        assert!(tx.aborted, "{tx:?}");
        assert_eq!(world.channel(&terms), None);
    }
}

#[test]
fn a_stranger_cannot_open_and_an_opening_must_cover_the_reserve() {
    let mut world = World::new();
    let terms = world.terms(5);
    let tx = world.send(Who::Stranger, opening(&terms, TON));
    assert_eq!((tx.exit_code, tx.aborted), (Some(0x102), true));
    let tx = world.send(Who::Payer, opening(&terms, OPEN_RESERVE - 1));
    assert_eq!((tx.exit_code, tx.aborted), (Some(0x105), true));
    assert_eq!(world.channel(&terms), None);
    let tx = world.send(Who::Payer, opening(&terms, TON));
    assert!(!tx.aborted);
    let tx = world.send(Who::Payer, to_contract(&terms.address(), TON, open_body(Nanotons::MAX)));
    assert_eq!(tx.exit_code, Some(0x101), "it opens once");
}

#[test]
fn terms_that_prove_nothing_are_refused_on_chain_and_off() {
    let mut world = World::new();
    let identity = {
        let mut key = [0; 32];
        key[0] = 1;
        key
    };
    for key in [[0; 32], identity] {
        let terms = channel::Terms { payer_key: key, ..world.terms(6) };
        assert!(terms.check().is_err());
        assert_eq!(world.send(Who::Payer, opening(&terms, TON)).exit_code, Some(0x104));
    }
    let foreign = channel::Terms { network: -239, ..world.terms(7) };
    assert_eq!(world.send(Who::Payer, opening(&foreign, TON)).exit_code, Some(0x103));
    let greedy = channel::Terms { fee_bps: 10_001, ..world.terms(8) };
    assert!(greedy.check().is_err());
    assert_eq!(world.send(Who::Payer, opening(&greedy, TON)).exit_code, Some(0x104));
}

#[test]
fn a_settlement_that_cannot_pay_its_messages_changes_nothing() {
    let mut world = World::new();
    let terms = world.open(1, TON);
    let (mut ran_and_could_not_send, mut passed) = (0, 0);
    // A due of one nanoton, and values from too little for gas to enough for everything.
    for value in (50_000..700_000).step_by(10_000) {
        let before = world.channel(&terms).unwrap();
        let body = channel::settle_body(&world.voucher(&terms, before.paid + 1));
        let tx = world.send(Who::Payee, to_contract(&terms.address(), value, body));
        let after = world.channel(&terms).unwrap();
        if tx.aborted {
            ran_and_could_not_send += u32::from(tx.exit_code == Some(0));
            assert_eq!(after.paid, before.paid, "{value}");
            assert!(after.balance >= before.balance, "the deposit pays for no failure: {value}");
        } else {
            passed += 1;
            let set_aside = after.fee_waiting() - before.fee_waiting();
            let expected = (before.paid + 1, before.balance - 1 + set_aside);
            assert_eq!((after.paid, after.balance), expected, "{value}");
        }
    }
    assert!(ran_and_could_not_send > 0 && passed > 0, "{ran_and_could_not_send} {passed}");
}

#[test]
fn the_get_method_tells_the_state() {
    let mut world = World::new();
    let terms = world.open_with_limit(1, TON, 7_000_000);
    world.settle(&terms, 5_000_000);
    let method = u32::from(tycho_types::crc::crc_16(b"channel_state")) | 0x1_0000;
    let output = world.ledger.run_get_method(&terms.address(), method, &[]).unwrap();
    assert_eq!(output.exit_code, 0);
    let told: Vec<_> = output.stack.iter().map(|item| item.as_u64().unwrap()).collect();
    assert_eq!(told, [5_000_000, u64::from(u32::MAX), 7_000_000, 0]);
}

#[test]
fn a_session_key_signs_no_more_than_its_limit_whoever_tops_up() {
    let mut world = World::new();
    let limit = 300_000_000;
    let terms = world.open_with_limit(1, TON, limit);
    world.send(Who::Stranger, to_contract(&terms.address(), 5 * TON, top_up_body()));
    let state = world.channel(&terms).unwrap();
    assert_eq!((state.limit, state.deposit()), (limit, limit));
    assert_eq!(world.settle(&terms, limit + 1).exit_code, Some(0x10d));
    let over = cooperative_close_body(Some(&world.voucher(&terms, limit + 1)));
    let tx = world.send(Who::Payee, to_contract(&terms.address(), SETTLE_VALUE, over));
    assert_eq!(tx.exit_code, Some(0x10d));
    assert_eq!(world.channel(&terms).unwrap(), state, "nothing happened");
    assert!(!world.settle(&terms, limit).aborted, "the limit itself is allowed");
    assert_eq!(world.channel(&terms).unwrap().deposit(), limit);
}

#[test]
fn only_the_payers_wallet_raises_the_limit_and_never_lowers_it() {
    let mut world = World::new();
    let terms = world.open_with_limit(1, TON, 100);
    let address = terms.address();
    let authorize = |limit, value| to_contract(&address, value, authorize_body(limit));
    for who in [Who::Payee, Who::Stranger] {
        assert_eq!(world.send(who, authorize(200, OPEN_VALUE)).exit_code, Some(0x102));
    }
    for limit in [0, 99, 100] {
        assert_eq!(world.send(Who::Payer, authorize(limit, OPEN_VALUE)).exit_code, Some(0x10e));
    }
    let before = world.channel(&terms).unwrap();
    assert_eq!(before.limit, 100);
    assert!(!world.send(Who::Payer, authorize(101, TON)).aborted);
    let after = world.channel(&terms).unwrap();
    assert_eq!((after.limit, after.deposit()), (101, 101));
    assert!(after.balance > before.balance + TON - OPEN_VALUE, "its value joined the deposit");

    // A close that runs does not lower what was authorized, and the payer may still raise it.
    world.send(Who::Payer, to_contract(&address, channel::CLOSE_VALUE, start_close_body()));
    assert!(!world.send(Who::Payer, authorize(Nanotons::MAX, OPEN_VALUE)).aborted);
    assert!(!world.settle(&terms, 500_000_000).aborted);
}

#[test]
fn nobody_authorizes_what_is_not_open() {
    let mut world = World::new();
    let terms = world.terms(3);
    let early = to_contract(&terms.address(), OPEN_VALUE, authorize_body(5));
    let tx = world.send(Who::Payer, deploying(early, terms.state_init()));
    assert_eq!((tx.exit_code, tx.aborted), (Some(0x100), true));
    assert_eq!(world.channel(&terms), None);
}

#[test]
fn every_operation_refuses_a_channel_that_was_never_opened() {
    let mut world = World::new();
    let terms = world.terms(4);
    let voucher = world.voucher(&terms, 1);
    for (who, body, expected) in [
        (Who::Stranger, top_up_body(), 0x100),
        (Who::Payer, start_close_body(), 0x100),
        (Who::Payer, finish_close_body(), 0x100),
        (Who::Payee, cooperative_close_body(None), 0x100),
        (Who::Payee, channel::settle_body(&voucher), 0x109),
    ] {
        let deploy = deploying(to_contract(&terms.address(), TON, body), terms.state_init());
        let tx = world.send(who, deploy);
        assert_eq!((tx.exit_code, tx.aborted), (Some(expected), true));
        assert_eq!(world.channel(&terms), None);
    }
}

#[test]
fn a_voucher_of_another_domain_settles_nothing() {
    let mut world = World::new();
    let (terms, other) = (world.open(1, TON), world.open(2, TON));
    let good = world.voucher(&terms, 5_000_000).voucher;
    let foreign = [
        Voucher { network: good.network + 1, ..good.clone() },
        Voucher { channel: other.address(), ..good.clone() },
        Voucher { nonce: good.nonce + 1, ..good.clone() },
        Voucher { cumulative: good.cumulative - 1, ..good.clone() },
    ];
    for voucher in foreign {
        let mut signed = voucher.sign(&world.session_key());
        signed.voucher.cumulative = good.cumulative;
        let body = channel::settle_body(&signed);
        let tx = world.send(Who::Payee, to_contract(&terms.address(), SETTLE_VALUE, body));
        assert_eq!((tx.exit_code, tx.aborted), (Some(0x107), true));
    }
    let stolen = good.clone().sign(&world.payee.key);
    let tx =
        world.send(Who::Payee, to_contract(&terms.address(), SETTLE_VALUE, channel::settle_body(&stolen)));
    assert_eq!(tx.exit_code, Some(0x107), "another key signs nothing");
    assert!(!world.settle(&terms, 5_000_000).aborted);
}

#[test]
fn only_the_payee_settles() {
    let mut world = World::new();
    let terms = world.open(1, TON);
    let body = channel::settle_body(&world.voucher(&terms, 5_000_000));
    for who in [Who::Payer, Who::Stranger] {
        let tx = world.send(who, to_contract(&terms.address(), SETTLE_VALUE, body.clone()));
        assert_eq!((tx.exit_code, tx.aborted), (Some(0x102), true));
    }
}

#[test]
fn messages_that_are_none_of_a_channels_bounce() {
    let mut world = World::new();
    let terms = world.open(1, TON);
    let before = world.channel(&terms).unwrap();
    let mut builder = tycho_types::cell::CellBuilder::new();
    builder.store_u32(0x4348_0009).unwrap();
    for body in [builder.build().unwrap(), Cell::default()] {
        let tx = world.send(Who::Payer, to_contract(&terms.address(), SETTLE_VALUE, body));
        assert_eq!((tx.exit_code, tx.aborted), (Some(0xffff), true));
    }
    assert_eq!(world.channel(&terms).unwrap(), before);
}

#[test]
fn a_deposit_in_view_never_overflows() {
    let world = World::new();
    let state = |paid, limit, balance| State {
        terms: world.terms(1),
        paid,
        limit,
        collected: 0,
        deadline: None,
        balance,
    };
    assert_eq!(state(0, 5, 0).deposit(), 0);
    assert_eq!(state(7, 9, OPEN_RESERVE - 1).deposit(), 7, "what was paid was covered");
    assert_eq!(state(7, 100, OPEN_RESERVE + 3).deposit(), 10);
    assert_eq!(state(40, 100, OPEN_RESERVE + 3).deposit(), 41, "a fee of two waits");
    assert_eq!(state(7, 8, OPEN_RESERVE + 3).deposit(), 8);
    assert_eq!(state(Nanotons::MAX, Nanotons::MAX, Nanotons::MAX).deposit(), Nanotons::MAX);
}
