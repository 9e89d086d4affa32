//! `cocoon channel watch`.

use std::process::ExitCode;
use std::time::Duration;

use cocoon_chain::{ChainError, Wallet, read_channel};
use cocoon_contracts::channel::State;
use cocoon_contracts::{Address, SignedVoucher};
use serde_json::{Value, json};

use super::books::{Books, NoBooks, parse_voucher, verified};
use super::{closing, object, parse_channel};
use crate::error::Failure;
use crate::lifeline::Shutdown;
use crate::ui::{Screen, one_line, print, ton};
use crate::wallet::Which;

#[derive(clap::Args)]
#[command(after_help = "\
It ends when every channel is closed, or by an interrupt. The payee's vouchers come from the profile's books or from
--voucher. A gateway or a host that runs does the same for its own channels.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// The channel [default: all that pay this profile, by its books]
    #[arg(value_name = "CHANNEL", value_parser = parse_channel)]
    channel: Option<Address>,
    /// The newest voucher, as hexadecimal digits or a file
    #[arg(long, value_name = "HEX|FILE", value_parser = parse_voucher)]
    voucher: Option<SignedVoucher>,
    /// How often to look; much less than the shortest challenge period
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
    /// A JSON object on each line
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let mut shutdown = Shutdown::listen(false)?;
    let (path, file) = arguments.which.look()?;
    let (network, chain) = arguments.which.network().await?;
    let books = match Books::look(&arguments.which, network.network)? {
        Ok(books) => Some(books),
        Err(NoBooks::None) => None,
        Err(NoBooks::InUse) if arguments.channel.is_some() => None,
        Err(NoBooks::InUse) => {
            return Err(Failure::new(
                "the books are open in another process",
                "it watches its channels by itself; or name a channel, and its voucher with --voucher",
            ));
        }
    };
    let channels: Vec<Address> = match (&arguments.channel, &books) {
        (Some(channel), _) => vec![channel.clone()],
        (None, Some(books)) => books.payee_channels().await?,
        (None, None) => Vec::new(),
    };
    if channels.is_empty() {
        return Err(Failure::new("there is no channel to watch", "name one, or the profile that is paid"));
    }
    // Opened now: nobody is there to be asked for a passphrase when it matters.
    let wallet = crate::wallet::open(&file, &path, &chain)?;
    let screen = Screen::new(arguments.json);
    let watched = channels.into_iter().map(|channel| Watched { channel, seen: None, over: false }).collect();
    let mut watcher =
        Watcher { wallet, books, voucher: arguments.voucher, json: arguments.json, screen, watched };
    let every = Duration::from_secs(arguments.every);
    loop {
        if watcher.look().await? {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = shutdown.wait() => return Ok(ExitCode::SUCCESS),
        }
    }
}

struct Watched {
    channel: Address,
    seen: Option<State>,
    over: bool,
}

struct Watcher {
    wallet: Wallet,
    books: Option<Books>,
    voucher: Option<SignedVoucher>,
    json: bool,
    screen: Screen,
    watched: Vec<Watched>,
}

impl Watcher {
    /// Looks at every channel once. True when all of them are over.
    async fn look(&mut self) -> Result<bool, Failure> {
        for i in 0..self.watched.len() {
            let Watched { channel, seen, over } = &self.watched[i];
            if *over {
                continue;
            }
            let (channel, seen) = (channel.clone(), seen.clone());
            match read_channel(&**self.wallet.chain(), &channel).await {
                Ok(state) => {
                    if seen.as_ref() != Some(&state) {
                        self.tell(&channel, &state).await?;
                    }
                    self.watched[i].seen = Some(self.answer(&channel, state).await?);
                }
                Err(ChainError::WrongAccount { why, .. }) => {
                    self.watched[i].over = true;
                    self.event("over", &channel, &one_line(&why), json!({}))?;
                }
                // A chain that is away is looked at again.
                Err(error) => self.event("unseen", &channel, &one_line(&error.to_string()), json!({}))?,
            }
        }
        Ok(self.watched.iter().all(|watched| watched.over))
    }

    async fn tell(&self, channel: &Address, state: &State) -> Result<(), Failure> {
        let now = self.wallet.chain().head().await.map_or(0, |head| head.time);
        let standing = state.deadline.map_or_else(|| "open".to_owned(), |deadline| closing(deadline, now));
        let words = format!("{standing}; deposit {} TON, paid {} TON", ton(state.deposit()), ton(state.paid));
        self.event("state", channel, &words, object(channel, state))
    }

    /// A close is answered with the newest voucher, if it is worth more than was paid. Returns the state afterwards.
    async fn answer(&self, channel: &Address, state: State) -> Result<State, Failure> {
        let newest = self.newest(channel).await?;
        let (Some(_), Some(voucher)) = (state.deadline, newest) else { return Ok(state) };
        if state.terms.payee != *self.wallet.address() {
            return Ok(state);
        }
        let voucher = match verified(&voucher, &state.terms) {
            Ok(voucher) if voucher.cumulative() > state.paid => voucher,
            Ok(_) => return Ok(state),
            Err(failure) => {
                self.event("unsettled", channel, &one_line(&failure.what), json!({}))?;
                return Ok(state);
            }
        };
        let worth = voucher.cumulative() - state.paid;
        match cocoon_chain::settle(&self.wallet, &voucher).await {
            Ok(after) => {
                let words = format!("answered the close: settled {} TON", ton(worth));
                self.event("settled", channel, &words, json!({ "worth": worth, "paid": after.paid }))?;
                if let Some(books) = &self.books {
                    // What is not noted is settled a second time at most, which does nothing.
                    let _ = books.payee.settled(channel, after.paid).await;
                }
                Ok(after)
            }
            // Tried again at the next look, until the deadline.
            Err(error) => {
                let why = format!("not settled yet: {}", one_line(&error.to_string()));
                self.event("unsettled", channel, &why, json!({}))?;
                Ok(state)
            }
        }
    }

    async fn newest(&self, channel: &Address) -> Result<Option<SignedVoucher>, Failure> {
        let given = self.voucher.clone().filter(|voucher| voucher.voucher.channel == *channel);
        let kept = match &self.books {
            Some(books) => books.voucher(channel).await?,
            None => None,
        };
        Ok(given.into_iter().chain(kept).max_by_key(|voucher| voucher.voucher.cumulative))
    }

    fn event(&self, name: &str, channel: &Address, words: &str, details: Value) -> Result<(), Failure> {
        if self.json {
            let mut line = details;
            line["event"] = name.into();
            line["channel"] = channel.to_string().into();
            line["words"] = words.into();
            return print(&line.to_string());
        }
        self.screen
            .line(&format!("{} {words}", self.screen.dim(&crate::ui::abridge(&channel.to_string(), 20))));
        Ok(())
    }
}
