//! `cocoon gateway status`: what clients owe, what hosts are owed, and what is at risk.

use std::path::PathBuf;
use std::process::ExitCode;

use cocoon_accounts::{OfChannel, PayeeSummary, PayerSummary, Status, StoreError};

use crate::error::{Failure, books_remedy};
use crate::network::state_path;
use crate::ui::{Screen, one_line, print, ton};

#[derive(clap::Args)]
#[command(after_help = "\
Asks the gateway that runs over the state folder; if none does, its books are read, and nothing is written. What clients owe
to gateways that share a database is in the database: a running gateway tells it.")]
pub(crate) struct Arguments {
    /// Folder of the network file, wallets and books [default: cocoon/ in the user's state folder]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// One JSON object, each channel in it; amounts in nanotons
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let folder = state_path(arguments.state)?.join("gateway");
    let status = Status::of(&folder).await.map_err(|error| {
        if !folder.join("accounts.redb").exists() {
            return Failure::new(
                format!("no gateway runs over {}, and none has kept books there", folder.display()),
                "name the folder that the gateway was started with: --state DIR",
            );
        }
        let books = error.get_ref().and_then(|cause| cause.downcast_ref::<StoreError>());
        let in_use = "the gateway that has them open does not answer: look at its log";
        Failure::new(
            format!("no gateway answers over {}, and its books cannot be read: {error}", folder.display()),
            books.map_or("look at the folder's permissions", |books| books_remedy(books, in_use)),
        )
    })?;
    if arguments.json {
        print(&serde_json::to_string_pretty(&status).expect("plain data encodes"))?;
    } else {
        show(&Screen::new(false), &status);
    }
    Ok(ExitCode::SUCCESS)
}

fn show(screen: &Screen, status: &Status) {
    let state = if status.running { "running" } else { "not running: this is from its books" };
    screen.line(&format!("{} {state}", screen.bold("cocoon gateway")));
    match &status.payee {
        Some(clients) => show_clients(screen, clients),
        None => screen.detail("clients", &screen.warn("the shared database does not answer")),
    }
    if let Some(hosts) = &status.payer {
        show_hosts(screen, hosts);
    }
}

fn show_clients(screen: &Screen, clients: &PayeeSummary) {
    let of = &clients.total;
    let channels = count(&clients.channels);
    screen.detail("clients", &format!("{} TON owed in all on {channels}", ton(of.owed)));
    screen.detail("", &format!("{} TON paid on chain, {} by voucher", ton(of.settled), ton(of.unsettled)));
    screen.detail("at risk", &at_risk(screen, of.at_risk));
    for of in clients.channels.iter().filter(|of| of.closing && of.figures.unsettled > 0) {
        let left = of.seconds_left.map_or_else(|| "soon".to_owned(), |left| format!("in {left} s"));
        let line = format!("{} closes {left}, {} TON to settle", of.channel, ton(of.figures.unsettled));
        screen.detail("closing", &screen.warn(&one_line(&line)));
    }
}

/// Nothing is at risk with hosts: they work before they are paid.
fn show_hosts(screen: &Screen, hosts: &PayerSummary) {
    let of = &hosts.total;
    let channels = count(&hosts.channels);
    screen.detail("hosts", &format!("{} TON owed to them in all on {channels}", ton(of.owed)));
    screen.detail("", &format!("{} TON signed away, {} left of deposits", ton(of.signed), ton(of.free)));
    if of.conceded > 0 {
        screen.detail("", &format!("{} TON conceded after broken answers", ton(of.conceded)));
    }
}

fn at_risk(screen: &Screen, amount: u64) -> String {
    match amount {
        0 => "nothing".to_owned(),
        amount => screen.warn(&format!("{} TON if clients leave now", ton(amount))),
    }
}

fn count<F>(channels: &[OfChannel<F>]) -> String {
    match channels.len() {
        1 => "1 channel".to_owned(),
        more => format!("{more} channels"),
    }
}
