//! `cocoon host`: what a node operator does on his machine.

mod doctor;
mod up;

use std::process::ExitCode;

use crate::error::Failure;

#[derive(clap::Subcommand)]
pub(crate) enum Commands {
    /// Launch a guest, register it with the gateways, relay and earn
    Up(up::Arguments),
    /// Look at this machine: what is missing for confidential guests, why, and how to mend it
    Doctor(doctor::Arguments),
}

pub(crate) async fn run(command: Commands) -> Result<ExitCode, Failure> {
    match command {
        Commands::Up(arguments) => up::run(arguments).await,
        Commands::Doctor(arguments) => doctor::run(arguments).await,
    }
}
