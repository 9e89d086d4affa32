//! What `cocoon host up` launches: from its arguments, or from a configuration file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cocoon_accounts::prices;
use cocoon_chain::Wallet;
use cocoon_fetch::{Cache, Fetcher, Limits, Services};
use cocoon_host::{Expected, Files, HostOptions, Image, Launch, VmOptions, VmTee};
use cocoon_image::profile::{PlatformName, Profile, built_in};
use cocoon_image_build::Store;
use cocoon_launch::config::{GuestConfig, HostConfig, Size, TeeKind};
use cocoon_launch::control::Claim;
use cocoon_launch::plan::{GuestName, Memory, Vcpus};
use cocoon_launch::root::Root;
use cocoon_protocol::{Coefficient, Price};

use super::up::Arguments;
use super::vm_tools::{self, VmTools};
use crate::chain::SIMULATED_FOLDER;
use crate::error::{Explain, Failure};
use crate::model::one_file;
use crate::network::{role_folder, state_folder};
use crate::ui::Screen;
use crate::wiring::{Joined, guest_binary, model_file, model_name};

/// How long a guest may take to serve whose engine is another server: these load for minutes, and have limits of their own.
const ENGINE_STARTS: Duration = Duration::from_secs(2 * 3600);
/// The name of the only guest where none is given.
const ONLY: &str = "guest-1";

/// One guest to be launched.
pub(super) struct Job {
    pub(super) name: String,
    /// `process`, `emulation`, `tdx`, `snp`.
    pub(super) kind: &'static str,
    pub(super) options: HostOptions,
}

impl Job {
    /// Whether it boots, which takes a while.
    pub(super) fn boots(&self) -> bool {
        matches!(self.options.launch, Launch::Vm(_))
    }
}

/// All guests of one host.
pub(super) struct Jobs {
    pub(super) list: Vec<Job>,
    gpus: super::gpus::Wanted,
}

/// What the guests of one host share.
struct Shared {
    joined: Joined,
    wallet: Arc<Wallet>,
    folder: PathBuf,
    model: PathBuf,
    model_name: String,
    price: Price,
    gateways: Vec<String>,
    min_challenge_seconds: u32,
}

impl Jobs {
    /// A claim of the host's folder lets it put right what a killed host left; without one nothing of the machine is touched.
    ///
    /// # Errors
    /// If the network, the model, the image or a tool cannot be had, or the configuration is wrong.
    pub(super) async fn of(
        arguments: &Arguments,
        config: Option<&HostConfig>,
        claim: Option<&Claim>,
        screen: &Screen,
    ) -> Result<Self, Failure> {
        match config {
            Some(config) => Self::configured(config, arguments, claim, screen).await,
            None => Self::single(arguments, screen).await,
        }
    }

    /// One guest of a development network: a process, or the development image.
    async fn single(arguments: &Arguments, screen: &Screen) -> Result<Self, Failure> {
        let state = state_folder(arguments.state.clone())?;
        let joined = Joined::load(&state).await?;
        let model = one_file(model_file(arguments.model.clone())?, &state)?;
        let name = model_name(&model);
        let gateways = arguments.gateway.clone();
        let shared = Shared::new(
            joined,
            model,
            name,
            arguments.coefficient,
            gateways,
            arguments.min_challenge_seconds,
        )
        .await?;
        let (kind, launch) = if arguments.vm {
            let tools = VmTools::pinned(screen).await?;
            let image = vm_tools::development_image(arguments.image.clone())?;
            let image = open_image(&image, arguments.profile.as_deref(), &tools.store)?;
            let vm = emulated(&shared.folder, ONLY.parse().expect("a plain name"), image, &tools, 0)?;
            ("emulation", Launch::Vm(Arc::new(vm)))
        } else {
            ("process", Launch::Process { guest_binary: guest_binary()? })
        };
        let mut options = shared.options(arguments.listen, launch, shared.folder.clone());
        options.guest.engine = arguments.engine.as_deref().map(crate::engine::read).transpose()?;
        if options.guest.engine.is_some() {
            options.timing.start_limit = ENGINE_STARTS;
        }
        let list = vec![Job { name: ONLY.to_owned(), kind, options }];
        Ok(Self { list, gpus: super::gpus::Wanted::none() })
    }

    /// What a configuration file says.
    async fn configured(
        config: &HostConfig,
        arguments: &Arguments,
        claim: Option<&Claim>,
        screen: &Screen,
    ) -> Result<Self, Failure> {
        let tee = config.tee(&Root::machine()).map_err(|error| {
            Failure::usage(error.to_string(), "`cocoon host doctor` says what this machine can")
        })?;
        let joined = Joined::load(&config.state).await?;
        let written = config.coefficient.as_ref().map(|text| text.parse()).transpose();
        let written = written.explain(|| "`price.coefficient` of the configuration".to_owned(), "mend it")?;
        let shared = Shared::new(
            joined,
            one_file(model_file(Some(config.model_file.clone()))?, &config.state)?,
            config.model_name.clone(),
            arguments.coefficient.or(written),
            config.gateways.clone(),
            arguments.min_challenge_seconds,
        )
        .await?;
        let tools = VmTools::configured(&config.tools, screen).await?;
        let profiles = config.guests.iter().map(|guest| Ok((guest, machine(guest, tee)?)));
        let guests = profiles.collect::<Result<Vec<_>, Failure>>()?;
        let gpus = super::gpus::Wanted::of(config, &guests, claim)?;
        let mut list = Vec::new();
        for (guest, profile) in &guests {
            let folder = shared.folder.join(guest.name.as_str());
            let (kind, vm) = vm(config, guest, profile, &folder, &tools, &gpus)?;
            let mut options = shared.options(guest.listen, Launch::Vm(Arc::new(vm)), folder);
            options.advertise = config.advertise.clone();
            if profile.platform != PlatformName::Emulation {
                options.endorser = Some(endorser(&config.state)?);
            }
            list.push(Job { name: guest.name.to_string(), kind, options });
        }
        Ok(Self { list, gpus })
    }

    /// What would be done and started, step by step.
    pub(super) async fn describe(&self) -> Result<String, Failure> {
        let mut out = self.gpus.describe();
        for job in &self.list {
            let Launch::Vm(vm) = &job.options.launch else { continue };
            let (options, network) = (&job.options, job.options.wallet.chain().network());
            let expected = Expected::of_image(
                &vm.image,
                &options.model,
                &options.model_name,
                network,
                options.guest.clone(),
            );
            let expected =
                expected.await.explain(|| format!("the guest {}", job.name), "mend what it names")?;
            out += &vm
                .describe(&expected)
                .explain(|| format!("the guest {}", job.name), "mend what it names")?;
        }
        Ok(out)
    }

    /// Takes the guests' GPUs from the host, if they have any.
    pub(super) fn take_gpus(&mut self) -> Result<super::gpus::Taken, Failure> {
        std::mem::replace(&mut self.gpus, super::gpus::Wanted::none()).take()
    }
}

impl Shared {
    async fn new(
        joined: Joined,
        model: PathBuf,
        model_name: String,
        coefficient: Option<Coefficient>,
        gateways: Vec<String>,
        min_challenge_seconds: u32,
    ) -> Result<Self, Failure> {
        let folder = role_folder(&joined.state, "operator")?;
        let listed = joined.registry.models().find(|entry| entry.name == model_name);
        let listed = listed.ok_or_else(|| {
            Failure::new(
                format!("the registry has no price for the model {model_name:?}"),
                "serve a model that the registry lists, under its name there",
            )
        })?;
        let price = prices::list(listed).at(coefficient.unwrap_or(Coefficient::ONE));
        let gateways = match gateways.is_empty() {
            false => gateways,
            // The network file's first is the newest; older ones of this machine may be gone.
            true => joined.file.gateways.iter().take(1).cloned().collect(),
        };
        if gateways.is_empty() {
            return Err(Failure::new(
                "no gateway is known on this network",
                "start one with `cocoon gateway`, or name one with --gateway URL",
            ));
        }
        let wallet = joined.wallet("operator").await?;
        Ok(Self { joined, wallet, folder, model, model_name, price, gateways, min_challenge_seconds })
    }

    fn options(&self, listen: SocketAddr, launch: Launch, folder: PathBuf) -> HostOptions {
        let files = Files {
            run_dir: folder.join("run"),
            state_dir: folder,
            launch,
            model: self.model.clone(),
            simulated_root: self.joined.state.join(SIMULATED_FOLDER),
        };
        let registry = self.joined.registry_address.clone();
        let (wallet, name) = (Arc::clone(&self.wallet), self.model_name.clone());
        let mut options = HostOptions::new(listen, wallet, registry, files, name, self.price);
        options.gateways = self.gateways.clone();
        options.money.min_challenge_seconds = self.min_challenge_seconds;
        options
    }
}

fn open_image(folder: &Path, profile: Option<&str>, store: &Store) -> Result<Image, Failure> {
    Image::open(folder, profile, store.clone())
        .map_err(|error| Failure::new(error.to_string(), "cocoon image build"))
}

fn emulated(
    folder: &Path,
    name: GuestName,
    image: Image,
    tools: &VmTools,
    forward: u16,
) -> Result<VmOptions, Failure> {
    if !image.is_development() {
        return Err(Failure::usage(
            format!("{} is a production image: it has no simulated TEE", image.folder().display()),
            "build the development image: cocoon image build --variant development",
        ));
    }
    let (vcpus, memory) = size(&named(&image.measurement().profile)?)?;
    let swtpm = tools.swtpm.clone();
    Ok(VmOptions {
        name,
        image,
        vcpus,
        memory,
        tee: VmTee::Emulation { swtpm, forward, console: true },
        qemu: tools.qemu.clone(),
        run_dir: folder.join("run"),
    })
}

fn vm(
    config: &HostConfig,
    guest: &GuestConfig,
    profile: &Profile,
    folder: &Path,
    tools: &VmTools,
    gpus: &super::gpus::Wanted,
) -> Result<(&'static str, VmOptions), Failure> {
    let image = open_image(&config.image, Some(&profile.name), &tools.store)?;
    if profile.platform == PlatformName::Emulation {
        return Ok(("emulation", emulated(folder, guest.name.clone(), image, tools, guest.forward)?));
    }
    let (vcpus, memory) = size(profile)?;
    let (cid, gpus) = (guest.cid, gpus.of_guest(guest));
    let (kind, tee) = match profile.snp {
        Some(snp) => ("snp", VmTee::Snp { cpu: snp.vcpu_type.into(), cid, gpus }),
        None => ("tdx", VmTee::Tdx { quote_service: config.quote_service.clone(), cid, gpus }),
    };
    let (name, qemu) = (guest.name.clone(), tools.qemu.clone());
    Ok((kind, VmOptions { name, image, vcpus, memory, tee, qemu, run_dir: folder.join("run") }))
}

/// Gets from Intel or AMD what verifiers of this machine's evidence need, and keeps it in the state folder.
fn endorser(state: &Path) -> Result<Arc<Fetcher>, Failure> {
    let cache = Cache::at(state.join("endorsements"));
    let fetcher = Fetcher::new(Services::default(), cache, Limits::default());
    fetcher.map(Arc::new).explain(|| "no HTTP client".into(), "check the system's certificates")
}

/// The machine that a guest is to have: measurements hold for it alone.
fn machine(guest: &GuestConfig, tee: TeeKind) -> Result<Profile, Failure> {
    let platform = match tee {
        TeeKind::Snp => PlatformName::Snp,
        TeeKind::Emulation => PlatformName::Emulation,
        TeeKind::Tdx => PlatformName::Tdx,
    };
    let profile = match &guest.size {
        Size::Profile(name) => named(name)?,
        Size::Own { vcpus, memory } => fitting(*vcpus, *memory, platform)?,
    };
    if profile.platform == platform {
        return Ok(profile);
    }
    Err(Failure::usage(
        format!("guest {}: the profile {} is of another platform than `tee` says", guest.name, profile.name),
        "name a profile of this platform, or another `tee`",
    ))
}

fn named(name: &str) -> Result<Profile, Failure> {
    let known = built_in().into_iter().map(|(profile, _)| profile).find(|profile| profile.name == name);
    known.ok_or_else(|| {
        let known: Vec<String> = built_in().into_iter().map(|(profile, _)| profile.name).collect();
        Failure::usage(
            format!("the profile {name:?} is not known to this program"),
            format!("it knows {}", known.join(", ")),
        )
    })
}

fn size(profile: &Profile) -> Result<(Vcpus, Memory), Failure> {
    let refused = |_| Failure::new(format!("the profile {} is of no machine", profile.name), "report this");
    let vcpus = u16::try_from(profile.vcpus).map_err(|_| ()).and_then(|n| Vcpus::try_from(n).map_err(|_| ()));
    let memory = Memory::mib(profile.memory_mib.into()).map_err(|_| ());
    Ok((vcpus.map_err(refused)?, memory.map_err(refused)?))
}

/// The profile of a machine of this size.
fn fitting(vcpus: Vcpus, memory: Memory, platform: PlatformName) -> Result<Profile, Failure> {
    let profiles = || built_in().into_iter().map(|(p, _)| p).filter(move |p| p.platform == platform);
    let wanted = (u32::from(u16::from(vcpus)), memory.as_mib());
    let fits = |p: &Profile| (p.vcpus, u64::from(p.memory_mib)) == wanted;
    profiles().find(fits).ok_or_else(|| {
        let known: Vec<String> =
            profiles().map(|p| format!("{} ({} vCPUs, {} MiB)", p.name, p.vcpus, p.memory_mib)).collect();
        Failure::usage(
            format!(
                "no profile has {vcpus} vCPUs and {memory}: what such a machine measures is not predicted"
            ),
            format!("use one of these: {}", known.join(", ")),
        )
    })
}
