//! A ledger, the files of a host, and a gateway by hand.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use cocoon_accounts::{authorize, unix_seconds};
use cocoon_attestation::{
    Context, Endorsements, Evidence, Exceptions, ImageReference, KnownBlock, Policy, Refusal, TrustAnchors,
    Trusted, UnixTime, verify,
};
use cocoon_chain::{Toncenter, Wallet};
use cocoon_contracts::{
    Address, SigningKey, TON, Voucher,
    channel::Terms,
    registry::{self, Content, Deployment, Owners, Status},
    wallet,
};
use cocoon_host::{Expected, Files, Host, HostOptions, Launch, Money, RunningHost};
use cocoon_ledger::{Genesis, GenesisAccount, Ledger, Pace, Schedule, Server};
use cocoon_protocol::{
    AnswerOpener, Budget, Endpoint, Price, Prompt, RequestHeader,
    http::{
        AUTHORIZATION_HEADER, AccountStatus, ApiError, CHANNEL_HEADER, ChannelAnnouncement, PRICE_HEADER,
    },
    seal,
};
use cocoon_simulated_tee::SimulatedRoot;

pub(crate) const NETWORK: i32 = -217;
/// A thousand nanotons for each token.
pub(crate) const PRICE: Price = Price::new(1_000_000_000, 1_000_000_000, 1_000_000_000);
pub(crate) const OPERATOR: u8 = 1;
pub(crate) const GATEWAY: u8 = 2;
const TREASURY: u8 = 3;

pub(crate) fn key(number: u8) -> SigningKey {
    SigningKey::from_seed(&[number; 32])
}

pub(crate) fn address(number: u8) -> Address {
    wallet::address(&key(number).public())
}

pub(crate) fn now() -> UnixTime {
    UnixTime(SystemTime::UNIX_EPOCH.elapsed().expect("the clock is after 1970").as_secs())
}

fn root() -> &'static Path {
    let up = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    up.expect("runtime/host lies in the repository")
}

pub(crate) fn tiny_model() -> PathBuf {
    root().join("tests/models/tiny.gguf")
}

/// The guest of this build, beside the folder of this test; built when it is not there.
pub(crate) fn guest_binary() -> PathBuf {
    let own = std::env::current_exe().expect("a running test has a file");
    let folder = own.parent().and_then(Path::parent).expect("tests lie in target/PROFILE/deps");
    let guest = folder.join("cocoon-guest");
    if !guest.is_file() {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "-p", "cocoon-guest"]).current_dir(root());
        build.env("CARGO_TARGET_DIR", folder.parent().expect("a profile lies in the target folder"));
        if folder.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo runs").success(), "cocoon-guest builds");
    }
    guest
}

pub(crate) struct World {
    pub(crate) url: String,
    pub(crate) registry: Address,
    pub(crate) root: SimulatedRoot,
    pub(crate) folder: tempfile::TempDir,
    ledger: tokio::task::JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.ledger.abort();
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        let time = u32::try_from(now().0).expect("before 2106");
        let mut content = Content::empty(100, address(TREASURY));
        let (name, status) = ("a gateway".to_owned(), Status::Allowed);
        content.gateways.push(registry::Gateway { name, status, address: crate::liabilities::listed() });
        let owners = Owners::new(1, [key(TREASURY).public()]).expect("a sound key");
        let deployment = Deployment { owners, delay: 1, salt: 1, content };
        let registry = deployment.address().expect("the content fits");
        let rich = |number| GenesisAccount { address: address(number), balance: 100 * TON, state_init: None };
        let contract = GenesisAccount {
            address: registry.clone(),
            balance: TON,
            state_init: Some(deployment.state_init().expect("the content fits")),
        };
        let accounts = vec![rich(OPERATOR), rich(GATEWAY), contract];
        let genesis = Genesis { network: NETWORK, schedule: Schedule::Mainnet2026, time, accounts };
        let ledger = Ledger::in_memory(&genesis).expect("a ledger begins");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let pace = Pace { busy: Duration::from_millis(20), idle: Duration::from_millis(200) };
        let server = Server::new(ledger).pace(pace);
        let ledger = tokio::spawn(async move { drop(server.run(listener).await) });
        let folder = tempfile::tempdir().expect("a folder for the test");
        let root = SimulatedRoot::create(now());
        root.save(&folder.path().join("root")).expect("the folder is writable");
        Self { url, registry, root, folder, ledger }
    }

    pub(crate) fn wallet(&self, number: u8) -> Arc<Wallet> {
        let chain = Toncenter::new(&self.url, NETWORK).expect("a good URL");
        Arc::new(Wallet::new(key(number), Arc::new(chain)))
    }

    pub(crate) fn options(&self) -> HostOptions {
        let listen: SocketAddr = ([127, 0, 0, 1], 0).into();
        let at = |name: &str| self.folder.path().join(name);
        let files = Files {
            state_dir: at("state"),
            run_dir: at("run"),
            launch: Launch::Process { guest_binary: guest_binary() },
            model: tiny_model(),
            simulated_root: at("root"),
        };
        let (wallet, registry) = (self.wallet(OPERATOR), self.registry.clone());
        let mut options = HostOptions::new(listen, wallet, registry, files, "tiny".to_owned(), PRICE);
        options.money = Money { window: TON, min_challenge_seconds: 60, settle_at: TON };
        options.guest.threads = 1;
        options.guest.max_context = 256;
        options
    }

    pub(crate) async fn host(&self) -> RunningHost {
        Host::start(self.options()).await.expect("the host starts")
    }

    /// Verifies and appraises a bundle as a client does that pinned what these files must measure.
    pub(crate) async fn trust(&self, bundle: &[u8], expected: &Expected) -> Trusted {
        self.judge(bundle, expected).await.expect("it measured what its files say")
    }

    /// The same, with the refusal.
    pub(crate) async fn judge(&self, bundle: &[u8], expected: &Expected) -> Result<Trusted, Box<Refusal>> {
        let mut policy = Policy::new(NETWORK, 600);
        policy.models.push(expected.weights);
        let measurements = expected.reference.tdx().expect("a simulated TDX module").clone();
        let configuration = Some(expected.configuration_digest());
        policy.tdx = Some(cocoon_attestation::TdxRules::by_vendor());
        policy.images.push(ImageReference::on_tdx("guest", configuration, &measurements));
        let anchors = TrustAnchors::hardware().with_simulated_root(self.root.root_der()).expect("a root");
        let evidence = Evidence::detect(bundle).expect("it is a bundle");
        let genuine = verify(&evidence, &Endorsements::none(), &anchors, &Exceptions::none(), now());
        let genuine = genuine.expect("the simulated platform signed it");
        let beacon = genuine.statement().expect("a bundle has one").freshness.beacon.clone();
        let wallet = self.wallet(GATEWAY);
        let block = wallet.chain().block(beacon.seqno).await.expect("the chain answers").expect("it has it");
        let known = KnownBlock { seqno: block.seqno, root_hash: block.root_hash, time: UnixTime(block.time) };
        let context = Context { now: now(), beacon: Some(known), nonce: None };
        Ok(policy.appraise(genuine, &context)?)
    }
}

/// A gateway by hand, with a channel to the host.
pub(crate) struct Gateway {
    http: reqwest::Client,
    host: String,
    terms: Terms,
}

impl Gateway {
    pub(crate) async fn open(world: &World, host: &RunningHost) -> Self {
        let terms = Terms {
            payer: address(GATEWAY),
            payee: address(OPERATOR),
            payer_key: key(GATEWAY).public(),
            network: NETWORK,
            nonce: 1,
            challenge_seconds: 60,
            fee_bps: 100,
            treasury: address(TREASURY),
        };
        cocoon_chain::open_channel(&world.wallet(GATEWAY), &terms, TON, u64::MAX)
            .await
            .expect("the channel opens");
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let gateway = Self { http, host: host.url(), terms };
        let body = ChannelAnnouncement { address: gateway.terms.address().to_string() };
        let put = gateway.http.put(format!("{}/v1/channels", gateway.host)).json(&body);
        assert_eq!(put.send().await.expect("the host answers").status(), 200);
        gateway
    }

    pub(crate) fn channel(&self) -> Address {
        self.terms.address()
    }

    pub(crate) async fn pay(&self, cumulative: u64) -> AccountStatus {
        let (channel, nonce) = (self.terms.address(), self.terms.nonce);
        let url = format!("{}/v1/channels/{channel}/voucher", self.host);
        let voucher = Voucher { network: NETWORK, channel, nonce, cumulative }.sign(&key(GATEWAY));
        let reply = self.http.put(url).body(voucher.encode()).send().await.expect("the host answers");
        reply.json().await.expect("an account")
    }

    /// Asks the model for at most this many tokens.
    pub(crate) async fn ask(
        &self,
        trusted: &Trusted,
        number: u8,
        tokens: u32,
    ) -> (reqwest::Response, AnswerOpener) {
        self.ask_as(GATEWAY, &PRICE.to_words(), trusted, number, tokens).await
    }

    /// The same, with the authorization signed by this key, and with this price.
    pub(crate) async fn ask_as(
        &self,
        signer: u8,
        price: &str,
        trusted: &Trusted,
        number: u8,
        tokens: u32,
    ) -> (reqwest::Response, AnswerOpener) {
        let header = RequestHeader {
            network: NETWORK,
            request_id: [number; 16],
            statement: trusted.statement_digest(),
            model: trusted.model("tiny").expect("it serves it").weights,
            budget: Budget { prompt_tokens: 100, completion_tokens: tokens },
            price: PRICE,
        };
        let body = format!(
            r#"{{"model":"tiny","stream":true,"max_tokens":{tokens},"messages":[{{"role":"user","content":"hello"}}]}}"#
        );
        let body = Prompt::new(body.into_bytes());
        let (sealed, opener) =
            seal(trusted, &header, Endpoint::ChatCompletions, body).expect("it fits the peer");
        let (channel, body) = (self.terms.address(), sealed.into_bytes());
        let authorization = authorize(&key(signer), &channel, unix_seconds(), Some(&body));
        let request = self
            .http
            .post(format!("{}/v1/answers", self.host))
            .header(CHANNEL_HEADER, channel.to_string())
            .header(AUTHORIZATION_HEADER, authorization)
            .header(PRICE_HEADER, price)
            .body(body);
        (request.send().await.expect("the host answers"), opener)
    }
}

pub(crate) async fn code(response: reqwest::Response) -> String {
    let error: ApiError = response.json().await.expect("a refusal has the one shape");
    error.code().to_owned()
}

/// Waits until something is so, and says what was waited for when it never is.
pub(crate) async fn eventually(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !so().await {
        assert!(Instant::now() < deadline, "this never came to be: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn lives(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}
