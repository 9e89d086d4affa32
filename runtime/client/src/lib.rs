//! The client's side: verify a worker, seal to it, open and check its answer, pay for exactly that.
//!
//! - [`Client`]: one user of one gateway, with a wallet, a channel and a policy.
//! - [`Peer`]: a worker whose evidence was verified and appraised; the only thing that can be asked.
//! - [`Answering`]: an answer on its way, with its payment kept in step.
//! - [`proxy`]: the local OpenAI endpoint.
//!
//! A gateway is believed in nothing: bundles are verified here, usage is counted from authenticated frames, and the
//! voucher is for what those frames say.

mod answering;
mod channel;
mod client;
mod deposit;
mod error;
mod gateway;
mod outline;
mod peer;
mod policy;
pub mod proxy;
mod recount;
mod salt;

pub use answering::{Answering, Event, Finished, Timing};
pub use channel::{ChannelOptions, MAX_CONCESSION, OpenChannel};
pub use client::{Client, ClientOptions};
pub use error::ClientError;
pub use gateway::GatewayApi;
pub use peer::Peer;
pub use policy::{PolicyError, PolicySource, policy_from_registry};
pub use recount::{Recount, TokenCounter};
pub use salt::CacheSalt;
