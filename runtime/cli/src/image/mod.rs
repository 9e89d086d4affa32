//! `cocoon image`: the guest's image, from locked packages to files whose hashes anybody can make again; what it measures,
//! and what differs.

mod bars;
mod build;
mod diff;
mod lock;
mod measure;
mod programs;
mod record;
mod tools;
mod verify;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use cocoon_image::diff::Difference;
use cocoon_image_build::{ARCHIVE, Error, Lock, Progress, Quiet, Store, VerifyError, source_tree};

use crate::error::{Failure, chain};
use crate::ui::{Screen, printable};

/// Something differs: as `cocoon verify` rejects.
const EXIT_DIFFERENT: u8 = 3;
/// The file that makes a folder an image.
const MANIFEST: &str = "manifest.json";
/// The word for every profile.
const ALL: &str = "all";
/// No manifest, record, configuration or evidence is longer than this many bytes.
const FILE_MAX: u64 = 16 << 20;

#[derive(clap::Subcommand)]
pub(crate) enum Commands {
    /// Build an image: kernel, initrd, root with dm-verity, firmware, manifest; the same bits everywhere
    Build(build::Arguments),
    /// Check or renew the list of packages that images and their tools are made of
    Lock(lock::Arguments),
    /// Predict, from files alone, what the image measures on a machine
    Measure(measure::Arguments),
    /// Hold an image's files against its manifest
    Verify(verify::Arguments),
    /// Explain in what two manifests, or a manifest and a machine's evidence, differ
    Diff(diff::Arguments),
    /// Make a machine's record from the log of a boot on it
    Record(record::Arguments),
    /// Build only our own programs, as images have them
    Programs(programs::Arguments),
    /// Unpack what images run with, and say where it is: QEMU, software TPM, kernel, firmware
    Tools(tools::Arguments),
}

pub(crate) async fn run(command: Commands) -> Result<ExitCode, Failure> {
    match command {
        Commands::Build(arguments) => build::run(arguments).await,
        Commands::Lock(arguments) => lock::run(arguments).await,
        Commands::Measure(arguments) => measure::run(&arguments),
        Commands::Verify(arguments) => verify::run(arguments).await,
        Commands::Diff(arguments) => diff::run(&arguments),
        Commands::Record(arguments) => record::run(&arguments),
        Commands::Programs(arguments) => programs::run(arguments).await,
        Commands::Tools(arguments) => tools::run(arguments).await,
    }
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
        store(&self.archive, offline, silent)
    }
}

/// The user's cache of packages, trees and weights disks.
pub(crate) fn store(archive: &str, offline: bool, silent: bool) -> Result<Store, Failure> {
    let folder = Store::default_folder().ok_or_else(|| {
        Failure::new("neither XDG_CACHE_HOME nor HOME says where packages can be kept", "set one of them")
    })?;
    let progress: Arc<dyn Progress> = if silent { Arc::new(Quiet) } else { bars::progress() };
    Store::new(folder, archive, offline, progress).map_err(explained)
}

/// The source tree that the present folder is in.
fn here() -> Result<PathBuf, Error> {
    source_tree(&std::env::current_dir().unwrap_or_else(|_| Path::new(".").to_owned()))
}

/// An error of the builder with its remedy.
pub(crate) fn explained(error: Error) -> Failure {
    Failure::new(chain(&error), error.remedy())
}

/// Differences for people.
fn show_differences(screen: &Screen, differences: &[Difference]) {
    for difference in differences {
        // Manifests and logs quote what others wrote.
        for (index, line) in difference.to_string().lines().enumerate() {
            let line = printable(line);
            screen.line(&if index == 0 {
                format!("{} {}", screen.bad("✗"), screen.bold(&line))
            } else {
                line
            });
        }
    }
}

/// An error of the image's files with its remedy.
fn image_error(error: &VerifyError) -> Failure {
    Failure::usage(error.to_string(), error.remedy())
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::usage(format!("cannot read {}: {error}", path.display()), "check the name")
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(Failure::usage(format!("{} has more than 16 MiB", path.display()), "name another file"));
    }
    Ok(bytes)
}

fn read_text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read_bytes(path)?)
        .map_err(|_| Failure::usage(format!("{} is no text", path.display()), "name a text file"))
}
