//! An error for people: what happened, to what, and what to do about it.

use std::fmt;

use cocoon_accounts::StoreError;

use crate::ui::printable;

/// Exit codes: 1 is our own fault or the machine's, 2 a mistake in usage; `verify` has more of its own.
pub(crate) const EXIT_FAILURE: u8 = 1;
pub(crate) const EXIT_USAGE: u8 = 2;

/// What went wrong, with the remedy. Printed as two lines.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) what: String,
    pub(crate) remedy: String,
    pub(crate) exit: u8,
}

impl Failure {
    pub(crate) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into(), exit: EXIT_FAILURE }
    }

    pub(crate) fn usage(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { exit: EXIT_USAGE, ..Self::new(what, remedy) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Errors quote gateways, workers and files.
        write!(f, "error: {}", printable(&self.what))?;
        if !self.remedy.is_empty() {
            write!(f, "\nwhat to do: {}", printable(&self.remedy))?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

/// What to do about books that do not open. `in_use` is for those that another process has open, and for no others: ending a
/// process mends no file.
pub(crate) fn books_remedy(error: &StoreError, in_use: &'static str) -> &'static str {
    match error {
        StoreError::Locked { .. } => in_use,
        StoreError::Corrupt { .. } | StoreError::Damaged { .. } => {
            "put a copy of the file back; delete it only if nothing is owed by or to its channels"
        }
        StoreError::Schema { .. } => "use the version of this program that wrote them",
        _ => "check that the disk has room, and that the file and its folder may be written",
    }
}

/// An error of a library with its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Adds what was being done and what to do to any error.
pub(crate) trait Explain<T> {
    fn explain(self, what: impl FnOnce() -> String, remedy: &str) -> Result<T, Failure>;
}

impl<T, E: std::error::Error> Explain<T> for Result<T, E> {
    fn explain(self, what: impl FnOnce() -> String, remedy: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(format!("{}: {}", what(), chain(&error)), remedy))
    }
}
