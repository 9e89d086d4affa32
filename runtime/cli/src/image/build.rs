//! `cocoon image build`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use cocoon_image::manifest::{Manifest, Variant};
use cocoon_image_build::{Built, Order, build, default_image_folder};
use serde::Serialize;

use super::programs::Origin;
use super::{MANIFEST, Source, explained};
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
    /// The folder to make, or to replace if it holds an image [default: images/VARIANT in Cocoon's cache, where
    /// cocoon demo --vm and cocoon host up --vm look]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    origin: Origin,
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
    /// Machine profiles that could boot it, but of which there is no record, so that nothing is predicted for them.
    not_recorded: &'a [String],
    manifest: &'a Manifest,
}

pub(super) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let variant = match arguments.variant {
        Which::Development => Variant::Development,
        Which::Production => Variant::Production,
    };
    let home = default_image_folder(variant);
    let out = arguments.out.clone().or_else(|| home.clone()).ok_or_else(|| {
        Failure::new(
            "neither XDG_CACHE_HOME nor HOME says where the image can go",
            "name a folder with --out",
        )
    })?;
    let lock = arguments.source.read_lock().map_err(explained)?;
    let store = arguments.source.store(arguments.origin.offline, arguments.json)?;
    let programs = arguments.origin.programs(arguments.json).await.map_err(explained)?;
    let order = Order { variant, out: &out, programs: &programs, lock: &lock };
    let built = build(order, &store).await.map_err(explained)?;
    let seconds = started.elapsed().as_secs_f64();
    if arguments.json {
        let Built { manifest, not_recorded } = &built;
        let manifest_sha256 = manifest.digest().to_string();
        let output = Output { folder: &out, manifest_sha256, seconds, not_recorded, manifest };
        crate::ui::print(&serde_json::to_string_pretty(&output).expect("strings and numbers are JSON"))?;
    } else {
        let screen = Screen::new(false);
        show(&screen, &built, &out, seconds);
        let elsewhere = home.as_ref() != Some(&out);
        next_steps(&screen, variant, &out, elsewhere);
    }
    Ok(ExitCode::SUCCESS)
}

fn show(screen: &Screen, built: &Built, out: &Path, seconds: f64) {
    let Manifest { variant, files, firmware, measurements, .. } = &built.manifest;
    screen.line(&format!("{} {} image", screen.good("✓"), screen.bold(variant.word())));
    let file = |name: &str, size: u64, sha256: &dyn std::fmt::Display| {
        let kib = grouped(size.div_ceil(1024));
        screen.detail(name, &format!("{kib:>9} KiB  {}", screen.dim(&format!("sha256 {sha256}"))));
    };
    file("kernel", files.kernel.size, &files.kernel.sha256);
    file("initrd", files.initrd.size, &files.initrd.sha256);
    file("root", files.root.size, &files.root.sha256);
    file("cmdline", files.cmdline.size, &files.cmdline.sha256);
    for firmware in firmware {
        file("firmware", firmware.size, &format_args!("{}  {}", firmware.sha256, firmware.name));
    }
    screen.detail("root hash", &files.root.verity.root_hash.to_string());
    screen.detail("manifest", &built.manifest.digest().to_string());
    let measured: Vec<_> = measurements.iter().map(|own| own.profile.as_str()).collect();
    screen.detail("measured", &format!("for {}: {}", machines(measured.len()), measured.join(", ")));
    for own in measurements.iter().filter(|own| !own.is_proved()) {
        screen.detail("unproved", &screen.warn(&format!("{}: {}", own.profile, own.standing())));
    }
    if !built.not_recorded.is_empty() {
        let names = built.not_recorded.join(", ");
        let why = "nobody has booted it yet; see cocoon image record --help";
        screen.detail("left out", &screen.warn(&format!("{names}: no record of that machine ({why})")));
    }
    screen.detail("folder", &format!("{} ({seconds:.1} s)", out.display()));
}

fn machines(count: usize) -> String {
    if count == 1 { "1 machine profile".into() } else { format!("{count} machine profiles") }
}

/// What one does with such an image.
fn next_steps(screen: &Screen, variant: Variant, out: &Path, elsewhere: bool) {
    let image = if elsewhere { format!(" --image {}", out.display()) } else { String::new() };
    let manifest = out.join(MANIFEST);
    screen.line("next");
    screen.line(&format!("   cocoon image measure {}", manifest.display()));
    match variant {
        Variant::Development => {
            screen.line(&format!("   cocoon demo --vm{image}"));
            screen.line(&format!("   cocoon host up --vm{image}"));
        }
        // It boots where there is a TEE, and who it belongs to is in a file.
        Variant::Production => {
            screen.line(&format!(
                "   cocoon host up --config host.toml    with image = {out:?}; docs/operating.md"
            ));
        }
    }
}
