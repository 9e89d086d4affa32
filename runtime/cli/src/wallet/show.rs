//! `cocoon wallet show`.

use std::process::ExitCode;

use cocoon_chain::{AccountState, AccountStatus};
use cocoon_contracts::friendly_on;
use serde_json::json;

use super::{Which, network_name};
use crate::access::connect;
use crate::error::Failure;
use crate::network::NetworkFile;
use crate::ui::{Screen, one_line, print, ton};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// One JSON object; amounts in nanotons
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let (path, file) = arguments.which.look()?;
    let state_folder = arguments.which.state()?;
    let network = NetworkFile::load(&state_folder)?;
    let address = file.wallet().address(&file.public(), network.network);
    // A chain that is away is no reason to hide what the files say.
    let found = match connect(&state_folder, &network).await {
        Ok(chain) => chain.account(&address).await.map_err(|error| error.to_string()),
        Err(failure) => Err(failure.what),
    };
    let seqno = found.as_ref().ok().map(|account| seqno(&file, account));
    if arguments.json {
        let object = json!({
            "address": friendly_on(&address, false, network.network),
            "raw": address.to_string(),
            "version": file.wallet().name(),
            "network": network.network,
            "key": path,
            "balance": found.as_ref().ok().map(|account| account.balance),
            "seqno": seqno,
            "deployed": found.as_ref().ok().map(|account| account.status == AccountStatus::Active),
            "error": found.as_ref().err(),
        });
        return print(&object.to_string()).map(|()| ExitCode::SUCCESS);
    }
    let screen = Screen::new(false);
    screen.line(&format!("{} {}", screen.bold("wallet"), friendly_on(&address, false, network.network)));
    screen.detail("raw", &address.to_string());
    screen.detail("version", file.wallet().name());
    screen.detail("network", &network_name(network.network));
    screen.detail("key", &format!("{}: {}", path.display(), file.protection().words()));
    match &found {
        Ok(account) => {
            screen.detail("balance", &format!("{} TON", ton(account.balance)));
            screen.detail("messages", &state(account, seqno.unwrap_or_default()));
        }
        Err(why) => screen.detail("balance", &screen.warn(&format!("not known: {}", one_line(why)))),
    }
    Ok(ExitCode::SUCCESS)
}

/// How many messages it has sent; 0 before its first.
fn seqno(file: &cocoon_keystore::KeyFile, account: &AccountState) -> u32 {
    account.data.as_ref().and_then(|data| file.wallet().seqno(data).ok()).unwrap_or_default()
}

fn state(account: &AccountState, seqno: u32) -> String {
    match account.status {
        AccountStatus::Active => format!("{seqno} sent"),
        AccountStatus::Uninit => "none sent: its contract comes with the first one".to_owned(),
        AccountStatus::Frozen => "frozen for unpaid rent: send it coins and its contract again".to_owned(),
    }
}
