//! `cocoon bond statement` and `forfeit`: the two signed statements that cost an operator its stake.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cocoon_contracts::bond::{SIGNED_STATEMENT_BYTES, SignedStatement, contradiction, publication};
use cocoon_contracts::{Address, parse_address};

use crate::error::{Explain, Failure};
use crate::network::state_folder;
use crate::ui::Screen;
use crate::wiring::{CLIENT, Joined};

/// How many of a bond's newest transactions are searched.
const MAX_TRANSACTIONS: usize = 100;

#[derive(clap::Args)]
pub(crate) struct Statement {
    /// The bond
    #[arg(value_name = "ADDRESS", value_parser = parse_address)]
    bond: Address,
    /// The epoch [default: the newest]
    #[arg(long, value_name = "NUMBER")]
    epoch: Option<u64>,
    /// Where it is written
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Folder of the network file [default: cocoon/ in the user's state folder]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(crate) struct Forfeit {
    /// A signed statement: its bytes, or these in hex
    #[arg(value_name = "FILE")]
    first: PathBuf,
    /// Another one of the same bond, kind and number that says something else
    #[arg(value_name = "FILE")]
    second: PathBuf,
    /// Folder of the network file and of the client's wallet, which pays [default: cocoon/ in the user's state folder]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

pub(super) async fn statement(arguments: Statement) -> Result<ExitCode, Failure> {
    let joined = Joined::load(&state_folder(arguments.state)?).await?;
    let signed = published(&joined, &arguments.bond, arguments.epoch).await?;
    std::fs::write(&arguments.out, hex::encode(signed.encode()))
        .explain(|| format!("cannot write {}", arguments.out.display()), "check the folder and the disk")?;
    let number = signed.statement.number;
    Screen::new(false).line(&format!("the statement of epoch {number} is in {}", arguments.out.display()));
    Ok(ExitCode::SUCCESS)
}

/// A statement that was published on a bond, from the chain's transactions.
pub(crate) async fn published(
    joined: &Joined,
    bond: &Address,
    epoch: Option<u64>,
) -> Result<SignedStatement, Failure> {
    let transactions = joined.chain.transactions(bond, MAX_TRANSACTIONS).await;
    let transactions =
        transactions.explain(|| "the bond's transactions cannot be read".into(), "try again")?;
    let told = transactions.iter().filter(|tx| !tx.aborted).filter_map(|tx| publication(tx.body.as_ref()?));
    let found = told.into_iter().find(|(said, _)| epoch.is_none_or(|epoch| said.epoch == epoch));
    let (said, signature) = found.ok_or_else(|| {
        let what = epoch.map_or("nothing".to_owned(), |epoch| format!("no epoch {epoch}"));
        Failure::new(
            format!("{what} was published within the newest {MAX_TRANSACTIONS} transactions of {bond}"),
            "name an epoch that was; an indexer keeps older transactions",
        )
    })?;
    Ok(SignedStatement { statement: said.statement(joined.file.network, bond), signature })
}

pub(super) async fn forfeit(arguments: Forfeit) -> Result<ExitCode, Failure> {
    let (first, second) = (load(&arguments.first)?, load(&arguments.second)?);
    let joined = Joined::load(&state_folder(arguments.state)?).await?;
    let bond = first.statement.bond.clone();
    let state = super::read(&joined, &bond).await?;
    let proof = contradiction(&state.terms, &first, &second).explain(
        || "these two statements prove nothing".into(),
        "two of one bond, kind and number are needed, both signed by its key, that differ",
    )?;
    let wallet = joined.wallet(CLIENT).await?;
    cocoon_chain::forfeit(&wallet, &bond, &proof).await.explain(
        || format!("the stake of {bond} was not forfeited"),
        "cocoon bond show   says how it stands; the proof stays good until the stake is withdrawn",
    )?;
    let screen = Screen::new(false);
    screen.line(&format!("forfeited: the stake of {bond} goes to {}", state.terms.treasury));
    Ok(ExitCode::SUCCESS)
}

/// A statement's bytes, or these in hex.
fn load(path: &Path) -> Result<SignedStatement, Failure> {
    use std::io::Read as _;
    let limit = u64::try_from(2 * SIGNED_STATEMENT_BYTES + 2).expect("a few hundred");
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .explain(|| format!("cannot read {}", path.display()), "check the name")?;
    let text = std::str::from_utf8(&bytes).ok().and_then(|text| hex::decode(text.trim()).ok());
    SignedStatement::decode(text.as_deref().unwrap_or(&bytes)).explain(
        || path.display().to_string(),
        "name a file that `cocoon bond statement` or `cocoon audit solvency --keep` wrote",
    )
}
