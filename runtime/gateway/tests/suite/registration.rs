//! Who becomes a worker, and who does not.

use std::time::Duration;

use cocoon_attestation::Endorsement;
use cocoon_attestation::statement::Beacon;
use cocoon_contracts::registry::{PlatformId, PlatformKind};
use cocoon_protocol::{Coefficient, http::RegisterWorker};

use crate::{
    fake_host::{FakeHost, HOST_WINDOW, register},
    world::{LISTED, NETWORK, OPERATOR, Scene, WORKER, World, address, appraise, eventually},
};

#[tokio::test]
async fn a_worker_is_listed_with_its_models_the_price_with_margin_and_its_very_bundle() {
    let scene = Scene::start().await;
    let bundle = scene.host.bundle(&scene.world).await.encode();
    let registration = scene.host.registration(&bundle);
    register(&scene.gateway.url(), WORKER, &registration).await.expect("renewed");
    let workers = scene.client.workers().await;
    assert_eq!(workers.len(), 1);
    assert_eq!((workers[0].id.as_str(), workers[0].price), (WORKER, LISTED));
    assert_eq!(workers[0].models[0].weights, "03".repeat(32));
    let url = format!("{}/v1/workers/{WORKER}/bundle", scene.gateway.url());
    let served = scene.client.http.get(url).send().await.expect("an answer").bytes().await.expect("whole");
    assert_eq!(served, bundle);
}

/// Status and whole text of the reply.
async fn scene_put(gateway: &str, registration: &RegisterWorker) -> (u16, String) {
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let sent = http.put(format!("{gateway}/v1/workers/w")).json(registration).send().await;
    let response = sent.expect("the gateway answers");
    (response.status().as_u16(), response.text().await.expect("a whole reply"))
}

#[tokio::test]
async fn bad_registrations_are_refused_and_lock_no_money() {
    let world = World::start().await;
    let gateway = world.gateway().await;
    let host = FakeHost::start(&world).await;
    let head = world.wallet(OPERATOR).chain().head().await.expect("the chain answers");
    let beacon = Beacon { seqno: head.seqno, root_hash: head.root_hash };
    let good = host.bundle_of(NETWORK, beacon.clone()).encode();
    let with_bundle = |bytes: &[u8]| host.registration(bytes);
    let foreign = host.bundle_of(-3, beacon.clone()).encode();
    let invented = host.bundle_of(NETWORK, Beacon { root_hash: [9; 32], ..beacon.clone() }).encode();
    let future = host.bundle_of(NETWORK, Beacon { seqno: head.seqno + 10_000, ..beacon }).encode();
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let another_root = {
        let mut other = World::start().await;
        other.root = cocoon_simulated_tee::SimulatedRoot::create(crate::world::now());
        let other_host = FakeHost::start(&other).await;
        other_host.bundle_of(NETWORK, Beacon { seqno: head.seqno, root_hash: head.root_hash }).encode()
    };
    let changed = |change: &dyn Fn(&mut RegisterWorker)| {
        let mut registration = host.registration(&good);
        change(&mut registration);
        registration
    };
    let table = [
        ("Upper", host.registration(&good), 400),
        (&"a".repeat(65), host.registration(&good), 400),
        ("w", with_bundle(&flipped), 422),
        ("w", with_bundle(&good[..good.len() - 1]), 422),
        ("w", with_bundle(&foreign), 422),
        ("w", with_bundle(&invented), 422),
        ("w", with_bundle(&future), 422),
        ("w", with_bundle(&another_root), 422),
        ("w", changed(&|r| r.bundle = "!".to_owned()), 400),
        ("w", changed(&|r| r.url = "file:///etc/passwd".to_owned()), 400),
        ("w", changed(&|r| r.url = format!("http://{}", "a".repeat(300))), 400),
        ("w", changed(&|r| r.url = r.url.replacen("//", "//user:word@", 1)), 400),
        ("w", changed(&|r| r.url += "/admin"), 400),
        ("w", changed(&|r| r.price.completion += 1), 422),
        ("w", changed(&|r| r.url = world.url.clone()), 502),
        ("w", changed(&|r| r.url = "http://127.0.0.1:1".to_owned()), 502),
        ("w", changed(&|r| r.operator = "nobody".to_owned()), 400),
        ("w", changed(&|r| r.price = r.price.at(Coefficient::from_thousandths(u32::MAX))), 400),
        ("w", changed(&|r| r.price = r.price.at(Coefficient::from_thousandths(0))), 422),
        // The registry's highest coefficient leaves no room for the gateway's margin.
        ("w", changed(&|r| r.price = r.price.at(Coefficient::from_thousandths(10_000))), 422),
    ];
    for (number, (id, registration, status)) in table.into_iter().enumerate() {
        let refused = register(&gateway.url(), id, &registration).await.expect_err("it is refused");
        assert_eq!(refused.0, status, "line {number} of the table: {refused:?}");
    }
    let another_image = {
        let root = &world.root;
        let other = cocoon_simulated_tee::Emulator::launch(root, b"another guest", &["cocoon-guest"]);
        let mut bundle = cocoon_attestation::Bundle::decode(&good).expect("it is a bundle");
        let data = cocoon_attestation::statement::report_data(&bundle.statement);
        let quote = other.quote_with_collateral(&data, crate::world::now());
        (bundle.quote, bundle.endorsements) =
            (quote.quote, vec![Endorsement::IntelCollateral(quote.endorsements)]);
        bundle.encode()
    };
    let put = scene_put(&gateway.url(), &with_bundle(&another_image)).await;
    assert_eq!(put.0, 422);
    assert!(put.1.contains("evidence_refused") && put.1.contains("policy.mrtd"), "{}", put.1);
    assert!(gateway.payer_book().channels().is_empty(), "no channel was opened for any of them");
    register(&gateway.url(), "w", &host.registration(&good)).await.expect("and the good one is taken");
}

#[tokio::test]
async fn nobody_takes_the_place_of_a_worker_that_lives() {
    let mut scene = Scene::start().await;
    let bundle = scene.host.bundle(&scene.world).await.encode();
    let thief = RegisterWorker { operator: address(9).to_string(), ..scene.host.registration(&bundle) };
    let refused = register(&scene.gateway.url(), WORKER, &thief).await;
    assert_eq!(refused, Err((409, "worker_id_taken".to_owned())));
    let diverted =
        RegisterWorker { url: "http://127.0.0.1:1".to_owned(), ..scene.host.registration(&bundle) };
    let refused = register(&scene.gateway.url(), WORKER, &diverted).await;
    assert_eq!(refused, Err((409, "worker_id_taken".to_owned())));
    assert!(scene.host.url().starts_with("http://127.0.0.1:"));
    scene.host.die();
    let refused = register(&scene.gateway.url(), WORKER, &diverted).await;
    assert_eq!(refused, Err((502, "host_unreachable".to_owned())), "nobody is there to take the channel");
}

#[tokio::test]
async fn a_full_gateway_takes_no_more_workers() {
    let scene = Scene::with(|options| options.max_workers = 1).await;
    let refused = scene.host.register(&scene.world, &scene.gateway.url(), "worker-2").await;
    assert_eq!(refused, Err((503, "full".to_owned())));
    assert_eq!(scene.gateway.payer_book().channels().len(), 1);
    scene.host.register(&scene.world, &scene.gateway.url(), WORKER).await.expect("the first may renew");
}

#[tokio::test]
async fn a_machine_that_the_registry_bars_is_refused_by_gateway_and_client() {
    let scene = Scene::start().await;
    let (world, host) = (&scene.world, &scene.host);
    let policy = async || {
        let wallet = world.wallet(OPERATOR);
        let registry = cocoon_chain::read_registry(&**wallet.chain(), &world.registry).await;
        cocoon_reference::policy_from_registry(&registry.expect("there is one"), NETWORK, 600)
    };
    let trusted = appraise(world, host, &policy().await).await.expect("nothing is barred yet");
    let shown = trusted.platform().ids.first().expect("the platform has a name").to_string();
    let (kind, id) = shown.split_once(':').expect("kind and bytes");
    assert_eq!(kind, "ppid");
    let mut barred = PlatformId { kind: PlatformKind::Ppid, id: hex::decode(id).expect("hexadecimal") };

    // A machine with another name is no reason to refuse this one.
    barred.id[0] ^= 1;
    world.bar(vec![barred.clone()]).await;
    host.register(world, &scene.gateway.url(), WORKER).await.expect("another machine is barred");
    appraise(world, host, &policy().await).await.expect("another machine is barred");

    barred.id[0] ^= 1;
    world.bar(vec![barred]).await;
    let bundle = host.bundle(world).await.encode();
    let (status, text) = scene_put(&scene.gateway.url(), &host.registration(&bundle)).await;
    assert_eq!(status, 422, "{text}");
    assert!(text.contains("evidence_refused") && text.contains("policy.platform"), "{text}");
    let refusal = appraise(world, host, &policy().await).await.expect_err("it is barred");
    assert_eq!(refusal.check, "policy.platform");
}

/// Whoever comes and goes under ever new ids shuts nobody out for ever.
#[tokio::test]
async fn a_worker_that_left_makes_room_for_another_once_its_channel_is_closed() {
    let short = Duration::from_millis(100);
    let scene = Scene::with(|options| {
        options.max_workers = 1;
        options.money.challenge_seconds = 1;
        options.timing.lease = 5 * short;
        options.timing.probe_every = short;
        options.timing.watch_every = short;
        options.timing.close_idle = Duration::ZERO;
    })
    .await;
    let book = scene.gateway.payer_book();
    eventually("its channel is closed", async || book.channels().is_empty()).await;
    let another = scene.host.register(&scene.world, &scene.gateway.url(), "another").await;
    assert_eq!(another, Ok(()));
    assert_eq!(book.channels().len(), 1);
}

#[tokio::test]
async fn a_host_that_counts_more_than_the_gateway_is_not_listed_until_the_counts_agree() {
    let scene = Scene::start().await;
    let channel = scene.gateway.payer_book().channels().remove(0);
    scene.host.counts_more(&channel, HOST_WINDOW / 2).await;
    let again = async || scene.host.register(&scene.world, &scene.gateway.url(), WORKER).await;
    assert_eq!(again().await, Ok(()), "with half a window open it still works");
    scene.host.counts_more(&channel, HOST_WINDOW).await;
    let refused = again().await.expect_err("no client is to be sent to it");
    assert_eq!(refused, (409, "counts_differ".to_owned()));
}
