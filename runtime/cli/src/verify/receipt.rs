//! `--receipt`: a bill that the attested key must have signed.

use std::path::Path;

use cocoon_attestation::Statement;
use cocoon_protocol::{EngineId, Opening, Receipt, SignedReceipt};
use serde::Serialize;

use super::inputs::read_file;
use crate::error::Failure;
use crate::ui::Screen;

/// A receipt and, if given, its opening.
pub(super) struct Paper {
    receipt: SignedReceipt,
    opening: Option<Opening>,
}

/// What came out of checking one.
pub(super) struct CheckedReceipt {
    receipt: Receipt,
    opened: bool,
    /// Why it does not hold.
    pub(super) wrong: Option<String>,
}

/// The same for machines, in this order.
#[derive(Serialize)]
pub(super) struct Words {
    verified: bool,
    opened: bool,
    why: Option<String>,
    request_id: String,
    model: String,
    prompt_tokens: u64,
    completion_tokens: u64,
    nanotons: u64,
    engine: EngineId,
    replayable: bool,
}

impl Paper {
    pub(super) fn read(receipt: &Path, opening: Option<&Path>) -> Result<Self, Failure> {
        let usage = |path: &Path, why: String| {
            Failure::usage(format!("{}: {why}", path.display()), "give the file as it was kept")
        };
        let signed =
            SignedReceipt::decode(&read_file(receipt)?).map_err(|error| usage(receipt, error.to_string()))?;
        let opening = match opening {
            None => None,
            Some(path) => {
                Some(Opening::decode(&read_file(path)?).map_err(|error| usage(path, error.to_string()))?)
            }
        };
        Ok(Self { receipt: signed, opening })
    }

    pub(super) fn check(self, statement: Option<&[u8]>) -> CheckedReceipt {
        let receipt = self.receipt.claimed().clone();
        let opened = self.opening.is_some();
        let wrong = self.wrong(&receipt, statement);
        CheckedReceipt { receipt, opened, wrong }
    }

    fn wrong(&self, receipt: &Receipt, statement: Option<&[u8]>) -> Option<String> {
        let Some(bytes) = statement else {
            return Some("raw evidence names no receipt key: give a bundle".to_owned());
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
    /// For machines.
    pub(super) fn words(&self) -> Words {
        Words {
            verified: self.wrong.is_none(),
            opened: self.opened && self.wrong.is_none(),
            why: self.wrong.clone(),
            request_id: hex::encode(self.receipt.request_id),
            model: hex::encode(self.receipt.model),
            prompt_tokens: self.receipt.usage.prompt_tokens.into(),
            completion_tokens: self.receipt.usage.completion_tokens.into(),
            nanotons: self.receipt.bill(),
            engine: self.receipt.engine,
            replayable: self.receipt.engine.is_replayable(),
        }
    }

    /// What it is about, on one line.
    pub(super) fn summary(&self) -> String {
        format!(
            "request {} · {} + {} tokens · {} nanotons{}",
            hex::encode(self.receipt.request_id),
            self.receipt.usage.prompt_tokens,
            self.receipt.usage.completion_tokens,
            self.receipt.bill(),
            if self.opened && self.wrong.is_none() { " · its commitment opens" } else { "" },
        )
    }

    pub(super) fn show(&self, screen: &Screen) {
        let word = if self.wrong.is_none() { screen.good("VERIFIED") } else { screen.bad("UNVERIFIED") };
        screen.line(&format!("{} {word}", screen.bold("receipt")));
        screen.line(&format!("  {}", self.summary()));
        let engine = &self.receipt.engine;
        let replay = match engine.is_replayable() {
            true => "`cocoon audit replay` runs it again",
            false => "a child: what it answered cannot be replayed",
        };
        screen.line(&format!("  engine {} · {replay}", engine.release()));
        if let Some(why) = &self.wrong {
            screen.line(&format!("  {why}"));
        }
    }
}
