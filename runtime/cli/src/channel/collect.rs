//! `cocoon channel collect`: the network's fee, which waits in channels until somebody sends it on its way.

use std::process::ExitCode;

use cocoon_contracts::Address;
use serde_json::{Value, json};

use super::{parse_channel, print_json, read};
use crate::error::{Explain, Failure};
use crate::ui::{Screen, ton};
use crate::wallet::Which;

#[derive(clap::Args)]
#[command(after_help = "\
Anybody may do this; the wallet pays for the gas alone. A channel that ends sends what waits in it by itself.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// The channels; of anybody
    #[arg(value_name = "CHANNEL", required = true, value_parser = parse_channel)]
    channels: Vec<Address>,
    /// A JSON list; amounts in nanotons
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let (path, file) = arguments.which.look()?;
    let (_, chain) = arguments.which.network().await?;
    let screen = Screen::new(arguments.json);
    let mut wallet = None;
    let mut objects = Vec::new();
    for channel in &arguments.channels {
        let before = read(&*chain, channel).await?;
        let treasury = before.terms.treasury.to_string();
        let collected = if before.fee_waiting() == 0 {
            screen.line(&format!("nothing waits in channel {channel}"));
            0
        } else {
            if wallet.is_none() {
                wallet = Some(crate::wallet::open(&file, &path, &chain)?);
            }
            let wallet = wallet.as_ref().expect("it was opened above");
            let after = cocoon_chain::collect(wallet, channel).await.explain(
                || format!("the fee in channel {channel} was not collected"),
                "it waits there: say it again",
            )?;
            // Settlements and other collectors may have come between: what the chain counts is what went.
            let collected = after.collected.saturating_sub(before.collected);
            let amount = ton(collected);
            screen.detail("collected", &format!("{amount} TON of channel {channel} for {treasury}"));
            collected
        };
        objects.push(json!({
            "channel": channel.to_string(), "treasury": treasury, "collected": collected,
        }));
    }
    match arguments.json {
        true => print_json(&Value::Array(objects)),
        false => Ok(ExitCode::SUCCESS),
    }
}
