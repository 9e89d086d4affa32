//! Predicts, from files alone, what a guest's registers will hold. Pure: files come as bytes, nothing is started.
//!
//! - [`config_disk`]: how the configuration reaches a guest;
//! - [`cpio`]: the initial RAM disk;
//! - [`manifest`]: what an image is, as JSON with one spelling;
//! - [`measure`]: files, machine profile and record in, registers and events out; from
//!   [`pe`] (a kernel's digest), [`tdvf`] (TDX firmware, MRTD), [`tcg`] (the events of a boot) and [`snp`] (the launch digest);
//! - [`profile`]: machines by name, and what was recorded of them;
//! - [`diff`]: what differs between a prediction and another, or evidence, in words;
//! - [`policy`]: a manifest as a release that a relying party's policy takes;
//! - [`verity`]: dm-verity's tree;
//! - [`process`]: the guest service as a child process beside an emulated TDX module.

pub mod config_disk;
pub mod cpio;
pub mod diff;
mod digest;
mod guids;
mod hex_bytes;
pub mod manifest;
pub mod measure;
pub mod pe;
pub mod policy;
mod process;
pub mod profile;
mod reader;
pub mod snp;
pub mod tcg;
pub mod tdvf;
#[cfg(test)]
mod testing;
pub mod verity;

pub use hex_bytes::{HexBytes, Sha256, Sha384};
pub use manifest::Manifest;
pub use process::{COMMAND_LINE, ProcessImage, runtime_register};
