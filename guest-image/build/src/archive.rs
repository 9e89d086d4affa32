//! Debian's archive, as far as it takes to renew a lock: signed release files, package indexes, dependencies.

mod index;
mod release;
mod resolve;
mod version;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use cocoon_image::Sha256;

use crate::groups::{Group, WANTED};
use crate::lock::{Lock, Pinned};
use crate::store::Store;
use crate::{Error, download};
pub(crate) use version::compare as compare_versions;

/// No release file is longer than this many bytes.
const RELEASE_MAX: u64 = 4 << 20;
/// No index of packages is longer than this many bytes, compressed.
const INDEX_MAX: u64 = 64 << 20;
const ARCHITECTURE: &str = "amd64";
/// The index of a suite, below its folder.
const INDEX: &str = "main/binary-amd64/Packages.xz";

/// What a renewal goes on without. Nothing by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Signatures of indexes, where gpgv or Debian's keyring is not installed. A lock made so says it ([`Lock::unsigned`]).
    pub unsigned: bool,
    /// Indexes that are valid still.
    pub stale: bool,
}

/// Asks the archive for the newest version of every package that is wanted, with what they depend on.
///
/// # Errors
/// If the archive cannot be reached, an index is not the one that was signed or is too old, or something wanted is not there.
pub async fn update(store: &Store, trust: Trust) -> Result<Lock, Error> {
    let (mut suites, mut unsigned) = (BTreeMap::new(), Vec::new());
    for suite in suites_wanted() {
        let (index, signed) = fetch_suite(store, suite, trust).await?;
        suites.insert(suite, index);
        if !signed {
            unsigned.push(suite.to_owned());
        }
    }
    let mut groups = BTreeMap::new();
    for wanted in &WANTED {
        groups.insert(wanted.group, resolve::closure(wanted, &suites)?);
    }
    Ok(Lock::with_unsigned(groups, unsigned))
}

/// The packages of a lock that the archive no longer has.
///
/// # Errors
/// If the archive cannot be reached.
pub async fn check<'a>(store: &Store, lock: &'a Lock) -> Result<Vec<(Group, &'a Pinned)>, Error> {
    use futures_util::{StreamExt, TryStreamExt, stream};
    const AT_ONCE: usize = 8;
    let packages = lock.packages().collect::<Vec<_>>();
    let task = store.progress().begin("asking the archive for every package", packages.len() as u64);
    let task = &task;
    let gone = stream::iter(packages.into_iter().map(|(group, package)| async move {
        let there = download::exists(store, &package.path).await?;
        task.advance(1);
        Ok::<_, Error>((!there).then_some((group, package)))
    }));
    let gone: Vec<_> = gone.buffered(AT_ONCE).try_collect().await?;
    Ok(gone.into_iter().flatten().collect())
}

fn suites_wanted() -> std::collections::BTreeSet<&'static str> {
    WANTED
        .iter()
        .flat_map(|wanted| {
            wanted.suites.iter().copied().chain(wanted.roots.iter().filter_map(|(_, suite)| *suite))
        })
        .collect()
}

/// One suite's index, as its release file names it, and whether that one's signature was checked.
async fn fetch_suite(store: &Store, suite: &str, trust: Trust) -> Result<(index::Index, bool), Error> {
    let release = download::bytes(store, &format!("dists/{suite}/InRelease"), RELEASE_MAX).await?;
    // A clock before 1970 is a broken one: then no index counts as too old.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let keyring = Path::new(release::KEYRING);
    let judge = release::Judge { keyring, trust, now, progress: store.progress() };
    let release = release::Release::open(suite, &release, &judge)?;
    let entry = release.entry(INDEX).ok_or_else(|| Error::Signature {
        suite: suite.into(),
        reason: format!("the release file names no {INDEX}"),
    })?;
    if entry.size > INDEX_MAX {
        let reason = format!("{INDEX} has {} bytes, more than the {INDEX_MAX} allowed", entry.size);
        return Err(Error::Signature { suite: suite.into(), reason });
    }
    // By hash: the plain name may already be that of a newer index.
    let folder = INDEX.rsplit_once('/').map_or("", |(folder, _)| folder);
    let by_hash = format!("dists/{suite}/{folder}/by-hash/SHA256/{}", entry.sha256);
    let bytes = match download::bytes(store, &by_hash, entry.size).await {
        Ok(bytes) if Sha256::of(&bytes) == entry.sha256 => bytes,
        _ => download::bytes(store, &format!("dists/{suite}/{INDEX}"), entry.size).await?,
    };
    let found = Sha256::of(&bytes);
    if found != entry.sha256 {
        let what = format!("the index of suite {suite}");
        let (size, found_size) = (entry.size, bytes.len() as u64);
        return Err(Error::OtherBytes { what, expected: entry.sha256, size, found, found_size });
    }
    Ok((index::Index::read(suite, &bytes)?, release.signed))
}
