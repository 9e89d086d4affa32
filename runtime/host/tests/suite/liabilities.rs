//! What a gateway says that it owes: taken only from the payer, only if the chain says the same, and held against the
//! host's own book.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use cocoon_accounts::{authorize, unix_seconds};
use cocoon_contracts::{
    Address, TON,
    bond::{Liabilities, Terms},
    liabilities::{Liability, Tree},
};
use cocoon_host::Host;
use cocoon_protocol::http::{AUTHORIZATION_HEADER, CHANNEL_HEADER, LiabilityProof};

use crate::world::{GATEWAY, Gateway, NETWORK, OPERATOR, World, address, code, eventually, key};

const BOND: u8 = 9;
/// What may be unpaid: more than any one frame costs.
const WINDOW: u64 = 100_000;
/// How often the host notes what it is owed.
const SAMPLE: Duration = Duration::from_millis(50);

/// The bond that the world's registry lists.
pub(crate) fn listed() -> Address {
    terms(GATEWAY).address()
}

fn terms(operator: u8) -> Terms {
    Terms {
        operator: address(operator),
        operator_key: key(BOND).public(),
        treasury: address(3),
        network: NETWORK,
        delay_seconds: 60,
        salt: 0,
        platforms: Vec::new(),
    }
}

async fn backed(world: &World, operator: u8) -> Address {
    let terms = terms(operator);
    let backed = cocoon_chain::back_bond(&world.wallet(operator), &terms, 2 * TON).await;
    backed.expect("the bond is backed");
    terms.address()
}

/// A second of the chain in which nothing was published yet: an epoch is one, and only grows.
async fn next_second(wallet: &cocoon_chain::Wallet) -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    loop {
        let time = wallet.chain().head().await.expect("the chain answers").time;
        if LAST.fetch_max(time, Ordering::SeqCst) < time {
            return time;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Publishes a tree of one leaf, as of now, and returns it with its proof.
async fn publish(world: &World, bond: &Address, channel: &Address, amount: u64) -> LiabilityProof {
    let wallet = world.wallet(GATEWAY);
    let epoch = next_second(&wallet).await;
    let leaf = Liability { channel: channel.clone(), amount, salt: [1; 32] };
    let tree = Tree::new(epoch, vec![leaf]).expect("a small tree");
    let root = tree.root();
    let said = Liabilities { epoch, root: root.hash, sum: root.sum };
    let signed = said.statement(NETWORK, bond).sign(&key(BOND));
    cocoon_chain::publish(&wallet, bond, &said, &signed.signature).await.expect("it is signed");
    let proof = tree.prove(channel).expect("a leaf");
    LiabilityProof { bond: bond.to_string(), proof: hex::encode(proof.encode()) }
}

/// Shows the host a proof, as `signer` says it.
async fn show(host: &str, channel: &Address, signer: u8, proof: &LiabilityProof) -> (u16, String) {
    let body = serde_json::to_vec(proof).expect("plain data");
    let authorization = authorize(&key(signer), channel, unix_seconds(), Some(&body));
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let request = http.post(format!("{host}/v1/liabilities")).body(body);
    let request = request.header(CHANNEL_HEADER, channel.to_string());
    let response =
        request.header(AUTHORIZATION_HEADER, authorization).send().await.expect("the host answers");
    match response.status().as_u16() {
        200 => (200, String::new()),
        status => (status, code(response).await),
    }
}

#[tokio::test]
async fn only_the_payer_can_prove_and_only_what_the_chain_says() {
    let world = World::start().await;
    let host = world.host().await;
    let gateway = Gateway::open(&world, &host).await;
    let (url, channel) = (host.url(), gateway.channel());
    let bond = backed(&world, GATEWAY).await;
    let early = LiabilityProof {
        bond: bond.to_string(),
        proof: hex::encode(
            Tree::new(1, vec![Liability { channel: channel.clone(), amount: 0, salt: [0; 32] }])
                .expect("a small tree")
                .prove(&channel)
                .expect("a leaf")
                .encode(),
        ),
    };
    let refused = |status, code: &str| (status, code.to_owned());
    assert_eq!(show(&url, &channel, GATEWAY, &early).await, refused(400, "not_published"));

    let proof = publish(&world, &bond, &channel, 70).await;
    assert_eq!(show(&url, &channel, OPERATOR, &proof).await, refused(401, "unauthorized"));
    assert_eq!(show(&url, &channel, GATEWAY, &early).await, refused(400, "wrong_proof"));
    let others = LiabilityProof { bond: backed(&world, OPERATOR).await.to_string(), ..proof.clone() };
    assert_eq!(show(&url, &channel, GATEWAY, &others).await, refused(400, "foreign_bond"));
    let broken = LiabilityProof { proof: "00".to_owned(), ..proof.clone() };
    assert_eq!(show(&url, &channel, GATEWAY, &broken).await, refused(400, "malformed"));
    let huge = LiabilityProof { proof: "0".repeat(10_000), ..proof.clone() };
    assert_eq!(show(&url, &channel, GATEWAY, &huge).await, refused(413, "too_large"));
    let folder = world.folder.path().join("state/liabilities");
    let kept = || std::fs::read_dir(&folder).expect("the host made it").count();
    assert_eq!(kept(), 0, "nothing of these is kept");

    assert_eq!(show(&url, &channel, GATEWAY, &proof).await, (200, String::new()));
    let path = folder.join(format!("{}.proof", hex::encode(channel.address.0)));
    let text = std::fs::read(path).expect("it is kept");
    assert_eq!(serde_json::from_slice::<LiabilityProof>(&text).expect("its form"), proof);
    assert_eq!(kept(), 1);
}

#[tokio::test]
async fn a_gateway_that_owes_less_than_was_counted_is_told_of() {
    let world = World::start().await;
    let mut options = world.options();
    let lines = Arc::new(Mutex::new(String::new()));
    let log = Arc::clone(&lines);
    options.log = Arc::new(move |line: &str| log.lock().expect("ours").push_str(line));
    options.money.window = WINDOW;
    // What is noted now counts as noted ten seconds ago: what is published now is judged by it.
    options.timing.sample_every = SAMPLE;
    options.clock = Arc::new(|| unix_seconds() - 10);
    let host = Host::start(options).await.expect("the host starts");
    let gateway = Gateway::open(&world, &host).await;
    let channel = gateway.channel();
    gateway.pay(TON / 2).await;
    let trusted = world.trust(&host.bundle().expect("it has evidence"), host.expected()).await;
    let owed = async || {
        let status = host.payee_book().status(&channel).await.expect("it reads");
        status.expect("it is known").owed
    };
    for number in 1..=20 {
        let (mut response, _) = gateway.ask(&trusted, number, 16).await;
        while response.chunk().await.expect("the stream goes on").is_some() {}
        if owed().await > WINDOW + 1 {
            break;
        }
    }
    let owed = owed().await;
    assert!(owed > WINDOW + 1, "{owed}");

    let bond = backed(&world, GATEWAY).await;
    tokio::time::sleep(10 * SAMPLE).await;
    let whole = publish(&world, &bond, &channel, owed - WINDOW).await;
    assert_eq!(show(&host.url(), &channel, GATEWAY, &whole).await.0, 200);
    assert!(!lines.lock().expect("ours").contains("less than this host counted"), "a window may be unpaid");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let short = publish(&world, &bond, &channel, owed - WINDOW - 1).await;
    assert_eq!(show(&host.url(), &channel, GATEWAY, &short).await.0, 200);
    let said = lines.lock().expect("ours").clone();
    assert!(said.contains(&format!("{} less than this host counted", WINDOW + 1)), "{said}");

    // Published, and never shown.
    tokio::time::sleep(Duration::from_secs(1)).await;
    publish(&world, &bond, &address(7), 1).await;
    eventually("the missing proof is told of", async || {
        lines.lock().expect("ours").contains("did not prove")
    })
    .await;
}

/// The registry lists its bond: it is asked for proofs though it never gave one.
#[tokio::test]
async fn a_gateway_that_never_proved_anything_is_found_in_the_registry_and_told_of() {
    let world = World::start().await;
    let mut options = world.options();
    let lines = Arc::new(Mutex::new(String::new()));
    let log = Arc::clone(&lines);
    options.log = Arc::new(move |line: &str| log.lock().expect("ours").push_str(line));
    options.timing.sample_every = SAMPLE;
    let bond = backed(&world, GATEWAY).await;
    assert_eq!(bond, listed());
    // What was published before anybody looked is not asked for.
    publish(&world, &bond, &address(7), 1).await;
    let host = Host::start(options).await.expect("the host starts");
    let gateway = Gateway::open(&world, &host).await;
    tokio::time::sleep(200 * SAMPLE).await;
    assert!(!lines.lock().expect("ours").contains("did not prove"));
    publish(&world, &bond, &address(7), 1).await;
    let missing = format!("did not prove that this includes what it owes on channel {}", gateway.channel());
    eventually("the missing proof is told of", async || lines.lock().expect("ours").contains(&missing)).await;
}
