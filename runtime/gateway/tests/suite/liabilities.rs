//! What is owed is published on the bond: the same root after a crash anywhere, and never two for one epoch.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cocoon_chain::{AccountState, Block, Chain, ChainError, StackItem, Transaction, Wallet};
use cocoon_contracts::{
    Address, TON,
    bond::{Published, Terms},
};
use cocoon_gateway::{BondOptions, Gateway, GatewayError, GatewayOptions, LiabilitiesError, RecordError};
use cocoon_protocol::http::Solvency;
use futures_util::future::BoxFuture;

use crate::{
    fake_host::{FakeHost, Script},
    world::{
        ByHand, DEPOSIT, GATEWAY, HOST_PRICE, NETWORK, Refused, WORKER, World, address, eventually, key,
        reply,
    },
};

/// The bond's own key.
const BOND: u8 = 6;

/// A chain that can be read, and takes messages only when it is told to.
struct Gagged {
    inner: Arc<dyn Chain>,
    mute: AtomicBool,
}

impl Chain for Gagged {
    fn network(&self) -> i32 {
        self.inner.network()
    }

    fn head(&self) -> BoxFuture<'_, Result<Block, ChainError>> {
        self.inner.head()
    }

    fn block(&self, seqno: u32) -> BoxFuture<'_, Result<Option<Block>, ChainError>> {
        self.inner.block(seqno)
    }

    fn account<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, Result<AccountState, ChainError>> {
        self.inner.account(address)
    }

    fn transactions<'a>(
        &'a self,
        address: &'a Address,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Transaction>, ChainError>> {
        self.inner.transactions(address, limit)
    }

    fn run_get_method<'a>(
        &'a self,
        address: &'a Address,
        method: &'a str,
        arguments: Vec<StackItem>,
    ) -> BoxFuture<'a, Result<Vec<StackItem>, ChainError>> {
        self.inner.run_get_method(address, method, arguments)
    }

    fn send<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<(), ChainError>> {
        if self.mute.load(Ordering::SeqCst) {
            let gagged = ChainError::Invalid { action: "send", why: "the test does not let it".to_owned() };
            return Box::pin(std::future::ready(Err(gagged)));
        }
        self.inner.send(message)
    }
}

fn terms() -> Terms {
    Terms {
        operator: address(GATEWAY),
        operator_key: key(BOND).public(),
        treasury: address(4),
        network: NETWORK,
        delay_seconds: 60,
        salt: 0,
        platforms: Vec::new(),
    }
}

/// A network on which the gateway owes a worker, and has a bond; the gateway is gone again.
struct Owing {
    world: World,
    _host: FakeHost,
    owed: u64,
}

impl Owing {
    async fn start() -> Self {
        let world = World::start().await;
        let backed = cocoon_chain::back_bond(&world.wallet(GATEWAY), &terms(), 2 * TON).await;
        backed.expect("the gateway can back a bond");
        let gateway = world.gateway().await;
        let host = FakeHost::start(&world).await;
        host.register(&world, &gateway.url(), WORKER).await.expect("a good worker");
        let client = ByHand::open(&world, &gateway.url(), &host, DEPOSIT).await;
        client.pay(100_000).await.expect("paid ahead");
        host.next_answer(Script::tokens(8));
        let mut asked = client.ask(8).await.expect("the deposit covers it");
        while asked.next().await.expect("the stream goes on").is_some() {}
        let usage = asked.opener.usage();
        let owed = HOST_PRICE.bill(&usage);
        eventually("the answer is counted", async || {
            let book = gateway.payer_book();
            book.channels().iter().any(|channel| book.state(channel).is_some_and(|it| it.signed == owed))
        })
        .await;
        Self { world, _host: host, owed }
    }

    fn options(&self, bond_key: u8, every: u64) -> GatewayOptions {
        let mut options = self.world.options();
        let (address, every) = (terms().address(), Duration::from_secs(every));
        options.bond = Some(BondOptions { address, key: key(bond_key), every });
        options
    }

    async fn published(&self) -> Option<Published> {
        let wallet = self.world.wallet(GATEWAY);
        let state = cocoon_chain::read_bond(&**wallet.chain(), &terms().address()).await;
        state.expect("the bond is there").published
    }

    fn record(&self) -> PathBuf {
        self.world.folder.path().join("gateway/liabilities/epoch.json")
    }

    async fn refused(&self, options: impl Fn() -> GatewayOptions) -> GatewayError {
        loop {
            match Gateway::start(options()).await {
                // The one before lets go of the books in the background.
                Err(GatewayError::Store(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => return error,
                Ok(_) => panic!("it started"),
            }
        }
    }
}

async fn started(options: impl Fn() -> GatewayOptions) -> cocoon_gateway::RunningGateway {
    loop {
        match Gateway::start(options()).await {
            Ok(gateway) => return gateway,
            Err(GatewayError::Store(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("it does not start: {error}"),
        }
    }
}

#[tokio::test]
async fn a_root_that_was_signed_and_not_sent_is_the_one_that_is_published_after_a_crash() {
    let owing = Owing::start().await;
    let muted = || {
        let mut options = owing.options(BOND, 3600);
        let inner = Arc::clone(owing.world.wallet(GATEWAY).chain());
        let chain = Arc::new(Gagged { inner, mute: AtomicBool::new(true) });
        options.wallet = Arc::new(Wallet::new(key(GATEWAY), chain));
        options
    };
    let crashing = started(muted).await;
    eventually("the leaves are on the disk", async || owing.record().is_file()).await;
    drop(crashing);
    assert_eq!(owing.published().await, None, "nothing was sent");
    let text = std::fs::read(owing.record()).expect("it is there");
    let kept: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(kept["sum"], owing.owed);

    // Time passes: another epoch would have another number, and another root.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let gateway = started(|| owing.options(BOND, 3600)).await;
    eventually("something is published", async || owing.published().await.is_some()).await;
    let said = owing.published().await.expect("it was").liabilities;
    assert_eq!(
        (kept["epoch"].as_u64(), kept["root"].as_str(), kept["sum"].as_u64()),
        (Some(said.epoch), Some(hex::encode(said.root).as_str()), Some(said.sum))
    );
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let told: Result<Solvency, Refused> = reply(http.get(format!("{}/v1/solvency", gateway.url()))).await;
    let told = told.expect("it has a bond");
    assert_eq!(told.published.map(|published| published.epoch), Some(said.epoch));
    assert_eq!((told.bond, told.channels.len()), (terms().address().to_string(), 1));
}

#[tokio::test]
async fn epochs_follow_each_other_over_restarts() {
    let owing = Owing::start().await;
    let mut newest = 0;
    for _ in 0..2 {
        let gateway = started(|| owing.options(BOND, 1)).await;
        for _ in 0..2 {
            let before = newest;
            eventually("a later epoch is published", async || {
                newest = owing.published().await.map_or(0, |published| published.liabilities.epoch);
                newest > before
            })
            .await;
        }
        drop(gateway);
    }
    assert_eq!(owing.published().await.map(|published| published.liabilities.sum), Some(owing.owed));
}

#[tokio::test]
async fn nothing_is_published_on_a_bond_or_over_a_record_that_is_not_known() {
    let owing = Owing::start().await;
    let foreign = owing.refused(|| owing.options(GATEWAY, 1)).await;
    assert!(
        matches!(foreign, GatewayError::Liabilities(LiabilitiesError::Foreign { what: "key", .. })),
        "{foreign}"
    );
    let folder = owing.record();
    std::fs::create_dir_all(folder.parent().expect("it lies in a folder")).expect("ours");
    std::fs::write(&folder, b"{\"format\":1").expect("ours");
    let damaged = owing.refused(|| owing.options(BOND, 1)).await;
    let named =
        matches!(&damaged, GatewayError::Liabilities(LiabilitiesError::Record(RecordError::Damaged { .. })));
    assert!(named, "{damaged}");
    assert_eq!(owing.published().await, None);
}

#[tokio::test]
async fn a_gateway_without_a_bond_says_so() {
    let world = World::start().await;
    let gateway = world.gateway().await;
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let told: Result<Solvency, Refused> = reply(http.get(format!("{}/v1/solvency", gateway.url()))).await;
    assert_eq!(told, Err((404, "no_bond".to_owned())));
}
