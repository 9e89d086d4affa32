//! `cocoon bond`: the stake of a gateway or an operator.

mod amount;
mod own;
mod proof;

use std::path::PathBuf;
use std::process::ExitCode;

use cocoon_chain::ChainError;
use cocoon_contracts::bond::State;
use cocoon_contracts::registry::PlatformId;
use cocoon_contracts::{Address, Nanotons, parse_address};
use serde_json::json;

pub(crate) use amount::parse_stake;
pub(crate) use own::{GatewayBond, OwnBond};
pub(crate) use proof::published;

use crate::error::{Explain, Failure};
use crate::network::state_folder;
use crate::ui::{Screen, print, ton};
use crate::wiring::Joined;

/// How long a stake stays after its operator asked for it, by default: a week.
const DELAY: u32 = 7 * 24 * 3600;

#[derive(clap::Subcommand)]
pub(crate) enum Commands {
    /// Back a bond with a stake, from the wallet of a part in the state folder
    Open(Open),
    /// Show a bond: stake, machines, newest root of liabilities
    Show(Show),
    /// Start the release of the stake: its delay runs
    Unbond(Own),
    /// After the delay: take the stake home
    Withdraw(Own),
    /// Write the signed statement of an epoch that was published, from the chain's transactions
    Statement(proof::Statement),
    /// Prove that an operator's key said two things: the stake goes to the treasury
    Forfeit(proof::Forfeit),
}

#[derive(clap::Args)]
pub(crate) struct Open {
    /// What is at stake, in TON; at least 1
    #[arg(long, value_name = "TON", value_parser = parse_stake)]
    stake: Nanotons,
    /// A machine that the bond answers for, as ppid:HEX, chip:HEX or gpu:HEX; may be repeated. It cannot be changed later
    #[arg(long, value_name = "KIND:HEX")]
    platform: Vec<PlatformId>,
    /// From unbonding to withdrawal: so long a contradiction can still be shown
    #[arg(long, value_name = "SECONDS", default_value_t = DELAY)]
    delay: u32,
    #[command(flatten)]
    own: Own,
}

#[derive(clap::Args)]
pub(crate) struct Own {
    /// Whose wallet, key and note of the bond: a folder of the state folder, such as gateway or operator
    #[arg(long, value_name = "PART", default_value = "gateway", value_parser = part)]
    of: String,
    /// Folder of the network file and wallets [default: cocoon/ in the user's state folder]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(crate) struct Show {
    /// The bond [default: that of the part named by --of]
    #[arg(value_name = "ADDRESS", value_parser = parse_address)]
    bond: Option<Address>,
    #[command(flatten)]
    own: Own,
    /// One JSON object instead
    #[arg(long)]
    json: bool,
}

/// Parts that have wallets.
fn part(text: &str) -> Result<String, String> {
    match text {
        "gateway" | "operator" => Ok(text.to_owned()),
        _ => Err("gateway or operator".to_owned()),
    }
}

pub(crate) async fn run(command: Commands) -> Result<ExitCode, Failure> {
    match command {
        Commands::Open(arguments) => open(arguments).await,
        Commands::Show(arguments) => show(arguments).await,
        Commands::Unbond(arguments) => unbond(arguments).await,
        Commands::Withdraw(arguments) => withdraw(arguments).await,
        Commands::Statement(arguments) => proof::statement(arguments).await,
        Commands::Forfeit(arguments) => proof::forfeit(arguments).await,
    }
}

impl Own {
    async fn join(&self) -> Result<Joined, Failure> {
        Joined::load(&state_folder(self.state.clone())?).await
    }
}

async fn open(arguments: Open) -> Result<ExitCode, Failure> {
    let joined = arguments.own.join().await?;
    let own = OwnBond::of(&joined, &arguments.own.of)?;
    let bond = own.back(&joined, arguments.stake, arguments.delay, &arguments.platform).await?;
    let state = read(&joined, &bond).await?;
    report(&Screen::new(false), &bond, &state);
    Ok(ExitCode::SUCCESS)
}

async fn show(arguments: Show) -> Result<ExitCode, Failure> {
    let joined = arguments.own.join().await?;
    let bond = match arguments.bond {
        Some(bond) => bond,
        None => OwnBond::of(&joined, &arguments.own.of)?.address()?,
    };
    let state = read(&joined, &bond).await?;
    if arguments.json {
        print(&as_json(&bond, &state).to_string())?;
    } else {
        report(&Screen::new(false), &bond, &state);
    }
    Ok(ExitCode::SUCCESS)
}

async fn unbond(own: Own) -> Result<ExitCode, Failure> {
    let joined = own.join().await?;
    let bond = OwnBond::of(&joined, &own.of)?.address()?;
    let wallet = joined.wallet(&own.of).await?;
    let state = cocoon_chain::unbond(&wallet, &bond).await.explain(
        || format!("the release of {bond} was not started"),
        "cocoon bond show   says how it stands; only its operator's wallet may unbond",
    )?;
    let at = state.release_at.unwrap_or_default();
    let screen = Screen::new(false);
    screen.line(&format!("releasing: the stake may be taken home from {} on", unix(at)));
    screen.detail("until then", "a contradiction that is shown still forfeits it");
    Ok(ExitCode::SUCCESS)
}

async fn withdraw(own: Own) -> Result<ExitCode, Failure> {
    let joined = own.join().await?;
    let bond = OwnBond::of(&joined, &own.of)?;
    let (address, wallet) = (bond.address()?, joined.wallet(&own.of).await?);
    if let Err(ChainError::WrongAccount { .. }) =
        cocoon_chain::read_bond(joined.chain.as_ref(), &address).await
    {
        return Err(Failure::new(
            format!("no stake is at {address}: it was never backed, or its stake is gone already"),
            "look at the wallet with `cocoon wallet show`; `cocoon bond open` backs another",
        ));
    }
    cocoon_chain::withdraw(&wallet, &address).await.explain(
        || format!("the stake of {address} was not taken home"),
        "cocoon bond show   says from when on it may be; `cocoon bond unbond` starts the delay",
    )?;
    bond.forget()?;
    Screen::new(false).line(&format!("the stake of {address} is on its way to {}", wallet.address()));
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn read(joined: &Joined, bond: &Address) -> Result<State, Failure> {
    cocoon_chain::read_bond(joined.chain.as_ref(), bond).await.explain(
        || format!("the bond {bond} cannot be read"),
        "check the address; a bond whose stake was taken home or forfeited is gone",
    )
}

fn unix(seconds: u32) -> cocoon_attestation::UnixTime {
    cocoon_attestation::UnixTime(seconds.into())
}

fn report(screen: &Screen, bond: &Address, state: &State) {
    let terms = &state.terms;
    screen.line(&format!("{} {bond}", screen.bold("bond")));
    screen.detail("stake", &format!("{} TON", ton(state.balance)));
    screen.detail("operator", &terms.operator.to_string());
    screen.detail("key", &hex::encode(terms.operator_key));
    screen.detail("treasury", &terms.treasury.to_string());
    screen.detail("delay", &format!("{} s from unbonding to withdrawal", terms.delay_seconds));
    screen.detail("machines", &format!("{}, by the digests of their names", terms.platforms.len()));
    let status = match state.release_at {
        None => "bonded".to_owned(),
        Some(at) => screen.warn(&format!("releasing: withdrawal from {} on", unix(at))),
    };
    screen.detail("status", &status);
    match &state.published {
        None => screen.detail("published", "nothing yet"),
        Some(published) => {
            let said = &published.liabilities;
            let text =
                format!("epoch {}: {} TON owed in all, at {}", said.epoch, ton(said.sum), unix(published.at));
            screen.detail("published", &text);
            screen.detail("root", &hex::encode(said.root));
        }
    }
}

fn as_json(bond: &Address, state: &State) -> serde_json::Value {
    let terms = &state.terms;
    let published = state.published.map(|published| {
        let said = published.liabilities;
        json!({ "epoch": said.epoch, "root": hex::encode(said.root), "sum": said.sum, "at": published.at })
    });
    json!({
        "address": bond.to_string(),
        "stake": state.balance,
        "operator": terms.operator.to_string(),
        "key": hex::encode(terms.operator_key),
        "treasury": terms.treasury.to_string(),
        "delay_seconds": terms.delay_seconds,
        "platforms": terms.platforms.iter().map(hex::encode).collect::<Vec<_>>(),
        "release_at": state.release_at,
        "published": published,
    })
}
