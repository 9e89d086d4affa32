//! TLS 1.3 whose peers are attested: a connection exists only to a [`Trusted`](cocoon_attestation::Trusted) peer.
//!
//! A guest's certificate is self-signed and carries its evidence bundle ([`issue`]). The other side's handshake runs all of
//! [`cocoon_attestation::verify`] and [`Policy::appraise`](cocoon_attestation::Policy::appraise) over it, and asks that the
//! statement in it names the very key that signs the handshake. Whoever relays genuine evidence has not that key.
//!
//! - [`client`] and [`server`] give a configuration for **one** connection, and a [`Peer`] that hands out, after the
//!   handshake, the `Trusted` of that handshake.
//! - TLS 1.2 is not spoken, sessions are never resumed, and names and validity dates in certificates mean nothing:
//!   freshness is the statement's.
//! - Trust ends at [`Trusted::fresh_until`](cocoon_attestation::Trusted::fresh_until): close the connection by then.
//!
//! This is a transport for those who need one, and never the only binding: prompts are sealed to the statement's seal key.
//!
//! ```
//! # fn example(verifier: std::sync::Arc<cocoon_ratls::Verifier>) -> Result<(), Box<dyn std::error::Error>> {
//! use rustls::pki_types::ServerName;
//!
//! let (configuration, peer) = cocoon_ratls::client(&verifier, None)?;
//! let mut connection = rustls::ClientConnection::new(configuration, ServerName::try_from("guest")?)?;
//! // … drive the handshake over a transport of your own until it is done …
//! # if connection.is_handshaking() { return Ok(()) }
//! let trusted = peer.trusted(&connection)?;
//! println!("speaking to {}, until {}", trusted.image(), trusted.fresh_until());
//! # Ok(()) }
//! ```

mod certificate;
mod configuration;
mod der;
mod error;
mod verifier;

pub use certificate::{Identity, MAX_TLS_CERTIFICATE, TlsKey, issue};
pub use configuration::{Peer, client, server, server_for_anybody};
pub use error::{CannotIssue, NotAttested};
pub use verifier::{Knowledge, Verifier};
