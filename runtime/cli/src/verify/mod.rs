//! `cocoon verify`: the verifier at the command line, offline.

mod endorsements;
mod help;
mod html;
mod inputs;
mod receipt;
mod show;

use std::path::PathBuf;
use std::process::ExitCode;

use cocoon_attestation::{Context, Endorsements, Evidence, Refusal, UnixTime, Verdict, Verifier};
use serde::Serialize;

use crate::error::Failure;
use crate::fetch::{FetchArguments, gather};
use crate::ui::Screen;
use inputs::Inputs;
pub(crate) use inputs::{BeaconFile, read_file, read_policies};
use receipt::{CheckedReceipt, Paper};

/// A signature does not hold.
const EXIT_SIGNATURE: u8 = 4;

#[derive(clap::Args)]
#[command(after_help = help::after())]
pub(crate) struct Arguments {
    /// Evidence, or `-` for standard input: see below for what it may be
    evidence: PathBuf,
    /// What vendors say about the hardware, as files or folders of files, in any order: see below
    #[arg(long, value_name = "FILE-OR-DIR")]
    endorsements: Vec<PathBuf>,
    /// The time to verify at: Unix seconds or 2026-03-16T22:06:09Z; the present if left out
    #[arg(long, value_name = "TIME", value_parser = inputs::parse_time)]
    at: Option<UnixTime>,
    /// An exception to make, by name: see below; may be given several times
    #[arg(long, value_name = "NAME")]
    allow: Vec<String>,
    /// The challenge, 32 bytes, that raw GPU or Azure evidence, or with --policy a bundle's statement, must carry
    #[arg(long, value_name = "HEX", value_parser = inputs::parse_hex32)]
    nonce: Option<[u8; 32]>,
    /// The report data, 64 bytes, that the CPU's quote or report must carry
    #[arg(long, value_name = "HEX", value_parser = inputs::parse_hex64)]
    report_data: Option<[u8; 64]>,
    /// What is accepted (TOML); with it the verdict can be `trusted`. Of several, each must accept: the strictest wins
    #[arg(long, value_name = "FILE")]
    policy: Vec<PathBuf>,
    /// A release (TOML), or an image's manifest.json: beyond what the policy says, only its images are accepted
    #[arg(long, value_name = "FILE", requires = "policy")]
    release: Vec<PathBuf>,
    /// The masterchain block that dates the evidence, from a source you trust: JSON with seqno, root_hash, time
    #[arg(long, value_name = "FILE", requires = "policy")]
    beacon: Option<PathBuf>,
    /// The root certificate (DER) of a simulated platform; evidence under it is always called SIMULATED
    #[arg(long, value_name = "FILE")]
    simulated_root: Vec<PathBuf>,
    /// A receipt that the attested key must have signed, for this very statement
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
    /// The opening of the receipt's commitment, if you were given it
    #[arg(long, value_name = "FILE", requires = "receipt")]
    opening: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Also write one self-contained page that can be sent on
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    fetch: FetchArguments,
}

/// What `--json` prints, in this order.
#[derive(Serialize)]
struct Output<'a> {
    #[serde(flatten)]
    verdict: &'a Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<receipt::Words>,
}

/// Everything that came out.
struct Outcome {
    verdict: Verdict,
    /// Evidence and endorsements, as far as they could be read: what there is to show beside the verdict.
    evidence: Option<Evidence>,
    endorsements: Endorsements,
    receipt: Option<CheckedReceipt>,
}

impl Outcome {
    fn exit_code(&self) -> u8 {
        match &self.receipt {
            Some(checked) if checked.wrong.is_some() => EXIT_SIGNATURE,
            _ => self.verdict.exit_code(),
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut inputs = Inputs::read(arguments)?;
    let files = endorsements::read(&arguments.endorsements)?;
    let paper = arguments
        .receipt
        .as_deref()
        .map(|path| Paper::read(path, arguments.opening.as_deref()))
        .transpose()?;
    let outcome = judge(arguments, &mut inputs, &files, paper)?;
    if arguments.json {
        let receipt = outcome.receipt.as_ref().map(CheckedReceipt::words);
        let output = Output { verdict: &outcome.verdict, receipt };
        let text = serde_json::to_string_pretty(&output).expect("strings are JSON");
        crate::ui::print(&text)?;
    } else {
        let screen = Screen::new(false);
        show::verdict(&screen, &outcome.verdict, inputs.policy.is_some());
        if let Some(checked) = &outcome.receipt {
            checked.show(&screen);
        }
    }
    if let Some(path) = &arguments.html {
        html::write(path, arguments, &inputs, &outcome)?;
    }
    Ok(ExitCode::from(outcome.exit_code()))
}

/// The whole way: what is it, what vouches for it, is it genuine, is it accepted, and does the receipt belong to it?
///
/// # Errors
/// Only for flags that say nothing about this kind of evidence.
fn judge(
    arguments: &Arguments,
    inputs: &mut Inputs,
    files: &[endorsements::File],
    paper: Option<Paper>,
) -> Result<Outcome, Failure> {
    let evidence = Evidence::detect(&inputs.evidence);
    if let Ok(evidence) = &evidence {
        inputs.check_nonce_is_of_use(evidence)?;
    }
    let mut endorsements = endorsements::sorted(files)?;
    if let (Ok(_), Ok(given)) = (&evidence, &mut endorsements) {
        let now = inputs.context.now;
        gather(&arguments.fetch, &inputs.evidence, now, given, &mut inputs.anchors, arguments.json)?;
    }
    let verdict = match (&evidence, &endorsements) {
        (Err(refusal), _) | (Ok(_), Err(refusal)) => Verdict::from(refusal),
        (Ok(evidence), Ok(endorsements)) => {
            verify(inputs, evidence, endorsements).unwrap_or_else(|refusal| Verdict::from(&refusal))
        }
    }
    .with_exceptions(&inputs.exceptions);
    let statement = evidence.as_ref().ok().and_then(statement_of);
    // A receipt says something only under evidence that holds.
    let receipt = paper.filter(|_| verdict.exit_code() == 0).map(|paper| paper.check(statement));
    Ok(Outcome { verdict, endorsements: endorsements.unwrap_or_default(), receipt, evidence: evidence.ok() })
}

fn verify(inputs: &Inputs, evidence: &Evidence, endorsements: &Endorsements) -> Result<Verdict, Refusal> {
    let Inputs { anchors, exceptions, policy, context, .. } = inputs;
    let mut verifier = Verifier::new(anchors, exceptions, context.now);
    // A bundle's challenge is in its statement, and compared there.
    if let Some(nonce) = context.nonce.filter(|_| statement_of(evidence).is_none()) {
        verifier = verifier.with_nonce(nonce);
    }
    let mut genuine = verifier.verify(evidence, endorsements)?;
    if let Some(expected) = &inputs.report_data {
        genuine = genuine.with_report_data(expected)?;
    }
    match policy {
        None => Ok(Verdict::from(&genuine)),
        Some(policy) => policy.appraise(genuine, context).map(|trusted| Verdict::from(&trusted)),
    }
}

/// The statement inside a bundle.
fn statement_of(evidence: &Evidence) -> Option<&[u8]> {
    match evidence {
        Evidence::Bundle(bundle) => Some(&bundle.statement),
        Evidence::RaTls(_, inner) => statement_of(inner),
        _ => None,
    }
}
