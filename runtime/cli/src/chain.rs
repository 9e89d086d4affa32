//! `cocoon chain`: a development TON ledger, with a registry that allows this build's guest and the models that are named.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cocoon_attestation::UnixTime;
use cocoon_chain::{Chain, Toncenter, Wallet, activate, deploy_registry, propose, read_registry};
use cocoon_contracts::registry::{
    Approval, Change, Coefficients, Content, Deployment, Image, Measurements, Model, Owners, Prices, Status,
    TdxRegisters,
};
use cocoon_contracts::{Address, Nanotons, parse_address};
use cocoon_host::{Expected, GuestSettings, Reference};
use cocoon_ledger::{Genesis, Ledger, Schedule, Server};
use cocoon_simulated_tee::SimulatedRoot;

use crate::error::{Explain, Failure};
use crate::host::vm_tools;
use crate::keys;
use crate::lifeline::Shutdown;
use crate::model::one_file;
use crate::network::{NetworkFile, role_folder, state_folder};
use crate::part::Ready;
use crate::ui::{Screen, one_line, ton};
use crate::wiring::{fill, guest_binary, model_file, model_name};

/// The network's share of every payment.
const FEE_BPS: u16 = 500;
/// Nanotons per million tokens.
const PROMPT_PRICE: Nanotons = 20_000_000;
const COMPLETION_PRICE: Nanotons = 160_000_000;
/// From a tenth of these prices to ten times them.
const COEFFICIENTS: Coefficients = Coefficients { min_permille: 100, max_permille: 10_000 };
/// How long a change of the registry waits on a development network, in seconds.
const REGISTRY_DELAY: u32 = 1;
/// How long the owner's signature of a change counts, in seconds.
const APPROVAL_SECONDS: u64 = 600;
/// The folder of the simulated platform, and its root as the network file names it.
pub(crate) const SIMULATED_FOLDER: &str = "simulated-tee";
const SIMULATED_ROOT: &str = "simulated-root.der";

#[derive(clap::Args)]
#[command(after_help = "\
It makes, once, in the state folder: the ledger, a simulated platform with its own root certificate, and the network file
that the other commands read. Started again it goes on where it was; a changed guest or model is proposed to the registry
and activated after its delay. The faucet gives coins for the asking: never use these keys elsewhere.")]
pub(crate) struct Arguments {
    /// Address to serve the toncenter API and the chain's page on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// Folder of the network [default: cocoon/ in the user's state folder]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// A model that the registry allows, a GGUF or a Hugging Face folder; may be repeated [default: the demo model, if
    /// ./scripts/demo fetched it]
    #[arg(long, value_name = "PATH")]
    model: Vec<PathBuf>,
    /// Folder of a development image that the registry allows too [default: where `cocoon image build` puts it, if it is there]
    #[arg(long, value_name = "DIR")]
    image: Option<PathBuf>,
    /// Another engine that the registry allows guests in process mode to have: the file that `cocoon host up --engine` gets
    #[arg(long, value_name = "FILE")]
    engine: Option<PathBuf>,
    /// Let whoever reaches the address move the clock forward: POST /clock {"advance": SECONDS}
    #[arg(long)]
    adjustable_clock: bool,
    #[arg(long, hide = true)]
    lifeline: bool,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let mut shutdown = Shutdown::listen(arguments.lifeline)?;
    let state = state_folder(arguments.state)?;
    let named = match arguments.model.is_empty() {
        true => vec![None],
        false => arguments.model.into_iter().map(Some).collect(),
    };
    let models = named.into_iter().map(|named| one_file(model_file(named)?, &state));
    let models = models.collect::<Result<Vec<PathBuf>, Failure>>()?;
    let image = allowed_image(arguments.image)?;
    let engine = arguments.engine.as_deref().map(crate::engine::read).transpose()?;
    let known = NetworkFile::load(&state).ok();
    let ledger = open_ledger(&state, known.as_ref())?;
    let network = ledger.network();
    let listener = tokio::net::TcpListener::bind(arguments.listen).await.explain(
        || format!("cannot listen on {}", arguments.listen),
        "another program has this port: end it, or choose another with --listen 127.0.0.1:PORT",
    )?;
    let address = listener.local_addr().explain(|| "the socket has no address".into(), "try again")?;
    let url = format!("http://{address}");
    let server = Server::new(ledger);
    let server = if arguments.adjustable_clock { server.adjustable_clock() } else { server };
    let server = tokio::spawn(server.run(listener));

    let found = Founder { state: &state, url: &url, network, known: known.as_ref(), engine }
        .found(&models, image.as_deref())
        .await?;
    let screen = Screen::new(arguments.lifeline);
    if arguments.lifeline {
        Ready { url: url.clone(), wallet: found.treasury.to_string() }.announce();
    }
    screen.line(&format!("{} {url} (toncenter v2 and v3 API, and a page)", screen.bold("cocoon chain")));
    screen.detail("network", &format!("{network}, a development network: its coins are worth nothing"));
    screen.detail("registry", &format!("{} (version {})", found.registry, found.version));
    for model in &models {
        screen.detail("allows", &format!("{} with this build's guest", model.display()));
    }
    if let Some(image) = &image {
        screen.detail("", &format!("and with the development image in {}", image.display()));
    }
    screen.detail(
        "prices",
        &format!(
            "{} / {} TON per million prompt / completion tokens",
            ton(PROMPT_PRICE),
            ton(COMPLETION_PRICE)
        ),
    );
    screen.detail("state", &state.display().to_string());
    screen.detail("next", "cocoon gateway   in another terminal");
    tokio::select! {
        ended = server => {
            let why = match ended { Ok(Err(error)) => error.to_string(), _ => "its task ended".to_owned() };
            Err(Failure::new(format!("the ledger's server ended: {why}"), "start it again: every block is on the disk"))
        }
        () = shutdown.wait() => Ok(ExitCode::SUCCESS),
    }
}

fn open_ledger(state: &Path, known: Option<&NetworkFile>) -> Result<Ledger, Failure> {
    let path = role_folder(state, "ledger")?.join("ledger.redb");
    let refused = || format!("the ledger {} cannot be opened", path.display());
    if known.is_some() && !path.exists() {
        return Err(Failure::new(
            format!(
                "the network in {} has lost its ledger: {} is not there",
                state.display(),
                path.display()
            ),
            "restore the file, or begin another network in another folder with --state DIR",
        ));
    }
    // Before the network file there is the ledger: one that was begun and not finished is gone on with.
    let begun = Ledger::network_of(&path).explain(refused, "")?;
    let network = known.map(|file| file.network).or(begun).unwrap_or_else(new_network_id);
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let genesis = Genesis {
        network,
        schedule: Schedule::Mainnet2026,
        time: u32::try_from(time).unwrap_or(u32::MAX),
        accounts: Vec::new(),
    };
    Ledger::open(&path, &genesis).explain(refused, "")
}

/// A random id below those of real networks, so that vouchers of one development network mean nothing on another.
fn new_network_id() -> i32 {
    let key = cocoon_contracts::SigningKey::generate().map(|key| key.public()).unwrap_or([7; 32]);
    -1000 - i32::from(u16::from_be_bytes([key[0], key[1]]))
}

/// The registry's entry for a guest, on the machines of this profile.
fn allowed(name: String, profile: &str, expected: &Expected) -> Image {
    let measurements = match &expected.reference {
        Reference::Tdx(measured) => {
            Measurements::Tdx(Box::new(TdxRegisters { mrtd: measured.mrtd, rtmr: measured.rtmr }))
        }
        Reference::Snp { launch_digest } => Measurements::Snp { launch: *launch_digest },
    };
    Image {
        name,
        profile: profile.to_owned(),
        status: Status::Allowed,
        measurements,
        configuration: Some(expected.configuration_digest()),
    }
}

/// The image that is named; without a name the one that stands where `cocoon image build` puts it, if any.
fn allowed_image(named: Option<PathBuf>) -> Result<Option<PathBuf>, Failure> {
    if named.is_some() {
        return vm_tools::development_image(named).map(Some);
    }
    let Ok(folder) = vm_tools::development_image(None) else { return Ok(None) };
    // Nobody asked for it: an image of another build is no reason not to run a ledger.
    match vm_tools::open_development_image(Some(folder.clone()), None) {
        Ok(_) => Ok(Some(folder)),
        Err(failure) => {
            let why = one_line(&failure.what);
            eprintln!(
                "warning: the registry does not allow the development image: {why}: cocoon image build"
            );
            Ok(None)
        }
    }
}

/// Who sets up what a network needs besides its ledger.
struct Founder<'a> {
    state: &'a Path,
    url: &'a str,
    network: i32,
    known: Option<&'a NetworkFile>,
    /// Of the guests that the registry allows in process mode.
    engine: Option<Arc<str>>,
}

struct Found {
    registry: Address,
    version: u32,
    treasury: Address,
}

impl Founder<'_> {
    async fn found(&self, models: &[PathBuf], image: Option<&Path>) -> Result<Found, Failure> {
        let root = self.simulated_root()?;
        std::fs::write(self.state.join(SIMULATED_ROOT), root.root_der())
            .explain(|| "the simulated root cannot be written".into(), "check the disk")?;
        let chain: Arc<dyn Chain> = Arc::new(
            Toncenter::new(self.url, self.network)
                .explain(|| "our own ledger cannot be asked".into(), "report this")?,
        );
        let wallet = |role: &str| -> Result<Wallet, Failure> {
            let (key, version) =
                keys::load_or_create_wallet(&role_folder(self.state, role)?.join("wallet.key"))?;
            Ok(Wallet::of_version(key, version, Arc::clone(&chain)))
        };
        let (owner, treasury) = (wallet("owner")?, wallet("treasury")?);
        fill(&owner, self.url).await?;
        let content = self.content(models, image, treasury.address()).await?;
        let (registry, version) = self.registry(&owner, content).await?;
        self.save(&registry)?;
        Ok(Found { registry, version, treasury: treasury.address().clone() })
    }

    fn simulated_root(&self) -> Result<SimulatedRoot, Failure> {
        let folder = role_folder(self.state, SIMULATED_FOLDER)?;
        if let Ok(root) = SimulatedRoot::load(&folder) {
            return Ok(root);
        }
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let root = SimulatedRoot::create(UnixTime(now));
        root.save(&folder).explain(
            || format!("the simulated platform cannot be kept in {}", folder.display()),
            "check the disk",
        )?;
        Ok(root)
    }

    /// What the registry should say: this build's guest and the development image, predicted from their files with each of
    /// the models, and the models.
    async fn content(
        &self,
        files: &[PathBuf],
        image: Option<&Path>,
        treasury: &Address,
    ) -> Result<Content, Failure> {
        let (mut images, mut models) = (Vec::new(), Vec::new());
        for file in files {
            let name = model_name(file);
            let settings = GuestSettings { engine: self.engine.clone(), ..GuestSettings::default() };
            let expected = Expected::read(&guest_binary()?, file, &name, self.network, settings)
                .await
                .explain(|| "the guest's measurements cannot be predicted".into(), "")?;
            // What a guest is configured with is measured: each model makes images of its own, and those of the first have
            // no more than their names.
            let mark = match models.is_empty() {
                true => String::new(),
                false => format!(" {}", hex::encode(&expected.weights[..4])),
            };
            let process = format!("cocoon-guest {} process{mark}", env!("CARGO_PKG_VERSION"));
            images.push(allowed(process, "process", &expected));
            if let Some(folder) = image {
                images.extend(self.booted(folder, file, &name, &mark).await?);
            }
            models.push(Model {
                name,
                status: Status::Allowed,
                weights: expected.weights,
                // Sums that can be made in one's head: cached tokens cost as much here.
                prices: Prices { prompt: PROMPT_PRICE, cached: PROMPT_PRICE, completion: COMPLETION_PRICE },
            });
        }
        Ok(Content {
            coefficients: COEFFICIENTS,
            images,
            models,
            ..Content::empty(FEE_BPS, treasury.clone())
        })
    }

    /// The development image on every machine that its manifest predicts.
    async fn booted(
        &self,
        folder: &Path,
        model: &Path,
        name: &str,
        mark: &str,
    ) -> Result<Vec<Image>, Failure> {
        let refused = || format!("the image in {} cannot be allowed", folder.display());
        let first = vm_tools::open_development_image(Some(folder.to_owned()), None)?;
        let mut images = Vec::new();
        for measurement in &first.manifest().measurements {
            let profile = &measurement.profile;
            let image = vm_tools::open_development_image(Some(folder.to_owned()), Some(profile))?;
            let settings = GuestSettings::default();
            let expected = Expected::of_image(&image, model, name, self.network, settings).await;
            let expected = expected.explain(refused, "build it again: cocoon image build")?;
            let title = format!("{} {}{mark}", first.manifest().name, env!("CARGO_PKG_VERSION"));
            images.push(allowed(title, profile, &expected));
        }
        // Which firmware of AMD's is new enough, this ledger does not presume to know.
        let mut named = images.iter().filter(|image| matches!(image.measurements, Measurements::Snp { .. }));
        if let Some(image) = named.next() {
            let profile = one_line(&image.profile);
            eprintln!(
                "{profile}: AMD SEV-SNP is accepted once the registry has TCB floors: [snp.genoa] in `cocoon registry propose`"
            );
        }
        Ok(images)
    }

    /// The registry with this content: deployed, or changed as any network changes its registry.
    async fn registry(&self, owner: &Wallet, content: Content) -> Result<(Address, u32), Failure> {
        let refused = || "the registry could not be set up".to_owned();
        // One key owns a development network's registry: the one of the owner's wallet.
        let key = keys::load_or_create(&role_folder(self.state, "owner")?.join("wallet.key"))?;
        let owners = Owners::new(1, [key.public()]).explain(refused, "make another owner's key")?;
        let known = self.known.and_then(|file| parse_address(&file.registry).ok());
        let Some(address) = known else {
            let deployment = Deployment { owners, delay: REGISTRY_DELAY, salt: 0, content };
            let address = deploy_registry(owner, &deployment).await.explain(refused, "look at the log")?;
            return Ok((address, 1));
        };
        let registry = read_registry(&**owner.chain(), &address).await.explain(refused, "look at the log")?;
        let content = joined(&registry.content, content);
        if registry.content == content {
            return Ok((address, registry.version));
        }
        let now = owner.chain().head().await.explain(refused, "look at the log")?.time;
        let until = u32::try_from(now.saturating_add(APPROVAL_SECONDS)).unwrap_or(u32::MAX);
        let change = Change { owners: registry.owners.clone(), content };
        let mut approval = Approval::to_propose(self.network, &address, &registry, change, until)
            .explain(refused, "look at the model's name")?;
        approval.sign(&key).explain(refused, "begin anew in another folder with --state DIR")?;
        let proposed = propose(owner, &address, &approval).await.explain(refused, "look at the log")?;
        let ready_at = proposed.proposal.map_or(0, |proposal| u64::from(proposal.ready_at));
        while owner.chain().head().await.explain(refused, "look at the log")?.time < ready_at {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let changed = activate(owner, &address).await.explain(refused, "look at the log")?;
        Ok((address, changed.version))
    }

    fn save(&self, registry: &Address) -> Result<(), Failure> {
        let file = NetworkFile {
            network: self.network,
            chain: self.url.to_owned(),
            registry: registry.to_string(),
            gateways: self.known.map(|file| file.gateways.clone()).unwrap_or_default(),
            simulated_root: Some(SIMULATED_ROOT.into()),
            faucet: true,
            access: crate::access::Access::default(),
        };
        file.save(self.state)
    }
}

/// What is in force, and our own images and models in it. What its owner has changed stays: fee, prices, bars, and all else
/// that is not ours.
fn joined(present: &Content, own: Content) -> Content {
    let mut content = present.clone();
    for image in own.images {
        match content.images.iter_mut().find(|it| it.name == image.name && it.profile == image.profile) {
            Some(known)
                if known.measurements == image.measurements && known.configuration == image.configuration => {
            }
            Some(known) => *known = image,
            None => content.images.push(image),
        }
    }
    for model in own.models {
        match content.models.iter_mut().find(|it| it.name == model.name) {
            Some(known) if known.weights == model.weights => {}
            Some(known) => *known = model,
            None => content.models.push(model),
        }
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(byte: u8) -> Content {
        let registers = Measurements::Tdx(Box::new(TdxRegisters { mrtd: [byte; 48], rtmr: [[byte; 48]; 4] }));
        let image = Image {
            name: "guest".into(),
            profile: "process".into(),
            status: Status::Allowed,
            measurements: registers,
            configuration: None,
        };
        let prices = Prices { prompt: 1, cached: 1, completion: 1 };
        let model = Model { name: "m".into(), status: Status::Allowed, weights: [byte; 32], prices };
        Content { images: vec![image], models: vec![model], ..Content::empty(500, Address::default()) }
    }

    #[test]
    fn a_restart_changes_nothing_of_what_an_owner_has_decided() {
        let mut decided = own(1);
        decided.fee_bps = 100;
        decided.models[0].prices.prompt = 7;
        decided.images[0].status = Status::Barred;
        let other = Model { name: "other".into(), ..decided.models[0].clone() };
        decided.models.push(other);
        assert_eq!(joined(&decided, own(1)), decided);
    }

    #[test]
    fn another_build_and_another_model_take_the_place_of_those_of_their_names() {
        let mut decided = own(1);
        decided.fee_bps = 100;
        let now = joined(&decided, own(2));
        assert_eq!((now.images, now.models, now.fee_bps), (own(2).images, own(2).models, 100));
    }
}
