//! How many vouchers one core verifies in a second: `cargo run --release -p xtask -- bench vouchers`.
//!
//! Each is another one, as it comes from the wire. Best of five rounds: others use the machine too.

use std::time::Instant;

use cocoon_contracts::channel::Terms;
use cocoon_contracts::{SignedVoucher, SigningKey, Voucher, message};

const NETWORK: i32 = -217;
const VOUCHERS: u64 = 4000;
const ROUNDS: usize = 5;
/// What a payee must manage on one core.
const GOAL: f64 = 20_000.0;

fn best(what: &str, encoded: &[Vec<u8>], check: impl Fn(&[u8]) -> bool) -> f64 {
    let round = |_| {
        let begun = Instant::now();
        assert!(encoded.iter().all(|bytes| check(bytes)), "{what}: a good voucher was refused");
        encoded.len() as f64 / begun.elapsed().as_secs_f64()
    };
    let best = (0..ROUNDS).map(round).fold(0.0, f64::max);
    println!("{what:<44} {best:>9.0} a second, {:>6.2} µs each", 1e6 / best);
    best
}

fn main() {
    let key = SigningKey::from_seed(&[42; 32]);
    let terms = Terms {
        payer: message::basechain([1; 32]),
        payee: message::basechain([2; 32]),
        payer_key: key.public(),
        network: NETWORK,
        nonce: 7,
        challenge_seconds: 60,
        fee_bps: 500,
        treasury: message::basechain([3; 32]),
    };
    let channel = terms.address();
    let voucher = |cumulative| {
        Voucher { network: NETWORK, channel: channel.clone(), nonce: 7, cumulative }.sign(&key).encode()
    };
    let encoded: Vec<Vec<u8>> = (1..=VOUCHERS).map(voucher).collect();
    let public = key.public();
    let decode = |bytes: &[u8]| SignedVoucher::decode(bytes).expect("they were encoded here");
    best("decode", &encoded, |bytes| decode(bytes).voucher.cumulative > 0);
    best("decode, hash of the voucher's cell", &encoded, |bytes| decode(bytes).voucher.hash() != [0; 32]);
    best("decode, address of the terms", &encoded, |bytes| decode(bytes).voucher.channel == terms.address());
    best("decode, verify the signature", &encoded, |bytes| decode(bytes).verify(&public).is_ok());
    let whole = best("decode, verify for a channel (what payees do)", &encoded, |bytes| {
        decode(bytes).verify_for(&terms).is_ok()
    });
    println!("goal: {GOAL:.0} a second: {}", if whole >= GOAL { "reached" } else { "NOT REACHED" });
}
