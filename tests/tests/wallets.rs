//! docs/wallets.md, and `cocoon wallet` and `cocoon channel` end to end on a real `cocoon chain`: payments that are killed,
//! channels to their end, garbage.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use cocoon_contracts::{SigningKey, Voucher, parse_address};
use cocoon_tests::{Part, binary, page, tiny_model};
use serde_json::Value;

const PAGE: &str = include_str!("../../docs/wallets.md");
/// Made by @ton/crypto 3.3.
const WORDS: &str = "portion bamboo cancel cupboard silk silent squirrel rule fish stool correct industry exotic lift merge \
                     sister fatigue wheel flat repair climb vehicle jump divorce";
const PUBLIC: &str = "80a6f98dba4d1192d62685b8d0a9f85186c78f9a6a302dc03d344ccee0a01671";
const TON: u64 = 1_000_000_000;

/// A folder with a running chain, and commands that are run in it.
struct Bench {
    folder: tempfile::TempDir,
    chain: Option<Part>,
}

impl Bench {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut bench = Self { folder, chain: None };
        bench.start_chain("127.0.0.1:0");
        bench
    }

    fn start_chain(&mut self, listen: &str) {
        let state = self.path("state");
        let (state, model) = (text(&state), tiny_model());
        let arguments = ["chain", "--listen", listen, "--state", state, "--model", text(&model)];
        self.chain = Some(Part::start(&arguments, &self.path("chain.log")));
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).expect("our folder");
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o600)).expect("ours");
    }

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(binary("cocoon"));
        command.args(words.split_whitespace()).args(["--state", "state"]).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, words: &str) -> Output {
        self.command(words).output().expect("it starts")
    }

    /// What a command that must succeed prints with `--json`.
    fn json(&self, words: &str) -> Value {
        let output = self.run(&format!("{words} --json"));
        assert!(output.status.success(), "{words}: {}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{words}: {}", said(&output)))
    }

    fn refused(&self, words: &str, code: i32, says: &str) {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(code), "{words}: {}", said(&output));
        assert!(said(&output).contains(says), "{words} does not say {says:?}: {}", said(&output));
        assert!(said(&output).contains("what to do:"), "{words}: {}", said(&output));
    }

    /// What an account holds.
    fn balance(&self, address: &str) -> u64 {
        let url = format!("{}/api/v2/getAddressBalance?address={address}", self.url());
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let answer: Value = runtime.block_on(async {
            reqwest::get(url).await.expect("the chain answers").json().await.expect("JSON")
        });
        answer["result"].as_str().expect("a balance").parse().expect("a number")
    }

    fn url(&self) -> String {
        self.chain.as_ref().expect("the chain runs").url()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders are UTF-8")
}

fn said(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn person(i: usize) -> String {
    format!("0:{:064x}", 0x5000_0000 + i)
}

#[test]
fn every_command_on_the_page_ends_as_it_says() {
    let bench = Bench::start();
    bench.write("passphrase", "correct horse battery\n");
    bench.write("words", WORDS);
    bench.write("wrong-words", &WORDS.replace("cupboard", "kubbord"));
    let list: String = (0..3).map(|i| format!("{},0.0{}\n", person(i), i + 1)).collect();
    bench.write("payouts.csv", &list);
    let examples = page::examples(PAGE);
    assert!(examples.len() >= 14, "{} commands", examples.len());
    for example in examples {
        example.run(&binary("cocoon"), bench.folder.path(), &[]);
    }
    assert_eq!(bench.balance(&person(2)), 60_000_000, "of both wallets that pay the list");
    let log = std::fs::read_to_string(bench.path("chain.log")).expect("a log");
    assert!(!log.contains("correct horse"), "a passphrase is not logged");
}

#[test]
fn words_give_the_wallet_that_other_programs_show() {
    let bench = Bench::start();
    bench.write("passphrase", "correct horse battery\n");
    bench.write("other", "another passphrase\n");
    bench.write("words", WORDS);
    let made = bench
        .json("wallet new --profile me --restore --words-file words --v4r2 --passphrase-file passphrase");
    let key = std::fs::read_to_string(bench.path("state/me/wallet.key")).expect("a key file");
    assert!(key.contains(&format!("public {PUBLIC}")), "{key}");
    assert_eq!(made["version"], "v4r2");
    let shown = bench.json("wallet show --profile me");
    assert_eq!(shown["raw"], made["raw"]);
    assert_eq!(shown["balance"], 0);

    // Too little money, and then a wrong passphrase, a flipped byte and a file cut short.
    let send = format!("wallet send --yes --profile me {} 1 --passphrase-file", person(1));
    bench.refused(&format!("{send} passphrase"), 1, "holds 0 TON");
    bench.refused(&format!("{send} other"), 1, "the passphrase is wrong");
    for damaged in [key.replace("v4r2", "v5r1"), key[..key.len() - 9].to_owned()] {
        bench.write("state/me/wallet.key", &damaged);
        bench.refused(&format!("{send} passphrase"), 1, "wallet.key");
    }
    bench.write("state/me/wallet.key", &key);
    // In a session of its own, which has no terminal, wherever the test runs.
    let mut apart = Command::new("setsid");
    apart.arg("--wait").arg(binary("cocoon")).args(send.replace(" --passphrase-file", "").split_whitespace());
    let output =
        apart.args(["--state", "state"]).current_dir(bench.folder.path()).stdin(Stdio::null()).output();
    assert!(said(&output.expect("util-linux has setsid")).contains("there is no terminal"));
}

#[test]
fn a_chain_that_is_away_hides_nothing_and_loses_nothing() {
    let mut bench = Bench::start();
    let made = bench.json("wallet new --plain --faucet");
    let url = bench.url();
    bench.chain.take().expect("it runs").kill();
    let shown = bench.json("wallet show");
    assert_eq!(shown["raw"], made["raw"]);
    assert!(shown["balance"].is_null() && shown["error"].as_str().is_some_and(|why| why.contains("reached")));
    let send = format!("wallet send --yes {} 1", person(1));
    bench.refused(&send, 1, "the chain cannot be reached");
    bench.start_chain(url.strip_prefix("http://").expect("a URL"));
    assert!(bench.run(&send).status.success());
    assert_eq!(bench.balance(&person(1)), TON);
}

#[test]
fn a_payout_that_is_killed_again_and_again_pays_everybody_once() {
    let bench = Bench::start();
    bench.json("wallet new --plain --faucet");
    const PEOPLE: usize = 700; // three messages
    let list: String = (0..PEOPLE).map(|i| format!("{},0.001{i:06}\n", person(i))).collect();
    bench.write("list.csv", &list);
    let words = "wallet send --yes --list list.csv";
    let mut killed = 0;
    for round in 0..40_u64 {
        let mut child = bench.command(words).spawn().expect("it starts");
        // Later each time: somewhere between the first look at the chain and the last message.
        std::thread::sleep(Duration::from_millis(60 + 35 * round));
        if child.try_wait().expect("it is ours").is_some() {
            break;
        }
        child.kill().expect("it is ours");
        let output = child.wait_with_output().expect("it ends");
        // It had said that all is paid, and was only about to exit: said again it would pay again, as it should.
        if said(&output).contains("transaction") && !bench.path("state/client/wallet.key.sending").exists() {
            break;
        }
        killed += 1;
    }
    // The last one, killed or not, is finished or explained by the next.
    let journal = bench.path("state/client/wallet.key.sending").exists();
    if journal {
        assert!(bench.run(words).status.success());
    }
    assert!(killed >= 1, "nothing was killed");
    for i in (0..PEOPLE).step_by(23).chain([254, 255, 509, 510, PEOPLE - 1]) {
        assert_eq!(bench.balance(&person(i)), 1_000_000 + i as u64, "recipient {i} after {killed} kills");
    }
    assert!(!bench.path("state/client/wallet.key.sending").exists());
    println!("killed {killed} times");
}

#[test]
fn a_channel_is_opened_topped_up_settled_and_closed_by_hand() {
    let bench = Bench::start();
    bench.json("wallet new --plain --faucet");
    let payee = bench.json("wallet new --profile shop --plain --faucet");
    let payee = payee["address"].as_str().expect("an address");
    let opened =
        bench.json(&format!("channel open --yes --payee {payee} --deposit 0.5 --challenge-seconds 10"));
    let channel = opened["channel"].as_str().expect("an address").to_owned();
    assert!(opened["claimable"].as_u64() >= Some(TON / 2));
    let topped = bench.json(&format!("channel topup --yes {channel} 0.25"));
    assert!(topped["claimable"].as_u64() >= Some(3 * TON / 4));
    let shown = bench.json("channel show");
    assert_eq!(shown[0]["channel"], channel.as_str());
    assert_eq!(shown[0]["signed"], 0);

    // Vouchers by the payer's session key, as its client signs them.
    let key = std::fs::read_to_string(bench.path("state/client/session.key")).expect("a session key");
    let mut seed = [0; 32];
    hex::decode_to_slice(key.trim(), &mut seed).expect("a seed");
    let key = SigningKey::from_seed(&seed);
    let voucher = |cumulative| {
        let network = i32::try_from(opened["network"].as_i64().expect("a number")).expect("fits");
        let nonce = opened["nonce"].as_str().expect("digits").parse().expect("a number");
        let channel = parse_address(&channel).expect("an address");
        hex::encode(Voucher { network, channel, nonce, cumulative }.sign(&key).encode())
    };
    let settle = |cumulative| format!("channel settle --profile shop --voucher {}", voucher(cumulative));
    assert_eq!(bench.json(&settle(TON / 10))[0]["paid"], TON / 10);
    assert_eq!(bench.json(&settle(TON / 10))[0]["worth"], 0, "settling again changes nothing");

    // The network's fee waits in the channel until somebody collects it.
    let waiting = bench.json("channel show")[0]["fee_waiting"].as_u64().expect("an amount");
    assert_eq!(waiting, TON / 10 * 500 / 10_000);
    let said_so = said(&bench.run("channel show"));
    assert!(said_so.contains("0.005 TON of it for the treasury"), "{said_so}");
    let treasury = opened["treasury"].as_str().expect("an address");
    let before = bench.balance(treasury);
    let collected = bench.json(&format!("channel collect {channel} --profile shop"));
    assert_eq!((&collected[0]["collected"], &collected[0]["treasury"]), (&waiting.into(), &treasury.into()));
    // The channel has sent it; the treasury has it one or two blocks later.
    let mut got = 0;
    for _ in 0..200 {
        got = bench.balance(treasury) - before;
        if got > 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(got > waiting * 9 / 10 && got <= waiting, "the treasury got {got} of {waiting}");
    let again = bench.json(&format!("channel collect {channel} --profile shop"));
    assert_eq!(again[0]["collected"], 0);
    assert_eq!(bench.json("channel show")[0]["fee_waiting"], 0);
    bench.refused(&settle(9 * TON), 1, "more than the session key may sign");
    bench.refused(&settle(TON / 5).replace("--profile shop", ""), 1, "this wallet is");
    let mut flipped = voucher(TON / 5);
    flipped.replace_range(240..242, if flipped.ends_with("00") { "01" } else { "00" });
    bench.refused(&format!("channel settle --profile shop --voucher {flipped}"), 1, "does not count");

    // The payer starts to close while the payee watches with a newer voucher.
    let watch =
        format!("channel watch {channel} --profile shop --every 1 --json --voucher {}", voucher(TON / 5));
    let watching = bench.command(&watch).spawn().expect("it starts");
    std::thread::sleep(Duration::from_millis(1500));
    let closed = bench.json(&format!("channel close --yes --wait {channel}"));
    assert_eq!(closed["state"], "closed");
    let watched = watching.wait_with_output().expect("it ends by itself");
    assert!(watched.status.success(), "{}", said(&watched));
    let events = String::from_utf8_lossy(&watched.stdout).into_owned();
    assert!(events.contains("\"event\":\"settled\"") && events.contains("\"event\":\"over\""), "{events}");
    bench.refused(&format!("channel show {channel}"), 1, "there is no contract");

    // Another one, ended at once by the payee.
    let opened = bench.json(&format!("channel open --yes --payee {payee} --deposit 0.5"));
    let second = opened["channel"].as_str().expect("an address");
    assert_ne!(second, channel);
    let closed = bench.json(&format!("channel close --yes --profile shop {second}"));
    assert_eq!(closed["state"], "closed");
}

#[test]
fn garbage_is_refused_with_what_to_do() {
    let bench = Bench::start();
    bench.refused("wallet show", 1, "there is no wallet");
    bench.json("wallet new --plain --faucet");
    for (words, says) in [
        ("wallet send --yes nobody 1", "is not an address"),
        (&format!("wallet send --yes {} 1e9", person(1)), "nine decimals"),
        (&format!("wallet send --yes -1:{} 1", "5".repeat(64)), ""),
        (&format!("wallet send --yes {} 99999999999999", person(1)), "more than all the coins"),
        (&format!("wallet send --yes {}", person(1)), "how much"),
        ("wallet send --yes --list none.csv", "cannot read the list"),
    ] {
        let output = bench.run(words);
        assert!(!output.status.success(), "{words}: {}", said(&output));
        assert!(said(&output).contains(says), "{words}: {}", said(&output));
    }
    for words in [
        "channel show nonsense",
        "channel settle --voucher 00",
        "channel topup 0:12 1",
        "wallet show --profile ../x",
    ] {
        let output = bench.run(words);
        assert_eq!(output.status.code(), Some(2), "{words}: {}", said(&output));
    }
    bench.refused(&format!("channel close --yes {}", person(1)), 1, "the channel cannot be read");
    bench.refused(&format!("channel open --yes --payee {} --deposit 0", person(1)), 2, "the amount is 0");
    bench.write("state/client/wallet.key.sending", "half a jour");
    bench.refused(&format!("wallet send --yes {} 1", person(1)), 1, "is not the journal");
    assert_eq!(bench.balance(&person(1)), 0);
}

#[test]
fn money_that_would_come_back_is_not_called_paid() {
    let bench = Bench::start();
    let wallet = bench.json("wallet new --plain --faucet");
    let address = parse_address(&person(7)).expect("an address");
    let [bounces, stays] = [true, false].map(|bounce| cocoon_contracts::friendly(&address, bounce));
    let before = bench.balance(wallet["address"].as_str().expect("an address"));
    bench.refused(&format!("wallet send --yes {bounces} 0.5"), 1, &stays);
    bench.write("list.csv", &format!("{},0.1\n{bounces},0.1\n", person(8)));
    bench.refused("wallet send --yes --list list.csv", 1, "comes back");
    assert_eq!(bench.balance(&person(8)), 0, "a list is looked at before anybody on it is paid");
    assert_eq!(bench.balance(wallet["address"].as_str().expect("an address")), before);
    bench.json(&format!("wallet send --yes {stays} 0.5"));
    assert_eq!(bench.balance(&person(7)), TON / 2);

    // To a contract it may bounce: the wallet's own address is one by now.
    let own = parse_address(wallet["address"].as_str().expect("an address")).expect("an address");
    bench.json(&format!("wallet send --yes {} 0.1", cocoon_contracts::friendly(&own, true)));
}

#[test]
fn a_channel_that_was_begun_with_less_is_not_called_opened_with_more() {
    let bench = Bench::start();
    bench.json("wallet new --plain --faucet");
    let payee = person(9);
    let open = |deposit: &str| format!("channel open --yes --payee {payee} --deposit {deposit}");
    // Killed after the chain took it and before the books have its deposit.
    let books = bench.path("state/client/accounts.redb");
    let mut begun = None;
    for wait in (1..100).map(|step| step * 20) {
        let mut child = bench.command(&open("0.25")).spawn().expect("it starts");
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().expect("it is ours");
        child.wait().expect("it ends");
        let channels = if books.exists() { bench.json("channel show") } else { Value::Null };
        let all = channels.as_array().cloned().unwrap_or_default();
        begun = all.into_iter().find(|channel| channel["deposit"].as_u64() == Some(TON / 4));
        if begun.is_some() {
            break;
        }
    }
    let begun = begun.expect("one of them came so far");
    let again = bench.run(&open("0.75"));
    // Whether the books had its deposit before the kill is the kill's choice: then the second one is another channel.
    let all = bench.json("channel show");
    let count = all.as_array().expect("a list").len();
    match again.status.code() {
        Some(0) => assert_eq!(count, 2, "{}", said(&again)),
        _ => {
            let address = begun["channel"].as_str().expect("an address");
            let remedy = format!("cocoon channel topup {address} 0.5");
            assert!(said(&again).contains(&remedy), "{}", said(&again));
            assert_eq!(count, 1);
        }
    }
}
