//! `cocoon host up`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use cocoon_contracts::Nanotons;
use cocoon_host::{Files, Host, HostOptions, Money};
use cocoon_protocol::Price;

use crate::chain::SIMULATED_FOLDER;
use crate::error::{Explain, Failure};
use crate::gateway::report_settlements;
use crate::lifeline::Shutdown;
use crate::network::{role_folder, state_folder};
use crate::part::Ready;
use crate::ui::{Screen, shorten, ton};
use crate::wiring::{Joined, guest_binary, model_file, model_name};

/// How long gateways may take to accept the worker before that is said; the host tries on.
const REGISTRATION: Duration = Duration::from_secs(45);

#[derive(clap::Args)]
#[command(after_help = "\
Process mode runs the guest as a child process under a simulated TEE that really signs. It protects nothing from this
machine's owner, and every verdict says SIMULATED. Launching the guest as a confidential VM is not built yet.")]
pub(crate) struct Arguments {
    /// Run the guest as a process with a simulated TEE (the only way so far)
    #[arg(long, required = true)]
    process: bool,
    /// Address to serve gateways on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8083")]
    listen: SocketAddr,
    /// Folder of the network file, wallets and books [default: cocoon/ in the user's state folder]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The model: a GGUF that the registry allows [default: the demo model, if ./scripts/demo fetched it]
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// A gateway to register with; may be repeated [default: those of the network file]
    #[arg(long, value_name = "URL")]
    gateway: Vec<String>,
    /// Nanotons per million prompt tokens [default: the registry's price]
    #[arg(long, value_name = "NANOTONS")]
    prompt_price: Option<Nanotons>,
    /// Nanotons per million completion tokens [default: the registry's price]
    #[arg(long, value_name = "NANOTONS")]
    completion_price: Option<Nanotons>,
    /// Shortest challenge period of gateways' channels that is accepted
    #[arg(long, value_name = "SECONDS", default_value_t = Money::default().min_challenge_seconds)]
    min_challenge_seconds: u32,
    #[arg(long, hide = true)]
    lifeline: bool,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    debug_assert!(arguments.process, "clap requires it");
    let lifeline = arguments.lifeline;
    let mut shutdown = Shutdown::listen(lifeline)?;
    let joined = Joined::load(&state_folder(arguments.state.clone())?).await?;
    let options = options(&joined, arguments).await?;
    let (wallet, gateways, price) =
        (options.wallet.address().to_string(), options.gateways.clone(), options.price);
    let started = tokio::select! {
        started = Host::start(options) => started,
        () = shutdown.wait() => return Ok(ExitCode::SUCCESS),
    };
    let host =
        started.explain(|| "the host did not start".into(), "mend what it names, then start it again")?;
    let screen = Screen::new(lifeline);
    screen.line(&format!("{} {}", screen.bold("cocoon host"), host.url()));
    screen.detail("worker", host.worker_id());
    screen.detail(
        "model",
        &format!("{} {}", host.expected().model_name, shorten(&hex::encode(host.expected().weights))),
    );
    screen.detail("TEE", &screen.warn("SIMULATED: it signs under this development network's own root"));
    screen.detail("wallet", &wallet);
    screen.detail(
        "price",
        &format!(
            "{} / {} TON per million prompt / completion tokens",
            ton(price.prompt),
            ton(price.completion)
        ),
    );
    let registered = tokio::select! {
        registered = host.wait_registered(REGISTRATION) => registered,
        () = shutdown.wait() => return report_settlements(&screen, &host.shutdown().await),
    };
    match registered {
        Ok(()) => screen.detail("gateways", &format!("registered with {}", gateways.join(", "))),
        Err(error) if lifeline => {
            host.shutdown().await;
            return Err(Failure::new(error.to_string(), "look at the gateway's log"));
        }
        Err(error) => eprintln!("warning: {error}; trying on"),
    }
    if lifeline {
        Ready { url: host.url(), wallet }.announce();
    }
    screen.detail("next", "cocoon chat   in another terminal");
    shutdown.wait().await;
    screen.line("ending: the guest ends, gateways' vouchers are settled");
    report_settlements(&screen, &host.shutdown().await)
}

async fn options(joined: &Joined, arguments: Arguments) -> Result<HostOptions, Failure> {
    let folder = role_folder(&joined.state, "operator")?;
    let model = model_file(arguments.model)?;
    let name = model_name(&model);
    let listed = joined.registry.models().find(|entry| entry.name == name);
    let price = Price {
        prompt: choose(arguments.prompt_price, listed.map(|m| m.prompt_price), &name)?,
        completion: choose(arguments.completion_price, listed.map(|m| m.completion_price), &name)?,
    };
    let files = Files {
        state_dir: folder.clone(),
        run_dir: folder.join("run"),
        guest_binary: guest_binary()?,
        model,
        simulated_root: joined.state.join(SIMULATED_FOLDER),
    };
    let wallet = joined.wallet("operator").await?;
    let mut options =
        HostOptions::new(arguments.listen, wallet, joined.registry_address.clone(), files, name, price);
    options.gateways = match arguments.gateway.is_empty() {
        false => arguments.gateway,
        // The network file's first is the newest; older ones of this machine may be gone.
        true => joined.file.gateways.iter().take(1).cloned().collect(),
    };
    if options.gateways.is_empty() {
        return Err(Failure::new(
            "no gateway is known on this network",
            "start one with `cocoon gateway`, or name one with --gateway URL",
        ));
    }
    options.money.min_challenge_seconds = arguments.min_challenge_seconds;
    Ok(options)
}

fn choose(named: Option<Nanotons>, listed: Option<Nanotons>, model: &str) -> Result<Nanotons, Failure> {
    named.or(listed).ok_or_else(|| {
        Failure::new(
            format!("the registry has no price for the model {model:?}"),
            "start `cocoon chain` with this model, or name prices with --prompt-price and --completion-price",
        )
    })
}
