//! The books of a channel's two ends: what is owed, what vouchers cover, what the chain has paid.
//!
//! - [`PayeeBook`]: for those who are paid (a gateway by clients, a host by gateways). It checks and keeps vouchers,
//!   sets the worst case of a request aside before work, and makes an answer wait when a window is unpaid.
//! - [`PayerBook`]: for those who pay. It remembers the highest amount ever signed.
//! - [`PayerAgent`]: pays in step on one channel, and concedes only what broken answers explain.
//! - [`Store`]: the redb file under both, with an fsync before anything is acknowledged.
//! - [`authorization`]: the proof that a request on a channel comes from its payer.
//! - [`prices`]: from the registry's words to what a bill is computed with.
//! - [`relay()`]: meters a sealed answer on its way through, and charges for it.
//! - [`http`] and [`server`]: the routes of a payee, and a server that bounds what its peers can take.
//! - [`PayeeAgent`]: checks channels on the chain, settles, and answers a payer who closes.
//!
//! What survives a crash at any instruction: every acknowledged voucher, every amount signed, and what is owed up to
//! one window.

mod agent;
pub mod authorization;
mod errors;
pub mod http;
mod payee;
mod payer;
mod paying;
pub mod prices;
mod relay;
mod reservation;
mod row;
pub mod server;
mod store;

pub use agent::{AgentOptions, PayeeAgent, Settlement};
pub use authorization::{AuthorizationError, authorize, check, unix_seconds};
pub use errors::{AnnounceError, ChargeError, PayError, ReserveError, VoucherError};
pub use http::ApiRefusal;
pub use payee::{ChannelFacts, MAX_CHANNELS, MAX_STREAMS_PER_CHANNEL, PayeeBook, PayeeOptions, Unsettled};
pub use payer::{PayerBook, PayerState, PayerStream, Quiet};
pub use paying::{PayeeLink, PayerAgent, PayerOptions};
pub use relay::{RelayError, RelayOptions, relay};
pub use reservation::Reservation;
pub use store::{MAX_PENDING_WRITES, SCHEMA, Store, StoreError};
