//! `cocoon channel open` and `cocoon channel topup`.

use std::process::ExitCode;

use cocoon_chain::{authorize, open_channel, read_registry};
use cocoon_contracts::channel::{OPEN_RESERVE, OPEN_VALUE, Terms};
use cocoon_contracts::{Address, Nanotons, parse_address, parse_recipient};

use super::books::Books;
use super::{now, object, parse_channel, print_json, read, show_state};
use crate::error::{Explain, Failure};
use crate::keys;
use crate::ui::{Screen, ton};
use crate::wallet::{Which, confirmed, parse_ton};
use crate::wiring::ClientSettings;

const LOOK: &str =
    "look at the wallet with `cocoon wallet show`, and say the same again: a channel that was begun is found";

#[derive(clap::Args)]
#[command(after_help = "\
Vouchers are signed with the profile's session key, and the channel is put into its books: `cocoon chat` with the same
profile pays on it. The network's fee and treasury are the registry's.")]
pub(crate) struct Open {
    #[command(flatten)]
    which: Which,
    /// Who is to be paid
    #[arg(long, value_name = "ADDRESS")]
    payee: String,
    /// What can be claimed at most, in TON; the contract's reserve comes on top and comes back
    #[arg(long, value_name = "TON", value_parser = parse_ton, allow_negative_numbers = true)]
    deposit: Nanotons,
    /// The most that the session key may ever sign, in TON [default: the deposit]
    #[arg(long, value_name = "TON", value_parser = parse_ton, allow_negative_numbers = true)]
    limit: Option<Nanotons>,
    /// How long the payee may still settle after a close was started
    #[arg(long, value_name = "SECONDS", default_value_t = ClientSettings::default().challenge_seconds)]
    challenge_seconds: u32,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// One JSON object; amounts in nanotons
    #[arg(long)]
    json: bool,
}

pub(crate) async fn open(arguments: Open) -> Result<ExitCode, Failure> {
    if arguments.deposit == 0 {
        return Err(Failure::usage("nothing would be deposited: the amount is 0", "give an amount in TON"));
    }
    let (path, file) = arguments.which.look()?;
    let (network, chain) = arguments.which.network().await?;
    let payee = parse_recipient(&arguments.payee, network.network)
        .map_err(|error| Failure::usage(error.to_string(), "give the payee's address on this network"))?;
    let registry = parse_address(&network.registry)
        .explain(|| "the network file names no registry".into(), "mend the network file")?;
    let registry = read_registry(&*chain, &registry)
        .await
        .explain(|| "the registry cannot be read".into(), "check that the chain runs")?;
    let session = keys::load_or_create(&arguments.which.folder()?.join("session.key"))?;
    let mut terms = Terms {
        payer: file.wallet().address(&file.public(), network.network),
        payee: payee.address,
        payer_key: session.public(),
        network: network.network,
        nonce: nonce()?,
        challenge_seconds: arguments.challenge_seconds,
        fee_bps: registry.content.fee_bps,
        treasury: registry.content.treasury,
    };
    terms.check().explain(|| "such a channel cannot be opened".into(), "change what it names")?;
    let books = Books::open(&arguments.which, network.network)?;
    if let Some(begun) = begun(&books, &terms) {
        terms.nonce = begun;
    }
    let cost = arguments.deposit.checked_add(OPEN_RESERVE + OPEN_VALUE);
    let cost =
        cost.ok_or_else(|| Failure::usage("the deposit is more than all coins", "give a smaller one"))?;
    let question = format!(
        "Open a channel to {} with {} TON (with reserve and fees {} TON)?",
        terms.payee,
        ton(arguments.deposit),
        ton(cost)
    );
    if !confirmed(&question, arguments.yes)? {
        return Ok(ExitCode::FAILURE);
    }
    let wallet = crate::wallet::open(&file, &path, &chain)?;
    let address = terms.address();
    let noted = || "the channel cannot be noted".to_owned();
    // In the books before any coin moves: after a crash between here and there the channel is found again.
    books.payer.open_channel(&address, &terms, 0).await.explain(noted, "check the disk")?;
    let limit = arguments.limit.unwrap_or(arguments.deposit);
    let state = open_channel(&wallet, &terms, arguments.deposit, limit)
        .await
        .explain(|| "the channel could not be opened".into(), LOOK)?;
    books.payer.open_channel(&address, &terms, state.deposit()).await.explain(noted, "check the disk")?;
    if let Some(missing) = arguments.deposit.checked_sub(state.deposit()).filter(|missing| *missing > 0) {
        return Err(Failure::new(
            format!("{address} was begun before and is open, with {} TON", ton(state.deposit())),
            format!("to add the rest: cocoon channel topup {address} {}", ton(missing)),
        ));
    }
    if arguments.json {
        return print_json(&object(&address, &state));
    }
    show_state(&Screen::new(false), &address, &state, now(&*chain).await?);
    Ok(ExitCode::SUCCESS)
}

/// The nonce of a channel that an interrupted `open` with the same terms has noted and perhaps opened.
fn begun(books: &Books, terms: &Terms) -> Option<u64> {
    let noted = books.payer.channels().into_iter().filter(|channel| {
        books.payer.state(channel).is_some_and(|state| state.deposit == 0 && state.signed == 0)
    });
    let mut nonces = noted.filter_map(|channel| books.payer.terms(&channel));
    nonces.find(|known| Terms { nonce: known.nonce, ..terms.clone() } == *known).map(|known| known.nonce)
}

fn nonce() -> Result<u64, Failure> {
    use ring::rand::SecureRandom;
    let mut bytes = [0; 8];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Failure::new("the system's random generator gave no bytes", "try again"))?;
    Ok(u64::from_be_bytes(bytes))
}

#[derive(clap::Args)]
pub(crate) struct TopUp {
    #[command(flatten)]
    which: Which,
    /// The channel; of anybody
    #[arg(value_name = "CHANNEL", value_parser = parse_channel)]
    channel: Address,
    /// How much, in TON
    #[arg(value_name = "AMOUNT", value_parser = parse_ton, allow_negative_numbers = true)]
    amount: Nanotons,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// One JSON object; amounts in nanotons
    #[arg(long)]
    json: bool,
}

pub(crate) async fn top_up(arguments: TopUp) -> Result<ExitCode, Failure> {
    if arguments.amount == 0 {
        return Err(Failure::usage("nothing would be added: the amount is 0", "give an amount in TON"));
    }
    let (path, file) = arguments.which.look()?;
    let (network, chain) = arguments.which.network().await?;
    let before = read(&*chain, &arguments.channel).await?;
    if before.deadline.is_some() {
        return Err(Failure::new(
            "the channel is closing: what is added goes home with the rest",
            "open a new one",
        ));
    }
    let question = format!("Add {} TON to the channel {}?", ton(arguments.amount), arguments.channel);
    if !confirmed(&question, arguments.yes)? {
        return Ok(ExitCode::FAILURE);
    }
    let wallet = crate::wallet::open(&file, &path, &chain)?;
    // The payer lets its session key sign as much more; a gift raises the deposit alone.
    let limit = before.limit.saturating_add(arguments.amount);
    let added = match before.terms.payer == *wallet.address() && limit > before.limit {
        true => authorize(&wallet, &arguments.channel, limit, arguments.amount).await,
        false => cocoon_chain::top_up(&wallet, &arguments.channel, arguments.amount).await,
    };
    let state = added.explain(
        || "the channel could not be topped up".into(),
        "look at it with `cocoon channel show` before you say it again",
    )?;
    // The payer's books take the new deposit, if they are not open elsewhere: then that process reads it itself.
    if state.terms.payer == *wallet.address()
        && let Ok(books) = Books::look(&arguments.which, network.network)?
    {
        books
            .payer
            .open_channel(&arguments.channel, &state.terms, state.deposit())
            .await
            .explain(|| "the new deposit cannot be noted".into(), "check the disk; the chain has it")?;
    }
    if arguments.json {
        return print_json(&object(&arguments.channel, &state));
    }
    show_state(&Screen::new(false), &arguments.channel, &state, now(&*chain).await?);
    Ok(ExitCode::SUCCESS)
}
