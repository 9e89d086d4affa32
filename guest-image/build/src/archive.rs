//! Debian's archive, as far as it takes to renew a lock: signed release files, package indexes, dependencies.

mod index;
mod release;
mod resolve;
mod version;

use std::collections::BTreeMap;

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

/// Asks the archive for the newest version of every package that is wanted, with what they depend on.
///
/// # Errors
/// If the archive cannot be reached, an index is not the one that was signed, or something wanted is not there.
pub async fn update(store: &Store) -> Result<Lock, Error> {
    let mut suites = BTreeMap::new();
    for suite in suites_wanted() {
        suites.insert(suite, fetch_suite(store, suite).await?);
    }
    let mut groups = BTreeMap::new();
    for wanted in &WANTED {
        groups.insert(wanted.group, resolve::closure(wanted, &suites)?);
    }
    Ok(Lock::new(groups))
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

/// One suite's index, as its signed release file names it.
async fn fetch_suite(store: &Store, suite: &str) -> Result<index::Index, Error> {
    let release = download::bytes(store, &format!("dists/{suite}/InRelease"), RELEASE_MAX).await?;
    let release = release::Release::open(suite, &release, store.progress())?;
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
    index::Index::read(suite, &bytes)
}
