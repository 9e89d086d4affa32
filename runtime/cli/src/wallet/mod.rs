//! `cocoon wallet`: make one, look at it, pay from it.

mod amount;
mod journal;
mod new;
mod recipients;
mod send;
mod show;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use cocoon_chain::{Chain, Wallet};
use cocoon_keystore::KeyFile;

pub(crate) use amount::parse_ton;

use crate::access::connect;
use crate::error::Failure;
use crate::network::{NetworkFile, role_folder, state_folder};
use crate::wiring::CLIENT;
use crate::{keys, ui};

#[derive(clap::Subcommand)]
pub(crate) enum Commands {
    /// Make a wallet's key and keep it well: encrypted, in the system's keyring, or for development as it is
    New(new::Arguments),
    /// Show a wallet: address, version, network, balance; needs no passphrase
    Show(show::Arguments),
    /// Pay one account, or many from a list
    Send(send::Arguments),
}

pub(crate) async fn run(command: Commands) -> Result<ExitCode, Failure> {
    match command {
        Commands::New(arguments) => new::run(arguments).await,
        Commands::Show(arguments) => show::run(arguments).await,
        Commands::Send(arguments) => send::run(arguments).await,
    }
}

/// Which wallet is meant.
#[derive(clap::Args)]
pub(crate) struct Which {
    /// Folder of the network file, wallets and books [default: cocoon/ in the user's state folder]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Whose wallet: client (of `cocoon chat`), proxy, gateway, operator (of `cocoon host`), or a name of yours
    #[arg(long, value_name = "NAME", default_value = CLIENT, value_parser = parse_profile)]
    profile: String,
    /// A key file elsewhere, instead of the profile's wallet.key
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

/// The profiles of other commands are allowed here: their wallets are theirs to look at. The ledger's and the simulated
/// platform's folders hold no wallet.
fn parse_profile(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match (1..=32).contains(&text.len())
        && text.chars().all(fits)
        && !["ledger", crate::chain::SIMULATED_FOLDER].contains(&text)
    {
        true => Ok(text.to_owned()),
        false => {
            Err("1 to 32 letters, digits, - and _, and not the name of a part without a wallet".to_owned())
        }
    }
}

impl Which {
    pub(crate) fn state(&self) -> Result<PathBuf, Failure> {
        state_folder(self.state.clone())
    }

    pub(crate) fn profile(&self) -> &str {
        &self.profile
    }

    /// The profile's own folder: wallet, session key, books.
    pub(crate) fn folder(&self) -> Result<PathBuf, Failure> {
        role_folder(&self.state()?, &self.profile)
    }

    /// The key file, which need not be there.
    pub(crate) fn key_path(&self) -> Result<PathBuf, Failure> {
        match &self.key {
            Some(path) => Ok(path.clone()),
            None => Ok(self.folder()?.join("wallet.key")),
        }
    }

    /// The key file, without its secret.
    pub(crate) fn look(&self) -> Result<(PathBuf, KeyFile), Failure> {
        let path = self.key_path()?;
        let file = keys::look(&path)?.ok_or_else(|| {
            let remedy = match &self.key {
                Some(_) => "check the name, or make one: cocoon wallet new --file FILE",
                None => "make one: cocoon wallet new; or say whose wallet with --profile NAME",
            };
            Failure::new(format!("there is no wallet at {}", path.display()), remedy)
        })?;
        Ok((path, file))
    }

    /// The network and its chain, which must answer.
    pub(crate) async fn network(&self) -> Result<(NetworkFile, Arc<dyn Chain>), Failure> {
        let state = self.state()?;
        let file = NetworkFile::load(&state)?;
        let chain = connect(&state, &file).await?;
        Ok((file, chain))
    }
}

/// Opens a wallet's key for paying; asks for the passphrase if there is one.
pub(crate) fn open(file: &KeyFile, path: &Path, chain: &Arc<dyn Chain>) -> Result<Wallet, Failure> {
    Ok(Wallet::of_version(keys::open(file, path)?, file.wallet(), Arc::clone(chain)))
}

/// Asks before money moves. With `yes` it does not; without a terminal there is nobody to ask.
pub(crate) fn confirmed(question: &str, yes: bool) -> Result<bool, Failure> {
    use std::io::{BufRead, IsTerminal, Write};
    if yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            "nobody can be asked whether to go on: standard input is no terminal",
            "look at what would be done, then add --yes",
        ));
    }
    eprint!("{} [y/N] ", ui::printable(question));
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// A network's name for people.
pub(crate) fn network_name(network: i32) -> String {
    match network {
        cocoon_contracts::MAINNET => "mainnet (-239)".to_owned(),
        cocoon_contracts::TESTNET => "testnet (-3)".to_owned(),
        other => format!("{other}, a development network"),
    }
}

/// Networks whose coins are worth something, or whose rules are those of the real one.
pub(crate) fn is_public(network: i32) -> bool {
    matches!(network, cocoon_contracts::MAINNET | cocoon_contracts::TESTNET)
}
