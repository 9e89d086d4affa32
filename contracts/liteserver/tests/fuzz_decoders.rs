//! Seeded damage to what a liteserver sends: an error or the truth, never a panic, never a long wait.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

#[path = "../../tests/fuzzing/mod.rs"]
mod fuzzing;
mod server;
mod world;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cocoon_chain::{Chain as _, ChainError};
use cocoon_liteserver::proof::{self, ProvenBlock};
use cocoon_liteserver::{Liteservers, Settings};
use fuzzing::{Random, iterations, timed};
use server::{Say, honest, start};
use ton_net_tl::lite::{BlockLink, SignatureSet};
use world::{BALANCE, HEAD, TIME, World, address, bag, transactions};

fn pinned(world: &World) -> ProvenBlock {
    proof::header(&world.pinned.id, &world::header_proof(&world.pinned.block)).unwrap()
}

#[test]
fn damaged_accounts_are_refused_or_the_same() {
    let world = World::new();
    let head = proof::chain(&pinned(&world), &world.chain()).unwrap().pop().unwrap();
    let valid = world.account_state(&address(0x11));
    let mut random = Random::seeded("accounts with proofs");
    let mut refused = 0;
    for round in 0..iterations() / 4 {
        let mut answer = valid.clone();
        let part = match round % 3 {
            0 => &mut answer.shard_proof,
            1 => &mut answer.proof,
            _ => &mut answer.state,
        };
        *part = random.bytes(part);
        match timed(round, || proof::account(&head, &address(0x11), &answer)) {
            // Bytes that nobody reads may differ; what is read may not.
            Ok(account) => assert_eq!(account.state().balance, BALANCE, "round {round}"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > iterations() / 8, "the damage is too fine: {refused} were refused");
}

#[test]
fn damaged_chains_are_refused_or_the_same() {
    let world = World::new();
    let (trusted, valid) = (pinned(&world), world.chain());
    let mut random = Random::seeded("chains of blocks");
    for round in 0..iterations() / 10 {
        let mut answer = valid.clone();
        let at = random.below(answer.steps.len());
        let BlockLink::Forward { dest_proof, config_proof, signatures, .. } = &mut answer.steps[at] else {
            panic!()
        };
        match (round % 3, signatures) {
            (0, _) => *dest_proof = random.bytes(dest_proof),
            (1, _) => *config_proof = random.bytes(config_proof),
            (_, SignatureSet::Ordinary { signatures, .. }) => {
                let at = random.below(signatures.len());
                signatures[at].signature = random.bytes(&signatures[at].signature);
            }
            (_, other) => panic!("{other:?}"),
        }
        if let Ok(blocks) = timed(round, || proof::chain(&trusted, &answer)) {
            assert_eq!(blocks.last().unwrap().id(), &world.head.id, "round {round}");
        }
    }
}

#[test]
fn damaged_transactions_are_refused_or_the_same() {
    let all = transactions(&address(0x11));
    let (last, valid) = ((47, &all[0].repr_hash().0), bag(&all));
    let mut random = Random::seeded("transactions with proofs");
    for round in 0..iterations() / 4 {
        let bytes = random.bytes(&valid);
        if let Ok(page) = timed(round, || proof::transactions(&address(0x11), last, &bytes, 16)) {
            assert!(page.list[0].hash == *last.1, "round {round}");
        }
    }
}

#[test]
fn damaged_configurations_name_servers_or_are_refused() {
    let valid = r#"{"liteservers":[{"ip":84478511,"port":19949,"id":{"@type":"pub.ed25519","key":"n4VDnSCUuSpjnCyUk9e3QOOd6o0ItSWYbTnW3Wnn8wk="}}]}"#;
    let mut random = Random::seeded("global configurations");
    for round in 0..iterations() {
        let text = random.text(valid);
        if let Ok(servers) = timed(round, || cocoon_liteserver::servers(&text)) {
            assert!(!servers.is_empty());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_answers_on_the_wire_are_errors() {
    let (world, running) = (Arc::new(World::new()), start(1).await);
    running.honest(&world);
    let settings = Settings {
        deadline: Duration::from_millis(100),
        ..Settings::new(vec![running.server.clone()], world.pin())
    };
    let chain = Liteservers::connect_with_clock(settings, Arc::new(|| u64::from(TIME + HEAD))).await.unwrap();
    let (own, random) = (Arc::clone(&world), Mutex::new(Random::seeded("the wire")));
    running.think(move |request| match honest(&own, request) {
        Say::Answer(answer) => Say::Bytes(random.lock().unwrap().bytes(&tl_proto_04::serialize(*answer))),
        other => other,
    });
    let mut read = 0;
    for round in 0..60 {
        let outcome = match round % 3 {
            0 => chain.account(&address(0x11)).await.map(|account| assert_eq!(account.balance, BALANCE)),
            1 => chain.transactions(&address(0x11), 1).await.map(|list| assert_eq!(list[0].lt, 47)),
            _ => chain.head().await.map(|head| assert_eq!(head.root_hash, world.head.id.root_hash)),
        };
        match outcome {
            Ok(()) => read += 1,
            Err(
                ChainError::BadAnswer { .. }
                | ChainError::Unproven { .. }
                | ChainError::Refused { .. }
                | ChainError::Unreachable { .. },
            ) => {}
            Err(other) => panic!("round {round}: {other}"),
        }
    }
    assert!(read < 60, "nothing was damaged");
}
