//! The registry: nothing counts before it was announced and has waited.

use cocoon_contracts::registry::{
    self, CHANGE_VALUE, Content, DEPLOY_VALUE, Deployment, Image, Measurements, Model, Registry, Status,
};
use cocoon_contracts::{Address, Cell};
use tycho_types::models::AccountState;

use super::world::{Who, World, deploying, to_contract};

const DELAY: u32 = 3600;

fn content(world: &World, fee_bps: u16) -> Content {
    Content {
        fee_bps,
        treasury: world.treasury.address.clone(),
        images: (0..40)
            .map(|i| Image {
                name: format!("guest image {i}"),
                status: Status::Allowed,
                measurements: Measurements { mrtd: [i; 48], rtmr: [[i; 48], [1; 48], [2; 48], [3; 48]] },
                configuration: (i % 2 == 0).then_some([i; 32]),
            })
            .collect(),
        models: vec![Model {
            name: "demo".into(),
            status: Status::Allowed,
            weights: [9; 32],
            prompt_price: 10,
            completion_price: 20,
        }],
    }
}

fn deployed(world: &mut World) -> Address {
    let deployment = Deployment {
        owner: world.payer.address.clone(),
        delay: DELAY,
        salt: 1,
        content: content(world, 500),
    };
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

fn tell(world: &mut World, who: Who, address: &Address, body: Cell) -> Option<i32> {
    world.send(who, to_contract(address, CHANGE_VALUE, body)).exit_code
}

#[test]
fn begins_with_what_it_was_deployed_with() {
    let mut world = World::new();
    let address = deployed(&mut world);
    let registry = read(&world, &address);
    assert_eq!((registry.version, registry.delay), (1, DELAY));
    assert_eq!(registry.content, content(&world, 500));
    assert_eq!(registry.proposal, None);
    assert_eq!((registry.images().count(), registry.models().count()), (40, 1));
}

#[test]
fn a_change_is_announced_waits_and_then_anyone_makes_it_count() {
    let mut world = World::new();
    let address = deployed(&mut world);
    let owner = world.payer.address.clone();
    let next = content(&world, 700);
    let propose = registry::propose_body(&owner, &next).unwrap();
    assert_eq!(tell(&mut world, Who::Stranger, &address, propose.clone()), Some(0x200));
    assert_eq!(tell(&mut world, Who::Payer, &address, propose.clone()), Some(0));
    let announced = read(&world, &address);
    assert_eq!((announced.version, announced.content.fee_bps), (1, 500), "announced is not in force");
    let proposal = announced.proposal.unwrap();
    assert_eq!((proposal.ready_at, proposal.content), (world.now + DELAY, next.clone()));

    // Not to be swapped for another while it waits, nor made to count early, not even by the owner.
    assert_eq!(tell(&mut world, Who::Payer, &address, propose), Some(0x201));
    world.now = proposal.ready_at - 1;
    assert_eq!(tell(&mut world, Who::Payer, &address, registry::activate_body(1)), Some(0x203));
    world.now = proposal.ready_at;
    assert_eq!(tell(&mut world, Who::Stranger, &address, registry::activate_body(2)), Some(0x202));
    assert_eq!(tell(&mut world, Who::Stranger, &address, registry::activate_body(1)), Some(0));
    let registry = read(&world, &address);
    assert_eq!((registry.version, registry.content, registry.proposal), (2, next, None));
    assert_eq!(tell(&mut world, Who::Stranger, &address, registry::activate_body(2)), Some(0x202));
}

#[test]
fn the_owner_takes_an_announcement_back() {
    let mut world = World::new();
    let address = deployed(&mut world);
    let owner = world.payer.address.clone();
    assert_eq!(tell(&mut world, Who::Payer, &address, registry::cancel_body()), Some(0x202));
    let propose = registry::propose_body(&owner, &content(&world, 600)).unwrap();
    assert_eq!(tell(&mut world, Who::Payer, &address, propose.clone()), Some(0));
    assert_eq!(tell(&mut world, Who::Stranger, &address, registry::cancel_body()), Some(0x200));
    assert_eq!(tell(&mut world, Who::Payer, &address, registry::cancel_body()), Some(0));
    assert_eq!(read(&world, &address).proposal, None);
    world.now += DELAY;
    assert_eq!(tell(&mut world, Who::Stranger, &address, registry::activate_body(1)), Some(0x202));
    // A new announcement waits the whole delay again.
    assert_eq!(tell(&mut world, Who::Payer, &address, propose), Some(0));
    assert_eq!(read(&world, &address).proposal.unwrap().ready_at, world.now + DELAY);
}

#[test]
fn ownership_is_handed_over_like_any_change() {
    let mut world = World::new();
    let address = deployed(&mut world);
    let heir = world.stranger.address.clone();
    let propose = registry::propose_body(&heir, &content(&world, 500)).unwrap();
    assert_eq!(tell(&mut world, Who::Payer, &address, propose), Some(0));
    assert_eq!(read(&world, &address).owner, world.payer.address);
    world.now += DELAY;
    assert_eq!(tell(&mut world, Who::Payee, &address, registry::activate_body(1)), Some(0));
    assert_eq!(read(&world, &address).owner, heir);
    let propose = registry::propose_body(&heir, &content(&world, 501)).unwrap();
    assert_eq!(tell(&mut world, Who::Payer, &address, propose.clone()), Some(0x200));
    assert_eq!(tell(&mut world, Who::Stranger, &address, propose), Some(0));
}

#[test]
fn a_fee_over_the_bound_cannot_even_be_announced() {
    let mut world = World::new();
    let address = deployed(&mut world);
    let good = content(&world, registry::MAX_FEE_BPS).to_cell().unwrap();
    // The client refuses to build it; here is one built by hand: format, fee, and the rest as it was.
    let mut slice = good.as_slice().unwrap();
    slice.skip_first(24, 0).unwrap();
    for (format, fee, expected) in [(1, 2000, 0), (1, 2001, 0x204), (2, 100, 0x204)] {
        let forged = forge(format, fee, slice);
        let body = propose_raw(&world.payer.address, forged);
        assert_eq!(tell(&mut world, Who::Payer, &address, body), Some(expected), "{format} {fee}");
        if expected == 0 {
            assert_eq!(tell(&mut world, Who::Payer, &address, registry::cancel_body()), Some(0));
        }
    }
}

fn forge(format: u8, fee: u16, rest: tycho_types::cell::CellSlice<'_>) -> Cell {
    let mut builder = tycho_types::cell::CellBuilder::new();
    builder.store_u8(format).unwrap();
    builder.store_u16(fee).unwrap();
    builder.store_slice(rest).unwrap();
    builder.build().unwrap()
}

fn propose_raw(owner: &Address, content: Cell) -> Cell {
    use tycho_types::cell::{CellBuilder, CellFamily as _, Store as _};
    let mut builder = CellBuilder::new();
    builder.store_u32(0x5247_0001).unwrap();
    owner.store_into(&mut builder, Cell::empty_context()).unwrap();
    builder.store_reference(content).unwrap();
    builder.build().unwrap()
}

#[test]
fn what_is_not_used_of_a_change_comes_back() {
    let mut world = World::new();
    let address = deployed(&mut world);
    let held = world.balance(&address);
    let before = world.balance(&world.payer.address);
    let propose = registry::propose_body(&world.payer.address, &content(&world, 500)).unwrap();
    assert_eq!(tell(&mut world, Who::Payer, &address, propose), Some(0));
    assert_eq!(world.balance(&address), held);
    let spent = before - world.balance(&world.payer.address);
    println!("a proposal of 41 entries costs {spent} nanotons");
    assert!(spent < 20_000_000);
}
