//! `cocoon host up`: guests are launched, registered with gateways, and earn until this ends.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cocoon_host::{Host, Money, RunningHost};
use cocoon_launch::control::{Claim, Control, ControlError};
use cocoon_launch::logbook::{HOST, LogBook};
use cocoon_protocol::Coefficient;

use super::guests::{Job, Jobs};
use super::running::Running;
use crate::error::{Explain, Failure};
use crate::gateway::report_settlements;
use crate::lifeline::Shutdown;
use crate::network::{NetworkFile, role_folder, state_folder};
use crate::part::Ready;
use crate::ui::{Screen, one_line, price_line, printable, shorten};

/// How long gateways may take to accept the worker before that is said; the host tries on.
const REGISTRATION: Duration = Duration::from_secs(45);

#[derive(clap::Args)]
#[command(after_help = "\
Process mode runs the guest as a child process under a simulated TEE that really signs; --vm boots the development image
under the same simulated TEE. Neither protects anything from this machine's owner, and every verdict says SIMULATED.
Confidential VMs (Intel TDX, AMD SEV-SNP) are launched from a configuration file: see docs/operating.md.")]
#[command(group = clap::ArgGroup::new("how").required(true).args(["process", "vm", "config"]))]
pub(crate) struct Arguments {
    /// Run the guest as a process with a simulated TEE
    #[arg(long)]
    process: bool,
    /// Boot the development image in an emulated VM with a simulated TEE
    #[arg(long)]
    pub(super) vm: bool,
    /// Launch what this file says
    #[arg(long, value_name = "FILE", conflicts_with_all = ["state", "model", "gateway", "listen", "image", "profile"])]
    pub(super) config: Option<PathBuf>,
    /// The image's folder, with --vm [default: where `cocoon image build` puts it]
    #[arg(long, value_name = "DIR", requires = "vm")]
    pub(super) image: Option<PathBuf>,
    /// The machine profile of the image's manifest, with --vm [default: its first]
    #[arg(long, value_name = "NAME", requires = "vm")]
    pub(super) profile: Option<String>,
    /// Print what would be started and done, and start nothing
    #[arg(long, conflicts_with = "process")]
    dry_run: bool,
    /// Address to serve gateways on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8083")]
    pub(super) listen: SocketAddr,
    /// Folder of the network file, wallets and books [default: cocoon/ in the user's state folder]
    #[arg(long, value_name = "DIR")]
    pub(super) state: Option<PathBuf>,
    /// The model: a GGUF or a Hugging Face folder that the registry allows; one for embeddings answers /v1/embeddings
    /// [default: the demo model, if ./scripts/demo fetched it]
    #[arg(long, value_name = "PATH")]
    pub(super) model: Option<PathBuf>,
    /// With --process: another server as the guest's engine, as this file's [engine] table says
    #[arg(long, value_name = "FILE", requires = "process", conflicts_with_all = ["vm", "config"])]
    pub(super) engine: Option<PathBuf>,
    /// A gateway to register with; may be repeated [default: those of the network file]
    #[arg(long, value_name = "URL")]
    pub(super) gateway: Vec<String>,
    /// What you ask of the registry's prices, such as 0.9 or 1.25 [default: 1]
    #[arg(long, value_name = "NUMBER")]
    pub(super) coefficient: Option<Coefficient>,
    /// Shortest challenge period of gateways' channels that is accepted
    #[arg(long, value_name = "SECONDS", default_value_t = Money::default().min_challenge_seconds)]
    pub(super) min_challenge_seconds: u32,
    #[arg(long, hide = true)]
    lifeline: bool,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let (lifeline, dry_run) = (arguments.lifeline, arguments.dry_run);
    let mut shutdown = Shutdown::listen(lifeline)?;
    let screen = Screen::new(lifeline);
    let config = arguments.config.as_deref().map(super::load).transpose()?;
    if dry_run {
        let jobs = Jobs::of(&arguments, config.as_ref(), None, &screen).await?;
        screen.raw(&jobs.describe().await?);
        return Ok(ExitCode::SUCCESS);
    }
    let state = match &config {
        Some(config) => config.state.clone(),
        None => state_folder(arguments.state.clone())?,
    };
    // Before a folder is made for nothing.
    NetworkFile::load(&state)?;
    let folder = role_folder(&state, "operator")?;
    // Before anything of the machine is touched: another host may run with it.
    let explained =
        |error: ControlError| Failure::new(error.to_string(), "cocoon host status   says which host that is");
    let claim = Claim::take(&folder).map_err(explained)?;
    let mut jobs = Jobs::of(&arguments, config.as_ref(), Some(&claim), &screen).await?;
    let log = LogBook::open(&folder)
        .explain(|| format!("the log in {} cannot be written", folder.display()), "check the disk")?;
    let running = Arc::new(Running::new(log));
    let control = Control::serve_claimed(claim, Arc::clone(&running)).map_err(explained)?;
    let taken = jobs.take_gpus()?;
    let ended = tokio::select! {
        ended = serve(&screen, jobs.list, &running, lifeline) => ended,
        () = shutdown.wait() => Ok(()),
        () = running.told_to_end() => Ok(()),
    };
    if running.has_guests() {
        screen.line("ending: guests end, gateways' vouchers are settled");
    }
    running.note(HOST, "ending");
    let settled = running.end().await;
    let restored = taken.give_back();
    drop(control); // no sooner: the next host must find the GPUs as they were
    ended?;
    restored?;
    report_settlements(&screen, &settled)
}

/// Starts all guests, then waits for ever.
async fn serve(screen: &Screen, jobs: Vec<Job>, running: &Running, lifeline: bool) -> Result<(), Failure> {
    for job in jobs {
        start(screen, job, running, lifeline).await?;
    }
    screen.detail("next", "cocoon chat   in another terminal; cocoon host status   shows how it goes");
    std::future::pending().await
}

async fn start(screen: &Screen, mut job: Job, running: &Running, lifeline: bool) -> Result<(), Failure> {
    job.options.log = running.sink(&job.name);
    let (wallet, gateways) = (job.options.wallet.address().to_string(), job.options.gateways.clone());
    if job.boots() {
        screen.progress(&format!("the guest {} boots", job.name));
    }
    running.note(HOST, &format!("starting {} ({})", job.name, job.kind));
    let (name, kind, price) = (job.name.clone(), job.kind, job.options.price);
    let host = Host::start(job.options).await.explain(
        || format!("the guest {name} did not start"),
        "mend what it names, then start it again; `cocoon host doctor` looks at the whole machine",
    )?;
    screen.line(&format!("{} {}", screen.bold("cocoon host"), host.url()));
    screen.detail("guest", &format!("{name} ({kind})"));
    show(screen, &host);
    screen.detail("wallet", &wallet);
    screen.detail("price", &price_line(&price));
    let url = host.url();
    let registered = host.wait_registered(REGISTRATION);
    // It serves already: whoever ends us now settles what it has earned.
    running.add(name, kind, host);
    match registered.await {
        Ok(()) => screen.detail("gateways", &format!("registered with {}", gateways.join(", "))),
        Err(error) if lifeline => {
            return Err(Failure::new(one_line(&error.to_string()), "look at the gateway's log"));
        }
        Err(error) => eprintln!("warning: {}; trying on", one_line(&error.to_string())),
    }
    if lifeline {
        Ready { url, wallet }.announce();
    }
    Ok(())
}

fn show(screen: &Screen, host: &RunningHost) {
    screen.detail("worker", host.worker_id());
    let expected = host.expected();
    let weights = shorten(&hex::encode(expected.weights));
    screen.detail("model", &format!("{} {weights}", printable(&expected.model_name)));
    if host.is_simulated() {
        screen.detail("TEE", &screen.warn("SIMULATED: it signs under this development network's own root"));
    }
    let phases = host.health().boot;
    if !phases.is_empty() {
        screen.detail("boot", &super::running::told(&phases));
    }
}
