//! `cocoon channel show`.

use std::process::ExitCode;

use cocoon_chain::read_channel;
use cocoon_contracts::Address;
use cocoon_contracts::channel::State;
use serde_json::{Value, json};

use super::books::{Books, NoBooks};
use super::{now, object, parse_channel, print_json, show_state};
use crate::error::Failure;
use crate::ui::{Screen, one_line, ton};
use crate::wallet::Which;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// The channel [default: all in the profile's books]
    #[arg(value_name = "CHANNEL", value_parser = parse_channel)]
    channel: Option<Address>,
    /// A JSON list; amounts in nanotons
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let (network, chain) = arguments.which.network().await?;
    let books = Books::look(&arguments.which, network.network)?;
    let channels = match (&arguments.channel, &books) {
        (Some(channel), _) => vec![channel.clone()],
        (None, Ok(books)) => all(books).await?,
        (None, Err(NoBooks::InUse)) => {
            return Err(Failure::new(
                format!("the books of {} are open in another process", arguments.which.profile()),
                "name the channel, or end that process",
            ));
        }
        (None, Err(NoBooks::None)) => Vec::new(),
    };
    let screen = Screen::new(arguments.json);
    let now = now(&*chain).await?;
    let mut objects = Vec::new();
    if channels.is_empty() {
        screen.line(&format!("no channel is in the books of {}", arguments.which.profile()));
    }
    for channel in &channels {
        let known = match &books {
            Ok(books) => Known::of(books, channel).await?,
            Err(_) => Known::default(),
        };
        match read_channel(&*chain, channel).await {
            Ok(state) => {
                show_state(&screen, channel, &state, now);
                known.show(&screen, &state);
                objects.push(known.add_to(object(channel, &state), Some(&state)));
            }
            Err(error) if arguments.channel.is_some() => {
                let remedy = "check its address and the network, and that the chain runs";
                return Err(Failure::new(error.to_string(), remedy));
            }
            Err(error) => {
                screen.line(&format!("{} {channel}", screen.bold("channel")));
                screen.detail("state", &one_line(&error.to_string()));
                let gone = json!({ "channel": channel.to_string(), "error": error.to_string() });
                objects.push(known.add_to(gone, None));
            }
        }
    }
    match arguments.json {
        true => print_json(&Value::Array(objects)),
        false => Ok(ExitCode::SUCCESS),
    }
}

async fn all(books: &Books) -> Result<Vec<Address>, Failure> {
    let mut all = books.payer.channels();
    all.extend(books.payee_channels().await?);
    all.sort();
    all.dedup();
    Ok(all)
}

/// What the books say of a channel, in nanotons.
#[derive(Default)]
struct Known {
    /// As its payer: what is owed, and the highest amount ever signed.
    payer: Option<(u64, u64)>,
    /// As its payee: the best voucher.
    voucher: Option<u64>,
}

impl Known {
    async fn of(books: &Books, channel: &Address) -> Result<Self, Failure> {
        let payer = books.payer.state(channel).map(|state| (state.owed, state.signed));
        let voucher = books.voucher(channel).await?.map(|voucher| voucher.voucher.cumulative);
        Ok(Self { payer, voucher })
    }

    fn show(&self, screen: &Screen, state: &State) {
        if let Some((owed, signed)) = self.payer {
            screen.detail("owed", &format!("{} TON in all; vouchers cover {}", ton(owed), ton(signed)));
            let open = signed.saturating_sub(state.paid);
            screen.detail("at risk", &format!("{} TON that the payee may still settle", ton(open)));
        }
        if let Some(voucher) = self.voucher {
            let worth = voucher.saturating_sub(state.paid);
            screen.detail("at risk", &format!("{} TON until the newest voucher is settled", ton(worth)));
        }
    }

    fn add_to(&self, mut object: Value, state: Option<&State>) -> Value {
        let paid = state.map_or(0, |state| state.paid);
        if let Some((owed, signed)) = self.payer {
            object["owed"] = owed.into();
            object["signed"] = signed.into();
            object["at_risk"] = signed.saturating_sub(paid).into();
        }
        if let Some(voucher) = self.voucher {
            object["voucher"] = voucher.into();
            object["at_risk"] = voucher.saturating_sub(paid).into();
        }
        object
    }
}
