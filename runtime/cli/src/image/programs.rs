//! `cocoon image programs`: our own programs, as images have them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cocoon_image_build::{Error, Programs, Progress, Quiet, copy_program};

use super::{bars, explained, here};
use crate::error::Failure;
use crate::ui::Screen;

#[derive(clap::Args)]
#[command(after_help = "\
The folder is what --programs of cocoon image build and cocoon image verify takes: so programs can be built on one machine and the image
on another, or by different people.")]
pub(crate) struct Arguments {
    /// The folder to put them into
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Only cocoon-init, which takes far less time than the guest service
    #[arg(long)]
    init_only: bool,
    /// Let cargo fetch nothing
    #[arg(long)]
    offline: bool,
}

/// Where the programs of an image come from.
#[derive(clap::Args)]
pub(super) struct Origin {
    /// A folder with cocoon-init and cocoon-guest, instead of building them here
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Fetch nothing: everything must be in the cache
    #[arg(long)]
    pub(super) offline: bool,
}

impl Origin {
    /// The programs that are named, or built from the source around here.
    pub(super) async fn programs(&self, silent: bool) -> Result<Programs, Error> {
        if let Some(folder) = &self.programs {
            return Programs::in_folder(folder);
        }
        let offline = self.offline;
        built(silent, move |source, progress| Programs::build(source, offline, progress)).await
    }
}

pub(super) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let Arguments { out, init_only, offline } = arguments;
    let place = out.clone();
    let work = move |source: &Path, progress: &dyn Progress| {
        if init_only {
            copy_program(&Programs::build_init(source, offline, progress)?, &place)
        } else {
            Programs::build(source, offline, progress)?.copy_to(&place)
        }
    };
    built(false, work).await.map_err(explained)?;
    let screen = Screen::new(false);
    screen.line(&format!("{} the programs of an image", screen.good("✓")));
    screen.detail("folder", &out.display().to_string());
    Ok(ExitCode::SUCCESS)
}

/// Runs a build from the source tree around here, beside everything else.
async fn built<T: Send + 'static>(
    silent: bool,
    work: impl FnOnce(&Path, &dyn Progress) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let source = here()?;
    let building = tokio::task::spawn_blocking(move || {
        if silent { work(&source, &Quiet) } else { work(&source, &*bars::progress()) }
    });
    building.await.expect("building does not panic")
}
