//! What can go wrong between a lock file and an image; each with what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use cocoon_image::Sha256;

/// Why there is no image, tree or lock.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// A verb: `write`.
        doing: &'static str,
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The lock file is not of its format.
    #[error("the lock file {} cannot be used: {reason}", path.display())]
    Lock {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A pinned package has left the archive.
    #[error("the package {name} {version} of {suite} has left the archive ({address})")]
    Gone {
        /// The package.
        name: String,
        /// The pinned version.
        version: String,
        /// The suite that it was in.
        suite: String,
        /// What was asked for.
        address: String,
    },
    /// The archive could not be reached, or did not give a file.
    #[error("cannot fetch {address}: {reason}")]
    Download {
        /// What was asked for.
        address: String,
        /// What happened at the last of several tries.
        reason: String,
    },
    /// Fetching was forbidden and a package is not in the cache.
    #[error("{name} {version} is not in the cache {}, and --offline forbids to fetch it", cache.display())]
    Offline {
        /// The package.
        name: String,
        /// The pinned version.
        version: String,
        /// The folder that was looked into.
        cache: PathBuf,
    },
    /// Something has other bytes than were pinned or announced.
    #[error(
        "{what} has other bytes than expected: SHA-256 {found} ({found_size} bytes), not {expected} ({size} bytes)"
    )]
    OtherBytes {
        /// Which thing.
        what: String,
        /// The hash it should have.
        expected: Sha256,
        /// The length it should have.
        size: u64,
        /// The hash it has.
        found: Sha256,
        /// The length it has, or where reading stopped.
        found_size: u64,
    },
    /// A Debian package that is broken or hostile.
    #[error("the package {name} cannot be unpacked: {reason}")]
    Package {
        /// The package, or the file it is in.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The archive's index is not signed as it should be.
    #[error("the index of suite {suite} is not to be trusted: {reason}")]
    Signature {
        /// The suite.
        suite: String,
        /// What gpgv said, or what is missing.
        reason: String,
    },
    /// Nobody can say whether the archive's index is signed.
    #[error("the signature of suite {suite} cannot be checked: gpgv or Debian's keyring is missing here")]
    Unchecked {
        /// The suite.
        suite: String,
    },
    /// The archive's index is older than it may be.
    #[error("the index of suite {suite} was valid until {until}: it may hide newer packages")]
    Stale {
        /// The suite.
        suite: String,
        /// When it ended, as it says.
        until: String,
    },
    /// The archive has not what is needed.
    #[error("the packages cannot be resolved: {0}")]
    Resolve(String),
    /// A tool of a private tree failed.
    #[error("{tool} failed ({status}): {says}")]
    Tool {
        /// Its name.
        tool: String,
        /// How it ended.
        status: String,
        /// The end of what it wrote to standard error.
        says: String,
    },
    /// Our own programs could not be built.
    #[error("our programs cannot be built: {0}")]
    Cargo(String),
    /// There is no source tree to build our programs from.
    #[error("there is no source tree of Cocoon at or above {}", from.display())]
    NoSource {
        /// Where the search began.
        from: PathBuf,
    },
    /// Parts of the image do not fit together.
    #[error("the image would not work: {0}")]
    Contents(String),
    /// The output folder holds something else.
    #[error("{} exists and is no image folder of ours: it is left as it is", .0.display())]
    Occupied(PathBuf),
}

impl Error {
    /// Wraps what the system said about a path.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    /// What to do about it, as one sentence for people.
    pub fn remedy(&self) -> String {
        match self {
            Self::Io { path, source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                    format!("make room where {} is, and run this again; nothing half-done was left", path.display())
                }
                io::ErrorKind::PermissionDenied => "run this as a user who may do that, or name another folder".into(),
                _ => "look at the path that is named, and run this again".into(),
            },
            Self::Lock { .. } => "renew it: cocoon image lock --update".into(),
            Self::Gone { .. } => {
                "a newer version has replaced it: cocoon image lock --update, then look at what changed; \
                 or name an archive that keeps old versions with --archive"
                    .into()
            }
            Self::Download { .. } => "check the network, or name another archive with --archive".into(),
            Self::Offline { .. } => "run the same once without --offline".into(),
            Self::OtherBytes { .. } => {
                "run this again; if it stays, somebody on the way changes files: try another archive with --archive".into()
            }
            Self::Package { .. } => "the file is the one that the lock names: renew the lock (cocoon image lock --update), \
                                     or report it to the distribution"
                .into(),
            Self::Signature { .. } => {
                "take another network or archive (--archive); without a good signature nothing is pinned".into()
            }
            Self::Unchecked { .. } => "install both (Debian: apt install gpgv debian-archive-keyring). To believe the network \
                                       instead, and have the lock say so: --unsigned"
                .into(),
            Self::Stale { .. } => {
                "check this machine's clock, then name an archive that is up to date with --archive; or take it as it is: --stale"
                    .into()
            }
            Self::Resolve(_) => "see the groups of packages in guest-image/build/src/groups.rs".into(),
            Self::Tool { .. } => "run it again with COCOON_LOG=debug; if it stays, report it with this text".into(),
            Self::Cargo(_) => "mend what cargo says, or name programs that are built already with --programs DIR".into(),
            Self::NoSource { .. } => {
                "run this inside of a checkout of the source, or name a folder with cocoon-init and cocoon-guest: --programs DIR"
                    .into()
            }
            Self::Contents(_) => "mend the list that is named (guest-image/build/src), or renew the lock".into(),
            Self::Occupied(_) => "name another folder with --out, or remove this one yourself".into(),
        }
    }
}
