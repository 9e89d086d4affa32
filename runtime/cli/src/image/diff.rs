//! `cocoon image diff`: two manifests, or a manifest and what a machine showed, in words.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cocoon_attestation::tdx::{Quote, Report};
use cocoon_attestation::{Bundle, EventLog, Evidence, Measurements, Tee, snp};
use cocoon_image::diff::{Difference, LogKind, Observed, launch_digest, log, manifests, observed, quote};
use cocoon_image::manifest::{Manifest, Measurement, Registers};

use super::{EXIT_DIFFERENT, read_bytes, show_differences};
use crate::error::Failure;
use crate::ui::Screen;

#[derive(clap::Args)]
#[command(after_help = "\
What a machine showed: a worker's bundle, a TDX quote, an SEV-SNP report, or an event log (CCEL of a TD, or the
binary_bios_measurements of a TPM). Signatures are not looked at here: that is what cocoon verify does.

Held against a manifest is the boot: MRTD and RTMR0 to RTMR2, or SNP's launch digest. What else the evidence shows is named
as not compared. A log that comes with a quote must replay to it.

Exit codes: 0 nothing differs; 1 and 2 as everywhere; 3 something differs.")]
pub(crate) struct Arguments {
    /// The manifest that is expected
    expected: PathBuf,
    /// Another manifest, or what a machine showed
    found: PathBuf,
    /// The machine profile to compare with; the one that fits best if left out
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// The event log that belongs to a quote, where it is not in a bundle
    #[arg(long, value_name = "FILE")]
    event_log: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What is held against the manifest.
enum Found {
    Manifest(Box<Manifest>),
    Quote(Box<Td>, Option<Vec<u8>>),
    Report { measurement: [u8; 48], debug: bool },
    Log(Vec<u8>),
}

/// What is looked at of a TD's quote.
struct Td {
    measurements: Measurements,
    /// DEBUG or profiling (Intel TDX Module ABI, TD_ATTRIBUTES bits 0 and 4 to 6).
    debug: bool,
}

impl Found {
    /// What it shows and nobody compares here.
    fn not_compared(&self) -> &'static [&'static str] {
        match self {
            Self::Manifest(_) => &[],
            Self::Quote(..) => &[
                "RTMR3 (configuration and weights)",
                "MRCONFIGID",
                "MROWNER",
                "MROWNERCONFIG",
                "attributes",
                "XFAM",
                "the TDX module and its TCB",
                "the signature",
            ],
            Self::Report { .. } => {
                &["host data (configuration)", "policy", "VMPL", "ID block", "the TCB", "the signature"]
            }
            Self::Log(_) => {
                &["MRTD", "RTMR3 (configuration and weights)", "whether a quote vouches for the log"]
            }
        }
    }

    /// Whether the host can look into the machine, by what the evidence says.
    fn debug(&self) -> bool {
        match self {
            Self::Quote(td, _) => td.debug,
            Self::Report { debug, .. } => *debug,
            Self::Manifest(_) | Self::Log(_) => false,
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let expected = manifest(&read_bytes(&arguments.expected)?, &arguments.expected)?;
    let found = found(arguments)?;
    let differences = match &found {
        Found::Manifest(other) => manifests(&expected, other),
        machine => best(&expected, arguments, machine)?,
    };
    let screen = Screen::new(arguments.json);
    if arguments.json {
        let (not_compared, debug) = (found.not_compared(), found.debug());
        let object = serde_json::json!({
            "differences": differences, "not_compared": not_compared, "debug": debug,
        });
        crate::ui::print(&serde_json::to_string_pretty(&object).expect("strings are JSON"))?;
    }
    show_differences(&screen, &differences);
    if found.debug() {
        let what = "debug is on: the host can look into this machine and change it";
        screen.line(&screen.warn(&format!("{what}; never send it anything, whatever it measures")));
    }
    if differences.is_empty() {
        screen.line(&format!("{} nothing differs", screen.good("✓")));
        if !found.not_compared().is_empty() {
            let names = found.not_compared().join(", ");
            screen.detail("not compared", &format!("{names}: that is what cocoon verify does"));
        }
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::from(EXIT_DIFFERENT))
}

/// The differences from the profile that is named, or from the one with the fewest.
fn best(expected: &Manifest, arguments: &Arguments, found: &Found) -> Result<Vec<Difference>, Failure> {
    let named = |measurement: &&Measurement| {
        arguments.profile.as_ref().is_none_or(|name| *name == measurement.profile)
    };
    let mut candidates = Vec::new();
    for measurement in expected.measurements.iter().filter(named) {
        if let Some(differences) = compared(measurement, found)? {
            candidates.push(differences);
        }
    }
    candidates.into_iter().min_by_key(Vec::len).ok_or_else(|| {
        Failure::usage(
            "the manifest has no measurement for this kind of machine, or not by that name",
            "see its list `measurements`, or predict more: cocoon image measure",
        )
    })
}

/// `None` if the measurement is of another platform than what was found.
fn compared(expected: &Measurement, found: &Found) -> Result<Option<Vec<Difference>>, Failure> {
    let is_snp = matches!(expected.registers, Registers::Snp { .. });
    Ok(match found {
        Found::Quote(td, log) if !is_snp => {
            let log = log.as_deref().map(events).transpose()?;
            Some(quote(expected, &td.measurements, log.as_deref()))
        }
        Found::Log(bytes) if !is_snp => Some(log(expected, &events(bytes)?)),
        Found::Report { measurement, .. } if is_snp => Some(launch_digest(expected, *measurement)),
        _ => None,
    })
}

fn events(bytes: &[u8]) -> Result<Vec<Observed>, Failure> {
    let parsed = EventLog::parse(bytes);
    let parsed =
        parsed.map_err(|error| Failure::usage(format!("the event log: {error}"), "name a whole log"))?;
    Ok(observed(&parsed, LogKind::of(&parsed)))
}

/// Tells by its form what was found.
fn found(arguments: &Arguments) -> Result<Found, Failure> {
    let bytes = read_bytes(&arguments.found)?;
    let log = arguments.event_log.as_deref().map(read_bytes).transpose()?;
    if let Ok(manifest) = Manifest::from_json(&bytes) {
        return Ok(Found::Manifest(Box::new(manifest)));
    }
    if EventLog::parse(&bytes).is_ok() {
        return Ok(Found::Log(bytes));
    }
    match Evidence::detect(&bytes) {
        Ok(Evidence::Bundle(Bundle { tee: Tee::Tdx, quote, event_log, .. })) => {
            Ok(Found::Quote(registers(&quote)?, log.or(event_log)))
        }
        Ok(Evidence::Bundle(Bundle { tee: Tee::Snp, quote, .. }) | Evidence::SnpReport(quote)) => {
            let report = snp::Report::parse(&quote).map_err(|error| unreadable(&error.to_string()))?;
            Ok(Found::Report { measurement: report.measurement, debug: report.policy.debug() })
        }
        Ok(Evidence::TdxQuote(quote)) => Ok(Found::Quote(registers(&quote)?, log)),
        _ => Err(unreadable(&format!("{} is none of what can be compared", arguments.found.display()))),
    }
}

fn registers(quote: &[u8]) -> Result<Box<Td>, Failure> {
    const DEBUG_AND_PROFILING: u64 = 0x71;
    let quote = Quote::parse(quote).map_err(|error| unreadable(&error.to_string()))?;
    let Report::Td(body) = quote.report else {
        return Err(unreadable("the quote is of an SGX enclave"));
    };
    let measurements = Measurements {
        mrtd: body.mrtd,
        rtmr: body.rtmr,
        mrconfigid: body.mrconfigid,
        mrowner: body.mrowner,
        mrownerconfig: body.mrownerconfig,
    };
    Ok(Box::new(Td { measurements, debug: body.attributes & DEBUG_AND_PROFILING != 0 }))
}

fn unreadable(what: &str) -> Failure {
    Failure::usage(what, "name a manifest, bundle, TDX quote, SEV-SNP report or event log")
}

fn manifest(bytes: &[u8], path: &Path) -> Result<Manifest, Failure> {
    Manifest::from_json(bytes).map_err(|error| {
        Failure::usage(format!("{}: {error}", path.display()), "take the manifest as it was published")
    })
}
