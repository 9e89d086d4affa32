//! Requests that are refused, each in the one shape of errors.

use cocoon_accounts::{authorize, unix_seconds};
use cocoon_contracts::{Address, SigningKey};
use cocoon_protocol::{
    Price,
    http::{AUTHORIZATION_HEADER, CHANNEL_HEADER},
};

use crate::world::{CLIENT, LISTED, Refused, Scene, WORKER, address, key, refusal};

async fn sent(request: reqwest::RequestBuilder) -> Refused {
    refusal(request.send().await.expect("the gateway answers")).await
}

#[tokio::test]
async fn wrong_requests_are_refused_before_any_money_is_touched() {
    let scene = Scene::start().await;
    let client = &scene.client;
    let sealed = |change: &dyn Fn(&mut cocoon_protocol::RequestHeader)| {
        let mut header = client.header(5);
        change(&mut header);
        client.seal(&header).0
    };
    let good = || sealed(&|_| {});
    let answers = format!("{}/v1/workers/{WORKER}/answers", client.gateway);
    let refused = |status: u16, code: &str| (status, code.to_owned());

    assert_eq!(sent(client.post("nobody", good())).await, refused(404, "unknown_worker"));
    let cheap = Price { prompt: LISTED.prompt - 1, ..LISTED };
    let haggling = sealed(&|header| header.price = cheap);
    assert_eq!(sent(client.post(WORKER, haggling)).await, refused(409, "wrong_price"));
    let unnamed = client.http.post(&answers).body(good().into_bytes());
    assert_eq!(sent(unnamed).await, refused(402, "channel_required"));
    let elsewhere = client.http.post(&answers).header(CHANNEL_HEADER, address(9).to_string());
    assert_eq!(sent(elsewhere.body(good().into_bytes())).await, refused(404, "unknown_channel"));
    let nonsense = client.http.post(&answers).header(CHANNEL_HEADER, "x");
    assert_eq!(sent(nonsense.body(good().into_bytes())).await, refused(400, "malformed"));
    let channel = client.terms.address();
    let named = || client.http.post(&answers).header(CHANNEL_HEADER, channel.to_string());
    assert_eq!(
        sent(named().body(good().into_bytes())).await,
        refused(401, "unauthorized"),
        "anybody knows the address"
    );
    let now = unix_seconds();
    let forged = |signer: &SigningKey, of: &Address, second: u64| {
        let body = good().into_bytes();
        let header = authorize(signer, of, second, Some(&body));
        named().header(AUTHORIZATION_HEADER, header).body(body)
    };
    let payer = key(CLIENT);
    assert_eq!(sent(forged(&key(9), &channel, now)).await, refused(401, "unauthorized"));
    assert_eq!(sent(forged(&payer, &address(9), now)).await, refused(401, "unauthorized"));
    assert_eq!(sent(forged(&payer, &channel, now - 310)).await, refused(401, "unauthorized"));
    let other_body = authorize(&payer, &channel, now, Some(good().as_bytes()));
    let swapped = named().header(AUTHORIZATION_HEADER, other_body).body(good().into_bytes());
    assert_eq!(sent(swapped).await, refused(401, "unauthorized"));
    let read = client.http.get(format!("{}/v1/channels/{channel}", client.gateway));
    assert_eq!(sent(read).await, refused(401, "unauthorized"), "accounts are nobody else's business");
    let rubbish = client.http.post(&answers).body(vec![7; 500]);
    assert_eq!(sent(rubbish).await, refused(400, "malformed"));
    let huge = client.http.post(&answers).body(vec![7; 5_000_000]);
    assert_eq!(sent(huge).await, refused(413, "too_large"));
    let status = client.status().await;
    assert_eq!((status.owed, status.reserved), (0, 0));
}

#[tokio::test]
async fn unknown_paths_methods_and_bodies_are_refused_in_the_same_shape() {
    let scene = Scene::start().await;
    let (http, base) = (&scene.client.http, &scene.client.gateway);
    let refused = |status: u16, code: &str| (status, code.to_owned());
    assert_eq!(sent(http.get(format!("{base}/v2/x"))).await, refused(404, "not_found"));
    assert_eq!(sent(http.delete(format!("{base}/v1/network"))).await, refused(405, "method_not_allowed"));
    assert_eq!(sent(http.put(format!("{base}/v1/channels")).body("{")).await, refused(400, "malformed"));
    let unknown = format!(r#"{{"address":"{}","extra":1}}"#, address(9));
    assert_eq!(sent(http.put(format!("{base}/v1/channels")).body(unknown)).await, refused(400, "malformed"));
    assert_eq!(sent(http.get(format!("{base}/v1/channels/x"))).await, refused(400, "malformed"));
    let unknown = format!("{base}/v1/channels/{}", address(9));
    assert_eq!(sent(http.get(unknown)).await, refused(404, "unknown_channel"));
    assert_eq!(sent(http.get(format!("{base}/v1/workers/x/bundle"))).await, refused(404, "unknown_worker"));
}
