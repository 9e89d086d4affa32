//! From a state folder to the parts that stand on it: chain, wallet, registry, client.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cocoon_accounts::Store;
use cocoon_attestation::{Policy, TrustAnchors};
use cocoon_chain::{Chain, Wallet, read_registry};
use cocoon_client::{ChannelOptions, Client, ClientOptions, PolicySource, policy_from_registry};
use cocoon_contracts::registry::Registry;
use cocoon_contracts::{Address, Nanotons, parse_address};

use crate::access::connect;
use crate::counter;
use crate::error::{Explain, Failure, books_remedy};
use crate::keys;
use crate::network::{NetworkFile, role_folder};
use crate::wallet::parse_ton;

/// Evidence older than this is refused by clients, in seconds. Hosts renew theirs every minute.
pub(crate) const MAX_EVIDENCE_AGE: u64 = 600;
/// What the faucet of a development network gives a wallet that has less than half of it.
const FAUCET_AMOUNT: Nanotons = 20_000_000_000;
/// How long a client's channel may be contested after it starts to close, in seconds.
const CHALLENGE_SECONDS: u32 = 24 * 3600;
/// The profile of `cocoon chat`.
pub(crate) const CLIENT: &str = "client";
/// The profile of `cocoon proxy`: its own, so that both can run at once.
pub(crate) const PROXY: &str = "proxy";
/// What a client puts into a new channel: 1 TON.
pub(crate) const DEPOSIT: Nanotons = 1_000_000_000;

/// A network that was joined: its file, its chain, its registry as it stands.
pub(crate) struct Joined {
    pub(crate) state: PathBuf,
    pub(crate) file: NetworkFile,
    pub(crate) chain: Arc<dyn Chain>,
    pub(crate) registry_address: Address,
    pub(crate) registry: Registry,
}

impl Joined {
    /// Reads the network file and meets the chain it names.
    pub(crate) async fn load(state: &Path) -> Result<Self, Failure> {
        let file = NetworkFile::load(state)?;
        let chain: Arc<dyn Chain> = connect(state, &file).await?;
        let registry_address = parse_address(&file.registry)
            .explain(|| "the network file names no registry".into(), "start `cocoon chain` again")?;
        let registry = read_registry(chain.as_ref(), &registry_address).await.explain(
            || "the registry cannot be read".into(),
            "check that `cocoon chain` runs, or the registry's address",
        )?;
        Ok(Self { state: state.to_owned(), file, chain, registry_address, registry })
    }

    /// The wallet of a role, filled by the faucet where there is one.
    pub(crate) async fn wallet(&self, role: &str) -> Result<Arc<Wallet>, Failure> {
        self.wallet_of(&role_folder(&self.state, role)?.join("wallet.key")).await
    }

    /// The wallet of a key file, filled by the faucet where there is one.
    pub(crate) async fn wallet_of(&self, path: &Path) -> Result<Arc<Wallet>, Failure> {
        let (key, version) = keys::load_or_create_wallet(path)?;
        let wallet = Arc::new(Wallet::of_version(key, version, Arc::clone(&self.chain)));
        if self.file.faucet {
            fill(&wallet, &self.file.chain).await?;
        }
        Ok(wallet)
    }

    /// What this network accepts.
    pub(crate) fn policy(&self) -> Result<Policy, Failure> {
        policy_from_registry(&self.registry, self.file.network, MAX_EVIDENCE_AGE).explain(
            || "no policy can be made from the registry".into(),
            "the network's owner must allow an image and a model",
        )
    }

    /// Hardware roots, and the simulated root of a development network.
    pub(crate) fn anchors(&self) -> Result<TrustAnchors, Failure> {
        let anchors = TrustAnchors::hardware();
        match self.file.simulated_root_der(&self.state)? {
            None => Ok(anchors),
            Some(der) => anchors.with_simulated_root(&der).explain(
                || "the simulated root cannot be used".into(),
                "delete it and start `cocoon chain` again",
            ),
        }
    }

    /// The books of a role.
    pub(crate) fn store(&self, role: &str) -> Result<Store, Failure> {
        let path = role_folder(&self.state, role)?.join("accounts.redb");
        Store::open(&path).map_err(|error| {
            let in_use =
                "end the other process that has them open (or give this one a wallet of its own with --profile NAME)";
            Failure::new(format!("the books cannot be opened: {error}"), books_remedy(&error, in_use))
        })
    }

    /// A client of a gateway of this network, with the wallet and books in the role's folder.
    pub(crate) async fn client(
        &self,
        gateway: Option<String>,
        settings: ClientSettings,
    ) -> Result<Client, Failure> {
        let gateway = gateway.or_else(|| self.file.gateways.first().cloned()).ok_or_else(|| {
            Failure::new(
                "no gateway is known on this network",
                "start one with `cocoon gateway`, or name one with --gateway URL",
            )
        })?;
        let folder = role_folder(&self.state, &settings.profile)?;
        let also = settings.policy.iter().map(|path| read_policy(path)).collect::<Result<_, _>>()?;
        let policy = PolicySource { max_age_seconds: MAX_EVIDENCE_AGE, also };
        let options = ClientOptions {
            gateway,
            chain: Arc::clone(&self.chain),
            wallet: self.wallet(&settings.profile).await?,
            session_key: keys::load_or_create(&folder.join("session.key"))?,
            store: self.store(&settings.profile)?,
            anchors: self.anchors()?,
            registry: self.registry_address.clone(),
            policy,
            channel: ChannelOptions {
                deposit: settings.money.deposit,
                most: settings.money.most.unwrap_or(0),
                close_idle: settings
                    .money
                    .close_idle
                    .map(|hours| Duration::from_secs(3600 * u64::from(hours))),
                challenge_seconds: settings.challenge_seconds,
            },
            counter: settings.recount.as_deref().map(counter::open).transpose()?,
        };
        Client::connect(options).await.map_err(|error| explain_client(&error))
    }
}

/// A profile is a folder's name: nothing that leads out of the state folder.
pub(crate) fn parse_profile(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let reserved = ["gateway", "operator", "ledger", "owner", "treasury", "simulated-tee", "models"];
    match (1..=32).contains(&text.len()) && text.chars().all(fits) && !reserved.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err("1 to 32 letters, digits, - and _, and not the name of another part".to_owned()),
    }
}

/// What a client puts into channels, and when it takes it back.
#[derive(clap::Args, Clone)]
pub(crate) struct ChannelMoney {
    /// Nanotons to put into a new payment channel
    #[arg(long, value_name = "NANOTONS", default_value_t = DEPOSIT)]
    pub(crate) deposit: Nanotons,
    /// The most that a channel may hold in all, in TON: as it is used up, the deposit grows by steps of itself, and what
    /// the session key may sign with it [default: it never grows]
    #[arg(long, value_name = "TON", value_parser = parse_ton)]
    pub(crate) most: Option<Nanotons>,
    /// Close channels to other gateways that had no work for so many hours: their rest comes home
    #[arg(long, value_name = "HOURS")]
    pub(crate) close_idle: Option<u32>,
}

/// How a client is set up.
pub(crate) struct ClientSettings {
    /// The folder of its wallet and books: one process at a time has them open.
    pub(crate) profile: String,
    /// A policy file that must accept a worker beside the registry's.
    pub(crate) policy: Option<PathBuf>,
    /// The model file to count tokens again with.
    pub(crate) recount: Option<PathBuf>,
    /// What its channel may hold.
    pub(crate) money: ChannelMoney,
    /// See [`CHALLENGE_SECONDS`].
    pub(crate) challenge_seconds: u32,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            profile: CLIENT.to_owned(),
            policy: None,
            recount: None,
            money: ChannelMoney { deposit: DEPOSIT, most: None, close_idle: None },
            challenge_seconds: CHALLENGE_SECONDS,
        }
    }
}

/// A client's error with its own remedy.
pub(crate) fn explain_client(error: &cocoon_client::ClientError) -> Failure {
    Failure::new(error.to_string(), error.remedy())
}

fn read_policy(path: &Path) -> Result<Policy, Failure> {
    let text = std::fs::read_to_string(path)
        .explain(|| format!("cannot read {}", path.display()), "check the name")?;
    Policy::from_toml(&text).explain(|| path.display().to_string(), "mend the line it names")
}

/// Asks the faucet until the wallet has enough for what the parts do.
pub(crate) async fn fill(wallet: &Wallet, chain_url: &str) -> Result<(), Failure> {
    const LIMIT: Duration = Duration::from_secs(20);
    const REMEDY: &str = "check that `cocoon chain` runs, and look at its log";
    let balance = wallet.balance().await.explain(|| "the wallet's balance cannot be read".into(), REMEDY)?;
    if balance >= FAUCET_AMOUNT / 2 {
        return Ok(());
    }
    let request = serde_json::json!({ "address": wallet.address().to_string(), "amount": FAUCET_AMOUNT });
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(LIMIT)
        .build()
        .explain(|| "no HTTP client".into(), REMEDY)?;
    let reply = http.post(format!("{}/faucet", chain_url.trim_end_matches('/'))).json(&request).send().await;
    // The reply comes when the block with the coins is made.
    reply
        .and_then(reqwest::Response::error_for_status)
        .explain(|| "the faucet gave nothing".into(), REMEDY)?;
    Ok(())
}

/// The guest's binary, which lies beside this one.
pub(crate) fn guest_binary() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe().explain(|| "cannot find this program's own file".into(), "")?;
    let path = own.with_file_name("cocoon-guest");
    if path.is_file() {
        return Ok(path);
    }
    Err(Failure::new(
        format!("the guest's binary {} is missing", path.display()),
        "build it: cargo build --release -p cocoon-cli -p cocoon-guest",
    ))
}

/// The model named, a file or a folder, or the demo model where `./scripts/demo` keeps it.
pub(crate) fn model_file(named: Option<PathBuf>) -> Result<PathBuf, Failure> {
    const DEMO_MODEL: &str = "cocoon/models/SmolLM2-135M-Instruct.Q4_1.gguf";
    let (path, remedy) = match named {
        Some(path) => (path, "check the name"),
        None => {
            let cache = std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()).map(PathBuf::from);
            let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
            let cache = cache.or_else(home).unwrap_or_else(|| PathBuf::from("."));
            (
                cache.join(DEMO_MODEL),
                "fetch the demo model by running ./scripts/demo once, or name a GGUF or a Hugging Face folder with --model",
            )
        }
    };
    if path.is_file() || path.is_dir() {
        return path.canonicalize().explain(|| format!("cannot use {}", path.display()), remedy);
    }
    Err(Failure::usage(format!("there is no model file or folder {}", path.display()), remedy))
}

/// The name that a model is served under: its file's, without the ending.
pub(crate) fn model_name(path: &Path) -> String {
    path.file_stem().map_or_else(|| "model".to_owned(), |stem| stem.to_string_lossy().into_owned())
}
