//! `cocoon wallet send`.

use std::path::PathBuf;
use std::process::ExitCode;

use cocoon_chain::{Fate, Wallet};
use cocoon_contracts::{Nanotons, friendly_on};
use serde_json::json;

use super::journal::{Desk, Journal};
use super::recipients::{self, Payment};
use super::{Which, confirmed, open};
use crate::error::{Explain, Failure};
use crate::network::NetworkFile;
use crate::ui::{Screen, counted, print, ton};

#[derive(clap::Args)]
#[command(after_help = "\
What is paid is noted beside the key before it leaves. If the command is killed, say it again: it finishes or explains
what was begun, and pays nobody twice.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Whom to pay: the friendly form or the raw one
    #[arg(value_name = "TO", required_unless_present_any = ["list", "abandon"])]
    to: Option<String>,
    /// How much, in TON
    #[arg(value_name = "AMOUNT", requires = "to", allow_negative_numbers = true)]
    amount: Option<String>,
    /// Pay everybody on a list: a file with ADDRESS,AMOUNT on each line
    #[arg(long, value_name = "FILE", conflicts_with = "to")]
    list: Option<PathBuf>,
    /// Words for the recipient; everybody can read them
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Give up the rest of an interrupted list: what was paid stays paid
    #[arg(long, conflicts_with_all = ["to", "list"])]
    abandon: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let network = NetworkFile::load(&arguments.which.state()?)?.network;
    let payments = wanted(&arguments, network)?;
    recipients::total(&payments)?;
    let (path, file) = arguments.which.look()?;
    let (_, chain) = arguments.which.network().await?;
    let desk = Desk::take(&path)?;
    let address = file.wallet().address(&file.public(), network);
    let new = Journal::new(address.to_string(), payments, arguments.comment.clone());

    let screen = Screen::new(arguments.json);
    let mut sender = Sender { desk, wallet: None, network, screen };
    let open_wallet = || open(&file, &path, &chain);
    let interrupted = match sender.desk.read()? {
        Some(journal) => {
            if journal.open_message().is_some() {
                sender.wallet = Some(open_wallet()?);
            }
            sender.resolve(journal).await?
        }
        None => None,
    };
    if arguments.abandon {
        return sender.abandon(interrupted);
    }
    let resumed = interrupted.as_ref().is_some_and(|journal| journal.is_same(&new));
    let journal = sender.take_up(interrupted, new)?;
    if journal.is_over() {
        // The interrupted command had paid; it only could not say so.
        return sender.report(&journal, arguments.json, true);
    }
    recipients::check(&journal.payments[journal.paid..], &*chain, &sender.screen).await?;
    sender.summary(&journal, file.wallet().max_transfers());
    if !confirmed(&question(&journal, network), arguments.yes)? {
        sender.screen.line("nothing was sent");
        return Ok(ExitCode::FAILURE);
    }
    if sender.wallet.is_none() {
        sender.wallet = Some(open_wallet()?);
    }
    let journal = sender.pay(journal).await?;
    sender.report(&journal, arguments.json, resumed)
}

fn wanted(arguments: &Arguments, network: i32) -> Result<Vec<Payment>, Failure> {
    if let Some(list) = &arguments.list {
        return recipients::list(list, network);
    }
    match (&arguments.to, &arguments.amount) {
        (Some(to), Some(amount)) => recipients::single(to, amount, network),
        (Some(_), None) => Err(Failure::usage("how much is to be paid?", "cocoon wallet send TO AMOUNT")),
        _ => Ok(Vec::new()), // --abandon
    }
}

fn question(journal: &Journal, network: i32) -> String {
    let rest = &journal.payments[journal.paid..];
    match rest {
        [only] => {
            let to = friendly_on(&only.address(), only.bounce.unwrap_or(false), network);
            format!("Send {} TON to {to}?", ton(only.amount))
        }
        many => {
            format!("Send {} TON to {}?", ton(sum(many)), counted(many.len() as u64, "account"))
        }
    }
}

/// For display: that the whole is an amount was checked before.
fn sum(payments: &[Payment]) -> Nanotons {
    payments.iter().map(|payment| payment.amount).fold(0, Nanotons::saturating_add)
}

struct Sender {
    desk: Desk,
    /// Opened when something is to be signed or asked for.
    wallet: Option<Wallet>,
    network: i32,
    screen: Screen,
}

impl Sender {
    /// Learns the fate of the message that an interrupted command may have sent. `None` when it turns out that the
    /// command had paid nothing.
    async fn resolve(&self, mut journal: Journal) -> Result<Option<Journal>, Failure> {
        if let (Some(message), Some(wallet)) = (journal.open_message(), &self.wallet) {
            if journal.wallet != wallet.address().to_string() {
                return Err(Failure::new(
                    format!("the interrupted payment was of another wallet, {}", journal.wallet),
                    "put the key back that belongs to the journal",
                ));
            }
            self.screen.progress("asking what became of an interrupted payment");
            self.settle_fate(&mut journal, wallet.confirm(&message).await)?;
        }
        if journal.paid == 0 {
            self.desk.clear()?;
            return Ok(None);
        }
        Ok(Some(journal))
    }

    /// Notes a fate on the disk.
    fn settle_fate(
        &self,
        journal: &mut Journal,
        fate: Result<Fate, cocoon_chain::ChainError>,
    ) -> Result<bool, Failure> {
        let fate = fate.explain(
            || "what became of the payment is not known yet".into(),
            "nothing else was sent; when the chain answers, say the same command again",
        )?;
        match &fate {
            Fate::Taken(sent) => journal.taken(sent),
            Fate::Expired | Fate::Replaced => journal.never(),
        }
        self.desk.write(journal)?;
        Ok(matches!(fate, Fate::Taken(_)))
    }

    fn abandon(&self, interrupted: Option<Journal>) -> Result<ExitCode, Failure> {
        match interrupted {
            None => self.screen.line("no payment is open"),
            Some(journal) => {
                let (paid, all) = (journal.paid, journal.payments.len());
                self.desk.clear()?;
                self.screen.line(&format!("given up: {paid} of {all} were paid, the rest was not"));
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Which journal goes on: the interrupted one if this is the same command; it is in the way of another one while
    /// somebody on it waits for money.
    fn take_up(&self, interrupted: Option<Journal>, new: Journal) -> Result<Journal, Failure> {
        let Some(journal) = interrupted else { return Ok(new) };
        if journal.is_same(&new) {
            return Ok(journal);
        }
        if journal.is_over() {
            self.screen.line("an interrupted payment before this one had been made:");
            self.show(&journal);
            self.desk.clear()?;
            return Ok(new);
        }
        Err(Failure::new(
            format!("an interrupted list paid {} of {}", journal.paid, journal.payments.len()),
            "say that command again to pay the rest, or give the rest up: cocoon wallet send --abandon",
        ))
    }

    fn summary(&self, journal: &Journal, in_one_message: usize) {
        let open = &journal.payments[journal.paid..];
        let (rest, total) = (open.len(), sum(open));
        if journal.paid > 0 {
            let (paid, all) = (journal.paid, journal.payments.len());
            self.screen.line(&format!("an interrupted payment: {paid} of {all} were paid"));
        }
        let messages = rest.div_ceil(in_one_message);
        let first = rest.min(in_one_message);
        let fees = Wallet::fee_bound(first).saturating_mul(messages as u64);
        let messages = counted(messages as u64, "message");
        self.screen.detail("pays", &format!("{} TON to {}", ton(total), counted(rest as u64, "account")));
        self.screen.detail("fees", &format!("at most {} TON, in {messages}; usually a tenth", ton(fees)));
    }

    /// Pays what the journal has not paid yet, message after message, each on the disk before it leaves.
    async fn pay(&self, mut journal: Journal) -> Result<Journal, Failure> {
        let wallet = self.wallet.as_ref().expect("it was opened before paying");
        /// How often a message that never happened is made anew.
        const ATTEMPTS: u32 = 3;
        let mut lost = 0;
        while !journal.is_over() {
            let rest = &journal.payments[journal.paid..];
            let batch = &rest[..rest.len().min(wallet.version().max_transfers())];
            let count = batch.len();
            self.screen.progress(&format!(
                "paying {} to {} of {}",
                journal.paid + 1,
                journal.paid + count,
                journal.payments.len()
            ));
            let chain = &**wallet.chain();
            let transfers = recipients::transfers(batch, journal.comment.as_deref(), chain).await?;
            let remedy = "nothing of this message was sent; say the same command again to go on";
            let prepared =
                wallet.prepare(&transfers).await.explain(|| "the payment cannot be made".into(), remedy)?;
            journal.sending(&prepared, count);
            self.desk.write(&journal)?;
            if !self.settle_fate(&mut journal, wallet.confirm(&prepared).await)? {
                lost += 1;
                if lost == ATTEMPTS {
                    return Err(Failure::new(
                        format!("{ATTEMPTS} messages were not taken by the network and never will be"),
                        "look whether another process pays from this wallet; say the same command again to go on",
                    ));
                }
            }
        }
        Ok(journal)
    }

    fn show(&self, journal: &Journal) {
        let sum = sum(&journal.payments[..journal.paid]);
        let to = match journal.payments.as_slice() {
            [only] => friendly_on(&only.address(), only.bounce.unwrap_or(false), self.network),
            many => counted(many.len() as u64, "account"),
        };
        self.screen.detail("paid", &format!("{} TON to {to}", ton(sum)));
        self.screen.detail("fees", &format!("{} TON", ton(journal.fees())));
        for done in &journal.transactions {
            self.screen.detail("in", &format!("transaction {}", done.hash));
        }
    }

    /// Says what was paid, and only then forgets it: a command that is killed before says it when it is repeated.
    fn report(&self, journal: &Journal, as_json: bool, interrupted: bool) -> Result<ExitCode, Failure> {
        if as_json {
            let paid =
                journal.payments.iter().map(|payment| payment.amount).fold(0, Nanotons::saturating_add);
            let object = json!({
                "paid": paid, "recipients": journal.payments.len(), "fees": journal.fees(),
                "interrupted_before": interrupted,
                "transactions": journal.transactions.iter().map(|done| &done.hash).collect::<Vec<_>>(),
            });
            print(&object.to_string())?;
        } else {
            if interrupted {
                self.screen
                    .line("the payment that was interrupted is made, once; to pay again, say it again:");
            }
            self.show(journal);
        }
        self.desk.clear()?;
        Ok(ExitCode::SUCCESS)
    }
}
