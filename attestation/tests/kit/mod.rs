//! Look-alikes of vendors that really sign, for tables in which every rule has a good row and bad rows.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of test helpers, shared by several test crates")]

pub mod amd;
pub mod der;
