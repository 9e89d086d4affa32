//! Why a host did not start: what happened, to what, and what to do.

use std::{io, path::PathBuf};

use cocoon_accounts::{StoreError, server::BindError};
use cocoon_chain::ChainError;

/// Why a host did not start.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Its address cannot be had.
    #[error("the host cannot start: {0}")]
    Bind(#[from] BindError),
    /// A folder cannot be made or used.
    #[error("the folder {path} cannot be used: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its accounts cannot be opened.
    #[error("the host cannot open its accounts: {0}")]
    Store(#[from] StoreError),
    /// The chain does not answer.
    #[error("the host cannot start: {0}")]
    Chain(#[from] ChainError),
    /// The guest's binary cannot be launched.
    #[error(
        "the guest binary {path} cannot be launched: {why}; build it with `cargo build --release -p cocoon-guest`"
    )]
    GuestBinary {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The model file is not there or not readable.
    #[error("the model {path} cannot be read: {source}; name a GGUF file")]
    Model {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The development network's simulated root cannot be read.
    #[error("the simulated root in {folder} cannot be read: {why}; it is made with the development network")]
    SimulatedRoot {
        /// Its folder.
        folder: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The image cannot be booted.
    #[error("the image cannot be used: {0}")]
    Image(String),
    /// The VM cannot be started.
    #[error("the VM cannot be started: {0}")]
    Vm(String),
    /// The system would not start the guest.
    #[error("the guest could not be started: {source}")]
    Launch {
        /// What the system said.
        source: io::Error,
    },
    /// The guest ended instead of serving.
    #[error("the guest did not start: it {0}")]
    GuestEnded(String),
    /// The guest did not get ready in time.
    #[error("the guest was not ready within {seconds} s ({why}); a larger model needs a larger limit")]
    GuestLate {
        /// How long was waited.
        seconds: u64,
        /// What it last said.
        why: String,
    },
    /// The guest gave no evidence.
    #[error("the guest gave no evidence: {0}")]
    NoEvidence(String),
    /// A gateway did not take the registration.
    #[error("gateway {gateway} did not take the registration: {why}")]
    NotRegistered {
        /// The gateway.
        gateway: String,
        /// Its words, or ours.
        why: String,
    },
    /// An option makes no sense.
    #[error("the host's options cannot be used: {0}")]
    Options(String),
}
