//! Proofs of a network of our own: the right one is accepted, and refused with one thing wrong.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

mod world;

use cocoon_chain::AccountStatus;
use cocoon_contracts::{Address, Cell, message};
use cocoon_liteserver::proof::{self, Page, ProofError, ProvenBlock};
use ton_net_block::BlockError;
use ton_net_tl::lite::{AccountState, BlockLink, PartialBlockProof, SignatureSet};
use tycho_types::boc::Boc;
use tycho_types::cell::{CellBuilder, CellFamily as _, HashBytes};
use tycho_types::merkle::make_pruned_branch;
use world::{BALANCE, HEAD, NETWORK, NEXT_KEY, World, address, bag, code, data, transactions};

fn pinned(world: &World) -> ProvenBlock {
    proof::header(&world.pinned.id, &world::header_proof(&world.pinned.block)).unwrap()
}

fn head(world: &World) -> ProvenBlock {
    proof::chain(&pinned(world), &world.chain()).unwrap().pop().unwrap()
}

#[test]
fn the_network_is_walked_from_the_pinned_block_to_the_head() {
    let world = World::new();
    let blocks = proof::chain(&pinned(&world), &world.chain()).unwrap();
    let seen: Vec<_> =
        blocks.iter().map(|block| (block.seqno(), block.is_key_block(), block.network())).collect();
    assert_eq!(seen, [(NEXT_KEY, true, NETWORK), (HEAD, false, NETWORK)]);
    assert_eq!(blocks[1].block().root_hash, world.head.id.root_hash);
    assert_eq!(blocks[1].block().time, u64::from(world::TIME + HEAD));
    assert_eq!(blocks[0].pin().file_hash, world.next_key.id.file_hash);
}

/// The second link's parts.
fn second(answer: &mut PartialBlockProof) -> (&mut BlockLink, usize) {
    (&mut answer.steps[1], 1)
}

#[test]
fn more_than_two_thirds_of_the_weight_must_have_signed() {
    let world = World::new();
    // Weights 40, 30, 20, 10 of 100: by which of them, and whether that is enough.
    for (signers, enough) in [
        (&[0, 1][..], true),       // 70
        (&[0, 2, 3], true),        // 70
        (&[1, 2, 3], false),       // 60
        (&[0, 2], false),          // 60
        (&[0, 0, 0, 0, 0], false), // one of them, five times
        (&[], false),
    ] {
        let mut answer = world.chain();
        let signers: Vec<_> = signers.iter().map(|at| &world.second[*at]).collect();
        *second(&mut answer).0 = World::link(&world.next_key, &world.head, false, &signers);
        let outcome = proof::chain(&pinned(&world), &answer);
        assert_eq!(outcome.is_ok(), enough, "{outcome:?}");
        let weight =
            matches!(outcome, Ok(_) | Err(ProofError::Step(BlockError::NotEnoughWeight { total: 100, .. })));
        assert!(weight, "{outcome:?}");
    }
}

#[test]
fn exactly_two_thirds_is_not_enough() {
    let mut world = World::new();
    let thirds = |seed| {
        let mut set = world::validators(seed);
        set.truncate(3);
        set.iter_mut().for_each(|validator| validator.weight = 10);
        set
    };
    world.rekey(thirds(30));
    for (count, enough) in [(2, false), (3, true)] {
        let signers: Vec<_> = world.first.iter().take(count).collect();
        let answer = PartialBlockProof {
            complete: true,
            from: world.pinned.id.clone(),
            to: world.next_key.id.clone(),
            steps: vec![World::link(&world.pinned, &world.next_key, true, &signers)],
        };
        assert_eq!(proof::chain(&pinned(&world), &answer).is_ok(), enough, "{count} of 3");
    }
}

#[test]
fn a_chain_with_one_thing_wrong_is_refused() {
    type Damage = fn(&World, &mut PartialBlockProof);
    fn signatures(link: &mut BlockLink) -> &mut Vec<ton_net_tl::lite::Signature> {
        match link {
            BlockLink::Forward { signatures: SignatureSet::Ordinary { signatures, .. }, .. } => signatures,
            other => panic!("{other:?}"),
        }
    }
    let damages: &[(&str, Damage)] = &[
        ("a flipped bit in the signatures", |_, answer| {
            signatures(&mut answer.steps[1]).iter_mut().for_each(|one| one.signature[40] ^= 1);
        }),
        ("signatures of the set before", |world, answer| {
            let old: Vec<_> = world.first.iter().collect();
            answer.steps[1] = World::link(&world.next_key, &world.head, false, &old);
        }),
        ("signatures for another block", |_, answer| {
            let lifted = signatures(&mut answer.steps[0]).clone();
            *signatures(&mut answer.steps[1]) = lifted;
        }),
        ("a key block left out", |_, answer| drop(answer.steps.remove(0))),
        ("the configuration of another block", |world, answer| {
            let BlockLink::Forward { config_proof, .. } = &mut answer.steps[1] else { panic!() };
            *config_proof = world::config_proof(&world.pinned.block);
        }),
        ("the configuration pruned", |world, answer| {
            let BlockLink::Forward { config_proof, .. } = &mut answer.steps[1] else { panic!() };
            *config_proof = world::header_proof(&world.next_key.block);
        }),
        ("the header of another block", |world, answer| {
            let BlockLink::Forward { dest_proof, .. } = &mut answer.steps[1] else { panic!() };
            *dest_proof = world::header_proof(&world.next_key.block);
        }),
        ("the header pruned", |world, answer| {
            let BlockLink::Forward { dest_proof, .. } = &mut answer.steps[1] else { panic!() };
            *dest_proof = world::config_proof(&world.head.block);
        }),
        ("an ordinary block called a key block", |_, answer| {
            let BlockLink::Forward { to_key_block, .. } = &mut answer.steps[1] else { panic!() };
            *to_key_block = true;
        }),
        ("another file hash", |_, answer| {
            let BlockLink::Forward { to, .. } = &mut answer.steps[1] else { panic!() };
            to.file_hash[0] ^= 1;
            answer.to.file_hash[0] ^= 1;
        }),
        ("another number", |_, answer| {
            let BlockLink::Forward { to, .. } = &mut answer.steps[1] else { panic!() };
            to.seqno += 1;
            answer.to.seqno += 1;
        }),
        ("another beginning", |_, answer| answer.from.root_hash[0] ^= 1),
        ("another end", |_, answer| answer.to.root_hash[0] ^= 1),
        ("a shard block", |world, answer| {
            let signers: Vec<_> = world.second.iter().collect();
            answer.steps[1] = World::link(&world.next_key, &world.left, false, &signers);
            answer.to = world.left.id.clone();
        }),
        ("no steps", |_, answer| answer.steps.clear()),
        ("bytes that are no bag", |_, answer| {
            let BlockLink::Forward { dest_proof, .. } = &mut answer.steps[1] else { panic!() };
            dest_proof.truncate(20);
        }),
    ];
    let world = World::new();
    let trusted = pinned(&world);
    for (what, damage) in damages {
        let mut answer = world.chain();
        damage(&world, &mut answer);
        let outcome = proof::chain(&trusted, &answer);
        assert!(
            matches!(outcome, Err(ProofError::Step(_) | ProofError::OtherBlock { .. })),
            "{what}: {outcome:?}"
        );
    }
}

#[test]
fn another_pinned_block_or_network_accepts_nothing() {
    let world = World::new();
    let mut forged = world.pinned.id.clone();
    forged.root_hash[0] ^= 1;
    assert!(matches!(
        proof::header(&forged, &world::header_proof(&world.pinned.block)),
        Err(ProofError::Step(BlockError::ProofNotAnchored))
    ));
    let mut renumbered = world.pinned.id.clone();
    renumbered.seqno += 1;
    assert!(matches!(
        proof::header(&renumbered, &world::header_proof(&world.pinned.block)),
        Err(ProofError::OtherBlock { .. })
    ));
    let mut foreign = World::of_network(-239);
    let error = proof::chain(&pinned(&foreign), &foreign.chain()).unwrap_err();
    assert_eq!(error, ProofError::OtherNetwork { expected: NETWORK, found: -239 });
    // Same blocks, other validators: what the pinned block does not name does not count.
    foreign.first = world::validators(50);
    assert!(proof::chain(&pinned(&foreign), &foreign.chain()).is_err());
}

#[test]
fn accounts_are_read_from_their_shard_and_from_the_masterchain() {
    let world = World::new();
    let head = head(&world);
    let masterchain = Address::new(-1, HashBytes([0x33; 32]));
    for (address, balance) in
        [(address(0x11), BALANCE), (address(0x22), 9), (address(0xee), 3), (masterchain, 4)]
    {
        let account = proof::account(&head, &address, &world.account_state(&address)).unwrap();
        let state = account.state();
        assert_eq!((state.balance, state.status, state.last_lt), (balance, AccountStatus::Active, 47));
        assert_eq!((state.code_hash, state.data.clone()), (Some(code().repr_hash().0), Some(data())));
        assert_eq!(account.last_transaction(), (47, &transactions(&address)[0].repr_hash().0));
    }
    let absent = proof::account(&head, &address(0x12), &world.account_state(&address(0x12))).unwrap();
    assert_eq!(
        (absent.state().balance, absent.state().status, absent.state().last_lt),
        (0, AccountStatus::Uninit, 0)
    );
}

/// The account's data replaced by a placeholder with the same hash.
fn with_pruned_data(account: &Cell) -> Cell {
    fn rebuild(cell: &Cell) -> Cell {
        if cell.repr_hash() == data().repr_hash() {
            return make_pruned_branch(cell.as_ref(), 0, Cell::empty_context()).unwrap();
        }
        let mut builder = CellBuilder::new();
        builder.store_cell_data(cell).unwrap();
        for child in cell.references().cloned() {
            builder.store_reference(rebuild(&child)).unwrap();
        }
        builder.build().unwrap()
    }
    rebuild(account)
}

#[test]
fn an_account_with_one_thing_wrong_is_refused() {
    type Damage = fn(&World, &mut AccountState);
    let damages: &[(&str, Damage)] = &[
        ("another account's bytes", |world, answer| {
            answer.state = message::encode(&World::stored_account(&world.left, &address(0x22)).unwrap());
        }),
        ("a richer account", |_, answer| {
            let rich = CellBuilder::build_from(world::account(&address(0x11), BALANCE + 1)).unwrap();
            answer.state = message::encode(&rich);
        }),
        ("the account withheld", |_, answer| answer.state.clear()),
        ("the data pruned", |world, answer| {
            let account = World::stored_account(&world.left, &address(0x11)).unwrap();
            answer.state = message::encode(&with_pruned_data(&account));
        }),
        ("another shard's proof", |world, answer| {
            answer.proof = World::account_proof(&world.right, &[address(0x11)]);
        }),
        ("the masterchain's own state as the shard's", |world, answer| {
            answer.proof = World::account_proof(&world.head, &[]);
        }),
        ("a proof of another account, this one's branch pruned", |world, answer| {
            let state = &world.left.state;
            answer.proof = Boc::encode_pair((
                world::proof(&world.left.block, &[]),
                world::proof(state, &[&state.reference_cloned(1).unwrap()]),
            ));
        }),
        ("a state that the block does not leave", |world, answer| {
            answer.proof = Boc::encode_pair((
                world::proof(&world.left.block, &[]),
                world::proof(&world.right.state, &[]),
            ));
        }),
        ("no shards", |world, answer| {
            let state = &world.head.state;
            let extra = state.reference_cloned(3).unwrap();
            answer.shard_proof =
                Boc::encode_pair((world::proof(&world.head.block, &[]), world::proof(state, &[&extra])));
        }),
        ("no shard proof", |_, answer| answer.shard_proof.clear()),
        ("shards of an older block", |world, answer| {
            answer.shard_proof = Boc::encode_pair((
                world::proof(&world.next_key.block, &[]),
                world::proof(&world.next_key.state, &[]),
            ));
        }),
        ("the proof cut short", |_, answer| answer.proof.truncate(answer.proof.len() / 2)),
        ("no proof", |_, answer| answer.proof.clear()),
    ];
    let world = World::new();
    let head = head(&world);
    for (what, damage) in damages {
        let mut answer = world.account_state(&address(0x11));
        damage(&world, &mut answer);
        let outcome = proof::account(&head, &address(0x11), &answer);
        assert!(
            matches!(outcome, Err(ProofError::Step(_) | ProofError::OtherAccount)),
            "{what}: {outcome:?}"
        );
    }
    // The names in the answer are not read: what they say changes nothing.
    let mut answer = world.account_state(&address(0x11));
    (answer.id, answer.shardblk) = (world.right.id.clone(), world.right.id.clone());
    assert_eq!(proof::account(&head, &address(0x11), &answer).unwrap().state().balance, BALANCE);
    // Proofs against another block are not proofs against this one.
    assert!(proof::account(&pinned(&world), &address(0x11), &answer).is_err());
    // An account that is not there, with bytes of one that is.
    let mut invented = world.account_state(&address(0x12));
    invented.state = answer.state;
    assert_eq!(proof::account(&head, &address(0x12), &invented).unwrap_err(), ProofError::OtherAccount);
}

#[test]
fn transactions_are_those_that_the_account_names() {
    let account = address(0x11);
    let [newest, first] = transactions(&account);
    let last = (47, &newest.repr_hash().0);
    let Page { list, before } =
        proof::transactions(&account, last, &bag(&[newest.clone(), first.clone()]), 16).unwrap();
    assert_eq!(list.iter().map(|tx| tx.lt).collect::<Vec<_>>(), [47, 37]);
    assert_eq!((list[0].hash, before), (newest.repr_hash().0, None));
    let Page { list, before } =
        proof::transactions(&account, last, &bag(std::slice::from_ref(&newest)), 16).unwrap();
    assert_eq!((list.len(), before), (1, Some((37, first.repr_hash().0))));
    assert_eq!(
        proof::transactions(&account, last, &bag(&[newest.clone(), first.clone()]), 1).unwrap().list.len(),
        1
    );
    let other = transactions(&address(0x22));
    for (what, roots, last) in [
        ("another order", vec![first.clone(), newest.clone()], last),
        ("one left out", vec![first.clone()], last),
        ("another account's", other.to_vec(), (47, &other[0].repr_hash().0)),
        ("one replaced", vec![newest.clone(), other[1].clone()], last),
        ("another time", vec![newest.clone()], (48, last.1)),
    ] {
        let outcome = proof::transactions(&account, last, &bag(&roots), 16);
        assert!(matches!(outcome, Err(ProofError::BadTransactions(_))), "{what}: {outcome:?}");
    }
    assert!(proof::transactions(&account, last, b"", 16).is_err());
    assert!(proof::transactions(&account, last, &vec![0; 5 << 20], 16).is_err());
}
