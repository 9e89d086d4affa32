//! Answers on their way: back-pressure, windows, and ends that come too early.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::sync::Semaphore;

use crate::{
    fake_host::Script,
    world::{LISTED, Scene, WINDOW, eventually},
};

#[tokio::test]
async fn a_stream_over_its_window_waits_for_a_voucher_and_then_goes_on() {
    let scene = Scene::start().await;
    scene.host.next_answer(Script::tokens(60));
    let mut asked = scene.client.ask(60).await.expect("the deposit covers it");
    let mut owed = 0;
    // Nothing is paid: the stream stops within its window.
    while let Ok(next) = tokio::time::timeout(Duration::from_millis(300), asked.next()).await {
        let usage = next.expect("the stream goes on").expect("it is not at its end");
        owed = LISTED.bill(&usage);
        assert!(owed <= WINDOW, "{owed} nanotons came without a voucher");
    }
    assert!(owed > WINDOW / 2, "it used its window: {owed}");
    while let Some(usage) = {
        scene.client.pay(owed).await.expect("a good voucher");
        asked.next().await.expect("the stream goes on")
    } {
        owed = LISTED.bill(&usage);
    }
    assert_eq!(owed, 65 * 1_100);
    asked.opener.finish().expect("a whole answer with its receipt");
}

#[tokio::test]
async fn a_stream_that_nobody_pays_for_is_cut_and_says_so_to_the_next_request() {
    let patience = Duration::from_millis(200);
    let scene = Scene::with(|options| options.timing.patience = patience).await;
    // More than a window of frames, and then a guest that is still at work.
    let gate = Arc::new(Semaphore::new(30));
    scene.host.next_answer(Script { gate, ..Script::tokens(60) });
    let mut asked = scene.client.ask(60).await.expect("the deposit covers it");
    while let Ok(Some(_)) = asked.next().await {}
    asked.opener.finish().map(drop).expect_err("what is cut has no receipt");
    eventually("the guest stops working", async || scene.host.counts().cancelled.load(Ordering::SeqCst) == 1)
        .await;

    let status = scene.client.status().await;
    assert!(status.owed > 0 && status.owed <= WINDOW && status.voucher == 0, "{status:?}");
    let refused = scene.client.ask(10).await.err();
    assert_eq!(refused, Some((402, "voucher_required".to_owned())));
    scene.client.pay(status.owed).await.expect("the debt is paid");
    scene.host.next_answer(Script::tokens(1));
    scene.client.ask(10).await.expect("work is taken again");
}

#[tokio::test]
async fn a_client_that_leaves_stops_the_guest_and_owes_at_most_a_window() {
    let scene = Scene::start().await;
    let gate = Arc::new(Semaphore::new(3));
    scene.host.next_answer(Script { gate: Arc::clone(&gate), ..Script::tokens(1_000) });
    let mut asked = scene.client.ask(1_000).await.expect("the deposit covers it");
    asked.until(3).await;
    drop(asked);
    gate.add_permits(3); // a token or two may still be on their way
    eventually("the guest stops working", async || scene.host.counts().cancelled.load(Ordering::SeqCst) == 1)
        .await;
    eventually("the rest of the reservation is free", async || scene.client.status().await.reserved == 0)
        .await;
    assert!(scene.client.status().await.owed <= WINDOW);
    assert!(scene.host.counts().frames.load(Ordering::SeqCst) <= 6);
}

#[tokio::test]
async fn a_slow_reader_holds_up_the_guest_and_not_the_gateways_memory() {
    let scene = Scene::with(|options| options.money.window = u64::MAX).await;
    let frames = 1_000;
    // 60 MB in all.
    scene.host.next_answer(Script { bytes: 60_000, ..Script::tokens(frames) });
    let mut asked = scene.client.ask(frames).await.expect("the deposit covers it");
    asked.until(1).await;
    let made = || scene.host.counts().frames.load(Ordering::SeqCst);
    let mut last = made();
    eventually("nobody makes frames that nobody reads", async || {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = made();
        std::mem::replace(&mut last, now) == now
    })
    .await;
    // What remains is in the kernel's socket buffers and a buffer of 64 KiB for each connection.
    assert!(made() < u64::from(frames) / 2, "{} of {frames} frames are on their way", made());
    while asked.next().await.expect("the stream goes on").is_some() {}
    asked.opener.finish().expect("a whole answer with its receipt");
    assert_eq!(made(), u64::from(frames));
}

#[tokio::test]
async fn a_host_that_dies_in_an_answer_ends_it_and_leaves_the_list() {
    let mut scene = Scene::start().await;
    let gate = Arc::new(Semaphore::new(3));
    scene.host.next_answer(Script { gate, ..Script::tokens(50) });
    let mut asked = scene.client.ask(50).await.expect("the deposit covers it");
    asked.until(3).await;
    scene.host.die();
    let ended = async {
        while asked.next().await?.is_some() {}
        Ok::<(), reqwest::Error>(())
    };
    assert!(ended.await.is_err(), "the client notices");
    let status = scene.client.status().await;
    assert!(status.owed <= WINDOW, "{status:?}");
    eventually("the rest of the reservation is free", async || scene.client.status().await.reserved == 0)
        .await;

    let refused = scene.client.ask(1).await.err();
    assert_eq!(refused, Some((502, "worker_unreachable".to_owned())));
    assert!(scene.client.workers().await.is_empty(), "it is off the list");
    assert_eq!(scene.client.ask(1).await.err(), Some((404, "unknown_worker".to_owned())));
}

#[tokio::test]
async fn a_receipt_by_another_key_is_not_passed_on_and_ends_the_workers_listing() {
    let scene = Scene::start().await;
    scene.host.next_answer(Script { forges: true, ..Script::tokens(3) });
    let mut asked = scene.client.ask(3).await.expect("the deposit covers it");
    let ended = async {
        while asked.next().await?.is_some() {}
        Ok::<(), reqwest::Error>(())
    };
    assert!(ended.await.is_err(), "the client notices");
    asked.opener.finish().map(drop).expect_err("there is no receipt");
    eventually("the worker is off the list", async || scene.client.workers().await.is_empty()).await;
}

#[tokio::test]
async fn a_frame_that_costs_more_than_a_window_is_neither_charged_nor_owed() {
    // Four tokens: the five of the prompt, which the first frame counts, are more.
    let scene = Scene::with(|options| options.money.window = 4 * 1_100).await;
    scene.host.next_answer(Script::tokens(3));
    let mut asked = scene.client.ask(3).await.expect("the deposit covers it");
    let ended = async {
        while asked.next().await?.is_some() {}
        Ok::<(), reqwest::Error>(())
    };
    assert!(ended.await.is_err(), "the client notices");
    assert_eq!(scene.client.status().await.owed, 0);
    let book = scene.gateway.payer_book();
    let channel = book.channels().pop().expect("a channel to the worker");
    assert_eq!(book.state(&channel).expect("it is in the book").counted(), 0);
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_is_none_is_cut_there() {
    let scene = Scene::start().await;
    let broken = Script { breaks_after: Some(4), ..Script::tokens(50) };
    let rubbish = Script { rubbish_after: Some(4), ..Script::tokens(50) };
    for script in [broken, rubbish] {
        let before = scene.client.status().await.owed;
        scene.host.next_answer(script);
        let mut asked = scene.client.ask(50).await.expect("the deposit covers it");
        let ended = async {
            while asked.next().await?.is_some() {}
            Ok::<(), reqwest::Error>(())
        };
        assert!(ended.await.is_err(), "the client notices");
        let status = scene.client.status().await;
        assert!(status.owed - before <= 9 * 1_100, "five of the prompt and four frames: {status:?}");
        scene.client.pay(status.owed).await.expect("the debt is paid");
    }
}
