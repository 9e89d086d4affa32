//! `cocoon image verify`: an image folder held against its manifest, or the manifest against what the source gives here.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cocoon_image::diff::{Difference, manifests};
use cocoon_image::manifest::Manifest;
use cocoon_image_build::{Order, build, verify};
use serde::Serialize;

use super::programs::Origin;
use super::{EXIT_DIFFERENT, Source, explained, image_error, read_bytes, show_differences};
use crate::error::Failure;
use crate::ui::Screen;

#[derive(clap::Args)]
#[command(after_help = "\
Every file is hashed again, the root's dm-verity tree and all measurements are made again, and compared.

With --rebuild the image is built again from the source tree around here, and the manifest is held against that: so whoever
published it is not believed, and the manifest alone is enough. Programs take minutes to build for the first time; check out the
source that the image was released from.

Exit codes: 0 all is as the manifest says; 1 and 2 as everywhere; 3 something differs.",
    mut_args(|arg| if ["programs", "offline", "lock"].contains(&arg.get_id().as_str()) { arg.requires("rebuild") } else { arg }))]
pub(crate) struct Arguments {
    /// The manifest.json of an image folder
    manifest: PathBuf,
    /// Build the image again and explain in what the manifest differs from that
    #[arg(long)]
    rebuild: bool,
    #[command(flatten)]
    origin: Origin,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: Source,
}

/// What `--json` prints, in this order.
#[derive(Serialize)]
struct Output<'a> {
    manifest_sha256: String,
    /// Whether the files beside the manifest were looked at: not if there are none and the image was rebuilt.
    files: bool,
    rebuilt: bool,
    differences: &'a [Difference],
}

/// What was looked at, and in what it differs from the manifest.
struct Outcome {
    manifest: Manifest,
    files: bool,
    rebuilt: bool,
    differences: Vec<Difference>,
}

pub(super) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let screen = Screen::new(arguments.json);
    let outcome = looked_at(&arguments).await?;
    let Outcome { manifest, files, rebuilt, differences } = &outcome;
    if arguments.json {
        let manifest_sha256 = manifest.digest().to_string();
        let output = Output { manifest_sha256, files: *files, rebuilt: *rebuilt, differences };
        crate::ui::print(&serde_json::to_string_pretty(&output).expect("strings are JSON"))?;
    }
    show_differences(&screen, differences);
    if !differences.is_empty() {
        return Ok(ExitCode::from(EXIT_DIFFERENT));
    }
    if *files {
        let count = manifest.measurements.len();
        let text = format!("files, root and {count} measurements are those of the manifest");
        screen.line(&format!("{} {text}", screen.good("✓")));
    }
    if *rebuilt {
        screen.line(&format!("{} the source here gives this manifest, bit for bit", screen.good("✓")));
    }
    screen.detail("manifest", &manifest.digest().to_string());
    Ok(ExitCode::SUCCESS)
}

async fn looked_at(arguments: &Arguments) -> Result<Outcome, Failure> {
    let path = &arguments.manifest;
    let alone = !path.with_file_name("vmlinuz").exists();
    let (manifest, mut differences) = if arguments.rebuild && alone {
        (read_manifest(path)?, Vec::new())
    } else {
        let verified = verify(path).map_err(|error| image_error(&error))?;
        (verified.manifest, verified.differences)
    };
    // Files that are not the manifest's say nothing about what the source gives.
    let files = !(arguments.rebuild && alone);
    let rebuilt = arguments.rebuild && differences.is_empty();
    if rebuilt {
        differences = manifests(&manifest, &rebuild(arguments, &manifest).await?);
    }
    Ok(Outcome { manifest, files, rebuilt, differences })
}

fn read_manifest(path: &Path) -> Result<Manifest, Failure> {
    Manifest::from_json(&read_bytes(path)?).map_err(|error| {
        Failure::usage(
            format!("{}: {error}", path.display()),
            "take the manifest as it was published, byte by byte",
        )
    })
}

/// The manifest of the same variant that comes out here and now; the image itself is thrown away.
async fn rebuild(arguments: &Arguments, published: &Manifest) -> Result<Manifest, Failure> {
    let lock = arguments.source.read_lock().map_err(explained)?;
    let store = arguments.source.store(arguments.origin.offline, arguments.json)?;
    let programs = arguments.origin.programs(arguments.json).await.map_err(explained)?;
    let folder = tempfile::tempdir().map_err(|error| {
        Failure::new(
            format!("no temporary folder: {error}"),
            "make room, or set TMPDIR to where there is some",
        )
    })?;
    let out = folder.path().join("image");
    let order = Order { variant: published.variant, out: &out, programs: &programs, lock: &lock };
    Ok(build(order, &store).await.map_err(explained)?.manifest)
}
