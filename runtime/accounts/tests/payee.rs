//! The payee's sentences, over the redb file.

mod common;
mod suite;

suite::payee_suite!(async { common::File::new() });
