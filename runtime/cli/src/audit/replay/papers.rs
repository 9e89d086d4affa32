//! What a replay goes by: a receipt that is signed, an opening that is its own, and the model that it names.

use std::io::Read;
use std::path::Path;

use cocoon_attestation::{Evidence, Statement, statement};
use cocoon_engine::{Identity, Model};
use cocoon_protocol::{EngineKind, Kernels, Opening, Outcome, Receipt, Run, SignedReceipt};
use ring::digest::{Context, SHA256};

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
    pub(super) run: Option<Run>,
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
        if opening.commitment() != receipt.commitment {
            return Err(unverified(
                "the opening is not of this receipt's commitment: it is of another answer, or was changed",
            ));
        }
        Ok(Self { receipt: receipt.clone(), run: opening.run })
    }

    /// Whether this engine can run it again, and the receipt counts what the run holds.
    pub(super) fn check(&self, ours: &Identity) -> Result<(), Stop> {
        let unavailable = |why: String| Err(Stop::new(Word::Unavailable, why));
        let engine = &self.receipt.engine;
        if engine.kind == EngineKind::Child {
            return unavailable(
                "a child engine answered, which does not give the same tokens twice: no answer of it can be replayed"
                    .to_owned(),
            );
        }
        let Some(run) = &self.run else {
            return unavailable(
                "the opening holds no tokens: the worker refused, had not begun, or there were too many to keep"
                    .to_owned(),
            );
        };
        if run.constrained && run.grammar.is_none() {
            return unavailable(
                "a grammar said what may come next, and it was too long for the opening to hold it"
                    .to_owned(),
            );
        }
        if let Kernels::Gpu(digest) = engine.kernels {
            let digest = hex::encode(digest);
            return unavailable(format!(
                "it needs the GPU kernels {digest}, and this engine runs on the CPU"
            ));
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
        self.counts(run)
    }

    /// What is billed is what was written.
    fn counts(&self, run: &Run) -> Result<(), Stop> {
        let usage = &self.receipt.usage;
        let pairs = [
            ("prompt", usage.prompt_tokens, run.prompt.len()),
            ("completion", usage.completion_tokens, run.completion_tokens()),
        ];
        for (what, billed, held) in pairs {
            if billed as usize != held {
                let why = format!("the receipt bills {billed} {what} tokens, and its run holds {held}");
                return Err(Stop::new(Word::Different, why));
            }
        }
        // An answer that was whole may still not have reached its reader.
        let ended = |outcome| outcome == self.receipt.outcome || self.receipt.outcome == Outcome::Cancelled;
        if let [only] = run.written.as_slice()
            && !ended(only.outcome)
        {
            let why = format!("the receipt says {:?}, its run {:?}", self.receipt.outcome, only.outcome);
            return Err(Stop::new(Word::Different, why.to_lowercase()));
        }
        Ok(())
    }
}

/// The statement inside a bundle.
fn statement_of(bundle: &[u8]) -> Option<Vec<u8>> {
    match Evidence::detect(bundle).ok()? {
        Evidence::Bundle(bundle) => Some(bundle.statement),
        _ => None,
    }
}

/// Reads the model once: the bytes that are hashed are the bytes that run.
///
/// # Errors
/// The file cannot be read. Inside: it is not the model of this root.
pub(super) fn model(path: &Path, root: &[u8; 32], screen: &Screen) -> Result<Result<Model, Stop>, Failure> {
    let cannot = || format!("cannot read {}", path.display());
    let remedy = "name the GGUF that answered with --model FILE";
    let file = std::fs::File::open(path).explain(cannot, remedy)?;
    let length = file.metadata().explain(cannot, remedy)?.len();
    if length > MAX_MODEL {
        return Err(Failure::usage(format!("{} has more than {MAX_MODEL} bytes", path.display()), remedy));
    }
    let room = usize::try_from(length).expect("64 bits");
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(room).explain(cannot, "use a machine with more memory")?;
    let mut hash = Context::new(&SHA256);
    let mut source = file.take(length);
    loop {
        let before = bytes.len();
        let count = (&mut source).take(PIECE as u64).read_to_end(&mut bytes).explain(cannot, remedy)?;
        if count == 0 {
            break;
        }
        hash.update(&bytes[before..]);
        screen.progress(&format!("reading the model: {} %", bytes.len() * 100 / room.max(1)));
    }
    let unavailable = |why| Ok(Err(Stop::new(Word::Unavailable, why)));
    let found = hash.finish();
    if found.as_ref() != root {
        let (path, root, found) = (path.display(), hex::encode(root), hex::encode(found));
        return unavailable(format!(
            "it needs the model of SHA-256 {root}; {path} has {found}: give the right file with --model FILE"
        ));
    }
    match Model::from_bytes(bytes) {
        Ok(model) => Ok(Ok(model)),
        Err(error) => unavailable(format!("{}: {error}", path.display())),
    }
}
