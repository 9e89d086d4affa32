//! How `cocoon host down` and `status` reach a running host: a unix socket in its state folder, for its user alone.
//!
//! ```text
//! question: {"ask":"status"}\n or {"ask":"down"}\n, at most 256 bytes
//! answer:   one JSON object on a line, at most 1 MiB: a status, or {"ending":true}
//! ```
//!
//! After `down` the connection stays open until the host's process is gone: that is how one waits for it.

mod client;
mod server;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use client::{AskError, down, status};
pub use server::{Claim, Control, ControlError, Lifecycle, MAX_CONNECTIONS};

/// The socket's name in the state folder, and the lock's that tells a living host from a leftover.
pub const SOCKET: &str = "control.sock";
const LOCK: &str = "control.lock";
/// Longest question, in bytes.
const MAX_QUESTION: u64 = 256;
/// Longest answer, in bytes.
const MAX_ANSWER: u64 = 1 << 20;

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    ask: Ask,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Ask {
    Status,
    Down,
}

/// A host as it is now. Counts, times and names; never content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStatus {
    /// The host's process.
    pub pid: u32,
    /// How long it has run, in seconds.
    pub uptime_seconds: u64,
    /// Whether it is ending.
    pub ending: bool,
    /// Its guests.
    pub guests: Vec<GuestStatus>,
    /// What it has earned, where a chain is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub money: Option<Money>,
}

/// One guest as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestStatus {
    /// Its name.
    pub name: String,
    /// `process`, `emulation`, `tdx`, `snp`.
    pub kind: String,
    /// What it does.
    pub phase: Phase,
    /// Where gateways come to for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Its process on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// How long this run has lasted, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_seconds: Option<u64>,
    /// How often it was started again.
    pub restarts: u64,
    /// How the run before ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_end: Option<String>,
    /// Requests that were answered.
    pub served: u64,
    /// Memory that is really there, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resident_bytes: Option<u64>,
    /// How long each phase of the boot took, in order.
    pub boot: Vec<BootPhase>,
}

/// What a guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It is started, and has not answered yet.
    Booting,
    /// It serves, with evidence that is fresh.
    Serving,
    /// It ended, and is started again after a pause.
    Waiting,
    /// It ends.
    Ending,
}

/// One phase of a boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootPhase {
    /// `firmware`, `kernel`, `model`, `evidence`, …
    pub name: String,
    /// Milliseconds.
    pub millis: u64,
}

/// What a host has earned: all together, and by channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Money {
    /// All together.
    #[serde(flatten)]
    pub total: Amounts,
    /// Each channel that pays the host.
    #[serde(default)]
    pub channels: Vec<ChannelMoney>,
}

/// One channel's money.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelMoney {
    /// Its address.
    pub channel: String,
    /// Its payer closes it.
    pub closing: bool,
    /// When it does: the seconds that are left to settle in, if they are known.
    pub seconds_left: Option<u64>,
    /// Its amounts.
    #[serde(flatten)]
    pub amounts: Amounts,
}

/// Amounts in nanotons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amounts {
    /// Earned and not settled on chain.
    pub owed: u64,
    /// Settled on chain.
    pub paid: u64,
    /// What vouchers may reach.
    #[serde(default)]
    pub deposit: u64,
    /// Covered by vouchers, in all.
    #[serde(default)]
    pub covered: u64,
    /// Covered, and not settled on chain yet.
    #[serde(default)]
    pub unsettled: u64,
    /// Set aside for answers under way.
    #[serde(default)]
    pub reserved: u64,
    /// Lost if all payers leave now and nothing more is settled.
    #[serde(default)]
    pub at_risk: u64,
}
