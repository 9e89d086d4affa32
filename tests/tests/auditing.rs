//! docs/auditing.md: every command on the page; and a gateway that lies about what it owes, which is noticed by the host
//! that it left out, and costs it its stake.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cocoon_chain::Wallet;
use cocoon_client::{Client, Event, Peer};
use cocoon_contracts::bond::Liabilities;
use cocoon_contracts::liabilities::Tree;
use cocoon_contracts::{Address, SigningKey, parse_address};
use cocoon_keystore::KeyFile;
use cocoon_protocol::{Budget, Outcome, Prompt};
use cocoon_tests::page::{self, Ends};
use cocoon_tests::{Network, binary, tiny_model, wait_for};
use serde_json::Value;

const PAGE: &str = include_str!("../../docs/auditing.md");
const CHALLENGE: [&str; 4] = ["--challenge-seconds", "1", "--min-challenge-seconds", "1"];

fn cocoon(network: &Network, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary("cocoon"));
    command.args(arguments).args(["--state", network.state()]).stdin(Stdio::null());
    command.output().expect("cocoon starts")
}

fn said(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {}", said(output)))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders are UTF-8")
}

/// A network on which a host has worked: there is something to owe.
fn worked(gateway: &[&str]) -> Network {
    let network = Network::start_with(&tiny_model(), &[&CHALLENGE[..], gateway].concat());
    let output = cocoon(&network, &["chat", "What is a tuple?", "--seed", "5", "--max-tokens", "8"]);
    assert!(output.status.success(), "{}", said(&output));
    network
}

/// The proof that the host keeps, once there is one of something.
async fn own_proof(network: &Network) -> PathBuf {
    let folder = network.folder.path().join("operator/liabilities");
    wait_for("the host's proof", async || {
        let found = std::fs::read_dir(&folder).ok()?.flatten().map(|entry| entry.path());
        found.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "proof"))
    })
    .await
}

fn key_file(network: &Network, file: &str) -> KeyFile {
    KeyFile::load(&network.folder.path().join(file)).expect("a key file").expect("it is there")
}

fn key(file: &KeyFile) -> SigningKey {
    file.open(|| panic!("the parts' keys have no passphrase")).expect("a plain key")
}

fn bond(network: &Network, part: &str) -> Address {
    let note = network.folder.path().join(part).join("bond.address");
    parse_address(std::fs::read_to_string(note).expect("a note").trim()).expect("an address")
}

/// A statement that this part's bond never made by itself.
fn forged(network: &Network, part: &str, liabilities: &Liabilities) -> String {
    let id = network.file()["network"].as_integer().expect("a number");
    let statement = liabilities.statement(id.try_into().expect("32 bits"), &bond(network, part));
    hex::encode(statement.sign(&key(&key_file(network, &format!("{part}/bond.key")))).encode())
}

#[tokio::test]
async fn every_command_on_the_page_ends_as_it_says() {
    let mut network = worked(&[]);
    // The gateway goes, and comes again with a bond: it publishes once, and what is owed is in it.
    network.gateway.take().expect("it runs").stop();
    let arguments = [&CHALLENGE[..], &["--stake", "2", "--epoch", "3600"]].concat();
    network.gateway_arguments(&arguments);
    let url = network.file()["gateways"][0].as_str().expect("a URL").replace("http://", "");
    network.start_gateway(&url);
    let proof = own_proof(&network).await;

    let folder = network.folder.path();
    std::os::unix::fs::symlink(folder, folder.join("cocoon")).expect("our folder");
    std::fs::copy(proof, folder.join("own.proof")).expect("our folder");
    std::fs::write(folder.join("channels.txt"), "# none\n").expect("our folder");
    std::os::unix::fs::symlink(tiny_model(), folder.join("model.gguf")).expect("our folder");
    std::fs::write(folder.join("other.gguf"), "another model").expect("our folder");
    let content = cocoon(&network, &["registry", "show", "--toml"]);
    let content = String::from_utf8(content.stdout).expect("text");
    let edited = content.replace("max_permille = 10000", "max_permille = 9000");
    assert_ne!(content, edited);
    std::fs::write(folder.join("content.toml"), edited).expect("our folder");

    let mut run = 0;
    for example in page::examples(PAGE) {
        if let Ends::NotRun(_) = example.ends {
            continue;
        }
        if example.line.contains("one.statement one.statement") {
            for (name, sum) in [("one", 1), ("other", 2)] {
                let said = Liabilities { epoch: 1, root: [7; 32], sum };
                let statement = forged(&network, "operator", &said);
                std::fs::write(folder.join(format!("{name}.statement")), statement).expect("our folder");
            }
        }
        example.run(&binary("cocoon"), folder, &[("XDG_STATE_HOME", folder)]);
        run += 1;
    }
    assert!(run >= 27, "{run} commands run");
}

/// What a client keeps of an answer.
async fn kept(client: &Client, peer: &Peer, folder: PathBuf, body: Value) -> (PathBuf, Outcome, u32) {
    let budget = Budget { prompt_tokens: 400, completion_tokens: 400 };
    let prompt = Prompt::new(body.to_string().into_bytes());
    let mut answering = client.ask(peer, prompt, budget).await.expect("it is taken");
    let receipt = loop {
        match answering.next().await.expect("an honest answer").expect("it has an end") {
            Event::Finished(finished) => break finished.receipt,
            Event::Error { .. } => panic!("the worker refuses {body}"),
            Event::Chunk(_) | Event::Progress(_) => {}
        }
    };
    std::fs::create_dir(&folder).expect("our folder");
    std::fs::write(folder.join("bundle.cmw"), peer.bundle()).expect("our folder");
    std::fs::write(folder.join("receipt.cbor"), receipt.signed().encode()).expect("our folder");
    std::fs::write(folder.join("opening.cbor"), receipt.opening().encode()).expect("our folder");
    let said = receipt.receipt();
    (folder.join("receipt.cbor"), said.outcome, said.usage.cached_tokens)
}

#[tokio::test]
async fn answers_that_a_worker_gave_at_the_same_time_replay_one_by_one() {
    let network = Network::start(&tiny_model());
    let client = network.client("asks", &network.gateway_url(), 1_000_000_000).await;
    let peer = client.find(None).await.expect("a worker");
    let question = "Please write about lists, tuples and sets, and about what their methods return.";
    let body = |more: Value| {
        let salt = "b25lIHNlY3JldCBvZiBtaW5l";
        let mut body = serde_json::json!({
            "messages": [{"role": "user", "content": question}], "max_tokens": 32, "stream": true, "cache_salt": salt,
        });
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        body
    };
    let colour = serde_json::json!({"type": "object", "properties": {"colour": {"enum": ["red", "green"]}}});
    let tools =
        serde_json::json!([{"type": "function", "function": {"name": "paint", "parameters": colour}}]);
    let asked = [
        serde_json::json!({"temperature": 0}),
        serde_json::json!({"temperature": 1.2, "seed": 5}),
        serde_json::json!({"temperature": 0.8, "top_k": 20, "min_p": 0.05, "presence_penalty": 0.5, "seed": -3}),
        serde_json::json!({"temperature": 0.8, "stop": ["e "], "logit_bias": {"40": 3}}),
        serde_json::json!({"max_tokens": 3}),
        serde_json::json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": colour}}}),
        serde_json::json!({"tools": tools, "tool_choice": "required", "temperature": 1}),
    ];
    let folder = |name: &str| network.folder.path().join(name);
    let first = kept(&client, &peer, folder("first"), body(serde_json::json!({}))).await;
    let at_once = asked
        .into_iter()
        .enumerate()
        .map(|(number, more)| kept(&client, &peer, folder(&format!("answer{number}")), body(more)));
    let mut answers = futures_util::future::join_all(at_once).await;
    assert!(answers.iter().any(|(_, _, cached)| *cached >= 16), "the beginning was cached");
    assert!(answers.iter().any(|(_, outcome, _)| *outcome == Outcome::Length), "one reached its limit");
    answers.push(first);
    let model = tiny_model();
    for (threads, (receipt, _, _)) in (1..).zip(answers) {
        let threads = (1 + threads % 3).to_string();
        let arguments =
            ["audit", "replay", text(&receipt), "--model", text(&model), "--threads", &threads, "--json"];
        let mut command = Command::new(binary("cocoon"));
        let output = command.args(arguments).stdin(Stdio::null()).output().expect("cocoon starts");
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let report = json(&output);
        assert_eq!((&report["verdict"], &report["prompt"]), (&Value::from("same"), &Value::Null));
        assert!(report["compared_tokens"].as_u64() >= Some(1), "{report}");
        assert!(!said(&output).contains("tuple"), "nothing is shown as text");
    }
}

#[tokio::test]
async fn a_gateway_that_leaves_a_host_out_is_noticed_and_two_roots_cost_its_stake() {
    let mut network = worked(&["--stake", "2", "--epoch", "3"]);
    let audit = wait_for("a published debt", async || {
        let audit = cocoon(&network, &["audit", "solvency", "--json"]);
        (json(&audit)["owed"].as_u64() > Some(0)).then_some(audit)
    })
    .await;
    let report = json(&audit);
    assert_eq!((audit.status.code(), &report["solvent"]), (Some(0), &Value::Bool(true)), "{report}");
    assert!(report["locked"].as_u64() > report["owed"].as_u64(), "{report}");

    let proof = own_proof(&network).await;
    // Epochs are short here: between a publication and its proof an audit sees the last one.
    wait_for("an audit with the host's own proof", async || {
        let audit = cocoon(&network, &["audit", "solvency", "--json", "--proof", text(&proof)]);
        let report = json(&audit);
        (audit.status.success() && report["own"] == report["owed"] && report["owed"] != 0).then_some(())
    })
    .await;

    // Killed at any point, it goes on with later epochs and never contradicts itself.
    let listen = network.gateway_url().replace("http://", "");
    let epoch = |network: &Network| {
        json(&cocoon(network, &["bond", "show", "--json"]))["published"]["epoch"].as_u64()
    };
    for _ in 0..3 {
        let before = epoch(&network);
        network.gateway.take().expect("it runs").kill();
        network.start_gateway(&listen);
        wait_for("a later epoch", async || (epoch(&network) > before).then_some(())).await;
    }
    network.gateway.take().expect("it runs").stop();

    // Whoever has the gateway's keys publishes a root without the host.
    let chain = network.connect_chain().await;
    let address = bond(&network, "gateway");
    let epoch = chain.head().await.expect("the chain answers").time;
    let root = Tree::new(epoch, Vec::new()).expect("an empty tree").root();
    let lie = Liabilities { epoch, root: root.hash, sum: root.sum };
    let statement =
        lie.statement(chain.network(), &address).sign(&key(&key_file(&network, "gateway/bond.key")));
    let file = key_file(&network, "gateway/wallet.key");
    let wallet = Wallet::of_version(key(&file), file.wallet(), std::sync::Arc::clone(&chain));
    cocoon_chain::publish(&wallet, &address, &lie, &statement.signature).await.expect("it is signed");

    let channels = network.folder.path().join("channels.txt");
    std::fs::write(&channels, "# those that are known\n").expect("our folder");
    let arguments = ["audit", "solvency", "--bond", &address.to_string(), "--channels", text(&channels)];
    let alone = cocoon(&network, &arguments);
    assert_eq!(alone.status.code(), Some(0), "to others nothing looks wrong: {}", said(&alone));
    let with_proof = cocoon(&network, &[&arguments[..], &["--proof", text(&proof)]].concat());
    assert_eq!(with_proof.status.code(), Some(3), "{}", said(&with_proof));
    assert!(said(&with_proof).contains("no proof that it includes you"), "{}", said(&with_proof));
    let warning = format!("epoch {epoch}) and did not prove that this includes what it owes");
    wait_for("the host's warning", async || network.log_text("host").contains(&warning).then_some(())).await;

    // The same epoch with another root, to somebody else.
    let (one, other) = (network.folder.path().join("one"), network.folder.path().join("other"));
    let written = cocoon(&network, &["bond", "statement", &address.to_string(), "--out", text(&one)]);
    assert!(written.status.success(), "{}", said(&written));
    std::fs::write(&other, forged(&network, "gateway", &Liabilities { sum: 5, ..lie })).expect("our folder");
    let stake = chain.account(&address).await.expect("the chain answers").balance;
    let treasury = parse_address(
        json(&cocoon(&network, &["registry", "show", "--json"]))["content"]["treasury"]
            .as_str()
            .expect("text"),
    )
    .expect("an address");
    let before = chain.account(&treasury).await.expect("the chain answers").balance;
    let forfeited = cocoon(&network, &["bond", "forfeit", text(&one), text(&other)]);
    assert!(forfeited.status.success(), "{}", said(&forfeited));
    wait_for("the treasury's gain", async || {
        let now = chain.account(&treasury).await.expect("the chain answers").balance;
        (now > before + stake - cocoon_contracts::TON / 10).then_some(())
    })
    .await;
    let gone = cocoon(&network, &["bond", "show", &address.to_string()]);
    assert_eq!(gone.status.code(), Some(1), "{}", said(&gone));
}
