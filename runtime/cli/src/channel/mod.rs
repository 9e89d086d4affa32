//! `cocoon channel`: payment channels by hand. Clients, gateways and hosts tend theirs by themselves; these commands are
//! for looking, for ending, and for keys that are kept elsewhere.

mod books;
mod close;
mod collect;
mod fund;
mod settle;
mod show;
mod watch;

use std::process::ExitCode;

use cocoon_chain::{Chain, read_channel};
use cocoon_contracts::channel::State;
use cocoon_contracts::{Address, Nanotons, parse_address};
use serde_json::{Value, json};

use crate::error::{Explain, Failure};
use crate::ui::{Screen, print, ton};

#[derive(clap::Subcommand)]
pub(crate) enum Commands {
    /// Open a channel to somebody who is to be paid
    Open(fund::Open),
    /// Add to a channel's deposit
    Topup(fund::TopUp),
    /// Show a channel, or all in a profile's books: deposit, paid, deadline, what is at risk
    Show(show::Arguments),
    /// Bring the newest voucher to the chain: the payee is paid
    Settle(settle::Arguments),
    /// End a channel: at once by the payee, after the challenge period by the payer
    Close(close::Arguments),
    /// Send the network's fee that waits in channels to the treasury
    Collect(collect::Arguments),
    /// Follow channels, and answer a close with the newest voucher in time
    Watch(watch::Arguments),
}

pub(crate) async fn run(command: Commands) -> Result<ExitCode, Failure> {
    match command {
        Commands::Open(arguments) => fund::open(arguments).await,
        Commands::Topup(arguments) => fund::top_up(arguments).await,
        Commands::Show(arguments) => show::run(arguments).await,
        Commands::Settle(arguments) => settle::run(arguments).await,
        Commands::Close(arguments) => close::run(arguments).await,
        Commands::Collect(arguments) => collect::run(arguments).await,
        Commands::Watch(arguments) => watch::run(arguments).await,
    }
}

fn parse_channel(text: &str) -> Result<Address, String> {
    parse_address(text).map_err(|error| error.to_string())
}

async fn read(chain: &dyn Chain, address: &Address) -> Result<State, Failure> {
    read_channel(chain, address).await.explain(
        || "the channel cannot be read".into(),
        "check its address and the network, and that the chain runs",
    )
}

/// A channel as an object for scripts: amounts in nanotons, times in Unix seconds.
fn object(address: &Address, state: &State) -> Value {
    let terms = &state.terms;
    json!({
        "channel": address.to_string(), "payer": terms.payer.to_string(), "payee": terms.payee.to_string(),
        "payer_key": hex::encode(terms.payer_key), "network": terms.network, "nonce": terms.nonce.to_string(),
        "deposit": state.deposit(), "paid": state.paid, "balance": state.balance,
        "limit": state.limit, "fee_waiting": state.fee_waiting(),
        "claimable": state.deposit().saturating_sub(state.paid),
        "deadline": state.deadline, "challenge_seconds": terms.challenge_seconds,
        "fee_bps": terms.fee_bps, "treasury": terms.treasury.to_string(),
    })
}

/// A channel's state in lines.
fn show_state(screen: &Screen, address: &Address, state: &State, now: u64) {
    let left = state.deposit().saturating_sub(state.paid);
    screen.line(&format!("{} {address}", screen.bold("channel")));
    screen.detail("payer", &state.terms.payer.to_string());
    screen.detail("payee", &state.terms.payee.to_string());
    screen.detail("deposit", &format!("{} TON, of which {} are paid", ton(state.deposit()), ton(state.paid)));
    screen.detail("claimable", &format!("{} TON at most by further vouchers", ton(left)));
    if state.limit != Nanotons::MAX {
        screen.detail("limit", &format!("{} TON: the most that its session key may sign", ton(state.limit)));
    }
    screen.detail("fee", &format!("{} basis points of what is paid", state.terms.fee_bps));
    if state.fee_waiting() > 0 {
        let waits = ton(state.fee_waiting());
        screen.detail("waiting", &format!("{waits} TON of it for the treasury: cocoon channel collect"));
    }
    match state.deadline {
        None => screen.detail("state", &format!("open; a close takes {} s", state.terms.challenge_seconds)),
        Some(deadline) => screen.detail("state", &screen.warn(&closing(deadline, now))),
    }
}

/// How a channel that closes stands against the chain's clock.
fn closing(deadline: u32, now: u64) -> String {
    match u64::from(deadline).checked_sub(now) {
        Some(left) => format!("closing: the payee may settle for {left} s more, until {deadline}"),
        None => "closing: the payee's time is over, anybody may finish: cocoon channel close".to_owned(),
    }
}

/// The chain's clock, by which deadlines count.
async fn now(chain: &dyn Chain) -> Result<u64, Failure> {
    let head = chain.head().await;
    Ok(head.explain(|| "the chain does not tell the time".into(), "check that it runs")?.time)
}

fn print_json(value: &Value) -> Result<ExitCode, Failure> {
    print(&value.to_string()).map(|()| ExitCode::SUCCESS)
}
