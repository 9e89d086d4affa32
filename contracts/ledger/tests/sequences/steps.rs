//! What a sequence is made of. A failing one shrinks to few of these; its Debug form is a script that can be read.

use cocoon_contracts::{Nanotons, TON, channel};
use cocoon_ledger::Schedule;
use proptest::collection::vec;
use proptest::prelude::*;

use super::bond::{BondAct, Said};
use super::channel::{ChannelAct, Claim};
use super::registry::{RegistryAct, Votes};
use super::world::Who;

/// How many channels there are at once.
pub(crate) const CHANNELS: usize = 3;

/// A sequence, and whether it runs under the older, dearer price list.
#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) dear: bool,
    pub(crate) steps: Vec<Step>,
}

impl Script {
    pub(crate) fn schedule(&self) -> Schedule {
        if self.dear { Schedule::Mainnet2025 } else { Schedule::Mainnet2026 }
    }
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "under {}:", self.schedule().name())?;
        self.steps.iter().enumerate().try_for_each(|(at, step)| writeln!(f, "  {at:>2}. {step:?}"))
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Tell(Who, What, Value, Sent),
    Wait(Wait),
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Channel(usize, ChannelAct),
    Bond(BondAct),
    Registry(RegistryAct),
}

/// What comes with a message.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value {
    /// What clients attach.
    Usual,
    /// So many nanotons: mostly too few.
    Nanotons(Nanotons),
}

/// How it is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    /// Comes back when it is refused.
    pub(crate) bounce: bool,
    /// Brings the contract's first code and data along, as for a deployment.
    pub(crate) init: bool,
}

/// Where the clock goes. Never back.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wait {
    Seconds(u32),
    /// To a channel's deadline, and so many seconds beyond.
    Deadline(usize, i8),
    /// To the bond's release.
    Release(i8),
    /// To the time from which the registry's announcement may be activated.
    Ready(i8),
    /// So long that rent is due.
    Year,
}

pub(crate) fn script() -> BoxedStrategy<Script> {
    let scenes = vec(scene(), 1..24);
    (prop::bool::weighted(0.2), scenes)
        .prop_map(|(dear, scenes)| Script { dear, steps: scenes.concat() })
        .boxed()
}

/// Mostly one step; sometimes a few that only mean something together, around the second in which a rule changes.
fn scene() -> BoxedStrategy<Vec<Step>> {
    prop_oneof![
        20 => step().prop_map(|step| vec![step]),
        1 => closing(),
        1 => releasing(),
        1 => announcing(),
    ]
    .boxed()
}

fn well(who: Who, what: What) -> Step {
    Step::Tell(who, what, Value::Usual, Sent { bounce: true, init: false })
}

/// A channel's payer starts to close, and somebody acts about the deadline.
fn closing() -> BoxedStrategy<Vec<Step>> {
    let act = prop_oneof![
        2 => Just(ChannelAct::FinishClose),
        1 => claim().prop_map(ChannelAct::Settle),
        1 => prop::option::of(claim()).prop_map(ChannelAct::Close),
    ];
    (0..CHANNELS, -1i8..=1, act)
        .prop_map(|(at, beyond, act)| {
            let (payer, payee) = if at == 1 { (Who::Payee, Who::Stranger) } else { (Who::Payer, Who::Payee) };
            let tell = |who, act| well(who, What::Channel(at, act));
            vec![
                tell(payer, ChannelAct::Open(Nanotons::MAX)),
                tell(payer, ChannelAct::StartClose),
                Step::Wait(Wait::Deadline(at, beyond)),
                tell(payee, act),
            ]
        })
        .boxed()
}

fn releasing() -> BoxedStrategy<Vec<Step>> {
    let act = prop_oneof![
        3 => Just(BondAct::Withdraw),
        1 => Just(BondAct::Forfeit { first: 1, number: 0, said: Said::Genuine }),
    ];
    (-1i8..=1, act)
        .prop_map(|(beyond, act)| {
            let tell = |act| well(Who::Payee, What::Bond(act));
            vec![tell(BondAct::Back), tell(BondAct::Unbond), Step::Wait(Wait::Release(beyond)), tell(act)]
        })
        .boxed()
}

fn announcing() -> BoxedStrategy<Vec<Step>> {
    (-1i8..=1)
        .prop_map(|beyond| {
            let tell = |act| well(Who::Stranger, What::Registry(act));
            let propose = RegistryAct::Propose(Votes::Enough, 1000);
            vec![tell(propose), Step::Wait(Wait::Ready(beyond)), tell(RegistryAct::Activate(0))]
        })
        .boxed()
}

fn step() -> BoxedStrategy<Step> {
    prop_oneof![
        10 => tell((0..CHANNELS, channel_act()).prop_map(|(at, act)| What::Channel(at, act)).boxed(), channel_who()),
        4 => tell(bond_act().prop_map(What::Bond).boxed(), bond_who()),
        3 => tell(registry_act().prop_map(What::Registry).boxed(), anybody()),
        4 => wait().prop_map(Step::Wait),
    ].boxed()
}

fn tell(what: BoxedStrategy<What>, who: BoxedStrategy<Who>) -> BoxedStrategy<Step> {
    let sent = (prop::bool::weighted(0.9), prop::bool::weighted(0.3));
    (who, what, value(), sent)
        .prop_map(|(who, what, value, (bounce, init))| Step::Tell(who, what, value, Sent { bounce, init }))
        .boxed()
}

fn anybody() -> BoxedStrategy<Who> {
    prop_oneof![Just(Who::Payer), Just(Who::Payee), Just(Who::Stranger)].boxed()
}

fn channel_who() -> BoxedStrategy<Who> {
    prop_oneof![3 => Just(Who::Payee), 3 => Just(Who::Payer), 1 => Just(Who::Stranger)].boxed()
}

fn bond_who() -> BoxedStrategy<Who> {
    prop_oneof![3 => Just(Who::Payee), 1 => Just(Who::Stranger)].boxed()
}

/// Underfunded, exact (the reserves and their neighbours), generous.
fn value() -> BoxedStrategy<Value> {
    const EXACT: &[Nanotons] = &[
        channel::OPEN_RESERVE - 1,
        channel::OPEN_RESERVE,
        channel::SETTLE_RESERVE,
        channel::CLOSE_VALUE - 1,
        channel::CLOSE_VALUE,
        TON - 1,
        TON,
    ];
    prop_oneof![
        8 => Just(Value::Usual),
        3 => (1u64..1_500_000).prop_map(Value::Nanotons),
        2 => prop::sample::select(EXACT).prop_map(Value::Nanotons),
        1 => (1u64..2 * TON).prop_map(Value::Nanotons),
    ]
    .boxed()
}

fn channel_act() -> BoxedStrategy<ChannelAct> {
    prop_oneof![
        3 => prop_oneof![2 => 0u64..TON, 1 => Just(Nanotons::MAX)].prop_map(ChannelAct::Open),
        2 => Just(ChannelAct::TopUp),
        8 => claim().prop_map(ChannelAct::Settle),
        1 => prop_oneof![Just(0), 1u64..2 * TON].prop_map(ChannelAct::Authorize),
        2 => Just(ChannelAct::StartClose),
        3 => Just(ChannelAct::FinishClose),
        1 => prop::option::of(claim()).prop_map(ChannelAct::Close),
        2 => Just(ChannelAct::Collect),
        1 => prop_oneof![Just(None), Just(Some(u32::MAX)), (0x4348_0009u32..).prop_map(Some)].prop_map(ChannelAct::Nonsense),
    ].boxed()
}

fn claim() -> BoxedStrategy<Claim> {
    prop_oneof![
        8 => (0u16..=1000).prop_map(Claim::Share),
        2 => (-1i8..=1).prop_map(Claim::Most),
        2 => (-1i8..=1).prop_map(Claim::Limit),
        2 => (-1i8..=1).prop_map(Claim::Paid),
        2 => any::<u8>().prop_map(Claim::Replay),
        2 => prop_oneof![
            Just(Claim::Forged),
            Just(Claim::Stolen),
            Just(Claim::Altered),
            Just(Claim::OtherNetwork),
            Just(Claim::OtherChannel),
            Just(Claim::OtherNonce),
        ],
    ]
    .boxed()
}

fn bond_act() -> BoxedStrategy<BondAct> {
    let said = || {
        prop_oneof![5 => Just(Said::Genuine), 1 => Just(Said::Forged), 1 => Just(Said::OtherBond), 1 => Just(Said::OtherNetwork)].boxed()
    };
    prop_oneof![
        3 => Just(BondAct::Back),
        1 => Just(BondAct::TopUp),
        4 => (0u64..6, said()).prop_map(|(epoch, said)| BondAct::Publish(epoch, said)),
        2 => Just(BondAct::Unbond),
        4 => Just(BondAct::Withdraw),
        2 => (0u8..2, 0u64..2, said()).prop_map(|(first, number, said)| BondAct::Forfeit { first, number, said }),
        1 => prop::option::of(0x424e_0007u32..).prop_map(BondAct::Nonsense),
    ].boxed()
}

fn registry_act() -> BoxedStrategy<RegistryAct> {
    prop_oneof![
        5 => (votes(), seconds()).prop_map(|(votes, until)| RegistryAct::Propose(votes, until)),
        2 => (votes(), seconds()).prop_map(|(votes, until)| RegistryAct::Cancel(votes, until)),
        3 => (-1i8..=1).prop_map(RegistryAct::Activate),
        1 => any::<u8>().prop_map(RegistryAct::Replay),
        1 => Just(RegistryAct::TopUp),
        1 => prop::option::of(0x5247_0005u32..).prop_map(RegistryAct::Nonsense),
    ]
    .boxed()
}

/// How long a decision is good for: some are over, some at their last second.
fn seconds() -> BoxedStrategy<i32> {
    prop_oneof![1 => -1i32..=0, 4 => 1i32..2000].boxed()
}

fn votes() -> BoxedStrategy<Votes> {
    prop_oneof![
        6 => Just(Votes::Enough),
        1 => Just(Votes::TooFew),
        1 => Just(Votes::Twice),
        1 => Just(Votes::Unknown),
        1 => Just(Votes::Forged),
    ]
    .boxed()
}

fn wait() -> BoxedStrategy<Wait> {
    prop_oneof![
        2 => (0u32..2000).prop_map(Wait::Seconds),
        4 => (0..CHANNELS, -1i8..=1).prop_map(|(at, off)| Wait::Deadline(at, off)),
        2 => (-1i8..=1).prop_map(Wait::Release),
        2 => (-1i8..=1).prop_map(Wait::Ready),
        1 => Just(Wait::Year),
    ]
    .boxed()
}
