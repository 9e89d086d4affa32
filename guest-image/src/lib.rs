//! Predicts, from files alone, what a guest's registers will hold. Pure: files come as bytes, nothing is started.
//!
//! - [`process`]: the guest service as a child process beside an emulated TDX module.

mod process;

pub use process::{COMMAND_LINE, ProcessImage};
