//! `cocoon image build`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use cocoon_image::manifest::{Manifest, Variant};
use cocoon_image_build::{Error, Order, Programs, Progress, Quiet, build};
use serde::Serialize;

use super::{Source, bars, explained, here};
use crate::error::Failure;
use crate::ui::{Screen, grouped};

#[derive(clap::Args)]
#[command(after_help = "\
The same source, lock and toolchain give the same bits, whoever builds them and where. Needs neither root rights nor
containers: packages are unpacked into the cache, and their tools run from there.")]
pub(crate) struct Arguments {
    /// Which image: the development image has a console and the simulated TEE, and its measurements say so
    #[arg(long, value_enum, default_value_t = Which::Development)]
    variant: Which,
    /// The folder to make, or to replace if it holds an image [default: cocoon-image/VARIANT]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A folder with cocoon-init and cocoon-guest, instead of building them here
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Fetch nothing: everything must be in the cache
    #[arg(long)]
    offline: bool,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: Source,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Which {
    Development,
    Production,
}

/// What `--json` prints, in this order.
#[derive(Serialize)]
struct Output<'a> {
    folder: &'a Path,
    manifest_sha256: String,
    seconds: f64,
    manifest: &'a Manifest,
}

pub(super) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let variant = match arguments.variant {
        Which::Development => Variant::Development,
        Which::Production => Variant::Production,
    };
    let out = arguments.out.clone().unwrap_or_else(|| Path::new("cocoon-image").join(variant.word()));
    let lock = arguments.source.read_lock().map_err(explained)?;
    let store = arguments.source.store(arguments.offline, arguments.json)?;
    let programs = programs(&arguments).await.map_err(explained)?;
    let order = Order { variant, out: &out, programs: &programs, lock: &lock };
    let manifest = build(order, &store).await.map_err(explained)?;
    let seconds = started.elapsed().as_secs_f64();
    if arguments.json {
        let manifest_sha256 = manifest.digest().to_string();
        let output = Output { folder: &out, manifest_sha256, seconds, manifest: &manifest };
        crate::ui::print(&serde_json::to_string_pretty(&output).expect("strings and numbers are JSON"))?;
    } else {
        show(&Screen::new(false), &manifest, &out, seconds);
    }
    Ok(ExitCode::SUCCESS)
}

/// Those that are named, or built from the source around here.
async fn programs(arguments: &Arguments) -> Result<Programs, Error> {
    if let Some(folder) = &arguments.programs {
        return Programs::in_folder(folder);
    }
    let (source, offline, silent) = (here()?, arguments.offline, arguments.json);
    let building = tokio::task::spawn_blocking(move || {
        if silent {
            Programs::build(&source, offline, &Quiet)
        } else {
            let progress = bars::progress();
            Programs::build(&source, offline, &*progress as &dyn Progress)
        }
    });
    building.await.expect("building does not panic")
}

fn show(screen: &Screen, manifest: &Manifest, out: &Path, seconds: f64) {
    let files = &manifest.files;
    screen.line(&format!("{} {}", screen.bold(manifest.variant.word()), screen.dim("image")));
    let file = |name: &str, size: u64, sha256: &dyn std::fmt::Display| {
        let kib = grouped(size.div_ceil(1024));
        screen.detail(name, &format!("{kib:>9} KiB  {}", screen.dim(&format!("sha256 {sha256}"))));
    };
    file("kernel", files.kernel.size, &files.kernel.sha256);
    file("initrd", files.initrd.size, &files.initrd.sha256);
    file("root", files.root.size, &files.root.sha256);
    for firmware in &manifest.firmware {
        file("firmware", firmware.size, &firmware.sha256);
    }
    screen.detail("root hash", &files.root.verity.root_hash.to_string());
    screen.detail("manifest", &manifest.digest().to_string());
    screen.detail("folder", &format!("{} ({seconds:.1} s)", out.display()));
    screen.detail("next", &format!("cocoon image measure {}", out.join("manifest.json").display()));
}
