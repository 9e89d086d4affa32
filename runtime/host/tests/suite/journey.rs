//! Evidence, an answer, money, and an orderly end.

use std::time::Duration;

use cocoon_host::Host;
use cocoon_protocol::Coefficient;

use crate::world::{GATEWAY, Gateway, PRICE, World, code, eventually, lives};

#[tokio::test]
async fn a_sealed_prompt_is_answered_by_the_guest_that_its_files_predict_and_is_paid() {
    let world = World::start().await;
    let host = world.host().await;
    let trusted = world.trust(&host.bundle().expect("it has evidence"), host.expected()).await;
    let gateway = Gateway::open(&world, &host).await;
    let (stolen, _) = gateway.ask_as(9, &PRICE.to_words(), &trusted, 1, 16).await;
    assert_eq!(
        (stolen.status(), code(stolen).await.as_str()),
        (401u16.try_into().expect("a status"), "unauthorized")
    );
    for haggling in [PRICE.at(Coefficient::from_thousandths(999)).to_words(), "1 1 1".to_owned()] {
        let (refused, _) = gateway.ask_as(GATEWAY, &haggling, &trusted, 1, 16).await;
        assert_eq!((refused.status().as_u16(), code(refused).await.as_str()), (409, "wrong_price"));
    }
    let (mut response, mut opener) = gateway.ask(&trusted, 1, 16).await;
    assert_eq!(response.status(), 200);
    while let Some(chunk) = response.chunk().await.expect("the stream goes on") {
        opener.push(&chunk).expect("it is the answer to this request");
    }
    let receipt = opener.finish().expect("a whole answer with its receipt");
    let bill = PRICE.bill(&receipt.receipt().usage);
    assert!(bill > 0);
    let status = gateway.pay(bill).await;
    assert_eq!((status.owed, status.voucher, status.reserved), (bill, bill, 0));

    let guest = host.guest_pid().expect("it runs");
    let before =
        world.wallet(GATEWAY).chain().account(host.address()).await.expect("the chain answers").balance;
    let settled = host.shutdown().await;
    assert_eq!(settled.iter().filter_map(|s| s.result.as_ref().ok()).sum::<u64>(), bill);
    assert!(!lives(guest), "no process is left behind");
    assert!(before > 0);
}

#[tokio::test]
async fn evidence_is_renewed_with_the_same_keys() {
    let world = World::start().await;
    let mut options = world.options();
    options.timing.attest_every = Duration::from_millis(100);
    let host = Host::start(options).await.expect("the host starts");
    let first = world.trust(&host.bundle().expect("it has evidence"), host.expected()).await;
    let seqno = first.statement().freshness.beacon.seqno;
    eventually("the evidence names a newer block", async || {
        let bundle = host.bundle().expect("the guest runs");
        let newer = world.trust(&bundle, host.expected()).await;
        assert_eq!(newer.seal_key(), first.seal_key());
        newer.statement().freshness.beacon.seqno > seqno
    })
    .await;
}

#[tokio::test]
async fn a_worker_keeps_its_id_over_a_restart() {
    let world = World::start().await;
    let host = world.host().await;
    let id = host.worker_id().to_owned();
    assert!(host.shutdown().await.is_empty(), "nothing was earned");
    let again = world.host().await;
    assert_eq!(again.worker_id(), id);
}
