//! docs/auditing.md: every command on the page; and a gateway that lies about what it owes, which is noticed by the host
//! that it left out, and costs it its stake.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cocoon_chain::Wallet;
use cocoon_contracts::bond::Liabilities;
use cocoon_contracts::liabilities::Tree;
use cocoon_contracts::{Address, SigningKey, parse_address};
use cocoon_keystore::KeyFile;
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
    assert!(run >= 20, "{run} commands run");
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
