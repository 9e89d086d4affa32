//! The cache: fetched packages by hash, unpacked trees by the hash of what is in them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cocoon_image::Sha256;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::lock::Pinned;
use crate::progress::Progress;
use crate::{Error, download, output};

/// Where packages come from if nothing else is said.
pub const ARCHIVE: &str = "http://deb.debian.org/debian";
/// How many packages are fetched at once.
const AT_ONCE: usize = 4;

/// Where things are kept and where they come from.
#[derive(Clone)]
pub struct Store {
    folder: PathBuf,
    archive: String,
    offline: bool,
    progress: Arc<dyn Progress>,
    client: reqwest::Client,
}

impl Store {
    /// A cache in `folder`, filled from `archive` (its address without a slash at the end) unless `offline`.
    ///
    /// # Errors
    /// If the system's TLS settings cannot be used.
    pub fn new(
        folder: PathBuf,
        archive: &str,
        offline: bool,
        progress: Arc<dyn Progress>,
    ) -> Result<Self, Error> {
        let archive = archive.trim_end_matches('/').to_owned();
        Ok(Self { folder, archive, offline, progress, client: download::client()? })
    }

    /// `$XDG_CACHE_HOME/cocoon`, else `$HOME/.cache/cocoon`; `None` without either.
    pub fn default_folder() -> Option<PathBuf> {
        let folder =
            |variable: &str| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
        let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
        Some(cache.join("cocoon"))
    }

    /// Where long work is shown.
    pub(crate) fn progress(&self) -> &dyn Progress {
        &*self.progress
    }

    pub(crate) fn client(&self) -> &reqwest::Client {
        &self.client
    }

    pub(crate) fn address(&self, path: &str) -> String {
        format!("{}/{path}", self.archive)
    }

    /// A folder of the cache, made if it is missing.
    pub(crate) fn subfolder(&self, name: &str) -> Result<PathBuf, Error> {
        let folder = self.folder.join(name);
        std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        Ok(folder)
    }

    /// The files of these packages, in the same order: from the cache if their bytes are the pinned ones, else fetched.
    ///
    /// # Errors
    /// If one cannot be had.
    pub async fn packages(&self, packages: &[Pinned]) -> Result<Vec<PathBuf>, Error> {
        let folder = self.subfolder("debs")?;
        output::remove_stale(&folder);
        let one = |pinned: Pinned| {
            let path = folder.join(format!("{}.deb", pinned.sha256));
            async move {
                if !is_intact(&path, &pinned).await? {
                    self.fetch(&pinned, &path).await?;
                }
                Ok(path)
            }
        };
        stream::iter(packages.iter().cloned().map(one)).buffered(AT_ONCE).try_collect().await
    }

    async fn fetch(&self, pinned: &Pinned, path: &Path) -> Result<(), Error> {
        if self.offline {
            let (name, version) = (pinned.name.clone(), pinned.version.clone());
            return Err(Error::Offline { name, version, cache: self.folder.clone() });
        }
        download::package(self, pinned, path).await
    }
}

/// Whether the cache has a package with the pinned bytes. A disk that forgot some of them is no reason to fail.
async fn is_intact(path: &Path, pinned: &Pinned) -> Result<bool, Error> {
    match tokio::fs::metadata(path).await {
        Ok(metadata) if metadata.len() == pinned.size => {
            let bytes = tokio::fs::read(path).await.map_err(Error::io("read", path))?;
            Ok(Sha256::of(&bytes) == pinned.sha256)
        }
        Ok(_) => Ok(false),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}
