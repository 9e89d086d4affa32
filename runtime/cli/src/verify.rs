//! `cocoon verify`: the verifier at the command line, offline.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use cocoon_attestation::{
    Context, Endorsements, Evidence, Exceptions, KnownBlock, Policy, Refusal, Statement, TrustAnchors,
    UnixTime, Verdict, verify,
};
use cocoon_protocol::{Opening, Receipt, SignedReceipt};
use serde::{Deserialize, Serialize};

use crate::error::{Explain, Failure};
use crate::fetch::{FetchArguments, gather};
use crate::ui::Screen;

/// A signature does not hold.
const EXIT_SIGNATURE: u8 = 4;
/// Largest file that is read.
const MAX_FILE: u64 = 4 * 1024 * 1024;
/// Most files of an endorsements folder.
const MAX_FILES: usize = 64;

#[derive(clap::Args)]
#[command(after_help = "\
Exit codes: 0 genuine or trusted, 2 usage, 3 rejected by a rule or the policy, 4 a signature or chain does not hold,
5 malformed, 6 something needed is missing or out of date, 1 our own fault.

Without --policy the verdict can be `genuine`, never `trusted`: nothing was compared with expected measurements.

Exceptions for --allow: tcb:OutOfDate, tcb:SWHardeningNeeded, tcb:ConfigurationNeeded,
tcb:ConfigurationAndSWHardeningNeeded, tcb:OutOfDateConfigurationNeeded, tcb:TDRelaunchAdvised,
tcb:TDRelaunchAdvisedConfigurationNeeded; each may carry an expiry: tcb:OutOfDate@2026-12-31.")]
pub(crate) struct Arguments {
    /// Evidence: a bundle (CMW) or a raw TDX quote
    evidence: PathBuf,
    /// Collateral, as files or folders of files, in any order
    #[arg(long, value_name = "FILE-OR-DIR")]
    endorsements: Vec<PathBuf>,
    /// The time to verify at: Unix seconds or 2026-03-16T22:06:09Z; the present if left out
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    at: Option<UnixTime>,
    /// An exception to make, by name (see below)
    #[arg(long, value_name = "NAME")]
    allow: Vec<String>,
    /// The challenge that the statement must carry (needs --policy)
    #[arg(long, value_name = "HEX", value_parser = parse_hex32, requires = "policy")]
    nonce: Option<[u8; 32]>,
    /// The report data that the quote must carry, 64 bytes
    #[arg(long, value_name = "HEX", value_parser = parse_hex64)]
    report_data: Option<[u8; 64]>,
    /// What is accepted (TOML); with it the verdict can be `trusted`
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The masterchain block that dates the evidence, from a source you trust: JSON with seqno, root_hash, time
    #[arg(long, value_name = "FILE", requires = "policy")]
    beacon: Option<PathBuf>,
    /// The root certificate (DER) of a simulated platform; evidence under it is always called SIMULATED
    #[arg(long, value_name = "FILE")]
    simulated_root: Option<PathBuf>,
    /// A receipt that the attested key must have signed, for this very statement
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
    /// The opening of the receipt's commitment, if you were given it
    #[arg(long, value_name = "FILE", requires = "receipt")]
    opening: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    fetch: FetchArguments,
}

/// A masterchain block as the user knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BeaconFile {
    pub(crate) seqno: u32,
    /// 64 hex digits.
    pub(crate) root_hash: String,
    /// Unix seconds.
    pub(crate) time: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut inputs = Inputs::read(arguments)?;
    let (endorsements, anchors) = (&mut inputs.endorsements, &mut inputs.anchors);
    gather(&arguments.fetch, &inputs.evidence, inputs.context.now, endorsements, anchors, arguments.json)?;
    let paper = arguments
        .receipt
        .as_deref()
        .map(|path| Paper::read(path, arguments.opening.as_deref()))
        .transpose()?;
    let statement = statement_of(&inputs.evidence);
    let verdict = judge(arguments, inputs);
    // A receipt says something only under evidence that holds.
    let receipt = paper.filter(|_| verdict.exit_code() == 0).map(|paper| paper.check(statement.as_deref()));
    if arguments.json {
        let mut object = serde_json::to_value(&verdict).expect("strings are JSON");
        if let Some(checked) = &receipt {
            object["receipt"] = checked.json();
        }
        println!("{}", serde_json::to_string_pretty(&object).expect("strings are JSON"));
    } else {
        show(&verdict, arguments.policy.is_some());
        if let Some(checked) = &receipt {
            checked.show();
        }
    }
    let code = match receipt {
        Some(checked) if checked.wrong.is_some() => EXIT_SIGNATURE,
        _ => verdict.exit_code(),
    };
    Ok(ExitCode::from(code))
}

/// A receipt and, if given, its opening.
struct Paper {
    receipt: SignedReceipt,
    opening: Option<Opening>,
}

/// What came out of checking one.
struct CheckedReceipt {
    receipt: Receipt,
    opened: bool,
    /// Why it does not hold.
    wrong: Option<String>,
}

impl Paper {
    fn read(receipt: &Path, opening: Option<&Path>) -> Result<Self, Failure> {
        let usage = |path: &Path, why: String| {
            Failure::usage(format!("{}: {why}", path.display()), "give the file as it was kept")
        };
        let signed =
            SignedReceipt::decode(&read_file(receipt)?).map_err(|error| usage(receipt, error.to_string()))?;
        let opening = match opening {
            None => None,
            Some(path) => Some(
                Opening::decode(&read_file(path)?).ok_or_else(|| usage(path, "not an opening".to_owned()))?,
            ),
        };
        Ok(Self { receipt: signed, opening })
    }

    fn check(self, statement: Option<&[u8]>) -> CheckedReceipt {
        let receipt = self.receipt.claimed().clone();
        let opened = self.opening.is_some();
        let wrong = self.wrong(&receipt, statement);
        CheckedReceipt { receipt, opened, wrong }
    }

    fn wrong(&self, receipt: &Receipt, statement: Option<&[u8]>) -> Option<String> {
        let Some(bytes) = statement else {
            return Some("a raw quote names no receipt key: give a bundle".to_owned());
        };
        let Ok(statement) = Statement::decode(bytes) else {
            return Some("the statement cannot be read".to_owned());
        };
        if let Err(error) = self.receipt.verify(&statement.keys.receipt) {
            return Some(error.to_string());
        }
        if receipt.statement != cocoon_attestation::statement::digest(bytes) {
            return Some(
                "it was signed under another statement of this guest: give the bundle of that time"
                    .to_owned(),
            );
        }
        let opens = self.opening.as_ref().is_none_or(|opening| opening.commitment() == receipt.commitment);
        (!opens).then(|| "the opening is not of its commitment".to_owned())
    }
}

impl CheckedReceipt {
    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "verified": self.wrong.is_none(),
            "opened": self.opened && self.wrong.is_none(),
            "why": self.wrong,
            "request_id": hex::encode(self.receipt.request_id),
            "model": hex::encode(self.receipt.model),
            "prompt_tokens": self.receipt.usage.prompt_tokens,
            "completion_tokens": self.receipt.usage.completion_tokens,
            "nanotons": self.receipt.bill(),
        })
    }

    fn show(&self) {
        let screen = Screen::new(false);
        let word = if self.wrong.is_none() { screen.good("VERIFIED") } else { screen.bad("UNVERIFIED") };
        screen.line(&format!("{} {word}", screen.bold("receipt")));
        screen.line(&format!(
            "  request {} · {} + {} tokens · {} nanotons{}",
            hex::encode(self.receipt.request_id),
            self.receipt.usage.prompt_tokens,
            self.receipt.usage.completion_tokens,
            self.receipt.bill(),
            if self.opened { " · its commitment opens" } else { "" },
        ));
        if let Some(why) = &self.wrong {
            screen.line(&format!("  {why}"));
        }
    }
}

/// The statement inside a bundle.
fn statement_of(evidence: &[u8]) -> Option<Vec<u8>> {
    cocoon_attestation::Bundle::decode(evidence).ok().map(|bundle| bundle.statement)
}

/// Everything that comes from files, read and parsed: what fails here is a mistake in usage, not a verdict.
struct Inputs {
    evidence: Vec<u8>,
    endorsements: Endorsements,
    anchors: TrustAnchors,
    exceptions: Exceptions,
    policy: Option<Policy>,
    context: Context,
}

impl Inputs {
    fn read(arguments: &Arguments) -> Result<Self, Failure> {
        let mut names = arguments.allow.clone();
        let policy = match &arguments.policy {
            Some(path) => {
                let text = String::from_utf8_lossy(&read_file(path)?).into_owned();
                let policy = Policy::from_toml(&text).map_err(|error| {
                    Failure::usage(format!("{}: {error}", path.display()), "mend the line it names")
                })?;
                names.extend(policy.exceptions.iter().cloned());
                Some(policy)
            }
            None => None,
        };
        let exceptions = Exceptions::parse(names.iter().map(String::as_str))
            .map_err(|error| Failure::usage(error.to_string(), "see `cocoon verify --help` for the names"))?;
        let mut anchors = TrustAnchors::hardware();
        if let Some(path) = &arguments.simulated_root {
            anchors = anchors.with_simulated_root(&read_file(path)?).map_err(|error| {
                Failure::usage(format!("{}: {error}", path.display()), "give the root certificate as DER")
            })?;
        }
        let now = arguments.at.unwrap_or_else(present);
        let beacon = arguments.beacon.as_deref().map(read_beacon).transpose()?;
        Ok(Self {
            evidence: read_file(&arguments.evidence)?,
            endorsements: read_endorsements(&arguments.endorsements)?,
            anchors,
            exceptions,
            policy,
            context: Context { now, beacon, nonce: arguments.nonce },
        })
    }
}

fn judge(arguments: &Arguments, inputs: Inputs) -> Verdict {
    let Inputs { evidence, endorsements, anchors, exceptions, policy, context } = inputs;
    let verified = Evidence::detect(&evidence)
        .and_then(|evidence| verify(&evidence, &endorsements, &anchors, &exceptions, context.now))
        .and_then(|genuine| match arguments.report_data {
            Some(expected) => genuine.with_report_data(&expected),
            None => Ok(genuine),
        });
    let verdict = |result: Result<Verdict, Refusal>| result.unwrap_or_else(|refusal| Verdict::from(&refusal));
    verdict(match policy {
        None => verified.map(|genuine| Verdict::from(&genuine)),
        Some(policy) => verified
            .and_then(|genuine| policy.appraise(genuine, &context))
            .map(|trusted| Verdict::from(&trusted)),
    })
}

fn show(verdict: &Verdict, with_policy: bool) {
    let screen = Screen::new(false);
    for check in &verdict.checks {
        screen.check(check);
    }
    screen.line("");
    let word = verdict.verdict.to_uppercase();
    let coloured = if verdict.exit_code() == 0 { screen.good(&word) } else { screen.bad(&word) };
    let simulated = if verdict.simulated {
        screen.warn(" · SIMULATED: no hardware vouches for this")
    } else {
        String::new()
    };
    screen.line(&format!("{} {coloured} ({}){simulated}", screen.bold("verdict"), verdict.platform));
    if let Some(reason) = &verdict.refusal {
        screen.line(&format!("  check      {}", reason.check));
        screen.line(&format!("  expected   {}", reason.expected));
        screen.line(&format!("  found      {}", reason.got));
        screen.line(&format!("  means      {}", reason.likely));
        screen.line(&format!("  what to do {}", reason.remedy));
    } else if !with_policy {
        screen.line("  Nothing was compared with expected measurements: give --policy FILE for that.");
    }
}

fn present() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()))
}

/// Reads a file up to [`MAX_FILE`] bytes, whatever it says of its own length.
fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    use std::io::Read;
    use std::os::unix::fs::FileTypeExt;
    let unreadable = |error: std::io::Error| {
        Failure::usage(format!("cannot read {}: {error}", path.display()), "check the name")
    };
    let kind = std::fs::metadata(path).map_err(unreadable)?.file_type();
    if kind.is_dir() || kind.is_fifo() || kind.is_socket() {
        return Err(Failure::usage(format!("{} is not a file", path.display()), "name a file"));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE {
        let what = format!("{} is longer than {MAX_FILE} bytes", path.display());
        return Err(Failure::usage(what, "this is not evidence, an endorsement or a policy"));
    }
    Ok(bytes)
}

fn read_endorsements(paths: &[PathBuf]) -> Result<Endorsements, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let mut entries: Vec<PathBuf> = std::fs::read_dir(path)
                .and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect())
                .explain(
                    || format!("cannot read the folder {}", path.display()),
                    "check its name and owner",
                )?;
            entries.retain(|entry| entry.is_file());
            entries.sort();
            entries.truncate(MAX_FILES + 1);
            for entry in entries {
                files.push(read_file(&entry)?);
            }
        } else {
            files.push(read_file(path)?);
        }
    }
    Endorsements::from_files(files)
        .map_err(|error| Failure::usage(error.to_string(), "name fewer or smaller files"))
}

fn read_beacon(path: &Path) -> Result<KnownBlock, Failure> {
    let wrong = |why: String| {
        Failure::usage(
            format!("{} is not a beacon: {why}", path.display()),
            r#"write {"seqno": 1, "root_hash": "64 hex digits", "time": 1700000000}"#,
        )
    };
    let file: BeaconFile =
        serde_json::from_slice(&read_file(path)?).map_err(|error| wrong(error.to_string()))?;
    let root_hash = parse_hex32(&file.root_hash).map_err(wrong)?;
    Ok(KnownBlock { seqno: file.seqno, root_hash, time: UnixTime(file.time) })
}

fn parse_time(text: &str) -> Result<UnixTime, String> {
    let seconds = text.parse().ok().map(UnixTime);
    seconds
        .or_else(|| UnixTime::from_rfc3339(text))
        .ok_or_else(|| "write Unix seconds, or 2026-03-16T22:06:09Z".to_owned())
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|error| format!("{} hex digits are needed: {error}", 2 * N))?;
    Ok(bytes)
}

fn parse_hex32(text: &str) -> Result<[u8; 32], String> {
    parse_hex(text)
}

fn parse_hex64(text: &str) -> Result<[u8; 64], String> {
    parse_hex(text)
}
