//! A simulated TDX platform for development networks. It really signs.
//!
//! [`SimulatedRoot`] is a whole Intel-like PKI under a fresh root: root CA, PCK CA, PCK with the SGX extensions, TCB
//! signer, both CRLs, TCB info and QE identity. [`Emulator`] is the honest platform of one guest: registers that can only be
//! extended, an attestation key, and quotes (TDX v4) that the production path verifies with nothing but the root
//! swapped. Every value that hardware would fix says SIMULATED in plain ASCII.
//!
//! Nothing here protects anything: whoever holds the root's files can sign whatever they like. A verifier believes it only
//! when handed the root by [`cocoon_attestation::TrustAnchors::with_simulated_root`], and then says SIMULATED everywhere.
//! This crate is the host's side and is never linked into the guest.
//!
//! # The wire between guest and emulator
//!
//! A unix stream socket (`tee.sock`). The guest asks, the emulator answers, any number of times:
//!
//! ```text
//! request: u8 op     ‖ u32 length, little endian ‖ payload (at most 256 KiB)
//! reply:   u8 status ‖ u32 length, little endian ‖ payload (at most 1 MiB)
//! ```
//!
//! | op | payload | reply |
//! | --- | --- | --- |
//! | 1 EXTEND | u8 index (2 or 3) ‖ 48-byte digest | empty; RTMR\[index\] = SHA-384(RTMR\[index\] ‖ digest) |
//! | 2 QUOTE | 64 bytes of report data | the quote |
//! | 3 COLLATERAL | empty | collateral JSON in canonical form |
//! | 4 BOOT | the firmware's TCG log, of a VM and before anything else | the same events as CCEL |
//!
//! Status 0 is success; 1 is a refusal, its payload the reason as text.

mod boot;
mod collateral;
mod der;
mod emulator;
mod keys;
mod pki;
mod quote;
mod store;
mod wire;

pub use boot::{BOOT_PCRS, Pcrs};
pub use collateral::Documents;
pub use emulator::{Emulator, MAX_COMMAND_LINE, Quote, ReadPcrs};
pub use keys::AttestationKey;
pub use pki::{Profile, Revoked, SimulatedRoot};
pub use quote::{Draft, Td};
pub use store::StoreError;
pub use wire::{MAX_CONNECTIONS, MAX_REPLY, MAX_REQUEST, Op, Serving, Status};
