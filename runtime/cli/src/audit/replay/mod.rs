//! `cocoon audit replay`: runs an answer again, and compares it with what its receipt commits to, token by token.

mod papers;
mod rerun;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cocoon_engine::{AnyModel, Identity, Tokenizer};
use cocoon_protocol::{Kernels, Receipt};
use serde::Serialize;
use serde_json::json;

use self::papers::{Did, Files, Papers};
use self::rerun::Compared;
use crate::error::Failure;
use crate::ui::{Screen, counted, print, printable, shorten};
use crate::verify::read_file;
use crate::wiring::model_file;

/// Most threads that may be asked for.
const MAX_THREADS: i64 = 1024;

#[derive(clap::Args)]
#[command(after_help = "\
Runs on any CPU, also what a GPU answered: neither the instruction set nor the number of threads changes a bit. The opening
holds the prompt and the answer as tokens; it is shown as text with --text alone. Whether hardware vouches for the bundle's
statement, `cocoon verify` says.
Exit codes: 0 the same tokens, 3 not the same, 4 a signature or a commitment does not hold, 5 a file is malformed,
6 something that is needed is missing: this engine, this model, or tokens to compare with; 1 our own fault, 2 usage.")]
pub(crate) struct Arguments {
    /// The signed receipt, as `cocoon demo` and `cocoon chat --keep` keep it
    receipt: PathBuf,
    /// The opening of its commitment, which only the client gets [default: opening.cbor beside the receipt]
    #[arg(long, value_name = "FILE")]
    opening: Option<PathBuf>,
    /// The evidence bundle of its guest, for the key that signed [default: bundle.cmw beside the receipt]
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// The model that answered: a GGUF, a Hugging Face folder or its archive [default: the demo model, if ./scripts/demo
    /// fetched it]
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    /// Threads that compute [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_THREADS))]
    threads: Option<u32>,
    /// Show the prompt and the answer, which is private, as text
    #[arg(long)]
    text: bool,
    /// One JSON object instead
    #[arg(long)]
    json: bool,
}

/// What it comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Same,
    Different,
    Unverified,
    Malformed,
    Unavailable,
}

impl Word {
    /// As `cocoon verify` has them.
    fn exit_code(self) -> u8 {
        match self {
            Self::Same => 0,
            Self::Different => 3,
            Self::Unverified => 4,
            Self::Malformed => 5,
            Self::Unavailable => 6,
        }
    }
}

/// Why nothing was compared, or why what was compared is not the same.
#[derive(Debug, PartialEq, Eq)]
struct Stop {
    word: Word,
    why: String,
}

impl Stop {
    fn new(word: Word, why: impl Into<String>) -> Self {
        Self { word, why: why.into() }
    }
}

/// Prompt and answers as text, where that was asked for.
struct Text {
    prompt: String,
    answers: Vec<String>,
}

/// All that there is to say.
#[derive(Default)]
struct Report {
    /// Once it is known to be signed and opened.
    receipt: Option<Receipt>,
    compared: Option<Compared>,
    /// Vectors were compared, and not what was written.
    vectors: bool,
    text: Option<Text>,
    stop: Option<Stop>,
}

impl Report {
    fn word(&self) -> Word {
        match (&self.stop, &self.compared) {
            (Some(stop), _) => stop.word,
            (None, Some(Compared { difference: None, .. })) => Word::Same,
            (None, _) => Word::Different,
        }
    }

    /// In words, if it is not the same.
    fn why(&self) -> Option<String> {
        let difference = self.compared.as_ref().and_then(|compared| compared.difference.as_ref());
        self.stop.as_ref().map(|stop| stop.why.clone()).or_else(|| difference.map(ToString::to_string))
    }

    fn as_json(&self) -> serde_json::Value {
        let receipt = self.receipt.as_ref();
        json!({
            "verdict": self.word(),
            "same": self.word() == Word::Same,
            "why": self.why(),
            "request_id": receipt.map(|receipt| hex::encode(receipt.request_id)),
            "model": receipt.map(|receipt| hex::encode(receipt.model)),
            "engine": receipt.map(|receipt| receipt.engine),
            "replayable": receipt.map(|receipt| receipt.engine.is_replayable()),
            "outcome": receipt.map(|receipt| receipt.outcome),
            "compared_tokens": self.compared.as_ref().map(|compared| compared.tokens),
            "difference": self.compared.as_ref().and_then(|compared| compared.difference.as_ref()),
            "prompt": self.text.as_ref().map(|text| &text.prompt),
            "answers": self.text.as_ref().map(|text| &text.answers),
        })
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let screen = Screen::new(arguments.json);
    let report = report(arguments, &screen)?;
    if arguments.json {
        print(&report.as_json().to_string())?;
    } else {
        show(&screen, &report);
    }
    Ok(ExitCode::from(report.word().exit_code()))
}

/// # Errors
/// Files that cannot be read.
fn report(arguments: &Arguments, screen: &Screen) -> Result<Report, Failure> {
    let beside = |named: &Option<PathBuf>, name: &str| {
        let folder = arguments.receipt.parent().unwrap_or(Path::new(""));
        read_file(&named.clone().unwrap_or_else(|| folder.join(name)))
    };
    let receipt = read_file(&arguments.receipt)?;
    let opening = zeroize::Zeroizing::new(beside(&arguments.opening, "opening.cbor")?);
    let bundle = beside(&arguments.bundle, "bundle.cmw")?;
    let files = Files { receipt: &receipt, opening: &opening, bundle: &bundle };
    let stopped = |stop| Ok(Report { stop: Some(stop), ..Report::default() });
    let papers = match Papers::open(&files) {
        Ok(papers) => papers,
        Err(stop) => return stopped(stop),
    };
    let mut report = Report { receipt: Some(papers.receipt.clone()), ..Report::default() };
    let did = match papers.check(&Identity::current()) {
        Ok(did) => did,
        Err(stop) => {
            report.stop = Some(stop);
            return Ok(report);
        }
    };
    let path = model_file(arguments.model.clone())?;
    let threads = arguments.threads.unwrap_or(0);
    let compared = match (papers::model(&path, &papers.receipt.model, screen)?, did) {
        (Err(stop), _) => Err(stop),
        (Ok(AnyModel::Text(model)), Did::Wrote(run)) => {
            let written = run.written.iter().map(|written| written.tokens.as_slice());
            report.text = arguments.text.then(|| text(model.tokenizer(), [run.prompt.as_slice()], written));
            rerun::compare(model, run, threads, screen)
        }
        (Ok(AnyModel::Vectors(model)), Did::Embedded(embedded)) => {
            report.vectors = true;
            let inputs = embedded.inputs.iter().map(|input| input.as_slice());
            report.text = arguments.text.then(|| text(model.tokenizer(), inputs, []));
            rerun::embed(model, embedded, threads, screen)
        }
        (Ok(AnyModel::Text(_)), Did::Embedded(_)) => {
            Err(Stop::new(Word::Different, "this model makes no vectors, and cannot have made these"))
        }
        (Ok(AnyModel::Vectors(_)), Did::Wrote(_)) => {
            Err(Stop::new(Word::Different, "this model writes no text, and cannot have written this"))
        }
    };
    match compared {
        Ok(compared) => report.compared = Some(compared),
        Err(stop) => report.stop = Some(stop),
    }
    Ok(report)
}

/// Tokens as text: of a prompt, or of texts that became vectors, one below the other.
fn text<'t>(
    tokenizer: &Tokenizer,
    prompts: impl IntoIterator<Item = &'t [u32]>,
    answers: impl IntoIterator<Item = &'t [u32]>,
) -> Text {
    let known = |tokens: &[u32]| tokens.iter().all(|token| (*token as usize) < tokenizer.vocab_size());
    let of = |tokens: &[u32]| match known(tokens) {
        true => String::from_utf8_lossy(&tokenizer.decode(tokens)).into_owned(),
        false => "(tokens that the model does not have)".to_owned(),
    };
    let prompts: Vec<String> = prompts.into_iter().map(of).collect();
    Text { prompt: prompts.join("\n"), answers: answers.into_iter().map(of).collect() }
}

fn show(screen: &Screen, report: &Report) {
    if let Some(receipt) = &report.receipt {
        let engine = &receipt.engine;
        screen.line(&format!("{} {}", screen.bold("replay of request"), hex::encode(receipt.request_id)));
        screen.detail("engine", &format!("{} {}", engine.release(), shorten(&hex::encode(engine.digest))));
        if let Kernels::Gpu(kernels) = engine.kernels {
            let kernels = shorten(&hex::encode(kernels));
            screen.detail(
                "kernels",
                &format!("{kernels} on a GPU; replayed on this CPU, whose bits they give"),
            );
        }
        screen.detail("model", &shorten(&hex::encode(receipt.model)));
        let usage = &receipt.usage;
        screen.detail("tokens", &format!("{} + {}", usage.prompt_tokens, usage.completion_tokens));
    }
    if let Some(text) = &report.text {
        screen.detail("prompt", &printable(&text.prompt));
        text.answers.iter().for_each(|answer| screen.detail("answer", &printable(answer)));
    }
    screen.line("");
    let why = report.why().unwrap_or_default();
    match report.word() {
        Word::Same => {
            let tokens = report.compared.as_ref().map_or(0, |compared| compared.tokens as u64);
            let tokens = counted(tokens, "token");
            let text = match report.vectors {
                true => format!(
                    "SAME: this engine makes the very vectors of {tokens} that the receipt commits to"
                ),
                false => format!("SAME: this engine writes {tokens} as the receipt has them"),
            };
            screen.line(&screen.good(&text));
        }
        Word::Different => screen.line(&screen.bad(&format!("NOT THE SAME: {why}"))),
        Word::Unverified => screen.line(&screen.bad(&format!("UNVERIFIED: {why}"))),
        Word::Malformed => screen.line(&screen.bad(&format!("MALFORMED: {why}"))),
        Word::Unavailable => screen.line(&screen.warn(&format!("UNAVAILABLE: {why}"))),
    }
    if report.word() == Word::Same {
        screen.line(&screen.dim(
            "Proven by it: the receipt's model and engine give these tokens for this prompt and sampler.\n\
             Not proven by it: that the guest ran them. Its statement says which program ran: cocoon verify --receipt.",
        ));
    }
}
