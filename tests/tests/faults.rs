//! Parts are killed in mid-stream: the client ends with a clear error, owes at most one window, and nobody's account
//! loses anything.

use std::path::{Path, PathBuf};

use cocoon_accounts::{PayeeBook, PayeeOptions, Store};
use cocoon_chain::read_channel;
use cocoon_client::proxy::budget_for;
use cocoon_client::{Answering, Client, ClientError, Event, Finished, Peer};
use cocoon_protocol::Prompt;
use cocoon_protocol::http::AccountStatus;
use cocoon_tests::slow_model::repeat_layers;
use cocoon_tests::{Network, kill, tiny_model, wait_for};

const DEPOSIT: u64 = 1_000_000_000;
/// About a hundred completion tokens: well below what the broken answers would cost in full.
const WINDOW: u64 = 20_000;

fn start(model: &Path) -> Network {
    let window = WINDOW.to_string();
    Network::start_with(
        model,
        &["--challenge-seconds", "1", "--min-challenge-seconds", "1", "--window", &window],
    )
}

/// A model that needs seconds for an answer: what is killed is killed in mid-stream.
fn slow_model(folder: &tempfile::TempDir) -> PathBuf {
    let path = folder.path().join("slow.gguf");
    let tiny = std::fs::read(tiny_model()).expect("the tiny model lies in the repository");
    std::fs::write(&path, repeat_layers(&tiny, 60)).expect("it can be written");
    path
}

async fn ask(client: &Client, peer: &Peer, max_tokens: u32) -> Answering {
    let body = serde_json::json!({
        "model": peer.model(), "stream": true, "max_tokens": max_tokens, "temperature": 1.5, "seed": 3,
        "messages": [{"role": "user", "content": "Write about everything, at length."}],
    });
    let body = body.to_string().into_bytes();
    let budget = budget_for(&body, Some(max_tokens));
    client.ask(peer, Prompt::new(body), budget).await.expect("it is sent")
}

/// Reads some tokens, so that the stream is known to be under way.
async fn read_tokens(answering: &mut Answering, chunks: usize) {
    for _ in 0..chunks {
        match answering.next().await.expect("it streams") {
            Some(Event::Chunk(_) | Event::Progress(_)) => {}
            Some(Event::Finished(_)) => panic!("the model was faster than the test"),
            Some(Event::Error { status, .. }) => panic!("refused with {status}"),
            None => panic!("it ended"),
        }
    }
}

async fn rest(mut answering: Answering) -> Result<Box<Finished>, ClientError> {
    loop {
        match answering.next().await? {
            Some(Event::Finished(finished)) => return Ok(finished),
            Some(_) => {}
            None => panic!("it ended without a receipt and without an error"),
        }
    }
}

/// What the client owes for a broken answer.
async fn broken(answering: Answering) -> u64 {
    match rest(answering).await.err().expect("the part is dead") {
        ClientError::Interrupted { owed, completion_tokens, .. } => {
            assert!(completion_tokens > 0, "it was in mid-stream");
            owed
        }
        other => panic!("not a clear error: {other}"),
    }
}

async fn account(client: &Client) -> AccountStatus {
    let channel = client.channel().await.expect("the channel is open").address.clone();
    wait_for("the gateway's account", async || client.gateway().account(&channel).await.ok()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_killed_in_mid_stream_costs_at_most_a_window_and_another_takes_its_place() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let network = start(&slow_model(&folder));
    let client = network.client("alice", &network.gateway_url(), DEPOSIT).await;
    let peer = client.find(None).await.expect("the worker is acceptable");
    let mut answering = ask(&client, &peer, 400).await;
    read_tokens(&mut answering, 6).await;
    let guests = network.guests();
    assert_eq!(guests.len(), 1, "one guest: {guests:?}");
    kill(guests[0]);
    let owed = broken(answering).await;
    let status = account(&client).await;
    assert_eq!(status.window, WINDOW);
    assert!(status.owed <= owed + status.window, "the gateway charged {} for {owed}", status.owed);
    assert!(status.owed - status.voucher.min(status.owed) <= status.window, "at most one window is unpaid");
    assert_eq!(status.reserved, 0, "a dead answer reserves nothing");

    // A new guest is a new key: the old evidence is worth nothing, the new one is found and asked.
    let fresh = wait_for("another guest", async || {
        client.find(None).await.ok().filter(|p| p.trusted().seal_key() != peer.trusted().seal_key())
    })
    .await;
    let finished = rest(ask(&client, &fresh, 8).await).await.expect("the new guest answers");
    assert_eq!(finished.receipt.receipt().usage.completion_tokens, 8);
    let after = account(&client).await;
    assert_eq!(after.voucher, after.owed, "everything is paid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_killed_in_mid_stream_takes_its_guest_along_and_loses_no_voucher() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut network = start(&slow_model(&folder));
    let client = network.client("alice", &network.gateway_url(), DEPOSIT).await;
    let peer = client.find(None).await.expect("the worker is acceptable");
    let first = rest(ask(&client, &peer, 8).await).await.expect("a whole answer before");
    let mut answering = ask(&client, &peer, 400).await;
    read_tokens(&mut answering, 6).await;
    let guests = network.guests();
    network.host.take().expect("it runs").kill();
    broken(answering).await;
    wait_for("the guest's end", async || guests.iter().all(|id| !is_running(*id)).then_some(())).await;

    network.start_host();
    let again = wait_for("the worker", async || {
        client.find(None).await.ok().filter(|p| p.is_fresh() && new_key(p, &peer))
    })
    .await;
    let second = rest(ask(&client, &again, 8).await).await.expect("it answers again");
    // The gateway ends first and hands over its last voucher; then the host settles: what was earned before the kill
    // and after it is all there.
    network.gateway.take().expect("it runs").stop();
    network.host.take().expect("it runs").stop();
    let settled = settled_to_the_host(&network).await;
    let least = operator_bill(first.bill + second.bill);
    assert!(settled >= least, "the host settled {settled}, at least {least} was due");
}

/// What the operator was owed for answers that cost the client this much; rounding may take a nanoton each.
fn operator_bill(client_bill: u64) -> u64 {
    client_bill * 100 / 105 - 4
}

/// What the chain says was settled on the channels in the book of a host that has ended.
async fn settled_to_the_host(network: &Network) -> u64 {
    let chain = network.connect_chain().await;
    let file = network.folder.path().join("operator/accounts.redb");
    let options = PayeeOptions { network: chain.network(), window: 0 };
    let book = PayeeBook::open(Store::open(&file).expect("the host has ended"), options).expect("its book");
    let mut settled = 0;
    for account in book.accounts().await.expect("a file's book answers") {
        settled += read_channel(&*chain, &account.address).await.expect("it is open").paid;
    }
    settled
}

fn new_key(peer: &Peer, old: &Peer) -> bool {
    peer.trusted().seal_key() != old.trusted().seal_key()
}

fn is_running(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_killed_in_mid_stream_comes_back_with_every_voucher() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut network = start(&slow_model(&folder));
    let url = network.gateway_url();
    let client = network.client("alice", &url, DEPOSIT).await;
    let peer = client.find(None).await.expect("the worker is acceptable");
    let first = rest(ask(&client, &peer, 8).await).await.expect("a whole answer before");
    let paid = first.voucher.expect("it cost something").voucher.cumulative;
    let mut answering = ask(&client, &peer, 400).await;
    read_tokens(&mut answering, 6).await;
    network.gateway.take().expect("it runs").kill();
    let owed = broken(answering).await;

    network.start_gateway(url.trim_start_matches("http://"));
    let status = account(&client).await;
    assert!(status.voucher >= paid, "acknowledged: {paid}, after the kill: {}", status.voucher);
    assert!(status.owed <= paid + owed + status.window, "{} charged, {owed} received", status.owed);
    let again = wait_for("the worker", async || client.find(None).await.ok()).await;
    let second = rest(ask(&client, &again, 8).await).await.expect("it answers again");
    let voucher = second.voucher.expect("it cost something").voucher.cumulative;
    assert!(voucher >= paid + owed + second.bill, "cumulative: nothing is forgotten, nothing is paid twice");
    assert!(voucher <= paid + owed + second.bill + status.window);

    // On chain at the end: exactly the newest voucher.
    let channel = client.channel().await.expect("open").address.clone();
    drop(client);
    network.gateway.take().expect("it runs").stop();
    let chain = network.connect_chain().await;
    let state = read_channel(chain.as_ref(), &channel).await.expect("the channel");
    assert_eq!(state.paid, voucher);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_killed_and_started_again_goes_on_where_it_was() {
    let mut network = Network::start(&tiny_model());
    let client = network.client("alice", &network.gateway_url(), DEPOSIT).await;
    let peer = client.find(None).await.expect("the worker is acceptable");
    let before =
        rest(ask(&client, &peer, 8).await).await.expect("an answer").voucher.expect("it cost something");
    let chain = network.connect_chain().await;
    let (head, address) =
        (chain.head().await.expect("a block"), network.chain.as_ref().expect("it runs").url());
    network.chain.take().expect("it runs").kill();

    // The ledger is not needed to answer, only to open, close and settle.
    let during = rest(ask(&client, &peer, 8).await).await.expect("an answer without a ledger");
    assert!(during.voucher.expect("it cost something").voucher.cumulative > before.voucher.cumulative);

    network.start_chain(address.trim_start_matches("http://"));
    let block = chain.block(head.seqno).await.expect("the chain answers").expect("the old block is there");
    assert_eq!(block.root_hash, head.root_hash);
    let channel = client.channel().await.expect("open").address.clone();
    let state = read_channel(chain.as_ref(), &channel).await.expect("the channel survived");
    assert!(state.deposit() >= DEPOSIT, "{} of {DEPOSIT}", state.deposit());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deposit_that_does_not_cover_the_worst_case_is_refused_before_work() {
    let network = Network::start(&tiny_model());
    // 20,000 completion tokens cost 3.36 million nanotons; what is left of opening comes on top of the deposit.
    let client = network.client("poor", &network.gateway_url(), 50_000).await;
    let peer = client.find(None).await.expect("the worker is acceptable");
    let body = serde_json::json!({
        "model": peer.model(), "max_tokens": 20_000, "messages": [{"role": "user", "content": "hi"}],
    });
    let body = body.to_string().into_bytes();
    let budget = budget_for(&body, Some(20_000));
    match client.ask(&peer, Prompt::new(body), budget).await.err().expect("it is refused") {
        ClientError::Refused { status: 402, code, .. } => assert_eq!(code, "insufficient_deposit"),
        other => panic!("another error: {other}"),
    }
    let status = account(&client).await;
    assert_eq!((status.owed, status.reserved), (0, 0));
    // A smaller question fits.
    rest(ask(&client, &peer, 8).await).await.expect("8 tokens are covered");
}
