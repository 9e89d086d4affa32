//! What an audit needs, from the chain; of the gateway only where to look.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cocoon_chain::{Chain, ChainError};
use cocoon_contracts::bond::{SignedStatement, State as BondState};
use cocoon_contracts::liabilities::Proof;
use cocoon_contracts::{Address, Nanotons, channel, parse_address};
use cocoon_protocol::http::{LiabilityProof, Solvency as Told};

use super::Solvency;
use super::judge::{ChannelFacts, Facts, OwnProof};
use crate::bond;
use crate::error::{Explain, Failure};
use crate::ui::shorten;
use crate::wiring::Joined;

/// The largest reply of a gateway, and the largest file of channels, in bytes.
const MAX_REPLY: usize = 4 << 20;
/// Most channels that are read.
const MAX_CHANNELS: usize = 20_000;
/// How many are read at once.
const READS_AT_ONCE: usize = 8;
/// How many transactions of a channel are searched for settlements since the publication.
const MAX_TRANSACTIONS: usize = 100;
/// How long a gateway may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The largest kept proof, in bytes.
const MAX_PROOF_FILE: usize = 8 * 1024;

pub(super) async fn facts(joined: &Joined, arguments: &Solvency) -> Result<Facts, Failure> {
    let (gateway, bond_address, channels, shown) = match &arguments.bond {
        Some(bond) => {
            let file = arguments.channels.as_ref().expect("the command line asks for both");
            (None, bond.clone(), channels_of(file)?, None)
        }
        None => {
            let gateway = arguments.gateway.clone().or_else(|| joined.file.gateways.first().cloned());
            let gateway = gateway.ok_or_else(|| {
                Failure::usage("no gateway is known on this network", "name one with --gateway URL")
            })?;
            let told = ask(&gateway).await?;
            let bond = parse_address(&told.bond)
                .explain(|| format!("{gateway} names no bond"), "ask its operator")?;
            let channels = addresses(told.channels.iter().map(String::as_str), &gateway)?;
            let shown = told.published.map(|published| statement(&published.statement, &gateway));
            (Some(gateway), bond, channels, shown.transpose()?)
        }
    };
    let bond = match cocoon_chain::read_bond(joined.chain.as_ref(), &bond_address).await {
        Ok(bond) => Ok(bond),
        Err(error @ ChainError::WrongAccount { .. }) => Err(error.to_string()),
        Err(error) => return Err(error).explain(|| "the bond cannot be read".into(), "try again"),
    };
    let head = joined.chain.head().await.explain(|| "the chain's time cannot be read".into(), "try again")?;
    let channels = channels_on_chain(joined, &bond, channels).await?;
    let own = arguments.proof.as_deref().map(own_proof).transpose()?;
    let (registry, now, max_age) = (joined.registry.clone(), head.time, arguments.max_age);
    Ok(Facts { gateway, bond_address, bond, registry, channels, own, shown, now, max_age })
}

/// Where the gateway's bond and channels are, by its own word.
async fn ask(gateway: &str) -> Result<Told, Failure> {
    const REMEDY: &str = "check its address; or name --bond and --channels, and ask no gateway";
    let what = || format!("{gateway} does not say where its bond and channels are");
    let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build();
    let http = http.explain(|| "no HTTP client".into(), "report this")?;
    let url = format!("{}/v1/solvency", gateway.trim_end_matches('/'));
    let mut response = http.get(url).send().await.explain(what, REMEDY)?;
    let status = response.status();
    let mut reply = Vec::new();
    while let Some(chunk) = response.chunk().await.explain(what, REMEDY)? {
        if reply.len() + chunk.len() > MAX_REPLY {
            return Err(Failure::new(format!("{}: more than {MAX_REPLY} bytes", what()), REMEDY));
        }
        reply.extend_from_slice(&chunk);
    }
    if !status.is_success() {
        let words = shorten(&String::from_utf8_lossy(&reply));
        return Err(Failure::new(format!("{}: {status}: {words}", what()), REMEDY));
    }
    serde_json::from_slice(&reply).explain(what, REMEDY)
}

fn statement(text: &str, gateway: &str) -> Result<SignedStatement, Failure> {
    let bytes = hex::decode(text).unwrap_or_default();
    SignedStatement::decode(&bytes)
        .explain(|| format!("{gateway} shows no signed statement"), "ask its operator")
}

fn channels_of(file: &Path) -> Result<Vec<Address>, Failure> {
    let name = file.display().to_string();
    let text = String::from_utf8(limited(file, MAX_REPLY)?).explain(|| name.clone(), "check the name")?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    addresses(lines.filter(|line| !line.is_empty()), &name)
}

/// Each once: a channel that is named twice counts once.
fn addresses<'a>(texts: impl Iterator<Item = &'a str>, from: &str) -> Result<Vec<Address>, Failure> {
    let mut addresses = Vec::new();
    for text in texts {
        if addresses.len() == MAX_CHANNELS {
            let what = format!("{from} names more than {MAX_CHANNELS} channels");
            return Err(Failure::new(what, "this is no gateway's list; nothing was checked"));
        }
        addresses
            .push(parse_address(text).explain(|| from.to_owned(), "an address of a channel is expected")?);
    }
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

fn limited(path: &Path, limit: usize) -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let most = u64::try_from(limit).expect("a few megabytes");
    std::fs::File::open(path)
        .and_then(|file| file.take(most).read_to_end(&mut bytes))
        .explain(|| format!("cannot read {}", path.display()), "check the name")?;
    Ok(bytes)
}

async fn channels_on_chain(
    joined: &Joined,
    bond: &Result<BondState, String>,
    channels: Vec<Address>,
) -> Result<Vec<ChannelFacts>, Failure> {
    let published = bond.as_ref().ok().and_then(|bond| bond.published).map(|published| published.at);
    let mut facts = Vec::new();
    for group in channels.chunks(READS_AT_ONCE) {
        let mut reads = tokio::task::JoinSet::new();
        for address in group {
            reads.spawn(channel_on_chain(Arc::clone(&joined.chain), address.clone(), published));
        }
        for read in reads.join_all().await {
            facts.push(read.explain(|| "a channel cannot be read".into(), "try again")?);
        }
    }
    facts.sort_by(|a, b| a.address.cmp(&b.address));
    Ok(facts)
}

async fn channel_on_chain(
    chain: Arc<dyn Chain>,
    address: Address,
    published: Option<u32>,
) -> Result<ChannelFacts, ChainError> {
    let state = match cocoon_chain::read_channel(&*chain, &address).await {
        Ok(state) => Ok(state),
        Err(error @ ChainError::WrongAccount { .. }) => Err(error.to_string()),
        Err(error) => return Err(error),
    };
    let mut settled = 0;
    if let (Ok(state), Some(published)) = (&state, published)
        && state.paid > 0
    {
        settled = settled_since(&*chain, &address, state.paid, published).await?;
    }
    Ok(ChannelFacts { address, state, settled })
}

/// What the payee settled after that second. What lies further back than what is searched counts as before: then less
/// seems to be covered than is.
async fn settled_since(
    chain: &dyn Chain,
    address: &Address,
    paid: Nanotons,
    second: u32,
) -> Result<Nanotons, ChainError> {
    let transactions = chain.transactions(address, MAX_TRANSACTIONS).await?;
    let whole = transactions.len() < MAX_TRANSACTIONS;
    let mut settlements = transactions
        .iter()
        .filter(|tx| !tx.aborted && !tx.bounced)
        .filter_map(|tx| Some((tx.time, channel::settled(tx.body.as_ref()?)?)));
    let before = settlements.find(|(time, _)| *time <= second).map(|(_, cumulative)| cumulative);
    Ok(match before {
        Some(before) => paid.saturating_sub(before),
        None if whole => paid,
        None => 0,
    })
}

fn own_proof(path: &Path) -> Result<OwnProof, Failure> {
    const REMEDY: &str = "name a .proof file out of the folder `liabilities` of the host's state";
    let name = || path.display().to_string();
    let words: LiabilityProof =
        serde_json::from_slice(&limited(path, MAX_PROOF_FILE)?).explain(name, REMEDY)?;
    let bond = parse_address(&words.bond).explain(name, REMEDY)?;
    let proof = Proof::decode(&hex::decode(&words.proof).explain(name, REMEDY)?).explain(name, REMEDY)?;
    Ok(OwnProof { bond, proof })
}

/// Keeps the statement that the gateway showed and the published one, if they contradict each other.
pub(super) async fn keep(
    joined: &Joined,
    folder: &Path,
    facts: &Facts,
    shown: &SignedStatement,
) -> Result<(), Failure> {
    if !facts.contradicts(shown) {
        return Ok(());
    }
    let number = shown.statement.number;
    let published = bond::published(joined, &facts.bond_address, Some(number)).await?;
    std::fs::create_dir_all(folder)
        .explain(|| format!("cannot make {}", folder.display()), "choose another with --keep")?;
    for (name, statement) in [("shown", shown), ("published", &published)] {
        let path: PathBuf = folder.join(format!("{number}-{name}.statement"));
        std::fs::write(&path, hex::encode(statement.encode()))
            .explain(|| format!("cannot write {}", path.display()), "check the disk")?;
    }
    Ok(())
}
