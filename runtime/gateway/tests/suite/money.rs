//! Who owes whom, what is refused, and what a restart forgets: nothing.

use std::{sync::atomic::Ordering, time::Duration};

use cocoon_accounts::SETTLEMENT_FEE;
use cocoon_contracts::Voucher;
use cocoon_gateway::Gateway;

use crate::{
    fake_host::{HOST_WINDOW, Script},
    world::{
        CLIENT, DEPOSIT, FEE_BPS, HOST_PRICE, LISTED, NETWORK, Scene, WINDOW, WORKER, address, client_terms,
        eventually, key,
    },
};

/// Reads to the end, and pays for each frame as it comes.
async fn read_and_pay(scene: &Scene, tokens: u32, before: u64) -> u64 {
    scene.host.next_answer(Script::tokens(tokens));
    let mut asked = scene.client.ask(tokens).await.expect("the deposit covers it");
    while let Some(usage) = asked.next().await.expect("the stream goes on") {
        let owed = before + LISTED.bill(&usage);
        if owed > 0 {
            scene.client.pay(owed).await.expect("a good voucher");
        }
    }
    let receipt = asked.opener.finish().expect("a whole answer with its receipt");
    before + receipt.receipt().bill()
}

#[tokio::test]
async fn an_answer_is_paid_to_the_gateway_by_the_host_and_settled_on_chain() {
    let scene = Scene::start().await;
    let owed = read_and_pay(&scene, 40, 0).await;
    assert_eq!(owed, 45 * 1_100);
    let status = scene.client.status().await;
    assert_eq!((status.owed, status.voucher, status.reserved), (owed, owed, 0));

    let channel = scene.gateway.payer_book().channels().pop().expect("a channel to the worker");
    let bill = 45 * 1_000;
    assert_eq!(HOST_PRICE.prompt, 1_000_000_000);
    eventually("the host holds a voucher for all of its work", async || {
        scene.host.status(&channel).await.is_some_and(|s| (s.owed, s.voucher) == (bill, bill))
    })
    .await;

    let settled = scene.gateway.settle_all().await;
    assert_eq!(settled.len(), 1);
    assert_eq!(settled[0].result.as_ref().ok(), Some(&owed));
    let wallet = scene.world.wallet(CLIENT);
    let state = cocoon_chain::read_channel(&**wallet.chain(), &scene.client.terms.address()).await;
    assert_eq!(state.expect("the channel is open").paid, owed);
    assert_eq!(scene.client.status().await.paid, owed);
    assert!(scene.gateway.settle_all().await.is_empty(), "nothing is settled twice");
}

#[tokio::test]
async fn each_kind_of_wrong_voucher_is_refused_by_its_name() {
    let scene = Scene::start().await;
    let client = &scene.client;
    client.pay(500).await.expect("a good voucher");
    let refused = |status: u16, code: &str| Err((status, code.to_owned()));

    assert_eq!(client.pay(499).await, refused(409, "stale_voucher"));
    let deposit = client.status().await.deposit;
    assert_eq!(client.pay(deposit + 1).await, refused(400, "exceeds_deposit"));
    let foreign = Voucher { network: -3, ..client.voucher(600) };
    assert_eq!(client.hand_in(&foreign.sign(&key(CLIENT))).await, refused(403, "wrong_network"));
    let elsewhere = Voucher { channel: address(9), ..client.voucher(600) };
    assert_eq!(client.hand_in(&elsewhere.sign(&key(CLIENT))).await, refused(403, "wrong_channel"));
    let stranger = client.voucher(600).sign(&key(9));
    assert_eq!(client.hand_in(&stranger).await, refused(403, "wrong_signer"));
    let bytes = client.voucher(600).sign(&key(CLIENT)).encode();
    assert_eq!(client.put_voucher(bytes[1..].to_vec()).await, refused(400, "malformed"));
    assert_eq!(client.put_voucher(vec![0; 300]).await, refused(413, "too_large"));
    assert_eq!(client.put_voucher(vec![0; 3_000_000]).await, refused(413, "too_large"));

    assert_eq!(client.status().await.voucher, 500);
    client.pay(deposit).await.expect("exactly the deposit");
}

#[tokio::test]
async fn what_the_deposit_does_not_cover_is_refused_before_any_work() {
    let scene = Scene::start().await;
    let deposit = scene.client.status().await.deposit;
    let tokens = u32::try_from(deposit / 1_100).expect("a small deposit"); // and five of the prompt
    let refused = scene.client.ask(tokens).await.err();
    assert_eq!(refused, Some((402, "insufficient_deposit".to_owned())));
    assert_eq!(scene.host.counts().requests.load(Ordering::SeqCst), 0, "the host saw nothing of it");
    assert_eq!(scene.client.status().await.reserved, 0);
}

#[tokio::test]
async fn a_channel_that_would_not_pay_us_is_refused() {
    let scene = Scene::start().await;
    let wallet = scene.world.wallet(CLIENT);
    let good = client_terms(10);
    let mut to_another = good.clone();
    to_another.payee = address(9);
    let mut too_short = good.clone();
    too_short.challenge_seconds = 59;
    let mut fee_to_itself = good.clone();
    fee_to_itself.treasury = address(CLIENT);
    let mut greater_fee = good.clone();
    greater_fee.fee_bps += 1;
    for terms in [to_another, too_short, fee_to_itself, greater_fee] {
        cocoon_chain::open_channel(&wallet, &terms, DEPOSIT, u64::MAX)
            .await
            .expect("anybody may open a channel");
        let refused = scene.client.announce(&terms.address()).await;
        assert_eq!(refused, Err((400, "unfit_channel".to_owned())), "{terms:?}");
    }
    let refused = scene.client.announce(&good.address()).await;
    assert_eq!(refused, Err((400, "unfit_channel".to_owned())), "it was never opened");
}

#[tokio::test]
async fn a_client_that_starts_to_close_is_answered_with_its_last_voucher() {
    let scene = Scene::with(|options| options.timing.watch_every = Duration::from_millis(50)).await;
    read_and_pay(&scene, 10, 0).await;
    // More than a settlement costs.
    let owed = 3 * SETTLEMENT_FEE;
    scene.client.pay(owed).await.expect("within the deposit");
    let channel = scene.client.terms.address();
    let wallet = scene.world.wallet(CLIENT);
    cocoon_chain::start_close(&wallet, &channel).await.expect("a payer may close");
    eventually("the voucher is settled within the challenge period", async || {
        scene.client.status().await.paid == owed
    })
    .await;
    let refused = scene.client.ask(1).await.err();
    assert_eq!(refused, Some((402, "channel_closing".to_owned())));
}

#[tokio::test]
async fn a_gateway_that_is_killed_forgets_nothing_and_opens_no_second_channel() {
    let scene = Scene::start().await;
    let owed = read_and_pay(&scene, 20, 0).await;
    scene.host.next_answer(Script::tokens(100));
    let mut asked = scene.client.ask(100).await.expect("the deposit covers it");
    asked.until(3).await;
    let Scene { mut client, gateway, host, world } = scene;
    let (payer, channels) = (gateway.payer_book().clone(), gateway.payer_book().channels());
    let signed = payer.state(&channels[0]).expect("it is in the book").signed;
    drop((payer, gateway)); // everything stops where it is

    let broken = async {
        while asked.next().await?.is_some() {}
        Ok::<(), reqwest::Error>(())
    };
    assert!(broken.await.is_err(), "the client notices");

    let gateway = world.gateway_again().await;
    client.gateway = gateway.url();
    let status = client.status().await;
    assert_eq!(status.voucher, owed, "the acknowledged voucher is there");
    assert!(status.owed >= owed && status.owed <= owed + WINDOW, "{status:?}");
    assert_eq!(gateway.payer_book().channels(), channels);
    assert!(gateway.payer_book().state(&channels[0]).expect("it is in the book").signed >= signed);

    host.register(&world, &gateway.url(), WORKER).await.expect("the worker comes back");
    assert_eq!(gateway.payer_book().channels(), channels, "the same channel to the same worker");
    let scene = Scene { client, gateway, host, world };
    let before = scene.client.status().await.owed;
    read_and_pay(&scene, 5, before).await;
}

#[tokio::test]
async fn answers_that_break_again_and_again_concede_no_more_than_was_counted_allows() {
    let scene = Scene::start().await;
    let channel = scene.gateway.payer_book().channels().pop().expect("a channel to the worker");
    let mut before = scene.client.status().await.owed;
    for _ in 0..10 {
        scene.host.next_answer(Script { breaks_after: Some(2), ..Script::tokens(50) });
        let mut asked = scene.client.ask(50).await.expect("the deposit covers it");
        while let Ok(Some(_)) = asked.next().await {}
        eventually("the rest of the reservation is free", async || scene.client.status().await.reserved == 0)
            .await;
        let status = scene.client.status().await;
        scene.client.pay(status.owed).await.expect("the debt is paid");
        before = before.max(status.owed);
    }
    let state = scene.gateway.payer_book().state(&channel).expect("it is in the book");
    assert!(state.conceded <= HOST_WINDOW + state.counted() / 4, "{state:?}");
    assert!(state.counted() <= before, "never more than clients were charged: {state:?} {before}");
    assert!(state.deposit < 2 * DEPOSIT, "no second deposit: {state:?}");
}

#[tokio::test]
async fn a_new_fee_in_the_registry_strands_no_channel() {
    let scene = Scene::start().await;
    let owed = read_and_pay(&scene, 5, 0).await;
    scene.world.change_fee(FEE_BPS + 1).await;
    let Scene { mut client, gateway, host, world } = scene;
    gateway.shutdown().await;
    let gateway = world.gateway_again().await; // one that has not read the old fee
    client.gateway = gateway.url();
    client.announce(&client.terms.address()).await.expect("it was taken under the old fee");
    let late = client_terms(11);
    cocoon_chain::open_channel(&world.wallet(CLIENT), &late, DEPOSIT, DEPOSIT)
        .await
        .expect("anybody may open one");
    let refused = client.announce(&late.address()).await;
    assert_eq!(refused, Err((400, "unfit_channel".to_owned())), "new channels pay the new fee");
    host.register(&world, &gateway.url(), WORKER).await.expect("its old channel is good too");
    assert_eq!(gateway.payer_book().channels().len(), 1);
    let scene = Scene { client, gateway, host, world };
    read_and_pay(&scene, 5, owed).await;
}

#[tokio::test]
async fn a_clean_end_pays_the_host_and_settles() {
    let scene = Scene::start().await;
    let owed = read_and_pay(&scene, 10, 0).await;
    let Scene { gateway, host, world, client } = scene;
    let channel = gateway.payer_book().channels().pop().expect("a channel to the worker");
    let settled = gateway.shutdown().await;
    assert_eq!(settled.iter().filter_map(|s| s.result.as_ref().ok()).sum::<u64>(), owed);
    assert_eq!(host.status(&channel).await.map(|s| s.voucher), Some(15_000));
    let wallet = world.wallet(CLIENT);
    let state = cocoon_chain::read_channel(&**wallet.chain(), &client.terms.address()).await;
    assert_eq!(state.expect("the channel is open").paid, owed);
}

#[tokio::test]
async fn a_port_in_use_is_said_with_its_number() {
    let scene = Scene::start().await;
    let mut options = scene.world.options();
    options.listen = scene.gateway.local_addr();
    options.state_dir = scene.world.folder.path().join("another");
    let error = Gateway::start(options).await.err().expect("the port is taken").to_string();
    assert!(error.contains(&scene.gateway.local_addr().to_string()) && error.contains("in use"), "{error}");
    assert_eq!(NETWORK, scene.gateway.info().network);
}
