//! A ledger with a registry and wallets, a gateway on it, a host beside it, and a client in front.

use std::{
    net::SocketAddr,
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
    Address, Nanotons, SignedVoucher, SigningKey, TON, Voucher,
    channel::Terms,
    registry::{
        self, Approval, Change, Content, Deployment, Image, Model, Owners, Prices, Status, TdxRegisters,
    },
    wallet,
};
use cocoon_gateway::{Gateway, GatewayError, GatewayOptions, Money, RunningGateway, Timing};
use cocoon_ledger::{Genesis, GenesisAccount, Ledger, Pace, Schedule, Server};
use cocoon_protocol::{
    AnswerOpener, Budget, Coefficient, Endpoint, Price, Prompt, RequestHeader, SealedRequest, Usage,
    http::{AUTHORIZATION_HEADER, AccountStatus, ApiError, CHANNEL_HEADER, ChannelAnnouncement, WorkerEntry},
    seal,
};
use cocoon_simulated_tee::SimulatedRoot;

use crate::fake_host::{FakeHost, HOST_WINDOW, MODEL, guest};

pub(crate) const NETWORK: i32 = -217;
pub(crate) const FEE_BPS: u16 = 100;
/// A thousand nanotons for each token.
pub(crate) const HOST_PRICE: Price = Price::new(1_000_000_000, 1_000_000_000, 1_000_000_000);
pub(crate) const LISTED: Price = HOST_PRICE.at(Coefficient::from_thousandths(1_100));
/// Ten tokens at the listed price.
pub(crate) const WINDOW: Nanotons = 11_000;
pub(crate) const DEPOSIT: Nanotons = TON / 2;

pub(crate) fn key(number: u8) -> SigningKey {
    SigningKey::from_seed(&[number; 32])
}

pub(crate) const CLIENT: u8 = 1;
pub(crate) const GATEWAY: u8 = 2;
pub(crate) const OPERATOR: u8 = 3;
const TREASURY: u8 = 4;
const VOUCHERS: u8 = 5;

pub(crate) fn address(number: u8) -> Address {
    wallet::address(&key(number).public())
}

/// The ledger, and all that is on it.
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

pub(crate) fn now() -> UnixTime {
    UnixTime(SystemTime::UNIX_EPOCH.elapsed().expect("the clock is after 1970").as_secs())
}

/// The treasury alone owns the registry.
fn owners() -> Owners {
    Owners::new(1, [key(TREASURY).public()]).expect("a sound key")
}

/// What the registry allows: the fake host's guest and its model, at its price.
fn content(root: &SimulatedRoot) -> Content {
    let registers = guest(root).registers().clone();
    let registers = TdxRegisters { mrtd: registers.mrtd, rtmr: registers.rtmr };
    let measurements = registry::Measurements::Tdx(Box::new(registers));
    let (name, status) = ("test".to_owned(), Status::Allowed);
    let profile = String::new();
    let image = Image { name: name.clone(), profile, status, measurements, configuration: None };
    let Price { prompt, cached, completion, .. } = HOST_PRICE;
    let prices = Prices { prompt, cached, completion };
    let model = Model { name, status, weights: MODEL, prices };
    let coefficients = registry::Coefficients { min_permille: 100, max_permille: 10_000 };
    let (images, models) = (vec![image], vec![model]);
    Content { coefficients, images, models, ..Content::empty(FEE_BPS, address(TREASURY)) }
}

impl World {
    pub(crate) async fn start() -> Self {
        let time = u32::try_from(now().0).expect("before 2106");
        let root = SimulatedRoot::create(now());
        let content = content(&root);
        let deployment = Deployment { owners: owners(), delay: 1, salt: 1, content };
        let registry = deployment.address().expect("the content fits");
        let rich = |number| GenesisAccount { address: address(number), balance: 100 * TON, state_init: None };
        let contract = GenesisAccount {
            address: registry.clone(),
            balance: TON,
            state_init: Some(deployment.state_init().expect("the content fits")),
        };
        let accounts = vec![rich(CLIENT), rich(GATEWAY), rich(OPERATOR), rich(TREASURY), contract];
        let genesis = Genesis { network: NETWORK, schedule: Schedule::Mainnet2026, time, accounts };
        let ledger = Ledger::in_memory(&genesis).expect("a ledger begins");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let pace = Pace { busy: Duration::from_millis(20), idle: Duration::from_millis(500) };
        let server = Server::new(ledger).pace(pace);
        let ledger = tokio::spawn(async move { drop(server.run(listener).await) });
        let folder = tempfile::tempdir().expect("a folder for the test");
        Self { url, registry, root, folder, ledger }
    }

    pub(crate) fn wallet(&self, number: u8) -> Arc<Wallet> {
        let chain = Toncenter::new(&self.url, NETWORK).expect("a good URL");
        Arc::new(Wallet::new(key(number), Arc::new(chain)))
    }

    /// The registry's owner changes the network's fee.
    pub(crate) async fn change_fee(&self, fee_bps: u16) {
        self.change(Content { fee_bps, ..content(&self.root) }).await;
    }

    /// The registry's owner bars machines.
    pub(crate) async fn bar(&self, barred: Vec<registry::PlatformId>) {
        self.change(Content { barred, ..content(&self.root) }).await;
    }

    async fn change(&self, content: Content) {
        let owner = self.wallet(TREASURY);
        let registry = cocoon_chain::read_registry(&**owner.chain(), &self.registry).await;
        let change = Change { owners: owners(), content };
        let registry = registry.expect("there is a registry");
        let mut approval = Approval::to_propose(NETWORK, &self.registry, &registry, change, u32::MAX)
            .expect("the content fits");
        approval.sign(&key(TREASURY)).expect("the owner's key");
        let proposed = cocoon_chain::propose(&owner, &self.registry, &approval).await;
        proposed.expect("the owner may propose");
        eventually("the change counts", async || {
            cocoon_chain::activate(&owner, &self.registry).await.is_ok()
        })
        .await;
    }

    pub(crate) fn anchors(&self) -> TrustAnchors {
        TrustAnchors::hardware().with_simulated_root(self.root.root_der()).expect("a root")
    }

    pub(crate) fn options(&self) -> GatewayOptions {
        let listen: SocketAddr = ([127, 0, 0, 1], 0).into();
        let state = self.folder.path().join("gateway");
        let (wallet, registry) = (self.wallet(GATEWAY), self.registry.clone());
        let mut options = GatewayOptions::new(listen, wallet, key(VOUCHERS), registry, state);
        options.anchors = self.anchors();
        options.money = Money {
            window: WINDOW,
            margin_bps: 1000,
            worker_deposit: DEPOSIT,
            concession: HOST_WINDOW,
            challenge_seconds: 60,
            min_challenge_seconds: 60,
            settle_at: TON,
            worker_most: 1_000 * TON,
        };
        options.timing = Timing { patience: Duration::from_secs(30), ..Timing::default() };
        options
    }

    pub(crate) async fn gateway(&self) -> RunningGateway {
        Gateway::start(self.options()).await.expect("the gateway starts")
    }

    /// Starts a gateway on books that another one may still be letting go of.
    pub(crate) async fn gateway_again(&self) -> RunningGateway {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match Gateway::start(self.options()).await {
                Ok(gateway) => return gateway,
                Err(GatewayError::Store(error)) if Instant::now() < deadline => {
                    println!("not yet: {error}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("the gateway does not start again: {error}"),
            }
        }
    }
}

/// A client by hand: nothing is paid unless the test does it.
pub(crate) struct ByHand {
    pub(crate) http: reqwest::Client,
    pub(crate) gateway: String,
    pub(crate) terms: Terms,
    pub(crate) trusted: Trusted,
}

/// Everything, with a worker registered and a client's channel announced.
pub(crate) struct Scene {
    pub(crate) client: ByHand,
    pub(crate) gateway: RunningGateway,
    pub(crate) host: FakeHost,
    pub(crate) world: World,
}

pub(crate) const WORKER: &str = "worker-1";

impl Scene {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut GatewayOptions)) -> Self {
        let world = World::start().await;
        let mut options = world.options();
        change(&mut options);
        let gateway = Gateway::start(options).await.expect("the gateway starts");
        let host = FakeHost::start(&world).await;
        let registered = host.register(&world, &gateway.url(), WORKER).await;
        assert_eq!(registered, Ok(()), "a good worker is registered");
        let client = ByHand::open(&world, &gateway.url(), &host, DEPOSIT).await;
        Self { client, gateway, host, world }
    }
}

pub(crate) type Refused = (u16, String);

impl ByHand {
    pub(crate) async fn open(world: &World, gateway: &str, host: &FakeHost, deposit: Nanotons) -> Self {
        let wallet = world.wallet(CLIENT);
        let terms = client_terms(1);
        cocoon_chain::open_channel(&wallet, &terms, deposit, u64::MAX)
            .await
            .expect("the client can open a channel");
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let trusted = trust(world, host).await;
        let client = Self { http, gateway: gateway.to_owned(), terms, trusted };
        client.announce(&client.terms.address()).await.expect("the channel is taken");
        client
    }

    pub(crate) async fn announce(&self, address: &Address) -> Result<AccountStatus, Refused> {
        let body = ChannelAnnouncement { address: address.to_string() };
        reply(self.http.put(format!("{}/v1/channels", self.gateway)).json(&body)).await
    }

    pub(crate) async fn status(&self) -> AccountStatus {
        let channel = self.terms.address();
        let url = format!("{}/v1/channels/{channel}", self.gateway);
        let read = authorize(&key(CLIENT), &channel, unix_seconds(), None);
        let request = self.http.get(url).header(AUTHORIZATION_HEADER, read);
        reply(request).await.expect("the channel is known")
    }

    pub(crate) async fn workers(&self) -> Vec<WorkerEntry> {
        reply(self.http.get(format!("{}/v1/workers", self.gateway))).await.expect("a list")
    }

    pub(crate) fn voucher(&self, cumulative: Nanotons) -> Voucher {
        let (channel, nonce) = (self.terms.address(), self.terms.nonce);
        Voucher { network: NETWORK, channel, nonce, cumulative }
    }

    pub(crate) async fn pay(&self, cumulative: Nanotons) -> Result<AccountStatus, Refused> {
        self.hand_in(&self.voucher(cumulative).sign(&key(CLIENT))).await
    }

    pub(crate) async fn hand_in(&self, voucher: &SignedVoucher) -> Result<AccountStatus, Refused> {
        self.put_voucher(voucher.encode()).await
    }

    pub(crate) async fn put_voucher(&self, bytes: Vec<u8>) -> Result<AccountStatus, Refused> {
        let url = format!("{}/v1/channels/{}/voucher", self.gateway, self.terms.address());
        reply(self.http.put(url).body(bytes)).await
    }

    pub(crate) fn header(&self, completion_tokens: u32) -> RequestHeader {
        let mut request_id = [0; 16];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut request_id)
            .expect("random bytes");
        RequestHeader {
            network: NETWORK,
            request_id,
            statement: self.trusted.statement_digest(),
            model: MODEL,
            budget: Budget { prompt_tokens: 5, completion_tokens },
            price: LISTED,
        }
    }

    pub(crate) fn seal(&self, header: &RequestHeader) -> (SealedRequest, AnswerOpener) {
        let body = Prompt::new(br#"{"messages":[{"role":"user","content":"hello"}]}"#.to_vec());
        seal(&self.trusted, header, Endpoint::ChatCompletions, body).expect("the header fits the peer")
    }

    pub(crate) fn post(&self, worker: &str, sealed: SealedRequest) -> reqwest::RequestBuilder {
        let (channel, body) = (self.terms.address(), sealed.into_bytes());
        let authorization = authorize(&key(CLIENT), &channel, unix_seconds(), Some(&body));
        self.http
            .post(format!("{}/v1/workers/{worker}/answers", self.gateway))
            .header(CHANNEL_HEADER, channel.to_string())
            .header(AUTHORIZATION_HEADER, authorization)
            .body(body)
    }

    /// Asks for at most this many tokens.
    pub(crate) async fn ask(&self, completion_tokens: u32) -> Result<Asked, Refused> {
        let (sealed, opener) = self.seal(&self.header(completion_tokens));
        let response = self.post(WORKER, sealed).send().await.expect("the gateway answers");
        if response.status() == 200 { Ok(Asked { response, opener }) } else { Err(refusal(response).await) }
    }
}

/// An answer on its way.
pub(crate) struct Asked {
    pub(crate) response: reqwest::Response,
    pub(crate) opener: AnswerOpener,
}

impl Asked {
    /// The next bytes opened; the usage so far, or `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Usage>, reqwest::Error> {
        let Some(chunk) = self.response.chunk().await? else { return Ok(None) };
        self.opener.push(&chunk).expect("what came is the answer to this request");
        Ok(Some(self.opener.usage()))
    }

    /// Reads until at least this many tokens are there.
    pub(crate) async fn until(&mut self, completion_tokens: u32) -> Usage {
        loop {
            let usage = self.next().await.expect("the stream goes on").expect("the stream goes on");
            if usage.completion_tokens >= completion_tokens {
                return usage;
            }
        }
    }
}

pub(crate) fn client_terms(nonce: u64) -> Terms {
    Terms {
        payer: address(CLIENT),
        payee: address(GATEWAY),
        payer_key: key(CLIENT).public(),
        network: NETWORK,
        nonce,
        challenge_seconds: 60,
        fee_bps: FEE_BPS,
        treasury: address(TREASURY),
    }
}

async fn trust(world: &World, host: &FakeHost) -> Trusted {
    let mut policy = Policy::new(NETWORK, 600);
    policy.models.push(MODEL);
    let measurements = host.registers();
    policy.tdx = Some(cocoon_attestation::TdxRules::by_vendor());
    policy.images.push(ImageReference::on_tdx("test", None, &measurements));
    appraise(world, host, &policy).await.expect("acceptable")
}

/// What a client says of the host's guest under a policy.
pub(crate) async fn appraise(world: &World, host: &FakeHost, policy: &Policy) -> Result<Trusted, Refusal> {
    let chain = world.wallet(CLIENT);
    let (evidence, none) = (Evidence::Bundle(host.bundle(world).await), Endorsements::none());
    let genuine = verify(&evidence, &none, &world.anchors(), &Exceptions::none(), now()).expect("genuine");
    let beacon = genuine.statement().expect("a bundle has one").freshness.beacon.clone();
    let block =
        chain.chain().block(beacon.seqno).await.expect("the chain answers").expect("it has the block");
    let known = KnownBlock { seqno: block.seqno, root_hash: block.root_hash, time: UnixTime(block.time) };
    let context = Context { now: now(), beacon: Some(known), nonce: None };
    policy.appraise(genuine, &context)
}

/// The reply's JSON, or the refusal's status and code. Every refusal must have the one shape.
pub(crate) async fn reply<T: serde::de::DeserializeOwned>(
    request: reqwest::RequestBuilder,
) -> Result<T, Refused> {
    let response = request.send().await.expect("the gateway answers");
    if response.status() == 200 {
        return Ok(response.json().await.expect("the reply has its shape"));
    }
    Err(refusal(response).await)
}

pub(crate) async fn refusal(response: reqwest::Response) -> Refused {
    let status = response.status().as_u16();
    let text = response.text().await.expect("a whole refusal");
    let error: ApiError = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: {text:?}"));
    assert!(!error.error.message.is_empty());
    println!("refused: {status} {}", error.error.message);
    (status, error.code().to_owned())
}

/// Waits until something is so, and says what was waited for when it never is.
pub(crate) async fn eventually(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !so().await {
        assert!(Instant::now() < deadline, "this never came to be: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
