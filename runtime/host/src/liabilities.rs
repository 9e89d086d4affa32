//! What gateways say that they owe us: the proof of each published root is checked against the chain and against our own
//! book, the newest is kept for `cocoon audit solvency --proof`, and what is short or missing is said aloud.
//!
//! The comparison is of one moment: an epoch's number is the chain's second of which its amounts are, and what we were owed
//! in that second is known from samples of our own book.

use std::{
    collections::{BTreeMap, VecDeque},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode},
};
use cocoon_accounts::{
    Account, ApiRefusal,
    http::{address, authorized_channel, body},
};
use cocoon_chain::ChainError;
use cocoon_contracts::{
    Address, Nanotons,
    bond::{self, Published},
    liabilities::{MAX_PROOF_BYTES, Proof, Root},
};
use cocoon_protocol::http::{ApiError, LiabilityProof};
use tokio::sync::Semaphore;

use crate::Shared;

/// Folder inside the state folder.
const FOLDER: &str = "liabilities";
/// The largest body: a proof in hex, an address, and their names.
const MAX_BODY: usize = 2 * MAX_PROOF_BYTES + 256;
/// Proofs that are checked on the chain at once; gateways ask again.
const MAX_CHECKS: usize = 4;
/// How many samples of our own book are kept, and of how many channels.
const SAMPLES: usize = 240;
const MAX_SAMPLED: usize = 1024;
/// How far our clock may be behind the chain's, in seconds.
const SKEW: u64 = 5;
/// Samples between two looks at the bonds, and looks between two readings of the registry's gateways.
const LOOK_EACH: u32 = 3;
const READ_EACH: u32 = 40;
/// How long after a publication its proof may take, in seconds of the chain.
const GRACE: u64 = 20;

/// What is known of one channel's payer.
#[derive(Clone)]
struct Known {
    bond: Address,
    /// The newest epoch that was proven to us.
    proven: u64,
    /// The newest epoch whose proof we said that we miss.
    missed: u64,
}

/// What we were owed, and when we looked: Unix seconds and nanotons, cumulative.
type Samples = VecDeque<(u64, Nanotons)>;

/// What gateways say that they owe.
pub(crate) struct Liabilities {
    folder: PathBuf,
    known: Mutex<BTreeMap<String, Known>>,
    samples: Mutex<BTreeMap<String, Samples>>,
    checks: Semaphore,
}

/// A proof that holds, against our own book.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    /// It covers what we counted, but for a window.
    Whole,
    /// We have no sample of that second: nothing can be said.
    Unknown,
    /// Nanotons that we counted in that second and that are in it neither as owed nor as paid.
    Short(Nanotons),
}

impl Liabilities {
    /// Reads what was kept. A kept file that cannot be read is said and left alone.
    pub(crate) fn open(state: &Path) -> io::Result<Self> {
        let folder = state.join(FOLDER);
        fs::create_dir_all(&folder)?;
        let mut known = BTreeMap::new();
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.extension().is_none_or(|ending| ending != "proof") {
                continue;
            }
            match kept(&path) {
                Ok((channel, one)) => drop(known.insert(channel, one)),
                Err(why) => tracing::warn!(path = %path.display(), %why, "a kept proof is not read"),
            }
        }
        let (known, samples) = (Mutex::new(known), Mutex::default());
        Ok(Self { folder, known, samples, checks: Semaphore::new(MAX_CHECKS) })
    }

    /// Samples our book and looks at the bonds until the returned task is aborted.
    pub(crate) fn spawn(shared: &Arc<Shared>) -> tokio::task::JoinHandle<()> {
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            for number in 0_u32.. {
                match shared.payee.accounts().await {
                    Ok(accounts) => shared.liabilities.sample(&accounts, (shared.options.clock)()),
                    Err(error) => tracing::warn!(%error, "the book could not be sampled"),
                }
                if number % (LOOK_EACH * READ_EACH) == 0
                    && let Err(error) = shared.liabilities.learn_bonds(&shared).await
                {
                    tracing::warn!(%error, "the registry's gateways could not be read");
                }
                if number % LOOK_EACH == 0
                    && let Err(error) = shared.liabilities.look(&shared).await
                {
                    tracing::warn!(%error, "gateways' bonds could not be looked at");
                }
                tokio::time::sleep(shared.options.timing.sample_every).await;
            }
        })
    }

    fn sample(&self, accounts: &[Account], now: u64) {
        let mut samples = self.samples.lock().expect("no holder of this lock panics");
        for account in accounts {
            let (name, room) = (account.address.to_string(), samples.len() < MAX_SAMPLED);
            if !room && !samples.contains_key(&name) {
                continue;
            }
            let own = samples.entry(name).or_default();
            own.push_back((now, account.state.owed));
            if own.len() > SAMPLES {
                own.pop_front();
            }
        }
    }

    /// What we were owed in that second at least, cumulative.
    fn owed_at(&self, channel: &str, second: u64) -> Option<Nanotons> {
        let samples = self.samples.lock().expect("no holder of this lock panics");
        let before = |(at, _): &&(u64, Nanotons)| at.saturating_add(SKEW) <= second;
        samples.get(channel)?.iter().rev().find(before).map(|(_, owed)| *owed)
    }

    /// Whether each known bond's newest root was proven to us, once the time for that has passed.
    async fn look(&self, shared: &Shared) -> Result<(), ChainError> {
        let known: Vec<(String, Known)> = {
            let known = self.known.lock().expect("no holder of this lock panics");
            known.iter().map(|(channel, one)| (channel.clone(), one.clone())).collect()
        };
        let chain = &**shared.options.wallet.chain();
        // What a gateway owes on a channel that closes is not in its tree for long.
        let open = open_channels(shared).await?;
        for (channel, one) in known.into_iter().filter(|(channel, _)| open.contains_key(channel)) {
            let now = chain.head().await?.time;
            let published = match cocoon_chain::read_bond(chain, &one.bond).await {
                Ok(bond) => bond.published,
                Err(ChainError::WrongAccount { .. }) => None,
                Err(error) => return Err(error),
            };
            let Some(Published { liabilities, at }) = published else { continue };
            let late = now > u64::from(at).saturating_add(GRACE);
            if late && liabilities.epoch > one.proven.max(one.missed) {
                self.note(&channel, |one| one.missed = liabilities.epoch);
                warn(
                    shared,
                    &format!(
                        "a gateway published what it owes (bond {}, epoch {}) and did not prove that this includes what it owes \
                     on channel {channel}: settle, and stop working for it",
                        one.bond, liabilities.epoch
                    ),
                );
            }
        }
        Ok(())
    }

    /// Learns the bonds of the gateways that pay us from the registry's list: one that never proves anything is found out too.
    /// What it published before it was found is not asked for.
    async fn learn_bonds(&self, shared: &Shared) -> Result<(), ChainError> {
        let chain = &**shared.options.wallet.chain();
        let registry = cocoon_chain::read_registry(chain, &shared.options.registry).await?;
        let open = open_channels(shared).await?;
        for gateway in registry.content.gateways {
            let bond = match cocoon_chain::read_bond(chain, &gateway.address).await {
                Ok(bond) => bond,
                // A wallet: it has no bond, and publishes nothing.
                Err(ChainError::WrongAccount { .. }) => continue,
                Err(error) => return Err(error),
            };
            let epoch = bond.published.map_or(0, |published| published.liabilities.epoch);
            let mut known = self.known.lock().expect("no holder of this lock panics");
            for (channel, _) in open.iter().filter(|(_, payer)| **payer == bond.terms.operator) {
                let fresh = Known { bond: gateway.address.clone(), proven: 0, missed: epoch };
                known.entry(channel.clone()).or_insert(fresh);
            }
        }
        Ok(())
    }

    fn note(&self, channel: &str, change: impl FnOnce(&mut Known)) {
        let mut known = self.known.lock().expect("no holder of this lock panics");
        if let Some(one) = known.get_mut(channel) {
            change(one);
        }
    }

    /// Compares an amount of a second with what we counted then. `paid` is what the chain has paid by now.
    fn judge(
        &self,
        channel: &str,
        epoch: u64,
        amount: Nanotons,
        paid: Nanotons,
        window: Nanotons,
    ) -> Judgement {
        let Some(owed) = self.owed_at(channel, epoch) else { return Judgement::Unknown };
        let said = amount.saturating_add(paid);
        match owed.saturating_sub(said) {
            short if short > window => Judgement::Short(short),
            _ => Judgement::Whole,
        }
    }

    /// Keeps the proof: the newest of each channel, and the newest that was short.
    fn keep(&self, channel: &Address, proof: &LiabilityProof, short: bool) -> io::Result<PathBuf> {
        let ending = if short { "short" } else { "proof" };
        let path = self.folder.join(format!("{}.{ending}", hex::encode(channel.address.0)));
        let staging = path.with_extension("part");
        fs::write(&staging, serde_json::to_vec_pretty(proof).expect("plain data always encodes"))?;
        fs::rename(&staging, &path)?;
        Ok(path)
    }
}

fn kept(path: &Path) -> Result<(String, Known), String> {
    let text = fs::read(path).map_err(|error| error.to_string())?;
    let words: LiabilityProof = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    let proof = hex::decode(&words.proof).map_err(|error| error.to_string())?;
    let proof = Proof::decode(&proof).map_err(|error| error.to_string())?;
    let bond = cocoon_contracts::parse_address(&words.bond).map_err(|error| error.to_string())?;
    Ok((proof.channel().to_string(), Known { bond, proven: proof.epoch(), missed: 0 }))
}

/// The channels of our book that are open, with their payers.
async fn open_channels(shared: &Shared) -> Result<BTreeMap<String, Address>, ChainError> {
    let unread = |error: cocoon_accounts::StoreError| ChainError::Invalid {
        action: "read the book",
        why: error.to_string(),
    };
    let accounts = shared.payee.accounts().await.map_err(unread)?;
    let open = accounts.into_iter().filter(|account| !account.state.closing);
    Ok(open.map(|account| (account.address.to_string(), account.terms.payer)).collect())
}

/// For whoever reads the host's log, and whoever reads ours.
fn warn(shared: &Shared, line: &str) {
    tracing::error!("{line}");
    (shared.options.log)(line);
}

/// `POST /v1/liabilities`: by the channel's payer alone. The reply is what was taken.
pub(crate) async fn take(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Json<LiabilityProof>, ApiRefusal> {
    let bytes = body(bytes, MAX_BODY)?;
    let channel = authorized_channel(&shared.payee, &headers, &bytes).await?;
    let words: LiabilityProof = serde_json::from_slice(&bytes)
        .map_err(|error| ApiRefusal::malformed(format!("the body does not parse: {error}")))?;
    let proof = hex::decode(&words.proof).map_err(|error| ApiRefusal::malformed(error.to_string()))?;
    let proof = Proof::decode(&proof).map_err(|error| ApiRefusal::malformed(error.to_string()))?;
    let bond_address = address(&words.bond)?;
    let own = &shared.liabilities;
    let _permit = own
        .checks
        .try_acquire()
        .map_err(|_| ApiRefusal::unavailable("busy", "other proofs are being checked; try again"))?;
    let amount = check(&shared, &channel, &bond_address, &proof).await?;
    let chain = &**shared.options.wallet.chain();
    let paid = cocoon_chain::read_channel(chain, &channel).await?.paid;
    let (epoch, window) = (proof.epoch(), shared.payee.window());
    let judged = own.judge(&channel.to_string(), epoch, amount, paid, window);
    let disk = |error: io::Error| ApiRefusal::unavailable("store_failed", error.to_string());
    let path = own.keep(&channel, &words, false).map_err(disk)?;
    let name = channel.to_string();
    {
        let mut known = own.known.lock().expect("no holder of this lock panics");
        let missed = known.get(&name).map_or(0, |one| one.missed);
        known.insert(name, Known { bond: bond_address.clone(), proven: epoch, missed });
    }
    match judged {
        Judgement::Short(short) => {
            let kept = own.keep(&channel, &words, true).map_err(disk)?;
            warn(
                &shared,
                &format!(
                    "a gateway published that it owes {amount} nanotons on channel {channel} (bond {bond_address}, epoch {epoch}), \
                 {short} less than this host counted: the proof is kept in {}; settle, and stop working for it",
                    kept.display()
                ),
            );
        }
        judged => {
            tracing::info!(%channel, epoch, amount, ?judged, path = %path.display(), "a gateway's liability is proven")
        }
    }
    Ok(Json(words))
}

fn unreadable(error: cocoon_accounts::StoreError) -> ApiRefusal {
    ApiRefusal::unavailable("store_failed", error.to_string())
}

/// That the proof leads to the newest root on a bond of the channel's payer. The amount that it shows.
async fn check(
    shared: &Shared,
    channel: &Address,
    bond_address: &Address,
    proof: &Proof,
) -> Result<Nanotons, ApiRefusal> {
    let refuse = |code: &str, why: String| ApiRefusal {
        status: StatusCode::BAD_REQUEST,
        error: ApiError::invalid_request(code, why),
    };
    let chain = &**shared.options.wallet.chain();
    let bond: bond::State = cocoon_chain::read_bond(chain, bond_address).await?;
    let terms = shared.payee.terms(channel).await.map_err(unreadable)?;
    let payer = terms.map(|terms| terms.payer);
    if payer.as_ref() != Some(&bond.terms.operator) {
        return Err(refuse("foreign_bond", "the bond is not of the channel's payer".to_owned()));
    }
    let published = bond.published.map(|published| published.liabilities);
    let published =
        published.ok_or_else(|| refuse("not_published", "nothing is published on this bond".to_owned()))?;
    let root = Root { epoch: published.epoch, hash: published.root, sum: published.sum };
    let liability = proof.verify(&root).map_err(|error| refuse("wrong_proof", error.to_string()))?;
    if liability.channel != *channel {
        return Err(refuse("wrong_proof", format!("it is of channel {}", liability.channel)));
    }
    Ok(liability.amount)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(samples: &[(u64, Nanotons)]) -> Liabilities {
        let folder = tempfile::tempdir().expect("a folder");
        let own = Liabilities::open(folder.path()).expect("it is made");
        let samples = samples.iter().copied().collect();
        own.samples.lock().expect("ours").insert("c".to_owned(), samples);
        own
    }

    #[test]
    fn an_amount_is_compared_with_what_was_owed_in_its_own_second() {
        let own = with(&[(100, 1_000), (105, 2_000), (110, 9_000)]);
        assert_eq!(own.owed_at("c", 111), Some(2_000), "a clock that is behind blames nobody");
        assert_eq!(own.judge("c", 111, 2_000, 0, 0), Judgement::Whole, "what came later is of another epoch");
        assert_eq!(own.judge("c", 111, 500, 1_500, 0), Judgement::Whole, "what is paid is not owed");
        assert_eq!(own.judge("c", 111, 1_900, 0, 100), Judgement::Whole, "a window may be unpaid");
        assert_eq!(own.judge("c", 111, 1_899, 0, 100), Judgement::Short(101));
        assert_eq!(own.judge("c", 500, 0, 0, 100), Judgement::Short(9_000));
    }

    #[test]
    fn without_a_sample_of_that_second_nobody_is_blamed() {
        let own = with(&[(100, 1_000)]);
        assert_eq!(own.judge("c", 104, 0, 0, 0), Judgement::Unknown);
        assert_eq!(own.judge("other", 200, 0, 0, 0), Judgement::Unknown);
    }
}
