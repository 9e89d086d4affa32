//! What a seed decides before anything happens: who is there, how bad the world is, and who is a villain.

use std::time::Duration;

use cocoon_contracts::Nanotons;
use cocoon_protocol::{Coefficient, Price};

use crate::dice::Dice;

/// Nanotons per million tokens: a frame of a few tokens costs about a tenth of a window.
const HOST_PRICE: Price = Price::new(400_000_000, 100_000_000, 20_000_000_000);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Client,
    Gateway,
    Host,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vice {
    /// A payer that signs nothing more from then on, and goes on asking.
    StopsPaying,
    /// A payer that starts to close on the chain while vouchers are out, and goes on asking.
    ClosesEarly,
    /// A payee that says it is owed more than it charged.
    Inflates,
    /// A payee that charges, and cuts before what it charged for is sent.
    ChargesAndCuts,
    /// A payee that ends its channels at once, each with the best voucher it has. No villain; its payers open others.
    Ends,
    /// The machine goes, and never comes back.
    Vanishes,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    pub(crate) role: Role,
    pub(crate) skew: i64,
    pub(crate) vice: Option<(Vice, Duration)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) members: Vec<Member>,
    pub(crate) length: Duration,
    pub(crate) window: Nanotons,
    pub(crate) challenge: u32,
    pub(crate) watch: Duration,
    pub(crate) settle_at: Nanotons,
    pub(crate) deposit: Nanotons,
    pub(crate) most: Nanotons,
    /// What session keys may sign: without a limit, or less than what may be deposited.
    pub(crate) limit: Nanotons,
    pub(crate) client_price: Price,
    pub(crate) host_price: Price,
    /// The chain's clock beside everybody's, in seconds.
    pub(crate) chain_skew: i64,
    /// Calls to the chain that never get there, or whose answer does not come back, in a thousand.
    pub(crate) chain_loss: u64,
    /// Reads that an endpoint answers with an older block, in a thousand.
    pub(crate) stale: u64,
    /// When the chain is away from everybody.
    pub(crate) outages: Vec<(Duration, Duration)>,
    /// Requests between members that are lost, late or doubled, and frames that break their stream, in a thousand.
    pub(crate) loss: u64,
    pub(crate) cut: u64,
    /// Writes at which a process dies, and those which fail, in a thousand.
    pub(crate) crash: u64,
    pub(crate) full: u64,
    /// Between the questions of one client, in seconds, at most.
    pub(crate) leisure: u64,
}

impl Plan {
    pub(crate) fn of(dice: &Dice) -> Self {
        let length = dice.seconds(2_400, 5_400);
        let window = *dice.pick(&[1_000_000, 2_000_000, 5_000_000]);
        let deposit = window * dice.between(8, 30);
        let most = deposit * 4;
        let challenge = u32::try_from(dice.between(1_800, 5_400)).expect("it is small");
        let host_price = HOST_PRICE
            .at(Coefficient::from_thousandths(u32::try_from(dice.between(600, 1_000)).expect("it is small")));
        let mut plan = Self {
            members: Vec::new(),
            length,
            window,
            challenge,
            watch: dice.seconds(60, u64::from(challenge) / 8),
            settle_at: window * dice.between(2, 12),
            deposit,
            most,
            limit: *dice.pick(&[Nanotons::MAX, most, deposit + deposit / 2]),
            client_price: HOST_PRICE.at(Coefficient::from_thousandths(1_100)),
            host_price,
            chain_skew: minutes(dice, 4),
            chain_loss: *dice.pick(&[0, 10, 50, 120]),
            stale: *dice.pick(&[0, 50, 300]),
            outages: outages(dice, length),
            loss: *dice.pick(&[0, 20, 100]),
            cut: *dice.pick(&[0, 10, 40]),
            crash: *dice.pick(&[0, 10, 40, 100]),
            full: *dice.pick(&[0, 0, 20]),
            leisure: dice.between(60, 500),
        };
        let groups = [(Role::Client, 1, 3), (Role::Gateway, 1, 2), (Role::Host, 1, 2)];
        for (role, least, most) in groups {
            for _ in 0..dice.between(least, most) {
                plan.members.push(Member { role, skew: minutes(dice, 2), vice: vice(dice, role, length) });
            }
        }
        plan
    }
}

/// A clock's error in seconds, either way; most are small.
fn minutes(dice: &Dice, most: u64) -> i64 {
    let seconds = if dice.chance(600) { dice.between(0, 3) } else { dice.between(0, most * 60) };
    let seconds = i64::try_from(seconds).expect("it is small");
    if dice.chance(500) { seconds } else { -seconds }
}

fn outages(dice: &Dice, length: Duration) -> Vec<(Duration, Duration)> {
    let last = length.as_secs() - 1;
    let one = |_| {
        let from = dice.seconds(60, last);
        let most = if dice.chance(300) { 3_600 } else { 400 };
        (from, from + dice.seconds(10, most))
    };
    (0..*dice.pick(&[0, 1, 3])).map(one).collect()
}

fn vice(dice: &Dice, role: Role, length: Duration) -> Option<(Vice, Duration)> {
    if !dice.chance(250) {
        return None;
    }
    let vice = match role {
        Role::Client => {
            *dice.pick(&[Vice::StopsPaying, Vice::ClosesEarly, Vice::ClosesEarly, Vice::Vanishes])
        }
        Role::Gateway => *dice.pick(&[Vice::Inflates, Vice::Ends, Vice::Vanishes]),
        Role::Host => *dice.pick(&[Vice::Inflates, Vice::ChargesAndCuts, Vice::Ends, Vice::Vanishes]),
    };
    Some((vice, dice.seconds(30, length.as_secs() / 2)))
}
