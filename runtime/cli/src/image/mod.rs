//! `cocoon image`: the guest's image, from locked packages to files whose hashes anybody can make again.

mod bars;
mod build;
mod lock;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use cocoon_image_build::{ARCHIVE, Error, Lock, Progress, Quiet, Store, source_tree};

use crate::error::{Failure, chain};

#[derive(clap::Subcommand)]
pub(crate) enum Commands {
    /// Build an image: kernel, initrd, root with dm-verity, firmware, manifest; the same bits everywhere
    Build(build::Arguments),
    /// Check or renew the list of packages that images and their tools are made of
    Lock(lock::Arguments),
}

/// Where packages come from and are kept.
#[derive(clap::Args)]
struct Source {
    /// The lock file [default: guest-image/image.lock of the source tree, else the one this program was built with]
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    /// The archive of packages
    #[arg(long, value_name = "URL", env = "COCOON_ARCHIVE", default_value = ARCHIVE)]
    archive: String,
}

impl Source {
    /// The lock file that is named, or that of the source tree around the present folder.
    fn lock_file(&self) -> Result<PathBuf, Error> {
        match &self.lock {
            Some(path) => Ok(path.clone()),
            None => Ok(here()?.join("guest-image/image.lock")),
        }
    }

    fn read_lock(&self) -> Result<Lock, Error> {
        match self.lock_file() {
            Ok(path) => Lock::read(&path),
            Err(Error::NoSource { .. }) => Ok(Lock::built_in()),
            Err(error) => Err(error),
        }
    }

    fn store(&self, offline: bool, silent: bool) -> Result<Store, Failure> {
        let folder = Store::default_folder().ok_or_else(|| {
            Failure::new("neither XDG_CACHE_HOME nor HOME says where packages can be kept", "set one of them")
        })?;
        let progress: Arc<dyn Progress> = if silent { Arc::new(Quiet) } else { bars::progress() };
        Store::new(folder, &self.archive, offline, progress).map_err(explained)
    }
}

pub(crate) async fn run(command: Commands) -> Result<ExitCode, Failure> {
    match command {
        Commands::Build(arguments) => build::run(arguments).await,
        Commands::Lock(arguments) => lock::run(arguments).await,
    }
}

/// The source tree that the present folder is in.
fn here() -> Result<PathBuf, Error> {
    source_tree(&std::env::current_dir().unwrap_or_else(|_| Path::new(".").to_owned()))
}

/// An error of the builder with its remedy.
fn explained(error: Error) -> Failure {
    Failure::new(chain(&error), error.remedy())
}
