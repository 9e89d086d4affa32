//! Files of the archive over HTTP: limited in length, tried again, whole or not at all.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use cocoon_image::{HexBytes, Sha256};
use futures_util::StreamExt as _;
use ring::digest::{Context, SHA256};

use crate::Error;
use crate::lock::Pinned;
use crate::progress::Task;
use crate::store::Store;

const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// A transfer that stands still for so long has failed.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Why one try failed.
enum Failed {
    /// The archive has no such file.
    Absent,
    /// It may work the next time.
    Perhaps(String),
    /// It will not.
    Never(Error),
}

/// The client for all requests.
///
/// # Errors
/// If the system's TLS settings cannot be used.
pub(crate) fn client() -> Result<reqwest::Client, Error> {
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(STALL_TIMEOUT)
        .user_agent(concat!("cocoon/", env!("CARGO_PKG_VERSION")))
        .build();
    client.map_err(|error| Error::Download { address: "the archive".into(), reason: reason(&error) })
}

/// Whether the archive has a file.
pub(crate) async fn exists(store: &Store, path: &str) -> Result<bool, Error> {
    let address = store.address(path);
    let attempt = async || match store.client().head(&address).send().await {
        Ok(response) if response.status().is_success() => Ok(true),
        Ok(response) if is_absent(response.status()) => Ok(false),
        Ok(response) => Err(Failed::Perhaps(response.status().to_string())),
        Err(error) => Err(Failed::Perhaps(reason(&error))),
    };
    again(&address, attempt).await.map(|found| found.unwrap_or(false))
}

/// A file of at most `limit` bytes, in memory.
pub(crate) async fn bytes(store: &Store, path: &str, limit: u64) -> Result<Vec<u8>, Error> {
    let address = store.address(path);
    let task = store.progress().begin(&format!("fetching {path}"), limit);
    let attempt = async || {
        let mut bytes = Vec::new();
        stream(store, &address, limit, &*task, |chunk| {
            bytes.extend_from_slice(chunk);
            Ok(())
        })
        .await?;
        Ok(bytes)
    };
    let absent =
        || Error::Download { address: address.clone(), reason: "there is no such file (404)".into() };
    again(&address, attempt).await?.ok_or_else(absent)
}

/// A pinned package to `target`, which is there only if it has the pinned bytes.
pub(crate) async fn package(store: &Store, pinned: &Pinned, target: &Path) -> Result<(), Error> {
    let address = store.address(&pinned.path);
    let task = store.progress().begin(&format!("{} {}", pinned.name, pinned.version), pinned.size);
    let absent = || Error::Gone {
        name: pinned.name.clone(),
        version: pinned.version.clone(),
        suite: pinned.suite.clone(),
        address: address.clone(),
    };
    again(&address, async || attempt_package(store, pinned, &address, target, &*task).await)
        .await?
        .ok_or_else(absent)
}

async fn attempt_package(
    store: &Store,
    pinned: &Pinned,
    address: &str,
    target: &Path,
    task: &dyn Task,
) -> Result<(), Failed> {
    let folder = target.parent().expect("a file of the cache is in a folder");
    let create = tempfile::Builder::new().prefix(crate::output::UNFINISHED).tempfile_in(folder);
    let mut file = create.map_err(Error::io("create a file in", folder)).map_err(Failed::Never)?;
    let (mut digest, mut length) = (Context::new(&SHA256), 0);
    stream(store, address, pinned.size, task, |chunk| {
        digest.update(chunk);
        length += chunk.len() as u64;
        file.write_all(chunk).map_err(Error::io("write", target))
    })
    .await?;
    let found: Sha256 = HexBytes(digest.finish().as_ref().try_into().expect("SHA-256 gives 32 bytes"));
    if length < pinned.size {
        return Err(Failed::Perhaps(format!("it ends after {length} of {} bytes", pinned.size)));
    }
    if found != pinned.sha256 {
        let what = format!("{} {} from {address}", pinned.name, pinned.version);
        let (expected, size) = (pinned.sha256, pinned.size);
        return Err(Failed::Never(Error::OtherBytes { what, expected, size, found, found_size: length }));
    }
    file.persist(target).map_err(|error| Failed::Never(Error::io("write", target)(error.error)))?;
    Ok(())
}

/// Reads one answer; more than `limit` bytes are an error as soon as they come.
async fn stream(
    store: &Store,
    address: &str,
    limit: u64,
    task: &dyn Task,
    mut take: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Failed> {
    let response =
        store.client().get(address).send().await.map_err(|error| Failed::Perhaps(reason(&error)))?;
    match response.status() {
        status if is_absent(status) => return Err(Failed::Absent),
        status if !status.is_success() => return Err(Failed::Perhaps(status.to_string())),
        _ => {}
    }
    let (mut chunks, mut length) = (response.bytes_stream(), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Failed::Perhaps(reason(&error)))?;
        length += chunk.len() as u64;
        if length > limit {
            let reason = format!("it has more than the {limit} bytes that were announced");
            return Err(Failed::Never(Error::Download { address: address.to_owned(), reason }));
        }
        take(&chunk).map_err(Failed::Never)?;
        task.advance(chunk.len() as u64);
    }
    Ok(())
}

/// Tries until it works, cannot work, or has failed often enough; `None` if the archive has no such file.
async fn again<T>(address: &str, attempt: impl AsyncFn() -> Result<T, Failed>) -> Result<Option<T>, Error> {
    let mut pause = FIRST_PAUSE;
    let mut tried = 1;
    loop {
        match attempt().await {
            Ok(value) => return Ok(Some(value)),
            Err(Failed::Absent) => return Ok(None),
            Err(Failed::Never(error)) => return Err(error),
            Err(Failed::Perhaps(reason)) if tried == TRIES => {
                return Err(Error::Download {
                    address: address.to_owned(),
                    reason: format!("{reason} (tried {TRIES} times)"),
                });
            }
            Err(Failed::Perhaps(_)) => tokio::time::sleep(pause).await,
        }
        tried += 1;
        pause *= 2;
    }
}

/// 404 and 410: asking again will not help.
fn is_absent(status: reqwest::StatusCode) -> bool {
    matches!(status, reqwest::StatusCode::NOT_FOUND | reqwest::StatusCode::GONE)
}

/// The innermost cause says what happened.
fn reason(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
