//! `cocoon channel close`.

use std::process::ExitCode;
use std::time::Duration;

use cocoon_chain::{Wallet, cooperative_close, finish_close, start_close};
use cocoon_contracts::channel::State;
use cocoon_contracts::{Address, SignedVoucher};
use serde_json::json;

use super::books::{Books, NoBooks, parse_voucher, verified};
use super::{now, parse_channel, print_json, read};
use crate::error::{Explain, Failure};
use crate::ui::{Screen, ton};
use crate::wallet::{Which, confirmed};

/// How often a waiting close looks at the chain's clock.
const POLL: Duration = Duration::from_secs(1);
const REMEDY: &str =
    "look at it with `cocoon channel show`, and say it again: what is done is not done twice";

#[derive(clap::Args)]
#[command(after_help = "\
Run by the payee it ends the channel at once: the payee is paid its newest voucher, the rest goes home to the payer.
Run by the payer it starts to close; the payee may still settle in the challenge period; run again after it (or with
--wait), the rest goes home.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    #[arg(value_name = "CHANNEL", value_parser = parse_channel)]
    channel: Address,
    /// For the payee: a voucher that is not in the books, as hexadecimal digits or a file
    #[arg(long, value_name = "HEX|FILE", value_parser = parse_voucher)]
    voucher: Option<SignedVoucher>,
    /// For the payer: wait for the end of the challenge period, and finish
    #[arg(long)]
    wait: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let (path, file) = arguments.which.look()?;
    let (network, chain) = arguments.which.network().await?;
    let state = read(&*chain, &arguments.channel).await?;
    let ours = file.wallet().address(&file.public(), network.network);
    let over = match state.deadline {
        Some(deadline) => now(&*chain).await? > u64::from(deadline),
        None => false,
    };
    if state.terms.payee == ours && !over {
        let books = Books::look(&arguments.which, network.network)?;
        let voucher = best_voucher(&arguments, &books).await?;
        let wallet = crate::wallet::open(&file, &path, &chain);
        return by_payee(&arguments, &state, voucher, books.ok(), wallet).await;
    }
    if state.terms.payer != ours && !over {
        return Err(Failure::new(
            format!("{ours} is neither the payer nor the payee of this channel"),
            "say whose wallet with --profile NAME or --key FILE",
        ));
    }
    let left = ton(state.deposit().saturating_sub(state.paid));
    let question = format!("Close the channel {}? What is left of {left} TON goes home.", arguments.channel);
    if !confirmed(&question, arguments.yes)? {
        return Ok(ExitCode::FAILURE);
    }
    let wallet = crate::wallet::open(&file, &path, &chain)?;
    by_payer(&arguments, &wallet).await
}

/// The newest voucher there is; none is an answer too: then the payee goes without more.
async fn best_voucher(
    arguments: &Arguments,
    books: &Result<Books, NoBooks>,
) -> Result<Option<SignedVoucher>, Failure> {
    match (&arguments.voucher, books) {
        (Some(voucher), _) => Ok(Some(voucher.clone())),
        (None, Ok(books)) => books.voucher(&arguments.channel).await,
        (None, Err(NoBooks::None)) => Ok(None),
        (None, Err(NoBooks::InUse)) => Err(Failure::new(
            format!("the books of {} are open in another process", arguments.which.profile()),
            "end that process first: without its newest voucher money would be given away",
        )),
    }
}

async fn by_payee(
    arguments: &Arguments,
    state: &State,
    voucher: Option<SignedVoucher>,
    books: Option<Books>,
    wallet: Result<Wallet, Failure>,
) -> Result<ExitCode, Failure> {
    let voucher = voucher.as_ref().map(|voucher| verified(voucher, &state.terms)).transpose()?;
    let claimed = voucher.as_ref().map_or(0, |voucher| voucher.cumulative()).max(state.paid);
    let question = format!(
        "End the channel {} now? You are paid {} TON more (less the network's fee); {} TON go home to the payer.",
        arguments.channel,
        ton(claimed - state.paid),
        ton(state.deposit().saturating_sub(claimed))
    );
    if !confirmed(&question, arguments.yes)? {
        return Ok(ExitCode::FAILURE);
    }
    let closed = cooperative_close(&wallet?, &arguments.channel, voucher.as_ref()).await;
    closed.explain(|| "the channel was not closed".into(), REMEDY)?;
    if let Some(books) = books {
        let noted = books.payee.settled(&arguments.channel, claimed).await;
        noted.explain(|| "the end cannot be noted".into(), "check the disk; the chain has it")?;
        let noted = books.payee.gone(&arguments.channel).await;
        noted.explain(|| "the end cannot be noted".into(), "check the disk; the chain has it")?;
    }
    let words = format!("closed: {} TON were paid in all", ton(claimed));
    say(arguments, "closed", &words, None)
}

async fn by_payer(arguments: &Arguments, wallet: &Wallet) -> Result<ExitCode, Failure> {
    let started = start_close(wallet, &arguments.channel).await;
    let state = started.explain(|| "the channel was not closed".into(), REMEDY)?;
    let deadline = u64::from(state.deadline.unwrap_or_default());
    let chain = &**wallet.chain();
    let mut now = now(chain).await?;
    if now <= deadline && !arguments.wait {
        let left = deadline - now;
        let words = format!(
            "closing: the payee may settle for {left} s more; then say it again, and the rest goes home"
        );
        return say(arguments, "closing", &words, Some(deadline));
    }
    let screen = Screen::new(arguments.json);
    while now <= deadline {
        screen.progress(&format!("{} s until the rest may go home", deadline - now));
        tokio::time::sleep(POLL).await;
        // A chain that is away for a while only makes the wait longer.
        if let Ok(head) = chain.head().await {
            now = head.time;
        }
    }
    let finished = finish_close(wallet, &arguments.channel).await;
    finished.explain(|| "the close was not finished".into(), REMEDY)?;
    say(arguments, "closed", "closed: the rest has gone home to the payer", None)
}

fn say(arguments: &Arguments, state: &str, words: &str, deadline: Option<u64>) -> Result<ExitCode, Failure> {
    if arguments.json {
        let channel = arguments.channel.to_string();
        return print_json(&json!({ "channel": channel, "state": state, "deadline": deadline }));
    }
    Screen::new(false).line(words);
    Ok(ExitCode::SUCCESS)
}
