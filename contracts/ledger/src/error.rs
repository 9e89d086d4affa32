//! What can go wrong in a ledger.

/// An error of the ledger itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The file could not be read or written. Nothing of the block was kept.
    #[error(
        "the ledger's file cannot be used: {why}: check that the disk has room and that the file may be written, then start again"
    )]
    Store {
        /// What the store said.
        why: String,
    },
    /// The file is not what this program wrote.
    #[error(
        "the ledger's file is damaged or foreign ({what}): restore it from a copy, or start a new ledger in another folder; nothing was changed"
    )]
    Broken {
        /// What was unreadable.
        what: String,
    },
    /// Another process has the file open.
    #[error("the ledger in {} is open in another process: end that `cocoon chain`, or use another folder", path.display())]
    InUse {
        /// The file.
        path: std::path::PathBuf,
    },
    /// A later version of this program wrote the file.
    #[error(
        "the ledger's file has schema {found}, this program knows {known}: use the newer program, nothing was changed"
    )]
    Newer {
        /// The file's schema.
        found: u32,
        /// The newest one known here.
        known: u32,
    },
    /// The file holds another ledger.
    #[error(
        "the ledger's file began with other accounts or another network: give another folder, or the settings it began with"
    )]
    AnotherGenesis,
    /// The executor gave up on a transaction: a fault of this program.
    #[error("a transaction could not be executed ({why}): this is a fault of the ledger")]
    Execution {
        /// What it said.
        why: String,
    },
}

/// Why a message from outside was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The bytes are no message from outside.
    #[error("the message is malformed: {0}")]
    Malformed(String),
    /// The contract does not accept it: a wrong seqno, an expired or badly signed message, or no contract at all.
    #[error("cannot apply external message to current state: {0} did not accept it")]
    NotAccepted(String),
    /// Too many messages wait already.
    #[error("too many messages wait for the next block: try again in a second")]
    Busy,
}
