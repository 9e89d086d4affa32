//! `cocoon host`: what a node operator does on his machine.

mod doctor;
mod down;
mod gpus;
mod guests;
mod logs;
mod running;
mod status;
mod unit;
mod up;
pub(crate) mod vm_tools;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cocoon_launch::config::HostConfig;

use crate::error::Failure;
use crate::network::state_path;

#[derive(clap::Subcommand)]
pub(crate) enum Commands {
    /// Launch a guest, register it with the gateways, relay and earn
    Up(up::Arguments),
    /// Look at this machine: what is missing for confidential guests, why, and how to mend it
    Doctor(doctor::Arguments),
    /// End the running host in order, and wait until it has gone
    Down(down::Arguments),
    /// Show the running host: its guests, how they are, and what they have earned
    Status(status::Arguments),
    /// Show what the host and its guests have logged; there is no content in it
    Logs(logs::Arguments),
    /// Print the systemd service of this host, or install it
    Unit(unit::Arguments),
}

pub(crate) async fn run(command: Commands) -> Result<ExitCode, Failure> {
    match command {
        Commands::Up(arguments) => up::run(arguments).await,
        Commands::Doctor(arguments) => doctor::run(arguments).await,
        Commands::Down(arguments) => down::run(arguments).await,
        Commands::Status(arguments) => status::run(&arguments).await,
        Commands::Logs(arguments) => logs::run(&arguments).await,
        Commands::Unit(arguments) => unit::run(&arguments),
    }
}

/// Which host of this machine is meant.
#[derive(clap::Args)]
pub(crate) struct Which {
    /// Folder of the network file, wallets and books [default: cocoon/ in the user's state folder]
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    state: Option<PathBuf>,
    /// The host's configuration, which names its state folder
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Which {
    /// The host's own folder: its books, its control socket, its log. It need not be there.
    fn folder(&self) -> Result<PathBuf, Failure> {
        let state = match &self.config {
            Some(path) => load(path)?.state,
            None => state_path(self.state.clone())?,
        };
        Ok(host_folder(&state))
    }
}

/// The host's own folder in a state folder.
fn host_folder(state: &Path) -> PathBuf {
    state.join("operator")
}

fn load(path: &Path) -> Result<HostConfig, Failure> {
    HostConfig::load(path).map_err(|error| {
        Failure::usage(error.to_string(), "mend what it names; every word is explained in docs/operating.md")
    })
}
