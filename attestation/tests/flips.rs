//! Every single byte of statement, quote and bundle, changed, leads to a refusal.

mod common;

use common::Platform;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Bits flipped per byte: one low, one high, and one that walks.
fn masks(at: usize) -> [u8; 3] {
    [0x01, 0x80, 1 << (at % 8)]
}

fn accepted(platform: &Platform, original: &[u8], masks_of: impl Fn(usize) -> Vec<u8>) -> Vec<(usize, u8)> {
    let mut accepted = Vec::new();
    for at in 0..original.len() {
        for mask in masks_of(at) {
            let mut changed = original.to_vec();
            changed[at] ^= mask;
            let trusted = catch_unwind(AssertUnwindSafe(|| platform.trust(&changed).is_ok()));
            if trusted.unwrap_or_else(|_| panic!("byte {at} ^ {mask:#x} panicked")) {
                accepted.push((at, mask));
            }
        }
    }
    accepted
}

#[test]
fn the_unchanged_bundle_is_trusted() {
    let platform = Platform::new();
    let trusted = platform.trust(&platform.bundle().encode()).expect("nothing was changed");
    assert!(trusted.simulated());
    assert!(trusted.checks().iter().any(|check| check.got.contains("SIMULATED")));
}

#[test]
fn no_changed_byte_of_a_bundle_is_trusted() {
    let platform = Platform::new();
    let bytes = platform.bundle().encode();
    println!("{} bytes", bytes.len());
    assert_eq!(accepted(&platform, &bytes, |at| vec![1 << (at % 8)]), []);
}

#[test]
fn no_changed_byte_of_a_statement_is_trusted() {
    let platform = Platform::new();
    let bundle = platform.bundle();
    for at in 0..bundle.statement.len() {
        for mask in masks(at) {
            let mut changed = bundle.clone();
            changed.statement[at] ^= mask;
            assert!(platform.trust(&changed.encode()).is_err(), "byte {at} ^ {mask:#x}");
        }
    }
}

#[test]
fn no_changed_byte_of_a_quote_is_genuine() {
    let platform = Platform::new();
    let bundle = platform.bundle();
    for at in 0..bundle.quote.len() {
        for mask in masks(at) {
            let mut changed = bundle.clone();
            changed.quote[at] ^= mask;
            assert!(platform.verify(&changed).is_err(), "byte {at} ^ {mask:#x}");
        }
    }
}

#[test]
fn no_cut_or_lengthened_bundle_is_trusted() {
    let platform = Platform::new();
    let bytes = platform.bundle().encode();
    for length in 0..bytes.len() {
        assert!(platform.trust(&bytes[..length]).is_err(), "cut to {length}");
    }
    for byte in [0, 1, 0xff] {
        assert!(platform.trust(&[&bytes[..], &[byte]].concat()).is_err());
    }
}
