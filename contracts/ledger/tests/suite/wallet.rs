//! The official wallet codes (v4r2, v5r1) and our own (payout) run what this repository builds.

use cocoon_contracts::wallet::{self, SignedMessage, Transfer, Validity, WalletVersion, payout};
use cocoon_contracts::{Address, Cell, Nanotons, SigningKey, TON, VerifyingKey, message};
use cocoon_ledger::{Schedule, SubmitError, configuration, faucet_address};
use tycho_executor::{Executor, ExecutorInspector, ExecutorParams, ParsedConfig};
use tycho_types::models::AccountState;

use super::world::{Actor, NETWORK, World};

/// A wallet of one version, its seqno as the test counts it.
struct Payer {
    version: WalletVersion,
    key: SigningKey,
    address: Address,
    seqno: u32,
}

impl Payer {
    /// With 100 TON, and not deployed.
    fn funded(world: &mut World, version: WalletVersion) -> Self {
        let key = SigningKey::from_seed(&[9; 32]);
        let address = version.address(&key.public(), NETWORK);
        world.ledger.faucet(&address, 100 * TON).unwrap();
        world.block();
        Self { version, key, address, seqno: 0 }
    }

    fn sign(&self, now: u32, transfers: &[Transfer]) -> SignedMessage {
        let validity = Validity { seqno: self.seqno, valid_until: now + 60, deploy: self.seqno == 0 };
        self.version.sign(&self.key, NETWORK, validity, transfers).unwrap()
    }

    /// Pays, makes a block, and checks that the wallet counted.
    fn pay(&mut self, world: &mut World, transfers: &[Transfer]) -> SignedMessage {
        let signed = self.sign(world.now, transfers);
        world.ledger.submit(&message::encode(&signed.message)).unwrap();
        world.block();
        self.seqno += 1;
        assert_eq!(seqno(world, self), self.seqno);
        signed
    }
}

fn seqno(world: &World, payer: &Payer) -> u32 {
    let AccountState::Active(init) = world.ledger.account(&payer.address).expect("it is there").state else {
        panic!("the wallet is deployed")
    };
    assert_eq!(init.code.expect("code").repr_hash().0, payer.version.code_hash());
    payer.version.seqno(&init.data.expect("data")).expect("wallet data")
}

fn to(address: Address, amount: u64) -> Transfer {
    Transfer { to: address, amount, bounce: false, body: None, state_init: None }
}

/// People without wallets: addresses alone.
fn people(count: u16) -> Vec<Address> {
    (0..count)
        .map(|i| {
            let mut hash = [0x77; 32];
            hash[..2].copy_from_slice(&i.to_be_bytes());
            message::basechain(hash)
        })
        .collect()
}

/// The exit code with which the wallet refuses a message; the ledger must refuse it too.
fn refused(world: &mut World, to: &Address, message: &Cell) -> Option<i32> {
    let error = world.ledger.submit(&message::encode(message)).expect_err("it is refused");
    assert!(matches!(error, SubmitError::NotAccepted(_)), "{error}");
    let config = configuration(NETWORK, Schedule::Mainnet2026).expect("our configuration");
    let config = ParsedConfig::parse(config, world.now).expect("our configuration");
    let params = ExecutorParams { block_unixtime: world.now, block_lt: 1 << 40, ..Default::default() };
    let account = world.ledger.shard_account(to).expect("the wallet is there");
    let mut inspector = ExecutorInspector::default();
    let outcome = Executor::new(&params, &config).check_ordinary_ext(
        to,
        message.clone(),
        account,
        Some(&mut inspector),
    );
    assert!(outcome.is_err());
    inspector.exit_code
}

#[test]
fn deploys_itself_pays_and_refuses_a_replay() {
    for (version, code) in
        [(WalletVersion::V4R2, 33), (WalletVersion::V5R1, 133), (WalletVersion::Payout, 0x500)]
    {
        let mut world = World::new();
        let mut payer = Payer::funded(&mut world, version);
        let friend = people(1).remove(0);
        let first = payer.pay(&mut world, &[to(friend.clone(), TON)]);
        assert_eq!(world.balance(&friend), TON);

        assert_eq!(
            refused(&mut world, &payer.address, &first.message),
            Some(code),
            "a replay with {version:?}"
        );
        payer.seqno = 2;
        let early = payer.sign(world.now, &[to(friend.clone(), TON)]);
        assert_eq!(
            refused(&mut world, &payer.address, &early.message),
            Some(code),
            "a number to come with {version:?}"
        );
        payer.seqno = 1;
        payer.pay(&mut world, &[to(friend.clone(), TON)]);
        assert_eq!(world.balance(&friend), 2 * TON);
    }
}

#[test]
fn every_transfer_of_a_full_message_arrives_in_order() {
    let versions = [
        (WalletVersion::V4R2, [1, 3, 4]),
        (WalletVersion::V5R1, [1, 50, 255]),
        (WalletVersion::Payout, [1, 50, 255]),
    ];
    for (version, counts) in versions {
        for count in counts {
            let mut world = World::new();
            let mut payer = Payer::funded(&mut world, version);
            let people = people(count);
            let amounts = (1..).map(|i| 10_000_000 + i);
            let transfers: Vec<_> = people.iter().cloned().zip(amounts).map(|(a, n)| to(a, n)).collect();
            payer.pay(&mut world, &transfers);
            let mut before = 0;
            for transfer in &transfers {
                assert_eq!(world.balance(&transfer.to), transfer.amount, "{count} with {version:?}");
                let arrived = world.ledger.history(&transfer.to, 2).expect("history");
                assert!(arrived[0].lt > before, "the first transfer is sent first");
                before = arrived[0].lt;
            }
        }
    }
}

#[test]
fn refuses_expired_messages_other_signers_and_other_wallets() {
    for (version, expired) in
        [(WalletVersion::V4R2, 36), (WalletVersion::V5R1, 136), (WalletVersion::Payout, 0x501)]
    {
        let mut world = World::new();
        let mut payer = Payer::funded(&mut world, version);
        let friend = to(people(1).remove(0), 1);
        payer.pay(&mut world, std::slice::from_ref(&friend));

        let late = payer.sign(world.now - 61, std::slice::from_ref(&friend));
        assert_eq!(
            refused(&mut world, &payer.address, &late.message),
            Some(expired),
            "an expired message with {version:?}"
        );

        // A good message whose signature or content has one flipped bit.
        let good = message::encode(&payer.sign(world.now, &[friend]).message);
        for at in 0..good.len() {
            let mut flipped = good.clone();
            flipped[at] ^= 1;
            assert!(world.ledger.submit(&flipped).is_err(), "byte {at} may not be flipped");
        }
    }
}

#[test]
fn a_message_of_another_network_is_refused_by_the_wallet_itself() {
    let mut world = World::new();
    let mut payer = Payer::funded(&mut world, WalletVersion::V5R1);
    let friend = to(people(1).remove(0), 1);
    payer.pay(&mut world, std::slice::from_ref(&friend));
    // Signed for the mainnet's wallet of this key, and sent to the one of this network.
    let validity = Validity { seqno: 1, valid_until: world.now + 60, deploy: false };
    let foreign = WalletVersion::V5R1.sign(&payer.key, -239, validity, &[friend]).unwrap();
    let redirected = redirect(&foreign, &payer.address);
    assert_eq!(refused(&mut world, &payer.address, &redirected), Some(134), "invalid wallet id");
}

#[test]
fn a_payout_order_is_for_one_network_and_for_an_hour_at_most() {
    let mut world = World::new();
    let mut payer = Payer::funded(&mut world, WalletVersion::Payout);
    let friend = [to(people(1).remove(0), 1)];
    payer.pay(&mut world, &friend);
    let now = world.now;
    for (network, valid_until, code) in [
        (-239, now + 60, Some(0x503)),
        (NETWORK, now + payout::MAX_VALID_SECONDS + 1, Some(0x502)),
        (NETWORK, now - 1, Some(0x501)),
    ] {
        let validity = Validity { seqno: 1, valid_until, deploy: false };
        let signed = payer.version.sign(&payer.key, network, validity, &friend).unwrap();
        let found = refused(&mut world, &payer.address, &signed.message);
        assert_eq!(
            found,
            code,
            "network {network}, valid until now {:+}",
            i64::from(valid_until) - i64::from(now)
        );
    }
    for valid_until in [now, now + payout::MAX_VALID_SECONDS] {
        let validity = Validity { seqno: 1, valid_until, deploy: false };
        let signed = payer.version.sign(&payer.key, NETWORK, validity, &friend).unwrap();
        world.ledger.submit(&message::encode(&signed.message)).expect("at the bounds it is valid");
    }
}

/// The same signed body, addressed to another account: what a relayer can do.
fn redirect(signed: &SignedMessage, address: &Address) -> Cell {
    use tycho_types::models::{MsgInfo, OwnedMessage};
    let mut message = signed.message.parse::<OwnedMessage>().expect("a message");
    let MsgInfo::ExtIn(info) = &mut message.info else { panic!("it is external") };
    info.dst = address.clone().into();
    tycho_types::cell::CellBuilder::build_from(message).expect("a message")
}

#[test]
fn the_wallet_keeps_what_one_unpayable_transfer_asks() {
    // The second of three asks for more than there is: the others arrive.
    for version in WalletVersion::ALL {
        let mut world = World::new();
        let mut payer = Payer::funded(&mut world, version);
        let people = people(3);
        let amounts = [TON, 1000 * TON, 2 * TON];
        let transfers: Vec<_> = people.iter().cloned().zip(amounts).map(|(a, n)| to(a, n)).collect();
        payer.pay(&mut world, &transfers);
        let balances: Vec<Nanotons> = people.iter().map(|a| world.balance(a)).collect();
        assert_eq!(balances, [TON, 0, 2 * TON], "{version:?}");
    }
}

/// What the payer of a batch gives beyond what arrives, for each payout: nanotons under a price list.
fn cost_per_payout(schedule: Schedule, version: WalletVersion, to_whom: &[Address]) -> Nanotons {
    let mut world = World::under(schedule);
    let mut payer = Payer::funded(&mut world, version);
    payer.pay(&mut world, &[to(people(1).remove(0), TON)]);
    let before = world.balance(&payer.address);
    let transfers: Vec<_> = to_whom.iter().map(|a| to(a.clone(), 50_000_000)).collect();
    payer.pay(&mut world, &transfers);
    let count = u64::try_from(to_whom.len()).unwrap();
    (before - count * 50_000_000 - world.balance(&payer.address)) / count
}

/// Of the 0.00016 TON that v5r1 pays for each recipient, 0.000067 is the forward fee's lump, 0.000044 the import of two cells,
/// and 0.000049 its gas (733), which the payout wallet does not spend. Equal transfers share a cell: v5r1 pays 0.000125.
#[test]
fn a_batched_payout_costs_what_the_network_asks_for_and_no_more() {
    println!("\nfees of the wallet for each payout, in TON");
    let cases = [
        ("v4r2 x 1", WalletVersion::V4R2, people(1)),
        ("v4r2 x 4", WalletVersion::V4R2, people(4)),
        ("v5r1 x 1", WalletVersion::V5R1, people(1)),
        ("v5r1 x 255", WalletVersion::V5R1, people(255)),
        ("payout x 1", WalletVersion::Payout, people(1)),
        ("payout x 255", WalletVersion::Payout, people(255)),
        ("v5r1 x 255 equal", WalletVersion::V5R1, vec![people(1).remove(0); 255]),
    ];
    for schedule in [Schedule::Mainnet2026, Schedule::Mainnet2025] {
        for (name, version, people) in &cases {
            let cost = cost_per_payout(schedule, *version, people);
            println!("  {:<14} {name:<18} 0.{cost:09}", schedule.name());
            if schedule == Schedule::Mainnet2026 {
                match *name {
                    "v5r1 x 255" => assert!(cost <= 160_000, "{cost} nanotons"),
                    "payout x 255" => assert!(cost <= 112_000, "{cost} nanotons"),
                    "v5r1 x 255 equal" => assert!(cost <= 126_000, "{cost} nanotons"),
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn the_address_of_a_key_depends_on_version_and_network() {
    let key: VerifyingKey = SigningKey::from_seed(&[9; 32]).public();
    let [five, four, payout] = WalletVersion::ALL.map(|version| version.address(&key, NETWORK));
    assert_ne!(five, four);
    assert_ne!(five, WalletVersion::V5R1.address(&key, -239));
    assert_eq!(four, WalletVersion::V4R2.address(&key, -239));
    assert_eq!(four, wallet::address(&key));
    assert_eq!(payout, WalletVersion::Payout.address(&key, -239));
    assert!(payout != four && payout != five);
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
