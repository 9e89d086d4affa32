//! `cocoon registry`: what the network trusts, what would change, and the owners' part in it.

mod change;
mod diff;
mod file;
mod history;
#[cfg(test)]
mod samples;
mod show;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cocoon_contracts::registry::{Change, Registry};

use crate::error::{Explain, Failure};
use crate::network::state_folder;
use crate::wiring::Joined;

#[derive(clap::Subcommand)]
pub(crate) enum Commands {
    /// Show what is in force, and what is announced
    Show(show::Arguments),
    /// Announce a change: of the file's content, after the registry's delay
    Propose(change::Propose),
    /// Add an owner's signature to a proposal or cancellation, after it was looked at
    Sign(change::Sign),
    /// Send a proposal or cancellation that enough owners have signed
    Send(change::Send),
    /// Take the announced change back
    Cancel(change::Cancel),
    /// Make the announced change count, once its delay has passed
    Activate(change::Activate),
    /// Show who changed what and when, as the chain tells it
    History(history::Arguments),
}

pub(crate) async fn run(command: Commands) -> Result<ExitCode, Failure> {
    match command {
        Commands::Show(arguments) => show::run(arguments).await,
        Commands::Propose(arguments) => change::propose(arguments).await,
        Commands::Sign(arguments) => change::sign(arguments).await,
        Commands::Send(arguments) => change::send(arguments).await,
        Commands::Cancel(arguments) => change::cancel(arguments).await,
        Commands::Activate(arguments) => change::activate(arguments).await,
        Commands::History(arguments) => history::run(arguments).await,
    }
}

/// The network of the state folder. For those who own it, not for those who found it.
async fn join(state: Option<PathBuf>) -> Result<Joined, Failure> {
    Joined::load(&state_folder(state)?).await
}

/// What is in force, as a change from nothing.
fn in_force(registry: &Registry) -> Change {
    Change { owners: registry.owners.clone(), content: registry.content.clone() }
}

fn read(path: &Path, limit: usize) -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let file = std::fs::File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
    file.explain(|| format!("cannot read {}", path.display()), "check the name")?;
    if bytes.len() > limit {
        let what = format!("{} is longer than {limit} bytes", path.display());
        return Err(Failure::usage(what, "it is not what this command reads: check the name"));
    }
    Ok(bytes)
}

fn read_text(path: &Path) -> Result<String, Failure> {
    /// The largest content, spelt generously.
    const MAX_FILE: usize = 4 << 20;
    String::from_utf8(read(path, MAX_FILE)?)
        .explain(|| format!("{} is not text", path.display()), "check the name")
}

fn unix(seconds: u32) -> cocoon_attestation::UnixTime {
    cocoon_attestation::UnixTime(seconds.into())
}
