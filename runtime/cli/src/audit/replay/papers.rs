//! What a replay goes by: a receipt that is signed, an opening that is its own, and the model that it names.

use std::io::Read;
use std::path::Path;

use cocoon_attestation::{Evidence, Statement, statement};
use cocoon_engine::{AnyModel, Identity, pack};
use cocoon_protocol::{Embedded, EngineKind, Kernels, Opening, Outcome, Receipt, Run, SignedReceipt};
use ring::digest::{SHA256, digest};

use super::{Stop, Word};
use crate::error::{Explain, Failure};
use crate::ui::Screen;

/// Most bytes of a model file, as a guest has it.
const MAX_MODEL: u64 = 1 << 40;
/// Bytes of a model that are read at once.
const PIECE: usize = 16 << 20;

/// The bytes as they were kept.
pub(super) struct Files<'f> {
    pub(super) receipt: &'f [u8],
    pub(super) opening: &'f [u8],
    pub(super) bundle: &'f [u8],
}

/// A receipt that the bundle's guest signed, and the run that it commits to.
pub(super) struct Papers {
    pub(super) receipt: Receipt,
    pub(super) did: Option<Did>,
}

/// What an opening says was done.
pub(super) enum Did {
    /// Text was written.
    Wrote(Run),
    /// Texts became vectors.
    Embedded(Embedded),
}

impl Papers {
    /// Holds the papers against each other.
    pub(super) fn open(files: &Files<'_>) -> Result<Self, Stop> {
        let malformed = |what: &str, why: String| Stop::new(Word::Malformed, format!("{what}: {why}"));
        let signed = SignedReceipt::decode(files.receipt).map_err(|e| malformed("receipt", e.to_string()))?;
        let opening = Opening::decode(files.opening).map_err(|e| malformed("opening", e.to_string()))?;
        let bytes = statement_of(files.bundle)
            .ok_or_else(|| malformed("bundle", "it is not an evidence bundle".to_owned()))?;
        let statement = Statement::decode(&bytes).map_err(|e| malformed("bundle", e.to_string()))?;

        let unverified = |why: &str| Stop::new(Word::Unverified, why);
        let receipt = signed.verify(&statement.keys.receipt).map_err(|e| unverified(&e.to_string()))?;
        if receipt.statement != statement::digest(&bytes) {
            return Err(unverified(
                "the receipt was signed under another statement of this guest: give the bundle of that time",
            ));
        }
        let models: Vec<_> = statement.models.iter().map(|model| model.weights).collect();
        if receipt.network != statement.network || !models.contains(&receipt.model) {
            return Err(unverified(
                "the receipt names a model or a network that its guest's statement does not",
            ));
        }
        if opening.commitment() != receipt.commitment {
            return Err(unverified(
                "the opening is not of this receipt's commitment: it is of another answer, or was changed",
            ));
        }
        if let Kernels::Gpu(digest) = receipt.engine.kernels
            && !statement.kernels.contains(&digest)
        {
            return Err(unverified(
                "the receipt names GPU kernels that the statement of its guest does not name",
            ));
        }
        let Opening { run, vectors, .. } = opening;
        let did = run.map(Did::Wrote).or(vectors.map(Did::Embedded));
        Ok(Self { receipt: receipt.clone(), did })
    }

    /// Whether this engine can run it again, and the receipt counts what the run holds. What a GPU answered is run on the
    /// CPU: the kernels of an engine give its bits, and where they did not, this is how it is found.
    pub(super) fn check(&self, ours: &Identity) -> Result<&Did, Stop> {
        let unavailable = |why: String| Err(Stop::new(Word::Unavailable, why));
        let engine = &self.receipt.engine;
        if engine.kind == EngineKind::Child {
            return unavailable(
                "a child engine answered, which does not give the same tokens twice: no answer of it can be replayed"
                    .to_owned(),
            );
        }
        let Some(did) = &self.did else {
            return unavailable(
                "the opening holds no tokens: the worker refused, had not begun, or there were too many to keep"
                    .to_owned(),
            );
        };
        if matches!(did, Did::Wrote(run) if run.constrained && run.grammar.is_none()) {
            return unavailable(
                "a grammar said what may come next, and it was too long for the opening to hold it"
                    .to_owned(),
            );
        }
        if engine.digest != ours.digest {
            let [major, minor, patch] = ours.version;
            return unavailable(format!(
                "it needs an engine with the digest {}, of release {}; this one is {}, of release {major}.{minor}.{patch}: \
                 replay it with the cocoon of that release",
                hex::encode(engine.digest),
                engine.release(),
                hex::encode(ours.digest),
            ));
        }
        match did {
            Did::Wrote(run) => self.counts(run)?,
            Did::Embedded(embedded) => {
                self.count("prompt", self.receipt.usage.prompt_tokens, embedded.tokens())?
            }
        }
        Ok(did)
    }

    fn count(&self, what: &str, billed: u32, held: usize) -> Result<(), Stop> {
        if billed as usize == held {
            return Ok(());
        }
        let why = format!("the receipt bills {billed} {what} tokens, and its run holds {held}");
        Err(Stop::new(Word::Different, why))
    }

    /// What is billed is what was written.
    fn counts(&self, run: &Run) -> Result<(), Stop> {
        let usage = &self.receipt.usage;
        self.count("prompt", usage.prompt_tokens, run.prompt.len())?;
        self.count("completion", usage.completion_tokens, run.completion_tokens())?;
        let outcome = self.receipt.outcome;
        let runs = outcome_of(run);
        // An answer that was whole may still not have reached its reader.
        if outcome != runs && outcome != Outcome::Cancelled {
            let why = format!("the receipt says {outcome:?}, its run {runs:?}");
            return Err(Stop::new(Word::Different, why.to_lowercase()));
        }
        let is_cut = |outcome| matches!(outcome, Outcome::Cancelled | Outcome::Error);
        if run.completion_tokens() == 0 && run.written.iter().all(|written| is_cut(written.outcome)) {
            let why = "it was broken off before its first token: there is nothing to compare";
            return Err(Stop::new(Word::Unavailable, why));
        }
        Ok(())
    }
}

/// How a guest says in a receipt that all answers of a run ended: at a limit if one of them did, and broken off if one was.
fn outcome_of(run: &Run) -> Outcome {
    let is = |outcome| run.written.iter().any(|written| written.outcome == outcome);
    let found =
        [Outcome::Error, Outcome::Cancelled, Outcome::Length].into_iter().find(|outcome| is(*outcome));
    found.unwrap_or(Outcome::Stop)
}

/// The statement inside a bundle.
fn statement_of(bundle: &[u8]) -> Option<Vec<u8>> {
    match Evidence::detect(bundle).ok()? {
        Evidence::Bundle(bundle) => Some(bundle.statement),
        _ => None,
    }
}

/// Reads the model once: the bytes that are hashed are the bytes that run. A folder's are those of its archive.
///
/// # Errors
/// The file cannot be read. Inside: it is not the model of this root.
pub(super) fn model(
    path: &Path,
    root: &[u8; 32],
    screen: &Screen,
) -> Result<Result<AnyModel, Stop>, Failure> {
    let bytes = match path.is_dir() {
        true => archive(path)?,
        false => whole(path, screen)?,
    };
    let unavailable = |why| Ok(Err(Stop::new(Word::Unavailable, why)));
    let found = digest(&SHA256, &bytes);
    if found.as_ref() != root {
        let (path, root, found) = (path.display(), hex::encode(root), hex::encode(found));
        return unavailable(format!(
            "it needs the model of SHA-256 {root}; {path} has {found}: give the right one with --model"
        ));
    }
    match AnyModel::from_bytes(bytes) {
        Ok(model) => Ok(Ok(model)),
        Err(error) => unavailable(format!("{}: {error}", path.display())),
    }
}

const REMEDY: &str = "name the model that answered with --model";

fn archive(folder: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    pack(folder, &mut bytes).explain(|| format!("cannot use {}", folder.display()), REMEDY)?;
    Ok(bytes)
}

fn whole(path: &Path, screen: &Screen) -> Result<Vec<u8>, Failure> {
    let cannot = || format!("cannot read {}", path.display());
    let file = std::fs::File::open(path).explain(cannot, REMEDY)?;
    let length = file.metadata().explain(cannot, REMEDY)?.len();
    if length > MAX_MODEL {
        return Err(Failure::usage(format!("{} has more than {MAX_MODEL} bytes", path.display()), REMEDY));
    }
    let room = usize::try_from(length).expect("64 bits");
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(room).explain(cannot, "use a machine with more memory")?;
    let mut source = file.take(length);
    while (&mut source).take(PIECE as u64).read_to_end(&mut bytes).explain(cannot, REMEDY)? > 0 {
        screen.progress(&format!("reading the model: {} %", bytes.len() * 100 / room.max(1)));
    }
    Ok(bytes)
}
