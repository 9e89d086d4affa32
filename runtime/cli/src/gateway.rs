//! `cocoon gateway`.

mod status;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cocoon_accounts::Settlement;
use cocoon_contracts::Nanotons;
use cocoon_gateway::{Gateway, GatewayError, GatewayOptions, Money};

use crate::bond::GatewayBond;
use crate::error::{Explain, Failure, books_remedy, chain};
use crate::keys;
use crate::lifeline::Shutdown;
use crate::network::{NetworkFile, role_folder, state_folder};
use crate::part::Ready;
use crate::ui::{Screen, grouped, ton};
use crate::wiring::Joined;

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Command {
    #[command(subcommand)]
    other: Option<Other>,
    #[command(flatten)]
    serve: Arguments,
}

#[derive(clap::Subcommand)]
enum Other {
    /// Show what clients owe, what hosts are owed, and what is at risk; of a running gateway, or of one that ended
    Status(status::Arguments),
}

pub(crate) async fn run(command: Command) -> Result<ExitCode, Failure> {
    match command.other {
        Some(Other::Status(arguments)) => status::run(arguments).await,
        None => serve(command.serve).await,
    }
}

/// Several gateways of one wallet that serve the same clients are in docs/operating.md.
#[derive(clap::Args)]
#[command(after_help = "\
Environment: COCOON_ACCOUNTS holds what --accounts-file would: the words of a connection to a PostgreSQL database for what
clients owe, where several gateways of one wallet serve the same clients. Each of them needs a --state folder of its own.")]
pub(crate) struct Arguments {
    /// Address to serve on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8082")]
    listen: SocketAddr,
    /// Folder of the network file, wallets and books [default: cocoon/ in the user's state folder]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// What comes on top of a worker's price, in basis points
    #[arg(long, value_name = "BPS", default_value_t = Money::default().margin_bps)]
    margin_bps: u32,
    /// How much a client may owe without a voucher while an answer streams
    #[arg(long, value_name = "NANOTONS", default_value_t = Money::default().window)]
    window: Nanotons,
    /// What is put into the channel to each worker
    #[arg(long, value_name = "NANOTONS", default_value_t = Money::default().worker_deposit)]
    worker_deposit: Nanotons,
    /// Challenge period of the channels to workers
    #[arg(long, value_name = "SECONDS", default_value_t = Money::default().challenge_seconds)]
    challenge_seconds: u32,
    /// Shortest challenge period of clients' channels that is accepted
    #[arg(long, value_name = "SECONDS", default_value_t = Money::default().min_challenge_seconds)]
    min_challenge_seconds: u32,
    /// The wallet's key file, where it is not gateway/wallet.key of the state folder
    #[arg(long, value_name = "FILE")]
    wallet_key: Option<PathBuf>,
    /// A file, readable by its owner alone, with the words of a connection to the database that several gateways share:
    /// `host=/run/postgresql user=cocoon dbname=cocoon` [default: a file in the state folder keeps what clients owe]
    #[arg(long, value_name = "FILE")]
    accounts_file: Option<PathBuf>,
    #[command(flatten)]
    bond: GatewayBond,
    #[arg(long, hide = true)]
    lifeline: bool,
}

async fn serve(arguments: Arguments) -> Result<ExitCode, Failure> {
    let mut shutdown = Shutdown::listen(arguments.lifeline)?;
    let joined = Joined::load(&state_folder(arguments.state)?).await?;
    let folder = role_folder(&joined.state, "gateway")?;
    let key = arguments.wallet_key.unwrap_or_else(|| folder.join("wallet.key"));
    let wallet = joined.wallet_of(&key).await?;
    let wallet_address = wallet.address().to_string();
    let voucher_key = keys::load_or_create(&folder.join("session.key"))?;
    let mut options =
        GatewayOptions::new(arguments.listen, wallet, voucher_key, joined.registry_address.clone(), folder);
    options.shared_accounts = shared_accounts(arguments.accounts_file.as_deref())?;
    options.anchors = joined.anchors()?;
    options.money = Money {
        margin_bps: arguments.margin_bps,
        window: arguments.window,
        worker_deposit: arguments.worker_deposit,
        challenge_seconds: arguments.challenge_seconds,
        min_challenge_seconds: arguments.min_challenge_seconds,
        ..Money::default()
    };
    options.bond = arguments.bond.options(&joined).await?;
    let bond = options.bond.as_ref().map(|bond| (bond.address.to_string(), bond.every.as_secs()));
    let gateway = Gateway::start(options).await.map_err(|error| unstarted(&error))?;
    let url = gateway.url();
    remember(&joined, &url)?;
    let screen = Screen::new(arguments.lifeline);
    if arguments.lifeline {
        Ready { url: url.clone(), wallet: wallet_address.clone() }.announce();
    }
    screen.line(&format!("{} {url}", screen.bold("cocoon gateway")));
    screen.detail("wallet", &wallet_address);
    screen.detail("margin", &format!("{} basis points", arguments.margin_bps));
    if let Some((bond, every)) = bond {
        screen.detail("bond", &format!("{bond}: what it owes is published every {every} s"));
    }
    screen.detail("next", "cocoon host up --process   in another terminal");
    shutdown.wait().await;
    screen.line("ending: hosts get their last vouchers, clients' vouchers are settled");
    report_settlements(&screen, &gateway.shutdown().await)
}

fn unstarted(error: &GatewayError) -> Failure {
    let remedy = match error {
        GatewayError::Bind(_) => {
            "choose another address with --listen 127.0.0.1:PORT, or end what has this one"
        }
        GatewayError::Store(error) => {
            books_remedy(error, "end the process that has them open, or give this one another --state folder")
        }
        GatewayError::StateFolder { .. } => {
            "check the folder's owner and the disk, or name another with --state"
        }
        GatewayError::Chain(_) => "check that the chain runs, and what the network file says of it",
        GatewayError::Liabilities(_) | GatewayError::Client(_) => "mend what it names, and start again",
    };
    Failure::new(format!("the gateway did not start: {}", chain(error)), remedy)
}

/// The words of a connection; never from the command line, which every process of the machine sees.
fn shared_accounts(file: Option<&Path>) -> Result<Option<String>, Failure> {
    use std::os::unix::fs::MetadataExt;
    /// Far more than a connection needs.
    const MAX_BYTES: u64 = 4096;
    let Some(path) = file else {
        return Ok(std::env::var("COCOON_ACCOUNTS").ok().filter(|words| !words.trim().is_empty()));
    };
    let unreadable = || format!("cannot use the accounts file {}", path.display());
    let about = std::fs::metadata(path).explain(unreadable, "check the name")?;
    if about.mode() & 0o077 != 0 {
        let remedy = format!("it may hold a password: chmod 600 {}", path.display());
        return Err(Failure::new(format!("{}: others can read it", unreadable()), remedy));
    }
    if !about.is_file() || about.len() > MAX_BYTES {
        return Err(Failure::new(unreadable(), "it is one line: host=... user=... dbname=..."));
    }
    let words = std::fs::read_to_string(path).explain(unreadable, "write it as UTF-8 text")?;
    match words.trim() {
        "" => Err(Failure::new(
            format!("{}: it is empty", unreadable()),
            "write the connection's words into it",
        )),
        words => Ok(Some(words.to_owned())),
    }
}

/// Puts the gateway into the network file, so that hosts and clients of this machine find it.
fn remember(joined: &Joined, url: &str) -> Result<(), Failure> {
    let mut file = NetworkFile::load(&joined.state)?;
    // The newest first; addresses of this machine that were used before stay behind it.
    file.gateways.retain(|known| known != url);
    file.gateways.insert(0, url.to_owned());
    file.gateways.truncate(4);
    file.save(&joined.state)
}

/// What was settled at the end; a settlement that failed is a failure of the command, though nothing is lost.
pub(crate) fn report_settlements(screen: &Screen, settlements: &[Settlement]) -> Result<ExitCode, Failure> {
    for settlement in settlements {
        match &settlement.result {
            Ok(worth) => {
                let worth = format!("{} nanotons ({} TON)", grouped(*worth), ton(*worth));
                screen.detail("settled", &format!("{worth} of channel {}", settlement.channel));
            }
            Err(error) => {
                let what = format!("channel {} could not be settled: {error}", settlement.channel);
                return Err(Failure::new(
                    what,
                    "the voucher is kept: start again with the same state folder to settle it",
                ));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
