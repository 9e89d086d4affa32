//! `cocoon image verify`: an image folder held against its manifest.

use std::path::PathBuf;
use std::process::ExitCode;

use cocoon_image_build::verify;

use super::{EXIT_DIFFERENT, image_error, report};
use crate::error::Failure;
use crate::ui::Screen;

#[derive(clap::Args)]
#[command(after_help = "\
Every file is hashed again, the root's dm-verity tree and all measurements are made again, and compared.

Exit codes: 0 all is as the manifest says; 1 and 2 as everywhere; 3 something differs.")]
pub(crate) struct Arguments {
    /// The manifest.json of an image folder
    manifest: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let verified = verify(&arguments.manifest).map_err(|error| image_error(&error))?;
    let digest = verified.manifest.digest();
    let screen = Screen::new(arguments.json);
    report(&screen, &verified.differences, arguments.json)?;
    if !verified.differences.is_empty() {
        return Ok(ExitCode::from(EXIT_DIFFERENT));
    }
    let count = verified.manifest.measurements.len();
    screen.line(&format!(
        "{} files, root and {count} measurements are those of the manifest",
        screen.good("✓")
    ));
    screen.detail("manifest", &digest.to_string());
    Ok(ExitCode::SUCCESS)
}
