//! Predicts, from files alone, what a guest's registers will hold. Pure: files come as bytes, nothing is started.
//!
//! - [`manifest`]: what an image is, as JSON with one spelling;
//! - [`verity`]: dm-verity's tree;
//! - [`process`]: the guest service as a child process beside an emulated TDX module.

mod hex_bytes;
pub mod manifest;
mod process;
pub mod verity;

pub use hex_bytes::{HexBytes, Sha256, Sha384};
pub use process::{COMMAND_LINE, ProcessImage};
