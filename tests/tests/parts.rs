//! The parts one by one, as the README starts them: each from its own command line, asked by the official clients.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cocoon_tests::{Network, Part, binary, root, tiny_model};

/// A small random model for embeddings, as a folder.
fn small_encoder() -> PathBuf {
    root().join("tests/models/families/bert")
}

fn chat(network: &Network, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(binary("cocoon"))
        .args(["chat", "--state", network.state()])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("cocoon starts");
    child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

#[test]
fn a_question_is_answered_from_an_argument_and_from_a_pipe() {
    let network = Network::start(&tiny_model());
    let model = tiny_model();
    let recount = ["--recount", model.to_str().expect("UTF-8")];
    let question = ["What is a tuple?", "--seed", "5", "--max-tokens", "24"];
    let once = chat(&network, &[&question[..], &recount[..]].concat(), "");
    assert!(once.status.success(), "{}", String::from_utf8_lossy(&once.stderr));
    let answer = String::from_utf8(once.stdout).expect("UTF-8");
    assert!(!answer.trim().is_empty());
    let said = String::from_utf8_lossy(&once.stderr).into_owned();
    assert!(said.contains("SIMULATED") && said.contains("receipt ✓"), "{said}");
    let reports = network.folder.path().join("client/reports");
    assert!(!said.contains("this client counts") && !reports.exists(), "both count alike: {said}");

    let piped = chat(&network, &["--seed", "5", "--max-tokens", "24"], "What is a tuple?\n");
    assert_eq!(String::from_utf8_lossy(&piped.stdout), answer, "the same question and seed, the same answer");

    // Nothing of either side's words is in any log.
    for log in ["chain", "gateway", "host"] {
        let text = network.log_text(log);
        assert!(!text.contains("tuple") && !text.contains(answer.trim()), "{log} logs plaintext: {text}");
    }
}

/// Counts one token more than there are, as a client would beside a worker that leaves one out.
struct OneMore;

impl cocoon_client::TokenCounter for OneMore {
    fn weights(&self) -> [u8; 32] {
        let model = std::fs::read(tiny_model()).expect("the tiny model lies in the repository");
        ring::digest::digest(&ring::digest::SHA256, &model).as_ref().try_into().expect("32 bytes")
    }

    fn prompt_tokens(&self, request: &[u8]) -> Option<u32> {
        let vocabulary = cocoon_engine::Vocabulary::open(&tiny_model()).expect("a tokenizer");
        let request: serde_json::Value = serde_json::from_slice(request).expect("JSON");
        let text = |field: &str| request["messages"][0][field].as_str().expect("text").to_owned();
        let message = cocoon_engine::ChatMessage { role: text("role"), content: text("content") };
        let prompt = vocabulary.render_chat(&[message], true).expect("a prompt");
        Some(u32::try_from(vocabulary.tokenizer().encode(&prompt, true).len()).expect("short") + 1)
    }

    fn text_tokens(&self, _text: &str) -> u32 {
        1_000
    }
}

#[tokio::test]
async fn a_worker_whose_count_differs_by_one_token_is_told_apart() {
    let network = Network::start(&tiny_model());
    let mut options = network.client_options("counting", &network.gateway_url(), 100_000_000).await;
    options.counter = Some(std::sync::Arc::new(OneMore));
    let client = cocoon_client::Client::connect(options).await.expect("the gateway answers");
    let peer = client.find(None).await.expect("a worker");
    let body = br#"{"model":"tiny","max_tokens":4,"messages":[{"role":"user","content":"hello"}]}"#;
    let budget = cocoon_client::proxy::budget_for(body, Some(4));
    let asked = client.ask(&peer, cocoon_protocol::Prompt::new(body.to_vec()), budget).await;
    let mut answering = asked.expect("it is asked");
    let finished = loop {
        match answering.next().await.expect("it goes on").expect("it ends with a receipt") {
            cocoon_client::Event::Finished(finished) => break finished,
            _ => continue,
        }
    };
    let recount = finished.recount.expect("this client counts");
    assert_eq!(recount.prompt_tokens, Some(recount.claimed.prompt_tokens + 1));
    assert!(recount.differs());
}

#[test]
fn an_unknown_model_is_named_with_those_that_are_there() {
    let network = Network::start(&tiny_model());
    let output = chat(&network, &["hello", "--model", "gpt-9"], "");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("gpt-9") && said.contains("tiny"), "{said}");
}

#[test]
fn the_official_openai_client_works_against_the_local_endpoint() {
    let report = official_client("openai_client.py");
    assert!(report["chunks"].as_u64().expect("a number") > 1, "it was streamed: {report}");
}

#[test]
fn the_official_openai_client_runs_every_feature() {
    let report = official_client("openai_suite.py");
    assert!(report["checks"].as_u64().expect("a number") > 50, "{report}");
}

#[test]
fn the_official_openai_client_gets_embeddings() {
    let report = python_client("embeddings_suite.py", &small_encoder());
    assert!(report["checks"].as_u64().expect("a number") >= 25, "{report}");
}

/// Runs a script of the official Python client against a network of its own; gives what it prints.
fn official_client(script: &str) -> serde_json::Value {
    python_client(script, &tiny_model())
}

fn python_client(script: &str, model: &Path) -> serde_json::Value {
    let python = std::env::var("COCOON_OPENAI_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = root().join("tests/clients").join(script);
    run_client(
        Command::new(&python).arg(script),
        model,
        "installs the package `openai` of PyPI, COCOON_OPENAI_PYTHON",
    )
}

#[test]
fn the_official_openai_client_of_npm_runs_every_feature() {
    let report = npm_client("openai_suite.mjs", &tiny_model());
    assert!(report["checks"].as_u64().expect("a number") >= 14, "{report}");
}

#[test]
fn the_official_openai_client_of_npm_gets_embeddings() {
    let report = npm_client("embeddings_suite.mjs", &small_encoder());
    assert!(report["checks"].as_u64().expect("a number") >= 12, "{report}");
}

fn npm_client(script: &str, model: &Path) -> serde_json::Value {
    let Ok(folder) = std::env::var("COCOON_OPENAI_NODE") else {
        panic!("COCOON_OPENAI_NODE names no folder with node_modules/openai; ./scripts/test sets it")
    };
    let script = root().join("tests/clients").join(script);
    run_client(
        Command::new("node").arg(script).arg(folder),
        model,
        "installs the package `openai` of npm, COCOON_OPENAI_NODE",
    )
}

fn run_client(command: &mut Command, model: &Path, installs: &str) -> serde_json::Value {
    let network = Network::start(model);
    let log = network.folder.path().join("proxy.log");
    let proxy = Part::start(&["proxy", "--listen", "127.0.0.1:0", "--state", network.state()], &log);
    let output = command
        .args([
            &format!("{}/v1", proxy.url()),
            model.file_stem().and_then(|name| name.to_str()).expect("a name"),
        ])
        .output()
        .unwrap_or_else(|error| panic!("the client does not start: {error}; ./scripts/test {installs}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the client failed (./scripts/test {installs}): {said}");
    let report = serde_json::from_slice(&output.stdout).expect("one JSON object");
    proxy.stop();
    report
}

#[test]
fn a_port_in_use_is_named_with_the_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let network = Network::start(&tiny_model());
    let model = tiny_model();
    let model = model.to_str().expect("UTF-8");
    let other = tempfile::tempdir().expect("a temporary folder");
    let other = other.path().to_str().expect("UTF-8");
    let commands: [&[&str]; 3] = [
        &["chain", "--state", other, "--model", model],
        &["gateway", "--state", network.state()],
        &["proxy", "--state", network.state()],
    ];
    for command in commands {
        // A state folder of its own, where the command would otherwise meet its own books in use.
        let output = Command::new(binary("cocoon"))
            .args(command)
            .args(["--listen", &address])
            .stdin(Stdio::null())
            .output()
            .expect("cocoon starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
        assert!(said.contains(&address) && said.contains("--listen"), "{command:?}: {said}");
    }
}

/// A state folder of a host of its own on the same network.
fn join_as_another(network: &Network, state: &Path) {
    std::fs::create_dir_all(state.join("simulated-tee")).expect("a folder");
    for file in ["network.toml", "simulated-root.der"] {
        std::fs::copy(network.folder.path().join(file), state.join(file)).expect("it can be copied");
    }
    let keys = network.folder.path().join("simulated-tee");
    for entry in std::fs::read_dir(keys).expect("the platform's folder").flatten() {
        std::fs::copy(entry.path(), state.join("simulated-tee").join(entry.file_name()))
            .expect("it can be copied");
    }
}

#[tokio::test]
async fn one_proxy_asks_one_worker_for_text_and_another_for_vectors_and_both_can_be_replayed() {
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let (tiny, encoder) = (text(&tiny_model()), text(&small_encoder()));
    let mut network = Network::start(&tiny_model());
    let folder = network.folder.path().to_owned();
    // The registry allows another model from now on, and another host serves it.
    let listen = network.chain.as_ref().expect("it runs").url().replace("http://", "");
    network.chain.take().expect("it runs").stop();
    let both =
        ["chain", "--listen", &listen, "--state", network.state(), "--model", &tiny, "--model", &encoder];
    network.chain = Some(Part::start(&both, &folder.join("chain-again.log")));
    let state = folder.join("another");
    join_as_another(&network, &state);
    let state = text(&state);
    let up = ["host", "up", "--process", "--listen", "127.0.0.1:0", "--state", &state, "--model", &encoder];
    let other =
        Part::start(&[&up[..], &["--min-challenge-seconds", "1"]].concat(), &folder.join("another.log"));

    let kept = folder.join("kept");
    let arguments = ["proxy", "--listen", "127.0.0.1:0", "--state", network.state(), "--keep", &text(&kept)];
    let proxy = Part::start(&arguments, &folder.join("proxy.log"));
    let http = reqwest::Client::new();
    let post = async |path: &str, body: serde_json::Value| {
        let sent = http.post(format!("{}/v1/{path}", proxy.url())).json(&body).send().await;
        sent.expect("the proxy answers").json::<serde_json::Value>().await.expect("JSON")
    };
    for _ in 0..2 {
        let chat = serde_json::json!({"model": "tiny", "max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}]});
        let chat = post("chat/completions", chat).await;
        assert!(chat["choices"][0]["message"]["content"].is_string(), "{chat}");
        let vectors =
            post("embeddings", serde_json::json!({"model": "bert", "input": ["Hi", "a list"]})).await;
        assert_eq!(vectors["data"].as_array().map(Vec::len), Some(2), "{vectors}");
    }
    let wrong = post("embeddings", serde_json::json!({"model": "tiny", "input": "Hi"})).await;
    assert_eq!(wrong["error"]["code"], "unsupported_endpoint", "{wrong}");

    let mut replayed = Vec::new();
    for answer in std::fs::read_dir(&kept).expect("papers are kept").flatten() {
        for model in [&tiny, &encoder] {
            let output = Command::new(binary("cocoon"))
                .args([
                    "audit",
                    "replay",
                    &text(&answer.path().join("receipt.cbor")),
                    "--json",
                    "--model",
                    model,
                ])
                .output()
                .expect("cocoon starts");
            let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
            replayed.push((report["verdict"].as_str().expect("a word").to_owned(), output.status.code()));
        }
    }
    let count =
        |word: &str, code: i32| replayed.iter().filter(|it| **it == (word.to_owned(), Some(code))).count();
    // Each of four by its own model; by the other's, and of the refusal, nothing can be said.
    assert_eq!((count("same", 0), count("unavailable", 6)), (4, 6), "{replayed:?}");
    proxy.stop();
    other.stop();
}

#[test]
fn a_model_that_is_cut_short_or_not_allowed_never_serves() {
    let network = Network::start(&tiny_model());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let whole = std::fs::read(tiny_model()).expect("the tiny model lies in the repository");
    let host = |name: &str, bytes: &[u8]| {
        // Under the name that the registry has a price for.
        let path = folder.path().join(name).join("tiny.gguf");
        std::fs::create_dir(folder.path().join(name)).expect("a folder");
        std::fs::write(&path, bytes).expect("it can be written");
        let state = folder.path().join(format!("state-{name}"));
        join_as_another(&network, &state);
        let mut child = Command::new(binary("cocoon"))
            .args(["host", "up", "--process", "--listen", "127.0.0.1:0", "--lifeline"])
            .args(["--min-challenge-seconds", "1", "--state", state.to_str().expect("UTF-8")])
            .args(["--model", path.to_str().expect("UTF-8")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cocoon starts");
        let lifeline = child.stdin.take(); // held: it must end by itself
        let output = child.wait_with_output().expect("it ends");
        drop(lifeline);
        assert_eq!(output.status.code(), Some(1), "it served {name}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = host("half", &whole[..whole.len() / 2]);
    assert!(said.contains("guest") && (said.contains("short") || said.contains("end")), "{said}");
    let mut changed = whole.clone();
    *changed.last_mut().expect("it has bytes") ^= 1;
    let said = host("changed", &changed);
    assert!(
        said.contains("policy") || said.contains("rtmr") || said.contains("registr"),
        "the gateway refuses it: {said}"
    );
}

#[test]
fn a_gateway_pays_from_the_key_it_is_told_and_keeps_a_connections_words_from_others() {
    use std::os::unix::fs::PermissionsExt;
    let mut network = Network::start(&tiny_model());
    let folder = network.folder.path().to_path_buf();
    let listen = network.gateway_url().replace("http://", "");
    network.gateway.take().expect("it runs").stop();
    let text = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();

    let elsewhere = folder.join("elsewhere.key");
    let arguments = ["wallet", "new", "--plain", "--faucet", "--json", "--state", network.state(), "--file"];
    let made = Command::new(binary("cocoon")).args(arguments).arg(&elsewhere).output().expect("it starts");
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).expect("JSON");
    let own = std::fs::read(folder.join("gateway/wallet.key")).expect("it has one");
    network.gateway_arguments(&["--wallet-key", &text(&elsewhere)]);
    network.start_gateway(&listen);
    let told = network.gateway.take().expect("it runs");
    let [told_wallet, made_wallet] = [&told.ready["wallet"], &made["address"]]
        .map(|address| cocoon_contracts::parse_address(address.as_str().expect("text")).expect("an address"));
    assert_eq!(told_wallet, made_wallet);
    assert_eq!(std::fs::read(folder.join("gateway/wallet.key")).expect("it has one"), own);
    told.stop();

    let words = folder.join("accounts");
    let refused = |mode: u32, content: &str, says: &str| {
        std::fs::write(&words, content).expect("our folder");
        std::fs::set_permissions(&words, std::fs::Permissions::from_mode(mode)).expect("ours");
        let arguments = ["gateway", "--listen", "127.0.0.1:0", "--state", network.state(), "--accounts-file"];
        let output = Command::new(binary("cocoon")).args(arguments).arg(&words).stdin(Stdio::null()).output();
        let output = output.expect("cocoon starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(says) && said.contains("what to do:"), "{said}");
        assert!(!said.contains("hunter2"), "a password is not repeated: {said}");
    };
    refused(0o644, "host=/nowhere user=x password=hunter2 dbname=y", "chmod 600");
    refused(0o600, " \n", "it is empty");
    refused(0o600, &"x".repeat(5000), "cannot use the accounts file");
    refused(0o600, "host=/nowhere user=x password=hunter2 dbname=y", "did not start");
    refused(0o600, "nonsense hunter2", "did not start");
}
