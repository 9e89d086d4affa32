//! `cocoon image measure`: what an image will measure, from its files alone.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cocoon_attestation::{ImageReference, Pin, Release};
use cocoon_image::diff::word;
use cocoon_image::manifest::{Measurement, Registers};
use cocoon_image::measure::{CannotMeasure, measure};
use cocoon_image::policy::{Configuration, release, to_toml_with_standing};
use cocoon_image::profile::{Profile, Record, built_in};
use cocoon_image::{HexBytes, Sha256};
use cocoon_image_build::Image;

use super::{ALL, image_error, read_text};
use crate::error::Failure;
use crate::ui::{Screen, one_line};

#[derive(clap::Args)]
#[command(after_help = "\
Nothing is started: MRTD, RTMR0 to RTMR2 and SNP's launch digest follow from the files and from the machine profile. What
QEMU itself generates for a machine (ACPI tables, SMBIOS) was recorded once for each profile: see cocoon image record.")]
pub(crate) struct Arguments {
    /// The manifest.json of an image folder
    manifest: PathBuf,
    /// A machine profile by name, or `all` that the image has the firmware for
    #[arg(long, value_name = "NAME", default_value = ALL)]
    profile: String,
    /// A record of that machine, in place of the one that this program has
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Print a release (TOML) that accepts exactly these measurements, for `cocoon verify --release`; its [[images]] are
    /// what a policy needs too
    #[arg(long, conflicts_with_all = ["json", "events"])]
    policy: bool,
    /// The guest's config.toml: with it the release pins the configuration too; SNP needs it
    #[arg(long, value_name = "FILE", requires = "policy", requires = "weights")]
    config: Option<PathBuf>,
    /// SHA-256 of the model file
    #[arg(long, value_name = "HEX", requires = "config", value_parser = sha256)]
    weights: Option<Sha256>,
    /// Also show each event, with what was measured
    #[arg(long)]
    events: bool,
    /// Print one JSON array of measurements, as a manifest has them
    #[arg(long)]
    json: bool,
}

fn sha256(text: &str) -> Result<Sha256, &'static str> {
    HexBytes::from_hex(text).ok_or("expected 64 lower-case hex digits")
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut image = Image::read(&arguments.manifest).map_err(|error| image_error(&error))?;
    let screen = Screen::new(arguments.json || arguments.policy);
    let measurements = predicted(arguments, &image, &screen)?;
    if arguments.json {
        let text = serde_json::to_string_pretty(&measurements).expect("digests are JSON");
        crate::ui::print(&text)?;
    } else if arguments.policy {
        image.manifest.measurements = measurements;
        print_policy(arguments, &image)?;
    } else {
        for measurement in &measurements {
            show(&screen, measurement, arguments.events);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What the chosen profiles measure; at least one.
fn predicted(arguments: &Arguments, image: &Image, screen: &Screen) -> Result<Vec<Measurement>, Failure> {
    let record = arguments.record.as_deref().map(read_record).transpose()?;
    let all = arguments.profile == ALL;
    if all && record.is_some() {
        return Err(Failure::usage("a record is of one machine", "name it with --profile"));
    }
    let mut measurements = Vec::new();
    for (profile, own) in built_in() {
        if !all && profile.name != arguments.profile {
            continue;
        }
        let Some(files) = image.boot_files(&profile.firmware) else {
            if all {
                continue;
            }
            return Err(no_firmware(&profile));
        };
        match measure(&files, &profile, record.as_ref().or(own.as_ref())) {
            Ok(measurement) => measurements.push(measurement),
            Err(error @ CannotMeasure::NoRecord(_)) if all => {
                screen.line(&format!("{} {error}", screen.warn("left out:")));
            }
            Err(error) => {
                return Err(Failure::new(
                    format!("{}: {error}", profile.name),
                    "see cocoon image measure --help",
                ));
            }
        }
    }
    if measurements.is_empty() {
        let names: Vec<_> = built_in().into_iter().map(|(profile, _)| profile.name).collect();
        let what =
            format!("there is no machine profile {:?} that this image has firmware for", arguments.profile);
        return Err(Failure::usage(what, format!("name one of: {}, or {ALL}", names.join(", "))));
    }
    Ok(measurements)
}

fn no_firmware(profile: &Profile) -> Failure {
    Failure::usage(
        format!("the image has no firmware {}, which the profile {} starts", profile.firmware, profile.name),
        "production images have the firmware of TDX and SNP, development images that of emulation: name another profile",
    )
}

fn read_record(path: &Path) -> Result<Record, Failure> {
    let unusable = |error: cocoon_image::profile::InvalidProfile| {
        Failure::usage(format!("{}: {error}", path.display()), "make it with cocoon image record")
    };
    Record::from_toml(&read_text(path)?).map_err(unusable)
}

fn print_policy(arguments: &Arguments, image: &Image) -> Result<(), Failure> {
    let text = arguments.config.as_deref().map(read_text).transpose()?;
    let configuration = text
        .as_deref()
        .zip(arguments.weights)
        .map(|(text, weights)| Configuration { bytes: text.as_bytes(), weights_sha256: weights.0 });
    let (release, left_out) = release(&image.manifest, configuration.as_ref());
    for profile in &left_out {
        eprintln!(
            "left out: {profile}: SNP has no register for the configuration; give --config and --weights"
        );
    }
    if release.images.is_empty() {
        return Err(Failure::usage("nothing is left to accept", "give --config FILE and --weights HEX"));
    }
    if let Some(words) = open_register(&release) {
        eprintln!("warning: {words}");
    }
    crate::ui::print(&to_toml_with_standing(&release, &image.manifest))
}

/// What a release leaves open, in words: RTMR3 holds the configuration and the weights.
fn open_register(release: &Release) -> Option<String> {
    let is_open =
        |image: &&ImageReference| image.tdx.as_ref().is_some_and(|registers| registers.rtmr3 == Pin::Free);
    let images: Vec<_> = release.images.iter().filter(is_open).map(|image| one_line(&image.name)).collect();
    (!images.is_empty()).then(|| {
        format!(
            "RTMR3 is free for {}: any configuration and any weights are accepted. To pin both, give --config FILE and \
             --weights HEX",
            images.join(", ")
        )
    })
}

fn show(screen: &Screen, measurement: &Measurement, events: bool) {
    let Measurement { profile, firmware, qemu, registers, .. } = measurement;
    screen.line("");
    screen.line(&format!(
        "{}  {}",
        screen.bold(profile),
        screen.dim(&format!("QEMU {qemu}, firmware {firmware}"))
    ));
    let standing = measurement.standing();
    let proved = measurement.is_proved();
    screen.detail("standing", &if proved { standing.to_owned() } else { screen.warn(standing) });
    match registers {
        Registers::Tdx(tdx) | Registers::Emulation(tdx) => {
            screen.detail("MRTD", &tdx.mrtd.to_string());
            for (index, value) in tdx.rtmr.iter().enumerate() {
                screen.detail(&format!("RTMR{index}"), &value.to_string());
            }
        }
        Registers::Snp { launch_digest } => screen.detail("digest", &launch_digest.to_string()),
    }
    for event in measurement.events.iter().filter(|_| events) {
        screen.line(&format!(
            "   {:<13} {} {}",
            word(event.register),
            screen.dim(&event.digest.to_string()),
            event.what
        ));
    }
}

#[cfg(test)]
mod tests {
    use cocoon_image::Manifest;

    use super::*;

    #[test]
    fn a_release_that_accepts_any_configuration_is_warned_of() {
        let manifest = include_bytes!("../../../../guest-image/tests/golden/manifest.json");
        let manifest = Manifest::from_json(manifest).expect("a real one");
        let words = open_register(&release(&manifest, None).0).expect("RTMR3 is free");
        assert!(
            words.contains("RTMR3") && words.contains("emulation-1") && words.contains("--config"),
            "{words}"
        );
        let configuration = Configuration { bytes: b"network = -3\n", weights_sha256: [7; 32] };
        assert_eq!(open_register(&release(&manifest, Some(&configuration)).0), None);
    }
}
