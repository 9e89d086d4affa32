//! The registry: nothing counts before enough owners announced it and it has waited.

use cocoon_contracts::registry::{
    self, Approval, CHANGE_VALUE, Change, Coefficients, Content, DEPLOY_VALUE, Deployment, Gateway, Image,
    Measurements, Model, Owners, PlatformId, PlatformKind, Prices, Registry, Status, TdxRegisters,
};
use cocoon_contracts::{Address, Cell, SigningKey, message};
use tycho_types::models::AccountState;

use super::world::{NETWORK, Who, World, deploying, to_contract};

const DELAY: u32 = 3600;
const REQUIRED: u8 = 3;
const OWNERS: u8 = 5;

/// The owners' keys, by their numbers.
fn keys() -> Vec<SigningKey> {
    let mut keys: Vec<_> = (0..OWNERS).map(|number| SigningKey::from_seed(&[100 + number; 32])).collect();
    keys.sort_by_key(SigningKey::public);
    keys
}

fn owners() -> Owners {
    Owners::new(REQUIRED, keys().iter().map(SigningKey::public)).unwrap()
}

fn content(world: &World, fee_bps: u16) -> Content {
    let image = |i: u8| Image {
        name: format!("guest image {i}"),
        profile: format!("machine {i}"),
        status: Status::Allowed,
        measurements: match i % 2 {
            0 => Measurements::Tdx(Box::new(TdxRegisters { mrtd: [i; 48], rtmr: [[i; 48]; 4] })),
            _ => Measurements::Snp { launch: [i; 48] },
        },
        configuration: (i.is_multiple_of(2)).then_some([i; 32]),
    };
    Content {
        coefficients: Coefficients { min_permille: 500, max_permille: 4000 },
        images: (0..40).map(image).collect(),
        models: vec![Model {
            name: "demo".into(),
            status: Status::Allowed,
            weights: [9; 32],
            prices: Prices { prompt: 10, cached: 5, completion: 20 },
        }],
        gateways: vec![Gateway {
            name: "first".into(),
            status: Status::Allowed,
            address: world.payee.address.clone(),
        }],
        barred: vec![PlatformId { kind: PlatformKind::Chip, id: vec![7; 64] }],
        ..Content::empty(fee_bps, world.treasury.address.clone())
    }
}

fn deployed(world: &mut World) -> Address {
    let deployment = Deployment { owners: owners(), delay: DELAY, salt: 1, content: content(world, 500) };
    let address = deployment.address().unwrap();
    let transfer = to_contract(&address, DEPLOY_VALUE, registry::top_up_body());
    let tx = world.send(Who::Stranger, deploying(transfer, deployment.state_init().unwrap()));
    assert_eq!((tx.exit_code, tx.aborted), (Some(0), false));
    address
}

fn read(world: &World, address: &Address) -> Registry {
    let AccountState::Active(init) = world.ledger.account(address).expect("it exists").state else {
        panic!("the registry is not active")
    };
    Registry::parse(&init.data.unwrap()).unwrap()
}

fn tell(world: &mut World, address: &Address, body: Cell) -> Option<i32> {
    world.send(Who::Stranger, to_contract(address, CHANGE_VALUE, body)).exit_code
}

fn approved(mut approval: Approval, signers: &[usize]) -> Approval {
    let keys = keys();
    signers.iter().for_each(|number| approval.sign(&keys[*number]).unwrap());
    approval
}

fn proposal(world: &World, address: &Address, fee_bps: u16, signers: &[usize]) -> Approval {
    let change = Change { owners: owners(), content: content(world, fee_bps) };
    let until = world.now + 10_000;
    let registry = read(world, address);
    approved(Approval::to_propose(NETWORK, address, &registry, change, until).unwrap(), signers)
}

fn propose(world: &mut World, address: &Address, fee_bps: u16) {
    let body = proposal(world, address, fee_bps, &[0, 2, 4]).body().unwrap();
    assert_eq!(tell(world, address, body), Some(0));
}

fn cancellation(world: &World, address: &Address, signers: &[usize]) -> Cell {
    let registry = read(world, address);
    let approval = Approval::to_cancel(NETWORK, address, &registry, world.now + 10_000).unwrap();
    approved(approval, signers).body().unwrap()
}

#[test]
fn begins_with_what_it_was_deployed_with() {
    let mut world = World::new();
    let address = deployed(&mut world);
    let registry = read(&world, &address);
    assert_eq!((registry.version, registry.delay, registry.proposals), (1, DELAY, 0));
    assert_eq!((&registry.content, &registry.owners), (&content(&world, 500), &owners()));
    assert_eq!(registry.proposal, None);
    assert_eq!(
        (registry.images().count(), registry.models().count(), registry.gateways().count()),
        (40, 1, 1)
    );
}

#[test]
fn a_change_is_announced_waits_and_then_anyone_makes_it_count() {
    let mut world = World::new();
    let address = deployed(&mut world);
    propose(&mut world, &address, 700);
    let announced = read(&world, &address);
    assert_eq!((announced.version, announced.content.fee_bps), (1, 500), "announced is not in force");
    let waiting = announced.proposal.unwrap();
    let next = content(&world, 700);
    assert_eq!(waiting.ready_at, world.now + DELAY);
    assert_eq!(waiting.change, Ok(Change { owners: owners(), content: next.clone() }));

    // Not to be swapped for another while it waits, nor made to count early.
    let other = proposal(&world, &address, 800, &[0, 1, 2, 3, 4]).body().unwrap();
    assert_eq!(tell(&mut world, &address, other), Some(0x201));
    world.now = waiting.ready_at - 1;
    assert_eq!(tell(&mut world, &address, registry::activate_body(1)), Some(0x203));
    world.now = waiting.ready_at;
    assert_eq!(tell(&mut world, &address, registry::activate_body(2)), Some(0x202));
    assert_eq!(tell(&mut world, &address, registry::activate_body(1)), Some(0));
    let registry = read(&world, &address);
    assert_eq!((registry.version, registry.content, registry.proposal), (2, next, None));
    assert_eq!(tell(&mut world, &address, registry::activate_body(2)), Some(0x202));
}

/// As much as one message of a wallet carries: it can be announced and activated for the value that is attached, and the
/// coins of a deployment keep it from freezing for a year, and its announcement with it.
#[test]
fn the_largest_registry_is_changed_and_outlives_a_year() {
    let large = |world: &World, fee_bps| Content {
        barred: (0..620u32)
            .map(|number| PlatformId { kind: PlatformKind::Chip, id: [number.to_be_bytes(); 16].concat() })
            .collect(),
        ..content(world, fee_bps)
    };
    let mut world = World::new();
    let address = deployed(&mut world);
    for version in [1, 2] {
        let change =
            Change { owners: owners(), content: large(&world, 500 + u16::try_from(version).unwrap()) };
        let registry = read(&world, &address);
        let until = world.now + 10_000;
        let approval = Approval::to_propose(NETWORK, &address, &registry, change, until).unwrap();
        let body = approved(approval, &[0, 1, 2, 3, 4]).body().unwrap();
        let length = message::encode(&body).len();
        assert!(length > 56_000, "{length} bytes are not nearly what a message carries");
        assert_eq!(tell(&mut world, &address, body), Some(0));
        if version == 1 {
            world.now += DELAY;
            assert_eq!(tell(&mut world, &address, registry::activate_body(version)), Some(0));
        }
    }
    // Twice that large now: what is in force, and what is announced.
    let before = world.balance(&address);
    world.now += 365 * 24 * 3600;
    assert_eq!(tell(&mut world, &address, registry::activate_body(2)), Some(0));
    let rent = before - world.balance(&address);
    println!("a year's rent of two contents of 660 entries: {rent} nanotons");
    assert!(rent < DEPLOY_VALUE * 3 / 4, "{rent}");
    assert_eq!(read(&world, &address).version, 3);
}

#[test]
fn a_blocking_minority_takes_an_announcement_back_and_it_cannot_be_replayed() {
    let mut world = World::new();
    let address = deployed(&mut world);
    let first = proposal(&world, &address, 600, &[0, 2, 4]);
    assert_eq!(tell(&mut world, &address, first.body().unwrap()), Some(0));
    // 5 - 3 + 1 = 3 suffice: what is left of the others is no majority.
    let cancel = cancellation(&world, &address, &[1, 3, 4]);
    assert_eq!(tell(&mut world, &address, cancel.clone()), Some(0));
    let registry = read(&world, &address);
    assert_eq!((registry.version, registry.proposals, registry.proposal), (1, 1, None));
    world.now += DELAY;
    assert_eq!(tell(&mut world, &address, registry::activate_body(1)), Some(0x202));
    assert_eq!(tell(&mut world, &address, cancel.clone()), Some(0x202), "nothing is there to be taken back");

    // The old signatures are worth nothing: neither those that announced, nor those that took back.
    assert_eq!(tell(&mut world, &address, first.body().unwrap()), Some(0x20a));
    propose(&mut world, &address, 600);
    assert_eq!(tell(&mut world, &address, cancel), Some(0x20a));
    assert_eq!(read(&world, &address).proposal.unwrap().ready_at, world.now + DELAY, "it waits anew");
}

#[test]
fn too_few_owners_decide_nothing() {
    let mut world = World::new();
    let address = deployed(&mut world);
    assert!(proposal(&world, &address, 600, &[0, 1]).body().is_err(), "the client does not build it");
    let (registry, change) = (read(&world, &address), change(&world));
    let two = raw::propose(&raw::decision(&world, &address, &registry, 1, &change), &change, &[0, 1]);
    assert_eq!(tell(&mut world, &address, two), Some(0x200));
    propose(&mut world, &address, 600);
    let registry = read(&world, &address);
    let waiting = raw::change(owners_cell(REQUIRED, OWNERS, &public_keys()), &content(&world, 600));
    let two = raw::cancel(&raw::decision(&world, &address, &registry, 2, &waiting), &[0, 1]);
    assert_eq!(tell(&mut world, &address, two), Some(0x200));
    let three = raw::cancel(&raw::decision(&world, &address, &registry, 2, &waiting), &[0, 1, 2]);
    assert_eq!(tell(&mut world, &address, three), Some(0), "and the test's own cell is the contract's");
}

#[test]
fn nobody_counts_twice_and_nobody_else_counts() {
    let mut world = World::new();
    let address = deployed(&mut world);
    let (registry, change) = (read(&world, &address), change(&world));
    let decision = raw::decision(&world, &address, &registry, 1, &change);
    for (signers, expected) in [
        (&[0, 0, 1][..], 0x208),
        (&[0, 2, 1], 0x208),
        (&[4, 4, 4], 0x208),
        (&[0, 1, 5], 0x209),
        (&[255], 0x209),
        (&[1, 2, 3, 4], 0),
    ] {
        let body = raw::propose(&decision, &change, signers);
        assert_eq!(tell(&mut world, &address, body), Some(expected), "{signers:?}");
    }
}

#[test]
fn a_signature_is_for_one_decision_of_one_registry() {
    let mut world = World::new();
    let address = deployed(&mut world);
    let (registry, change) = (read(&world, &address), change(&world));
    let good = raw::decision(&world, &address, &registry, 1, &change);
    let flips: [fn(&mut raw::Decision); 7] = [
        |it| it.network += 1,
        |it| it.registry.address.0[0] ^= 1,
        |it| it.version += 1,
        |it| it.proposals += 1,
        |it| it.action = 2,
        |it| it.subject[31] ^= 1,
        |it| it.tag ^= 1,
    ];
    for (at, flip) in flips.into_iter().enumerate() {
        let mut other = good.clone();
        flip(&mut other);
        let body = raw::propose(&other, &change, &[0, 1, 2]);
        assert_eq!(tell(&mut world, &address, body), Some(0x20a), "flip {at}");
    }
    let mut later = good.clone();
    later.valid_until += 1;
    let body = raw::propose_until(&later, good.valid_until, &change, &[0, 1, 2]);
    assert_eq!(tell(&mut world, &address, body), Some(0x20a), "the time is signed too");
    // Up to its last second, and not one longer.
    for (valid_until, expected) in [(world.now - 1, 0x207), (world.now, 0)] {
        let body = raw::propose(&raw::Decision { valid_until, ..good.clone() }, &change, &[0, 1, 2]);
        assert_eq!(tell(&mut world, &address, body), Some(expected));
    }
}

#[test]
fn ownership_is_handed_over_like_any_change() {
    let mut world = World::new();
    let address = deployed(&mut world);
    let heir = SigningKey::from_seed(&[42; 32]);
    let change = Change { owners: Owners::new(1, [heir.public()]).unwrap(), content: content(&world, 500) };
    let registry = read(&world, &address);
    let until = world.now + 10_000;
    let approval = Approval::to_propose(NETWORK, &address, &registry, change.clone(), until).unwrap();
    assert_eq!(tell(&mut world, &address, approved(approval, &[0, 1, 2]).body().unwrap()), Some(0));
    assert_eq!(read(&world, &address).owners, owners());
    world.now += DELAY;
    assert_eq!(tell(&mut world, &address, registry::activate_body(1)), Some(0));
    let registry = read(&world, &address);
    assert_eq!(registry.owners, change.owners);
    let old = proposal_by(&world, &address, &keys()[..3]);
    assert_eq!(tell(&mut world, &address, old), Some(0x20a), "who owned it before owns it no more");
    let new = proposal_by(&world, &address, &[heir]);
    assert_eq!(tell(&mut world, &address, new), Some(0));
}

fn proposal_by(world: &World, address: &Address, keys: &[SigningKey]) -> Cell {
    let (registry, change) = (read(world, address), change(world));
    let decision = raw::decision(world, address, &registry, 1, &change);
    let signatures =
        keys.iter().enumerate().map(|(at, key)| (u8::try_from(at).unwrap(), key.sign(&decision.hash())));
    raw::propose_signed(decision.valid_until, &change, &signatures.collect::<Vec<_>>())
}

#[test]
fn content_outside_its_bounds_cannot_even_be_announced() {
    let mut world = World::new();
    let address = deployed(&mut world);
    let most = registry::MAX_FEE_BPS;
    for (format, fee, workchain, min, max, expected) in [
        (2, most, 0, 500, 100_000, 0),
        (1, most, 0, 500, 4000, 0x204),
        (2, most + 1, 0, 500, 4000, 0x204),
        (2, most, -1, 500, 4000, 0x204),
        (2, most, 0, 0, 4000, 0x204),
        (2, most, 0, 4001, 4000, 0x204),
        (2, most, 0, 500, 100_001, 0x204),
    ] {
        let content = raw::content(format, fee, workchain, min, max);
        let change = raw::change_of(owners_cell(REQUIRED, OWNERS, &public_keys()), content);
        let decision = raw::decision(&world, &address, &read(&world, &address), 1, &change);
        let body = raw::propose(&decision, &change, &[0, 1, 2]);
        let row = (format, fee, workchain, min, max);
        assert_eq!(tell(&mut world, &address, body), Some(expected), "{row:?}");
        if expected == 0 {
            // The contract reads the head alone. What we cannot read does not hide what is in force.
            let registry = read(&world, &address);
            assert!(registry.proposal.unwrap().change.is_err());
            let cancel = cancellation(&world, &address, &[0, 1, 2]);
            assert_eq!(tell(&mut world, &address, cancel), Some(0));
        }
    }
}

#[test]
fn owners_that_prove_nothing_cannot_even_be_announced() {
    let mut world = World::new();
    let address = deployed(&mut world);
    let identity: [u8; 32] = std::array::from_fn(|at| u8::from(at == 0));
    let good = public_keys();
    let with = |key: [u8; 32]| {
        let mut keys = vec![key];
        keys.extend(good.iter().copied().filter(|other| *other > key));
        keys
    };
    let (mut twice, mut swapped) = (good.clone(), good.clone());
    twice[1] = twice[0];
    swapped.swap(0, 1);
    let many: Vec<[u8; 32]> = (1..=17).map(|byte| [byte; 32]).collect();
    for (what, required, count, keys, expected) in [
        ("sound", 3, 5, good.clone(), 0),
        ("nobody", 0, 0, vec![], 0x206),
        ("none required", 0, 5, good.clone(), 0x206),
        ("more required than there are", 6, 5, good.clone(), 0x206),
        ("fewer keys than counted", 3, 6, good.clone(), 0x206),
        ("more keys than counted", 3, 4, good.clone(), 0x206),
        ("one key twice", 3, 5, twice, 0x206),
        ("not ascending", 3, 5, swapped, 0x206),
        ("the zero key", 1, 6, with([0; 32]), 0x206),
        ("the identity", 1, u8::try_from(with(identity).len()).unwrap(), with(identity), 0x206),
        ("too many", 1, 17, many, 0x206),
    ] {
        let change = raw::change(owners_cell(required, count, &keys), &content(&world, 500));
        let decision = raw::decision(&world, &address, &read(&world, &address), 1, &change);
        let body = raw::propose(&decision, &change, &[0, 1, 2]);
        assert_eq!(tell(&mut world, &address, body), Some(expected), "{what}");
        if expected == 0 {
            let cancel = cancellation(&world, &address, &[0, 1, 2]);
            assert_eq!(tell(&mut world, &address, cancel), Some(0));
        }
    }
}

#[test]
fn a_registry_with_terms_that_prove_nothing_is_not_deployed() {
    let mut world = World::new();
    let good = content(&world, 500).to_cell().unwrap();
    let owners = owners_cell(REQUIRED, OWNERS, &public_keys());
    for (version, delay, owners, content, expected) in [
        (1, 0, owners.clone(), good.clone(), 0x205),
        (1, registry::MAX_DELAY_SECONDS + 1, owners.clone(), good.clone(), 0x205),
        (0, DELAY, owners.clone(), good.clone(), 0x205),
        (1, DELAY, owners_cell(6, OWNERS, &public_keys()), good.clone(), 0x206),
        (1, DELAY, owners.clone(), raw::content(1, 500, 0, 1, 1), 0x204),
        (1, registry::MAX_DELAY_SECONDS, owners, good, 0),
    ] {
        let init = raw::state_init(version, delay, owners, content);
        let cell = tycho_types::cell::CellBuilder::build_from(&init).unwrap();
        let address = Address::new(0, *cell.repr_hash());
        let transfer = to_contract(&address, DEPLOY_VALUE, registry::top_up_body());
        let tx = world.send(Who::Stranger, deploying(transfer, init));
        assert_eq!(tx.exit_code, Some(expected), "{version} {delay}");
    }
    let deployment = Deployment { owners: self::owners(), delay: 0, salt: 1, content: content(&world, 500) };
    assert!(deployment.address().is_err());
}

#[test]
fn messages_that_are_none_of_a_registrys_bounce() {
    let mut world = World::new();
    let address = deployed(&mut world);
    let before = read(&world, &address);
    for body in [raw::op(0x5247_0005), Cell::default()] {
        assert_eq!(tell(&mut world, &address, body), Some(0xffff));
    }
    assert_eq!(read(&world, &address), before);
}

#[test]
fn what_is_not_used_of_a_change_comes_back() {
    let mut world = World::new();
    let address = deployed(&mut world);
    let held = world.balance(&address);
    let before = world.balance(&world.stranger.address);
    propose(&mut world, &address, 500);
    assert_eq!(world.balance(&address), held);
    let spent = before - world.balance(&world.stranger.address);
    println!("a proposal of 43 entries costs {spent} nanotons with the wallet's part");
    assert!(spent < 30_000_000);
}

fn public_keys() -> Vec<[u8; 32]> {
    keys().iter().map(SigningKey::public).collect()
}

fn owners_cell(required: u8, count: u8, keys: &[[u8; 32]]) -> Cell {
    raw::owners(required, count, keys)
}

fn change(world: &World) -> Cell {
    raw::change(owners_cell(REQUIRED, OWNERS, &public_keys()), &content(world, 650))
}

/// The contract's cells built by hand: what the library would refuse to build, and a second opinion on what it builds.
mod raw {
    use cocoon_contracts::registry::{Content, Registry};
    use cocoon_contracts::{Address, Cell};
    use tycho_types::cell::{CellBuilder, CellFamily as _, HashBytes, Store as _};
    use tycho_types::dict::Dict;
    use tycho_types::models::StateInit;

    use super::super::world::{NETWORK, World};

    #[derive(Clone)]
    pub(super) struct Decision {
        pub(super) tag: u32,
        pub(super) network: i32,
        pub(super) registry: Address,
        pub(super) version: u32,
        pub(super) proposals: u32,
        pub(super) action: u8,
        pub(super) subject: [u8; 32],
        pub(super) valid_until: u32,
    }

    impl Decision {
        pub(super) fn hash(&self) -> [u8; 32] {
            let cell = build(|b| {
                b.store_u32(self.tag).unwrap();
                b.store_u32(self.network.cast_unsigned()).unwrap();
                self.registry.store_into(b, Cell::empty_context()).unwrap();
                b.store_u32(self.version).unwrap();
                b.store_u32(self.proposals).unwrap();
                b.store_u8(self.action).unwrap();
                b.store_u256(&HashBytes(self.subject)).unwrap();
                b.store_u32(self.valid_until).unwrap();
            });
            cell.repr_hash().0
        }
    }

    pub(super) fn build(store: impl FnOnce(&mut CellBuilder)) -> Cell {
        let mut builder = CellBuilder::new();
        store(&mut builder);
        builder.build().unwrap()
    }

    pub(super) fn op(op: u32) -> Cell {
        build(|b| b.store_u32(op).unwrap())
    }

    pub(super) fn decision(
        world: &World,
        address: &Address,
        registry: &Registry,
        action: u8,
        change: &Cell,
    ) -> Decision {
        Decision {
            tag: 0x5247_4101,
            network: NETWORK,
            registry: address.clone(),
            version: registry.version,
            proposals: registry.proposals,
            action,
            subject: change.repr_hash().0,
            valid_until: world.now + 10_000,
        }
    }

    pub(super) fn owners(required: u8, count: u8, keys: &[[u8; 32]]) -> Cell {
        let mut list = Dict::<u8, HashBytes>::new();
        for (number, key) in (0u8..).zip(keys) {
            list.set(number, HashBytes(*key)).unwrap();
        }
        build(|b| {
            b.store_u8(required).unwrap();
            b.store_u8(count).unwrap();
            list.store_into(b, Cell::empty_context()).unwrap();
        })
    }

    pub(super) fn content(format: u8, fee: u16, workchain: i8, min: u32, max: u32) -> Cell {
        build(|b| {
            b.store_u8(format).unwrap();
            b.store_u16(fee).unwrap();
            Address::new(workchain, HashBytes([3; 32])).store_into(b, Cell::empty_context()).unwrap();
            b.store_u32(min).unwrap();
            b.store_u32(max).unwrap();
        })
    }

    pub(super) fn change(owners: Cell, content: &Content) -> Cell {
        change_of(owners, content.to_cell().unwrap())
    }

    pub(super) fn change_of(owners: Cell, content: Cell) -> Cell {
        build(|b| {
            b.store_reference(owners).unwrap();
            b.store_reference(content).unwrap();
        })
    }

    fn signed(decision: &Decision, signers: &[u8]) -> Vec<(u8, [u8; 64])> {
        let keys = super::keys();
        let sign = |number: &u8| (*number, keys[usize::from(*number) % keys.len()].sign(&decision.hash()));
        signers.iter().map(sign).collect()
    }

    fn approvals(signatures: &[(u8, [u8; 64])]) -> Cell {
        let chained = signatures.iter().rev().fold(None, |next: Option<Cell>, (number, signature)| {
            Some(build(|b| {
                b.store_u8(*number).unwrap();
                b.store_raw(signature, 512).unwrap();
                next.store_into(b, Cell::empty_context()).unwrap();
            }))
        });
        chained.unwrap()
    }

    pub(super) fn propose(decision: &Decision, change: &Cell, signers: &[u8]) -> Cell {
        propose_until(decision, decision.valid_until, change, signers)
    }

    pub(super) fn propose_until(decision: &Decision, until: u32, change: &Cell, signers: &[u8]) -> Cell {
        propose_signed(until, change, &signed(decision, signers))
    }

    pub(super) fn propose_signed(until: u32, change: &Cell, signatures: &[(u8, [u8; 64])]) -> Cell {
        build(|b| {
            b.store_u32(0x5247_0001).unwrap();
            b.store_u32(until).unwrap();
            b.store_reference(change.clone()).unwrap();
            b.store_reference(approvals(signatures)).unwrap();
        })
    }

    pub(super) fn cancel(decision: &Decision, signers: &[u8]) -> Cell {
        build(|b| {
            b.store_u32(0x5247_0002).unwrap();
            b.store_u32(decision.valid_until).unwrap();
            b.store_reference(approvals(&signed(decision, signers))).unwrap();
        })
    }

    pub(super) fn state_init(version: u32, delay: u32, owners: Cell, content: Cell) -> StateInit {
        let data = build(|b| {
            b.store_u32(version).unwrap();
            b.store_u32(delay).unwrap();
            b.store_u64(9).unwrap();
            b.store_u32(0).unwrap();
            b.store_reference(owners).unwrap();
            b.store_reference(content).unwrap();
            b.store_bit_zero().unwrap();
        });
        let code = cocoon_contracts::registry::code();
        StateInit { code: Some(code), data: Some(data), ..Default::default() }
    }
}
