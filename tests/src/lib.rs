//! Tests that see the whole: the journey, the refusals, the money, the layering. Here is what they share: the real
//! binaries, started on free ports in a temporary folder, each tied to the test by a lifeline; and the pages of `docs/`.

pub mod evidence;
pub mod page;
pub mod relay;
pub mod slow_model;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cocoon_accounts::Store;
use cocoon_attestation::TrustAnchors;
use cocoon_chain::{Chain, Toncenter, Wallet};
use cocoon_client::{ChannelOptions, Client, ClientOptions, PolicySource};
use cocoon_contracts::{SigningKey, parse_address};

/// Generous: these machines are slow and busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root")
}

/// The tiny model of the repository.
pub fn tiny_model() -> PathBuf {
    root().join("tests/models/tiny.gguf")
}

/// A binary of this build: it lies beside the folder of this test's own executable.
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a running test has an executable");
    let folder = own.parent().and_then(Path::parent).expect("tests lie in target/PROFILE/deps");
    let path = folder.join(name);
    assert!(path.is_file(), "{} is missing: cargo build --release --workspace", path.display());
    path
}

/// A running part of the network. Dropping it kills it.
pub struct Part {
    child: Child,
    /// What it announced: `url` and `wallet`.
    pub ready: serde_json::Value,
}

impl Part {
    /// Starts `cocoon ARGUMENTS --lifeline`, its log in `log`.
    pub fn start(arguments: &[&str], log: &Path) -> Self {
        let mut child = Command::new(binary("cocoon"))
            .args(arguments)
            .arg("--lifeline")
            .env("COCOON_LOG", "debug") // so that what must not be logged would be seen
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(log).expect("a log file"))
            .spawn()
            .expect("cocoon starts");
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
        output.read_line(&mut line).expect("a line can be read");
        let ready = serde_json::from_str(&line).unwrap_or_else(|_| {
            let _ = child.kill();
            panic!("{arguments:?} did not start: {}", std::fs::read_to_string(log).unwrap_or_default())
        });
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        Self { child, ready }
    }

    /// Where it is reached.
    pub fn url(&self) -> String {
        self.ready["url"].as_str().expect("a part announces its address").to_owned()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().expect("it is ours to kill");
        self.child.wait().expect("it ends");
    }

    /// Ends it in order, by its lifeline; panics if it does not, or fails.
    pub fn stop(mut self) {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                assert!(status.success(), "it ended with {status}");
                return;
            }
            assert!(Instant::now() < deadline, "it did not end by its lifeline");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A network of the real binaries. Parts can be taken out and put back.
pub struct Network {
    /// Network file, wallets, books, logs.
    pub folder: tempfile::TempDir,
    model: PathBuf,
    /// `cocoon chain`.
    pub chain: Option<Part>,
    /// `cocoon gateway`.
    pub gateway: Option<Part>,
    /// `cocoon host up --process`.
    pub host: Option<Part>,
    gateway_arguments: Vec<String>,
    /// What chain and host are told of another engine.
    engine: Vec<String>,
}

impl Network {
    /// Ledger, gateway and host with its guest, ready to answer with a model.
    pub fn start(model: &Path) -> Self {
        Self::start_with(model, &["--challenge-seconds", "1", "--min-challenge-seconds", "1"])
    }

    /// The same, with more arguments for the gateway.
    pub fn start_with(model: &Path, gateway: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let gateway_arguments = gateway.iter().map(|&s| s.to_owned()).collect();
        let model = model.to_owned();
        let engine = Vec::new();
        let mut network =
            Self { folder, model, chain: None, gateway: None, host: None, gateway_arguments, engine };
        network.start_all();
        network
    }

    /// The same, with another server as the guest's engine, as the file says.
    pub fn start_with_engine(model: &Path, engine: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let periods = ["--challenge-seconds", "1", "--min-challenge-seconds", "1"];
        let mut network = Self {
            folder,
            model: model.to_owned(),
            chain: None,
            gateway: None,
            host: None,
            gateway_arguments: periods.map(str::to_owned).to_vec(),
            engine: vec!["--engine".to_owned(), engine.to_str().expect("UTF-8").to_owned()],
        };
        network.start_all();
        network
    }

    fn start_all(&mut self) {
        self.start_chain("127.0.0.1:0");
        self.start_gateway("127.0.0.1:0");
        self.start_host();
    }

    /// The state folder as text.
    pub fn state(&self) -> &str {
        self.folder.path().to_str().expect("temporary folders are UTF-8")
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    /// Starts the ledger.
    pub fn start_chain(&mut self, listen: &str) {
        let model = self.model.to_str().expect("UTF-8");
        let mut arguments = vec!["chain", "--listen", listen, "--state", self.state(), "--model", model];
        arguments.extend(self.engine.iter().map(String::as_str));
        self.chain = Some(Part::start(&arguments, &self.log("chain")));
    }

    /// What the gateway is started with from now on, beside its address and folder.
    pub fn gateway_arguments(&mut self, arguments: &[&str]) {
        self.gateway_arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    }

    /// Starts the gateway.
    pub fn start_gateway(&mut self, listen: &str) {
        let mut arguments = vec!["gateway", "--listen", listen, "--state", self.state()];
        arguments.extend(self.gateway_arguments.iter().map(String::as_str));
        self.gateway = Some(Part::start(&arguments, &self.log("gateway")));
    }

    /// Starts the host, and waits until the gateway lists its worker.
    pub fn start_host(&mut self) {
        let model = self.model.to_str().expect("UTF-8");
        let arguments =
            ["host", "up", "--process", "--listen", "127.0.0.1:0", "--state", self.state(), "--model", model];
        let mut arguments = [&arguments[..], &["--min-challenge-seconds", "1"]].concat();
        arguments.extend(self.engine.iter().map(String::as_str));
        self.host = Some(Part::start(&arguments, &self.log("host")));
    }

    /// The gateway's address.
    pub fn gateway_url(&self) -> String {
        self.gateway.as_ref().expect("the gateway runs").url()
    }

    /// Process ids of the guests of this network: children of its host.
    pub fn guests(&self) -> Vec<u32> {
        let host = self.host.as_ref().expect("the host runs").id();
        children_of(host)
    }

    /// The log of a part, for what it says and for what it must not say.
    pub fn log_text(&self, name: &str) -> String {
        std::fs::read_to_string(self.log(name)).unwrap_or_default()
    }

    /// The chain as a client sees it.
    pub async fn connect_chain(&self) -> Arc<dyn Chain> {
        let url = self.chain.as_ref().expect("the chain runs").url();
        Arc::new(Toncenter::connect(&url).await.expect("the chain answers"))
    }

    /// A client with a wallet of its own (filled), asking through `gateway`.
    pub async fn client(&self, name: &str, gateway: &str, deposit: u64) -> Client {
        let options = self.client_options(name, gateway, deposit).await;
        Client::connect(options).await.expect("the gateway answers")
    }

    /// What such a client is made of, to be changed before it connects.
    pub async fn client_options(&self, name: &str, gateway: &str, deposit: u64) -> ClientOptions {
        let file = self.file();
        let chain = self.connect_chain().await;
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let key = |file: &str| kept_key(&folder.join(file));
        let wallet = Arc::new(Wallet::new(key("wallet"), Arc::clone(&chain)));
        if wallet.balance().await.expect("the chain answers") < 5_000_000_000 {
            self.faucet(&wallet, 20_000_000_000).await;
        }
        let address = parse_address(file["registry"].as_str().expect("a registry")).expect("an address");
        let root = std::fs::read(
            self.folder.path().join(file["simulated_root"].as_str().expect("a simulated root")),
        );
        let anchors =
            TrustAnchors::hardware().with_simulated_root(&root.expect("the root's file")).expect("a root");
        ClientOptions {
            gateway: gateway.to_owned(),
            policy: PolicySource { max_age_seconds: 600, also: Vec::new() },
            registry: address,
            chain,
            wallet,
            session_key: key("session"),
            store: Store::open(&folder.join("accounts.redb")).expect("a store"),
            anchors,
            channel: ChannelOptions { deposit, most: 0, close_idle: None, challenge_seconds: 1 },
            counter: None,
        }
    }

    /// The network file.
    pub fn file(&self) -> toml::Table {
        let text = std::fs::read_to_string(self.folder.path().join("network.toml")).expect("a network file");
        text.parse().expect("it is TOML")
    }

    /// Coins for a wallet.
    pub async fn faucet(&self, wallet: &Wallet, nanotons: u64) {
        let url = format!("{}/faucet", self.chain.as_ref().expect("the chain runs").url());
        let body = serde_json::json!({"address": wallet.address().to_string(), "amount": nanotons});
        let reply = reqwest::Client::new().post(url).json(&body).send().await.expect("the faucet answers");
        assert!(reply.status().is_success(), "the faucet: {}", reply.text().await.unwrap_or_default());
        wait_for("the faucet's coins", async || {
            (wallet.balance().await.expect("the chain answers") >= nanotons).then_some(())
        })
        .await;
    }
}

/// Polls until there is a value; panics with the name of what did not come.
pub async fn wait_for<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = look().await {
            return value;
        }
        assert!(Instant::now() < deadline, "{what} did not come within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Direct children of a process, as /proc shows them.
pub fn children_of(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc is there").flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id| parent_of(*id) == Some(parent)).collect()
}

fn parent_of(id: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name stands in parentheses and may hold anything; the parent is the second field behind it.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// `kill -9` by process id.
pub fn kill(id: u32) {
    let pid = rustix::process::Pid::from_raw(id.try_into().expect("a process id")).expect("not zero");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is ours to kill");
}

/// A key that survives a restart of the client under test.
fn kept_key(path: &Path) -> SigningKey {
    if let Ok(bytes) = std::fs::read(path) {
        return SigningKey::from_seed(bytes.as_slice().try_into().expect("32 bytes"));
    }
    let key = SigningKey::generate().expect("the system gives random bytes");
    std::fs::write(path, key.expose_seed()).expect("it can be written");
    key
}
