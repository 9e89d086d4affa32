//! The books of a channel's two ends: what is owed, what vouchers cover, what the chain has paid.
//!
//! ```text
//!           AccountState: the rules of the money, pure
//!                │
//!  PayeeBook ─► PayeeBackend ─┬─ redb file of one process ───── Slot ─► Store (one writer, one fsync for all that wait)
//!                             └─ PostgreSQL, shared by gateways (crate cocoon-accounts-postgres)
//!  PayerBook ────────────────────────────────────────────────── Slot ─► Store
//! ```
//!
//! - [`PayeeBook`]: for those who are paid (a gateway by clients, a host by gateways). It checks and keeps vouchers,
//!   sets the worst case of a request aside before work, and makes an answer wait when a window is unpaid.
//! - [`PayerBook`]: for those who pay. It remembers the highest amount ever signed. It is never shared: each gateway
//!   process has its own channels to hosts, with its own key, so that no two can sign for one channel.
//! - [`PayerAgent`]: pays in step on one channel, and concedes only what broken answers explain. [`PayerKeeper`] tops its
//!   channels up and closes them.
//! - [`PayeeAgent`]: checks channels on the chain, settles, and answers a payer who closes.
//! - [`Store`]: the redb file under both, with an fsync before anything is acknowledged, a schema and migrations.
//! - [`PayeeSummary`] and [`PayerSummary`]: what is owed, paid and at risk, of books that are open or of a file.
//! - [`authorization`]: the proof that a request on a channel comes from its payer.
//! - [`prices`]: from the registry's words to what a bill is computed with.
//! - [`relay()`]: meters a sealed answer on its way through, and charges for it.
//! - [`Disk`] and [`with_clock`]: seams for a simulation of many processes in one (`tests/simulation`).
//! - [`http`] and [`server`]: the routes of a payee, and a server that bounds what its peers can take.
//!
//! What survives a crash at any instruction: every acknowledged voucher, every amount signed, and what is owed up to
//! one window.

mod account;
mod agent;
pub mod authorization;
mod clock;
mod disk;
mod errors;
mod fresh;
pub mod http;
mod impatient;
mod keeper;
mod local;
mod look;
mod outage;
mod payee;
mod payer;
mod paying;
pub mod prices;
mod relay;
mod reservation;
mod row;
mod schema;
pub mod server;
mod settle;
mod slot;
mod status;
mod store;
mod summary;

pub use account::{
    Account, AccountState, ChannelFacts, MAX_STREAMS_PER_CHANNEL, RENT, check_voucher, is_fresh,
};
pub use agent::{AgentOptions, COLLECT_AT, PayeeAgent, Settlement};
pub use authorization::{AuthorizationError, authorize, check};
pub use clock::{WallClock, unix_seconds, with_clock};
pub use disk::{Disk, Write};
pub use errors::{AnnounceError, ChargeError, PayError, ReserveError, VoucherError};
pub use http::ApiRefusal;
pub use keeper::{KeepError, Kept, PayerKeeper, PayerPolicy};
pub use payee::{
    ChainNews, Hold, MAX_CHANNELS, PayeeBackend, PayeeBook, PayeeOptions, Unsettled, WalletTurn,
};
pub use payer::{PayerBook, PayerState, PayerStream, Quiet};
pub use paying::{PayeeLink, PayerAgent, PayerOptions};
pub use relay::{RelayError, RelayOptions, relay};
pub use reservation::Reservation;
pub use row::{decode_terms, encode_terms};
pub use schema::SCHEMA;
pub use settle::SETTLEMENT_FEE;
pub use status::{STATUS_SOCKET, Status, StatusSocket};
pub use store::{MAX_PENDING_WRITES, Store, StoreError};
pub use summary::{OfChannel, PayeeFigures, PayeeSummary, PayerFigures, PayerSummary};
