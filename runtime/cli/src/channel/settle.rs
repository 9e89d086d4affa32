//! `cocoon channel settle`.

use std::process::ExitCode;

use cocoon_contracts::{Address, SignedVoucher};
use serde_json::{Value, json};

use super::books::{Books, NoBooks, parse_voucher, verified};
use super::{parse_channel, print_json, read};
use crate::error::{Explain, Failure};
use crate::ui::{Screen, ton};
use crate::wallet::Which;

#[derive(clap::Args)]
#[command(after_help = "\
Of a gateway or a host that does not run: --profile gateway, --profile operator. A running one settles by itself.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// The channel [default: all with vouchers in the profile's books]
    #[arg(value_name = "CHANNEL", value_parser = parse_channel)]
    channel: Option<Address>,
    /// A voucher that is not in the books: hexadecimal digits, or a file
    #[arg(long, value_name = "HEX|FILE", value_parser = parse_voucher)]
    voucher: Option<SignedVoucher>,
    /// A JSON list; amounts in nanotons
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let (path, file) = arguments.which.look()?;
    let (network, chain) = arguments.which.network().await?;
    let books = Books::look(&arguments.which, network.network)?;
    let vouchers = vouchers(&arguments, &books).await?;
    let screen = Screen::new(arguments.json);
    if vouchers.is_empty() {
        screen.line("no voucher is worth more than was paid");
    }
    let mut wallet = None;
    let mut objects = Vec::new();
    for voucher in vouchers {
        let channel = &voucher.voucher.channel;
        let state = read(&*chain, channel).await?;
        let verified = verified(&voucher, &state.terms)?;
        let ours = file.wallet().address(&file.public(), network.network);
        if state.terms.payee != ours {
            return Err(Failure::new(
                format!("the channel {channel} pays {}, and this wallet is {ours}", state.terms.payee),
                "say whose wallet with --profile NAME or --key FILE",
            ));
        }
        let worth = verified.cumulative().saturating_sub(state.paid);
        if wallet.is_none() {
            wallet = Some(crate::wallet::open(&file, &path, &chain)?);
        }
        let wallet = wallet.as_ref().expect("it was opened above");
        let after = cocoon_chain::settle(wallet, &verified).await.explain(
            || format!("the voucher of {channel} was not settled"),
            "the voucher is kept: say it again",
        )?;
        if let Ok(books) = &books {
            let noted = books.payee.settled(channel, after.paid).await;
            noted
                .explain(|| "what was settled cannot be noted".into(), "check the disk; the chain has it")?;
        }
        screen.detail("settled", &format!("{} TON of channel {channel}, less the network's fee", ton(worth)));
        objects.push(json!({ "channel": channel.to_string(), "worth": worth, "paid": after.paid }));
    }
    match arguments.json {
        true => print_json(&Value::Array(objects)),
        false => Ok(ExitCode::SUCCESS),
    }
}

async fn vouchers(
    arguments: &Arguments,
    books: &Result<Books, NoBooks>,
) -> Result<Vec<SignedVoucher>, Failure> {
    if let Some(voucher) = &arguments.voucher {
        let named = arguments.channel.as_ref();
        if named.is_some_and(|channel| *channel != voucher.voucher.channel) {
            return Err(Failure::usage(
                format!("the voucher is of channel {}", voucher.voucher.channel),
                "name that channel, or none",
            ));
        }
        return Ok(vec![voucher.clone()]);
    }
    match books {
        Ok(books) => {
            let all = books.unsettled().await?.into_iter();
            let named = |channel: &Address| arguments.channel.as_ref().is_none_or(|c| c == channel);
            Ok(all.filter(|one| named(&one.channel)).map(|one| one.voucher).collect())
        }
        Err(NoBooks::None) => Err(Failure::new(
            format!("{} has no books, and so no vouchers", arguments.which.profile()),
            "name the profile that is paid with --profile NAME, or give a voucher with --voucher",
        )),
        Err(NoBooks::InUse) => Err(Failure::new(
            format!("the books of {} are open in another process", arguments.which.profile()),
            "it settles by itself, at the latest when it ends",
        )),
    }
}
