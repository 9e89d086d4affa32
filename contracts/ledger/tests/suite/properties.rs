//! Whoever acts, in whatever order and at whatever time: nanotons are conserved, what is paid only grows and never
//! exceeds what was put in, the treasury gets its exact share, and nothing stays stuck.

use cocoon_contracts::channel::{
    self, OPEN_RESERVE, SETTLE_RESERVE, State, Terms, authorize_body, cooperative_close_body,
    finish_close_body, open_body, start_close_body, top_up_body,
};
use cocoon_contracts::{Nanotons, SignedVoucher, TON};
use proptest::prelude::*;

use super::world::{CHALLENGE, Who, World, deploying, opening, to_contract};

const DEPOSIT: Nanotons = TON;

#[derive(Debug, Clone)]
enum Act {
    Open,
    TopUp(Nanotons),
    Settle(Claim),
    /// A limit that is this share (of 1000) of twice the deposit.
    Authorize(Nanotons),
    StartClose,
    FinishClose,
    Close(Option<Claim>),
    Collect,
    Nonsense(u32),
    Wait(u32),
}

/// A voucher, by how it relates to what is there.
#[derive(Debug, Clone)]
enum Claim {
    /// This share (of 1000) of the deposit, good or stale as it happens.
    Share(Nanotons),
    /// This much more than the contract can pay.
    TooMuch(Nanotons),
    /// This much more than the session key may sign.
    OverLimit(Nanotons),
    /// Signed by somebody else.
    Forged(Nanotons),
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![3 => Just(Who::Payee), 2 => Just(Who::Payer), 1 => Just(Who::Stranger)]
}

fn claim() -> impl Strategy<Value = Claim> {
    prop_oneof![
        6 => (0u64..=1000).prop_map(Claim::Share),
        1 => (1u64..1_000_000).prop_map(Claim::TooMuch),
        1 => (0u64..1_000_000).prop_map(Claim::OverLimit),
        1 => (0u64..=1000).prop_map(Claim::Forged),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => Just(Act::Open),
        2 => (0u64..TON).prop_map(Act::TopUp),
        8 => claim().prop_map(Act::Settle),
        2 => (0u64..=1000).prop_map(Act::Authorize),
        1 => Just(Act::StartClose),
        2 => Just(Act::FinishClose),
        1 => proptest::option::of(claim()).prop_map(Act::Close),
        2 => Just(Act::Collect),
        1 => any::<u32>().prop_map(Act::Nonsense),
        3 => prop_oneof![0..3 * CHALLENGE, Just(CHALLENGE), Just(CHALLENGE + 1), Just(90 * 24 * 3600)].prop_map(Act::Wait),
    ]
}

/// The value that comes with a message: mostly enough, sometimes not.
fn value() -> impl Strategy<Value = Nanotons> {
    prop_oneof![4 => Just(channel::SETTLE_VALUE), 1 => 1u64..1_500_000]
}

/// What the model knows beside the chain.
struct Model {
    terms: Terms,
    put_in: Nanotons,
    /// Of this life and of those before.
    best_paid: Nanotons,
    /// What the payer's wallet authorized.
    limit: Nanotons,
    closed: bool,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn money_is_never_lost_whoever_does_what(steps in proptest::collection::vec((who(), act(), value()), 1..40)) {
        run(&steps)?;
    }
}

fn run(steps: &[(Who, Act, Nanotons)]) -> Result<(), TestCaseError> {
    let mut world = World::new();
    let limit = DEPOSIT / 2;
    let terms = world.open_with_limit(1, DEPOSIT, limit);
    let put_in = DEPOSIT + OPEN_RESERVE + channel::OPEN_VALUE;
    let mut model = Model { terms, put_in, best_paid: 0, limit, closed: false };
    for (who, act, value) in steps {
        step(&mut world, &mut model, *who, act, *value)?;
    }
    // Whatever happened: the payer alone gets out, after one challenge period.
    if world.channel(&model.terms).is_some() {
        let address = model.terms.address();
        world.send(Who::Payer, to_contract(&address, channel::CLOSE_VALUE, start_close_body()));
        world.now += CHALLENGE + 1;
        let tx = world.send(Who::Payer, to_contract(&address, channel::SETTLE_VALUE, finish_close_body()));
        prop_assert!(!tx.aborted);
        prop_assert_eq!(world.balance(&address), 0, "nothing is stuck");
    }
    let fees = world.network_fees(&model.terms);
    prop_assert_eq!(fees, model.terms.network_fee(model.best_paid), "the treasury has its exact share");
    Ok(())
}

fn step(
    world: &mut World,
    model: &mut Model,
    who: Who,
    act: &Act,
    value: Nanotons,
) -> Result<(), TestCaseError> {
    let before = world.channel(&model.terms);
    let address = model.terms.address();
    let (body, value, voucher) = match act {
        Act::Wait(seconds) => {
            world.now += seconds;
            world.block();
            return Ok(());
        }
        Act::Open => (open_body(Nanotons::MAX), value, None),
        Act::TopUp(amount) => (top_up_body(), (*amount).max(1), None),
        Act::Settle(claim) => {
            let voucher = sign(world, model, before.as_ref(), claim);
            (channel::settle_body(&voucher), value, Some((voucher, claim)))
        }
        Act::Authorize(share) => (authorize_body(limit_of(*share)), value, None),
        Act::StartClose => (start_close_body(), value, None),
        Act::FinishClose => (finish_close_body(), value, None),
        Act::Close(claim) => {
            let voucher = claim.as_ref().map(|claim| (sign(world, model, before.as_ref(), claim), claim));
            (cooperative_close_body(voucher.as_ref().map(|(voucher, _)| voucher)), value, voucher)
        }
        Act::Collect => (channel::collect_body(), value, None),
        Act::Nonsense(op) => {
            let mut builder = tycho_types::cell::CellBuilder::new();
            builder.store_u32(op | 0x8000_0000).expect("fits");
            (builder.build().expect("a cell"), value, None)
        }
    };
    // Some try to bring a closed channel back to life; only its payer could, and our payer does not reuse nonces.
    let transfer = to_contract(&address, value, body);
    let revive = model.closed && who != Who::Payer;
    let transfer = if revive { deploying(transfer, model.terms.state_init()) } else { transfer };
    let tx = world.send(who, transfer);
    let after = world.channel(&model.terms);

    // What comes with the start of a close or with an authorization joins the deposit, like a top-up.
    if !tx.aborted && matches!(act, Act::TopUp(_) | Act::StartClose | Act::Authorize(_)) {
        model.put_in += value;
    }
    if model.closed {
        prop_assert!(tx.aborted && after.is_none(), "a closed channel stays closed");
        return Ok(());
    }
    let before = before.expect("it was open");
    let expected = permitted(world.now, who, act, voucher.as_ref(), &before, value);
    if !expected {
        prop_assert!(tx.aborted, "{act:?} by {who:?} must be refused: {tx:?}");
    } else if value >= channel::SETTLE_VALUE {
        prop_assert!(!tx.aborted, "{act:?} by {who:?} must pass: {tx:?}");
    }
    if let (Act::Authorize(share), false) = (act, tx.aborted) {
        model.limit = limit_of(*share);
    }
    check(world, model, &before, after, tx.aborted, voucher.map(|(voucher, _)| voucher), value)
}

fn limit_of(share: Nanotons) -> Nanotons {
    2 * DEPOSIT / 1000 * share
}

/// What the rules say, in other words than the contract's.
fn permitted(
    now: u32,
    who: Who,
    act: &Act,
    voucher: Option<&(SignedVoucher, &Claim)>,
    state: &State,
    value: Nanotons,
) -> bool {
    let in_time = state.deadline.is_none_or(|deadline| now <= deadline);
    let good = |keep: Nanotons| {
        voucher.is_some_and(|(voucher, claim)| {
            let cumulative = voucher.voucher.cumulative;
            let genuine = !matches!(claim, Claim::Forged(_));
            let new = cumulative > state.paid && cumulative <= state.limit;
            genuine && in_time && new && cumulative - state.paid + keep + state.fee_waiting() <= state.balance
        })
    };
    match act {
        Act::TopUp(_) => true,
        Act::Settle(_) => who == Who::Payee && good(SETTLE_RESERVE),
        Act::Authorize(share) => who == Who::Payer && limit_of(*share) > state.limit,
        Act::StartClose => who == Who::Payer && state.deadline.is_none(),
        Act::FinishClose => state.deadline.is_some_and(|deadline| now > deadline) && value >= 3_000_000,
        Act::Close(claim) => who == Who::Payee && (claim.is_none() || good(0)),
        Act::Collect => state.fee_waiting() > 0,
        Act::Open | Act::Nonsense(_) | Act::Wait(_) => false,
    }
}

fn check(
    world: &World,
    model: &mut Model,
    before: &State,
    after: Option<State>,
    aborted: bool,
    voucher: Option<SignedVoucher>,
    value: Nanotons,
) -> Result<(), TestCaseError> {
    let claimed = voucher.filter(|_| !aborted).map(|voucher| voucher.voucher.cumulative);
    let paid = claimed.unwrap_or(before.paid);
    prop_assert!(paid >= model.best_paid, "what is paid only grows");
    model.best_paid = paid;
    prop_assert!(paid <= model.put_in, "no more is paid than was put in");
    prop_assert!(paid <= model.limit, "no more is paid than the payer's wallet authorized");
    let fees = world.network_fees(&model.terms);
    match after {
        None => {
            model.closed = true;
            prop_assert_eq!(fees, model.terms.network_fee(paid), "no channel ends without the network's fee");
            prop_assert_eq!(world.balance(&model.terms.address()), 0, "nothing is stuck");
        }
        Some(after) => {
            prop_assert_eq!((after.paid, after.limit), (paid, model.limit));
            prop_assert_eq!(after.collected, fees, "the treasury received what the contract says");
            prop_assert_eq!(&after.terms, &model.terms);
            // What left: the payee's part, and what was collected.
            let due = paid - before.paid + before.fee_waiting() - after.fee_waiting();
            // Rent aside, the contract gives what is due and nothing else; what is attached at most adds to it.
            let rent_bound = 10_000_000;
            prop_assert!(after.balance + due + rent_bound >= before.balance);
            prop_assert!(after.balance + due <= before.balance + value);
        }
    }
    Ok(())
}

fn sign(world: &World, model: &Model, state: Option<&State>, claim: &Claim) -> SignedVoucher {
    let balance = state.map_or(DEPOSIT, |state| state.balance);
    let paid = state.map_or(0, |state| state.paid);
    match claim {
        Claim::Share(share) => world.voucher(&model.terms, (paid + balance) / 1000 * share),
        Claim::TooMuch(more) => world.voucher(&model.terms, paid + balance - SETTLE_RESERVE + more),
        Claim::OverLimit(more) => world.voucher(&model.terms, model.limit + 1 + more),
        Claim::Forged(share) => {
            let mut voucher = world.voucher(&model.terms, balance / 1000 * share + paid + 1);
            voucher.signature[0] ^= 1;
            voucher
        }
    }
}

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
