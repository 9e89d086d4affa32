//! A TON chain read from liteservers that are not believed.
//!
//! [`Liteservers`] is a [`cocoon_chain::Chain`]: every block and account that it returns is proven, in steps that
//! [`proof`] has as pure functions, from one key block that the user pins ([`KeyBlock`]). A server can refuse, delay or
//! lag, and is then passed over; it cannot make anything up. Messages go to several servers at once.
//!
//! Tried against servers of our own: blocks, validators and states that the tests make and sign, over the ADNL of another
//! implementation; and, for reading accounts, against answers that mainnet gave. It has not talked to a public network
//! yet.

mod chain;
mod fail;
mod peer;
pub mod proof;
mod settings;
mod wire;

pub use chain::{Clock, Liteservers};
pub use settings::{ConfigError, KeyBlock, Server, Settings, servers};
