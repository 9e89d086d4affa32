//! `cocoon registry history`: who changed what and when, read from the registry's transactions.

use std::path::PathBuf;
use std::process::ExitCode;

use cocoon_chain::Transaction;
use cocoon_contracts::Address;
use cocoon_contracts::registry::{Change, Operation, Registry};
use serde::Serialize;

use super::diff::{self, Line, differences};
use super::{in_force, join, unix};
use crate::error::{Explain, Failure};
use crate::ui::{Screen, one_line, print};

/// The newest transactions are looked at, and no more: a chain's backend gives no more at once.
const MAX_TRANSACTIONS: usize = 100;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many of the newest transactions to look at, at most 100
    #[arg(long, value_name = "NUMBER", default_value_t = MAX_TRANSACTIONS)]
    limit: usize,
    /// Folder of the network file [default: cocoon/ in the user's state folder]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// One JSON array instead, the oldest event first
    #[arg(long)]
    json: bool,
}

/// One thing that happened to a registry.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Event {
    time: u32,
    utc: String,
    /// The transaction's hash.
    transaction: String,
    /// Whose wallet carried the message. Not who decided: the signers did.
    sender: Option<String>,
    #[serde(flatten)]
    what: What,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum What {
    Deployed,
    Announced {
        /// By number among the owners of that time.
        signers: Vec<u8>,
        /// `None` where what was in force before is older than what is looked at.
        changes: Option<Vec<Line>>,
        /// Why nobody can read it, if so.
        unreadable: Option<String>,
    },
    TakenBack {
        signers: Vec<u8>,
    },
    Activated {
        version: u32,
    },
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let joined = join(arguments.state).await?;
    let limit = arguments.limit.clamp(1, MAX_TRANSACTIONS);
    let transactions = joined.chain.transactions(&joined.registry_address, limit).await.explain(
        || "the registry's transactions cannot be read".into(),
        "try again, or another endpoint of the chain",
    )?;
    let whole = transactions.len() < limit;
    let events = events(transactions, &joined.registry, whole);
    if arguments.json {
        print(&serde_json::to_string(&events).expect("plain data is JSON"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let screen = Screen::new(false);
    screen.line(&format!("{} {}", screen.bold("history of"), joined.registry_address));
    if !whole {
        screen.line(&screen.dim(&format!("   (of its newest {limit} transactions; there are older ones)")));
    }
    events.iter().for_each(|event| show(&screen, event));
    screen.line(&format!("version {} is in force", joined.registry.version));
    Ok(ExitCode::SUCCESS)
}

/// What happened, the oldest first, of transactions that come newest first. `whole` when there are no older ones.
fn events(mut transactions: Vec<Transaction>, now: &Registry, whole: bool) -> Vec<Event> {
    transactions.sort_by_key(|tx| tx.lt);
    let mut events = Vec::new();
    // What was in force before the first transaction is not told by any, unless nothing was activated since.
    let granted: Vec<(Transaction, Operation)> = transactions.into_iter().filter_map(granted).collect();
    let activated = granted.iter().any(|(_, operation)| matches!(operation, Operation::Activate { .. }));
    let mut force = (!activated).then(|| in_force(now));
    let mut announced: Option<Change> = None;
    for (at, (transaction, operation)) in granted.into_iter().enumerate() {
        let what = match operation {
            Operation::TopUp => {
                let first = transaction.first_data.as_ref().filter(|_| whole && at == 0);
                let Some(first) = first.and_then(|data| Registry::parse(data).ok()) else { continue };
                force = Some(in_force(&first));
                What::Deployed
            }
            Operation::Propose { change, signers } => {
                let unreadable = (*change).as_ref().err().map(ToString::to_string);
                announced = change.ok();
                let both = force.as_ref().zip(announced.as_ref());
                let changes = both.map(|(before, after)| differences(before, after));
                What::Announced { signers, changes, unreadable }
            }
            Operation::Cancel { signers } => {
                announced = None;
                What::TakenBack { signers }
            }
            Operation::Activate { version } => {
                force = announced.take();
                What::Activated { version: version.saturating_add(1) }
            }
        };
        events.push(Event {
            time: transaction.time,
            utc: unix(transaction.time).to_string(),
            transaction: hex::encode(transaction.hash),
            sender: transaction.from.as_ref().map(Address::to_string),
            what,
        });
    }
    events
}

/// What the contract was asked for and did.
fn granted(transaction: Transaction) -> Option<(Transaction, Operation)> {
    if transaction.aborted || transaction.bounced {
        return None;
    }
    let operation = Operation::parse(transaction.body.as_ref()?)?;
    Some((transaction, operation))
}

fn show(screen: &Screen, event: &Event) {
    let sender = event.sender.as_deref().unwrap_or("outside");
    let words = match &event.what {
        What::Deployed => "deployed, version 1".to_owned(),
        What::Announced { signers, .. } => format!("announced, signed by owners {signers:?}"),
        What::TakenBack { signers } => format!("taken back, signed by owners {signers:?}"),
        What::Activated { version } => format!("version {version} came into force"),
    };
    screen.line("");
    screen.line(&format!("{} {}", screen.dim(&event.utc), screen.bold(&words)));
    screen.detail("sent by", sender);
    if let What::Announced { changes, unreadable, .. } = &event.what {
        match (changes, unreadable) {
            (Some(lines), _) => diff::show(screen, lines),
            (None, Some(why)) => screen.line(&screen.bad(&format!("   not readable: {}", one_line(why)))),
            (None, None) => {
                screen.line("   what was in force before lies further back than what was looked at");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cocoon_contracts::registry::{Approval, Deployment, activate_body, top_up_body};
    use cocoon_contracts::{Cell, SigningKey};

    use super::super::samples;
    use super::*;

    fn transaction(lt: u64, body: Cell) -> Transaction {
        Transaction {
            lt,
            hash: [0; 32],
            time: 1_800_000_000,
            from: None,
            value: 0,
            body_hash: Some(body.repr_hash().0),
            bounced: false,
            aborted: false,
            exit_code: Some(0),
            gas: 0,
            body: Some(body),
            first_data: None,
            fees: 0,
        }
    }

    /// A registry that was deployed empty, filled, and stands at version 2.
    fn story() -> (Vec<Transaction>, Registry) {
        let (empty, full) = (samples::empty(), samples::full());
        let deployment =
            Deployment { owners: empty.owners.clone(), delay: 1, salt: 0, content: empty.content.clone() };
        let data = deployment.state_init().expect("sound").data.expect("it has data");
        let mut registry = Registry::parse(&data).expect("it is a registry");
        let address = deployment.address().expect("sound");
        let mut approval =
            Approval::to_propose(-3, &address, &registry, full.clone(), u32::MAX).expect("sound");
        approval.sign(&SigningKey::from_seed(&[1; 32])).expect("an owner");
        let mut deployed = transaction(1, top_up_body());
        deployed.first_data = Some(data);
        let mut refused = transaction(2, activate_body(1));
        refused.aborted = true;
        let proposed = transaction(3, approval.body().expect("enough have signed"));
        let transactions = vec![transaction(4, activate_body(1)), proposed, refused, deployed];
        (registry.version, registry.owners, registry.content) = (2, full.owners, full.content);
        (transactions, registry)
    }

    #[test]
    fn each_change_is_told_with_what_it_replaced() {
        let (transactions, registry) = story();
        let events = events(transactions, &registry, true);
        let what: Vec<&What> = events.iter().map(|event| &event.what).collect();
        let changes = Some(differences(&samples::empty(), &samples::full()));
        let announced = What::Announced { signers: vec![0], changes, unreadable: None };
        assert_eq!(what, [&What::Deployed, &announced, &What::Activated { version: 2 }]);
    }

    #[test]
    fn what_lies_too_far_back_is_not_made_up() {
        let (mut transactions, registry) = story();
        transactions.truncate(2);
        let events = events(transactions, &registry, false);
        assert!(matches!(&events[0].what, What::Announced { changes: None, unreadable: None, .. }));
        assert_eq!(events[1].what, What::Activated { version: 2 });
    }
}
