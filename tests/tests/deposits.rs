//! A conversation that outgrows its deposit: it ends there, or goes on as far as the user allowed; and what the gateway's
//! operator sees of it.

use std::process::{Command, Stdio};

use cocoon_client::proxy::budget_for;
use cocoon_client::{Client, ClientError, Event};
use cocoon_protocol::Prompt;
use cocoon_tests::{Network, binary, tiny_model, wait_for};
use serde_json::Value;

/// Some twenty answers' worth.
const DEPOSIT: u64 = 100_000;
const STEPS: u64 = 3;
const TOKENS: u32 = 24;

/// Asks once, reads the answer to its end, and returns what it cost.
async fn ask(client: &Client) -> Result<u64, ClientError> {
    let peer = client.find(None).await?;
    let body = serde_json::json!({
        "model": peer.model(), "stream": true, "max_tokens": TOKENS, "seed": 1,
        "messages": [{"role": "user", "content": "On."}],
    });
    let body = body.to_string().into_bytes();
    let budget = budget_for(&body, Some(TOKENS));
    let mut answering = client.ask(&peer, Prompt::new(body), budget).await?;
    loop {
        match answering.next().await? {
            Some(Event::Finished(finished)) => return Ok(finished.bill),
            Some(_) => {}
            None => panic!("it ended without a receipt and without an error"),
        }
    }
}

/// Asks until it is refused for want of a deposit; what was paid for in all.
async fn ask_on(client: &Client) -> u64 {
    let mut paid = 0;
    loop {
        match ask(client).await {
            Ok(bill) => paid += bill,
            Err(ClientError::Refused { code, .. }) if code == "insufficient_deposit" => return paid,
            Err(error) => panic!("after {paid} nanotons: {error}"),
        }
        assert!(paid <= DEPOSIT * STEPS, "more was answered than was put in");
    }
}

/// Their worst cases do not fit into the deposit together, and what they cost does.
#[tokio::test(flavor = "multi_thread")]
async fn questions_that_are_asked_at_once_wait_for_room_in_the_deposit() {
    let network = Network::start(&tiny_model());
    let url = network.gateway_url();
    let client = network.client("parallel", &url, DEPOSIT).await;
    let peer = client.find(None).await.expect("there is a worker");
    let worst = peer.price().worst_case(&budget_for(&[0; 150], Some(TOKENS)));
    let number = usize::try_from(DEPOSIT / worst + 3).expect("a few");
    let asked = futures_util::future::join_all((0..number).map(|_| ask(&client))).await;
    for answer in asked {
        assert!(answer.expect("it waits for the others").min(worst) > 0);
    }
}

fn gateway_status(network: &Network) -> Value {
    let mut command = Command::new(binary("cocoon"));
    command.args(["gateway", "status", "--json", "--state", network.state()]).stdin(Stdio::null());
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_outgrows_its_deposit_only_as_far_as_the_user_allowed() {
    let mut network = Network::start(&tiny_model());
    let url = network.gateway_url();

    let strict = network.client("strict", &url, DEPOSIT).await;
    let first = ask_on(&strict).await;
    assert!(first <= DEPOSIT && first > DEPOSIT / 4, "{first} of {DEPOSIT}");
    let channel = strict.channel().await.expect("it is open").address.clone();
    let chain = network.connect_chain().await;
    let state = cocoon_chain::read_channel(&*chain, &channel).await.expect("it is open");
    assert_eq!((state.deposit(), state.limit), (DEPOSIT, DEPOSIT), "nobody asked for more");

    let mut options = network.client_options("generous", &url, DEPOSIT).await;
    options.channel.most = DEPOSIT * STEPS;
    let generous = Client::connect(options).await.expect("the gateway answers");
    let second = ask_on(&generous).await;
    assert!(second > DEPOSIT * (STEPS - 1), "it went on beyond two deposits: {second}");
    let channel = generous.channel().await.expect("it is open").address.clone();
    let state = cocoon_chain::read_channel(&*chain, &channel).await.expect("it is open");
    let most = DEPOSIT * STEPS;
    assert_eq!((state.deposit(), state.limit), (most, most), "a stolen session key signs no more than that");

    what_the_operator_sees_is_what_was_paid(&mut network, first + second).await;
}

async fn what_the_operator_sees_is_what_was_paid(network: &mut Network, paid: u64) {
    let covered = wait_for("the last vouchers", async || {
        let status = gateway_status(network);
        (status["payee"]["total"]["covered"] == paid).then_some(status)
    })
    .await;
    assert_eq!(covered["running"], true);
    assert_eq!(covered["payee"]["total"]["owed"], paid);
    assert_eq!(covered["payee"]["total"]["at_risk"], 0);
    let channels = covered["payee"]["channels"].as_array().expect("a list");
    assert_eq!(channels.len(), 2);
    let hosts = covered["payer"]["total"]["owed"].as_u64().expect("an amount");
    assert!(hosts > 0 && hosts < paid, "hosts are owed {hosts}, clients paid {paid}");

    network.gateway.take().expect("it runs").stop();
    let ended = gateway_status(network);
    assert_eq!(ended["running"], false);
    assert_eq!(
        (&ended["payee"]["total"]["settled"], &ended["payee"]["total"]["unsettled"]),
        (&paid.into(), &0.into())
    );
    assert_eq!(ended["payer"]["total"]["owed"], hosts);
}

#[test]
fn a_client_of_one_question_closes_channels_that_had_no_work() {
    let network = Network::start(&tiny_model());
    let run = |arguments: &[&str]| {
        let mut command = Command::new(binary("cocoon"));
        command.args(arguments).args(["--state", network.state()]).stdin(Stdio::null());
        let output = command.output().expect("cocoon starts");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let chat = ["chat", "On.", "--max-tokens", "4"];
    let idle = [&chat[..], &["--close-idle", "0"]].concat();
    assert_eq!(run(&chat).0, Some(0));
    let (payee, challenge) = (format!("0:{}", "5".repeat(64)), ["--challenge-seconds", "1"]);
    let open = ["channel", "open", "--yes", "--payee", &payee, "--deposit", "0.5", "--json"];
    let (code, opened) = run(&[&open[..], &challenge].concat());
    assert_eq!(code, Some(0), "{opened}");
    let opened: Value = serde_json::from_str(&opened).expect("JSON");
    let channel = opened["channel"].as_str().expect("an address");

    assert_eq!(run(&chat).0, Some(0));
    let show = || run(&["channel", "show", channel, "--json"]);
    assert!(show().1.contains("\"deadline\":null"), "nobody asked for it: {}", show().1);
    assert_eq!(run(&idle).0, Some(0));
    assert!(!show().1.contains("\"deadline\":null"), "it began to close: {}", show().1);
    // The challenge period ends by the clock of a block, which comes every few seconds.
    let gone = (0..20).any(|_| {
        std::thread::sleep(std::time::Duration::from_secs(1));
        assert_eq!(run(&idle).0, Some(0));
        show().0 == Some(1)
    });
    assert!(gone, "its rest went home: {}", show().1);
    let (_, own) = run(&["channel", "show", "--json"]);
    assert!(own.contains("\"deadline\":null"), "the one that is in use stays: {own}");
}
