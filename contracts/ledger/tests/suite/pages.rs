//! Pages for people: what they show, and that nothing in them can be more than text.

use cocoon_chain::{open_channel, settle};
use cocoon_contracts::channel::Terms;
use cocoon_contracts::{SigningKey, TON, Voucher, friendly};
use cocoon_ledger::faucet_address;
use reqwest::redirect::Policy;

use super::http::served;
use super::world::NETWORK;

async fn page(url: &str, path: &str) -> String {
    let answer = reqwest::get(format!("{url}{path}")).await.unwrap();
    let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert_eq!(answer.status(), 200, "{path}");
    let text = answer.text().await.unwrap();
    assert!(!text.contains("<script") && !text.contains("http://") && !text.contains("https://"), "{path}");
    text
}

#[tokio::test]
async fn a_channels_life_can_be_read() {
    let served = served().await;
    let chain = served.chain().await;
    let (payer, payee) = (served.funded(&chain, 1).await, served.funded(&chain, 2).await);
    let session = SigningKey::from_seed(&[42; 32]);
    let terms = Terms {
        payer: payer.address().clone(),
        payee: payee.address().clone(),
        payer_key: session.public(),
        network: NETWORK,
        nonce: 1,
        challenge_seconds: 60,
        fee_bps: 500,
        treasury: faucet_address(),
    };
    open_channel(&payer, &terms, TON, TON).await.unwrap();
    let channel = terms.address();
    let voucher = Voucher { network: NETWORK, channel: channel.clone(), nonce: 1, cumulative: TON / 4 };
    settle(&payee, &voucher.sign(&session).verify_for(&terms).unwrap()).await.unwrap();

    let account = page(&served.url, &format!("/account/{channel}")).await;
    for words in [
        "Account: channel",
        "channel Settle",
        "0.25 TON",
        "channel Payout",
        "carried out",
        &friendly(payee.address(), true),
    ] {
        assert!(account.contains(words), "{words}: {account}");
    }
    let wallet = page(&served.url, &format!("/account/{}", friendly(payer.address(), false))).await;
    assert!(wallet.contains("wallet v4r2") && wallet.contains("seqno"));
    let home = page(&served.url, "/").await;
    assert!(home.contains("Newest blocks") && home.contains("http-equiv=\"refresh\""));
    let head = chain.head().await.unwrap();
    let block = page(&served.url, &format!("/block/{}", head.seqno)).await;
    assert!(block.contains(&hex::encode(head.root_hash)));
    let nobody = page(&served.url, &format!("/account/0:{}", "7".repeat(64))).await;
    assert!(nobody.contains("there is nothing at this address"));
}

#[tokio::test]
async fn what_is_looked_for_is_found_or_said_not_to_be() {
    let served = served().await;
    let client = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
    let search = |what: &str| client.get(format!("{}/search", served.url)).query(&[("q", what)]).send();
    let to = |answer: reqwest::Response| answer.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(to(search(" 1 ").await.unwrap()), "/block/1");
    let address = faucet_address();
    assert_eq!(to(search(&friendly(&address, true)).await.unwrap()), format!("/account/{address}"));
    for what in ["", "<script>alert(1)</script>", "-1", &"9".repeat(5000)] {
        let answer = search(what).await.unwrap();
        assert_eq!(answer.status(), 404, "{what}");
        assert!(!answer.text().await.unwrap().contains("<script"));
    }
    for path in ["/block/0", "/block/x", "/block/4294967295", "/account/%3Cb%3E", "/account/0:12?lt=x"] {
        let answer = reqwest::get(format!("{}{path}", served.url)).await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
        assert!(!answer.text().await.unwrap().contains("<b>"), "{path}");
    }
}
