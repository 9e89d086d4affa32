//! `cocoon image`: the guest's image, what it measures, and what differs.

mod diff;
mod measure;
mod record;
mod verify;

use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use cocoon_image::diff::Difference;
use cocoon_image_build::VerifyError;

use crate::error::Failure;
use crate::ui::{Screen, printable};

/// Something differs: as `cocoon verify` rejects.
const EXIT_DIFFERENT: u8 = 3;
/// The word for every profile.
const ALL: &str = "all";
/// No manifest, record, configuration or evidence is longer than this many bytes.
const FILE_MAX: u64 = 16 << 20;

#[derive(clap::Subcommand)]
pub(crate) enum Commands {
    /// Predict, from files alone, what the image measures on a machine
    Measure(measure::Arguments),
    /// Hold an image's files against its manifest
    Verify(verify::Arguments),
    /// Explain in what two manifests, or a manifest and a machine's evidence, differ
    Diff(diff::Arguments),
    /// Make a machine's record from the log of a boot on it
    Record(record::Arguments),
}

pub(crate) fn run(command: &Commands) -> Result<ExitCode, Failure> {
    match command {
        Commands::Measure(arguments) => measure::run(arguments),
        Commands::Verify(arguments) => verify::run(arguments),
        Commands::Diff(arguments) => diff::run(arguments),
        Commands::Record(arguments) => record::run(arguments),
    }
}

/// Differences for people, or as one JSON object.
fn report(screen: &Screen, differences: &[Difference], json: bool) -> Result<(), Failure> {
    if json {
        let object = serde_json::json!({ "differences": differences });
        return crate::ui::print(&serde_json::to_string_pretty(&object).expect("strings are JSON"));
    }
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
    Ok(())
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
