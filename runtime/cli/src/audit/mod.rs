//! `cocoon audit`: what anybody can check of a gateway's money, from the chain; and of an answer, by running it again.

mod judge;
mod read;
mod replay;

use std::path::PathBuf;
use std::process::ExitCode;

use cocoon_contracts::{Address, parse_address};
use serde_json::json;

use self::judge::{Audit, Outcome};
use crate::error::Failure;
use crate::network::state_folder;
use crate::ui::{Screen, one_line, print, ton, wrap};
use crate::wiring::Joined;

/// Not solvent, as far as could be seen.
const EXIT_INSOLVENT: u8 = 3;
/// How old the newest epoch may be by default: twice a gateway's usual interval.
const MAX_AGE: u64 = 2 * 3600;

#[derive(clap::Subcommand)]
pub(crate) enum Commands {
    /// Compare what a gateway published that it owes with what is locked for that on the chain
    Solvency(Box<Solvency>),
    /// Run an answer again from its receipt and opening, and compare it token by token
    Replay(replay::Arguments),
}

#[derive(clap::Args)]
#[command(after_help = "\
Amounts come from the chain alone; a gateway is asked only where its bond and its channels are.
Exit codes: 0 solvent, 3 not (or not shown to be), 1 the chain or the gateway could not be asked, 2 usage.")]
#[command(group = clap::ArgGroup::new("whose").args(["gateway", "bond"]))]
pub(crate) struct Solvency {
    /// The gateway, which says where its bond and channels are [default: the first of the network file]
    #[arg(long, value_name = "URL")]
    gateway: Option<String>,
    /// Ask no gateway: this is its bond
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address, requires = "channels")]
    bond: Option<Address>,
    /// The channels that it pays hosts by: an address a line, # begins a comment
    #[arg(long, value_name = "FILE", requires = "bond")]
    channels: Option<PathBuf>,
    /// A proof of what you are owed, as a host keeps it: checked against the published root
    #[arg(long, value_name = "FILE")]
    proof: Option<PathBuf>,
    /// How old the newest epoch may be
    #[arg(long, value_name = "SECONDS", default_value_t = MAX_AGE)]
    max_age: u64,
    /// If the gateway shows you another root than the chain for one epoch: where both signed statements are kept
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Folder of the network file [default: cocoon/ in the user's state folder]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// One JSON object instead
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(command: Commands) -> Result<ExitCode, Failure> {
    match command {
        Commands::Solvency(arguments) => solvency(&arguments).await,
        Commands::Replay(arguments) => replay::run(&arguments),
    }
}

async fn solvency(arguments: &Solvency) -> Result<ExitCode, Failure> {
    let joined = Joined::load(&state_folder(arguments.state.clone())?).await?;
    let facts = read::facts(&joined, arguments).await?;
    let audit = judge::judge(&facts);
    if let (Some(folder), Some(shown)) = (&arguments.keep, &facts.shown) {
        read::keep(&joined, folder, &facts, shown).await?;
    }
    let name = facts.gateway.as_deref();
    if arguments.json {
        print(&as_json(&audit, name, &facts.bond_address).to_string())?;
    } else {
        show(&Screen::new(false), &audit, name, &facts.bond_address);
    }
    Ok(if audit.solvent() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_INSOLVENT) })
}

fn as_json(audit: &Audit, gateway: Option<&str>, bond: &Address) -> serde_json::Value {
    let totals = audit.totals.as_ref();
    json!({
        "gateway": gateway,
        "bond": bond.to_string(),
        "solvent": audit.solvent(),
        "epoch": totals.map(|totals| totals.epoch),
        "owed": totals.map(|totals| totals.owed),
        "locked": totals.map(|totals| totals.locked),
        "settled_since": totals.map(|totals| totals.settled),
        "own": audit.own,
        "checks": audit.checks,
    })
}

fn show(screen: &Screen, audit: &Audit, gateway: Option<&str>, bond: &Address) {
    screen.line(&format!("{} {}", screen.bold("solvency of"), one_line(gateway.unwrap_or("a gateway"))));
    screen.detail("bond", &bond.to_string());
    if let Some(totals) = &audit.totals {
        screen.detail("epoch", &format!("{}: {}", totals.epoch, cocoon_attestation::UnixTime(totals.epoch)));
        screen.detail("owed", &format!("{} TON to all hosts, as published", ton(totals.owed)));
        screen.detail("locked", &format!("{} TON in channels that pay hosts alone", ton(totals.locked)));
        if totals.settled > 0 {
            screen.detail("settled", &format!("{} TON since then, by hosts themselves", ton(totals.settled)));
        }
    }
    if let Some(own) = audit.own {
        screen.detail("yours", &format!("{} TON, by your proof", ton(own)));
    }
    screen.line("");
    let room = screen.columns().map_or(usize::MAX, |columns| columns.saturating_sub(8));
    for check in &audit.checks {
        let mark = match check.outcome {
            Outcome::Pass => screen.good("✓"),
            Outcome::Fail => screen.bad("✗"),
            Outcome::Note => screen.warn("–"),
        };
        for (number, row) in wrap(&one_line(&check.text), room).iter().enumerate() {
            screen.line(&if number == 0 { format!("   {mark} {row}") } else { format!("     {row}") });
        }
    }
    screen.line("");
    screen.line(&match audit.solvent() {
        true => screen.good("SOLVENT: what is published is covered by what is locked"),
        false => screen.bad("NOT SOLVENT, or not shown to be: see ✗"),
    });
    screen.line(&screen.dim(
        "Proven: deposits on the chain, which only hosts or time release, cover the published sum.\n\
         Not proven: that the sum names every host. Each host checks its own leaf (--proof); a leaf that nobody checks may be \
         missing.",
    ));
}
