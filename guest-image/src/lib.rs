//! Predicts, from files alone, what a guest's registers will hold. Pure: files come as bytes, nothing is started.
//!
//! - [`config_disk`]: how the configuration reaches a guest;
//! - [`cpio`]: the initial RAM disk;
//! - [`manifest`]: what an image is, as JSON with one spelling;
//! - [`verity`]: dm-verity's tree;
//! - [`process`]: the guest service as a child process beside an emulated TDX module.

pub mod config_disk;
pub mod cpio;
mod hex_bytes;
pub mod manifest;
mod process;
pub mod verity;

pub use hex_bytes::{HexBytes, Sha256, Sha384};
pub use manifest::Manifest;
pub use process::{COMMAND_LINE, ProcessImage, runtime_register};
